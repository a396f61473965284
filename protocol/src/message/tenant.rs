//! The tenant plane: what a client asks a storage node or the custodian, and what it may hear. One
//! request per bidirectional stream; an upload's bytes follow its request, a download's bytes follow
//! its answer.
//!
//! Another tenant's object and no object answer alike; every refusal is one of [`Refusal`].

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::config::{NodeEntry, Protection, TenantEntry, VolumeConfig, VoterEntry};
use crate::deletion::SignedCertificate;
use crate::ids::{
    DcId, Epoch, Hash, Lsn, NameTag, NodeId, PrincipalId, StoreId, Token, UploadId, VersionId, VolumeId,
};
use crate::key::ObjectKey;
use crate::message::REASON_MAX;
use crate::record::{METADATA_MAX, WRAPPED_MAX};
use crate::time::{CpTime, Millis};
use crate::tree::RangeProof;

/// The most objects on one page of a listing.
pub const PAGE_MAX: u32 = 1000;

/// The most encoded bytes on one page of a listing: long names fill a frame before [`PAGE_MAX`] does,
/// so who makes a page ends it, with `more`, at whichever comes first.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;

/// The most certificates in one answer.
pub const CERTIFICATES_MAX: usize = 64;

/// The most leaf ranges that one request may ask for.
pub const LEAF_RANGES_MAX: usize = 64;

/// What must be true of a key for a mutation to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Precondition {
    /// Nothing.
    #[default]
    #[n(0)]
    Any,
    /// No live version exists.
    #[n(1)]
    Absent,
    /// This version is the live one.
    #[n(2)]
    Version(#[n(0)] VersionId),
}

/// A token together with the mark below which the client has confirmed all of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TokenUse {
    /// The token of this mutation.
    #[n(0)]
    pub token: Token,
    /// All tokens of the instance below this sequence number are confirmed.
    #[n(1)]
    pub confirmed_below: u64,
}

/// Stores a new version. If `inline` is empty, [`UploadPart`] frames follow on the stream, the last
/// of them [`UploadPart::End`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PutRequest {
    /// The name.
    #[n(0)]
    pub key: ObjectKey,
    /// Keyed hash of the name.
    #[n(1)]
    pub name_tag: NameTag,
    /// Version and attempt.
    #[n(2)]
    pub upload: UploadId,
    /// What must be true.
    #[n(3)]
    pub precondition: Precondition,
    /// Version of the tenant key that wrapped the data key.
    #[n(4)]
    pub kek_version: u32,
    /// The wrapped data key.
    #[cbor(
        n(5),
        encode_with = "crate::codec::bytes::encode",
        decode_with = "crate::codec::bytes::decode_limited::<WRAPPED_MAX, _>"
    )]
    pub wrapped_key: Bytes,
    /// Root, length and metadata, for an object that rides in the request's bulk.
    #[n(6)]
    pub inline: Option<UploadEnd>,
    /// The idempotency token.
    #[n(7)]
    pub token: TokenUse,
}

/// The end of an upload: what the bytes amount to, and what the tenant says about them, which holds
/// their plaintext length and so cannot be sealed before the last byte was seen.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UploadEnd {
    /// blake3 of all sealed bytes.
    #[n(0)]
    pub root: Hash,
    /// How many sealed bytes there are.
    #[n(1)]
    pub sealed_length: u64,
    /// Sealed metadata.
    #[cbor(
        n(2),
        encode_with = "crate::codec::bytes::encode",
        decode_with = "crate::codec::bytes::decode_limited::<METADATA_MAX, _>"
    )]
    pub metadata: Bytes,
}

/// One frame behind a streamed [`PutRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum UploadPart {
    /// Whole leaves of 64 KiB from this index on (the very last one may be shorter), in the bulk.
    #[n(0)]
    Leaves {
        /// Index of the first leaf.
        #[n(0)]
        first: u32,
    },
    /// No more leaves.
    #[n(1)]
    End(#[n(0)] UploadEnd),
}

