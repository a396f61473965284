//! The facade over log, state and controller: one `step` that the shell and the simulator drive.

use std::collections::BTreeSet;
use std::time::Duration;

use minicbor::{Decode, Encode};
use trefoil_protocol::codec;
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::{ConfigIndex, Hash, VoterId};
use trefoil_protocol::message::admin::{AdminAnswer, SlowStore};
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal};
use trefoil_protocol::message::voter::{Papers, VoterBody, VoterMessage};
use trefoil_protocol::time::BootTime;

use crate::caution::Caution;
use crate::controller::countersign::countersign;
use crate::controller::leaderless;
use crate::controller::outbox::{Outbox, Waiting};
use crate::controller::{Controller, Turn, not_leading};
use crate::custodian::{Entropy, Keyring};
use crate::event::{Answer, Effect, Event, Request, RequestId};
use crate::log::{Committed, ControlLog, Founding};
use crate::log_store::{LogStore, LogStoreError};
use crate::raft_log::RaftLog;
use crate::state::{Command, Outcome, State, Voters};

/// How much time one tick of the log is.
const LOG_TICK: Duration = Duration::from_millis(100);

/// The most ticks made up for after a pause; the rest of the pause is forgotten.
const LOG_TICKS_MAX: u32 = 3;

/// After how many entries a log is compacted, unless somebody wants it otherwise.
pub const COMPACT_AFTER: usize = 4096;

/// How often a voter that the log does not know yet says who it is.
const INTRODUCE_EVERY: Duration = Duration::from_millis(500);

/// Why a voter ends that is known by another copy of the log than its own.
const LOG_LOST: &str = "this voter's copy of the log was lost, and with it what it promised: remove the voter \
                        and add one under another name";

/// Why a voter ends that was removed.
const RETIRED: &str = "this process was removed from the voters of the cluster: its name is never used again; a new \
                       voter needs another one";

/// Why a voter ends whose configuration is not what was agreed on.
const OTHER_ROLE: &str = "the log says of this voter that it is a witness, its configuration that it holds keys, or \
                          the other way round";

/// Why a voter ends whose keys are others.
const OTHER_KEYS: &str = "the master keys of this voter are not those of the other voters: put the key file of one that \
                          works in its place";

/// Why a voter ends that would found another cluster.
const OTHER_FOUNDERS: &str = "most other voters were given another list of voters: the same \
                              `[[voters]]` must stand in the configuration of all that found a cluster";

/// How a log that is not there yet begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beginning {
    /// With a new cluster: the voters of the settings found it.
    #[default]
    Found,
    /// With what the leader sends, once operators have added this voter.
    Join,
}

/// What a control-plane process must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's name; written into the state when the cluster is made.
    pub cluster: String,
    /// This voter.
    pub voter: VoterId,
    /// This voter and all others, when the cluster is made or when it joins; later the log decides.
    pub voters: Vec<VoterEntry>,
    /// How its log begins.
    pub beginning: Beginning,
    /// The log is compacted when it has more entries than this.
    pub compact_after: usize,
    /// How sure it wants to be before it changes what works.
    pub caution: Caution,
}

