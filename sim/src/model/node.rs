//! What nodes do: adopt configurations, begin an epoch, order, replicate, commit, erase.

use super::action::Action;
use super::record::{self, Body, Log, Record, is_readable, step};
use super::state::{Bounds, Broken, Config, Protection, Role, State, each, has, in_both};
use super::{Mutation, OBJECTS};

/// Everything that nodes can do next.
pub(super) fn steps<const N: usize>(
    state: &State<N>,
    bounds: &Bounds,
    found: &mut impl FnMut(Action, State<N>),
) {
    for node in 0..N {
        if !state.nodes[node].runs() {
            continue;
        }
        renew(state, node, found);
        lead(state, bounds, node, found);
        erase(state, bounds, node, found);
    }
}

/// A renewal brings the present configuration, and with it the promise to refuse older epochs.
fn renew<const N: usize>(state: &State<N>, node: usize, found: &mut impl FnMut(Action, State<N>)) {
    let control = &state.control;
    let concerned = has(control.config().members() | control.led | control.served, node);
    if !concerned || !state.is_heard(node) || state.nodes[node].known == control.epoch {
        return;
    }
    let mut next = *state;
    let mine = &mut next.nodes[node];
    mine.known = control.epoch;
    mine.lease = control.activated && has(control.config().in_sync, node);
    forget_role(mine);
    found(Action::Renew(node), next);
}

/// A lease counts for its epoch only; the role ends with it.
fn forget_role(node: &mut super::state::Node) {
    (node.role, node.start, node.acked) = (Role::None, 0, [0; 4]);
}

fn lead<const N: usize>(
    state: &State<N>,
    bounds: &Bounds,
    node: usize,
    found: &mut impl FnMut(Action, State<N>),
) {
    if !state.leads(node) {
        return;
    }
    match state.nodes[node].role {
        Role::None => choose_log(state, node, found),
        Role::Forgotten => {}
        role => {
            for member in each(state.config_of(node).members()).filter(|member| *member != node) {
                replicate(state, bounds, node, member, found);
            }
            if role == Role::Active {
                commit(state, bounds, node, found);
                for object in 0..OBJECTS {
                    order(state, bounds, node, object, found);
                }
            }
        }
    }
}

/// Every in-sync member promised the epoch: the highest log among them is the one to go on with.
fn choose_log<const N: usize>(state: &State<N>, node: usize, found: &mut impl FnMut(Action, State<N>)) {
    let known = state.nodes[node].known;
    let in_sync = state.config_of(node).in_sync;
    let promised = |m: usize| m == node || state.nodes[m].known == known && state.are_linked(node, m);
    if !each(in_sync).all(promised) {
        return;
    }
    let rank = |m: &usize| (state.nodes[*m].log.last_epoch(), state.nodes[*m].log.len(), *m == node);
    let best = each(in_sync).max_by_key(rank).expect("a primary is in sync");
    let committed = each(in_sync).map(|m| state.nodes[m].committed).max();
    let mut next = *state;
    take(&mut next, best, node);
    let mine = &mut next.nodes[node];
    mine.committed = mine.committed.max(committed.unwrap_or(0)).min(mine.log.len() as u8);
    mine.role = Role::Peered;
    mine.acked = [0; 4];
    found(Action::ChooseLog(node, best), next);
}

/// Makes `to`'s log equal to `from`'s, and brings it the bytes that are not past the point of no return.
fn take<const N: usize>(state: &mut State<N>, from: usize, to: usize) {
    let source = state.nodes[from];
    let target = &mut state.nodes[to];
    if usize::from(target.committed) > source.log.shared(target.log) {
        state.broken = Some(Broken::History);
    }
    target.log = source.log;
    for object in 0..OBJECTS {
        let steps = source.log.steps(object);
        if steps & step::PUT == 0 {
            // Payload that no record refers to is no object.
            target.holds &= !(1 << object);
        } else if steps & step::PURGING == 0 {
            target.holds |= source.holds & 1 << object;
        }
    }
}

