//! `trefoil storage-node` and `trefoil placement`: reads the configuration, hands it to the server's
//! library, and stops when asked. A server that was started by `dev` or `demo` dies with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::runtime::{Builder, Runtime};
use tracing::Level;

use crate::config::server::{NodeFile, PlacementFile};
use crate::dev::Stop;
use crate::failure::{Failure, Verdict, at};
use crate::local::occupy;

/// Names the process that a server must not outlive.
pub(crate) const PARENT_VARIABLE: &str = "TREFOIL_PARENT";

/// The variable that holds the master key's passphrase where no file does.
const PASSPHRASE_VARIABLE: &str = "TREFOIL_PASSPHRASE";

/// Arguments of both servers.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// The server's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The file with the passphrase of the master key; placement only
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Say what happens in detail
    #[arg(long)]
    verbose: bool,
}

/// Runs a storage node.
pub(crate) fn storage_node(arguments: &ServeArguments) -> Verdict {
    let file = NodeFile::read(&arguments.config)?;
    let _occupied = begin(arguments)?;
    runtime()?.block_on(async {
        let _stop = Stop::listen()?;
        let _ = file;
        Err(Failure::failed("the storage node's shell is missing"))
    })
}

/// Runs a placement process.
pub(crate) fn placement(arguments: &ServeArguments) -> Verdict {
    let file = PlacementFile::read(&arguments.config)?;
    let passphrase = passphrase(arguments.passphrase_file.as_deref().or(file.passphrase_file.as_deref()))?;
    let _occupied = begin(arguments)?;
    runtime()?.block_on(async {
        let _stop = Stop::listen()?;
        let _ = (file, passphrase);
        Err(Failure::failed("the placement shell is missing"))
    })
}

fn begin(arguments: &ServeArguments) -> Verdict<File> {
    die_with_parent()?;
    log(arguments);
    occupy(&arguments.config)
}

/// Asks the system to kill this process when the one that started it dies.
fn die_with_parent() -> Verdict {
    let Ok(parent) = std::env::var(PARENT_VARIABLE) else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(Failure::failed)?;
    // It may have died before the system was asked.
    let named = parent.parse().ok().and_then(Pid::from_raw);
    if named.is_none() || getppid() != named {
        return Err(Failure::failed("the process that started this one has ended"));
    }
    Ok(())
}

fn log(arguments: &ServeArguments) {
    let level = if arguments.verbose { Level::DEBUG } else { Level::INFO };
    tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(std::io::stderr).init();
}

fn passphrase(path: Option<&Path>) -> Verdict<String> {
    match path {
        Some(path) => fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(at(path)),
        None => std::env::var(PASSPHRASE_VARIABLE).map_err(|_| {
            Failure::usage(format!(
                "the master key needs a passphrase: give --passphrase-file FILE or set {PASSPHRASE_VARIABLE}"
            ))
        }),
    }
}

/// One thread for a server's network: on few cores several cost more than they give.
fn runtime() -> Verdict<Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(Failure::failed)
}
