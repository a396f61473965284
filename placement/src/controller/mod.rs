//! What a leader does beyond applying commands: it listens to nodes, operators and tenants, watches
//! who is there, and turns what it sees into commands. Everything here is volatile and belongs to one
//! leadership; a new leader starts from the committed state and the worst assumptions.

pub(crate) mod admin;
mod attention;
mod backup;
mod balance;
mod council;
pub(crate) mod countersign;
pub(crate) mod failover;
pub(crate) mod grants;
mod handover;
mod health;
mod joint;
pub(crate) mod leaderless;
mod operations;
pub(crate) mod orders;
pub(crate) mod outbox;
mod outcome;
mod pace;
mod plan;
mod planner;
pub(crate) mod recruit;
mod steadiness;
mod stores;
pub(crate) mod watch;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};

use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::deletion::PurgeScope;
use trefoil_protocol::ids::{Epoch, NodeId, PrincipalId, StoreId, TenantId, VolumeId, VoterId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest, SlowStore};
use trefoil_protocol::message::control::{
    ControlAnswer, ControlRefusal, ControlRequest, PurgeClaim, PurgeEvidence, Renew,
};
use trefoil_protocol::message::refused::Override;
use trefoil_protocol::message::tenant::{Refusal, RouteView, TenantAnswer, TenantCall, TenantRequest};
use trefoil_protocol::sign::Signed64;
use trefoil_protocol::time::BootTime;

use crate::caution::Caution;
use crate::controller::admin::{Reported, Volatile, Wish};
use crate::controller::attention::Attention;
use crate::controller::backup::Backup;
use crate::controller::council::Council;
use crate::controller::countersign::Countersigning;
use crate::controller::failover::Evidence;
use crate::controller::grants::Grants;
use crate::controller::handover::Handovers;
use crate::controller::health::Health;
use crate::controller::orders::{check_epoch, draft_certificates, draft_order};
use crate::controller::outbox::{Outbox, Waiting};
use crate::controller::pace::Pace;
use crate::controller::steadiness::Steadiness;
use crate::controller::watch::{Told, Watches, news};
use crate::custodian::{Entropy, Keyring, new_tenant_key};
use crate::event::{Answer, Request, RequestId};
use crate::log::PeerProgress;
use crate::state::{Command, RefusalDraft, State, TenantRecord, VolumeRecord, WrappedKey};

/// The most requests that may wait for commits at once.
const WAITING_MAX: usize = 4096;

/// What one step hands to the controller.
pub(crate) struct Turn<'a> {
    pub(crate) now: BootTime,
    pub(crate) state: &'a State,
    /// A witness has none.
    pub(crate) keyring: Option<&'a Keyring>,
    pub(crate) entropy: &'a mut dyn Entropy,
    pub(crate) voter: VoterId,
    pub(crate) peers: &'a dyn Fn() -> Vec<PeerProgress>,
    pub(crate) out: &'a mut Outbox,
}

/// What a leader answers only after a quorum said, later than the question, that it leads.
enum Confirming {
    /// A node's lease goes on.
    Renewal(RequestId, NodeId, Renew),
    /// An operator looks at the state.
    Look(RequestId, AdminRequest),
}

/// A leader's volatile side.
pub(crate) struct Controller {
    grants: Grants,
    evidence: BTreeMap<VolumeId, Evidence>,
    reported: Reported,
    watches: Watches,
    attention: Attention,
    /// What waits for a quorum to confirm that this leader still leads, by round.
    rounds: BTreeMap<u64, Confirming>,
    last_round: u64,
    /// Volumes and nodes with a proposal of the controller's own under way.
    busy_volumes: BTreeSet<VolumeId>,
    busy_nodes: BTreeSet<NodeId>,
    /// Stores not to be recruited for a volume again before the given time.
    shunned: BTreeMap<(VolumeId, StoreId), BootTime>,
    handovers: Handovers,
    council: Council,
    countersigning: Countersigning,
    pace: Pace,
    caution: Caution,
    steadiness: Steadiness,
    health: Health,
    backup: Backup,
    /// Since when a volume that is down could come up without all of its members.
    returning: BTreeMap<VolumeId, BootTime>,
    last_tick: Option<BootTime>,
    tick_under_way: bool,
    next_scan: BootTime,
    dirty: bool,
}

