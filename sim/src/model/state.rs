//! What the model knows at one moment: the control plane's register, each node with its store, and
//! what was promised to clients.

use super::record::Log;
use super::{Mutation, OBJECTS};

/// Epochs go up to here.
pub const EPOCHS_MAX: usize = 7;

/// A rule of acknowledging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Protection {
    /// A copy in each data centre.
    #[default]
    BothDcs,
    /// Two copies anywhere.
    SingleDc,
    /// As `BothDcs`; until its first record is committed it is not proven.
    Restoring,
}

/// Members of one epoch, as sets of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Config {
    /// Without them nothing is acknowledged.
    pub(crate) in_sync: u8,
    /// They get everything and are waited for only if the rule needs them.
    pub(crate) catching_up: u8,
    /// Who orders.
    pub(crate) primary: u8,
    /// The rule.
    pub(crate) protection: Protection,
}

impl Config {
    /// All members.
    #[must_use]
    pub(crate) fn members(self) -> u8 {
        self.in_sync | self.catching_up
    }
}

/// The control plane: one register, changed one step at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Control {
    /// The configuration of each epoch that somebody still knows.
    pub(crate) configs: [Config; EPOCHS_MAX + 1],
    /// The present one.
    pub(crate) epoch: u8,
    /// Whether it may acknowledge.
    pub(crate) activated: bool,
    /// Who was in sync when an epoch was last activated: nobody else may lead.
    pub(crate) complete: u8,
    /// Who was primary since then.
    pub(crate) led: u8,
    /// Who was in sync since then.
    pub(crate) served: u8,
    /// Who may hold any byte.
    pub(crate) ever_held: u8,
    /// Who never joins again.
    pub(crate) fenced: u8,
    /// The tombstone that an order was given for, of each object.
    pub(crate) orders: [u8; OBJECTS],
    /// Receipts that were signed, of each object.
    pub(crate) receipts: [u8; OBJECTS],
}

impl Control {
    /// The present configuration.
    #[must_use]
    pub(crate) fn config(&self) -> Config {
        self.configs[usize::from(self.epoch)]
    }

    /// Who may still serve in a role that the present configuration does not give it.
    #[must_use]
    pub(crate) fn leavers(&self) -> u8 {
        let config = self.config();
        self.led & !(1 << config.primary) | self.served & !config.in_sync
    }
}

/// How far a node is as primary of the epoch that it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// It has not begun, or is not the primary.
    #[default]
    None,
    /// The log is chosen; members are being brought up to it.
    Peered,
    /// The epoch is activated.
    Active,
    /// Its process began anew: it needs another epoch.
    Forgotten,
}

/// A node and its store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    /// What is durable.
    pub(crate) log: Log,
    /// Records known to be committed.
    pub(crate) committed: u8,
    /// The epoch that it promised and whose configuration it has adopted.
    pub(crate) known: u8,
    /// Its lease goes on, and covers that configuration.
    pub(crate) lease: bool,
    /// As primary.
    pub(crate) role: Role,
    /// As primary: how many records there were when its epoch began.
    pub(crate) start: u8,
    /// As primary: what each member acknowledged.
    pub(crate) acked: [u8; 4],
    /// Objects whose bytes are on the disk.
    pub(crate) holds: u8,
    /// The process is there.
    pub(crate) up: bool,
    /// It stands still.
    pub(crate) suspended: bool,
    /// The disk is gone for ever.
    pub(crate) lost: bool,
}

impl Node {
    /// Whether it does anything at all.
    #[must_use]
    pub(crate) fn runs(&self) -> bool {
        self.up && !self.suspended && !self.lost
    }

    /// Whether it would answer "latest" now.
    #[must_use]
    pub(crate) fn answers(&self) -> bool {
        self.runs() && self.lease && self.role == Role::Active && self.committed >= self.start
    }

    /// The log as far as it is known to be committed.
    #[must_use]
    pub(crate) fn applied(&self) -> Log {
        self.log.prefix(usize::from(self.committed))
    }
}

/// Which data centres hear each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Cut {
    /// All do.
    #[default]
    None,
    /// Neither the other one nor the control plane hears this one.
    Isolated(u8),
    /// Both hear the control plane and not each other.
    Between,
}

