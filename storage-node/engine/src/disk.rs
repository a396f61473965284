//! The disk as the engine sees it: named files in one directory tree, written at offsets, made
//! durable by an explicit sync. The file implementation, the fault-injecting one and the
//! simulator's all stand behind these two traits and share one conformance suite.
//!
//! Nothing here may buffer: what `write_at` accepted and no `sync_data` covered may be lost, in
//! whole or in part and in any order, by a crash. Names are durable only after `sync_directory`.

pub mod fault;
pub mod file;

use std::fmt;

/// Why a disk operation failed. `Clone`, because one failed sync is reported to every waiter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The device or file system answered with an error (EIO and everything not named below).
    #[error("{operation} on {path} failed: {reason}")]
    Io {
        /// The operation, e.g. `fdatasync`.
        operation: &'static str,
        /// The file, relative to the store's root.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// No room: the device is full or the configured capacity is reached.
    #[error("no room for {needed} more bytes at {path}")]
    Full {
        /// The file that was to grow.
        path: String,
        /// How many bytes were asked for.
        needed: u64,
    },
    /// The file or directory does not exist.
    #[error("{path} does not exist")]
    NotFound {
        /// The missing path, relative to the store's root.
        path: String,
    },
    /// Another process has the store open.
    #[error("{path} is in use by another process")]
    Locked {
        /// The root directory.
        path: String,
    },
    /// A path that is empty, absolute or tries to leave the root.
    #[error("{path:?} is not a path below the root")]
    BadPath {
        /// The refused path.
        path: String,
    },
    /// A read went past the end of the file.
    #[error("read of {length} bytes at {offset} passes the end of {path}")]
    ShortRead {
        /// The file, relative to the store's root.
        path: String,
        /// Where the read began.
        offset: u64,
        /// How many bytes were wanted.
        length: usize,
    },
}

/// A directory tree that belongs to one store. Paths are relative, `/`-separated, without `..`;
/// the empty path names the root directory.
pub trait Disk: Clone + fmt::Debug + Send + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &str) -> Result<Self::File, DiskError>;

    /// Creates a file (parents must exist) or opens the existing one. The name is durable only
    /// after [`Disk::sync_directory`] of its parent.
    fn create(&self, path: &str) -> Result<Self::File, DiskError>;

    /// Creates a directory and its parents where they are missing.
    fn create_directory(&self, path: &str) -> Result<(), DiskError>;

    /// The names (not paths) in a directory, sorted; an error if it does not exist.
    fn list(&self, directory: &str) -> Result<Vec<String>, DiskError>;

    /// Removes a file; the caller has zeroed what must not survive.
    fn remove(&self, path: &str) -> Result<(), DiskError>;

    /// Replaces `to` by `from` atomically.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &str) -> Result<(), DiskError>;

    /// Makes these files' bytes and the names in these directories durable: what [`DiskFile::sync_data`] and
    /// [`Disk::sync_directory`] do one by one, in fewer strokes where the system can.
    fn sync_together(&self, files: &[Self::File], directories: &[String]) -> Result<(), DiskError> {
        files.iter().try_for_each(DiskFile::sync_data)?;
        directories.iter().try_for_each(|directory| self.sync_directory(directory))
    }

    /// Bytes that may still be allocated before [`DiskError::Full`].
    fn free_bytes(&self) -> Result<u64, DiskError>;
}

/// One open file. Clones share the file; any thread may sync a clone.
pub trait DiskFile: Clone + fmt::Debug + Send + 'static {
    /// Writes all of `parts`, one after the other, at `offset`.
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError>;

    /// Fills `buffer` from `offset` or fails.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;

    /// Makes every byte written so far durable (fdatasync). After an error the file's state is
    /// unknown and the store must not sync it again.
    fn sync_data(&self) -> Result<(), DiskError>;

    /// The file's length in bytes.
    fn length(&self) -> Result<u64, DiskError>;

    /// Reserves space up to `length` and sets the file's length; new bytes read as zero.
    fn allocate(&self, length: u64) -> Result<(), DiskError>;

    /// Drops what is cached of the file and is not waiting to be written, so that the next reads come
    /// from the device: after a failed sync a cache shows bytes that never reached it.
    fn forget_cached(&self) -> Result<(), DiskError>;

    /// Zeroes a range and gives its blocks back where the system can. Durable after a sync.
    fn punch(&self, offset: u64, length: u64) -> Result<(), DiskError>;
}

/// Refuses a path that could leave the root: every component is a plain name. The empty path is
/// the root itself.
pub fn check_path(path: &str) -> Result<(), DiskError> {
    let plain = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('\0');
    if path.is_empty() || path.split('/').all(plain) {
        Ok(())
    } else {
        Err(DiskError::BadPath { path: path.to_owned() })
    }
}
