//! Connections and their streams: one question each, one answer each, but for voters, which speak
//! without being answered. Who asks is what the connection's certificate proved; what a peer may ask
//! follows from its plane.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use trefoil_protocol::codec;
use trefoil_protocol::message::tenant::TenantAnswer;
use trefoil_transport::{
    Accepted, CloseReason, Connection, Endpoint, Identity, Plane, RecvStream, SendStream,
};

use crate::event::{Answer, Request};
use crate::shell::core_thread::CoreHandle;
use crate::shell::voters;

/// Questions one connection may have open at once.
pub(super) const STREAMS_MAX: u32 = 64;

/// How long a question may take to arrive.
const QUESTION_WITHIN: Duration = Duration::from_secs(5);

/// How long an answer may take to be found, and then to be taken.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Serves whoever connects, for as long as the endpoint is open.
pub(super) async fn serve(endpoint: Endpoint, core: CoreHandle) {
    let mut connections = JoinSet::new();
    while let Some(accepted) = endpoint.accept().await {
        connections.spawn(attend(accepted, core.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection until it ends.
async fn attend((connection, plane, peer): Accepted, core: CoreHandle) {
    let (identity, serial) = (peer.identity(), peer.serial_hex());
    let remote = connection.remote_address();
    tracing::info!(%plane, %identity, serial, %remote, "connected");
    tokio::select! {
        () = take_streams(&connection, plane, identity, &core) => {}
        () = connection.answer_probes() => {}
    }
    let (sent, received) = connection.bytes();
    let reason = connection.closed().await;
    tracing::info!(%plane, %identity, serial, %remote, sent, received, %reason, "disconnected");
}

async fn take_streams(connection: &Connection, plane: Plane, identity: Identity, core: &CoreHandle) {
    match (plane, identity) {
        (Plane::Control, Identity::Placement(name)) => voters::hear(connection, name, core).await,
        _ => answer_streams(connection, plane, identity, core).await,
    }
}

async fn answer_streams(connection: &Connection, plane: Plane, identity: Identity, core: &CoreHandle) {
    let places = Arc::new(Semaphore::new(STREAMS_MAX as usize));
    let mut streams = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let Ok((send, receive)) = connection.accept_bi().await else { return };
        let (connection, core) = (connection.clone(), core.clone());
        streams.spawn(async move {
            let _place = place;
            if answer(plane, identity, core, send, receive).await == Manners::Broken {
                tracing::warn!(%plane, %identity, "a malformed question: the connection is closed");
                connection.close(CloseReason::Malformed);
            }
        });
        while streams.try_join_next().is_some() {}
    }
}

/// Whether a peer keeps to the protocol.
#[derive(PartialEq, Eq)]
enum Manners {
    Kept,
    Broken,
}

async fn answer(
    plane: Plane,
    identity: Identity,
    core: CoreHandle,
    mut send: SendStream,
    mut receive: RecvStream,
) -> Manners {
    let Ok(Ok(Some(frame))) = timeout(QUESTION_WITHIN, receive.read_frame()).await else {
        // Cut short or too slow: the stream is dropped, which its sender sees.
        return Manners::Kept;
    };
    let Some(request) = parse(plane, identity, &frame.body) else { return Manners::Broken };
    let Ok(Some(answer)) = timeout(ANSWER_WITHIN, core.ask(request)).await else {
        // No answer: an abandoned stream tells the peer to ask again.
        return Manners::Kept;
    };
    if matches!(answer, Answer::Tenant(Ok(TenantAnswer::Keys(_)))) {
        tracing::info!(%identity, "keys given");
    }
    let written = send.write_frame(encode(&answer), Bytes::new());
    if let Ok(Ok(())) = timeout(ANSWER_WITHIN, written).await {
        // A stream that cannot be finished belongs to a connection that is gone.
        let _ = send.finish();
    }
    Manners::Kept
}

/// The request in a question, with the identity that asks; `None` if it is none of this plane.
fn parse(plane: Plane, identity: Identity, body: &[u8]) -> Option<Request> {
    match (plane, identity) {
        (Plane::Control, Identity::Node(node)) => {
            codec::from_slice(body).ok().map(|request| Request::Control(node, request))
        }
        (Plane::Admin, Identity::Operator(operator)) => {
            codec::from_slice(body).ok().map(|request| Request::Admin(operator, request))
        }
        (Plane::Tenant, Identity::Principal { tenant, principal }) => {
            codec::from_slice(body).ok().map(|request| Request::Tenant(tenant, principal, request))
        }
        _ => None,
    }
}

fn encode(answer: &Answer) -> Bytes {
    match answer {
        Answer::Control(answer) => codec::to_vec(answer),
        Answer::Admin(answer) => codec::to_vec(answer),
        Answer::Tenant(answer) => codec::to_vec(answer),
    }
    .into()
}
