//! What this store holds of one volume: the engine's log, the index of its committed part, and the
//! records and payload that are still on their way to being durable. Every role works on it.
//!
//! It enforces the order of things: nothing is durable before a finished sync, nothing is applied
//! before it is committed, and nothing at or below the committed point is ever cut.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trefoil_engine::index::{ObjectVersion, VersionState};
use trefoil_engine::superblock::SuperblockError;
use trefoil_engine::{
    Disk, EraseReport, EraseTarget, Index, PayloadState, RecordFault, RecordReadError, RecoveryReport,
    Rotated, RotationJob, ScrubFault, ScrubReport, Scrubbed, StageError, SyncError, SyncJob, SyncTicket,
    Tail, Volume,
};
use trefoil_protocol::codec;
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{Epoch, Hash, Lsn, UploadId, VersionId};
use trefoil_protocol::message::peer::{LogPoint, StoreReport};
use trefoil_protocol::mutant;
use trefoil_protocol::record::{INLINE_MAX, Record, RecordBody};
use trefoil_protocol::time::BootTime;
use trefoil_protocol::tree;
use zeroize::Zeroizing;

use super::batches::Batches;
use super::emptied::give_back;
use super::keys::Keys;

/// How many applied records stay in memory for members that are a little behind, while others are being
/// written; of a quiet volume none does.
const RECENT: usize = 512;

/// A streamed object that a record refers to and whose bytes are not all durable here yet.
#[derive(Clone, Copy, Debug)]
pub struct Unpaid {
    /// The upload.
    pub upload: UploadId,
    /// Hash of its bytes.
    pub root: Hash,
    /// Its length.
    pub length: u64,
    /// Since when it is known to be missing.
    pub since: BootTime,
}

/// What this store holds of one volume.
#[derive(Debug)]
pub struct Holding<D: Disk> {
    volume: Volume<D>,
    index: Index,
    batches: Batches,
    epochs: EpochTable,
    records: BTreeMap<Lsn, Box<Record>>,
    unpaid: BTreeMap<Lsn, Unpaid>,
    keys: Keys,
    verified: bool,
    /// Whether it was compared, or needs no comparison. What then is still owed may be what this store acknowledged
    /// before it was lost here.
    settled: bool,
    doubtful_from: Lsn,
}

impl<D: Disk> Holding<D> {
    /// Takes over an opened volume: reads the log once and rebuilds the index from it.
    pub fn open(volume: Volume<D>, report: &RecoveryReport, now: BootTime) -> Self {
        let doubtful_from = match report.tail {
            Tail::Clean => Lsn::ZERO,
            Tail::Undecided { from_lsn } => from_lsn,
        };
        let mut holding = Self {
            volume,
            index: Index::default(),
            batches: Batches::default(),
            epochs: EpochTable::default(),
            records: BTreeMap::new(),
            unpaid: BTreeMap::new(),
            keys: Keys::default(),
            verified: false,
            settled: false,
            doubtful_from,
        };
        holding.keys.opened(&holding.volume);
        holding.replay(now);
        holding.verified = report.clean && doubtful_from == Lsn::ZERO && holding.hole().is_none();
        holding.settled = holding.verified;
        holding
    }

    fn replay(&mut self, now: BootTime) {
        let committed = self.volume.log.committed();
        let mut lsn = Lsn::ZERO.next();
        while lsn <= self.volume.log.last().0 {
            if let Ok(record) = self.volume.log.record(lsn) {
                self.epochs.note(lsn, record.epoch());
                self.note_payload(&record, now);
                self.records.insert(lsn, Box::new(record));
            }
            self.apply_up_to(committed);
            self.prune();
            lsn = lsn.next();
        }
        self.refresh_payload();
    }

    /// The epoch promised, durable or not.
    pub fn promised(&self) -> Epoch {
        self.volume.log.epoch()
    }

