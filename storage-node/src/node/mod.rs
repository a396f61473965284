//! The storage node's core: one value that takes events with the time and gives effects. It owns the
//! store, the view, the lease and one replica per volume, and routes; the protocols decide.
//!
//! No clock, no randomness, no socket, no thread: all of them are the shell's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use trefoil_engine::superblock::SuperblockError;
use trefoil_engine::{
    Disk, DiskError, OpenError, Owner, ScanError, Scrubbed, SegmentLayout, Store, StoreError, SyncError,
    SyncTicket, Volume,
};
use trefoil_protocol::ids::{NodeId, TenantId, VolumeId};
use trefoil_protocol::message::peer::PeerMessage;
use trefoil_protocol::sign::Signatory;
use trefoil_protocol::time::{BootTime, CpTime};

use crate::admission::Admission;
use crate::arrivals::Arrivals;
use crate::effect::{Effect, Notice};
use crate::event::{Event, RequestId};
use crate::flushes::Flushes;
use crate::lease::Lease;
use crate::outbox::{Context, Identity, Outbox};
use crate::probing::{NO_VOLUME, Probing};
use crate::quarantine::Quarantine;
use crate::retire::Retirement;
use crate::scrubbing::{ScrubState, Scrubbing};
use crate::session::{NodeSettings, Session};
use crate::statement::Statement;
use crate::view::View;
use crate::volume::holding::Holding;
use crate::volume::replica::Replica;
use crate::wakeups::Wakeups;
use crate::work_rate::WorkRate;
use crate::yielding::{Work, Yielding};

mod clients;
mod control;
mod holdings;

/// The shortest time between two looks at the clock.
const TICK: Duration = Duration::from_millis(1);

/// How often a suspect store looks whether it may go on.
const QUARANTINE_TICK: Duration = Duration::from_millis(100);

/// Why a node cannot start on its disk.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A volume's log cannot be opened.
    #[error("volume {volume} of tenant {tenant} cannot be opened: {error}")]
    Volume {
        /// The tenant.
        tenant: TenantId,
        /// The volume.
        volume: VolumeId,
        /// Why.
        error: OpenError,
    },
    /// The signing key or the list of volumes cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A superblock cannot be written.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The store belongs to another node.
    #[error("the store belongs to node {0}")]
    Foreign(NodeId),
}

/// The volumes of a node.
pub type Replicas<D> = BTreeMap<VolumeId, Box<Replica<D>>>;

/// A storage node.
#[derive(Debug)]
pub struct NodeCore<D: Disk> {
    store: Store<D>,
    /// There while the store is suspect; nothing else is done then.
    quarantine: Option<Quarantine>,
    identity: Identity,
    view: View,
    arrivals: Arrivals,
    lease: Lease,
    session: Session,
    volumes: Replicas<D>,
    wakeups: Wakeups<BootTime>,
    /// When each volume has something due by the control plane's time.
    due: Wakeups<CpTime>,
    /// Volumes that something happened to since the control plane was told of them.
    touched: BTreeSet<VolumeId>,
    /// Volumes that are stopped here until somebody has looked.
    stopped: BTreeSet<VolumeId>,
    /// Opened at the start; their configurations are not known yet.
    unconfigured: BTreeMap<VolumeId, Holding<D>>,
    /// Being created on the disk; what their configurations are then, the view knows.
    creating: BTreeSet<VolumeId>,
    retirement: Retirement,
    scrubbing: Scrubbing,
    probing: Probing,
    /// While a control plane that was restored is told what is held here; nothing else is asked then.
    statement: Option<Statement>,
    streams: BTreeMap<RequestId, VolumeId>,
    admission: Admission,
    yielding: Yielding,
    flushes: Flushes,
    work_rate: WorkRate,
    out: Outbox<D>,
    last_step: BootTime,
}

