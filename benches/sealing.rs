//! Sealing and the integrity tree: what a client pays per byte before anything is sent.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use trefoil_client::entropy::Entropy;
use trefoil_client::seal::{Attempts, ChunkLen, ObjectIdentity, Sealer, TenantKey, WrapBlock, WrapCounter};
use trefoil_client::secret::Secret;
use trefoil_protocol::ids::{TenantId, VersionId};
use trefoil_protocol::tree::TreeBuilder;

const OBJECT_BYTES: usize = 1 << 20;

/// Any bytes do: nothing here is secret.
struct Counting(u64);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0 += 1;
        for (byte, n) in bytes.iter_mut().zip(self.0.to_le_bytes().into_iter().cycle()) {
            *byte = n;
        }
    }
}

pub(crate) fn seal(c: &mut Criterion) {
    let key = TenantKey::new(TenantId(1), 1, Secret::copy_of(&[1; 32]));
    let object = ObjectIdentity { tenant: TenantId(1), name: [2; 32], version: VersionId([3; 16]) };
    let mut attempts = Attempts::new(object);
    let mut entropy = Counting(0);
    let mut instance = 0;
    let plaintext = vec![0xA5; OBJECT_BYTES];
    let mut group = c.benchmark_group("seal");
    group.sample_size(20).throughput(Throughput::Bytes(OBJECT_BYTES as u64));
    group.bench_function("an object of 1 MiB, key wrap included", |b| {
        b.iter(|| {
            instance += 1;
            let block = WrapBlock { key_version: 1, instance, start: 0, end: 1 };
            let mut counter = WrapCounter::new(block).expect("a sound block");
            let attempt = attempts.begin(&mut entropy);
            let begun =
                Sealer::begin(attempt, &key, &mut counter, ChunkLen::DEFAULT).expect("a counter is left");
            let mut sealer = begun.sealer;
            let mut rest = &plaintext[..];
            while !rest.is_empty() {
                black_box(sealer.push(&mut rest).expect("few chunks"));
            }
            black_box(sealer.finish().last)
        });
    });
    group.bench_function("the integrity tree over 1 MiB", |b| {
        b.iter_batched(
            || (TreeBuilder::new(), Vec::with_capacity(32)),
            |(mut tree, mut leaves)| {
                tree.push(&plaintext, &mut leaves);
                black_box(tree.finish())
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}
