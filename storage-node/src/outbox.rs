//! Where the protocols of a node put what they want done, and what all of them may look at: the
//! time, the view, the lease, who this node is. Nobody but the dispatcher makes one.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use trefoil_engine::{Disk, ReadJob};
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{Incarnation, NodeId, StoreId, VolumeId};
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::message::peer::{PeerBody, PeerMessage};
use trefoil_protocol::message::tenant::{Refusal, TenantAnswer, TenantResponse};
use trefoil_protocol::sign::Signatory;
use trefoil_protocol::time::BootTime;

use crate::admission::Admission;
use crate::effect::{Effect, Fatal, Lane};
use crate::event::{ControlTicket, ReadTicket, RequestId};
use crate::flushes::Flushes;
use crate::lease::Lease;
use crate::pace::Pace;
use crate::read_queue::{ReadQueue, Reader, Turn};
use crate::view::View;
use crate::work_rate::WorkRate;
use crate::yielding::Yielding;

/// Who this node is, in this run.
#[derive(Debug)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its store.
    pub store: StoreId,
    /// The run; 0 before the control plane gave one.
    pub incarnation: Incarnation,
    /// The store's signing key.
    pub signatory: Signatory,
}

/// What every protocol may look at and write to during one step.
pub struct Context<'c, D: Disk> {
    /// The time of the step.
    pub now: BootTime,
    /// Who this node is.
    pub identity: &'c Identity,
    /// What it knows of the cluster.
    pub view: &'c View,
    /// Its lease.
    pub lease: &'c Lease,
    /// Its pace.
    pub pace: &'c Pace,
    /// What clients have under way.
    pub(crate) admission: &'c Admission,
    /// Who gets its disk.
    pub(crate) yielding: &'c mut Yielding,
    /// How its disk gets on,
    pub(crate) flushes: Flushes,
    /// and how much it has to do.
    pub(crate) work_rate: &'c WorkRate,
    /// Where effects go.
    pub out: &'c mut Outbox<D>,
}

/// What a step wants done, in order.
#[derive(Debug)]
pub struct Outbox<D: Disk> {
    effects: Vec<Effect<D>>,
    next_control: u64,
    salt_seed: [u8; 32],
    salts: u64,
    /// Which volume asked the control plane what.
    asked: BTreeMap<ControlTicket, VolumeId>,
    /// What volumes read.
    reads: ReadQueue<D>,
    /// Somebody speaks of a configuration that this node does not know.
    news_wanted: bool,
    /// How long members took to acknowledge records.
    acknowledged: Vec<(StoreId, Duration)>,
    /// How many requests' time was over before they were begun, in this run.
    late: u64,
}

impl<D: Disk> Outbox<D> {
    /// An empty one; `entropy` are secret random bytes that no other run shares.
    pub fn new(entropy: [u8; 32]) -> Self {
        Self {
            effects: Vec::new(),
            next_control: 1,
            salt_seed: entropy,
            salts: 0,
            asked: BTreeMap::new(),
            reads: ReadQueue::default(),
            news_wanted: false,
            acknowledged: Vec::new(),
            late: 0,
        }
    }

    /// Everything so far, in order.
    pub fn take(&mut self) -> Vec<Effect<D>> {
        std::mem::take(&mut self.effects)
    }

    /// Adds an effect.
    pub fn push(&mut self, effect: Effect<D>) {
        self.effects.push(effect);
    }

