//! R88: once their holders are dropped, no key bytes are left on the heap.
//!
//! The test reads its own memory through `/proc/self/mem` and looks for keys that it never writes down in the clear.
//! It is alone in its process. Stacks are not searched: what passes through a register may be spilled there.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::unix::fs::FileExt;

use trefoil_client::entropy::Entropy;
use trefoil_client::seal::{
    Attempts, ChunkLen, Metadata, ObjectIdentity, Opener, Sealer, TenantKey, WrapBlock, WrapCounter,
};
use trefoil_client::secret::Secret;
use trefoil_protocol::ids::{TenantId, VersionId};

/// Byte `at` of marker `number`: computed each time, so that only the secrets under test hold them in a row.
fn marker(number: u8, at: usize) -> u8 {
    (at as u8).wrapping_mul(number.wrapping_mul(46) | 1).wrapping_add(std::hint::black_box(number)) ^ 0x5C
}

const TENANT_KEY: u8 = 1;
const DATA_KEY: u8 = 2;

/// Gives a public salt first and a known data key second.
struct Planted(u8);

impl Entropy for Planted {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0 += 1;
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = if self.0 == 2 { marker(DATA_KEY, at) } else { 0x11 };
        }
    }
}

/// Where the part of a marker begins that is looked for: an allocator writes over the first half of what is freed.
const SOUGHT: std::ops::Range<usize> = 16..32;

/// How often the marker lies in this process's writable memory outside its stacks.
fn sightings(number: u8) -> usize {
    let here = 0_u8;
    let stack_at = std::ptr::from_ref(&here).addr() as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux lists its maps");
    let memory = File::open("/proc/self/mem").expect("a process may read its own memory");
    let mut piece = vec![0; 1 << 16];
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw") && !line.contains("[stack]")) {
        let (start, rest) = line.split_once('-').expect("a map has a range");
        let end = rest.split(' ').next().expect("a range ends");
        let parse = |hex| u64::from_str_radix(hex, 16).expect("addresses are hexadecimal");
        let region = parse(start)..parse(end);
        if region.contains(&stack_at) {
            continue;
        }
        // Pieces overlap by what is sought less one byte, so that nothing falls between two.
        for at in region.clone().step_by(piece.len() - (SOUGHT.len() - 1)) {
            let len = piece.len().min((region.end - at) as usize);
            let Ok(len) = memory.read_at(&mut piece[..len], at) else { break };
            let is_marker =
                |window: &[u8]| window.iter().zip(SOUGHT).all(|(byte, at)| *byte == marker(number, at));
            found += piece[..len].windows(SOUGHT.len()).filter(|window| is_marker(window)).count();
            piece.fill(0);
        }
    }
    found
}

fn planted_key() -> TenantKey {
    let key = Secret::filled_by(|key| {
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = marker(TENANT_KEY, at);
        }
    });
    TenantKey::new(TenantId(7), 1, key)
}

#[test]
fn r088_no_key_is_left_on_the_heap_after_its_holders_are_dropped() {
    assert_eq!((sightings(TENANT_KEY), sightings(DATA_KEY)), (0, 0));
    let key = planted_key();
    let object = ObjectIdentity { tenant: TenantId(7), name: [1; 32], version: VersionId([2; 16]) };
    let attempt = Attempts::new(object).begin(&mut Planted(0));
    assert!(sightings(TENANT_KEY) > 0 && sightings(DATA_KEY) > 0, "the search finds keys in use");

    let block = WrapBlock { key_version: 1, instance: 1, start: 0, end: 9 };
    let mut counter = WrapCounter::new(block).expect("a sound block");
    let begun = Sealer::begin(attempt, &key, &mut counter, ChunkLen::MIN).expect("counters are left");
    let identity = begun.sealer.identity();
    let (mut sealer, mut rest) = (begun.sealer, &[9; 3000][..]);
    let mut sealed = begun.header.to_vec();
    while !rest.is_empty() {
        sealed.extend(sealer.push(&mut rest).expect("few chunks").iter().flatten());
    }
    let end = sealer.finish();
    sealed.extend_from_slice(&end.last);
    let metadata = Metadata { plaintext_len: 3000, created_ms: 0, user: [].into() };
    let metadata = end.metadata.seal(&metadata).expect("short metadata");

    let dek = begun.wrapped.unwrap(&key, &identity).expect("the right key");
    metadata.open(&dek, &identity).expect("the right key");
    let mut opener = Opener::new(dek, identity);
    let mut rest = &sealed[..];
    while !rest.is_empty() {
        opener.push(&mut rest).expect("what was sealed opens");
    }
    opener.finish().expect("what was sealed opens");
    drop(key);
    assert_eq!((sightings(TENANT_KEY), sightings(DATA_KEY)), (0, 0));
}
