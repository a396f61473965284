//! Puts, deletes and undeletes.
//!
//! A put that cannot replay its bytes begins another attempt, with another data key and another token,
//! but only after it is certain that the attempt before never takes effect.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::sleep;
use trefoil_protocol::ids::{UploadId, VersionId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{
    Precondition, PutReceipt, PutRequest, TenantAnswer, TenantCall, TokenUse, UploadEnd,
};
use trefoil_protocol::record::INLINE_MAX;

use super::client::Inner;
use super::network::seed;
use super::put::{Hidden, PutOptions, Restored, Spool, Stored};
use super::source::Source;
use super::spool::SpooledFrames;
use super::tokens::OpenToken;
use super::upload::{Manner, Plaintext, ProgressCall, Spooled, Upload, seal_whole};
use crate::core::{Jitter, Mutation, MutationFailure};
use crate::entropy::{Entropy, OsEntropy};
use crate::failure::{Damage, Trouble, WriteError};
use crate::seal::{Attempts, Begun, ObjectIdentity, WrapError, WrappedDek};

/// Plaintext up to this long is sealed within [`INLINE_MAX`].
const INLINE_PLAINTEXT_MAX: usize = INLINE_MAX as usize - 160;

/// What every attempt of one put shares.
struct Put<'a> {
    inner: &'a Inner,
    key: &'a ObjectKey,
    precondition: Precondition,
    manner: Manner,
    attempts: Attempts,
    begun: u32,
    /// Whether its bytes were sent before.
    was_sent: bool,
}

/// What a request says of its attempt.
struct Sealing {
    upload: UploadId,
    kek_version: u32,
    wrapped: WrappedDek,
}

pub(super) async fn put<S: Source>(
    inner: &Inner,
    key: &ObjectKey,
    source: S,
    options: PutOptions,
) -> Result<Stored, WriteError> {
    let PutOptions { precondition, user, spool, padding, mut progress } = options;
    let padding = padding.unwrap_or(inner.padding);
    let mut version = VersionId::default();
    OsEntropy.fill(&mut version.0);
    let object = ObjectIdentity { tenant: inner.tenant, name: inner.keyring.name_hash(key), version };
    let attempts = Attempts::new(object);
    let manner = Manner { created_ms: now_ms(), user, padding };
    let mut put = Put { inner, key, precondition, manner, attempts, begun: 0, was_sent: false };
    let mut plaintext = Plaintext::new(source);
    if let Some(text) = plaintext.whole_within(INLINE_PLAINTEXT_MAX, padding).await? {
        let stored = put.inline(&text).await?;
        progress.iter_mut().for_each(|progress| progress(text.len() as u64));
        return Ok(stored);
    }
    if plaintext.is_repeatable() {
        put.afresh(&mut plaintext, &mut progress).await
    } else {
        put.spooled(&mut plaintext, spool, &mut progress).await
    }
}

