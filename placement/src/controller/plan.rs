//! What a leader proposes of its own accord: the clock's ticks, silent nodes, configurations and
//! activations. Looks at what deserves it when something changed and ten times a second.

use std::time::Duration;

use trefoil_protocol::config::{NodeState, VolumeConfig};
use trefoil_protocol::ids::{NodeId, StoreId, VolumeId};
use trefoil_protocol::mutant;
use trefoil_protocol::time::{BootTime, Millis, lease};

use crate::controller::attention::is_at_rest;
use crate::controller::failover::{Evidence, Scene, eligible, next_change};
use crate::controller::handover::Haste;
use crate::controller::outbox::Waiting;
use crate::controller::recruit::{Fitness, up_nodes};
use crate::controller::wishes::{UnderWay, relief, successor};
use crate::controller::{Controller, Turn};
use crate::event::Answer;
use crate::state::{Command, State, TICK_EVERY, VolumeRecord};
use trefoil_protocol::message::control::ControlAnswer;

/// How often a look is taken when nothing happens.
const SCAN_EVERY: Duration = Duration::from_millis(100);

/// How long a store that did not acknowledge is not recruited again for the same volume.
const SHUN_FOR: Duration = Duration::from_secs(30);

/// Moves are counted over this long.
const HOUR: Duration = Duration::from_secs(3600);

/// How long a volume that was down waits for its other members once one could lead.
const RETURN_WAIT: Duration = Duration::from_secs(3);

impl Controller {
    /// Proposes what the present state and time call for, and answers watches that are due.
    pub(crate) fn plan(&mut self, turn: &mut Turn<'_>) {
        self.tick(turn);
        let scan = turn.now >= self.next_scan;
        if self.dirty || scan {
            self.dirty = false;
            let noted = self.attention.noted(turn.state, turn.now);
            self.look_at(noted, turn);
        }
        if scan {
            self.next_scan = turn.now + SCAN_EVERY;
            self.look_for_silence(turn);
            self.countersigning.look(turn);
            self.council.look(turn, self.caution.excuse_after, self.caution.restore_after);
            let sure = up_nodes(&turn.state.topology).map(|entry| entry.node);
            let sure = sure.filter(|node| self.grants.is_fresh(*node, turn.now));
            self.steadiness.look(sure, turn.now);
            self.look_at_health(turn);
            self.shunned.retain(|_, until| *until > turn.now);
            let restless = self.attention.in_turn();
            self.look_at(restless, turn);
        }
        for (id, news) in self.watches.due(turn.state, turn.now) {
            turn.out.answer(id, Answer::Control(ControlAnswer::News(news)));
        }
    }

    /// When [`Self::plan`] has something to do at the latest.
    pub(crate) fn next_wakeup(&self) -> BootTime {
        self.watches.next_due().map_or(self.next_scan, |due| due.min(self.next_scan))
    }

    /// Control-plane time goes on by no more than this leader measured since its last tick; its
    /// first tick adds nothing.
    fn tick(&mut self, turn: &mut Turn<'_>) {
        let passed = self.last_tick.map(|last| turn.now.since(last));
        if self.tick_under_way || passed.is_some_and(|passed| passed < TICK_EVERY) {
            return;
        }
        self.last_tick = Some(turn.now);
        self.tick_under_way = true;
        let advance = Millis::from(passed.unwrap_or_default());
        turn.out.propose(Command::Tick(advance), Waiting::Tick);
    }

    /// What is slow concerns any volume.
    fn look_at_health(&mut self, turn: &Turn<'_>) {
        let there = up_nodes(&turn.state.topology);
        let there = there.filter(|entry| self.grants.is_fresh(entry.node, turn.now));
        if self.health.look(there, &self.caution, turn.now) {
            self.attention.note_all();
        }
    }

    fn look_for_silence(&mut self, turn: &mut Turn<'_>) {
        for record in turn.state.topology.nodes() {
            let entry = &record.entry;
            let silent = self.grants.silence(entry.node, turn.now) >= lease::DOWN_AFTER;
            if entry.state == NodeState::Up && silent && self.busy_nodes.insert(entry.node) {
                let command = Command::NodeDown(entry.node, entry.incarnation);
                turn.out.propose(command, Waiting::Node(entry.node));
            }
        }
    }

    fn look_at(&mut self, volumes: impl IntoIterator<Item = VolumeId>, turn: &mut Turn<'_>) {
        let mut under_way = UnderWay::of(turn.state);
        for volume in volumes {
            let Some(record) = turn.state.volumes.get(volume) else { continue };
            self.look_at_pace(turn, volume);
            if record.config.activated {
                self.handovers.activated(volume, record.config.epoch, turn.now);
            }
            if self.busy_volumes.contains(&volume) {
                continue; // Noted again when its command is settled.
            }
            if let Some(command) = self.next_command(turn.state, turn.now, record, under_way) {
                under_way.handovers += usize::from(matches!(command, Command::HandOver(.., Some(_))));
                under_way.moves += usize::from(record.wish.is_some());
                self.busy_volumes.insert(volume);
                turn.out.propose(command, Waiting::Volume(volume));
            } else if !is_at_rest(record) || self.has_complaint(&record.config) {
                self.attention.is_restless(volume);
            } else {
                // Whatever its primary said of this epoch is dealt with.
                self.evidence.remove(&volume);
            }
        }
    }

    /// Whether the primary reported something that is not dealt with yet.
    fn has_complaint(&self, config: &VolumeConfig) -> bool {
        let evidence = self.evidence.get(&config.volume).filter(|evidence| evidence.epoch == config.epoch);
        evidence.is_some_and(|evidence| !evidence.lagging.is_empty() || evidence.better.is_some())
    }

