//! Secrets under a passphrase: `master.sealed` holds the master key and the control plane's data key,
//! which all voters with keys share; `signing.sealed` the key that one voter signs with.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `TREFKEYS` in `master.sealed`, `TREFSIGN` in `signing.sealed` |
//! | 8 | 4 | format, little-endian: 1 |
//! | 12 | 12 | Argon2id memory in KiB, passes, lanes; 4 bytes each, little-endian |
//! | 24 | 16 | salt |
//! | 40 | 12 | nonce |
//! | 52 | 80 or 48 | AES-256-GCM over the keys (32 bytes each), the 52 bytes before as associated data |
//!
//! A file of another kind, length, format or passphrase opens nothing. It is written beside its place,
//! synced, and renamed: a crash leaves the whole file or none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use crate::custodian::{Entropy, MasterKey};

/// Begins a file with the master key and the data key.
const MASTER: [u8; 8] = *b"TREFKEYS";
/// Begins a file with a signing key.
const SIGNING: [u8; 8] = *b"TREFSIGN";
const FORMAT: u32 = 1;
const SALT_AT: usize = 24;
const NONCE_AT: usize = 40;
const SEALED_AT: usize = 52;
const TAG_LENGTH: usize = 16;
const MASTER_LENGTH: usize = 64;
const SIGNING_LENGTH: usize = 32;

/// What a passphrase costs to try: 64 MiB and three passes.
const COST: Cost = Cost { memory_kib: 64 << 10, passes: 3, lanes: 1 };

/// The most a file may ask for, so that a false one cannot exhaust the machine.
const COST_MAX: Cost = Cost { memory_kib: 1 << 20, passes: 64, lanes: 16 };

/// Why the sealed keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no key file of a format this version knows.
    #[error("{path}: not a sealed key file: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The passphrase is wrong, or the file was changed.
    #[error("{path}: the passphrase does not open it")]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Clone, Copy)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

type Secrets<const N: usize> = Zeroizing<[u8; N]>;

