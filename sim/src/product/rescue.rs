//! What people do to the control plane's logs when the rules alone cannot go on: the same refounding that
//! `trefoil restore` does to a file, done to a simulated shelf.

use trefoil_drill::Deed;
use trefoil_placement::log_store::LogStore;
use trefoil_placement::state::State;
use trefoil_placement::{Refounding, last_known};
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::DcId;

use super::control::Shelf;
use super::process::fill;
use super::roster;
use crate::network::Site;
use crate::random::{Draws, Stream};

/// The voters' logs, and what was saved of them.
pub(super) struct Rescuer {
    shelves: Vec<Shelf>,
    voters: Vec<VoterEntry>,
    saved: Option<State>,
    draws: Draws,
}

/// What the stage must do besides.
pub(super) struct Orders {
    /// Processes that are killed first.
    pub(super) stop: Vec<String>,
    /// Processes that are started afterwards.
    pub(super) start: Vec<String>,
}

impl Rescuer {
    pub(super) fn new(seed: u64, shelves: Vec<Shelf>) -> Self {
        let voters = roster::voters(shelves.len());
        Self { shelves, voters, saved: None, draws: Draws::new(seed, Stream::Workload, u64::MAX - 3) }
    }

    /// Which processes a deed stops before it and starts after it; `alive` are those that run.
    pub(super) fn orders(&self, deed: Deed, alive: &[String]) -> Orders {
        let all = || self.voters.iter().map(|entry| entry.name.to_string()).collect();
        match deed {
            Deed::Backup | Deed::AcceptLoss | Deed::Discard | Deed::DeclareDead => {
                Orders { stop: Vec::new(), start: Vec::new() }
            }
            Deed::Lose => Orders { stop: all(), start: Vec::new() },
            Deed::Restore => Orders { stop: all(), start: all() },
            Deed::Survive => {
                let start = self.survivor(alive).map(|entry| entry.name.to_string());
                Orders { stop: alive.to_vec(), start: start.into_iter().collect() }
            }
        }
    }

    fn survivor(&self, alive: &[String]) -> Option<&VoterEntry> {
        let lives = |entry: &&VoterEntry| alive.iter().any(|name| name == entry.name.as_str());
        self.voters.iter().filter(|entry| !entry.witness).find(lives)
    }

    /// Does it, while the processes stand still.
    pub(super) fn act(&mut self, deed: Deed, alive: &[String]) {
        match deed {
            Deed::Backup => self.saved = self.longest(),
            Deed::AcceptLoss | Deed::Discard | Deed::DeclareDead => {}
            Deed::Lose => self.shelves.iter().for_each(Shelf::lose),
            Deed::Restore => {
                let saved = self.saved.clone().expect("a drill saves before it restores");
                let voters = self.voters.clone();
                for place in 0..self.shelves.len() {
                    self.shelves[place].lose();
                    self.begin(place, saved.clone(), voters.clone(), Vec::new());
                }
            }
            Deed::Survive => {
                let Some(survivor) = self.survivor(alive).copied() else { return };
                let place = self.voters.iter().position(|entry| *entry == survivor).expect("one of them");
                if let Some(saved) = self.known(place) {
                    // Its own data centre is all that there is.
                    let others = [Site::A, Site::B].map(roster::dc_of);
                    let given_up = others.into_iter().filter(|dc| *dc != survivor.dc).collect();
                    self.begin(place, saved, vec![survivor], given_up);
                }
            }
        }
    }

    fn known(&self, place: usize) -> Option<State> {
        let stored = self.shelves[place].load().expect("a shelf is read")?;
        Some(last_known(&stored).expect("a simulated log is whole"))
    }

    fn longest(&self) -> Option<State> {
        (0..self.shelves.len()).filter_map(|place| self.known(place)).max_by_key(|state| state.applied)
    }

    fn begin(&mut self, place: usize, saved: State, voters: Vec<VoterEntry>, given_up: Vec<DcId>) {
        let (cluster, refused) = (saved.cluster.clone(), Vec::new());
        let refounding = Refounding { cluster, voters, generation: None, given_up, refused };
        let mut entropy = |bytes: &mut [u8]| fill(&mut self.draws, bytes);
        let begun = refounding.begin(saved, &mut self.shelves[place].clone(), &mut entropy);
        begun.expect("a state of this cluster");
    }
}