impl Controller {
    /// A leadership begins: assume that every node has just renewed and was just granted.
    pub(crate) fn new(state: &State, caution: Caution, now: BootTime) -> Self {
        let nodes = state.topology.nodes().map(|record| record.entry.node);
        Self {
            grants: Grants::assume_all(nodes, now),
            evidence: BTreeMap::new(),
            reported: Reported::default(),
            watches: Watches::default(),
            attention: Attention::default(),
            rounds: BTreeMap::new(),
            last_round: 0,
            busy_volumes: BTreeSet::new(),
            busy_nodes: BTreeSet::new(),
            shunned: BTreeMap::new(),
            handovers: Handovers::default(),
            council: Council::default(),
            countersigning: Countersigning::default(),
            pace: Pace::default(),
            caution,
            steadiness: Steadiness::default(),
            health: Health::default(),
            backup: Backup::default(),
            returning: BTreeMap::new(),
            last_tick: None,
            tick_under_way: false,
            next_scan: now,
            dirty: true,
        }
    }

    /// Takes a request; the answer comes now or with a commit.
    pub(crate) fn request(&mut self, turn: &mut Turn<'_>, id: RequestId, request: Request) {
        if turn.out.waiting() >= WAITING_MAX {
            return turn.out.answer(id, not_leading(&request));
        }
        match request {
            Request::Control(node, request) => {
                if let Some(answer) = self.control(turn, id, node, request) {
                    turn.out.answer(id, Answer::Control(answer));
                }
            }
            Request::Admin(
                _,
                request @ (AdminRequest::Status { .. }
                | AdminRequest::ListTenants
                | AdminRequest::Progress
                | AdminRequest::LossList { .. }
                | AdminRequest::LostVersions { .. }
                | AdminRequest::Proposals
                | AdminRequest::Refusals),
            ) => {
                self.confirm(turn, Confirming::Look(id, request));
            }
            Request::Admin(by, AdminRequest::Propose { action, reason }) => {
                turn.out.propose(joint::propose(turn.state, by, action, reason), Waiting::Admin(id));
            }
            Request::Admin(_, AdminRequest::Backup { offset }) => {
                let answer = self.backup.part(turn, offset);
                turn.out.answer(id, Answer::Admin(answer));
            }
            Request::Admin(by, AdminRequest::BeginRefused { begins, without, reason, why }) => {
                let what = Override::Begin { begins, without };
                let draft = RefusalDraft { by, what, reason, why };
                turn.out.propose(Command::NoteRefused(draft), Waiting::Admin(id));
            }
            Request::Admin(by, AdminRequest::Approve { number }) => {
                turn.out.propose(Command::Approve(number, by), Waiting::Admin(id));
            }
            Request::Admin(_, request) => self.admin(turn, id, &request),
            Request::Tenant(tenant, principal, request) => {
                self.tenant(turn, id, tenant, principal, &request);
            }
        }
    }

    /// Another voter signed what this one asked it to.
    pub(crate) fn signed(&mut self, turn: &mut Turn<'_>, number: u64, signatures: Vec<Signed64>) {
        self.countersigning.signed(turn, number, signatures);
    }

    /// A process that is no voter waits to be added.
    pub(crate) fn offers(&mut self, entry: VoterEntry, now: BootTime) {
        self.council.offers(entry, now);
    }

    /// Whoever asked is gone.
    pub(crate) fn gone(&mut self, id: RequestId) {
        self.watches.forget(id);
    }