    /// Whether the promise of `epoch` is durable: only then may anybody be answered at it.
    pub fn has_promised(&self, epoch: Epoch) -> bool {
        mutant!(M06, self.volume.log.durable_epoch() >= epoch, true)
    }

    /// Stages the promise to refuse everything below the configuration's epoch for ever. The
    /// configuration goes with it: a control plane that was restored may have forgotten it.
    pub fn promise(&mut self, config: &VolumeConfig) -> Result<(), StageError> {
        if config.epoch <= self.promised() {
            return Ok(());
        }
        self.volume.log.promise(config.epoch, &codec::to_vec(config))
    }

    /// The configuration that was promised last.
    pub fn adopted(&self) -> Option<VolumeConfig> {
        codec::from_slice(self.volume.log.membership()).ok()
    }

    /// The last record, durable or not.
    pub fn last(&self) -> LogPoint {
        let (lsn, hash) = self.volume.log.last();
        LogPoint { epoch: self.epochs.at(lsn), lsn, hash }
    }

    /// The record at `lsn` as a place in the log; `None` above the end or where it is unknown.
    pub fn point(&self, lsn: Lsn) -> Option<LogPoint> {
        let hash = self.volume.log.hash_at(lsn)?;
        Some(LogPoint { epoch: self.epochs.at(lsn), lsn, hash })
    }

    /// The last record of an epoch before this one.
    pub fn end_before(&self, epoch: Epoch) -> Lsn {
        self.epochs.end_before(epoch).unwrap_or(self.last().lsn)
    }

    /// Whether the log here passes through `point`.
    pub fn passes(&self, point: LogPoint) -> bool {
        self.volume.log.hash_at(point.lsn) == Some(point.hash)
    }

    /// The committed point: everything up to it is applied.
    pub fn committed(&self) -> Lsn {
        self.index.applied()
    }

    /// Up to where the log is known to be committed, whether it can be applied here or not: a damaged
    /// record keeps those behind it from being applied.
    pub fn known_committed(&self) -> Lsn {
        self.committed().max(self.volume.log.committed())
    }

    /// What the committed log says.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The purges that the committed log knows.
    pub fn batches(&self) -> &Batches {
        &self.batches
    }

    /// Whether a version's bytes are, or may already be, erased somewhere: then they are never a
    /// hole to repair and never a source.
    pub fn is_past_return(&self, version: VersionId) -> bool {
        let state = self.index.version(version).map(|version| version.state);
        !matches!(state, None | Some(VersionState::Live | VersionState::Deleted(_)))
    }

    /// What this store says of itself to a new primary.
    pub fn report(&self) -> StoreReport {
        let durable = self.volume.log.durable_lsn();
        let last = self.point(durable).unwrap_or_default();
        StoreReport {
            last,
            committed: self.known_committed(),
            complete: self.missing_below(self.committed().next()) == 0 && self.hole().is_none(),
            verified: self.verified,
            doubtful_from: self.doubtful_from,
        }
    }

    /// Whether nothing about the end of this log is in doubt.
    pub fn is_verified(&self) -> bool {
        self.verified
    }

    /// This store may have acknowledged records of which nothing is here: it counts when it was compared.
    pub fn has_lost_its_log(&mut self) {
        (self.verified, self.settled) = (false, false);
    }

    /// The end of the log was compared with its peers': from now on it is what it is, and nothing about it is in
    /// doubt once its payload is here too.
    pub fn settle(&mut self) -> Result<(), StageError> {
        if !self.settled {
            self.volume.log.settle_tail()?;
            self.settled = true;
            self.doubtful_from = Lsn::ZERO;
        }
        self.verified |= self.unpaid.is_empty();
        Ok(())
    }

    /// Whether no delete can be on this store without being seen. The end of its log was compared, if it was in doubt,
    /// and what is damaged was applied before, or is still in memory; anything else may have been the delete of any version.
    pub fn sees_every_delete(&self) -> bool {
        let mut waiting = self.volume.log.faulty().range(self.committed().next()..);
        self.settled && waiting.all(|(lsn, _)| self.records.contains_key(lsn))
    }

