//! One file's bytes, sector by sector: what programs read now, and what a power loss would leave.
//!
//! A page is shared between both views until somebody writes to it, so that a snapshot or a sync
//! copies pointers and no bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::random::Draws;

/// The unit that a device writes whole or not at all.
pub const SECTOR: u64 = 512;
/// The unit that is allocated and shared.
pub const PAGE: u64 = 4096;

const SECTORS_PER_PAGE: u64 = PAGE / SECTOR;
const PAGE_BYTES: usize = 4096;
const ALL_SECTORS: u8 = u8::MAX;
const _: () = assert!(PAGE == PAGE_BYTES as u64 && SECTORS_PER_PAGE == u8::BITS as u64);

pub(super) type Page = [u8; PAGE_BYTES];

/// Sectors of one page that are not as durable as they read.
#[derive(Clone, Copy, Debug, Default)]
struct Unsynced {
    /// Written and not yet covered by a sync.
    dirty: u8,
    /// Covered by a sync that failed or lied: the device never got them and never will.
    dropped: u8,
}

/// The bytes of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    current: BTreeMap<u64, Arc<Page>>,
    durable: BTreeMap<u64, Arc<Page>>,
    unsynced: BTreeMap<u64, Unsynced>,
    length: u64,
    durable_length: u64,
    reserved_pages: u64,
    punched: BTreeSet<u64>,
}

/// A piece of a range that lies in one page.
struct Piece {
    page: u64,
    start: usize,
    end: usize,
}

impl Piece {
    fn sectors(&self) -> u8 {
        let first = self.start as u64 / SECTOR;
        let last = (self.end as u64 - 1) / SECTOR;
        (first..=last).fold(0, |mask, sector| mask | 1 << sector)
    }
}

fn pieces(offset: u64, length: u64) -> impl Iterator<Item = Piece> {
    let end = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let page = at / PAGE;
        let stop = end.min((page + 1) * PAGE);
        let piece = Piece { page, start: within(at, page), end: within(stop, page) };
        at = stop;
        Some(piece)
    })
}

fn within(offset: u64, page: u64) -> usize {
    usize::try_from(offset - page * PAGE).expect("an offset inside a page fits")
}

fn zero_page() -> Arc<Page> {
    Arc::new([0; PAGE_BYTES])
}

impl Inode {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of the device that this file holds.
    pub(super) fn allocated(&self) -> u64 {
        (self.reserved_pages - self.punched.len() as u64) * PAGE
    }