impl Put<'_> {
    /// A small object rides in its request, which is repeated as it is.
    async fn inline(&mut self, text: &[u8]) -> Result<Stored, WriteError> {
        let (sealing, begun) = self.begin().await?;
        let (bytes, end) = seal_whole(begun, text, self.manner.clone())?;
        let token = self.inner.token().await?;
        let call = self.call(&sealing, Some(end), token.used());
        let mut mutation = self.mutation(call, bytes);
        let output = self.inner.network.run(&mut mutation).await;
        self.stored(output?, text.len() as u64)
    }

    /// A source that can be read again is sealed again, under a new key, for each further attempt.
    async fn afresh<S: Source>(
        &mut self,
        plaintext: &mut Plaintext<S>,
        progress: &mut Option<ProgressCall>,
    ) -> Result<Stored, WriteError> {
        let patience = self.inner.network.patience;
        let mut jitter = Jitter::new(seed());
        let mut rest = patience.rest_first;
        let mut troubled_since = None;
        loop {
            let (sealing, begun) = self.begin().await?;
            let upload = Upload::new(plaintext, begun, self.manner.clone(), Spooled::Nothing, progress);
            let upload = AsyncMutex::new(upload);
            let failure = match self.send_once(&sealing, &upload).await? {
                Ok(stored) => return Ok(stored),
                Err(failure) => failure,
            };
            drop(upload);
            let MutationFailure::NotApplied(_) = failure else { return Err(failure.into()) };
            let now = self.inner.network.clock.now();
            if now.since(*troubled_since.get_or_insert(now)) >= patience.deadline {
                return Err(failure.into());
            }
            sleep(jitter.spread(rest) + Mutation::comes_back_after(&failure)).await;
            rest = (rest * 2).min(patience.rest_max);
            plaintext.rewind().await?;
        }
    }

    /// A source that can be read only once is sealed once; its sealed bytes are sent again.
    async fn spooled<S: Source>(
        &mut self,
        plaintext: &mut Plaintext<S>,
        spool: Spool,
        progress: &mut Option<ProgressCall>,
    ) -> Result<Stored, WriteError> {
        let (sealing, begun) = self.begin().await?;
        let frames = SpooledFrames::new();
        let spooled = match spool {
            Spool::Allowed => Spooled::Everything(frames),
            Spool::Forbidden => Spooled::Memory(frames),
        };
        let upload = Upload::new(plaintext, begun, self.manner.clone(), spooled, progress);
        let upload = AsyncMutex::new(upload);
        match spool {
            Spool::Allowed => self.send_until_deadline(&sealing, &upload).await,
            Spool::Forbidden => self.send_while_repeatable(&sealing, &upload).await,
        }
    }

    async fn send_until_deadline<S: Source>(
        &mut self,
        sealing: &Sealing,
        upload: &AsyncMutex<Upload<'_, S>>,
    ) -> Result<Stored, WriteError> {
        let token = self.inner.token().await?;
        let mut mutation = self.mutation(self.call(sealing, None, token.used()), Bytes::new());
        self.conclude(&mut mutation, upload).await?.map_err(WriteError::from)
    }

    async fn send_while_repeatable<S: Source>(
        &mut self,
        sealing: &Sealing,
        upload: &AsyncMutex<Upload<'_, S>>,
    ) -> Result<Stored, WriteError> {
        let patience = self.inner.network.patience;
        let mut jitter = Jitter::new(seed());
        let mut troubled_since = None;
        loop {
            let failure = match self.send_once(sealing, upload).await? {
                Ok(stored) => return Ok(stored),
                Err(failure) => failure,
            };
            let MutationFailure::NotApplied(_) = failure else { return Err(failure.into()) };
            if !upload.lock().await.is_repeatable() {
                return Err(WriteError::Unrepeatable);
            }
            let now = self.inner.network.clock.now();
            if now.since(*troubled_since.get_or_insert(now)) >= patience.deadline {
                return Err(failure.into());
            }
            sleep(jitter.spread(patience.rest_max) + Mutation::comes_back_after(&failure)).await;
        }
    }

    /// Sends the upload once, under a token of its own.
    async fn send_once<S: Source>(
        &mut self,
        sealing: &Sealing,
        upload: &AsyncMutex<Upload<'_, S>>,
    ) -> Result<Result<Stored, MutationFailure>, WriteError> {
        let token = self.inner.token().await?;
        let mut mutation = self.mutation(self.call(sealing, None, token.used()), Bytes::new()).once();
        if std::mem::replace(&mut self.was_sent, true) {
            mutation = mutation.sent_before();
        }
        self.conclude(&mut mutation, upload).await
    }

    async fn conclude<S: Source>(
        &mut self,
        mutation: &mut Mutation,
        upload: &AsyncMutex<Upload<'_, S>>,
    ) -> Result<Result<Stored, MutationFailure>, WriteError> {
        let output = self.inner.network.run_upload(mutation, upload).await;
        let mut upload = upload.lock().await;
        match output {
            None => Err(upload.error.take().expect("an aborted upload says why")),
            Some(Err(failure)) => Ok(Err(failure)),
            Some(Ok(answer)) => self.stored(answer, upload.plaintext_bytes()).map(Ok),
        }
    }

    async fn begin(&mut self) -> Result<(Sealing, Begun), WriteError> {
        let (upload, kek_version, begun) = loop {
            self.inner.ensure_wraps().await?;
            let attempt = self.attempts.begin(&mut OsEntropy);
            let upload = attempt.identity().upload();
            match self.inner.keyring.begin(attempt, self.inner.network.now()) {
                Ok((kek_version, begun)) => break (upload, kek_version, begun),
                // Another put took the block's last counter in between.
                Err(WrapError::Exhausted) => {}
                Err(error) => return Err(error.into()),
            }
        };
        self.begun += 1;
        let wrapped = begun.wrapped.clone();
        Ok((Sealing { upload, kek_version, wrapped }, begun))
    }

    fn call(&self, sealing: &Sealing, inline: Option<UploadEnd>, token: TokenUse) -> TenantCall {
        TenantCall::Put(PutRequest {
            key: self.key.clone(),
            name_tag: self.inner.keyring.name_tag(self.key),
            upload: sealing.upload,
            precondition: self.precondition,
            kek_version: sealing.kek_version,
            wrapped_key: Bytes::copy_from_slice(sealing.wrapped.as_bytes()),
            inline,
            token,
        })
    }

    fn mutation(&self, call: TenantCall, bulk: Bytes) -> Mutation {
        self.inner.mutation(self.key, call, bulk)
    }

    fn stored(&self, answer: TenantAnswer, bytes: u64) -> Result<Stored, WriteError> {
        let receipt = self.receipt(answer)?;
        Ok(Stored { key: self.key.clone(), bytes, attempts: self.begun, receipt })
    }

    fn receipt(&self, answer: TenantAnswer) -> Result<PutReceipt, Damage> {
        match answer {
            TenantAnswer::Stored(receipt) => Ok(receipt),
            _ => Err(Damage::Answer("a put is answered by its receipt")),
        }
    }
}

