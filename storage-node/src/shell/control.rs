//! Questions to the control plane: one connection to whoever leads it, one bidirectional stream per
//! question. A question that cannot be asked is reported as unreachable; the core decides when to ask
//! again. Many questions at once are no reason to doubt a connection that answers others.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::{sleep_until, timeout};
use trefoil_protocol::codec;
use trefoil_protocol::leader::{ANSWER_WITHIN, DIAL_WITHIN, LeaderSearch, SUSPECT_AFTER};
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, ControlRequest, News};
use trefoil_transport::{Connection, Endpoint, Plane};

use super::Event;
use super::driver::Driver;
use super::{LinkEndpoint, Settings};
use crate::event::{ControlTicket, ControlUnreachable};

/// Questions under way at once, besides those that the node's life hangs on. More wait here, where
/// their time does not count yet, instead of in the leader's queue, where it would; and nothing is made
/// for them but their place.
const UNDER_WAY_MAX: usize = 64;

/// The way to the control plane.
pub(super) struct Control {
    shared: Rc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    leader: RefCell<LeaderSearch>,
    kept: RefCell<Option<Kept>>,
    /// Held while somebody dials, so that many questions make one connection.
    dialling: Mutex<()>,
    waiting: RefCell<VecDeque<(ControlTicket, ControlRequest)>>,
    under_way: Cell<usize>,
}

/// The connection to a voter.
struct Kept {
    voter: SocketAddr,
    connection: Connection,
    /// When an answer last came over it, or when it was made.
    heard_at: Instant,
}

impl Control {
    /// Nothing is dialled before the first question.
    pub(super) fn new(settings: &Settings, endpoints: &[LinkEndpoint]) -> Self {
        let (_, endpoint) = endpoints.first().expect("a node listens on at least one link");
        let shared = Shared {
            endpoint: endpoint.clone(),
            leader: RefCell::new(LeaderSearch::new(settings.placement.clone())),
            kept: RefCell::default(),
            dialling: Mutex::default(),
            waiting: RefCell::default(),
            under_way: Cell::new(0),
        };
        Self { shared: Rc::new(shared) }
    }

    /// Asks; the answer, or that there is none, comes back as an event.
    pub(super) fn ask(&self, driver: Rc<Driver>, ticket: ControlTicket, request: ControlRequest) {
        if is_vital(&request) {
            let shared = Rc::clone(&self.shared);
            tokio::task::spawn_local(async move { shared.answer(&driver, ticket, &request).await });
            return;
        }
        self.shared.waiting.borrow_mut().push_back((ticket, request));
        self.shared.begin(&driver);
    }
}

/// What the node's life hangs on waits for no turn.
fn is_vital(request: &ControlRequest) -> bool {
    matches!(request, ControlRequest::Register(_) | ControlRequest::Renew(_) | ControlRequest::Watch { .. })
}

fn news_of(answer: &ControlAnswer) -> Option<&News> {
    match answer {
        ControlAnswer::Granted { news, .. } | ControlAnswer::News(news) => Some(news),
        _ => None,
    }
}

impl Shared {
    /// Begins with those that wait, as long as not too many are under way.
    fn begin(self: &Rc<Self>, driver: &Rc<Driver>) {
        while self.under_way.get() < UNDER_WAY_MAX {
            let next = self.waiting.borrow_mut().pop_front();
            let Some((ticket, request)) = next else { return };
            self.under_way.set(self.under_way.get() + 1);
            let (shared, driver) = (Rc::clone(self), Rc::clone(driver));
            tokio::task::spawn_local(async move {
                shared.answer(&driver, ticket, &request).await;
                shared.under_way.set(shared.under_way.get() - 1);
                shared.begin(&driver);
            });
        }
    }

    /// Asks, and tells the core what came of it.
    async fn answer(&self, driver: &Rc<Driver>, ticket: ControlTicket, request: &ControlRequest) {
        let answer = self.ask_leader(request, driver).await.ok_or(ControlUnreachable);
        if let Some(news) = answer.as_ref().ok().and_then(news_of) {
            driver.peers().learn(news);
            self.leader.borrow_mut().learn(news.voters.iter().map(|voter| voter.control));
        }
        driver.handle(Event::Control { ticket, answer });
    }

