//! One simulated machine: its clocks, its disk, and the process on it, if one runs.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use trefoil_protocol::ids::VolumeId;
use trefoil_storage_node::WorkQueue;

use super::Happening;
use super::program::{Boot, Program, Threads, TimerId};
use crate::clock::{Clock, SuspendedClock};
use crate::disk::SimDisk;
use crate::faults::CrashKind;
use crate::kernel::EventId;
use crate::network::NodeIndex;
use crate::random::{Draws, Stream};

/// Work that a crash breaks off was at most so many steps far.
const BROKEN_OFF_AFTER: u64 = 16;

/// A process that shares its processor with too many others.
#[derive(Clone, Debug)]
pub(super) struct Starvation {
    pub(super) until: u64,
    /// The mean of a stall.
    pub(super) stall: u64,
    /// The mean of the time between two stalls.
    pub(super) run: u64,
    pub(super) draws: Draws,
}

/// A job that a disk thread has.
#[derive(Debug)]
pub(super) struct Working<P: Program> {
    pub(super) job: P::Job,
    given_at: u64,
    /// How long it waited until its turn came.
    pub(super) waited: u64,
    /// How long it is done from then on.
    pub(super) took: u64,
}

/// A job whose turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) number: u64,
    pub(super) done_at: u64,
    /// When the device takes the next one.
    pub(super) free_at: u64,
}

/// Jobs that wait for the device, by the threads that have them.
#[derive(Debug, Default)]
struct Queues {
    flushes: WorkQueue<VolumeId, u64>,
    reads: VecDeque<u64>,
    idle: VecDeque<u64>,
    turn: usize,
}

impl Queues {
    fn add(&mut self, number: u64, threads: Threads) {
        match threads {
            Threads::Flush(volume, place) => self.flushes.add(volume, place, number),
            Threads::Read => self.reads.push_back(number),
            Threads::Idle => self.idle.push_back(number),
        }
    }

    /// Each kind of threads in turn, those that have nothing passed over.
    fn next(&mut self) -> Option<u64> {
        for _ in 0..3 {
            self.turn = (self.turn + 1) % 3;
            let next = match self.turn {
                0 => self.reads.pop_front(),
                1 => self.flushes.take(),
                _ => self.idle.pop_front(),
            };
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

/// A machine of the cluster.
pub struct Node<P: Program> {
    name: String,
    index: NodeIndex,
    spec: P::Spec,
    pub(super) clock: Clock,
    pub(super) disk: SimDisk,
    pub(super) program: Option<P>,
    incarnation: u64,
    lost_power: bool,
    paused: bool,
    image: Option<SimDisk>,
    /// True time until which nothing may wake a paused process.
    still_until: u64,
    starved: Option<Starvation>,
    next_work: u64,
    /// Until when its disk is at the job that it took last.
    busy_until: u64,
    queues: Queues,
    /// The most jobs that its disk threads ever had at once.
    longest_queue: usize,
    /// What its disk threads are at; a crash breaks it off at any step.
    pub(super) working: BTreeMap<u64, Working<P>>,
    pub(super) held: Vec<Happening<P>>,
    pub(super) timers: BTreeMap<TimerId, EventId>,
}

impl<P: Program> fmt::Debug for Node<P> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.program.is_some(), self.paused) {
            (true, true) => "paused",
            (true, false) => "up",
            (false, _) => "down",
        };
        write!(formatter, "{} ({state}, incarnation {})", self.name, self.incarnation)
    }
}

impl<P: Program> Node<P> {
    pub(super) fn new(name: String, index: NodeIndex, spec: P::Spec, clock: Clock, disk: SimDisk) -> Self {
        Self {
            name,
            index,
            spec,
            clock,
            disk,
            program: None,
            incarnation: 0,
            lost_power: false,
            paused: false,
            image: None,
            still_until: 0,
            starved: None,
            next_work: 0,
            busy_until: 0,
            queues: Queues::default(),
            longest_queue: 0,
            working: BTreeMap::new(),
            held: Vec::new(),
            timers: BTreeMap::new(),
        }
    }

    /// Its name in plans and traces.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is configured with.
    #[must_use]
    pub fn spec(&self) -> &P::Spec {
        &self.spec
    }

    /// The process, if one runs.
    #[must_use]
    pub fn program(&self) -> Option<&P> {
        self.program.as_ref()
    }

