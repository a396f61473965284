//! The threads that wait for the disk. Syncs, reads and what nobody waits for (erases, key bags) have
//! their own, so that a read never waits behind a flush, and neither behind the overwriting of large
//! objects; each outcome goes back to the core as an event.
//!
//! When many volumes wait for a sync, one thread takes all of them and they share it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use trefoil_engine::disk::file::FileDisk;
use trefoil_engine::{
    CreateJob, EraseJob, ProbeJob, ReadJob, RotationJob, ScrubJob, SyncJob, SyncTicket, VerifyJob, WipeJob,
};
use trefoil_protocol::ids::VolumeId;

use super::Event;
use crate::event::{ReadTicket, Spent};
use crate::work_queue::{Place, WorkQueue};

/// Flushes of different volumes run side by side.
const SYNC_THREADS: usize = 2;
/// Erasing is never urgent.
const ERASE_THREADS: usize = 1;
/// Enough to keep a device busy while another read waits for it.
const READ_THREADS: usize = 2;

/// From so many waiting on, one sync for all of them costs less than each by itself.
const TOGETHER_FROM: usize = 32;
/// The most that share one sync: the outcomes of the others should not wait for ever.
const TOGETHER_MAX: usize = 1024;

/// A job that waits for a thread.
struct Queued {
    job: Job,
    since: Instant,
}

enum Job {
    Sync(VolumeId, SyncJob<FileDisk>),
    Create(VolumeId, CreateJob<FileDisk>),
    Read(ReadTicket, ReadJob<FileDisk>),
    Erase(VolumeId, EraseJob<FileDisk>),
    Rotate(VolumeId, RotationJob<FileDisk>),
    Wipe(VolumeId, WipeJob<FileDisk>),
    Verify(VolumeId, VerifyJob<FileDisk>),
    Scrub(VolumeId, ScrubJob<FileDisk>),
    Probe(ProbeJob<FileDisk>),
}

/// Where to leave work for the disk. Dropped, its threads end once the queues are empty.
pub(super) struct DiskThreads {
    syncs: Pool,
    reads: Pool,
    erases: Pool,
}

impl DiskThreads {
    /// Starts the threads; outcomes go to `events`.
    pub(super) fn start(events: &UnboundedSender<Event>) -> Self {
        Self {
            syncs: Pool::start("sync", SYNC_THREADS, events),
            reads: Pool::start("read", READ_THREADS, events),
            erases: Pool::start("erase", ERASE_THREADS, events),
        }
    }

    /// Queues a flush.
    pub(super) fn sync(&self, volume: VolumeId, job: SyncJob<FileDisk>, place: Place) {
        self.syncs.add_at(Some(volume), place, Job::Sync(volume, job));
    }

    /// An epoch waits for the flush of this volume that may be queued.
    pub(super) fn hurry(&self, volume: VolumeId) {
        self.syncs.0.lock().jobs.hurry(&volume);
    }

    /// Queues the creation of a volume, in front of the flushes that wait.
    pub(super) fn create(&self, volume: VolumeId, job: CreateJob<FileDisk>) {
        self.syncs.add_at(Some(volume), Place::First, Job::Create(volume, job));
    }

    /// Queues a probe of the store, in front of the flushes that wait.
    pub(super) fn probe(&self, job: ProbeJob<FileDisk>) {
        self.syncs.add_at(None, Place::First, Job::Probe(job));
    }

    /// Queues a read.
    pub(super) fn read(&self, ticket: ReadTicket, job: ReadJob<FileDisk>) {
        self.reads.add(Job::Read(ticket, job));
    }

    /// Queues an erase.
    pub(super) fn erase(&self, volume: VolumeId, job: EraseJob<FileDisk>) {
        self.erases.add(Job::Erase(volume, job));
    }

    /// Queues the rotation of a key bag.
    pub(super) fn rotate(&self, volume: VolumeId, job: RotationJob<FileDisk>) {
        self.erases.add(Job::Rotate(volume, job));
    }

    /// Queues the wipe of a volume.
    pub(super) fn wipe(&self, volume: VolumeId, job: WipeJob<FileDisk>) {
        self.erases.add(Job::Wipe(volume, job));
    }

