//! Ed25519 signatures over domain-separated CBOR: what is signed is always
//! `b"trefoil/v1/" + domain + 0x00 + canonical encoding`, so that no signature can be taken for
//! another kind of statement.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::ids::PublicKey;

/// A signature by the holder of `key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Signed64 {
    /// Whose signature it is.
    #[n(0)]
    pub key: PublicKey,
    /// The signature.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// A signature that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The bytes are not a public key.
    #[error("the public key {0} is not a valid Ed25519 key")]
    Key(PublicKey),
    /// The signature was not made by that key over that statement.
    #[error("the signature of {0} does not match what it is said to sign")]
    Mismatch(PublicKey),
    /// Signed by somebody who may not sign this.
    #[error("signed by {0}, who is not trusted to sign this")]
    Untrusted(PublicKey),
}

/// A statement that can be signed.
pub trait Statement: Encode<()> + Sized {
    /// Names the kind of statement; part of what is signed.
    const DOMAIN: &'static str;

    /// The exact bytes that are signed.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::from(b"trefoil/v1/");
        bytes.extend_from_slice(Self::DOMAIN.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&crate::codec::to_vec(self));
        bytes
    }
}

/// A private signing key; zeroized when dropped, never printed.
pub struct Signatory(SigningKey);

impl Signatory {
    /// From 32 secret random bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a statement.
    pub fn sign<S: Statement>(&self, statement: &S) -> Signed64 {
        Signed64 { key: self.public(), signature: self.0.sign(&statement.signed_bytes()).to_bytes() }
    }
}

impl std::fmt::Debug for Signatory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signatory(secret)")
    }
}

impl Signed64 {
    /// Checks that this signs `statement` and that `trusted` accepts the signer.
    pub fn verify<S: Statement>(
        &self,
        statement: &S,
        trusted: impl Fn(&PublicKey) -> bool,
    ) -> Result<(), SignatureError> {
        if !trusted(&self.key) {
            return Err(SignatureError::Untrusted(self.key));
        }
        let key = VerifyingKey::from_bytes(&self.key.0).map_err(|_| SignatureError::Key(self.key))?;
        key.verify_strict(&statement.signed_bytes(), &Signature::from_bytes(&self.signature))
            .map_err(|_| SignatureError::Mismatch(self.key))
    }
}
