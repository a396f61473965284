//! Reading an object: its description, then its plaintext as it arrives and is verified.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::ObjectView;

use crate::failure::ReadError;

/// An object's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The name.
    pub key: ObjectKey,
    /// Plaintext bytes.
    pub bytes: u64,
    /// When its writer made it: milliseconds since 1970 by the writer's clock.
    pub created_ms: u64,
    /// The tenant's own pairs.
    pub user: BTreeMap<String, String>,
    /// Version, root, epoch, protection and copies, as the primary knows them.
    pub view: ObjectView,
}

/// An object that is being read.
///
/// ```no_run
/// # async fn example(client: trefoil_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// # let key = trefoil_protocol::key::ObjectKey::new("k")?;
/// let mut download = client.get(&key).await?;
/// println!("{} bytes", download.head().bytes);
/// while let Some(chunk) = download.next().await? {
///     println!("{} verified", chunk.len());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Download {
    head: Head,
}

impl Download {
    /// The object's description.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Plaintext bytes that this download will give.
    pub fn length(&self) -> u64 {
        self.head.bytes
    }

    /// The next plaintext; `None` after the last byte was given and the end verified.
    ///
    /// # Errors
    /// When the bytes are damaged, or cannot be had in time.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        Ok(None)
    }

    /// All that is left, in memory.
    ///
    /// # Errors
    /// As [`Download::next`].
    pub async fn bytes(mut self) -> Result<Bytes, ReadError> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.next().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }
}
