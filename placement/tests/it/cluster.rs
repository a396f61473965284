//! A control plane and the storage nodes that talk to it: they register, renew once a second, watch
//! nothing, adopt what they are told, and report their volumes ready at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trefoil_placement::custodian::{Keyring, MasterKey};
use trefoil_placement::log_store::MemoryLogStore;
use trefoil_placement::state::{State, VolumeRecord};
use trefoil_placement::{
    Answer, Beginning, COMPACT_AFTER, Caution, Effect, Event, Placement, Request, RequestId, Settings,
};
use trefoil_protocol::config::{MemberState, Protection, SingleDcPolicy, VolumeConfig, VoterEntry};
use trefoil_protocol::ids::{
    ConfigIndex, Epoch, Incarnation, Lsn, NodeId, StoreId, TenantId, VolumeId, VoterId,
};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::control::{
    ControlAnswer, ControlRequest, News, Register, Renew, StoreCondition, StoreTiming,
};
use trefoil_protocol::sign::Signatory;
use trefoil_protocol::time::{BootTime, CpTime, Millis};

/// The window of every tenant made here.
pub(crate) const WINDOW: Millis = Millis(10_000);
/// How many seconds a data centre must be back before it is relied on.
pub(crate) const RESTORE_AFTER: u64 = 10;
/// How many seconds the witness is away before voters are excused.
pub(crate) const EXCUSE_AFTER: u64 = 20;
/// How long the first copy stays.
pub(crate) const RETENTION: Millis = Millis(2_000);

pub(crate) fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// The store that `name` runs at first.
pub(crate) fn store(name: &str) -> StoreId {
    let mut id = [0; 16];
    id[..name.len()].copy_from_slice(name.as_bytes());
    StoreId(id)
}

pub(crate) fn signatory(store: StoreId) -> Signatory {
    Signatory::from_secret(blake3::hash(&store.0).as_bytes())
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) store: StoreId,
    pub(crate) incarnation: Incarnation,
    pub(crate) applied: ConfigIndex,
    pub(crate) renews: bool,
    pub(crate) reports_ready: bool,
    pub(crate) configs: BTreeMap<VolumeId, VolumeConfig>,
    pub(crate) retire: BTreeSet<VolumeId>,
    pub(crate) tell: BTreeSet<VolumeId>,
    pub(crate) heard: CpTime,
    /// When the renewal was sent that was granted last, and what the grant covers.
    pub(crate) lease: Option<(u64, ConfigIndex)>,
}

impl Node {
    /// The epoch under which this node answers "latest" for the volume, by its own lights.
    pub(crate) fn serves(&self, volume: VolumeId, now: u64) -> Option<Epoch> {
        let config = self.configs.get(&volume)?;
        let (sent, covers) = self.lease?;
        let leads = config.primary == Some(self.id) && config.activated;
        (leads && covers >= config.changed && now < sent + 6_000).then_some(config.epoch)
    }
}

pub(crate) struct Cluster {
    pub(crate) placement: Option<Placement<MemoryLogStore>>,
    pub(crate) now: u64,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) answers: BTreeMap<RequestId, Answer>,
    /// What each node says of the stores' pace.
    pub(crate) timings: BTreeMap<NodeId, Vec<StoreTiming>>,
    last_request: u64,
}

/// A voter of this name; one of site `w` is a witness.
pub(crate) fn voter(name: &str) -> VoterEntry {
    let witness = name.starts_with('w');
    // `p-b1` stands in data centre `b`.
    let dc = if witness { "w" } else { name.get(2..3).unwrap_or("a") };
    let (name, dc) = (node(name), dc.parse().unwrap());
    let address = "127.0.0.1:7000".parse().unwrap();
    VoterEntry { voter: VoterId::of(name), name, dc, witness, control: address, tenants: address }
}

/// Of `name`, one of these voters.
pub(crate) fn settings(name: &str, voters: &[VoterEntry]) -> Settings {
    Settings {
        cluster: "test".into(),
        voter: VoterId::of(node(name)),
        voters: voters.to_vec(),
        beginning: Beginning::Found,
        compact_after: COMPACT_AFTER,
        caution: Caution {
            restore_after: Duration::from_secs(RESTORE_AFTER),
            excuse_after: Duration::from_secs(EXCUSE_AFTER),
            ..Caution::default()
        },
    }
}

pub(crate) fn keyring() -> Keyring {
    Keyring::new(MasterKey::from_secrets(&[1; 32], &[3; 32]), &[2; 32])
}

