//! Reading an object: its description, then its plaintext as it arrives and is verified.
//!
//! Nothing is given out before its tag was checked, and the end only after the last chunk said that it is
//! the last. A download that breaks goes on at another replica where it stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::timeout;
use trefoil_protocol::codec;
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{DataPart, ObjectView, TenantAnswer};
use trefoil_protocol::time::BootTime;
use trefoil_transport::RecvStream;

use super::client::Inner;
use super::read::Staleness;
use crate::core::{Parts, Peer};
use crate::failure::{Damage, ReadError, Trouble};
use crate::seal::{Dek, Identity, OpenError, Opener, RangeOpener};

/// An object's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The name.
    pub key: ObjectKey,
    /// Plaintext bytes.
    pub bytes: u64,
    /// When its writer made it: milliseconds since 1970 by the writer's clock.
    pub created_ms: u64,
    /// The tenant's own pairs.
    pub user: BTreeMap<String, String>,
    /// Version, root, epoch, protection and copies, as the primary knows them.
    pub view: ObjectView,
}

/// What opens the sealed bytes.
enum Opening {
    Whole(Opener),
    Range {
        opener: RangeOpener,
        /// Sealed bytes before the range's first chunk.
        skip: u64,
        /// Sealed bytes of the range that are still to come.
        left: u64,
    },
    /// Nothing: they are given out as nodes hold them.
    Nothing,
}

/// An object that is being read.
///
/// ```no_run
/// # async fn example(client: trefoil_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// # let key = trefoil_protocol::key::ObjectKey::new("k")?;
/// let mut download = client.get(&key).await?;
/// println!("{} bytes", download.head().bytes);
/// while let Some(chunk) = download.next().await? {
///     println!("{} verified", chunk.len());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Download {
    inner: Arc<Inner>,
    head: Head,
    length: u64,
    /// `None` after the end or an error.
    opening: Option<Opening>,
    parts: Parts,
    stream: Option<RecvStream>,
    /// Sealed bytes that are not opened yet.
    sealed: Bytes,
    progress_at: BootTime,
    staleness: Staleness,
}

impl Download {
    pub(super) fn whole(
        inner: Arc<Inner>,
        head: Head,
        dek: Dek,
        identity: Identity,
        stream: Option<RecvStream>,
    ) -> Result<Self, Damage> {
        let parts = Parts::whole(head.view.root, head.view.sealed_length)?;
        let opener = Opener::new(dek, identity).trimmed_to(head.bytes);
        let length = head.bytes;
        Ok(Self::new(inner, head, length, Opening::Whole(opener), parts, stream))
    }

    /// A small object's sealed bytes came with its description.
    pub(super) fn beginning_with(mut self, bulk: Bytes) -> Result<Self, Damage> {
        if !bulk.is_empty() {
            let part = DataPart { first: 0, proof: None, last: false };
            self.sealed = self.parts.accept(part, bulk)?.unwrap_or_default();
        }
        Ok(self)
    }

    pub(super) fn range(
        inner: Arc<Inner>,
        head: Head,
        length: u64,
        opener: RangeOpener,
        plan: &crate::seal::RangePlan,
    ) -> Result<Self, Damage> {
        let parts = Parts::leaves(head.view.root, head.view.sealed_length, plan.leaves())?;
        let within = plan.sealed_in_leaves();
        let opening = Opening::Range { opener, skip: within.start, left: within.end - within.start };
        Ok(Self::new(inner, head, length, opening, parts, None))
    }

    pub(super) fn sealed(inner: Arc<Inner>, head: Head, stream: Option<RecvStream>) -> Result<Self, Damage> {
        let parts = Parts::whole(head.view.root, head.view.sealed_length)?;
        let length = head.view.sealed_length;
        Ok(Self::new(inner, head, length, Opening::Nothing, parts, stream))
    }

    fn new(
        inner: Arc<Inner>,
        head: Head,
        length: u64,
        opening: Opening,
        parts: Parts,
        stream: Option<RecvStream>,
    ) -> Self {
        let progress_at = inner.network.clock.now();
        let sealed = Bytes::new();
        let (opening, staleness) = (Some(opening), Staleness::Refused);
        Self { inner, head, length, opening, parts, stream, sealed, progress_at, staleness }
    }

    /// What it takes when it has to go on elsewhere.
    pub(super) fn taking(self, staleness: Staleness) -> Self {
        Self { staleness, ..self }
    }

    /// Whether any of it, so far, came from a replica that had lost the control plane: then the version may have
    /// been deleted by now.
    pub fn stale_possible(&self) -> bool {
        self.head.view.stale_possible
    }

