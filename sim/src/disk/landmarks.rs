//! Where the frames of records and leaves were written: the simulator's own reader of the disk
//! format (docs/disk-format.md), so that an oracle finds what was acknowledged without asking the
//! engine that wrote it, and without searching every byte.
//!
//! It only remembers. Whether a frame would survive is asked of the bytes, at the moment of asking.

use std::collections::BTreeMap;

const MAGIC: &[u8] = b"TRFS";
const HEADER_LENGTH: usize = 192;
const RECORD: u8 = 2;
const LEAF: u8 = 3;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Landmark {
    /// A record of a volume's log.
    Record {
        /// The volume.
        volume: u64,
        /// The position.
        lsn: u64,
    },
    /// A leaf of an upload.
    Leaf {
        /// The upload's version.
        version: [u8; 16],
        /// The upload's attempt.
        attempt: u32,
        /// The leaf.
        index: u64,
    },
}

/// Where a frame was written last, and what it hashes to by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) inode: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) hash: [u8; 32],
}

/// The newest place of each landmark on a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Landmarks {
    places: BTreeMap<Landmark, Place>,
}

impl Landmarks {
    /// Looks at a write.
    pub(super) fn note(&mut self, inode: u64, offset: u64, parts: &[&[u8]]) {
        if let Some((landmark, place)) = parts.first().and_then(|head| parse(inode, offset, head)) {
            self.places.insert(landmark, place);
        }
    }

    pub(super) fn place(&self, landmark: &Landmark) -> Option<Place> {
        self.places.get(landmark).copied()
    }

    /// Keeps only those that survive.
    pub(super) fn retain(&mut self, survives: impl Fn(&Place) -> bool) {
        self.places.retain(|_, place| survives(place));
    }
}

fn parse(inode: u64, offset: u64, head: &[u8]) -> Option<(Landmark, Place)> {
    if head.len() < HEADER_LENGTH || !head.starts_with(MAGIC) {
        return None;
    }
    let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let half = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let number = word(112);
    let landmark = match head[5] {
        RECORD => Landmark::Record { volume: word(32), lsn: number },
        LEAF => {
            let version = head[88..104].try_into().expect("sixteen bytes");
            Landmark::Leaf { version, attempt: half(104), index: number }
        }
        _ => return None,
    };
    let parts = [152, 156, 160].into_iter().map(|at| u64::from(half(at)));
    let length = HEADER_LENGTH as u64 + parts.sum::<u64>();
    let hash = head[120..152].try_into().expect("thirty-two bytes");
    Some((landmark, Place { inode, offset, length, hash }))
}
