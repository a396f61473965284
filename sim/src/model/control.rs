//! What the control plane does: the next configuration, its activation, orders, and who is given up.
//! Each is one committed command.

use super::Mutation;
use super::action::Action;
use super::record::{Body, Record, step};
use super::state::{Bounds, Config, Protection, Role, State, each, has, in_both};

/// Members that a volume shall have.
const COPIES: u32 = 3;

/// Everything that the control plane can do next.
pub(super) fn steps<const N: usize>(
    state: &State<N>,
    bounds: &Bounds,
    found: &mut impl FnMut(Action, State<N>),
) {
    if state.control.activated {
        give_orders(state, bounds, found);
    } else {
        activate(state, bounds, found);
    }
    if state.control.epoch < bounds.epochs {
        reconfigure(state, bounds, found);
    }
    fence(state, found);
}

/// The primary is ready, and nobody who lost a role can serve under it any more.
fn activate<const N: usize>(state: &State<N>, bounds: &Bounds, found: &mut impl FnMut(Action, State<N>)) {
    let control = &state.control;
    let config = control.config();
    let primary = usize::from(config.primary);
    let leader = &state.nodes[primary];
    let ready = leader.role == Role::Peered && leader.known == control.epoch && state.is_heard(primary);
    if !ready || leader.log.is_full() || !can_acknowledge(config, bounds) {
        return;
    }
    let prepared = |m: usize| m == primary || usize::from(leader.acked[m]) == leader.log.len();
    if !each(config.in_sync).all(prepared) && !bounds.lacks(Mutation::ActivateUnprepared) {
        return;
    }
    let released = |n: usize| state.nodes[n].known == control.epoch || !state.nodes[n].lease;
    if !each(control.leavers()).all(released) && !bounds.lacks(Mutation::ServeBeforeLeaseOver) {
        return;
    }
    let mut next = *state;
    next.control.activated = true;
    (next.control.complete, next.control.served) = (config.in_sync, config.in_sync);
    next.control.led = 1 << primary;
    let granted: Vec<usize> = each(config.in_sync).filter(|m| state.is_heard(*m)).collect();
    for member in granted.into_iter().filter(|m| state.nodes[*m].known == control.epoch) {
        next.nodes[member].lease = true;
    }
    let leader = &mut next.nodes[primary];
    leader.role = Role::Active;
    leader.log = leader.log.with(Record::new(control.epoch, Body::EpochStart));
    leader.start = leader.log.len() as u8;
    found(Action::Activate, next);
}

fn can_acknowledge(config: Config, bounds: &Bounds) -> bool {
    let members = config.members();
    let single = config.protection == Protection::SingleDc || bounds.lacks(Mutation::SingleDcNotCommitted);
    members.count_ones() >= 2 && (single || in_both(members))
}

/// The window of a deleted object is over. An order is a permission for one tombstone.
fn give_orders<const N: usize>(state: &State<N>, bounds: &Bounds, found: &mut impl FnMut(Action, State<N>)) {
    let primary = usize::from(state.control.config().primary);
    let leader = &state.nodes[primary];
    if !state.is_heard(primary) || leader.known != state.control.epoch || leader.role != Role::Active {
        return;
    }
    for (object, steps) in leader.applied().all_steps().into_iter().enumerate().take(bounds.purges) {
        let tombstone = steps == step::PUT | step::DELETE || steps == 15;
        if tombstone && state.control.orders[object] != steps {
            let mut next = *state;
            next.control.orders[object] = steps;
            found(Action::GiveOrder(object), next);
        }
    }
}

/// A lost store that is no member is given up for ever.
fn fence<const N: usize>(state: &State<N>, found: &mut impl FnMut(Action, State<N>)) {
    for node in each(state.control.ever_held & !state.control.config().members()) {
        if state.nodes[node].lost {
            let mut next = *state;
            next.control.fenced |= 1 << node;
            next.control.ever_held &= !(1 << node);
            found(Action::Fence(node), next);
        }
    }
}

fn reconfigure<const N: usize>(state: &State<N>, bounds: &Bounds, found: &mut impl FnMut(Action, State<N>)) {
    let config = state.control.config();
    let primary = usize::from(config.primary);
    let staying = each(config.members()).filter(|m| stays(state, primary, *m)).fold(0, |set, m| set | 1 << m);
    let restarted = state.nodes[primary].role == Role::Forgotten;
    if staying != config.members() || restarted {
        repair(state, bounds, staying, found);
    } else if state.control.activated
        && state.nodes[primary].role == Role::Active
        && let Some(after) = upkeep(state, config, primary)
    {
        change(state, bounds, after, found);
    }
}

/// Whether a member is there; the primary reports who does not answer it.
fn stays<const N: usize>(state: &State<N>, primary: usize, member: usize) -> bool {
    let reported = state.is_heard(primary) && !state.are_linked(primary, member);
    state.is_heard(member) && (member == primary || !reported)
}

