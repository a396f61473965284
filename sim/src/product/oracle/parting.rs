//! A volume that operators let go on without its complete stores: what was lost must be within the account
//! that they were shown, and what comes afterwards is judged from what is there when it serves again.
//!
//! What is there then is asked of the primary's index, because no client can know it. That nothing deleted
//! is among it is judged elsewhere, by what clients were told before.

use std::collections::{BTreeMap, BTreeSet};

use trefoil_protocol::ids::{Epoch, Lsn, TenantId, VersionId, VolumeId};
use trefoil_protocol::key::{ObjectKey, volume_slot};
use trefoil_protocol::message::admin::AtRiskView;
use trefoil_protocol::message::holdings::GENERATION_STEP;
use trefoil_protocol::record::RecordBody;

use super::health::newest_state;
use super::records::token_key;
use super::stores::serves;
use super::{Oracle, tag};
use crate::checkers::Violation;
use crate::cluster::View;
use crate::history::{ObjectId, Step, Value, Verb};
use crate::network::NodeIndex;
use crate::product::process::Process;

/// By whose hand a volume's objects become what they are when it serves again.
const NOBODY: u32 = u32::MAX;

/// A volume on its way from one history into another.
#[derive(Clone, Debug)]
pub(super) struct Parting {
    tenant: TenantId,
    slot: u32,
    volumes: u32,
    /// What operators were shown.
    account: Option<AtRiskView>,
}

impl Oracle {
    /// Operators are about to let a volume go on.
    pub(crate) fn will_part(&mut self, view: &View<'_, Process>, volume: VolumeId) {
        let Some(state) = newest_state(view) else { return };
        let Some(record) = state.volumes.get(volume) else { return };
        let config = &record.config;
        let volumes = state.tenants.get(config.tenant).map_or(1, |tenant| tenant.entry.volume_count);
        let account = record.at_risk.as_ref().filter(|account| account.is_exact());
        let account = account.map(|account| account.view(volume));
        let parting = Parting { tenant: config.tenant, slot: config.slot, volumes, account };
        self.parting.insert(volume, parting);
        self.logs.entry(volume).or_default().may_part_behind(config.epoch);
    }

    /// The control plane goes on from what one voter knows, which may be less than was decided: nobody knows
    /// what that loses.
    pub(crate) fn may_all_part(&mut self, view: &View<'_, Process>) {
        let Some(state) = newest_state(view) else { return };
        for record in state.volumes.all() {
            let volume = record.config.volume;
            self.will_part(view, volume);
            self.parting.entry(volume).and_modify(|parting| parting.account = None);
            // Epochs of the next generation are so far above all that were ever promised.
            let behind = Epoch(record.config.epoch.0 + GENERATION_STEP - 1);
            self.logs.entry(volume).or_default().may_part_behind(behind);
        }
    }

    /// The first committed records of the new history came; these of the old one are lost.
    pub(super) fn went_on_without(
        &mut self,
        view: &View<'_, Process>,
        volume: VolumeId,
        lost: &[(Lsn, RecordBody)],
    ) {
        self.look_at_the_account(view, volume, lost);
        self.note_lost_puts(volume, lost);
        let mut touched = BTreeSet::new();
        for (_, body) in lost {
            let token = match body {
                RecordBody::Void { token } => Some(*token),
                body => body.cause().map(|cause| cause.token),
            };
            token.into_iter().for_each(|token| self.idempotency.forget(token_key(token)));
            touched.extend(touched_by(body));
        }
        let standing = self.standing(volume, lost[0].0);
        let is_known = self.parting.get(&volume).is_some_and(|parting| parting.account.is_some());
        let purged = self.purged_before(volume, lost[0].0);
        for version in touched.into_iter().filter(|version| !purged.contains(version)) {
            self.condemned.remove(&version);
            self.past_return.remove(&version);
            if !is_known {
                // The list of its deletes is lost with the control plane that had it.
                self.resurrection.undeleting(tag(version));
            }
            match standing.get(&version) {
                Some(Some(window_ends)) => self.condemn(version, *window_ends),
                _ => self.erase.is_back(tag(version)),
            }
        }
    }

