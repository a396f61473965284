//! One volume on one store: the protocols that replicate, read, backfill and erase it. Each owns its
//! state in its own file; [`replica`] only says which of them is at work.

mod arrears;
pub mod backfill;
pub mod batches;
mod by_store;
pub mod calls;
mod emptied;
pub mod erasing;
pub mod exposure;
mod handover;
pub mod holding;
pub mod keys;
pub mod member;
mod mending;
mod messages;
pub mod mutations;
pub mod orphans;
mod owing;
pub mod peering;
pub mod primary;
pub mod purge;
pub mod reads;
pub mod replaying;
pub mod replica;
pub mod rotation;
mod stale;
pub mod telling;
pub mod turns;
pub mod uploads;
