//! The deterministic cluster simulator: virtual time, a network and disks that fail, and checkers
//! that see everything. It runs the production state machines and the production disk engine; one
//! seed is one byte-identical run.
//!
//! No run may read a system clock, draw system randomness, start a thread, or let an unordered map
//! decide an order. Runs that have nothing to do with each other go on side by side.

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
pub mod side_by_side;
pub mod trace;
pub mod workload;
