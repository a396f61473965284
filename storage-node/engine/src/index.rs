//! What a volume holds: a deterministic function of its committed records, in memory, rebuilt from
//! the segments at every open. Every copy of a volume that applied the same records has the same
//! index.
//!
//! It keeps each version's root apart from the frames that hold its bytes, so that a read can be
//! checked against something the disk did not hand out together with them. It never reads the disk.

mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use trefoil_protocol::deletion::PurgeScope;
use trefoil_protocol::ids::{
    Epoch, Hash, Lsn, NameTag, OrderId, PrincipalId, StoreId, Token, UploadId, VersionId,
};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::record::{Cause, Delete, Purging, Put, Record, RecordBody, Undelete};
use trefoil_protocol::time::{CpTime, Millis};

pub use tokens::{Outcome, TOKEN_WINDOW, TokenResult, TokenState};

use tokens::Tokens;

/// The record that hid a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Its position; the name of this tombstone.
    pub lsn: Lsn,
    /// When the window began.
    pub since: CpTime,
    /// How long the version can be undeleted.
    pub window: Millis,
    /// Who deleted or replaced it.
    pub by: PrincipalId,
}

impl Tombstone {
    /// When the window ends.
    pub fn ends(&self) -> CpTime {
        CpTime(self.since.0.saturating_add(self.window.0))
    }
}

/// Where a version is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// It is what its key means.
    Live,
    /// Hidden; undelete is possible, the bytes are kept.
    Deleted(Tombstone),
    /// Beyond return: all stores but the retained one erase it.
    Purging {
        /// The tombstone that condemned it.
        tombstone: Tombstone,
        /// The order.
        order: OrderId,
        /// The store that erases last.
        retained: StoreId,
    },
    /// All other copies are gone.
    OthersErased {
        /// The tombstone that condemned it.
        tombstone: Tombstone,
        /// The order the others obeyed.
        order: OrderId,
        /// The store that erases last.
        retained: StoreId,
        /// The order for the retained store, once it is in the log.
        first_copy_order: Option<OrderId>,
    },
    /// Gone everywhere, with a certificate in the log.
    Certified {
        /// The record that holds the certificate.
        lsn: Lsn,
    },
}

/// One version of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Its name; `None` from the purge on, and in a log whose names are erased.
    pub key: Option<ObjectKey>,
    /// The keyed hash of its name.
    pub name_tag: NameTag,
    /// The attempt whose bytes count; their places are in the volume's log.
    pub upload: UploadId,
    /// blake3 of the sealed bytes.
    pub root: Hash,
    /// Length of the sealed bytes.
    pub sealed_length: u64,
    /// Version of the tenant key that wraps its data key.
    pub kek_version: u32,
    /// The record that put it.
    pub lsn: Lsn,
    /// The epoch of that record.
    pub epoch: Epoch,
    /// When it was put.
    pub created: CpTime,
    /// Who put it.
    pub by: PrincipalId,
    /// Whether its bytes ride in the record.
    pub inline: bool,
    /// Where it is in its life.
    pub state: VersionState,
}

impl ObjectVersion {
    /// The version.
    pub fn version(&self) -> VersionId {
        self.upload.version
    }
}

/// What applying a record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It took effect.
    Effective,
    /// It lost a race that the log decides, or its token was decided before: nothing changed.
    Refused,
}

/// One page of a listing, ascending by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// The versions of this page.
    pub versions: Vec<&'a ObjectVersion>,
    /// Where the next page begins: behind this key. `None` at the end.
    pub next: Option<ObjectKey>,
}

/// How many versions are in a state and what they weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Versions.
    pub versions: u64,
    /// Sealed bytes.
    pub bytes: u64,
}

/// What the volume holds, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Live versions: objects as a tenant counts them.
    pub live: Weight,
    /// Hidden versions in their window.
    pub deleted: Weight,
    /// Versions on their way out.
    pub purging: Weight,
    /// Versions gone with a certificate.
    pub certified: Weight,
    /// Remembered tokens.
    pub tokens: u64,
}

/// The index of one volume.
#[derive(Clone, Debug, Default)]
pub struct Index {
    applied: Lsn,
    epoch: Epoch,
    versions: BTreeMap<VersionId, ObjectVersion>,
    /// Live and deleted versions by name, oldest first.
    keys: BTreeMap<ObjectKey, Vec<VersionId>>,
    live: BTreeMap<ObjectKey, VersionId>,
    tags: BTreeMap<NameTag, Vec<VersionId>>,
    windows: BTreeSet<(CpTime, VersionId)>,
    void_uploads: BTreeSet<UploadId>,
    tokens: Tokens,
    statistics: Statistics,
}

