//! Looks for bytes from outside: in every file of a folder, in files that a process holds open after
//! their names are gone, and in the memory of a process. Knows nothing of what the bytes mean, and
//! shares no code with the program's own scan.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// The shortest run that counts as a trace.
pub(crate) const RUN: usize = 64;

/// Every run of [`RUN`] bytes holds one of these whole, at a multiple of its length.
const BLOCK: usize = RUN / 2;

/// How much is looked at in one go.
const PIECE: usize = 8 << 20;

/// A text that leaves traces.
pub(crate) struct Text<'a> {
    text: &'a [u8],
    /// Where each block is, by its first eight bytes.
    blocks: BTreeMap<[u8; 8], Vec<usize>>,
    /// Which first two bytes any block has.
    heads: Vec<bool>,
}

impl<'a> Text<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let mut blocks: BTreeMap<[u8; 8], Vec<usize>> = BTreeMap::new();
        let mut heads = vec![false; 1 << 24];
        for (index, block) in text.chunks_exact(BLOCK).enumerate() {
            blocks.entry(block[..8].try_into().unwrap()).or_default().push(index * BLOCK);
            heads[head(block)] = true;
        }
        Self { text, blocks, heads }
    }

    /// The blocks of the text that lie in runs found in `bytes`, by their index.
    pub(crate) fn found_in(&self, bytes: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        let mut at = 0;
        while at + BLOCK <= bytes.len() {
            if self.heads[head(&bytes[at..])]
                && let Some((start, length)) = self.run_at(bytes, at)
            {
                found.extend(start / BLOCK..(start + length) / BLOCK);
                at += length;
            } else {
                at += 1;
            }
        }
        found
    }

    /// The place in the text of a block that is part of a run at `at`, and how far it goes on.
    fn run_at(&self, bytes: &[u8], at: usize) -> Option<(usize, usize)> {
        let starts = self.blocks.get(&bytes[at..at + 8])?;
        starts.iter().find_map(|start| {
            let after = bytes[at..].iter().zip(&self.text[*start..]).take_while(|(a, b)| a == b).count();
            let before = bytes[..at].iter().rev().zip(self.text[..*start].iter().rev());
            let before = before.take_while(|(a, b)| a == b).count();
            (after >= BLOCK && before + after >= RUN).then_some((*start, after))
        })
    }
}

fn head(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16
}

/// Every file below a folder, and what a process holds open without a name.
pub(crate) fn files(folder: &Path, pid: Option<Pid>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    let Some(pid) = pid else { return found };
    for link in fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().flatten() {
        let nameless =
            fs::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().ends_with(" (deleted)"));
        if nameless && fs::metadata(link.path()).is_ok_and(|metadata| metadata.is_file()) {
            found.push(link.path());
        }
    }
    found
}

/// Hands on every piece of a file; pieces overlap by [`RUN`] bytes, so that a run lies whole in one.
pub(crate) fn pieces_of_file(path: &Path, mut look: impl FnMut(&[u8])) {
    // A file may go while others are read.
    let Ok(file) = File::open(path) else { return };
    let length = file.metadata().unwrap().len();
    pieces(&file, 0, length, &mut look);
}

/// Hands on every readable piece of a process's memory, and tells how many bytes that were.
pub(crate) fn pieces_of_memory(pid: Pid, mut look: impl FnMut(&[u8])) -> u64 {
    let number = pid.as_raw_nonzero();
    let maps = fs::read_to_string(format!("/proc/{number}/maps")).unwrap();
    let memory = File::open(format!("/proc/{number}/mem")).unwrap();
    let mut seen = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let special = matches!(words.nth(3), Some("[vvar]" | "[vsyscall]" | "[vvar_vclock]"));
        if !rights.starts_with("rw") || special {
            continue;
        }
        let (begin, end) = range.split_once('-').unwrap();
        let [begin, end] = [begin, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        seen += pieces(&memory, begin, end, &mut look);
    }
    seen
}

fn pieces(file: &File, begin: u64, end: u64, look: &mut impl FnMut(&[u8])) -> u64 {
    let mut buffer = vec![0; PIECE];
    let (mut offset, mut seen) = (begin, 0);
    while offset < end {
        let wanted = usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE);
        // A range of memory may be gone since it was listed.
        let Ok(length @ 1..) = file.read_at(&mut buffer[..wanted], offset) else { return seen };
        look(&buffer[..length]);
        seen += length as u64;
        let last = offset + length as u64 >= end || length <= RUN;
        offset += if last { length as u64 } else { (length - RUN) as u64 };
    }
    seen
}

/// Whether `bytes` hold `wanted`.
pub(crate) fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    let first = wanted[0];
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(wanted) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[test]
fn a_run_is_found_wherever_it_begins_and_a_shorter_one_is_not() {
    let text: Vec<u8> =
        (0..1000_u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec()).collect();
    let sought = Text::new(&text);
    for begin in [0, 1, 31, 32, 33, 777] {
        let mut bytes = vec![!text[begin.max(1) - 1]; 500];
        bytes[100..100 + RUN].copy_from_slice(&text[begin..begin + RUN]);
        assert!(!sought.found_in(&bytes).is_empty(), "a run from {begin}");
        bytes[100 + RUN - 1] ^= 1;
        assert!(sought.found_in(&bytes).is_empty(), "a shorter run from {begin}");
    }
}
