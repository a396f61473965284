//! Looks for bytes on disk from outside: every file below a folder, and every file that a process
//! still holds open after its name was removed. Knows nothing of what the files mean.
//!
//! Any run of 64 bytes of a sought text, at any place of a file, is found: such a run contains one
//! of the text's 32-byte blocks whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};

use crate::failure::{Verdict, at};

/// The shortest run that counts.
pub(crate) const RUN: usize = 64;

/// Blocks of this size are looked up; half a run, so that every run holds one.
const BLOCK: usize = RUN / 2;

/// How much of a file is read at once.
const PIECE: usize = 4 << 20;

/// Bits of the filter before the map of blocks.
const FILTER_BITS: u32 = 22;

/// What is looked for: texts by name.
pub(crate) struct Sought {
    names: Vec<String>,
    texts: Vec<Vec<u8>>,
    blocks: HashMap<[u8; 8], Vec<(usize, usize)>>,
    filter: Vec<u64>,
}

/// Where to look.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// What the findings call it.
    pub(crate) name: String,
    /// Everything below this folder.
    pub(crate) folder: PathBuf,
    /// The process whose open files are looked at, too.
    pub(crate) pid: Option<u32>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Runs, by text and place.
    pub(crate) runs: BTreeMap<(String, String), u64>,
    /// Files looked at.
    pub(crate) files: u64,
    /// Bytes looked at, without holes.
    pub(crate) bytes: u64,
}

impl Found {
    /// Runs of a text in all places.
    pub(crate) fn runs_of(&self, text: &str) -> u64 {
        self.runs.iter().filter(|((name, _), _)| name == text).map(|(_, runs)| runs).sum()
    }

    /// The places that hold a run of a text.
    pub(crate) fn places_of(&self, text: &str) -> Vec<String> {
        let holding = self.runs.iter().filter(|((name, _), runs)| name == text && **runs > 0);
        holding.map(|((_, place), _)| place.clone()).collect()
    }
}

impl Sought {
    /// Looks for these texts; what is shorter than [`RUN`] is never found.
    pub(crate) fn new(texts: &[(&str, &[u8])]) -> Self {
        let mut sought = Self {
            names: texts.iter().map(|(name, _)| (*name).to_owned()).collect(),
            texts: texts.iter().map(|(_, text)| text.to_vec()).collect(),
            blocks: HashMap::new(),
            filter: vec![0; 1 << (FILTER_BITS - 6)],
        };
        for (number, (_, text)) in texts.iter().enumerate() {
            for (index, block) in text.chunks_exact(BLOCK).enumerate() {
                let head: [u8; 8] = block[..8].try_into().expect("eight bytes");
                sought.blocks.entry(head).or_default().push((number, index * BLOCK));
                let bit = slot(&head);
                sought.filter[bit >> 6] |= 1 << (bit & 63);
            }
        }
        sought
    }

    /// Looks everywhere.
    pub(crate) fn find(&self, places: &[Place]) -> Verdict<Found> {
        let mut found = Found::default();
        for place in places {
            for path in paths(place)? {
                // A file may vanish while others are read; its place is looked at next time.
                let Ok(file) = File::open(&path) else { continue };
                found.files += 1;
                self.look_at(&file, &place.name, &mut found).map_err(at(&path))?;
            }
        }
        Ok(found)
    }

    fn look_at(&self, file: &File, place: &str, found: &mut Found) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        for (begin, end) in extents(file)? {
            let mut offset = begin;
            while offset < end {
                let wanted = usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE);
                let length = file.read_at(&mut buffer[..wanted], offset)?;
                if length == 0 {
                    break;
                }
                found.bytes += length as u64;
                self.look_in(&buffer[..length], place, found);
                if length == wanted && offset + (length as u64) < end && length > RUN {
                    // Runs across the border lie whole in the next piece.
                    offset += (length - RUN) as u64;
                } else {
                    offset += length as u64;
                }
            }
        }
        Ok(())
    }

    fn look_in(&self, bytes: &[u8], place: &str, found: &mut Found) {
        let mut position = 0;
        while position + BLOCK <= bytes.len() {
            let head: [u8; 8] = bytes[position..position + 8].try_into().expect("eight bytes");
            let bit = slot(&head);
            if self.filter[bit >> 6] & (1 << (bit & 63)) != 0
                && let Some((number, end)) = self.run_at(&head, bytes, position)
            {
                let key = (self.names[number].clone(), place.to_owned());
                *found.runs.entry(key).or_default() += 1;
                position = end;
            } else {
                position += 1;
            }
        }
    }

    /// The text of which a run goes through the block at `position`, and where the run ends.
    fn run_at(&self, head: &[u8; 8], bytes: &[u8], position: usize) -> Option<(usize, usize)> {
        self.blocks.get(head)?.iter().find_map(|(number, start)| {
            let text = &self.texts[*number];
            let after = bytes[position..].iter().zip(&text[*start..]).take_while(|(a, b)| a == b).count();
            let before = bytes[..position].iter().rev().zip(text[..*start].iter().rev());
            let before = before.take_while(|(a, b)| a == b).count();
            (after >= BLOCK && before + after >= RUN).then_some((*number, position + after))
        })
    }
}

