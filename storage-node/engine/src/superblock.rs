//! A small value that survives the loss of either of its two slots: each slot has a generation and a
//! checksum, a write goes to the older slot, and the highest valid generation counts.
//!
//! A crash before the sync leaves the newer slot torn and the older one valid, so a reader sees the
//! value before; a crash after it sees the new one. Byte table: docs/disk-format.md.

use minicbor::{Decode, Encode};
use trefoil_protocol::codec;
use zeroize::Zeroizing;

use crate::disk::{Disk, DiskError, DiskFile};
use crate::health::{Health, SyncError};

/// Bytes of one slot.
pub const SLOT_LENGTH: usize = 4096;

const MAGIC: [u8; 4] = *b"TRFB";
const FORMAT: u32 = 1;
const HEAD_LENGTH: usize = 28;

/// Why a superblock cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The sync failed.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// Neither slot holds a valid value.
    #[error("both slots of {path} are damaged")]
    BothSlotsDamaged {
        /// The file.
        path: String,
    },
    /// A valid slot of another format version.
    #[error("{path} has format {got}, this version knows {FORMAT}")]
    Format {
        /// The file.
        path: String,
        /// The format found.
        got: u32,
    },
}

/// A value in two slots.
#[derive(Clone, Debug)]
pub struct TwoSlots<D: Disk, V> {
    file: D::File,
    health: Health<D>,
    generation: u64,
    value: V,
    /// The slot of `generation` may not be durable yet: the other one must not be touched before it is.
    staged: bool,
}

impl<D: Disk, V: Encode<()> + for<'b> Decode<'b, ()> + Clone> TwoSlots<D, V> {
    /// Creates the file with `value` in both slots and syncs it; the caller syncs the directory.
    pub fn create(
        disk: &D,
        health: &Health<D>,
        path: &str,
        value: V,
    ) -> Result<TwoSlots<D, V>, SuperblockError> {
        let slots = Self::prepare(disk, health, path, value)?;
        health.sync_data(&slots.file)?;
        Ok(TwoSlots { staged: false, ..slots })
    }

    /// Creates the file with `value` in both slots; the caller syncs it, and then the directory. A crash
    /// before may tear both slots: nobody relies on a file that has no durable name.
    pub(crate) fn prepare(
        disk: &D,
        health: &Health<D>,
        path: &str,
        value: V,
    ) -> Result<TwoSlots<D, V>, SuperblockError> {
        health.check()?;
        let file = disk.create(path)?;
        file.allocate(2 * SLOT_LENGTH as u64)?;
        for generation in [1, 2] {
            write_slot(&file, generation, &value)?;
        }
        Ok(TwoSlots { file, health: health.clone(), generation: 2, value, staged: true })
    }

