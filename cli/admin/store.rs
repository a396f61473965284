//! `trefoil node inspect|scrub|rebuild-index|find-bytes`: work on the data folder of a node that does
//! not run. The disk is locked meanwhile, and nothing is repaired here: a running node repairs from
//! its peers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use trefoil_engine::disk::file::FileDisk;
use trefoil_engine::{Owner, RecoveryReport, SegmentLayout, Store, Tail, Volume};

use crate::failure::{Failure, Verdict, at};
use crate::output::{self, Format};

/// A store's folder.
#[derive(Debug, Args)]
pub(crate) struct StoreArguments {
    /// The data folder of a node that does not run
    #[arg(value_name = "DIR")]
    data: PathBuf,
}

/// Arguments of `node find-bytes`.
#[derive(Debug, Args)]
pub(crate) struct FindArguments {
    #[command(flatten)]
    store: StoreArguments,
    /// The bytes, in hexadecimal
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    hex: Option<String>,
    /// The file with the bytes
    #[arg(long)]
    file: Option<PathBuf>,
}

#[derive(Serialize)]
struct StoreView {
    store: String,
    node: String,
    incarnation: u64,
    clean: bool,
    suspect: Option<String>,
    volumes: Vec<VolumeView>,
}

#[derive(Serialize)]
struct VolumeView {
    tenant: u64,
    volume: u64,
    epoch: u64,
    records: u64,
    last: u64,
    committed: u64,
    objects: u64,
    clean: bool,
    /// The first record that may be lost at the end, until peers were asked.
    undecided_from: Option<u64>,
    damaged_records: usize,
    /// Wrapped keys that still ride in their records.
    keys_in_records: usize,
    /// Wrapped keys that rest in the key bag.
    keys_in_bag: usize,
    scanned_bytes: u64,
}

#[derive(Serialize)]
struct ScrubView {
    records: u64,
    leaves: u64,
    bytes: u64,
    faults: Vec<String>,
}

