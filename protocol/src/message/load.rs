//! How much a node has to do, in its own words. For operators only; nothing is decided by it.

use minicbor::{Decode, Encode};

/// What clients ask of a node, and what it cannot take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct NodeLoad {
    /// Clients' requests under way.
    #[n(0)]
    pub under_way: u32,
    /// How many may be under way now.
    #[n(1)]
    pub room: u32,
    /// Requests refused in this run because there was too much.
    #[n(2)]
    pub refused: u64,
    /// Work dropped in this run because its client did not listen any more when its turn came.
    #[n(3)]
    pub late: u64,
    /// Bytes read or written in this run for repair, backfill and scrub.
    #[n(4)]
    pub repaired: u64,
    /// How many of these by force, because the debt of a data centre was overdue.
    #[n(5)]
    pub forced: u64,
    /// How often such work was put off in this run because clients had work.
    #[n(6)]
    pub put_off: u64,
}
