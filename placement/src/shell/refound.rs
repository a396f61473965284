//! Begins a placement process's log from a saved state: reads what a surviving voter knows, checks that
//! the keys are those of the state, and writes the beginning. The process must not run meanwhile.

use std::fs;

use trefoil_protocol::ids::{ConfigIndex, Hash};

use super::{LOG_FILE, RunError, Settings, SystemEntropy, open_keys};
use crate::custodian::Keyring;
use crate::log_store::LogStore;
use crate::placement::OpenError;
use crate::refounding::{RefoundError, Refounding, last_known};
use crate::shell::log_file::LogFile;
use crate::state::State;

/// A state that a control plane can begin again with.
pub struct Saved {
    state: State,
    /// blake3 of its bytes.
    pub hash: Hash,
}

impl Saved {
    /// From the bytes of a backup.
    ///
    /// # Errors
    /// If they are no state.
    pub fn from_backup(bytes: &[u8]) -> Result<Self, RunError> {
        let state = State::from_bytes(bytes).map_err(|error| {
            RefoundError::Log(crate::log_store::LogStoreError::Damaged(error.to_string()))
        })?;
        Ok(Self::of(state))
    }

    /// What the voter of these settings knows, which does not run.
    ///
    /// # Errors
    /// If its log cannot be read, or there is none.
    pub fn by_survivor(settings: &Settings) -> Result<Self, RunError> {
        let path = settings.data.join(LOG_FILE);
        fs::metadata(&path).map_err(|source| RunError::File { path: path.clone(), source })?;
        let log = LogFile::open(&path).map_err(OpenError::Log)?;
        let stored = log.load().map_err(OpenError::Log)?;
        let stored = stored.ok_or(RunError::Refound(RefoundError::NoLog))?;
        Ok(Self::of(last_known(&stored).map_err(OpenError::Log)?))
    }

    fn of(state: State) -> Self {
        let hash = Hash(*blake3::hash(&state.to_bytes()).as_bytes());
        Self { state, hash }
    }

    /// The last command in it.
    pub fn index(&self) -> ConfigIndex {
        self.state.applied
    }

    /// Its restore generation.
    pub fn generation(&self) -> u64 {
        self.state.generation
    }

    /// Who kept the log, as it knows.
    pub fn voters(&self) -> Vec<trefoil_protocol::config::VoterEntry> {
        self.state.voters.all().map(|record| record.entry).collect()
    }
}

/// Begins the log of the voter of these settings with a saved state.
///
/// # Errors
/// If the keys are not there or are others, the state does not fit, or the log cannot be written.
pub fn refound(settings: &Settings, refounding: &Refounding, saved: Saved) -> Result<(), RunError> {
    if let Some(keys) = &settings.keys {
        if !keys.master.exists() {
            return Err(RunError::KeysLost { path: keys.master.clone() });
        }
        // The signing key is durable before the log's first entry.
        let keyring = open_keys(settings, keys, true, &mut SystemEntropy)?;
        check_keys(&keyring, &saved.state)?;
    }
    let mut log = LogFile::open(&settings.data.join(LOG_FILE)).map_err(OpenError::Log)?;
    refounding.begin(saved.state, &mut log, &mut SystemEntropy)?;
    Ok(())
}

/// Whether a voter's folder has a log.
///
/// # Errors
/// If there is one that cannot be read.
pub fn has_log(settings: &Settings) -> Result<bool, RunError> {
    let path = settings.data.join(LOG_FILE);
    if !path.exists() {
        return Ok(false);
    }
    let log = LogFile::open(&path).map_err(OpenError::Log)?;
    Ok(log.load().map_err(OpenError::Log)?.is_some())
}

fn check_keys(keyring: &Keyring, state: &State) -> Result<(), RefoundError> {
    for tenant in state.tenants.all() {
        for (version, key) in &tenant.keys {
            let opened = keyring.master.unwrap(tenant.entry.tenant, *version, &key.wrapped);
            opened.map_err(|error| RefoundError::Keys(error.to_string()))?;
        }
    }
    Ok(())
}
