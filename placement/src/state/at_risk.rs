//! What one data centre alone has acknowledged of a volume: a bound that is committed before it is
//! exceeded, and every version that was hidden or brought back meanwhile. It is kept until both data
//! centres hold everything, and holds no name.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use trefoil_protocol::ids::{Lsn, VersionId, VolumeId};
use trefoil_protocol::message::admin::AtRiskView;
use trefoil_protocol::message::control::{
    AT_RISK_BYTES, AT_RISK_RECORDS, Note, Noted, Visibility, VisibilityChange,
};
use trefoil_protocol::time::CpTime;

use super::command::Rejection;

/// With so many versions on a volume's list, nothing more may be hidden there; what is under way may
/// still come.
const CHANGES_MAX: usize = 1 << 18;

/// The most versions that the list takes, from whomever.
const CHANGES_LIMIT: usize = CHANGES_MAX + 2 * AT_RISK_RECORDS as usize;

/// One volume's account.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AtRisk {
    /// Everything up to here is in both data centres.
    #[n(0)]
    since: Lsn,
    /// When the account was opened.
    #[n(1)]
    opened: CpTime,
    /// Up to here the account is exact.
    #[n(2)]
    noted: Lsn,
    #[n(3)]
    objects: u64,
    #[n(4)]
    bytes: u64,
    /// So many bytes more may be acknowledged before they are noted.
    #[n(5)]
    reserved: u64,
    #[n(6)]
    changes: BTreeMap<VersionId, (Lsn, Visibility)>,
    /// Whether nothing is missing here that was noted before a restore.
    #[n(7)]
    exact: bool,
}

impl AtRisk {
    /// Opens an account: everything up to `since` was acknowledged by both data centres.
    pub(super) fn open(since: Lsn, opened: CpTime) -> Self {
        let changes = BTreeMap::new();
        let (objects, bytes, exact) = (0, 0, true);
        Self { since, opened, noted: since, objects, bytes, reserved: AT_RISK_BYTES, changes, exact }
    }

    /// An account of which nobody knows how it began: all that can be said is what comes after.
    pub(super) fn unknown(opened: CpTime) -> Self {
        Self { exact: false, ..Self::open(Lsn::ZERO, opened) }
    }

    /// An epoch begins that goes on with this account: its primary knew this committed point. What an
    /// unknown account does not know ends here.
    pub(super) fn go_on(&mut self, committed: Lsn) {
        if !self.exact {
            self.noted = self.noted.max(committed);
        }
    }

    /// Whether it tells everything.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Takes what a primary says, if it goes on where the account ends. The answer is where it ends now.
    pub(super) fn note(&mut self, note: &Note) -> Result<Noted, Rejection> {
        if note.after == self.noted && note.up_to >= note.after {
            self.check(&note.changes)?;
            for change in &note.changes {
                self.changes.insert(change.version, (change.lsn, change.visibility));
            }
            self.noted = note.up_to;
            self.objects += note.objects;
            self.bytes += note.bytes;
            self.reserved = note.reserve.max(AT_RISK_BYTES);
        }
        Ok(self.position())
    }

    fn check(&self, changes: &[VisibilityChange]) -> Result<(), Rejection> {
        let fits = self.changes.len() + changes.len() <= CHANGES_LIMIT;
        fits.then_some(()).ok_or(Rejection::TooMuch("versions hidden in one data centre"))
    }

    fn position(&self) -> Noted {
        Noted {
            up_to: self.noted,
            objects: self.objects,
            bytes: self.bytes,
            reserved: self.reserved,
            full: self.changes.len() >= CHANGES_MAX,
            since: self.since,
        }
    }

    /// When it was opened.
    pub fn opened(&self) -> CpTime {
        self.opened
    }

    /// Everything up to here is in both data centres.
    pub fn since(&self) -> Lsn {
        self.since
    }

    /// Whether a delete or undelete of `version` at `lsn` survives the loss of the one data centre.
    pub fn knows(&self, version: VersionId, lsn: Lsn) -> bool {
        lsn <= self.since || self.changes.get(&version).is_some_and(|(known, _)| *known >= lsn)
    }

    /// Everything that was hidden or brought back, in that order: no two versions of an object are
    /// visible at any moment of it.
    pub(super) fn changes(&self) -> Vec<VisibilityChange> {
        let change = |(version, (lsn, visibility)): (&VersionId, &(Lsn, Visibility))| VisibilityChange {
            version: *version,
            lsn: *lsn,
            visibility: *visibility,
        };
        let mut changes: Vec<VisibilityChange> = self.changes.iter().map(change).collect();
        changes.sort_unstable_by_key(|change| (change.lsn, change.version));
        changes
    }

    /// What is known of a version that was hidden or brought back.
    pub fn change(&self, version: VersionId) -> Option<(Lsn, Visibility)> {
        self.changes.get(&version).copied()
    }

    /// For operators: never less than what was acknowledged.
    pub fn view(&self, volume: VolumeId) -> AtRiskView {
        let hidden = self.changes.values().filter(|(_, visibility)| *visibility == Visibility::Hidden);
        AtRiskView {
            volume,
            opened: self.opened,
            since: self.since,
            last: Lsn(self.noted.0 + AT_RISK_RECORDS),
            objects: self.objects + AT_RISK_RECORDS,
            bytes: self.bytes.saturating_add(self.reserved),
            hidden: hidden.count() as u64,
            exact: self.exact,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_protocol::ids::Epoch;

    fn note(after: u64, up_to: u64, version: u8, visibility: Visibility) -> Note {
        let change = VisibilityChange { version: VersionId([version; 16]), lsn: Lsn(up_to), visibility };
        Note {
            after: Lsn(after),
            up_to: Lsn(up_to),
            objects: 1,
            bytes: 10,
            changes: vec![change],
            ..Note::question(VolumeId(1), Epoch(2))
        }
    }

    #[test]
    fn a_note_counts_once_and_only_where_the_account_ends() {
        let mut account = AtRisk::open(Lsn(7), CpTime(5));
        let first = note(7, 9, 1, Visibility::Hidden);
        assert_eq!(account.note(&first).unwrap().up_to, Lsn(9));
        let again = account.note(&first).unwrap();
        assert_eq!((again.up_to, again.objects, again.bytes), (Lsn(9), 1, 10));
        let ahead = account.note(&note(11, 12, 2, Visibility::Hidden)).unwrap();
        assert_eq!(ahead.up_to, Lsn(9), "a gap is not skipped");
        assert_eq!(account.change(VersionId([2; 16])), None);
        account.note(&note(9, 10, 1, Visibility::Live)).unwrap();
        assert_eq!(account.change(VersionId([1; 16])), Some((Lsn(10), Visibility::Live)));
    }

    #[test]
    fn the_bound_is_above_everything_that_may_be_acknowledged_before_it_moves() {
        let mut account = AtRisk::open(Lsn(7), CpTime(5));
        let before = account.view(VolumeId(1));
        assert_eq!((before.last, before.objects), (Lsn(7 + AT_RISK_RECORDS), AT_RISK_RECORDS));
        let large = Note { reserve: 5 * AT_RISK_BYTES, ..note(7, 9, 1, Visibility::Hidden) };
        account.note(&large).unwrap();
        assert_eq!(account.view(VolumeId(1)).bytes, 10 + 5 * AT_RISK_BYTES);
    }
}
