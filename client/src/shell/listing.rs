//! Listings, page by page.

use trefoil_protocol::ids::{Hash, VersionId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::time::CpTime;

use super::client::Client;
use crate::core::ListingKind;
use crate::failure::ReadError;

/// A line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub key: ObjectKey,
    /// The version.
    pub version: VersionId,
    /// Plaintext bytes, padding included: the node that lists knows no other length.
    pub bytes: u64,
    /// blake3 of the sealed bytes.
    pub root: Hash,
    /// When it was stored, in control-plane time.
    pub created: CpTime,
    /// For a deleted one: when its window ends, in control-plane time.
    pub window_ends: Option<CpTime>,
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its lines, ordered by key bytes.
    pub lines: Vec<Listed>,
    /// The key to go on after, if there is more.
    pub next: Option<ObjectKey>,
}

/// A listing that gives one page after the other.
///
/// ```no_run
/// # async fn example(client: trefoil_client::Client) -> Result<(), trefoil_client::ReadError> {
/// let mut pages = client.list("reports/");
/// while let Some(page) = pages.next().await? {
///     for line in page.lines {
///         println!("{} {}", line.key, line.bytes);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pages {
    client: Client,
    kind: ListingKind,
    prefix: String,
    after: Option<ObjectKey>,
    limit: u32,
    ended: bool,
}

impl Pages {
    pub(super) fn new(client: Client, kind: ListingKind, prefix: &str) -> Self {
        let limit = trefoil_protocol::message::tenant::PAGE_MAX;
        Self { client, kind, prefix: prefix.to_owned(), after: None, limit, ended: false }
    }

    /// Begins after this key instead of at the first.
    #[must_use]
    pub fn after(self, key: ObjectKey) -> Self {
        Self { after: Some(key), ..self }
    }

    /// At most this many lines a page, from 1 to 1000.
    #[must_use]
    pub fn page_size(self, limit: u32) -> Self {
        Self { limit: limit.clamp(1, trefoil_protocol::message::tenant::PAGE_MAX), ..self }
    }

    /// The next page; `None` at the end.
    ///
    /// # Errors
    /// When a volume cannot answer: there is no partial page. The same page can be asked for again.
    pub async fn next(&mut self) -> Result<Option<Page>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let page = self.client.page(self.kind, &self.prefix, self.after.as_ref(), self.limit).await?;
        self.after = page.next.clone();
        self.ended = page.next.is_none();
        Ok(Some(page))
    }
}
