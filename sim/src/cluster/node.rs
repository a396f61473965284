//! One simulated machine: its clocks, its disk, and the process on it, if one runs.

use std::collections::BTreeMap;
use std::fmt;

use super::Happening;
use super::program::{Boot, Program, TimerId};
use crate::clock::{Clock, SuspendedClock};
use crate::disk::SimDisk;
use crate::faults::CrashKind;
use crate::kernel::EventId;
use crate::network::NodeIndex;
use crate::random::{Draws, Stream};

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
    pub(super) fn stop(&mut self, how: CrashKind, now: u64) -> Vec<EventId> {
        self.program = None;
        self.held.clear();
        self.resume(now);
        self.disk = match how {
            CrashKind::Power => self.disk.crash(),
            CrashKind::Process => self.disk.kill_process(),
        };
        self.lost_power |= how == CrashKind::Power;
        std::mem::take(&mut self.timers).into_values().collect()
    }

    pub(super) fn pause(&mut self, now: u64, clock: SuspendedClock) {
        self.paused = true;
        self.clock.suspend(now, clock);
    }

    /// Lets it go on, and says what came meanwhile.
    pub(super) fn resume(&mut self, now: u64) -> Vec<Happening<P>> {
        self.paused = false;
        self.clock.resume(now);
        std::mem::take(&mut self.held)
    }
}