    /// The leadership is over: nothing more will come of what waits here.
    pub(crate) fn resign(mut self, out: &mut Outbox) {
        for confirming in self.rounds.into_values() {
            match confirming {
                Confirming::Renewal(id, ..) => out.answer(id, not_the_leader()),
                Confirming::Look(id, _) => {
                    out.answer(id, Answer::Admin(AdminAnswer::NotLeader { leader: None }));
                }
            }
        }
        self.countersigning.give_up(out);
        for id in self.watches.take_all() {
            out.answer(id, not_the_leader());
        }
    }

    /// The log did not take what the controller proposed of its own accord: it may do so again.
    pub(crate) fn not_taken(&mut self, waiting: Waiting) {
        match waiting {
            Waiting::Volume(volume) => {
                self.busy_volumes.remove(&volume);
                self.attention.note(volume);
            }
            Waiting::Node(node) => drop(self.busy_nodes.remove(&node)),
            Waiting::Tick => self.tick_under_way = false,
            Waiting::Council => self.council.is_free(),
            _ => {}
        }
    }

    fn control(
        &mut self,
        turn: &mut Turn<'_>,
        id: RequestId,
        node: NodeId,
        request: ControlRequest,
    ) -> Option<ControlAnswer> {
        let answered = match request {
            ControlRequest::Register(register) if register.node != node => Err(ControlRefusal::Denied(
                format!("the certificate says {node}, the request says {}", register.node),
            )),
            ControlRequest::Register(register) => {
                turn.out.propose(Command::Register(register), Waiting::Register(id, node));
                Ok(None)
            }
            ControlRequest::Verifying { read, held } => {
                self.reported.stores().verifying(node, read, held, turn.now);
                Ok(Some(ControlAnswer::Done))
            }
            request => self.registered_node_asks(turn, id, node, request),
        };
        answered.unwrap_or_else(|refusal| Some(ControlAnswer::Refused(refusal)))
    }

    fn registered_node_asks(
        &mut self,
        turn: &mut Turn<'_>,
        id: RequestId,
        node: NodeId,
        request: ControlRequest,
    ) -> Result<Option<ControlAnswer>, ControlRefusal> {
        let entry = turn.state.topology.node(node).ok_or(ControlRefusal::Unregistered)?;
        if turn.state.topology.is_fenced(entry.store) {
            return Err(ControlRefusal::Denied("the store is fenced for ever".to_owned()));
        }
        if let ControlRequest::Holdings(said) = request {
            if (said.store, said.incarnation) != (entry.store, entry.incarnation) {
                return Err(ControlRefusal::Unregistered);
            }
            turn.out.propose(Command::Holdings(said), Waiting::Control(id));
            return Ok(None);
        }
        if turn.state.must_speak(entry.store) {
            return Err(ControlRefusal::Unregistered);
        }
        if let ControlRequest::Renew(renew) = request {
            return self.renew(turn, id, node, renew).map(|()| None);
        }
        // Until it has renewed, a run may not even have its number on disk.
        if turn.state.topology.is_unconfirmed(entry) {
            return Err(ControlRefusal::NotYet);
        }
        match request {
            ControlRequest::Watch { applied, partly } => {
                let told = Told { index: applied, partly };
                if let Some(older) = self.watches.wait(node, id, told, turn.now) {
                    let news = news(turn.state, node, told);
                    turn.out.answer(older, Answer::Control(ControlAnswer::News(news)));
                }
                Ok(None)
            }
            ControlRequest::Retired { volume, store, epoch } if store == entry.store => {
                turn.out.propose(Command::Retired(volume, store, epoch), Waiting::Control(id));
                Ok(None)
            }
            ControlRequest::Differs(page) if page.store == entry.store => {
                turn.out.propose(Command::Differs(page), Waiting::Differs(id));
                Ok(None)
            }
            ControlRequest::Retired { .. } | ControlRequest::Differs(_) => {
                Err(ControlRefusal::Denied("a node speaks for its own store only".to_owned()))
            }
            request => self.primary_reports(turn, id, node, request),
        }
    }

