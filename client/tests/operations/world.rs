//! Two storage nodes and a placement server on loopback, sharing one memory.
//!
//! They follow the tenant plane's rules and nothing below it: no replication, no disk, no epochs but the
//! one that a test raises.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use trefoil_client::shell::{Padding, ProfileFile, ProfileRole};
use trefoil_client::{Client, Profile, Settings};
use trefoil_protocol::codec;
use trefoil_protocol::config::{
    LinkAddress, Member, MemberState, NodeEntry, NodeState, Protection, TenantEntry, VolumeConfig,
};
use trefoil_protocol::ids::{
    ConfigIndex, Epoch, Hash, Incarnation, LinkId, Lsn, NodeId, PrincipalId, PublicKey, StoreId, TenantId,
    Token, VersionId, VolumeId,
};
use trefoil_protocol::key::{ObjectKey, volume_slot};
use trefoil_protocol::message::tenant::*;
use trefoil_protocol::record::INLINE_MAX;
use trefoil_protocol::time::{CpTime, Millis};
use trefoil_protocol::tree::{LEAF_LEN, RangeProof, TreeBuilder};
use trefoil_transport::{
    Authority, ClusterName, Connection, Endpoint, Identity, LEAF_LIFETIME, Limits, OwnCertificate, Plane,
    RecvStream, SendStream, TrustStore,
};

const VOLUMES: u32 = 2;

/// What goes wrong next; each happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The stream of an upload breaks after its second frame of leaves.
    BreakUpload,
    /// The stream of an upload breaks after 270 frames of leaves, which is beyond 64 MiB.
    BreakUploadLate,
    /// A put takes effect and its stream breaks before the answer.
    LoseAnswer,
    /// The stream of a download breaks after its first frame.
    BreakDownload,
    /// A node takes a read in and says nothing.
    Stall,
    /// One byte of a download is wrong.
    Damage,
    /// The node is primary no more: the other one is.
    Move,
    /// The node says that it cannot at the moment.
    Refuse,
    /// No node has a lease, from now on; the tenant allows stale reads.
    LoseControl,
}

struct Version {
    view: ObjectView,
    sealed: Bytes,
    is_live: bool,
}

/// What the nodes share.
pub(crate) struct State {
    versions: BTreeMap<ObjectKey, Vec<Version>>,
    tokens: BTreeMap<Token, Option<TenantAnswer>>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    primary: NodeId,
    epoch: Epoch,
    lsn: u64,
    faults: BTreeSet<Fault>,
    blocks: u32,
    /// How often keys were asked of a node.
    pub(crate) keys_asked_of_nodes: u32,
    /// Every upload that reached its end.
    pub(crate) uploads: Vec<(VersionId, u32, Hash)>,
    /// Outcomes that were asked for.
    pub(crate) outcomes: u32,
    /// Leaves that were sent.
    pub(crate) leaves_sent: u64,
}

/// The cluster of one test.
pub(crate) struct World {
    state: Arc<Mutex<State>>,
    servers: Vec<(Endpoint, Arc<TrustStore>)>,
    /// The text of its profile.
    profile: String,
    pub(crate) client: Client,
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        let cluster: ClusterName = "test".parse().unwrap();
        let authority = Authority::create(&cluster).unwrap();
        let state = Arc::new(Mutex::new(State {
            versions: BTreeMap::new(),
            tokens: BTreeMap::new(),
            addresses: BTreeMap::new(),
            primary: node("a1"),
            epoch: Epoch(1),
            lsn: 0,
            faults: BTreeSet::new(),
            blocks: 0,
            keys_asked_of_nodes: 0,
            uploads: vec![],
            outcomes: 0,
            leaves_sent: 0,
        }));
        let mut servers = Vec::new();
        let mut endpoints = Vec::new();
        for path in ["node/a1", "node/b1", "placement/w1"] {
            let identity: Identity = path.parse().unwrap();
            let issued = authority.issue(&identity, LEAF_LIFETIME).unwrap();
            let own = OwnCertificate::from_pem(&issued.certificate_pem, &issued.key_pem).unwrap();
            let trust = TrustStore::from_pem(cluster.clone(), authority.certificate_pem()).unwrap();
            let local = "127.0.0.1:0".parse().unwrap();
            let planes = &[Plane::Tenant];
            let server = Endpoint::server(local, own, Arc::clone(&trust), planes, Limits::default()).unwrap();
            let address = server.local_address().unwrap();
            if let Identity::Node(node) = identity {
                state.lock().unwrap().addresses.insert(node, address);
            }
            endpoints.push(address.to_string());
            tokio::spawn(serve(server.clone(), identity, Arc::clone(&state)));
            servers.push((server, trust));
        }
        let principal = Identity::Principal { tenant: TenantId(1), principal: PrincipalId(7) };
        let issued = authority.issue(&principal, LEAF_LIFETIME).unwrap();
        let text = ProfileFile {
            cluster: cluster.to_string(),
            role: ProfileRole::Tenant,
            tenant: Some("acme".into()),
            dc: Some("b".into()),
            padding: Padding::None,
            endpoints,
            trust: authority.certificate_pem().to_owned(),
            certificate: issued.certificate_pem,
            key: issued.key_pem,
        }
        .to_toml();
        let profile = Profile::parse(&text, "acme.toml".as_ref()).unwrap();
        let settings = Settings { deadline: Duration::from_secs(10) };
        let client = Client::connect_with(profile, settings).await.unwrap();
        Self { state, servers, profile: text, client }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn will(&self, fault: Fault) {
        self.state().faults.insert(fault);
    }

