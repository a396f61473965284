//! The facade over log, state and controller: one `step` that the shell and the simulator drive.

use std::collections::BTreeSet;
use std::time::Duration;

use minicbor::{Decode, Encode};
use trefoil_protocol::codec;
use trefoil_protocol::ids::PublicKey;
use trefoil_protocol::time::BootTime;

use crate::controller::outbox::Outbox;
use crate::controller::{Controller, Turn, not_leading};
use crate::custodian::{Entropy, Keyring};
use crate::event::{Effect, Event, Request, RequestId, VoterId};
use crate::log::{Committed, ControlLog};
use crate::log_store::{LogStore, LogStoreError};
use crate::raft_log::RaftLog;
use crate::state::{Command, State};

/// How much time one tick of the log is.
const LOG_TICK: Duration = Duration::from_millis(100);

/// The most ticks made up for after a pause; the rest of the pause is forgotten.
const LOG_TICKS_MAX: u32 = 3;

/// The log is compacted when it has more entries than this.
const COMPACT_AFTER: usize = 4096;

/// What a control-plane process must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's name; written into the state when the cluster is made.
    pub cluster: String,
    /// This voter.
    pub voter: VoterId,
    /// All voters when the cluster is made; later the log decides.
    pub voters: Vec<VoterId>,
    /// Public signing keys of the other voters; this one's own is added.
    pub placement_keys: BTreeSet<PublicKey>,
}

/// Why the control plane cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The log could not be read or begun.
    #[error(transparent)]
    Log(#[from] LogStoreError),
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
struct Envelope {
    /// Who proposed it.
    #[n(0)]
    voter: u64,
    /// The proposer's number for it.
    #[n(1)]
    sequence: u64,
    #[n(2)]
    command: Command,
}

/// One control-plane process.
pub struct Placement<S> {
    voter: VoterId,
    placement_keys: Vec<PublicKey>,
    keyring: Keyring,
    entropy: Box<dyn Entropy + Send>,
    log: RaftLog<S>,
    state: State,
    controller: Option<(u64, Controller)>,
    out: Outbox,
    next_log_tick: BootTime,
    failed: bool,
}

impl<S: LogStore> Placement<S> {
    /// Opens the log, making the cluster if the log is new. Nothing is said before the first step.
    ///
    /// # Errors
    /// When the log cannot be read, or is another cluster's.
    pub fn open(
        settings: Settings,
        keyring: Keyring,
        store: S,
        mut entropy: Box<dyn Entropy + Send>,
        now: BootTime,
    ) -> Result<Self, OpenError> {
        let genesis = || State::new(&settings.cluster).to_bytes();
        let (log, snapshot) =
            RaftLog::open(settings.voter, &settings.voters, store, genesis, entropy.as_mut())?;
        let state = restore(&snapshot.data)?;
        if state.cluster != settings.cluster {
            return Err(OpenError::Cluster { expected: settings.cluster, found: state.cluster });
        }
        let mut keys = settings.placement_keys;
        keys.insert(keyring.signatory.public());
        Ok(Self {
            voter: settings.voter,
            placement_keys: keys.into_iter().collect(),
            keyring,
            entropy,
            log,
            state,
            controller: None,
            out: Outbox::default(),
            next_log_tick: now,
            failed: false,
        })
    }

    /// Takes one event and says what is to be done. Whatever an effect reports is durable already.
    /// After [`Effect::Fatal`] every further step says nothing.
    pub fn step(&mut self, now: BootTime, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.failed {
            return effects;
        }
        self.take(now, event);
        self.tick(now);
        if let Err(error) = self.settle(now, &mut effects) {
            // Nobody hears anything that may not be durable.
            self.failed = true;
            return vec![Effect::Fatal(error.to_string())];
        }
        effects.extend(self.out.answers.drain(..).map(|(id, answer)| Effect::Answer(id, answer)));
        effects
    }

    /// When the next [`Event::Wakeup`] is due at the latest.
    pub fn next_wakeup(&self) -> Option<BootTime> {
        let planned = self.controller.as_ref().map(|(_, controller)| controller.next_wakeup());
        let next = planned.map_or(self.next_log_tick, |planned| planned.min(self.next_log_tick));
        (!self.failed).then_some(next)
    }

    /// What is committed, as far as this voter knows.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether this voter leads.
    pub fn leads(&self) -> bool {
        self.controller.is_some()
    }

    /// The keys that sign orders and certificates.
    pub fn placement_keys(&self) -> &[PublicKey] {
        &self.placement_keys
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
            // A malformed message is as good as lost; its sender is a voter that will say more.
            Event::Voter(from, message) => drop(self.log.receive(from, &message)),
            Event::Wakeup => {}
        }
    }

    fn request(&mut self, now: BootTime, id: RequestId, request: Request) {
        let led = self.with_controller(now, |controller, turn| controller.request(turn, id, request.clone()));
        if led.is_none() {
            self.out.answer(id, not_leading(&request));
        }
    }

    fn tick(&mut self, now: BootTime) {
        let mut made_up = 0;
        while self.next_log_tick <= now {
            self.log.tick();
            made_up += 1;
            let next = self.next_log_tick + LOG_TICK;
            self.next_log_tick = if made_up < LOG_TICKS_MAX { next } else { next.max(now + LOG_TICK) };
        }
    }

    /// Drives log and controller until neither has anything more to say.
    fn settle(&mut self, now: BootTime, effects: &mut Vec<Effect>) -> Result<(), LogStoreError> {
        loop {
            self.offer();
            let progress = self.log.advance()?;
            if let Some(restored) = progress.restored {
                self.state = restore(&restored)?;
            }
            effects.extend(progress.messages.into_iter().map(|(to, bytes)| Effect::Send(to, bytes)));
            // Commands of this leadership settle under it, also in the step that ends it.
            for committed in progress.committed {
                self.apply(now, committed)?;
            }
            self.follow_leadership(now);
            for round in progress.confirmed {
                self.with_controller(now, |controller, turn| controller.confirmed(turn, round));
            }
            self.with_controller(now, |controller, turn| controller.plan(turn));
            if self.out.proposals.is_empty() && self.out.rounds.is_empty() {
                break;
            }
        }
        if self.log.length() > COMPACT_AFTER {
            self.log.compact(self.state.applied, self.state.to_bytes())?;
        }
        Ok(())
    }

    fn offer(&mut self) {
        for proposal in std::mem::take(&mut self.out.proposals) {
            let (sequence, command) = (proposal.sequence, proposal.command);
            let envelope = Envelope { voter: self.voter.0, sequence, command };
            // Not taken means not leading any more, which gives up everything that waits.
            let _ = self.log.propose(codec::to_vec(&envelope));
        }
        for round in std::mem::take(&mut self.out.rounds) {
            self.log.confirm(round);
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
        if envelope.voter != self.voter.0 || self.controller.is_none() {
            return Ok(());
        }
        if let Some(waiting) = self.out.settle(envelope.sequence) {
            self.with_controller(now, |controller, turn| controller.settled(turn, waiting, outcome));
        }
        Ok(())
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
        self.controller = leads.map(|term| (term, Controller::new(&self.state, now)));
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
            keyring: &self.keyring,
            entropy: self.entropy.as_mut(),
            placement_keys: &self.placement_keys,
            out: &mut self.out,
        };
        Some(act(controller, &mut turn))
    }
}

fn restore(bytes: &[u8]) -> Result<State, LogStoreError> {
    State::from_bytes(bytes).map_err(|error| LogStoreError::Damaged(format!("snapshot: {error}")))
}