    /// Asks whoever is held for the leader.
    async fn ask_leader(&self, request: &ControlRequest, driver: &Rc<Driver>) -> Option<ControlAnswer> {
        let voter = self.leader.borrow().current()?;
        let asked_at = Instant::now();
        let answer = self.ask_suspiciously(request, voter, asked_at, driver).await;
        if answer.is_some() {
            self.leader.borrow_mut().answered(voter);
        }
        match &answer {
            Some(ControlAnswer::Refused(ControlRefusal::NotLeader { leader })) => {
                self.leader.borrow_mut().refused(voter, leader.map(|leader| leader.control));
            }
            Some(_) => {}
            None => self.doubt(voter, asked_at),
        }
        answer
    }

    /// Asks, and after a silence lets this question and the next ones go elsewhere; a late answer still
    /// counts.
    async fn ask_suspiciously(
        &self,
        request: &ControlRequest,
        voter: SocketAddr,
        asked_at: Instant,
        driver: &Rc<Driver>,
    ) -> Option<ControlAnswer> {
        let answer = timeout(ANSWER_WITHIN, self.ask(request, voter));
        tokio::pin!(answer);
        let mut heard_at = asked_at;
        loop {
            tokio::select! {
                answer = &mut answer => return answer.ok().flatten(),
                () = sleep_until((heard_at + SUSPECT_AFTER).into()) => {}
            }
            // Whoever answers other questions lives, and is busy with this one.
            match self.last_word(voter).filter(|at| *at > heard_at) {
                Some(at) => heard_at = at,
                None => break,
            }
        }
        let before = self.leader.borrow().current();
        self.leader.borrow_mut().silent(voter);
        let next = self.leader.borrow().current();
        if let Some(next) = next.filter(|next| before == Some(voter) && *next != voter) {
            tracing::info!(%voter, %next, "the control plane's voter is silent: another one is asked");
            driver.handle(Event::ControlSilent);
        }
        answer.await.ok().flatten()
    }

    async fn ask(&self, request: &ControlRequest, voter: SocketAddr) -> Option<ControlAnswer> {
        let connection = self.connection(voter).await?;
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        send.write_frame(codec::to_vec(request).into(), Bytes::new()).await.ok()?;
        send.finish().ok()?;
        let frame = recv.read_frame().await.ok()??;
        match codec::from_slice(&frame.body) {
            Ok(answer) => {
                if let Some(kept) = self.kept.borrow_mut().as_mut().filter(|kept| kept.voter == voter) {
                    kept.heard_at = Instant::now();
                }
                Some(answer)
            }
            Err(error) => {
                tracing::warn!(%error, "the control plane's answer cannot be read");
                None
            }
        }
    }

    async fn connection(&self, voter: SocketAddr) -> Option<Connection> {
        if let Some(connection) = self.live(voter) {
            return Some(connection);
        }
        let _dialling = self.dialling.lock().await;
        if let Some(connection) = self.live(voter) {
            return Some(connection);
        }
        if self.leader.borrow().current() != Some(voter) {
            return None; // Somebody dialled it meanwhile, in vain.
        }
        let dialled = timeout(DIAL_WITHIN, self.endpoint.connect(voter, Plane::Control, None));
        let failure = match dialled.await {
            Ok(Ok(connection)) => {
                let kept = Kept { voter, connection: connection.clone(), heard_at: Instant::now() };
                self.kept.replace(Some(kept));
                return Some(connection);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        tracing::debug!(%voter, failure, "control plane not reached");
        self.leader.borrow_mut().silent(voter);
        None
    }

    fn live(&self, voter: SocketAddr) -> Option<Connection> {
        let kept = self.kept.borrow();
        let kept = kept.as_ref().filter(|kept| kept.voter == voter)?;
        kept.connection.close_reason().is_none().then(|| kept.connection.clone())
    }

    /// Whether the voter has answered anything since: then it lives, and a question without an answer
    /// says nothing about the connection.
    fn has_heard(&self, voter: SocketAddr, since: Instant) -> bool {
        self.last_word(voter).is_some_and(|at| at > since)
    }

    /// When an answer last came over the connection to the voter.
    fn last_word(&self, voter: SocketAddr) -> Option<Instant> {
        let kept = self.kept.borrow();
        kept.as_ref().filter(|kept| kept.voter == voter).map(|kept| kept.heard_at)
    }

    /// A question found no answer. If nothing else did, the next one dials anew.
    fn doubt(&self, voter: SocketAddr, asked_at: Instant) {
        if !self.has_heard(voter, asked_at) {
            self.leader.borrow_mut().silent(voter);
            self.kept.borrow_mut().take_if(|kept| kept.voter == voter);
        }
    }
}
