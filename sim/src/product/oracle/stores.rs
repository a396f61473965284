//! The white-box looks: into the disks at the instant of an acknowledgement, and at who would
//! answer "latest" now.

use trefoil_placement::state::{AtRisk, VolumeRecord};
use trefoil_protocol::config::{Member, Protection, SingleDcPolicy, VolumeConfig};
use trefoil_protocol::ids::{Lsn, NodeId, VersionId, VolumeId};
use trefoil_protocol::message::tenant::TenantAnswer;
use trefoil_protocol::record::INLINE_MAX;
use trefoil_protocol::time::BootTime;
use trefoil_protocol::tree::leaf_count;

use super::Oracle;
use crate::checkers::Violation;
use crate::checkers::durable_at_ack::{self, Acknowledgement, Copy};
use crate::cluster::View;
use crate::disk::Landmark;
use crate::network::NodeIndex;
use crate::product::process::Process;
use crate::product::roster;

impl Oracle {
    /// An answer that promises durability leaves a node.
    pub(super) fn acknowledged(
        &mut self,
        view: &View<'_, Process>,
        config: &VolumeConfig,
        answer: &TenantAnswer,
    ) {
        let (lsn, version, stored) = match answer {
            TenantAnswer::Stored(receipt) => (receipt.lsn, receipt.version, true),
            TenantAnswer::Deleted { version, tombstone, .. } => (*tombstone, *version, false),
            TenantAnswer::Undeleted { version, lsn } => (*lsn, *version, false),
            _ => return,
        };
        if stored && self.past_return.contains(&version) {
            // It may be erased before a retry hears its old answer.
            return;
        }
        self.protections.insert(format!("{:?}", config.protection));
        self.acknowledged_at.push(view.now - self.began_at);
        if config.protection == Protection::SingleDc && config.single_dc == SingleDcPolicy::Refuse {
            let broken = self.promised_in_one(view, config.volume, version, lsn);
            self.once(broken);
        }
        if !stored && config.protection == Protection::SingleDc {
            let unknown = self.unknown_to_placement(view, config.volume, version, lsn);
            self.once(unknown);
        }
        let durable = |node: NodeId| {
            has_lied(view, node)
                || self.has_durably(view, node, config.volume, lsn)
                    && (!stored || self.has_payload(view, node, version))
        };
        // A retry may hear its first answer under a later configuration: whoever still has it counts,
        // member or not. But no store may be called in sync without it.
        let copy = |(name, dc): &(&str, crate::network::Site)| {
            let node = name.parse().expect("the names of the roster are node ids");
            Copy { node: (*name).to_owned(), dc: *dc, durable: durable(node) }
        };
        let copies: Vec<Copy> = roster::STORAGE.iter().map(copy).collect();
        let in_sync =
            |copy: &&Copy| config.in_sync().any(|member: &Member| member.node.as_str() == copy.node);
        let object = self.object_of(version);
        let lacking = copies.iter().filter(in_sync).find(|copy| !copy.durable);
        let lacking = lacking.map(|copy| Violation {
            checker: "durable_at_ack",
            object: object.clone(),
            at_ns: view.now,
            sentence: format!(
                "acknowledged while {} is in sync and does not have record {lsn} of volume {} durably",
                copy.node, config.volume
            ),
        });
        let seen = Acknowledgement {
            at_ns: view.now,
            object,
            protection: match config.protection {
                Protection::BothDcs | Protection::Restoring => durable_at_ack::Protection::BothDcs,
                Protection::SingleDc => durable_at_ack::Protection::SingleDc,
            },
            copies,
        };
        self.violations.extend(lacking.or_else(|| durable_at_ack::check(&seen)));
    }

    /// A strict tenant is promised nothing that one data centre alone may have.
    fn promised_in_one(
        &self,
        view: &View<'_, Process>,
        volume: VolumeId,
        version: VersionId,
        lsn: Lsn,
    ) -> Option<Violation> {
        let placements = view.nodes.iter().filter_map(|node| node.program()?.placement());
        let accounts: Vec<&AtRisk> = placements
            .filter_map(|placement| placement.core().state().volumes.get(volume)?.at_risk.as_ref())
            .collect();
        let broken = !accounts.is_empty() && accounts.iter().all(|account| lsn > account.since());
        broken.then(|| Violation {
            checker: "strict",
            object: self.object_of(version),
            at_ns: view.now,
            sentence: format!("record {lsn} of volume {volume} was acknowledged in one data centre alone"),
        })
    }

