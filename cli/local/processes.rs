//! The server processes of a local cluster: started, watched, killed, reaped. Each holds a lock on
//! its `pid` file while it lives, so that nobody starts it twice and a stale number means nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use super::Layout;
use crate::failure::{Failure, Verdict, at};
use crate::process::PARENT_VARIABLE;

/// How long a server may take to stop when asked nicely.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How many heaps glibc's allocator keeps in a process. One thread does nearly all the allocating; with
/// more heaps, memory that thousands of volumes gave back stays spread over all of them.
const ARENAS_VARIABLE: &str = "MALLOC_ARENA_MAX";

/// The servers this process started. Dropped, they are killed; if this process dies, the system
/// kills them.
#[derive(Default)]
pub(crate) struct Processes {
    children: BTreeMap<String, Server>,
}

struct Server {
    child: Child,
    log: PathBuf,
}

impl Processes {
    /// Starts a server in a process group of its own, so that Ctrl-C reaches only this process.
    pub(super) fn start(&mut self, layout: &Layout, name: &str, verb: &str) -> Verdict {
        let program = std::env::current_exe().map_err(Failure::failed)?;
        let path = layout.log(name);
        let log = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
        let child = Command::new(program)
            .arg(verb)
            .arg("--config")
            .arg(layout.configuration(name))
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .env(ARENAS_VARIABLE, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(Failure::failed)?;
        self.children.insert(name.to_owned(), Server { child, log: path });
        Ok(())
    }

    /// Kills servers without warning, all at once, and waits until the system has confirmed each end.
    pub(crate) fn kill(&mut self, names: &[&str]) -> Verdict<Vec<ExitStatus>> {
        let mut killed = Vec::new();
        for name in names {
            let server = self.children.remove(*name);
            let mut server = server.ok_or_else(|| Failure::failed(format!("{name} was not started here")))?;
            server.child.kill().map_err(Failure::failed)?;
            killed.push(server);
        }
        killed.into_iter().map(|mut server| server.child.wait().map_err(Failure::failed)).collect()
    }

    /// Whether it was started here and is not reaped yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.children.contains_key(name)
    }

    /// Sends a signal to a server that was started here.
    pub(crate) fn signal(&self, name: &str, signal: Signal) -> Verdict {
        let server = self.children.get(name);
        let server = server.ok_or_else(|| Failure::failed(format!("{name} does not run here")))?;
        kill_process(Pid::from_child(&server.child), signal).map_err(Failure::failed)
    }

    /// The process numbers of what was started and not yet reaped.
    pub(crate) fn pids(&self) -> BTreeMap<String, u32> {
        self.children.iter().map(|(name, server)| (name.clone(), server.child.id())).collect()
    }

    /// Takes away the servers that ended by themselves: each one's name, and how it ended.
    pub(crate) fn reap(&mut self) -> Vec<(String, String)> {
        let mut ended = Vec::new();
        self.children.retain(|name, server| match server.child.try_wait() {
            Ok(Some(status)) => {
                ended.push((name.clone(), format!("{status} ({})", last_words(&server.log))));
                false
            }
            // A child that cannot be asked is asked again.
            Ok(None) | Err(_) => true,
        });
        ended
    }

    /// Waits for `work`, and fails at once when a server ends meanwhile.
    pub(crate) async fn watched<T>(&mut self, work: impl Future<Output = Verdict<T>>) -> Verdict<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(Duration::from_millis(100)) => {
                    if let Some((name, how)) = self.reap().into_iter().next() {
                        return Err(Failure::failed(format!("{name} ended with {how}")));
                    }
                }
            }
        }
    }

    /// Asks every server to stop, and kills those that do not.
    pub(crate) fn stop(&mut self) {
        for server in self.children.values() {
            // A process that has ended already needs no signal.
            let _ = kill_process(Pid::from_child(&server.child), Signal::TERM);
        }
        let began = Instant::now();
        while !self.children.is_empty() && began.elapsed() < STOP_WITHIN {
            self.reap();
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill_all();
    }

    fn kill_all(&mut self) {
        for server in self.children.values_mut() {
            let _ = server.child.kill();
        }
        for server in self.children.values_mut() {
            let _ = server.child.wait();
        }
        self.children.clear();
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// The last line of a server's log.
fn last_words(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().last().unwrap_or("it said nothing").to_owned()
}

/// Whether somebody holds the lock on a server's `pid` file.
pub(super) fn is_running(layout: &Layout, name: &str) -> bool {
    let Ok(file) = File::open(layout.pid(name)) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// Sends a signal to a server of this folder that somebody else started.
pub(super) fn signal_other(layout: &Layout, name: &str, signal: Signal) -> Verdict {
    let gone = || Failure::failed(format!("{name} does not run"));
    if !is_running(layout, name) {
        return Err(gone());
    }
    let path = layout.pid(name);
    let text = fs::read_to_string(&path).map_err(at(&path))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    kill_process(pid, signal).map_err(Failure::failed)
}

/// Kills such a server, and waits until it holds nothing any more.
pub(super) fn kill_other(layout: &Layout, name: &str) -> Verdict {
    signal_other(layout, name, Signal::KILL)?;
    let began = Instant::now();
    while is_running(layout, name) {
        if began.elapsed() > STOP_WITHIN {
            return Err(Failure::failed(format!("{name} was killed and has not ended")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
