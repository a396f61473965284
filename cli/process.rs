//! What a process that runs for long owes the others: it stops when asked, does not outlive the one that
//! started it, and holds a lock beside its configuration, so that nobody starts it twice.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Verdict, at};

/// Names the process that a server must not outlive.
pub(crate) const PARENT_VARIABLE: &str = "TREFOIL_PARENT";

/// Ctrl-C, or the signal that asks a service to stop.
pub(crate) struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    /// From now on these signals no longer end the process by themselves.
    pub(crate) fn listen() -> Verdict<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(Failure::failed)?,
            terminate: signal(SignalKind::terminate()).map_err(Failure::failed)?,
        })
    }

    /// Returns when somebody asked.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Asks the system to kill this process when the one that started it dies.
pub(crate) fn die_with_parent() -> Verdict {
    let Ok(parent) = std::env::var(PARENT_VARIABLE) else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(Failure::failed)?;
    // It may have died before the system was asked.
    let named = parent.parse().ok().and_then(Pid::from_raw);
    if named.is_none() || getppid() != named {
        return Err(Failure::failed("the process that started this one has ended"));
    }
    Ok(())
}

/// Writes this process's number beside its configuration and locks the file for as long as the
/// returned value lives.
pub(crate) fn occupy(configuration: &Path) -> Verdict<File> {
    let path = crate::config::beside(configuration, Path::new("pid"));
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .read(true)
        .open(&path)
        .map_err(at(&path))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let holder = fs::read_to_string(&path).unwrap_or_default();
        let message = format!("{}: process {} already runs this server", path.display(), holder.trim());
        return Err(Failure::failed(message));
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(at(&path))?;
    Ok(file)
}