    /// The end of the pages that were ever reserved.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved_pages * PAGE
    }

    /// How much more of the device a write or reservation of this range would take.
    pub(super) fn growth(&self, offset: u64, length: u64) -> u64 {
        let end = (offset + length).div_ceil(PAGE);
        let beyond = end.saturating_sub(self.reserved_pages);
        let refilled = self.punched.range(offset / PAGE..end).count() as u64;
        (beyond + refilled) * PAGE
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for piece in pieces(offset, bytes.len() as u64) {
            let (now, later) = rest.split_at(piece.end - piece.start);
            rest = later;
            let page = self.current.entry(piece.page).or_insert_with(zero_page);
            Arc::make_mut(page)[piece.start..piece.end].copy_from_slice(now);
            self.punched.remove(&piece.page);
            self.mark_dirty(&piece);
        }
        self.reserve(offset + bytes.len() as u64);
    }

    fn mark_dirty(&mut self, piece: &Piece) {
        let unsynced = self.unsynced.entry(piece.page).or_default();
        unsynced.dirty |= piece.sectors();
        unsynced.dropped &= !piece.sectors();
    }

    /// Marks a range as never to reach the device by a sync (the write went elsewhere).
    pub(super) fn mark_dropped(&mut self, offset: u64, length: u64) {
        for piece in pieces(offset, length) {
            let unsynced = self.unsynced.entry(piece.page).or_default();
            unsynced.dropped |= piece.sectors();
            unsynced.dirty &= !piece.sectors();
        }
    }

    /// Sets the length to at least `length` and reserves the pages up to it.
    pub(super) fn reserve(&mut self, length: u64) {
        self.length = self.length.max(length);
        self.reserved_pages = self.reserved_pages.max(length.div_ceil(PAGE));
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) {
        read_pages(&self.current, offset, buffer);
    }

    pub(super) fn read_durable(&self, offset: u64, buffer: &mut [u8]) {
        read_pages(&self.durable, offset, buffer);
    }

    /// Zeroes a range; whole pages inside it give their room back.
    pub(super) fn punch(&mut self, offset: u64, length: u64) {
        let length = length.min(self.length.saturating_sub(offset));
        for piece in pieces(offset, length) {
            if piece.end - piece.start == PAGE_BYTES {
                self.current.remove(&piece.page);
                self.punched.insert(piece.page);
            } else if let Some(page) = self.current.get_mut(&piece.page) {
                Arc::make_mut(page)[piece.start..piece.end].fill(0);
            }
            self.mark_dirty(&piece);
        }
    }

    pub(super) fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        for (page, state) in unsynced {
            self.settle(page, state.dirty);
            if state.dropped != 0 {
                self.unsynced.insert(page, Unsynced { dirty: 0, dropped: state.dropped });
            }
        }
        self.durable_length = self.length;
    }

    /// A sync that failed or lied: the cache calls the pages clean, the device never got them.
    pub(super) fn drop_dirty_pages(&mut self) {
        for state in self.unsynced.values_mut() {
            state.dropped |= std::mem::take(&mut state.dirty);
        }
    }

    /// Sectors that the cache calls clean and the device never got read as the device has them.
    pub(super) fn forget_cached(&mut self) {
        let zeros = zero_page();
        for (page, state) in &mut self.unsynced {
            let dropped = std::mem::take(&mut state.dropped);
            if dropped != 0 {
                let from = self.durable.get(page).unwrap_or(&zeros);
                let to = Arc::make_mut(self.current.entry(*page).or_insert_with(zero_page));
                copy_sectors(from, to, dropped);
            }
        }
    }

    /// The system writes one dirty page back on its own, as it may at any time.
    pub(super) fn write_back_one(&mut self, draws: &mut Draws) {
        let dirty: Vec<u64> = self.unsynced.keys().copied().collect();
        if let Some(page) = draws.pick(&dirty) {
            let sectors = self.unsynced[page].dirty;
            self.settle(*page, sectors);
        }
    }

    /// Copies the given sectors of a page into the durable view.
    fn settle(&mut self, page: u64, sectors: u8) {
        let current = self.current.get(&page);
        if sectors == ALL_SECTORS {
            match current {
                Some(bytes) => self.durable.insert(page, Arc::clone(bytes)),
                None => self.durable.remove(&page),
            };
            return;
        }
        if sectors == 0 {
            return;
        }
        let zeros = zero_page();
        let from = current.unwrap_or(&zeros);
        copy_sectors(from, Arc::make_mut(self.durable.entry(page).or_insert_with(zero_page)), sectors);
    }

    /// Power is lost: each dirty sector reached the device or did not, the length too.
    pub(super) fn crash(&mut self, draws: &mut Draws) {
        for (page, state) in std::mem::take(&mut self.unsynced) {
            let reached = state.dirty & draws.next().to_le_bytes()[0];
            self.settle(page, reached);
        }
        if self.length > self.durable_length {
            let sectors = (self.length - self.durable_length).div_ceil(SECTOR);
            let grown = self.durable_length + draws.between(0, sectors) * SECTOR;
            self.durable_length = grown.min(self.length);
        }
        self.length = self.durable_length;
        self.current.clone_from(&self.durable);
    }

    /// Flips one bit on the device and in the cache, as rot that was read would look.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        self.flip(offset, 1 << (bit % 8));
    }

    /// Flips the bits of a byte that the mask names, in the same two views.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        let page = offset / PAGE;
        for view in [&mut self.current, &mut self.durable] {
            let bytes = view.entry(page).or_insert_with(zero_page);
            Arc::make_mut(bytes)[within(offset, page)] ^= mask;
        }
    }

    pub(super) fn byte(&self, offset: u64) -> u8 {
        let mut byte = [0];
        self.read(offset, &mut byte);
        byte[0]
    }

    /// Whether a power loss now would leave this range exactly as it reads.
    pub(super) fn is_durable(&self, offset: u64, length: u64) -> bool {
        let synced = |piece: Piece| {
            self.unsynced
                .get(&piece.page)
                .is_none_or(|state| (state.dirty | state.dropped) & piece.sectors() == 0)
        };
        offset + length <= self.durable_length && pieces(offset, length).all(synced)
    }

    /// The durable pages that hold something, with their numbers.
    pub(super) fn durable_pages(&self) -> impl Iterator<Item = (u64, &Page)> {
        self.durable.iter().map(|(page, bytes)| (*page, &**bytes))
    }
}

fn copy_sectors(from: &Page, to: &mut Page, sectors: u8) {
    for sector in (0..SECTORS_PER_PAGE).filter(|sector| sectors & (1 << sector) != 0) {
        let start = within(sector * SECTOR, 0);
        let end = within((sector + 1) * SECTOR, 0);
        to[start..end].copy_from_slice(&from[start..end]);
    }
}

fn read_pages(pages: &BTreeMap<u64, Arc<Page>>, offset: u64, buffer: &mut [u8]) {
    let mut rest = buffer;
    for piece in pieces(offset, rest.len() as u64) {
        let (now, later) = rest.split_at_mut(piece.end - piece.start);
        rest = later;
        match pages.get(&piece.page) {
            Some(page) => now.copy_from_slice(&page[piece.start..piece.end]),
            None => now.fill(0),
        }
    }
}
