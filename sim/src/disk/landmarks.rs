//! Where the frames of records and leaves were written: the simulator's own reader of the disk
//! format (docs/disk-format.md), so that an oracle finds what was acknowledged without asking the
//! engine that wrote it, and without searching every byte.
//!
//! It only remembers what was written. Whether it is still there is asked of the durable bytes.

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

/// Where a frame was written, and what was written there: but for the wrapped key, which moves to
/// the bag and is blanked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) inode: u64,
    pub(super) offset: u64,
    /// Lengths of the public part, the wrapped key and the erasable part.
    lengths: [u64; 3],
    digest: [u8; 32],
}

impl Place {
    pub(super) fn length(&self) -> u64 {
        HEADER_LENGTH as u64 + self.lengths.iter().sum::<u64>()
    }

    /// A byte of what is never erased.
    pub(super) fn in_public_part(&self) -> u64 {
        self.offset + HEADER_LENGTH as u64 + self.lengths[0] / 2
    }

    /// Whether these bytes are what was written there.
    pub(super) fn holds(&self, frame: &[u8]) -> bool {
        let [public, wrapped, _] = self.lengths.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let head = HEADER_LENGTH + public;
        head + wrapped <= frame.len() && digest(&frame[..head], &frame[head + wrapped..]) == self.digest
    }
}

fn digest(head: &[u8], erasable: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(head).update(erasable).finalize().as_bytes()
}

/// The places of each landmark on a disk, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Landmarks {
    places: BTreeMap<Landmark, Vec<Place>>,
}

impl Landmarks {
    /// Looks at a write.
    pub(super) fn note(&mut self, inode: u64, offset: u64, parts: &[&[u8]]) {
        if let Some((landmark, place)) = parse(inode, offset, parts) {
            self.places.entry(landmark).or_default().push(place);
        }
    }

    pub(super) fn places(&self, landmark: &Landmark) -> &[Place] {
        self.places.get(landmark).map_or(&[], Vec::as_slice)
    }
}

fn parse(inode: u64, offset: u64, parts: &[&[u8]]) -> Option<(Landmark, Place)> {
    let [head, public, _, erasable] = parts else { return None };
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
    let lengths = [152, 156, 160].map(|at| u64::from(half(at)));
    let digest = digest(&[*head, *public].concat(), erasable);
    Some((landmark, Place { inode, offset, lengths, digest }))
}