/// Which version of a key is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Selector {
    /// The live one, as the primary knows it under its lease.
    #[n(0)]
    Latest,
    /// This one, if it is live; any replica may answer.
    #[n(1)]
    Version(#[n(0)] VersionId),
    /// This one, if it is live as far as the replica knows: one whose lease has run out answers too, and
    /// marks it, if the tenant allows that.
    #[n(2)]
    StalePossible(#[n(0)] VersionId),
}

impl Selector {
    /// The version, if an exact one is meant.
    pub fn version(self) -> Option<VersionId> {
        match self {
            Self::Latest => None,
            Self::Version(version) | Self::StalePossible(version) => Some(version),
        }
    }
}

/// Which bytes of the sealed object are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Want {
    /// None: only the description.
    #[n(0)]
    Head,
    /// All.
    #[n(1)]
    Whole,
    /// Leaf ranges `(first, count)`, ascending and disjoint; each is answered with a proof.
    #[n(2)]
    Leaves(#[cbor(n(0), decode_with = "crate::codec::list::<LEAF_RANGES_MAX, _, _>")] Vec<(u32, u32)>),
}

/// What a client asks. The volume and epoch are the client's view; a node with another one says so.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TenantRequest {
    /// The volume the key falls into; 0 for [`TenantCall::Route`] and the calls for keys.
    #[n(0)]
    pub volume: VolumeId,
    /// The epoch of the client's view.
    #[n(1)]
    pub epoch: Epoch,
    /// The call.
    #[n(2)]
    pub call: TenantCall,
    /// For how long the client listens, from the last frame of its request on. What is not begun by then is not
    /// begun any more.
    #[n(3)]
    pub within: Millis,
}

/// The calls of the tenant plane.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TenantCall {
    /// Stores a version.
    #[n(0)]
    Put(#[n(0)] PutRequest),
    /// Reads a version or describes it.
    #[n(1)]
    Get {
        /// The name.
        #[n(0)]
        key: ObjectKey,
        /// Which version.
        #[n(1)]
        selector: Selector,
        /// Which bytes.
        #[n(2)]
        want: Want,
    },
    /// Lists live keys of one volume, ordered by bytes.
    #[n(2)]
    List {
        /// Only keys that begin with this.
        #[cbor(n(0), decode_with = "crate::codec::text::<{ ObjectKey::LENGTH_MAX }, _>")]
        prefix: String,
        /// Only keys after this one.
        #[n(1)]
        after: Option<ObjectKey>,
        /// At most this many, up to [`PAGE_MAX`].
        #[n(2)]
        limit: u32,
    },
    /// Lists logically deleted keys of one volume that can still be undeleted.
    #[n(3)]
    Deleted {
        /// Only keys that begin with this.
        #[cbor(n(0), decode_with = "crate::codec::text::<{ ObjectKey::LENGTH_MAX }, _>")]
        prefix: String,
        /// Only keys after this one.
        #[n(1)]
        after: Option<ObjectKey>,
        /// At most this many, up to [`PAGE_MAX`].
        #[n(2)]
        limit: u32,
    },
    /// Hides the live version.
    #[n(4)]
    Delete {
        /// The name.
        #[n(0)]
        key: ObjectKey,
        /// What must be true; `Absent` is refused.
        #[n(1)]
        precondition: Precondition,
        /// The idempotency token.
        #[n(2)]
        token: TokenUse,
    },
    /// Makes the last deleted version live again.
    #[n(5)]
    Undelete {
        /// The name.
        #[n(0)]
        key: ObjectKey,
        /// Keyed hash of the name: it tells what is gone from what never was, after names are erased.
        #[n(1)]
        name_tag: NameTag,
        /// The version, if not the last deleted one.
        #[n(2)]
        version: Option<VersionId>,
        /// The idempotency token.
        #[n(3)]
        token: TokenUse,
    },
    /// How far the delete of a name's versions is, oldest first; at most [`PAGE_MAX`] in one answer.
    /// A full answer is followed by a question for what is behind its last one.
    #[n(6)]
    PurgeStatus {
        /// Keyed hash of the name: the name itself may be erased already.
        #[n(0)]
        name_tag: NameTag,
        /// Only versions behind this one.
        #[n(1)]
        after: Option<VersionId>,
    },
    /// The certificates of a name's erased versions, oldest first; at most [`CERTIFICATES_MAX`] in one
    /// answer. A full answer is followed by a question for what is behind its last one.
    #[n(7)]
    Certificates {
        /// Keyed hash of the name.
        #[n(0)]
        name_tag: NameTag,
        /// Only versions behind this one.
        #[n(1)]
        after: Option<VersionId>,
    },
    /// What became of a mutation; if it is not in the log, it is sealed as never to happen.
    #[n(8)]
    Outcome {
        /// The mutation's token.
        #[n(0)]
        token: Token,
    },
    /// The tenant's volumes and where they are. Answered by nodes and by the control plane.
    #[n(9)]
    Route,
    /// The tenant's keys. Answered by the custodian only.
    #[n(10)]
    Keys,
    /// The tenant's keys without a block of wraps. A voter without a leader answers too, if the tenant
    /// allows stale reads.
    #[n(11)]
    KeysToRead,
}