    /// Opens the file and takes the value of the highest valid generation.
    pub fn open(disk: &D, health: &Health<D>, path: &str) -> Result<TwoSlots<D, V>, SuperblockError> {
        let file = disk.open(path)?;
        let mut best: Option<(u64, V)> = None;
        for slot in 0..2 {
            let mut bytes = Zeroizing::new(vec![0; SLOT_LENGTH]);
            match file.read_at(slot * SLOT_LENGTH as u64, &mut bytes) {
                Ok(()) => {}
                Err(DiskError::ShortRead { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            let Some((generation, value)) = parse_slot(&bytes, path)? else {
                continue;
            };
            if best.as_ref().is_none_or(|(highest, _)| generation > *highest) {
                best = Some((generation, value));
            }
        }
        let (generation, value) =
            best.ok_or_else(|| SuperblockError::BothSlotsDamaged { path: path.to_owned() })?;
        Ok(TwoSlots { file, health: health.clone(), generation, value, staged: false })
    }

    /// Whether each slot is valid on disk.
    pub(crate) fn whole_slots(&self) -> Result<[bool; 2], DiskError> {
        let mut whole = [false; 2];
        for (slot, whole) in whole.iter_mut().enumerate() {
            let mut bytes = Zeroizing::new(vec![0; SLOT_LENGTH]);
            self.file.read_at((slot * SLOT_LENGTH) as u64, &mut bytes)?;
            *whole = matches!(parse_slot::<V>(&bytes, ""), Ok(Some(_)));
        }
        Ok(whole)
    }

    /// The current value.
    pub fn value(&self) -> &V {
        &self.value
    }

    /// Writes a new value into the older slot and syncs it.
    pub fn write(&mut self, value: V) -> Result<(), SuperblockError> {
        self.stage(value)?;
        self.health.sync_data(&self.file)?;
        self.staged = false;
        Ok(())
    }

    /// Writes a new value into the older slot. It counts when [`TwoSlots::file`] was synced, or a crash lets
    /// it; until then the value before may come back.
    pub(crate) fn stage(&mut self, value: V) -> Result<(), SuperblockError> {
        // A poisoned store writes nothing: a value that no sync covers must not be read later.
        self.health.check()?;
        if self.staged {
            self.health.sync_data(&self.file)?;
        }
        write_slot(&self.file, self.generation + 1, &value)?;
        self.generation += 1;
        self.value = value;
        self.staged = true;
        Ok(())
    }

    /// The file, to be synced with others.
    pub(crate) fn file(&self) -> &D::File {
        &self.file
    }

    /// Whether the value may not be durable yet.
    pub(crate) fn is_staged(&self) -> bool {
        self.staged
    }

    /// The file was synced.
    pub(crate) fn synced(&mut self) {
        self.staged = false;
    }

    /// Writes a new value into one slot, syncs, then into the other and syncs: afterwards no slot
    /// holds the old value, and at every moment one slot holds a whole value.
    pub fn write_both(&mut self, value: V) -> Result<(), SuperblockError> {
        self.write(value.clone())?;
        self.write(value)
    }
}

fn write_slot<F: DiskFile, V: Encode<()>>(file: &F, generation: u64, value: &V) -> Result<(), DiskError> {
    let slot = encode_slot(generation, value);
    file.write_at((generation % 2) * SLOT_LENGTH as u64, &[&slot])
}

fn encode_slot<V: Encode<()>>(generation: u64, value: &V) -> Zeroizing<Vec<u8>> {
    // The value may hold a key: neither buffer is left behind in memory.
    let body = Zeroizing::new(codec::to_vec(value));
    assert!(HEAD_LENGTH + body.len() <= SLOT_LENGTH, "a superblock value is far smaller than its slot");
    let mut slot = Zeroizing::new(Vec::with_capacity(SLOT_LENGTH));
    slot.extend_from_slice(&MAGIC);
    slot.extend_from_slice(&FORMAT.to_le_bytes());
    slot.extend_from_slice(&generation.to_le_bytes());
    slot.extend_from_slice(&(body.len() as u32).to_le_bytes());
    slot.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    let head_crc = crc32fast::hash(&slot);
    slot.extend_from_slice(&head_crc.to_le_bytes());
    slot.extend_from_slice(&body);
    slot.resize(SLOT_LENGTH, 0);
    slot
}

fn parse_slot<V: for<'b> Decode<'b, ()>>(
    bytes: &[u8],
    path: &str,
) -> Result<Option<(u64, V)>, SuperblockError> {
    let word = |at: usize| {
        let four = bytes[at..at + 4].try_into().expect("four bytes are four bytes");
        u32::from_le_bytes(four)
    };
    if bytes[..4] != MAGIC || crc32fast::hash(&bytes[..HEAD_LENGTH - 4]) != word(HEAD_LENGTH - 4) {
        return Ok(None);
    }
    if word(4) != FORMAT {
        return Err(SuperblockError::Format { path: path.to_owned(), got: word(4) });
    }
    let generation = u64::from(word(8)) | u64::from(word(12)) << 32;
    let Some(body) = bytes.get(HEAD_LENGTH..HEAD_LENGTH + word(16) as usize) else {
        return Ok(None);
    };
    if crc32fast::hash(body) != word(20) {
        return Ok(None);
    }
    Ok(codec::from_slice(body).ok().map(|value| (generation, value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fault::FaultDisk;

    fn fresh() -> (FaultDisk, Health<FaultDisk>, TwoSlots<FaultDisk, u64>) {
        let disk = FaultDisk::new();
        Health::prepare(&disk).expect("prepares");
        let health = Health::open(&disk).expect("opens");
        let slots = TwoSlots::create(&disk, &health, "slots", 1).expect("creates");
        disk.sync_directory("").expect("syncs");
        (disk, health, slots)
    }

    #[test]
    fn r012_either_slot_may_be_lost() {
        let (disk, health, mut slots) = fresh();
        slots.write(2).expect("writes");
        for (damaged, expected) in [(0, [1, 2]), (SLOT_LENGTH as u64, [1, 2])] {
            for byte in 0..40 {
                disk.flip_bit("slots", damaged + byte, 3);
                let read = TwoSlots::<FaultDisk, u64>::open(&disk, &health, "slots");
                match read {
                    Ok(read) => assert!(expected.contains(read.value())),
                    Err(error) => panic!("byte {byte} of slot {damaged}: {error}"),
                }
                disk.flip_bit("slots", damaged + byte, 3);
            }
        }
    }

    #[test]
    fn r012_a_crash_at_any_step_leaves_the_old_or_the_new_value() {
        for seed in 0..64 {
            let (disk, health, mut slots) = fresh();
            disk.halt_at(disk.counts().steps + seed % 3);
            let written = slots.write(2);
            disk.crash(seed.wrapping_mul(0x1234_5679));
            let read = TwoSlots::<FaultDisk, u64>::open(&disk, &health, "slots").expect("opens");
            let value = *read.value();
            assert!(value == 2 || (value == 1 && written.is_err()), "seed {seed}");
        }
    }

    #[test]
    fn r012_another_format_is_refused() {
        let (disk, health, _) = fresh();
        let file = disk.open("slots").expect("opens");
        for slot in 0..2 {
            let mut bytes = encode_slot(9, &1u64);
            bytes[4] = 2;
            let crc = crc32fast::hash(&bytes[..HEAD_LENGTH - 4]);
            bytes[HEAD_LENGTH - 4..HEAD_LENGTH].copy_from_slice(&crc.to_le_bytes());
            file.write_at(slot * SLOT_LENGTH as u64, &[&bytes]).expect("writes");
        }
        let refused = TwoSlots::<FaultDisk, u64>::open(&disk, &health, "slots").err();
        assert!(matches!(refused, Some(SuperblockError::Format { got: 2, .. })));
    }
}