    pub(crate) fn will_no_more(&self, fault: Fault) {
        self.state().faults.remove(&fault);
    }

    /// What another client of the same principal connects with.
    pub(crate) fn profile(&self) -> Profile {
        Profile::parse(&self.profile, "acme.toml".as_ref()).unwrap()
    }

    /// Deactivates the client's principal everywhere.
    pub(crate) fn deactivate(&self) {
        let principal = Identity::Principal { tenant: TenantId(1), principal: PrincipalId(7) };
        for (server, trust) in &self.servers {
            trust.refuse_exactly([principal].into());
            server.close_refused();
        }
    }

    /// Whether every fault has happened.
    pub(crate) fn has_no_fault_left(&self) -> bool {
        self.state().faults.is_empty()
    }

    pub(crate) fn versions_of(&self, key: &ObjectKey) -> usize {
        self.state().versions.get(key).map_or(0, Vec::len)
    }
}

async fn serve(server: Endpoint, identity: Identity, state: Arc<Mutex<State>>) {
    while let Some((connection, _, _)) = server.accept().await {
        tokio::spawn(serve_connection(connection, identity, Arc::clone(&state)));
    }
}

async fn serve_connection(connection: Connection, identity: Identity, state: Arc<Mutex<State>>) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        tokio::spawn(answer(send, recv, identity, Arc::clone(&state)));
    }
}

/// Answers one request; `None` when a fault broke the stream.
async fn answer(
    mut send: SendStream,
    mut recv: RecvStream,
    identity: Identity,
    state: Arc<Mutex<State>>,
) -> Option<()> {
    let frame = recv.read_frame().await.ok()??;
    let request: TenantRequest = codec::from_slice(&frame.body).unwrap();
    let refusal = state.lock().unwrap().refusal(identity, &request);
    let response = match refusal {
        Some(refusal) => Err(refusal),
        None => match request.call {
            TenantCall::Put(put) => receive(&mut recv, put, frame.bulk, &state).await?,
            TenantCall::Get { key, selector, want } => {
                let stalls = want != Want::Head && state.lock().unwrap().faults.remove(&Fault::Stall);
                if stalls {
                    std::future::pending::<()>().await;
                }
                return send_object(&mut send, &state, &key, selector, &want).await;
            }
            call => state.lock().unwrap().serve(identity, request.volume, call),
        },
    };
    send.write_frame(codec::to_vec(&response).into(), Bytes::new()).await.ok()?;
    send.finish().ok()?;
    send.delivered().await.ok()
}

/// Takes an upload in and stores it.
async fn receive(
    recv: &mut RecvStream,
    put: PutRequest,
    bulk: Bytes,
    state: &Mutex<State>,
) -> Option<TenantResponse> {
    let (sealed, end) = match put.inline.clone() {
        Some(end) => (bulk, end),
        None => upload(recv, state).await?,
    };
    let mut state = state.lock().unwrap();
    assert_eq!(end.root.0, *blake3::hash(&sealed).as_bytes(), "the root is of the bytes that came");
    assert_eq!(end.sealed_length, sealed.len() as u64);
    state.uploads.push((put.upload.version, put.upload.attempt, end.root));
    let response = state.once(put.token.token, |state| state.store(put, sealed, end));
    if state.faults.remove(&Fault::LoseAnswer) { None } else { Some(response) }
}