/// One copy behind an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Copy {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Its data centre.
    #[n(1)]
    pub dc: DcId,
    /// Its store.
    #[n(2)]
    pub store: StoreId,
}

/// The acknowledgement of a put.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PutReceipt {
    /// The version stored.
    #[n(0)]
    pub version: VersionId,
    /// Its place in the volume's log.
    #[n(1)]
    pub lsn: Lsn,
    /// The epoch that acknowledged it.
    #[n(2)]
    pub epoch: Epoch,
    /// blake3 of the sealed bytes.
    #[n(3)]
    pub root: Hash,
    /// The rule it was acknowledged under.
    #[n(4)]
    pub protection: Protection,
    /// The durable copies at the moment of the acknowledgement.
    #[n(5)]
    pub copies: Vec<Copy>,
}

/// A version as its holder describes it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ObjectView {
    /// The name.
    #[n(0)]
    pub key: ObjectKey,
    /// Version and attempt.
    #[n(1)]
    pub upload: UploadId,
    /// blake3 of the sealed bytes.
    #[n(2)]
    pub root: Hash,
    /// How many sealed bytes there are.
    #[n(3)]
    pub sealed_length: u64,
    /// Version of the tenant key.
    #[n(4)]
    pub kek_version: u32,
    /// The wrapped data key.
    #[cbor(
        n(5),
        encode_with = "crate::codec::bytes::encode",
        decode_with = "crate::codec::bytes::decode_limited::<WRAPPED_MAX, _>"
    )]
    pub wrapped_key: Bytes,
    /// Sealed metadata.
    #[cbor(
        n(6),
        encode_with = "crate::codec::bytes::encode",
        decode_with = "crate::codec::bytes::decode_limited::<METADATA_MAX, _>"
    )]
    pub metadata: Bytes,
    /// Where its put stands in the log.
    #[n(7)]
    pub lsn: Lsn,
    /// The epoch that answers.
    #[n(8)]
    pub epoch: Epoch,
    /// The rule of that epoch.
    #[n(9)]
    pub protection: Protection,
    /// The copies of this version now.
    #[n(10)]
    pub copies: Vec<Copy>,
    /// When it was stored, in control-plane time.
    #[n(11)]
    pub created: CpTime,
    /// The replica had no lease: the version may have been deleted since, elsewhere.
    #[n(12)]
    pub stale_possible: bool,
}

/// A line of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListEntry {
    /// The name.
    #[n(0)]
    pub key: ObjectKey,
    /// The version.
    #[n(1)]
    pub version: VersionId,
    /// Sealed length.
    #[n(2)]
    pub sealed_length: u64,
    /// blake3 of the sealed bytes.
    #[n(3)]
    pub root: Hash,
    /// When it was stored, in control-plane time.
    #[n(4)]
    pub created: CpTime,
    /// For a deleted one: when its window ends, in control-plane time.
    #[n(5)]
    pub window_ends: Option<CpTime>,
}

/// How far a version's delete is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum PurgeStage {
    /// Not deleted.
    #[n(0)]
    Live,
    /// Hidden; can be undeleted.
    #[n(1)]
    Deleted,
    /// Past the point of no return; copies are being erased.
    #[n(2)]
    Purging,
    /// Only the first copy is left.
    #[n(3)]
    OthersErased,
    /// Every copy is erased; the certificate can be fetched.
    #[n(4)]
    Certified,
}

impl PurgeStage {
    /// What `purge-status` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Deleted => "DELETED",
            Self::Purging => "PURGING",
            Self::OthersErased => "ERASED_OTHERS",
            Self::Certified => "ERASED",
        }
    }
}

/// A version's way through deletion.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PurgeView {
    /// The version.
    #[n(0)]
    pub version: VersionId,
    /// How far it is.
    #[n(1)]
    pub stage: PurgeStage,
    /// When its window ends, in control-plane time.
    #[n(2)]
    pub window_ends: Option<CpTime>,
    /// How many copies still hold its bytes.
    #[n(3)]
    pub copies_left: u32,
}

