//! `trefoil storage-node` and `trefoil placement`: reads the configuration, hands it to the server's
//! library, and stops when asked. A server that was started by `dev` or `demo` dies with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::runtime::{Builder, Runtime};
use tracing::Level;
use trefoil_placement::shell::{KeySettings, Settings as PlacementSettings};
use trefoil_placement::{Beginning, Caution};
use trefoil_protocol::config::LinkAddress;
use trefoil_protocol::ids::LinkId;
use trefoil_storage_node::Pace;
use trefoil_storage_node::shell::{Detour, Settings as NodeSettings};

use crate::config::server::{NodeFile, PlacementFile};
use crate::failure::{Failure, Verdict, at};
use crate::process::{Stop, die_with_parent, occupy};
use crate::quantity;
use crate::rlimits;

/// The variable that holds the master key's passphrase where no file does.
const PASSPHRASE_VARIABLE: &str = "TREFOIL_PASSPHRASE";

/// Arguments of both servers.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// The server's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Say what happens in detail
    #[arg(long)]
    verbose: bool,
}

/// Arguments of `placement`.
#[derive(Debug, Args)]
pub(crate) struct PlacementArguments {
    #[command(flatten)]
    serve: ServeArguments,
    /// The file with the passphrase of the master key [default: the configuration's, else TREFOIL_PASSPHRASE]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Make the keys that several voters share, and end
    #[arg(long)]
    make_keys: bool,
}

/// Runs a storage node.
pub(crate) fn storage_node(arguments: &ServeArguments) -> Verdict {
    let file = NodeFile::read(&arguments.config)?;
    let settings = node_settings(&file).map_err(|failure| failure.within(arguments.config.display()))?;
    let _occupied = begin(arguments)?;
    runtime()?.block_on(async {
        let mut stop = Stop::listen()?;
        trefoil_storage_node::shell::run(settings, stop.asked()).await.map_err(|error| {
            match error.suspect() {
                true => Failure::refused(error),
                false => Failure::failed(error),
            }
        })
    })
}

fn node_settings(file: &NodeFile) -> Verdict<NodeSettings> {
    let link = |number: u8| {
        let link = LinkId::ALL.into_iter().find(|link| link.number() == number);
        link.ok_or_else(|| Failure::usage(format!("there is no link {number}, only 1 and 2")))
    };
    let links: Verdict<Vec<LinkAddress>> =
        file.links.iter().map(|at| Ok(LinkAddress { link: link(at.id)?, address: at.listen })).collect();
    let detours: Verdict<Vec<Detour>> = file
        .detours
        .iter()
        .map(|detour| {
            let node = detour.node.parse().map_err(Failure::usage)?;
            Ok(Detour { node, link: link(detour.link)?, via: detour.via })
        })
        .collect();
    Ok(NodeSettings {
        cluster: file.cluster.parse().map_err(Failure::usage)?,
        node: file.id.parse().map_err(Failure::usage)?,
        dc: file.dc.parse().map_err(Failure::usage)?,
        rack: file.rack.parse().map_err(Failure::usage)?,
        data: file.data.clone(),
        capacity: file.capacity,
        links: links?,
        detours: detours?,
        pace: pace(file)?,
        placement: file.placement.clone(),
        trust: file.trust.clone(),
        certificate: file.certificate.clone(),
        key: file.key.clone(),
    })
}

fn pace(file: &NodeFile) -> Verdict<Pace> {
    let mut pace = Pace::default();
    if let Some(time) = &file.keys_move_after {
        pace.keys_move_after = quantity::duration(time).map_err(Failure::usage)?;
    }
    if let Some(bytes) = file.repair_floor {
        pace.repair_floor = bytes;
    }
    Ok(pace)
}

/// Runs a placement process.
pub(crate) fn placement(arguments: &PlacementArguments) -> Verdict {
    let PlacementArguments { serve: arguments, passphrase_file, make_keys } = arguments;
    let file = PlacementFile::read(&arguments.config)?;
    let settings = placement_settings(file, passphrase_file.as_deref())
        .map_err(|failure| failure.within(arguments.config.display()))?;
    if *make_keys {
        let keys = settings.keys.ok_or_else(|| Failure::usage("the witness holds no keys"))?;
        return trefoil_placement::shell::make_keys(&keys).map_err(Failure::failed);
    }
    let _occupied = begin(arguments)?;
    runtime()?.block_on(async {
        let mut stop = Stop::listen()?;
        trefoil_placement::shell::run(settings, stop.asked()).await.map_err(Failure::failed)
    })
}

pub(crate) fn placement_settings(
    file: PlacementFile,
    passphrase_file: Option<&Path>,
) -> Verdict<PlacementSettings> {
    let voters = file.council()?;
    let own = voters.iter().find(|entry| entry.name.as_str() == file.id);
    let own = *own.expect("the council has this process in it");
    let keys = match (own.witness, file.master) {
        (false, Some(master)) => {
            let passphrase = passphrase(passphrase_file.or(file.passphrase_file.as_deref()))?.into();
            Some(KeySettings { master, passphrase })
        }
        (false, None) => return Err(Failure::usage("`master` must name the sealed keys of a voter")),
        (true, None) => None,
        (true, Some(_)) => return Err(Failure::usage("`master` has no place at a witness: it holds no key")),
    };
    let mut caution = Caution::default();
    for (time, setting) in [
        (&file.restore_after, &mut caution.restore_after),
        (&file.slow_for, &mut caution.slow_for),
        (&file.slow_floor, &mut caution.slow_floor),
        (&file.probation, &mut caution.probation),
    ] {
        if let Some(time) = time {
            *setting = quantity::duration(time).map_err(Failure::usage)?;
        }
    }
    Ok(PlacementSettings {
        cluster: file.cluster,
        voter: own.voter,
        voters,
        beginning: if file.join { Beginning::Join } else { Beginning::Found },
        data: file.data,
        listen: file.listen,
        tenant_listen: file.tenant_listen,
        keys,
        caution,
        trust: file.trust,
        certificate: file.certificate,
        key: file.key,
    })
}

fn begin(arguments: &ServeArguments) -> Verdict<File> {
    die_with_parent()?;
    log(arguments);
    rlimits::settle();
    occupy(&arguments.config)
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
