//! The process around the core: its log on a real disk, its sealed keys, and its listeners with real
//! certificates over real QUIC.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redb::{Database, ReadableTable, TableDefinition};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trefoil_placement::log_store::{HardState, LogBatch, LogEntry, LogSnapshot, LogStore, LogStoreError};
use trefoil_placement::shell::log_file::LogFile;
use trefoil_placement::shell::{KeySettings, RunError, Settings, run};
use trefoil_placement::{Beginning, Caution, Event, Placement, Request, RequestId};
use trefoil_protocol::codec;
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::{ConfigIndex, Incarnation, NodeId, PrincipalId, TenantId, VolumeId, VoterId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::control::{ControlAnswer, ControlRequest};
use trefoil_protocol::message::voter::EntryKind;
use trefoil_transport::{
    Authority, ClusterName, Connection, DialError, Endpoint, Identity, LEAF_LIFETIME, Limits, OwnCertificate,
    Plane, TrustStore,
};
use zeroize::Zeroizing;

use crate::cluster::{Cluster, at, entropy, keyring, node, settings, store, voter};

/// A folder of its own, gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("trefoil-placement-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind at worst.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn entry(index: u64, term: u64) -> LogEntry {
    LogEntry { index, term, kind: EntryKind::Command, data: vec![7; 100].into() }
}

fn some_log(path: &Path) -> LogFile {
    let mut log = LogFile::open(path).unwrap();
    assert_eq!(log.load().unwrap(), None);
    let snapshot = LogSnapshot {
        index: 1,
        term: 1,
        voters: vec![VoterId(1)],
        learners: vec![],
        data: vec![9; 50].into(),
    };
    let hard_state = Some(HardState { term: 1, vote: 1, commit: 1, log: 5 });
    let entries = vec![entry(2, 1), entry(3, 1), entry(4, 1)];
    log.write(LogBatch { snapshot: Some(snapshot), hard_state, ..LogBatch::default() }).unwrap();
    log.write(LogBatch { entries, ..LogBatch::default() }).unwrap();
    log.sync().unwrap();
    log
}

#[test]
fn a_log_on_disk_keeps_whole_batches_in_their_order() {
    let folder = Folder::new();
    let path = folder.join("log.redb");
    let mut log = some_log(&path);
    log.write(LogBatch { entries: vec![entry(3, 2)], ..LogBatch::default() }).unwrap();
    log.sync().unwrap();
    log.write(LogBatch { entries: vec![entry(4, 2)], ..LogBatch::default() }).unwrap();
    drop(log);
    let mut log = LogFile::open(&path).unwrap();
    assert_eq!(
        log.load().unwrap().unwrap().entries,
        [entry(2, 1), entry(3, 2)],
        "what was not synced is lost"
    );
    let snapshot = LogSnapshot {
        index: 2,
        term: 1,
        voters: vec![VoterId(1)],
        learners: vec![],
        data: vec![8; 50].into(),
    };
    log.write(LogBatch { snapshot: Some(snapshot.clone()), ..LogBatch::default() }).unwrap();
    log.sync().unwrap();
    let stored = log.load().unwrap().unwrap();
    assert_eq!((stored.snapshot, stored.entries), (snapshot, vec![entry(3, 2)]));
    assert_eq!(stored.hard_state, HardState { term: 1, vote: 1, commit: 1, log: 5 });
}

#[test]
fn damage_in_the_log_is_an_error_that_says_where() {
    const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
    let folder = Folder::new();
    let path = folder.join("log.redb");
    drop(some_log(&path));
    let spoil = |index: u64, change: &dyn Fn(Vec<u8>) -> Option<Vec<u8>>| {
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(ENTRIES).unwrap();
            let value = table.get(index).unwrap().unwrap().value().to_vec();
            match change(value) {
                Some(value) => drop(table.insert(index, value.as_slice()).unwrap()),
                None => drop(table.remove(index).unwrap()),
            }
        }
        transaction.commit().unwrap();
    };
    let load = || LogFile::open(&path).unwrap().load();
    let flip = |mut value: Vec<u8>| {
        value[20] ^= 1;
        Some(value)
    };
    spoil(3, &flip);
    assert_eq!(load(), Err(LogStoreError::Damaged("entry 3: its hash does not match".into())));
    spoil(3, &flip);
    assert!(load().is_ok());
    spoil(3, &|_| None);
    assert_eq!(load(), Err(LogStoreError::Damaged("entry 3 is missing, 4 follows".into())));
}

