//! Tenant connections: one request per bidirectional stream, its upload's frames behind it, its
//! answer's frames back. Nothing of a request's bytes waits unboundedly: an upload is read only as
//! fast as the core takes it over, an answer is given out only as fast as the client reads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use trefoil_protocol::codec;
use trefoil_protocol::message::tenant::{
    DataPart, Refusal, TenantCall, TenantRequest, TenantResponse, UploadPart,
};
use trefoil_transport::{Bulk, CloseReason, Connection, Identity, RecvStream, SendStream};

use super::Event;
use super::driver::Driver;
use crate::UPLOAD_WINDOW;
use crate::event::{RequestId, VerifiedPrincipal};

/// Requests one connection may have under way; further streams wait to be accepted.
const REQUESTS_PER_CONNECTION: usize = 256;

/// All clients' requests under way.
#[derive(Default)]
pub(super) struct Requests {
    next: Cell<u64>,
    open: RefCell<BTreeMap<RequestId, Open>>,
}

struct Open {
    answers: UnboundedSender<Answer>,
    /// Bytes of the upload that the core has not taken over yet.
    held: Rc<Held>,
}

enum Answer {
    Frame { body: Bytes, bulk: Bulk, last: bool },
    Abort,
}

/// Counts the bytes that were given to the core and not yet taken over.
#[derive(Default)]
struct Held {
    bytes: Cell<u64>,
    less: Notify,
}

impl Held {
    fn add(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn take(&self, bytes: u64) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        self.less.notify_one();
    }

    async fn room(&self) {
        while self.bytes.get() >= UPLOAD_WINDOW {
            self.less.notified().await;
        }
    }
}

impl Requests {
    fn open(&self) -> (RequestId, Rc<Held>, UnboundedReceiver<Answer>) {
        let request = RequestId(self.next.get());
        self.next.set(request.0 + 1);
        let (answers, to_write) = mpsc::unbounded_channel();
        let held = Rc::new(Held::default());
        self.open.borrow_mut().insert(request, Open { answers, held: Rc::clone(&held) });
        (request, held, to_write)
    }

    fn close(&self, request: RequestId) {
        self.open.borrow_mut().remove(&request);
    }

    /// Passes on an answer's first frame.
    pub(super) fn reply(&self, request: RequestId, response: &TenantResponse, bulk: Bytes, last: bool) {
        let body = Bytes::from(codec::to_vec(response));
        self.send(request, Answer::Frame { body, bulk: bulk.into(), last });
    }

    /// Passes on a frame behind an answer.
    pub(super) fn data(&self, request: RequestId, part: &DataPart, bulk: Vec<Bytes>) {
        let body = Bytes::from(codec::to_vec(part));
        let last = part.last;
        self.send(request, Answer::Frame { body, bulk: bulk.into(), last });
    }

    /// Breaks off an answer that began.
    pub(super) fn abort(&self, request: RequestId) {
        self.send(request, Answer::Abort);
    }

    /// Breaks off everything: the process ends.
    pub(super) fn abort_all(&self) {
        for open in self.open.borrow().values() {
            let _ = open.answers.send(Answer::Abort);
        }
    }

    /// Lets an upload go on.
    pub(super) fn taken(&self, request: RequestId, bytes: u64) {
        if let Some(open) = self.open.borrow().get(&request) {
            open.held.take(bytes);
        }
    }

    /// A client that is gone hears nothing.
    fn send(&self, request: RequestId, answer: Answer) {
        if let Some(open) = self.open.borrow().get(&request) {
            let _ = open.answers.send(answer);
        }
    }
}

/// Serves one client's connection until it ends.
pub(super) async fn serve(driver: Rc<Driver>, connection: Connection) {
    let Identity::Principal { tenant, principal } = connection.peer().identity() else {
        connection.close(CloseReason::Refused);
        return;
    };
    let who = VerifiedPrincipal { tenant, principal };
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_bi(), if requests.len() < REQUESTS_PER_CONNECTION => match stream {
                Ok((send, recv)) => {
                    let request = serve_request(Rc::clone(&driver), connection.clone(), who, send, recv);
                    requests.spawn_local(request);
                }
                Err(_) => return,
            },
            Some(_) = requests.join_next() => {}
        }
    }
}

/// Ends a request in the core and here, however its task ends.
struct Under {
    driver: Rc<Driver>,
    request: RequestId,
    answered: Cell<bool>,
}

impl Drop for Under {
    fn drop(&mut self) {
        self.driver.requests().close(self.request);
        if !self.answered.get() {
            self.driver.handle(Event::Gone { request: self.request });
        }
    }
}

async fn serve_request(
    driver: Rc<Driver>,
    connection: Connection,
    principal: VerifiedPrincipal,
    mut send: SendStream,
    mut recv: RecvStream,
) {
    let Ok(Some(frame)) = recv.read_frame().await else { return };
    let body: TenantRequest = match codec::from_slice(&frame.body) {
        Ok(body) => body,
        Err(error) => {
            tracing::warn!(tenant = %principal.tenant, %error, "a request cannot be read");
            refuse(&mut send, Refusal::Invalid(format!("the request cannot be read: {error}"))).await;
            return;
        }
    };
    let streams = matches!(&body.call, TenantCall::Put(put) if put.inline.is_none());
    let (request, held, answers) = driver.requests().open();
    let under = Under { driver: Rc::clone(&driver), request, answered: Cell::new(false) };
    driver.handle(Event::Request { request, principal, body, bulk: frame.bulk });
    let write = write_answers(answers, &mut send);
    let read = async {
        if streams {
            read_upload(&driver, request, &held, &mut recv, &connection).await;
        } else {
            recv.read_frame().await.ok();
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        whole = write => under.answered.set(whole),
        () = read => {}
    }
}

async fn refuse(send: &mut SendStream, refusal: Refusal) {
    let response: TenantResponse = Err(refusal);
    if send.write_frame(codec::to_vec(&response).into(), Bytes::new()).await.is_ok() {
        // A client that is gone needs no end of stream.
        let _ = send.finish();
    }
}

/// Writes what the core answers; whether the answer was given whole.
async fn write_answers(mut answers: UnboundedReceiver<Answer>, send: &mut SendStream) -> bool {
    while let Some(answer) = answers.recv().await {
        let (body, bulk, last) = match answer {
            Answer::Frame { body, bulk, last } => (body, bulk, last),
            Answer::Abort => {
                send.abandon(CloseReason::Stopping);
                return true;
            }
        };
        if send.write_frame(body, bulk).await.is_err() {
            return false;
        }
        if last {
            return send.finish().is_ok() && send.delivered().await.is_ok();
        }
    }
    false
}

/// Gives an upload's frames to the core as it takes them; returns only if the upload breaks.
async fn read_upload(
    driver: &Rc<Driver>,
    request: RequestId,
    held: &Held,
    recv: &mut RecvStream,
    connection: &Connection,
) {
    loop {
        held.room().await;
        driver.peers().backlog().room().await;
        let frame = match recv.read_frame().await {
            Ok(Some(frame)) => frame,
            Ok(None) | Err(_) => return,
        };
        let part: UploadPart = match codec::from_slice(&frame.body) {
            Ok(part) => part,
            Err(error) => {
                tracing::warn!(peer = %connection.peer().identity(), %error, "an upload's frame cannot be read");
                return;
            }
        };
        let ends = matches!(part, UploadPart::End(_));
        held.add(frame.bulk.len() as u64);
        driver.handle(Event::Upload { request, part, bulk: frame.bulk });
        if ends {
            std::future::pending::<()>().await;
        }
    }
}
