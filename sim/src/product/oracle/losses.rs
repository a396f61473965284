//! What volumes went on without: when every store that may have more has told what it has, everything that
//! was committed there and is nowhere in the new history must be on the list.

use std::collections::BTreeSet;

use trefoil_placement::state::VolumeRecord;
use trefoil_protocol::ids::{Lsn, VersionId, VolumeId};
use trefoil_protocol::record::RecordBody;

use super::Oracle;
use crate::checkers::Violation;

impl Oracle {
    /// These committed records of a volume are not in its history any more.
    pub(super) fn note_lost_puts(&mut self, volume: VolumeId, lost: &[(Lsn, RecordBody)]) {
        let known = self.lost_puts.entry(volume).or_default();
        for (_, body) in lost {
            match body {
                RecordBody::Put(put) => {
                    known.insert(put.upload.version);
                }
                RecordBody::Purging(purging) => {
                    purging.items.iter().for_each(|item| {
                        known.remove(&item.version);
                    });
                }
                _ => {}
            }
        }
    }

    /// A client sent again what was lost.
    pub(super) fn is_put_again(&mut self, volume: VolumeId, version: VersionId) {
        if let Some(lost) = self.lost_puts.get_mut(&volume) {
            lost.remove(&version);
        }
    }

    /// Looks at what the control plane knows of a volume's losses.
    pub(super) fn look_at_losses(&mut self, record: &VolumeRecord, now: u64) {
        let volume = record.config.volume;
        let listed: BTreeSet<VersionId> =
            record.losses.iter().flat_map(|loss| loss.versions(None)).map(|lost| lost.version).collect();
        self.listed.insert(volume, listed.len() as u64);
        if !record.loss().is_some_and(|loss| loss.is_told()) {
            return;
        }
        let lost = self.lost_puts.get(&volume).into_iter().flatten();
        let missing: Vec<VersionId> = lost.filter(|version| !listed.contains(version)).copied().collect();
        if let Some(first) = missing.first() {
            let sentence = format!(
                "every store has told what the volume went on without, and {} lost versions are not on the \
                 list, {first} the first",
                missing.len()
            );
            let object = format!("volume {volume}");
            self.once(Some(Violation { checker: "losses_are_listed", object, at_ns: now, sentence }));
        }
    }

    /// How many lost versions are listed.
    #[must_use]
    pub fn lost_and_listed(&self) -> u64 {
        self.listed.values().sum()
    }
}
