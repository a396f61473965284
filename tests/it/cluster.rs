//! A whole cluster of real processes on loopback, as `trefoil dev` runs it, in a folder of its own.
//! What a test does to it from outside is [`Outside`]'s. Nothing survives it: processes are killed
//! and the folder is removed, also on a panic.
//!
//! A test that breaks things has a cluster [`Alone`]. Tests that hurt nobody share one
//! ([`shared`]); there they keep apart by the names of their objects, or by tenants of their own.
//! Either takes a [`Place`] first: only so many clusters are at work at once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::outside::{NODES, Outside, PATIENCE};
use crate::places::Place;
use crate::program::{Folder, trefoil};

/// How long deletes can be undone where a test does not say otherwise.
const WINDOW: &str = "7d";

/// A cluster that one test has for itself.
pub(crate) struct Alone {
    cluster: Cluster,
    _place: Place,
}

impl Alone {
    /// Starts a cluster in a folder of this name.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    /// Starts one, telling `dev` something besides.
    pub(crate) fn start_with(name: &str, options: &'static [&'static str]) -> Self {
        let _place = Place::take();
        Self { cluster: Cluster::start(Folder::new(name), options), _place }
    }

    /// Starts one beside which no other is at work, to measure what it costs.
    pub(crate) fn start_in_quiet(name: &str) -> Self {
        let _place = Place::take_all();
        Self { cluster: Cluster::start(Folder::new(name), &[]), _place }
    }

    /// Starts one whose links a drill can cut.
    pub(crate) fn start_relayed(name: &str) -> Self {
        Self::start_with(name, &["--relay"])
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
    _place: Place,
}

/// The cluster that tests share; the first who asks starts it.
pub(crate) fn shared() -> Shared {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    let _place = Place::take();
    Shared { cluster: SHARED.get_or_init(start_for_all), _place }
}

/// Children die with the thread that started them, and a test's thread ends with its test: this one
/// lives as long as the process.
fn start_for_all() -> Cluster {
    let (give, take) = mpsc::channel();
    std::thread::spawn(move || {
        give.send(Cluster::start(Folder::of_the_process("shared"), &[])).expect("somebody waits");
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
            self.cluster.folder().keep();
        }
    }
}

/// A running cluster.
pub(crate) struct Cluster {
    outside: Outside,
    /// What `dev` is told besides.
    options: &'static [&'static str],
    dev: Child,
    restarted: BTreeMap<String, Child>,
}

impl Deref for Cluster {
    type Target = Outside;

    fn deref(&self) -> &Outside {
        &self.outside
    }
}

impl Cluster {
    fn start(folder: Folder, options: &'static [&'static str]) -> Self {
        let dev = spawn_dev(folder.path(), options);
        let mut cluster = Self { options, outside: Outside::of(folder), dev, restarted: BTreeMap::new() };
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

    /// Starts one server that was killed, by its configuration.
    pub(crate) fn restart(&mut self, server: &str) {
        if let Some(mut old) = self.restarted.remove(server) {
            old.wait().unwrap();
        }
        let is_node = self.configuration_of(server).get("links").is_some();
        let verb = if is_node { "storage-node" } else { "placement" };
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

    /// `kill -9` of `trefoil dev`, and with it of every server at once.
    pub(crate) fn kill_everything(&mut self) {
        self.dev.kill().unwrap();
        self.dev.wait().unwrap();
        for (name, child) in &mut self.restarted {
            assert!(child.try_wait().unwrap().is_some(), "{name} is no child of dev any more");
        }
        self.servers().iter().for_each(|server| self.wait_for_end(server));
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
        self.dev = spawn_dev(self.folder().path(), self.options);
        self.wait_for_ready();
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

fn spawn_dev(folder: &Path, options: &[&str]) -> Child {
    let log = File::create(folder.join("dev.log")).unwrap();
    let data = folder.to_str().unwrap();
    let mut command = trefoil(&["dev", "--data", data, "--delete-window", WINDOW]);
    command.args(options);
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}
