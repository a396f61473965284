//! Raft's messages in Trefoil's own encoding: the list of kinds is closed, every length is bounded
//! by the bytes that came, and the old protobuf parser behind Raft never sees a byte from outside.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use raft::eraftpb::{ConfState, Entry, Message, MessageType, Snapshot};
use trefoil_protocol::codec;

use crate::log::MalformedMessage;
use crate::log_store::{LogEntry, LogSnapshot};

/// The kinds that travel, by their number on the wire.
const KINDS: [MessageType; 12] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

#[derive(Encode, Decode)]
struct VoterMessage {
    #[n(0)]
    kind: u8,
    #[n(1)]
    to: u64,
    #[n(2)]
    term: u64,
    #[n(3)]
    log_term: u64,
    #[n(4)]
    index: u64,
    #[n(5)]
    entries: Vec<LogEntry>,
    #[n(6)]
    commit: u64,
    #[n(7)]
    commit_term: u64,
    #[n(8)]
    snapshot: Option<LogSnapshot>,
    #[n(9)]
    request_snapshot: u64,
    #[n(10)]
    reject: bool,
    #[n(11)]
    reject_hint: u64,
    #[cbor(n(12), with = "minicbor::bytes")]
    context: Vec<u8>,
    #[n(13)]
    priority: i64,
}

/// Encodes a message; `None` for a kind that never leaves its voter.
pub(crate) fn encode(message: &Message) -> Option<Bytes> {
    let kind = KINDS.iter().position(|kind| *kind == message.get_msg_type())?;
    let whole = VoterMessage {
        kind: u8::try_from(kind).expect("the list is short"),
        to: message.to,
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
        context: message.context.to_vec(),
        priority: message.priority,
    };
    Some(codec::to_vec(&whole).into())
}

/// Decodes a message said by `from`: who speaks is what the connection proved.
pub(crate) fn decode(from: u64, bytes: &[u8]) -> Result<Message, MalformedMessage> {
    let whole: VoterMessage =
        codec::from_slice(bytes).map_err(|error| MalformedMessage(error.to_string()))?;
    let kind = KINDS
        .get(usize::from(whole.kind))
        .ok_or_else(|| MalformedMessage(format!("kind {} is not known", whole.kind)))?;
    let mut message = Message::default();
    message.set_msg_type(*kind);
    message.from = from;
    message.to = whole.to;
    message.term = whole.term;
    message.log_term = whole.log_term;
    message.index = whole.index;
    message.entries = whole.entries.into_iter().map(to_entry).collect();
    message.commit = whole.commit;
    message.commit_term = whole.commit_term;
    if let Some(snapshot) = &whole.snapshot {
        message.set_snapshot(to_snapshot(snapshot));
    }
    message.request_snapshot = whole.request_snapshot;
    message.reject = whole.reject;
    message.reject_hint = whole.reject_hint;
    message.context = whole.context.into();
    message.priority = whole.priority;
    Ok(message)
}

pub(crate) fn from_entry(entry: &Entry) -> LogEntry {
    LogEntry { index: entry.index, term: entry.term, data: entry.data.to_vec() }
}

pub(crate) fn to_entry(kept: LogEntry) -> Entry {
    Entry { index: kept.index, term: kept.term, data: kept.data.into(), ..Entry::default() }
}

pub(crate) fn from_snapshot(snapshot: &Snapshot) -> LogSnapshot {
    let metadata = snapshot.get_metadata();
    LogSnapshot {
        index: metadata.index,
        term: metadata.term,
        voters: metadata.get_conf_state().voters.clone(),
        data: snapshot.data.to_vec(),
    }
}

pub(crate) fn to_snapshot(kept: &LogSnapshot) -> Snapshot {
    let mut snapshot = Snapshot { data: kept.data.clone().into(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    metadata.index = kept.index;
    metadata.term = kept.term;
    metadata.set_conf_state(ConfState::from((kept.voters.clone(), Vec::new())));
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_and_a_strange_one_is_refused() {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.from, message.to, message.term, message.commit) = (1, 2, 3, 4);
        message.entries = vec![to_entry(LogEntry { index: 5, term: 3, data: vec![6] })].into();
        message.set_snapshot(to_snapshot(&LogSnapshot {
            index: 4,
            term: 2,
            voters: vec![1, 2, 3],
            data: vec![7],
        }));
        let bytes = encode(&message).unwrap();
        assert_eq!(decode(1, &bytes).unwrap(), message);
        for length in 0..bytes.len() {
            assert!(decode(1, &bytes[..length]).is_err());
        }
        message.set_msg_type(MessageType::MsgHup);
        assert_eq!(encode(&message), None);
    }
}
