//! Operations of the core, run over connections.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{sleep, timeout};
use trefoil_protocol::codec;
use trefoil_protocol::config::TenantEntry;
use trefoil_protocol::ids::DcId;
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{Refusal, TenantAnswer, TenantCall, TenantRequest, UploadPart};
use trefoil_protocol::time::BootTime;
use trefoil_transport::{RecvStream, SendStream, Urgency};

use super::connections::{Connections, Reply, read_reply, send_request};
use super::drive::{Carried, Clock, Driven, Driver, Gauge, Halt};
use super::source::Source;
use super::upload::{Step, Upload};
use crate::core::{
    Failed, Hedged, Lenient, Mutation, MutationFailure, Operation, Pace, Patience, Peer, Question,
    RouteCache, Whom,
};
use crate::entropy::{Entropy, OsEntropy};
use crate::failure::{Damage, ReadError};

/// How long a peer that stopped an upload may take to say why.
const LAST_WORD_TIME_MAX: Duration = Duration::from_secs(1);

/// How often an upload that waits for its source says that it is alive.
const WAITING_EVERY: Duration = Duration::from_secs(1);

/// An answer, and the stream that the rest of it comes from.
pub(super) struct Answered {
    pub(super) answer: TenantAnswer,
    /// A small object's sealed bytes.
    pub(super) bulk: Bytes,
    pub(super) rest: Option<RecvStream>,
}

/// The way to the cluster: connections, and what is known of volumes and nodes.
pub(super) struct Network {
    pub(super) clock: Clock,
    pub(super) connections: Connections,
    pub(super) routes: Mutex<RouteCache>,
    pub(super) patience: Patience,
    /// How fast replicas give bytes by version.
    pub(super) pace: Mutex<Pace>,
    /// When a route was last asked for of its own accord.
    pub(super) route_asked: Mutex<BootTime>,
}

impl Network {
    /// Asks until there is an answer.
    pub(super) async fn ask(&self, whom: Whom, call: TenantCall) -> Result<Answered, ReadError> {
        let mut question = Question::new(whom, call, self.patience, self.clock.now(), seed());
        let Driven { output, bulk, rest } = self.drive(&mut question).await;
        Ok(Answered { answer: output?, bulk, rest })
    }