/// One member gets all that it lacks, makes it durable and acknowledges it.
fn replicate<const N: usize>(
    state: &State<N>,
    bounds: &Bounds,
    node: usize,
    member: usize,
    found: &mut impl FnMut(Action, State<N>),
) {
    let (mine, theirs) = (&state.nodes[node], &state.nodes[member]);
    let fenced = theirs.known != mine.known && !(bounds.lacks(Mutation::DropFencing) && theirs.known > 0);
    if fenced || !state.are_linked(node, member) {
        return;
    }
    let mut next = *state;
    take(&mut next, node, member);
    let target = &mut next.nodes[member];
    target.committed = target.committed.max(mine.committed);
    next.nodes[node].acked[member] = mine.log.len() as u8;
    // That something is committed is told with the next record; a purge is not waited for one.
    let purges = matches!(mine.log.records().last().map(Record::body),
        Some(Body::Step { step, .. }) if step >= step::PURGING);
    let news = theirs.log != mine.log || mine.acked[member] != next.nodes[node].acked[member] || purges;
    if news && next != *state {
        found(Action::Replicate(node, member), next);
    }
}

/// What the primary may acknowledge: what every in-sync member has and whose copies satisfy the rule.
fn committable(config: Config, acked: [u8; 4], node: usize, own: u8, bounds: &Bounds) -> u8 {
    let all = |point: u8| each(config.in_sync).filter(|m| *m != node).all(|m| acked[m] >= point);
    let copies = |point: u8| {
        let others = each(config.members()).filter(|m| *m != node && acked[*m] >= point);
        others.fold(1 << node, |set: u8, m| set | 1 << m)
    };
    let satisfied = |point: &u8| {
        let (set, all) = (copies(*point), all(*point));
        let two = set.count_ones() >= 2;
        if bounds.lacks(Mutation::AckAtTwo) {
            return two;
        }
        let single =
            config.protection == Protection::SingleDc || bounds.lacks(Mutation::SingleDcNotCommitted);
        let rule = two && (single || in_both(set));
        rule && (all || bounds.lacks(Mutation::AckWithoutMember))
    };
    (1..=own).rev().find(satisfied).unwrap_or(0)
}

/// The committed point moves, and everything up to it is acknowledged to whoever waits.
fn commit<const N: usize>(
    state: &State<N>,
    bounds: &Bounds,
    node: usize,
    found: &mut impl FnMut(Action, State<N>),
) {
    let mine = &state.nodes[node];
    let config = state.config_of(node);
    let point = committable(config, mine.acked, node, mine.log.len() as u8, bounds);
    if point < mine.start || point <= mine.committed {
        return;
    }
    let mut next = *state;
    next.nodes[node].committed = point;
    let copies = (0..N).filter(|m| *m == node || mine.acked[*m] >= point).fold(0, |set: u8, m| set | 1 << m);
    let enough = copies.count_ones() >= 2 && (in_both(copies) || config.protection == Protection::SingleDc);
    for length in usize::from(mine.committed)..usize::from(point) {
        acknowledge(&mut next, mine.log.prefix(length + 1), enough);
    }
    found(Action::Commit(node, point), next);
}

/// The last record of `log` is committed: clients hear it, unless they did already.
fn acknowledge<const N: usize>(state: &mut State<N>, log: Log, enough: bool) {
    let Some(Body::Step { object, step, .. }) = log.records().last().map(Record::body) else { return };
    let (before, now) = (state.acknowledged[object], log.steps(object));
    if before & step != 0 {
        // Committed before, by another primary: it must be the same history.
        if before & (step | (step - 1)) != now {
            state.broken = Some(Broken::History);
        }
        return;
    }
    if !record::is_possible(before | step) {
        state.broken = Some(Broken::BothWon);
    } else if before | step != now {
        state.broken = Some(Broken::History);
    } else if !enough {
        state.broken = Some(Broken::Copies);
    }
    state.acknowledged[object] = before | step;
}