    fn renew(
        &mut self,
        turn: &mut Turn<'_>,
        id: RequestId,
        node: NodeId,
        renew: Renew,
    ) -> Result<(), ControlRefusal> {
        let entry = turn.state.topology.node(node).ok_or(ControlRefusal::Unregistered)?;
        if (entry.store, entry.incarnation) != (renew.store, renew.incarnation) {
            return Err(ControlRefusal::Unregistered);
        }
        if renew.applied > turn.state.applied {
            return Err(ControlRefusal::Denied("the node knows more than the control plane".to_owned()));
        }
        self.grants.heard(node, renew.applied, turn.now);
        self.reported.note(turn.state, node, &renew);
        self.health.heard(node, &renew.timings, turn.now);
        let absent = entry.state != trefoil_protocol::config::NodeState::Up;
        if absent || turn.state.topology.is_unconfirmed(entry) {
            let command = Command::NodeUp(node, renew.incarnation);
            turn.out.propose(command, Waiting::Renew(id, node, renew));
        } else {
            self.confirm_then_grant(turn, id, node, renew);
        }
        Ok(())
    }

    /// A lease goes on only after a quorum said, later than the request, that this leader leads.
    fn confirm_then_grant(&mut self, turn: &mut Turn<'_>, id: RequestId, node: NodeId, renew: Renew) {
        self.confirm(turn, Confirming::Renewal(id, node, renew));
    }

    fn confirm(&mut self, turn: &mut Turn<'_>, confirming: Confirming) {
        self.last_round += 1;
        self.rounds.insert(self.last_round, confirming);
        turn.out.confirm(self.last_round);
    }

    /// A quorum confirmed a round: what waited for it or an earlier one is answered.
    pub(crate) fn confirmed(&mut self, turn: &mut Turn<'_>, round: u64) {
        let later = self.rounds.split_off(&(round + 1));
        for confirming in std::mem::replace(&mut self.rounds, later).into_values() {
            match confirming {
                Confirming::Renewal(id, node, renew) => {
                    let answer = self.grant(turn, node, &renew);
                    turn.out.answer(id, Answer::Control(answer));
                }
                Confirming::Look(id, request) => self.admin(turn, id, &request),
            }
        }
    }

    fn grant(&mut self, turn: &Turn<'_>, node: NodeId, renew: &Renew) -> ControlAnswer {
        let entry = turn.state.topology.node(node);
        let same_run = entry.is_some_and(|e| (e.store, e.incarnation) == (renew.store, renew.incarnation));
        if !same_run || turn.state.topology.is_fenced(renew.store) {
            return ControlAnswer::Refused(ControlRefusal::Unregistered);
        }
        self.grants.granted(node, turn.now);
        ControlAnswer::Granted {
            sent: renew.sent,
            covers: renew.applied,
            news: news(turn.state, node, Told::up_to(renew.applied)),
        }
    }

