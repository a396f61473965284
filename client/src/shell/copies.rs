//! Looks at one copy of an object, on the node that holds it: for audits that want to know of every copy, not
//! of the first that answers.

use bytes::Bytes;
use tokio::time::timeout;
use trefoil_protocol::codec;
use trefoil_protocol::ids::NodeId;
use trefoil_protocol::message::tenant::{
    DataPart, Refusal, Selector, TenantAnswer, TenantCall, TenantRequest, Want,
};
use trefoil_transport::RecvStream;

use super::client::Inner;
use super::download::Head;
use super::drive::Halt;
use crate::core::{Failed, Parts, Peer};
use crate::failure::{Damage, ReadError, Trouble};

/// Reads the copy that `node` holds of the version that `head` describes, and checks every byte of it.
pub(super) async fn check(inner: &Inner, head: &Head, node: NodeId) -> Result<(), ReadError> {
    let silence = inner.network.patience.silence_max;
    let silent = |_| ReadError::Unavailable(Trouble::Silent(Peer::Node(node)));
    timeout(silence, check_patiently(inner, head, node)).await.map_err(silent)?
}

async fn check_patiently(inner: &Inner, head: &Head, node: NodeId) -> Result<(), ReadError> {
    let selector = Selector::Version(head.view.upload.version);
    let call = TenantCall::Get { key: head.key.clone(), selector, want: Want::Whole };
    let (volume, epoch) =
        inner.network.volume_of(&head.key).ok_or(ReadError::Unavailable(Trouble::NoRoute))?;
    let peer = Peer::Node(node);
    let reply = inner.network.ask_once(peer, TenantRequest { volume, epoch, call }).await;
    let reply = reply.map_err(|halt| ReadError::Unavailable(trouble(halt, peer)))?;
    let view = match reply.response {
        Ok(TenantAnswer::Object(view)) => view,
        Ok(_) => return Err(Damage::Answer("a get is answered by an object").into()),
        Err(Refusal::Changed) => return Err(ReadError::Changed),
        Err(refusal) => return Err(ReadError::Unavailable(Trouble::Refused(peer, refusal))),
    };
    if (view.upload, view.root, view.sealed_length)
        != (head.view.upload, head.view.root, head.view.sealed_length)
    {
        return Err(Damage::Answer("two copies of one version differ").into());
    }
    let mut copy =
        Copy { parts: Parts::whole(view.root, view.sealed_length)?, hasher: blake3::Hasher::new() };
    copy.take(DataPart { first: 0, proof: None, last: false }, reply.bulk)?;
    copy.take_all(reply.rest, peer).await?;
    if copy.hasher.finalize().as_bytes() != &view.root.0 {
        return Err(Damage::Answer("the sealed bytes do not lead to their root").into());
    }
    Ok(())
}

fn trouble(halt: Halt, peer: Peer) -> Trouble {
    match halt {
        Halt::Failed(Failed::Denied) => Trouble::Denied,
        Halt::Failed(Failed::Unreachable) => Trouble::Unreachable(peer),
        Halt::Failed(Failed::Lost) | Halt::Aborted => Trouble::Lost(peer),
    }
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

    async fn take_all(&mut self, mut rest: RecvStream, peer: Peer) -> Result<(), ReadError> {
        while !self.parts.is_complete() {
            let frame = rest.read_frame().await.ok().flatten();
            let frame = frame.ok_or(ReadError::Unavailable(Trouble::Lost(peer)))?;
            let part =
                codec::from_slice(&frame.body).map_err(|_| Damage::Answer("leaves come in data parts"))?;
            self.take(part, frame.bulk)?;
        }
        Ok(())
    }
}
