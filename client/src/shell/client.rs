//! The client: one tenant's principal, and every operation it can ask for.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex as AsyncMutex;
use trefoil_protocol::config::TenantEntry;
use trefoil_protocol::deletion::SignedCertificate;
use trefoil_protocol::ids::{ClientInstance, DcId, NodeId, TenantId, TenantName, VersionId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{KeysView, Precondition, PurgeView, TenantAnswer, TenantCall};
use trefoil_transport::own_certificate::OwnCertificateError;
use trefoil_transport::trust::TrustError;

use super::connections::Connections;
use super::download::{Download, Head};
use super::drive::Clock;
use super::keyring::Keyring;
use super::listing::{Page, Pages};
use super::network::Network;
use super::profile::{Profile, ProfileRole};
use super::put::{Hidden, Padding, PutOptions, Restored, Stored};
use super::read::Staleness;
use super::source::IntoSource;
use super::tokens::Tokens;
use super::{copies, read, write};
use crate::core::{ListingKind, Patience, RetryBudget, RouteCache, Whom};
use crate::entropy::{Entropy, OsEntropy};
use crate::failure::{Damage, FailureKind, ReadError, WriteError};

/// A client that writes asks anew after this long who votes and where its volumes are.
const ROUTE_AGE_MAX: Duration = Duration::from_secs(60);

/// How patient a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long one operation may go without success or progress before it fails as unavailable.
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
    /// The profile is an operator's.
    #[error("this profile is an operator's, not a tenant's")]
    Role,
    /// The profile's roots cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The profile's certificate and key cannot be used.
    #[error(transparent)]
    Certificate(#[from] OwnCertificateError),
    /// The certificate is of another tenant than the profile.
    #[error("the profile is for tenant `{profile}`, its certificate for `{certificate}`")]
    OtherTenant {
        /// The profile's.
        profile: TenantName,
        /// The certificate's.
        certificate: TenantName,
    },
    /// The tenant's volumes or keys could not be learned.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl ConnectError {
    /// What it means for the caller.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Role | Self::Trust(_) | Self::Certificate(_) | Self::OtherTenant { .. } => {
                FailureKind::Refused
            }
            Self::Read(error) => error.kind(),
        }
    }
}

