//! The choice of a volume's next configuration: pure, from the committed state and what the leader
//! observed. It never chooses the least bad: without a store that holds everything acknowledged the
//! volume stays down.

use std::collections::BTreeSet;

use trefoil_protocol::config::{Duty, Member, MemberState, Protection, SingleDcPolicy};
use trefoil_protocol::ids::{DcId, Epoch, Lsn, NodeId, StoreId};
use trefoil_protocol::mutant;

use crate::controller::recruit::{COPIES, COPIES_LEAST, Fitness, NoRecruit, neediest, recruit, shape};
use crate::controller::wishes;
use crate::state::{MEMBERS_MAX, State, Topology, VolumeChange, VolumeRecord};

/// What the primary of one epoch has reported of its volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The epoch it is about.
    pub(crate) epoch: Epoch,
    /// Members are fenced at this epoch, the log is chosen, and it is committed at least up to here.
    pub(crate) ready: Option<Lsn>,
    /// Stores that do not acknowledge.
    pub(crate) lagging: BTreeSet<StoreId>,
    /// Stores that caught up.
    pub(crate) complete: BTreeSet<StoreId>,
    /// The store that should lead instead.
    pub(crate) better: Option<StoreId>,
    /// It takes nothing new, and who is to follow has everything.
    pub(crate) yielded: bool,
    /// Everything acknowledged under `SingleDc` is in both data centres.
    pub(crate) restored: bool,
}

/// What the choice is made from.
pub(crate) struct Scene<'a> {
    pub(crate) state: &'a State,
    pub(crate) fitness: Fitness<'a>,
    /// A volume that was down waits a little for all of its members.
    pub(crate) may_wait: bool,
    /// A plan may begin another copy.
    pub(crate) may_move: bool,
    /// The primary is slow and could not hand the volume over.
    pub(crate) steps_down: bool,
}

/// The next configuration of a volume, if it should have another one now.
pub(crate) fn next_change(
    scene: &Scene<'_>,
    record: &VolumeRecord,
    evidence: &Evidence,
) -> Option<VolumeChange> {
    let choice = Choice { scene, record, evidence, topology: &scene.state.topology };
    let (primary, members, protection) = choice.next()?;
    let change = VolumeChange {
        volume: record.config.volume,
        from: record.config.epoch,
        primary,
        members,
        protection,
    };
    assert_eq!(record.breakage(&change), None, "no change that breaks a volume is ever proposed");
    Some(change)
}

type Next = (Option<NodeId>, Vec<Member>, Protection);

/// What the next primary has.
#[derive(Clone, Copy)]
enum Lead {
    /// Everything.
    Whole,
    /// Every record.
    Owing,
}

struct Choice<'a> {
    scene: &'a Scene<'a>,
    record: &'a VolumeRecord,
    evidence: &'a Evidence,
    topology: &'a Topology,
}

