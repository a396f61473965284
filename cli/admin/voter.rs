//! `trefoil voter`: the placement processes that keep the control plane's log.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use trefoil_client::Trust;
use trefoil_protocol::ids::NodeId;
use trefoil_protocol::message::plan::{Verb, VoterVerb as Wanted};

use super::condition::VoterView;
use super::connection::Admin;
use super::plan::{PlanFlags, carry};
use super::wait::signers_when_all_are_known;
use crate::failure::Verdict;
use crate::local::{LocalCluster, Seat};
use crate::output::{self, Format};

/// How long a voter may take to say who it is.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum VoterVerb {
    /// List the voters, and those that only follow the log
    List,
    /// Write configuration and certificate of one more placement process; it asks to join when it is started
    Prepare(PrepareArguments),
    /// Print the keys that certificates are checked against, of all who sign or signed: a trust.toml
    Trust(TrustArguments),
    /// Let a process that asks to join follow the log, and vote when it has all of it
    Add(VoterArguments),
    /// Take a voter's vote away for ever
    Remove(VoterArguments),
    /// Let a process that asks to join take a voter's place
    Replace(ReplaceArguments),
}

/// Arguments of `voter prepare`.
#[derive(Debug, Args)]
pub(crate) struct PrepareArguments {
    /// The new process's id: one that no voter ever had
    voter: String,
    /// The cluster's folder, with its plan `cluster.toml` and its authority `ca`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Its site
    #[arg(long, value_name = "DC")]
    dc: String,
    /// It only keeps the log and holds no key
    #[arg(long)]
    witness: bool,
}

/// Arguments of `voter trust`.
#[derive(Debug, Args)]
pub(crate) struct TrustArguments {
    /// The cluster's name, as in its certificates
    cluster: String,
}

/// Which voter.
#[derive(Debug, Args)]
pub(crate) struct VoterArguments {
    /// Its id
    voter: NodeId,
    #[command(flatten)]
    flags: PlanFlags,
}

/// Which voter, and who instead.
#[derive(Debug, Args)]
pub(crate) struct ReplaceArguments {
    /// The voter that leaves
    old: NodeId,
    /// The process that joins
    new: NodeId,
    #[command(flatten)]
    flags: PlanFlags,
}

#[derive(Serialize)]
struct Prepared {
    voter: String,
    configuration: String,
}

/// Runs a verb; only `prepare` needs no control plane.
pub(crate) async fn run(verb: &VoterVerb, admin: impl Fn() -> Verdict<Admin>, format: Format) -> Verdict {
    match verb {
        VoterVerb::List => {
            let rows = VoterView::all(&admin()?.status().await?.voters);
            format.answer(&rows, |rows| {
                let header = ["VOTER", "DC", "ROLE", "STAND", "REACHABLE", "LOG", "ADDRESS"];
                let row = |view: &VoterView| [view.row(), vec![view.control.clone()]].concat();
                output::table(&header, rows.iter().map(row))
            });
            Ok(())
        }
        VoterVerb::Prepare(arguments) => prepare(arguments, format),
        VoterVerb::Trust(arguments) => {
            let terms = signers_when_all_are_known(&admin()?, KNOWN_WITHIN).await?.terms;
            let trust = Trust { cluster: arguments.cluster.clone(), signers: terms };
            output::raw(trust.to_toml().as_bytes());
            Ok(())
        }
        VoterVerb::Add(VoterArguments { voter, flags }) => {
            carry(Verb::Voters(Wanted::Add(*voter)), flags, &admin()?, format).await
        }
        VoterVerb::Remove(VoterArguments { voter, flags }) => {
            carry(Verb::Voters(Wanted::Remove(*voter)), flags, &admin()?, format).await
        }
        VoterVerb::Replace(ReplaceArguments { old, new, flags }) => {
            let wanted = Wanted::Replace { old: *old, new: *new };
            carry(Verb::Voters(wanted), flags, &admin()?, format).await
        }
    }
}

fn prepare(arguments: &PrepareArguments, format: Format) -> Verdict {
    let PrepareArguments { voter, data, dc, witness } = arguments;
    let seat = Seat { id: voter, dc, witness: *witness };
    let configuration = LocalCluster::add_voter(data, seat)?;
    let prepared = Prepared { voter: voter.clone(), configuration: configuration.display().to_string() };
    output::note(&format!("when it runs: trefoil voter add {voter} --plan"));
    format.answer(&prepared, |prepared| {
        format!("start it with: trefoil placement --config {}", prepared.configuration)
    });
    Ok(())
}
