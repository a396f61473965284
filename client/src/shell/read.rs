//! Gets, heads, pages and the questions about deletes.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use trefoil_protocol::deletion::SignedCertificate;
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{
    CERTIFICATES_MAX, ListEntry, ObjectView, PAGE_MAX, PurgeView, Selector, TenantAnswer, TenantCall, Want,
};

use super::client::Inner;
use super::download::{Download, Head};
use super::listing::{Listed, Page};
use super::network::{Answered, seed};
use crate::core::{Lenient, Listing, ListingKind, Whom};
use crate::failure::{Damage, ReadError};
use crate::seal::{
    ChunkLen, Dek, Identity, ObjectIdentity, RangeOpener, RangePlan, RangePlanError, SealedMetadata,
    Unlocked, UnwrapError, WrappedDek, plaintext_len,
};

/// What a reader of an exact version takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Staleness {
    /// Nothing but the version that is live.
    #[default]
    Refused,
    /// Also what a replica without the control plane knows of it, marked, if the tenant allows that.
    Possible,
}

/// An object's description with the keys to its bytes.
struct Described {
    head: Head,
    dek: Dek,
    identity: Identity,
    unlocked: Unlocked,
}

pub(super) async fn get(inner: &Arc<Inner>, key: &ObjectKey) -> Result<Download, ReadError> {
    let (described, answered) = inner.describe(key, Want::Whole).await?;
    let Described { head, dek, identity, .. } = described;
    let Answered { bulk, rest, .. } = answered;
    Ok(Download::whole(Arc::clone(inner), head, dek, identity, rest)?.beginning_with(bulk)?)
}

pub(super) async fn get_version(
    inner: &Arc<Inner>,
    key: &ObjectKey,
    version: VersionId,
    staleness: Staleness,
) -> Result<Download, ReadError> {
    let answered = inner.ask_version(key, version, Want::Whole, staleness).await;
    let answered = answered.map_err(|error| match error {
        // The primary's word: it is not live.
        ReadError::Changed => ReadError::NotFound,
        error => error,
    })?;
    let TenantAnswer::Object(view) = &answered.answer else {
        return Err(Damage::Answer("a get is answered by an object").into());
    };
    if view.upload.version != version {
        return Err(Damage::Answer("a get of a version is answered by that version").into());
    }
    let Described { head, dek, identity, .. } = inner.open_description(key, view.clone()).await?;
    let Answered { bulk, rest, .. } = answered;
    let download = Download::whole(Arc::clone(inner), head, dek, identity, rest)?.taking(staleness);
    Ok(download.beginning_with(bulk)?)
}

pub(super) async fn sealed(inner: &Arc<Inner>, key: &ObjectKey) -> Result<Bytes, ReadError> {
    let (described, answered) = inner.describe(key, Want::Whole).await?;
    let root = described.head.view.root;
    let sealed = Download::sealed(Arc::clone(inner), described.head, answered.rest)?.bytes().await?;
    if *blake3::hash(&sealed).as_bytes() != root.0 {
        return Err(Damage::Answer("the sealed bytes do not lead to their root").into());
    }
    Ok(sealed)
}

pub(super) async fn get_range(
    inner: &Arc<Inner>,
    key: &ObjectKey,
    range: Range<u64>,
) -> Result<Download, ReadError> {
    let (described, _) = inner.describe(key, Want::Head).await?;
    let Described { head, unlocked, .. } = described;
    let (start, end, plaintext_len) = (range.start, range.end, head.bytes);
    if end > plaintext_len {
        return Err(ReadError::Range(RangePlanError::Bounds { start, end, plaintext_len }));
    }
    let length = end.saturating_sub(start);
    let plan = RangePlan::new(head.view.sealed_length, unlocked.header().chunk_len, range);
    let plan = plan.map_err(|error| match error {
        RangePlanError::Bounds { .. } => ReadError::Range(error),
        RangePlanError::SealedLen(_) => Damage::Length(error).into(),
    })?;
    let opener = RangeOpener::new(&unlocked, plan.clone());
    Ok(Download::range(Arc::clone(inner), head, length, opener, &plan)?)
}

pub(super) async fn head(inner: &Inner, key: &ObjectKey) -> Result<Head, ReadError> {
    let (described, _) = inner.describe(key, Want::Head).await?;
    Ok(described.head)
}

pub(super) async fn page(
    inner: &Inner,
    kind: ListingKind,
    prefix: &str,
    after: Option<&ObjectKey>,
    limit: u32,
) -> Result<Page, ReadError> {
    let network = &inner.network;
    let now = network.clock.now();
    let prefix = prefix.to_owned();
    let mut listing = Listing::new(kind, prefix, after.cloned(), limit, network.patience, now, seed());
    let merged = network.run(&mut listing).await?;
    let next = merged.entries.last().filter(|_| merged.more).map(|last| last.key.clone());
    let lines = merged.entries.into_iter().map(listed).collect::<Result<_, _>>()?;
    Ok(Page { lines, next })
}