    /// The first record that is damaged here.
    pub fn hole(&self) -> Option<Lsn> {
        self.volume.log.faulty().keys().next().copied()
    }

    /// The record at `lsn`, with all parts that are still there.
    pub fn record(&self, lsn: Lsn) -> Result<Record, RecordReadError> {
        match self.records.get(&lsn) {
            Some(record) => Ok(Record::clone(record)),
            None => self.volume.log.record(lsn),
        }
    }

    /// The record at `lsn` as another store may have it: nothing of a version that is past the point
    /// of no return is ever handed out again, or a store that erased it would get it back.
    pub fn record_to_send(&self, lsn: Lsn) -> Result<Record, RecordReadError> {
        let record = self.record(lsn)?;
        let RecordBody::Put(put) = record.body() else { return Ok(record) };
        let version = put.upload.version;
        if self.is_past_return(version) {
            return Ok(record.without_erasable());
        }
        if record.wrapped().is_some() || !self.volume.log.is_key_moved(version) {
            return Ok(record);
        }
        let wrapped = self.volume.bag().get(version).map(|entry| entry.wrapped.clone());
        let whole = wrapped.and_then(|wrapped| record.with_wrapped(wrapped).ok());
        whole.ok_or(RecordReadError::Faulty { lsn, fault: RecordFault::WrappedKey })
    }

    /// Records above the committed point, oldest first.
    pub fn tail(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.range(self.committed().next()..).map(|(_, record)| &**record)
    }

    /// Stages a record: the next one, or the one that is already at its place (which repairs a
    /// damaged copy). Its streamed payload, if it has one, is known to be missing from now on.
    pub fn append(&mut self, record: Record, now: BootTime) -> Result<(), StageError> {
        let lsn = record.lsn();
        let repairs = lsn <= self.last().lsn;
        if repairs && version_put_by(&record).is_some_and(|v| self.volume.log.is_key_moving(v)) {
            // Its key would be zeroed again; whoever repairs comes back.
            return Ok(());
        }
        self.volume.append(&record)?;
        if repairs && lsn <= self.committed() {
            self.note_key(&record);
            return Ok(());
        }
        self.epochs.note(lsn, record.epoch());
        self.note_payload(&record, now);
        self.records.insert(lsn, Box::new(record.detached()));
        Ok(())
    }

    /// Stages the cut of every record above `last`. Never below the committed point.
    pub fn cut_after(&mut self, last: Lsn) -> Result<(), StageError> {
        self.volume.log.cut_after(last)?;
        self.epochs.cut(last);
        self.records.split_off(&last.next());
        self.unpaid.split_off(&last.next());
        Ok(())
    }

    /// Applies every record up to `committed` that is here, and answers them.
    pub fn commit(&mut self, committed: Lsn) -> Vec<Record> {
        let from = self.committed();
        self.apply_up_to(committed);
        self.volume.log.set_committed(self.committed());
        let applied = self.records.range(from.next()..).map(|(_, record)| &**record);
        let applied: Vec<Record> =
            applied.take_while(|record| record.lsn() <= self.index.applied()).cloned().collect();
        self.prune();
        applied
    }

    fn apply_up_to(&mut self, committed: Lsn) {
        while self.committed() < committed
            && let Some(record) = self.records.get(&self.committed().next())
        {
            let record = record.clone();
            self.index.apply(&record);
            self.batches.apply(&record);
            self.note_key(&record);
            if let RecordBody::Purging(purging) = record.body() {
                let condemned: BTreeSet<VersionId> = purging.items.iter().map(|item| item.version).collect();
                self.unpaid.retain(|_, unpaid| !condemned.contains(&unpaid.upload.version));
            }
        }
    }

