//! A disk in memory that loses what a real one may lose: [`SimDisk`] implements the engine's own
//! `Disk`, so that the production engine meets power loss, torn writes, rot and lies.
//!
//! After a crash only synced bytes and synced names are certain; of the rest each 512-byte sector
//! and each name survives or not, drawn from the disk's keyed stream. Handles from before a crash
//! fail for ever: a ghost of the old process can write nothing. It never delays anything itself;
//! the cluster asks [`SimDisk::sync_duration`] and lets the sync happen that much later.

mod fault;
mod inode;
mod landmarks;
mod names;
mod needles;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use trefoil_engine::disk::check_path;
use trefoil_engine::{Disk, DiskError, DiskFile};

pub use fault::DiskFault;
pub use inode::{PAGE, SECTOR};
pub use landmarks::Landmark;
pub use trefoil_drill::{FaultKind, Persistence};

use crate::kernel::{MICROSECOND, SECOND};
use crate::random::{Draws, Stream};
use fault::strikes;
use inode::Inode;
use landmarks::Landmarks;
use names::{Names, parent_of};
use needles::Needles;

/// What kind of device this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskModel {
    /// Bytes that fit.
    pub capacity: u64,
    /// The least time of a sync.
    pub sync_min: u64,
    /// The mean of what a sync takes beyond that.
    pub sync_mean: u64,
    /// How often, per million writes, the system writes a dirty page back on its own.
    pub write_back_per_million: u32,
    /// How much it does in a second, one job after the other; 0 for as much as is wanted.
    pub operations_per_second: u64,
    /// And how many bytes it writes or reads in a second; 0 for as many as are wanted.
    pub bytes_per_second: u64,
}

impl Default for DiskModel {
    fn default() -> Self {
        Self {
            capacity: 1 << 40,
            sync_min: 60 * MICROSECOND,
            sync_mean: 200 * MICROSECOND,
            write_back_per_million: 50_000,
            operations_per_second: 0,
            bytes_per_second: 0,
        }
    }
}

/// Where durable bytes lie.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Region {
    /// In a file of this path.
    File(String),
    /// In blocks of a removed file that nobody has overwritten.
    Freed(String),
}

#[derive(Clone)]
struct State {
    model: DiskModel,
    draws: Draws,
    incarnation: u64,
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    names: Names,
    freed: Vec<(String, Inode)>,
    faults: Vec<DiskFault>,
    /// Bytes that read otherwise than they were written until the disk is repaired: inode, offset and
    /// what was written.
    garbled: Vec<(u64, u64, u8)>,
    /// Bytes that rotted after they were written: inode and offset.
    rotten: Vec<(u64, u64)>,
    slowdown: u64,
    used: u64,
    landmarks: Landmarks,
    lied: bool,
    /// Steps that the dying process still takes.
    steps_left: Option<u64>,
    powerless: bool,
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    incarnation: u64,
}

/// An open file of a [`SimDisk`].
#[derive(Clone)]
pub struct SimFile {
    disk: SimDisk,
    inode: u64,
    path: Arc<str>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.lock().used;
        write!(formatter, "SimDisk(incarnation {}, {used} bytes)", self.incarnation)
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SimFile({})", self.path)
    }
}

/// White-box side: what the simulator does to a disk and sees of it.
impl SimDisk {
    /// An empty disk whose draws are those of `entity` in the disk stream of `seed`.
    #[must_use]
    pub fn new(seed: u64, entity: u64, model: DiskModel) -> Self {
        let state = State::of(model, Draws::new(seed, Stream::Disk, entity));
        Self { state: Arc::new(Mutex::new(state)), incarnation: 0 }
    }

