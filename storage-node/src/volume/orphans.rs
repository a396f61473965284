//! Payload that no record refers to: of a put that broke off, or whose record was cut. It is no
//! object, so no order is needed to erase it; but a retry may still claim it, so the primary commits
//! a record that nobody ever will, and only that record lets a store erase.
//!
//! Nothing is erased because an index lacks it.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_engine::{Disk, EraseTarget};
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::UploadId;
use trefoil_protocol::message::peer::{ORPHANS_MAX, PeerBody};
use trefoil_protocol::record::RecordBody;
use trefoil_protocol::time::BootTime;

use super::holding::Holding;
use crate::outbox::Context;

/// How often a store looks.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A client that broke off has this long to send the same bytes again.
const CLAIMED_WITHIN: Duration = Duration::from_secs(600);

/// What this store knows of payload without a record.
#[derive(Debug, Default)]
pub struct Orphans {
    seen: BTreeMap<UploadId, BootTime>,
    looked_at: BootTime,
}

/// Whether a record here refers to an upload, or one says that none ever will.
pub(super) fn is_settled<D: Disk>(holding: &Holding<D>, upload: UploadId) -> bool {
    let index = holding.index();
    index.version(upload.version).is_some_and(|version| version.upload == upload)
        || index.is_upload_void(upload)
        || holding.tail().any(|record| match record.body() {
            RecordBody::Put(put) => put.upload == upload,
            RecordBody::UploadVoid { upload: void } => *void == upload,
            _ => false,
        })
}

impl Orphans {
    /// Looks through what is held, now and then. Erases what is void, and answers what has been
    /// without a record for too long.
    pub fn look<D: Disk>(&mut self, holding: &mut Holding<D>, cx: &mut Context<'_, D>) -> Vec<UploadId> {
        if cx.now.since(self.looked_at) < LOOK_EVERY {
            return Vec::new();
        }
        self.looked_at = cx.now;
        let held: Vec<UploadId> = holding.log().uploads().map(|(upload, _)| upload).collect();
        let (settled, orphans): (Vec<UploadId>, Vec<UploadId>) =
            held.into_iter().partition(|upload| is_settled(holding, *upload));
        let erased = |upload: &UploadId| holding.log().is_erased(EraseTarget::Upload(*upload));
        let void = settled.into_iter().filter(|upload| holding.index().is_upload_void(*upload));
        let void: Vec<EraseTarget> = void.filter(|upload| !erased(upload)).map(EraseTarget::Upload).collect();
        if let Err(error) = holding.volume_mut().log.begin_erase(&void) {
            cx.out.fail_store(error);
        }
        let before = std::mem::take(&mut self.seen);
        let since = |upload: UploadId| (upload, before.get(&upload).copied().unwrap_or(cx.now));
        self.seen = orphans.into_iter().map(since).collect();
        let old = self.seen.iter().filter(|(_, since)| cx.now.since(**since) >= CLAIMED_WITHIN);
        old.map(|(upload, _)| *upload).take(ORPHANS_MAX).collect()
    }

    /// Tells the primary.
    pub fn tell<D: Disk>(uploads: Vec<UploadId>, config: &VolumeConfig, cx: &mut Context<'_, D>) {
        if let Some(primary) = config.primary.filter(|_| !uploads.is_empty()) {
            cx.tell(config, primary, PeerBody::Orphans { uploads });
        }
    }

    /// When to look again; never, while there is nothing that could be an orphan.
    pub fn next_wakeup<D: Disk>(&self, holding: &Holding<D>) -> Option<BootTime> {
        holding.log().uploads().next().map(|_| self.looked_at + LOOK_EVERY)
    }
}
