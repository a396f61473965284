//! The client's token table, shared by its operations: a mutation waits for a token while too many are
//! open, and gives it back when it ends, also when it is dropped half-way.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use trefoil_protocol::ids::ClientInstance;
use trefoil_protocol::message::tenant::TokenUse;

use crate::core::TokenTable;

#[derive(Debug)]
pub(super) struct Tokens {
    table: Mutex<TokenTable>,
    ended: Notify,
}

/// A token in use.
#[derive(Debug)]
pub(super) struct OpenToken<'a> {
    tokens: &'a Tokens,
    used: TokenUse,
}

impl Tokens {
    pub(super) fn new(instance: ClientInstance) -> Self {
        Self { table: Mutex::new(TokenTable::new(instance)), ended: Notify::new() }
    }

    /// A token, or `None` when none became free in time.
    pub(super) async fn begin(&self, patience: Duration) -> Option<OpenToken<'_>> {
        let waiting = async {
            loop {
                let ended = self.ended.notified();
                let begun = self.table.lock().unwrap_or_else(PoisonError::into_inner).begin();
                match begun {
                    Some(used) => return OpenToken { tokens: self, used },
                    None => ended.await,
                }
            }
        };
        timeout(patience, waiting).await.ok()
    }
}

impl OpenToken<'_> {
    pub(super) fn used(&self) -> TokenUse {
        self.used
    }
}

impl Drop for OpenToken<'_> {
    fn drop(&mut self) {
        self.tokens.table.lock().unwrap_or_else(PoisonError::into_inner).end(self.used);
        self.tokens.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::TOKENS_OPEN_MAX;

    #[tokio::test]
    async fn a_full_window_waits_for_the_oldest_to_end() {
        let tokens = Tokens::new(ClientInstance([1; 16]));
        let mut open = Vec::new();
        for _ in 0..TOKENS_OPEN_MAX {
            open.push(tokens.begin(Duration::ZERO).await.unwrap());
        }
        assert!(tokens.begin(Duration::from_millis(20)).await.is_none());
        open.pop();
        assert!(tokens.begin(Duration::from_millis(20)).await.is_none(), "the oldest holds the mark");
        let oldest = open.remove(0);
        let (begun, ()) = tokio::join!(tokens.begin(Duration::from_secs(1)), async { drop(oldest) });
        assert!(begun.is_some());
    }
}