    /// Asks whoever knows for volumes, nodes and voters, and remembers them.
    pub(super) async fn learn_route(&self) -> Result<TenantEntry, ReadError> {
        *self.route_asked.lock().unwrap_or_else(PoisonError::into_inner) = self.now();
        let TenantAnswer::Route(view) = self.ask(Whom::Informant, TenantCall::Route).await?.answer else {
            return Err(Damage::Answer("a route is answered by a route").into());
        };
        let tenant = view.tenant.clone();
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).learn(view)?;
        Ok(tenant)
    }

    /// Whether that is longer ago than `age`.
    pub(super) fn is_route_older_than(&self, age: Duration) -> bool {
        let asked = *self.route_asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.now().since(asked) > age
    }

    /// Asks any replica about an exact version: one in `dc` or else the primary, and another one when
    /// that takes longer than most reads do.
    pub(super) async fn ask_any(
        &self,
        key: ObjectKey,
        dc: Option<DcId>,
        call: TenantCall,
    ) -> Result<Answered, ReadError> {
        let hedge_after = self.pace().hedge_after();
        let now = self.clock.now();
        let mut hedged = Hedged::new(key, dc, call, self.patience, hedge_after, now, seed());
        let Driven { output, bulk, rest } = self.drive(&mut hedged).await;
        let mut pace = self.pace();
        if output.hedged {
            pace.hedged();
        }
        let answer = output.answer?;
        pace.answered(output.after);
        Ok(Answered { answer, bulk, rest })
    }

    /// Asks for an exact version whoever holds it.
    pub(super) async fn ask_lenient(&self, mut read: Lenient) -> Result<Answered, ReadError> {
        let Driven { output, bulk, rest } = self.drive(&mut read).await;
        Ok(Answered { answer: output?, bulk, rest })
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time on the clock that operations run on.
    pub(super) fn now(&self) -> BootTime {
        self.clock.now()
    }

    /// Runs an operation whose requests are sent whole.
    pub(super) async fn run<O: Operation>(&self, operation: &mut O) -> O::Output {
        self.drive(operation).await.output
    }

    async fn drive<O: Operation>(&self, operation: &mut O) -> Driven<O::Output> {
        let gauge = Gauge::new(self.clock);
        let driver = Driver { clock: self.clock, routes: &self.routes, gauge: &gauge };
        let carry = |peer, request, bulk| -> Carried<'_> {
            Box::pin(self.explained(peer, self.exchange(peer, request, bulk)))
        };
        let driven = driver.run(operation, carry, |peer| self.connections.suspect(peer)).await;
        driven.expect("an exchange that is sent whole never aborts")
    }

    /// Runs a put whose payload streams behind its request; `None` when the upload failed on this side
    /// and holds the error.
    pub(super) async fn run_upload<S: Source>(
        &self,
        mutation: &mut Mutation,
        upload: &AsyncMutex<Upload<'_, S>>,
    ) -> Option<Result<TenantAnswer, MutationFailure>> {
        let gauge = Gauge::new(self.clock);
        let driver = Driver { clock: self.clock, routes: &self.routes, gauge: &gauge };
        let carry = |peer, request: TenantRequest, bulk| -> Carried<'_> {
            match request.call {
                TenantCall::Put(_) => {
                    Box::pin(self.explained(peer, self.stream(peer, request, upload, &gauge)))
                }
                _ => Box::pin(self.explained(peer, self.exchange(peer, request, bulk))),
            }
        };
        let driven = driver.run(mutation, carry, |peer| self.connections.suspect(peer)).await;
        driven.map(|driven| driven.output)
    }

    async fn explained(
        &self,
        peer: Peer,
        exchange: impl Future<Output = Result<Reply, Halt>>,
    ) -> Result<Reply, Halt> {
        exchange.await.map_err(|halt| match halt {
            Halt::Failed(Failed::Lost) => Halt::Failed(self.connections.explain(peer, Failed::Lost)),
            halt => halt,
        })
    }

    async fn exchange(&self, peer: Peer, request: TenantRequest, bulk: Bytes) -> Result<Reply, Halt> {
        let (mut send, recv) = self.open(peer).await?;
        send_request(&mut send, &request, bulk).await?;
        send.finish().map_err(|_| Failed::Lost)?;
        let reply = read_reply(recv).await?;
        if peer == Peer::Custodian && reply.response == Err(Refusal::Unavailable) {
            // This process does not lead: the next question goes to another.
            self.connections.suspect(peer);
        }
        Ok(reply)
    }

    async fn stream<S: Source>(
        &self,
        peer: Peer,
        request: TenantRequest,
        upload: &AsyncMutex<Upload<'_, S>>,
        gauge: &Gauge,
    ) -> Result<Reply, Halt> {
        let mut upload = upload.lock().await;
        upload.restart();
        let (mut send, recv) = self.open(peer).await?;
        send.set_urgency(Urgency::Bulk);
        send_request(&mut send, &request, Bytes::new()).await?;
        let mut reply = pin!(read_reply(recv));
        loop {
            let step = match alive(upload.step(), gauge).await {
                Ok(step) => step,
                Err(error) => {
                    upload.error = Some(error);
                    return Err(Halt::Aborted);
                }
            };
            let is_end = matches!(step, Step::End(_));
            if is_end {
                gauge.ended();
            }
            let written = tokio::select! {
                biased;
                early = &mut reply => return Ok(early?),
                written = write_step(&mut send, step) => written,
            };
            if written.is_err() {
                let last_word = timeout(LAST_WORD_TIME_MAX, reply).await;
                return Ok(last_word.unwrap_or(Err(Failed::Lost))?);
            }
            gauge.moved();
            if is_end {
                return Ok(reply.await?);
            }
        }
    }

    async fn open(&self, peer: Peer) -> Result<(SendStream, RecvStream), Failed> {
        self.connections.open(peer, &self.addresses(peer)).await
    }

    /// Where a node listens, by link, or the custodian, by voter.
    fn addresses(&self, peer: Peer) -> Vec<SocketAddr> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = match peer {
            Peer::Node(node) => routes.node(node).map(|entry| entry.addresses.clone()).unwrap_or_default(),
            Peer::Custodian => return routes.custodians(),
            Peer::Endpoint(_) => return Vec::new(),
        };
        addresses.into_iter().map(|address| address.address).collect()
    }
}

impl From<Failed> for Halt {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// Waits for the next step; a source that is slow is no sign of a silent peer.
async fn alive<T>(step: impl Future<Output = T>, gauge: &Gauge) -> T {
    let mut step = pin!(step);
    loop {
        tokio::select! {
            biased;
            done = &mut step => return done,
            () = sleep(WAITING_EVERY) => gauge.moved(),
        }
    }
}

async fn write_step(send: &mut SendStream, step: Step) -> Result<(), Failed> {
    let (part, bulk) = match step {
        Step::Leaves { first, bulk } => (UploadPart::Leaves { first }, bulk),
        Step::End(end) => (UploadPart::End(end), Bytes::new()),
    };
    let is_end = matches!(part, UploadPart::End(_));
    send.write_frame(codec::to_vec(&part).into(), bulk).await.map_err(|_| Failed::Lost)?;
    if is_end {
        send.finish().map_err(|_| Failed::Lost)?;
    }
    Ok(())
}

/// A number that differs between operations and clients.
pub(super) fn seed() -> u64 {
    let mut bytes = [0; 8];
    OsEntropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
