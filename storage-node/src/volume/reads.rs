//! Reads: "latest" and listings at the primary under its lease; bytes by version at any member under
//! its own lease. The lease is looked at after the state was read and before the answer leaves.
//!
//! A version is never served once its delete is persisted here, committed or not, and bytes leave
//! only after they matched their leaf's hash.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use trefoil_engine::index::{self, ObjectVersion, VersionState};
use trefoil_engine::{Disk, ReadError};
use trefoil_protocol::config::{Member, VolumeConfig};
use trefoil_protocol::deletion::SignedCertificate;
use trefoil_protocol::frame::BODY_BYTES_MAX;
use trefoil_protocol::ids::{NameTag, UploadId, VersionId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{
    CERTIFICATES_MAX, Copy, DataPart, LEAF_RANGES_MAX, ListEntry, ObjectView, PAGE_BYTES_MAX, PAGE_MAX,
    PurgeStage, PurgeView, Refusal, Selector, TenantAnswer, Want,
};
use trefoil_protocol::mutant;
use trefoil_protocol::record::{Erasable, Record, RecordBody};
use trefoil_protocol::tree::{self, ProvingTree, RangeProof};

use super::holding::Holding;
use super::owing::owed;
use super::primary::Primary;
use super::stale::Right;
use crate::effect::Effect;
use crate::event::{ReadTicket, RequestId};
use crate::outbox::Context;
use crate::read_queue::Reader;

/// Leaves read at once.
const CHUNK_LEAVES: u64 = 16;
/// Encoded bytes of a listing's line besides its key, rounded up.
const LIST_ENTRY_BYTES: usize = 128;
/// Where a page ends even within the versions of one key, so that it fits into a frame.
const ONE_KEY_BYTES_MAX: usize = BODY_BYTES_MAX as usize - 64 * 1024;

/// A download that goes on.
#[derive(Debug)]
struct Download {
    upload: UploadId,
    length: u64,
    /// Ranges of leaves still to be read, the next one last; with the proof that its first frame
    /// carries.
    ranges: Vec<(u64, u64, Option<RangeProof>)>,
    /// For how long the client waits for the next of them.
    within: Duration,
}

/// The downloads of one volume.
#[derive(Debug, Default)]
pub struct Reads {
    downloads: BTreeMap<RequestId, Download>,
    reading: BTreeMap<ReadTicket, (RequestId, u64, u64, Option<RangeProof>)>,
}

/// Where a read is answered.
pub struct Counter<'r, D: Disk> {
    /// What this store holds.
    pub holding: &'r Holding<D>,
    /// The configuration.
    pub config: &'r VolumeConfig,
    /// The epoch's state, at its primary.
    pub primary: Option<&'r Primary>,
    /// This store's membership.
    pub me: Member,
    /// For how long the client listens.
    pub within: Duration,
}

impl<D: Disk> Counter<'_, D> {
    /// The live version of a key.
    fn latest(&self, key: &ObjectKey) -> Option<&ObjectVersion> {
        let index = self.holding.index();
        mutant!(M11, index.latest(key), index.latest(key).or_else(|| index.versions_of(key).last()))
    }

    /// A version that is live here, and not hidden by a record that waits for its commit.
    fn exact(&self, key: &ObjectKey, version: VersionId) -> Result<&ObjectVersion, Refusal> {
        let object = self.holding.index().version(version).ok_or(Refusal::Changed)?;
        let hidden = self.holding.tail().any(|record| hides(record, version));
        if object.state != VersionState::Live || object.key.as_ref() != Some(key) || hidden {
            return Err(Refusal::Changed);
        }
        Ok(object)
    }

    fn copies(&self, object: &ObjectVersion) -> Vec<Copy> {
        match self.primary {
            Some(primary) => {
                let mut copies = primary.copies(object.lsn, &self.me);
                let owed = owed(Some(object), &self.me, self.holding, self.config);
                copies.retain(|copy| owed.is_none() || copy.store != self.me.store);
                copies
            }
            None => {
                let copy = |m: &Member| Copy { node: m.node, dc: m.dc, store: m.store };
                self.config.in_sync().map(copy).collect()
            }
        }
    }

    /// The description of a version, and its bytes if they ride in the record.
    fn view(&self, object: &ObjectVersion) -> Result<(ObjectView, Option<Bytes>), Refusal> {
        let record = self.holding.record(object.lsn).map_err(|_| Refusal::Unavailable)?;
        let erasable: Option<Erasable> = record.erasable().ok().flatten();
        let erasable = erasable.ok_or(Refusal::Unavailable)?;
        let wrapped = self.holding.wrapped_key(&record, object.version());
        let view = ObjectView {
            key: erasable.key,
            upload: object.upload,
            root: object.root,
            sealed_length: object.sealed_length,
            kek_version: object.kek_version,
            wrapped_key: wrapped.ok_or(Refusal::Unavailable)?,
            metadata: erasable.metadata,
            lsn: object.lsn,
            epoch: self.config.epoch,
            protection: self.config.protection,
            copies: self.copies(object),
            created: object.created,
            stale_possible: false,
        };
        Ok((view, erasable.payload))
    }
}

