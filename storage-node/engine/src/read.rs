//! Reading leaves as a value: a list of places that another thread reads and verifies against the
//! leaf hashes kept in memory, apart from the frames. Never hands out a byte that does not match.

use bytes::Bytes;
use trefoil_protocol::ids::UploadId;
use trefoil_protocol::tree::{LeafPlace, leaf_hash};

use crate::disk::{Disk, DiskError, DiskFile};
use crate::frame::{Content, HEADER_LENGTH, Header, Scope};
use crate::state::Leaf;

/// Why leaves could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The version is erased or on the way.
    #[error("the bytes of {upload:?} are erased")]
    Erased {
        /// The upload.
        upload: UploadId,
    },
    /// This store does not have the leaf.
    #[error("leaf {index} of {upload:?} is not on this store")]
    Missing {
        /// The upload.
        upload: UploadId,
        /// The leaf.
        index: u64,
    },
    /// The bytes do not match the leaf's hash: report the fault and read another copy.
    #[error("leaf {index} of {upload:?} is damaged on this store")]
    Damaged {
        /// The upload.
        upload: UploadId,
        /// The leaf.
        index: u64,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A read of consecutive leaves of one upload.
#[derive(Debug)]
#[must_use = "a read plan reads nothing until it runs"]
pub struct ReadJob<D: Disk> {
    pub(crate) upload: UploadId,
    pub(crate) first: u64,
    pub(crate) place: LeafPlace,
    pub(crate) scope: Scope,
    pub(crate) leaves: Vec<(D::File, Leaf)>,
}

impl<D: Disk> ReadJob<D> {
    /// Bytes that the read will answer.
    pub fn length(&self) -> usize {
        self.leaves.iter().map(|(_, leaf)| leaf.length).sum()
    }

    /// The leaves' hashes, in order.
    pub fn hashes(&self) -> impl Iterator<Item = [u8; 32]> {
        self.leaves.iter().map(|(_, leaf)| leaf.hash)
    }

    /// Reads and verifies the leaves, in order.
    pub fn run(&self) -> Result<Vec<Bytes>, ReadError> {
        let leaves = self.leaves.iter().zip(self.first..);
        leaves.map(|((file, leaf), index)| self.read_leaf(file, leaf, index)).collect()
    }

    fn read_leaf(&self, file: &D::File, leaf: &Leaf, index: u64) -> Result<Bytes, ReadError> {
        let damaged = ReadError::Damaged { upload: self.upload, index };
        let mut frame = vec![0; leaf.place.length];
        file.read_at(leaf.place.position.offset, &mut frame)?;
        let header = Header::parse(&frame, leaf.place.position, &self.scope);
        let expected = Content::Leaf { upload: self.upload, index, hash: leaf.hash };
        let is_the_leaf = |header: Header| header.content == expected && header.length() == frame.len();
        if !header.is_ok_and(is_the_leaf) {
            return Err(damaged);
        }
        let bytes = Bytes::from(frame).slice(HEADER_LENGTH..);
        if leaf_hash(index, &bytes, self.place) != leaf.hash {
            return Err(damaged);
        }
        Ok(bytes)
    }
}
