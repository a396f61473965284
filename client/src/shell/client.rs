//! The client: one tenant's principal, and every operation it can ask for.

use std::ops::Range;
use std::time::Duration;

use trefoil_protocol::deletion::SignedCertificate;
use trefoil_protocol::ids::{TenantId, VersionId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{Precondition, PurgeView};

use super::download::{Download, Head};
use super::listing::{Page, Pages, Which};
use super::profile::Profile;
use super::put::{Hidden, PutOptions, Restored, Stored};
use super::source::IntoSource;
use crate::failure::{FailureKind, ReadError, Trouble, WriteError};

/// How patient a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long one operation may take without progress before it fails as unavailable.
    pub deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(60) }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The tenant's volumes or keys could not be learned.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl ConnectError {
    /// What it means for the caller.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Read(error) => error.kind(),
        }
    }
}

/// A connected client; clones share connections, keys and the idempotency window.
#[derive(Clone, Debug)]
pub struct Client {}

impl Client {
    /// Learns the tenant's volumes and keys.
    ///
    /// # Errors
    /// When no endpoint answers, or the certificate is refused.
    pub async fn connect(profile: Profile) -> Result<Self, ConnectError> {
        Self::connect_with(profile, Settings::default()).await
    }

    /// [`Client::connect`] with other patience.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with(_profile: Profile, _settings: Settings) -> Result<Self, ConnectError> {
        Err(ReadError::Unavailable(Trouble::NoRoute).into())
    }

    /// The tenant.
    pub fn tenant(&self) -> TenantId {
        TenantId(0)
    }

    /// Stores an object. When this returns, it is on disk on every in-sync replica.
    ///
    /// # Errors
    /// When it did not happen, or it is not known whether it did.
    pub async fn put(&self, key: &ObjectKey, source: impl IntoSource) -> Result<Stored, WriteError> {
        self.put_with(key, source, PutOptions::default()).await
    }

    /// [`Client::put`] with options.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn put_with(
        &self,
        _key: &ObjectKey,
        source: impl IntoSource,
        _options: PutOptions,
    ) -> Result<Stored, WriteError> {
        let _ = source.into_source();
        Err(WriteError::NotApplied(Trouble::NoRoute))
    }

    /// Reads the latest version of an object, all of it.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn get(&self, _key: &ObjectKey) -> Result<Download, ReadError> {
        Err(ReadError::Unavailable(Trouble::NoRoute))
    }

    /// Reads part of the latest version; only what covers the range is fetched and opened.
    ///
    /// # Errors
    /// As [`Client::get`], and when the range does not lie in the object.
    pub async fn get_range(&self, _key: &ObjectKey, _range: Range<u64>) -> Result<Download, ReadError> {
        Err(ReadError::Unavailable(Trouble::NoRoute))
    }

    /// Describes the latest version.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn head(&self, _key: &ObjectKey) -> Result<Head, ReadError> {
        Err(ReadError::Unavailable(Trouble::NoRoute))
    }

    /// Lists live objects whose keys begin with `prefix`, ordered by key bytes.
    pub fn list(&self, prefix: &str) -> Pages {
        Pages::new(self.clone(), Which::Live, prefix)
    }

    /// Lists deleted objects that can still be undeleted.
    pub fn deleted(&self, prefix: &str) -> Pages {
        Pages::new(self.clone(), Which::Deleted, prefix)
    }

    pub(super) async fn page(
        &self,
        _which: Which,
        _prefix: &str,
        _after: Option<&ObjectKey>,
        _limit: u32,
    ) -> Result<Page, ReadError> {
        Err(ReadError::Unavailable(Trouble::NoRoute))
    }

    /// Hides the live version of an object.
    ///
    /// # Errors
    /// When there is none, it did not happen, or it is not known whether it did.
    pub async fn delete(&self, key: &ObjectKey) -> Result<Hidden, WriteError> {
        self.delete_if(key, Precondition::Any).await
    }

    /// [`Client::delete`], if `precondition` holds.
    ///
    /// # Errors
    /// As [`Client::delete`].
    pub async fn delete_if(
        &self,
        _key: &ObjectKey,
        _precondition: Precondition,
    ) -> Result<Hidden, WriteError> {
        Err(WriteError::NotApplied(Trouble::NoRoute))
    }

    /// Makes the last deleted version of an object live again, or `version` if given.
    ///
    /// # Errors
    /// When there is none, it is past the point of no return, or it is not known whether it happened.
    pub async fn undelete(
        &self,
        _key: &ObjectKey,
        _version: Option<VersionId>,
    ) -> Result<Restored, WriteError> {
        Err(WriteError::NotApplied(Trouble::NoRoute))
    }

    /// How far the deletes of an object's versions are, oldest first. Works after the name is erased.
    ///
    /// # Errors
    /// When no version was ever known, or the volume cannot answer.
    pub async fn purge_status(&self, _key: &ObjectKey) -> Result<Vec<PurgeView>, ReadError> {
        Err(ReadError::Unavailable(Trouble::NoRoute))
    }

    /// The deletion certificates of an object's erased versions, oldest first.
    ///
    /// # Errors
    /// When there is none, or the volume cannot answer.
    pub async fn certificates(&self, _key: &ObjectKey) -> Result<Vec<SignedCertificate>, ReadError> {
        Err(ReadError::Unavailable(Trouble::NoRoute))
    }
}
