//! Sealed frames of a source that can be read only once, kept until the put is acknowledged: the first
//! 64 MiB in memory, the rest in a temporary file without a name.
//!
//! Only sealed bytes may come here: what reaches the disk is ciphertext.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};

/// Sealed bytes kept in memory before the file begins.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct SpooledFrames {
    memory_max: usize,
    memory: Vec<Bytes>,
    memory_bytes: usize,
    file: Option<Arc<File>>,
    /// Offset and length of each frame behind those in memory.
    places: Vec<(u64, usize)>,
}

impl SpooledFrames {
    pub(super) fn new() -> Self {
        Self::with_memory(MEMORY_BYTES_MAX)
    }

    fn with_memory(memory_max: usize) -> Self {
        Self { memory_max, memory: Vec::new(), memory_bytes: 0, file: None, places: Vec::new() }
    }

    /// Whether a frame of `length` bytes would stay in memory.
    pub(super) fn fits_memory(&self, length: usize) -> bool {
        self.places.is_empty() && self.memory_bytes + length <= self.memory_max
    }

    pub(super) async fn push(&mut self, frame: Bytes) -> io::Result<()> {
        if self.fits_memory(frame.len()) {
            self.memory_bytes += frame.len();
            self.memory.push(frame);
            return Ok(());
        }
        let file = self.file()?;
        let offset = self.places.last().map_or(0, |(offset, length)| offset + *length as u64);
        let length = frame.len();
        blocking(move || file.write_all_at(&frame, offset)).await?;
        self.places.push((offset, length));
        Ok(())
    }

    /// The n-th frame.
    pub(super) async fn get(&self, n: usize) -> io::Result<Bytes> {
        if let Some(frame) = self.memory.get(n) {
            return Ok(frame.clone());
        }
        let (offset, length) = self.places[n - self.memory.len()];
        let file = Arc::clone(self.file.as_ref().expect("places are places in the file"));
        blocking(move || {
            let mut frame = vec![0; length];
            file.read_exact_at(&mut frame, offset)?;
            Ok(frame.into())
        })
        .await
    }

    fn file(&mut self) -> io::Result<Arc<File>> {
        if self.file.is_none() {
            self.file = Some(Arc::new(unnamed_file(&std::env::temp_dir())?));
        }
        Ok(Arc::clone(self.file.as_ref().expect("made above")))
    }
}

/// A file that no name leads to and that is gone with its last handle.
fn unnamed_file(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(file.into())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_from_memory_and_from_the_file() {
        let mut spool = SpooledFrames::with_memory(250);
        let frames: Vec<Bytes> = (0..6_u8).map(|n| Bytes::from(vec![n; 100 - usize::from(n)])).collect();
        for frame in &frames {
            spool.push(frame.clone()).await.unwrap();
        }
        assert_eq!((spool.memory.len(), spool.places.len()), (2, 4));
        for _ in 0..2 {
            for (n, frame) in frames.iter().enumerate() {
                assert_eq!(spool.get(n).await.unwrap(), frame);
            }
        }
    }
}