pub(super) async fn delete(
    inner: &Inner,
    key: &ObjectKey,
    precondition: Precondition,
) -> Result<Hidden, WriteError> {
    let token = inner.token().await?;
    let call = TenantCall::Delete { key: key.clone(), precondition, token: token.used() };
    let output = inner.network.run(&mut inner.mutation(key, call, Bytes::new())).await;
    match output? {
        TenantAnswer::Deleted { version, tombstone, window_ends } => {
            Ok(Hidden { key: key.clone(), version, tombstone, window_ends })
        }
        _ => Err(Damage::Answer("a delete is answered by its tombstone").into()),
    }
}

pub(super) async fn undelete(
    inner: &Inner,
    key: &ObjectKey,
    version: Option<VersionId>,
) -> Result<Restored, WriteError> {
    let token = inner.token().await?;
    let name_tag = inner.keyring.name_tag(key);
    let call = TenantCall::Undelete { key: key.clone(), name_tag, version, token: token.used() };
    let output = inner.network.run(&mut inner.mutation(key, call, Bytes::new())).await;
    match output? {
        TenantAnswer::Undeleted { version, lsn } => Ok(Restored { key: key.clone(), version, lsn }),
        _ => Err(Damage::Answer("an undelete is answered by the version that is live again").into()),
    }
}

impl Inner {
    async fn token(&self) -> Result<OpenToken<'_>, WriteError> {
        let token = self.tokens.begin(self.network.patience.deadline).await;
        token.ok_or(WriteError::NotApplied(Trouble::WindowFull))
    }

    fn mutation(&self, key: &ObjectKey, call: TenantCall, bulk: Bytes) -> Mutation {
        let network = &self.network;
        Mutation::new(key.clone(), call, bulk, network.patience, network.clock.now(), seed())
    }
}

#[allow(clippy::disallowed_methods, reason = "metadata says when, by the writer's own clock")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{ChunkLen, sealed_len};

    #[test]
    fn the_longest_inline_plaintext_fits_a_record() {
        let longest = INLINE_PLAINTEXT_MAX as u64;
        assert_eq!(sealed_len(longest, ChunkLen::DEFAULT), Some(INLINE_MAX));
    }
}