    fn prune(&mut self) {
        let is_quiet = self.index.applied() == self.volume.log.last().0;
        let kept = if is_quiet { 0 } else { RECENT };
        while self.records.len() > kept
            && let Some(entry) = self.records.first_entry()
            && *entry.key() <= self.index.applied()
        {
            entry.remove();
        }
        give_back(&mut self.records);
    }

    fn note_payload(&mut self, record: &Record, now: BootTime) {
        if let RecordBody::Put(put) = record.body()
            && put.sealed_length > INLINE_MAX
        {
            let (upload, root, length) = (put.upload, put.root, put.sealed_length);
            let past = self.is_past_return(upload.version);
            let here = self.volume.log.payload_complete(upload, length, &root);
            if here != PayloadState::Durable && !past {
                let unpaid = Unpaid { upload, root, length, since: now };
                self.unpaid.entry(record.lsn()).or_insert(unpaid);
            }
        }
    }

    /// Looks again at what was missing, after a sync or after payload arrived.
    pub fn refresh_payload(&mut self) {
        let log = &mut self.volume.log;
        self.unpaid.retain(|_, unpaid| {
            match log.payload_complete(unpaid.upload, unpaid.length, &unpaid.root) {
                PayloadState::Durable => false,
                PayloadState::Missing | PayloadState::Staged => true,
                PayloadState::WrongRoot => {
                    // Leaves of another writing of the same attempt: none of them counts.
                    (0..tree::leaf_count(unpaid.length))
                        .for_each(|leaf| log.leaf_is_damaged(unpaid.upload, leaf));
                    true
                }
            }
        });
    }

    /// The streamed objects whose bytes are not all durable here, by record.
    pub fn unpaid(&self) -> &BTreeMap<Lsn, Unpaid> {
        &self.unpaid
    }

    /// How many records below `end` lack payload here.
    pub fn missing_below(&self, end: Lsn) -> u32 {
        u32::try_from(self.unpaid.range(..end).count()).unwrap_or(u32::MAX)
    }

    /// Up to where records, and the payload of those above `paid_from`, are under a finished sync.
    pub fn acknowledgeable(&self, paid_from: Lsn) -> Lsn {
        let durable = mutant!(M01, self.volume.log.durable_lsn(), self.volume.log.last().0);
        let unpaid = mutant!(R21, self.unpaid.range(paid_from.next()..).next(), None);
        unpaid.map_or(durable, |(lsn, _)| durable.min(lsn.previous()))
    }

    /// Stages one leaf whose hash was computed from these bytes.
    pub fn stage_leaf(
        &mut self,
        upload: UploadId,
        index: u64,
        hash: tree::NodeHash,
        bytes: &Bytes,
    ) -> Result<(), StageError> {
        self.volume.log.stage_payload(upload, index, hash, bytes).map(|_| ())
    }

    /// Whether some of an object's streamed bytes are not here.
    pub fn lacks(&self, object: &ObjectVersion) -> bool {
        self.unpaid.contains_key(&object.lsn)
            || !self.volume.log.missing_leaves(object.upload, object.sealed_length).is_empty()
    }

    /// A read found a record damaged; it counts as missing until another copy of it is appended.
    pub fn record_is_damaged(&mut self, lsn: Lsn, fault: RecordFault) {
        self.volume.log.record_is_damaged(lsn, fault);
    }

    /// A scrub found damage: what it names does not count any more, and is asked for like anything else
    /// that is missing.
    fn take_faults(&mut self, faults: &[ScrubFault], now: BootTime) -> Result<(), SuperblockError> {
        for fault in faults {
            match fault {
                ScrubFault::Leaf { upload, index } => self.leaf_is_damaged(*upload, *index, now),
                ScrubFault::Root { version } => self.root_differs(*version, now),
                ScrubFault::Slot { .. } => self.volume.write_slots_again()?,
                ScrubFault::Bag => self.keys.bag_is_damaged(),
                // The log knows records; loose leaves have no record that would ask for them; what is no
                // frame is known to whoever erases.
                ScrubFault::Record { .. } | ScrubFault::LooseLeaf { .. } | ScrubFault::Frame { .. } => {}
            }
        }
        Ok(())
    }