impl<D: Disk> NodeCore<D> {
    /// Opens a formatted store and recovers every volume on it; a suspect one is read from end to end
    /// first, and joins afterwards. `entropy` are secret random bytes
    /// that no other run shares.
    pub fn open(
        disk: &D,
        layout: SegmentLayout,
        settings: NodeSettings,
        entropy: [u8; 32],
        now: BootTime,
    ) -> Result<Self, StartError> {
        let store = Store::open(disk, layout)?;
        if store.state().node != settings.node {
            return Err(StartError::Foreign(store.state().node));
        }
        let identity = Identity {
            node: settings.node,
            store: store.state().store,
            incarnation: store.state().incarnation,
            signatory: Signatory::from_secret(&*store.signing_key()?),
        };
        let repair_floor = settings.pace.repair_floor;
        let quarantine = match store.suspicion()? {
            Some(reason) => Some(Quarantine::begin(reason, store.volumes()?)),
            None => None,
        };
        let unconfigured = match quarantine {
            Some(_) => BTreeMap::new(),
            None => open_volumes(&store, now)?,
        };
        Ok(Self {
            store,
            quarantine,
            identity,
            view: View::default(),
            arrivals: Arrivals::default(),
            lease: Lease::none(),
            session: Session::new(settings),
            volumes: BTreeMap::new(),
            wakeups: Wakeups::default(),
            due: Wakeups::default(),
            touched: BTreeSet::new(),
            stopped: BTreeSet::new(),
            unconfigured,
            creating: BTreeSet::new(),
            retirement: Retirement::default(),
            scrubbing: Scrubbing::default(),
            probing: Probing::default(),
            statement: None,
            streams: BTreeMap::new(),
            admission: Admission::default(),
            yielding: Yielding::with_floor(repair_floor),
            flushes: Flushes::default(),
            work_rate: WorkRate::default(),
            out: Outbox::new(entropy),
            last_step: now,
        })
    }

    /// Takes one event in and answers what is to be done, in order.
    pub fn step(&mut self, now: BootTime, event: Event<D>) -> Vec<Effect<D>> {
        self.last_step = now;
        match self.quarantine.take() {
            Some(quarantine) => self.verify(quarantine, event, now),
            None => self.route(event, now),
        }
        let effects = self.out.take();
        for effect in &effects {
            if let Some(bytes) = effect.given() {
                self.yielding.clients_did(Work { operations: 0, bytes }, now);
            }
            match effect {
                Effect::Taken { request, bytes } => self.admission.taken(*request, *bytes),
                effect => {
                    effect.answers().into_iter().for_each(|request| self.admission.answered(request, now));
                    effect.ends().into_iter().for_each(|request| self.admission.ended(request));
                }
            }
        }
        self.flushes.begun(effects.iter().filter(|effect| effect.is_flush()).count(), now);
        if let Some(reason) = effects.iter().find_map(Effect::store_failure) {
            self.store.distrust(reason);
        }
        effects
    }

    /// A suspect store hears of nothing but its own reading.
    fn verify(&mut self, mut quarantine: Quarantine, event: Event<D>, now: BootTime) {
        if let Event::Verified { volume, result } = event {
            quarantine.verified(volume, result, &mut self.out);
        }
        if !quarantine.go_on(&self.store, now, &mut self.out) {
            self.quarantine = Some(quarantine);
            return;
        }
        let joined = self.join_again(quarantine, now);
        joined.unwrap_or_else(|error| self.out.fail_store(error));
    }

    /// Everything was read: from here on the store is as after a crash, and what was found is damage.
    fn join_again(&mut self, quarantine: Quarantine, now: BootTime) -> Result<(), StartError> {
        self.store.clear_suspicion()?;
        self.unconfigured = open_volumes(&self.store, now)?;
        let mut faults = 0;
        for (volume, report) in quarantine.found() {
            faults += report.faults.len();
            if let Some(holding) = self.unconfigured.get_mut(&volume) {
                holding.doubt(&report, now)?;
            }
        }
        self.out.push(Effect::Notice(Notice::Verified { faults }));
        Ok(())
    }