    /// Power is lost. Every handle from before, this one included, fails from now on; the
    /// returned handle is what the restarted process gets.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.lock();
        state.lose_power();
        Self { state: Arc::clone(&self.state), incarnation: state.incarnation }
    }

    /// The process dies and the system lives: nothing is lost, but old handles fail.
    #[must_use]
    pub fn kill_process(&self) -> Self {
        let mut state = self.lock();
        state.incarnation += 1;
        state.steps_left = None;
        Self { state: Arc::clone(&self.state), incarnation: state.incarnation }
    }

    /// The device becomes what `image` is. Handles from before fail.
    #[must_use]
    pub fn put_back(&self, image: &Self) -> Self {
        let mut state = self.lock();
        let (draws, incarnation) = (state.draws.clone(), state.incarnation + 1);
        *state = State { draws, incarnation, ..image.lock().clone() };
        Self { state: Arc::clone(&self.state), incarnation }
    }

    /// An empty device takes the place of this one. Handles from before fail.
    #[must_use]
    pub fn blank(&self) -> Self {
        let mut state = self.lock();
        let (model, draws, incarnation) = (state.model.clone(), state.draws.clone(), state.incarnation + 1);
        // Whatever it had said to be durable is gone, and nobody above it could know.
        *state = State { draws, incarnation, lied: true, ..State::of(model, Draws::new(0, Stream::Disk, 0)) };
        Self { state: Arc::clone(&self.state), incarnation }
    }

    /// The process is about to die: whatever it still does, it gets so many steps far.
    pub fn allow_steps(&self, steps: u64) {
        self.lock().steps_left = Some(steps);
    }

    /// An independent copy of everything, page by page shared until written: a disk image to go
    /// back to, or a fork of the world.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let state = self.lock().clone();
        Self { incarnation: state.incarnation, state: Arc::new(Mutex::new(state)) }
    }

    /// Lets a fault wait for its operation.
    pub fn arm(&self, fault: DiskFault) {
        self.lock().faults.push(fault);
    }

    /// Takes every waiting and sticky fault away, slowness included.
    pub fn repair(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.slowdown = 1;
        for (inode, offset, written) in std::mem::take(&mut state.garbled) {
            if let Some(inode) = state.inodes.get_mut(&inode)
                && inode.byte(offset) == !written
            {
                inode.flip(offset, u8::MAX);
            }
        }
    }

    /// Garbles a byte of every frame of a record, until the disk is repaired.
    pub fn garble_record(&self, volume: u64, lsn: u64) {
        let mut state = self.lock();
        let state = &mut *state;
        for place in state.landmarks.places(&Landmark::Record { volume, lsn }) {
            if let Some(inode) = state.inodes.get_mut(&place.inode) {
                let offset = place.in_public_part();
                state.garbled.push((place.inode, offset, inode.byte(offset)));
                inode.flip(offset, u8::MAX);
            }
        }
    }

    /// Whether nothing is wrong with it for good, and it is at most so many times slower than usual.
    #[must_use]
    pub fn is_well(&self, slowdown_max: u64) -> bool {
        let state = self.lock();
        let for_good = |fault: &DiskFault| fault.persistence == Persistence::Sticky;
        state.slowdown <= slowdown_max && !state.faults.iter().any(for_good)
    }

    /// Makes syncs, and whatever a disk of a given speed does, take this many times as long.
    pub fn slow_down(&self, times: u64) {
        self.lock().slowdown = times.max(1);
    }

    /// Changes how many bytes fit.
    pub fn set_capacity(&self, capacity: u64) {
        self.lock().model.capacity = capacity;
    }

    /// Flips one bit at rest. False if there is no such byte.
    pub fn flip_bit(&self, path: &str, offset: u64, bit: u8) -> bool {
        let mut state = self.lock();
        let Some(number) = state.names.file(path) else {
            return false;
        };
        let inode = state.inode(number);
        let present = offset < inode.length();
        if present {
            inode.flip_bit(offset, bit);
        }
        present
    }

    /// Flips a drawn bit of a drawn file whose path matches and whose durable bytes are not all
    /// zero; says where.
    pub fn rot(&self, pattern: &str) -> Option<(String, u64)> {
        let mut state = self.lock();
        let state = &mut *state;
        let files: Vec<(String, u64)> = state
            .names
            .files()
            .filter(|(path, _)| fault::path_matches(pattern, path))
            .map(|(path, inode)| (path.to_owned(), inode))
            .collect();
        let (path, number) = state.draws.pick(&files)?.clone();
        let inode = state.inodes.get_mut(&number).expect("a name leads to a file");
        let offset = drawn_nonzero_byte(inode, &mut state.draws)?;
        let bit = state.draws.next().to_le_bytes()[0];
        inode.flip_bit(offset, bit);
        state.rotten.push((number, offset));
        Some((path, offset))
    }

    /// How long a sync that starts now takes, drawn.
    #[must_use]
    pub fn sync_duration(&self) -> u64 {
        let mut state = self.lock();
        let mean = state.model.sync_mean;
        let drawn = state.model.sync_min + state.draws.exponential(mean);
        drawn.saturating_mul(state.slowdown)
    }

    /// How long the device itself is at a job that reads or writes so many bytes.
    #[must_use]
    pub fn work_duration(&self, bytes: u64) -> u64 {
        let state = self.lock();
        let model = &state.model;
        let per = |amount: u64, speed: u64| (amount * SECOND).checked_div(speed).unwrap_or(0);
        let usual = per(1, model.operations_per_second) + per(bytes, model.bytes_per_second);
        usual.saturating_mul(state.slowdown)
    }

    /// Whether a power loss now would leave this range of this file exactly as it reads.
    #[must_use]
    pub fn is_durable(&self, path: &str, offset: u64, length: u64) -> bool {
        let state = self.lock();
        state.names.durable_file(path).is_some_and(|number| {
            state.names.file(path) == Some(number) && state.inodes[&number].is_durable(offset, length)
        })
    }

    /// Whether it ever said that it had written what it had not: nobody above it could know.
    #[must_use]
    pub fn has_lied(&self) -> bool {
        self.lock().lied
    }

    /// Whether the machine's power was lost at one of its operations; the cluster crashes it then.
    #[must_use]
    pub fn is_powerless(&self) -> bool {
        self.lock().powerless
    }

    /// Whether a power loss now would leave a whole frame of this landmark as it was written, or would
    /// have if it had not rotted since.
    #[must_use]
    pub fn is_landmark_durable(&self, landmark: &Landmark) -> bool {
        let state = self.lock();
        state.landmarks.places(landmark).iter().rev().any(|place| {
            let frame = place.offset..place.offset + place.length();
            let rotted = |(inode, at): &(u64, u64)| *inode == place.inode && frame.contains(at);
            if state.rotten.iter().any(rotted) {
                return state.names.leads_to_durably(place.inode);
            }
            let Some(inode) = state.inodes.get(&place.inode) else { return false };
            let length = usize::try_from(place.length()).expect("a frame fits memory");
            let mut frame = vec![0; length];
            inode.read_durable(place.offset, &mut frame);
            state.names.leads_to_durably(place.inode) && place.holds(&frame)
        })
    }

    /// Where durable bytes equal `needle`: first in files, then in freed blocks. For the checker
    /// that looks for what must be gone.
    #[must_use]
    pub fn find_durable(&self, needle: &[u8]) -> Vec<(Region, u64)> {
        let state = self.lock();
        let found = state.regions().map(|(region, inode)| (region, find_in(inode, needle)));
        found.flat_map(|(region, offsets)| offsets.into_iter().map(move |at| (region.clone(), at))).collect()
    }

    /// As [`Self::find_durable`] for many needles in one pass: for each that is found, its number and
    /// the first place.
    ///
    /// # Panics
    /// If a needle has fewer than 23 bytes.
    #[must_use]
    pub fn find_any_durable(&self, needles: &[&[u8]]) -> Vec<(usize, Region, u64)> {
        let sought = Needles::new(needles);
        let mut found: BTreeMap<usize, (Region, u64)> = BTreeMap::new();
        let state = self.lock();
        for (region, inode) in state.regions() {
            sought.find_in(inode, |number, at| {
                found.entry(number).or_insert_with(|| (region.clone(), at));
            });
        }
        found.into_iter().map(|(number, (region, offset))| (number, region, offset)).collect()
    }

    /// Visits every durable page that holds something: where it lies, its offset, its bytes.
    pub fn scan_durable(&self, mut visit: impl FnMut(&Region, u64, &[u8])) {
        let state = self.lock();
        for (region, inode) in state.regions() {
            for (page, bytes) in inode.durable_pages() {
                visit(&region, page * PAGE, bytes);
            }
        }
    }

    /// Bytes allocated.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics while it changes the state")
    }

    /// As [`Self::enter`], for a path that came from outside.
    fn enter_path(&self, operation: &'static str, path: &str) -> Result<MutexGuard<'_, State>, DiskError> {
        check_path(path)?;
        self.enter(operation, path)
    }

    /// The state, if this handle belongs to the running process.
    fn enter(&self, operation: &'static str, path: &str) -> Result<MutexGuard<'_, State>, DiskError> {
        let mut state = self.lock();
        let alive = match &mut state.steps_left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        };
        if alive && state.incarnation == self.incarnation && !state.powerless {
            Ok(state)
        } else {
            Err(io_error(operation, path, "this process is dead"))
        }
    }
}

