//! Breadth first through every state that can be reached, each looked at once. States are compared as
//! a whole, not by a hash of them; the first broken invariant is met on a shortest way.

use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;

use super::action::Action;
use super::invariant::broken;
use super::landmark::{LANDMARKS, passed};
use super::state::{Bounds, State};
use super::successors;

/// How far a search is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// States that steps led to, each as often as one did.
    pub states: u64,
    /// Different ones.
    pub distinct: u64,
    /// Steps from the beginning.
    pub depth: u32,
    /// Different ones that wait to be looked at.
    pub waiting: u64,
}

/// The end of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How far it came.
    pub progress: Progress,
    /// In how many states each landmark was seen.
    pub landmarks: [u64; LANDMARKS.len()],
    /// The invariant that broke, if one did.
    pub broken: Option<Counterexample>,
    /// Whether everything was looked at, rather than the search ended early.
    pub exhausted: bool,
}

/// A shortest way to a broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// Which one, as in the list of invariants.
    pub invariant: usize,
    /// What is wrong in the last state.
    pub sentence: String,
    /// What was done, in sentences.
    pub steps: Vec<String>,
}

/// How often `watch` is called.
const WATCH_EVERY: u64 = 1 << 16;

/// Looks through everything within the bounds; `watch` may end it.
pub(super) fn search<const N: usize>(
    bounds: &Bounds,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Outcome {
    let mut seen = Seen::new(State::<N>::initial(bounds.failures, bounds.stale));
    let mut progress = Progress { distinct: 1, ..Progress::default() };
    let mut landmarks = [0; LANDMARKS.len()];
    let (mut at, mut level_ends) = (0, 1);
    while at < seen.states.len() {
        let state = seen.states[at];
        for (index, count) in landmarks.iter_mut().enumerate() {
            *count += u64::from(passed(&state, index));
        }
        if let Some((invariant, sentence)) = broken(&state) {
            let found = Counterexample { invariant, sentence, steps: seen.steps_to(at, bounds) };
            return Outcome { progress, landmarks, broken: Some(found), exhausted: false };
        }
        successors(&state, bounds, &mut |_, next| {
            progress.states += 1;
            seen.insert(next, at);
        });
        at += 1;
        progress.distinct = seen.states.len() as u64;
        progress.waiting = (seen.states.len() - at) as u64;
        if at == level_ends && progress.waiting > 0 {
            progress.depth += 1;
            level_ends = seen.states.len();
        }
        if (at as u64).is_multiple_of(WATCH_EVERY) && watch(progress).is_break() {
            return Outcome { progress, landmarks, broken: None, exhausted: false };
        }
    }
    Outcome { progress, landmarks, broken: None, exhausted: true }
}

/// Every state met, in the order in which they were met, and the one that each was first met from.
struct Seen<const N: usize> {
    states: Vec<State<N>>,
    from: Vec<u32>,
    /// Places in `states`, plus one, by hash; open addressing.
    table: Vec<u32>,
}

impl<const N: usize> Seen<N> {
    fn new(first: State<N>) -> Self {
        let mut seen = Self { states: Vec::new(), from: Vec::new(), table: vec![0; 1 << 16] };
        seen.insert(first, 0);
        seen
    }

    fn insert(&mut self, state: State<N>, from: usize) {
        if self.states.len() * 2 > self.table.len() {
            self.grow();
        }
        let mut slot = self.slot(&state);
        while let Some(place) = self.table[slot].checked_sub(1) {
            if self.states[place as usize] == state {
                return;
            }
            slot = (slot + 1) & (self.table.len() - 1);
        }
        self.states.push(state);
        self.from.push(u32::try_from(from).expect("four billion states do not fit into memory"));
        self.table[slot] = u32::try_from(self.states.len()).expect("nor do they here");
    }

    fn slot(&self, state: &State<N>) -> usize {
        let mut mixer = Mixer::default();
        state.hash(&mut mixer);
        mixer.finish() as usize & (self.table.len() - 1)
    }

    fn grow(&mut self) {
        self.table = vec![0; self.table.len() * 2];
        for place in 0..self.states.len() {
            let mut slot = self.slot(&self.states[place]);
            while self.table[slot] != 0 {
                slot = (slot + 1) & (self.table.len() - 1);
            }
            self.table[slot] = place as u32 + 1;
        }
    }

    /// The way to a state: of each step on it, the first one that leads on.
    fn steps_to(&self, mut at: usize, bounds: &Bounds) -> Vec<String> {
        let mut steps = Vec::new();
        while at != 0 {
            let (before, after) = (self.from[at] as usize, self.states[at]);
            let mut told = None;
            successors(&self.states[before], bounds, &mut |action: Action, next| {
                if told.is_none() && next == after {
                    told = Some(action.tell(&next));
                }
            });
            steps.push(told.expect("it was met from there"));
            at = before;
        }
        steps.reverse();
        steps
    }
}

/// Multiplies and turns: states are compared as a whole, so this need only spread them.
#[derive(Default)]
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.mix(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
