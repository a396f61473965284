//! A store that an earlier run marked suspect. Until every byte of it was read from the device again it
//! registers nowhere, answers nobody and writes nothing; what the reading found damaged is handed on,
//! to be mended from peers.

use std::collections::{BTreeMap, VecDeque};

use trefoil_engine::{Disk, Owner, ScrubReport, Store, VerifyError};
use trefoil_protocol::ids::VolumeId;

use crate::effect::{Effect, Notice};
use crate::outbox::Outbox;

/// What is still to be read, and what was found.
#[derive(Debug)]
pub(crate) struct Quarantine {
    reason: String,
    waiting: VecDeque<Owner>,
    under_way: Option<Owner>,
    found: BTreeMap<VolumeId, ScrubReport>,
}

impl Quarantine {
    /// Begins with all volumes of a store that is suspect for this reason.
    pub(crate) fn begin(reason: String, volumes: Vec<Owner>) -> Self {
        Self { reason, waiting: volumes.into(), under_way: None, found: BTreeMap::new() }
    }

    /// Lets the next volume be read, one at a time; whether all of them were.
    pub(crate) fn go_on<D: Disk>(&mut self, store: &Store<D>, out: &mut Outbox<D>) -> bool {
        if self.under_way.is_some() {
            return false;
        }
        let Some(owner) = self.waiting.pop_front() else { return true };
        if self.found.is_empty() {
            let (reason, volumes) = (self.reason.clone(), self.waiting.len() + 1);
            out.push(Effect::Notice(Notice::Verifying { reason, volumes }));
        }
        self.under_way = Some(owner);
        out.push(Effect::Verify { volume: owner.volume, job: store.verify_job(owner) });
        false
    }

    /// A volume was read, or cannot be: then the disk has to be replaced.
    pub(crate) fn verified<D: Disk>(
        &mut self,
        volume: VolumeId,
        result: Result<ScrubReport, VerifyError>,
        out: &mut Outbox<D>,
    ) {
        match result {
            Ok(report) => {
                self.under_way = None;
                self.found.insert(volume, report);
            }
            Err(error) => out.fail_store(format!("{}; volume {volume} cannot be read: {error}", self.reason)),
        }
    }

    /// What was found, by volume.
    pub(crate) fn found(self) -> BTreeMap<VolumeId, ScrubReport> {
        self.found
    }
}
