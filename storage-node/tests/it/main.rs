//! The storage node's core, several of them together, on disks in memory.

mod cluster;
mod orders;
mod placement;
mod replication;
