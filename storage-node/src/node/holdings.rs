//! Which volumes a node holds: they are created, configured, retired and wiped as the control plane says.

use std::sync::Arc;

use trefoil_engine::{Disk, Owner, StoreError, VolumeSecrets, WipeError};
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{StoreId, VolumeId};
use trefoil_protocol::time::BootTime;

use super::{NodeCore, StartError, open_volume};
use crate::effect::Effect;
use crate::volume::replica::Replica;

impl<D: Disk> NodeCore<D> {
    /// Volumes that this store shall not hold any more.
    pub(super) fn retire(&mut self, volumes: &[VolumeId], now: BootTime) {
        for volume in volumes {
            let me = self.identity.store;
            let Some(config) = self.view.volumes.get(volume) else { continue };
            if config.member_of_store(me).is_some() {
                continue;
            }
            let rotates = self.volumes.get(volume).is_some_and(|held| held.holding().keys().is_rotating());
            if rotates || self.creating.contains(volume) {
                continue; // The control plane says it again; others write into what is wiped.
            }
            let owner = Owner { tenant: config.tenant, volume: *volume };
            // Nothing may be open while it is wiped.
            let held = self.volumes.remove(volume).is_some() | self.unconfigured.remove(volume).is_some();
            self.wakeups.set(*volume, None);
            self.due.set(*volume, None);
            self.touched.insert(*volume);
            self.admission.forget(*volume);
            self.stopped.remove(volume);
            let job = || self.store.wipe_job(owner);
            self.retirement.retire(config, me, held, job, now, &mut self.out);
        }
    }

    pub(super) fn wiped(&mut self, volume: VolumeId, result: Result<(), WipeError>, now: BootTime) {
        if let Err(error) = result {
            return self.out.fail_store(error);
        }
        let Some(config) = self.view.volumes.get(&volume).cloned() else { return };
        self.retirement.wiped(&config, self.identity.store, now, &mut self.out);
        // It may have been recruited again meanwhile: then it joins empty.
        self.configure(config, now);
    }

    pub(super) fn configure(&mut self, config: Arc<VolumeConfig>, now: BootTime) {
        let volume = config.volume;
        if self.retirement.is_wiping(volume) || self.creating.contains(&volume) {
            return;
        }
        if let Some(holding) = self.unconfigured.remove(&volume) {
            self.volumes.insert(volume, Box::new(Replica::new(Arc::clone(&config), holding)));
        }
        if self.volumes.contains_key(&volume) {
            self.with_volume(volume, now, |replica, cx| replica.configure(config, cx));
        } else if config.member_of_store(self.identity.store).is_some() {
            self.create(&config);
        }
    }

    pub(super) fn create(&mut self, config: &VolumeConfig) {
        let volume = config.volume;
        let seal = self.out.salt();
        let secrets = VolumeSecrets {
            seal: seal[..16].try_into().expect("16 of 32 bytes"),
            bag_key: self.out.salt().into(),
        };
        let job = self.store.create_job(Owner { tenant: config.tenant, volume }, &secrets);
        self.creating.insert(volume);
        self.out.push(Effect::Create { volume, job });
    }

    pub(super) fn created(&mut self, volume: VolumeId, result: Result<(), StoreError>, now: BootTime) {
        self.flushes.ended(now);
        self.creating.remove(&volume);
        let Some(config) = self.view.volumes.get(&volume).cloned() else { return };
        let owner = Owner { tenant: config.tenant, volume };
        let opened = result.map_err(StartError::from).and_then(|()| open_volume(&self.store, owner, now));
        match opened {
            Ok(mut holding) => {
                if has_acknowledged(&config, self.identity.store) {
                    holding.has_lost_its_log();
                }
                self.unconfigured.insert(volume, holding);
                self.configure(config, now);
            }
            // Nothing is wrong but the lack of room: whoever leads finds another member.
            Err(StartError::Store(error)) if error.is_full() => {}
            Err(error) => self.out.fail_store(error),
        }
    }
}

/// Whether the store may have acknowledged something of the volume: if nothing of it is here, it was lost.
fn has_acknowledged(config: &VolumeConfig, store: StoreId) -> bool {
    let last = config.last_activated();
    last.is_some_and(|last| last.in_sync.contains(&store) || last.catching_up.contains(&store))
}
