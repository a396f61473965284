//! What the voters of the control plane tell each other: Raft's messages in Trefoil's own encoding, and
//! who they are. The list of kinds is closed and every length is bounded by the bytes that came.
//!
//! A message may be longer than a frame; it travels in pieces, each the bulk of a frame whose body
//! is a [`VoterPiece`].

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::config::VoterEntry;
use crate::deletion::{DeletionCertificate, PURGE_ITEMS_MAX, PurgeOrder, Signers};
use crate::ids::{ConfigIndex, Hash, PublicKey, VoterId};
use crate::loss_list::LossStatement;
use crate::sign::{Signatory, Signed64};

/// The longest voter message: a snapshot of the whole state.
pub const VOTER_MESSAGE_MAX: usize = 256 << 20;

/// The body of a frame between voters; its bulk is a piece of an encoded [`VoterMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoterPiece {
    /// Whether the message ends with this piece.
    #[n(0)]
    pub last: bool,
}

/// One voter's message to another. Who sends is what the connection proved.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoterMessage {
    /// Who is meant.
    #[n(0)]
    pub to: VoterId,
    /// The sender's log. A voter whose log was lost begins another one, and is not believed.
    #[n(1)]
    pub log: u64,
    /// The receiver's log, if the sender knows it.
    #[n(2)]
    pub to_log: Option<u64>,
    /// What is said.
    #[n(3)]
    pub body: VoterBody,
    /// Names the list of voters that founded the cluster; zero while the sender joins.
    #[n(4)]
    pub founding: Hash,
}

/// What voters say.
#[allow(clippy::large_enum_variant, reason = "a message is made, taken once and gone")]
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum VoterBody {
    /// A message of Raft.
    #[n(0)]
    Raft(#[n(0)] RaftMessage),
    /// To the leader: this is my log and, unless I am a witness, the key that I sign with.
    #[n(1)]
    Introduce {
        /// The key.
        #[n(0)]
        key: Option<PublicKey>,
        /// A hash of the keys that all voters with keys share.
        #[n(1)]
        shared: Option<Hash>,
    },
    /// You are no member any more, and never will be again under this name.
    #[n(2)]
    Retired,
    /// I am no member and wait to be added.
    #[n(3)]
    Offer(#[n(0)] VoterEntry),
    /// Sign these too, when your own state says that they are right.
    #[n(4)]
    AskSign {
        /// Names the question.
        #[n(0)]
        number: u64,
        /// They follow from the state up to here.
        #[n(1)]
        applied: ConfigIndex,
        /// The papers.
        #[n(2)]
        papers: Papers,
    },
    /// Signed.
    #[n(5)]
    Signed {
        /// The question.
        #[n(0)]
        number: u64,
        /// A signature of each paper, in their order.
        #[cbor(n(1), decode_with = "crate::codec::list::<PURGE_ITEMS_MAX, _, _>")]
        signatures: Vec<Signed64>,
    },
}

/// What two voters sign.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Papers {
    /// A permission to purge.
    #[n(0)]
    Order(#[n(0)] PurgeOrder),
    /// Proofs that versions are gone.
    #[n(1)]
    Certificates(
        #[cbor(n(0), decode_with = "crate::codec::list::<PURGE_ITEMS_MAX, _, _>")] Vec<DeletionCertificate>,
    ),
    /// What a volume went on without.
    #[n(2)]
    Loss(#[n(0)] LossStatement),
}

impl Papers {
    /// Signs each of them.
    pub fn sign(&self, signatory: &Signatory) -> Vec<Signed64> {
        match self {
            Self::Order(order) => vec![signatory.sign(order)],
            Self::Certificates(papers) => papers.iter().map(|paper| signatory.sign(paper)).collect(),
            Self::Loss(statement) => vec![signatory.sign(statement)],
        }
    }

    /// Whether these are signatures of all of them, each by somebody who may sign then.
    pub fn are_signed(&self, signatures: &[Signed64], signers: &Signers) -> bool {
        match self {
            Self::Order(order) => matches!(signatures, [signature] if signature
                .verify(order, |key| signers.may_sign(key, order.at))
                .is_ok()),
            Self::Loss(statement) => matches!(signatures, [signature] if signature
                .verify(statement, |key| signers.may_sign(key, statement.at))
                .is_ok()),
            Self::Certificates(papers) => {
                papers.len() == signatures.len()
                    && papers.iter().zip(signatures).all(|(paper, signature)| {
                        signature.verify(paper, |key| signers.may_sign(key, paper.issued_at)).is_ok()
                    })
            }
        }
    }
}

/// A message of Raft; the fields are those of the `raft` library.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RaftMessage {
    /// Which message.
    #[n(0)]
    pub kind: RaftKind,
    /// The sender's term, or the one that it would begin.
    #[n(1)]
    pub term: u64,
    /// The term of the entry at `index`.
    #[n(2)]
    pub log_term: u64,
    /// A position in the log.
    #[n(3)]
    pub index: u64,
    /// Entries behind it.
    #[n(4)]
    pub entries: Vec<LogEntry>,
    /// Up to where the log is committed.
    #[n(5)]
    pub commit: u64,
    /// The term of the entry there.
    #[n(6)]
    pub commit_term: u64,
    /// The state in the place of entries that are gone.
    #[n(7)]
    pub snapshot: Option<LogSnapshot>,
    /// The least snapshot that is wanted; 0 for none.
    #[n(8)]
    pub request_snapshot: u64,
    /// Whether the answer is no.
    #[n(9)]
    pub reject: bool,
    /// Where the logs may agree.
    #[n(10)]
    pub reject_hint: u64,
    /// Names a round of confirmation or a transfer.
    #[cbor(n(11), with = "crate::codec::bytes")]
    pub context: Bytes,
    /// How much the sender is wanted as a leader.
    #[n(12)]
    pub priority: i64,
}

/// The messages of Raft that travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RaftKind {
    /// Entries.
    #[n(0)]
    Append,
    /// They are durable, or do not fit.
    #[n(1)]
    Appended,
    /// Asks for a vote.
    #[n(2)]
    AskVote,
    /// The vote.
    #[n(3)]
    Vote,
    /// A snapshot.
    #[n(4)]
    Snapshot,
    /// The leader is there.
    #[n(5)]
    Heartbeat,
    /// So is the follower.
    #[n(6)]
    Heard,
    /// Stand for election at once: the leader hands over.
    #[n(7)]
    HandOver,
    /// Asks whether a vote would be given.
    #[n(8)]
    AskPreVote,
    /// Whether it would.
    #[n(9)]
    PreVote,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LogEntry {
    /// Its position, contiguous.
    #[n(0)]
    pub index: u64,
    /// The term of the leader that made it.
    #[n(1)]
    pub term: u64,
    /// What it is.
    #[n(2)]
    pub kind: EntryKind,
    /// The encoded command or membership; empty for a new leader's first entry.
    #[cbor(n(3), with = "crate::codec::bytes")]
    pub data: Bytes,
}

/// What an entry of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum EntryKind {
    /// A command to the state.
    #[n(0)]
    Command,
    /// A change of who votes.
    #[n(1)]
    Membership,
}

/// The state after some entry, in whose place it stands.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LogSnapshot {
    /// The last entry it includes.
    #[n(0)]
    pub index: u64,
    /// That entry's term.
    #[n(1)]
    pub term: u64,
    /// Who votes then.
    #[n(2)]
    pub voters: Vec<VoterId>,
    /// Who only follows.
    #[n(3)]
    pub learners: Vec<VoterId>,
    /// The encoded state.
    #[cbor(n(4), with = "crate::codec::bytes")]
    pub data: Bytes,
}