#[derive(Serialize)]
struct RebuildView {
    volumes: usize,
    records: u64,
    objects: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct PlaceView {
    path: String,
    offset: u64,
}

/// What the store says of itself.
pub(crate) fn inspect(arguments: &StoreArguments, format: Format) -> Verdict {
    let store = open(arguments)?;
    let mut volumes = Vec::new();
    each_volume(&store, |owner, volume, report| {
        volumes.push(volume_view(owner, volume, report)?);
        Ok(())
    })?;
    let state = store.state();
    let view = StoreView {
        store: state.store.to_string(),
        node: state.node.to_string(),
        incarnation: state.incarnation.0,
        clean: state.clean,
        suspect: store.suspicion().map_err(Failure::failed)?,
        volumes,
    };
    format.answer(&view, StoreView::text);
    Ok(())
}

impl StoreView {
    fn text(&self) -> String {
        let ended = if self.clean { "ended cleanly" } else { "did not end cleanly" };
        let suspect = self.suspect.as_ref().map_or_else(String::new, |reason| format!("\nSUSPECT: {reason}"));
        let header = ["TENANT", "VOLUME", "EPOCH", "RECORDS", "COMMITTED", "OBJECTS", "DAMAGED", "END"];
        let rows = self.volumes.iter().map(|volume| {
            let end = volume
                .undecided_from
                .map_or_else(|| "whole".to_owned(), |lsn| format!("undecided from {lsn}"));
            let numbers = [
                volume.tenant,
                volume.volume,
                volume.epoch,
                volume.records,
                volume.committed,
                volume.objects,
                volume.damaged_records as u64,
            ];
            numbers.iter().map(u64::to_string).chain([end]).collect()
        });
        format!(
            "store {} of node {}, run {}, {ended}{suspect}\n\n{}",
            self.store,
            self.node,
            self.incarnation,
            output::table(&header, rows)
        )
    }
}

fn volume_view(owner: Owner, volume: &Volume<FileDisk>, report: &RecoveryReport) -> Verdict<VolumeView> {
    let log = &volume.log;
    let index = log.rebuild_index(log.last().0).map_err(Failure::failed)?;
    Ok(VolumeView {
        tenant: owner.tenant.0,
        volume: owner.volume.0,
        epoch: log.epoch().0,
        records: report.records,
        last: log.last().0.0,
        committed: log.committed().0,
        objects: index.statistics().live.versions,
        clean: report.clean,
        undecided_from: match report.tail {
            Tail::Clean => None,
            Tail::Undecided { from_lsn } => Some(from_lsn.0),
        },
        damaged_records: report.faulty.len(),
        keys_in_records: volume.keys_in_records(&index, usize::MAX).map_err(Failure::failed)?.len(),
        keys_in_bag: volume.bag().len(),
        scanned_bytes: report.scanned_bytes,
    })
}

/// Reads everything and looks for rot.
pub(crate) fn scrub(arguments: &StoreArguments, format: Format) -> Verdict {
    let store = open(arguments)?;
    let mut view = ScrubView { records: 0, leaves: 0, bytes: 0, faults: Vec::new() };
    each_volume(&store, |owner, volume, _| {
        let index = volume.log.rebuild_index(volume.log.last().0).map_err(Failure::failed)?;
        let report = volume.scrub(&index).map_err(Failure::failed)?;
        view.records += report.records;
        view.leaves += report.leaves;
        view.bytes += report.bytes;
        view.faults.extend(report.faults.iter().map(|fault| format!("volume {}: {fault:?}", owner.volume)));
        Ok(())
    })?;
    format.answer(&view, |view| {
        let mut text =
            format!("{} records, {} leaves, {}\n", view.records, view.leaves, output::bytes(view.bytes));
        for fault in &view.faults {
            text.push_str(fault);
            text.push('\n');
        }
        text
    });
    match view.faults.len() {
        0 => Ok(()),
        count => {
            Err(Failure::failed(format!("{count} faults; the node repairs them from its peers when it runs")))
        }
    }
}

/// Builds every volume's index from its segments alone, as each start does.
pub(crate) fn rebuild_index(arguments: &StoreArguments, format: Format) -> Verdict {
    let began = Instant::now();
    let store = open(arguments)?;
    let mut view = RebuildView { volumes: 0, records: 0, objects: 0, seconds: 0.0 };
    each_volume(&store, |owner, volume, report| {
        let seen = volume_view(owner, volume, report)?;
        view.volumes += 1;
        view.records += seen.records;
        view.objects += seen.objects;
        Ok(())
    })?;
    view.seconds = began.elapsed().as_secs_f64();
    format.answer(&view, |view| {
        let seconds = view.seconds;
        format!(
            "{} objects from {} records of {} volumes in {seconds:.2} s",
            view.objects, view.records, view.volumes
        )
    });
    Ok(())
}

/// Looks for bytes in every file of the store.
pub(crate) fn find_bytes(arguments: &FindArguments, format: Format) -> Verdict {
    let pattern = match (&arguments.hex, &arguments.file) {
        (Some(hex), _) => from_hex(hex)?,
        (None, Some(path)) => fs::read(path).map_err(at(path))?,
        (None, None) => unreachable!("the command line demands one"),
    };
    if pattern.is_empty() {
        return Err(Failure::usage("there is nothing to look for"));
    }
    let store = open(&arguments.store)?;
    let found = store.find_bytes(&pattern).map_err(Failure::failed)?;
    for place in &found {
        let view = PlaceView { path: place.path.clone(), offset: place.offset };
        format.answer(&view, |view| format!("{} at {}", view.path, view.offset));
    }
    if found.is_empty() { Err(Failure::not_found("these bytes are in no file of the store")) } else { Ok(()) }
}

fn from_hex(text: &str) -> Verdict<Vec<u8>> {
    let pairs: Option<Vec<u8>> = (0..text.len())
        .step_by(2)
        .map(|index| u8::from_str_radix(text.get(index..index + 2)?, 16).ok())
        .collect();
    pairs.ok_or_else(|| Failure::usage(format!("`{text}` is not hexadecimal")))
}

fn open(arguments: &StoreArguments) -> Verdict<Store<FileDisk>> {
    let inner = arguments.data.join("data");
    let folder: &Path = if inner.is_dir() { &inner } else { &arguments.data };
    if !folder.is_dir() {
        return Err(Failure::usage(format!("{}: there is no such folder", folder.display())));
    }
    let disk = FileDisk::open(folder, None).map_err(Failure::failed)?;
    Store::open(&disk, SegmentLayout::default())
        .map_err(|error| Failure::failed(error).within(folder.display()))
}

/// Opens each volume. One that had ended cleanly is closed cleanly again.
fn each_volume(
    store: &Store<FileDisk>,
    mut visit: impl FnMut(Owner, &Volume<FileDisk>, &RecoveryReport) -> Verdict,
) -> Verdict {
    for owner in store.volumes().map_err(Failure::failed)? {
        let within = format!("volume {}", owner.volume);
        let opened = store.open_volume(owner).map_err(|error| Failure::failed(error).within(&within));
        let (volume, report) = opened?;
        visit(owner, &volume, &report).map_err(|failure| failure.within(&within))?;
        if report.clean {
            volume.close().map_err(|error| Failure::failed(error).within(&within))?;
        }
    }
    Ok(())
}