fn drawn_nonzero_byte(inode: &Inode, draws: &mut Draws) -> Option<u64> {
    let holding: Vec<u64> = inode
        .durable_pages()
        .filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
        .map(|(page, _)| page)
        .collect();
    let page = *draws.pick(&holding)?;
    let mut bytes = [0; PAGE as usize];
    inode.read_durable(page * PAGE, &mut bytes);
    let offsets: Vec<u64> = (0u64..).zip(bytes).filter(|(_, byte)| *byte != 0).map(|(at, _)| at).collect();
    draws.pick(&offsets).map(|within| page * PAGE + within)
}

fn find_in(inode: &Inode, needle: &[u8]) -> Vec<u64> {
    let Some(first) = needle.first() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut candidate = vec![0; needle.len()];
    for (page, bytes) in inode.durable_pages() {
        for at in (0u64..).zip(bytes).filter(|(_, byte)| *byte == first).map(|(at, _)| at) {
            let offset = page * PAGE + at;
            inode.read_durable(offset, &mut candidate);
            if candidate == needle {
                found.push(offset);
            }
        }
    }
    found
}

fn inode_path(number: u64) -> String {
    format!("inode {number}")
}

fn io_error(operation: &'static str, path: &str, reason: &str) -> DiskError {
    DiskError::Io { operation, path: path.to_owned(), reason: reason.to_owned() }
}

