//! The keys the control plane holds: the master key that wraps every tenant key, the data key that
//! seals what is wrapped once more before it goes into the log, and the signatory that signs orders
//! and certificates. All live in memory only, are zeroized when dropped and are never printed.
//!
//! A tenant key leaves here in the clear only towards a principal of that very tenant. Wrapped keys
//! live in the replicated state, also in the witness's, and are opaque without the data key, and
//! behind it without the master key; the tenant and the key's version are bound into both, so no
//! wrapped key can be passed off as another one.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use bytes::Bytes;
use trefoil_protocol::ids::{Hash, TenantId};
use trefoil_protocol::sign::Signatory;
use zeroize::Zeroizing;

/// Length of a wrapped key: nonce and tag of the data key, nonce and tag of the master key, key.
pub const WRAPPED_LENGTH: usize = 2 * (NONCE_LENGTH + TAG_LENGTH) + 32;

const NONCE_LENGTH: usize = 12;
const TAG_LENGTH: usize = 16;

/// The key version that hashes object names; the others wrap data keys.
pub const NAME_KEY_VERSION: u32 = 0;

/// Where the core gets unpredictable bytes from: the system's in the shell, seeded ones in the
/// simulator.
pub trait Entropy {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

impl<F: FnMut(&mut [u8])> Entropy for F {
    fn fill(&mut self, bytes: &mut [u8]) {
        self(bytes);
    }
}

/// A tenant key in the clear.
pub type TenantKey = Zeroizing<[u8; 32]>;

/// A wrapped key that does not open under this master key as this tenant's key of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key version {version} of tenant {tenant} does not open under the master key")]
pub struct UnwrapError {
    /// The tenant.
    pub tenant: TenantId,
    /// The key's version.
    pub version: u32,
}

/// The keys that wrap every tenant's keys: the master key, and around it the control plane's data
/// key. A copy of the log opens nothing without both.
pub struct MasterKey {
    master: Zeroizing<[u8; 32]>,
    data: Zeroizing<[u8; 32]>,
}

impl MasterKey {
    /// From 32 secret random bytes each.
    pub fn from_secrets(master: &[u8; 32], data: &[u8; 32]) -> Self {
        Self { master: Zeroizing::new(*master), data: Zeroizing::new(*data) }
    }

    /// Tells whether two voters have the same keys, and nothing else about them.
    pub fn fingerprint(&self) -> Hash {
        let both = Zeroizing::new([*self.master, *self.data].concat());
        Hash(blake3::derive_key("trefoil v1 fingerprint of the keys that voters share", &both))
    }

    /// Wraps a tenant key for the replicated state.
    pub fn wrap(&self, tenant: TenantId, version: u32, key: &TenantKey, entropy: &mut dyn Entropy) -> Bytes {
        let aad = binding(tenant, version);
        let wrapped = seal(&self.master, &aad, key.as_slice(), entropy);
        seal(&self.data, &aad, &wrapped, entropy).into()
    }

    /// Opens a tenant key out of the replicated state.
    pub fn unwrap(&self, tenant: TenantId, version: u32, wrapped: &[u8]) -> Result<TenantKey, UnwrapError> {
        let error = UnwrapError { tenant, version };
        let aad = binding(tenant, version);
        let inner = open(&self.data, &aad, wrapped).ok_or(error)?;
        let key = open(&self.master, &aad, &inner).ok_or(error)?;
        Ok(Zeroizing::new(key.as_slice().try_into().map_err(|_| error)?))
    }
}

fn seal(key: &[u8; 32], aad: &[u8], message: &[u8], entropy: &mut dyn Entropy) -> Vec<u8> {
    let mut nonce = [0; NONCE_LENGTH];
    entropy.fill(&mut nonce);
    let sealed = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key))
        .encrypt(&Nonce::from(nonce), Payload { msg: message, aad })
        .expect("a key is far below the cipher's limit");
    [nonce.as_slice(), sealed.as_slice()].concat()
}

fn open(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LENGTH>()?;
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key));
    cipher.decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad }).ok().map(Zeroizing::new)
}

fn binding(tenant: TenantId, version: u32) -> Vec<u8> {
    let mut bytes = b"trefoil/v1/tenant-key".to_vec();
    bytes.extend_from_slice(&tenant.0.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes
}

/// Every secret the control plane holds.
pub struct Keyring {
    /// Wraps tenant keys.
    pub master: MasterKey,
    /// Signs orders and certificates.
    pub signatory: Signatory,
}

impl Keyring {
    /// From the secrets that every voter with keys shares, and the one of its own.
    pub fn new(master: MasterKey, signatory: &[u8; 32]) -> Self {
        Self { master, signatory: Signatory::from_secret(signatory) }
    }
}

/// A new tenant key.
pub fn new_tenant_key(entropy: &mut dyn Entropy) -> TenantKey {
    let mut key = Zeroizing::new([0; 32]);
    entropy.fill(key.as_mut_slice());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted() -> impl FnMut(&mut [u8]) {
        let mut next = 0u8;
        move |bytes: &mut [u8]| {
            next += 1;
            bytes.fill(next);
        }
    }

    #[test]
    fn a_wrapped_key_opens_only_as_what_it_is() {
        let master = MasterKey::from_secrets(&[7; 32], &[6; 32]);
        let mut entropy = counted();
        let key = new_tenant_key(&mut entropy);
        let wrapped = master.wrap(TenantId(3), 1, &key, &mut entropy);
        assert_eq!(wrapped.len(), WRAPPED_LENGTH);
        assert!(!wrapped.windows(32).any(|window| window == key.as_slice()));
        assert_eq!(*master.unwrap(TenantId(3), 1, &wrapped).unwrap(), *key);
        assert!(master.unwrap(TenantId(4), 1, &wrapped).is_err());
        assert!(master.unwrap(TenantId(3), 2, &wrapped).is_err());
        for (master, data) in [([8; 32], [6; 32]), ([7; 32], [8; 32])] {
            let other = MasterKey::from_secrets(&master, &data);
            assert!(other.unwrap(TenantId(3), 1, &wrapped).is_err(), "each of the two keys is needed");
        }
        for position in 0..wrapped.len() {
            let mut damaged = wrapped.to_vec();
            damaged[position] ^= 1;
            assert!(master.unwrap(TenantId(3), 1, &damaged).is_err());
            assert!(master.unwrap(TenantId(3), 1, &wrapped[..position]).is_err());
        }
    }
}
