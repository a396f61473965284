//! Measures sealing, opening and the integrity tree on one core: `cargo run --release --example seal_throughput`.
//!
//! Each figure is the best of a few rounds, so that a busy machine disturbs it little. It proves nothing; it shows
//! where a client's time goes.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use trefoil_client::entropy::Entropy;
use trefoil_client::seal::{
    Attempts, ChunkLen, ObjectIdentity, Opener, Sealer, TenantKey, WrapBlock, WrapCounter,
};
use trefoil_client::secret::Secret;
use trefoil_protocol::ids::{TenantId, VersionId};
use trefoil_protocol::tree::TreeBuilder;

const OBJECT_LEN: usize = 64 << 20;
const ROUNDS: usize = 7;

struct Counting(u64);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0 += 1;
        bytes.fill(self.0 as u8);
    }
}

fn main() {
    let key = TenantKey::new(TenantId(1), 1, Secret::copy_of(&[1; 32]));
    let object = ObjectIdentity { tenant: TenantId(1), name: [2; 32], version: VersionId([3; 16]) };
    let mut attempts = Attempts::new(object);
    let block = WrapBlock { key_version: 1, instance: 1, start: 0, end: 1000 };
    let mut counter = WrapCounter::new(block).expect("a sound block");
    let plaintext = vec![0xA5; OBJECT_LEN];
    let mut sealed = Vec::with_capacity(OBJECT_LEN + OBJECT_LEN / 1000);
    let [mut seal_best, mut open_best, mut tree_best] = [Duration::MAX; 3];
    for _ in 0..ROUNDS {
        sealed.clear();
        let begun = Sealer::begin(attempts.begin(&mut Counting(0)), &key, &mut counter, ChunkLen::DEFAULT)
            .expect("counters are left");
        let (identity, mut sealer) = (begun.sealer.identity(), begun.sealer);
        sealed.extend_from_slice(&begun.header);
        let (mut rest, mut busy, mut started) = (&plaintext[..], Duration::ZERO, Instant::now());
        while !rest.is_empty() {
            if let Some(chunk) = sealer.push(&mut rest).expect("few chunks") {
                busy += started.elapsed();
                sealed.extend_from_slice(&chunk);
                drop(chunk);
                started = Instant::now();
            }
        }
        let end = sealer.finish();
        busy += started.elapsed();
        sealed.extend_from_slice(&end.last);
        seal_best = seal_best.min(busy);

        let dek = begun.wrapped.unwrap(&key, &identity).expect("the right key");
        let (mut opener, mut rest, started) = (Opener::new(dek, identity), &sealed[..], Instant::now());
        while !rest.is_empty() {
            black_box(opener.push(&mut rest).expect("what was sealed opens"));
        }
        black_box(opener.finish().expect("what was sealed opens"));
        open_best = open_best.min(started.elapsed());

        let (mut builder, mut leaves, started) = (TreeBuilder::new(), Vec::new(), Instant::now());
        sealed
            .chunks(ChunkLen::DEFAULT.get() as usize + 16)
            .for_each(|chunk| builder.push(chunk, &mut leaves));
        black_box(builder.finish());
        tree_best = tree_best.min(started.elapsed());
    }
    for (what, best) in [("seal", seal_best), ("open", open_best), ("tree", tree_best)] {
        println!("{what}: {:.2} GB/s", OBJECT_LEN as f64 / best.as_secs_f64() / 1e9);
    }
}
