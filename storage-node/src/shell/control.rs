//! Questions to the control plane: one connection to whichever address answers, one bidirectional
//! stream per question. A question that cannot be asked is reported as unreachable at once; the core
//! decides when to ask again.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::timeout;
use trefoil_protocol::codec;
use trefoil_protocol::message::control::{ControlAnswer, ControlRequest, News};
use trefoil_transport::{Connection, Endpoint, Plane};

use super::Event;
use super::driver::Driver;
use super::{LinkEndpoint, Settings};
use crate::event::{ControlTicket, ControlUnreachable};

/// Longer than the longest question takes to be answered (a watch: one second).
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// The way to the control plane.
pub(super) struct Control {
    shared: Rc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    addresses: Vec<SocketAddr>,
    connection: RefCell<Option<Connection>>,
    /// Held while somebody dials, so that many questions make one connection.
    dialling: Mutex<()>,
}

impl Control {
    /// Nothing is dialled before the first question.
    pub(super) fn new(settings: &Settings, endpoints: &[LinkEndpoint]) -> Self {
        let (_, endpoint) = endpoints.first().expect("a node listens on at least one link");
        let shared = Shared {
            endpoint: endpoint.clone(),
            addresses: settings.placement.clone(),
            connection: RefCell::default(),
            dialling: Mutex::default(),
        };
        Self { shared: Rc::new(shared) }
    }

    /// Asks; the answer, or that there is none, comes back as an event.
    pub(super) fn ask(&self, driver: Rc<Driver>, ticket: ControlTicket, request: ControlRequest) {
        let shared = Rc::clone(&self.shared);
        tokio::task::spawn_local(async move {
            let asked = timeout(ANSWER_TIME_MAX, shared.ask(&request)).await;
            let answer = asked.ok().flatten().ok_or(ControlUnreachable);
            if answer.is_err() {
                shared.forget();
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
        if let Some(connection) = self.live() {
            return Some(connection);
        }
        let _dialling = self.dialling.lock().await;
        if let Some(connection) = self.live() {
            return Some(connection);
        }
        for address in &self.addresses {
            match self.endpoint.connect(*address, Plane::Control, None).await {
                Ok(connection) => {
                    self.connection.replace(Some(connection.clone()));
                    return Some(connection);
                }
                Err(error) => tracing::debug!(%address, %error, "control plane not reached"),
            }
        }
        None
    }

    fn live(&self) -> Option<Connection> {
        let connection = self.connection.borrow().clone()?;
        connection.close_reason().is_none().then_some(connection)
    }

    /// The next question dials again.
    fn forget(&self) {
        self.connection.replace(None);
    }
}
