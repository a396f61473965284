//! The engine from outside: on real files, and on a disk that fails.

mod bag;
mod create;
mod disks;
mod erase;
mod files;
mod fixture;
mod hostile;
mod index;
mod log;
mod model;
mod recovery;
mod scrub;
