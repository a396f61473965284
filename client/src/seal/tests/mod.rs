//! What sealing must hold, one requirement per file; here are the keys and objects that they share.
//!
//! Randomness is seeded: a failing case fails again.

use bytes::Bytes;
use trefoil_protocol::ids::{TenantId, VersionId};

use super::*;
use crate::entropy::Entropy;
use crate::secret::Secret;

mod memory;
mod nonces;
mod streams;
mod swaps;
mod vectors;
mod wrong_keys;

/// A blake3 stream: reproducible, and different for every seed.
struct Seeded(blake3::OutputReader);

impl Seeded {
    fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

fn object(tenant: u64, name: u8, version: u8) -> ObjectIdentity {
    ObjectIdentity { tenant: TenantId(tenant), name: [name; 32], version: VersionId([version; 16]) }
}

fn tenant_key(tenant: u64, version: u32) -> TenantKey {
    let key = blake3::hash(&[tenant.to_le_bytes(), u64::from(version).to_le_bytes()].concat());
    TenantKey::new(TenantId(tenant), version, Secret::copy_of(key.as_bytes()))
}

fn counter(key_version: u32, start: u64) -> WrapCounter {
    WrapCounter::new(WrapBlock { key_version, instance: 1, start, end: start + 1_000_000 }).unwrap()
}

/// A whole sealed object, cut where its parts meet.
#[derive(Clone)]
struct Sealed {
    identity: Identity,
    wrapped: WrappedDek,
    header: Bytes,
    chunks: Vec<Bytes>,
    metadata: SealedMetadata,
}

impl Sealed {
    fn bytes(&self) -> Vec<u8> {
        [&self.header[..], &self.chunks.concat()].concat()
    }

    fn dek(&self, key: &TenantKey) -> Dek {
        self.wrapped.unwrap(key, &self.identity).unwrap()
    }

    fn open(&self, key: &TenantKey) -> Result<Vec<u8>, Refused> {
        let dek = self.wrapped.unwrap(key, &self.identity)?;
        Ok(open_stream(Opener::new(dek, self.identity), &self.bytes(), 1 << 20)?)
    }
}

/// Whichever step refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Unwrap(#[from] UnwrapError),
    #[error(transparent)]
    Open(#[from] OpenError),
}

fn seal_attempt(
    attempt: Attempt,
    key: &TenantKey,
    counter: &mut WrapCounter,
    plaintext: &[u8],
    chunk_len: ChunkLen,
) -> Sealed {
    let identity = attempt.identity();
    let Begun { mut sealer, header, wrapped } = Sealer::begin(attempt, key, counter, chunk_len).unwrap();
    let mut chunks = Vec::new();
    let mut rest = plaintext;
    while !rest.is_empty() {
        chunks.extend(sealer.push(&mut rest).unwrap());
    }
    let end = sealer.finish();
    chunks.push(end.last);
    assert_eq!(end.plaintext_len, plaintext.len() as u64);
    let sealed_bytes = header.len() + chunks.iter().map(Bytes::len).sum::<usize>();
    assert_eq!(end.sealed_len, sealed_bytes as u64);
    let metadata =
        Metadata { plaintext_len: end.plaintext_len, created_ms: 1_700_000_000_000, user: user_pairs() };
    Sealed { identity, wrapped, header, chunks, metadata: end.metadata.seal(&metadata).unwrap() }
}

fn user_pairs() -> std::collections::BTreeMap<String, String> {
    [("content-type", "text/plain"), ("colour", "grün")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

/// Seals `plaintext` for `object` under key version 1 in chunks of 1 KiB.
fn seal(object: ObjectIdentity, plaintext: &[u8], seed: u64) -> Sealed {
    let attempt = Attempts::new(object).begin(&mut Seeded::new(seed));
    let key = tenant_key(object.tenant.0, 1);
    seal_attempt(attempt, &key, &mut counter(1, seed * 10), plaintext, ChunkLen::MIN)
}

fn open_stream(mut opener: Opener, sealed: &[u8], step: usize) -> Result<Vec<u8>, OpenError> {
    let mut plaintext = Vec::new();
    for mut piece in sealed.chunks(step) {
        while !piece.is_empty() {
            plaintext.extend(opener.push(&mut piece)?.iter().flatten());
        }
    }
    plaintext.extend_from_slice(&opener.finish()?);
    Ok(plaintext)
}
