//! The payload side of a volume's log: the leaves of uploads, which stand outside the record chain.
//! A record refers to an upload and a root; whether all of its leaves are here, lead to that root and
//! are durable is answered here.

use std::ops::Range;

use trefoil_protocol::ids::{Hash, Lsn, UploadId};
use trefoil_protocol::tree::{self, LEAF_LEN, LeafPlace};

use crate::disk::Disk;
use crate::frame::{Content, Position};
use crate::read::{ReadError, ReadJob};
use crate::segment::Room;
use crate::state::{Leaf, Place, RecordFault};
use crate::volume::{StageError, VolumeLog};

/// How much of an upload is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadState {
    /// Leaves are missing.
    Missing,
    /// All leaves are here and lead to another root.
    WrongRoot,
    /// All leaves are staged; a sync has to follow.
    Staged,
    /// All leaves are durable.
    Durable,
}

impl<D: Disk> VolumeLog<D> {
    /// Stages one leaf of an upload. `hash` is the leaf's hash in the tree, computed by the caller
    /// from these very bytes. A leaf that is already here is not written again.
    pub fn stage_payload(
        &mut self,
        upload: UploadId,
        index: u64,
        hash: [u8; 32],
        bytes: &[u8],
    ) -> Result<Position, StageError> {
        if self.state.is_upload_gone(upload) {
            return Err(StageError::Erased { upload });
        }
        if bytes.len() as u64 > LEAF_LEN || (bytes.is_empty() && index > 0) {
            let length = bytes.len();
            return Err(StageError::LeafLength { index, length });
        }
        if let Some(leaf) = self.leaf(upload, index) {
            let same = leaf.hash == hash && leaf.length == bytes.len();
            return match same {
                true => Ok(leaf.place.position),
                false => Err(StageError::Conflict { upload, index }),
            };
        }
        self.write_leaf(upload, index, hash, bytes)
    }

    pub(crate) fn write_leaf(
        &mut self,
        upload: UploadId,
        index: u64,
        hash: [u8; 32],
        bytes: &[u8],
    ) -> Result<Position, StageError> {
        let content = Content::Leaf { upload, index, hash };
        let header = self.stage(content, [&[], &[], bytes], Room::Ordinary)?;
        let leaf = Leaf { place: Place::of(&header), hash, length: bytes.len() };
        self.state.add_leaf(upload, index, leaf);
        Ok(header.position)
    }

    /// How much of an upload is here, for an object of this length and root.
    pub fn payload_complete(&self, upload: UploadId, length: u64, root: &Hash) -> PayloadState {
        let Some(leaves) = self.whole_leaves(upload, length) else {
            return PayloadState::Missing;
        };
        let hashes: Vec<[u8; 32]> = leaves.iter().map(|leaf| leaf.hash).collect();
        if tree::root_from_leaves(&hashes, length) != Ok(root.0) {
            return PayloadState::WrongRoot;
        }
        let durable = |leaf: &&Leaf| leaf.place.position < self.synced;
        match leaves.iter().all(durable) {
            true => PayloadState::Durable,
            false => PayloadState::Staged,
        }
    }

    /// The leaves of an object of this length that are not here, ascending.
    pub fn missing_leaves(&self, upload: UploadId, length: u64) -> Vec<u64> {
        let missing = |index: &u64| self.leaf(upload, *index).is_none();
        (0..tree::leaf_count(length)).filter(missing).collect()
    }

    /// The hashes of all leaves of a complete upload, for range proofs.
    pub fn leaf_hashes(&self, upload: UploadId, length: u64) -> Option<Vec<[u8; 32]>> {
        let leaves = self.whole_leaves(upload, length)?;
        Some(leaves.iter().map(|leaf| leaf.hash).collect())
    }

    /// A read of leaves of an object of this length, to be run on another thread.
    pub fn read_plan(
        &self,
        upload: UploadId,
        length: u64,
        leaves: Range<u64>,
    ) -> Result<ReadJob<D>, ReadError> {
        if self.state.is_upload_gone(upload) {
            return Err(ReadError::Erased { upload });
        }
        let mut found = Vec::new();
        for index in leaves.clone() {
            let within = index < tree::leaf_count(length);
            let leaf = self.leaf(upload, index).filter(|_| within);
            let leaf = *leaf.ok_or(ReadError::Missing { upload, index })?;
            let file = self.segments.file(leaf.place.position.segment)?;
            found.push((file.clone(), leaf));
        }
        Ok(ReadJob {
            upload,
            first: leaves.start,
            place: LeafPlace::in_object(length),
            scope: self.segments.scope,
            leaves: found,
        })
    }

    /// The uploads that have bytes here and the number of their leaves.
    pub fn uploads(&self) -> impl Iterator<Item = (UploadId, usize)> {
        let uploads = self.state.uploads.iter();
        uploads.map(|(upload, places)| (*upload, places.leaves.len()))
    }

    /// Takes a leaf out of what counts after a read found it damaged; stage it again from a
    /// verified copy.
    pub fn leaf_is_damaged(&mut self, upload: UploadId, index: u64) {
        self.state.drop_leaf(upload, index);
    }

    /// Counts a record as damaged after a read found it so; append it again from a verified copy.
    pub fn record_is_damaged(&mut self, lsn: Lsn, fault: RecordFault) {
        self.state.faults.insert(lsn, fault);
    }

    pub(crate) fn leaf(&self, upload: UploadId, index: u64) -> Option<&Leaf> {
        self.state.uploads.get(&upload)?.leaves.get(&index)
    }

    fn whole_leaves(&self, upload: UploadId, length: u64) -> Option<Vec<&Leaf>> {
        let places = &self.state.uploads.get(&upload)?.leaves;
        let count = tree::leaf_count(length);
        if (places.len() as u64) < count || self.state.is_upload_gone(upload) {
            return None;
        }
        (0..count)
            .map(|index| {
                let range = tree::leaf_range(index, length)?;
                let expected = (range.end - range.start) as usize;
                places.get(&index).filter(|leaf| leaf.length == expected)
            })
            .collect()
    }
}
