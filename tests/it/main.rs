//! Integration tests: house rules, and real processes on real disks.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests watch real processes on real clocks"
)]

mod cluster;
mod crashes;
mod erasure;
mod intruders;
mod ledger;
mod program;
mod secrets;
mod servers;
mod storing;
mod tidy;
mod traces;
mod turn;