fn not_found(path: &str) -> DiskError {
    DiskError::NotFound { path: path.to_owned() }
}

impl State {
    fn of(model: DiskModel, draws: Draws) -> Self {
        Self {
            model,
            draws,
            incarnation: 0,
            next_inode: 0,
            inodes: BTreeMap::new(),
            names: Names::default(),
            freed: Vec::new(),
            faults: Vec::new(),
            garbled: Vec::new(),
            rotten: Vec::new(),
            slowdown: 1,
            used: 0,
            landmarks: Landmarks::default(),
            lied: false,
            steps_left: None,
            powerless: false,
        }
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("an open or named file keeps its bytes")
    }

    /// Everything on the device: files by their durable names, then blocks that no such name leads
    /// to.
    fn regions(&self) -> impl Iterator<Item = (Region, &Inode)> {
        let files = self.names.durable_files();
        let files = files.map(|(path, number)| (Region::File(path.to_owned()), &self.inodes[&number]));
        let named: BTreeSet<u64> = self.names.durable_files().map(|(_, number)| number).collect();
        let nameless = self.inodes.iter().filter(move |(number, _)| !named.contains(number));
        let nameless = nameless.map(|(number, inode)| (Region::Freed(inode_path(*number)), inode));
        let freed = self.freed.iter().map(|(path, inode)| (Region::Freed(path.clone()), inode));
        files.chain(nameless).chain(freed)
    }

