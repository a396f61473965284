//! Which of the two links to a peer carries traffic: the decision alone, from probe answers and the time.
//!
//! A link is healthy while it has a connection and something (the handshake or a probe's answer)
//! came back over it within [`ANSWER_AGE_MAX`]. The idle time-out of a connection plays no part: it
//! fires far too late. A link on which probes take far longer than on the other one is sluggish: nothing
//! goes over it while the other one is healthy. A link that is drained takes no new traffic however healthy it is, unless it
//! is the only one that has a connection at all.
//!
//! Pure: time comes in as the node's boot clock. Nothing here may dial, wait or send.

use std::time::Duration;

use crate::ids::LinkId;
use crate::time::BootTime;

/// How long a link stays healthy without an answer.
pub const ANSWER_AGE_MAX: Duration = Duration::from_millis(1250);

/// How often a link is probed. Probes are what an idle cluster costs most.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// A link is sluggish whose round trip takes so many times that of the other one,
const SLUGGISH_TIMES: u32 = 5;

/// and so much longer. It is no longer so when it takes half of that.
const SLUGGISH_BY: Duration = Duration::from_millis(50);

/// What is known about a link at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkHealth {
    /// There is a connection and it answered recently enough.
    pub up: bool,
    /// Smoothed round-trip time of the probes; `None` before the first answer.
    pub rtt: Option<Duration>,
    /// Time since the last answer; `None` while there is no connection.
    pub last_answer_age: Option<Duration>,
    /// An operator asked that new traffic avoid this link.
    pub drained: bool,
    /// Probes take far longer on it than on the other one.
    pub slow: bool,
}

/// Chooses the link for new traffic. One per remote peer.
#[derive(Clone, Debug, Default)]
pub struct LinkChoice {
    links: [LinkState; 2],
}

#[derive(Clone, Debug, Default)]
struct LinkState {
    /// When something last came back; `None` while there is no connection.
    answered_at: Option<BootTime>,
    rtt: Option<Duration>,
    drained: bool,
    is_sluggish: bool,
    lanes: u32,
}

impl LinkChoice {
    /// No link has a connection yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new connection over `link` answered for the first time.
    pub fn connected(&mut self, link: LinkId, now: BootTime) {
        let state = self.state_mut(link);
        state.answered_at = Some(now);
        state.rtt = None;
        self.compare();
    }

    /// The connection over `link` is gone.
    pub fn disconnected(&mut self, link: LinkId) {
        let state = self.state_mut(link);
        state.answered_at = None;
        state.rtt = None;
        self.compare();
    }

    /// A probe over `link` was answered after `rtt`. Ignored when the link has no connection.
    pub fn answered(&mut self, link: LinkId, now: BootTime, rtt: Duration) {
        let state = self.state_mut(link);
        let Some(answered_at) = state.answered_at else {
            return;
        };
        state.answered_at = Some(answered_at.max(now));
        // The usual smoothing of one eighth (RFC 6298).
        state.rtt = Some(match state.rtt {
            Some(smoothed) => (smoothed * 7 + rtt) / 8,
            None => rtt,
        });
        self.compare();
    }

    /// New traffic avoids `link` from now on.
    pub fn drain(&mut self, link: LinkId) {
        self.state_mut(link).drained = true;
    }

    /// New traffic may use `link` again.
    pub fn restore(&mut self, link: LinkId) {
        self.state_mut(link).drained = false;
    }

    /// A lane was opened on `link`.
    pub fn lane_opened(&mut self, link: LinkId) {
        self.state_mut(link).lanes += 1;
    }

    /// A lane left `link`.
    pub fn lane_closed(&mut self, link: LinkId) {
        let state = self.state_mut(link);
        state.lanes = state.lanes.checked_sub(1).expect("a lane leaves only the link it was opened on");
    }

    /// What is known about `link` now.
    pub fn health(&self, link: LinkId, now: BootTime) -> LinkHealth {
        let state = self.state(link);
        let age = state.age(now);
        LinkHealth {
            up: age.is_some_and(|age| age < ANSWER_AGE_MAX),
            rtt: state.rtt,
            last_answer_age: age,
            drained: state.drained,
            slow: state.is_sluggish,
        }
    }

    /// The link for new traffic: a healthy one that is not drained, with the fewest lanes, link 1
    /// first. When there is none, the connected link that answered last: sending there costs
    /// nothing and may still arrive. `None` when no link has a connection.
    pub fn choose(&self, now: BootTime) -> Option<LinkId> {
        self.best_healthy(now).or_else(|| self.last_answered(now))
    }

    /// Whether a lane on `link` must move, and where to. `None` when it may stay.
    pub fn move_from(&self, link: LinkId, now: BootTime) -> Option<LinkId> {
        if self.is_fit(link, now) {
            return None;
        }
        self.choose(now).filter(|better| *better != link)
    }

    fn best_healthy(&self, now: BootTime) -> Option<LinkId> {
        LinkId::ALL
            .into_iter()
            .filter(|link| self.is_fit(*link, now))
            .min_by_key(|link| self.state(*link).lanes)
    }

    /// Healthy, not drained, and not sluggish beside a healthy one.
    fn is_fit(&self, link: LinkId, now: BootTime) -> bool {
        let health = self.health(link, now);
        let other = self.health(link.other(), now);
        let spared = self.state(link).is_sluggish && other.up && !other.drained;
        health.up && !health.drained && !spared
    }