fn slot(head: &[u8; 8]) -> usize {
    let mixed = u64::from_le_bytes(*head).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - FILTER_BITS)) as usize
}

/// The parts of a file that are no holes.
fn extents(file: &File) -> io::Result<Vec<(u64, u64)>> {
    let length = file.metadata()?.len();
    let mut parts = Vec::new();
    let mut offset = 0;
    while offset < length {
        let begin = match seek(file, SeekFrom::Data(offset)) {
            Ok(begin) => begin,
            Err(rustix::io::Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(_) => return Ok(vec![(0, length)]),
        };
        let end = seek(file, SeekFrom::Hole(begin)).unwrap_or(length).min(length);
        parts.push((begin, end));
        offset = end.max(begin + 1);
    }
    Ok(parts)
}

/// Every file below the folder, and what the process holds open without a name.
fn paths(place: &Place) -> Verdict<Vec<PathBuf>> {
    let mut found = Vec::new();
    below(&place.folder, &mut found)?;
    let Some(pid) = place.pid else { return Ok(found) };
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Ok(found) };
    for link in open.flatten().map(|entry| entry.path()) {
        let target = fs::read_link(&link).unwrap_or_default();
        let nameless = target.to_string_lossy().ends_with(" (deleted)");
        if nameless && fs::metadata(&link).is_ok_and(|metadata| metadata.is_file()) {
            found.push(link);
        }
    }
    Ok(found)
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) -> Verdict {
    for entry in fs::read_dir(folder).map_err(at(folder))?.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => below(&path, found)?,
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn look(texts: &[(&str, &[u8])], content: &[u8]) -> Found {
        let number = std::thread::current().id();
        let folder = std::env::temp_dir().join(format!("trefoil-scan-{}-{number:?}", std::process::id()));
        fs::create_dir_all(folder.join("deep")).unwrap();
        fs::write(folder.join("deep/file"), content).unwrap();
        let place = Place { name: "n".into(), folder: folder.clone(), pid: None };
        let found = Sought::new(texts).find(&[place]).unwrap();
        fs::remove_dir_all(folder).unwrap();
        found
    }

    #[test]
    fn any_run_of_64_bytes_is_found_at_any_place() {
        let sought = text(1, 1000);
        for (from, at) in [(0, 0), (1, 7), (31, 4096), (500, 99), (936, 1)] {
            let mut content = text(2, 5000);
            content[at..at + RUN].copy_from_slice(&sought[from..from + RUN]);
            assert_eq!(look(&[("t", &sought)], &content).runs_of("t"), 1, "{from} at {at}");
        }
    }

    #[test]
    fn runs_across_the_borders_of_pieces_are_found() {
        let sought = text(3, 4096);
        for at in [PIECE - 1, PIECE - 63, PIECE - 64, PIECE] {
            let mut content = text(4, PIECE + 10_000);
            content[at..at + RUN].copy_from_slice(&sought[100..100 + RUN]);
            assert!(look(&[("t", &sought)], &content).runs_of("t") >= 1, "at {at}");
        }
    }

    #[test]
    fn shorter_runs_and_other_texts_are_not_found() {
        let sought = text(5, 1000);
        let mut content = text(6, 5000);
        content[100..132].copy_from_slice(&sought[32..64]);
        let found = look(&[("t", &sought), ("other", &text(7, 500))], &content);
        assert_eq!((found.runs.len(), found.files, found.bytes), (0, 1, 5000));
    }

    #[test]
    fn a_file_without_a_name_is_looked_at() {
        let folder = std::env::temp_dir().join(format!("trefoil-nameless-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let sought = text(8, 200);
        let path = folder.join("gone");
        fs::write(&path, &sought).unwrap();
        let held = File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let place = Place { name: "n".into(), folder: folder.clone(), pid: Some(std::process::id()) };
        assert_eq!(Sought::new(&[("t", &sought)]).find(&[place]).unwrap().places_of("t"), ["n"]);
        drop(held);
        fs::remove_dir_all(folder).unwrap();
    }
}
