//! `trefoil dev`: a cluster of two data centres on this machine until Ctrl-C. It restarts nothing
//! by itself: what fails stays failed until somebody starts it again.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::runtime::Builder;

use crate::config;
use crate::failure::{Failure, Verdict};
use crate::local::hands::Hands;
use crate::local::{LocalCluster, Relay, Voters};
use crate::output::{self, Format};
use crate::process::{Stop, die_with_parent};
use crate::quantity;

/// How often certificates, which live a day, are issued again.
const RENEW_EVERY: Duration = Duration::from_secs(3600);

/// How long the control plane may take to say whether a voter that has ended was removed.
const ASKED_WITHIN: Duration = Duration::from_secs(3);

/// Arguments of `dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArguments {
    /// The cluster's folder; an existing cluster is continued
    #[arg(long, default_value = "trefoil-dev", value_name = "DIR")]
    data: PathBuf,
    /// How long a delete can be undone; 7 days unless the cluster exists
    #[arg(long, value_parser = quantity::duration, value_name = "TIME")]
    delete_window: Option<Duration>,
    /// Carry the links between the data centres over a relay, so that a drill can cut them
    #[arg(long)]
    relay: bool,
    /// How many processes keep the control plane's log; 1 unless the cluster exists
    #[arg(long, value_name = "NUMBER")]
    voters: Option<Voters>,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    data: String,
    started: Vec<String>,
}

/// Runs the cluster.
pub(crate) fn run(arguments: &DevArguments, format: Format) -> Verdict {
    die_with_parent()?;
    // One thread, the main one, which lives as long as the program: children die with the thread
    // that started them.
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(keep(arguments, format))
}

async fn keep(arguments: &DevArguments, format: Format) -> Verdict {
    let mut stop = Stop::listen()?;
    let (layout, plan) = LocalCluster::plan(&arguments.data, arguments.delete_window, arguments.voters)?;
    let relay = if arguments.relay { Some(Relay::open(&plan).await?) } else { None };
    let detours = |node: &str| relay.as_ref().map_or_else(Vec::new, |relay| relay.detours(node));
    let mut cluster = LocalCluster::prepare(layout, plan, detours)?;
    // What an earlier run left says nothing about this one.
    let _ = fs::remove_file(cluster.layout.ready());
    let started = cluster.start_missing()?;
    tokio::select! {
        settled = cluster.settle() => drop(settled?),
        () = stop.asked() => {
            cluster.processes.stop();
            return Ok(());
        }
    }
    let mut hands = Hands::open(&cluster.layout, relay)?;
    config::write_whole(&cluster.layout.ready(), b"ready\n", 0o644)?;
    let ready = Ready { ready: true, data: cluster.layout.root().display().to_string(), started };
    output::note(&format!("profiles: {0}/tenants/acme.toml, {0}/admin.toml", ready.data));
    format.answer(&ready, |_| "ready".to_owned());
    watch(&mut cluster, &mut hands, &mut stop).await;
    let _ = fs::remove_file(cluster.layout.ready());
    cluster.processes.stop();
    Ok(())
}

async fn watch(cluster: &mut LocalCluster, hands: &mut Hands, stop: &mut Stop) {
    let mut issued = Instant::now();
    loop {
        tokio::select! {
            () = stop.asked() => return,
            request = hands.next() => hands.serve(request, cluster).await,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        for (name, how) in cluster.processes.reap() {
            let asked = tokio::time::timeout(ASKED_WITHIN, cluster.forget_if_removed(&name)).await;
            if matches!(asked, Ok(Ok(true))) {
                output::note(&format!("{name} was removed from the voters: it is not started again"));
                continue;
            }
            let verb = if cluster.plan.is_placement(&name) { "placement" } else { "storage-node" };
            let root = cluster.layout.root().display();
            output::note(&format!(
                "{name} ended with {how}; start it with: trefoil {verb} --config {root}/{name}/config.toml"
            ));
        }
        if issued.elapsed() >= RENEW_EVERY {
            issued = Instant::now();
            let issued = cluster.read_plan_again().and_then(|()| cluster.issue_certificates());
            if let Err(failure) = issued {
                output::note(&format!("certificates were not renewed: {failure}"));
            }
        }
    }
}
