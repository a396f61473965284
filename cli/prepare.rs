//! `trefoil prepare`: the folder of a cluster from its plan: configurations, certificates, keys. It
//! starts nothing, so the plan may name addresses of other machines.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::failure::Verdict;
use crate::local::{LocalCluster, Voters};
use crate::output::{self, Format};

/// Arguments of `prepare`.
#[derive(Debug, Args)]
pub(crate) struct PrepareArguments {
    /// The cluster's folder; its plan is DIR/cluster.toml, and one for this machine is written if there is none
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// How many processes keep the control plane's log; 1 unless there is a plan
    #[arg(long, value_name = "NUMBER")]
    voters: Option<Voters>,
}

#[derive(Serialize)]
struct Prepared {
    cluster: String,
    data: String,
    configurations: Vec<String>,
}

/// Writes the folder.
pub(crate) fn run(arguments: &PrepareArguments, format: Format) -> Verdict {
    let (layout, plan) = LocalCluster::plan(&arguments.data, None, arguments.voters)?;
    let local = LocalCluster::prepare(layout, plan, |_| Vec::new())?;
    let configuration = |name: &String| local.layout.configuration(name).display().to_string();
    let prepared = Prepared {
        cluster: local.plan.cluster.clone(),
        data: local.layout.root().display().to_string(),
        configurations: local.servers().iter().map(configuration).collect(),
    };
    output::note(
        "a server needs its own folder, ca/ca.pem and, if it is a placement process but no witness, keys/; keep ca/ca.key to yourself",
    );
    format.answer(&prepared, |prepared| prepared.configurations.join("\n"));
    Ok(())
}