    /// A stretch of the log was read; how many places of it, or, with its first stretch, of the superblock
    /// and the key bag, are damaged.
    pub fn scrubbed(&mut self, scrubbed: &Scrubbed, now: BootTime) -> Result<usize, SuperblockError> {
        let mut faults = self.volume.log.scrubbed(scrubbed);
        if scrubbed.is_first() {
            faults.extend(self.volume.check_fixed_files()?);
        }
        self.take_faults(&faults, now)?;
        Ok(faults.len())
    }

    /// The store was suspect: its log is compared with those of its peers before it counts, however
    /// whole it looks.
    pub fn doubt(&mut self, report: &ScrubReport, now: BootTime) -> Result<(), SuperblockError> {
        (self.verified, self.settled) = (false, false);
        self.volume.log.take_faults(report);
        self.take_faults(&report.faults, now)
    }

    /// The bytes of a version are whole, and not the version's.
    fn root_differs(&mut self, version: VersionId, now: BootTime) {
        let Some(object) = self.index.version(version).cloned() else { return };
        if object.inline {
            return self.record_is_damaged(object.lsn, RecordFault::Erasable);
        }
        for leaf in 0..tree::leaf_count(object.sealed_length) {
            self.leaf_is_damaged(object.upload, leaf, now);
        }
    }

    /// A read met a damaged leaf: it does not count any more and is fetched again.
    pub fn leaf_is_damaged(&mut self, upload: UploadId, leaf: u64, now: BootTime) {
        self.volume.log.leaf_is_damaged(upload, leaf);
        if self.is_past_return(upload.version) {
            return;
        }
        let applied = self.index.version(upload.version).filter(|object| object.upload == upload);
        let known = applied.map(|object| (object.lsn, object.root, object.sealed_length));
        let in_tail = || {
            self.tail().find_map(|record| match record.body() {
                RecordBody::Put(put) if put.upload == upload => {
                    Some((record.lsn(), put.root, put.sealed_length))
                }
                _ => None,
            })
        };
        if let Some((lsn, root, length)) = known.or_else(in_tail) {
            self.unpaid.insert(lsn, Unpaid { upload, root, length, since: now });
        }
    }

    /// A committed put's key is in its record, in the bag, or lost with the bag: then it has to come
    /// back from another copy.
    fn note_key(&mut self, record: &Record) {
        let RecordBody::Put(put) = record.body() else { return };
        let version = put.upload.version;
        if self.index.version(version).is_none_or(|object| object.lsn != record.lsn()) {
            return;
        }
        self.keys.rides(&self.volume, put, record);
        let log = &mut self.volume.log;
        let moved = log.is_key_moved(version) && !log.is_version_gone(version);
        if moved && self.volume.bag().get(version).is_none() {
            self.volume.log.record_is_damaged(record.lsn(), RecordFault::WrappedKey);
        }
    }

    /// The wrapped key of a version, in its record or in the bag.
    pub fn wrapped_key(&self, record: &Record, version: VersionId) -> Option<Bytes> {
        let in_bag = || self.volume.bag().get(version).map(|entry| entry.wrapped.clone());
        record.wrapped().cloned().or_else(in_bag)
    }

    /// Where the wrapped keys are.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A rotation of the key bag with all that waits for one.
    pub fn rotation_job(&mut self, bag_key: Zeroizing<[u8; 32]>) -> RotationJob<D> {
        self.keys.rotation_job(&mut self.volume, bag_key)
    }

    /// A rotation ended; `false` if there was no room for it.
    pub fn rotated(&mut self, rotated: Rotated<D>) -> bool {
        self.keys.rotated(&mut self.volume, rotated)
    }

