//! The threads that wait for the disk. Syncs, reads and what nobody waits for (erases, key bags) have
//! their own, so that a read never waits behind a flush, and neither behind the overwriting of large
//! objects; each outcome goes back to the core as an event.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::mpsc::UnboundedSender;
use trefoil_engine::disk::file::FileDisk;
use trefoil_engine::{EraseJob, ProbeJob, ReadJob, RotationJob, ScrubJob, SyncJob, VerifyJob, WipeJob};
use trefoil_protocol::ids::VolumeId;

use super::Event;
use crate::event::ReadTicket;

/// Flushes of different volumes run side by side.
const SYNC_THREADS: usize = 2;
/// Erasing is never urgent.
const ERASE_THREADS: usize = 1;
/// Enough to keep a device busy while another read waits for it.
const READ_THREADS: usize = 2;

enum Job {
    Sync(VolumeId, SyncJob<FileDisk>),
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
    syncs: Sender<Job>,
    reads: Sender<Job>,
    erases: Sender<Job>,
}

impl DiskThreads {
    /// Starts the threads; outcomes go to `events`.
    pub(super) fn start(events: &UnboundedSender<Event>) -> Self {
        Self {
            syncs: start_pool("sync", SYNC_THREADS, events),
            reads: start_pool("read", READ_THREADS, events),
            erases: start_pool("erase", ERASE_THREADS, events),
        }
    }

    /// Queues a flush.
    pub(super) fn sync(&self, volume: VolumeId, job: SyncJob<FileDisk>) {
        send(&self.syncs, Job::Sync(volume, job));
    }

    /// Queues a probe of the store behind the flushes that wait.
    pub(super) fn probe(&self, job: ProbeJob<FileDisk>) {
        send(&self.syncs, Job::Probe(job));
    }

    /// Queues a read.
    pub(super) fn read(&self, ticket: ReadTicket, job: ReadJob<FileDisk>) {
        send(&self.reads, Job::Read(ticket, job));
    }

    /// Queues an erase.
    pub(super) fn erase(&self, volume: VolumeId, job: EraseJob<FileDisk>) {
        send(&self.erases, Job::Erase(volume, job));
    }

    /// Queues the rotation of a key bag.
    pub(super) fn rotate(&self, volume: VolumeId, job: RotationJob<FileDisk>) {
        send(&self.erases, Job::Rotate(volume, job));
    }

    /// Queues the wipe of a volume.
    pub(super) fn wipe(&self, volume: VolumeId, job: WipeJob<FileDisk>) {
        send(&self.erases, Job::Wipe(volume, job));
    }

    /// Queues a stretch of a scrub.
    pub(super) fn scrub(&self, volume: VolumeId, job: ScrubJob<FileDisk>) {
        send(&self.erases, Job::Scrub(volume, job));
    }

    /// Queues the reading of a suspect store's volume.
    pub(super) fn verify(&self, volume: VolumeId, job: VerifyJob<FileDisk>) {
        send(&self.reads, Job::Verify(volume, job));
    }
}

fn send(queue: &Sender<Job>, job: Job) {
    queue.send(job).expect("disk threads outlive their queue");
}

fn start_pool(name: &str, count: usize, events: &UnboundedSender<Event>) -> Sender<Job> {
    let (queue, jobs) = mpsc::channel();
    let jobs = Arc::new(Mutex::new(jobs));
    for number in 0..count {
        let (jobs, events) = (Arc::clone(&jobs), events.clone());
        thread::Builder::new()
            .name(format!("disk-{name}-{number}"))
            .spawn(move || work(&jobs, &events))
            .expect("a thread can be started at start-up");
    }
    queue
}

fn work(jobs: &Mutex<Receiver<Job>>, events: &UnboundedSender<Event>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let event = match job {
            Ok(Job::Sync(volume, job)) => {
                let ticket = job.ticket();
                Event::Synced { volume, ticket, result: job.run() }
            }
            Ok(Job::Read(ticket, job)) => Event::Read { ticket, result: job.run() },
            Ok(Job::Erase(volume, job)) => Event::Erased { volume, result: job.run() },
            Ok(Job::Rotate(volume, job)) => Event::Rotated { volume, result: job.run() },
            Ok(Job::Wipe(volume, job)) => Event::Wiped { volume, result: job.run() },
            Ok(Job::Scrub(volume, job)) => Event::Scrubbed { volume, result: job.run() },
            Ok(Job::Verify(volume, job)) => Event::Verified { volume, result: job.run() },
            Ok(Job::Probe(job)) => Event::Probed(job.run()),
            Err(_) => return,
        };
        if events.send(event).is_err() {
            return;
        }
    }
}