/// Makes the keys that all voters with keys share and seals them into `path`, which must not exist.
///
/// # Errors
/// When the file cannot be written.
pub fn create_master(
    path: &Path,
    passphrase: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<MasterKey, KeyFileError> {
    create(path, MASTER, passphrase, entropy).map(|secrets| master_key(&secrets))
}

/// Opens what [`create_master`] sealed.
///
/// # Errors
/// When the file cannot be read, is none, or the passphrase is wrong.
pub fn load_master(path: &Path, passphrase: &[u8]) -> Result<MasterKey, KeyFileError> {
    load(path, MASTER, passphrase).map(|secrets| master_key(&secrets))
}

/// Makes a signing key and seals it into `path`, which must not exist.
///
/// # Errors
/// When the file cannot be written.
pub fn create_signing(
    path: &Path,
    passphrase: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<Secrets<SIGNING_LENGTH>, KeyFileError> {
    create(path, SIGNING, passphrase, entropy)
}

/// Opens what [`create_signing`] sealed.
///
/// # Errors
/// When the file cannot be read, is none, or the passphrase is wrong.
pub fn load_signing(path: &Path, passphrase: &[u8]) -> Result<Secrets<SIGNING_LENGTH>, KeyFileError> {
    load(path, SIGNING, passphrase)
}

fn master_key(secrets: &Secrets<MASTER_LENGTH>) -> MasterKey {
    let (master, data) = secrets.split_at(MASTER_LENGTH / 2);
    let half = |half: &[u8]| -> Secrets<32> { Zeroizing::new(half.try_into().expect("it is half")) };
    MasterKey::from_secrets(&half(master), &half(data))
}

fn create<const N: usize>(
    path: &Path,
    magic: [u8; 8],
    passphrase: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<Secrets<N>, KeyFileError> {
    let mut secrets = Zeroizing::new([0; N]);
    entropy.fill(secrets.as_mut_slice());
    let sealed = seal(magic, &secrets, passphrase, COST, entropy);
    let file = |source| KeyFileError::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(file)?;
    }
    write_whole(path, &sealed, 0o600).map_err(file)?;
    Ok(secrets)
}

fn load<const N: usize>(path: &Path, magic: [u8; 8], passphrase: &[u8]) -> Result<Secrets<N>, KeyFileError> {
    let bytes = fs::read(path).map_err(|source| KeyFileError::File { path: path.to_owned(), source })?;
    open(magic, &bytes, passphrase).map_err(|error| match error {
        Some(reason) => KeyFileError::Malformed { path: path.to_owned(), reason },
        None => KeyFileError::Passphrase { path: path.to_owned() },
    })
}

/// Writes a file so that a crash leaves all of it or what was there before.
pub(super) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    // What an earlier crash left beside is not whole.
    if beside.exists() {
        fs::remove_file(&beside)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // Whole and durable under the other name; from here on a crash leaves one of the two.
    fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn seal<const N: usize>(
    magic: [u8; 8],
    secrets: &Secrets<N>,
    passphrase: &[u8],
    cost: Cost,
    entropy: &mut dyn Entropy,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEALED_AT + N + TAG_LENGTH);
    bytes.extend_from_slice(&magic);
    for number in [FORMAT, cost.memory_kib, cost.passes, cost.lanes] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.resize(SEALED_AT, 0);
    entropy.fill(&mut bytes[SALT_AT..SEALED_AT]);
    let payload = Payload { msg: secrets.as_slice(), aad: &bytes };
    let sealed = cipher(&bytes, passphrase, cost)
        .encrypt(&nonce(&bytes), payload)
        .expect("a few keys are far below the cipher's limit");
    bytes.extend_from_slice(&sealed);
    bytes
}

/// `Err(None)` stands for a wrong passphrase or a changed file: the two cannot be told apart.
fn open<const N: usize>(
    magic: [u8; 8],
    bytes: &[u8],
    passphrase: &[u8],
) -> Result<Secrets<N>, Option<&'static str>> {
    if bytes.len() != SEALED_AT + N + TAG_LENGTH {
        return Err(Some("its length is wrong"));
    }
    if bytes[..8] != magic {
        return Err(Some("it does not begin as one"));
    }
    if number(bytes, 8) != FORMAT {
        return Err(Some("its format is not known to this version"));
    }
    let cost = Cost { memory_kib: number(bytes, 12), passes: number(bytes, 16), lanes: number(bytes, 20) };
    let within = |got: u32, max: u32| (1..=max).contains(&got);
    if !within(cost.memory_kib, COST_MAX.memory_kib)
        || !within(cost.passes, COST_MAX.passes)
        || !within(cost.lanes, COST_MAX.lanes)
        || cost.memory_kib < 8 * cost.lanes
    {
        return Err(Some("it asks for an unreasonable effort"));
    }
    let payload = Payload { msg: &bytes[SEALED_AT..], aad: &bytes[..SEALED_AT] };
    let secrets = cipher(bytes, passphrase, cost).decrypt(&nonce(bytes), payload).map_err(|_| None)?;
    let secrets = Zeroizing::new(secrets);
    Ok(Zeroizing::new(secrets.as_slice().try_into().expect("the length of the file fixes it")))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn nonce(bytes: &[u8]) -> Nonce<aes_gcm::aead::consts::U12> {
    let nonce: [u8; 12] = bytes[NONCE_AT..SEALED_AT].try_into().expect("twelve bytes");
    Nonce::from(nonce)
}

fn cipher(header: &[u8], passphrase: &[u8], cost: Cost) -> Aes256Gcm {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32));
    let params = params.expect("the cost is within Argon2's own limits");
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, &header[SALT_AT..NONCE_AT], key.as_mut_slice())
        .expect("salt and output have lengths that Argon2 takes");
    Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

    const FILE_LENGTH: usize = SEALED_AT + MASTER_LENGTH + TAG_LENGTH;

    fn sealed() -> (Secrets<MASTER_LENGTH>, Vec<u8>) {
        let secrets = Zeroizing::new([7; MASTER_LENGTH]);
        let mut entropy = |bytes: &mut [u8]| bytes.fill(3);
        let bytes = seal(MASTER, &secrets, b"open sesame", CHEAP, &mut entropy);
        (secrets, bytes)
    }

    fn open(bytes: &[u8], passphrase: &[u8]) -> Result<Secrets<MASTER_LENGTH>, Option<&'static str>> {
        super::open(MASTER, bytes, passphrase)
    }

    #[test]
    fn only_the_passphrase_opens_the_keys() {
        let (secrets, bytes) = sealed();
        assert_eq!(bytes.len(), FILE_LENGTH);
        assert_eq!(*open(&bytes, b"open sesame").unwrap(), *secrets);
        assert_eq!(open(&bytes, b"open sesamE").err(), Some(None));
        assert!(!bytes.windows(8).any(|window| window == [7; 8]));
    }

    #[test]
    fn a_changed_file_opens_nothing() {
        let (_, bytes) = sealed();
        for position in (0..12).chain(24..FILE_LENGTH) {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert!(open(&changed, b"open sesame").is_err(), "byte {position}");
        }
        for length in [0, 8, SEALED_AT, FILE_LENGTH - 1] {
            assert!(matches!(open(&bytes[..length], b"open sesame"), Err(Some(_))));
        }
        for (at, asked) in [(12, u32::MAX), (12, 0), (16, 0), (16, 65), (20, 0), (20, 17)] {
            let mut greedy = bytes.clone();
            greedy[at..at + 4].copy_from_slice(&asked.to_le_bytes());
            assert!(matches!(open(&greedy, b"open sesame"), Err(Some(_))), "{at} {asked}");
        }
    }
}