async fn upload(recv: &mut RecvStream, state: &Mutex<State>) -> Option<(Bytes, UploadEnd)> {
    let mut sealed = BytesMut::new();
    let mut frames = 0;
    loop {
        let frame = recv.read_frame().await.ok()??;
        match codec::from_slice(&frame.body).unwrap() {
            UploadPart::Leaves { first } => {
                assert_eq!(u64::from(first) * LEAF_LEN, sealed.len() as u64);
                sealed.extend_from_slice(&frame.bulk);
            }
            UploadPart::End(end) => return Some((sealed.freeze(), end)),
        }
        frames += 1;
        let fault = match frames {
            2 => Fault::BreakUpload,
            270 => Fault::BreakUploadLate,
            _ => continue,
        };
        if state.lock().unwrap().faults.remove(&fault) {
            return None;
        }
    }
}

async fn send_object(
    send: &mut SendStream,
    state: &Mutex<State>,
    key: &ObjectKey,
    selector: Selector,
    want: &Want,
) -> Option<()> {
    let found = state.lock().unwrap().find(key, selector);
    let response: TenantResponse = found.clone().map(|(view, _)| TenantAnswer::Object(view));
    let inline =
        found.as_ref().ok().filter(|(view, _)| *want == Want::Whole && view.sealed_length <= INLINE_MAX);
    let mut bulk = inline.map(|(_, sealed)| sealed.to_vec()).unwrap_or_default();
    let is_inline = inline.is_some();
    if is_inline && state.lock().unwrap().faults.remove(&Fault::Damage) {
        bulk[70] ^= 1;
    }
    send.write_frame(codec::to_vec(&response).into(), bytes::Bytes::from(bulk)).await.ok()?;
    let Some((view, sealed)) = found.ok().filter(|_| !is_inline) else { return send.finish().ok() };
    for (place, (part, bulk)) in frames(&view, &sealed, want).into_iter().enumerate() {
        let mut bulk = bulk.to_vec();
        {
            let mut state = state.lock().unwrap();
            state.leaves_sent += (bulk.len() as u64).div_ceil(LEAF_LEN);
            if place == 1 && state.faults.remove(&Fault::BreakDownload) {
                return None;
            }
            if state.faults.remove(&Fault::Damage) {
                bulk[70] ^= 1;
            }
        }
        send.write_frame(codec::to_vec(&part).into(), bytes::Bytes::from(bulk)).await.ok()?;
    }
    send.finish().ok()?;
    send.delivered().await.ok()
}

/// The data frames of an answer, two leaves in each.
fn frames(view: &ObjectView, sealed: &Bytes, want: &Want) -> Vec<(DataPart, Bytes)> {
    let (mut tree, mut leaves) = (TreeBuilder::new(), Vec::new());
    tree.push(sealed, &mut leaves);
    leaves.push(tree.finish().last);
    let hashes: Vec<_> = leaves.into_iter().map(|leaf| leaf.hash).collect();
    let ranges = match want {
        Want::Head => vec![],
        Want::Whole => vec![(0, hashes.len() as u32)],
        Want::Leaves(ranges) => ranges.clone(),
    };
    let mut frames = Vec::new();
    for (first, count) in ranges {
        let range = u64::from(first)..u64::from(first + count);
        let mut proof = match want {
            Want::Leaves(_) => Some(RangeProof::build(&hashes, view.sealed_length, range).unwrap()),
            _ => None,
        };
        for leaf in (first..first + count).step_by(2) {
            let start = leaf as usize * LEAF_LEN as usize;
            let end = (leaf + 2).min(first + count) as usize * LEAF_LEN as usize;
            let part = DataPart { first: leaf, proof: proof.take(), last: false };
            frames.push((part, sealed.slice(start..end.min(sealed.len()))));
        }
    }
    if let Some((part, _)) = frames.last_mut() {
        part.last = true;
    }
    frames
}

fn is_lenient(request: &TenantRequest) -> bool {
    matches!(request.call, TenantCall::Get { selector: Selector::StalePossible(_), .. })
}

