//! The shell of a storage node: it owns the sockets, the clock, the disk threads and the randomness,
//! turns what arrives into events, and does what the core's effects say. It decides nothing.
//!
//! One thread runs the network and the core, so that a message becomes a log write without changing
//! threads; syncs and reads run on threads of their own and come back as events.

#![allow(clippy::disallowed_methods, reason = "the shell is where time and threads enter")]

mod certificates;
mod clock;
mod control;
mod disk_threads;
mod driver;
mod peers;
mod tenants;

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::LocalSet;
use trefoil_engine::disk::file::FileDisk;
use trefoil_engine::superblock::SuperblockError;
use trefoil_engine::{DiskError, SegmentLayout, Store, StoreError};
use trefoil_protocol::config::LinkAddress;
use trefoil_protocol::ids::{DcId, LinkId, NodeId, RackId, StoreId};
use trefoil_transport::own_certificate::OwnCertificateError;
use trefoil_transport::trust::TrustError;
use trefoil_transport::{BindError, ClusterName, Endpoint, Limits, OwnCertificate, Plane, TrustStore};

use crate::{Fatal, NodeCore, NodeSettings, Pace, StartError};
use driver::Driver;

/// A peer that is to be dialled at another address than it registered, on one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detour {
    /// The peer.
    pub node: NodeId,
    /// The link.
    pub link: LinkId,
    /// The address to dial. Peers are proven by their certificates, so an address proves nothing.
    pub via: SocketAddr,
}

/// What a storage node is told by its configuration file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// This node.
    pub node: NodeId,
    /// Its data centre.
    pub dc: DcId,
    /// Its rack.
    pub rack: RackId,
    /// The directory of its store; made if missing.
    pub data: PathBuf,
    /// Bytes the store may hold.
    pub capacity: u64,
    /// Where to listen, by link; the node plane and the tenant plane share each socket.
    pub links: Vec<LinkAddress>,
    /// Peers to be dialled elsewhere.
    pub detours: Vec<Detour>,
    /// How soon and how fast it does what nobody waits for.
    pub pace: Pace,
    /// Where the control plane listens.
    pub placement: Vec<SocketAddr>,
    /// The CA certificates, PEM.
    pub trust: PathBuf,
    /// This node's certificate chain, PEM; read again when it changes.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Why a storage node ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file of the configuration cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate or key is of no use.
    #[error("{path}: {source}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: OwnCertificateError,
    },
    /// The CA certificates are of no use.
    #[error("{path}: {source}")]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TrustError,
    },
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The data directory cannot be used.
    #[error("{path}: {source}")]
    Disk {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: DiskError,
    },
    /// The store cannot be opened or made.
    #[error("{path}: {source}")]
    Store {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: StoreError,
    },
    /// The core cannot start on the store.
    #[error("{path}: {source}")]
    Start {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: StartError,
    },
    /// The store was not closed cleanly; the next start compares it with its peers.
    #[error("{path}: the store was not closed cleanly: {source}")]
    Close {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: SuperblockError,
    },
    /// The core ended the process.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl RunError {
    /// Whether the store must not be trusted before it was compared with its peers; the program
    /// then exits with 4.
    pub fn suspect(&self) -> bool {
        matches!(self, Self::Fatal(Fatal::Store(_)))
    }
}

/// Runs a storage node until `stop` is ready, then closes its store cleanly.
///
/// # Errors
/// See [`RunError`]; nothing acknowledged is lost by any of them.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    LocalSet::new().run_until(run_here(settings, stop)).await
}

async fn run_here(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let own = read_certificate(&settings)?;
    let trust = read_trust(&settings)?;
    let core = open_core(&settings)?;
    let endpoints = listen(&settings, &own, &trust)?;
    certificates::watch(own.clone(), settings.certificate.clone(), settings.key.clone());
    let (driver, mut ended) = Driver::start(&settings, core, &endpoints);
    for (_, endpoint) in &endpoints {
        tokio::task::spawn_local(accept(Rc::clone(&driver), endpoint.clone()));
    }
    tracing::info!(node = %settings.node, "listening");
    tokio::select! {
        fatal = ended.recv() => {
            let fatal = fatal.unwrap_or_else(|| Fatal::Store("the driver is gone".into()));
            return Err(fatal.into());
        }
        () = stop => {}
    }
    let closed = driver.shut_down();
    for (_, endpoint) in endpoints {
        endpoint.close().await;
    }
    closed.map_err(|source| RunError::Close { path: settings.data, source })
}

async fn accept(driver: Rc<Driver>, endpoint: Endpoint) {
    while let Some((connection, plane, _)) = endpoint.accept().await {
        match plane {
            Plane::Node => driver.peers().receive(connection),
            Plane::Tenant => drop(tokio::task::spawn_local(tenants::serve(Rc::clone(&driver), connection))),
            // The endpoint does not listen on the other planes.
            Plane::Control | Plane::Admin => {}
        }
    }
}

fn read(path: &Path) -> Result<String, RunError> {
    fs::read_to_string(path).map_err(|source| RunError::File { path: path.to_owned(), source })
}

fn read_certificate(settings: &Settings) -> Result<Arc<OwnCertificate>, RunError> {
    OwnCertificate::from_pem(&read(&settings.certificate)?, &read(&settings.key)?)
        .map_err(|source| RunError::Certificate { path: settings.certificate.clone(), source })
}

fn read_trust(settings: &Settings) -> Result<Arc<TrustStore>, RunError> {
    TrustStore::from_pem(settings.cluster.clone(), &read(&settings.trust)?)
        .map_err(|source| RunError::Trust { path: settings.trust.clone(), source })
}

fn open_core(settings: &Settings) -> Result<NodeCore<FileDisk>, RunError> {
    let path = || settings.data.clone();
    // A folder that is not there may be a disk that is not mounted: no empty store takes its place.
    fs::read_dir(&settings.data).map_err(|source| RunError::File { path: path(), source })?;
    let disk = FileDisk::open(&settings.data, Some(settings.capacity))
        .map_err(|source| RunError::Disk { path: path(), source })?;
    make_store(&disk, settings.node).map_err(|source| RunError::Store { path: path(), source })?;
    let identity = NodeSettings {
        node: settings.node,
        dc: settings.dc,
        rack: settings.rack,
        capacity: settings.capacity,
        addresses: settings.links.clone(),
        pid: std::process::id(),
        pace: settings.pace,
    };
    NodeCore::open(&disk, SegmentLayout::default(), identity, random(), clock::now())
        .map_err(|source| RunError::Start { path: path(), source })
}

/// Formats a disk that holds no store. One whose store is damaged is left alone: the engine says so.
fn make_store(disk: &FileDisk, node: NodeId) -> Result<(), StoreError> {
    match Store::open(disk, SegmentLayout::default()) {
        Err(StoreError::NotFormatted) => Store::format(disk, StoreId(random()), node, &random()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// Fresh bytes of the operating system's randomness.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives randomness once it has booted");
    bytes
}

type LinkEndpoint = (LinkId, Endpoint);

/// What the core hears here.
type Event = crate::Event<FileDisk>;

fn listen(
    settings: &Settings,
    own: &Arc<OwnCertificate>,
    trust: &Arc<TrustStore>,
) -> Result<Vec<LinkEndpoint>, BindError> {
    let planes = [Plane::Node, Plane::Tenant];
    let bind = |at: &LinkAddress| {
        Endpoint::server(at.address, own.clone(), trust.clone(), &planes, Limits::default())
            .map(|endpoint| (at.link, endpoint))
    };
    settings.links.iter().map(bind).collect()
}
