//! A process of the simulated cluster: storage node, placement or client. Only starts and routes;
//! what it runs is the production core, and its shell here is in [`super::storage`],
//! [`control`](super::control) and [`client`](super::client).

use std::time::Duration;

use trefoil_engine::{
    BagError, CreateJob, EraseError, EraseJob, EraseReport, ProbeError, ProbeJob, ReadError, ReadJob,
    Rotated, RotationJob, ScanError, ScrubJob, ScrubReport, Scrubbed, SegmentLayout, Store, StoreError,
    SyncError, SyncJob, SyncTicket, VerifyError, VerifyJob, WipeError, WipeJob,
};
use trefoil_placement::custodian::{Keyring, MasterKey};
use trefoil_placement::{Beginning, Caution, Placement, Settings};
use trefoil_protocol::ids::{Hash, NodeId, StoreId, VolumeId};
use trefoil_protocol::time::BootTime;
use trefoil_protocol::tree::LEAF_LEN;
use trefoil_storage_node::{NodeCore, NodeSettings, Pace, Place, ReadTicket, Spent, StartError};

use super::client::Client;
use super::control::{Control, Shelf};
use super::message::Message;
use super::roster;
use super::seen::{Command, Seen};
use super::storage::{self, Storage};
use crate::clock::NodeTime;
use crate::cluster::{Boot, Input, Output, Program, Threads};
use crate::disk::SimDisk;
use crate::network::{NodeIndex, Site};
use crate::random::Draws;

/// Small segments: a run of a minute meets their ends.
const LAYOUT: SegmentLayout = SegmentLayout {
    segment_bytes: 4 << 20,
    first_segment_bytes: 256 << 10,
    reserve_bytes: 64 << 10,
    reserve_segment_bytes: 64 << 10,
};

/// Keys move to the bag while a run lasts.
const PACE: Pace = Pace {
    keys_move_after: Duration::from_secs(2),
    keys_move_count: 16,
    scrub_every: Duration::from_secs(10),
    repair_floor: 8 << 20,
};

/// Few entries: a run of seconds meets snapshots.
const COMPACT_AFTER: usize = 40;

/// A lost data centre, and a store that was slow, are relied on again while a run lasts. Simulated disks are
/// fast, so what is slow among them is faster than elsewhere; how long it takes to be called so is as ever.
const CAUTION: Caution = Caution {
    restore_after: Duration::from_secs(2),
    moves_per_hour: 3,
    // Longer than it takes to notice that a majority is gone: nobody is excused on the way to that.
    excuse_after: Duration::from_secs(6),
    slow_times: 5,
    slow_floor: Duration::from_millis(2),
    slow_for: Duration::from_secs(10),
    probation: Duration::from_secs(5),
};

/// What a process is configured with.
#[derive(Debug)]
pub struct Spec {
    /// What kind of process it is.
    pub role: Role,
    /// Whether what it sends goes through its encoding.
    pub encodes: bool,
    /// How many voters found the cluster.
    pub voters: usize,
    /// How long an operation of a client may go on without progress.
    pub deadline: Duration,
    /// How much longer than elsewhere work takes on a slow store, at least.
    pub slow_floor: Duration,
    /// What repair may always do of a disk whose speed is given, in bytes a second.
    pub repair_floor: Option<u64>,
    /// The places of all that vote at some time.
    pub council: Vec<NodeIndex>,
}

/// A kind of process.
#[derive(Debug)]
pub enum Role {
    /// A storage node.
    Storage,
    /// A placement process, with the log that outlives it and the secret that it was given.
    Placement(Shelf, [u8; 32]),
    /// None: a voter's place that nobody takes.
    Nothing,
    /// A client at a site.
    Client(Site),
}

/// Work for a disk thread.
#[derive(Debug)]
pub enum Job {
    /// Make a volume's log durable.
    Sync(VolumeId, SyncJob<SimDisk>, Place),
    /// Read leaves.
    Read(ReadTicket, ReadJob<SimDisk>),
    /// Overwrite what was purged.
    Erase(VolumeId, EraseJob<SimDisk>),
    /// Rotate a key bag.
    Rotate(VolumeId, Box<RotationJob<SimDisk>>),
    /// Create a volume.
    Create(VolumeId, CreateJob<SimDisk>),
    /// Overwrite a whole volume.
    Wipe(VolumeId, WipeJob<SimDisk>),
    /// Read a stretch of a volume.
    Scrub(VolumeId, ScrubJob<SimDisk>),
    /// Read everything of a suspect store's volume.
    Verify(VolumeId, VerifyJob<SimDisk>),
    /// Probe the store.
    Probe(ProbeJob<SimDisk>),
}