    /// Random bytes that nobody else has.
    pub fn salt(&mut self) -> [u8; 32] {
        self.salts += 1;
        let mut hasher = blake3::Hasher::new_keyed(&self.salt_seed);
        hasher.update(&self.salts.to_le_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Asks the control plane in the node's own name.
    pub fn ask(&mut self, request: ControlRequest) -> ControlTicket {
        let ticket = ControlTicket(self.next_control);
        self.next_control += 1;
        self.effects.push(Effect::Control { ticket, request });
        ticket
    }

    /// Asks the control plane for a volume, which hears the answer.
    pub fn ask_for(&mut self, volume: VolumeId, request: ControlRequest) -> ControlTicket {
        let ticket = self.ask(request);
        self.asked.insert(ticket, volume);
        ticket
    }

    /// Asks the same again under the same number, for a volume that has heard nothing.
    pub fn ask_again_for(&mut self, volume: VolumeId, ticket: ControlTicket, request: ControlRequest) {
        self.effects.push(Effect::Control { ticket, request });
        self.asked.insert(ticket, volume);
    }

    /// Who waits for an answer under this number.
    pub fn asker(&self, ticket: ControlTicket) -> Option<VolumeId> {
        self.asked.get(&ticket).copied()
    }

    /// The answer came: nobody waits for another one.
    pub fn answered(&mut self, ticket: ControlTicket) {
        self.asked.remove(&ticket);
    }

    /// Reads payload for a volume, which hears the outcome, or that nobody listened any more when its turn
    /// came.
    pub fn read_for(
        &mut self,
        volume: VolumeId,
        job: ReadJob<D>,
        reader: Reader,
        until: BootTime,
    ) -> ReadTicket {
        self.reads.add(volume, job, reader, until)
    }

    /// Who reads, once.
    pub fn reader(&mut self, ticket: ReadTicket) -> Option<VolumeId> {
        self.reads.ended(ticket)
    }

    /// Begins as many reads as there is room for; answers those that came too late.
    pub fn begin_reads(&mut self, now: BootTime) -> Vec<(ReadTicket, VolumeId)> {
        let mut dropped = Vec::new();
        while let Some(turn) = self.reads.turn(now) {
            match turn {
                Turn::Begin(ticket, job) => self.effects.push(Effect::Read { ticket, job }),
                Turn::Late(ticket, volume) => {
                    self.late += 1;
                    dropped.push((ticket, volume));
                }
            }
        }
        dropped
    }

    /// Ends a request with an answer.
    pub fn answer(&mut self, request: RequestId, answer: TenantAnswer) {
        self.respond(request, Ok(answer));
    }

    /// Ends a request with a refusal.
    pub fn refuse(&mut self, request: RequestId, refusal: Refusal) {
        self.respond(request, Err(refusal));
    }

    /// Ends a request that was not begun in its time.
    pub fn refuse_late(&mut self, request: RequestId) {
        self.late += 1;
        self.refuse(request, Refusal::Late);
    }

    /// How many were refused because their time was over.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Ends a request.
    pub fn respond(&mut self, request: RequestId, response: TenantResponse) {
        self.effects.push(Effect::Reply { request, response, bulk: Bytes::new(), last: true });
    }

    /// Ends the process: the store can no longer be believed.
    pub fn fail_store(&mut self, reason: impl ToString) {
        self.effects.push(Effect::Fatal(Fatal::Store(reason.to_string())));
    }

    /// Somebody speaks of a configuration that this node does not know: ask for news at once.
    pub fn want_news(&mut self) {
        self.news_wanted = true;
    }

    /// A member took so long to acknowledge a record.
    pub fn acknowledged(&mut self, store: StoreId, took: Duration) {
        self.acknowledged.push((store, took));
    }

    /// What members took since the last call.
    pub fn take_acknowledged(&mut self) -> Vec<(StoreId, Duration)> {
        std::mem::take(&mut self.acknowledged)
    }

    /// Whether news was wanted since the last call.
    pub fn take_news_wanted(&mut self) -> bool {
        std::mem::take(&mut self.news_wanted)
    }
}

impl<D: Disk> Context<'_, D> {
    /// Sends a peer message about a volume, under its current epoch.
    pub fn send(&mut self, config: &VolumeConfig, to: NodeId, lane: Lane, body: PeerBody, bulk: Vec<Bytes>) {
        let message = PeerMessage {
            tenant: config.tenant,
            volume: config.volume,
            epoch: config.epoch,
            store: self.identity.store,
            incarnation: self.identity.incarnation,
            body,
        };
        self.out.push(Effect::SendPeer { to, lane, message, bulk });
    }

    /// Sends a small peer message without bytes.
    pub fn tell(&mut self, config: &VolumeConfig, to: NodeId, body: PeerBody) {
        self.send(config, to, Lane::Log, body, Vec::new());
    }

    /// A node speaks of a configuration that this one does not know: it asks for news at once, and a primary
    /// hears that it is there.
    pub fn not_told(&mut self, from: NodeId, heard: &PeerMessage) {
        self.out.want_news();
        self.not_yet(from, heard);
    }

    /// A primary waits for a store that does not have the epoch yet: it hears that the store is there, unless
    /// the disk is stuck.
    pub fn not_yet(&mut self, from: NodeId, heard: &PeerMessage) {
        let waits = matches!(heard.body, PeerBody::Peer | PeerBody::Append { .. });
        if waits && self.flushes.move_on(self.now) {
            let (store, incarnation) = (self.identity.store, self.identity.incarnation);
            let message = PeerMessage { store, incarnation, body: PeerBody::NotYet, ..*heard };
            self.out.push(Effect::SendPeer { to: from, lane: Lane::Log, message, bulk: Vec::new() });
        }
    }

    /// The volume's primary waits for what the disk has not made durable yet: it hears that this store is there,
    /// if the disk has too much to do and gets on with it. A disk that is slow or stuck is no excuse.
    pub fn get_on(&mut self, config: &VolumeConfig) {
        let is_excused = self.work_rate.is_crowded(self.now) && self.flushes.move_on(self.now);
        if let Some(primary) = config.primary.filter(|_| is_excused) {
            self.tell(config, primary, PeerBody::NotYet);
        }
    }

    /// There is too much to do for a volume: nothing was begun.
    pub fn busy(&self, config: &VolumeConfig) -> Refusal {
        Refusal::Busy { retry_after: self.admission.retry_after(config.volume) }
    }

    /// Whether this node may answer for the volume now.
    pub fn leased(&self, config: &VolumeConfig) -> bool {
        self.lease.covers(config, self.now)
    }
}
