//! A disk in memory that fails on request: errors on the n-th call, torn writes, flipped bits, no
//! room, and at a crash the loss of any part of what no sync covered. It keeps two states of every
//! file, what a reader sees and what the platter holds, and counts calls, so that a test can state
//! that no second sync followed a failed one.
//!
//! After a failed sync the pending writes are gone for good while reads still show them: that is
//! what page caches do, and why a store must never retry.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskError, DiskFile, check_path};

/// The unit in which a crash tears a write.
const SECTOR: usize = 512;

/// The operations a fault can be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskOperation {
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::read_at`].
    Read,
    /// [`DiskFile::sync_data`].
    Sync,
    /// [`DiskFile::allocate`].
    Allocate,
    /// [`DiskFile::punch`].
    Punch,
    /// [`Disk::sync_directory`].
    SyncDirectory,
    /// [`Disk::create`], [`Disk::remove`] and [`Disk::rename`].
    Name,
}

/// What happens to the operation a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call answers an input/output error. A write has no effect, a sync loses what it should
    /// have made durable.
    Error,
    /// A write stores only its first bytes, then the call answers an error.
    Torn {
        /// How many bytes arrive.
        bytes: usize,
    },
    /// The call answers that there is no room.
    Full,
}

/// A scripted failure: the `nth` operation of this kind from now on (1 is the next).
#[derive(Clone, Copy, Debug)]
pub struct ScriptedFault {
    /// Which operation.
    pub operation: DiskOperation,
    /// How many such calls until it strikes, counting the failing one.
    pub nth: u64,
    /// How it strikes.
    pub outcome: Outcome,
}

/// What became of the calls so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Completed and failed writes.
    pub writes: u64,
    /// Calls of `sync_data` and `sync_directory`, failed ones included.
    pub syncs: u64,
    /// Syncs issued after one had failed. R2 demands zero.
    pub syncs_after_failure: u64,
    /// Operations that can leave a different disk behind, in the order they were issued.
    pub steps: u64,
}

/// A disk in memory with scripted failures. Clones share the state.
#[derive(Clone, Default)]
pub struct FaultDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`FaultDisk`].
#[derive(Clone)]
pub struct FaultDiskFile {
    state: Arc<Mutex<State>>,
    inode: u64,
    path: Arc<str>,
    life: u64,
}

#[derive(Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, Entry>,
    durable_names: BTreeMap<String, Entry>,
    next_inode: u64,
    capacity: Option<u64>,
    faults: Vec<ScriptedFault>,
    counts: Counts,
    sync_failed: bool,
    /// Stop before this step: everything after answers an error, as if the process had died.
    halt_at: Option<u64>,
    /// Grows at every crash; handles of an earlier life are dead.
    life: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    File(u64),
    Directory,
}

#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl FaultDisk {
    /// An empty disk without a limit.
    pub fn new() -> FaultDisk {
        FaultDisk::default()
    }

    /// An empty disk that answers [`DiskError::Full`] beyond `capacity` bytes of files.
    pub fn with_capacity(capacity: u64) -> FaultDisk {
        let disk = FaultDisk::default();
        disk.lock().capacity = Some(capacity);
        disk
    }

    /// Leaves so much room besides what is there now, or no limit.
    pub fn set_room(&self, room: Option<u64>) {
        let mut state = self.lock();
        state.capacity = room.map(|room| state.used() + room);
    }

    /// Adds a scripted failure.
    pub fn inject(&self, fault: ScriptedFault) {
        self.lock().faults.push(fault);
    }

    /// The calls so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// From the `step`-th changing operation on (see [`Counts::steps`]) every call fails: the
    /// process "died" there. [`FaultDisk::crash`] lifts it.
    pub fn halt_at(&self, step: u64) {
        self.lock().halt_at = Some(step);
    }

    /// Power loss: everything synced stays; of what was not, any subset of whole or torn writes
    /// survives, chosen by `seed`. Seed 0 loses all of it, `u64::MAX` keeps all of it. Handles
    /// opened before are dead.
    pub fn crash(&self, seed: u64) {
        let mut choice = Choice(seed);
        let mut state = self.lock();
        for inode in state.inodes.values_mut() {
            inode.crash(&mut choice);
        }
        state.crash_names(&mut choice);
        state.life += 1;
        state.halt_at = None;
        state.sync_failed = false;
        state.faults.clear();
    }

    /// Flips one bit of a file, in the durable state and in what readers see.
    pub fn flip_bit(&self, path: &str, offset: u64, bit: u8) {
        let mut state = self.lock();
        let Some(Entry::File(inode)) = state.names.get(path).copied() else {
            return;
        };
        let inode = state.inodes.entry(inode).or_default();
        for bytes in [&mut inode.seen, &mut inode.durable] {
            if let Some(byte) = bytes.get_mut(offset as usize) {
                *byte ^= 1 << (bit & 7);
            }
        }
    }

    /// Every file with what a reader sees, for raw scans by tests.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let state = self.lock();
        let files = state.names.iter().filter_map(|(path, entry)| match entry {
            Entry::File(inode) => Some((path.clone(), state.inodes.get(inode)?.seen.clone())),
            Entry::Directory => None,
        });
        files.collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no operation panics while it holds the state")
    }

    fn handle(&self, path: &str, inode: u64, life: u64) -> FaultDiskFile {
        FaultDiskFile { state: Arc::clone(&self.state), inode, path: path.into(), life }
    }
}

impl Disk for FaultDisk {
    type File = FaultDiskFile;

    fn open(&self, path: &str) -> Result<FaultDiskFile, DiskError> {
        check_path(path)?;
        let state = self.lock();
        match state.names.get(path) {
            Some(Entry::File(inode)) => Ok(self.handle(path, *inode, state.life)),
            _ => Err(missing(path)),
        }
    }

    fn create(&self, path: &str) -> Result<FaultDiskFile, DiskError> {
        check_path(path)?;
        let mut state = self.lock();
        if let Some(Entry::File(inode)) = state.names.get(path) {
            return Ok(self.handle(path, *inode, state.life));
        }
        state.parent_exists(path)?;
        state.change(DiskOperation::Name, "create", path)?;
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.names.insert(path.to_owned(), Entry::File(inode));
        Ok(self.handle(path, inode, state.life))
    }

    fn create_directory(&self, path: &str) -> Result<(), DiskError> {
        check_path(path)?;
        let mut state = self.lock();
        state.change(DiskOperation::Name, "mkdir", path)?;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let parent = path[..end].to_owned();
            state.names.entry(parent).or_insert(Entry::Directory);
        }
        Ok(())
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, DiskError> {
        check_path(directory)?;
        let state = self.lock();
        if !directory.is_empty() && state.names.get(directory) != Some(&Entry::Directory) {
            return Err(missing(directory));
        }
        let names = state.names.keys().filter(|path| parent_of(path) == directory);
        Ok(names.map(|path| name_of(path).to_owned()).collect())
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        check_path(path)?;
        let mut state = self.lock();
        if !matches!(state.names.get(path), Some(Entry::File(_))) {
            return Err(missing(path));
        }
        state.change(DiskOperation::Name, "unlink", path)?;
        state.names.remove(path);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        check_path(from)?;
        check_path(to)?;
        let mut state = self.lock();
        state.parent_exists(to)?;
        let entry = state.names.get(from).copied().ok_or_else(|| missing(from))?;
        state.change(DiskOperation::Name, "rename", from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), entry);
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> Result<(), DiskError> {
        check_path(directory)?;
        let mut state = self.lock();
        state.count_sync();
        let synced = state.change(DiskOperation::SyncDirectory, "fsync", directory);
        state.sync_failed |= synced.is_err();
        synced?;
        state.sync_names(directory);
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let state = self.lock();
        let capacity = state.capacity.unwrap_or(u64::MAX);
        Ok(capacity.saturating_sub(state.used()))
    }
}

impl DiskFile for FaultDiskFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError> {
        let mut bytes = parts.concat();
        let mut state = self.lock()?;
        state.counts.writes += 1;
        let grown = state.growth(self.inode, offset as usize + bytes.len());
        state.room_for(grown, &self.path)?;
        let outcome = state.change(DiskOperation::Write, "pwritev", &self.path);
        match &outcome {
            Ok(()) => {}
            Err(Struck { torn: Some(kept), .. }) => bytes.truncate(*kept),
            Err(struck) => return Err(struck.error.clone()),
        }
        state.inode(self.inode).write(offset as usize, bytes);
        outcome.map_err(DiskError::from)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let mut state = self.lock()?;
        state.strike(DiskOperation::Read, "pread", &self.path)?;
        let seen = &state.inode(self.inode).seen;
        let start = offset as usize;
        let bytes =
            start.checked_add(buffer.len()).and_then(|end| seen.get(start..end)).ok_or_else(|| {
                DiskError::ShortRead { path: self.path.to_string(), offset, length: buffer.len() }
            })?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        let mut state = self.lock()?;
        state.count_sync();
        let synced = state.change(DiskOperation::Sync, "fdatasync", &self.path);
        state.sync_failed |= synced.is_err();
        let inode = state.inode(self.inode);
        match synced {
            Ok(()) => inode.sync(),
            Err(_) => inode.pending.clear(),
        }
        synced.map_err(DiskError::from)
    }

    fn length(&self) -> Result<u64, DiskError> {
        Ok(self.lock()?.inode(self.inode).seen.len() as u64)
    }

    fn allocate(&self, length: u64) -> Result<(), DiskError> {
        let mut state = self.lock()?;
        let grown = state.growth(self.inode, length as usize);
        if grown == 0 {
            return Ok(());
        }
        state.room_for(grown, &self.path)?;
        state.change(DiskOperation::Allocate, "fallocate", &self.path)?;
        state.inode(self.inode).grow(length as usize);
        Ok(())
    }

    fn forget_cached(&self) -> Result<(), DiskError> {
        self.lock()?.inode(self.inode).forget_cached();
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let mut state = self.lock()?;
        state.change(DiskOperation::Punch, "punch", &self.path)?;
        let inode = state.inode(self.inode);
        let start = (offset as usize).min(inode.seen.len());
        let end = ((offset + length) as usize).min(inode.seen.len());
        inode.write(start, vec![0; end - start]);
        Ok(())
    }
}

impl FaultDiskFile {
    fn lock(&self) -> Result<MutexGuard<'_, State>, DiskError> {
        let state = self.state.lock().expect("no operation panics while it holds the state");
        if state.life == self.life { Ok(state) } else { Err(broken("use after crash", &self.path)) }
    }
}

/// An operation that a fault hit.
#[derive(Clone, Debug)]
struct Struck {
    error: DiskError,
    torn: Option<usize>,
}

impl From<Struck> for DiskError {
    fn from(struck: Struck) -> DiskError {
        struck.error
    }
}

impl State {
    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.entry(inode).or_default()
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|entry| match entry {
            Entry::File(inode) => self.inodes.get(inode),
            Entry::Directory => None,
        });
        files.map(|inode| inode.seen.len() as u64).sum()
    }

    fn growth(&self, inode: u64, length: usize) -> u64 {
        let present = self.inodes.get(&inode).map_or(0, |inode| inode.seen.len());
        length.saturating_sub(present) as u64
    }

    fn room_for(&self, grown: u64, path: &str) -> Result<(), DiskError> {
        let capacity = self.capacity.unwrap_or(u64::MAX);
        if grown > 0 && self.used().saturating_add(grown) > capacity {
            return Err(no_room(path, grown));
        }
        Ok(())
    }

    /// Counts an operation that changes the disk, unless the process is dead or a fault strikes.
    fn change(&mut self, operation: DiskOperation, name: &'static str, path: &str) -> Result<(), Struck> {
        self.counts.steps += 1;
        if self.halt_at.is_some_and(|step| self.counts.steps > step) {
            return Err(Struck { error: broken(name, path), torn: None });
        }
        self.strike(operation, name, path)
    }

    fn strike(&mut self, operation: DiskOperation, name: &'static str, path: &str) -> Result<(), Struck> {
        for fault in &mut self.faults {
            if fault.operation == operation {
                fault.nth = fault.nth.saturating_sub(1);
            }
        }
        let due = |fault: &ScriptedFault| fault.operation == operation && fault.nth == 0;
        let Some(at) = self.faults.iter().position(due) else {
            return Ok(());
        };
        let (error, torn) = match self.faults.remove(at).outcome {
            Outcome::Error => (broken(name, path), None),
            Outcome::Torn { bytes } => (broken(name, path), Some(bytes)),
            Outcome::Full => (no_room(path, 0), None),
        };
        Err(Struck { error, torn })
    }

    fn count_sync(&mut self) {
        self.counts.syncs += 1;
        self.counts.syncs_after_failure += u64::from(self.sync_failed);
    }

    fn parent_exists(&self, path: &str) -> Result<(), DiskError> {
        let parent = parent_of(path);
        if parent.is_empty() || self.names.get(parent) == Some(&Entry::Directory) {
            return Ok(());
        }
        Err(missing(parent))
    }

    fn sync_names(&mut self, directory: &str) {
        self.durable_names.retain(|path, _| parent_of(path) != directory);
        let present = self.names.iter().filter(|(path, _)| parent_of(path) == directory);
        let present: Vec<_> = present.map(|(path, entry)| (path.clone(), *entry)).collect();
        self.durable_names.extend(present);
    }

    /// Each name that differs from the durable state falls to one side or the other.
    fn crash_names(&mut self, choice: &mut Choice) {
        let mut paths: Vec<String> = self.names.keys().cloned().collect();
        paths.extend(self.durable_names.keys().cloned());
        paths.sort();
        paths.dedup();
        let mut after = BTreeMap::new();
        for path in paths {
            let (seen, durable) = (self.names.get(&path), self.durable_names.get(&path));
            let kept = if seen != durable && choice.keeps() { seen } else { durable };
            let parent = parent_of(&path);
            let reachable = parent.is_empty() || after.contains_key(parent);
            if let (Some(entry), true) = (kept, reachable) {
                after.insert(path, *entry);
            }
        }
        self.durable_names.clone_from(&after);
        self.names = after;
    }
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: Vec<u8>) {
        place(&mut self.seen, offset, &bytes);
        self.pending.push(Pending::Write { offset, bytes });
    }

    fn grow(&mut self, length: usize) {
        self.seen.resize(length, 0);
        self.pending.push(Pending::Length(length));
    }

    fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            pending.apply(&mut self.durable);
        }
    }

    /// What is neither durable nor waiting for a sync is in the cache only.
    fn forget_cached(&mut self) {
        let length = self.seen.len();
        self.seen.clone_from(&self.durable);
        for pending in &self.pending {
            pending.apply(&mut self.seen);
        }
        self.seen.resize(length, 0);
    }

    fn crash(&mut self, choice: &mut Choice) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Write { offset, bytes } => {
                    let mut at = 0;
                    while at < bytes.len() {
                        // Tear where the device would: at sector borders of the file.
                        let step = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
                        if choice.keeps() {
                            place(&mut self.durable, offset + at, &bytes[at..at + step]);
                        }
                        at += step;
                    }
                }
                length if choice.keeps() => length.apply(&mut self.durable),
                Pending::Length(_) => {}
            }
        }
        self.seen.clone_from(&self.durable);
    }
}

impl Pending {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Pending::Write { offset, bytes: new } => place(bytes, *offset, new),
            Pending::Length(length) if *length > bytes.len() => bytes.resize(*length, 0),
            Pending::Length(_) => {}
        }
    }
}

/// Yes or no from a seed, the same on every machine (SplitMix64).
struct Choice(u64);

impl Choice {
    fn keeps(&mut self) -> bool {
        match self.0 {
            0 => return false,
            u64::MAX => return true,
            _ => {}
        }
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}

fn place(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    let end = offset + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(new);
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn missing(path: &str) -> DiskError {
    DiskError::NotFound { path: path.to_owned() }
}

fn no_room(path: &str, needed: u64) -> DiskError {
    DiskError::Full { path: path.to_owned(), needed }
}

fn broken(operation: &'static str, path: &str) -> DiskError {
    DiskError::Io { operation, path: path.to_owned(), reason: "input/output error".to_owned() }
}

impl fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultDisk").finish_non_exhaustive()
    }
}

impl fmt::Debug for FaultDiskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultDiskFile").field("path", &self.path).finish_non_exhaustive()
    }
}