    /// Queues a stretch of a scrub.
    pub(super) fn scrub(&self, volume: VolumeId, job: ScrubJob<FileDisk>) {
        self.erases.add(Job::Scrub(volume, job));
    }

    /// Queues the reading of a suspect store's volume.
    pub(super) fn verify(&self, volume: VolumeId, job: VerifyJob<FileDisk>) {
        self.reads.add(Job::Verify(volume, job));
    }
}

/// Threads with one queue.
struct Pool(Arc<Queue>);

impl Pool {
    fn start(name: &str, count: usize, events: &UnboundedSender<Event>) -> Self {
        let queue = Arc::new(Queue::default());
        for number in 0..count {
            let (queue, events) = (Arc::clone(&queue), events.clone());
            thread::Builder::new()
                .name(format!("disk-{name}-{number}"))
                .spawn(move || work(&queue, &events))
                .expect("a thread can be started at start-up");
        }
        Self(queue)
    }

    fn add(&self, job: Job) {
        self.add_at(None, Place::Behind, job);
    }

    fn add_at(&self, volume: Option<VolumeId>, place: Place, job: Job) {
        let queued = Queued { job, since: Instant::now() };
        self.0.lock().jobs.add(volume, place, queued);
        self.0.changed.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: WorkQueue<VolumeId, Queued>,
    is_closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job, or many if many wait; none once the queue is closed and empty.
    fn next(&self) -> Vec<Queued> {
        let mut waiting = self.lock();
        while waiting.jobs.is_empty() && !waiting.is_closed {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.jobs.take_together(|next, count| match next.job {
            Job::Sync(..) | Job::Create(..) if count >= TOGETHER_FROM => TOGETHER_MAX,
            _ => 1,
        })
    }
}

fn work(queue: &Queue, events: &UnboundedSender<Event>) {
    loop {
        let jobs = queue.next();
        if jobs.is_empty() {
            return;
        }
        for event in run(jobs) {
            if events.send(event).is_err() {
                return;
            }
        }
    }
}

/// Syncs and creations share their syncs; everything else is done one by one.
fn run(jobs: Vec<Queued>) -> Vec<Event> {
    let (mut syncs, mut asked, mut creations, mut created) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut events = Vec::new();
    for Queued { job, since } in jobs {
        let waited = since.elapsed();
        match job {
            Job::Sync(volume, job) => {
                asked.push(Asked { volume, ticket: job.ticket(), waited, bytes: job.bytes() });
                syncs.push(job);
            }
            Job::Create(volume, job) => {
                created.push(volume);
                creations.push(job);
            }
            Job::Read(ticket, job) => events.push(Event::Read { ticket, result: job.run() }),
            Job::Erase(volume, job) => events.push(Event::Erased { volume, result: job.run() }),
            Job::Rotate(volume, job) => events.push(Event::Rotated { volume, result: job.run() }),
            Job::Wipe(volume, job) => events.push(Event::Wiped { volume, result: job.run() }),
            Job::Scrub(volume, job) => events.push(Event::Scrubbed { volume, result: job.run() }),
            Job::Probe(job) => {
                let (began, bytes) = (Instant::now(), job.bytes());
                let result = job.run();
                let spent = Spent { waited, took: began.elapsed(), bytes };
                events.push(Event::Probed { result, spent });
            }
            Job::Verify(volume, job) => events.push(Event::Verified { volume, result: job.run() }),
        }
    }
    events.extend(synced(asked, syncs));
    let created = created.into_iter().zip(CreateJob::run_all(creations));
    events.extend(created.map(|(volume, result)| Event::Created { volume, result }));
    events
}

/// A flush that is done together with others.
struct Asked {
    volume: VolumeId,
    ticket: SyncTicket,
    waited: Duration,
    bytes: u64,
}

fn synced(asked: Vec<Asked>, jobs: Vec<SyncJob<FileDisk>>) -> Vec<Event> {
    let began = Instant::now();
    let result = SyncJob::run_all(jobs);
    let took = began.elapsed() / u32::try_from(asked.len().max(1)).expect("at most so many share one");
    let synced = |Asked { volume, ticket, waited, bytes }| {
        let spent = Spent { waited, took, bytes };
        Event::Synced { volume, ticket, result: result.clone(), spent }
    };
    asked.into_iter().map(synced).collect()
}