    fn primary_reports(
        &mut self,
        turn: &mut Turn<'_>,
        id: RequestId,
        node: NodeId,
        request: ControlRequest,
    ) -> Result<Option<ControlAnswer>, ControlRefusal> {
        let led = |volume, epoch| led_by(turn.state, node, volume, epoch);
        match request {
            ControlRequest::Ready { volume, epoch, committed } => {
                led(volume, epoch)?;
                self.evidence(volume, epoch).ready = Some(committed);
            }
            ControlRequest::Note(note) => {
                led(note.volume, note.epoch)?;
                turn.out.propose(Command::Note(note), Waiting::Note(id));
                return Ok(None);
            }
            ControlRequest::Lagging { volume, epoch, stores } => {
                let record = led(volume, epoch)?;
                let own = record.config.primary_member().map(|member| member.store);
                let others: Vec<StoreId> = stores.into_iter().filter(|store| Some(*store) != own).collect();
                let doubted = others.iter().filter_map(|store| record.config.member_of_store(*store));
                doubted.for_each(|member| self.steadiness.doubt(member.node));
                self.evidence(volume, epoch).lagging.extend(others);
            }
            ControlRequest::Complete { volume, epoch, store } => {
                led(volume, epoch)?;
                let evidence = self.evidence(volume, epoch);
                evidence.complete.insert(store);
                // Whoever was slow has caught up.
                evidence.lagging.remove(&store);
            }
            ControlRequest::Unfit { volume, epoch, better } => {
                led(volume, epoch)?;
                self.evidence(volume, epoch).better = Some(better);
            }
            ControlRequest::Restored { volume, epoch, last_single_dc, persisted } => {
                led(volume, epoch)?;
                if persisted < last_single_dc {
                    return Err(ControlRefusal::NotYet);
                }
                self.evidence(volume, epoch).restored = true;
            }
            ControlRequest::Yield { volume, epoch, stopped_for } => {
                let record = led(volume, epoch)?;
                if record.config.handover.is_none() {
                    return Err(ControlRefusal::NotYet);
                }
                self.handovers.stopped(volume, epoch, stopped_for, turn.now);
                self.evidence(volume, epoch).yielded = true;
            }
            ControlRequest::Replay { volume, epoch, from } => {
                let (changes, last) = led(volume, epoch)?.replay(from);
                return Ok(Some(ControlAnswer::Replay { from, changes, last }));
            }
            ControlRequest::Replayed { volume, epoch } => {
                led(volume, epoch)?;
                turn.out.propose(Command::Replayed(volume, epoch), Waiting::Control(id));
                return Ok(None);
            }
            ControlRequest::RequestPurge { volume, epoch, scope, claims } => {
                let record = led(volume, epoch)?;
                return self.purge(turn, id, record, scope, &claims);
            }
            ControlRequest::Certify { volume, epoch, evidence } => {
                let record = led(volume, epoch)?;
                return certify(turn, id, record, evidence);
            }
            ControlRequest::Register(_)
            | ControlRequest::Renew(_)
            | ControlRequest::Holdings(_)
            | ControlRequest::Watch { .. }
            | ControlRequest::Retired { .. }
            | ControlRequest::Differs(_)
            | ControlRequest::Verifying { .. } => unreachable!("taken by the callers"),
        }
        self.dirty = true;
        Ok(Some(ControlAnswer::Done))
    }

    fn purge(
        &mut self,
        turn: &mut Turn<'_>,
        id: RequestId,
        record: &VolumeRecord,
        scope: PurgeScope,
        claims: &[PurgeClaim],
    ) -> Result<Option<ControlAnswer>, ControlRefusal> {
        // While the witness leads, purges wait: it holds no key to sign with.
        if turn.keyring.is_none() || !record.config.activated {
            return Err(ControlRefusal::NotYet);
        }
        let draft = draft_order(turn.state, record, scope, claims)?;
        match turn.state.deletions.order_for(draft.volume, scope, draft.items) {
            Some(order) => self.countersigning.order(turn, id, order.clone()),
            None => turn.out.propose(Command::IssueOrder(draft), Waiting::Order(id)),
        }
        Ok(None)
    }

    fn evidence(&mut self, volume: VolumeId, epoch: Epoch) -> &mut Evidence {
        self.attention.note(volume);
        let evidence = self.evidence.entry(volume).or_default();
        if evidence.epoch != epoch {
            *evidence = Evidence { epoch, ..Evidence::default() };
        }
        evidence
    }

    fn admin(&mut self, turn: &mut Turn<'_>, id: RequestId, request: &AdminRequest) {
        if let AdminRequest::LossList { volume, epoch } = request {
            return joint::sign_loss(turn, &mut self.countersigning, id, *volume, *epoch);
        }
        let progress = self.progress(turn.state);
        let slow = self.slow_stores(turn.state, turn.now);
        match admin::weigh(turn, &self.reported, Volatile { progress, slow }, request) {
            Wish::Plan(verb) => self.make_plan(turn, id, verb),
            Wish::Answer(answer) => turn.out.answer(id, Answer::Admin(answer)),
            Wish::Command(command) => turn.out.propose(command, Waiting::Admin(id)),
        }
    }

    /// The stores that were put out because they are slow.
    pub(crate) fn slow_stores(&self, state: &State, now: BootTime) -> Vec<SlowStore> {
        self.health.view(state.topology.nodes().map(|record| &record.entry), now)
    }

