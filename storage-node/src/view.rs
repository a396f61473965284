//! What this node knows of the cluster, from the control plane's news: volumes, nodes, tenants, the
//! control plane's time. It only remembers; it decides nothing and forgets nothing on its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use trefoil_protocol::config::{NodeEntry, TenantEntry, VolumeConfig, VoterEntry};
use trefoil_protocol::deletion::Signers;
use trefoil_protocol::ids::{ConfigIndex, NodeId, StoreId, TenantId, VolumeId};
use trefoil_protocol::message::control::News;
use trefoil_protocol::time::CpTime;

/// The cluster as this node was told.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Everything up to here is in the view.
    pub index: ConfigIndex,
    /// And of the changes of the next position, those of the volumes up to this one.
    pub partly: Option<VolumeId>,
    /// The control plane's time, as last heard.
    pub now: CpTime,
    /// Volumes this node holds or held.
    pub volumes: BTreeMap<VolumeId, Arc<VolumeConfig>>,
    /// Nodes.
    pub nodes: BTreeMap<NodeId, NodeEntry>,
    /// Tenants.
    pub tenants: BTreeMap<TenantId, TenantEntry>,
    /// Who signs orders and certificates.
    pub signers: Signers,
    /// Who keeps the control plane's log and may lead it.
    pub voters: Vec<VoterEntry>,
    /// The restore generation; orders of an older one are void.
    pub generation: u64,
}

impl View {
    /// Takes in what costs nothing: who there is, and what time it is.
    pub fn meet(&mut self, news: &News) {
        self.now = self.now.max(news.now);
        if news.index >= self.index {
            self.signers = news.signers.clone();
            if !news.voters.is_empty() {
                self.voters = news.voters.clone();
            }
        }
        for node in &news.nodes {
            self.nodes.insert(node.node, node.clone());
        }
        for tenant in &news.tenants {
            self.tenants.insert(tenant.tenant, tenant.clone());
        }
    }

    /// Takes a volume in, from news of this position, if it is new.
    pub fn adopt(&mut self, config: VolumeConfig, told_at: ConfigIndex) -> Option<Arc<VolumeConfig>> {
        if !self.is_newer(&config, told_at >= self.index) {
            return None;
        }
        let config = Arc::new(config);
        self.volumes.insert(config.volume, Arc::clone(&config));
        Some(config)
    }

    /// Every volume of these news is in.
    pub fn is_up_to(&mut self, news: &News) {
        (self.index, self.partly) = (self.index, self.partly).max((news.index, news.partly));
    }

    /// The set of stores that ever held a volume shrinks without a new epoch: the latest news tell.
    fn is_newer(&self, config: &VolumeConfig, is_latest: bool) -> bool {
        self.volumes.get(&config.volume).is_none_or(|known| {
            let (before, now) = ((known.epoch, known.changed), (config.epoch, config.changed));
            before < now || (before == now && is_latest && **known != *config)
        })
    }

    /// The node that runs `store` now.
    pub fn node_of_store(&self, store: StoreId) -> Option<&NodeEntry> {
        self.nodes.values().find(|node| node.store == store)
    }
}
