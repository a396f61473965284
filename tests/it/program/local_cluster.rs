//! `trefoil dev` in a temporary folder, and the program run against it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::turn::turn;

/// How long a cluster may take to get ready on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The program.
pub(super) fn trefoil() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trefoil"));
    command.env_remove("TREFOIL_PROFILE").env_remove("TREFOIL_PASSPHRASE");
    command
}

/// A folder that goes with the value.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// A fresh one.
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("trefoil-it-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    /// A path in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running cluster.
pub(super) struct LocalCluster {
    dev: Option<Child>,
    pub(super) folder: Folder,
    _alone: MutexGuard<'static, ()>,
}

impl LocalCluster {
    /// Starts one with a delete window of `window` and waits until it is ready.
    pub(super) fn start(name: &str, window: &str) -> Self {
        let mut cluster = Self { dev: None, _alone: turn(), folder: Folder::new(name) };
        cluster.run(&["--delete-window", window]);
        cluster
    }

    /// Starts what does not run.
    pub(super) fn run(&mut self, more: &[&str]) {
        let log = fs::File::create(self.folder.join("dev.log")).unwrap();
        let data = self.folder.join("cluster");
        let _ = fs::remove_file(data.join("ready"));
        let mut dev = trefoil();
        dev.arg("dev")
            .arg("--data")
            .arg(&data)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.dev = Some(dev.spawn().expect("the program starts"));
        let began = Instant::now();
        while !data.join("ready").exists() {
            let ended = self.dev.as_mut().and_then(|dev| dev.try_wait().unwrap());
            let said = || fs::read_to_string(self.folder.join("dev.log")).unwrap_or_default();
            assert!(ended.is_none(), "dev ended: {}", said());
            assert!(began.elapsed() < READY_WITHIN, "dev is not ready: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A file of the cluster.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.folder.join("cluster").join(path)
    }

    /// A tenant's profile.
    pub(super) fn profile(&self, tenant: &str) -> PathBuf {
        self.file(&format!("tenants/{tenant}.toml"))
    }

    /// Runs the program as a tenant, or as the operator `admin`.
    pub(super) fn as_tenant(&self, tenant: &str, arguments: &[&str]) -> Ran {
        let profile = if tenant == "admin" { self.file("admin.toml") } else { self.profile(tenant) };
        let output = trefoil().arg("--profile").arg(profile).args(arguments).stdin(Stdio::null()).output();
        Ran::new(arguments, output.expect("the program runs"))
    }

    /// As `acme`, expecting success.
    pub(super) fn acme(&self, arguments: &[&str]) -> Ran {
        self.as_tenant("acme", arguments).succeeded()
    }

    /// The process number of a server.
    pub(super) fn pid(&self, server: &str) -> Pid {
        let text = fs::read_to_string(self.file(&format!("{server}/pid"))).expect("a pid file");
        text.trim().parse().ok().and_then(Pid::from_raw).expect("a process number")
    }

    /// Kills the servers, all at once and without warning.
    pub(super) fn kill(&self, servers: &[&str]) {
        for server in servers {
            kill_process(self.pid(server), Signal::KILL).expect("it ran");
        }
    }

    /// Kills `dev` itself without warning; its servers go with it.
    pub(super) fn kill_dev(&mut self) {
        let mut dev = self.dev.take().expect("it runs");
        dev.kill().unwrap();
        dev.wait().unwrap();
    }

    /// Stops the cluster as Ctrl-C does.
    pub(super) fn stop(&mut self) {
        let Some(mut dev) = self.dev.take() else { return };
        kill_process(Pid::from_child(&dev), Signal::INT).expect("it ran");
        let status = dev.wait().unwrap();
        if !std::thread::panicking() {
            assert!(status.success(), "dev ended with {status}");
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// All servers of a local cluster.
pub(super) const SERVERS: [&str; 7] = ["a1", "a2", "a3", "b1", "b2", "b3", "w1"];

/// How a run of the program ended.
pub(super) struct Ran {
    what: String,
    pub(super) code: i32,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Ran {
    /// Takes an output apart.
    pub(super) fn new(arguments: &[&str], output: Output) -> Self {
        Self {
            what: arguments.join(" "),
            code: output.status.code().expect("no signal ended it"),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts that it ended with 0.
    pub(super) fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}: {}", self.what, self.stderr);
        self
    }

    /// Asserts that it ended with this code and said something about it, on standard error only.
    pub(super) fn failed_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}: {}", self.what, self.stderr);
        assert!(
            !self.stderr.is_empty() && !self.stderr.contains("panicked"),
            "{}: {}",
            self.what,
            self.stderr
        );
        self
    }

    /// The answer as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("text")
    }

    /// The answer as one JSON value.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{}: {error}", self.what))
    }
}