    fn route(&mut self, event: Event<D>, now: BootTime) {
        match event {
            Event::Wakeup => self.wake(now),
            Event::Verified { .. } => {}
            Event::Scrubbed { volume, result } => self.stretch_read(volume, result, now),
            Event::Peer { from, message, bulk } => self.peer(from, message, bulk, now),
            Event::Request { request, principal, body, bulk } => {
                self.request(request, principal, body, bulk, now);
            }
            Event::Upload { request, part, bulk } => self.upload(request, part, bulk, now),
            Event::Gone { request } => self.gone(request, now),
            Event::Control { ticket, answer } => self.control(ticket, answer, now),
            Event::ControlSilent => self.session.ask_again(),
            Event::Synced { volume, ticket, result, spent } => {
                self.work_rate.flushed(spent, now);
                self.yielding.flushes_wait(spent.waited, now);
                self.synced(volume, ticket, &result, now);
            }
            Event::Erased { volume, result } => {
                self.with_volume(volume, now, |replica, cx| replica.erased(&result, cx));
            }
            Event::Rotated { volume, result } => {
                self.with_volume(volume, now, |replica, cx| replica.rotated(result, cx));
            }
            Event::Created { volume, result } => self.created(volume, result, now),
            Event::Wiped { volume, result } => self.wiped(volume, result, now),
            Event::Links(links) => self.session.links(links),
            Event::Probed { result, spent } => {
                self.work_rate.flushed(spent, now);
                self.probing.worked(result, spent, &self.identity, &self.store, now, &mut self.out);
            }
            Event::Read { ticket, result } => {
                if let Some(volume) = self.out.reader(ticket) {
                    self.with_volume(volume, now, |replica, cx| replica.read(ticket, result, cx));
                }
            }
        }
        self.take_in(now);
        if self.out.take_news_wanted() && self.arrivals.is_empty() {
            self.session.renew_soon();
        }
        for (store, took) in self.out.take_acknowledged() {
            self.probing.acknowledged(store, took, now);
        }
        if self.session.is_registered() {
            self.probing.begin(&self.identity, &self.view, &self.store, now, &mut self.out);
        }
        self.ask(now);
        if let Some((volume, job)) = self.scrubbing.begin(&self.volumes, &mut self.yielding, now) {
            self.out.push(Effect::Scrub { volume, job });
        }
        for (ticket, volume) in self.out.begin_reads(now) {
            self.with_volume(volume, now, |replica, cx| replica.read_late(ticket, cx));
        }
    }

    /// A stretch of a volume was read: what is damaged is mended like anything else.
    fn stretch_read(&mut self, volume: VolumeId, result: Result<Scrubbed, ScanError>, now: BootTime) {
        let held = self.volumes.values().map(|replica| replica.holding().log().bytes()).sum();
        let period = self.session.pace().scrub_every;
        let (Ok(scrubbed), true) = (&result, self.volumes.contains_key(&volume)) else {
            self.scrubbing.broken_off(now);
            // A volume that was wiped meanwhile reads as anything.
            return match result {
                Err(error) if self.volumes.contains_key(&volume) => self.out.fail_store(error),
                _ => {}
            };
        };
        self.scrubbing.read(volume, scrubbed.end, scrubbed.bytes, held, period, now);
        let mut faults = 0;
        self.with_volume(volume, now, |replica, cx| faults = replica.scrubbed(scrubbed, cx));
        self.scrubbing.found(faults);
    }

    /// When to call [`Self::step`] with [`Event::Wakeup`] at the latest.
    pub fn next_wakeup(&self) -> Option<BootTime> {
        if self.quarantine.is_some() {
            // Only the end of the reading goes on with anything, and it is its own event.
            return Some(self.last_step + QUARANTINE_TICK);
        }
        let session =
            self.statement.as_ref().map_or_else(|| self.session.next_wakeup(), Statement::next_wakeup);
        let soonest = self.wakeups.next().map_or(session, |volumes| volumes.min(session));
        let soonest = self.scrubbing.next_wakeup().map_or(soonest, |scrub| scrub.min(soonest));
        let probe = self.session.is_registered().then(|| self.probing.next_wakeup());
        let soonest = probe.map_or(soonest, |probe| probe.min(soonest));
        let soonest = if self.arrivals.is_empty() { soonest } else { self.last_step };
        Some(soonest.max(self.last_step + TICK))
    }

    /// Syncs every log that was compared where it had to be, and writes the proofs of a clean end. The shell
    /// calls this instead of any further step.
    pub fn shut_down(self) -> Result<(), trefoil_engine::superblock::SuperblockError> {
        if self.quarantine.is_some() {
            return Ok(()); // Nothing was written, and the mark stays.
        }
        let replicas = self.volumes.into_values().map(|replica| replica.into_holding());
        let holdings = replicas.chain(self.unconfigured.into_values());
        // A proof says that a log ends where it should: nobody can say that of one whose end is in doubt.
        let holdings = holdings.filter(Holding::is_verified);
        Volume::close_all(holdings.map(Holding::into_volume).collect())?;
        self.store.end_cleanly()
    }