    /// A name is gone: the room of its file is free once no name leads to it.
    fn release(&mut self, number: u64) {
        if !self.names.leads_to_now(number) {
            self.used = self.used.saturating_sub(self.inodes[&number].allocated());
        }
    }

    fn lose_power(&mut self) {
        self.incarnation += 1;
        self.steps_left = None;
        self.powerless = false;
        self.names.crash(&mut self.draws);
        for inode in self.inodes.values_mut() {
            inode.crash(&mut self.draws);
        }
        self.free_nameless();
    }

    /// Files that no name leads to are blocks that the device will give to others.
    fn free_nameless(&mut self) {
        let nameless = |number: &u64| !self.names.leads_to(*number);
        let gone: Vec<u64> = self.inodes.keys().copied().filter(nameless).collect();
        for number in gone {
            let inode = self.inodes.remove(&number).expect("it was just listed");
            self.freed.push((inode_path(number), inode));
        }
        self.used = self.inodes.values().map(Inode::allocated).sum();
    }

    /// Takes room for a write or reservation, or says that there is none.
    fn take_room(&mut self, number: u64, path: &str, offset: u64, length: u64) -> Result<(), DiskError> {
        let growth = self.inode(number).growth(offset, length);
        let full = growth > 0 && strikes(&mut self.faults, FaultKind::Full, path);
        if full || self.used + growth > self.model.capacity {
            return Err(DiskError::Full { path: path.to_owned(), needed: growth });
        }
        self.used += growth;
        Ok(())
    }

