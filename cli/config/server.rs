//! The configuration of a storage node and of a placement process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::{beside, load};
use crate::failure::Verdict;
use crate::quantity;

/// Where a node listens on one of the two links.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkTable {
    /// 1 or 2.
    pub(crate) id: u8,
    /// The address of this node on that link.
    pub(crate) listen: SocketAddr,
}

/// Another way to a peer on one link: through a tunnel, a translated address, a relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetourTable {
    /// The peer.
    pub(crate) node: String,
    /// 1 or 2.
    pub(crate) link: u8,
    /// Where to dial it instead of its registered address.
    pub(crate) via: SocketAddr,
}

/// A storage node's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeFile {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The node's id; also in its certificate.
    pub(crate) id: String,
    /// Its data centre.
    pub(crate) dc: String,
    /// Its rack.
    pub(crate) rack: String,
    /// The folder of its store.
    pub(crate) data: PathBuf,
    /// How many bytes it may use.
    #[serde(deserialize_with = "size")]
    pub(crate) capacity: u64,
    /// The control plane's processes.
    pub(crate) placement: Vec<SocketAddr>,
    /// The cluster's root certificates.
    pub(crate) trust: PathBuf,
    /// The own certificate.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// Where it listens.
    pub(crate) links: Vec<LinkTable>,
    /// How long a wrapped key rides in its record before it moves to the key bag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keys_move_after: Option<String>,
    /// Other ways to peers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) detours: Vec<DetourTable>,
}

/// A placement process's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlacementFile {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The process's id; also in its certificate.
    pub(crate) id: String,
    /// Its site.
    pub(crate) dc: String,
    /// The folder of its log and state.
    pub(crate) data: PathBuf,
    /// Where nodes and operators find it.
    pub(crate) listen: SocketAddr,
    /// Where tenants find the custodian.
    pub(crate) tenant_listen: SocketAddr,
    /// The sealed master key.
    pub(crate) master: PathBuf,
    /// How long a data centre must be back, without a doubt, before it is relied on again; a minute
    /// unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restore_after: Option<String>,
    /// The file with the passphrase that opens it; without, `TREFOIL_PASSPHRASE` is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The cluster's root certificates.
    pub(crate) trust: PathBuf,
    /// The own certificate.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
}

impl NodeFile {
    /// Reads a configuration; its paths become relative to the working folder.
    pub(crate) fn read(path: &Path) -> Verdict<Self> {
        let mut file: Self = load(path)?;
        for inner in [&mut file.data, &mut file.trust, &mut file.certificate, &mut file.key] {
            *inner = beside(path, inner);
        }
        Ok(file)
    }
}

impl PlacementFile {
    /// Reads a configuration; its paths become relative to the working folder.
    pub(crate) fn read(path: &Path) -> Verdict<Self> {
        let mut file: Self = load(path)?;
        let passphrase = file.passphrase_file.as_mut();
        let own = [&mut file.data, &mut file.master, &mut file.trust, &mut file.certificate, &mut file.key];
        for inner in own.into_iter().chain(passphrase) {
            *inner = beside(path, inner);
        }
        Ok(file)
    }
}

/// A size as a number of bytes or as text with a unit.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(number) => Ok(number),
        Written::Text(text) => quantity::size(&text).map_err(serde::de::Error::custom),
    }
}
