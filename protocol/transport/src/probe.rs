//! Probes: small numbered datagrams that the other end sends back.
//!
//! They are datagrams and not frames on a stream because they must tell how the link does and nothing
//! else: a stream waits for the reader of all the others when the connection's window is full, and a
//! slow reader would look like a cut link. QUIC sends datagrams before any stream.
//!
//! All connections of all processes are probed at the same moments of the wall clock, as far as their
//! clocks agree: then a process is woken a few times for all of them, and not a few times for each. A clock
//! that is off costs only that.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use trefoil_protocol::links::PROBE_INTERVAL;

use crate::connection::Connection;

/// Probes that may be unanswered before the oldest is forgotten: half a minute's worth.
const UNANSWERED_MAX: usize = 64;

/// A probe: its number, little-endian.
pub(crate) const PROBE_BYTES: usize = 8;

/// Probes `connection` until that is no longer possible; tells `answered` each round trip.
pub(crate) async fn probe(connection: &Connection, answered: impl FnMut(Duration)) {
    let under_way = UnderWay::default();
    tokio::select! {
        () = send_probes(connection, &under_way) => {}
        () = read_answers(connection, &under_way, answered) => {}
    }
}

/// Sends back the probes of a connection until it ends.
pub(crate) async fn answer_probes(connection: &Connection) {
    while let Some(probe) = connection.receive_datagram().await {
        if probe.len() == PROBE_BYTES && !connection.send_datagram(probe) {
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

    /// The round trip of this probe, if it is still waited for; older ones are forgotten.
    fn answered(&self, number: u64) -> Option<Duration> {
        let mut probes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = probes.iter().position(|(sent, _)| *sent == number)?;
        let (_, sent_at) = probes.drain(..=at).next_back()?;
        Some(sent_at.elapsed())
    }
}

async fn send_probes(connection: &Connection, under_way: &UnderWay) {
    let mut ticks = common_ticks(SystemTime::now());
    for number in 0_u64.. {
        under_way.sent(number);
        if !connection.send_datagram(Bytes::copy_from_slice(&number.to_le_bytes())) {
            return;
        }
        ticks.tick().await;
    }
}

/// The moments at which probes are sent, the next one first.
pub(crate) fn common_ticks(now: SystemTime) -> Interval {
    let mut ticks = interval_at(Instant::now() + until_next(now), PROBE_INTERVAL);
    // Whoever was held up is back in step at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// How long it is to the next whole interval of the wall clock.
fn until_next(now: SystemTime) -> Duration {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = (since.as_nanos() % PROBE_INTERVAL.as_nanos()) as u64;
    PROBE_INTERVAL - Duration::from_nanos(nanos)
}

async fn read_answers(connection: &Connection, under_way: &UnderWay, mut answered: impl FnMut(Duration)) {
    while let Some(answer) = connection.receive_datagram().await {
        let number = answer.as_ref().try_into().map(u64::from_le_bytes);
        if let Some(round_trip) = number.ok().and_then(|number| under_way.answered(number)) {
            answered(round_trip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_sent_at_whole_intervals_whoever_began_when() {
        for millis in [1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_499, 1_700_000_000_732] {
            let until = until_next(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
            assert!(until > Duration::ZERO && until <= PROBE_INTERVAL);
            assert_eq!((millis + until.as_millis() as u64) % PROBE_INTERVAL.as_millis() as u64, 0);
        }
        assert_eq!(until_next(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), PROBE_INTERVAL, "no clock");
    }

    #[test]
    fn an_answer_counts_once_and_only_if_it_was_asked_for() {
        let under_way = UnderWay::default();
        for number in 0..100 {
            under_way.sent(number);
        }
        assert!(under_way.answered(7).is_none(), "forgotten");
        assert!(under_way.answered(200).is_none(), "never sent");
        assert!(under_way.answered(60).is_some());
        assert!(under_way.answered(60).is_none(), "answered twice");
        assert!(under_way.answered(59).is_none(), "overtaken");
        assert!(under_way.answered(99).is_some());
    }
}
