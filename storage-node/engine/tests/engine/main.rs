//! The engine from outside: on real files, and on a disk that fails.

mod disks;
mod fixture;
mod index;
mod log;
mod recovery;
