//! The storage node's core, several of them together, on disks in memory.