impl State {
    fn refusal(&mut self, identity: Identity, request: &TenantRequest) -> Option<Refusal> {
        if matches!(request.call, TenantCall::Route | TenantCall::Keys | TenantCall::KeysToRead) {
            return None;
        }
        let Identity::Node(here) = identity else { return Some(Refusal::NotFound) };
        if self.faults.remove(&Fault::Move) {
            self.primary = if here == node("a1") { node("b1") } else { node("a1") };
            self.epoch = self.epoch.next();
        }
        if self.faults.remove(&Fault::Refuse) {
            return Some(Refusal::LeaseExpired);
        }
        if self.faults.contains(&Fault::LoseControl) && !is_lenient(request) {
            return Some(Refusal::LeaseExpired);
        }
        let by_version =
            matches!(&request.call, TenantCall::Get { selector, .. } if selector.version().is_some());
        let fits = by_version || (self.primary == here && request.epoch == self.epoch);
        let (epoch, primary) = (self.epoch, Some(self.primary));
        (!fits).then_some(Refusal::NotPrimary { epoch, primary })
    }

    fn serve(&mut self, identity: Identity, volume: VolumeId, call: TenantCall) -> TenantResponse {
        match call {
            TenantCall::Route => Ok(TenantAnswer::Route(self.route())),
            TenantCall::Keys if matches!(identity, Identity::Placement(_)) => {
                Ok(TenantAnswer::Keys(self.keys()))
            }
            TenantCall::KeysToRead if matches!(identity, Identity::Placement(_)) => {
                Ok(TenantAnswer::Keys(KeysView { nonce_prefix: 0, nonce_count: 0, ..self.keys() }))
            }
            TenantCall::Keys | TenantCall::KeysToRead => {
                self.keys_asked_of_nodes += 1;
                Err(Refusal::NotFound)
            }
            TenantCall::List { prefix, after, limit } => Ok(self.list(volume, true, &prefix, after, limit)),
            TenantCall::Deleted { prefix, after, limit } => {
                Ok(self.list(volume, false, &prefix, after, limit))
            }
            TenantCall::Delete { key, token, .. } => self.once(token.token, |state| state.set(&key, false)),
            TenantCall::Undelete { key, token, .. } => self.once(token.token, |state| state.set(&key, true)),
            TenantCall::Outcome { token } => {
                self.outcomes += 1;
                Ok(match self.tokens.entry(token).or_insert(None) {
                    Some(first) => TenantAnswer::Applied(Box::new(first.clone())),
                    None => TenantAnswer::NotApplied,
                })
            }
            TenantCall::PurgeStatus { .. } => Ok(TenantAnswer::Purges(vec![])),
            TenantCall::Certificates { .. } => Ok(TenantAnswer::Certificates(vec![])),
            TenantCall::Put(_) | TenantCall::Get { .. } => unreachable!("served by streams"),
        }
    }

    /// Executes under a token at most once.
    fn once(&mut self, token: Token, execute: impl FnOnce(&mut Self) -> TenantResponse) -> TenantResponse {
        match self.tokens.get(&token) {
            Some(Some(first)) => return Ok(first.clone()),
            Some(None) => return Err(Refusal::Expired),
            None => {}
        }
        let response = execute(self);
        if let Ok(first) = &response {
            self.tokens.insert(token, Some(first.clone()));
        }
        response
    }

    fn store(&mut self, put: PutRequest, sealed: Bytes, end: UploadEnd) -> TenantResponse {
        let versions = self.versions.entry(put.key.clone()).or_default();
        if put.precondition == Precondition::Absent && versions.iter().any(|version| version.is_live) {
            return Err(Refusal::PreconditionFailed);
        }
        versions.iter_mut().for_each(|version| version.is_live = false);
        self.lsn += 1;
        let view = ObjectView {
            key: put.key,
            upload: put.upload,
            root: end.root,
            sealed_length: end.sealed_length,
            kek_version: put.kek_version,
            wrapped_key: put.wrapped_key,
            metadata: end.metadata,
            lsn: Lsn(self.lsn),
            epoch: self.epoch,
            protection: Protection::BothDcs,
            copies: vec![],
            created: CpTime(self.lsn),
            stale_possible: false,
        };
        versions.push(Version { view, sealed, is_live: true });
        Ok(TenantAnswer::Stored(PutReceipt {
            version: put.upload.version,
            lsn: Lsn(self.lsn),
            epoch: self.epoch,
            root: end.root,
            protection: Protection::BothDcs,
            copies: vec![],
        }))
    }