/// A tenant's volumes and the nodes that hold them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RouteView {
    /// The tenant.
    #[n(0)]
    pub tenant: TenantEntry,
    /// Its volumes, by slot; none if whoever answers does not know them all.
    #[n(1)]
    pub volumes: Vec<VolumeConfig>,
    /// The nodes.
    #[n(2)]
    pub nodes: Vec<NodeEntry>,
    /// Control-plane time.
    #[n(3)]
    pub now: CpTime,
    /// The principal that asked.
    #[n(4)]
    pub principal: PrincipalId,
    /// Where the tenant's keys are given out: the control plane's voters with keys; none if whoever
    /// answers does not know them.
    #[n(5)]
    pub voters: Vec<VoterEntry>,
}

/// One version of a tenant key. Travels only between custodian and client, inside TLS.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct TenantKeyGrant {
    /// Its version, from 1.
    #[n(0)]
    pub version: u32,
    /// The key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: [u8; 32],
}

impl Drop for TenantKeyGrant {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

impl std::fmt::Debug for TenantKeyGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TenantKeyGrant(version {}, secret)", self.version)
    }
}

/// The custodian's answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeysView {
    /// Version 0 is the key that hashes object names; the rest wrap data keys.
    #[n(0)]
    pub keys: Vec<TenantKeyGrant>,
    /// A block of wrap nonces that nobody else was given: prefix and first counter.
    #[n(1)]
    pub nonce_prefix: u32,
    /// How many wraps the block allows; none where the keys are to read with.
    #[n(2)]
    pub nonce_count: u64,
}

