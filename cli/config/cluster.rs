//! The plan of a development cluster, `DIR/cluster.toml`: names, places and ports that stay the same
//! from one start to the next.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `cluster.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterFile {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// How long its tenants can undo a delete.
    pub(crate) delete_window: String,
    /// The placement processes, the control plane's voters.
    pub(crate) placement: Vec<PlacementPlan>,
    /// The storage nodes.
    pub(crate) nodes: Vec<NodePlan>,
    /// The tenants, once they are made.
    #[serde(default)]
    pub(crate) tenants: Vec<TenantPlan>,
}

/// A placement process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlacementPlan {
    /// Its id and folder.
    pub(crate) id: String,
    /// Its site.
    pub(crate) dc: String,
    /// Control and admin plane.
    pub(crate) listen: SocketAddr,
    /// Tenant plane: the custodian.
    pub(crate) tenant_listen: SocketAddr,
    /// Whether it only keeps the log and holds no key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) witness: bool,
    /// Whether it joined a cluster that was there already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) join: bool,
}

impl ClusterFile {
    /// Whether a server of this name is a placement process.
    pub(crate) fn is_placement(&self, name: &str) -> bool {
        self.placement.iter().any(|voter| voter.id == name)
    }

    /// The placement processes that hold keys.
    pub(crate) fn keepers(&self) -> impl Iterator<Item = &PlacementPlan> {
        self.placement.iter().filter(|voter| !voter.witness)
    }
}

/// A storage node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodePlan {
    /// Its id and folder.
    pub(crate) id: String,
    /// Its data centre.
    pub(crate) dc: String,
    /// Its rack.
    pub(crate) rack: String,
    /// Where it listens: link 1, link 2.
    pub(crate) links: [SocketAddr; 2],
}

/// A tenant that was made, with the principal whose profile was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantPlan {
    /// Its name.
    pub(crate) name: String,
    /// Its number.
    pub(crate) tenant: u64,
    /// The principal's number.
    pub(crate) principal: u64,
}
