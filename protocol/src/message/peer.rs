//! The node plane: how the stores of one volume replicate, peer, backfill, repair and purge. Messages
//! may be lost, repeated and reordered; every one carries (tenant, volume, epoch), and a receiver that
//! knows a higher epoch refuses it for ever.

use minicbor::{Decode, Encode};

use crate::deletion::{PURGE_ITEMS_MAX, PurgeItem, SignedEraseReceipt, SignedPurgeOrder};
use crate::frame::BULK_BYTES_MAX;
use crate::ids::{Epoch, Hash, Incarnation, Lsn, StoreId, TenantId, UploadId, VolumeId};
use crate::message::loss::{Compare, Compared};
use crate::tree::LEAF_LEN;

/// The most uploads in one [`PeerBody::Orphans`].
pub const ORPHANS_MAX: usize = 64;
/// The most leaves in one message: as many whole ones as a bulk holds.
pub const PAYLOAD_LEAVES_MAX: usize = (BULK_BYTES_MAX as u64 / LEAF_LEN) as usize;

/// A message between two nodes about one volume.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PeerMessage {
    /// The tenant; checked against the receiver's own configuration.
    #[n(0)]
    pub tenant: TenantId,
    /// The volume.
    #[n(1)]
    pub volume: VolumeId,
    /// The sender's epoch.
    #[n(2)]
    pub epoch: Epoch,
    /// The sender's store and the run of its process.
    #[n(3)]
    pub store: StoreId,
    /// The sender's incarnation.
    #[n(4)]
    pub incarnation: Incarnation,
    /// What is said.
    #[n(5)]
    pub body: PeerBody,
}

/// A place in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LogPoint {
    /// The epoch of the record there (0 for "none").
    #[n(0)]
    pub epoch: Epoch,
    /// Its position.
    #[n(1)]
    pub lsn: Lsn,
    /// Its chain hash.
    #[n(2)]
    pub hash: Hash,
}

/// What a store knows of itself, for peering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoreReport {
    /// Its last durable record.
    #[n(0)]
    pub last: LogPoint,
    /// The committed point it knows; a lower bound of the truth.
    #[n(1)]
    pub committed: Lsn,
    /// Whether it lacks no payload of a committed record.
    #[n(2)]
    pub complete: bool,
    /// Whether its log ended cleanly or was compared with peers in this incarnation.
    #[n(3)]
    pub verified: bool,
    /// First position from which its tail is in doubt (a bad frame was met there), 0 for none.
    #[n(4)]
    pub doubtful_from: Lsn,
}