    /// Its disk.
    #[must_use]
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// Its clocks.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How many times it started.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether it stands still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether it shares its processor with too many others.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.starved.is_some()
    }

    /// Starts the process on what the last crash left. False if one runs already.
    pub(super) fn start(&mut self, seed: u64, now: u64) -> bool {
        if self.program.is_some() {
            return false;
        }
        if std::mem::take(&mut self.lost_power) {
            self.clock.reboot(now);
        }
        let entity = u64::from(self.index.0) << 32 | self.incarnation;
        let boot = Boot {
            node: self.index,
            incarnation: self.incarnation,
            disk: self.disk.clone(),
            draws: Draws::new(seed, Stream::NodeInternal, entity),
            now: self.clock.read(now),
        };
        self.incarnation += 1;
        self.program = Some(P::start(&self.spec, boot));
        true
    }

    /// Ends the process. The caller cancels the timers that this returns.
    pub(super) fn stop(&mut self, how: CrashKind, seed: u64, now: u64) -> Vec<EventId> {
        self.program = None;
        self.held.clear();
        self.resume(now);
        self.starved = None;
        self.break_off_work(seed);
        (self.busy_until, self.queues) = (0, Queues::default());
        self.disk = match how {
            CrashKind::Power => self.disk.crash(),
            CrashKind::Process => self.disk.kill_process(),
        };
        self.lost_power |= how == CrashKind::Power;
        std::mem::take(&mut self.timers).into_values().collect()
    }

    /// The disk threads die with the process, each somewhere in the middle of what it was doing.
    fn break_off_work(&mut self, seed: u64) {
        let entity = u64::from(self.index.0) << 32 | self.incarnation;
        let mut draws = Draws::new(seed, Stream::BrokenWork, entity);
        for Working { job, .. } in std::mem::take(&mut self.working).into_values() {
            self.disk.allow_steps(draws.below(BROKEN_OFF_AFTER));
            // Nobody is left to hear what came of it.
            drop(P::run(job));
        }
    }

    /// Keeps the disk as it would be found after a power loss now.
    pub(super) fn take_image(&mut self) {
        self.image = Some(self.disk.snapshot().crash());
    }

    /// Puts the disk back to its image. The process must be down.
    pub(super) fn roll_back(&mut self) {
        if let Some(image) = &self.image {
            self.disk = self.disk.put_back(image);
        }
    }

    /// An empty disk stands in the place of the old one. The process must be down.
    pub(super) fn lose_disk(&mut self) {
        self.disk = self.disk.blank();
    }

    /// The disk threads are given a job.
    pub(super) fn give_work(&mut self, job: P::Job, now: u64) {
        self.next_work += 1;
        self.queues.add(self.next_work, P::threads(&job));
        self.working.insert(self.next_work, Working { job, given_at: now, waited: 0, took: 0 });
        self.longest_queue = self.longest_queue.max(self.working.len());
    }

    /// What is queued of a volume is hurried.
    pub(super) fn hurry(&mut self, volume: VolumeId) {
        self.queues.flushes.hurry(&volume);
    }

    /// The device takes the next job, if it is free and there is one.
    pub(super) fn begin_work(&mut self, now: u64) -> Option<Begun> {
        if self.busy_until > now {
            return None;
        }
        let number = self.queues.next()?;
        let working = self.working.get_mut(&number).expect("what waits was given");
        self.busy_until = now + self.disk.work_duration(P::bytes(&working.job));
        let done_at = self.busy_until + self.disk.sync_duration();
        (working.waited, working.took) = (now - working.given_at, done_at - now);
        Some(Begun { number, done_at, free_at: self.busy_until })
    }

    /// The most jobs that its disk threads ever had at once.
    #[must_use]
    pub fn longest_queue(&self) -> usize {
        self.longest_queue
    }

    pub(super) fn pause(&mut self, now: u64, lasts: u64, clock: SuspendedClock) {
        self.still_until = self.still_until.max(now.saturating_add(lasts));
        if !self.paused {
            self.paused = true;
            self.clock.suspend(now, clock);
        }
    }

    /// When a paused process may go on.
    pub(super) fn stands_still_until(&self) -> u64 {
        self.still_until
    }

    /// From now on the process gets the processor in pieces.
    pub(super) fn starve(&mut self, starvation: Starvation) {
        self.starved = Some(starvation);
    }

    /// The next stall of a starved process: how long it lasts and how long it runs afterwards.
    pub(super) fn next_stall(&mut self, now: u64) -> Option<(u64, u64)> {
        let starved = self.starved.as_mut()?;
        if now >= starved.until {
            self.starved = None;
            return None;
        }
        Some((starved.draws.exponential(starved.stall), starved.draws.exponential(starved.run)))
    }

    /// Lets it go on, and says what came meanwhile.
    pub(super) fn resume(&mut self, now: u64) -> Vec<Happening<P>> {
        self.paused = false;
        self.still_until = 0;
        self.clock.resume(now);
        std::mem::take(&mut self.held)
    }
}
