//! A cluster as its operator and its tenants know it: files in its folder, the command line, the
//! client library, signals. How its processes were started, and where, is somebody else's matter.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use trefoil_client::{Client, Profile, Settings};

use crate::program::{Folder, Run, run};

/// The storage nodes.
pub(crate) const NODES: [&str; 6] = ["a1", "a2", "a3", "b1", "b2", "b3"];

/// The placement process.
pub(crate) const PLACEMENT: &str = "w1";

/// How long anything may take that must happen, on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What is known of a cluster from outside.
pub(crate) struct Outside {
    folder: Folder,
    runtime: Runtime,
}

impl Outside {
    /// A cluster in this folder.
    pub(crate) fn of(folder: Folder) -> Self {
        Self { folder, runtime: Runtime::new().unwrap() }
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// A file of the cluster.
    pub(crate) fn path(&self, inner: impl AsRef<Path>) -> PathBuf {
        self.folder.join(inner)
    }

    /// Where a server keeps its data.
    pub(crate) fn data(&self, server: &str) -> PathBuf {
        self.path(server).join("data")
    }

    /// Every server: whoever has a configuration.
    pub(crate) fn servers(&self) -> Vec<String> {
        let folders = fs::read_dir(self.folder.path()).unwrap();
        let names = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| self.configuration(name).exists()).collect()
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

    /// The port of a node on link 1 (0) or link 2 (1).
    pub(crate) fn link_port(&self, node: &str, link: usize) -> u16 {
        let file = self.configuration_of(node);
        let listen = file["links"][link]["listen"].as_str().unwrap();
        listen.parse::<std::net::SocketAddr>().unwrap().port()
    }

    /// Where the custodian listens.
    pub(crate) fn custodian(&self) -> std::net::SocketAddr {
        self.configuration_of(PLACEMENT)["tenant_listen"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn configuration_of(&self, server: &str) -> toml::Table {
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
        self.issue(tenant);
    }

    /// Makes a profile for a tenant.
    #[track_caller]
    pub(crate) fn issue(&self, tenant: &str) {
        let profile = self.profile(tenant);
        fs::create_dir_all(profile.parent().expect("a folder")).unwrap();
        let mut issue = vec!["principal", "issue", tenant, "-o", profile.to_str().unwrap()];
        let nodes = NODES.into_iter().map(|node| self.address(node));
        let endpoints: Vec<String> = nodes.chain([self.custodian()]).map(|at| at.to_string()).collect();
        for endpoint in &endpoints {
            issue.extend(["--endpoint", endpoint]);
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

    /// Waits until a server's process is gone.
    #[track_caller]
    pub(crate) fn wait_for_end(&self, server: &str) {
        let began = Instant::now();
        while is_running(&self.path(server).join("pid")) {
            assert!(began.elapsed() < PATIENCE, "{server} does not die");
            std::thread::sleep(Duration::from_millis(10));
        }
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
        for server in self.servers() {
            let log = fs::read(self.path(&server).join("log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            assert!(!log.contains("panicked"), "{server}: {log}");
        }
    }
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