/// An answer that is not a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TenantAnswer {
    /// The put is durable.
    #[n(0)]
    Stored(#[n(0)] PutReceipt),
    /// The description. If all bytes were wanted of an object that rides in its record, they are this
    /// frame's bulk; if bytes of another object, or leaves, were wanted, [`DataPart`] frames follow.
    #[n(1)]
    Object(#[n(0)] ObjectView),
    /// A page; `next` is the key to go on after, if there is more.
    #[n(2)]
    Page {
        /// The lines, ordered by key bytes; all lines of one key stand on one page, which may be longer
        /// for it.
        #[n(0)]
        entries: Vec<ListEntry>,
        /// Whether more follow behind the last one.
        #[n(1)]
        more: bool,
    },
    /// The delete is durable.
    #[n(3)]
    Deleted {
        /// The version that is hidden.
        #[n(0)]
        version: VersionId,
        /// The tombstone.
        #[n(1)]
        tombstone: Lsn,
        /// When its window ends, in control-plane time.
        #[n(2)]
        window_ends: CpTime,
    },
    /// The undelete is durable.
    #[n(4)]
    Undeleted {
        /// The version that is live again.
        #[n(0)]
        version: VersionId,
        /// The record.
        #[n(1)]
        lsn: Lsn,
    },
    /// How far each version of a name is, oldest first.
    #[n(5)]
    Purges(#[cbor(n(0), decode_with = "crate::codec::list::<{ PAGE_MAX as usize }, _, _>")] Vec<PurgeView>),
    /// Certificates, oldest first.
    #[n(6)]
    Certificates(
        #[cbor(n(0), decode_with = "crate::codec::list::<CERTIFICATES_MAX, _, _>")] Vec<SignedCertificate>,
    ),
    /// The mutation took effect; its first answer.
    #[n(7)]
    Applied(#[cbor(n(0), decode_with = "first_answer")] Box<TenantAnswer>),
    /// The mutation never took effect and never will.
    #[n(8)]
    NotApplied,
    /// Volumes and nodes.
    #[n(9)]
    Route(#[n(0)] RouteView),
    /// Keys.
    #[n(10)]
    Keys(#[n(0)] KeysView),
}

/// Only a mutation has a first answer; another one could hold itself, and so on without end.
fn first_answer<'b, C>(
    d: &mut minicbor::Decoder<'b>,
    ctx: &mut C,
) -> Result<Box<TenantAnswer>, minicbor::decode::Error> {
    let at = d.position();
    let answer = TenantAnswer::decode(d, ctx)?;
    match answer {
        TenantAnswer::Stored(_) | TenantAnswer::Deleted { .. } | TenantAnswer::Undeleted { .. } => {
            Ok(Box::new(answer))
        }
        _ => Err(minicbor::decode::Error::message("the first answer is not that of a mutation").at(at)),
    }
}

/// A frame behind [`TenantAnswer::Object`]: leaves in its bulk.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DataPart {
    /// Index of the first leaf in the bulk.
    #[n(0)]
    pub first: u32,
    /// For a leaf range: its proof, with the range's first frame.
    #[n(1)]
    pub proof: Option<RangeProof>,
    /// Whether this is the last frame of the answer.
    #[n(2)]
    pub last: bool,
}

/// Why nothing happened, or why it is not known. The closed list of what a client may see.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    /// No such object, or not yours.
    #[n(0)]
    #[error("no such object")]
    NotFound,
    /// Another node is the primary.
    #[n(1)]
    #[error("this node is not the volume's primary")]
    NotPrimary {
        /// The epoch this node knows.
        #[n(0)]
        epoch: Epoch,
        /// Its primary.
        #[n(1)]
        primary: Option<NodeId>,
    },
    /// The primary's lease is over or not yet confirmed.
    #[n(2)]
    #[error("the primary holds no lease at the moment")]
    LeaseExpired,
    /// Not enough copies can be reached; try again.
    #[n(3)]
    #[error("not enough copies can be reached")]
    Unavailable,
    /// Too much is under way, and nothing of this was begun; ask again after so long.
    #[n(4)]
    #[error("too much is under way; ask again in {} ms", .retry_after.0)]
    Busy {
        /// Whoever asks earlier is refused again.
        #[n(0)]
        retry_after: Millis,
    },
    /// The precondition does not hold.
    #[n(5)]
    #[error("the precondition does not hold")]
    PreconditionFailed,
    /// It is past the point of no return.
    #[n(6)]
    #[error("the object is being purged or is gone")]
    Gone,
    /// The token is confirmed, outside its window, or sealed as never to happen.
    #[n(7)]
    #[error("the idempotency token is no longer valid")]
    Expired,
    /// The token was used for another request.
    #[n(8)]
    #[error("the idempotency token belongs to another request")]
    TokenMismatch,
    /// The store is full.
    #[n(9)]
    #[error("the store is full")]
    Full,
    /// The version changed under the reader; ask the primary again.
    #[n(10)]
    #[error("the object changed; ask again")]
    Changed,
    /// The request breaks a rule of the protocol.
    #[n(11)]
    #[error("invalid request: {0}")]
    Invalid(#[cbor(n(0), decode_with = "crate::codec::text::<REASON_MAX, _>")] String),
    /// The bytes that arrived are not the bytes that were announced.
    #[n(12)]
    #[error("the uploaded bytes do not match their root")]
    Corrupt,
    /// The control plane knows no tenant or principal like the certificate's. A node that has not
    /// heard of one yet says [`Refusal::NotFound`] instead.
    #[n(13)]
    #[error("the cluster knows no such tenant or principal")]
    Stranger,
    /// One data centre cannot be reached, and the tenant wants every write in both.
    #[n(14)]
    #[error("one data centre cannot be reached, and this tenant's writes need both; try again later")]
    SingleDc,
    /// The client does not listen any more. Nothing of this was begun, nor will be.
    #[n(15)]
    #[error("its time was over before it was begun")]
    Late,
    /// The primary leads although it lacks payload, and this object's is on other stores. It cannot be read or
    /// changed before one of those that have it returns.
    #[n(16)]
    #[error("the object's bytes are not here yet; the stores that may have them are {}", names(.stores))]
    Owed {
        /// The stores that may have it.
        #[n(0)]
        stores: Vec<StoreId>,
    },
}

fn names(stores: &[StoreId]) -> String {
    stores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Refusal {
    /// Whether this says that nothing was begun because there is too much to do.
    pub fn sheds(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Late)
    }

    /// Whether the same request, sent again (to whoever is primary then), may succeed.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::NotPrimary { .. }
                | Self::LeaseExpired
                | Self::Unavailable
                | Self::Owed { .. }
                | Self::Busy { .. }
                | Self::Late
                | Self::Changed
                | Self::Corrupt
        )
    }
}

/// The first frame of every answer.
pub type TenantResponse = Result<TenantAnswer, Refusal>;

/// A delete window as operators write it; 7 days by default.
pub const WINDOW_DEFAULT: Millis = Millis(7 * 24 * 3600 * 1000);
