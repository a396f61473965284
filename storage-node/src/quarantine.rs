//! A store that an earlier run marked suspect. Until every byte of it was read from the device again it
//! registers nowhere, answers nobody and writes nothing, but says how far it is; what the reading found damaged is handed on,
//! to be mended from peers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use trefoil_engine::{Disk, Owner, ScrubReport, Store, VerifyError};
use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::time::BootTime;

use crate::effect::{Effect, Notice};
use crate::outbox::Outbox;

/// How often the control plane is told how far it is.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// What is still to be read, and what was found.
#[derive(Debug)]
pub(crate) struct Quarantine {
    reason: String,
    waiting: VecDeque<Owner>,
    under_way: Option<Owner>,
    found: BTreeMap<VolumeId, ScrubReport>,
    said_at: Option<BootTime>,
}

impl Quarantine {
    /// Begins with all volumes of a store that is suspect for this reason.
    pub(crate) fn begin(reason: String, volumes: Vec<Owner>) -> Self {
        Self { reason, waiting: volumes.into(), under_way: None, found: BTreeMap::new(), said_at: None }
    }

    /// Lets the next volume be read, one at a time; whether all of them were.
    pub(crate) fn go_on<D: Disk>(&mut self, store: &Store<D>, now: BootTime, out: &mut Outbox<D>) -> bool {
        self.say(now, out);
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

    /// Operators want to know how far it is; nobody else does.
    fn say<D: Disk>(&mut self, now: BootTime, out: &mut Outbox<D>) {
        if self.said_at.is_none_or(|at| now.since(at) >= SAY_EVERY) {
            self.said_at = Some(now);
            let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let read = count(self.found.len());
            let held = count(self.found.len() + self.waiting.len() + usize::from(self.under_way.is_some()));
            out.ask(ControlRequest::Verifying { read, held });
        }
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
