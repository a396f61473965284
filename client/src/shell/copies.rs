//! Looks at one copy of an object, on the node that holds it: for audits that want to know of every copy, not
//! of the first that answers.

use bytes::Bytes;
use tokio::time::timeout;
use trefoil_protocol::codec;
use trefoil_protocol::ids::NodeId;
use trefoil_protocol::message::tenant::{DataPart, Selector, TenantAnswer, TenantCall, Want};
use trefoil_transport::{Frame, RecvStream};

use super::client::Inner;
use super::download::Head;
use super::network::Answered;
use crate::core::{Parts, Peer, Whom};
use crate::failure::{Damage, ReadError, Trouble};

/// Reads the copy that `node` holds of the version that `head` describes, and checks every byte of it.
pub(super) async fn check(inner: &Inner, head: &Head, node: NodeId) -> Result<(), ReadError> {
    let network = &inner.network;
    let deadline = network.clock.now() + network.patience.deadline;
    loop {
        match check_once(inner, head, node).await {
            // The stream broke in the middle: from the beginning, over a new connection.
            Err(ReadError::Unavailable(Trouble::Lost(peer) | Trouble::Silent(peer)))
                if network.clock.now() < deadline =>
            {
                network.connections.suspect(peer);
            }
            done => return done,
        }
    }
}

async fn check_once(inner: &Inner, head: &Head, node: NodeId) -> Result<(), ReadError> {
    let selector = Selector::Version(head.view.upload.version);
    let call = TenantCall::Get { key: head.key.clone(), selector, want: Want::Whole };
    let Answered { answer, bulk, mut rest } =
        inner.network.ask(Whom::Holder(node, head.key.clone()), call).await?;
    let TenantAnswer::Object(view) = answer else {
        return Err(Damage::Answer("a get is answered by an object").into());
    };
    if (view.upload, view.root, view.sealed_length)
        != (head.view.upload, head.view.root, head.view.sealed_length)
    {
        return Err(Damage::Answer("two copies of one version differ").into());
    }
    let mut copy =
        Copy { parts: Parts::whole(view.root, view.sealed_length)?, hasher: blake3::Hasher::new() };
    copy.take(DataPart { first: 0, proof: None, last: false }, bulk)?;
    while !copy.parts.is_complete() {
        let frame = next_frame(inner, rest.as_mut(), Peer::Node(node)).await?;
        let part = codec::from_slice(&frame.body).map_err(|_| Damage::Answer("leaves come in data parts"))?;
        copy.take(part, frame.bulk)?;
    }
    if copy.hasher.finalize().as_bytes() != &view.root.0 {
        return Err(Damage::Answer("the sealed bytes do not lead to their root").into());
    }
    Ok(())
}

async fn next_frame(inner: &Inner, rest: Option<&mut RecvStream>, peer: Peer) -> Result<Frame, ReadError> {
    let rest = rest.ok_or(ReadError::Unavailable(Trouble::Lost(peer)))?;
    let read = timeout(inner.network.patience.silence_max, rest.read_frame()).await;
    let frame = read.map_err(|_| ReadError::Unavailable(Trouble::Silent(peer)))?;
    frame.ok().flatten().ok_or(ReadError::Unavailable(Trouble::Lost(peer)))
}

/// Sealed bytes of one copy as they come.
struct Copy {
    parts: Parts,
    hasher: blake3::Hasher,
}

impl Copy {
    fn take(&mut self, part: DataPart, bulk: Bytes) -> Result<(), Damage> {
        if bulk.is_empty() {
            return Ok(());
        }
        if let Some(sealed) = self.parts.accept(part, bulk)? {
            self.hasher.update(&sealed);
        }
        Ok(())
    }
}
