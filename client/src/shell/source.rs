//! Where plaintext comes from: memory, a file, or a stream that cannot be read twice.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is read from a file or stream at once.
const PIECE: usize = 1024 * 1024;

/// The plaintext of one object, piece by piece.
///
/// ```no_run
/// # async fn example(client: trefoil_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use trefoil_client::shell::{FileSource, ReaderSource};
/// # let key = trefoil_protocol::key::ObjectKey::new("k")?;
/// client.put(&key, vec![1, 2, 3]).await?;
/// client.put(&key, FileSource::open("video.mp4")?).await?;
/// client.put(&key, ReaderSource::new(tokio::io::stdin())).await?;
/// # Ok(())
/// # }
/// ```
pub trait Source: Send {
    /// The next bytes; none at the end.
    fn next(&mut self) -> impl Future<Output = io::Result<Bytes>> + Send;

    /// Whether [`Source::rewind`] works.
    fn is_repeatable(&self) -> bool;

    /// Goes back to the first byte.
    fn rewind(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// Bytes in memory.
#[derive(Debug)]
pub struct MemorySource {
    all: Bytes,
    given: bool,
}

impl Source for MemorySource {
    async fn next(&mut self) -> io::Result<Bytes> {
        if std::mem::replace(&mut self.given, true) {
            return Ok(Bytes::new());
        }
        Ok(self.all.clone())
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn rewind(&mut self) -> io::Result<()> {
        self.given = false;
        Ok(())
    }
}

/// What can be given to [`crate::Client::put`].
pub trait IntoSource {
    /// The source it becomes.
    type Source: Source;

    /// Becomes it.
    fn into_source(self) -> Self::Source;
}

impl<S: Source> IntoSource for S {
    type Source = S;

    fn into_source(self) -> S {
        self
    }
}

macro_rules! memory_source {
    ($($type:ty),+) => {
        $(impl IntoSource for $type {
            type Source = MemorySource;

            fn into_source(self) -> MemorySource {
                MemorySource { all: Bytes::from(self), given: false }
            }
        })+
    };
}
memory_source!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

/// A regular file, read from its first byte.
#[derive(Debug)]
pub struct FileSource {
    /// `None` after a read was cancelled half-way.
    file: Option<File>,
}

impl FileSource {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self { file: Some(File::open(path)?) })
    }

    /// Runs `work` on the file where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let mut file = self.file.take().ok_or(io::ErrorKind::Interrupted)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut file);
            (file, result)
        });
        let (file, result) = done.await.map_err(io::Error::other)?;
        self.file = Some(file);
        result
    }
}

impl Source for FileSource {
    async fn next(&mut self) -> io::Result<Bytes> {
        self.blocking(|file| {
            let mut piece = Vec::with_capacity(PIECE);
            file.take(PIECE as u64).read_to_end(&mut piece)?;
            Ok(piece.into())
        })
        .await
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn rewind(&mut self) -> io::Result<()> {
        self.blocking(Seek::rewind).await
    }
}

/// A stream that can be read once, such as standard input.
#[derive(Debug)]
pub struct ReaderSource<R>(R);

impl<R: AsyncRead + Send + Unpin> ReaderSource<R> {
    /// Reads from `reader` to its end.
    pub fn new(reader: R) -> Self {
        Self(reader)
    }
}

impl<R: AsyncRead + Send + Unpin> Source for ReaderSource<R> {
    async fn next(&mut self) -> io::Result<Bytes> {
        let mut piece = BytesMut::with_capacity(PIECE / 4);
        self.0.read_buf(&mut piece).await?;
        Ok(piece.freeze())
    }

    fn is_repeatable(&self) -> bool {
        false
    }

    async fn rewind(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::NotSeekable.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(source: &mut impl Source) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match source.next().await.unwrap() {
                piece if piece.is_empty() => return all,
                piece => all.extend_from_slice(&piece),
            }
        }
    }

    #[tokio::test]
    async fn memory_and_files_are_read_again_and_streams_are_not() {
        let bytes: Vec<u8> = (0..3 * PIECE / 2).map(|i| i as u8).collect();
        let path = std::env::temp_dir().join(format!("trefoil-source-{}", std::process::id()));
        std::fs::write(&path, &bytes).unwrap();
        let mut file = FileSource::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut memory = bytes.clone().into_source();
        for _ in 0..2 {
            assert!(read_all(&mut file).await == bytes);
            assert!(read_all(&mut memory).await == bytes);
            assert!(file.is_repeatable() && memory.is_repeatable());
            file.rewind().await.unwrap();
            memory.rewind().await.unwrap();
        }
        let mut stream = ReaderSource::new(&bytes[..]);
        assert!(read_all(&mut stream).await == bytes);
        assert!(!stream.is_repeatable() && stream.rewind().await.is_err());
    }
}