    fn set(&mut self, key: &ObjectKey, live: bool) -> TenantResponse {
        let newest = self.versions.get_mut(key).and_then(|versions| versions.last_mut());
        let newest = newest.filter(|newest| newest.is_live != live).ok_or(Refusal::NotFound)?;
        newest.is_live = live;
        let version = newest.view.upload.version;
        self.lsn += 1;
        let lsn = Lsn(self.lsn);
        Ok(match live {
            true => TenantAnswer::Undeleted { version, lsn },
            false => TenantAnswer::Deleted { version, tombstone: lsn, window_ends: CpTime(99) },
        })
    }

    fn find(&self, key: &ObjectKey, selector: Selector) -> Result<(ObjectView, Bytes), Refusal> {
        let versions = self.versions.get(key).ok_or(Refusal::NotFound)?;
        let found = versions.iter().find(|version| match selector {
            Selector::Latest => version.is_live,
            Selector::Version(wanted) | Selector::StalePossible(wanted) => {
                version.view.upload.version == wanted && version.is_live
            }
        });
        let stale_possible = self.faults.contains(&Fault::LoseControl);
        let view = |version: &Version| ObjectView { stale_possible, ..version.view.clone() };
        found.map(|version| (view(version), version.sealed.clone())).ok_or(match selector {
            Selector::Latest => Refusal::NotFound,
            Selector::Version(_) | Selector::StalePossible(_) => Refusal::Changed,
        })
    }

    fn list(
        &self,
        volume: VolumeId,
        live: bool,
        prefix: &str,
        after: Option<ObjectKey>,
        limit: u32,
    ) -> TenantAnswer {
        let mut entries: Vec<ListEntry> = Vec::new();
        for (key, versions) in &self.versions {
            let newest = versions.last().expect("a key has a version");
            let fits = newest.is_live == live && key.as_str().starts_with(prefix);
            if fits
                && u64::from(volume_slot(key, VOLUMES)) + 1 == volume.0
                && after.as_ref().is_none_or(|after| key > after)
            {
                let view = &newest.view;
                entries.push(ListEntry {
                    key: key.clone(),
                    version: view.upload.version,
                    sealed_length: view.sealed_length,
                    root: view.root,
                    created: view.created,
                    window_ends: None,
                });
            }
        }
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        TenantAnswer::Page { entries, more }
    }

    fn keys(&mut self) -> KeysView {
        self.blocks += 1;
        let grant = |version| TenantKeyGrant { version, key: [version as u8 + 1; 32] };
        KeysView { keys: vec![grant(0), grant(1)], nonce_prefix: self.blocks, nonce_count: 3 }
    }

    fn route(&self) -> RouteView {
        let names = ["a1", "b1"];
        let dc = |name: &str| name[..1].parse().unwrap();
        let member = |name: &str| Member {
            node: node(name),
            dc: dc(name),
            store: StoreId([1; 16]),
            state: MemberState::InSync,
        };
        let volume = |slot| VolumeConfig {
            volume: VolumeId(u64::from(slot) + 1),
            tenant: TenantId(1),
            slot,
            epoch: self.epoch,
            primary: Some(self.primary),
            members: names.iter().map(|name| member(name)).collect(),
            protection: Protection::BothDcs,
            activated: true,
            changed: ConfigIndex(self.epoch.0),
            intervals: vec![],
            ever_held: vec![],
            window: Millis(5),
            first_copy_retention: Millis(0),
            single_dc: trefoil_protocol::config::SingleDcPolicy::Allow,
            handover: None,
            replays: false,
            stale_reads: Default::default(),
        };
        let entry = |name: &str| NodeEntry {
            node: node(name),
            dc: dc(name),
            rack: "r1".parse().unwrap(),
            store: StoreId([1; 16]),
            store_key: PublicKey([0; 32]),
            incarnation: Incarnation(1),
            capacity: 1,
            addresses: vec![LinkAddress { link: LinkId::One, address: self.addresses[&node(name)] }],
            state: NodeState::Up,
            pid: 1,
            duty: Default::default(),
        };
        RouteView {
            tenant: TenantEntry {
                tenant: TenantId(1),
                name: "acme".parse().unwrap(),
                volume_count: VOLUMES,
                window: Millis(5),
                first_copy_retention: Millis(0),
                single_dc: trefoil_protocol::config::SingleDcPolicy::Allow,
                stale_reads: Default::default(),
            },
            volumes: (0..VOLUMES).map(volume).collect(),
            nodes: names.iter().map(|name| entry(name)).collect(),
            now: CpTime(1),
            principal: PrincipalId(7),
            voters: Vec::new(),
        }
    }
}
