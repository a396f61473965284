//! What is lost when a volume goes on without some of its stores: one of them that returns compares its
//! log with the primary's and tells the control plane what it has alone, version by version, without
//! names.

use minicbor::{Decode, Encode};

use crate::ids::{Epoch, Lsn, StoreId, TenantId, VersionId, VolumeId};
use crate::message::peer::LogPoint;
use crate::time::CpTime;

/// The most versions, and the most records, that one message tells of.
pub const LOSS_PAGE_MAX: usize = 1024;
/// The most places of a log in one [`Compare`].
pub const COMPARE_POINTS_MAX: usize = 64;
/// The most stores of one volume that operators are told of.
pub const LOSS_STORES_MAX: usize = 64;

/// An estranged store asks the primary what it has.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Compare {
    /// Counts the questions of this run.
    #[n(0)]
    pub number: u64,
    /// Which of these places does the primary's log pass through?
    #[cbor(n(1), decode_with = "crate::codec::list::<COMPARE_POINTS_MAX, _, _>")]
    pub points: Vec<LogPoint>,
    /// How do these versions stand there?
    #[cbor(n(2), decode_with = "crate::codec::list::<LOSS_PAGE_MAX, _, _>")]
    pub versions: Vec<VersionId>,
}

/// What the primary has.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Compared {
    /// The question's number.
    #[n(0)]
    pub number: u64,
    /// The last of the places that its log passes through, 0 for none.
    #[n(1)]
    pub shared: Lsn,
    /// How each version stands there.
    #[cbor(n(2), decode_with = "crate::codec::list::<LOSS_PAGE_MAX, _, _>")]
    pub standings: Vec<Standing>,
}

/// How a version stands at the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Standing {
    /// Its log does not know it.
    #[n(0)]
    Unknown,
    /// It can be read.
    #[n(1)]
    Live,
    /// It is deleted or replaced, by this record.
    #[n(2)]
    Hidden(#[n(0)] Lsn),
    /// It is being purged, or gone.
    #[n(3)]
    Gone,
}

/// What became last of a version that was put, or changed, on an estranged store alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum LostKind {
    /// It was put.
    #[n(0)]
    Put,
    /// It was deleted or replaced.
    #[n(1)]
    Delete,
    /// It was brought back.
    #[n(2)]
    Undelete,
}

/// A version that an estranged store has, or has otherwise than the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LostVersion {
    /// The version.
    #[n(0)]
    pub version: VersionId,
    /// The record of the store's log that the volume lacks.
    #[n(1)]
    pub lsn: Lsn,
    /// What became of it there.
    #[n(2)]
    pub kind: LostKind,
    /// Its sealed bytes, if the volume does not know the version at all.
    #[n(3)]
    pub bytes: u64,
    /// When it happened.
    #[n(4)]
    pub at: CpTime,
    /// Whether the store knows that it was committed: then it may have been acknowledged, and otherwise
    /// nobody knows.
    #[n(5)]
    pub committed: bool,
}

/// A page of what an estranged store has alone; without one, a question where to go on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Difference {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// The epoch of the primary that it was compared with.
    #[n(1)]
    pub epoch: Epoch,
    /// The store.
    #[n(2)]
    pub store: StoreId,
    /// The last record that the store's log and the primary's have in common.
    #[n(3)]
    pub shared: Lsn,
    /// Everything up to here was told before.
    #[n(4)]
    pub after: Lsn,
    /// This tells of everything up to here.
    #[n(5)]
    pub up_to: Lsn,
    /// What differs in between.
    #[cbor(n(6), decode_with = "crate::codec::list::<LOSS_PAGE_MAX, _, _>")]
    pub versions: Vec<LostVersion>,
    /// So many records in between cannot be read.
    #[n(7)]
    pub unreadable: u64,
    /// Whether there is nothing behind this.
    #[n(8)]
    pub last: bool,
}

/// A sum of lost versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LossTotals {
    /// Versions that were put and can be seen there.
    #[n(0)]
    pub puts: u64,
    /// Versions that were hidden.
    #[n(1)]
    pub deletes: u64,
    /// Versions that were brought back.
    #[n(2)]
    pub undeletes: u64,
    /// Sealed bytes of versions that the volume does not know.
    #[n(3)]
    pub bytes: u64,
    /// When the oldest of these things happened.
    #[n(4)]
    pub oldest: Option<CpTime>,
    /// How many of them are not known to be committed.
    #[n(5)]
    pub unsure: u64,
}

impl LossTotals {
    /// Counts one more.
    pub fn add(&mut self, lost: &LostVersion) {
        match lost.kind {
            LostKind::Put => self.puts += 1,
            LostKind::Delete => self.deletes += 1,
            LostKind::Undelete => self.undeletes += 1,
        }
        self.bytes = self.bytes.saturating_add(lost.bytes);
        self.oldest = Some(self.oldest.map_or(lost.at, |oldest| oldest.min(lost.at)));
        self.unsure += u64::from(!lost.committed);
    }

    /// How many versions.
    pub fn versions(&self) -> u64 {
        self.puts + self.deletes + self.undeletes
    }
}

/// How a store stands that a volume went on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum LostStoreState {
    /// It is kept apart.
    #[n(0)]
    Estranged,
    /// It turned out to have nothing more.
    #[n(1)]
    Reconciled,
    /// Operators let it give up what it had.
    #[n(2)]
    Discarded,
    /// It is fenced for ever.
    #[n(3)]
    Fenced,
}

/// What is known of one store that a volume went on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LostStoreView {
    /// The store.
    #[n(0)]
    pub store: StoreId,
    /// How it stands.
    #[n(1)]
    pub state: LostStoreState,
    /// Whether it has told everything.
    #[n(2)]
    pub heard: bool,
    /// What it has told.
    #[n(3)]
    pub totals: LossTotals,
    /// Records of it that cannot be read.
    #[n(4)]
    pub unreadable: u64,
}

/// What is known of what a volume went on without.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LossView {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// Its tenant.
    #[n(1)]
    pub tenant: TenantId,
    /// The first epoch after it.
    #[n(2)]
    pub epoch: Epoch,
    /// The proposal by which operators wanted it; 0 for a restore of the control plane.
    #[n(3)]
    pub proposal: u64,
    /// When.
    #[n(4)]
    pub at: CpTime,
    /// Nobody knows what was acknowledged and lost since then.
    #[n(5)]
    pub unknown_since: Option<CpTime>,
    /// At most so many objects and bytes, as the account said.
    #[n(6)]
    pub account: Option<(u64, u64)>,
    /// The stores, each with what it has told.
    #[cbor(n(7), decode_with = "crate::codec::list::<LOSS_STORES_MAX, _, _>")]
    pub stores: Vec<LostStoreView>,
    /// What all of them told together, as far as it is listed.
    #[n(8)]
    pub listed: LossTotals,
    /// So many more were told and found no room in the list.
    #[n(9)]
    pub unlisted: u64,
    /// Whether a store is still kept apart.
    #[n(10)]
    pub open: bool,
}
