//! `trefoil voter`: the placement processes that keep the control plane's log.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Serialize;
use trefoil_client::Trust;
use trefoil_protocol::deletion::Signers;
use trefoil_protocol::ids::NodeId;
use trefoil_protocol::message::admin::VoterStatus;
use trefoil_protocol::message::plan::{Verb, VoterVerb as Wanted};

use super::connection::Admin;
use super::plan::{PlanFlags, carry};
use crate::failure::{Failure, Verdict};
use crate::local::{LocalCluster, Seat};
use crate::output::{self, Format};

/// How long a voter may take to say who it is.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// How often is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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

/// A voter of the control plane, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VoterView {
    pub(crate) id: String,
    pub(crate) dc: String,
    /// `leader`, `follower` or `witness`.
    pub(crate) role: &'static str,
    /// `voting`, `learning` or `excused`.
    pub(crate) stand: &'static str,
    pub(crate) reachable: bool,
    /// How far its log is known to go.
    pub(crate) log: u64,
    pub(crate) control: String,
}

impl VoterView {
    /// All of them, by data centre and name.
    pub(super) fn all(voters: &[VoterStatus]) -> Vec<Self> {
        let mut all: Vec<Self> = voters.iter().map(Self::of).collect();
        all.sort_by(|one, other| (&one.dc, &one.id).cmp(&(&other.dc, &other.id)));
        all
    }

    fn of(voter: &VoterStatus) -> Self {
        let role = match (voter.leads, voter.entry.witness) {
            (true, _) => "leader",
            (false, true) => "witness",
            (false, false) => "follower",
        };
        Self {
            id: voter.entry.name.to_string(),
            dc: voter.entry.dc.to_string(),
            role,
            stand: voter.stand.name(),
            reachable: voter.reachable,
            log: voter.matched,
            control: voter.entry.control.to_string(),
        }
    }

    /// The cells of its line in a table.
    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.dc.clone(),
            self.role.to_owned(),
            self.stand.to_owned(),
            if self.reachable { "yes".to_owned() } else { "no".to_owned() },
            self.log.to_string(),
        ]
    }
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

/// Everybody who signs or signed, when nobody's key is missing any more.
pub(crate) async fn signers_when_all_are_known(admin: &Admin, within: Duration) -> Verdict<Signers> {
    let began = Instant::now();
    loop {
        let signers = admin.status().await?.signers;
        if signers.terms.iter().all(|term| term.key.is_some()) {
            return Ok(signers);
        }
        if began.elapsed() > within {
            return Err(Failure::unavailable("a voter has not said yet which key it signs with"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
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
