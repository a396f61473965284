//! `trefoil demo`: the whole promise on one machine. Starts a cluster, breaks it, and judges what it
//! sees from outside: by the public client, by questions to the control plane, by files on disk and
//! by how processes ended. It tells no process what it broke, and changes nothing of the product but
//! the delete window.

mod deletes;
mod faults;
mod ledger;
mod load;
mod report;
mod scan;
mod show;
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::fs::statfs;
use tokio::runtime::Builder;

use self::report::Report;
use self::show::Show;
use crate::failure::{Failure, Verdict, at};
use crate::output::{self, Format};
use crate::process::Stop;
use crate::quantity;

/// What the file system in memory calls itself; its flushes prove nothing.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// The directory tree that both tenants store, whole; by default the first 64 MiB of the current
    /// directory without `target` and `.git`
    #[arg(long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// Where the cluster lives meanwhile; by default in the system's temporary directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Leave the cluster's files for a look
    #[arg(long)]
    keep: bool,
    /// How long deletes can be undone
    #[arg(long, default_value = "5s", value_parser = quantity::duration, value_name = "TIME")]
    delete_window: Duration,
}

/// Runs the show.
pub(crate) fn run(arguments: &DemoArguments, format: Format) -> Verdict {
    // The story runs on the main thread, which lives as long as the program: the servers die with
    // the thread that started them. Clients and relay have the other threads.
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(async {
        let mut stop = Stop::listen()?;
        tokio::select! {
            told = tell(arguments, format) => told,
            // Dropping the story kills the servers and removes the files.
            () = stop.asked() => Err(Failure::failed("interrupted; nothing is left running")),
        }
    })
}

async fn tell(arguments: &DemoArguments, format: Format) -> Verdict {
    let folder = Folder::make(arguments)?;
    let mut report = Report::new();
    let complete = match story(arguments, &folder.path, &mut report).await {
        Ok(()) => true,
        Err(failure) => {
            output::note(&format!("   the story ends here: {failure}"));
            false
        }
    };
    let held = report.finish(complete, format);
    if arguments.keep {
        output::note(&format!("the cluster's files are in {}", folder.path.display()));
    }
    if held {
        Ok(())
    } else {
        Err(Failure::failed("not every step held; --keep leaves the servers' logs for a look"))
    }
}

async fn story(arguments: &DemoArguments, folder: &Path, report: &mut Report) -> Verdict {
    report.begin("Two data centres start: three nodes each, and a placement process");
    let mut show = Show::open(arguments, folder, report).await?;
    show.store_two_trees(report).await?;
    show.find_three_copies(report).await?;
    show.look_into_the_other_tenant(report).await?;
    show.look_for_plaintext(report).await?;
    show.cut_a_link(report).await?;
    show.kill_a_node(report).await?;
    show.restart_placement(report).await?;
    let centre = show.kill_a_data_centre(report).await?;
    show.bring_it_back(&centre, report).await?;
    show.delete_and_undelete(report).await?;
    let certificate = show.delete_for_good(report).await?;
    show.scan_for_the_deleted(report).await?;
    show.check_the_certificate(&certificate, report)?;
    show.read_everything_back(report).await
}

/// The cluster's folder, removed at the end however the end comes.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn make(arguments: &DemoArguments) -> Verdict<Self> {
        let path = match &arguments.data {
            Some(path) if path.exists() => {
                return Err(Failure::usage(format!(
                    "{}: exists; the demo wants a folder of its own",
                    path.display()
                )));
            }
            Some(path) => path.clone(),
            None => place().join(format!(".trefoil-demo-{}", std::process::id())),
        };
        fs::create_dir_all(&path).map_err(at(&path))?;
        Ok(Self { path, keep: arguments.keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing more can be done about what cannot be removed.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The temporary directory, if it is on a disk.
fn place() -> PathBuf {
    let temporary = std::env::temp_dir();
    match statfs(&temporary) {
        Ok(system) if system.f_type == TMPFS_MAGIC => PathBuf::from("."),
        _ => temporary,
    }
}
