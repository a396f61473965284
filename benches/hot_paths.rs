//! Criterion benches of what every request pays: sealing, staging and syncing, the index, recovery,
//! and a put and a get through a whole cluster on this machine. `cargo bench` measures; `cargo test`
//! runs each once, so that they cannot rot.
//!
//! Ratios within one run mean something; absolute times are this machine's on that day.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock and starts processes")]
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

mod cluster;
mod disk;
mod index;
mod records;
mod scratch;
mod sealing;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    benches,
    sealing::seal,
    disk::append_and_sync,
    disk::recovery,
    index::insert_and_look_up,
    cluster::put_and_get
);
criterion_main!(benches);
