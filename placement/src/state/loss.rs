//! What is known of what volumes went on without: what the account said, and what each estranged store
//! told when it returned. It is kept when the store is discarded, and holds no name.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use trefoil_protocol::ids::{Epoch, Lsn, StoreId, VersionId, VolumeId};
use trefoil_protocol::loss_list::{LISTED_MAX, LossStatement, hash_of};
use trefoil_protocol::message::approval::ProposalState;
use trefoil_protocol::message::loss::{
    Difference, LOSS_STORES_MAX, LossTotals, LossView, LostStoreState, LostStoreView, LostVersion,
};
use trefoil_protocol::time::CpTime;

use super::State;
use super::command::{Outcome, Rejection};
use super::parting::Parting;
use super::volumes::{VolumeRecord, Volumes};

/// The most versions that are listed of all volumes together.
const LISTED_IN_ALL_MAX: u64 = 1 << 20;

/// So many losses of one volume are remembered.
const LOSSES_KEPT: usize = 8;

/// What an estranged store told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Told {
    #[n(0)]
    up_to: Lsn,
    #[n(1)]
    all: bool,
    #[n(2)]
    totals: LossTotals,
    #[n(3)]
    unreadable: u64,
}

/// One time that a volume went on without stores.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Loss {
    #[n(0)]
    proposal: u64,
    /// The first epoch after it.
    #[n(1)]
    epoch: Epoch,
    #[n(2)]
    at: CpTime,
    /// There was no exact account: since then nobody knows what was acknowledged.
    #[n(3)]
    unknown_since: Option<CpTime>,
    /// At most so many objects and bytes, by the account.
    #[n(4)]
    account: Option<(u64, u64)>,
    /// The stores that may have more, with what they told.
    #[n(5)]
    stores: BTreeMap<StoreId, Told>,
    #[n(6)]
    listed: BTreeMap<VersionId, LostVersion>,
    #[n(7)]
    unlisted: u64,
}

impl Loss {
    /// Of a volume that goes on now. Where there is no account, nobody knows since `unknown_since`.
    pub(super) fn of(
        parting: &Parting,
        at: CpTime,
        unknown_since: Option<CpTime>,
        account: Option<(u64, u64)>,
    ) -> Self {
        let stores = parting.estranged.keys().map(|store| (*store, Told::default())).collect();
        Self {
            proposal: parting.proposal,
            epoch: parting.epoch,
            at,
            unknown_since,
            account,
            stores,
            listed: BTreeMap::new(),
            unlisted: 0,
        }
    }

    /// Whether this store has told everything that it has alone.
    pub fn has_heard(&self, store: StoreId) -> bool {
        self.stores.get(&store).is_some_and(|told| told.all)
    }

    /// Whether every store that may have more has told all of it, and could read it.
    pub fn is_told(&self) -> bool {
        self.stores.values().all(|told| told.all && told.unreadable == 0)
    }

    /// Since when nobody knows what was acknowledged and lost: until every store has told, all of it
    /// readable, or had nothing to tell.
    pub fn unknown_since(&self, nothing_more: &BTreeSet<StoreId>) -> Option<CpTime> {
        let is_known = |(store, told): (&StoreId, &Told)| {
            (told.all && told.unreadable == 0) || nothing_more.contains(store)
        };
        let all_known = !self.stores.is_empty() && self.stores.iter().all(is_known);
        self.unknown_since.filter(|_| !all_known)
    }

    /// The versions behind `after` that are known to be lost, by their ids.
    pub fn versions(&self, after: Option<VersionId>) -> impl Iterator<Item = &LostVersion> {
        use std::ops::Bound;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.listed.range((start, Bound::Unbounded)).map(|(_, lost)| lost)
    }

    /// Takes a page, if it goes on where this store's telling ended; `room` is for how many more there is
    /// in the list. The answer is how many were listed anew.
    fn hear(&mut self, page: &Difference, room: u64) -> u64 {
        let told = self.stores.entry(page.store).or_default();
        let begins = told.up_to == Lsn::ZERO && page.after == page.shared;
        if told.all || !(begins || page.after == told.up_to) || page.up_to < page.after {
            return 0;
        }
        (told.up_to, told.all) = (page.up_to, page.last);
        told.unreadable += page.unreadable;
        page.versions.iter().for_each(|lost| told.totals.add(lost));
        let before = self.listed.len();
        let most = LISTED_MAX.min(before + usize::try_from(room).unwrap_or(LISTED_MAX));
        for lost in &page.versions {
            self.list(lost, most);
        }
        (self.listed.len() - before) as u64
    }

    /// Two stores may tell of the same version, and one of them twice: the last record counts.
    fn list(&mut self, lost: &LostVersion, most: usize) {
        let has_room = self.listed.len() < most;
        if let Some(known) = self.listed.get_mut(&lost.version) {
            let committed = known.committed | lost.committed;
            let bytes = known.bytes.max(lost.bytes);
            let last = if lost.lsn > known.lsn { *lost } else { *known };
            *known = LostVersion { committed, bytes, ..last };
        } else if has_room {
            self.listed.insert(lost.version, *lost);
        } else {
            self.unlisted += 1;
        }
    }
}