    /// The replicas, for operators and tests.
    pub fn volumes(&self) -> &Replicas<D> {
        &self.volumes
    }

    /// Whether this node would answer "latest" of this volume at `now`: it is the primary, it serves
    /// and its lease covers the configuration it acts under.
    pub fn serves(&self, volume: VolumeId, now: BootTime) -> bool {
        let covered = |replica: &Replica<D>| self.lease.covers(replica.config(), now);
        self.volumes.get(&volume).is_some_and(|replica| replica.is_serving() && covered(replica))
    }

    /// How far the scrub of this node is.
    pub fn scrubbed(&self, now: BootTime) -> ScrubState {
        self.scrubbing.report(now)
    }

    /// What this node knows of the cluster.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The store.
    pub fn store(&self) -> &Store<D> {
        &self.store
    }

    fn context(&mut self, now: BootTime) -> (Context<'_, D>, &mut Replicas<D>) {
        let context = Context {
            now,
            identity: &self.identity,
            view: &self.view,
            lease: &self.lease,
            pace: self.session.pace(),
            flushes: self.flushes,
            work_rate: &self.work_rate,
            admission: &self.admission,
            yielding: &mut self.yielding,
            out: &mut self.out,
        };
        (context, &mut self.volumes)
    }

    fn with_volume(
        &mut self,
        volume: VolumeId,
        now: BootTime,
        act: impl FnOnce(&mut Replica<D>, &mut Context<'_, D>),
    ) {
        let (mut cx, volumes) = self.context(now);
        if let Some(replica) = volumes.get_mut(&volume) {
            act(replica, &mut cx);
            let (wakeup, due, stopped) =
                (replica.next_wakeup(), replica.due_at(cx.pace), replica.is_stopped());
            self.wakeups.set(volume, wakeup);
            self.due.set(volume, due);
            match stopped {
                true => self.stopped.insert(volume),
                false => self.stopped.remove(&volume),
            };
            self.touched.insert(volume);
        }
    }

    fn wake(&mut self, now: BootTime) {
        for volume in self.wakeups.due(now) {
            self.with_volume(volume, now, |replica, cx| replica.settle(cx));
        }
    }

    fn peer(&mut self, from: NodeId, message: PeerMessage, bulk: Bytes, now: BootTime) {
        let volume = message.volume;
        if !self.session.is_registered() {
            return;
        }
        if volume == NO_VOLUME {
            return self.probing.peer(from, message.body, bulk, &self.store, now, &mut self.out);
        }
        if message.body.is_for_clients() {
            self.yielding.clients_did(Work::one(bulk.len() as u64), now);
        }
        if self.volumes.contains_key(&volume) {
            return self.with_volume(volume, now, |replica, cx| replica.peer(from, message, bulk, cx));
        }
        // A store that was told and has no room for the volume is not one that will have it soon.
        let known = self.view.volumes.get(&volume).is_some_and(|known| known.epoch >= message.epoch);
        if known && !self.creating.contains(&volume) {
            return self.out.want_news();
        }
        self.context(now).0.not_told(from, &message);
    }

    fn synced(
        &mut self,
        volume: VolumeId,
        ticket: SyncTicket,
        result: &Result<(), SyncError>,
        now: BootTime,
    ) {
        self.flushes.ended(now);
        self.with_volume(volume, now, |replica, cx| replica.synced(ticket, result, cx));
    }
}

fn open_volumes<D: Disk>(
    store: &Store<D>,
    now: BootTime,
) -> Result<BTreeMap<VolumeId, Holding<D>>, StartError> {
    let volumes = store.volumes()?.into_iter();
    volumes.map(|owner| Ok((owner.volume, open_volume(store, owner, now)?))).collect()
}

fn open_volume<D: Disk>(store: &Store<D>, owner: Owner, now: BootTime) -> Result<Holding<D>, StartError> {
    let Owner { tenant, volume } = owner;
    let opened = store.open_volume(owner);
    let (opened, report) = opened.map_err(|error| StartError::Volume { tenant, volume, error })?;
    Ok(Holding::open(opened, &report, now))
}