    fn fail_if(&mut self, kind: FaultKind, operation: &'static str, path: &str) -> Result<(), DiskError> {
        if strikes(&mut self.faults, kind, path) {
            return Err(io_error(operation, path, "input/output error"));
        }
        if kind != FaultKind::ReadError && strikes(&mut self.faults, FaultKind::PowerLoss, path) {
            self.powerless = true;
            return Err(io_error(operation, path, "the power is lost"));
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, path: &str) -> Result<SimFile, DiskError> {
        let state = self.enter_path("open", path)?;
        let inode = state.names.file(path).ok_or_else(|| not_found(path))?;
        Ok(SimFile { disk: self.clone(), inode, path: path.into() })
    }

    fn create(&self, path: &str) -> Result<SimFile, DiskError> {
        let mut state = self.enter_path("create", path)?;
        if let Some(inode) = state.names.file(path) {
            return Ok(SimFile { disk: self.clone(), inode, path: path.into() });
        }
        if !state.names.has_directory(parent_of(path)) {
            return Err(not_found(parent_of(path)));
        }
        if state.names.has_directory(path) {
            return Err(io_error("create", path, "is a directory"));
        }
        state.fail_if(FaultKind::WriteError, "create", path)?;
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.names.link(path, inode);
        Ok(SimFile { disk: self.clone(), inode, path: path.into() })
    }

    fn create_directory(&self, path: &str) -> Result<(), DiskError> {
        let mut state = self.enter_path("mkdir", path)?;
        state.fail_if(FaultKind::WriteError, "mkdir", path)?;
        if state.names.create_directory(path) {
            Ok(())
        } else {
            Err(io_error("mkdir", path, "a file is in the way"))
        }
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, DiskError> {
        let mut state = self.enter_path("list", directory)?;
        state.fail_if(FaultKind::ReadError, "list", directory)?;
        state.names.list(directory).ok_or_else(|| not_found(directory))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let mut state = self.enter_path("remove", path)?;
        let inode = state.names.file(path).ok_or_else(|| not_found(path))?;
        state.fail_if(FaultKind::WriteError, "remove", path)?;
        state.names.unlink(path);
        state.release(inode);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.enter_path("rename", from)?;
        check_path(to)?;
        let inode = state.names.file(from).ok_or_else(|| not_found(from))?;
        if !state.names.has_directory(parent_of(to)) {
            return Err(not_found(parent_of(to)));
        }
        state.fail_if(FaultKind::WriteError, "rename", from)?;
        let replaced = state.names.file(to).filter(|replaced| *replaced != inode);
        state.names.rename(from, to, inode);
        if let Some(replaced) = replaced {
            state.release(replaced);
        }
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> Result<(), DiskError> {
        let mut state = self.enter_path("fsync", directory)?;
        if !state.names.has_directory(directory) {
            return Err(not_found(directory));
        }
        state.fail_if(FaultKind::SyncError, "fsync", directory)?;
        if !strikes(&mut state.faults, FaultKind::SyncLies, directory) {
            state.names.sync(directory);
        }
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let state = self.enter_path("statvfs", "")?;
        Ok(state.model.capacity.saturating_sub(state.used))
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError> {
        let mut state = self.disk.enter("write", &self.path)?;
        let length = parts.iter().map(|part| part.len() as u64).sum();
        if length == 0 {
            return Ok(());
        }
        state.fail_if(FaultKind::WriteError, "write", &self.path)?;
        let misdirected = strikes(&mut state.faults, FaultKind::Misdirect, &self.path);
        let shift = if misdirected { PAGE } else { 0 };
        state.take_room(self.inode, &self.path, offset + shift, length)?;
        let state = &mut *state;
        let inode = state.inodes.get_mut(&self.inode).expect("an open file keeps its bytes");
        let mut at = offset + shift;
        for part in parts {
            inode.write(at, part);
            at += part.len() as u64;
        }
        state.lied |= misdirected;
        if !misdirected {
            state.landmarks.note(self.inode, offset, parts);
        }
        if misdirected {
            inode.mark_dropped(offset, length.min(shift));
        }
        if state.draws.chance(state.model.write_back_per_million) {
            inode.write_back_one(&mut state.draws);
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let mut state = self.disk.enter("read", &self.path)?;
        state.fail_if(FaultKind::ReadError, "read", &self.path)?;
        let inode = state.inode(self.inode);
        if offset + buffer.len() as u64 > inode.length() {
            let path = self.path.to_string();
            return Err(DiskError::ShortRead { path, offset, length: buffer.len() });
        }
        inode.read(offset, buffer);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        let mut state = self.disk.enter("fdatasync", &self.path)?;
        if strikes(&mut state.faults, FaultKind::SyncLies, &self.path) {
            state.lied = true;
            state.inode(self.inode).drop_dirty_pages();
            return Ok(());
        }
        if let Err(error) = state.fail_if(FaultKind::SyncError, "fdatasync", &self.path) {
            state.inode(self.inode).drop_dirty_pages();
            return Err(error);
        }
        state.inode(self.inode).sync();
        Ok(())
    }

    fn length(&self) -> Result<u64, DiskError> {
        let mut state = self.disk.enter("fstat", &self.path)?;
        Ok(state.inode(self.inode).length())
    }

    fn allocate(&self, length: u64) -> Result<(), DiskError> {
        let mut state = self.disk.enter("fallocate", &self.path)?;
        state.fail_if(FaultKind::WriteError, "fallocate", &self.path)?;
        let reserved = state.inode(self.inode).reserved();
        if length > reserved {
            state.take_room(self.inode, &self.path, reserved, length - reserved)?;
        }
        state.inode(self.inode).reserve(length);
        Ok(())
    }

    fn forget_cached(&self) -> Result<(), DiskError> {
        let mut state = self.disk.enter("fadvise", &self.path)?;
        state.inode(self.inode).forget_cached();
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let mut state = self.disk.enter("fallocate", &self.path)?;
        state.fail_if(FaultKind::WriteError, "fallocate", &self.path)?;
        let before = state.inode(self.inode).allocated();
        state.inode(self.inode).punch(offset, length);
        let after = state.inode(self.inode).allocated();
        state.used = state.used.saturating_sub(before - after);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
