//! The facade over log, state and controller: one `step` that the shell and the simulator drive.

use std::collections::BTreeSet;

use trefoil_protocol::ids::PublicKey;
use trefoil_protocol::time::BootTime;

use crate::custodian::{Entropy, Keyring};
use crate::event::{Effect, Event, VoterId};
use crate::log_store::{LogStore, LogStoreError};

/// What a control-plane process must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's name; written into the state when the cluster is made.
    pub cluster: String,
    /// This voter.
    pub voter: VoterId,
    /// All voters when the cluster is made; later the log decides.
    pub voters: Vec<VoterId>,
    /// Public signing keys of the other voters; this one's own is added.
    pub placement_keys: BTreeSet<PublicKey>,
}

/// Why the control plane cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The log could not be read or begun.
    #[error(transparent)]
    Log(#[from] LogStoreError),
    /// The log belongs to another cluster.
    #[error("the log belongs to cluster `{found}`, not to `{expected}`")]
    Cluster {
        /// What the settings say.
        expected: String,
        /// What the log says.
        found: String,
    },
}

/// One control-plane process.
pub struct Placement<S> {
    settings: Settings,
    keyring: Keyring,
    store: S,
    entropy: Box<dyn Entropy + Send>,
}

impl<S: LogStore> Placement<S> {
    /// Opens the log, making the cluster if the log is new. Nothing is sent before the first step.
    pub fn open(
        settings: Settings,
        keyring: Keyring,
        store: S,
        entropy: Box<dyn Entropy + Send>,
        now: BootTime,
    ) -> Result<Self, OpenError> {
        let _ = now;
        Ok(Self { settings, keyring, store, entropy })
    }

    /// Takes one event and says what is to be done. Whatever an effect reports is durable already.
    pub fn step(&mut self, now: BootTime, event: Event) -> Vec<Effect> {
        let _ = (now, event, &self.settings, &self.keyring, &self.entropy);
        Vec::new()
    }

    /// When the next [`Event::Wakeup`] is due at the latest.
    pub fn next_wakeup(&self) -> Option<BootTime> {
        None
    }

    /// Gives the log's store back; everything volatile is lost.
    pub fn into_store(self) -> S {
        self.store
    }
}