fn hides(record: &Record, version: VersionId) -> bool {
    match record.body() {
        RecordBody::Put(put) => put.replaces == Some(version),
        RecordBody::Delete(delete) => delete.version == version,
        _ => false,
    }
}

impl Reads {
    /// The live version of a key. Only a primary that serves may be asked.
    pub fn latest<D: Disk>(
        &mut self,
        request: RequestId,
        key: &ObjectKey,
        want: &Want,
        counter: &Counter<'_, D>,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        let object = counter.latest(key);
        if !cx.leased(counter.config) {
            return Err(Refusal::LeaseExpired);
        }
        self.give(request, object.ok_or(Refusal::NotFound)?, Right::Lease, want, counter, cx)
    }

    /// One version, at any member; `selector` says what the client takes.
    pub fn exact<D: Disk>(
        &mut self,
        request: RequestId,
        key: &ObjectKey,
        (selector, version): (Selector, VersionId),
        want: &Want,
        counter: &Counter<'_, D>,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        let object = counter.exact(key, version);
        let right = Right::to_answer(selector, counter, cx)?;
        self.give(request, object?, right, want, counter, cx)
    }

    fn give<D: Disk>(
        &mut self,
        request: RequestId,
        object: &ObjectVersion,
        right: Right,
        want: &Want,
        counter: &Counter<'_, D>,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        let (view, inline) = counter.view(object)?;
        let view = ObjectView { stale_possible: right.is_stale_possible(), ..view };
        if *want != Want::Head
            && let Some(refusal) = owed(Some(object), &counter.me, counter.holding, counter.config)
        {
            return Err(refusal);
        }
        let ranges = match (want, &inline) {
            (Want::Head, _) => return give_at_once(request, view, Bytes::new(), cx),
            (Want::Whole, Some(bytes)) => return give_at_once(request, view, bytes.clone(), cx),
            (Want::Leaves(_), Some(bytes)) => return give_inline_leaves(request, view, want, bytes, cx),
            (Want::Whole, None) => vec![(0, tree::leaf_count(object.sealed_length), None)],
            (Want::Leaves(ranges), None) => proven_ranges(ranges, object, counter)?,
        };
        if counter.holding.lacks(object) {
            return Err(Refusal::Unavailable);
        }
        let response = Ok(TenantAnswer::Object(view));
        cx.out.push(Effect::Reply { request, response, bulk: Bytes::new(), last: false });
        let ranges = ranges.into_iter().rev().collect();
        let within = counter.within;
        let download = Download { upload: object.upload, length: object.sealed_length, ranges, within };
        self.downloads.insert(request, download);
        self.go_on(request, counter.holding, counter.config, cx);
        Ok(())
    }

    /// Reads the next chunk of a download.
    fn go_on<D: Disk>(
        &mut self,
        request: RequestId,
        holding: &Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) {
        let Some(download) = self.downloads.get_mut(&request) else { return };
        let Some((first, count, proof)) = download.ranges.pop() else { return };
        let now = count.min(CHUNK_LEAVES);
        if now < count {
            download.ranges.push((first + now, count - now, None));
        }
        match holding.log().read_plan(download.upload, download.length, first..first + now) {
            Ok(job) => {
                let ticket = cx.out.read_for(config.volume, job, Reader::Client, cx.now + download.within);
                self.reading.insert(ticket, (request, first, now, proof));
            }
            Err(_) => self.abort(request, cx),
        }
    }

