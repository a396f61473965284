//! `trefoil node`: the storage nodes, seen through the control plane or, stopped, by their disks.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use trefoil_protocol::config::{Duty, NodeEntry};
use trefoil_protocol::ids::StoreId;
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::plan::Verb;

use super::connection::{Admin, unexpected};
use super::plan::{self, NodeArguments};
use super::store::{self, FindArguments, StoreArguments};
use crate::failure::Verdict;
use crate::local::LocalCluster;
use crate::output::{self, Format};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// List nodes with their stores
    List,
    /// Write configuration and certificate of one more node; it joins when it is started
    Add(AddArguments),
    /// Move everything that a node holds to others, one member at a time
    Drain(NodeArguments),
    /// Let a drained node take volumes again
    Restore(NodeArguments),
    /// Forget a node that holds nothing any more
    Remove(NodeArguments),
    /// Declare a store dead for ever; it can never join again
    Fence(FenceArguments),
    /// What a stopped node's store says of itself
    Inspect(StoreArguments),
    /// Read everything in a stopped node's store and look for rot
    Scrub(StoreArguments),
    /// Build the index of a stopped node's store from its segments alone
    RebuildIndex(StoreArguments),
    /// Look for bytes in every file of a stopped node's store
    FindBytes(FindArguments),
}

/// Arguments of `node add`.
#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// The new node's id
    node: String,
    /// The cluster's folder, with its plan `cluster.toml` and its authority `ca`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Its data centre
    #[arg(long, value_name = "DC")]
    dc: String,
    /// Its rack; one of its own if left out
    #[arg(long, value_name = "RACK")]
    rack: Option<String>,
}

/// Arguments of `node fence`.
#[derive(Debug, Args)]
pub(crate) struct FenceArguments {
    /// The store's id, as `node list` shows it
    store: StoreId,
    /// Show what would be done and do nothing
    #[arg(long)]
    plan: bool,
}

#[derive(Serialize)]
struct NodeRow {
    id: String,
    dc: String,
    rack: String,
    state: &'static str,
    draining: bool,
    store: String,
    incarnation: u64,
    capacity: u64,
    addresses: Vec<String>,
    pid: u32,
}

impl NodeRow {
    fn of(node: &NodeEntry) -> Self {
        Self {
            id: node.node.to_string(),
            dc: node.dc.to_string(),
            rack: node.rack.to_string(),
            state: node.state.name(),
            draining: node.duty == Duty::Leaving,
            store: node.store.to_string(),
            incarnation: node.incarnation.0,
            capacity: node.capacity,
            addresses: node.addresses.iter().map(|link| link.address.to_string()).collect(),
            pid: node.pid,
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.dc.clone(),
            self.rack.clone(),
            if self.draining { format!("{}, draining", self.state) } else { self.state.to_owned() },
            self.store.clone(),
            output::bytes(self.capacity),
            self.addresses.join(" "),
        ]
    }
}

#[derive(Serialize)]
struct Added {
    node: String,
    configuration: String,
}

#[derive(Serialize)]
struct Fenced {
    store: String,
    done: bool,
}

/// Runs a verb; only some of them need the control plane.
pub(crate) async fn run(verb: &NodeVerb, admin: impl Fn() -> Verdict<Admin>, format: Format) -> Verdict {
    match verb {
        NodeVerb::Add(arguments) => add(arguments, format)?,
        NodeVerb::Inspect(arguments) => store::inspect(arguments, format)?,
        NodeVerb::Scrub(arguments) => store::scrub(arguments, format)?,
        NodeVerb::RebuildIndex(arguments) => store::rebuild_index(arguments, format)?,
        NodeVerb::FindBytes(arguments) => store::find_bytes(arguments, format)?,
        NodeVerb::Drain(arguments) => plan::node(Verb::DrainNode, arguments, &admin()?, format).await?,
        NodeVerb::Restore(arguments) => plan::node(Verb::RestoreNode, arguments, &admin()?, format).await?,
        NodeVerb::Remove(arguments) => plan::node(Verb::RemoveNode, arguments, &admin()?, format).await?,
        NodeVerb::List => {
            let rows: Vec<NodeRow> = admin()?.status().await?.nodes.iter().map(NodeRow::of).collect();
            format.answer(&rows, |rows| {
                let header = ["NODE", "DC", "RACK", "STATE", "STORE", "CAPACITY", "ADDRESSES"];
                output::table(&header, rows.iter().map(NodeRow::cells))
            });
        }
        NodeVerb::Fence(arguments) => {
            if !arguments.plan {
                fence(&admin()?, arguments.store).await?;
            }
            let view = Fenced { store: arguments.store.to_string(), done: !arguments.plan };
            let said = if view.done { "fenced for ever" } else { "would be fenced for ever" };
            format.answer(&view, |view| format!("store {} {said}", view.store));
        }
    }
    Ok(())
}

fn add(arguments: &AddArguments, format: Format) -> Verdict {
    let AddArguments { node, data, dc, rack } = arguments;
    let configuration = LocalCluster::add_node(data, node, dc, rack.as_deref())?;
    let added = Added { node: node.clone(), configuration: configuration.display().to_string() };
    output::note("it holds nothing until volumes are moved to it: trefoil rebalance --plan");
    format.answer(&added, |added| {
        format!("start it with: trefoil storage-node --config {}", added.configuration)
    });
    Ok(())
}

async fn fence(admin: &Admin, store: StoreId) -> Verdict {
    match admin.ask(AdminRequest::FenceStore { store }).await? {
        AdminAnswer::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}
