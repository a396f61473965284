//! One attempt to upload: plaintext becomes frames of sealed leaves, made as the network takes them.
//!
//! An attempt's frames are made once. They are sent again only from a spool, byte for byte; whoever has
//! none begins another attempt, with another key.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes, BytesMut};
use trefoil_protocol::ids::Hash;
use trefoil_protocol::message::tenant::UploadEnd;
use trefoil_protocol::tree::{LEAF_LEN, TreeBuilder};

use super::put::Padding;
use super::source::Source;
use super::spool::SpooledFrames;
use crate::failure::WriteError;
use crate::seal::{Begun, Metadata, SealEnd, Sealer};

/// Leaves in one frame.
const FRAME_LEAVES: usize = 4;
/// Sealed bytes in every frame but the last.
const FRAME_BYTES: usize = FRAME_LEAVES * LEAF_LEN as usize;

/// What goes over the network next.
#[derive(Debug)]
pub(super) enum Step {
    /// Leaves from this index on.
    Leaves { first: u32, bulk: Bytes },
    /// The end.
    End(UploadEnd),
}

/// Plaintext that was read ahead, then the rest of its source.
#[derive(Debug)]
pub(super) struct Plaintext<S> {
    source: S,
    ahead: VecDeque<Bytes>,
    ended: bool,
}

impl<S: Source> Plaintext<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source, ahead: VecDeque::new(), ended: false }
    }

    pub(super) fn is_repeatable(&self) -> bool {
        self.source.is_repeatable()
    }

    /// All of it, if it is not longer than `limit` when padded. What was read ahead to learn that is not
    /// lost if it is.
    pub(super) async fn whole_within(
        &mut self,
        limit: usize,
        padding: Padding,
    ) -> Result<Option<Vec<u8>>, WriteError> {
        while !self.ended && self.bytes_ahead() <= limit {
            let piece = self.source.next().await.map_err(WriteError::Source)?;
            self.ended = piece.is_empty();
            self.ahead.extend((!piece.is_empty()).then_some(piece));
        }
        let is_short = self.ended && padding.padded(self.bytes_ahead() as u64) <= limit as u64;
        Ok(is_short.then(|| self.ahead.iter().flatten().copied().collect()))
    }

    fn bytes_ahead(&self) -> usize {
        self.ahead.iter().map(Bytes::len).sum()
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, WriteError> {
        if let Some(piece) = self.ahead.pop_front() {
            return Ok(Some(piece));
        }
        if self.ended {
            return Ok(None);
        }
        let piece = self.source.next().await.map_err(WriteError::Source)?;
        self.ended = piece.is_empty();
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Begins again at the first byte.
    pub(super) async fn rewind(&mut self) -> Result<(), WriteError> {
        self.ahead.clear();
        self.ended = false;
        self.source.rewind().await.map_err(WriteError::Source)
    }
}

/// Called with the plaintext bytes sealed so far.
pub(super) type ProgressCall = Box<dyn FnMut(u64) + Send>;

/// How a put's attempts are sealed: the tenant's words about the object, and what its length may tell.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub(super) created_ms: u64,
    pub(super) user: BTreeMap<String, String>,
    pub(super) padding: Padding,
}

impl Manner {
    fn seal_end(self, end: SealEnd) -> Result<SealedEnd, WriteError> {
        let Self { created_ms, user, .. } = self;
        let words = Metadata { plaintext_len: end.plaintext_len, created_ms, user };
        let metadata = end.metadata.seal(&words).map_err(WriteError::Metadata)?;
        Ok(SealedEnd { last: end.last, length: end.sealed_len, metadata: metadata.as_bytes().clone() })
    }
}

/// The last sealed bytes, and what is known with them.
struct SealedEnd {
    last: Bytes,
    /// Of all sealed bytes.
    length: u64,
    metadata: Bytes,
}

/// What is kept of the frames given out.
#[derive(Debug)]
pub(super) enum Spooled {
    /// Nothing: they cannot be sent again.
    Nothing,
    /// All, in memory alone: if they become too many, nothing.
    Memory(SpooledFrames),
    /// All.
    Everything(SpooledFrames),
}

/// The frames of one attempt.
pub(super) struct Upload<'a, S> {
    plaintext: &'a mut Plaintext<S>,
    piece: Bytes,
    /// `None` once the last chunk is sealed.
    sealer: Option<Sealer>,
    tree: TreeBuilder,
    frame: BytesMut,
    /// Sealed bytes that did not fit the last frame.
    overflow: Bytes,
    frames_made: u32,
    /// Length and metadata, once the last chunk is sealed.
    sealed: Option<(u64, Bytes)>,
    /// Once the last frame is made.
    end: Option<UploadEnd>,
    spool: Spooled,
    /// The next frame to give out.
    cursor: u32,
    manner: Manner,
    /// Bytes of padding still to come, once the plaintext is at its end.
    padding_left: Option<u64>,
    plaintext_bytes: u64,
    progress: &'a mut Option<ProgressCall>,
    /// Why [`Upload::step`] failed.
    pub(super) error: Option<WriteError>,
}

impl<'a, S: Source> Upload<'a, S> {
    pub(super) fn new(
        plaintext: &'a mut Plaintext<S>,
        begun: Begun,
        manner: Manner,
        spool: Spooled,
        progress: &'a mut Option<ProgressCall>,
    ) -> Self {
        Self {
            plaintext,
            piece: Bytes::new(),
            sealer: Some(begun.sealer),
            tree: TreeBuilder::new(),
            frame: BytesMut::with_capacity(FRAME_BYTES),
            overflow: begun.header,
            frames_made: 0,
            sealed: None,
            end: None,
            spool,
            cursor: 0,
            manner,
            padding_left: None,
            plaintext_bytes: 0,
            progress,
            error: None,
        }
    }

