//! Which of the control plane's voters to ask: the one that answered last, and after a silence or
//! a refusal the one that was named, or the next. Pure, so that the simulator's nodes find the
//! leader as real ones do.

use std::net::SocketAddr;
use std::time::Duration;

/// How long an answer is waited for; longer than the longest question takes, and a late one counts.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// After this long without a word of it the next questions go to another voter: several others can be
/// asked before a lease that was renewed last by one who died is over.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(1_500);

/// How long a voter may take to answer a dial, when there are others to ask.
pub const DIAL_WITHIN: Duration = Duration::from_millis(1_000);

/// The voters' addresses, and whom to ask now.
#[derive(Clone, Debug)]
pub struct LeaderSearch {
    addresses: Vec<SocketAddr>,
    current: usize,
    /// Who was silent last: for a while others name it still.
    doubted: Option<Doubt>,
}

/// Who was silent, and how many others may refuse before it is asked like anybody.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    voter: SocketAddr,
    refusals_left: usize,
}

impl LeaderSearch {
    /// Begins with the first of `addresses`.
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, current: 0, doubted: None }
    }

    /// Whom to ask; `None` if nobody is known.
    pub fn current(&self) -> Option<SocketAddr> {
        self.addresses.get(self.current).copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// `asked` did not answer, or cannot be reached. Of several questions that failed with it, the
    /// first moves on.
    pub fn silent(&mut self, asked: SocketAddr) {
        if self.current() == Some(asked) {
            self.doubted = Some(Doubt { voter: asked, refusals_left: 2 * self.addresses.len() });
            self.next();
        }
    }

    /// `asked` answered, whatever it said.
    pub fn answered(&mut self, asked: SocketAddr) {
        self.doubted.take_if(|doubted| doubted.voter == asked);
    }

    /// `asked` does not lead; it named the leader, or does not know one. One that was silent just now
    /// is not asked again because somebody has not noticed yet, nor while an election is under way and
    /// nobody is named: a dial of the dead takes longer than the election. Its turn comes when others
    /// have refused twice each.
    pub fn refused(&mut self, asked: SocketAddr, leader: Option<SocketAddr>) {
        if self.current() != Some(asked) {
            return;
        }
        let doubted = self.doubted.map(|doubted| doubted.voter);
        match leader.filter(|leader| *leader != asked && Some(*leader) != doubted) {
            Some(leader) => self.current = self.place_of(leader),
            None => {
                self.next();
                if self.current() == doubted && leader != doubted {
                    self.next();
                }
            }
        }
        if let Some(doubt) = &mut self.doubted {
            doubt.refusals_left = doubt.refusals_left.saturating_sub(1);
        }
        self.doubted.take_if(|doubt| doubt.refusals_left == 0);
    }

    /// The voters that there are now. Who is asked stays the same, unless it is none any more.
    pub fn learn(&mut self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let learned: Vec<SocketAddr> = addresses.into_iter().collect();
        if learned.is_empty() {
            return;
        }
        let current = self.current();
        self.current = learned.iter().position(|known| Some(*known) == current).unwrap_or(0);
        self.addresses = learned;
    }

    fn next(&mut self) {
        self.current = (self.current + 1) % self.addresses.len();
    }

    /// A voter that joined later is remembered.
    fn place_of(&mut self, address: SocketAddr) -> usize {
        if let Some(place) = self.addresses.iter().position(|known| *known == address) {
            return place;
        }
        self.addresses.push(address);
        self.addresses.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn it_goes_where_it_is_sent_and_round_when_nobody_knows() {
        let mut search = LeaderSearch::new(vec![at(1), at(2), at(3)]);
        search.refused(at(1), Some(at(3)));
        assert_eq!(search.current(), Some(at(3)));
        search.silent(at(3));
        search.silent(at(3));
        assert_eq!(search.current(), Some(at(1)), "two questions to the same voter move on once");
        search.refused(at(1), None);
        assert_eq!(search.current(), Some(at(2)));
        search.refused(at(1), Some(at(3)));
        assert_eq!(search.current(), Some(at(2)), "an old answer sends nobody away");
        search.refused(at(2), Some(at(9)));
        assert_eq!((search.current(), search.len()), (Some(at(9)), 4));
        assert_eq!(LeaderSearch::new(Vec::new()).current(), None);
    }

    #[test]
    fn who_votes_is_learned_and_whoever_left_is_not_asked() {
        let mut search = LeaderSearch::new(vec![at(1), at(2), at(3)]);
        search.silent(at(1));
        search.learn([at(3), at(2), at(4)]);
        assert_eq!((search.current(), search.len()), (Some(at(2)), 3));
        search.learn([at(4), at(5)]);
        assert_eq!(search.current(), Some(at(4)));
        search.learn([]);
        assert_eq!(search.len(), 2, "nothing told is nothing learned");
    }

    #[test]
    fn while_nobody_is_named_a_voter_that_was_silent_is_passed_over_for_two_rounds() {
        let mut search = LeaderSearch::new(vec![at(1), at(2), at(3)]);
        search.silent(at(1));
        let mut asked = Vec::new();
        for _ in 0..9 {
            let voter = search.current().unwrap();
            asked.push(voter.port());
            search.refused(voter, None);
        }
        assert_eq!(asked, [2, 3, 2, 3, 2, 3, 2, 3, 1]);
        let mut pair = LeaderSearch::new(vec![at(1), at(2)]);
        pair.silent(at(1));
        pair.refused(at(2), None);
        assert_eq!(pair.current(), Some(at(2)), "there is nobody else to ask");
    }

    #[test]
    fn a_voter_that_was_silent_is_not_believed_to_lead_before_its_turn() {
        let mut search = LeaderSearch::new(vec![at(1), at(2), at(3)]);
        search.silent(at(1));
        search.refused(at(2), Some(at(1)));
        assert_eq!(search.current(), Some(at(3)), "the second has not noticed yet");
        search.refused(at(3), Some(at(1)));
        assert_eq!(search.current(), Some(at(1)), "its turn comes");
        search.answered(at(1));
        search.refused(at(1), Some(at(2)));
        search.refused(at(2), Some(at(1)));
        assert_eq!(search.current(), Some(at(1)), "it answers again");
    }
}