impl Index {
    /// The last record applied.
    pub fn applied(&self) -> Lsn {
        self.applied
    }

    /// The epoch of the last epoch start applied.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Applies the next committed record.
    ///
    /// # Panics
    /// If it is not the next: the caller applies in order.
    pub fn apply(&mut self, record: &Record) -> Applied {
        assert_eq!(record.lsn(), self.applied.next(), "records are applied in order, each once");
        self.applied = record.lsn();
        let lsn = record.lsn();
        match record.body() {
            RecordBody::EpochStart { .. } => {
                self.epoch = record.epoch();
                Applied::Effective
            }
            RecordBody::Put(put) => self.with_token(lsn, &put.cause, |index| index.put(record, put)),
            RecordBody::Delete(delete) => {
                self.with_token(lsn, &delete.cause, |index| index.delete(lsn, delete))
            }
            RecordBody::Undelete(undelete) => {
                self.with_token(lsn, &undelete.cause, |index| index.undelete(undelete))
            }
            RecordBody::Purging(purging) => self.purging(purging),
            RecordBody::OthersErased(erased) => self.others_erased(erased.order, &erased.versions),
            RecordBody::Certified(certified) => self.certified(lsn, certified.version),
            RecordBody::Void { token } => {
                self.tokens.void(lsn, token);
                Applied::Effective
            }
            RecordBody::UploadVoid { upload } => {
                self.void_uploads.insert(*upload);
                Applied::Effective
            }
        }
    }

    /// What a key means now.
    pub fn latest(&self, key: &ObjectKey) -> Option<&ObjectVersion> {
        self.versions.get(self.live.get(key)?)
    }

    /// A version in whatever state.
    pub fn version(&self, version: VersionId) -> Option<&ObjectVersion> {
        self.versions.get(&version)
    }

    /// The versions of a key that are live or in their window, oldest first.
    pub fn versions_of(&self, key: &ObjectKey) -> impl Iterator<Item = &ObjectVersion> {
        let versions = self.keys.get(key).into_iter().flatten();
        versions.filter_map(|version| self.versions.get(version))
    }

    /// Every version ever put under a name, by the name's keyed hash, oldest first.
    pub fn by_tag(&self, tag: NameTag) -> impl Iterator<Item = &ObjectVersion> {
        let versions = self.tags.get(&tag).into_iter().flatten();
        versions.filter_map(|version| self.versions.get(version))
    }

