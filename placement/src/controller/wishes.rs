//! What a plan still wants of a volume, one step at a time: first the primary where it shall be, then
//! the new copy, and the old one goes last. Everything else that a volume needs comes first.

use trefoil_protocol::config::{Member, MemberState};
use trefoil_protocol::ids::NodeId;

use crate::controller::recruit::{COPIES, Fitness, neediest, recruit, shape};
use crate::state::{MEMBERS_MAX, State, Topology, VolumeRecord, Wish};

/// So many volumes get a new copy for a plan at once.
pub(crate) const MOVES_AT_ONCE: usize = 4;
/// So many primaries are handed over at once.
const HANDOVERS_AT_ONCE: usize = 4;

/// How much of the plan is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnderWay {
    pub(crate) handovers: usize,
    pub(crate) moves: usize,
}

impl UnderWay {
    /// Counts it.
    pub(crate) fn of(state: &State) -> Self {
        let mut counted = Self::default();
        for record in state.volumes.wished() {
            let catches_up = |m: &Member| m.state == MemberState::CatchingUp;
            counted.moves += usize::from(record.config.members.iter().any(catches_up));
            counted.handovers += usize::from(record.config.handover.is_some() || !record.config.activated);
        }
        counted
    }

    pub(crate) fn may_move(self) -> bool {
        self.moves < MOVES_AT_ONCE
    }

    pub(crate) fn may_hand_over(self) -> bool {
        self.handovers < HANDOVERS_AT_ONCE
    }
}

/// The member that should be primary instead of the present one, of those that can.
pub(crate) fn successor<'m>(record: &VolumeRecord, eligible: &'m [Member]) -> Option<&'m Member> {
    let wish = record.wish.filter(|wish| wish.wants_lead(record))?;
    let lead = wish.lead?;
    let fits = |member: &&Member| {
        member.dc == lead.dc && Some(member.store) != wish.leave && Some(member.node) != record.config.primary
    };
    eligible.iter().filter(fits).min_by_key(|member| (member.node != lead.node, member.node))
}

/// The member that should lead instead of a slow primary, of those that can: one at home before others.
pub(crate) fn relief<'m>(record: &VolumeRecord, eligible: &'m [Member]) -> Option<&'m Member> {
    let others = eligible.iter().filter(|member| Some(member.node) != record.config.primary);
    others.min_by_key(|member| (member.dc != record.home, member.node))
}

/// The members after the next step towards the wish, if one can be taken.
pub(crate) fn step(
    topology: &Topology,
    record: &VolumeRecord,
    members: &[Member],
    fitness: &Fitness<'_>,
    may_begin: bool,
) -> Option<Vec<Member>> {
    let wish = record.wish?;
    joined(topology, record, &wish, members, fitness)
        .or_else(|| made_dispensable(topology, record, &wish, members, fitness))
        .filter(|_| may_begin)
        .or_else(|| left(record, &wish, members))
}

/// With the one that shall join; with another one of its data centre if that is not there.
fn joined(
    topology: &Topology,
    record: &VolumeRecord,
    wish: &Wish,
    members: &[Member],
    fitness: &Fitness<'_>,
) -> Option<Vec<Member>> {
    let node = wish.join?;
    let dc = topology.node(node)?.dc;
    let came = |member: &&Member| member.dc == dc && Some(member.store) != wish.leave;
    let others: Vec<NodeId> = members.iter().filter(came).map(|member| member.node).collect();
    // Whoever came in its place counts as it.
    let expected = record.home == dc;
    let is_there = others.contains(&node) || others.len() > usize::from(expected);
    if is_there || members.len() >= MEMBERS_MAX {
        return None;
    }
    let wanted = topology.node(node).filter(|entry| entry.is_at_work() && (fitness.fresh)(node));
    let entry = match wanted.filter(|entry| !(fitness.shunned)(entry.store) && !(fitness.unfit)(entry.store))
    {
        Some(entry) => entry,
        None => recruit(topology, record, members, dc, &fitness.at_will()).ok()?,
    };
    let mut members = members.to_vec();
    members.push(Topology::member(entry, MemberState::CatchingUp));
    Some(members)
}

/// With another one where one lacks without the one that shall go: whoever was to stay, or came for it, is gone.
fn made_dispensable(
    topology: &Topology,
    record: &VolumeRecord,
    wish: &Wish,
    members: &[Member],
    fitness: &Fitness<'_>,
) -> Option<Vec<Member>> {
    let (_, rest) = without_leaver(wish, members)?;
    let dc = neediest(&shape(topology, record.home, &rest), &rest).filter(|_| members.len() < MEMBERS_MAX)?;
    let entry = recruit(topology, record, members, dc, &fitness.at_will()).ok()?;
    Some(members.iter().copied().chain([Topology::member(entry, MemberState::CatchingUp)]).collect())
}

/// The one that shall go, and the others.
fn without_leaver(wish: &Wish, members: &[Member]) -> Option<(Member, Vec<Member>)> {
    let leaver = *members.iter().find(|member| Some(member.store) == wish.leave)?;
    Some((leaver, members.iter().filter(|member| member.store != leaver.store).copied().collect()))
}

/// Without the one that shall go, once three complete copies in both data centres are left.
fn left(record: &VolumeRecord, wish: &Wish, members: &[Member]) -> Option<Vec<Member>> {
    let (leaver, rest) = without_leaver(wish, members)?;
    if Some(leaver.node) == record.config.primary {
        return None;
    }
    let in_sync: Vec<&Member> = rest.iter().filter(|member| member.state == MemberState::InSync).collect();
    let in_both = in_sync.iter().any(|member| member.dc != in_sync[0].dc);
    (in_sync.len() >= COPIES && in_both).then_some(rest)
}
