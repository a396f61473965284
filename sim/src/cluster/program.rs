//! What the simulator asks of a core that it runs, and of the driver that watches.
//!
//! A program is a sans-IO state machine behind one `step`. It sees its own clocks, its own disk
//! and messages; it must never see true time, another node, or the plan.

use std::fmt::Debug;

use trefoil_protocol::ids::VolumeId;
use trefoil_storage_node::Place;

use super::node::Node;
use crate::clock::NodeTime;
use crate::disk::SimDisk;
use crate::faults::Action;
use crate::network::{Link, Network, NodeIndex};
use crate::random::Draws;
use crate::trace::Traced;

/// A timer of a program; setting it again moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId(pub u64);

/// What a process gets when it starts.
#[derive(Debug)]
pub struct Boot {
    /// Which node it is.
    pub node: NodeIndex,
    /// How many times the node started before.
    pub incarnation: u64,
    /// Its disk, as the last crash left it.
    pub disk: SimDisk,
    /// Randomness of its own, new at each start.
    pub draws: Draws,
    /// Its clocks.
    pub now: NodeTime,
}

/// Which threads do a job. The device serves those that have something for it in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Somebody waits for something of a volume, or of none, to be durable.
    Flush(Option<VolumeId>, Place),
    /// Somebody wants to read.
    Read,
    /// Nobody waits.
    Idle,
}

/// A state machine that runs on a node: a storage node, a placement voter, a client.
pub trait Program: Sized {
    /// What a node of this kind is configured with; it survives every crash.
    type Spec;
    /// What nodes send to each other.
    type Message: Clone + Traced;
    /// What the driver asks of a node.
    type Command: Traced;
    /// Work for the disk thread: it runs after a simulated time, a crash may fall before it.
    type Job: Debug;
    /// What became of that work.
    type Done;
    /// What a node reports to the driver and its checkers; no node ever sees it.
    type Observation;

    /// Starts the process. [`Input::Started`] follows at once.
    fn start(spec: &Self::Spec, boot: Boot) -> Self;

    /// Runs work for the disk thread, on the disk and nothing else.
    fn run(job: Self::Job) -> Self::Done;

    /// Who does a job, for disks that do so much in a second.
    fn threads(job: &Self::Job) -> Threads {
        let _ = job;
        Threads::Flush(None, Place::Behind)
    }

    /// How many bytes a job reads or makes durable, for disks that do so many in a second.
    fn bytes(job: &Self::Job) -> u64 {
        let _ = job;
        0
    }

    /// Takes one input and appends what should happen, in order.
    fn step(&mut self, now: NodeTime, input: Input<Self>, outputs: &mut Vec<Output<Self>>);
}

/// What a program is told.
#[derive(Debug)]
pub enum Input<P: Program> {
    /// The process has just started.
    Started,
    /// A message came.
    Message {
        /// From whom.
        from: NodeIndex,
        /// Over which link.
        link: Link,
        /// What.
        message: P::Message,
    },
    /// A timer is due.
    Timer(TimerId),
    /// A disk thread has finished.
    Done {
        /// What came of it.
        done: P::Done,
        /// How long the job waited until its turn came, in true time.
        waited: u64,
        /// How long it was done from then on.
        took: u64,
    },
    /// The driver asks for something.
    Command(P::Command),
}

/// What a program wants.
#[derive(Debug)]
pub enum Output<P: Program> {
    /// Send a message; over another link if this one does not join the two sites.
    Send {
        /// To whom.
        to: NodeIndex,
        /// Over which link.
        link: Link,
        /// Its length on the wire.
        size: u64,
        /// What.
        message: P::Message,
    },
    /// Wake me when my boot clock reads this, or at once if it does already.
    SetTimer {
        /// Which timer.
        timer: TimerId,
        /// Nanoseconds on the node's own boot clock.
        at_boot: u64,
    },
    /// Do not wake me.
    CancelTimer(TimerId),
    /// Give this to the disk thread.
    Work(P::Job),
    /// What the disk threads have of this volume, and have not begun, goes in front.
    Hurry(VolumeId),
    /// The process ends itself; only a restart brings it back.
    Exit,
    /// Tells the driver something.
    Observe(P::Observation),
    /// Names a moment, for fault plans that wait for it.
    Mark(&'static str),
}

/// What a driver may look at: everything.
#[derive(Debug)]
pub struct View<'a, P: Program> {
    /// True time.
    pub now: u64,
    /// Every node, in order of its index.
    pub nodes: &'a [Node<P>],
    /// The network.
    pub network: &'a Network,
}

/// Commands that a driver wants given to nodes, and when.
#[derive(Debug)]
pub struct Agenda<P: Program> {
    pub(super) commands: Vec<(u64, NodeIndex, P::Command)>,
}

impl<P: Program> Agenda<P> {
    /// Gives a command to a node at a moment of true time.
    pub fn command(&mut self, at: u64, node: NodeIndex, command: P::Command) {
        self.commands.push((at, node, command));
    }
}

/// Makes the workload and feeds the checkers. It changes nothing but through its agenda.
pub trait Driver<P: Program> {
    /// A node reported something.
    fn observe(&mut self, view: &View<'_, P>, node: NodeIndex, seen: P::Observation, agenda: &mut Agenda<P>);

    /// A fault strikes, or is taken away.
    fn struck(&mut self, _now: u64, _action: &Action) {}

    /// A node has taken a step, started or died: the moment to look into its state.
    fn stepped(&mut self, _view: &View<'_, P>, _node: NodeIndex) {}
}
