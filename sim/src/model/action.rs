//! One step of the model, and how it is told.

use std::fmt::Write as _;

use super::record::{self, step};
use super::state::{Config, Protection, State, each, has};
use super::{node, object};

/// A step. Nodes and objects by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A node renews and adopts the present configuration.
    Renew(usize),
    /// A primary takes the best log of its in-sync members, which is the second one's.
    ChooseLog(usize, usize),
    /// The first one brings the second one up to its log.
    Replicate(usize, usize),
    /// A primary's committed point moves to this length.
    Commit(usize, u8),
    /// A primary appends this step of an object.
    Order(usize, usize, u8),
    /// A store erases an object and signs a receipt.
    Erase(usize, usize),
    /// The control plane commits another configuration.
    Change,
    /// It activates the present one.
    Activate,
    /// It permits the purge of an object.
    GiveOrder(usize),
    /// It gives a lost store up for ever.
    Fence(usize),
    /// A spare store wipes what it held.
    Retire(usize),
    /// A process ends.
    Crash(usize),
    /// It begins anew.
    Restart(usize),
    /// A disk is gone.
    LoseDisk(usize),
    /// A primary stands still.
    Suspend(usize),
    /// It goes on.
    Resume(usize),
    /// The lease of a node that was left behind is over.
    LeaseOver(usize),
    /// A data centre hears nobody outside.
    Isolate(u8),
    /// The data centres do not hear each other.
    Separate,
    /// All hear each other again.
    Heal,
}

impl Action {
    /// A sentence; `after` is the state that it led to.
    #[must_use]
    pub(crate) fn tell<const N: usize>(self, after: &State<N>) -> String {
        match self {
            Self::Renew(n) => format!("{} adopts and promises epoch {}", node(n), after.nodes[n].known),
            Self::ChooseLog(n, from) => format!(
                "{} has every in-sync member's promise of epoch {} and goes on with the log of {} ({})",
                node(n),
                after.nodes[n].known,
                node(from),
                history(after, n)
            ),
            Self::Replicate(from, to) => format!(
                "{} takes the log of {} as of epoch {} and acknowledges it ({})",
                node(to),
                node(from),
                after.nodes[from].known,
                history(after, to)
            ),
            Self::Commit(n, length) => {
                let last = after.nodes[n].log.prefix(usize::from(length)).records().last();
                let last = last.map_or_else(String::new, |record| record.to_string());
                format!("{} commits up to record {length}, {last}", node(n))
            }
            Self::Order(n, of, step) => {
                let epoch = after.nodes[n].known;
                format!("{} orders in epoch {epoch}: {} of {}", node(n), record::name(step), object(of))
            }
            Self::Erase(n, of) => format!("{} erases {} and signs a receipt", node(n), object(of)),
            Self::Change => {
                format!("control plane: epoch {} is {}", after.control.epoch, shape(after.control.config()))
            }
            Self::Activate => format!("control plane: epoch {} is activated", after.control.epoch),
            Self::GiveOrder(of) => {
                let second = after.control.orders[of] & step::DELETE_AGAIN != 0;
                let which = if second { "second" } else { "first" };
                format!("control plane: signs an order for the {which} tombstone of {}", object(of))
            }
            Self::Fence(n) => format!("control plane: {} is fenced for ever", node(n)),
            Self::Retire(n) => format!("{} is spare, and wipes what it held", node(n)),
            Self::Crash(n) => format!("FAILURE: the process of {} ends", node(n)),
            Self::Restart(n) => format!("{} begins anew", node(n)),
            Self::LoseDisk(n) => format!("FAILURE: the disk of {} is lost", node(n)),
            Self::Suspend(n) => format!("STALE: {} stands still, its lease goes on", node(n)),
            Self::Resume(n) => format!("{} goes on where it stood", node(n)),
            Self::LeaseOver(n) => format!("the lease of {} is over", node(n)),
            Self::Isolate(dc) => {
                format!("FAILURE: data centre {} is cut off", if dc == 0 { "A" } else { "B" })
            }
            Self::Separate => "FAILURE: the data centres do not hear each other".to_owned(),
            Self::Heal => "all hear each other again".to_owned(),
        }
    }
}

/// Members with `*` at the primary and `+` at who catches up.
fn shape(config: Config) -> String {
    let mut text = String::from("{");
    for n in each(config.members()) {
        let mark = match (usize::from(config.primary) == n, has(config.catching_up, n)) {
            (true, _) => "*",
            (_, true) => "+",
            _ => "",
        };
        let gap = if text.len() > 1 { " " } else { "" };
        write!(text, "{gap}{}{mark}", node(n)).expect("a string takes more");
    }
    let rule = match config.protection {
        Protection::BothDcs => "BothDcs",
        Protection::SingleDc => "SingleDc",
        Protection::Restoring => "Restoring",
    };
    text + "} " + rule
}

/// How far a log goes.
fn history<const N: usize>(state: &State<N>, n: usize) -> String {
    let log = state.nodes[n].log;
    match log.records().last() {
        None => "no record".to_owned(),
        Some(last) => format!("{} records, the last is {last}", log.len()),
    }
}
