//! The simulated cluster: nodes with clocks and disks, a network, a fault plan, and one queue of
//! what happens next. It is generic over the program, so that the kernel's own tests run on a toy
//! and the product's cores run on the same code.
//!
//! One event is one step of one node. Everything that a step asks for is decided here, by keyed
//! draws, and enters the trace.

mod node;
mod program;
mod strike;

use std::fmt;

pub use node::Node;
use node::{Begun, Working};
pub use program::{Agenda, Boot, Driver, Input, Output, Program, Threads, TimerId, View};
pub use strike::UnknownName;

use crate::clock::Clock;
use crate::disk::{DiskModel, SimDisk};
use crate::faults::{CrashKind, FaultPlan};
use crate::kernel::{EventId, Kernel, Origin};
use crate::network::{Arrival, Network, NodeIndex, Passage, Site};
use crate::trace::{Digest, Trace, TraceSummary, Traced};
use strike::Strikes;

/// Something that happens at a moment of true time.
pub(crate) enum Happening<P: Program> {
    Arrival {
        passage: Passage,
        message: P::Message,
    },
    Timer {
        node: NodeIndex,
        timer: TimerId,
        at_boot: u64,
    },
    Work {
        node: NodeIndex,
        incarnation: u64,
        number: u64,
    },
    /// Its disk can take the next job.
    DiskFree {
        node: NodeIndex,
        incarnation: u64,
    },
    Command {
        node: NodeIndex,
        command: P::Command,
    },
    Fault {
        number: usize,
    },
    Resume {
        node: NodeIndex,
        incarnation: u64,
    },
    Stall {
        node: NodeIndex,
        incarnation: u64,
    },
}

impl<P: Program> Happening<P> {
    /// The node whose process this reaches, if it reaches one.
    fn reaches(&self) -> Option<NodeIndex> {
        match self {
            Self::Arrival { passage, .. } => Some(passage.to),
            Self::Timer { node, .. } | Self::Work { node, .. } | Self::Command { node, .. } => Some(*node),
            Self::Fault { .. } | Self::Resume { .. } | Self::Stall { .. } | Self::DiskFree { .. } => None,
        }
    }
}

impl<P: Program> fmt::Debug for Happening<P> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrival { passage, message } => {
                let Passage { from, to, link, .. } = passage;
                write!(formatter, "{} -> {} over {}: {message:?}", from.0, to.0, link.name())
            }
            Self::Timer { node, timer, .. } => write!(formatter, "{} timer {}", node.0, timer.0),
            Self::Work { node, number, .. } => write!(formatter, "{} disk job {number}", node.0),
            Self::DiskFree { node, .. } => write!(formatter, "{} disk free", node.0),
            Self::Command { node, command } => write!(formatter, "{} command {command:?}", node.0),
            Self::Fault { number } => write!(formatter, "fault {number}"),
            Self::Resume { node, .. } => write!(formatter, "{} resumes", node.0),
            Self::Stall { node, .. } => write!(formatter, "{} stalls", node.0),
        }
    }
}

impl<P: Program> Traced for Happening<P> {
    fn digest(&self, digest: &mut Digest) {
        let mut words = |kind: u64, node: NodeIndex, detail: u64| {
            digest.word(kind << 16 | u64::from(node.0));
            digest.word(detail);
        };
        match self {
            Self::Arrival { passage, message } => {
                words(1, passage.to, u64::from(passage.from.0));
                message.digest(digest);
            }
            Self::Timer { node, timer, .. } => words(2, *node, timer.0),
            Self::Work { node, incarnation, number } => words(3, *node, *incarnation << 32 ^ *number),
            Self::Command { node, command } => {
                words(4, *node, 0);
                command.digest(digest);
            }
            Self::Fault { number } => words(5, NodeIndex(0), *number as u64),
            Self::Resume { node, incarnation } => words(6, *node, *incarnation),
            Self::Stall { node, incarnation } => words(7, *node, *incarnation),
            Self::DiskFree { node, incarnation } => words(8, *node, *incarnation),
        }
    }
}

