//! Runs one operation of the core: carries out its effects and tells it what happened.
//!
//! Everything runs in the caller's task: when that is dropped, so is every exchange.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use trefoil_protocol::message::tenant::TenantRequest;
use trefoil_protocol::time::BootTime;
use trefoil_transport::RecvStream;

use super::connections::Reply;
use crate::core::{Effect, Event, ExchangeId, Failed, Operation, Peer, RouteCache};

/// The clock that operations of this client run on: monotonic, from when the client was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { began: Instant::now() }
    }

    pub(super) fn now(&self) -> BootTime {
        BootTime(0) + self.began.elapsed()
    }

    fn instant(&self, at: BootTime) -> Instant {
        self.began + at.since(BootTime(0))
    }
}

/// Why an exchange brought no reply.
pub(super) enum Halt {
    /// The operation may try again.
    Failed(Failed),
    /// This side cannot go on, whoever is asked.
    Aborted,
}

/// An exchange under way.
pub(super) type Carried<'a> = Pin<Box<dyn Future<Output = Result<Reply, Halt>> + Send + 'a>>;

/// How an upload does, read by its driver when it next looks. The times are those of the upload, so that
/// a driver that looks late does not take a silence for progress.
pub(super) struct Gauge {
    clock: Clock,
    /// Nanoseconds of the clock; 0 for never, or told already.
    moved: AtomicU64,
    ended: AtomicU64,
}

impl Gauge {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, moved: AtomicU64::new(0), ended: AtomicU64::new(0) }
    }

    /// Another frame was taken by the network.
    pub(super) fn moved(&self) {
        self.moved.store(self.clock.now().0, Ordering::Relaxed);
    }

    /// The last frame is about to be handed to the network.
    pub(super) fn ended(&self) {
        self.ended.store(self.clock.now().0, Ordering::Relaxed);
    }

    fn take(&self, exchange: ExchangeId) -> impl Iterator<Item = (BootTime, Event)> {
        let told = |time: &AtomicU64| Some(BootTime(time.swap(0, Ordering::Relaxed))).filter(|at| at.0 > 0);
        let moved = told(&self.moved).map(|at| (at, Event::Progress(exchange)));
        let ended = told(&self.ended).map(|at| (at, Event::Ended(exchange)));
        moved.into_iter().chain(ended)
    }
}

struct Open<'a> {
    exchange: ExchangeId,
    peer: Peer,
    future: Carried<'a>,
}

/// How a driven operation ended.
pub(super) struct Driven<T> {
    pub(super) output: T,
    /// The bulk of the last answer.
    pub(super) bulk: Bytes,
    /// What follows the last answer.
    pub(super) rest: Option<RecvStream>,
}

/// What a driver needs of its client.
pub(super) struct Driver<'a> {
    pub(super) clock: Clock,
    pub(super) routes: &'a Mutex<RouteCache>,
    pub(super) gauge: &'a Gauge,
}

impl<'a> Driver<'a> {
    /// Runs `operation` to its end, or to `None` when an exchange was aborted by this side.
    pub(super) async fn run<O: Operation>(
        &self,
        operation: &mut O,
        carry: impl Fn(Peer, TenantRequest, Bytes) -> Carried<'a>,
        suspect: impl Fn(Peer),
    ) -> Option<Driven<O::Output>> {
        let mut open: Vec<Open<'a>> = Vec::new();
        let (mut bulk, mut rest) = (Bytes::new(), None);
        let mut events = vec![(self.clock.now(), Event::Wakeup)];
        loop {
            for (at, event) in events.drain(..) {
                for effect in self.step(operation, at, event) {
                    match effect {
                        Effect::Ask { exchange, to, request, bulk } => {
                            let future = carry(to, *request, bulk);
                            open.push(Open { exchange, peer: to, future });
                        }
                        Effect::Forget(exchange) => {
                            open.iter().filter(|o| o.exchange == exchange).for_each(|o| suspect(o.peer));
                            open.retain(|o| o.exchange != exchange);
                        }
                        Effect::Done(output) => return Some(Driven { output, bulk, rest }),
                    }
                }
            }
            let wakeup = operation.next_wakeup().expect("an operation that is not over wants to be woken");
            let (exchange, outcome) = tokio::select! {
                biased;
                (exchange, outcome) = next_of(&mut open) => (Some(exchange), Some(outcome)),
                () = sleep_until(self.clock.instant(wakeup)) => (open.last().map(|o| o.exchange), None),
            };
            events.extend(exchange.into_iter().flat_map(|exchange| self.gauge.take(exchange)));
            let event = match (exchange, outcome) {
                (Some(exchange), Some(Ok(reply))) => {
                    (bulk, rest) = (reply.bulk, Some(reply.rest));
                    Event::Answered(exchange, Box::new(reply.response))
                }
                (Some(exchange), Some(Err(Halt::Failed(failed)))) => Event::Failed(exchange, failed),
                (_, Some(Err(Halt::Aborted))) => return None,
                _ => Event::Wakeup,
            };
            events.push((self.clock.now(), event));
        }
    }

    fn step<O: Operation>(&self, operation: &mut O, at: BootTime, event: Event) -> Vec<Effect<O::Output>> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        operation.step(at, &mut routes, event)
    }
}

/// The first of the open exchanges to end; waits for ever when there is none.
async fn next_of(open: &mut Vec<Open<'_>>) -> (ExchangeId, Result<Reply, Halt>) {
    poll_fn(|context| {
        for place in 0..open.len() {
            if let Poll::Ready(outcome) = open[place].future.as_mut().poll(context) {
                return Poll::Ready((open.swap_remove(place).exchange, outcome));
            }
        }
        Poll::Pending
    })
    .await
}