impl Choice<'_> {
    fn next(&self) -> Option<Next> {
        let config = &self.record.config;
        let staying = self.staying();
        let primary_stays = config.primary.filter(|node| staying.iter().any(|member| member.node == *node));
        let settled = primary_stays.is_some() && staying.len() == config.members.len();
        if settled && !self.primary_is_doubted() {
            match config.activated {
                true => return self.upkeep(&staying),
                false if config.can_acknowledge() && !self.is_outdone() => return None,
                false => {} // It waits for somebody to acknowledge with, or steps back.
            }
        }
        self.repair(staying)
    }

    /// Members that are there and reachable.
    fn staying(&self) -> Vec<Member> {
        let alone = self.primary_is_cut_off();
        let live = self.record.config.members.iter().filter(|member| self.topology.is_live(member));
        live.filter(|member| alone || !self.evidence.lagging.contains(&member.store)).copied().collect()
    }

    /// A primary that reaches nobody, while the control plane hears them all, is the one that is cut
    /// off.
    fn primary_is_cut_off(&self) -> bool {
        let config = &self.record.config;
        let mut others = config.members.iter().filter(|member| Some(member.node) != config.primary);
        others.clone().count() >= 2
            && others.all(|m| self.topology.is_live(m) && self.evidence.lagging.contains(&m.store))
            && self.eligible(&config.members).iter().any(|member| Some(member.node) != config.primary)
    }

    fn primary_is_doubted(&self) -> bool {
        self.primary_is_cut_off() || self.better().is_some() || self.primary_steps_down()
    }

    /// A slow primary that could not hand over goes if somebody else can lead.
    fn primary_steps_down(&self) -> bool {
        let config = &self.record.config;
        let can_follow = |m: &Member| Some(m.node) != config.primary && !(self.scene.fitness.unfit)(m.store);
        self.scene.steps_down && config.activated && self.eligible(&config.members).iter().any(can_follow)
    }

    /// The store that the primary itself would rather see lead, if it may.
    fn better(&self) -> Option<Member> {
        let eligible = self.eligible(&self.record.config.members);
        let better = eligible.into_iter().find(|member| self.evidence.better == Some(member.store))?;
        (Some(better.node) != self.record.config.primary).then_some(better)
    }

    fn eligible(&self, members: &[Member]) -> Vec<Member> {
        eligible(self.topology, self.record, members)
    }

    fn repair(&self, staying: Vec<Member>) -> Option<Next> {
        let config = &self.record.config;
        let staying = if self.eligible(&staying).is_empty() { self.with_recalled(staying) } else { staying };
        let (lead, staying, eligible) = self.candidates(staying);
        if eligible.is_empty() {
            // Down. The members stay: one of them holds what was acknowledged.
            let goes_down = config.primary.is_some();
            return goes_down.then(|| (None, config.members.clone(), config.protection));
        }
        if config.primary.is_none() && self.scene.may_wait && staying.len() < config.members.len() {
            return None;
        }
        let primary = self.choose_primary(&eligible)?;
        let mut members = self.fill_up(staying).ok()?;
        settle_states(&mut members, primary, lead);
        let protection = self.protection_of(&members);
        // Who does not answer and cannot be replaced may answer yet: a new epoch would only begin anew.
        let same = config.primary == Some(primary)
            && config.protection == protection
            && as_set(&config.members) == as_set(&members);
        (!same).then_some((Some(primary), members, protection))
    }

    /// Who may lead, and with which members: stores that hold everything, or where none is there one that owes.
    fn candidates(&self, staying: Vec<Member>) -> (Lead, Vec<Member>, Vec<Member>) {
        let eligible = self.eligible(&staying);
        if !eligible.is_empty() {
            return (Lead::Whole, staying, eligible);
        }
        let staying = self.with_vouching(staying);
        let eligible = self.record.may_owe(&staying);
        (Lead::Owing, staying, eligible)
    }

    /// With stores that are no members any more and still hold everything that was acknowledged: since
    /// they were in sync no epoch was activated.
    fn with_recalled(&self, staying: Vec<Member>) -> Vec<Member> {
        let recalled = self.recalled(self.record.complete_stores(), MemberState::InSync);
        recalled.into_iter().chain(staying).take(MEMBERS_MAX).collect()
    }

    /// With stores that are no members any more and still have every record, alone or together.
    fn with_vouching(&self, staying: Vec<Member>) -> Vec<Member> {
        let vouching = self.record.vouching_stores().into_iter().flatten();
        let stores = self.record.knowing_stores().into_iter().chain(vouching).collect();
        let recalled = self.recalled(stores, MemberState::CatchingUp);
        recalled.into_iter().chain(staying).take(MEMBERS_MAX).collect()
    }

    fn recalled(&self, stores: BTreeSet<StoreId>, state: MemberState) -> Vec<Member> {
        let gone = stores.into_iter().filter(|store| self.record.config.member_of_store(*store).is_none());
        let entries = gone.filter_map(|store| self.topology.runner(store));
        let there = entries.filter(|entry| {
            self.topology.is_live(&Topology::member(entry, state))
                && !self.topology.is_unconfirmed(entry)
                && !self.topology.is_fenced(entry.store)
        });
        there.map(|entry| Topology::member(entry, state)).collect()
    }

    /// Whether a store that holds everything came back before one began to lead that owes.
    fn is_outdone(&self) -> bool {
        let owes = self.record.config.primary_member().is_some_and(|m| m.state == MemberState::Owing);
        owes && !self.eligible(&self.with_recalled(self.staying())).is_empty()
    }

    /// The present primary if it may stay; else one at home; nobody who may be gone already.
    fn choose_primary(&self, eligible: &[Member]) -> Option<NodeId> {
        if let Some(better) = self.better().filter(|better| eligible.contains(better)) {
            return Some(better.node);
        }
        let present = |member: &&Member| Some(member.node) == self.record.config.primary;
        let doubted = self.primary_is_cut_off() || self.primary_steps_down();
        if let Some(present) = eligible.iter().find(present).filter(|_| !doubted) {
            return (self.scene.fitness.fresh)(present.node).then_some(present.node);
        }
        let fresh = eligible.iter().filter(|m| !present(m) && (self.scene.fitness.fresh)(m.node));
        let leaving =
            |m: &Member| self.topology.node(m.node).is_some_and(|entry| entry.duty == Duty::Leaving);
        let unfit = |m: &Member| (self.scene.fitness.unfit)(m.store);
        let ranked = fresh.map(|m| (leaving(m), unfit(m), m.dc != self.record.home, m.node));
        ranked.min().map(|(.., node)| node)
    }

    /// Recruits up to three members, whoever was slow lately only if nothing could be acknowledged
    /// without them.
    fn fill_up(&self, members: Vec<Member>) -> Result<Vec<Member>, NoRecruit> {
        let members = self.filled(members, &self.scene.fitness)?;
        match members.len() < COPIES_LEAST {
            true => self.filled(members, &self.scene.fitness.in_need()),
            false => Ok(members),
        }
    }

    /// Recruits first where a data centre lacks copies, else anywhere. A data centre without any gets one even
    /// if there are enough elsewhere: the volume would acknowledge in one alone.
    fn filled(&self, mut members: Vec<Member>, fitness: &Fitness<'_>) -> Result<Vec<Member>, NoRecruit> {
        let shape = shape(self.topology, self.record.home, &members);
        let mut exhausted = BTreeSet::new();
        let in_one = |members: &[Member]| count_dcs(members.iter().map(|member| member.dc)) < 2;
        while members.len() < COPIES || members.len() < MEMBERS_MAX && in_one(&members) {
            let open: Vec<(DcId, usize)> =
                shape.iter().filter(|(dc, _)| !exhausted.contains(dc)).copied().collect();
            let anywhere = || open.first().filter(|_| members.len() < COPIES).map(|(dc, _)| *dc);
            let Some(dc) = neediest(&open, &members).or_else(anywhere) else { break };
            match recruit(self.topology, self.record, &members, dc, fitness) {
                Ok(entry) => members.push(Topology::member(entry, MemberState::CatchingUp)),
                Err(NoRecruit::Nobody) => {
                    exhausted.insert(dc);
                }
                Err(NoRecruit::NotSure) => return Err(NoRecruit::NotSure),
            }
        }
        Ok(members)
    }

    /// One step towards the aim of a volume that works.
    fn upkeep(&self, members: &[Member]) -> Option<Next> {
        let config = &self.record.config;
        let keep_primary = |members: Vec<Member>| {
            let protection = self.protection_of(&members);
            (config.primary, members, protection)
        };
        if let Some(members) = self.completed(members) {
            return Some(keep_primary(members));
        }
        if config.protection == Protection::Restoring && self.evidence.restored {
            return Some((config.primary, members.to_vec(), Protection::BothDcs));
        }
        if self.protection_of(members) != config.protection {
            return Some(keep_primary(members.to_vec()));
        }
        if let Some(next) = self.handed_over(members) {
            return Some(next);
        }
        if let Some(members) = self.with_slow_relieved(members) {
            return Some(keep_primary(members));
        }
        if self.record.wish.is_some() && members.len() >= COPIES {
            // The primary goes first: what may be lost soon shall not lead while copies are made.
            if wishes::successor(self.record, &self.eligible(members)).is_some() {
                return None;
            }
            let (fitness, may_move) = (&self.scene.fitness, self.scene.may_move);
            return wishes::step(self.topology, self.record, members, fitness, may_move).map(keep_primary);
        }
        self.with_surplus_removed(members).or_else(|| self.with_one_more(members)).map(keep_primary)
    }

    /// The rule that follows from who is left. Entering `SingleDc` is immediate. Leaving it begins when
    /// complete copies are in both data centres, on stores that have been there for a while, unless
    /// nothing is acknowledged meanwhile; it ends with the primary's proof alone.
    fn protection_of(&self, members: &[Member]) -> Protection {
        let config = &self.record.config;
        let in_both = |wanted: &dyn Fn(&Member) -> bool| {
            count_dcs(members.iter().filter(|member| wanted(member)).map(|member| member.dc)) >= 2
        };
        let complete = |member: &Member| member.state == MemberState::InSync;
        let in_need = config.single_dc == SingleDcPolicy::Refuse;
        let steady = |member: &Member| in_need || (self.scene.fitness.steady)(member.node);
        let steady = |member: &Member| complete(member) && steady(member);
        match config.protection {
            Protection::BothDcs if in_both(&|_| true) => Protection::BothDcs,
            Protection::SingleDc if in_both(&steady) => Protection::Restoring,
            Protection::Restoring if in_both(&complete) => Protection::Restoring,
            _ => Protection::SingleDc,
        }
    }

    /// With the primary that was waited for.
    fn handed_over(&self, members: &[Member]) -> Option<Next> {
        let to = self.record.config.handover.filter(|_| self.evidence.yielded)?;
        let next = self.eligible(members).into_iter().find(|member| member.store == to)?;
        let mut members = members.to_vec();
        settle_states(&mut members, next.node, Lead::Whole);
        let fresh = (self.scene.fitness.fresh)(next.node);
        fresh.then_some((Some(next.node), members, self.record.config.protection))
    }

    /// A slow member is waited for no more, if its data centre has another one or gets one now: it keeps what it has
    /// and is sent everything until there are enough without it. Never without another one there, and never so that
    /// fewer than two in-sync members are left.
    fn with_slow_relieved(&self, members: &[Member]) -> Option<Vec<Member>> {
        let is_slow =
            |m: &&Member| Some(m.node) != self.record.config.primary && (self.scene.fitness.slow)(m.store);
        members.iter().filter(is_slow).find_map(|slow| self.relieved(members, slow))
    }

    fn relieved(&self, members: &[Member], slow: &Member) -> Option<Vec<Member>> {
        let shape = shape(self.topology, self.record.home, members);
        let wanted = shape.iter().find(|(dc, _)| *dc == slow.dc).map_or(0, |(_, count)| *count);
        let fit =
            |m: &&Member| m.dc == slow.dc && !(self.scene.fitness.unfit)(m.store) && m.store != slow.store;
        let mut after = members.to_vec();
        let well = members.iter().filter(fit).count();
        if well < wanted && members.len() < MEMBERS_MAX {
            let fitness = &self.scene.fitness;
            // Where every write waits for the slow one, that it moves once more is the lesser evil.
            let fitness = if well == 0 { fitness.at_will() } else { Fitness { ..*fitness } };
            match recruit(self.topology, self.record, members, slow.dc, &fitness) {
                Ok(entry) => after.push(Topology::member(entry, MemberState::CatchingUp)),
                Err(NoRecruit::NotSure) => return None,
                Err(NoRecruit::Nobody) => {}
            }
        }
        let others = members.iter().filter(|m| m.state == MemberState::InSync && m.store != slow.store);
        if others.count() >= COPIES_LEAST && after.iter().any(|m| fit(&m)) {
            let relieved = after.iter_mut().find(|m| m.store == slow.store).expect("it is a member");
            relieved.state = MemberState::CatchingUp;
        }
        (as_set(&after) != as_set(members)).then_some(after)
    }

    fn completed(&self, members: &[Member]) -> Option<Vec<Member>> {
        let in_sync = members.iter().filter(|m| m.state == MemberState::InSync).count();
        let caught_up = |m: &Member| {
            let proven = self.evidence.complete.contains(&m.store);
            // Without two that are in sync, a slow one is better than none.
            let slow = (self.scene.fitness.unfit)(m.store) || (self.scene.fitness.slow)(m.store);
            let fit = !slow || in_sync < COPIES_LEAST;
            match m.state {
                MemberState::InSync => false,
                MemberState::CatchingUp => mutant!(M26, proven, true) && fit,
                MemberState::Owing => proven,
            }
        };
        members.iter().any(caught_up).then(|| {
            let state = |m: &Member| if caught_up(m) { MemberState::InSync } else { m.state };
            members.iter().map(|m| Member { state: state(m), ..*m }).collect()
        })
    }

    fn with_one_more(&self, members: &[Member]) -> Option<Vec<Member>> {
        if members.len() >= MEMBERS_MAX {
            return None;
        }
        let shape = shape(self.topology, self.record.home, members);
        let dc = neediest(&shape, members)?;
        // One at a time: whoever catches up there shall finish first.
        let busy = |m: &Member| m.dc == dc && m.state == MemberState::CatchingUp;
        if members.len() >= COPIES && members.iter().any(busy) {
            return None;
        }
        let in_need = self.scene.fitness.in_need();
        let fitness = if members.len() < COPIES_LEAST { &in_need } else { &self.scene.fitness };
        let entry = recruit(self.topology, self.record, members, dc, fitness).ok()?;
        let mut members = members.to_vec();
        members.push(Topology::member(entry, MemberState::CatchingUp));
        Some(members)
    }

    /// Without one member more than needed, in a data centre that has more than its share, and only
    /// if three complete copies in both data centres are left.
    fn with_surplus_removed(&self, members: &[Member]) -> Option<Vec<Member>> {
        let shape = shape(self.topology, self.record.home, members);
        if members.len() <= COPIES || shape.len() < 2 {
            return None;
        }
        let held = |dc: DcId| members.iter().filter(|member| member.dc == dc).count();
        let above = |dc: DcId| !shape.iter().any(|(other, target)| *other == dc && held(dc) <= *target);
        let removable = members.iter().filter(|m| above(m.dc) && Some(m.node) != self.record.config.primary);
        let mut ranked: Vec<&Member> = removable.collect();
        ranked.sort_by_key(|member| (member.state == MemberState::InSync, member.node));
        ranked.into_iter().find_map(|extra| {
            let rest: Vec<Member> = members.iter().filter(|m| m.store != extra.store).copied().collect();
            let in_sync: Vec<&Member> = rest.iter().filter(|m| m.state == MemberState::InSync).collect();
            (in_sync.len() >= COPIES && count_dcs(in_sync.iter().map(|m| m.dc)) >= 2).then_some(rest)
        })
    }
}

/// Those of `members` that hold everything acknowledged and are there.
pub(crate) fn eligible(topology: &Topology, record: &VolumeRecord, members: &[Member]) -> Vec<Member> {
    let complete = record.complete_stores();
    let eligible = members.iter().filter(|member| {
        let complete = member.state == MemberState::InSync && complete.contains(&member.store);
        mutant!(M07, complete, true) && topology.is_live(member)
    });
    eligible.copied().collect()
}

/// Whoever owes leads, and whoever owed and leads no more catches up. Where even the primary owes nobody holds
/// everything.
fn settle_states(members: &mut [Member], primary: NodeId, lead: Lead) {
    for member in members {
        member.state = match (lead, member.state) {
            (Lead::Owing, _) if member.node == primary => MemberState::Owing,
            (Lead::Owing, _) | (Lead::Whole, MemberState::Owing) => MemberState::CatchingUp,
            (Lead::Whole, state) => state,
        };
    }
}

fn as_set(members: &[Member]) -> BTreeSet<(StoreId, MemberState)> {
    members.iter().map(|member| (member.store, member.state)).collect()
}

fn count_dcs(dcs: impl Iterator<Item = DcId>) -> usize {
    dcs.collect::<BTreeSet<DcId>>().len()
}