/// A connected client; clones share connections, keys and the idempotency window.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use trefoil_client::{Client, Profile, PutOptions};
/// use trefoil_protocol::key::ObjectKey;
/// use trefoil_protocol::message::tenant::Precondition;
///
/// let client = Client::connect(Profile::load("acme.toml")?).await?;
/// let key = ObjectKey::new("report")?;
/// let options = PutOptions { precondition: Precondition::Absent, ..PutOptions::default() };
/// client.put_with(&key, "first words", options).await?;
/// assert_eq!(client.get_range(&key, 6..11).await?.bytes().await?, "words");
/// let hidden = client.delete(&key).await?;
/// client.undelete(&key, Some(hidden.version)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// What the clones of a client share.
pub(super) struct Inner {
    pub(super) network: Network,
    pub(super) keyring: Keyring,
    pub(super) tokens: Tokens,
    pub(super) tenant: TenantId,
    /// The data centre that reads prefer.
    pub(super) dc: Option<DcId>,
    /// What the lengths of objects may tell, where a put does not say.
    pub(super) padding: Padding,
    /// Held while keys are asked for, so that one question serves all who wait.
    refilling: Arc<AsyncMutex<()>>,
}

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
    pub async fn connect_with(profile: Profile, settings: Settings) -> Result<Self, ConnectError> {
        Self::connect_for(TenantCall::Keys, profile, settings).await
    }

    /// [`Client::connect_with`] for whoever only reads: where the tenant allows stale reads, the keys for that are
    /// given by any voter that holds them, also when no majority of the control plane is left.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_to_read(profile: Profile, settings: Settings) -> Result<Self, ConnectError> {
        Self::connect_for(TenantCall::KeysToRead, profile, settings).await
    }

    async fn connect_for(
        keys: TenantCall,
        profile: Profile,
        settings: Settings,
    ) -> Result<Self, ConnectError> {
        if profile.role != ProfileRole::Tenant {
            return Err(ConnectError::Role);
        }
        let (own, trust) = (profile.own_certificate()?, profile.trust_store()?);
        let network = Network {
            clock: Clock::new(),
            routes: Mutex::new(RouteCache::new(profile.endpoints.len())),
            connections: Connections::new(own, trust, profile.endpoints),
            patience: Patience { deadline: settings.deadline, ..Patience::default() },
            pace: Mutex::default(),
            route_asked: Mutex::default(),
        };
        let TenantEntry { tenant, name: certificate, .. } = network.learn_route().await?;
        if let Some(profile) = profile.tenant.filter(|name| *name != certificate) {
            return Err(ConnectError::OtherTenant { profile, certificate });
        }
        let keys = ask_keys(&network, keys).await?;
        let keyring = Keyring::new(tenant, keys, network.now()).map_err(ReadError::from)?;
        let mut instance = ClientInstance::default();
        OsEntropy.fill(&mut instance.0);
        let tokens = Tokens::new(instance);
        let (dc, padding, refilling) = (profile.dc, profile.padding, Arc::default());
        Ok(Self { inner: Arc::new(Inner { network, keyring, tokens, tenant, dc, padding, refilling }) })
    }

    /// The tenant.
    pub fn tenant(&self) -> TenantId {
        self.inner.tenant
    }

    /// How often this client asked so far, and asked again.
    pub fn retries(&self) -> RetryBudget {
        self.inner.network.routes.lock().unwrap_or_else(PoisonError::into_inner).retries().clone()
    }

    /// Shows the certificate of `profile` from the next connection on; certificates live 24 hours.
    ///
    /// # Errors
    /// When it cannot be used; the old one stays.
    pub fn renew(&self, profile: &Profile) -> Result<(), OwnCertificateError> {
        self.inner.network.connections.own_certificate().replace(&profile.certificate, &profile.key)
    }

    /// Closes every connection. Operations under way fail; later ones connect again.
    pub fn close(&self) {
        self.inner.network.connections.close();
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
        key: &ObjectKey,
        source: impl IntoSource,
        options: PutOptions,
    ) -> Result<Stored, WriteError> {
        self.stock_up();
        write::put(&self.inner, key, source.into_source(), options).await
    }

    /// Reads the latest version of an object, all of it.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn get(&self, key: &ObjectKey) -> Result<Download, ReadError> {
        read::get(&self.inner, key).await
    }

    /// Reads one exact version, all of it. With [`Staleness::Possible`] a replica that has lost the control plane
    /// may answer, if the tenant allows it: then [`Download::stale_possible`] says that the version may have been
    /// deleted by now. Its bytes are verified like any others.
    ///
    /// # Errors
    /// When it is not live, or cannot be read.
    pub async fn get_version(
        &self,
        key: &ObjectKey,
        version: VersionId,
        staleness: Staleness,
    ) -> Result<Download, ReadError> {
        read::get_version(&self.inner, key, version, staleness).await
    }

    /// The latest version as nodes hold it: sealed, verified against its root, not opened. For audits
    /// that look for it on disks.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn sealed(&self, key: &ObjectKey) -> Result<Bytes, ReadError> {
        read::sealed(&self.inner, key).await
    }

    /// Reads the copy of an object that one node holds, and checks every byte of it. For audits of every copy;
    /// whoever wants the object asks [`Client::get`].
    ///
    /// # Errors
    /// When the node does not give this version now, or its bytes are damaged.
    pub async fn check_copy(&self, head: &Head, node: NodeId) -> Result<(), ReadError> {
        copies::check(&self.inner, head, node).await
    }

    /// Reads part of the latest version; only what covers the range is fetched and opened.
    ///
    /// # Errors
    /// As [`Client::get`], and when the range is empty or does not lie in the object.
    pub async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Download, ReadError> {
        read::get_range(&self.inner, key, range).await
    }

    /// Describes the latest version.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn head(&self, key: &ObjectKey) -> Result<Head, ReadError> {
        read::head(&self.inner, key).await
    }

    /// Lists live objects whose keys begin with `prefix`, ordered by key bytes.
    pub fn list(&self, prefix: &str) -> Pages {
        Pages::new(self.clone(), ListingKind::Live, prefix)
    }

    /// Lists deleted objects that can still be undeleted.
    pub fn deleted(&self, prefix: &str) -> Pages {
        Pages::new(self.clone(), ListingKind::Deleted, prefix)
    }

    pub(super) async fn page(
        &self,
        kind: ListingKind,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: u32,
    ) -> Result<Page, ReadError> {
        read::page(&self.inner, kind, prefix, after, limit).await
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
    pub async fn delete_if(&self, key: &ObjectKey, precondition: Precondition) -> Result<Hidden, WriteError> {
        write::delete(&self.inner, key, precondition).await
    }

    /// Makes the last deleted version of an object live again, or `version` if given.
    ///
    /// # Errors
    /// When there is none, it is past the point of no return, or it is not known whether it happened.
    pub async fn undelete(
        &self,
        key: &ObjectKey,
        version: Option<VersionId>,
    ) -> Result<Restored, WriteError> {
        write::undelete(&self.inner, key, version).await
    }

    /// How far the deletes of an object's versions are, oldest first. Works after the name is erased.
    ///
    /// # Errors
    /// When no version was ever known, or the volume cannot answer.
    pub async fn purge_status(&self, key: &ObjectKey) -> Result<Vec<PurgeView>, ReadError> {
        read::purge_status(&self.inner, key).await
    }

    /// The deletion certificates of an object's erased versions, oldest first.
    ///
    /// # Errors
    /// When there is none, or the volume cannot answer.
    pub async fn certificates(&self, key: &ObjectKey) -> Result<Vec<SignedCertificate>, ReadError> {
        read::certificates(&self.inner, key).await
    }
}

