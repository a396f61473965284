//! The storage node's core, several of them together, on disks in memory.

mod backfill;
mod bag;
mod cluster;
mod damage;
mod exposure;
mod failover;
mod handover;
mod orders;
mod owing;
mod placement;
mod probing;
mod purging;
mod replaying;
mod replication;
mod scrubbing;
mod segregation;
mod separation;
mod stale;
mod suspect;
mod telling;
