//! Raft's messages, entries and snapshots, into Trefoil's types and back. The old protobuf parser
//! behind Raft never sees a byte from outside.

use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};
use trefoil_protocol::ids::VoterId;
use trefoil_protocol::message::voter::{EntryKind, LogEntry, LogSnapshot, RaftKind, RaftMessage};

/// The kinds that travel.
const KINDS: [(RaftKind, MessageType); 10] = [
    (RaftKind::Append, MessageType::MsgAppend),
    (RaftKind::Appended, MessageType::MsgAppendResponse),
    (RaftKind::AskVote, MessageType::MsgRequestVote),
    (RaftKind::Vote, MessageType::MsgRequestVoteResponse),
    (RaftKind::Snapshot, MessageType::MsgSnapshot),
    (RaftKind::Heartbeat, MessageType::MsgHeartbeat),
    (RaftKind::Heard, MessageType::MsgHeartbeatResponse),
    (RaftKind::HandOver, MessageType::MsgTimeoutNow),
    (RaftKind::AskPreVote, MessageType::MsgRequestPreVote),
    (RaftKind::PreVote, MessageType::MsgRequestPreVoteResponse),
];

/// What is said to another voter; `None` for a kind that never leaves its voter.
pub(super) fn from_message(message: &Message) -> Option<RaftMessage> {
    let (kind, _) = KINDS.iter().find(|(_, kind)| *kind == message.get_msg_type())?;
    Some(RaftMessage {
        kind: *kind,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(from_entry).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot: message.has_snapshot().then(|| from_snapshot(message.get_snapshot())),
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.clone(),
        priority: message.priority,
    })
}

/// A message said by `from` to `to`: who speaks is what the connection proved.
pub(super) fn to_message(from: VoterId, to: VoterId, said: RaftMessage) -> Message {
    let mut message = Message::default();
    let kind = KINDS.iter().find(|(kind, _)| *kind == said.kind);
    message.set_msg_type(kind.expect("every kind is in the list").1);
    message.from = from.0;
    message.to = to.0;
    message.term = said.term;
    message.log_term = said.log_term;
    message.index = said.index;
    message.entries = said.entries.into_iter().map(to_entry).collect();
    message.commit = said.commit;
    message.commit_term = said.commit_term;
    if let Some(snapshot) = &said.snapshot {
        message.set_snapshot(to_snapshot(snapshot));
    }
    message.request_snapshot = said.request_snapshot;
    message.reject = said.reject;
    message.reject_hint = said.reject_hint;
    message.context = said.context;
    message.priority = said.priority;
    message
}

pub(super) fn from_entry(entry: &Entry) -> LogEntry {
    // A membership travels in Trefoil's words, which stand in the context.
    let (kind, data) = match entry.get_entry_type() {
        EntryType::EntryNormal => (EntryKind::Command, entry.data.clone()),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            (EntryKind::Membership, entry.context.clone())
        }
    };
    LogEntry { index: entry.index, term: entry.term, kind, data }
}

pub(super) fn to_entry(kept: LogEntry) -> Entry {
    let mut entry = Entry { index: kept.index, term: kept.term, ..Entry::default() };
    match kept.kind {
        EntryKind::Command => entry.data = kept.data,
        EntryKind::Membership => {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.context = kept.data;
        }
    }
    entry
}

fn from_snapshot(snapshot: &Snapshot) -> LogSnapshot {
    let metadata = snapshot.get_metadata();
    let members = metadata.get_conf_state();
    LogSnapshot {
        index: metadata.index,
        term: metadata.term,
        voters: members.voters.iter().copied().map(VoterId).collect(),
        learners: members.learners.iter().copied().map(VoterId).collect(),
        data: snapshot.data.clone(),
    }
}

/// The snapshot of a [`raft::Ready`], if there is one.
pub(super) fn received_snapshot(snapshot: &Snapshot) -> Option<LogSnapshot> {
    (snapshot.get_metadata().index > 0).then(|| from_snapshot(snapshot))
}

pub(super) fn to_snapshot(kept: &LogSnapshot) -> Snapshot {
    let mut snapshot = Snapshot { data: kept.data.clone(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    metadata.index = kept.index;
    metadata.term = kept.term;
    metadata.set_conf_state(conf_state(kept));
    snapshot
}

pub(super) fn conf_state(snapshot: &LogSnapshot) -> ConfState {
    let numbers = |voters: &[VoterId]| voters.iter().map(|voter| voter.0).collect::<Vec<u64>>();
    ConfState::from((numbers(&snapshot.voters), numbers(&snapshot.learners)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_and_a_local_one_goes_nowhere() {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.from, message.to, message.term, message.commit) = (1, 2, 3, 4);
        let entry = |index, kind| LogEntry { index, term: 3, kind, data: vec![6].into() };
        message.entries =
            vec![to_entry(entry(5, EntryKind::Command)), to_entry(entry(6, EntryKind::Membership))].into();
        message.set_snapshot(to_snapshot(&LogSnapshot {
            index: 4,
            term: 2,
            voters: [1, 2, 3].map(VoterId).to_vec(),
            learners: vec![VoterId(4)],
            data: vec![7].into(),
        }));
        let said = from_message(&message).unwrap();
        assert_eq!(to_message(VoterId(1), VoterId(2), said), message);
        message.set_msg_type(MessageType::MsgHup);
        assert_eq!(from_message(&message), None);
    }
}
