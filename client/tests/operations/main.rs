//! The client's operations over real QUIC, against nodes that keep everything in memory and fail on
//! command.

#![cfg(feature = "shell")]

mod faults;
mod round_trips;
mod stale;
mod world;

use world::World;
