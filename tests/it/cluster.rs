//! A whole cluster of real processes in a folder of its own, and everything that a test does to it
//! from outside: signals, the command line, files. It knows no more of the product than an operator
//! does, and nothing survives it: processes are killed and the folder is removed, also on a panic.
//!
//! A test that breaks things has a cluster [`Alone`]. Tests that hurt nobody share one
//! ([`shared`]); there they keep apart by the names of their objects, or by tenants of their own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use trefoil_client::{Client, Profile, Settings};

use crate::program::{Folder, Run, run, trefoil};

/// The storage nodes of a local cluster.
pub(crate) const NODES: [&str; 6] = ["a1", "a2", "a3", "b1", "b2", "b3"];

/// The placement process of a local cluster.
pub(crate) const PLACEMENT: &str = "w1";

/// How long anything may take that must happen, on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How long deletes can be undone where a test does not say otherwise.
const WINDOW: &str = "7d";

/// Seven processes and a test that counts seconds are enough for two cores: whoever has a cluster
/// alone holds this for writing, whoever shares one, for reading.
static TURN: RwLock<()> = RwLock::new(());

/// Waits until no other cluster is at work. Held until the value is dropped.
pub(crate) fn turn() -> RwLockWriteGuard<'static, ()> {
    // A test that failed leaves the lock poisoned and nothing else.
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster that one test has for itself.
pub(crate) struct Alone {
    cluster: Cluster,
    _turn: RwLockWriteGuard<'static, ()>,
}

impl Alone {
    /// Starts a cluster in a folder of this name.
    pub(crate) fn start(name: &str) -> Self {
        let _turn = turn();
        Self { cluster: Cluster::start(Folder::new(name)), _turn }
    }
}

impl Deref for Alone {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for Alone {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

/// The cluster that tests share.
pub(crate) struct Shared {
    cluster: &'static Cluster,
    _turn: RwLockReadGuard<'static, ()>,
}

/// The cluster that tests share; the first who asks starts it.
pub(crate) fn shared() -> Shared {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    let turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
    Shared { cluster: SHARED.get_or_init(start_for_all), _turn: turn }
}

/// Children die with the thread that started them, and a test's thread ends with its test: this one
/// lives as long as the process.
fn start_for_all() -> Cluster {
    let (give, take) = mpsc::channel();
    std::thread::spawn(move || {
        give.send(Cluster::start(Folder::of_the_process("shared"))).expect("somebody waits");
        loop {
            std::thread::park();
        }
    });
    take.recv().expect("the shared cluster starts")
}

impl Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.cluster
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.cluster.folder.keep();
        }
    }
}

/// A running cluster.
pub(crate) struct Cluster {
    folder: Folder,
    dev: Child,
    restarted: BTreeMap<String, Child>,
    runtime: Runtime,
}

impl Cluster {
    fn start(folder: Folder) -> Self {
        let dev = spawn_dev(folder.path());
        let runtime = Runtime::new().unwrap();
        let mut cluster = Self { folder, dev, restarted: BTreeMap::new(), runtime };
        cluster.wait_for_ready();
        cluster
    }

