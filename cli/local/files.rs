//! What stands where in a local cluster's folder, and the files that are written there.

use std::fs;
use std::path::{Path, PathBuf};

use trefoil_client::shell::{Padding, ProfileFile, ProfileRole};
use trefoil_placement::shell::{KeySettings, make_keys as make};

use crate::config::cluster::{ClusterFile, NodePlan, PlacementPlan};
use crate::config::server::{DetourTable, LinkTable, NodeFile, PlacementFile, VoterTable};
use crate::config::{store, write_whole};
use crate::failure::{Failure, Verdict, at};

/// Bytes that a node of a local cluster may use.
const CAPACITY: u64 = 256 << 30;

/// The folder of a local cluster.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The cluster at `root`, an absolute path.
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Names, places and ports.
    pub(super) fn plan(&self) -> PathBuf {
        self.root.join("cluster.toml")
    }

    /// The certificate authority.
    pub(super) fn authority(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// The sealed master key and its passphrase.
    fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// Exists while the cluster is whole.
    pub(crate) fn ready(&self) -> PathBuf {
        self.root.join("ready")
    }

    /// Where a drill asks for hands.
    pub(super) fn hands(&self) -> PathBuf {
        self.root.join("hands")
    }

    /// The keys to believe.
    pub(crate) fn trust(&self) -> PathBuf {
        self.root.join("trust.toml")
    }

    /// The first operator's profile.
    pub(crate) fn admin_profile(&self) -> PathBuf {
        self.operator_profile("admin")
    }

    /// An operator's profile.
    pub(super) fn operator_profile(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.toml"))
    }

    /// A tenant's profile.
    pub(crate) fn tenant_profile(&self, tenant: &str) -> PathBuf {
        self.root.join("tenants").join(format!("{tenant}.toml"))
    }

    /// A server's configuration.
    pub(crate) fn configuration(&self, server: &str) -> PathBuf {
        self.root.join(server).join("config.toml")
    }

    /// A server's certificate and key.
    pub(super) fn identity(&self, server: &str) -> PathBuf {
        self.root.join(server).join("identity.pem")
    }

    /// The number of a server's process; locked while it runs.
    pub(super) fn pid(&self, server: &str) -> PathBuf {
        self.root.join(server).join("pid")
    }

    /// What a server has to say.
    pub(crate) fn log(&self, server: &str) -> PathBuf {
        self.root.join(server).join("log")
    }

    /// A server's data that a drill put aside.
    pub(super) fn lost_data(&self, server: &str) -> PathBuf {
        self.root.join(server).join("data.lost")
    }

    /// A server's data.
    pub(crate) fn data(&self, server: &str) -> PathBuf {
        self.root.join(server).join("data")
    }
}

/// A local cluster is for trying things out: a minute, as elsewhere, would be long.
const RESTORE_AFTER: &str = "3s";

/// Nor is a store that was slow put to the test for minutes.
const PROBATION: &str = "20s";

/// Makes a passphrase for the master key, once.
pub(super) fn write_secrets(layout: &Layout) -> Verdict {
    let path = layout.keys().join("passphrase");
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(layout.keys()).map_err(at(layout.keys()))?;
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(Failure::failed)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write_whole(&path, text.as_bytes(), 0o600)
}

/// Makes the keys that several voters share, once.
pub(super) fn make_keys(layout: &Layout) -> Verdict {
    let path = layout.keys().join("passphrase");
    let passphrase = fs::read_to_string(&path).map_err(at(&path))?.trim().to_owned().into();
    let keys = KeySettings { master: layout.keys().join("master.sealed"), passphrase };
    if keys.master.exists() { Ok(()) } else { make(&keys).map_err(Failure::failed) }
}

/// Writes every server's configuration.
pub(super) fn write_configurations(
    layout: &Layout,
    plan: &ClusterFile,
    detours: impl Fn(&str) -> Vec<DetourTable>,
) -> Verdict {
    for voter in &plan.placement {
        write_voter(layout, plan, voter)?;
    }
    plan.nodes.iter().try_for_each(|node| write_node(layout, plan, node, detours(&node.id)))
}

