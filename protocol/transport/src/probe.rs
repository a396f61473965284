//! Probes: small numbered frames on a stream of their own that the other end sends back.
//!
//! They are the most urgent stream of their connection, so they tell how the link does and not how
//! busy it is.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval};
use trefoil_protocol::links::PROBE_INTERVAL;

use crate::connection::{CloseReason, Connection};
use crate::stream::{ReadFrameError, RecvStream, SendStream, Urgency};

/// Probes that may be unanswered before the oldest is forgotten: sixteen seconds' worth.
const UNANSWERED_MAX: usize = 64;

/// The body of a probe: its number.
const PROBE_BYTES: usize = 8;

/// Probes `connection` until that is no longer possible; tells `answered` each round trip.
pub(crate) async fn probe(connection: &Connection, answered: impl FnMut(Duration)) {
    let Ok((mut send, mut recv)) = connection.open_bi().await else {
        return;
    };
    send.set_urgency(Urgency::Probe);
    let under_way = UnderWay::default();
    tokio::select! {
        () = send_probes(&mut send, &under_way) => {}
        () = read_answers(&mut recv, &under_way, answered) => {}
    }
}

/// Sends back the probes of one stream until it ends.
pub(crate) async fn answer_probes(mut send: SendStream, mut recv: RecvStream) {
    send.set_urgency(Urgency::Probe);
    while let Ok(Some(probe)) = recv.read_frame().await {
        if probe.body.len() != PROBE_BYTES || !probe.bulk.is_empty() {
            recv.stop(CloseReason::Malformed);
            return;
        }
        if send.write_frame(probe.body, Bytes::new()).await.is_err() {
            return;
        }
    }
}

/// Numbers and sending times of the probes that were not answered yet, oldest first.
#[derive(Default)]
struct UnderWay(Mutex<VecDeque<(u64, Instant)>>);

impl UnderWay {
    fn sent(&self, number: u64) {
        let mut probes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if probes.len() == UNANSWERED_MAX {
            probes.pop_front();
        }
        probes.push_back((number, Instant::now()));
    }

    /// The round trip of this probe, if it was sent; older ones are forgotten.
    fn answered(&self, number: u64) -> Option<Duration> {
        let mut probes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((oldest, sent_at)) = probes.pop_front() {
            if oldest == number {
                return Some(sent_at.elapsed());
            }
        }
        None
    }
}

async fn send_probes(send: &mut SendStream, under_way: &UnderWay) {
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        ticks.tick().await;
        under_way.sent(number);
        let body = Bytes::copy_from_slice(&number.to_le_bytes());
        if send.write_frame(body, Bytes::new()).await.is_err() {
            return;
        }
    }
}

async fn read_answers(recv: &mut RecvStream, under_way: &UnderWay, mut answered: impl FnMut(Duration)) {
    while let Ok(Some(number)) = read_answer(recv).await {
        if let Some(round_trip) = under_way.answered(number) {
            answered(round_trip);
        }
    }
}

/// The next answer's number; `None` when the peer ends the stream or answers something else.
async fn read_answer(recv: &mut RecvStream) -> Result<Option<u64>, ReadFrameError> {
    let frame = recv.read_frame().await?;
    Ok(frame.and_then(|frame| Some(u64::from_le_bytes(frame.body.as_ref().try_into().ok()?))))
}
