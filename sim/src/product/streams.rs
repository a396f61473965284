//! Streams over a network that reorders: each frame has a place, and what came too early waits.
//! A lost frame stops its stream for ever, as a dead connection does; somebody's patience ends then.

use std::collections::BTreeMap;

use super::message::{Frame, Message, StreamId};
use super::process::Process;
use crate::cluster::Output;
use crate::network::{Link, NodeIndex};

/// Frames of one direction of one stream, put in order.
#[derive(Debug, Default)]
pub(super) struct InOrder {
    next: u32,
    early: BTreeMap<u32, Frame>,
}

impl InOrder {
    /// Takes a frame and gives those whose turn it is. A frame that comes twice counts once.
    pub(super) fn take(&mut self, place: u32, frame: Frame) -> Vec<Frame> {
        if place >= self.next {
            self.early.insert(place, frame);
        }
        let mut turn = Vec::new();
        while let Some(frame) = self.early.remove(&self.next) {
            self.next += 1;
            turn.push(frame);
        }
        turn
    }
}

/// One stream as its server sees it.
#[derive(Debug)]
struct Served {
    client: NodeIndex,
    stream: StreamId,
    link: Link,
    incoming: InOrder,
    outgoing: u32,
}

/// What a server's streams say, in terms of its own request numbers.
#[derive(Debug)]
pub(super) enum Heard {
    Frame(u64, Frame),
    Gone(u64),
}

/// All streams of a server.
#[derive(Debug, Default)]
pub(super) struct Desk {
    served: BTreeMap<u64, Served>,
    numbers: BTreeMap<(NodeIndex, StreamId), u64>,
    next: u64,
}

impl Desk {
    /// Takes a frame from a client.
    pub(super) fn take(
        &mut self,
        client: NodeIndex,
        link: Link,
        stream: StreamId,
        place: u32,
        frame: Frame,
    ) -> Vec<Heard> {
        let known = self.numbers.get(&(client, stream)).copied();
        if matches!(frame, Frame::Hangup) {
            // The number stays taken: a late frame of this stream begins no request.
            let number = known.unwrap_or_else(|| self.begin(client, link, stream));
            let heard = self.served.remove(&number).filter(|served| served.incoming.next > 0);
            return heard.map(|_| Heard::Gone(number)).into_iter().collect();
        }
        let number = known.unwrap_or_else(|| self.begin(client, link, stream));
        let Some(served) = self.served.get_mut(&number) else { return Vec::new() };
        let frames = served.incoming.take(place, frame);
        frames.into_iter().map(|frame| Heard::Frame(number, frame)).collect()
    }

    fn begin(&mut self, client: NodeIndex, link: Link, stream: StreamId) -> u64 {
        let number = self.next;
        self.next += 1;
        self.numbers.insert((client, stream), number);
        let served = Served { client, stream, link, incoming: InOrder::default(), outgoing: 0 };
        self.served.insert(number, served);
        number
    }

    /// A number for a request that came on no stream.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Sends a frame back; `last` ends the request.
    pub(super) fn send(&mut self, number: u64, frame: Frame, last: bool, outputs: &mut Vec<Output<Process>>) {
        let Some(served) = self.served.get_mut(&number) else { return };
        let message = Message::Stream(served.stream, served.outgoing, frame);
        served.outgoing += 1;
        let (to, link, size) = (served.client, served.link, message.size());
        outputs.push(Output::Send { to, link, size, message });
        if last {
            self.served.remove(&number);
        }
    }
}
