//! The keys by name: a tenant's key, its name key, and the data key of one attempt.
//!
//! Tenant and name key come from the custodian and stay in memory; a data key is made here, leaves only wrapped, and
//! must never be used for a second attempt.

use trefoil_protocol::ids::{NameTag, TenantId};

use super::{LABEL, push_field};
use crate::entropy::Entropy;
use crate::secret::Secret;

/// The keyed hash of an object's name, as the sealed header carries it.
pub type NameHash = [u8; 32];

/// A tenant's key of one version: it wraps data keys.
#[derive(Debug)]
pub struct TenantKey {
    tenant: TenantId,
    version: u32,
    key: Secret<32>,
}

impl TenantKey {
    /// The tenant's key of this version.
    #[must_use]
    pub fn new(tenant: TenantId, version: u32, key: Secret<32>) -> Self {
        Self { tenant, version, key }
    }

    /// Whose key it is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Its version, counted from 1 by the custodian.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    pub(crate) fn secret(&self) -> &Secret<32> {
        &self.key
    }
}

/// A tenant's key for hashing object names, so that no one without it can test a guess.
#[derive(Debug)]
pub struct NameKey(Secret<32>);

impl NameKey {
    /// The name key with these bytes.
    #[must_use]
    pub fn new(key: Secret<32>) -> Self {
        Self(key)
    }
}

/// The keyed hash of an object's name.
#[must_use]
pub fn name_hash(name_key: &NameKey, name: &[u8]) -> NameHash {
    let mut labelled = Vec::with_capacity(LABEL.len() + 8 + name.len());
    push_field(&mut labelled, LABEL);
    push_field(&mut labelled, b"name");
    labelled.extend_from_slice(name);
    *blake3::keyed_hash(name_key.0.expose(), &labelled).as_bytes()
}

/// The first half of [`name_hash`]: what an erased object can still be asked about by.
#[must_use]
pub fn name_tag(name_key: &NameKey, name: &[u8]) -> NameTag {
    NameTag(*name_hash(name_key, name).first_chunk().expect("a name hash has 32 bytes"))
}

/// The data key of one attempt to write one version.
#[derive(Debug)]
pub struct Dek(Secret<32>);

impl Dek {
    pub(crate) fn random(entropy: &mut dyn Entropy) -> Self {
        Self(Secret::filled_by(|key| entropy.fill(key)))
    }

    pub(crate) fn from_secret(key: Secret<32>) -> Self {
        Self(key)
    }

    pub(crate) fn secret(&self) -> &Secret<32> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::assert_never_implements;

    assert_never_implements!(TenantKey: Clone, minicbor::Encode<()>);
    assert_never_implements!(NameKey: Clone, minicbor::Encode<()>);
    assert_never_implements!(Dek: Clone, minicbor::Encode<()>);

    #[test]
    fn names_hash_by_key_and_name() {
        let (one, other) = (NameKey::new(Secret::copy_of(&[1; 32])), NameKey::new(Secret::copy_of(&[2; 32])));
        assert_eq!(name_tag(&one, b"a"), name_tag(&one, b"a"));
        assert_ne!(name_tag(&one, b"a"), name_tag(&one, b"b"));
        assert_ne!(name_tag(&one, b"a"), name_tag(&other, b"a"));
        assert_eq!(name_hash(&one, b"a")[..16], name_tag(&one, b"a").0);
    }

    #[test]
    fn r088_keys_print_nothing_of_themselves() {
        let key = TenantKey::new(TenantId(7), 3, Secret::copy_of(&[0xAB; 32]));
        assert_eq!(format!("{key:?}"), "TenantKey { tenant: TenantId(7), version: 3, key: Secret(..) }");
    }
}
