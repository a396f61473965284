//! Finds many byte strings at once, wherever they begin, and looks at one word in sixteen bytes only: a string that is long
//! enough covers such a word whole, and it is known beforehand which eight of its bytes that can be.

use std::collections::BTreeMap;

use super::PAGE;
use super::inode::Inode;

const WORD: usize = 8;
/// Every so many bytes a word is looked at; pages begin with one.
const STRIDE: usize = 16;
/// The least length of what is looked for: wherever it begins, it covers one of those words.
const LENGTH_MIN: usize = WORD + STRIDE - 1;
const SIEVE_BITS: u32 = 20;

/// What is looked for.
pub(super) struct Needles<'a> {
    needles: &'a [&'a [u8]],
    /// Whether some word that falls into this hole is worth a look.
    sieve: Vec<bool>,
    /// Of which needle, and where in it, a word is.
    words: BTreeMap<u64, Vec<(usize, u64)>>,
}

impl<'a> Needles<'a> {
    pub(super) fn new(needles: &'a [&'a [u8]]) -> Self {
        let mut this = Self { needles, sieve: vec![false; 1 << SIEVE_BITS], words: BTreeMap::new() };
        for (number, needle) in needles.iter().enumerate() {
            assert!(needle.len() >= LENGTH_MIN, "a needle of {} bytes is too short", needle.len());
            // Many begin alike, with a version of a format or of a key; their ends are random.
            let first = needle.len() - LENGTH_MIN;
            for (at, word) in needle.windows(WORD).enumerate().skip(first) {
                let word = value(word);
                this.sieve[hole(word)] = true;
                this.words.entry(word).or_default().push((number, at as u64));
            }
        }
        this
    }

    /// Tells each place where one of them lies in durable bytes: its number, and where it begins.
    pub(super) fn find_in(&self, inode: &Inode, mut tell: impl FnMut(usize, u64)) {
        for (page, bytes) in inode.durable_pages() {
            for (step, stretch) in bytes.chunks_exact(STRIDE).enumerate() {
                let word = value(&stretch[..WORD]);
                if !self.sieve[hole(word)] {
                    continue;
                }
                let here = page * PAGE + (step * STRIDE) as u64;
                for (number, at) in self.words.get(&word).into_iter().flatten() {
                    let Some(begins) = here.checked_sub(*at) else { continue };
                    let mut candidate = vec![0; self.needles[*number].len()];
                    inode.read_durable(begins, &mut candidate);
                    if candidate == self.needles[*number] {
                        tell(*number, begins);
                    }
                }
            }
        }
    }
}

fn value(word: &[u8]) -> u64 {
    u64::from_le_bytes(word.try_into().expect("a word has eight bytes"))
}

fn hole(word: u64) -> usize {
    let spread = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SIEVE_BITS);
    usize::try_from(spread).expect("twenty bits")
}