impl VolumeRecord {
    /// The last time that it went on without stores.
    pub fn loss(&self) -> Option<&Loss> {
        self.losses.last()
    }

    /// Notes that it goes on now.
    pub(super) fn note_loss(&mut self, loss: Loss) {
        if self.losses.len() >= LOSSES_KEPT {
            self.losses.remove(0);
        }
        self.losses.push(loss);
    }

    /// Whether this store shall still tell what it has alone.
    pub fn must_tell(&self, store: StoreId) -> bool {
        self.is_estranged(store) && self.loss().is_some_and(|loss| !loss.has_heard(store))
    }

    /// The time that it went on in this epoch.
    pub fn loss_of(&self, epoch: Epoch) -> Option<&Loss> {
        self.losses.iter().find(|loss| loss.epoch == epoch)
    }

    /// All that is known of what it went on without, the last time first.
    pub fn loss_views(&self) -> impl Iterator<Item = LossView> {
        let last = self.losses.len().saturating_sub(1);
        self.losses.iter().enumerate().rev().map(move |(place, loss)| self.loss_view(loss, place == last))
    }

    fn loss_view(&self, loss: &Loss, is_last: bool) -> LossView {
        let state = |store: StoreId| match () {
            () if self.is_estranged(store) => LostStoreState::Estranged,
            () if self.fenced.contains(&store) => LostStoreState::Fenced,
            () if self.reconciled.contains(&store) => LostStoreState::Reconciled,
            () => LostStoreState::Discarded,
        };
        let view = |(store, told): (&StoreId, &Told)| LostStoreView {
            store: *store,
            state: state(*store),
            heard: told.all,
            totals: told.totals,
            unreadable: told.unreadable,
        };
        let mut listed = LossTotals::default();
        loss.listed.values().for_each(|lost| listed.add(lost));
        LossView {
            volume: self.config.volume,
            tenant: self.config.tenant,
            epoch: loss.epoch,
            proposal: loss.proposal,
            at: loss.at,
            unknown_since: loss.unknown_since(&self.reconciled),
            account: loss.account,
            stores: loss.stores.iter().map(view).take(LOSS_STORES_MAX).collect(),
            listed,
            unlisted: loss.unlisted,
            open: is_last && self.parting.as_ref().is_some_and(|parting| !parting.estranged.is_empty()),
        }
    }
}

impl Volumes {
    /// An estranged store tells what it has alone.
    pub(super) fn hear_difference(&mut self, page: &Difference) -> Result<Outcome, Rejection> {
        let record = self.get(page.volume).ok_or(Rejection::Unknown("volume"))?;
        let Some(loss) = record.loss().filter(|_| record.is_estranged(page.store)) else {
            return Err(Rejection::Unknown("estranged store there"));
        };
        if page.epoch < loss.epoch {
            return Err(Rejection::Stale);
        }
        let room = LISTED_IN_ALL_MAX.saturating_sub(self.listed);
        let mut added = 0;
        self.alter(page.volume, |record| {
            added = record.losses.last_mut().map_or(0, |loss| loss.hear(page, room));
        });
        self.listed += added;
        let told = self.get(page.volume).and_then(VolumeRecord::loss);
        let told = told.and_then(|loss| loss.stores.get(&page.store)).cloned().unwrap_or_default();
        Ok(Outcome::Heard(told.up_to, told.all))
    }

    /// The volumes of which this store has something alone that it has not told.
    pub fn to_be_told_by(&self, store: StoreId) -> impl Iterator<Item = VolumeId> {
        self.left_by(store).filter(move |record| record.must_tell(store)).map(|record| record.config.volume)
    }
}

impl State {
    /// What can be signed of a volume's loss, as of `at`.
    pub fn loss_statement(&self, volume: VolumeId, epoch: Epoch, at: CpTime) -> Option<LossStatement> {
        let record = self.volumes.get(volume)?;
        let loss = record.loss_of(epoch)?;
        let view = record.loss_views().find(|view| view.epoch == epoch)?;
        let proposal = self.proposals.get(loss.proposal, self.clock.now());
        let operators = proposal.map_or_else(Vec::new, |proposal| match proposal.state {
            ProposalState::Approved { by, .. } => vec![proposal.by, by],
            _ => vec![proposal.by],
        });
        let versions: Vec<LostVersion> = loss.versions(None).copied().collect();
        Some(LossStatement {
            cluster: self.cluster.clone(),
            tenant: view.tenant,
            volume,
            epoch,
            accepted_at: view.at,
            operators,
            unknown_since: view.unknown_since,
            account: view.account,
            stores: view.stores,
            count: versions.len() as u64,
            versions: hash_of(&versions),
            unlisted: view.unlisted,
            at,
        })
    }
}