    fn wait_for_ready(&mut self) {
        let began = Instant::now();
        while !self.path("ready").exists() {
            let ended = self.dev.try_wait().unwrap();
            let said = fs::read_to_string(self.path("dev.log")).unwrap_or_default();
            assert!(ended.is_none(), "dev ended with {ended:?}: {said}");
            assert!(began.elapsed() < PATIENCE, "dev is not ready: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A file of the cluster.
    pub(crate) fn path(&self, inner: impl AsRef<Path>) -> PathBuf {
        self.folder.join(inner)
    }

    /// Where a server keeps its data.
    pub(crate) fn data(&self, server: &str) -> PathBuf {
        self.path(server).join("data")
    }

    /// A server's configuration.
    pub(crate) fn configuration(&self, server: &str) -> PathBuf {
        self.path(server).join("config.toml")
    }

    /// Where a node listens on link 1.
    pub(crate) fn address(&self, node: &str) -> std::net::SocketAddr {
        let file = self.configuration_of(node);
        file["links"][0]["listen"].as_str().unwrap().parse().unwrap()
    }

    /// Where the custodian listens.
    pub(crate) fn custodian(&self) -> std::net::SocketAddr {
        self.configuration_of(PLACEMENT)["tenant_listen"].as_str().unwrap().parse().unwrap()
    }

    fn configuration_of(&self, server: &str) -> toml::Table {
        fs::read_to_string(self.configuration(server)).unwrap().parse().unwrap()
    }

    /// The file of a tenant's profile.
    pub(crate) fn profile(&self, tenant: &str) -> PathBuf {
        self.path(format!("tenants/{tenant}.toml"))
    }

    /// Makes a tenant whose deletes can be undone for `window`, and a profile for it.
    #[track_caller]
    pub(crate) fn found(&self, tenant: &str, window: &str) {
        self.found_as(tenant, window, "available");
    }

    /// [`Self::found`] with a word on what shall be while one data centre cannot be reached.
    #[track_caller]
    pub(crate) fn found_as(&self, tenant: &str, window: &str, protection: &str) {
        let create = ["tenant", "create", tenant, "--delete-window", window, "--volumes", "4"];
        let made = self.operator(&[&create[..], &["--protection", protection]].concat());
        assert_eq!(made.held().json()["volumes"], 4);
        let acme: toml::Table = fs::read_to_string(self.profile("acme")).unwrap().parse().unwrap();
        let profile = self.profile(tenant);
        let mut issue = vec!["principal", "issue", tenant, "-o", profile.to_str().unwrap()];
        for endpoint in acme["endpoints"].as_array().unwrap() {
            issue.extend(["--endpoint", endpoint.as_str().unwrap()]);
        }
        self.operator(&issue).held();
    }

    /// Runs a verb as a tenant, with `--json`.
    pub(crate) fn tenant(&self, tenant: &str, arguments: &[&str]) -> Run {
        self.plain(tenant, &[&["--json"], arguments].concat())
    }

    /// Runs a verb as a tenant.
    pub(crate) fn plain(&self, tenant: &str, arguments: &[&str]) -> Run {
        let profile = self.profile(tenant);
        run(&[&["--profile", profile.to_str().unwrap()], arguments].concat())
    }

    /// Runs a verb as the operator, with `--json`.
    pub(crate) fn operator(&self, arguments: &[&str]) -> Run {
        let profile = self.path("admin.toml");
        run(&[&["--profile", profile.to_str().unwrap(), "--json"], arguments].concat())
    }

    /// Runs what needs a runtime.
    pub(crate) fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    /// Runs what needs a runtime beside the test.
    pub(crate) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(work)
    }

    /// The client library as a tenant.
    pub(crate) fn client(&self, tenant: &str) -> Client {
        let profile = Profile::load(self.profile(tenant)).unwrap();
        self.block_on(Client::connect_with(profile, Settings { deadline: PATIENCE })).unwrap()
    }

    /// The process number that a server wrote down.
    pub(crate) fn pid(&self, server: &str) -> Pid {
        let text = fs::read_to_string(self.path(server).join("pid")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    /// Sends a signal to a server.
    pub(crate) fn signal(&self, server: &str, signal: Signal) {
        kill_process(self.pid(server), signal).unwrap();
    }

    /// Starts one server that was killed, by its configuration.
    pub(crate) fn restart(&mut self, server: &str) {
        if let Some(mut old) = self.restarted.remove(server) {
            old.wait().unwrap();
        }
        let verb = if server == PLACEMENT { "placement" } else { "storage-node" };
        let log = self.path(server).join("log");
        let log = fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        let configuration = self.configuration(server);
        // The killed process may hold its files for a moment more.
        self.wait_for_end(server);
        let child = trefoil(&[verb, "--config", configuration.to_str().unwrap()]).stderr(log).spawn();
        self.restarted.insert(server.to_owned(), child.unwrap());
    }

    /// `kill -9` of every storage node; their stores can be looked into afterwards.
    pub(crate) fn kill_nodes(&mut self) {
        for node in NODES {
            self.signal(node, Signal::KILL);
            if let Some(mut child) = self.restarted.remove(node) {
                child.wait().unwrap();
            }
            self.wait_for_end(node);
        }
    }

    /// Waits until a server's process is gone.
    #[track_caller]
    fn wait_for_end(&self, server: &str) {
        let began = Instant::now();
        while is_running(&self.path(server).join("pid")) {
            assert!(began.elapsed() < PATIENCE, "{server} does not die");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `kill -9` of `trefoil dev`, and with it of every server at once.
    pub(crate) fn kill_everything(&mut self) {
        self.dev.kill().unwrap();
        self.dev.wait().unwrap();
        for (name, child) in &mut self.restarted {
            assert!(child.try_wait().unwrap().is_some(), "{name} is no child of dev any more");
        }
        NODES.into_iter().chain([PLACEMENT]).for_each(|server| self.wait_for_end(server));
        let _ = fs::remove_file(self.path("ready"));
    }

    /// Stops the cluster as Ctrl-C does.
    pub(crate) fn stop(&mut self) {
        kill_process(Pid::from_child(&self.dev), Signal::INT).unwrap();
        let status = self.dev.wait().unwrap();
        assert!(status.success(), "dev ended with {status}");
    }

    /// Starts everything again, as `trefoil dev` does on a folder that it knows.
    pub(crate) fn start_again(&mut self) {
        self.dev = spawn_dev(self.folder.path());
        self.wait_for_ready();
    }

    /// The state of the cluster, if placement answers.
    pub(crate) fn status(&self) -> Option<Value> {
        let run = self.operator(&["--deadline", "5s", "status"]);
        (run.code == 0).then(|| run.json())
    }

    /// Waits until `wanted` holds of the state.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status();
            match status {
                Some(status) if wanted(&status) => return status,
                seen => assert!(began.elapsed() < PATIENCE, "waited in vain for {what}: {seen:?}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// No server ever panicked.
    #[track_caller]
    pub(crate) fn nothing_panicked(&self) {
        for server in NODES.into_iter().chain([PLACEMENT]) {
            let log = fs::read(self.path(server).join("log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            assert!(!log.contains("panicked"), "{server}: {log}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A stopped process dies of nothing but this, and the system kills the children of `dev`.
        let _ = self.dev.kill();
        let _ = self.dev.wait();
        for child in self.restarted.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn_dev(folder: &Path) -> Child {
    let log = File::create(folder.join("dev.log")).unwrap();
    let data = folder.to_str().unwrap();
    let mut command = trefoil(&["dev", "--data", data, "--delete-window", WINDOW]);
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Whether a server holds the lock on its `pid` file.
fn is_running(pid: &Path) -> bool {
    let Ok(file) = File::open(pid) else { return false };
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
}

/// Whether a cluster's state shows every volume with three in-sync replicas and every node up.
pub(crate) fn is_whole(status: &Value) -> bool {
    let all = |list: &str, holds: &dyn Fn(&Value) -> bool| status[list].as_array().unwrap().iter().all(holds);
    all("volumes", &|volume| volume["active"] == true && volume["in_sync"].as_array().unwrap().len() == 3)
        && all("nodes", &|node| node["state"] == "up")
        && status["protection"] == "BothDcs"
}