    fn next_command(
        &mut self,
        state: &State,
        now: BootTime,
        record: &VolumeRecord,
        under_way: UnderWay,
    ) -> Option<Command> {
        if record.is_sought() {
            return None;
        }
        let (volume, epoch) = (record.config.volume, record.config.epoch);
        let evidence = self.evidence.get(&volume).filter(|evidence| evidence.epoch == epoch);
        let evidence = evidence.cloned().unwrap_or_else(|| Evidence { epoch, ..Evidence::default() });
        let may_wait = self.may_wait(state, now, record);
        let may_move = record.moves_since(state.clock.now().before(HOUR)) < self.caution.moves_per_hour;
        let scene = Scene {
            state,
            fitness: Fitness {
                fresh: &|node: NodeId| self.grants.is_fresh(node, now),
                shunned: &|store: StoreId| {
                    evidence.lagging.contains(&store) || self.shunned.contains_key(&(volume, store))
                },
                too_often: &|store: StoreId| !may_move && !record.config.ever_held.contains(&store),
                steady: &|node: NodeId| self.steadiness.is_steady(node, self.caution.restore_after, now),
                unfit: &|store: StoreId| self.health.is_unfit(store),
                slow: &|store: StoreId| self.is_slow_for(record, store),
            },
            may_wait,
            may_move: under_way.may_move(),
            steps_down: self.primary_is_slow(record) && self.handovers.was_called_off(volume, now),
        };
        if let Some(change) = next_change(&scene, record, &evidence) {
            self.shun(volume, &evidence, now);
            self.returning.remove(&volume);
            return Some(Command::Reconfigure(change));
        }
        if record.config.activated {
            return self.pursue_handover(state, now, record, under_way);
        }
        // From the activation on only this epoch's stores count: none begins with a primary that may be
        // gone already.
        let there = record.config.primary.is_some_and(|primary| self.grants.is_fresh(primary, now));
        // One that can acknowledge nothing would only make stores incomplete that hold everything.
        let is_of_use = record.config.can_acknowledge();
        let may_activate = there && is_of_use && self.all_released(record, now);
        let committed = evidence.ready.filter(|_| may_activate)?;
        Some(Command::Activate(volume, epoch, committed))
    }

    /// Asks for the primary that a plan wants, and calls off what nobody wants any more.
    fn pursue_handover(
        &mut self,
        state: &State,
        now: BootTime,
        record: &VolumeRecord,
        under_way: UnderWay,
    ) -> Option<Command> {
        let is_slow = self.primary_is_slow(record);
        if record.config.handover.is_none() && record.wish.is_none() && !is_slow {
            return None;
        }
        let mut eligible = eligible(&state.topology, record, &record.config.members);
        eligible.retain(|m| self.grants.is_fresh(m.node, now) && !self.health.is_unfit(m.store));
        let (haste, wanted) = match is_slow {
            true => (Haste::Slow, relief(record, &eligible)),
            false => (Haste::None, successor(record, &eligible)),
        };
        let wanted = wanted.map(|member| member.store);
        match (record.config.handover, wanted) {
            (None, None) => None,
            (None, Some(_)) if !under_way.may_hand_over() => None,
            (Some(asked), wanted) if wanted != Some(asked) => Some(self.handovers.call_off(record, now)),
            (_, Some(to)) => self.handovers.ask(record, to, haste, now),
            (Some(_), None) => unreachable!("what was asked for differs from nothing"),
        }
    }

    fn primary_is_slow(&self, record: &VolumeRecord) -> bool {
        record.config.primary_member().is_some_and(|primary| self.health.is_slow(primary.store))
    }

    /// Whether a store is slow, or the way to it from the volume's primary, which is not slow itself.
    fn is_slow_for(&self, record: &VolumeRecord, store: StoreId) -> bool {
        let from = record.config.primary.filter(|_| !self.primary_is_slow(record));
        self.health.is_slow(store) || from.is_some_and(|node| self.health.is_slow_from(node, store))
    }

    /// Whether nobody can serve any more under a former configuration.
    fn all_released(&self, record: &VolumeRecord, now: BootTime) -> bool {
        let released = |node| self.grants.released(node, record.config.changed, now);
        mutant!(M05, record.leavers().all(released), true)
    }

    fn shun(&mut self, volume: VolumeId, evidence: &Evidence, now: BootTime) {
        for store in &evidence.lagging {
            self.shunned.insert((volume, *store), now + SHUN_FOR);
        }
    }

    /// A volume that is down and could come up waits a moment for its other members, so that a
    /// cluster that starts does not throw out whoever starts last.
    fn may_wait(&mut self, state: &State, now: BootTime, record: &VolumeRecord) -> bool {
        let config = &record.config;
        if config.primary.is_some() {
            self.returning.remove(&config.volume);
            return false;
        }
        // Whoever holds everything counts, a member or not.
        let is_up = |store: &StoreId| {
            let runner = state.topology.runner(*store);
            runner.is_some_and(|entry| entry.state == NodeState::Up)
        };
        let can_come_up = record.knowing_stores().iter().any(is_up)
            || record.vouching_stores().is_some_and(|stores| stores.iter().all(is_up));
        if !can_come_up {
            self.returning.remove(&config.volume);
            return true;
        }
        let since = *self.returning.entry(config.volume).or_insert(now);
        now < since + RETURN_WAIT
    }
}
