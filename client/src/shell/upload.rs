//! One attempt to upload: plaintext becomes frames of sealed leaves, made as the network takes them.
//!
//! An attempt's frames are made once. They are sent again only from a spool, byte for byte; whoever has
//! none begins another attempt, with another key.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes, BytesMut};
use trefoil_protocol::ids::Hash;
use trefoil_protocol::message::tenant::UploadEnd;
use trefoil_protocol::tree::{LEAF_LEN, TreeBuilder};

use super::source::Source;
use super::spool::SpooledFrames;
use crate::failure::WriteError;
use crate::seal::{Metadata, Sealer};

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

    /// Reads ahead until more than `limit` bytes are here or the source ends; `true` if it ended.
    pub(super) async fn ends_within(&mut self, limit: usize) -> Result<bool, WriteError> {
        while !self.ended && self.ahead.iter().map(Bytes::len).sum::<usize>() <= limit {
            let piece = self.source.next().await.map_err(WriteError::Source)?;
            self.ended = piece.is_empty();
            self.ahead.extend((!piece.is_empty()).then_some(piece));
        }
        Ok(self.ended && self.ahead.iter().map(Bytes::len).sum::<usize>() <= limit)
    }

    /// Everything read ahead, as one.
    pub(super) fn ahead(&self) -> Vec<u8> {
        self.ahead.iter().flatten().copied().collect()
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

/// The tenant's words about an object, but for its length.
#[derive(Clone, Debug)]
pub(super) struct Words {
    pub(super) created_ms: u64,
    pub(super) user: BTreeMap<String, String>,
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
    words: Words,
    plaintext_bytes: u64,
    progress: &'a mut Option<ProgressCall>,
    /// Why [`Upload::step`] failed.
    pub(super) error: Option<WriteError>,
}

impl<'a, S: Source> Upload<'a, S> {
    pub(super) fn new(
        plaintext: &'a mut Plaintext<S>,
        sealer: Sealer,
        header: Bytes,
        words: Words,
        spool: Spooled,
        progress: &'a mut Option<ProgressCall>,
    ) -> Self {
        Self {
            plaintext,
            piece: Bytes::new(),
            sealer: Some(sealer),
            tree: TreeBuilder::new(),
            frame: BytesMut::with_capacity(FRAME_BYTES),
            overflow: header,
            frames_made: 0,
            sealed: None,
            end: None,
            spool,
            cursor: 0,
            words,
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
                    None => return self.seal_last(sealer),
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

    fn seal_last(&mut self, sealer: Sealer) -> Result<Bytes, WriteError> {
        let end = sealer.finish();
        let words = Metadata {
            plaintext_len: end.plaintext_len,
            created_ms: self.words.created_ms,
            user: self.words.user.clone(),
        };
        let metadata = end.metadata.seal(&words).map_err(WriteError::Metadata)?;
        self.sealed = Some((end.sealed_len, metadata.as_bytes().clone()));
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
    mut sealer: Sealer,
    header: &[u8],
    text: &[u8],
    words: Words,
) -> Result<(Bytes, UploadEnd), WriteError> {
    let mut bytes = BytesMut::from(header);
    let mut left = text;
    while !left.is_empty() {
        if let Some(sealed) = sealer.push(&mut left)? {
            bytes.extend_from_slice(&sealed);
        }
    }
    let end = sealer.finish();
    bytes.extend_from_slice(&end.last);
    let Words { created_ms, user } = words;
    let metadata = Metadata { plaintext_len: end.plaintext_len, created_ms, user };
    let metadata = end.metadata.seal(&metadata).map_err(WriteError::Metadata)?;
    let root = Hash(*blake3::hash(&bytes).as_bytes());
    let end = UploadEnd { root, sealed_length: end.sealed_len, metadata: metadata.as_bytes().clone() };
    Ok((bytes.freeze(), end))
}
