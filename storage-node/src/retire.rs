//! Volumes that this store held and shall not hold any more: everything of them is wiped, and only
//! then the control plane hears so, with the newest configuration that the report is about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trefoil_engine::{Disk, WipeJob};
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{StoreId, VolumeId};
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::time::BootTime;

use crate::effect::Effect;
use crate::outbox::Outbox;

/// How often the control plane is told the same thing.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What is being wiped, and what was reported.
#[derive(Debug, Default)]
pub struct Retirement {
    wiping: BTreeSet<VolumeId>,
    reported: BTreeMap<VolumeId, BootTime>,
}

impl Retirement {
    /// Whether a volume is being wiped: nothing of it may be opened.
    pub fn is_wiping(&self, volume: VolumeId) -> bool {
        self.wiping.contains(&volume)
    }

    /// The control plane says that this store shall not hold the volume; `held` is whether it did.
    pub fn retire<D: Disk>(
        &mut self,
        config: &VolumeConfig,
        me: StoreId,
        held: bool,
        job: impl FnOnce() -> WipeJob<D>,
        now: BootTime,
        out: &mut Outbox<D>,
    ) {
        let volume = config.volume;
        if self.is_wiping(volume) {
            return;
        }
        let reported = self.reported.get(&volume).copied();
        if held || reported.is_none() {
            // What an earlier run left half wiped is found only by looking.
            self.wiping.insert(volume);
            out.push(Effect::Wipe { volume, job: job() });
        } else if reported.is_some_and(|at| now.since(at) >= REPORT_EVERY) {
            self.report(config, me, now, out);
        }
    }

    /// A wipe is done.
    pub fn wiped<D: Disk>(&mut self, config: &VolumeConfig, me: StoreId, now: BootTime, out: &mut Outbox<D>) {
        self.wiping.remove(&config.volume);
        if config.member_of_store(me).is_none() {
            self.report(config, me, now, out);
        }
    }

    fn report<D: Disk>(&mut self, config: &VolumeConfig, me: StoreId, now: BootTime, out: &mut Outbox<D>) {
        let (volume, epoch) = (config.volume, config.epoch);
        self.reported.insert(volume, now);
        out.ask(ControlRequest::Retired { volume, store: me, epoch });
    }
}
