//! A placement that does what the test says: it answers renewals, activates what is ready, and takes
//! members in when they are complete. It never moves anything by itself.

use std::collections::{BTreeMap, BTreeSet};

use trefoil_protocol::config::{
    Member, MemberState, NodeEntry, NodeState, Protection, SingleDcPolicy, TenantEntry, VolumeConfig,
};
use trefoil_protocol::deletion::{SignerTerm, Signers};
use trefoil_protocol::ids::{
    ConfigIndex, Epoch, Incarnation, Lsn, NodeId, StoreId, TenantId, VersionId, VolumeId,
};
use trefoil_protocol::message::control::{
    AT_RISK_BYTES, ControlAnswer, ControlRefusal, ControlRequest, News, Noted, StoreTiming, Visibility,
    VisibilityChange,
};
use trefoil_protocol::message::loss::{Difference, LostVersion};
use trefoil_protocol::sign::Signatory;
use trefoil_protocol::time::{BootTime, CpTime, Millis};
use trefoil_storage_node::ControlTicket;

pub(crate) struct FakePlacement {
    pub(crate) clock: BootTime,
    index: u64,
    pub(crate) volumes: BTreeMap<VolumeId, VolumeConfig>,
    nodes: BTreeMap<NodeId, NodeEntry>,
    changed_nodes: BTreeMap<NodeId, u64>,
    watches: BTreeMap<NodeId, (ControlTicket, ConfigIndex)>,
    pub(crate) signatory: Signatory,
    /// Whether a ready epoch is activated.
    pub(crate) activates: bool,
    /// Whether complete members are taken in.
    pub(crate) takes_in: bool,
    /// Everything that was asked, for tests.
    pub(crate) asked: Vec<(NodeId, ControlRequest)>,
    /// Added to the clock, so that windows end when the test says.
    pub(crate) ahead: u64,
    pub(crate) retire: BTreeMap<NodeId, BTreeSet<VolumeId>>,
    pub(crate) orders: crate::orders::Orders,
    /// How often a1 renewed.
    pub(crate) renewals: u64,
    /// What was acknowledged in one data centre alone.
    pub(crate) noted: BTreeMap<VolumeId, Noted>,
    /// Versions that were hidden or brought back there.
    pub(crate) changes: BTreeMap<VersionId, Visibility>,
    /// What a volume that replays has to hide and bring back.
    pub(crate) replay: Vec<VisibilityChange>,
    /// What each node shall tell of what its store has alone.
    pub(crate) tell: BTreeMap<NodeId, VolumeId>,
    /// What they told, up to where, and whether it was everything.
    pub(crate) lost: BTreeMap<VersionId, LostVersion>,
    pub(crate) told: Option<(Lsn, bool)>,
    /// Whether nothing of that is heard.
    pub(crate) is_deaf: bool,
    /// The most bytes that may be acknowledged before they are noted.
    pub(crate) reserves: u64,
    /// What each node said last of the stores' pace.
    pub(crate) timings: BTreeMap<NodeId, Vec<StoreTiming>>,
}

impl FakePlacement {
    pub(crate) fn new() -> Self {
        Self {
            clock: BootTime(0),
            index: 1,
            volumes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            changed_nodes: BTreeMap::new(),
            watches: BTreeMap::new(),
            signatory: Signatory::from_secret(&[42; 32]),
            activates: true,
            takes_in: true,
            asked: Vec::new(),
            ahead: 0,
            retire: BTreeMap::new(),
            orders: crate::orders::Orders::default(),
            renewals: 0,
            noted: BTreeMap::new(),
            changes: BTreeMap::new(),
            replay: Vec::new(),
            tell: BTreeMap::new(),
            lost: BTreeMap::new(),
            told: None,
            is_deaf: false,
            reserves: AT_RISK_BYTES,
            timings: BTreeMap::new(),
        }
    }

    pub(crate) fn now(&self) -> CpTime {
        CpTime(self.clock.0 / 1_000_000 + self.ahead)
    }

    pub(crate) fn create(&mut self, volume: VolumeId, tenant: TenantId, members: Vec<Member>) {
        self.index += 1;
        let config = VolumeConfig {
            volume,
            tenant,
            slot: 0,
            epoch: Epoch(1),
            primary: members.first().map(|member| member.node),
            ever_held: members.iter().map(|member| member.store).collect(),
            members,
            protection: Protection::BothDcs,
            activated: false,
            changed: ConfigIndex(self.index),
            intervals: Vec::new(),
            window: Millis(10_000),
            first_copy_retention: Millis(0),
            single_dc: SingleDcPolicy::Allow,
            handover: None,
            replays: false,
            stale_reads: Default::default(),
        };
        self.volumes.insert(volume, config);
    }

