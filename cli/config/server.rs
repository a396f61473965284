//! The configuration of a storage node and of a placement process.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::{NodeId, VoterId};

use super::{beside, load};
use crate::failure::{Failure, Verdict};
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
    /// Bytes a second that repair may always do of the disk, however little clients do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repair_floor: Option<u64>,
    /// Other ways to peers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) detours: Vec<DetourTable>,
}

/// One who keeps the control plane's log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VoterTable {
    /// Its id; also in its certificate.
    pub(crate) id: String,
    /// Its site.
    pub(crate) dc: String,
    /// Where nodes, operators and other voters find it.
    pub(crate) control: SocketAddr,
    /// Where tenants find its custodian; a witness has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tenants: Option<SocketAddr>,
    /// Whether it only keeps the log and holds no key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) witness: bool,
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
    /// The sealed keys that all voters but the witness share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) master: Option<PathBuf>,
    /// How long a data centre must be back, without a doubt, before it is relied on again; a minute
    /// unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restore_after: Option<String>,
    /// For how long a store must be slow before it is put out; ten seconds unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slow_for: Option<String>,
    /// How much longer than elsewhere a small piece of work takes on a slow store, at least; 50 ms unless it
    /// says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slow_floor: Option<String>,
    /// How long a store that was put out must be well before it gets a role again; five minutes unless it
    /// says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) probation: Option<String>,
    /// The file with the passphrase that opens it; without, `TREFOIL_PASSPHRASE` is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The cluster's root certificates.
    pub(crate) trust: PathBuf,
    /// The own certificate.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// Whether this process joins voters that are there already: it begins with what they send it, once
    /// it was added with `trefoil voter add`. Without, a process without a log founds a cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) join: bool,
    /// Everybody who keeps the log when the cluster is made, this process too; the same list for each.
    /// For one that joins: itself, and the voters that are there. Without, this process keeps it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) voters: Vec<VoterTable>,
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
        let secrets = file.passphrase_file.as_mut().into_iter().chain(file.master.as_mut());
        let own = [&mut file.data, &mut file.trust, &mut file.certificate, &mut file.key];
        for inner in own.into_iter().chain(secrets) {
            *inner = beside(path, inner);
        }
        Ok(file)
    }

    /// Everybody who keeps the log, this process first if it is alone.
    pub(crate) fn council(&self) -> Verdict<Vec<VoterEntry>> {
        if self.voters.is_empty() && self.join {
            return Err(Failure::usage("`join` needs `voters`: this process, and those that it joins"));
        }
        if self.voters.is_empty() {
            let alone = VoterTable {
                id: self.id.clone(),
                dc: self.dc.clone(),
                control: self.listen,
                tenants: Some(self.tenant_listen),
                witness: false,
            };
            return Ok(vec![alone.entry()?]);
        }
        let entries: Vec<VoterEntry> = self.voters.iter().map(VoterTable::entry).collect::<Verdict<_>>()?;
        let distinct: BTreeSet<VoterId> = entries.iter().map(|entry| entry.voter).collect();
        let keepers = entries.iter().filter(|entry| !entry.witness).count();
        let own = entries.iter().find(|entry| entry.name.as_str() == self.id);
        let wrong = if distinct.len() < entries.len() {
            "voters: an id stands there twice"
        } else if entries.len().is_multiple_of(2) && !self.join {
            "voters: an even number is no safer than one less; give 1, 3 or 5"
        } else if keepers == 0 {
            "voters: at least one of them must hold keys"
        } else if own.is_none_or(|own| own.dc.as_str() != self.dc) {
            "voters: this process (`id`, `dc`) is not among them"
        } else {
            return Ok(entries);
        };
        Err(Failure::usage(wrong))
    }
}

impl VoterTable {
    fn entry(&self) -> Verdict<VoterEntry> {
        let name: NodeId = self.id.parse().map_err(Failure::usage)?;
        if self.tenants.is_none() && !self.witness {
            return Err(Failure::usage(format!(
                "voters: {name} needs `tenants`, where its custodian listens"
            )));
        }
        Ok(VoterEntry {
            voter: VoterId::of(name),
            name,
            dc: self.dc.parse().map_err(Failure::usage)?,
            witness: self.witness,
            control: self.control,
            tenants: self.tenants.unwrap_or(self.control),
        })
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
