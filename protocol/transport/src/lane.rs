//! Lanes: ordered queues of messages to one peer, each with a bound.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use trefoil_protocol::ids::UploadId;
use trefoil_protocol::message::traffic::Class;

use crate::stream::{Bulk, Urgency};

/// An ordered sequence of messages to one peer. Lanes do not wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Everything that is not payload.
    Control,
    /// The payload of one upload.
    Upload(UploadId),
}

impl Lane {
    /// Messages that may wait. A full upload lane makes its sender wait, so it is short.
    fn messages_max(self) -> usize {
        match self {
            Lane::Control => 4096,
            Lane::Upload(_) => 4,
        }
    }

    /// Bytes that may wait, so that large messages cannot fill the memory.
    fn bytes_max(self) -> usize {
        match self {
            Lane::Control => 64 << 20,
            Lane::Upload(_) => 16 << 20,
        }
    }

    pub(crate) fn urgency(self) -> Urgency {
        match self {
            Lane::Control => Urgency::Message,
            Lane::Upload(_) => Urgency::Bulk,
        }
    }
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The encoded message.
    pub(crate) body: Bytes,
    /// Payload that goes with it.
    pub(crate) bulk: Bulk,
    /// What it is for.
    pub(crate) class: Class,
}

/// What became of a message that was put on a lane.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// It waits to be sent, and this many of the oldest messages were dropped to make room.
    Queued {
        /// Messages that will never be sent.
        dropped: u64,
    },
    /// There is no room; here it is back.
    Full(Message),
}

/// The messages of one lane that no stream has taken yet.
pub(crate) struct LaneQueue {
    lane: Lane,
    state: Mutex<State>,
    arrived: Notify,
    room: Notify,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    bytes: usize,
    finished: bool,
}

impl State {
    fn has_room_for(&self, message: &Message, lane: Lane) -> bool {
        // An empty lane takes any message, however large.
        self.messages.is_empty()
            || (self.messages.len() < lane.messages_max()
                && self.bytes + bytes_of(message) <= lane.bytes_max())
    }

    fn add(&mut self, message: Message) {
        self.bytes += bytes_of(&message);
        self.messages.push_back(message);
    }

    fn take(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= bytes_of(&message);
        Some(message)
    }
}

pub(crate) fn bytes_of(message: &Message) -> usize {
    message.body.len() + message.bulk.len()
}

impl LaneQueue {
    pub(crate) fn new(lane: Lane) -> Self {
        Self { lane, state: Mutex::default(), arrived: Notify::new(), room: Notify::new() }
    }

    pub(crate) fn push(&self, message: Message) -> Push {
        let mut state = self.lock();
        let mut dropped = 0;
        while !state.has_room_for(&message, self.lane) {
            match self.lane {
                Lane::Upload(_) => return Push::Full(message),
                Lane::Control => {
                    state.take();
                    dropped += 1;
                }
            }
        }
        state.add(message);
        self.arrived.notify_one();
        Push::Queued { dropped }
    }

    /// Nothing more comes; the lane ends when it is empty.
    pub(crate) fn finish(&self) {
        self.lock().finished = true;
        self.arrived.notify_one();
    }

    /// The oldest message, once there is one; `None` when the lane is finished and empty.
    pub(crate) async fn next(&self) -> Option<Message> {
        loop {
            {
                let mut state = self.lock();
                if let Some(message) = state.take() {
                    self.room.notify_one();
                    return Some(message);
                }
                if state.finished {
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Waits until a message was taken. May return early: try again and see.
    pub(crate) async fn room(&self) {
        self.room.notified().await;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().messages.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Single pushes, pops and flags: no panic can leave the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_protocol::ids::VersionId;

    fn message(number: usize) -> Message {
        let body = Bytes::copy_from_slice(&number.to_le_bytes());
        Message { body, bulk: Bytes::new().into(), class: Class::Control }
    }

    #[tokio::test]
    async fn a_full_control_lane_drops_its_oldest_message() {
        let queue = LaneQueue::new(Lane::Control);
        for number in 0..4096 {
            assert_eq!(queue.push(message(number)), Push::Queued { dropped: 0 });
        }
        assert_eq!(queue.push(message(4096)), Push::Queued { dropped: 1 });
        assert_eq!(queue.next().await, Some(message(1)));
    }

    #[test]
    fn a_lane_is_also_full_of_bytes() {
        let queue = LaneQueue::new(Lane::Control);
        let bulk = Bytes::from(vec![0; 32 << 20]).into();
        let large = Message { body: Bytes::new(), bulk, class: Class::Control };
        for dropped in [0, 0, 1, 1] {
            assert_eq!(queue.push(large.clone()), Push::Queued { dropped });
        }
    }

    #[tokio::test]
    async fn a_full_upload_lane_gives_the_message_back_until_there_is_room() {
        let upload = UploadId { version: VersionId::default(), attempt: 0 };
        let queue = LaneQueue::new(Lane::Upload(upload));
        for number in 0..4 {
            assert_eq!(queue.push(message(number)), Push::Queued { dropped: 0 });
        }
        assert_eq!(queue.push(message(4)), Push::Full(message(4)));
        assert_eq!(queue.next().await, Some(message(0)));
        queue.room().await;
        assert_eq!(queue.push(message(4)), Push::Queued { dropped: 0 });
        queue.finish();
        for number in 1..5 {
            assert_eq!(queue.next().await, Some(message(number)));
        }
        assert_eq!(queue.next().await, None);
    }
}