/// A node's own events.
fn origin_of(node: NodeIndex) -> Origin {
    Origin(u64::from(node.0))
}

/// Each fault is an origin of its own: taking one out of a plan moves nothing else.
fn fault_origin(number: usize) -> Origin {
    Origin(1 << 32 | number as u64)
}

/// A cluster and its queue.
#[derive(Debug)]
pub struct Cluster<P: Program> {
    kernel: Kernel<Happening<P>>,
    network: Network,
    nodes: Vec<Node<P>>,
    strikes: Strikes,
    rate_ppm_max: u32,
    power_losses: u64,
}

impl<P: Program> Cluster<P> {
    /// An empty cluster whose boot clocks are wrong by at most `rate_ppm_max`.
    #[must_use]
    pub fn new(seed: u64, trace: Trace, rate_ppm_max: u32) -> Self {
        Self {
            kernel: Kernel::new(seed, trace),
            network: Network::new(seed, Vec::new()),
            nodes: Vec::new(),
            strikes: Strikes::default(),
            rate_ppm_max,
            power_losses: 0,
        }
    }

    /// Adds a machine; [`Self::start_all`] or a `restart` starts its process.
    pub fn add_node(&mut self, name: &str, site: Site, spec: P::Spec, disk: DiskModel) -> NodeIndex {
        let index = self.network.add_node(site);
        let entity = u64::from(index.0);
        let clock = Clock::drawn(self.kernel.seed(), entity, self.rate_ppm_max);
        let disk = SimDisk::new(self.kernel.seed(), entity, disk);
        self.nodes.push(Node::new(name.to_owned(), index, spec, clock, disk));
        index
    }

    /// Lays down the faults of a plan. Once per run, after the nodes were added.
    ///
    /// # Errors
    /// If the plan names a node or link that this cluster does not have.
    pub fn load(&mut self, plan: &FaultPlan) -> Result<(), UnknownName> {
        let names: Vec<&str> = self.nodes.iter().map(Node::name).collect();
        strike::check_names(plan, &names)?;
        self.strikes = Strikes::of(plan);
        for (number, at) in self.strikes.timed() {
            self.kernel.schedule(at, fault_origin(number), Happening::Fault { number });
        }
        Ok(())
    }

    /// Starts every process that does not run.
    pub fn start_all(&mut self, driver: &mut impl Driver<P>) {
        for index in self.indexes() {
            self.start(index, driver);
        }
    }

    /// Gives a command to a node at a moment of true time.
    pub fn command(&mut self, at: u64, node: NodeIndex, command: P::Command) {
        self.kernel.schedule(at, origin_of(node), Happening::Command { node, command });
    }

    /// Lets time pass, event by event, up to and including `until`.
    pub fn run_until(&mut self, until: u64, driver: &mut impl Driver<P>) {
        while let Some(happening) = self.kernel.next_until(until) {
            self.happen(happening, driver);
        }
    }