pub(crate) fn entropy() -> Box<dyn trefoil_placement::custodian::Entropy + Send> {
    let mut count = 0u64;
    Box::new(move |bytes: &mut [u8]| {
        count += 1;
        let mut reader = blake3::Hasher::new();
        reader.update(&count.to_le_bytes());
        reader.finalize_xof().fill(bytes);
    })
}

pub(crate) fn at(millis: u64) -> BootTime {
    BootTime(millis * 1_000_000)
}

impl Cluster {
    /// Nodes a1 a2 a3 b1 b2 b3, all up; no tenant.
    pub(crate) fn new() -> Self {
        let mut cluster = Self::empty();
        for name in ["a1", "a2", "a3", "b1", "b2", "b3"] {
            cluster.start(name, store(name), Incarnation(0));
        }
        cluster.run(1_000);
        cluster
    }

    /// With tenant `acme` of one volume, activated; its home is `a`.
    pub(crate) fn with_volume() -> Self {
        let mut cluster = Self::new();
        cluster.create_tenant("acme", 1);
        cluster.run(2_000);
        assert!(cluster.config().activated);
        cluster
    }

    pub(crate) fn empty() -> Self {
        let mut cluster = Self {
            placement: None,
            now: 1_000,
            nodes: BTreeMap::new(),
            answers: BTreeMap::new(),
            timings: BTreeMap::new(),
            last_request: 0,
        };
        cluster.open(MemoryLogStore::default());
        cluster
    }

    pub(crate) fn open(&mut self, store: MemoryLogStore) {
        let placement = Placement::open(
            settings("p-a1", &[voter("p-a1")]),
            Some(keyring()),
            store,
            entropy(),
            at(self.now),
        );
        self.placement = Some(placement.unwrap());
        self.step(Event::Wakeup);
    }

    /// The control plane's process dies and comes back over what was durable.
    pub(crate) fn restart_placement(&mut self) {
        let mut store = self.placement.take().unwrap().into_store();
        store.crash();
        self.open(store);
    }

    pub(crate) fn step(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.placement.as_mut().unwrap().step(at(self.now), event);
        for effect in &effects {
            if let Effect::Answer(id, answer) = effect {
                assert!(self.answers.insert(*id, answer.clone()).is_none(), "{id:?} answered twice");
            }
        }
        effects
    }

    pub(crate) fn state(&self) -> &State {
        self.placement.as_ref().unwrap().state()
    }

    pub(crate) fn record(&self) -> &VolumeRecord {
        self.state().volumes.get(VolumeId(1)).unwrap()
    }

    pub(crate) fn config(&self) -> VolumeConfig {
        self.record().config.clone()
    }