/// The bodies of the node plane. "To primary" bodies are answers to what the primary asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PeerBody {
    /// Primary to member: records behind `previous` in the bulk (see [`crate::message::peer::encode_records`]),
    /// possibly none (a heartbeat).
    #[n(0)]
    Append {
        /// The record before the first one sent.
        #[n(0)]
        previous: LogPoint,
        /// Everything up to here is committed.
        #[n(1)]
        committed: Lsn,
        /// How many records the bulk holds.
        #[n(2)]
        count: u32,
    },
    /// Member to primary: this is under a finished fdatasync.
    #[n(1)]
    DurableAck {
        /// The last durable record, payload included.
        #[n(0)]
        durable: LogPoint,
        /// The committed point the member has applied.
        #[n(1)]
        committed: Lsn,
        /// How many committed uploads the member still lacks.
        #[n(2)]
        missing_uploads: u32,
        /// Its disk has no room for a further segment: nothing new should be begun.
        #[n(3)]
        short_of_room: bool,
    },
    /// Member to primary: the records do not fit behind my log.
    #[n(2)]
    Gap {
        /// The member's last record.
        #[n(0)]
        last: LogPoint,
        /// The member's committed point: its log up to here is certainly shared.
        #[n(1)]
        committed: Lsn,
    },
    /// Either way: I have promised a higher epoch.
    #[n(3)]
    Fenced {
        /// The epoch promised.
        #[n(0)]
        promised: Epoch,
    },
    /// Primary (or relay) to member: leaves of an upload in the bulk, whole but for the very last.
    #[n(4)]
    Payload {
        /// The upload.
        #[n(0)]
        upload: UploadId,
        /// Index of the first leaf.
        #[n(1)]
        first: u32,
        /// The chaining value of each leaf.
        #[cbor(n(2), decode_with = "crate::codec::list::<PAYLOAD_LEAVES_MAX, _, _>")]
        leaves: Vec<Hash>,
        /// A member of the receiver's data centre to which the receiver passes the bytes on.
        #[n(3)]
        relay_to: Option<StoreId>,
        /// Whether this answers a [`PeerBody::FetchPayload`].
        #[n(4)]
        fetched: bool,
    },
    /// Member to any: I lack these leaves.
    #[n(5)]
    FetchPayload {
        /// The upload.
        #[n(0)]
        upload: UploadId,
        /// Index of the first leaf.
        #[n(1)]
        first: u32,
        /// How many.
        #[n(2)]
        count: u32,
    },
    /// Any to member: I cannot give you those leaves.
    #[n(6)]
    NoPayload {
        /// The upload.
        #[n(0)]
        upload: UploadId,
    },
    /// New primary to member: promise my epoch and tell me where you are.
    #[n(7)]
    Peer,
    /// Member to new primary: promised (durably); this is where I am.
    #[n(8)]
    Report(#[n(0)] StoreReport),
    /// New primary to a member that is ahead: send me your records behind this point.
    #[n(9)]
    FetchLog {
        /// The last record I have.
        #[n(0)]
        after: LogPoint,
    },
    /// Member to new primary: records in the bulk, or a hint where our logs part.
    #[n(10)]
    Log {
        /// The record before the first one sent.
        #[n(0)]
        previous: LogPoint,
        /// How many records the bulk holds.
        #[n(1)]
        count: u32,
        /// Whether these are the last.
        #[n(2)]
        last: bool,
    },
    /// Primary to every store that ever held the volume: erase.
    #[n(11)]
    Erase {
        /// The order.
        #[n(0)]
        order: SignedPurgeOrder,
        /// Which of its items (all that were purged and that this store has not yet receipted).
        #[cbor(n(1), decode_with = "crate::codec::list::<PURGE_ITEMS_MAX, _, _>")]
        items: Vec<PurgeItem>,
        /// The position of the `Purging` record; the store erases once it knows it committed.
        #[n(2)]
        purging: Lsn,
    },
    /// Store to primary: erased.
    #[n(12)]
    Erased {
        /// One receipt per item.
        #[cbor(n(0), decode_with = "crate::codec::list::<PURGE_ITEMS_MAX, _, _>")]
        receipts: Vec<SignedEraseReceipt>,
    },
    /// Member to primary: bytes of these uploads lie here, and no record has referred to them for long.
    #[n(13)]
    Orphans {
        /// The uploads.
        #[cbor(n(0), decode_with = "crate::codec::list::<ORPHANS_MAX, _, _>")]
        uploads: Vec<UploadId>,
    },
    /// Member to primary: how it stands with the rotation of my key bag.
    #[n(14)]
    Bag(#[n(0)] BagWord),
    /// Primary to member: rotate your key bag, if this is still the number of your wish; in any case
    /// tell me where you are.
    #[n(15)]
    BagTurn {
        /// The number of the member's [`BagWord`], or 0 to ask only.
        #[n(0)]
        number: u64,
    },
    /// Any to any, about volume 0: write the page in the bulk to your store, flush it, read it back.
    #[n(16)]
    Probe {
        /// Counts the asker's probes in this run of its process.
        #[n(0)]
        number: u64,
    },
    /// Any to any, about volume 0: done.
    #[n(17)]
    Probed {
        /// The probe's number.
        #[n(0)]
        number: u64,
        /// blake3 of what was read back.
        #[n(1)]
        hash: Hash,
        /// How many microseconds it waited for the disk and was there.
        #[n(2)]
        disk_us: u32,
    },
    /// Store to primary: I am here, and what you wait for is not there yet. I was not told of this epoch, or my disk
    /// still makes it or your records durable, behind others.
    #[n(18)]
    NotYet,
    /// A store that the volume went on without to the primary: what of this do you have?
    #[n(19)]
    Compare(#[n(0)] Compare),
    /// The primary to that store: this.
    #[n(20)]
    Compared(#[n(0)] Compared),
}

/// The longest page of a [`PeerBody::Probe`].
pub const PROBE_BYTES_MAX: usize = 4096;

/// What a store says of its key bag's rotation. Later words of a run are greater than earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct BagWord {
    /// Counts the store's wishes in this run of its process.
    #[n(0)]
    pub number: u64,
    /// What became of this one.
    #[n(1)]
    pub turn: BagTurn,
}

/// What became of a store's wish to rotate its key bag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum BagTurn {
    /// It waits for its turn.
    #[n(0)]
    Wanted,
    /// The rotation is under way.
    #[n(1)]
    Taken,
    /// It is over, or there never was one.
    #[default]
    #[n(2)]
    Over,
}

/// Records in a message's bulk that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsError(pub String);

impl PeerBody {
    /// Whether a client waits for what this brings: records and payload as they come in, not those of old.
    pub fn is_for_clients(&self) -> bool {
        matches!(self, Self::Append { count: 1.., .. } | Self::Payload { fetched: false, .. })
    }
}

impl std::fmt::Display for RecordsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "records in a message cannot be read: {}", self.0)
    }
}