    /// A read ended; `false` if it was not this protocol's.
    pub fn read<D: Disk>(
        &mut self,
        ticket: ReadTicket,
        result: Result<Vec<Bytes>, ReadError>,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> bool {
        let Some((request, first, _, proof)) = self.reading.remove(&ticket) else { return false };
        let Some(download) = self.downloads.get(&request) else { return true };
        let leaves = match result {
            Ok(leaves) => leaves,
            Err(error) => {
                if let ReadError::Damaged { upload, index } = error {
                    holding.leaf_is_damaged(upload, index, cx.now);
                }
                self.abort(request, cx);
                return true;
            }
        };
        let last = download.ranges.is_empty();
        let first = u32::try_from(first).expect("leaves are counted in 32 bits");
        let part = DataPart { first, proof, last };
        cx.out.push(Effect::Data { request, part, bulk: leaves });
        if last {
            self.downloads.remove(&request);
        } else {
            self.go_on(request, holding, config, cx);
        }
        true
    }

    /// The turn of a read came when its client did not listen any more.
    pub fn read_late<D: Disk>(&mut self, ticket: ReadTicket, cx: &mut Context<'_, D>) {
        if let Some((request, ..)) = self.reading.remove(&ticket)
            && self.downloads.contains_key(&request)
        {
            self.abort(request, cx);
        }
    }

    /// The client went away.
    pub fn end(&mut self, request: RequestId) {
        self.downloads.remove(&request);
    }

    /// Whether a request downloads here.
    pub fn has(&self, request: RequestId) -> bool {
        self.downloads.contains_key(&request)
    }

    fn abort<D: Disk>(&mut self, request: RequestId, cx: &mut Context<'_, D>) {
        self.downloads.remove(&request);
        cx.out.push(Effect::Abort { request });
    }
}

fn give_at_once<D: Disk>(
    request: RequestId,
    view: ObjectView,
    bulk: Bytes,
    cx: &mut Context<'_, D>,
) -> Result<(), Refusal> {
    cx.out.push(Effect::Reply { request, response: Ok(TenantAnswer::Object(view)), bulk, last: true });
    Ok(())
}

/// A small object is one leaf.
fn give_inline_leaves<D: Disk>(
    request: RequestId,
    view: ObjectView,
    want: &Want,
    bytes: &Bytes,
    cx: &mut Context<'_, D>,
) -> Result<(), Refusal> {
    let Want::Leaves(ranges) = want else { unreachable!("the caller matched leaves") };
    if ranges.as_slice() != [(0, 1)] {
        return Err(Refusal::Invalid("no such leaves".into()));
    }
    let response = Ok(TenantAnswer::Object(view));
    cx.out.push(Effect::Reply { request, response, bulk: Bytes::new(), last: false });
    let part = DataPart { first: 0, proof: Some(RangeProof::default()), last: true };
    cx.out.push(Effect::Data { request, part, bulk: vec![bytes.clone()] });
    Ok(())
}

/// The ranges with the proofs that go with their first frames. A range is read in chunks, and a
/// chunk has its own proof, so that each frame can be checked as it comes.
fn proven_ranges<D: Disk>(
    ranges: &[(u32, u32)],
    object: &ObjectVersion,
    counter: &Counter<'_, D>,
) -> Result<Vec<(u64, u64, Option<RangeProof>)>, Refusal> {
    if ranges.is_empty() || ranges.len() > LEAF_RANGES_MAX {
        return Err(Refusal::Invalid("no leaf range, or too many".into()));
    }
    let length = object.sealed_length;
    let hashes = counter.holding.log().leaf_hashes(object.upload, length).ok_or(Refusal::Unavailable)?;
    let tree = ProvingTree::new(hashes, length).map_err(|_| Refusal::Unavailable)?;
    let mut proven = Vec::with_capacity(ranges.len());
    let mut behind = 0;
    for (first, count) in ranges.iter().map(|(first, count)| (u64::from(*first), u64::from(*count))) {
        let proof =
            tree.prove(first..first + count).map_err(|_| Refusal::Invalid("no such leaves".into()))?;
        if first < behind {
            return Err(Refusal::Invalid("leaf ranges are ascending and disjoint".into()));
        }
        behind = first + count;
        proven.push((first, count, Some(proof)));
    }
    Ok(proven)
}

/// A page of live keys.
pub(super) fn list<D: Disk>(
    counter: &Counter<'_, D>,
    prefix: &str,
    after: Option<&ObjectKey>,
    limit: u32,
) -> TenantAnswer {
    let page = counter.holding.index().list(prefix, after, page_limit(limit));
    page_of(page)
}

/// A page of keys that can be undeleted.
pub(super) fn list_deleted<D: Disk>(
    counter: &Counter<'_, D>,
    prefix: &str,
    after: Option<&ObjectKey>,
    limit: u32,
) -> TenantAnswer {
    let page = counter.holding.index().list_deleted(prefix, after, page_limit(limit));
    page_of(page)
}

/// As many lines as fit into a frame; long names end a page before the limit does.
fn page_of(page: index::Page<'_>) -> TenantAnswer {
    let mut used = 0;
    let mut entries: Vec<ListEntry> = Vec::new();
    for entry in page.versions.into_iter().filter_map(list_entry) {
        let bytes = entry.key.as_bytes().len() + LIST_ENTRY_BYTES;
        // The next page begins behind a key, so all versions of a key stand on one page, as long as
        // a frame has room at all.
        let same_key = entries.last().is_some_and(|last| last.key == entry.key);
        if used + bytes > PAGE_BYTES_MAX && !same_key {
            return TenantAnswer::Page { entries, more: true };
        }
        used += bytes;
        if used <= ONE_KEY_BYTES_MAX {
            entries.push(entry);
        }
    }
    TenantAnswer::Page { entries, more: page.next.is_some() }
}

fn page_limit(limit: u32) -> usize {
    limit.clamp(1, PAGE_MAX) as usize
}

fn list_entry(object: &ObjectVersion) -> Option<ListEntry> {
    let window_ends = match object.state {
        VersionState::Deleted(tombstone) => Some(tombstone.ends()),
        _ => None,
    };
    Some(ListEntry {
        key: object.key.clone()?,
        version: object.version(),
        sealed_length: object.sealed_length,
        root: object.root,
        created: object.created,
        window_ends,
    })
}

/// How far the deletes of a name's versions are.
pub(super) fn purge_status<D: Disk>(
    counter: &Counter<'_, D>,
    tag: NameTag,
    after: Option<VersionId>,
    copies_left: impl Fn(&ObjectVersion) -> u32,
) -> TenantAnswer {
    let versions = behind(counter, tag, after);
    let view = |object: &ObjectVersion| {
        let (stage, window_ends) = match object.state {
            VersionState::Live => (PurgeStage::Live, None),
            VersionState::Deleted(tombstone) => (PurgeStage::Deleted, Some(tombstone.ends())),
            VersionState::Purging { tombstone, .. } => (PurgeStage::Purging, Some(tombstone.ends())),
            VersionState::OthersErased { tombstone, .. } => {
                (PurgeStage::OthersErased, Some(tombstone.ends()))
            }
            VersionState::Certified { .. } => (PurgeStage::Certified, None),
        };
        PurgeView { version: object.version(), stage, window_ends, copies_left: copies_left(object) }
    };
    TenantAnswer::Purges(versions.map(view).take(PAGE_MAX as usize).collect())
}

/// A name's versions in their order, those behind `after` if it is given.
fn behind<'c, D: Disk>(
    counter: &'c Counter<'_, D>,
    tag: NameTag,
    after: Option<VersionId>,
) -> impl Iterator<Item = &'c ObjectVersion> {
    let mut versions = counter.holding.index().by_tag(tag);
    if let Some(after) = after {
        // Without that version nothing is left, so that nobody reads in circles.
        versions.find(|object| object.version() == after);
    }
    versions
}

/// The certificates of a name's versions.
pub(super) fn certificates<D: Disk>(
    counter: &Counter<'_, D>,
    tag: NameTag,
    after: Option<VersionId>,
) -> Result<TenantAnswer, Refusal> {
    let mut certificates: Vec<SignedCertificate> = Vec::new();
    for object in behind(counter, tag, after) {
        if certificates.len() == CERTIFICATES_MAX {
            break;
        }
        let VersionState::Certified { lsn } = object.state else { continue };
        let record = counter.holding.record(lsn).map_err(|_| Refusal::Unavailable)?;
        if let RecordBody::Certified(certified) = record.body() {
            certificates.push(certified.certificate.clone());
        }
    }
    Ok(TenantAnswer::Certificates(certificates))
}