    /// Stages the zeroing of keys in records that the bag holds durably.
    pub fn zero_moved_keys(&mut self) -> Result<(), StageError> {
        match self.keys.zero_moved(&mut self.volume) {
            // They ride and rest until there is room to note it.
            Err(StageError::Disk(trefoil_engine::DiskError::Full { .. })) => Ok(()),
            staged => staged,
        }
    }

    /// Notes an erase that is done on the disk.
    pub fn erased(&mut self, report: &EraseReport) -> Result<(), StageError> {
        self.volume.log.erased(report)?;
        for target in &report.targets {
            if let EraseTarget::Version(version) = target {
                self.keys.erased(&self.volume, *version);
            }
        }
        Ok(())
    }

    /// The generation of the key bag.
    pub fn bag_generation(&self) -> u64 {
        self.volume.bag().generation()
    }

    /// Whether nothing of a version is left on this store: its bytes durably erased, its key in no
    /// record and in no bag.
    pub fn is_gone(&self, version: VersionId) -> bool {
        self.volume.log.is_erased(EraseTarget::Version(version)) && self.keys.is_gone(&self.volume, version)
    }

    /// The engine's log.
    pub fn log(&self) -> &trefoil_engine::VolumeLog<D> {
        &self.volume.log
    }

    /// The opened volume.
    pub fn volume(&self) -> &Volume<D> {
        &self.volume
    }

    /// The opened volume, for erasing and for closing.
    pub fn volume_mut(&mut self) -> &mut Volume<D> {
        &mut self.volume
    }

    /// The opened volume, given back.
    pub fn into_volume(self) -> Volume<D> {
        self.volume
    }

    /// What has to be synced, if anything is and no sync is under way.
    pub fn sync_job(&mut self) -> Option<SyncJob<D>> {
        self.volume.log.sync_job()
    }

    /// A sync ended.
    pub fn synced(&mut self, ticket: SyncTicket, result: &Result<(), SyncError>) {
        self.volume.log.synced(ticket, result);
        self.refresh_payload();
    }

    /// Drops from memory what a version's erase removes from the disk.
    pub fn forget(&mut self, version: VersionId) {
        if let Some(object) = self.index.version(version) {
            self.keys.forget(object.lsn);
        }
        self.records.retain(|_, record| match record.body() {
            RecordBody::Put(put) => put.upload.version != version,
            _ => true,
        });
    }
}

/// The version that a record puts, if it carries its wrapped key.
fn version_put_by(record: &Record) -> Option<VersionId> {
    match record.body() {
        RecordBody::Put(put) if record.wrapped().is_some() => Some(put.upload.version),
        _ => None,
    }
}

/// The epochs of a log's records, by the first record of each: enough to say the epoch of any.
#[derive(Clone, Debug, Default)]
struct EpochTable(Vec<(Lsn, Epoch)>);

impl EpochTable {
    fn at(&self, lsn: Lsn) -> Epoch {
        let behind = self.0.partition_point(|(first, _)| *first <= lsn);
        behind.checked_sub(1).map_or(Epoch::default(), |last| self.0[last].1)
    }

    /// Where the epochs before this one end, unless nothing follows them.
    fn end_before(&self, epoch: Epoch) -> Option<Lsn> {
        self.0.iter().find(|(_, other)| *other >= epoch).map(|(first, _)| first.previous())
    }

    fn note(&mut self, lsn: Lsn, epoch: Epoch) {
        if self.at(lsn) == epoch {
            return;
        }
        match self.0.binary_search_by_key(&lsn, |(first, _)| *first) {
            Ok(at) => self.0[at].1 = epoch,
            Err(at) => {
                // A volume has few of them.
                self.0.reserve_exact(1);
                self.0.insert(at, (lsn, epoch));
            }
        }
    }

    fn cut(&mut self, last: Lsn) {
        self.0.truncate(self.0.partition_point(|(first, _)| *first <= last));
    }
}