    /// Plaintext bytes sealed so far.
    pub(super) fn plaintext_bytes(&self) -> u64 {
        self.plaintext_bytes
    }

    /// Whether [`Upload::restart`] works.
    pub(super) fn is_repeatable(&self) -> bool {
        self.frames_made == 0 || !matches!(self.spool, Spooled::Nothing)
    }

    /// Begins with the first frame again.
    ///
    /// # Panics
    /// When frames were made and nothing of them is kept.
    pub(super) fn restart(&mut self) {
        assert!(self.is_repeatable(), "frames are sent again from a spool alone");
        self.cursor = 0;
    }

    /// What goes over the network next.
    pub(super) async fn step(&mut self) -> Result<Step, WriteError> {
        if self.cursor < self.frames_made {
            let (Spooled::Memory(frames) | Spooled::Everything(frames)) = &self.spool else {
                unreachable!("restart checked that frames are kept");
            };
            let bulk = frames.get(self.cursor as usize).await.map_err(WriteError::Spool)?;
            return Ok(self.give(bulk));
        }
        if let Some(end) = &self.end {
            return Ok(Step::End(end.clone()));
        }
        let bulk = self.make_frame().await?;
        self.frames_made += 1;
        self.keep(&bulk).await?;
        if let Some(progress) = &mut self.progress {
            progress(self.plaintext_bytes);
        }
        Ok(self.give(bulk))
    }

    async fn keep(&mut self, bulk: &Bytes) -> Result<(), WriteError> {
        match &mut self.spool {
            Spooled::Memory(frames) if !frames.fits_memory(bulk.len()) => self.spool = Spooled::Nothing,
            Spooled::Memory(frames) | Spooled::Everything(frames) => {
                frames.push(bulk.clone()).await.map_err(WriteError::Spool)?;
            }
            Spooled::Nothing => {}
        }
        Ok(())
    }

    fn give(&mut self, bulk: Bytes) -> Step {
        let first = self.cursor * FRAME_LEAVES as u32;
        self.cursor += 1;
        Step::Leaves { first, bulk }
    }

    /// Seals until a frame is full or the source ends.
    async fn make_frame(&mut self) -> Result<Bytes, WriteError> {
        self.fill_frame();
        while self.frame.len() < FRAME_BYTES
            && let Some(sealer) = self.sealer.take()
        {
            self.overflow = self.seal_more(sealer).await?;
            self.fill_frame();
        }
        let bulk = std::mem::replace(&mut self.frame, BytesMut::with_capacity(FRAME_BYTES)).freeze();
        self.tree.push(&bulk, &mut Vec::new());
        if self.sealer.is_none() && self.overflow.is_empty() {
            self.finish();
        }
        Ok(bulk)
    }

    fn fill_frame(&mut self) {
        let taken = self.overflow.len().min(FRAME_BYTES - self.frame.len());
        self.frame.extend_from_slice(&self.overflow.split_to(taken));
    }

    /// The next sealed bytes; keeps the sealer unless they were the last.
    async fn seal_more(&mut self, mut sealer: Sealer) -> Result<Bytes, WriteError> {
        loop {
            if self.piece.is_empty() {
                match self.plaintext.next().await? {
                    Some(piece) => self.piece = piece,
                    None => return self.seal_rest(sealer),
                }
            }
            let mut left = &self.piece[..];
            let sealed = sealer.push(&mut left)?;
            let taken = self.piece.len() - left.len();
            self.piece.advance(taken);
            self.plaintext_bytes += taken as u64;
            if let Some(sealed) = sealed {
                self.sealer = Some(sealer);
                return Ok(sealed);
            }
        }
    }

    /// What follows the plaintext: its padding, then the last chunk.
    fn seal_rest(&mut self, mut sealer: Sealer) -> Result<Bytes, WriteError> {
        let left = self.padding_left.get_or_insert_with(|| self.manner.padding.wanted(&sealer));
        if let Some(sealed) = sealer.push_padding(left)? {
            self.sealer = Some(sealer);
            return Ok(sealed);
        }
        let end = self.manner.clone().seal_end(sealer.finish())?;
        self.sealed = Some((end.length, end.metadata));
        Ok(end.last)
    }

    fn finish(&mut self) {
        let tree = std::mem::take(&mut self.tree).finish();
        let (sealed_length, metadata) = self.sealed.take().expect("the last chunk is sealed");
        assert_eq!(tree.total_len, sealed_length, "every sealed byte is in a frame");
        self.end = Some(UploadEnd { root: Hash(tree.root), sealed_length, metadata });
    }
}

/// An object that is small enough to ride in its request: all of its sealed bytes, and its end.
pub(super) fn seal_whole(
    begun: Begun,
    text: &[u8],
    manner: Manner,
) -> Result<(Bytes, UploadEnd), WriteError> {
    let Begun { mut sealer, header, .. } = begun;
    let mut bytes = BytesMut::from(header);
    let mut left = text;
    while !left.is_empty() {
        bytes.extend_from_slice(&sealer.push(&mut left)?.unwrap_or_default());
    }
    let mut padding = manner.padding.wanted(&sealer);
    while padding > 0 {
        bytes.extend_from_slice(&sealer.push_padding(&mut padding)?.unwrap_or_default());
    }
    let SealedEnd { last, length: sealed_length, metadata } = manner.seal_end(sealer.finish())?;
    bytes.extend_from_slice(&last);
    let root = Hash(*blake3::hash(&bytes).as_bytes());
    Ok((bytes.freeze(), UploadEnd { root, sealed_length, metadata }))
}
