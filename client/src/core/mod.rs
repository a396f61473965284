//! The client's decisions without its sockets: where a key lives, which token a mutation carries, when
//! to ask again and when to give up.
//!
//! Every operation takes the time and an [`Event`] and says what to do next; the shell does it, and so
//! does the simulator. Nothing here may read a clock, draw randomness or wait.
//!
//! ```
//! # use bytes::Bytes;
//! use trefoil_client::core::*;
//! use trefoil_protocol::message::tenant::TenantCall;
//! use trefoil_protocol::time::BootTime;
//!
//! let mut routes = RouteCache::new(2);
//! let mut question = Question::new(Whom::Informant, TenantCall::Route, Patience::default(), BootTime(0), 7);
//! let effects = question.step(BootTime(0), &mut routes, Event::Wakeup);
//! assert!(matches!(effects[..], [Effect::Ask { .. }]));
//! assert!(question.next_wakeup().is_some());
//! ```

mod courier;
mod hedge;
mod lenient;
mod listing;
mod mutation;
mod parts;
mod patience;
mod question;
mod retries;
mod route;
mod stock;
mod token;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use trefoil_protocol::message::tenant::{TenantRequest, TenantResponse};
use trefoil_protocol::time::BootTime;

pub use courier::{Repeat, Whom};
pub use hedge::{Heard, Hedged, Pace};
pub use lenient::Lenient;
pub use listing::{Listing, ListingKind, MergedPage, VolumePage, merge};
pub use mutation::{Mutation, MutationFailure};
pub use parts::{LEAVES_PER_RANGE, Parts};
pub use patience::{Jitter, Patience};
pub use question::{Question, QuestionFailure};
pub use retries::RetryBudget;
pub use route::RouteCache;
pub use stock::Stock;
pub use token::{TOKENS_OPEN_MAX, TokenTable};

pub use crate::failure::{Peer, Trouble};

/// One request and its answer, within one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExchangeId {
    /// Which of the operation's concurrent questions it belongs to.
    pub lane: u32,
    /// Its number within that.
    pub number: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The operation begins, or its [`Operation::next_wakeup`] has come.
    Wakeup,
    /// Payload of the request was taken by the network.
    Progress(ExchangeId),
    /// The last frame of a streamed upload was handed to the network: from here it may take effect.
    Ended(ExchangeId),
    /// The first frame of the answer.
    Answered(ExchangeId, Box<TenantResponse>),
    /// There will be no answer.
    Failed(ExchangeId, Failed),
}

impl Event {
    /// The exchange that it is about.
    pub fn exchange(&self) -> Option<ExchangeId> {
        match self {
            Self::Wakeup => None,
            Self::Progress(exchange)
            | Self::Ended(exchange)
            | Self::Answered(exchange, _)
            | Self::Failed(exchange, _) => Some(*exchange),
        }
    }
}

/// How an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Nothing was sent: the peer could not be reached.
    Unreachable,
    /// Nothing was taken in: the peer refused this client's certificate.
    Denied,
    /// The stream broke; what was sent may have arrived.
    Lost,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<T> {
    /// Send this and report what becomes of it. Behind a `Put` that is not inline, the upload follows.
    Ask {
        /// Under which name to report.
        exchange: ExchangeId,
        /// Whom to ask.
        to: Peer,
        /// What to ask.
        request: Box<TenantRequest>,
        /// The request's bulk.
        bulk: Bytes,
    },
    /// Drop the exchange: nothing that it still reports will be heard.
    Forget(ExchangeId),
    /// The operation is over.
    Done(T),
}

/// A state machine of one operation.
pub trait Operation {
    /// What it ends with.
    type Output;

    /// Takes an event; begin with [`Event::Wakeup`].
    fn step(&mut self, now: BootTime, routes: &mut RouteCache, event: Event) -> Vec<Effect<Self::Output>>;

    /// When to come back with [`Event::Wakeup`] at the latest; `None` when it is over.
    fn next_wakeup(&self) -> Option<BootTime>;
}