fn listed(entry: ListEntry) -> Result<Listed, Damage> {
    let bytes = plaintext_len(entry.sealed_length, ChunkLen::DEFAULT);
    let bytes = bytes.ok_or(Damage::Length(RangePlanError::SealedLen(entry.sealed_length)))?;
    let ListEntry { key, version, root, created, window_ends, .. } = entry;
    Ok(Listed { key, version, bytes, root, created, window_ends })
}

pub(super) async fn purge_status(inner: &Inner, key: &ObjectKey) -> Result<Vec<PurgeView>, ReadError> {
    let name_tag = inner.keyring.name_tag(key);
    let mut all: Vec<PurgeView> = Vec::new();
    loop {
        let call = TenantCall::PurgeStatus { name_tag, after: all.last().map(|view| view.version) };
        let answered = inner.network.ask(Whom::PrimaryOf(key.clone()), call).await?;
        let TenantAnswer::Purges(views) = answered.answer else {
            return Err(Damage::Answer("a purge status is answered by purges").into());
        };
        let is_full = views.len() == PAGE_MAX as usize;
        all.extend(views);
        if !is_full {
            return if all.is_empty() { Err(ReadError::NotFound) } else { Ok(all) };
        }
    }
}

pub(super) async fn certificates(
    inner: &Inner,
    key: &ObjectKey,
) -> Result<Vec<SignedCertificate>, ReadError> {
    let name_tag = inner.keyring.name_tag(key);
    let mut all: Vec<SignedCertificate> = Vec::new();
    loop {
        let call =
            TenantCall::Certificates { name_tag, after: all.last().map(|signed| signed.certificate.version) };
        let answered = inner.network.ask(Whom::PrimaryOf(key.clone()), call).await?;
        let TenantAnswer::Certificates(certificates) = answered.answer else {
            return Err(Damage::Answer("certificates are answered by certificates").into());
        };
        let is_full = certificates.len() == CERTIFICATES_MAX;
        all.extend(certificates);
        if !is_full {
            return if all.is_empty() { Err(ReadError::NotFound) } else { Ok(all) };
        }
    }
}

impl Inner {
    /// Asks the replicas for an exact version.
    pub(super) async fn ask_version(
        &self,
        key: &ObjectKey,
        version: VersionId,
        want: Want,
        staleness: Staleness,
    ) -> Result<Answered, ReadError> {
        let network = &self.network;
        match staleness {
            Staleness::Refused => {
                let call = TenantCall::Get { key: key.clone(), selector: Selector::Version(version), want };
                network.ask_any(key.clone(), self.dc, call).await
            }
            Staleness::Possible => {
                let (patience, now) = (network.patience, network.clock.now());
                network
                    .ask_lenient(Lenient::new(key.clone(), version, want, self.dc, patience, now, seed()))
                    .await
            }
        }
    }

    /// Asks the primary for the latest version and opens its description.
    async fn describe(&self, key: &ObjectKey, want: Want) -> Result<(Described, Answered), ReadError> {
        let call = TenantCall::Get { key: key.clone(), selector: Selector::Latest, want };
        let answered = self.network.ask(Whom::PrimaryOf(key.clone()), call).await?;
        let TenantAnswer::Object(view) = &answered.answer else {
            return Err(Damage::Answer("a get is answered by an object").into());
        };
        let described = self.open_description(key, view.clone()).await?;
        Ok((described, answered))
    }

    async fn open_description(&self, key: &ObjectKey, view: ObjectView) -> Result<Described, ReadError> {
        let object = ObjectIdentity {
            tenant: self.tenant,
            name: self.keyring.name_hash(key),
            version: view.upload.version,
        };
        let identity = Identity { object, attempt: view.upload.attempt };
        let wrapped = WrappedDek::from_bytes(&view.wrapped_key).map_err(Damage::from)?;
        let dek = self.unwrap(&wrapped, &identity).await?;
        let sealed = SealedMetadata::from_bytes(view.metadata.clone());
        let (metadata, unlocked) = sealed.open(&dek, &identity).map_err(Damage::from)?;
        let (bytes, created_ms, user) = (metadata.plaintext_len, metadata.created_ms, metadata.user);
        let head = Head { key: key.clone(), bytes, created_ms, user, view };
        Ok(Described { head, dek, identity, unlocked })
    }

    /// Unwraps under the tenant key that wrapped; a version that is not at hand is asked for.
    async fn unwrap(&self, wrapped: &WrappedDek, identity: &Identity) -> Result<Dek, ReadError> {
        let needed = wrapped.key_version();
        if self.keyring.key(needed).is_none() {
            self.refill_keys().await?;
        }
        let got = self.keyring.newest();
        let key = self.keyring.key(needed).ok_or(Damage::Key(UnwrapError::KeyVersion { needed, got }))?;
        Ok(wrapped.unwrap(&key, identity).map_err(Damage::from)?)
    }
}