/// What became of it.
#[derive(Debug)]
pub enum Done {
    /// The log is durable, or the store is suspect; with the bytes that were written.
    Synced(VolumeId, SyncTicket, Result<(), SyncError>, u64),
    /// The leaves.
    Read(ReadTicket, Result<Vec<bytes::Bytes>, ReadError>),
    /// What was overwritten.
    Erased(VolumeId, Result<EraseReport, EraseError>),
    /// The new bag.
    Rotated(VolumeId, Result<Rotated<SimDisk>, BagError>),
    /// The volume is there, or there was no room.
    Created(VolumeId, Result<(), StoreError>),
    /// The volume is gone.
    Wiped(VolumeId, Result<(), WipeError>),
    /// What the stretch held.
    Scrubbed(VolumeId, Result<Scrubbed, ScanError>),
    /// What was read.
    Verified(VolumeId, Result<ScrubReport, VerifyError>),
    /// What was read back, with the bytes that were written.
    Probed(Result<Vec<Hash>, ProbeError>, u64),
}

/// A process.
#[derive(Debug)]
pub struct Process {
    encodes: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Storage(Box<Storage>),
    Placement(Box<Control>),
    Client(Box<Client>),
    Nothing,
    /// It could not start and ends at once.
    Stillborn(String),
}

impl Process {
    /// The storage node's core, if it is one.
    #[must_use]
    pub fn storage(&self) -> Option<&Storage> {
        match &self.kind {
            Kind::Storage(storage) => Some(storage),
            _ => None,
        }
    }

    /// The placement process, if it is one.
    #[must_use]
    pub fn placement(&self) -> Option<&Control> {
        match &self.kind {
            Kind::Placement(control) => Some(control),
            _ => None,
        }
    }

    /// The client, if it is one.
    #[must_use]
    pub fn client(&self) -> Option<&Client> {
        match &self.kind {
            Kind::Client(client) => Some(client),
            _ => None,
        }
    }
}

impl Program for Process {
    type Spec = Spec;
    type Message = Message;
    type Command = Command;
    type Job = Job;
    type Done = Done;
    type Observation = Seen;

    fn start(spec: &Spec, boot: Boot) -> Self {
        let kind = match &spec.role {
            Role::Storage => start_storage(spec, boot),
            Role::Placement(shelf, secret) => start_placement(shelf.clone(), secret, spec, boot),
            Role::Client(site) => Kind::Client(Box::new(Client::new(*site, spec, boot.draws))),
            Role::Nothing => Kind::Nothing,
        };
        Self { encodes: spec.encodes, kind }
    }

    fn run(job: Job) -> Done {
        storage::run(job)
    }

    fn threads(job: &Job) -> Threads {
        match job {
            Job::Sync(volume, _, place) => Threads::Flush(Some(*volume), *place),
            Job::Create(volume, _) => Threads::Flush(Some(*volume), Place::First),
            Job::Probe(_) => Threads::Flush(None, Place::First),
            Job::Read(..) | Job::Verify(..) => Threads::Read,
            Job::Erase(..) | Job::Rotate(..) | Job::Wipe(..) | Job::Scrub(..) => Threads::Idle,
        }
    }

    fn bytes(job: &Job) -> u64 {
        match job {
            Job::Sync(_, job, _) => job.bytes(),
            Job::Probe(job) => job.bytes(),
            Job::Read(_, job) => job.hashes().count() as u64 * LEAF_LEN,
            Job::Scrub(_, job) => job.bytes_max(),
            _ => 0,
        }
    }

    fn step(&mut self, now: NodeTime, input: Input<Self>, outputs: &mut Vec<Output<Self>>) {
        let now = BootTime(now.boot);
        match &mut self.kind {
            Kind::Storage(storage) => match input {
                Input::Started => storage.started(now, outputs),
                Input::Message { from, link, message } => storage.message(now, from, link, message, outputs),
                Input::Timer(_) => storage.timer(now, outputs),
                Input::Done { done, waited, took } => {
                    let [waited, took] = [waited, took].map(Duration::from_nanos);
                    storage.done(now, done, Spent { waited, took, bytes: 0 }, outputs);
                }
                Input::Command(_) => {}
            },
            Kind::Placement(placement) => match input {
                Input::Started | Input::Timer(_) => placement.wake(now, outputs),
                Input::Message { from, link, message } => {
                    placement.message(now, from, link, message, outputs);
                }
                Input::Command(Command::Admin(request)) => placement.operator(now, request, outputs),
                Input::Command(_) | Input::Done { .. } => {}
            },
            Kind::Client(client) => match input {
                Input::Message { from, message, .. } => client.message(now, from, message, outputs),
                Input::Timer(_) => client.wake(now, outputs),
                Input::Command(command) => client.command(now, command, outputs),
                Input::Started | Input::Done { .. } => {}
            },
            Kind::Nothing => {}
            Kind::Stillborn(reason) => {
                outputs.push(Output::Observe(Seen::Fatal(std::mem::take(reason))));
                outputs.push(Output::Exit);
            }
        }
        if self.encodes {
            encode(outputs);
        }
    }
}

