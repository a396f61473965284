//! The control plane as a process: a disk for its log and keys, sockets for its planes, the boot
//! clock, and the system's randomness. It decides nothing; every answer is the core's.
//!
//! ```text
//! control + admin listener ┐                       ┌ log.redb
//! custodian listener ──────┴► streams ─► core thread ┤
//!                                   ◄─ answers    │  └ master.sealed, signing.sealed (read once)
//! other voters' listeners ◄── voters ◄────────────┘
//! ```
#![allow(clippy::disallowed_methods, reason = "the shell is where time and threads enter")]

mod clock;
mod core_thread;
mod identity_files;
pub mod key_file;
mod listener;
pub mod log_file;
mod refound;
mod voters;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::{PublicKey, VoterId};
use trefoil_transport::{BindError, ClusterName, Endpoint, IdentityError, Limits, Plane};
use zeroize::Zeroizing;

use crate::caution::Caution;
use crate::custodian::{Entropy, Keyring};
use crate::placement::{Beginning, COMPACT_AFTER, OpenError, Placement, Settings as CoreSettings};
use crate::refounding::RefoundError;
use crate::shell::core_thread::CoreThread;
use crate::shell::identity_files::{IdentityFileError, IdentityFiles};
use crate::shell::key_file::KeyFileError;
use crate::shell::log_file::LogFile;

pub use refound::{Saved, has_log, refound};

/// The log's file in the data folder.
const LOG_FILE: &str = "log.redb";

/// The file in the data folder that shows the key orders and certificates are signed with.
const SIGNING_KEY_FILE: &str = "signing.pub";

/// The file in the data folder that holds that key.
const SIGNING_FILE: &str = "signing.sealed";

/// What may wait to be said to other voters.
const SAID_MAX: usize = 1024;

/// What a placement process must be told.
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// Which of `voters` this is; its name is the certificate's.
    pub voter: VoterId,
    /// Everybody who keeps the log when the cluster is made, the same for all of them; or, for one that
    /// joins later, itself and whom it joins.
    pub voters: Vec<VoterEntry>,
    /// How its log begins.
    pub beginning: Beginning,
    /// The folder of its log.
    pub data: PathBuf,
    /// Where it listens for nodes, operators and other voters.
    pub listen: SocketAddr,
    /// Where it listens for tenants; a witness does not.
    pub tenant_listen: SocketAddr,
    /// Its keys; a witness has none.
    pub keys: Option<KeySettings>,
    /// How sure it wants to be before it changes what works.
    pub caution: Caution,
    /// The cluster's root certificates.
    pub trust: PathBuf,
    /// The own certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Where a voter's keys are.
pub struct KeySettings {
    /// The sealed keys that all voters with keys share; a single voter makes them at its first start.
    pub master: PathBuf,
    /// What opens them, and the voter's own.
    pub passphrase: Zeroizing<String>,
}

/// Why a placement process cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file or folder cannot be used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The sealed keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// There is a log, but the keys that belong to it are gone: new ones would open nothing.
    #[error("{path} is missing, but there is a log: put the key file of this cluster back")]
    KeysLost {
        /// Where the keys should be.
        path: PathBuf,
    },
    /// Several voters must share their keys, so none of them makes them by itself.
    #[error(
        "{path} is missing: make the keys once, with `trefoil placement --make-keys`, and copy the file to every \
         voter but the witness"
    )]
    KeysMissing {
        /// Where the keys should be.
        path: PathBuf,
    },
    /// The log cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot begin with that state.
    #[error(transparent)]
    Refound(#[from] RefoundError),
    /// The cluster's name is none.
    #[error(transparent)]
    Cluster(#[from] IdentityError),
    /// The own certificate or the roots cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityFileError),
    /// A listener cannot be made.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The core had to stop.
    #[error("the control plane stops: {0}")]
    Fatal(String),
}

/// Runs a placement process until `stop`, or until its log cannot be kept any more. Must be called
/// within a tokio runtime.
///
/// # Errors
/// When it cannot start, or when its log fails.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let cluster: ClusterName = settings.cluster.parse()?;
    let identity = IdentityFiles::load(&settings.trust, &settings.certificate, &settings.key, cluster)?;
    let (sayer, said) = mpsc::channel(SAID_MAX);
    let mut core = CoreThread::start(open_core(&settings)?, sayer);
    let server = |address, planes: &[Plane]| {
        Endpoint::server(address, identity.own(), identity.trust(), planes, limits())
    };
    let mut listeners = vec![server(settings.listen, &[Plane::Control, Plane::Admin])?];
    if settings.keys.is_some() {
        listeners.push(server(settings.tenant_listen, &[Plane::Tenant])?);
    }
    let from = SocketAddr::new(settings.listen.ip(), 0);
    let speaker = Endpoint::client(from, identity.own(), identity.trust(), voters::limits())?;
    tracing::info!(
        voters = settings.voters.len(),
        listen = %settings.listen,
        tenant_listen = %settings.tenant_listen,
        witness = settings.keys.is_none(),
        "placement serves"
    );
    let mut tasks = JoinSet::new();
    for endpoint in &listeners {
        tasks.spawn(listener::serve(endpoint.clone(), core.handle()));
    }
    tasks.spawn(voters::speak(speaker.clone(), said));
    tasks.spawn(identity.keep_fresh());
    let ended = tokio::select! {
        () = stop => Ok(()),
        reason = core.failed() => Err(RunError::Fatal(reason)),
    };
    // Whoever asks from now on hears nothing and asks again elsewhere or later; what was answered is
    // durable, so nothing else needs an end.
    tasks.abort_all();
    speaker.close().await;
    for endpoint in listeners {
        endpoint.close().await;
    }
    core.stop();
    ended
}