    /// Nothing is lost but what the control plane said might be.
    fn look_at_the_account(
        &mut self,
        view: &View<'_, Process>,
        volume: VolumeId,
        lost: &[(Lsn, RecordBody)],
    ) {
        let Some(account) = self.parting.get(&volume).and_then(|parting| parting.account) else { return };
        let sizes = lost.iter().filter_map(|(_, body)| match body {
            RecordBody::Put(put) => Some(put.sealed_length),
            _ => None,
        });
        let (objects, bytes) = sizes.fold((0, 0), |(objects, bytes), size| (objects + 1, bytes + size));
        let within = lost.iter().all(|(lsn, _)| (account.since.next()..=account.last).contains(lsn));
        let held = within && objects <= account.objects && bytes <= account.bytes;
        self.once((!held).then(|| Violation {
            checker: "no_lost_write",
            object: format!("volume {volume}"),
            at_ns: view.now,
            sentence: format!(
                "{objects} objects and {bytes} bytes are lost behind record {}, and the account said at most \
                 {account:?}",
                lost[0].0.previous()
            ),
        }));
    }

    /// Which versions were past the point of no return before `end`: they stay so.
    fn purged_before(&self, volume: VolumeId, end: Lsn) -> BTreeSet<VersionId> {
        let bodies = self.logs[&volume].bodies().take_while(|(lsn, _)| *lsn < end);
        let purgings = bodies.filter_map(|(_, body)| match body {
            RecordBody::Purging(purging) => Some(&purging.items),
            _ => None,
        });
        purgings.flatten().map(|item| item.version).collect()
    }

    /// Which versions records before `end` had hidden, and until when they may be brought back.
    fn standing(&self, volume: VolumeId, end: Lsn) -> BTreeMap<VersionId, Option<u64>> {
        let mut standing = BTreeMap::new();
        for (_, body) in self.logs[&volume].bodies().take_while(|(lsn, _)| *lsn < end) {
            match body {
                RecordBody::Put(put) => {
                    let ends = put.cause.at.0 + put.window.0;
                    standing.extend(put.replaces.map(|replaced| (replaced, Some(ends))));
                    standing.insert(put.upload.version, None);
                }
                RecordBody::Delete(delete) => {
                    standing.insert(delete.version, Some(delete.cause.at.0 + delete.window.0));
                }
                RecordBody::Undelete(undelete) => {
                    standing.insert(undelete.version, None);
                }
                _ => {}
            }
        }
        standing
    }

    /// A volume that parted from its history serves again: from here on its objects are what they are here.
    pub(super) fn look_at_partings(&mut self, view: &View<'_, Process>, node: NodeIndex) {
        let serving = |volume: &&VolumeId| serves(view, node, **volume);
        let Some(volume) = self.parting.keys().find(serving).copied() else { return };
        let parting = self.parting.remove(&volume).expect("it was just seen");
        let storage = view.nodes[usize::from(node.0)].program().and_then(Process::storage);
        let replica = storage.and_then(|storage| storage.core().volumes().get(&volume));
        let index = replica.expect("it serves the volume").holding().index();
        let tenant = &self.tenants[&parting.tenant];
        let objects: Vec<ObjectId> = self.history.objects().map(|(object, _)| object.clone()).collect();
        for object in objects.into_iter().filter(|object| object.tenant == *tenant) {
            let key = ObjectKey::new(object.key.clone()).expect("a workload's keys are short text");
            if volume_slot(&key, parting.volumes) != parting.slot {
                continue;
            }
            let value =
                index.latest(&key).map_or(Value::Absent, |found| Value::Version(tag(found.version())));
            let step = Step { requires: None, becomes: Some(value) };
            let pending = self.history.invoke(object, NOBODY, Verb::Put, step, view.now);
            self.history.answer(&pending, step, view.now);
        }
    }
}

fn touched_by(body: &RecordBody) -> Vec<VersionId> {
    match body {
        RecordBody::Put(put) => put.replaces.into_iter().chain([put.upload.version]).collect(),
        RecordBody::Delete(delete) => vec![delete.version],
        RecordBody::Undelete(undelete) => vec![undelete.version],
        RecordBody::Purging(purging) => purging.items.iter().map(|item| item.version).collect(),
        _ => Vec::new(),
    }
}
