//! The tokens of one running client: each mutation carries one, so that it takes effect at most once.
//!
//! The nodes keep only the tokens between the client's mark and its newest; the mark moves when the
//! oldest open mutation ends. A token is never used for two requests.

use std::collections::BTreeSet;

use trefoil_protocol::ids::{ClientInstance, Token};
use trefoil_protocol::message::tenant::TokenUse;

/// How far the newest token may be above the mark: the window that the nodes keep.
pub const TOKENS_OPEN_MAX: u64 = 1024;

/// Gives out tokens and knows which are still open.
///
/// ```
/// # use trefoil_client::core::TokenTable;
/// # use trefoil_protocol::ids::ClientInstance;
/// let mut tokens = TokenTable::new(ClientInstance([7; 16]));
/// let (first, second) = (tokens.begin().unwrap(), tokens.begin().unwrap());
/// tokens.end(second);
/// assert_eq!(tokens.begin().unwrap().confirmed_below, first.token.sequence);
/// ```
#[derive(Clone, Debug)]
pub struct TokenTable {
    instance: ClientInstance,
    next: u64,
    open: BTreeSet<u64>,
}

impl TokenTable {
    /// No token yet. `instance` must be fresh random bytes of this run.
    pub fn new(instance: ClientInstance) -> Self {
        Self { instance, next: 1, open: BTreeSet::new() }
    }

    /// A token for a new mutation, or `None` while too many are open.
    pub fn begin(&mut self) -> Option<TokenUse> {
        let confirmed_below = self.mark();
        if self.next - confirmed_below >= TOKENS_OPEN_MAX {
            return None;
        }
        let token = Token { instance: self.instance, sequence: self.next };
        self.open.insert(self.next);
        self.next += 1;
        Some(TokenUse { token, confirmed_below })
    }

    /// The mutation is over for this client, whatever became of it: nobody will ask again.
    pub fn end(&mut self, used: TokenUse) {
        assert_eq!(used.token.instance, self.instance, "a token ends in the table that began it");
        self.open.remove(&used.token.sequence);
    }

    /// All tokens below this are over.
    pub fn mark(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }
}