/// The primary orders the next step of an object, if nothing of that object is under way.
fn order<const N: usize>(
    state: &State<N>,
    bounds: &Bounds,
    node: usize,
    object: usize,
    found: &mut impl FnMut(Action, State<N>),
) {
    let mine = &state.nodes[node];
    let steps = mine.log.steps(object);
    // One record at a time: nothing is ordered behind what is not committed.
    let settled = usize::from(mine.committed) == mine.log.len() && mine.committed >= mine.start;
    if !settled || mine.log.is_full() {
        return;
    }
    for (step, retained) in next_steps(state, bounds, node, object, steps).into_iter().flatten() {
        let mut next = *state;
        let mine = &mut next.nodes[node];
        mine.log = mine.log.with(Record::new(mine.known, Body::Step { object, step, retained }));
        if step == step::PUT {
            mine.holds |= 1 << object;
        }
        found(Action::Order(node, object, step), next);
    }
}

fn next_steps<const N: usize>(
    state: &State<N>,
    bounds: &Bounds,
    node: usize,
    object: usize,
    steps: u8,
) -> [Option<(u8, usize)>; 2] {
    let mine = &state.nodes[node];
    let leased = mine.lease;
    let may_undelete = object < bounds.undeletes;
    let ordered = state.control.orders[object] == steps;
    let purge = ordered.then_some((step::PURGING, node));
    match steps {
        // Objects are alike until the first is put.
        0 if leased && (object == 0 || mine.log.steps(0) != 0) => [Some((step::PUT, 0)), None],
        1 if leased && object < bounds.deletes => [Some((step::DELETE, 0)), None],
        3 => [(leased && may_undelete).then_some((step::UNDELETE, 0)), purge],
        7 if leased => [Some((step::DELETE_AGAIN, 0)), None],
        15 => [purge, None],
        _ => [erased(state, bounds, node, object, steps), None],
    }
}

/// The end of a purge, as far as receipts allow.
fn erased<const N: usize>(
    state: &State<N>,
    bounds: &Bounds,
    node: usize,
    object: usize,
    steps: u8,
) -> Option<(u8, usize)> {
    let retained = state.nodes[node].log.retained(object)?;
    let control = &state.control;
    let holders = match bounds.lacks(Mutation::GcByTime) {
        true => state.config_of(node).members(),
        false => control.ever_held,
    };
    let missing = holders & !control.receipts[object];
    let step = if steps & step::OTHERS_ERASED == 0 { step::OTHERS_ERASED } else { step::CERTIFIED };
    let waits = match step {
        step::OTHERS_ERASED => missing & !(1 << retained),
        // The control plane says it, so the primary must be the one that it knows.
        _ if state.is_heard(node) && state.nodes[node].known == control.epoch => missing,
        _ => return None,
    };
    (waits == 0).then_some((step, 0))
}

/// A store erases what a committed record of its own log condemns, and signs that it did.
fn erase<const N: usize>(
    state: &State<N>,
    bounds: &Bounds,
    node: usize,
    found: &mut impl FnMut(Action, State<N>),
) {
    let mine = &state.nodes[node];
    for object in 0..OBJECTS {
        if has(state.control.receipts[object], node) || mine.log.steps(object) & step::PUT == 0 {
            continue;
        }
        let steps = mine.applied().steps(object);
        let condemned = match mine.log.retained(object) {
            Some(retained) if retained == node => steps & step::OTHERS_ERASED != 0,
            _ => steps & step::PURGING != 0,
        };
        let on_order_alone = bounds.lacks(Mutation::UndeleteAfterOrder)
            && state.control.orders[object] != 0
            && usize::from(state.control.config().primary) != node;
        if condemned || on_order_alone {
            let mut next = *state;
            next.nodes[node].holds &= !(1 << object);
            next.control.receipts[object] |= 1 << node;
            found(Action::Erase(node, object), next);
        }
    }
}

/// Whether a node would give bytes of an object to who asks for that very version.
pub(super) fn gives<const N: usize>(state: &State<N>, node: usize, object: usize) -> bool {
    let mine = &state.nodes[node];
    let leased = mine.runs() && mine.lease && has(state.config_of(node).in_sync, node);
    let steps = mine.applied().steps(object);
    // A delete that is on the disk here hides it, whether it is known to be committed or not.
    leased && has(mine.holds, object) && is_readable(steps) && steps == mine.log.steps(object)
}