fn encode(outputs: &mut [Output<Process>]) {
    for output in outputs {
        if let Output::Send { message, .. } = output {
            let sent = std::mem::replace(message, Message::Probe(0));
            *message = sent.through_the_codec();
        }
    }
}

fn start_storage(spec: &Spec, mut boot: Boot) -> Kind {
    let node = roster::node_at(boot.node).expect("a storage node stands at a place of the roster");
    match open_storage(node, spec, &mut boot) {
        Ok(core) => {
            Kind::Storage(Box::new(Storage::new(core, boot.node, spec.voters, BootTime(boot.now.boot))))
        }
        Err(error) => Kind::Stillborn(error.to_string()),
    }
}

fn open_storage(node: NodeId, spec: &Spec, boot: &mut Boot) -> Result<NodeCore<SimDisk>, StartError> {
    match Store::open(&boot.disk, LAYOUT) {
        Err(StoreError::NotFormatted) => {
            let id = StoreId(*random(&mut boot.draws).first_chunk().expect("16 of 32 bytes"));
            Store::format(&boot.disk, id, node, &random(&mut boot.draws))?;
        }
        opened => drop(opened?),
    }
    let settings = NodeSettings {
        node,
        dc: roster::dc_of(roster::site_of(node).expect("it is in the roster")),
        rack: node.as_str().parse().expect("a node's name is a rack's too"),
        capacity: 1 << 40,
        addresses: Vec::new(),
        pid: u32::try_from(boot.incarnation).unwrap_or(0),
        pace: Pace { repair_floor: spec.repair_floor.unwrap_or(PACE.repair_floor), ..PACE },
    };
    NodeCore::open(&boot.disk, LAYOUT, settings, random(&mut boot.draws), BootTime(boot.now.boot))
}

fn start_placement(shelf: Shelf, secret: &[u8; 32], spec: &Spec, mut boot: Boot) -> Kind {
    shelf.crash();
    let voter = roster::voter_at(boot.node).expect("a placement process stands at a voter's place");
    let mut voters = roster::voters(spec.voters);
    let founds = voters.iter().any(|entry| entry.voter == voter);
    let beginning = if founds { Beginning::Found } else { Beginning::Join };
    voters.extend(roster::voter_entry(boot.node).filter(|_| !founds));
    let own = voters.iter().find(|entry| entry.voter == voter).expect("it is one of them");
    let signs_with = blake3::keyed_hash(secret, own.name.as_str().as_bytes());
    let keyring =
        (!own.witness).then(|| Keyring::new(MasterKey::from_secrets(secret, secret), signs_with.as_bytes()));
    let settings = Settings {
        cluster: "sim".to_owned(),
        voter,
        voters,
        beginning,
        compact_after: COMPACT_AFTER,
        caution: Caution { slow_floor: spec.slow_floor, ..CAUTION },
    };
    let (now, me, run) = (BootTime(boot.now.boot), boot.node, boot.incarnation);
    let entropy = move |bytes: &mut [u8]| fill(&mut boot.draws, bytes);
    match Placement::open(settings, keyring, shelf, Box::new(entropy), now) {
        Ok(core) => Kind::Placement(Box::new(Control::new(core, me, run))),
        Err(error) => Kind::Stillborn(error.to_string()),
    }
}

/// Keyed bytes in the place of the system's random ones.
pub(super) fn fill(draws: &mut Draws, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&draws.next().to_le_bytes()[..chunk.len()]);
    }
}

fn random(draws: &mut Draws) -> [u8; 32] {
    let mut bytes = [0; 32];
    fill(draws, &mut bytes);
    bytes
}

/// The place of the n-th client.
#[must_use]
pub fn client_at(number: u32) -> NodeIndex {
    NodeIndex(roster::FIRST_CLIENT.0 + u16::try_from(number).expect("far fewer than 65 536 clients"))
}