    /// The object's description.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Plaintext bytes that this download gives in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next plaintext; `None` after the last byte was given and the end verified.
    ///
    /// # Errors
    /// When the bytes are damaged, the object changed meanwhile, or the bytes cannot be had in time.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let next = self.try_next().await;
        if next.is_err() {
            self.opening = None;
        }
        next
    }

    /// All that is left, in memory.
    ///
    /// # Errors
    /// As [`Download::next`].
    pub async fn bytes(mut self) -> Result<Bytes, ReadError> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.next().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    async fn try_next(&mut self) -> Result<Option<Bytes>, ReadError> {
        while let Some(opening) = &mut self.opening {
            let opened = if !self.sealed.is_empty() {
                opening.push(&mut self.sealed).map_err(Damage::from)?
            } else if self.parts.is_complete() {
                let opening = self.opening.take().expect("the loop's condition");
                Some(opening.finish().map_err(Damage::from)?)
            } else {
                self.fetch().await?;
                None
            };
            if let Some(chunk) = opened.filter(|chunk| !chunk.is_empty()) {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// Waits for further sealed bytes, from the stream at hand or from another replica.
    async fn fetch(&mut self) -> Result<(), ReadError> {
        let now = self.inner.network.clock.now();
        let Some(stream) = &mut self.stream else { return self.resume().await };
        let silence = self.inner.network.patience.silence_first;
        let Ok(Ok(Some(frame))) = timeout(silence, stream.read_frame()).await else {
            self.stream = None;
            return self.check_patience(now);
        };
        let part: DataPart =
            codec::from_slice(&frame.body).map_err(|_| Damage::Answer("leaves come in data parts"))?;
        let is_last = part.last;
        if let Some(sealed) = self.parts.accept(part, frame.bulk)? {
            self.progress_at = now;
            self.take(sealed);
        }
        if is_last {
            self.stream = None;
            self.check_patience(now)?;
        }
        Ok(())
    }

    fn check_patience(&self, now: BootTime) -> Result<(), ReadError> {
        if now.since(self.progress_at) < self.inner.network.patience.deadline {
            return Ok(());
        }
        let primary = self.head.view.copies.first().map(|copy| copy.node);
        let peer = primary.map_or(Peer::Endpoint(0), Peer::Node);
        Err(ReadError::Unavailable(Trouble::Lost(peer)))
    }

    /// Keeps of whole leaves what lies in the range.
    fn take(&mut self, mut sealed: Bytes) {
        if let Some(Opening::Range { skip, left, .. }) = &mut self.opening {
            let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(sealed.len());
            sealed.advance(skipped);
            *skip -= skipped as u64;
            sealed.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= sealed.len() as u64;
        }
        self.sealed = sealed;
    }

    /// Asks for what is missing of this very version.
    async fn resume(&mut self) -> Result<(), ReadError> {
        let key = self.head.key.clone();
        let version = self.head.view.upload.version;
        let want = self.parts.resume();
        let answered = self.inner.ask_version(&key, version, want, self.staleness).await;
        let answered = answered.map_err(|error| match error {
            ReadError::NotFound | ReadError::Gone => ReadError::Changed,
            error => error,
        })?;
        let TenantAnswer::Object(view) = answered.answer else {
            return Err(Damage::Answer("a get is answered by an object").into());
        };
        let known = &self.head.view;
        if (view.upload, view.root, view.sealed_length) != (known.upload, known.root, known.sealed_length) {
            return Err(ReadError::Changed);
        }
        self.head.view.stale_possible |= view.stale_possible;
        self.stream = answered.rest;
        Ok(())
    }
}

impl Opening {
    fn push(&mut self, sealed: &mut Bytes) -> Result<Option<Bytes>, OpenError> {
        let mut left = &sealed[..];
        let opened = match self {
            Self::Whole(opener) => opener.push(&mut left)?,
            Self::Range { opener, .. } => opener.push(&mut left)?,
            Self::Nothing => return Ok(Some(std::mem::take(sealed))),
        };
        let taken = sealed.len() - left.len();
        sealed.advance(taken);
        Ok(opened)
    }

    fn finish(self) -> Result<Bytes, OpenError> {
        match self {
            Self::Whole(opener) => opener.finish(),
            Self::Range { opener, .. } => opener.finish().map(|()| Bytes::new()),
            Self::Nothing => Ok(Bytes::new()),
        }
    }
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("head", &self.head).finish_non_exhaustive()
    }
}