/// Why the control plane cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The log could not be read or begun.
    #[error(transparent)]
    Log(#[from] LogStoreError),
    /// The process is no voter, or holds keys as a witness, or none as another one.
    #[error("this process is no {0} of the cluster's log")]
    Role(&'static str),
    /// The log belongs to another cluster.
    #[error("the log belongs to cluster `{found}`, not to `{expected}`")]
    Cluster {
        /// What the settings say.
        expected: String,
        /// What the log says.
        found: String,
    },
}

/// A command as it stands in the log.
#[derive(Encode, Decode)]
pub(crate) struct Envelope {
    /// Who proposed it.
    #[n(0)]
    voter: u64,
    /// The proposer's number for it.
    #[n(1)]
    sequence: u64,
    #[n(2)]
    pub(crate) command: Command,
}

/// One control-plane process.
pub struct Placement<S> {
    voter: VoterId,
    compact_after: usize,
    caution: Caution,
    keyring: Option<Keyring>,
    entropy: Box<dyn Entropy + Send>,
    log: RaftLog<S>,
    state: State,
    controller: Option<(u64, Controller)>,
    out: Outbox,
    next_log_tick: BootTime,
    next_introduction: BootTime,
    /// Who this is, if it waits to be added.
    joins: Option<VoterEntry>,
    /// What was said to other voters besides Raft's messages.
    said: Vec<(VoterId, VoterBody)>,
    failed: Option<String>,
    /// Voters that were given another list of founders.
    strangers: BTreeSet<VoterId>,
}

impl<S: LogStore> Placement<S> {
    /// Opens the log, making the cluster if the log is new. A witness has no keyring. Nothing is said
    /// before the first step.
    ///
    /// # Errors
    /// When the log cannot be read, or is another cluster's.
    pub fn open(
        settings: Settings,
        keyring: Option<Keyring>,
        store: S,
        mut entropy: Box<dyn Entropy + Send>,
        now: BootTime,
    ) -> Result<Self, OpenError> {
        let own = settings.voters.iter().find(|entry| entry.voter == settings.voter).copied();
        match own.map(|entry| entry.witness) {
            Some(witness) if witness == keyring.is_none() => {}
            Some(true) => return Err(OpenError::Role("voter with keys, but a witness")),
            Some(false) => return Err(OpenError::Role("witness, but a voter with keys")),
            None => return Err(OpenError::Role("voter")),
        }
        let founding = || founding(&settings);
        let (log, snapshot) = RaftLog::open(settings.voter, store, founding, entropy.as_mut())?;
        let state = restore(&snapshot.data)?;
        if state.cluster != settings.cluster {
            return Err(OpenError::Cluster { expected: settings.cluster, found: state.cluster });
        }
        Ok(Self {
            voter: settings.voter,
            compact_after: settings.compact_after,
            caution: settings.caution,
            keyring,
            entropy,
            log,
            state,
            controller: None,
            out: Outbox::default(),
            next_log_tick: now,
            next_introduction: now,
            joins: own.filter(|_| settings.beginning == Beginning::Join),
            said: Vec::new(),
            failed: None,
            strangers: BTreeSet::new(),
        })
    }

    /// Takes one event and says what is to be done. Whatever an effect reports is durable already.
    /// After [`Effect::Fatal`] every further step says nothing.
    pub fn step(&mut self, now: BootTime, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.failed.is_some() {
            return effects;
        }
        self.take(now, event);
        self.tick(now);
        if let Err(error) = self.settle(now, &mut effects) {
            self.failed = Some(error.to_string());
        }
        if let Some(reason) = &self.failed {
            // Nobody hears anything that may not be durable.
            return vec![Effect::Fatal(reason.clone())];
        }
        self.said.append(&mut self.out.said);
        for (to, body) in std::mem::take(&mut self.said) {
            effects.push(self.addressed(to, body));
        }
        let leader = self.leader();
        let answers = self.out.answers.drain(..);
        effects.extend(answers.map(|(id, answer)| Effect::Answer(id, with_hint(answer, leader))));
        effects
    }

    /// When the next [`Event::Wakeup`] is due at the latest.
    pub fn next_wakeup(&self) -> Option<BootTime> {
        let planned = self.controller.as_ref().map(|(_, controller)| controller.next_wakeup());
        let next = planned.map_or(self.next_log_tick, |planned| planned.min(self.next_log_tick));
        self.failed.is_none().then_some(next)
    }

    /// What is committed, as far as this voter knows.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether this voter leads.
    pub fn leads(&self) -> bool {
        self.controller.is_some()
    }

    /// The term that this voter leads in, if it does.
    pub fn leads_in(&self) -> Option<u64> {
        self.controller.as_ref().map(|(term, _)| *term)
    }

    /// Who leads, as far as this voter knows.
    pub fn leader(&self) -> Option<VoterEntry> {
        self.state.voters.get(self.log.leader()?).map(|record| record.entry)
    }

    /// The voter.
    pub fn voter(&self) -> VoterId {
        self.voter
    }

    /// The stores that this voter, as leader, put out because they are slow.
    pub fn slow_stores(&self, now: BootTime) -> Vec<SlowStore> {
        let controller = self.controller.as_ref().map(|(_, controller)| controller);
        controller.map_or_else(Vec::new, |controller| controller.slow_stores(&self.state, now))
    }

    /// The log's store, for faults that the simulator plans.
    pub fn store_mut(&mut self) -> &mut S {
        self.log.store_mut()
    }

    /// Gives the log's store back; everything volatile is lost.
    pub fn into_store(self) -> S {
        self.log.into_store()
    }

    fn take(&mut self, now: BootTime, event: Event) {
        match event {
            Event::Request(id, request) => self.request(now, id, request),
            Event::Gone(id) => {
                if let Some((_, controller)) = &mut self.controller {
                    controller.gone(id);
                }
            }
            Event::Voter(from, message) => self.hear(now, from, *message),
            Event::Wakeup => {}
        }
    }

    /// Takes what another voter says, if it is meant for this one and comes from the copy of the log
    /// that the voter is known by.
    fn hear(&mut self, now: BootTime, from: VoterId, message: VoterMessage) {
        if message.to != self.voter || !self.has_the_founders_of(from, &message) {
            return;
        }
        if message.body == VoterBody::Retired {
            // A voter that left keeps its certificate; what it says of others counts for nothing.
            if self.state.voters.get(from).is_some() {
                self.failed = Some(RETIRED.to_owned());
            }
            return;
        }
        if let VoterBody::Offer(entry) = message.body {
            return self.consider(now, from, entry);
        }
        if self.state.voters.is_retired(from) {
            self.said.push((from, VoterBody::Retired));
            return;
        }
        if self.state.voters.get(from).is_none() {
            return;
        }
        if message.to_log.is_some_and(|log| log != self.log.log_id()) {
            self.failed = Some(LOG_LOST.to_owned());
            return;
        }
        if self.state.voters.log_of(from).is_some_and(|log| log != message.log) {
            return;
        }
        match message.body {
            VoterBody::Raft(said) => self.log.receive(from, said),
            VoterBody::Introduce { key, shared } => {
                let command = Command::IntroduceVoter(from, message.log, key, shared);
                self.with_controller(now, |_, turn| turn.out.propose(command, Waiting::Nobody));
            }
            VoterBody::AskSign { number, applied, papers } => {
                self.countersign(from, number, applied, &papers)
            }
            VoterBody::Signed { number, signatures } => {
                self.with_controller(now, |controller, turn| controller.signed(turn, number, signatures));
            }
            VoterBody::Retired | VoterBody::Offer(_) => unreachable!("taken above"),
        }
    }

    /// Whether the sender's cluster was founded by the same voters as this one's. A voter that is not
    /// settled yet ends when most of the others say that it was not.
    fn has_the_founders_of(&mut self, from: VoterId, message: &VoterMessage) -> bool {
        let own = self.state.voters.founded_by();
        if message.founding == own || [message.founding, own].contains(&Hash::ZERO) {
            return true;
        }
        let is_settled = self.state.voters.log_of(self.voter).is_some();
        self.strangers.insert(from);
        if !is_settled && 2 * self.strangers.len() > self.state.voters.all().count() {
            self.failed = Some(OTHER_FOUNDERS.to_owned());
        }
        false
    }

    /// Signs what the leader signed if this voter's own state says that it is right. Behind the leader
    /// it says nothing: it is asked again.
    fn countersign(&mut self, from: VoterId, number: u64, applied: ConfigIndex, papers: &Papers) {
        let Some(keyring) = self.keyring.as_ref().filter(|_| self.state.applied >= applied) else { return };
        if let Some(signatures) = countersign(&self.state, papers, &keyring.signatory) {
            self.said.push((from, VoterBody::Signed { number, signatures }));
        }
    }

    /// A process that is no member waits to be added, or must hear that it never will be.
    fn consider(&mut self, now: BootTime, from: VoterId, entry: VoterEntry) {
        if entry.voter != from || VoterId::of(entry.name) != from {
            return;
        }
        if self.state.voters.is_retired(from) {
            self.said.push((from, VoterBody::Retired));
        }
        self.with_controller(now, |controller, _| controller.offers(entry, now));
    }

    /// Says to everybody known, while this voter waits to be added, that it does.
    fn offer_itself(&mut self, now: BootTime) {
        let Some(entry) = self.joins.filter(|_| self.state.voters.get(self.voter).is_none()) else { return };
        if now >= self.next_introduction {
            self.next_introduction = now + INTRODUCE_EVERY;
            let others = self.state.voters.all().map(|record| record.entry.voter);
            self.said.extend(others.map(|voter| (voter, VoterBody::Offer(entry))));
        }
    }

    /// Says to the leader who this is, until it is in the log.
    fn introduce(&mut self, now: BootTime) {
        let is_known = self.state.voters.log_of(self.voter).is_some();
        let Some(leader) = self.log.leader().filter(|_| !is_known && now >= self.next_introduction) else {
            return;
        };
        self.next_introduction = now + INTRODUCE_EVERY;
        let key = self.keyring.as_ref().map(|keyring| keyring.signatory.public());
        let shared = self.keyring.as_ref().map(|keyring| keyring.master.fingerprint());
        let command = Command::IntroduceVoter(self.voter, self.log.log_id(), key, shared);
        let leads = self.with_controller(now, |_, turn| turn.out.propose(command, Waiting::Nobody));
        if leads.is_none() && leader != self.voter {
            self.said.push((leader, VoterBody::Introduce { key, shared }));
        }
    }

    fn addressed(&self, to: VoterId, body: VoterBody) -> Effect {
        let (log, to_log) = (self.log.log_id(), self.state.voters.log_of(to));
        let founding = self.state.voters.founded_by();
        Effect::Send(to, Box::new(VoterMessage { to, log, to_log, body, founding }))
    }

    fn request(&mut self, now: BootTime, id: RequestId, request: Request) {
        let led = self.with_controller(now, |controller, turn| controller.request(turn, id, request.clone()));
        if led.is_none() {
            let told = match self.log.leader() {
                None => leaderless::answer(&self.state, self.keyring.as_ref(), &request),
                Some(_) => None,
            };
            self.out.answer(id, told.unwrap_or_else(|| not_leading(&request)));
        }
    }

    fn tick(&mut self, now: BootTime) {
        let mut made_up = 0;
        while self.next_log_tick <= now {
            self.log.tick();
            self.hand_over();
            made_up += 1;
            let next = self.next_log_tick + LOG_TICK;
            self.next_log_tick = if made_up < LOG_TICKS_MAX { next } else { next.max(now + LOG_TICK) };
        }
    }

    /// A witness leads until somebody with keys can: it signs nothing and gives out no key.
    fn hand_over(&mut self) {
        if self.keyring.is_none() && self.controller.is_some() {
            let keepers: Vec<VoterId> = self.state.voters.keepers().map(|entry| entry.voter).collect();
            self.log.hand_over(&keepers);
        }
    }

    /// Drives log and controller until neither has anything more to say.
    fn settle(&mut self, now: BootTime, effects: &mut Vec<Effect>) -> Result<(), LogStoreError> {
        loop {
            self.offer(now);
            let progress = self.log.advance()?;
            if let Some(restored) = progress.restored {
                self.state = restore(&restored)?;
                self.check_own_record();
                self.check_keys();
            }
            for (to, said) in progress.messages {
                effects.push(self.addressed(to, VoterBody::Raft(said)));
            }
            // Commands of this leadership settle under it, also in the step that ends it.
            for committed in progress.committed {
                self.apply(now, committed)?;
            }
            self.follow_leadership(now);
            self.offer_itself(now);
            self.introduce(now);
            for round in progress.confirmed {
                self.with_controller(now, |controller, turn| controller.confirmed(turn, round));
            }
            self.with_controller(now, |controller, turn| controller.plan(turn));
            let waits = progress.changes_members || !self.out.proposals.is_empty();
            if !waits && self.out.rounds.is_empty() {
                break;
            }
        }
        if self.log.length() > self.compact_after {
            self.log.compact(self.state.applied, self.state.to_bytes())?;
        }
        Ok(())
    }

    fn offer(&mut self, now: BootTime) {
        for proposal in std::mem::take(&mut self.out.proposals) {
            let (sequence, command) = (proposal.sequence, proposal.command);
            let envelope = Envelope { voter: self.voter.0, sequence, command };
            let bytes = codec::to_vec(&envelope);
            let offered = match &envelope.command {
                Command::ChangeVoter(step) => self.log.propose_membership(step.membership(), bytes),
                _ => self.log.propose(bytes),
            };
            if offered.is_err() {
                self.not_taken(now, sequence);
            }
        }
        if std::mem::take(&mut self.out.hand_over) {
            let others = self.state.voters.keepers().map(|entry| entry.voter);
            let others: Vec<VoterId> = others.filter(|voter| *voter != self.voter).collect();
            self.log.hand_over(&others);
        }
        for round in std::mem::take(&mut self.out.rounds) {
            self.log.confirm(round);
        }
    }

    /// The log takes nothing while it changes its leader.
    fn not_taken(&mut self, now: BootTime, sequence: u64) {
        let Some(waiting) = self.out.settle(sequence) else { return };
        match waiting.given_up() {
            Some((id, answer)) => self.out.answer(id, answer),
            None => drop(self.with_controller(now, |controller, _| controller.not_taken(waiting))),
        }
    }

    fn apply(&mut self, now: BootTime, committed: Committed) -> Result<(), LogStoreError> {
        if committed.data.is_empty() {
            self.state.pass(committed.index);
            return Ok(());
        }
        let envelope: Envelope = codec::from_slice(&committed.data)
            .map_err(|error| LogStoreError::Damaged(format!("command {}: {error}", committed.index)))?;
        let outcome = self.state.apply(committed.index, &envelope.command);
        self.check_keys();
        if let (Command::ChangeVoter(step), Outcome::Done) = (&envelope.command, &outcome) {
            self.log.change_members(step.membership())?;
            self.log.compact(self.state.applied, self.state.to_bytes())?;
            self.check_own_record();
        }
        if envelope.voter != self.voter.0 || self.controller.is_none() {
            return Ok(());
        }
        if let Some(waiting) = self.out.settle(envelope.sequence) {
            self.with_controller(now, |controller, turn| controller.settled(turn, waiting, outcome));
        }
        Ok(())
    }

    /// Ends a voter whose keys are not those that the others share.
    fn check_keys(&mut self) {
        let own = self.keyring.as_ref().map(|keyring| keyring.master.fingerprint());
        if let (Some(own), Some(shared)) = (own, self.state.voters.shared())
            && own != shared
        {
            self.failed = Some(OTHER_KEYS.to_owned());
        }
    }

    /// Ends a voter that the state says is none any more, or another kind of one.
    fn check_own_record(&mut self) {
        match self.state.voters.get(self.voter) {
            Some(record) if record.entry.witness != self.keyring.is_none() => {
                self.failed = Some(OTHER_ROLE.to_owned());
            }
            Some(_) => {}
            None => self.failed = Some(RETIRED.to_owned()),
        }
    }

    fn follow_leadership(&mut self, now: BootTime) {
        let leads = self.log.leads();
        if self.controller.as_ref().map(|(term, _)| *term) == leads {
            return;
        }
        if let Some((_, controller)) = self.controller.take() {
            controller.resign(&mut self.out);
            self.out.give_up();
        }
        self.controller = leads.map(|term| (term, Controller::new(&self.state, self.caution, now)));
    }

    fn with_controller<R>(
        &mut self,
        now: BootTime,
        act: impl FnOnce(&mut Controller, &mut Turn<'_>) -> R,
    ) -> Option<R> {
        let (_, controller) = self.controller.as_mut()?;
        let mut turn = Turn {
            now,
            state: &self.state,
            keyring: self.keyring.as_ref(),
            entropy: self.entropy.as_mut(),
            voter: self.voter,
            peers: &|| self.log.peers(),
            out: &mut self.out,
        };
        Some(act(controller, &mut turn))
    }
}

/// How the log begins that is not there yet. Whoever joins knows the others, so that it can answer
/// them, and learns from the leader that it is a member.
fn founding(settings: &Settings) -> Founding {
    let others = |entry: &&VoterEntry| entry.voter != settings.voter;
    let (voters, entries) = match settings.beginning {
        Beginning::Found => {
            (settings.voters.iter().map(|entry| entry.voter).collect(), settings.voters.clone())
        }
        Beginning::Join => (Vec::new(), settings.voters.iter().filter(others).copied().collect()),
    };
    let mut state = State::new(&settings.cluster, &entries);
    if settings.beginning == Beginning::Join {
        state.voters = Voters::known(&entries);
    }
    Founding { voters, state: state.to_bytes() }
}

/// Tells whoever asked where to ask.
fn with_hint(answer: Answer, leader: Option<VoterEntry>) -> Answer {
    match answer {
        Answer::Control(ControlAnswer::Refused(ControlRefusal::NotLeader { .. })) => {
            Answer::Control(ControlAnswer::Refused(ControlRefusal::NotLeader { leader }))
        }
        Answer::Admin(AdminAnswer::NotLeader { .. }) => Answer::Admin(AdminAnswer::NotLeader { leader }),
        other => other,
    }
}

pub(crate) fn restore(bytes: &[u8]) -> Result<State, LogStoreError> {
    State::from_bytes(bytes).map_err(|error| LogStoreError::Damaged(format!("snapshot: {error}")))
}
