//! The log of one volume on one store: records in order, the leaves of uploads beside them, and the
//! few promises that must survive a restart. Appending only stages; a [`SyncJob`] makes durable.
//!
//! It knows nothing of peers: what to cut and what is committed is told to it, and it never cuts by
//! itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use minicbor::{Decode, Encode};
use trefoil_protocol::codec;
use trefoil_protocol::ids::{Epoch, Hash, Lsn, StoreId, TenantId, UploadId, VersionId, VolumeId};
use trefoil_protocol::record::{Record, RecordError};

use crate::disk::{Disk, DiskError};
use crate::frame::{Content, FrameError, HEADER_LENGTH, Header, Position};
use crate::health::{Health, SyncError};
use crate::index::Index;
use crate::recovery::{BadRange, Tail};
use crate::segment::{Head, Room, Segments, Stamp};
use crate::state::{EraseTarget, LogState, Place, RecordFault, version_of};
use crate::sync::{SyncJob, SyncTicket};

/// Which volume's log, on which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The store.
    pub store: StoreId,
    /// The tenant that owns the volume.
    pub tenant: TenantId,
    /// The volume.
    pub volume: VolumeId,
}

/// Why something was not staged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// The disk failed or is full.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An earlier sync failed; nothing is written any more.
    #[error("the store is poisoned by an earlier failed sync")]
    Poisoned,
    /// The record belongs to another volume.
    #[error("record of tenant {tenant}, volume {volume} given to another log")]
    Foreign {
        /// The record's tenant.
        tenant: TenantId,
        /// The record's volume.
        volume: VolumeId,
    },
    /// The record does not follow the last one.
    #[error("record {got} does not follow {last}")]
    Gap {
        /// The log's last record.
        last: Lsn,
        /// The record given.
        got: Lsn,
    },
    /// The record names another predecessor, or differs from the one at its position: cut first.
    #[error("record {lsn} does not fit the chain of hashes here")]
    Chain {
        /// The record given.
        lsn: Lsn,
    },
    /// A cut would remove what is known to be committed.
    #[error("cut after {asked} refused: {committed} is committed")]
    Committed {
        /// The asked last record.
        asked: Lsn,
        /// The committed point.
        committed: Lsn,
    },
    /// A higher epoch was promised.
    #[error("epoch {asked} refused: {promised} was promised")]
    Fenced {
        /// The asked epoch.
        asked: Epoch,
        /// The promised one.
        promised: Epoch,
    },
    /// The upload's version is erased or on the way.
    #[error("{upload:?} is erased and takes no bytes")]
    Erased {
        /// The upload.
        upload: UploadId,
    },
    /// The same leaf of the same attempt with other bytes.
    #[error("leaf {index} of {upload:?} was written with another hash")]
    Conflict {
        /// The upload.
        upload: UploadId,
        /// The leaf.
        index: u64,
    },
    /// A leaf is at most 64 KiB, and only an only leaf may be empty.
    #[error("a leaf of {length} bytes at index {index}")]
    LeafLength {
        /// The leaf.
        index: u64,
        /// Its length.
        length: usize,
    },
}

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordReadError {
    /// The log does not reach that far.
    #[error("record {lsn} is above the end of the log")]
    Absent {
        /// The record.
        lsn: Lsn,
    },
    /// The record, or a part that is not erased, is damaged on this store.
    #[error("record {lsn} is damaged on this store: {fault:?}")]
    Faulty {
        /// The record.
        lsn: Lsn,
        /// What is damaged.
        fault: RecordFault,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What survives a restart beside the records (public part of a hard state frame).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct HardState {
    #[n(0)]
    pub(crate) epoch: Epoch,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) membership: Vec<u8>,
}

/// What one sync covers.
#[derive(Clone, Copy, Debug)]
struct Covered {
    ticket: SyncTicket,
    end: Position,
    last: Lsn,
    epoch: Epoch,
}

/// The log of one volume on one store.
#[derive(Debug)]
pub struct VolumeLog<D: Disk> {
    identity: LogIdentity,
    pub(crate) segments: Segments<D>,
    pub(crate) health: Health<D>,
    pub(crate) state: LogState,
    /// Everything before this place is durable.
    pub(crate) synced: Position,
    durable: Lsn,
    durable_epoch: Epoch,
    /// Repaired records whose new frame is not durable yet.
    healing: BTreeMap<Lsn, Position>,
    in_flight: Option<Covered>,
    next_ticket: u64,
    /// Where the latest note of an erase of this run stands; those of runs before are durable.
    pub(crate) erase_notes: BTreeMap<EraseTarget, Position>,
    /// Stretches without a frame, found at the open.
    pub(crate) found_bad: Vec<BadRange>,
    /// How many of the bad ranges an erase has blanked.
    pub(crate) blank: usize,
    /// The first record that the open left undecided, until something settles it.
    pub(crate) undecided: Option<Lsn>,
}

impl<D: Disk> VolumeLog<D> {
    pub(crate) fn recovered(
        identity: LogIdentity,
        segments: Segments<D>,
        health: Health<D>,
        state: LogState,
        synced: Position,
    ) -> Self {
        VolumeLog {
            identity,
            segments,
            health,
            synced,
            durable: Lsn::ZERO,
            durable_epoch: Epoch::default(),
            healing: BTreeMap::new(),
            in_flight: None,
            next_ticket: 1,
            erase_notes: BTreeMap::new(),
            found_bad: Vec::new(),
            blank: 0,
            undecided: None,
            state,
        }
    }

    /// Everything in the log is known to be durable: it was synced before or just now.
    pub(crate) fn all_is_durable(&mut self) {
        self.durable = self.state.last().0;
        self.durable_epoch = self.state.epoch;
    }

    pub(crate) fn resume(&mut self, head: Head) {
        self.segments.resume(head);
        self.synced = head.at;
    }

    /// Which volume, on which store.
    pub fn identity(&self) -> LogIdentity {
        self.identity
    }

    /// The last record's position and chain hash; ([`Lsn::ZERO`], [`Hash::ZERO`]) of an empty log.
    pub fn last(&self) -> (Lsn, Hash) {
        self.state.last()
    }

    /// The chain hash at a position; `None` above the end or where a missing record's successor is
    /// missing too.
    pub fn hash_at(&self, lsn: Lsn) -> Option<Hash> {
        if lsn == Lsn::ZERO {
            return Some(Hash::ZERO);
        }
        self.state.slot(lsn)?.chain
    }

    /// The highest position up to which every record is whole and durable on this store.
    pub fn durable_lsn(&self) -> Lsn {
        let faulty = self.state.faults.keys().next();
        let healing = self.healing.keys().next();
        let first_hole = faulty.into_iter().chain(healing).min();
        first_hole.map_or(self.durable, |hole| self.durable.min(hole.previous()))
    }

    /// The records that are damaged on this store, to be appended again from a peer's copy.
    pub fn faulty(&self) -> &BTreeMap<Lsn, RecordFault> {
        &self.state.faults
    }

    /// The end of the log: [`Tail::Undecided`] from an open that found something torn or rotten until
    /// a record, a cut or [`Self::settle_tail`] decides.
    pub fn tail(&self) -> Tail {
        match self.undecided {
            Some(from_lsn) => Tail::Undecided { from_lsn },
            None => Tail::Clean,
        }
    }

    /// The highest epoch promised, durable or not.
    pub fn epoch(&self) -> Epoch {
        self.state.epoch
    }

    /// The highest epoch whose promise is durable; only this may be answered to anybody.
    pub fn durable_epoch(&self) -> Epoch {
        self.durable_epoch
    }

    /// What was to be remembered with the last promise.
    pub fn membership(&self) -> &[u8] {
        &self.state.membership
    }

    /// The committed point last told; a lower bound after a restart.
    pub fn committed(&self) -> Lsn {
        self.state.committed
    }

    /// Notes the committed point. It travels in the headers of later frames and needs no sync: a
    /// lost one is a lower bound still.
    pub fn set_committed(&mut self, committed: Lsn) {
        self.state.committed = self.state.committed.max(committed);
    }

    /// Stages a promise to refuse lower epochs, and what the store wants to remember of its membership
    /// in this one. Answer nobody before [`Self::durable_epoch`] says so.
    pub fn promise(&mut self, epoch: Epoch, membership: &[u8]) -> Result<(), StageError> {
        if epoch < self.state.epoch {
            return Err(StageError::Fenced { asked: epoch, promised: self.state.epoch });
        }
        if epoch == self.state.epoch && membership == self.state.membership {
            return Ok(());
        }
        self.stage_hard_state(epoch, membership.to_vec())
    }

    /// Stages a record at the end of the log; answers its place. The record that is already there
    /// is accepted again and repairs a damaged copy.
    pub fn append(&mut self, record: &Record) -> Result<Position, StageError> {
        let position = *record.position();
        if (position.tenant, position.volume) != (self.identity.tenant, self.identity.volume) {
            return Err(StageError::Foreign { tenant: position.tenant, volume: position.volume });
        }
        let (lsn, chain) = (record.lsn(), record.chain_hash());
        let (last, _) = self.state.last();
        if lsn > last.next() || lsn == Lsn::ZERO {
            return Err(StageError::Gap { last, got: lsn });
        }
        let fits = self.hash_at(lsn.previous()) == Some(position.previous)
            && (lsn > last || self.hash_at(lsn).is_none_or(|here| here == chain));
        if !fits {
            return Err(StageError::Chain { lsn });
        }
        if lsn <= last
            && !self.state.faults.contains_key(&lsn)
            && let Some(place) = self.state.slot(lsn).and_then(|slot| slot.place)
        {
            return Ok(place.position);
        }
        self.stage_record(record, chain)
    }

    /// Whether a version's bytes are erased here, or about to be.
    pub fn is_version_gone(&self, version: VersionId) -> bool {
        self.state.is_version_gone(version)
    }

    /// Whether a version's wrapped key was erased in its record, or is about to be: the bag has it, or
    /// its bag is lost.
    pub fn is_key_moved(&self, version: VersionId) -> bool {
        self.state.is_wrapped_gone(version)
    }

    /// Whether that erase is not done yet; a copy with the key is not taken meanwhile.
    pub fn is_key_moving(&self, version: VersionId) -> bool {
        self.state.erasing.contains(&EraseTarget::WrappedKey(version))
    }

    /// Stages the cut of every record above `last`. The cut records' frames stay findable by their
    /// versions, so that a purge erases them too.
    pub fn cut_after(&mut self, last: Lsn) -> Result<(), StageError> {
        if last < self.state.committed {
            return Err(StageError::Committed { asked: last, committed: self.state.committed });
        }
        self.stage(Content::Cut { last }, [&[]; 3], Room::Reserve)?;
        self.state.cut(last);
        self.undecided = self.undecided.filter(|from| *from <= last);
        self.durable = self.durable.min(last);
        self.healing.split_off(&last.next());
        if let Some(covered) = &mut self.in_flight {
            covered.last = covered.last.min(last);
        }
        Ok(())
    }

    /// Reads a record again from disk and verifies it: frame, checksums, chain hash, and each part
    /// that is not erased against the record's own hashes.
    pub fn record(&self, lsn: Lsn) -> Result<Record, RecordReadError> {
        let slot = self.state.slot(lsn);
        let slot = slot.ok_or(RecordReadError::Absent { lsn })?;
        let faulty = |fault| RecordReadError::Faulty { lsn, fault };
        let place = slot.place.ok_or(faulty(RecordFault::Record))?;
        let bytes = Bytes::from(self.segments.read(place.position, place.length)?);
        let header = Header::parse(&bytes, place.position, &self.segments.scope)
            .map_err(|_| faulty(RecordFault::Record))?;
        let record =
            Record::parse_public(&part(&header, &bytes, 0)).map_err(|_| faulty(RecordFault::Record))?;
        if record.lsn() != lsn || Some(record.chain_hash()) != slot.chain {
            return Err(faulty(RecordFault::Record));
        }
        self.attach_parts(record, &header, &bytes).map_err(faulty)
    }

    /// The records from `first` on, up to the end or until they are `bytes` long together; at least
    /// one.
    pub fn records(&self, first: Lsn, bytes: usize) -> Result<Vec<Record>, RecordReadError> {
        let mut records = Vec::new();
        let (mut lsn, mut length) = (first, 0);
        while lsn <= self.last().0 && (records.is_empty() || length < bytes) {
            let record = self.record(lsn)?;
            length += record.lengths().total();
            records.push(record);
            lsn = lsn.next();
        }
        Ok(records)
    }

    /// Rebuilds the index from the committed records, as far as they are whole on this store. After
    /// the faulty ones are repaired the caller applies the rest.
    pub fn rebuild_index(&self, up_to: Lsn) -> Result<Index, DiskError> {
        let mut index = Index::default();
        while index.applied() < up_to.min(self.last().0) {
            match self.record(index.applied().next()) {
                Ok(record) => index.apply(&record),
                Err(RecordReadError::Disk(error)) => return Err(error),
                Err(_) => break,
            };
        }
        Ok(index)
    }

    /// The job that makes everything staged so far durable; `None` if there is nothing to sync or a
    /// job is under way, so that batches form by themselves.
    pub fn sync_job(&mut self) -> Option<SyncJob<D>> {
        if self.in_flight.is_some() {
            return None;
        }
        let unsynced = self.segments.take_unsynced()?;
        let ticket = SyncTicket(self.next_ticket);
        self.next_ticket += 1;
        self.in_flight = Some(Covered {
            ticket,
            end: self.segments.end(),
            last: self.state.last().0,
            epoch: self.state.epoch,
        });
        Some(SyncJob { ticket, unsynced, health: self.health.clone() })
    }

    /// Takes the outcome of a sync job. After an error the log accepts nothing more.
    ///
    /// # Panics
    /// If the ticket is not the job under way: the shell mixed up two logs.
    pub fn synced(&mut self, ticket: SyncTicket, outcome: &Result<(), SyncError>) {
        let covered = self.in_flight.take();
        let covered = covered
            .filter(|covered| covered.ticket == ticket)
            .expect("an outcome belongs to the one job under way");
        if outcome.is_err() {
            return;
        }
        self.segments.synced();
        self.synced = covered.end;
        self.durable = covered.last;
        self.durable_epoch = self.durable_epoch.max(covered.epoch);
        self.healing.retain(|_, place| *place >= covered.end);
    }

    /// Whether no sync job is under way.
    pub fn is_at_rest(&self) -> bool {
        self.in_flight.is_none()
    }

    /// Bytes of the segments that hold frames.
    pub fn bytes(&self) -> u64 {
        self.segments.files.values().map(|segment| segment.used).sum()
    }

    /// Whether the disk has room for a further segment of ordinary writes.
    ///
    /// # Errors
    /// The disk's, when it is asked.
    pub fn may_grow(&self) -> Result<bool, DiskError> {
        self.segments.may_grow()
    }

    /// Syncs what is staged on this thread.
    ///
    /// # Panics
    /// If a job is under way elsewhere: what it covers would be taken for synced.
    pub fn sync_now(&mut self) -> Result<(), SyncError> {
        assert!(self.in_flight.is_none(), "the job under way has to come back first");
        self.health.check()?;
        let Some(job) = self.sync_job() else {
            return Ok(());
        };
        let ticket = job.ticket();
        let outcome = job.run();
        self.synced(ticket, &outcome);
        outcome
    }

    /// Stretches of segments that hold no frame: found at the open or left by a failed write.
    pub(crate) fn bad_ranges(&self) -> Vec<BadRange> {
        [&self.found_bad[..], &self.segments.half_written[..]].concat()
    }

    pub(crate) fn is_note_durable(&self, target: &EraseTarget) -> bool {
        self.erase_notes.get(target).is_none_or(|note| *note < self.synced)
    }

    pub(crate) fn stage(
        &mut self,
        content: Content,
        parts: [&[u8]; 3],
        room: Room,
    ) -> Result<Header, StageError> {
        if self.health.is_poisoned() {
            return Err(StageError::Poisoned);
        }
        let stamp = Stamp { epoch: self.state.epoch, committed: self.state.committed, synced: self.synced };
        Ok(self.segments.stage(stamp, content, parts, room)?)
    }

    fn stage_hard_state(&mut self, epoch: Epoch, membership: Vec<u8>) -> Result<(), StageError> {
        let hard_state = HardState { epoch, membership };
        let public = codec::to_vec(&hard_state);
        self.stage(Content::HardState, [&public, &[], &[]], Room::Reserve)?;
        self.state.epoch = epoch;
        self.state.membership = hard_state.membership;
        Ok(())
    }

    fn stage_record(&mut self, record: &Record, chain: Hash) -> Result<Position, StageError> {
        let lsn = record.lsn();
        let version = version_of(record.body());
        // Bytes that were erased here do not come back with a copy.
        let kept = |part: Option<&Bytes>, gone: bool| part.filter(|_| !gone).cloned().unwrap_or_default();
        let is_gone = |gone: fn(&LogState, VersionId) -> bool| {
            version.is_some_and(|version| gone(&self.state, version))
        };
        let wrapped = kept(record.wrapped(), is_gone(LogState::is_wrapped_going));
        let erasable = kept(record.erasable_bytes(), is_gone(LogState::is_version_gone));
        let room = match record.lengths().erasable {
            0 => Room::Reserve,
            _ => Room::Ordinary,
        };
        let parts = [&record.public()[..], &wrapped[..], &erasable[..]];
        let header = self.stage(Content::Record { lsn, chain }, parts, room)?;
        let place = Place::of(&header);
        if self.state.faults.contains_key(&lsn) {
            self.healing.insert(lsn, header.position);
        }
        let previous = Some(record.position().previous);
        self.state.add_record(lsn, chain, previous, place, None);
        self.undecided = self.undecided.filter(|from| *from > lsn);
        if let Some(version) = version.filter(|_| wrapped.len() + erasable.len() > 0) {
            self.state.note_frame(version, place);
            if !wrapped.is_empty() {
                self.state.key_rides_again(version);
            }
        }
        Ok(header.position)
    }

    /// Attaches what is not erased; a part that was written and does not match is a fault. A part that
    /// was not given with the record (its version was erased elsewhere) is simply not there.
    fn attach_parts(
        &self,
        mut record: Record,
        header: &Header,
        bytes: &Bytes,
    ) -> Result<Record, RecordFault> {
        let version = version_of(record.body());
        let lengths = record.lengths();
        let whole = |index: usize| -> Result<Bytes, FrameError> {
            let part = part(header, bytes, index);
            header.check_part(index, &part)?;
            Ok(part)
        };
        let wrapped_gone = version.is_some_and(|version| self.state.is_wrapped_gone(version));
        if lengths.wrapped > 0 && header.lengths[1] > 0 && !wrapped_gone {
            let attached = whole(1).map(|wrapped| record.clone().with_wrapped(wrapped));
            record = attached.map_err(|_| RecordFault::WrappedKey)?.map_err(wrapped_fault)?;
        }
        let gone = version.is_some_and(|version| self.state.is_version_gone(version));
        if lengths.erasable > 0 && header.lengths[2] > 0 && !gone {
            let attached = whole(2).map(|erasable| record.with_erasable(erasable));
            record = attached.map_err(|_| RecordFault::Erasable)?.map_err(erasable_fault)?;
        }
        Ok(record)
    }
}

fn wrapped_fault(_: RecordError) -> RecordFault {
    RecordFault::WrappedKey
}

fn erasable_fault(_: RecordError) -> RecordFault {
    RecordFault::Erasable
}

/// A part's bytes, or nothing if the header claims more than was read.
fn part(header: &Header, bytes: &Bytes, index: usize) -> Bytes {
    let from = header.part_offset(index);
    let to = from + header.lengths[index];
    match to <= bytes.len() && from >= HEADER_LENGTH {
        true => bytes.slice(from..to),
        false => Bytes::new(),
    }
}
