//! A raw look for bytes in every file of a store, below all formats: the proof that what was erased
//! is nowhere.

use crate::disk::{Disk, DiskError, DiskFile};
use crate::store::Store;

const WINDOW: u64 = 1 << 20;

/// Where bytes were found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundBytes {
    /// The file, relative to the store's root.
    pub path: String,
    /// The offset in it.
    pub offset: u64,
}

impl<D: Disk> Store<D> {
    /// Every place of `pattern` in every file of the store. An empty pattern is nowhere.
    pub fn find_bytes(&self, pattern: &[u8]) -> Result<Vec<FoundBytes>, DiskError> {
        let mut found = Vec::new();
        for path in self.files()? {
            let file = self.disk().open(&path)?;
            for offset in find_in(&file, pattern)? {
                found.push(FoundBytes { path: path.clone(), offset });
            }
        }
        Ok(found)
    }
}

fn find_in(file: &impl DiskFile, pattern: &[u8]) -> Result<Vec<u64>, DiskError> {
    let mut found = Vec::new();
    let length = file.length()?;
    let (Some(first), wanted) = (pattern.first(), pattern.len() as u64) else {
        return Ok(found);
    };
    let mut bytes = Vec::new();
    let mut at = 0;
    while at + wanted <= length {
        // Windows overlap by one byte less than the pattern, so that no place is cut in two.
        let step = (length - at).min(WINDOW + wanted - 1);
        bytes.resize(step as usize, 0);
        file.read_at(at, &mut bytes)?;
        let mut from = 0;
        while let Some(next) = bytes[from..].iter().position(|byte| byte == first) {
            from += next;
            if bytes[from..].starts_with(pattern) {
                found.push(at + from as u64);
            }
            from += 1;
        }
        at += WINDOW;
    }
    found.dedup();
    Ok(found)
}
