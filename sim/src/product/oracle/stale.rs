//! Exact versions: which is asked for, and whether it may leave a node as it does.

use std::time::Duration;

use bytes::Bytes;
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{Lsn, VersionId, VolumeId};
use trefoil_protocol::record::RecordBody;

use super::Oracle;
use super::clients::Under;
use crate::checkers::stale_versions::{self, Given};
use crate::cluster::View;
use crate::network::NodeIndex;
use crate::product::process::Process;
use crate::product::roster;

impl Oracle {
    /// A storage node describes or gives a version.
    pub(super) fn gave(
        &mut self,
        view: &View<'_, Process>,
        node: NodeIndex,
        config: &VolumeConfig,
        (version, marked): (VersionId, bool),
        leased_for: Duration,
    ) {
        let Some((name, _)) = roster::STORAGE.get(usize::from(node.0)) else { return };
        let tenant = self.tenants.get(&config.tenant);
        let allowed = tenant.is_some_and(|tenant| self.shape.stale_reads.contains(tenant));
        let delete = self.deletes.get(&version).copied();
        let deleted_here = delete.is_some_and(|(volume, lsn)| {
            let node = name.parse().expect("the names of the roster are node ids");
            self.has_durably(view, node, volume, lsn)
        });
        let (object, node) = (self.object_of(version), (*name).to_owned());
        let given = Given { at_ns: view.now, object, node, marked, leased_for, allowed, deleted_here };
        self.once(stale_versions::check(&given));
    }

    /// A record is committed that hides a version or brings it back.
    pub(super) fn note_hidden(&mut self, volume: VolumeId, lsn: Lsn, body: &RecordBody) {
        match body {
            RecordBody::Delete(delete) => drop(self.deletes.insert(delete.version, (volume, lsn))),
            RecordBody::Undelete(undelete) => drop(self.deletes.remove(&undelete.version)),
            RecordBody::Put(put) => {
                self.deletes.extend(put.replaces.map(|replaced| (replaced, (volume, lsn))));
            }
            _ => {}
        }
    }

    /// A client was given a version, marked.
    pub(super) fn found_stale(&mut self, now: u64, under: &Under, version: VersionId, bytes: Option<Bytes>) {
        self.stale += 1;
        self.check_version(now, under, version, bytes);
    }

    /// What was read as a version is what was written as it.
    pub(super) fn check_version(
        &mut self,
        now: u64,
        under: &Under,
        version: VersionId,
        bytes: Option<Bytes>,
    ) {
        let Some(bytes) = bytes else { return };
        let written = self.plains.get(&version).copied().filter(|_| under.asked_for(version));
        let found = stale_versions::check_bytes(&under.object().to_string(), written, &bytes, now);
        self.once(found);
    }
}
