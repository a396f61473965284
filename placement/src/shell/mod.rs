//! The control plane as a process: a disk for its log and keys, sockets for its planes, the boot
//! clock, and the system's randomness. It decides nothing; every answer is the core's.
//!
//! ```text
//! control + admin listener ┐                       ┌ log.redb
//! custodian listener ──────┴► streams ─► core thread ┤
//!                                   ◄─ answers       └ master.sealed (read once)
//! ```
#![allow(clippy::disallowed_methods, reason = "the shell is where time and threads enter")]

mod clock;
mod core_thread;
mod identity_files;
pub mod key_file;
mod listener;
pub mod log_file;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::{DcId, InvalidId, NodeId, PublicKey, VoterId};
use trefoil_transport::{BindError, ClusterName, Endpoint, IdentityError, Limits, Plane};
use zeroize::Zeroizing;

use crate::caution::Caution;
use crate::custodian::Entropy;
use crate::placement::{COMPACT_AFTER, OpenError, Placement, Settings as CoreSettings};
use crate::shell::core_thread::CoreThread;
use crate::shell::identity_files::{IdentityFileError, IdentityFiles};
use crate::shell::key_file::KeyFileError;
use crate::shell::log_file::LogFile;

/// The log's file in the data folder.
const LOG_FILE: &str = "log.redb";

/// The file in the data folder that shows the key orders and certificates are signed with.
const SIGNING_KEY_FILE: &str = "signing.pub";

/// What a placement process must be told.
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// The process's id, as in its certificate.
    pub id: String,
    /// Where it stands; neither of the data centres, if it can.
    pub site: DcId,
    /// The folder of its log.
    pub data: PathBuf,
    /// Where nodes and operators find it.
    pub listen: SocketAddr,
    /// Where tenants find the custodian.
    pub tenant_listen: SocketAddr,
    /// The sealed keys; made at the first start.
    pub master: PathBuf,
    /// How sure it wants to be before it changes what works.
    pub caution: Caution,
    /// What opens them.
    pub passphrase: Zeroizing<String>,
    /// The cluster's root certificates.
    pub trust: PathBuf,
    /// The own certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
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
    /// The log cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The cluster's name is none.
    #[error(transparent)]
    Cluster(#[from] IdentityError),
    /// The process's id is none.
    #[error(transparent)]
    Id(#[from] InvalidId),
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
    let mut core = CoreThread::start(open_core(&settings)?);
    let server = |address, planes: &[Plane]| {
        Endpoint::server(address, identity.own(), identity.trust(), planes, limits())
    };
    let control = server(settings.listen, &[Plane::Control, Plane::Admin])?;
    let custodian = server(settings.tenant_listen, &[Plane::Tenant])?;
    tracing::info!(
        id = settings.id,
        site = %settings.site,
        listen = %settings.listen,
        tenant_listen = %settings.tenant_listen,
        "placement serves"
    );
    let mut tasks = JoinSet::new();
    for endpoint in [&control, &custodian] {
        tasks.spawn(listener::serve(endpoint.clone(), core.handle()));
    }
    tasks.spawn(identity.keep_fresh());
    let ended = tokio::select! {
        () = stop => Ok(()),
        reason = core.failed() => Err(RunError::Fatal(reason)),
    };
    // Whoever asks from now on hears nothing and asks again elsewhere or later; what was answered is
    // durable, so nothing else needs an end.
    tasks.abort_all();
    control.close().await;
    custodian.close().await;
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
    let keyring = match settings.master.exists() {
        true => key_file::load(&settings.master, settings.passphrase.as_bytes())?,
        // Keys are durable before the log's first entry, so a log without keys has lost them.
        false if is_new => key_file::create(&settings.master, settings.passphrase.as_bytes(), &mut entropy)?,
        false => return Err(RunError::KeysLost { path: settings.master.clone() }),
    };
    let shown = settings.data.join(SIGNING_KEY_FILE);
    show_signing_key(&shown, keyring.signatory.public()).map_err(at(&shown))?;
    let name: NodeId = settings.id.parse()?;
    let own = VoterEntry {
        voter: VoterId::of(name),
        name,
        dc: settings.site,
        witness: false,
        control: settings.listen,
        tenants: settings.tenant_listen,
    };
    let core = CoreSettings {
        cluster: settings.cluster.clone(),
        voter: own.voter,
        voters: vec![own],
        compact_after: COMPACT_AFTER,
        caution: settings.caution,
    };
    Ok(Placement::open(core, Some(keyring), log, Box::new(entropy), clock::boot_time())?)
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