    /// A delete or undelete that one data centre acknowledges alone must be in the control plane too.
    fn unknown_to_placement(
        &self,
        view: &View<'_, Process>,
        volume: VolumeId,
        version: VersionId,
        lsn: Lsn,
    ) -> Option<Violation> {
        let placements = view.nodes.iter().filter_map(|node| node.program()?.placement());
        let records: Vec<&VolumeRecord> =
            placements.filter_map(|placement| placement.core().state().volumes.get(volume)).collect();
        // Without an account the volume has left `SingleDc`, with the proof that this needs.
        let knows = |record: &&VolumeRecord| {
            record.at_risk.as_ref().is_none_or(|account| account.knows(version, lsn))
        };
        let is_known = records.is_empty() || records.iter().any(knows);
        (!is_known).then(|| Violation {
            checker: "at_risk",
            object: self.object_of(version),
            at_ns: view.now,
            sentence: format!(
                "record {lsn} of volume {volume} was acknowledged in one data centre, and the control \
                 plane does not know what it did"
            ),
        })
    }

    pub(super) fn has_durably(
        &self,
        view: &View<'_, Process>,
        node: NodeId,
        volume: VolumeId,
        lsn: Lsn,
    ) -> bool {
        let Some(place) = roster::place_of(node) else { return false };
        let landmark = Landmark::Record { volume: volume.0, lsn: lsn.0 };
        view.nodes[usize::from(place.0)].disk().is_landmark_durable(&landmark)
    }

    fn has_payload(&self, view: &View<'_, Process>, node: NodeId, version: VersionId) -> bool {
        let (Some(place), Some(made)) = (roster::place_of(node), self.made.get(&version)) else {
            return false;
        };
        let length = made.sealed.len() as u64;
        if length <= INLINE_MAX {
            return true;
        }
        let disk = view.nodes[usize::from(place.0)].disk();
        (0..leaf_count(length)).all(|index| {
            let (version, attempt) = (made.upload.version.0, made.upload.attempt);
            disk.is_landmark_durable(&Landmark::Leaf { version, attempt, index })
        })
    }

    /// Whether two nodes would answer "latest" of one volume, now that this one took a step.
    pub(super) fn who_serves(&mut self, view: &View<'_, Process>, stepped: NodeIndex) {
        let Some(name) = roster::STORAGE.get(usize::from(stepped.0)).map(|(name, _)| *name) else { return };
        let node = &view.nodes[usize::from(stepped.0)];
        let Some(storage) = node.program().and_then(Process::storage) else {
            return self.serving.dies(name);
        };
        for volume in storage.core().volumes().keys() {
            if !serves(view, stepped, *volume) {
                self.serving.ends(volume.0, name);
                continue;
            }
            for (other, _) in (0..).map(NodeIndex).zip(roster::STORAGE) {
                if other != stepped && !serves(view, other, *volume) {
                    self.serving.ends(volume.0, roster::STORAGE[usize::from(other.0)].0);
                }
            }
            let found = self.serving.begins(volume.0, name, view.now);
            // Said once, not at every step until it is over.
            if let Some(found) = found
                && !self
                    .violations
                    .iter()
                    .any(|before| before.checker == found.checker && before.object == found.object)
            {
                self.violations.push(found);
            }
        }
    }
}

/// A disk that lied about a write is beyond what a node can promise; other checkers see what comes
/// of it.
fn has_lied(view: &View<'_, Process>, node: NodeId) -> bool {
    roster::place_of(node).is_some_and(|place| view.nodes[usize::from(place.0)].disk().has_lied())
}

pub(super) fn serves(view: &View<'_, Process>, index: NodeIndex, volume: VolumeId) -> bool {
    let node = &view.nodes[usize::from(index.0)];
    let now = BootTime(node.clock().read(view.now).boot);
    node.program().and_then(Process::storage).is_some_and(|storage| storage.core().serves(volume, now))
}
