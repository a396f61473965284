//! A whole cluster of real processes in a folder of its own, and everything that a test does to it
//! from outside: signals, the command line, files. It knows no more of the product than an operator
//! does, and nothing survives it: processes are killed and the folder is removed, also on a panic.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;
use trefoil_client::{Client, Profile, Settings};

use crate::turn::turn;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_trefoil");

/// The storage nodes of a local cluster.
pub(crate) const NODES: [&str; 6] = ["a1", "a2", "a3", "b1", "b2", "b3"];

/// The placement process of a local cluster.
pub(crate) const PLACEMENT: &str = "w1";

/// How long anything may take that must happen, on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that is gone when the test is over. Kept, with what the servers logged, when it failed.
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        // What a killed run with this process number left.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// This run, which must have succeeded.
    #[track_caller]
    pub(crate) fn held(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// The one JSON value on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| {
            panic!("{error}: {} {}", String::from_utf8_lossy(&self.stdout), self.stderr)
        })
    }

    /// The run failed with this exit code, in words that hold `said`, and without a panic.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, said: &str) {
        assert!(self.code == code && self.stderr.contains(said), "expected {code} and {said:?}: {self:?}");
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// The program with arguments, not yet run. A server that it becomes dies with this thread.
pub(crate) fn trefoil(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_remove("TREFOIL_PROFILE").stdin(Stdio::null());
    command.env("TREFOIL_PARENT", std::process::id().to_string());
    command
}

/// Runs the program.
pub(crate) fn run(arguments: &[&str]) -> Run {
    Run::of(trefoil(arguments).output().unwrap())
}

/// Runs a server that must end by itself.
pub(crate) fn run_until_it_ends(arguments: &[&str], patience: Duration) -> Run {
    let command = trefoil(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = command.unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() && began.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    let endless = child.try_wait().unwrap().is_none();
    let _ = child.kill();
    let run = Run::of(child.wait_with_output().unwrap());
    assert!(!endless, "{arguments:?} still runs after {patience:?}: {}", run.stderr);
    run
}

/// A running cluster.
pub(crate) struct Cluster {
    folder: Folder,
    dev: Child,
    restarted: BTreeMap<String, Child>,
    runtime: Runtime,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts a cluster whose deletes can be undone for `window`.
    pub(crate) fn start(name: &str, window: &str) -> Self {
        Self::over(Folder::new(name), window)
    }

    /// Starts a cluster in a folder that may hold one already.
    fn over(folder: Folder, window: &str) -> Self {
        let turn = turn();
        let runtime = Runtime::new().unwrap();
        let dev = spawn_dev(folder.path(), window);
        let mut cluster = Self { folder, dev, restarted: BTreeMap::new(), runtime, _turn: turn };
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
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A file of the cluster.
    pub(crate) fn path(&self, inner: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(inner)
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
        let text = fs::read_to_string(self.configuration(node)).unwrap();
        let file: toml::Table = text.parse().unwrap();
        file["links"][0]["listen"].as_str().unwrap().parse().unwrap()
    }

    /// Where the custodian listens.
    pub(crate) fn custodian(&self) -> std::net::SocketAddr {
        let text = fs::read_to_string(self.configuration(PLACEMENT)).unwrap();
        let file: toml::Table = text.parse().unwrap();
        file["tenant_listen"].as_str().unwrap().parse().unwrap()
    }

    /// The file of a tenant's profile.
    pub(crate) fn profile(&self, tenant: &str) -> PathBuf {
        self.path(format!("tenants/{tenant}.toml"))
    }

    /// Runs a verb as a tenant.
    pub(crate) fn tenant(&self, tenant: &str, arguments: &[&str]) -> Run {
        let profile = self.profile(tenant);
        run(&[&["--profile", profile.to_str().unwrap(), "--json"], arguments].concat())
    }

    /// Runs a verb as the operator.
    pub(crate) fn operator(&self, arguments: &[&str]) -> Run {
        let profile = self.path("admin.toml");
        run(&[&["--profile", profile.to_str().unwrap(), "--json"], arguments].concat())
    }

    /// Runs what needs a runtime.
    pub(crate) fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
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
        let began = Instant::now();
        // The killed process may hold its files for a moment more.
        while is_running(&self.path(server).join("pid")) {
            assert!(began.elapsed() < PATIENCE, "{server} does not die");
            std::thread::sleep(Duration::from_millis(10));
        }
        let child = trefoil(&[verb, "--config", configuration.to_str().unwrap()]).stderr(log).spawn();
        self.restarted.insert(server.to_owned(), child.unwrap());
    }

    /// `kill -9` of every process of the cluster at once.
    pub(crate) fn kill_everything(&mut self) {
        for server in NODES.into_iter().chain([PLACEMENT]) {
            // One that the test killed before has no process to kill now.
            let _ = kill_process(self.pid(server), Signal::KILL);
        }
        self.dev.kill().unwrap();
        self.dev.wait().unwrap();
        for child in self.restarted.values_mut() {
            child.wait().unwrap();
        }
        self.restarted.clear();
        let _ = fs::remove_file(self.path("ready"));
    }

    /// Starts everything again, as `trefoil dev` does on a folder that it knows.
    pub(crate) fn start_again(&mut self, window: &str) {
        self.dev = spawn_dev(self.folder.path(), window);
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
            std::thread::sleep(Duration::from_millis(200));
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

fn spawn_dev(folder: &Path, window: &str) -> Child {
    let log = File::create(folder.join("dev.log")).unwrap();
    let data = folder.to_str().unwrap();
    let mut command = trefoil(&["dev", "--data", data, "--delete-window", window]);
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