    /// Asks the primary to give the volume to `to`, or to go on as before.
    pub(crate) fn hand_over(&mut self, volume: VolumeId, to: Option<StoreId>) {
        self.index += 1;
        let config = self.volumes.get_mut(&volume).expect("a volume");
        config.handover = to;
        config.changed = ConfigIndex(self.index);
    }

    /// A change has a new epoch and is not activated.
    pub(crate) fn change(&mut self, volume: VolumeId, change: impl FnOnce(&mut VolumeConfig)) {
        self.index += 1;
        let config = self.volumes.get_mut(&volume).expect("a volume");
        config.intervals.extend(config.as_interval());
        change(config);
        config.epoch = config.epoch.next();
        config.activated = false;
        config.handover = None;
        config.changed = ConfigIndex(self.index);
        let stores: Vec<StoreId> = config.members.iter().map(|member| member.store).collect();
        for store in stores {
            if !config.ever_held.contains(&store) {
                config.ever_held.push(store);
            }
        }
    }

    fn news(&self, node: NodeId, applied: ConfigIndex) -> News {
        let store = self.nodes.get(&node).map(|entry| entry.store);
        let concerns = |config: &&VolumeConfig| {
            config.changed > applied && store.is_some_and(|store| config.ever_held.contains(&store))
        };
        let changed = |node: &&NodeEntry| self.changed_nodes[&node.node] > applied.0;
        News {
            index: ConfigIndex(self.index),
            now: self.now(),
            volumes: self.volumes.values().filter(concerns).cloned().collect(),
            nodes: self.nodes.values().filter(changed).cloned().collect(),
            tenants: vec![TenantEntry {
                tenant: TenantId(1),
                name: "acme".parse().expect("a name"),
                volume_count: 1,
                window: Millis(10_000),
                first_copy_retention: Millis(0),
                single_dc: SingleDcPolicy::Allow,
                stale_reads: Default::default(),
            }],
            partly: None,
            retire: self.retire.get(&node).into_iter().flatten().copied().collect(),
            signers: Signers { terms: vec![SignerTerm::founding(self.signatory.public())] },
            links: Vec::new(),
            tell: self.tell.get(&node).into_iter().copied().collect(),
            voters: Vec::new(),
        }
    }

    /// An estranged store tells what it has alone.
    fn heard(&mut self, page: &Difference) -> ControlAnswer {
        let (up_to, all) = self.told.unwrap_or((page.after, false));
        if page.after != up_to || all {
            return ControlAnswer::Heard { up_to, all };
        }
        self.lost.extend(page.versions.iter().map(|lost| (lost.version, *lost)));
        self.told = Some((page.up_to, page.last));
        ControlAnswer::Heard { up_to: page.up_to, all: page.last }
    }

    /// A process that ended waits for nothing any more.
    pub(crate) fn forget_watch(&mut self, node: NodeId) {
        self.watches.remove(&node);
    }

    pub(crate) fn due_watches(&mut self) -> Vec<(NodeId, ControlTicket, News)> {
        let due: Vec<NodeId> = self
            .watches
            .iter()
            .filter(|(_, (_, applied))| applied.0 < self.index)
            .map(|(node, _)| *node)
            .collect();
        due.into_iter()
            .map(|node| {
                let (ticket, applied) = self.watches.remove(&node).expect("just seen");
                (node, ticket, self.news(node, applied))
            })
            .collect()
    }

