//! Integration tests: house rules, and real processes on real disks.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests watch real processes on real clocks"
)]

mod cluster;
mod command_line;
mod council;
mod crashes;
mod deletes;
mod demo;
mod drills;
mod growth;
mod handover;
mod intruders;
mod joint;
mod key_bag;
mod ledger;
mod links;
mod losses;
mod outside;
mod places;
mod program;
mod restore;
mod scale;
mod secrets;
mod servers;
mod sites;
mod storing;
mod streaming;
mod tenants;
mod tidy;
mod traces;
mod weather;
