//! The directory tree: which names lead to which files now, and which would after a power loss.

use std::collections::{BTreeMap, BTreeSet};

use crate::random::Draws;

/// What a name leads to; a missing entry is a missing name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    File(u64),
    Directory,
}

/// The names of a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    current: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
    /// Names that differ, or differed, between the two views since their directory's last sync.
    unsynced: BTreeSet<String>,
    /// Renames not yet synced: both their names survive together or not at all.
    renames: Vec<(String, String)>,
}

/// The directory a path lies in; the root is the empty path.
pub(super) fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Names {
    pub(super) fn file(&self, path: &str) -> Option<u64> {
        file_in(&self.current, path)
    }

    pub(super) fn durable_file(&self, path: &str) -> Option<u64> {
        self.path_is_durable(path).then(|| file_in(&self.durable, path)).flatten()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        files_in(&self.current)
    }

    pub(super) fn durable_files(&self) -> impl Iterator<Item = (&str, u64)> {
        files_in(&self.durable)
    }

    /// Whether a name leads to the file, now or after a power loss.
    pub(super) fn leads_to(&self, inode: u64) -> bool {
        self.leads_to_now(inode) || self.durable.values().any(|entry| *entry == Entry::File(inode))
    }

    /// Whether a name would lead to the file after a power loss now.
    pub(super) fn leads_to_durably(&self, inode: u64) -> bool {
        self.durable_files().any(|(path, number)| number == inode && self.path_is_durable(path))
    }

    pub(super) fn leads_to_now(&self, inode: u64) -> bool {
        self.current.values().any(|entry| *entry == Entry::File(inode))
    }

    pub(super) fn has_directory(&self, path: &str) -> bool {
        path.is_empty() || self.current.get(path) == Some(&Entry::Directory)
    }

    pub(super) fn link(&mut self, path: &str, inode: u64) {
        self.current.insert(path.to_owned(), Entry::File(inode));
        self.unsynced.insert(path.to_owned());
    }

    pub(super) fn unlink(&mut self, path: &str) {
        self.current.remove(path);
        self.unsynced.insert(path.to_owned());
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, inode: u64) {
        if from == to {
            return;
        }
        self.unlink(from);
        self.link(to, inode);
        self.renames.push((from.to_owned(), to.to_owned()));
    }

    /// Creates a directory and its parents; false if a file is in the way.
    pub(super) fn create_directory(&mut self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for directory in ends.map(|end| &path[..end]).filter(|directory| !directory.is_empty()) {
            match self.current.get(directory) {
                Some(Entry::File(_)) => return false,
                Some(Entry::Directory) => {}
                None => {
                    self.current.insert(directory.to_owned(), Entry::Directory);
                    self.unsynced.insert(directory.to_owned());
                }
            }
        }
        true
    }

    pub(super) fn list(&self, directory: &str) -> Option<Vec<String>> {
        if !self.has_directory(directory) {
            return None;
        }
        let inside = self.current.keys().filter(|path| parent_of(path) == directory);
        let name = |path: &String| path.rsplit_once('/').map_or(path.as_str(), |(_, n)| n).to_owned();
        Some(inside.map(name).collect())
    }

    pub(super) fn sync(&mut self, directory: &str) {
        let inside: Vec<String> =
            self.unsynced.iter().filter(|path| parent_of(path) == directory).cloned().collect();
        for path in inside {
            self.settle(&path);
            self.unsynced.remove(&path);
        }
        let unsynced = &self.unsynced;
        self.renames.retain(|(from, to)| unsynced.contains(from) || unsynced.contains(to));
    }

    /// Makes the durable view of one name what the current one is.
    fn settle(&mut self, path: &str) {
        match self.current.get(path) {
            Some(entry) => self.durable.insert(path.to_owned(), *entry),
            None => self.durable.remove(path),
        };
    }

    /// Power is lost: each un-synced name has its old or its new meaning. The two halves of a
    /// rename are one journal entry, so they share their fate.
    pub(super) fn crash(&mut self, draws: &mut Draws) {
        let fate: BTreeMap<String, bool> = std::mem::take(&mut self.unsynced)
            .into_iter()
            .map(|path| (path, draws.chance(500_000)))
            .collect();
        let renames = std::mem::take(&mut self.renames);
        let bound = |path: &str| -> bool {
            let source = renames.iter().rev().find(|(_, to)| to == path).map(|(from, _)| from.as_str());
            fate.get(source.unwrap_or(path)).copied().unwrap_or(true)
        };
        for path in fate.keys().filter(|path| bound(path)) {
            self.settle(path);
        }
        self.drop_orphans();
        self.current.clone_from(&self.durable);
    }

    /// A name in a directory that did not survive did not survive either.
    fn drop_orphans(&mut self) {
        let orphan = |path: &String| !self.path_is_durable(path);
        let orphans: Vec<String> = self.durable.keys().filter(|path| orphan(path)).cloned().collect();
        for path in orphans {
            self.durable.remove(&path);
        }
    }

    fn path_is_durable(&self, path: &str) -> bool {
        let mut parent = parent_of(path);
        while !parent.is_empty() {
            if self.durable.get(parent) != Some(&Entry::Directory) {
                return false;
            }
            parent = parent_of(parent);
        }
        true
    }
}

fn file_in(view: &BTreeMap<String, Entry>, path: &str) -> Option<u64> {
    match view.get(path) {
        Some(Entry::File(inode)) => Some(*inode),
        _ => None,
    }
}

fn files_in(view: &BTreeMap<String, Entry>) -> impl Iterator<Item = (&str, u64)> {
    view.iter().filter_map(|(path, entry)| match entry {
        Entry::File(inode) => Some((path.as_str(), *inode)),
        Entry::Directory => None,
    })
}