/// One moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State<const N: usize> {
    /// Nodes 0 and 1 are in data centre A, the others in B.
    pub(crate) nodes: [Node; N],
    /// The control plane.
    pub(crate) control: Control,
    /// Steps that were acknowledged, of each object: what clients rely on.
    pub(crate) acknowledged: [u8; OBJECTS],
    /// The network.
    pub(crate) cut: Cut,
    /// Failures that may still come.
    pub(crate) failures: u8,
    /// Primaries that may still be suspended.
    pub(crate) stale: u8,
    /// The invariant that the last step broke.
    pub(crate) broken: Option<Broken>,
}

/// An invariant that a step breaks, rather than a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// Two committed histories part.
    History,
    /// Acknowledged with too few copies.
    Copies,
    /// A live object was purged or a purged one undeleted.
    BothWon,
}

/// The data centre of a node.
#[must_use]
pub(crate) fn dc(node: usize) -> u8 {
    u8::from(node >= 2)
}

/// Whether a set of nodes is in both data centres.
#[must_use]
pub(crate) fn in_both(set: u8) -> bool {
    set & 3 != 0 && set & !3 != 0
}

/// Whether a node is in a set.
#[must_use]
pub(crate) fn has(set: u8, node: usize) -> bool {
    set >> node & 1 == 1
}

/// The nodes of a set.
pub(crate) fn each(set: u8) -> impl Iterator<Item = usize> {
    (0..8).filter(move |node| has(set, *node))
}

impl<const N: usize> State<N> {
    /// Two members in A and one in B, in an epoch that works; a fourth store is spare.
    #[must_use]
    pub(crate) fn initial(failures: u8, stale: u8) -> Self {
        let members = 7;
        let config = Config { in_sync: members, ..Config::default() };
        let mut control = Control {
            epoch: 1,
            activated: true,
            complete: members,
            led: 1,
            served: members,
            ever_held: members,
            ..Control::default()
        };
        control.configs[1] = config;
        let mut nodes = [Node { up: true, ..Node::default() }; N];
        for node in &mut nodes[..3] {
            (node.known, node.lease) = (1, true);
        }
        nodes[0].role = Role::Active;
        Self { nodes, control, acknowledged: [0; OBJECTS], cut: Cut::None, failures, stale, broken: None }
    }

    /// Whether the control plane hears a node.
    #[must_use]
    pub(crate) fn is_heard(&self, node: usize) -> bool {
        self.nodes[node].runs() && self.cut != Cut::Isolated(dc(node))
    }

    /// Whether two nodes hear each other.
    #[must_use]
    pub(crate) fn are_linked(&self, one: usize, other: usize) -> bool {
        let both = self.nodes[one].runs() && self.nodes[other].runs();
        both && (dc(one) == dc(other) || self.cut == Cut::None)
    }

    /// What a node takes for the configuration.
    #[must_use]
    pub(crate) fn config_of(&self, node: usize) -> Config {
        self.control.configs[usize::from(self.nodes[node].known)]
    }

    /// Whether a node is the primary of the epoch that it knows.
    #[must_use]
    pub(crate) fn leads(&self, node: usize) -> bool {
        self.nodes[node].known > 0 && usize::from(self.config_of(node).primary) == node
    }

    /// Forgets configurations that nobody knows any more, so that equal states are equal.
    pub(crate) fn tidy(&mut self) {
        for epoch in 1..self.control.epoch {
            if !self.nodes.iter().any(|node| node.known == epoch) {
                self.control.configs[usize::from(epoch)] = Config::default();
            }
        }
    }
}

/// What is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Three or four stores.
    pub stores: usize,
    /// Crashes, lost disks and cuts.
    pub failures: u8,
    /// Primaries that are suspended and continued.
    pub stale: u8,
    /// No epoch above this one begins.
    pub epochs: u8,
    /// How many of the objects may be deleted.
    pub deletes: usize,
    /// How many of the objects may be purged.
    pub purges: usize,
    /// How many of the objects may be undeleted and deleted again.
    pub undeletes: usize,
    /// The guard that is taken away.
    pub mutation: Option<Mutation>,
}

impl Bounds {
    /// Whether this guard is taken away.
    #[must_use]
    pub(super) fn lacks(&self, guard: Mutation) -> bool {
        self.mutation == Some(guard)
    }
}
