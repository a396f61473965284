//! The token table: which mutation of which client took effect, so that a retry gets the first
//! answer and never a second effect. A function of the log, like everything in the index.

use std::collections::BTreeMap;

use trefoil_protocol::ids::{ClientInstance, Hash, Lsn, Token, VersionId};
use trefoil_protocol::record::Cause;

/// How many tokens of one client instance are remembered above its low-water mark.
pub const TOKEN_WINDOW: u64 = 1024;

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenResult {
    /// A new version.
    Put {
        /// The version.
        version: VersionId,
    },
    /// A version was hidden.
    Deleted {
        /// The version; the tombstone is the outcome's lsn.
        version: VersionId,
    },
    /// A version is live again.
    Undeleted {
        /// The version.
        version: VersionId,
    },
    /// The record lost its race and changed nothing.
    Refused,
    /// The token was voided and never takes effect.
    Void,
}

/// The outcome of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The record that decided.
    pub lsn: Lsn,
    /// Hash of the request; zero for a voided token.
    pub request: Hash,
    /// What it did.
    pub result: TokenResult,
}

/// What the table says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// Not seen; it may take effect.
    Open,
    /// It was decided.
    Decided(Outcome),
    /// It was decided for another request: an error of the client.
    Mismatch,
    /// Below the instance's mark; its outcome is forgotten and it is never executed.
    Expired,
}

#[derive(Clone, Debug, Default)]
struct Instance {
    forgotten_below: u64,
    outcomes: BTreeMap<u64, Outcome>,
}

/// The tokens of all client instances of one volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    instances: BTreeMap<ClientInstance, Instance>,
}

impl Tokens {
    pub(crate) fn state(&self, token: &Token, request: &Hash) -> TokenState {
        match self.outcome(token) {
            TokenState::Decided(outcome) => {
                let voided = outcome.result == TokenResult::Void;
                match voided || outcome.request == *request {
                    true => TokenState::Decided(outcome),
                    false => TokenState::Mismatch,
                }
            }
            state => state,
        }
    }

    pub(crate) fn outcome(&self, token: &Token) -> TokenState {
        let Some(instance) = self.instances.get(&token.instance) else {
            return TokenState::Open;
        };
        match instance.outcomes.get(&token.sequence) {
            Some(outcome) => TokenState::Decided(*outcome),
            None if token.sequence < instance.forgotten_below => TokenState::Expired,
            None => TokenState::Open,
        }
    }

    /// Whether a record with this token may take effect: the first record of a token wins.
    pub(crate) fn admits(&self, token: &Token) -> bool {
        self.outcome(token) == TokenState::Open
    }

    pub(crate) fn decide(&mut self, lsn: Lsn, cause: &Cause, result: TokenResult) {
        let instance = self.instances.entry(cause.token.instance).or_default();
        let outcome = Outcome { lsn, request: cause.request, result };
        instance.outcomes.entry(cause.token.sequence).or_insert(outcome);
        instance.forget_below(cause.confirmed_below);
        instance.keep_the_window();
    }

    pub(crate) fn void(&mut self, lsn: Lsn, token: &Token) {
        let instance = self.instances.entry(token.instance).or_default();
        if token.sequence >= instance.forgotten_below {
            let outcome = Outcome { lsn, request: Hash::ZERO, result: TokenResult::Void };
            instance.outcomes.entry(token.sequence).or_insert(outcome);
            instance.keep_the_window();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.instances.values().map(|instance| instance.outcomes.len()).sum()
    }
}

impl Instance {
    fn forget_below(&mut self, mark: u64) {
        if mark > self.forgotten_below {
            self.forgotten_below = mark;
            self.outcomes = self.outcomes.split_off(&mark);
        }
    }

    /// A client that never confirms still costs no more than a window.
    fn keep_the_window(&mut self) {
        if let Some((newest, _)) = self.outcomes.last_key_value() {
            self.forget_below((newest + 1).saturating_sub(TOKEN_WINDOW));
        }
    }
}