    fn tenant(
        &mut self,
        turn: &mut Turn<'_>,
        id: RequestId,
        tenant: TenantId,
        principal: PrincipalId,
        request: &TenantRequest,
    ) {
        let known = turn.state.tenants.get(tenant).filter(|record| record.has_principal(principal));
        let response = match (known, &request.call) {
            (None, _) => Err(Refusal::Stranger),
            (Some(record), TenantCall::Route) => Ok(route(turn.state, record, principal)),
            (Some(record), TenantCall::Keys) => {
                let Some(keyring) = turn.keyring else {
                    return turn.out.answer(id, Answer::Tenant(Err(Refusal::Unavailable)));
                };
                let fresh = record.is_used_up().then(|| {
                    let version = record.next_key();
                    let key = new_tenant_key(turn.entropy);
                    let wrapped = keyring.master.wrap(tenant, version, &key, turn.entropy);
                    WrappedKey { version, wrapped }
                });
                turn.out.propose(Command::ReserveNonces(tenant, fresh), Waiting::Keys(id, tenant));
                return;
            }
            (Some(_), TenantCall::KeysToRead) => outcome::keys_to_read(turn.state, turn.keyring, tenant),
            (Some(_), _) => Err(Refusal::Invalid("objects are held by storage nodes".to_owned())),
        };
        turn.out.answer(id, Answer::Tenant(response));
    }
}

/// The volume, if `node` is its primary under `epoch`.
fn led_by(
    state: &State,
    node: NodeId,
    volume: VolumeId,
    epoch: Epoch,
) -> Result<&VolumeRecord, ControlRefusal> {
    let record = state.volumes.get(volume);
    let record = record.ok_or_else(|| ControlRefusal::Denied("no such volume".to_owned()))?;
    check_epoch(record, epoch)?;
    if record.config.primary != Some(node) {
        return Err(ControlRefusal::StaleEpoch(record.config.epoch));
    }
    Ok(record)
}

fn certify(
    turn: &mut Turn<'_>,
    id: RequestId,
    record: &VolumeRecord,
    evidence: Vec<PurgeEvidence>,
) -> Result<Option<ControlAnswer>, ControlRefusal> {
    if turn.keyring.is_none() {
        return Err(ControlRefusal::NotYet);
    }
    let draft = draft_certificates(turn.state, record, &evidence)?;
    turn.out.propose(Command::Certify(draft), Waiting::Certify(id, record.config.volume, evidence));
    Ok(None)
}

fn route(state: &State, record: &TenantRecord, principal: PrincipalId) -> TenantAnswer {
    let own = state.volumes.all().filter(|volume| volume.config.tenant == record.entry.tenant);
    let mut volumes: Vec<_> = own.map(|volume| volume.config.clone()).collect();
    volumes.sort_by_key(|config| config.slot);
    let holders: BTreeSet<NodeId> =
        volumes.iter().flat_map(|config| config.members.iter().map(|member| member.node)).collect();
    let nodes = state.topology.nodes().map(|record| &record.entry);
    TenantAnswer::Route(RouteView {
        tenant: record.entry.clone(),
        volumes,
        nodes: nodes.filter(|entry| holders.contains(&entry.node)).cloned().collect(),
        now: state.clock.now(),
        principal,
        voters: state.voters.leaders().filter(|entry| !entry.witness).copied().collect(),
    })
}

/// What somebody hears who asks a voter that does not lead, or one that has too much to do.
pub(crate) fn not_leading(request: &Request) -> Answer {
    match request {
        Request::Control(..) => not_the_leader(),
        Request::Admin(..) => Answer::Admin(AdminAnswer::NotLeader { leader: None }),
        Request::Tenant(..) => Answer::Tenant(Err(Refusal::Unavailable)),
    }
}

fn not_the_leader() -> Answer {
    Answer::Control(ControlAnswer::Refused(ControlRefusal::NotLeader { leader: None }))
}