#[test]
fn the_control_plane_finds_itself_again_on_disk() {
    let folder = Folder::new();
    let path = folder.join("log.redb");
    let open = || {
        let log = LogFile::open(&path).unwrap();
        let mut placement =
            Placement::open(settings("p-a1", &[voter("p-a1")]), Some(keyring()), log, entropy(), at(0))
                .unwrap();
        placement.step(at(0), Event::Wakeup);
        placement
    };
    let mut placement = open();
    let asked = ControlRequest::Register(Cluster::register("a1", store("a1"), Incarnation(0)));
    placement.step(at(1), Event::Request(RequestId(1), Request::Control(node("a1"), asked)));
    let before = placement.state().topology.clone();
    assert!(before.node(node("a1")).is_some());
    drop(placement);
    assert_eq!(open().state().topology, before);
}

/// A running placement process with its authority.
struct Process {
    folder: Folder,
    authority: Authority,
    cluster: ClusterName,
    control: SocketAddr,
    custodian: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Result<(), RunError>>>,
}

/// Ports that were free a moment ago.
fn free_address() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Process {
    async fn start() -> Self {
        let cluster: ClusterName = "test".parse().unwrap();
        let folder = Folder::new();
        let authority = Authority::create(&cluster).unwrap();
        fs::create_dir_all(folder.join("data")).unwrap();
        fs::write(folder.join("ca.pem"), authority.certificate_pem()).unwrap();
        let own = authority.issue(&Identity::placement("w1").unwrap(), LEAF_LIFETIME).unwrap();
        fs::write(folder.join("identity.pem"), own.certificate_pem).unwrap();
        fs::write(folder.join("identity.key"), own.key_pem).unwrap();
        let (control, custodian) = (free_address(), free_address());
        let mut process = Self { folder, authority, cluster, control, custodian, stop: None, running: None };
        process.resume();
        process
    }

    fn settings(&self, passphrase: &str) -> Settings {
        let name: NodeId = "w1".parse().unwrap();
        let own = VoterEntry {
            voter: VoterId::of(name),
            name,
            dc: "w".parse().unwrap(),
            witness: false,
            control: self.control,
            tenants: self.custodian,
        };
        Settings {
            cluster: "test".into(),
            voter: own.voter,
            voters: vec![own],
            beginning: Beginning::Found,
            caution: Caution::default(),
            data: self.folder.join("data"),
            listen: self.control,
            tenant_listen: self.custodian,
            keys: Some(KeySettings {
                master: self.folder.join("keys/master.sealed"),
                passphrase: Zeroizing::new(passphrase.into()),
            }),
            trust: self.folder.join("ca.pem"),
            certificate: self.folder.join("identity.pem"),
            key: self.folder.join("identity.key"),
        }
    }

    fn resume(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let settings = self.settings("secret");
        self.stop = Some(stop);
        self.running = Some(tokio::spawn(run(settings, async move { drop(stopped.await) })));
    }

    async fn stop(&mut self) -> Result<(), RunError> {
        drop(self.stop.take());
        self.running.take().unwrap().await.unwrap()
    }

    fn client(&self, identity: &Identity) -> Endpoint {
        let issued = self.authority.issue(identity, LEAF_LIFETIME).unwrap();
        let own = OwnCertificate::from_pem(&issued.certificate_pem, &issued.key_pem).unwrap();
        let trust = TrustStore::from_pem(self.cluster.clone(), self.authority.certificate_pem()).unwrap();
        let local = "127.0.0.1:0".parse().unwrap();
        Endpoint::client(local, own, Arc::clone(&trust), Limits::default()).unwrap()
    }

    async fn connect(&self, endpoint: &Endpoint, remote: SocketAddr, plane: Plane) -> Connection {
        for _ in 0..100 {
            match endpoint.connect(remote, plane, None).await {
                Ok(connection) => return connection,
                Err(DialError::NoAnswer { .. } | DialError::Lost { .. }) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the process does not come up");
    }
}

async fn ask<Q: minicbor::Encode<()>, A: for<'b> minicbor::Decode<'b, ()>>(
    connection: &Connection,
    question: &Q,
) -> A {
    let frame = connection.ask(codec::to_vec(question).into(), Bytes::new()).await.unwrap();
    codec::from_slice(&frame.body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_serves_its_planes_and_keeps_everything_over_a_restart() {
    let mut process = Process::start().await;
    let (a1, root) = (process.client(&Identity::node("a1").unwrap()), Identity::operator("root").unwrap());
    let root = process.client(&root);
    let control = process.connect(&a1, process.control, Plane::Control).await;
    let register = ControlRequest::Register(Cluster::register("a1", store("a1"), Incarnation(0)));
    let answer: ControlAnswer = ask(&control, &register).await;
    let ControlAnswer::Registered { incarnation, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(incarnation, Incarnation(1));
    let renew = ControlRequest::Renew(trefoil_protocol::message::control::Renew {
        store: store("a1"),
        incarnation,
        applied: ConfigIndex(0),
        sent: at(5),
        volumes: Vec::new(),
        links: None,
        timings: Vec::new(),
        condition: trefoil_protocol::message::control::StoreCondition::default(),
    });
    let answer: ControlAnswer = ask(&control, &renew).await;
    let ControlAnswer::Granted { news, .. } = answer else { panic!("{answer:?}") };
    let shown = fs::read_to_string(process.folder.join("data/signing.pub")).unwrap();
    assert_eq!(shown.trim(), news.signers.terms[0].key.unwrap().to_string());
    let admin = process.connect(&root, process.control, Plane::Admin).await;
    let AdminAnswer::Status(before) = ask(&admin, &AdminRequest::Status { behind: VolumeId(0) }).await else {
        panic!()
    };
    assert_eq!(before.nodes.len(), 1);
    process.stop().await.unwrap();
    process.resume();
    let admin = process.connect(&root, process.control, Plane::Admin).await;
    let AdminAnswer::Status(after) = ask(&admin, &AdminRequest::Status { behind: VolumeId(0) }).await else {
        panic!()
    };
    assert_eq!(after.nodes, before.nodes);
    process.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r090_a_peer_of_one_plane_is_refused_on_another() {
    let mut process = Process::start().await;
    let a1 = process.client(&Identity::node("a1").unwrap());
    let control = process.connect(&a1, process.control, Plane::Control).await;
    // A node asks for what only an operator may, on every listener and plane it can name.
    for (remote, plane) in [
        (process.control, Plane::Admin),
        (process.control, Plane::Tenant),
        (process.control, Plane::Node),
        (process.custodian, Plane::Tenant),
        (process.custodian, Plane::Control),
    ] {
        let refused = match a1.connect(remote, plane, None).await {
            Err(_) => true,
            Ok(connection) => {
                let question = codec::to_vec(&AdminRequest::Status { behind: VolumeId(0) });
                connection.ask(question.into(), Bytes::new()).await.is_err()
            }
        };
        assert!(refused, "{remote} {plane}");
    }
    // Garbage costs the connection, not the process.
    assert!(control.ask(Bytes::from_static(b"\xff\xff"), Bytes::new()).await.is_err());
    let again = process.connect(&a1, process.control, Plane::Control).await;
    let register = ControlRequest::Register(Cluster::register("a1", store("a1"), Incarnation(0)));
    let answer: ControlAnswer = ask(&again, &register).await;
    assert!(matches!(answer, ControlAnswer::Registered { .. }));
    let stranger = Identity::Principal { tenant: TenantId(7), principal: PrincipalId(1) };
    let stranger = process.client(&stranger);
    let tenant = process.connect(&stranger, process.custodian, Plane::Tenant).await;
    let keys = trefoil_protocol::message::tenant::TenantRequest {
        volume: trefoil_protocol::ids::VolumeId(0),
        epoch: trefoil_protocol::ids::Epoch(0),
        call: trefoil_protocol::message::tenant::TenantCall::Keys,
        within: trefoil_protocol::time::Millis(60_000),
    };
    let response: trefoil_protocol::message::tenant::TenantResponse = ask(&tenant, &keys).await;
    assert_eq!(response, Err(trefoil_protocol::message::tenant::Refusal::Stranger));
    process.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_keys_open_by_their_passphrase_only_and_are_never_made_anew_over_a_log() {
    let mut process = Process::start().await;
    let root = process.client(&Identity::operator("root").unwrap());
    process.connect(&root, process.control, Plane::Admin).await;
    process.stop().await.unwrap();
    let wrong = run(process.settings("guess"), std::future::pending()).await;
    assert!(matches!(wrong, Err(RunError::Keys(_))), "{wrong:?}");
    let sealed = process.folder.join("keys/master.sealed");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&sealed).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(&sealed).unwrap();
    let lost = run(process.settings("secret"), std::future::pending()).await;
    assert!(matches!(lost, Err(RunError::KeysLost { .. })), "{lost:?}");
}