/// Without who is not there: led by a store that has everything acknowledged, or not at all.
fn repair<const N: usize>(
    state: &State<N>,
    bounds: &Bounds,
    staying: u8,
    found: &mut impl FnMut(Action, State<N>),
) {
    let control = &state.control;
    let config = control.config();
    let (mut in_sync, mut catching_up) = (config.in_sync & staying, config.catching_up & staying);
    if in_sync & control.complete == 0 {
        // Nobody: stores come back that had everything when an epoch last acknowledged.
        let recalled = each(control.complete & !control.fenced & !staying).filter(|n| state.is_heard(*n));
        in_sync |= recalled.fold(0, |set, n| set | 1 << n);
    }
    catching_up |= recruits(state, in_sync | catching_up);
    let eligible = in_sync & control.complete;
    let present = usize::from(config.primary);
    let leaders = if has(eligible, present) { 1 << present } else { eligible };
    for leader in each(leaders) {
        let primary = leader as u8;
        let protection = protection_of(config.protection, in_sync, catching_up);
        change(state, bounds, Config { in_sync, catching_up, primary, protection }, found);
    }
}

/// Who is heard and no member yet, up to three copies, first where a data centre has none.
fn recruits<const N: usize>(state: &State<N>, members: u8) -> u8 {
    let mut chosen = members;
    let spare = |n: &usize| state.is_heard(*n) && !has(state.control.fenced, *n);
    while chosen.count_ones() < COPIES {
        let candidates = (0..N).filter(|n| !has(chosen, *n)).filter(spare);
        let Some(node) = candidates.max_by_key(|n| (in_both(chosen | 1 << n), std::cmp::Reverse(*n))) else {
            break;
        };
        chosen |= 1 << node;
    }
    chosen & !members
}

/// The next step of an epoch that works: who caught up is in sync, the rule follows, copies are made.
fn upkeep<const N: usize>(state: &State<N>, config: Config, primary: usize) -> Option<Config> {
    let leader = &state.nodes[primary];
    let has_bytes = |m: usize| {
        let condemned = |object: usize| leader.log.steps(object) & step::PURGING != 0;
        each(leader.holds).all(|object| has(state.nodes[m].holds, object) || condemned(object))
    };
    let caught_up = |m: &usize| leader.acked[*m] >= leader.committed && leader.acked[*m] > 0 && has_bytes(*m);
    let complete = each(config.catching_up).filter(caught_up).fold(0, |set, m| set | 1 << m);
    let (in_sync, catching_up) = (config.in_sync | complete, config.catching_up & !complete);
    let protection = match config.protection {
        Protection::Restoring if complete == 0 && leader.committed >= leader.start => Protection::BothDcs,
        before => protection_of(before, in_sync, catching_up),
    };
    let catching_up = match complete == 0 && protection == config.protection {
        true => catching_up | recruits(state, in_sync | catching_up),
        false => catching_up,
    };
    let after = Config { in_sync, catching_up, protection, ..config };
    (after != config).then_some(after)
}

/// The rule that follows from who is a member.
fn protection_of(before: Protection, in_sync: u8, catching_up: u8) -> Protection {
    match before {
        Protection::BothDcs if in_both(in_sync | catching_up) => Protection::BothDcs,
        Protection::SingleDc | Protection::Restoring if in_both(in_sync) => Protection::Restoring,
        _ => Protection::SingleDc,
    }
}

/// Every change raises the epoch. A store is in `ever_held` before its first byte goes there.
fn change<const N: usize>(
    state: &State<N>,
    bounds: &Bounds,
    mut after: Config,
    found: &mut impl FnMut(Action, State<N>),
) {
    if bounds.lacks(Mutation::SingleDcNotCommitted) {
        after.protection = Protection::BothDcs;
    }
    let mut next = *state;
    let before = state.control.config();
    let control = &mut next.control;
    control.led |= 1 << before.primary;
    control.served |= before.in_sync;
    control.epoch += 1;
    control.configs[usize::from(control.epoch)] = after;
    control.activated = false;
    control.ever_held |= after.members();
    if bounds.lacks(Mutation::EverHeldTrimmed) {
        control.ever_held = after.members();
    }
    found(Action::Change, next);
}

/// A spare store that held the volume wipes its part and says so.
pub(super) fn retire<const N: usize>(state: &State<N>, found: &mut impl FnMut(Action, State<N>)) {
    let control = &state.control;
    let config = control.config();
    let enough = config.in_sync.count_ones() >= COPIES && config.protection == Protection::BothDcs;
    if !control.activated || !enough || !each(config.in_sync).all(|m| state.is_heard(m)) {
        return;
    }
    for node in each(control.ever_held & !config.members()).filter(|n| state.is_heard(*n)) {
        let mut next = *state;
        let fresh = super::state::Node { up: true, ..Default::default() };
        next.nodes[node] = super::state::Node { known: control.epoch, ..fresh };
        next.control.ever_held &= !(1 << node);
        for receipts in &mut next.control.receipts {
            *receipts &= !(1 << node);
        }
        found(Action::Retire(node), next);
    }
}