    /// Compares the links' round trips.
    fn compare(&mut self) {
        let [one, two] = &self.links;
        let verdicts = match (one.rtt, two.rtt) {
            (Some(first), Some(second)) => {
                [one.is_sluggish_beside(first, second), two.is_sluggish_beside(second, first)]
            }
            _ => [false, false],
        };
        for (link, is_sluggish) in self.links.iter_mut().zip(verdicts) {
            link.is_sluggish = is_sluggish;
        }
    }

    fn last_answered(&self, now: BootTime) -> Option<LinkId> {
        LinkId::ALL
            .into_iter()
            .filter_map(|link| Some((self.state(link).age(now)?, link)))
            .min()
            .map(|(_, link)| link)
    }

    fn state(&self, link: LinkId) -> &LinkState {
        &self.links[index(link)]
    }

    fn state_mut(&mut self, link: LinkId) -> &mut LinkState {
        &mut self.links[index(link)]
    }
}

fn index(link: LinkId) -> usize {
    usize::from(link.number() - 1)
}

impl LinkState {
    fn is_sluggish_beside(&self, own: Duration, other: Duration) -> bool {
        // Once spared, a link must be clearly better to be used again.
        let share = if self.is_sluggish { 2 } else { 1 };
        own > other * SLUGGISH_TIMES / share && own > other + SLUGGISH_BY / share
    }

    fn age(&self, now: BootTime) -> Option<Duration> {
        Some(now.since(self.answered_at?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(3);

    const fn ms(value: u64) -> BootTime {
        BootTime(value * 1_000_000)
    }

    fn both_connected() -> LinkChoice {
        let mut choice = LinkChoice::new();
        choice.connected(LinkId::One, ms(0));
        choice.connected(LinkId::Two, ms(0));
        choice
    }

    #[test]
    fn without_a_connection_there_is_no_choice() {
        assert_eq!(LinkChoice::new().choose(ms(0)), None);
    }

    #[test]
    fn lanes_spread_over_healthy_links() {
        let mut choice = both_connected();
        assert_eq!(choice.choose(ms(1)), Some(LinkId::One));
        choice.lane_opened(LinkId::One);
        assert_eq!(choice.choose(ms(1)), Some(LinkId::Two));
        choice.lane_closed(LinkId::One);
        assert_eq!(choice.choose(ms(1)), Some(LinkId::One));
    }

    #[test]
    fn a_link_is_down_when_its_last_answer_is_too_old() {
        let mut choice = both_connected();
        choice.answered(LinkId::Two, ms(900), RTT);
        assert_eq!(choice.move_from(LinkId::One, ms(1249)), None);
        assert!(!choice.health(LinkId::One, ms(1250)).up);
        assert_eq!(choice.move_from(LinkId::One, ms(1250)), Some(LinkId::Two));
        assert_eq!(choice.choose(ms(1250)), Some(LinkId::Two));
    }

    #[test]
    fn with_no_healthy_link_the_last_to_answer_is_kept() {
        let mut choice = both_connected();
        choice.answered(LinkId::Two, ms(500), RTT);
        assert_eq!(choice.choose(ms(9000)), Some(LinkId::Two));
        assert_eq!(choice.move_from(LinkId::Two, ms(9000)), None);
    }

    #[test]
    fn a_drained_link_gives_its_lanes_away_until_it_is_the_only_one() {
        let mut choice = both_connected();
        choice.drain(LinkId::One);
        assert_eq!(choice.move_from(LinkId::One, ms(1)), Some(LinkId::Two));
        choice.disconnected(LinkId::Two);
        assert_eq!(choice.choose(ms(1)), Some(LinkId::One));
        choice.connected(LinkId::Two, ms(1));
        choice.restore(LinkId::One);
        assert_eq!(choice.move_from(LinkId::One, ms(1)), None);
    }

    #[test]
    fn a_sluggish_link_is_spared_while_the_other_one_is_healthy() {
        let mut choice = both_connected();
        choice.answered(LinkId::Two, ms(1), RTT);
        choice.answered(LinkId::One, ms(1), Duration::from_millis(400));
        assert_eq!(choice.choose(ms(1)), Some(LinkId::Two));
        assert_eq!(choice.move_from(LinkId::One, ms(1)), Some(LinkId::Two));
        // It comes nearer, but not by as much as it takes.
        choice.answered(LinkId::One, ms(2), Duration::ZERO);
        assert_eq!(choice.move_from(LinkId::One, ms(2)), Some(LinkId::Two));
        choice.disconnected(LinkId::Two);
        assert_eq!(choice.choose(ms(3)), Some(LinkId::One));
        choice.connected(LinkId::Two, ms(3));
        choice.answered(LinkId::Two, ms(3), RTT);
        (4..40).for_each(|at| choice.answered(LinkId::One, ms(at), RTT));
        assert_eq!(choice.move_from(LinkId::One, ms(40)), None);
    }

    #[test]
    fn an_answer_after_the_connection_is_gone_changes_nothing() {
        let mut choice = both_connected();
        choice.disconnected(LinkId::One);
        choice.answered(LinkId::One, ms(1), RTT);
        assert_eq!(choice.health(LinkId::One, ms(1)), LinkHealth::default());
    }
}
