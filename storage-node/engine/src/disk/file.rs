//! The real disk: files under one root directory, reached through system calls without a buffer of
//! their own. A configured capacity makes a full disk testable without root, and an exclusive lock
//! on the root refuses a second process.
//!
//! Paths never leave the root: every component is a plain name and no symbolic link is followed.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Advice, AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Disk, DiskError, DiskFile, check_path};

/// The lock file at the root; held for as long as any clone of the disk or of a file lives.
pub const LOCK_FILE: &str = "lock";

/// From so many syncs on, one of the whole file system costs less than each by itself.
const MANY_SYNCS: usize = 32;

/// How many parts one system call takes; kept on the stack.
const PARTS_PER_CALL: usize = 8;

/// A store's directory tree on a local file system. Clones share the lock and the accounting.
#[derive(Clone, Debug)]
pub struct FileDisk {
    root: Arc<Root>,
}

#[derive(Debug)]
struct Root {
    directory: OwnedFd,
    _lock: OwnedFd,
    capacity: Option<u64>,
    /// Bytes of blocks given to files below the root.
    used: AtomicU64,
}

/// An open file of a [`FileDisk`].
#[derive(Clone, Debug)]
pub struct FileDiskFile(Arc<Open>);

/// A store with thousands of volumes has thousands of these: one allocation beside its path.
#[derive(Debug)]
struct Open {
    descriptor: OwnedFd,
    path: Box<str>,
    root: Arc<Root>,
}

impl FileDisk {
    /// Opens (and creates) `root`, locks it against other processes and measures what it already
    /// holds. `capacity` bounds the bytes of blocks below the root; `None` leaves that to the
    /// file system.
    pub fn open(root: &Path, capacity: Option<u64>) -> Result<FileDisk, DiskError> {
        let shown = root.display().to_string();
        make_directories(root).map_err(|errno| failed("mkdir", &shown, errno))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| failed("open", &shown, errno))?;
        let lock = open_beneath(&directory, LOCK_FILE, OFlags::RDWR | OFlags::CREATE)
            .map_err(|errno| failed("open", LOCK_FILE, errno))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(DiskError::Locked { path: shown }),
            Err(errno) => return Err(failed("flock", LOCK_FILE, errno)),
        }
        let used = blocks_below(&directory).map_err(|errno| failed("measure", &shown, errno))?;
        Ok(FileDisk { root: Arc::new(Root { directory, _lock: lock, capacity, used: AtomicU64::new(used) }) })
    }

    fn file(&self, path: &str, flags: OFlags) -> Result<FileDiskFile, DiskError> {
        check_path(path)?;
        let descriptor =
            open_beneath(&self.root.directory, path, flags).map_err(|errno| failed("open", path, errno))?;
        Ok(FileDiskFile(Arc::new(Open { descriptor, path: path.into(), root: Arc::clone(&self.root) })))
    }

    fn directory(&self, path: &str) -> Result<OwnedFd, DiskError> {
        check_path(path)?;
        let name = if path.is_empty() { "." } else { path };
        open_beneath(&self.root.directory, name, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|errno| failed("open", path, errno))
    }
}

impl Disk for FileDisk {
    type File = FileDiskFile;

    fn open(&self, path: &str) -> Result<FileDiskFile, DiskError> {
        self.file(path, OFlags::RDWR)
    }

    fn create(&self, path: &str) -> Result<FileDiskFile, DiskError> {
        self.file(path, OFlags::RDWR | OFlags::CREATE)
    }

    fn create_directory(&self, path: &str) -> Result<(), DiskError> {
        check_path(path)?;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let mode = Mode::from_raw_mode(0o700);
            match rustix::fs::mkdirat(&self.root.directory, &path[..end], mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("mkdir", path, errno)),
            }
        }
        Ok(())
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, DiskError> {
        let descriptor = self.directory(directory)?;
        let mut names = names_in(&descriptor).map_err(|errno| failed("readdir", directory, errno))?;
        names.sort();
        Ok(names)
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let freed = self.file(path, OFlags::RDWR)?.blocks()?;
        rustix::fs::unlinkat(&self.root.directory, path, AtFlags::empty())
            .map_err(|errno| failed("unlink", path, errno))?;
        self.root.account(freed, 0);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        check_path(from)?;
        check_path(to)?;
        let replaced = match self.file(to, OFlags::RDWR) {
            Ok(file) => file.blocks()?,
            Err(_) => 0,
        };
        let directory = &self.root.directory;
        rustix::fs::renameat(directory, from, directory, to)
            .map_err(|errno| failed("rename", from, errno))?;
        self.root.account(replaced, 0);
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> Result<(), DiskError> {
        let descriptor = self.directory(directory)?;
        rustix::fs::fsync(descriptor).map_err(|errno| failed("fsync", directory, errno))
    }

    fn sync_together(&self, files: &[FileDiskFile], directories: &[String]) -> Result<(), DiskError> {
        let Some(one) = files.first().filter(|_| files.len() + directories.len() >= MANY_SYNCS) else {
            files.iter().try_for_each(DiskFile::sync_data)?;
            return directories.iter().try_for_each(|directory| self.sync_directory(directory));
        };
        // Everything that waits in memory is written, and an error of any of it is answered (Linux 5.8).
        rustix::fs::syncfs(&self.root.directory).map_err(|errno| failed("syncfs", "", errno))?;
        // Not every file system lets the device flush its cache when only old blocks were written anew; a
        // file's own sync always does.
        one.sync_data()
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let system =
            rustix::fs::fstatvfs(&self.root.directory).map_err(|errno| failed("statvfs", "", errno))?;
        let available = system.f_bavail.saturating_mul(system.f_frsize);
        Ok(match self.root.capacity {
            Some(capacity) => available.min(capacity.saturating_sub(self.root.used())),
            None => available,
        })
    }
}