/// Writes the configuration of one placement process.
pub(super) fn write_voter(layout: &Layout, plan: &ClusterFile, voter: &PlacementPlan) -> Verdict {
    make_data(layout, &voter.id)?;
    store(&layout.configuration(&voter.id), &placement(plan, voter))
}

/// Writes the configuration of one node.
pub(super) fn write_node(
    layout: &Layout,
    plan: &ClusterFile,
    node: &NodePlan,
    detours: Vec<DetourTable>,
) -> Verdict {
    make_data(layout, &node.id)?;
    store(&layout.configuration(&node.id), &storage_node(plan, node, detours))
}

fn make_data(layout: &Layout, server: &str) -> Verdict {
    let data = layout.data(server);
    fs::create_dir_all(&data).map_err(at(&data))
}

fn placement(plan: &ClusterFile, voter: &PlacementPlan) -> PlacementFile {
    let secret = |path: &str| (!voter.witness).then(|| path.into());
    let several = plan.placement.len() > 1;
    PlacementFile {
        cluster: plan.cluster.clone(),
        id: voter.id.clone(),
        dc: voter.dc.clone(),
        data: "data".into(),
        listen: voter.listen,
        tenant_listen: voter.tenant_listen,
        restore_after: Some(RESTORE_AFTER.to_owned()),
        slow_for: None,
        slow_floor: None,
        probation: Some(PROBATION.to_owned()),
        master: secret("../keys/master.sealed"),
        passphrase_file: secret("../keys/passphrase"),
        trust: "../ca/ca.pem".into(),
        certificate: "identity.pem".into(),
        key: "identity.pem".into(),
        join: voter.join,
        voters: plan.placement.iter().filter(|_| several).map(table).collect(),
    }
}

fn table(voter: &PlacementPlan) -> VoterTable {
    VoterTable {
        id: voter.id.clone(),
        dc: voter.dc.clone(),
        control: voter.listen,
        tenants: (!voter.witness).then_some(voter.tenant_listen),
        witness: voter.witness,
    }
}

fn storage_node(plan: &ClusterFile, node: &NodePlan, detours: Vec<DetourTable>) -> NodeFile {
    let links = (1..).zip(node.links).map(|(id, listen)| LinkTable { id, listen }).collect();
    NodeFile {
        cluster: plan.cluster.clone(),
        id: node.id.clone(),
        dc: node.dc.clone(),
        rack: node.rack.clone(),
        data: "data".into(),
        capacity: CAPACITY,
        placement: plan.placement.iter().map(|voter| voter.listen).collect(),
        trust: "../ca/ca.pem".into(),
        certificate: "identity.pem".into(),
        key: "identity.pem".into(),
        links,
        keys_move_after: None,
        repair_floor: None,
        detours,
    }
}

/// The operator's profile, but for its certificate.
pub(super) fn admin_profile(plan: &ClusterFile) -> ProfileFile {
    ProfileFile {
        cluster: plan.cluster.clone(),
        role: ProfileRole::Operator,
        tenant: None,
        dc: None,
        padding: Padding::None,
        endpoints: plan.placement.iter().map(|voter| voter.listen.to_string()).collect(),
        trust: "ca/ca.pem".to_owned(),
        certificate: String::new(),
        key: String::new(),
    }
}

/// A tenant's profile, but for its certificate.
pub(super) fn tenant_profile(plan: &ClusterFile, tenant: &str) -> ProfileFile {
    let nodes = plan.nodes.iter().map(|node| node.links[0]);
    let endpoints = plan.keepers().map(|voter| voter.tenant_listen).chain(nodes);
    ProfileFile {
        cluster: plan.cluster.clone(),
        role: ProfileRole::Tenant,
        tenant: Some(tenant.to_owned()),
        dc: None,
        padding: Padding::None,
        endpoints: endpoints.map(|address| address.to_string()).collect(),
        trust: "../ca/ca.pem".to_owned(),
        certificate: String::new(),
        key: String::new(),
    }
}
