//! The index: what one committed put costs it, and what a lookup does.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use trefoil_engine::Index;
use trefoil_protocol::ids::{Hash, Lsn};
use trefoil_protocol::record::Record;

use crate::records;

const OBJECTS: u64 = 10_000;

fn log() -> Vec<Record> {
    let payload = Bytes::from_static(&[1; 64]);
    let mut previous = Hash::ZERO;
    let mut record_behind = |number: u64| {
        let record = records::put(number, Lsn(number), previous, &payload);
        previous = record.chain_hash();
        record
    };
    (0..OBJECTS).map(&mut record_behind).collect()
}

fn filled(log: &[Record]) -> Index {
    let mut index = Index::default();
    for record in log {
        index.apply(record);
    }
    index
}

pub(crate) fn insert_and_look_up(c: &mut Criterion) {
    let log = log();
    let mut group = c.benchmark_group("index");
    group.sample_size(20).throughput(Throughput::Elements(OBJECTS));
    group.bench_function("apply 10000 puts", |b| {
        b.iter_batched(|| (), |()| filled(&log), BatchSize::PerIteration);
    });
    let index = filled(&log);
    let mut number = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("look one of 10000 up", |b| {
        b.iter(|| {
            number = (number + 7919) % OBJECTS;
            black_box(index.latest(&records::key(number)).expect("it is there"))
        });
    });
    group.finish();
}
