//! The deterministic cluster simulator: virtual time, a network and disks that fail, and checkers
//! that see everything. It runs the production state machines and the production disk engine; one
//! seed is one byte-identical run.
//!
//! Nothing here may read a system clock, draw system randomness, start a thread, or let an
//! unordered map decide an order.

pub mod checkers;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod faults;
pub mod history;
pub mod kernel;
pub mod model;
pub mod network;
pub mod product;
pub mod random;
pub mod trace;
pub mod workload;