    /// Live objects whose key begins with `prefix`, behind `after`.
    pub fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Page<'_> {
        let live = from(&self.live, prefix, after);
        let versions = live.filter_map(|(_, version)| self.versions.get(version));
        page(versions, limit)
    }

    /// Versions in their window whose key begins with `prefix`; all versions of a key stand on one
    /// page, so that a page may be longer than `limit`.
    pub fn list_deleted(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Page<'_> {
        let mut versions = Vec::new();
        for (key, of_key) in from(&self.keys, prefix, after) {
            if versions.len() >= limit {
                let last: Option<&&ObjectVersion> = versions.last();
                let next = last.and_then(|version| version.key.clone());
                return Page { versions, next };
            }
            debug_assert!(!of_key.is_empty(), "{key:?} without versions is removed");
            let deleted = of_key.iter().filter_map(|version| self.versions.get(version));
            versions.extend(deleted.filter(|version| matches!(version.state, VersionState::Deleted(_))));
        }
        Page { versions, next: None }
    }

    /// Versions whose window is over at `now`, the longest over first.
    pub fn due(&self, now: CpTime, limit: usize) -> Vec<(VersionId, Tombstone)> {
        let over = self.windows.iter().take_while(|(ends, _)| *ends <= now).take(limit);
        over.filter_map(|(_, version)| match self.versions.get(version)?.state {
            VersionState::Deleted(tombstone) => Some((*version, tombstone)),
            _ => None,
        })
        .collect()
    }

    /// When the first window ends, or ended.
    pub fn first_due(&self) -> Option<CpTime> {
        self.windows.first().map(|(ends, _)| *ends)
    }

    /// Versions whose purge has begun and is not certified.
    pub fn being_purged(&self) -> impl Iterator<Item = &ObjectVersion> {
        self.versions.values().filter(|version| {
            matches!(version.state, VersionState::Purging { .. } | VersionState::OthersErased { .. })
        })
    }

    /// Every version whose bytes must be here: live or in its window.
    pub fn held(&self) -> impl Iterator<Item = &ObjectVersion> {
        let held =
            |version: &&ObjectVersion| matches!(version.state, VersionState::Live | VersionState::Deleted(_));
        self.versions.values().filter(held)
    }

    /// The first such version behind `after` in the order of version ids, for whoever walks them in
    /// steps.
    pub fn held_after(&self, after: Option<VersionId>) -> Option<&ObjectVersion> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut versions = self.versions.range((start, Bound::Unbounded)).map(|(_, version)| version);
        versions.find(|version| matches!(version.state, VersionState::Live | VersionState::Deleted(_)))
    }

    /// What became of a token, for a request with this hash.
    pub fn token(&self, token: &Token, request: &Hash) -> TokenState {
        self.tokens.state(token, request)
    }

    /// What became of a token, for whoever asks without the request.
    pub fn token_outcome(&self, token: &Token) -> TokenState {
        self.tokens.outcome(token)
    }

    /// Whether a record says that no record will ever refer to this upload.
    pub fn is_upload_void(&self, upload: UploadId) -> bool {
        self.void_uploads.contains(&upload)
    }

    /// What the volume holds, by state.
    pub fn statistics(&self) -> Statistics {
        Statistics { tokens: self.tokens.len() as u64, ..self.statistics }
    }

    fn with_token(
        &mut self,
        lsn: Lsn,
        cause: &Cause,
        act: impl FnOnce(&mut Index) -> Option<TokenResult>,
    ) -> Applied {
        if !self.tokens.admits(&cause.token) {
            return Applied::Refused;
        }
        let result = act(self);
        self.tokens.decide(lsn, cause, result.unwrap_or(TokenResult::Refused));
        match result {
            Some(_) => Applied::Effective,
            None => Applied::Refused,
        }
    }

    fn put(&mut self, record: &Record, put: &Put) -> Option<TokenResult> {
        let version = put.upload.version;
        if self.versions.contains_key(&version) {
            return None;
        }
        let lsn = record.lsn();
        let erasable = record.erasable().ok().flatten();
        let (key, payload) = match erasable {
            Some(erasable) => (Some(erasable.key), erasable.payload),
            None => (None, None),
        };
        let replaced = key.as_ref().and_then(|key| self.live.get(key).copied()).or(put.replaces);
        if let Some(replaced) = replaced {
            self.hide(replaced, tombstone(lsn, put.window, &put.cause));
        }
        if let Some(key) = &key {
            self.keys.entry(key.clone()).or_default().push(version);
            self.live.insert(key.clone(), version);
        }
        self.tags.entry(put.name_tag).or_default().push(version);
        let object = ObjectVersion {
            key,
            name_tag: put.name_tag,
            upload: put.upload,
            root: put.root,
            sealed_length: put.sealed_length,
            kek_version: put.kek_version,
            lsn,
            epoch: record.epoch(),
            created: put.cause.at,
            by: put.cause.principal,
            inline: payload.is_some(),
            state: VersionState::Live,
        };
        add(&mut self.statistics, &object);
        self.versions.insert(version, object);
        Some(TokenResult::Put { version })
    }

    fn delete(&mut self, lsn: Lsn, delete: &Delete) -> Option<TokenResult> {
        let hidden = self.hide(delete.version, tombstone(lsn, delete.window, &delete.cause));
        hidden.then_some(TokenResult::Deleted { version: delete.version })
    }

    fn hide(&mut self, version: VersionId, tombstone: Tombstone) -> bool {
        let Some(object) = self.versions.get(&version) else {
            return false;
        };
        if object.state != VersionState::Live {
            return false;
        }
        if let Some(key) = object.key.clone() {
            self.live.remove(&key);
        }
        self.windows.insert((tombstone.ends(), version));
        self.set_state(version, VersionState::Deleted(tombstone));
        true
    }

    /// Compare-and-set on the tombstone; a key that means another version by now stays so.
    fn undelete(&mut self, undelete: &Undelete) -> Option<TokenResult> {
        let version = undelete.version;
        let object = self.versions.get(&version)?;
        let VersionState::Deleted(tombstone) = object.state else {
            return None;
        };
        let key = object.key.clone();
        let taken = key.as_ref().is_some_and(|key| self.live.contains_key(key));
        if tombstone.lsn != undelete.tombstone || taken {
            return None;
        }
        if let Some(key) = key {
            self.live.insert(key, version);
        }
        self.windows.remove(&(tombstone.ends(), version));
        self.set_state(version, VersionState::Live);
        Some(TokenResult::Undeleted { version })
    }

    /// Compare-and-set on each item's tombstone: what was undeleted in between stays.
    fn purging(&mut self, purging: &Purging) -> Applied {
        let order = &purging.order.order;
        let mut effective = false;
        for item in &purging.items {
            let Some(object) = self.versions.get(&item.version) else {
                continue;
            };
            let next = match (order.scope, object.state) {
                (PurgeScope::Others, VersionState::Deleted(tombstone)) if tombstone.lsn == item.tombstone => {
                    VersionState::Purging { tombstone, order: order.id, retained: purging.retained }
                }
                (
                    PurgeScope::FirstCopy,
                    VersionState::OthersErased { tombstone, order: first, retained, .. },
                ) if tombstone.lsn == item.tombstone => {
                    let first_copy_order = Some(order.id);
                    VersionState::OthersErased { tombstone, order: first, retained, first_copy_order }
                }
                _ => continue,
            };
            effective = true;
            self.forget_name(item.version);
            self.set_state(item.version, next);
        }
        match effective {
            true => Applied::Effective,
            false => Applied::Refused,
        }
    }

    fn others_erased(&mut self, order: OrderId, versions: &[VersionId]) -> Applied {
        let mut effective = false;
        for version in versions {
            let state = self.versions.get(version).map(|object| object.state);
            if let Some(VersionState::Purging { tombstone, order: purge, retained }) = state
                && purge == order
            {
                let first_copy_order = None;
                let next = VersionState::OthersErased { tombstone, order, retained, first_copy_order };
                self.set_state(*version, next);
                effective = true;
            }
        }
        match effective {
            true => Applied::Effective,
            false => Applied::Refused,
        }
    }

    fn certified(&mut self, lsn: Lsn, version: VersionId) -> Applied {
        let state = self.versions.get(&version).map(|object| object.state);
        match state {
            Some(VersionState::Purging { .. } | VersionState::OthersErased { .. }) => {
                self.set_state(version, VersionState::Certified { lsn });
                Applied::Effective
            }
            _ => Applied::Refused,
        }
    }

    fn set_state(&mut self, version: VersionId, state: VersionState) {
        if let Some(object) = self.versions.get_mut(&version) {
            remove(&mut self.statistics, object);
            object.state = state;
            add(&mut self.statistics, object);
        }
    }

    /// Takes a version out of everything that is reached by name; its keyed hash stays.
    fn forget_name(&mut self, version: VersionId) {
        let Some(object) = self.versions.get_mut(&version) else {
            return;
        };
        if let VersionState::Deleted(tombstone) = object.state {
            self.windows.remove(&(tombstone.ends(), version));
        }
        let Some(key) = object.key.take() else {
            return;
        };
        if let Some(versions) = self.keys.get_mut(&key) {
            versions.retain(|other| *other != version);
            if versions.is_empty() {
                self.keys.remove(&key);
            }
        }
    }
}

