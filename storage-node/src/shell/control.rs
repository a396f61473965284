//! Questions to the control plane: one connection to whoever leads it, one bidirectional stream per
//! question. A question that cannot be asked is reported as unreachable at once; the core
//! decides when to ask again.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use trefoil_protocol::codec;
use trefoil_protocol::leader::{ANSWER_WITHIN, LeaderSearch, SUSPECT_AFTER};
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, ControlRequest, News};
use trefoil_transport::{Connection, Endpoint, Plane};

use super::Event;
use super::driver::Driver;
use super::{LinkEndpoint, Settings};
use crate::event::{ControlTicket, ControlUnreachable};

/// The way to the control plane.
pub(super) struct Control {
    shared: Rc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    leader: RefCell<LeaderSearch>,
    connection: RefCell<Option<(SocketAddr, Connection)>>,
    /// Held while somebody dials, so that many questions make one connection.
    dialling: Mutex<()>,
}

impl Control {
    /// Nothing is dialled before the first question.
    pub(super) fn new(settings: &Settings, endpoints: &[LinkEndpoint]) -> Self {
        let (_, endpoint) = endpoints.first().expect("a node listens on at least one link");
        let shared = Shared {
            endpoint: endpoint.clone(),
            leader: RefCell::new(LeaderSearch::new(settings.placement.clone())),
            connection: RefCell::default(),
            dialling: Mutex::default(),
        };
        Self { shared: Rc::new(shared) }
    }

    /// Asks; the answer, or that there is none, comes back as an event.
    pub(super) fn ask(&self, driver: Rc<Driver>, ticket: ControlTicket, request: ControlRequest) {
        let shared = Rc::clone(&self.shared);
        tokio::task::spawn_local(async move {
            let voter = shared.leader.borrow().current();
            let asked = timeout(ANSWER_WITHIN, shared.ask_suspiciously(&request, voter)).await;
            let answer = asked.ok().flatten().ok_or(ControlUnreachable);
            if let Some(voter) = voter {
                shared.learn(voter, &answer);
            }
            if let Some(news) = answer.as_ref().ok().and_then(news_of) {
                driver.peers().learn(&news.nodes);
            }
            driver.handle(Event::Control { ticket, answer });
        });
    }
}

fn news_of(answer: &ControlAnswer) -> Option<&News> {
    match answer {
        ControlAnswer::Granted { news, .. } | ControlAnswer::News(news) => Some(news),
        _ => None,
    }
}

impl Shared {
    /// Asks, and after a silence lets the next questions go elsewhere; a late answer still counts.
    async fn ask_suspiciously(
        &self,
        request: &ControlRequest,
        voter: Option<SocketAddr>,
    ) -> Option<ControlAnswer> {
        let answer = self.ask(request);
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => return answer,
            () = sleep(SUSPECT_AFTER) => {}
        }
        if let Some(voter) = voter {
            self.leader.borrow_mut().silent(voter);
        }
        answer.await
    }

    async fn ask(&self, request: &ControlRequest) -> Option<ControlAnswer> {
        let connection = self.connection().await?;
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        send.write_frame(codec::to_vec(request).into(), Bytes::new()).await.ok()?;
        send.finish().ok()?;
        let frame = recv.read_frame().await.ok()??;
        match codec::from_slice(&frame.body) {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::warn!(%error, "the control plane's answer cannot be read");
                None
            }
        }
    }

    async fn connection(&self) -> Option<Connection> {
        let voter = self.leader.borrow().current()?;
        if let Some(connection) = self.live(voter) {
            return Some(connection);
        }
        let _dialling = self.dialling.lock().await;
        if let Some(connection) = self.live(voter) {
            return Some(connection);
        }
        match self.endpoint.connect(voter, Plane::Control, None).await {
            Ok(connection) => {
                self.connection.replace(Some((voter, connection.clone())));
                Some(connection)
            }
            Err(error) => {
                tracing::debug!(%voter, %error, "control plane not reached");
                None
            }
        }
    }

    fn live(&self, voter: SocketAddr) -> Option<Connection> {
        let (connected, connection) = self.connection.borrow().clone()?;
        (connected == voter && connection.close_reason().is_none()).then_some(connection)
    }

    /// The next question goes where this answer, or its lack, says.
    fn learn(&self, voter: SocketAddr, answer: &Result<ControlAnswer, ControlUnreachable>) {
        match answer {
            Err(ControlUnreachable) => {
                self.leader.borrow_mut().silent(voter);
                // The next question to this voter dials again.
                let mut kept = self.connection.borrow_mut();
                kept.take_if(|(connected, _)| *connected == voter);
            }
            Ok(ControlAnswer::Refused(ControlRefusal::NotLeader { leader })) => {
                self.leader.borrow_mut().refused(voter, leader.map(|leader| leader.control));
            }
            Ok(_) => {}
        }
    }
}
