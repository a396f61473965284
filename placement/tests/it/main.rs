//! What the control plane promises, one file per concern. Everything here drives the public facade
//! with an in-memory log, a clock that the test moves, and storage nodes that are only as clever as
//! their messages.

mod at_risk;
mod cluster;
mod configurations;
mod council;
mod deletes;
mod hysteresis;
mod joint;
mod last_replica;
mod leaderless;
mod leases;
mod log;
mod losses;
mod membership;
mod owing;
mod plans;
mod registration;
mod restore;
#[cfg(feature = "shell")]
mod shell;
mod slow;
mod storm;
mod takeover;
mod tenants;
mod voters;
