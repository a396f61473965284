//! The port behind which consensus stands. The control plane proposes bytes and is told which bytes
//! are committed where; how voters agree is the port's secret, so that another library can take
//! Raft's place.

use bytes::Bytes;
use trefoil_protocol::ids::{ConfigIndex, VoterId};
use trefoil_protocol::message::voter::RaftMessage;

use crate::log_store::LogStoreError;

/// What a new log begins with; the same on all voters that found it.
pub struct Founding {
    /// Who votes; nobody in the log of a voter that joins later, which waits for a snapshot.
    pub voters: Vec<VoterId>,
    /// The encoded state.
    pub state: Vec<u8>,
}

/// A change of who keeps the log: one member at a time, so that any majority before it and any
/// majority after it have a voter in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Follows the log from now on and does not vote; also a voter that shall vote no more.
    Learn(VoterId),
    /// Votes from now on.
    Vote(VoterId),
    /// Is gone, for ever.
    Leave(VoterId),
}

/// Proposals are taken by the leader only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this voter does not lead")]
pub struct NotLeading;

/// An entry that every future leader will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where it stands.
    pub index: ConfigIndex,
    /// What was proposed; empty for a new leader's first entry.
    pub data: Bytes,
}

/// What came of driving the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// A state that takes the place of everything applied so far.
    pub restored: Option<Bytes>,
    /// Newly committed entries, in order, each once.
    pub committed: Vec<Committed>,
    /// Rounds of [`ControlLog::confirm`] that a quorum has answered.
    pub confirmed: Vec<u64>,
    /// Messages to other voters.
    pub messages: Vec<(VoterId, RaftMessage)>,
    /// A committed entry offers a change of members. Until it is applied, with
    /// [`ControlLog::change_members`] unless the state rejects it, nothing more comes; ask again then.
    pub changes_members: bool,
}

/// A voter as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The voter.
    pub voter: VoterId,
    /// Whether it was heard lately.
    pub active: bool,
    /// How far its log is known to go.
    pub matched: u64,
}

/// A replicated log, seen from one voter. Sans-IO but for its store, which it writes synchronously.
pub trait ControlLog {
    /// One unit of time passed.
    fn tick(&mut self);

    /// Another voter says something.
    fn receive(&mut self, from: VoterId, message: RaftMessage);

    /// Offers a command; whether it is committed shows in [`Progress`].
    fn propose(&mut self, command: Vec<u8>) -> Result<(), NotLeading>;

    /// Offers a command that changes who keeps the log. One at a time: while another one is under way
    /// it is refused, as by a voter that does not lead.
    fn propose_membership(&mut self, change: Membership, command: Vec<u8>) -> Result<(), NotLeading>;

    /// A committed change of members is applied: from now on other majorities count. The caller puts
    /// the state behind it into a snapshot, with [`ControlLog::compact`], before it says anything: a
    /// voter never comes back with older members than it spoke under, and a learner finds itself in
    /// the snapshot that it is sent.
    fn change_members(&mut self, change: Membership) -> Result<(), LogStoreError>;

    /// Asks a quorum whether this voter still leads; the answer comes as [`Progress::confirmed`] or
    /// never.
    fn confirm(&mut self, round: u64);

    /// Makes durable what must be and says what came of it. Nothing is said before it is durable.
    fn advance(&mut self) -> Result<Progress, LogStoreError>;

    /// The term in which this voter leads and has committed an entry, so that it knows everything
    /// that was ever committed; `None` if it does not.
    fn leads(&self) -> Option<u64>;

    /// Who leads, as far as this voter knows.
    fn leader(&self) -> Option<VoterId>;

    /// Names this voter's copy of the log: another one than any log begun elsewhere or anew.
    fn log_id(&self) -> u64;

    /// All members, learners and this one too, as the leader sees them; empty if this voter does not
    /// lead.
    fn peers(&self) -> Vec<PeerProgress>;

    /// Gives the leadership to whichever of these is fit for it; nothing happens if none is.
    fn hand_over(&mut self, to: &[VoterId]);

    /// How many entries stand behind the snapshot.
    fn length(&self) -> usize;

    /// Puts the state after `index` in place of everything up to there.
    fn compact(&mut self, index: ConfigIndex, state: Vec<u8>) -> Result<(), LogStoreError>;
}