fn tombstone(lsn: Lsn, window: Millis, cause: &Cause) -> Tombstone {
    Tombstone { lsn, since: cause.at, window, by: cause.principal }
}

/// The entries whose key begins with `prefix`, behind `after`.
fn from<'a, V>(
    map: &'a BTreeMap<ObjectKey, V>,
    prefix: &'a str,
    after: Option<&'a ObjectKey>,
) -> impl Iterator<Item = (&'a ObjectKey, &'a V)> {
    let start = match after.filter(|after| after.as_str() >= prefix) {
        Some(after) => Bound::Excluded(after.clone()),
        // The empty prefix is no key; everything begins with it.
        None => ObjectKey::new(prefix.to_owned()).map_or(Bound::Unbounded, Bound::Included),
    };
    map.range((start, Bound::Unbounded)).take_while(move |(key, _)| key.as_str().starts_with(prefix))
}

fn page<'a>(versions: impl Iterator<Item = &'a ObjectVersion>, limit: usize) -> Page<'a> {
    let mut versions = versions.take(limit.saturating_add(1)).collect::<Vec<_>>();
    let more = versions.len() > limit;
    versions.truncate(limit);
    let last = versions.last().filter(|_| more);
    let next = last.and_then(|version| version.key.clone());
    Page { versions, next }
}

fn weight<'a>(statistics: &'a mut Statistics, object: &ObjectVersion) -> &'a mut Weight {
    match object.state {
        VersionState::Live => &mut statistics.live,
        VersionState::Deleted(_) => &mut statistics.deleted,
        VersionState::Purging { .. } | VersionState::OthersErased { .. } => &mut statistics.purging,
        VersionState::Certified { .. } => &mut statistics.certified,
    }
}

fn add(statistics: &mut Statistics, object: &ObjectVersion) {
    let weight = weight(statistics, object);
    weight.versions += 1;
    weight.bytes += object.sealed_length;
}

fn remove(statistics: &mut Statistics, object: &ObjectVersion) {
    let weight = weight(statistics, object);
    weight.versions -= 1;
    weight.bytes -= object.sealed_length;
}