impl DiskFile for FileDiskFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError> {
        let mut at = offset;
        for group in parts.chunks(PARTS_PER_CALL) {
            let mut slices = [IoSlice::new(&[]); PARTS_PER_CALL];
            for (slice, part) in slices.iter_mut().zip(group) {
                *slice = IoSlice::new(part);
            }
            at = self.write_slices(at, &mut slices[..group.len()])?;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let length = buffer.len();
        let mut done = 0;
        while done < length {
            match rustix::io::pread(&self.0.descriptor, &mut buffer[done..], offset + done as u64) {
                Ok(0) => {
                    return Err(DiskError::ShortRead { path: self.0.path.to_string(), offset, length });
                }
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("pread", &self.0.path, errno)),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        rustix::fs::fdatasync(&self.0.descriptor).map_err(|errno| failed("fdatasync", &self.0.path, errno))
    }

    fn length(&self) -> Result<u64, DiskError> {
        let status = self.status()?;
        Ok(u64::try_from(status.st_size).unwrap_or(0))
    }

    fn allocate(&self, length: u64) -> Result<(), DiskError> {
        let before = self.blocks()?;
        let needed = length.saturating_sub(self.length()?);
        if needed == 0 {
            return Ok(());
        }
        if let Some(capacity) = self.0.root.capacity
            && self.0.root.used().saturating_add(needed) > capacity
        {
            return Err(self.full(needed));
        }
        let allocated = rustix::fs::fallocate(&self.0.descriptor, FallocateFlags::empty(), 0, length);
        match allocated {
            Ok(()) => {}
            Err(Errno::NOSPC) => return Err(self.full(needed)),
            Err(errno) => return Err(failed("fallocate", &self.0.path, errno)),
        }
        self.0.root.account(before, self.blocks()?);
        Ok(())
    }

    fn forget_cached(&self) -> Result<(), DiskError> {
        // A system that cannot sync a page calls it clean, and clean pages are what this drops. A page
        // that is still dirty stays: the next sync has to write it, or fails.
        rustix::fs::fadvise(&self.0.descriptor, 0, None, Advice::DontNeed)
            .map_err(|errno| failed("fadvise", &self.0.path, errno))
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let before = self.blocks()?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.0.descriptor, flags, offset, length) {
            Ok(()) => {
                self.0.root.account(before, self.blocks()?);
                Ok(())
            }
            // A file system without holes keeps the blocks; the bytes go all the same.
            Err(Errno::OPNOTSUPP) => self.write_zeroes(offset, length),
            Err(errno) => Err(failed("punch", &self.0.path, errno)),
        }
    }
}

impl FileDiskFile {
    fn status(&self) -> Result<rustix::fs::Stat, DiskError> {
        rustix::fs::fstat(&self.0.descriptor).map_err(|errno| failed("fstat", &self.0.path, errno))
    }

    fn blocks(&self) -> Result<u64, DiskError> {
        Ok(block_bytes(&self.status()?))
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        const ZEROES: [u8; 4096] = [0; 4096];
        let mut at = offset;
        while at < offset + length {
            let step = (offset + length - at).min(ZEROES.len() as u64);
            self.write_at(at, &[&ZEROES[..step as usize]])?;
            at += step;
        }
        Ok(())
    }

    /// Writes all of `slices` at `offset` and answers where they end.
    fn write_slices(&self, offset: u64, mut slices: &mut [IoSlice<'_>]) -> Result<u64, DiskError> {
        let mut at = offset;
        // An empty slice at the front would look like a write that makes no progress.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match rustix::io::pwritev(&self.0.descriptor, slices, at) {
                Ok(0) => return Err(self.full(0)),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(Errno::INTR) => {}
                Err(Errno::NOSPC) => return Err(self.full(0)),
                Err(errno) => return Err(failed("pwritev", &self.0.path, errno)),
            }
        }
        Ok(at)
    }

    fn full(&self, needed: u64) -> DiskError {
        DiskError::Full { path: self.0.path.to_string(), needed }
    }
}

impl Root {
    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Replaces `before` bytes of blocks by `after` in the sum.
    fn account(&self, before: u64, after: u64) {
        let update = |used: u64| Some(used.saturating_sub(before).saturating_add(after));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }
}

fn open_beneath(directory: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(directory, path, flags, Mode::from_raw_mode(0o600))
}

fn make_directories(root: &Path) -> Result<(), Errno> {
    match rustix::fs::mkdir(root, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) => match root.parent() {
            Some(parent) => {
                make_directories(parent)?;
                make_directories(root)
            }
            None => Err(Errno::NOENT),
        },
        Err(errno) => Err(errno),
    }
}

fn names_in(directory: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn blocks_below(directory: &OwnedFd) -> Result<u64, Errno> {
    let mut sum = 0;
    for name in names_in(directory)? {
        let status = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                sum += blocks_below(&open_beneath(directory, &name, flags)?)?;
            }
            FileType::RegularFile => sum += block_bytes(&status),
            _ => {}
        }
    }
    Ok(sum)
}

fn block_bytes(status: &rustix::fs::Stat) -> u64 {
    u64::try_from(status.st_blocks).unwrap_or(0) * 512
}

fn failed(operation: &'static str, path: &str, errno: Errno) -> DiskError {
    match errno {
        Errno::NOENT => DiskError::NotFound { path: path.to_owned() },
        errno => DiskError::Io { operation, path: path.to_owned(), reason: errno.to_string() },
    }
}
