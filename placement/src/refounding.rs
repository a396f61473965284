//! A control plane that begins again from a state that was saved: from a backup, when its log is lost
//! everywhere, or from what one surviving voter knows, when the others are gone for good.
//!
//! It only writes the new log's beginning. Who may do this, and when, is decided by people and by whoever
//! asks here; that nothing acknowledged is lost by it is seen to by the search that follows.

use trefoil_protocol::codec;
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::DcId;

use crate::custodian::Entropy;
use crate::log::Founding;
use crate::log_store::{LogStore, LogStoreError, StoredLog};
use crate::placement::{Envelope, restore};
use crate::raft_log::{begin_at, proposals};
use crate::state::{RefusalDraft, State, first_of};

/// Why no log can be begun from a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefoundError {
    /// The log cannot be read or written, or the state is none.
    #[error(transparent)]
    Log(#[from] LogStoreError),
    /// There is nothing to go on with.
    #[error("there is no log")]
    NoLog,
    /// The keys at hand are not those of the state.
    #[error("the keys are not those of the saved state: {0}")]
    Keys(String),
    /// The state is another cluster's.
    #[error("the state is of cluster `{found}`, not of `{expected}`")]
    Cluster {
        /// What was expected.
        expected: String,
        /// What the state says.
        found: String,
    },
    /// The generation is not a later one.
    #[error("the state is of generation {known}: the next one is at least {}", known + 1)]
    Generation {
        /// The state's.
        known: u64,
    },
}

/// How a control plane begins again.
#[derive(Clone, Debug)]
pub struct Refounding {
    /// The cluster.
    pub cluster: String,
    /// Who keeps the log from now on, the same for each of them.
    pub voters: Vec<VoterEntry>,
    /// Its number; the one after the state's if nobody says otherwise.
    pub generation: Option<u64>,
    /// Data centres whose stores nobody waits for: what they may have acknowledged alone is given up.
    pub given_up: Vec<DcId>,
    /// Attempts to begin that were refused before: those who ask what begins now learn of them, too.
    pub refused: Vec<RefusalDraft>,
}

impl Refounding {
    /// The state that it begins with.
    ///
    /// # Errors
    /// If the saved state does not fit.
    pub fn state(&self, saved: State) -> Result<State, RefoundError> {
        if saved.cluster != self.cluster {
            return Err(RefoundError::Cluster { expected: self.cluster.clone(), found: saved.cluster });
        }
        let known = saved.generation;
        let generation = self.generation.unwrap_or(known + 1);
        if generation <= known || generation > u64::from(u32::MAX) {
            return Err(RefoundError::Generation { known });
        }
        let mut state = saved.restored(&self.voters, generation, &self.given_up);
        state.remember_refusals(&self.refused);
        Ok(state)
    }

    /// Begins the log, in place of any that was there.
    ///
    /// # Errors
    /// If the saved state does not fit, or the log cannot be written.
    pub fn begin<S: LogStore>(
        &self,
        saved: State,
        store: &mut S,
        entropy: &mut dyn Entropy,
    ) -> Result<State, RefoundError> {
        let state = self.state(saved)?;
        let voters = self.voters.iter().map(|entry| entry.voter).collect();
        let founding = Founding { voters, state: state.to_bytes() };
        begin_at(first_of(state.generation), store, founding, entropy)?;
        Ok(state)
    }
}

/// The state after everything that a voter's log has, also what it does not know to be committed: it may
/// have been, and what was not harms nobody, because nothing rests on it.
///
/// # Errors
/// If the log cannot be read.
pub fn last_known(stored: &StoredLog) -> Result<State, LogStoreError> {
    let mut state = restore(&stored.snapshot.data)?;
    for entry in proposals(stored) {
        if entry.data.is_empty() {
            state.pass(entry.index);
            continue;
        }
        let envelope: Envelope = codec::from_slice(&entry.data)
            .map_err(|error| LogStoreError::Damaged(format!("command {}: {error}", entry.index)))?;
        state.apply(entry.index, &envelope.command);
    }
    Ok(state)
}
