//! A client's keys, as the custodian gave them, and what they do: sealing an object before it
//! leaves, opening it when it comes back.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use trefoil_client::seal::{
    Attempts, ChunkLen, Identity, Metadata, NameKey, ObjectIdentity, Opener, SealedMetadata, Sealer,
    TenantKey, WrapBlock, WrapCounter, WrappedDek, name_hash, name_tag,
};
use trefoil_client::secret::Secret;
use trefoil_protocol::ids::{Hash, NameTag, TenantId, UploadId, VersionId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{KeysView, ObjectView, UploadEnd};
use trefoil_storage_node::VerifiedPrincipal;

use crate::product::process::fill;
use crate::random::Draws;

/// A tenant's keys in a client's memory.
pub struct Keys {
    tenant: TenantId,
    names: NameKey,
    key: TenantKey,
    /// The same key again, for the attack of [`Keys::would_open`].
    bytes: Secret<32>,
    counter: WrapCounter,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Keys(tenant {})", self.tenant)
    }
}

/// An object, sealed.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) upload: UploadId,
    pub(super) bytes: Bytes,
    pub(super) wrapped: Bytes,
    pub(super) kek_version: u32,
    pub(super) end: UploadEnd,
    pub(super) name_tag: NameTag,
}

impl Keys {
    /// Takes the custodian's answer; what was left of an earlier block of counters is dropped.
    pub(super) fn take(
        before: Option<Self>,
        principal: Option<VerifiedPrincipal>,
        view: &KeysView,
    ) -> Result<Self, String> {
        let tenant = principal.ok_or("nobody asked")?.tenant;
        let grant = |version| view.keys.iter().find(|grant| grant.version == version);
        let newest = view.keys.iter().map(|grant| grant.version).max().ok_or("no keys")?;
        let names = grant(0).ok_or("no name key")?;
        let wrapping = grant(newest).ok_or("no key")?;
        let block =
            WrapBlock { key_version: newest, instance: view.nonce_prefix, start: 0, end: view.nonce_count };
        let counter = match before {
            Some(mut before) if before.key.version() == newest => {
                before.counter.refill(block).map_err(|error| error.to_string())?;
                before.counter
            }
            _ => WrapCounter::new(block).map_err(|error| error.to_string())?,
        };
        let names = NameKey::new(Secret::copy_of(&names.key));
        let key = TenantKey::new(tenant, newest, Secret::copy_of(&wrapping.key));
        Ok(Self { tenant, names, key, bytes: Secret::copy_of(&wrapping.key), counter })
    }

    /// Whether no further data key can be wrapped.
    pub(super) fn is_spent(&self) -> bool {
        self.counter.left() == 0
    }

    fn object(&self, key: &ObjectKey, version: VersionId) -> ObjectIdentity {
        ObjectIdentity { tenant: self.tenant, name: name_hash(&self.names, key.as_bytes()), version }
    }

    /// Seals a new version of an object.
    pub(super) fn seal(&mut self, key: &ObjectKey, payload: &[u8], draws: &mut Draws) -> Sealed {
        let mut version = [0; 16];
        fill(draws, &mut version);
        let mut attempts = Attempts::new(self.object(key, VersionId(version)));
        let attempt = attempts.begin(&mut Drawn(draws));
        let begun = Sealer::begin(attempt, &self.key, &mut self.counter, ChunkLen::DEFAULT)
            .expect("the counter was looked at before");
        let upload = begun.sealer.identity().upload();
        let mut sealer = begun.sealer;
        let mut sealed = BytesMut::from(&begun.header[..]);
        let mut rest = payload;
        while !rest.is_empty() {
            let chunk = sealer.push(&mut rest).expect("simulated objects have few chunks");
            sealed.extend_from_slice(&chunk.unwrap_or_default());
        }
        let end = sealer.finish();
        sealed.extend_from_slice(&end.last);
        let about = Metadata { plaintext_len: end.plaintext_len, created_ms: 0, user: BTreeMap::new() };
        let metadata = end.metadata.seal(&about).expect("it is short");
        let bytes = sealed.freeze();
        Sealed {
            upload,
            wrapped: Bytes::copy_from_slice(begun.wrapped.as_bytes()),
            kek_version: self.key.version(),
            end: UploadEnd {
                root: Hash(*blake3::hash(&bytes).as_bytes()),
                sealed_length: bytes.len() as u64,
                metadata: metadata.as_bytes().clone(),
            },
            name_tag: self.name_tag(key),
            bytes,
        }
    }

    /// The keyed hash of a name.
    pub(super) fn name_tag(&self, key: &ObjectKey) -> NameTag {
        name_tag(&self.names, key.as_bytes())
    }

    /// Opens an object that came back.
    pub(super) fn open(&self, view: &ObjectView, sealed: &Bytes) -> Result<Bytes, String> {
        if blake3::hash(sealed).as_bytes() != &view.root.0 {
            return Err("the bytes do not lead to their root".to_owned());
        }
        let identity = self.identity(&view.key, view.upload);
        let dek = || {
            WrappedDek::from_bytes(&view.wrapped_key)
                .and_then(|wrapped| wrapped.unwrap(&self.key, &identity))
                .map_err(|error| error.to_string())
        };
        let metadata = SealedMetadata::from_bytes(view.metadata.clone());
        let (metadata, _) = metadata.open(&dek()?, &identity).map_err(|error| error.to_string())?;
        let mut opener = Opener::new(dek()?, identity).trimmed_to(metadata.plaintext_len);
        let mut plain = BytesMut::new();
        let mut rest = &sealed[..];
        while !rest.is_empty() {
            let chunk = opener.push(&mut rest).map_err(|error| error.to_string())?;
            plain.extend_from_slice(&chunk.unwrap_or_default());
        }
        plain.extend_from_slice(&opener.finish().map_err(|error| error.to_string())?);
        Ok(plain.freeze())
    }

    /// Whether these keys, taken for those of `tenant`, unwrap a data key of that tenant. They must
    /// not, unless they are that tenant's own: the attack that isolation is about.
    #[must_use]
    pub fn would_open(&self, victim: &Keys, key: &ObjectKey, upload: UploadId, wrapped: &[u8]) -> bool {
        let stolen = TenantKey::new(victim.tenant, self.key.version(), Secret::copy_of(self.bytes.expose()));
        let identity = victim.identity(key, upload);
        let wrapped = WrappedDek::from_bytes(wrapped);
        wrapped.is_ok_and(|wrapped| wrapped.unwrap(&stolen, &identity).is_ok())
    }

    fn identity(&self, key: &ObjectKey, upload: UploadId) -> Identity {
        Identity { object: self.object(key, upload.version), attempt: upload.attempt }
    }
}

/// Keyed draws in the place of the system's randomness.
struct Drawn<'d>(&'d mut Draws);

impl trefoil_client::entropy::Entropy for Drawn<'_> {
    fn fill(&mut self, bytes: &mut [u8]) {
        fill(self.0, bytes);
    }
}
