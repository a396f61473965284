//! The keys the control plane holds: the master key that wraps every tenant key, and the signatory
//! that signs orders and certificates. Both live in memory only, are zeroized when dropped and are
//! never printed.
//!
//! A tenant key leaves here in the clear only towards a principal of that very tenant. Wrapped keys
//! live in the replicated state and are opaque without the master key; the tenant and the key's
//! version are bound into the wrap, so no wrapped key can be passed off as another one.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use bytes::Bytes;
use trefoil_protocol::ids::TenantId;
use trefoil_protocol::sign::Signatory;
use zeroize::Zeroizing;

/// Length of a wrapped key: nonce, key, tag.
pub const WRAPPED_LENGTH: usize = NONCE_LENGTH + 32 + 16;

const NONCE_LENGTH: usize = 12;

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

/// The key that wraps every tenant's keys.
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// From 32 secret random bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*secret))
    }

    /// Wraps a tenant key for the replicated state.
    pub fn wrap(&self, tenant: TenantId, version: u32, key: &TenantKey, entropy: &mut dyn Entropy) -> Bytes {
        let mut nonce = [0; NONCE_LENGTH];
        entropy.fill(&mut nonce);
        let payload = Payload { msg: key.as_slice(), aad: &binding(tenant, version) };
        let sealed = self
            .cipher()
            .encrypt(&Nonce::from(nonce), payload)
            .expect("32 bytes are far below the cipher's limit");
        [nonce.as_slice(), sealed.as_slice()].concat().into()
    }

    /// Opens a tenant key out of the replicated state.
    pub fn unwrap(&self, tenant: TenantId, version: u32, wrapped: &[u8]) -> Result<TenantKey, UnwrapError> {
        let error = UnwrapError { tenant, version };
        let (nonce, sealed) = wrapped.split_first_chunk::<NONCE_LENGTH>().ok_or(error)?;
        let payload = Payload { msg: sealed, aad: &binding(tenant, version) };
        let key = self.cipher().decrypt(&Nonce::from(*nonce), payload).map_err(|_| error)?;
        let key = Zeroizing::new(key);
        Ok(Zeroizing::new(key.as_slice().try_into().map_err(|_| error)?))
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&Key::<Aes256Gcm>::from(*self.0))
    }
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
    /// From secret random bytes.
    pub fn from_secrets(master: &[u8; 32], signatory: &[u8; 32]) -> Self {
        Self { master: MasterKey::from_secret(master), signatory: Signatory::from_secret(signatory) }
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
        let master = MasterKey::from_secret(&[7; 32]);
        let mut entropy = counted();
        let key = new_tenant_key(&mut entropy);
        let wrapped = master.wrap(TenantId(3), 1, &key, &mut entropy);
        assert_eq!(wrapped.len(), WRAPPED_LENGTH);
        assert!(!wrapped.windows(32).any(|window| window == key.as_slice()));
        assert_eq!(*master.unwrap(TenantId(3), 1, &wrapped).unwrap(), *key);
        assert!(master.unwrap(TenantId(4), 1, &wrapped).is_err());
        assert!(master.unwrap(TenantId(3), 2, &wrapped).is_err());
        assert!(MasterKey::from_secret(&[8; 32]).unwrap(TenantId(3), 1, &wrapped).is_err());
        for position in 0..wrapped.len() {
            let mut damaged = wrapped.to_vec();
            damaged[position] ^= 1;
            assert!(master.unwrap(TenantId(3), 1, &damaged).is_err());
            assert!(master.unwrap(TenantId(3), 1, &wrapped[..position]).is_err());
        }
    }
}
