//! The control plane's log is one log: at most one voter leads a term, all voters have the same state
//! at the same position, and whoever begins to lead has everything that was ever committed.

use std::collections::BTreeMap;

use crate::checkers::Violation;

/// What a voter shows after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The last position that it applied.
    pub applied: u64,
    /// A hash of its state there.
    pub state: [u8; 32],
    /// The term in which it leads, if it does.
    pub leads_in: Option<u64>,
}

/// What is known of the log.
#[derive(Clone, Debug, Default)]
pub struct Consensus {
    states: BTreeMap<u64, ([u8; 32], String)>,
    leaders: BTreeMap<u64, String>,
}

impl Consensus {
    /// A voter stands so.
    pub fn stands(&mut self, voter: &str, standing: &Standing, now: u64) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut find = |object: String, sentence: String| {
            found.push(Violation { checker: "consensus", object, at_ns: now, sentence });
        };
        let newest = self.states.last_key_value().map_or(0, |(position, _)| *position);
        let (state, first) =
            self.states.entry(standing.applied).or_insert((standing.state, voter.to_owned()));
        if *state != standing.state {
            let sentence = format!("{first} and {voter} have different states there");
            find(format!("position {}", standing.applied), sentence);
        }
        let Some(term) = standing.leads_in else { return found };
        match self.leaders.get(&term) {
            Some(leader) if leader == voter => {}
            Some(leader) => find(format!("term {term}"), format!("{leader} and {voter} both lead it")),
            None => {
                self.leaders.insert(term, voter.to_owned());
                if standing.applied < newest {
                    let applied = standing.applied;
                    let sentence = format!(
                        "{voter} leads it with nothing behind position {applied}, but {newest} was committed"
                    );
                    find(format!("term {term}"), sentence);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{Consensus, Standing};

    fn standing(applied: u64, state: u8, leads_in: Option<u64>) -> Standing {
        Standing { applied, state: [state; 32], leads_in }
    }

    #[test]
    fn it_fires_on_two_leaders_of_a_term_on_states_that_differ_and_on_a_lost_entry() {
        let mut checker = Consensus::default();
        assert_eq!(checker.stands("w1", &standing(5, 1, Some(2)), 0), []);
        assert_eq!(checker.stands("p-a1", &standing(5, 1, None), 0), []);
        assert_eq!(checker.stands("p-a1", &standing(6, 2, Some(2)), 0).len(), 1, "two leaders");
        assert_eq!(checker.stands("p-b1", &standing(6, 3, None), 0).len(), 1, "two states");
        assert_eq!(checker.stands("p-b1", &standing(5, 1, Some(3)), 0).len(), 1, "an entry is lost");
        assert_eq!(checker.stands("p-b1", &standing(6, 2, Some(3)), 0), []);
    }
}