    /// True time.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.kernel.now()
    }

    /// How many events happened.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.kernel.events()
    }

    /// How many machines lost power at an operation of their disks.
    #[must_use]
    pub fn power_losses(&self) -> u64 {
        self.power_losses
    }

    /// The machines, in order of their indexes.
    #[must_use]
    pub fn nodes(&self) -> &[Node<P>] {
        &self.nodes
    }

    /// The network, to be changed by a scenario written in code.
    pub fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Everything, to look at.
    #[must_use]
    pub fn view(&self) -> View<'_, P> {
        View { now: self.kernel.now(), nodes: &self.nodes, network: &self.network }
    }

    /// Ends the run and names it.
    #[must_use]
    pub fn finish(self) -> TraceSummary {
        self.kernel.finish()
    }

    fn indexes(&self) -> impl Iterator<Item = NodeIndex> + use<P> {
        let count = u16::try_from(self.nodes.len()).expect("far fewer than 65 536 nodes");
        (0..count).map(NodeIndex)
    }

    fn node_mut(&mut self, index: NodeIndex) -> &mut Node<P> {
        &mut self.nodes[usize::from(index.0)]
    }

    fn happen(&mut self, happening: Happening<P>, driver: &mut impl Driver<P>) {
        if let Some(reached) = happening.reaches() {
            let node = self.node_mut(reached);
            if node.is_paused() {
                if let Happening::Timer { timer, .. } = &happening {
                    // It is out of the queue: nothing there is left to cancel.
                    node.timers.remove(timer);
                }
                node.held.push(happening);
                return;
            }
        }
        match happening {
            Happening::Arrival { passage, message } => self.arrive(passage, message, driver),
            Happening::Timer { node, timer, at_boot } => self.wake(node, timer, at_boot, driver),
            Happening::Work { node, incarnation, number } => {
                // Work of a dead process was broken off by its crash.
                let machine = self.node_mut(node);
                let current = machine.incarnation() == incarnation;
                let done = machine.working.remove(&number).filter(|_| current);
                if let Some(Working { job, waited, took, .. }) = done {
                    self.step(node, Input::Done { done: P::run(job), waited, took }, driver);
                }
            }
            Happening::DiskFree { node, incarnation } => {
                if self.node_mut(node).incarnation() == incarnation {
                    self.begin_work(node);
                }
            }
            Happening::Command { node, command } => self.step(node, Input::Command(command), driver),
            Happening::Fault { number } => self.strike(number, driver),
            Happening::Resume { node, incarnation } => {
                let now = self.kernel.now();
                let machine = self.node_mut(node);
                if machine.incarnation() == incarnation && machine.stands_still_until() <= now {
                    self.resume(node);
                }
            }
            Happening::Stall { node, incarnation } => self.stall(node, incarnation),
        }
    }

    fn runs(&self, node: NodeIndex) -> bool {
        self.nodes[usize::from(node.0)].program().is_some()
    }

    fn arrive(&mut self, passage: Passage, message: P::Message, driver: &mut impl Driver<P>) {
        match self.network.arrive(self.kernel.now(), &passage) {
            Arrival::Delivered => {
                let Passage { from, to, link, .. } = passage;
                self.step(to, Input::Message { from, link, message }, driver);
            }
            Arrival::Later(at) => {
                let origin = origin_of(passage.from);
                self.kernel.schedule(at, origin, Happening::Arrival { passage, message });
            }
            Arrival::Lost => self.kernel.decide("lost on the way", u64::from(passage.to.0)),
        }
    }

    fn start(&mut self, index: NodeIndex, driver: &mut impl Driver<P>) {
        let (seed, now) = (self.kernel.seed(), self.kernel.now());
        if self.node_mut(index).start(seed, now) {
            self.kernel.decide("started", u64::from(index.0));
            self.step(index, Input::Started, driver);
        }
    }

    fn stop(&mut self, index: NodeIndex, how: CrashKind, driver: &mut impl Driver<P>) {
        if !self.runs(index) {
            return;
        }
        let (seed, now) = (self.kernel.seed(), self.kernel.now());
        for timer in self.node_mut(index).stop(how, seed, now) {
            self.kernel.cancel(timer);
        }
        self.network.break_all_connections(index);
        self.kernel.decide("stopped", u64::from(index.0));
        driver.stepped(&self.view(), index);
    }

    /// What came during a pause happens now, in an order that the kernel draws.
    fn resume(&mut self, index: NodeIndex) {
        let now = self.kernel.now();
        for happening in self.node_mut(index).resume(now) {
            let timer = match &happening {
                Happening::Timer { timer, .. } => Some(*timer),
                _ => None,
            };
            let event = self.kernel.schedule(now, origin_of(index), happening);
            if let Some(timer) = timer {
                self.node_mut(index).timers.insert(timer, event);
            }
        }
    }

    fn step(&mut self, index: NodeIndex, input: Input<P>, driver: &mut impl Driver<P>) {
        let true_now = self.kernel.now();
        let node = self.node_mut(index);
        let now = node.clock.read(true_now);
        let Some(program) = &mut node.program else {
            return;
        };
        let mut outputs = Vec::new();
        program.step(now, input, &mut outputs);
        if node.disk.is_powerless() {
            // Whatever the process made of it, nobody hears.
            self.power_losses += 1;
            return self.stop(index, CrashKind::Power, driver);
        }
        for output in outputs {
            if !self.runs(index) {
                // It ended itself; what it wanted afterwards never happens.
                break;
            }
            self.carry_out(index, output, driver);
        }
        driver.stepped(&self.view(), index);
    }

    fn carry_out(&mut self, index: NodeIndex, output: Output<P>, driver: &mut impl Driver<P>) {
        match output {
            Output::Send { to, link, size, message } => {
                let deliveries = self.network.send(self.kernel.now(), index, to, link, size);
                for delivery in deliveries {
                    let (passage, message) = (delivery.passage, message.clone());
                    let happening = Happening::Arrival { passage, message };
                    self.kernel.schedule(delivery.at, origin_of(index), happening);
                }
            }
            Output::SetTimer { timer, at_boot } => self.set_timer(index, timer, at_boot),
            Output::CancelTimer(timer) => {
                if let Some(event) = self.node_mut(index).timers.remove(&timer) {
                    self.kernel.cancel(event);
                }
            }
            Output::Work(job) => {
                let now = self.kernel.now();
                self.node_mut(index).give_work(job, now);
                self.begin_work(index);
            }
            Output::Hurry(volume) => self.node_mut(index).hurry(volume),
            Output::Exit => self.stop(index, CrashKind::Process, driver),
            Output::Observe(seen) => self.report(index, seen, driver),
            Output::Mark(mark) => self.mark(index, mark),
        }
    }

    /// Lets a disk take what it can take now.
    fn begin_work(&mut self, index: NodeIndex) {
        let now = self.kernel.now();
        let incarnation = self.node_mut(index).incarnation();
        while let Some(Begun { number, done_at, free_at }) = self.node_mut(index).begin_work(now) {
            let happening = Happening::Work { node: index, incarnation, number };
            self.kernel.schedule(done_at, origin_of(index), happening);
            if free_at > now {
                let happening = Happening::DiskFree { node: index, incarnation };
                self.kernel.schedule(free_at, origin_of(index), happening);
            }
        }
    }

    fn wake(&mut self, index: NodeIndex, timer: TimerId, at_boot: u64, driver: &mut impl Driver<P>) {
        let now = self.kernel.now();
        let node = self.node_mut(index);
        node.timers.remove(&timer);
        if node.clock.read(now).boot < at_boot {
            // The clock became slower after the timer was set. A timer is never early.
            self.set_timer(index, timer, at_boot);
        } else {
            self.step(index, Input::Timer(timer), driver);
        }
    }

    fn set_timer(&mut self, index: NodeIndex, timer: TimerId, at_boot: u64) {
        let at = self.node_mut(index).clock.true_time_of(at_boot);
        let happening = Happening::Timer { node: index, timer, at_boot };
        let event: EventId = self.kernel.schedule(at, origin_of(index), happening);
        if let Some(before) = self.node_mut(index).timers.insert(timer, event) {
            self.kernel.cancel(before);
        }
    }

    fn report(&mut self, index: NodeIndex, seen: P::Observation, driver: &mut impl Driver<P>) {
        let mut agenda = Agenda { commands: Vec::new() };
        driver.observe(&self.view(), index, seen, &mut agenda);
        for (at, node, command) in agenda.commands {
            self.command(at, node, command);
        }
    }

    fn mark(&mut self, index: NodeIndex, mark: &'static str) {
        let node = self.nodes[usize::from(index.0)].name();
        for (number, delay) in self.strikes.at_mark(mark, node) {
            let at = self.kernel.now() + delay;
            self.kernel.schedule(at, fault_origin(number), Happening::Fault { number });
        }
    }
}