impl Client {
    /// Has wraps asked for in the background before they run out, and now and then who votes: whoever
    /// puts does not wait for the control plane, which may be changing its leader.
    fn stock_up(&self) {
        let now = self.inner.network.now();
        let old = self.inner.network.is_route_older_than(ROUTE_AGE_MAX);
        if !old && !self.inner.keyring.is_short(now) {
            return;
        }
        let Ok(turn) = Arc::clone(&self.inner.refilling).try_lock_owned() else { return };
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let _turn = turn;
            if old && let Err(error) = inner.network.learn_route().await {
                tracing::debug!(%error, "no route at the moment");
            }
            while inner.keyring.is_short(inner.network.now()) {
                if let Err(error) = inner.take_keys().await {
                    // Whoever runs out asks again, and is told.
                    tracing::debug!(%error, "no further wraps yet");
                    return;
                }
            }
        });
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client(tenant {})", self.inner.tenant)
    }
}

impl Inner {
    /// Sees to it that a data key can be wrapped.
    pub(super) async fn ensure_wraps(&self) -> Result<(), WriteError> {
        if self.keyring.can_wrap() {
            return Ok(());
        }
        let _one_at_a_time = self.refilling.lock().await;
        if self.keyring.can_wrap() {
            return Ok(());
        }
        self.take_keys().await.map_err(|error| match error {
            ReadError::Unavailable(trouble) => WriteError::NotApplied(trouble),
            ReadError::Refused(refusal) => WriteError::Refused(refusal),
            ReadError::Integrity(damage) => WriteError::Integrity(damage),
            _ => WriteError::Integrity(Damage::Answer("keys are given, refused or not there")),
        })
    }

    /// Asks for keys that are not at hand.
    pub(super) async fn refill_keys(&self) -> Result<(), ReadError> {
        let _one_at_a_time = self.refilling.lock().await;
        self.take_keys().await
    }

    async fn take_keys(&self) -> Result<(), ReadError> {
        Ok(self.keyring.refill(&ask_keys(&self.network, TenantCall::Keys).await?)?)
    }
}

async fn ask_keys(network: &Network, call: TenantCall) -> Result<KeysView, ReadError> {
    match network.ask(Whom::Custodian, call).await?.answer {
        TenantAnswer::Keys(view) => Ok(view),
        _ => Err(Damage::Answer("the custodian answers with keys").into()),
    }
}
