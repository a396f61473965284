//! Asks the control plane on the admin plane: one stream per question, one frame each way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex as SyncMutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::timeout;
use trefoil_client::Profile;
use trefoil_client::shell::ProfileRole;
use trefoil_protocol::codec;
use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::leader::DIAL_WITHIN;
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest, ClusterStatus};
use trefoil_transport::{
    Closed, Connection, Endpoint, Limits, OwnCertificate, Plane, TrustStore, local_address_for,
};

use crate::failure::{Failure, Kind, Verdict};

/// How long one question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long one voter may take.
const VOTER_WITHIN: Duration = Duration::from_secs(3);

/// How long to wait before the next voter is asked.
const BETWEEN_VOTERS: Duration = Duration::from_millis(100);

/// An operator's way to the control plane; connects when first asked, and again when cut off.
pub(crate) struct Admin {
    own: Arc<OwnCertificate>,
    trust: Arc<TrustStore>,
    endpoints: Vec<String>,
    /// Which endpoint is asked first: the one after the one that did not lead.
    first: AtomicUsize,
    /// Who leads, as the voter said that did not: it is dialled next, in the profile or not.
    named: SyncMutex<Option<SocketAddr>>,
    connection: Mutex<Option<(Endpoint, Connection)>>,
}

impl Admin {
    /// Checks the profile; does not connect yet.
    pub(crate) fn new(profile: &Profile) -> Verdict<Self> {
        if profile.role != ProfileRole::Operator {
            return Err(Failure::usage("this verb needs the profile of an operator"));
        }
        Ok(Self {
            own: profile.own_certificate().map_err(Failure::usage)?,
            trust: profile.trust_store().map_err(Failure::usage)?,
            endpoints: profile.endpoints.clone(),
            first: AtomicUsize::default(),
            named: SyncMutex::default(),
            connection: Mutex::default(),
        })
    }

    /// The state of the whole cluster.
    pub(crate) async fn status(&self) -> Verdict<ClusterStatus> {
        let mut status = self.status_page(VolumeId(0)).await?;
        while let Some(last) = status.volumes.last().filter(|_| status.more).map(|config| config.volume) {
            status.extend(self.status_page(last).await?);
        }
        Ok(status)
    }

    async fn status_page(&self, behind: VolumeId) -> Verdict<ClusterStatus> {
        match self.ask(AdminRequest::Status { behind }).await? {
            AdminAnswer::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks and waits for the answer. A refusal is a failure.
    pub(crate) async fn ask(&self, request: AdminRequest) -> Verdict<AdminAnswer> {
        let answer = timeout(ANSWER_WITHIN, self.ask_the_leader(&request)).await;
        let failure = match answer {
            Ok(Ok(AdminAnswer::Refused(reason))) => return Err(Failure::refused(reason)),
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(failure)) => failure,
            Err(_) => {
                let waited = ANSWER_WITHIN.as_secs();
                Failure::unavailable(format!("the control plane did not answer in {waited} s"))
            }
        };
        *self.connection.lock().await = None;
        Err(failure)
    }

    async fn ask_patiently(&self, request: &AdminRequest) -> Verdict<AdminAnswer> {
        let mut kept = self.connection.lock().await;
        let connection = match kept.as_ref() {
            Some((_, connection)) if connection.close_reason().is_none() => connection.clone(),
            _ => kept.insert(self.connect().await?).1.clone(),
        };
        drop(kept);
        timeout(VOTER_WITHIN, exchange(&connection, request))
            .await
            .unwrap_or_else(|_| Err(Failure::unavailable("the control-plane process does not answer")))
    }

    /// Asks one voter after the other until one leads. A question that was asked before does no harm:
    /// each is idempotent.
    async fn ask_the_leader(&self, request: &AdminRequest) -> Verdict<AdminAnswer> {
        loop {
            match self.ask_patiently(request).await {
                Ok(AdminAnswer::NotLeader { leader }) => *self.named() = leader.map(|leader| leader.control),
                Err(failure) if failure.kind == Kind::Unavailable && self.endpoints.len() > 1 => {}
                other => return other,
            }
            *self.connection.lock().await = None;
            self.first.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(BETWEEN_VOTERS).await;
        }
    }

    fn named(&self) -> std::sync::MutexGuard<'_, Option<SocketAddr>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Verdict<(Endpoint, Connection)> {
        let named = self.named().take();
        if let Some(named) = named
            && let Ok(connected) = self.dial(named).await
        {
            return Ok(connected);
        }
        let mut failure = Failure::usage("the profile names no endpoint");
        let first = self.first.load(Ordering::Relaxed);
        for place in 0..self.endpoints.len() {
            let name = &self.endpoints[(first + place) % self.endpoints.len()];
            let addresses =
                lookup_host(name).await.map_err(|error| Failure::usage(format!("{name}: {error}")))?;
            for remote in addresses {
                match self.dial(remote).await {
                    Ok(connected) => return Ok(connected),
                    Err(error) => failure = error,
                }
            }
        }
        Err(failure)
    }

    async fn dial(&self, remote: SocketAddr) -> Verdict<(Endpoint, Connection)> {
        let (own, trust) = (Arc::clone(&self.own), Arc::clone(&self.trust));
        let endpoint = Endpoint::client(local_address_for(remote), own, trust, Limits::default())
            .map_err(Failure::failed)?;
        let patience = if self.endpoints.len() > 1 { DIAL_WITHIN } else { ANSWER_WITHIN };
        match timeout(patience, endpoint.connect(remote, Plane::Admin, None)).await {
            Ok(Ok(connection)) => Ok((endpoint, connection)),
            Ok(Err(error)) => Err(Failure::unavailable(format!("the control plane: {error}"))),
            Err(_) => Err(Failure::unavailable(format!("the control plane: {remote} does not answer"))),
        }
    }
}

async fn exchange(connection: &Connection, request: &AdminRequest) -> Verdict<AdminAnswer> {
    let lost = |error: &dyn std::fmt::Display| match connection.close_reason() {
        // A certificate that is not believed shows as a connection that closes at once.
        Some(Closed::Refused) => Failure::refused("the control plane does not accept this certificate"),
        _ => Failure::unavailable(format!("the control plane: {error}")),
    };
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| lost(&error))?;
    let body = Bytes::from(codec::to_vec(request));
    send.write_frame(body, Bytes::new()).await.map_err(|error| lost(&error))?;
    send.finish().map_err(|error| lost(&error))?;
    let frame = receive.read_frame().await.map_err(|error| lost(&error))?;
    let frame = frame.ok_or_else(|| lost(&"the stream ended without an answer"))?;
    codec::from_slice(&frame.body)
        .map_err(|error| Failure::failed(format!("the control plane's answer cannot be read: {error}")))
}

/// An answer that does not belong to the question.
pub(crate) fn unexpected(answer: &AdminAnswer) -> Failure {
    Failure::failed(format!("the control plane answered something else: {answer:?}"))
}
