//! A backup of the control plane's state: a signed head, then the state. Tenant keys in it stay wrapped.
//! The byte table is in docs/backup-format.md.

use minicbor::{Decode, Encode};

use crate::codec;
use crate::deletion::Signers;
use crate::ids::{ConfigIndex, Hash};
use crate::sign::{Signatory, SignatureError, Signed64, Statement};
use crate::time::CpTime;

const MAGIC: [u8; 8] = *b"TREFBACK";
const FORMAT: u32 = 1;
/// The longest head of a backup.
const HEAD_MAX: usize = 64 * 1024;
const HEAD_AT: usize = 16;

/// What is signed of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BackupStatement {
    /// The cluster.
    #[cbor(n(0), decode_with = "crate::codec::text::<64, _>")]
    pub cluster: String,
    /// The restore generation of the state.
    #[n(1)]
    pub generation: u64,
    /// The last command in it.
    #[n(2)]
    pub index: ConfigIndex,
    /// The control plane's time in it.
    #[n(3)]
    pub at: CpTime,
    /// How long the state is, in bytes.
    #[n(4)]
    pub length: u64,
    /// blake3 of the state.
    #[n(5)]
    pub hash: Hash,
}

impl Statement for BackupStatement {
    const DOMAIN: &'static str = "backup";
}

/// The head of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedBackup {
    /// What it says.
    #[n(0)]
    pub statement: BackupStatement,
    /// The signature of the voter that took it.
    #[n(1)]
    pub signature: Signed64,
}

/// Bytes that are no backup that can be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Not the form of a backup.
    #[error("this is no backup: {0}")]
    Malformed(String),
    /// Written by another version.
    #[error("backup format {got} is not known to this version, which knows {FORMAT}")]
    Format {
        /// The format found.
        got: u32,
    },
    /// The state is not the one that was signed.
    #[error("the backup is damaged: its state has another hash or length than was signed")]
    Damaged,
    /// Nobody who is trusted signed it.
    #[error("the backup is not signed by whom it must be: {0}")]
    Signature(#[from] SignatureError),
}

impl SignedBackup {
    /// Signs a state.
    pub fn new(statement: BackupStatement, signatory: &Signatory) -> Self {
        let signature = signatory.sign(&statement);
        Self { statement, signature }
    }

    /// The whole file.
    pub fn to_file(&self, state: &[u8]) -> Vec<u8> {
        let head = codec::to_vec(self);
        let mut bytes = Vec::with_capacity(HEAD_AT + head.len() + state.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(head.len()).expect("a head is short").to_le_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(state);
        bytes
    }

    /// Reads a whole file and checks it against who may sign: its head and its state.
    ///
    /// # Errors
    /// If it is no backup, was changed, or is signed by nobody who is trusted.
    pub fn open<'b>(file: &'b [u8], signers: &Signers) -> Result<(Self, &'b [u8]), BackupError> {
        let malformed = |what: &str| BackupError::Malformed(what.to_owned());
        let word =
            |at: usize| file.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
        if file.get(..8) != Some(&MAGIC[..]) {
            return Err(malformed("it does not begin as one"));
        }
        match word(8) {
            Some(FORMAT) => {}
            Some(got) => return Err(BackupError::Format { got }),
            None => return Err(malformed("it ends in its head")),
        }
        let length = word(12).map_or(usize::MAX, |length| length as usize);
        let head = file.get(HEAD_AT..HEAD_AT + length.min(HEAD_MAX)).filter(|head| head.len() == length);
        let head = head.ok_or_else(|| malformed("it ends in its head"))?;
        let signed: Self =
            codec::from_slice(head).map_err(|error| BackupError::Malformed(error.to_string()))?;
        let state = &file[HEAD_AT + length..];
        let hash = Hash(*blake3::hash(state).as_bytes());
        if (signed.statement.length, signed.statement.hash) != (state.len() as u64, hash) {
            return Err(BackupError::Damaged);
        }
        signers.check_one(&signed.statement, signed.statement.at, &signed.signature)?;
        Ok((signed, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deletion::SignerTerm;

    fn backup(state: &[u8], signatory: &Signatory) -> Vec<u8> {
        let statement = BackupStatement {
            cluster: "here".to_owned(),
            generation: 1,
            index: ConfigIndex(7),
            at: CpTime(9),
            length: state.len() as u64,
            hash: Hash(*blake3::hash(state).as_bytes()),
        };
        SignedBackup::new(statement, signatory).to_file(state)
    }

    #[test]
    fn a_backup_opens_whole_and_signed_or_not_at_all() {
        let signatory = Signatory::from_secret(&[3; 32]);
        let signers = Signers { terms: vec![SignerTerm::founding(signatory.public())] };
        let file = backup(b"the state", &signatory);
        let (head, state) = SignedBackup::open(&file, &signers).unwrap();
        assert_eq!((head.statement.index, state), (ConfigIndex(7), &b"the state"[..]));
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(SignedBackup::open(&changed, &signers).is_err(), "byte {at}");
            assert!(SignedBackup::open(&file[..at], &signers).is_err(), "{at} bytes");
        }
        let stranger = backup(b"the state", &Signatory::from_secret(&[4; 32]));
        assert!(matches!(SignedBackup::open(&stranger, &signers), Err(BackupError::Signature(_))));
        let mut later = file;
        later[8] = 2;
        assert_eq!(SignedBackup::open(&later, &signers), Err(BackupError::Format { got: 2 }));
    }
}