    pub(crate) fn answer(
        &mut self,
        node: NodeId,
        ticket: ControlTicket,
        request: ControlRequest,
    ) -> Option<ControlAnswer> {
        if !matches!(request, ControlRequest::Renew(_) | ControlRequest::Watch { .. }) {
            self.asked.push((node, request.clone()));
        }
        Some(match request {
            ControlRequest::Holdings(_) => ControlAnswer::Done,
            ControlRequest::Replay { from, .. } => {
                let changes = self.replay.get(from as usize..).unwrap_or_default();
                let part: Vec<_> = changes.iter().take(2).copied().collect();
                ControlAnswer::Replay { from, last: part.len() == changes.len(), changes: part }
            }
            ControlRequest::Replayed { volume, epoch } => {
                self.index += 1;
                let config = self.volumes.get_mut(&volume).expect("a volume");
                if !self.is_deaf && config.epoch == epoch {
                    (config.replays, config.changed) = (false, ConfigIndex(self.index));
                }
                ControlAnswer::Done
            }
            ControlRequest::Register(register) => {
                self.index += 1;
                let incarnation = Incarnation(self.index);
                let entry = NodeEntry {
                    node,
                    dc: register.dc,
                    rack: register.rack,
                    store: register.store,
                    store_key: register.store_key,
                    incarnation,
                    capacity: register.capacity,
                    addresses: register.addresses,
                    state: NodeState::Up,
                    pid: register.pid,
                    duty: Default::default(),
                };
                self.nodes.insert(node, entry);
                self.changed_nodes.insert(node, self.index);
                self.watches.remove(&node);
                ControlAnswer::Registered { incarnation, cluster: "test".into(), generation: 1 }
            }
            ControlRequest::Renew(renew) => {
                self.renewals += u64::from(node.as_str() == "a1");
                self.timings.insert(node, renew.timings.clone());
                let news = self.news(node, renew.applied);
                ControlAnswer::Granted { sent: renew.sent, covers: renew.applied, news }
            }
            ControlRequest::Watch { applied, .. } => {
                self.watches.insert(node, (ticket, applied));
                return None;
            }
            ControlRequest::Ready { volume, epoch, .. } => {
                self.index += 1;
                let config = self.volumes.get_mut(&volume).expect("a volume");
                if self.activates && config.epoch == epoch && !config.activated {
                    config.activated = true;
                    config.intervals.clear();
                    config.changed = ConfigIndex(self.index);
                }
                ControlAnswer::Done
            }
            ControlRequest::Complete { volume, epoch, store } => {
                if self.takes_in && self.volumes[&volume].epoch == epoch {
                    self.change(volume, |config| {
                        for member in config.members.iter_mut().filter(|member| member.store == store) {
                            member.state = MemberState::InSync;
                        }
                    });
                }
                ControlAnswer::Done
            }
            ControlRequest::RequestPurge { volume, epoch, scope, claims } => {
                let config = &self.volumes[&volume];
                if config.epoch != epoch {
                    return Some(ControlAnswer::Refused(ControlRefusal::StaleEpoch(config.epoch)));
                }
                let now = self.now();
                self.orders.order(config, scope, &claims, now, &self.signatory)
            }
            ControlRequest::Certify { volume, evidence, .. } => {
                self.orders.certify(&self.volumes[&volume], &self.nodes, &evidence, &self.signatory)
            }
            ControlRequest::Retired { volume, store, .. } => {
                self.index += 1;
                let config = self.volumes.get_mut(&volume).expect("a volume");
                config.ever_held.retain(|held| *held != store);
                config.changed = ConfigIndex(self.index);
                for volumes in self.retire.values_mut() {
                    volumes.remove(&volume);
                }
                ControlAnswer::Done
            }
            ControlRequest::Note(note) => {
                if self.is_deaf {
                    return None;
                }
                let nothing = Noted {
                    up_to: Lsn::ZERO,
                    objects: 0,
                    bytes: 0,
                    reserved: AT_RISK_BYTES,
                    full: false,
                    since: Lsn::ZERO,
                };
                let known = self.noted.entry(note.volume).or_insert(nothing);
                if note.after == known.up_to {
                    known.up_to = note.up_to;
                    known.objects += note.objects;
                    known.bytes += note.bytes;
                    known.reserved = note.reserve.min(self.reserves);
                    self.changes
                        .extend(note.changes.iter().map(|change| (change.version, change.visibility)));
                }
                ControlAnswer::Noted(*known)
            }
            ControlRequest::Yield { volume, epoch, .. } => {
                let config = &self.volumes[&volume];
                let next = config.handover.and_then(|store| config.member_of_store(store)).map(|m| m.node);
                if let Some(next) = next.filter(|_| config.epoch == epoch) {
                    self.change(volume, |config| config.primary = Some(next));
                }
                ControlAnswer::Done
            }
            ControlRequest::Differs(page) => self.heard(&page),
            ControlRequest::Lagging { .. }
            | ControlRequest::Unfit { .. }
            | ControlRequest::Restored { .. }
            | ControlRequest::Verifying { .. } => ControlAnswer::Done,
        })
    }
}
