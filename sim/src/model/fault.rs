//! What goes wrong, and what comes back by itself.

use super::action::Action;
use super::state::{Cut, Node, Role, State, has};

/// Everything that can go wrong next, and everything that can end.
pub(super) fn steps<const N: usize>(state: &State<N>, found: &mut impl FnMut(Action, State<N>)) {
    for node in 0..N {
        ends(state, node, found);
    }
    if state.cut != Cut::None {
        found(Action::Heal, State { cut: Cut::None, ..*state });
    }
    if state.failures > 0 {
        let hurt = State { failures: state.failures - 1, ..*state };
        for node in (0..N).filter(|node| !state.nodes[*node].lost) {
            strike(&hurt, node, found);
        }
        if state.cut == Cut::None {
            for (action, cut) in [
                (Action::Isolate(0), Cut::Isolated(0)),
                (Action::Isolate(1), Cut::Isolated(1)),
                (Action::Separate, Cut::Between),
            ] {
                found(action, State { cut, ..hurt });
            }
        }
    }
    if state.stale > 0 {
        suspend(state, found);
    }
}

fn ends<const N: usize>(state: &State<N>, node: usize, found: &mut impl FnMut(Action, State<N>)) {
    let mine = &state.nodes[node];
    let mut with = |action, change: &dyn Fn(&mut Node)| {
        let mut next = *state;
        change(&mut next.nodes[node]);
        found(action, next);
    };
    if !mine.up && !mine.lost {
        with(Action::Restart(node), &|node| node.up = true);
    }
    if mine.suspended {
        with(Action::Resume(node), &|node| node.suspended = false);
    }
    // While nothing was changed, a lease that ends is renewed: it is over only for who was left behind.
    let leaves = mine.known < state.control.epoch && has(state.control.leavers(), node);
    if mine.lease && leaves {
        with(Action::LeaseOver(node), &|node| node.lease = false);
    }
}

fn strike<const N: usize>(hurt: &State<N>, node: usize, found: &mut impl FnMut(Action, State<N>)) {
    let mine = hurt.nodes[node];
    if mine.up {
        let mut next = *hurt;
        let role = if mine.role == Role::None { Role::None } else { Role::Forgotten };
        next.nodes[node] =
            Node { up: false, suspended: false, lease: false, role, start: 0, acked: [0; 4], ..mine };
        found(Action::Crash(node), next);
    }
    let mut next = *hurt;
    next.nodes[node] = Node { lost: true, ..Node::default() };
    found(Action::LoseDisk(node), next);
}

/// The primary stands still while its lease goes on.
fn suspend<const N: usize>(state: &State<N>, found: &mut impl FnMut(Action, State<N>)) {
    let primary = usize::from(state.control.config().primary);
    if state.nodes[primary].runs() && state.nodes[primary].role == Role::Active {
        let mut next = *state;
        next.stale -= 1;
        next.nodes[primary].suspended = true;
        found(Action::Suspend(primary), next);
    }
}