    pub(crate) fn send(&mut self, request: Request) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.step(Event::Request(id, request));
        id
    }

    pub(crate) fn answer(&self, id: RequestId) -> Option<&Answer> {
        self.answers.get(&id)
    }

    pub(crate) fn ask(&mut self, node: NodeId, request: ControlRequest) -> ControlAnswer {
        let id = self.send(Request::Control(node, request));
        match self.answer(id) {
            Some(Answer::Control(answer)) => answer.clone(),
            other => panic!("no answer but {other:?}"),
        }
    }

    pub(crate) fn admin(&mut self, request: AdminRequest) -> AdminAnswer {
        let id = self.send(Request::Admin("root".parse().unwrap(), request));
        match self.answer(id) {
            Some(Answer::Admin(answer)) => answer.clone(),
            other => panic!("no answer but {other:?}"),
        }
    }

    pub(crate) fn create_tenant(&mut self, name: &str, volumes: u32) -> TenantId {
        let request = AdminRequest::CreateTenant {
            name: name.parse().unwrap(),
            volumes,
            window: WINDOW,
            first_copy_retention: RETENTION,
            single_dc: SingleDcPolicy::Allow,
            stale_reads: Default::default(),
        };
        match self.admin(request) {
            AdminAnswer::Tenant(entry) => entry.tenant,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn register(name: &str, store: StoreId, last: Incarnation) -> Register {
        Register {
            node: node(name),
            dc: name[..1].parse().unwrap(),
            rack: format!("r{}", &name[1..]).parse().unwrap(),
            store,
            store_key: signatory(store).public(),
            capacity: 1 << 40,
            addresses: Vec::new(),
            last_incarnation: last,
            pid: 7,
        }
    }

    /// Registers a node over a store and renews once.
    pub(crate) fn start(&mut self, name: &str, store: StoreId, last: Incarnation) {
        let id = node(name);
        let answer = self.ask(id, ControlRequest::Register(Self::register(name, store, last)));
        let ControlAnswer::Registered { incarnation, .. } = answer else { panic!("{answer:?}") };
        let node = Node {
            id,
            store,
            incarnation,
            applied: ConfigIndex(0),
            renews: true,
            reports_ready: true,
            configs: BTreeMap::new(),
            retire: BTreeSet::new(),
            tell: BTreeSet::new(),
            heard: CpTime(0),
            lease: None,
        };
        self.nodes.insert(id, node);
        self.renew(id);
    }

    /// The node comes back over its store, as after a crash.
    pub(crate) fn restart(&mut self, name: &str) {
        let (store, last) = (self.nodes[&node(name)].store, self.nodes[&node(name)].incarnation);
        self.start(name, store, last);
    }

    /// Silences nodes.
    pub(crate) fn stop(&mut self, names: &[&str]) {
        for name in names {
            self.nodes.get_mut(&node(name)).unwrap().renews = false;
        }
    }

    pub(crate) fn renew(&mut self, id: NodeId) -> ControlAnswer {
        let known = &self.nodes[&id];
        let renew = Renew {
            store: known.store,
            incarnation: known.incarnation,
            applied: known.applied,
            sent: at(self.now),
            volumes: Vec::new(),
            links: None,
            timings: self.timings.get(&id).cloned().unwrap_or_default(),
            condition: StoreCondition::default(),
        };
        let answer = self.ask(id, ControlRequest::Renew(renew));
        if let ControlAnswer::Granted { news, covers, .. } = &answer {
            self.nodes.get_mut(&id).unwrap().lease = Some((self.now, *covers));
            self.adopt(id, news.clone());
        }
        answer
    }

    fn adopt(&mut self, id: NodeId, news: News) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.applied = news.index;
        node.heard = news.now;
        node.retire = news.retire.into_iter().collect();
        node.tell = news.tell.into_iter().collect();
        node.configs.extend(news.volumes.into_iter().map(|config| (config.volume, config)));
        let leads = |config: &&VolumeConfig| config.primary == Some(id) && !config.activated;
        let ready: Vec<(VolumeId, Epoch)> = match node.reports_ready {
            true => node.configs.values().filter(leads).map(|c| (c.volume, c.epoch)).collect(),
            false => Vec::new(),
        };
        for (volume, epoch) in ready {
            self.ask(id, ControlRequest::Ready { volume, epoch, committed: Lsn(0) });
        }
    }

    /// Lets time pass in steps of 100 ms; nodes renew twice a second.
    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis / 100 {
            self.now += 100;
            self.step(Event::Wakeup);
            if self.now.is_multiple_of(500) {
                let renewing: Vec<NodeId> =
                    self.nodes.values().filter(|node| node.renews).map(|node| node.id).collect();
                for id in renewing {
                    self.renew(id);
                }
            }
        }
    }

    /// Lets time pass until `done`, and says how much.
    pub(crate) fn run_until(&mut self, limit: u64, done: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now;
        while !done(self) {
            assert!(self.now < start + limit, "not within {limit} ms: {:#?}", self.config());
            self.run(100);
        }
        self.now - start
    }

    /// The volume's members in sync, by node.
    pub(crate) fn in_sync(&self) -> Vec<String> {
        self.config().in_sync().map(|member| member.node.to_string()).collect()
    }

    /// Names of all members that are not the primary.
    pub(crate) fn others(&self) -> Vec<String> {
        let config = self.config();
        let others = config.members.iter().filter(|member| Some(member.node) != config.primary);
        others.map(|member| member.node.to_string()).collect()
    }

    pub(crate) fn primary(&self) -> String {
        self.config().primary.unwrap().to_string()
    }

    /// The member in the other data centre.
    pub(crate) fn remote(&self) -> String {
        let config = self.config();
        config.members.iter().find(|m| m.dc.as_str() == "b").unwrap().node.to_string()
    }

    /// The member at home that is not the primary.
    pub(crate) fn neighbour(&self) -> String {
        self.others().into_iter().find(|name| name.starts_with('a')).unwrap()
    }

    /// Whoever catches up is reported complete.
    pub(crate) fn complete_all(&mut self) {
        let config = self.config();
        let catching_up = config.members.iter().filter(|m| m.state != MemberState::InSync);
        for store in catching_up.map(|m| m.store).collect::<Vec<_>>() {
            self.report(ControlRequest::Complete { volume: VolumeId(1), epoch: config.epoch, store });
        }
    }

    /// The primary says something.
    pub(crate) fn report(&mut self, request: ControlRequest) -> ControlAnswer {
        let primary = self.config().primary.unwrap();
        self.ask(primary, request)
    }

    pub(crate) fn protection(&self) -> Protection {
        self.config().protection
    }
}