impl std::error::Error for RecordsError {}

pub use records::{decode_records, encode_records};

mod records {
    //! Records one after the other: a byte of flags (1: wrapped key follows, 2: erasable part
    //! follows), the public part, then the parts that are there. Lengths stand in the headers.

    use bytes::{BufMut, Bytes, BytesMut};

    use super::RecordsError;
    use crate::record::Record;

    const WRAPPED: u8 = 1;
    const ERASABLE: u8 = 2;

    /// Encodes records for a message's bulk.
    pub fn encode_records<'r>(records: impl IntoIterator<Item = &'r Record>) -> Bytes {
        let mut bulk = BytesMut::new();
        for record in records {
            let flags = if record.wrapped().is_some() { WRAPPED } else { 0 }
                | if record.erasable_bytes().is_some() { ERASABLE } else { 0 };
            bulk.put_u8(flags);
            bulk.put_slice(record.public());
            if let Some(wrapped) = record.wrapped() {
                bulk.put_slice(wrapped);
            }
            if let Some(erasable) = record.erasable_bytes() {
                bulk.put_slice(erasable);
            }
        }
        bulk.freeze()
    }

    /// Decodes exactly `count` records, checking each part against its header.
    pub fn decode_records(mut bulk: Bytes, count: u32) -> Result<Vec<Record>, RecordsError> {
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(decode_record(&mut bulk)?);
        }
        if !bulk.is_empty() {
            return Err(RecordsError(format!("{} bytes left over behind {count} records", bulk.len())));
        }
        Ok(records)
    }

    fn decode_record(bulk: &mut Bytes) -> Result<Record, RecordsError> {
        let wrong = |error: crate::record::RecordError| RecordsError(error.to_string());
        if bulk.is_empty() {
            return Err(RecordsError("fewer records than announced".into()));
        }
        let flags = bulk.split_to(1)[0];
        if flags & !(WRAPPED | ERASABLE) != 0 {
            return Err(RecordsError(format!("record flags are {flags:#04x}, expected none above 0x03")));
        }
        let mut record = Record::parse_public(bulk).map_err(wrong)?;
        let lengths = record.lengths();
        let _ = bulk.split_to(lengths.public);
        if flags & WRAPPED != 0 {
            record = record.with_wrapped(take(bulk, lengths.wrapped)?).map_err(wrong)?;
        }
        if flags & ERASABLE != 0 {
            record = record.with_erasable(take(bulk, lengths.erasable)?).map_err(wrong)?;
        }
        Ok(record)
    }

    fn take(bulk: &mut Bytes, length: usize) -> Result<Bytes, RecordsError> {
        if bulk.len() < length {
            return Err(RecordsError(format!("{length} bytes announced, {} are there", bulk.len())));
        }
        Ok(bulk.split_to(length))
    }
}