/// What one connection may use: questions and answers are small, and few at a time.
fn limits() -> Limits {
    Limits {
        stream_window_bytes: 1 << 20,
        connection_window_bytes: 8 << 20,
        send_window_bytes: 8 << 20,
        assembly_bytes: 8 << 20,
        streams_max: listener::STREAMS_MAX,
        connections_max: 1024,
        ..Limits::default()
    }
}

fn open_core(settings: &Settings) -> Result<Placement<LogFile>, RunError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| RunError::File { path, source }
    };
    // A folder that is not there may be a disk that is not mounted: no new cluster begins in its place.
    fs::read_dir(&settings.data).map_err(at(&settings.data))?;
    let log_path = settings.data.join(LOG_FILE);
    let log = LogFile::open(&log_path).map_err(OpenError::Log)?;
    let is_new = crate::log_store::LogStore::load(&log).map_err(OpenError::Log)?.is_none();
    let mut entropy = SystemEntropy;
    let keyring = match &settings.keys {
        Some(keys) => Some(open_keys(settings, keys, is_new, &mut entropy)?),
        None => None,
    };
    if let Some(keyring) = &keyring {
        let shown = settings.data.join(SIGNING_KEY_FILE);
        show_signing_key(&shown, keyring.signatory.public()).map_err(at(&shown))?;
    }
    let core = CoreSettings {
        cluster: settings.cluster.clone(),
        voter: settings.voter,
        voters: settings.voters.clone(),
        beginning: settings.beginning,
        compact_after: COMPACT_AFTER,
        caution: settings.caution,
    };
    Ok(Placement::open(core, keyring, log, Box::new(entropy), clock::boot_time())?)
}

/// Opens the voter's keys. Keys are durable before the log's first entry, so a log without keys has
/// lost them.
fn open_keys(
    settings: &Settings,
    keys: &KeySettings,
    is_new: bool,
    entropy: &mut SystemEntropy,
) -> Result<Keyring, RunError> {
    let passphrase = keys.passphrase.as_bytes();
    let alone = settings.voters.len() == 1;
    let master = match keys.master.exists() {
        true => key_file::load_master(&keys.master, passphrase)?,
        false if !is_new => return Err(RunError::KeysLost { path: keys.master.clone() }),
        false if alone => key_file::create_master(&keys.master, passphrase, entropy)?,
        false => return Err(RunError::KeysMissing { path: keys.master.clone() }),
    };
    let path = settings.data.join(SIGNING_FILE);
    let signing = match path.exists() {
        true => key_file::load_signing(&path, passphrase)?,
        false if is_new => key_file::create_signing(&path, passphrase, entropy)?,
        false => return Err(RunError::KeysLost { path }),
    };
    Ok(Keyring::new(master, &signing))
}

/// Makes the keys that all voters with keys share.
///
/// # Errors
/// When the file is there already, or cannot be written.
pub fn make_keys(keys: &KeySettings) -> Result<(), RunError> {
    if keys.master.exists() {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(RunError::File { path: keys.master.clone(), source });
    }
    key_file::create_master(&keys.master, keys.passphrase.as_bytes(), &mut SystemEntropy)?;
    Ok(())
}

/// Writes the public key as text, for operators and for `trust.toml`.
fn show_signing_key(path: &Path, key: PublicKey) -> io::Result<()> {
    let text = format!("{key}\n");
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    key_file::write_whole(path, text.as_bytes(), 0o644)
}

/// The system's randomness.
struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("a system without randomness can keep no secret");
    }
}
