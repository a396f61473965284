//! Files that appear whole or not at all: written under a temporary name beside their own, and renamed
//! when they are complete. What is no regular file, a device or a pipe, is never replaced: it takes the
//! bytes as they come. A link is followed.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::{Failure, Verdict, at};

/// A file that is being written. Dropped before [`WholeFile::finish`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct WholeFile {
    file: File,
    path: PathBuf,
    /// The name until it is complete; `None` for what is written in place.
    temporary: Option<PathBuf>,
}

impl WholeFile {
    /// Begins one, which will have these permissions.
    pub(crate) fn create(path: &Path, mode: u32) -> Verdict<Self> {
        // What is not there yet is its own target.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                Err(Failure::usage(format!("{}: is a directory; name a file", path.display())))
            }
            Ok(metadata) if !metadata.is_file() => {
                let file = OpenOptions::new().write(true).open(&path).map_err(at(&path))?;
                Ok(Self { file, path, temporary: None })
            }
            _ => {
                let (file, temporary) = open_beside(&path, mode).map_err(at(&path))?;
                Ok(Self { file, path, temporary: Some(temporary) })
            }
        }
    }

    /// Writes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Verdict {
        self.file.write_all(bytes).map_err(at(&self.path))
    }

    /// Waits until what was written is on disk, if it goes to one.
    pub(crate) fn sync(&self) -> Verdict {
        match self.temporary {
            Some(_) => self.file.sync_all().map_err(at(&self.path)),
            None => Ok(()),
        }
    }

    /// It is complete: from here on it has its name.
    pub(crate) fn finish(mut self) -> Verdict {
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path).map_err(at(&self.path))?;
        }
        self.temporary = None;
        Ok(())
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Why it was not finished is told; what is left of it is of no use.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// A new file in the folder of `path`. Its name does not grow with that of `path`, which may be as
/// long as names get, and is never that of another file that is written at the same time.
fn open_beside(path: &Path, mode: u32) -> std::io::Result<(File, PathBuf)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_file_name(format!(".trefoil-part-{}-{number}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary) {
            Ok(file) => return Ok((file, temporary)),
            // Something that a killed run left, or a file of that name.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::FileTypeExt;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("trefoil-whole-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn write(path: &Path, bytes: &[u8]) -> Verdict {
        let mut file = WholeFile::create(path, 0o644)?;
        file.write(bytes)?;
        file.finish()
    }

    #[test]
    fn a_file_has_its_name_when_it_is_complete_and_a_link_stays_one() {
        let folder = Folder::new("links");
        let (path, link) = (folder.0.join("file"), folder.0.join("link"));
        std::os::unix::fs::symlink("file", &link).unwrap();
        let mut half = WholeFile::create(&path, 0o644).unwrap();
        half.write(b"half").unwrap();
        drop(half);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "the link alone");
        write(&path, b"one").unwrap();
        write(&link, b"two").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(write(&folder.0, b"").unwrap_err().message.contains("is a directory"));
    }

    #[test]
    fn a_pipe_takes_the_bytes_and_is_not_replaced() {
        let folder = Folder::new("pipes");
        let path = folder.0.join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let reader = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut got = Vec::new();
                File::open(path).unwrap().read_to_end(&mut got).unwrap();
                got
            }
        });
        write(&path, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    }
}
