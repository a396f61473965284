//! What operators want done, step by step: a plan is entered with the state that it was made from,
//! applied as it is or not at all, and leaves each volume a wish that the leader fulfils.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use trefoil_protocol::config::{Duty, MemberState};
use trefoil_protocol::ids::{ConfigIndex, DcId, Epoch, NodeId, StoreId, VolumeId};
use trefoil_protocol::message::plan::Verb;

use super::State;
use super::command::{Outcome, Rejection};
use super::volumes::VolumeRecord;
use super::voters::VoterGoal;

/// So many plans wait to be applied; the oldest goes first.
const DRAFTS_MAX: usize = 16;

/// What an operator's plan wants of one volume beyond what is done for it anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Wish {
    /// The plan.
    #[n(0)]
    pub plan: u64,
    /// Who shall be primary; another member of that data centre will do.
    #[n(1)]
    pub lead: Option<Lead>,
    /// The member that shall go.
    #[n(2)]
    pub leave: Option<StoreId>,
    /// Who shall take its place first.
    #[n(3)]
    pub join: Option<NodeId>,
    /// Where the volume was at home, and before, should the plan be given up.
    #[n(4)]
    pub home_was: (DcId, Option<DcId>),
}

/// A primary to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lead {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Its data centre.
    #[n(1)]
    pub dc: DcId,
}

impl Wish {
    /// Whether the volume is as wished.
    pub fn is_fulfilled(&self, record: &VolumeRecord) -> bool {
        !self.wants_lead(record)
            && self.leave.is_none_or(|store| record.config.member_of_store(store).is_none())
            && self.join.filter(|_| self.leave.is_none()).is_none_or(|node| {
                record.config.member(node).is_some_and(|member| member.state == MemberState::InSync)
            })
    }

    /// Whether another member should be primary.
    pub fn wants_lead(&self, record: &VolumeRecord) -> bool {
        let primary = record.config.primary_member();
        self.lead.is_some_and(|lead| {
            primary.is_none_or(|member| member.dc != lead.dc || Some(member.store) == self.leave)
        })
    }
}

/// One volume's part in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PlanStep {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// The epoch that the step was made from.
    #[n(1)]
    pub from: Epoch,
    /// Where it shall have its two copies from now on.
    #[n(2)]
    pub home: Option<DcId>,
    /// Who shall be primary.
    #[n(3)]
    pub lead: Option<Lead>,
    /// The member that shall go.
    #[n(4)]
    pub leave: Option<StoreId>,
    /// Who shall take its place.
    #[n(5)]
    pub join: Option<NodeId>,
}

/// A plan as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PlanDraft {
    /// What was asked for.
    #[n(0)]
    pub verb: Verb,
    /// The state it was made from.
    #[n(1)]
    pub made_from: ConfigIndex,
    /// By volume.
    #[n(2)]
    pub steps: Vec<PlanStep>,
    /// What becomes of the voters.
    #[n(3)]
    pub voters: Option<VoterGoal>,
}

/// All plans that can still be applied, and the one that was applied last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Plans {
    #[n(0)]
    last: u64,
    #[n(1)]
    drafts: BTreeMap<u64, PlanDraft>,
    #[n(2)]
    applied: Option<AppliedPlan>,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AppliedPlan {
    /// Its number.
    #[n(0)]
    pub number: u64,
    /// What was asked for.
    #[n(1)]
    pub verb: Verb,
    /// How many volumes it concerns.
    #[n(2)]
    pub volumes: u32,
}

impl Plans {
    /// The plan that was applied last.
    pub fn applied(&self) -> Option<&AppliedPlan> {
        self.applied.as_ref()
    }

    fn enter(&mut self, draft: &PlanDraft) -> u64 {
        self.last += 1;
        if self.drafts.len() >= DRAFTS_MAX {
            self.drafts.pop_first();
        }
        self.drafts.insert(self.last, draft.clone());
        self.last
    }
}

impl State {
    /// Keeps a plan for somebody to apply.
    pub(super) fn enter_plan(&mut self, draft: &PlanDraft) -> Outcome {
        Outcome::Plan(self.plans.enter(draft))
    }

    /// Begins to do what a plan says, if everything that it was made from is still so.
    pub(super) fn apply_plan(
        &mut self,
        index: ConfigIndex,
        number: u64,
        verb: Verb,
    ) -> Result<Outcome, Rejection> {
        let draft =
            self.plans.drafts.get(&number).ok_or(Rejection::Unknown("plan; make one with `--plan`"))?;
        if draft.verb != verb {
            return Err(Rejection::OtherPlan(number));
        }
        self.check_plan(draft)?;
        let draft = self.plans.drafts.remove(&number).expect("it was just there");
        match draft.verb {
            Verb::DrainNode(node) => self.topology.set_duty(index, node, Duty::Leaving)?,
            Verb::RestoreNode(node) => {
                self.topology.set_duty(index, node, Duty::Full)?;
                self.volumes.forget_wishes();
            }
            Verb::RemoveNode(node) => self.topology.remove(node)?,
            Verb::DrainLink(link) => self.links.change(index, link, |policy| policy.drained = true),
            Verb::RestoreLink(link) => self.links.change(index, link, |policy| policy.drained = false),
            Verb::LimitRepair { link, per_second } => {
                self.links.change(index, link, |policy| policy.repair_limit = per_second);
            }
            Verb::Voters(_) => self.voters.aim(draft.voters.map(|goal| VoterGoal { plan: number, ..goal })),
            Verb::Failover(_) | Verb::Failback(_) | Verb::Rebalance => {}
        }
        for step in &draft.steps {
            self.volumes.wish(number, step, matches!(draft.verb, Verb::Failover(_)));
        }
        let volumes = u32::try_from(draft.steps.len()).unwrap_or(u32::MAX);
        self.plans.applied = Some(AppliedPlan { number, verb: draft.verb, volumes });
        Ok(Outcome::Done)
    }

    fn check_plan(&self, draft: &PlanDraft) -> Result<(), Rejection> {
        let busy = self.volumes.wished().next().is_some() || self.voters.goal().is_some();
        if busy && !matches!(draft.verb, Verb::RestoreNode(_)) {
            return Err(Rejection::PlanUnderWay);
        }
        for step in &draft.steps {
            let same = |record: &VolumeRecord| record.config.epoch == step.from;
            let is_same = self.volumes.get(step.volume).is_some_and(same);
            let there = |node: NodeId| self.topology.node(node).is_some_and(|entry| entry.is_at_work());
            let wanted = step.join.into_iter().chain(step.lead.map(|lead| lead.node));
            if !is_same || !wanted.into_iter().all(there) {
                return Err(Rejection::PlanOutdated(draft.made_from));
            }
        }
        match draft.verb {
            Verb::RemoveNode(node) => match self.holds_anything(node) {
                true => Err(Rejection::StillHolds(node)),
                false => Ok(()),
            },
            Verb::Voters(_) => self.check_voters(draft),
            _ => Ok(()),
        }
    }

    /// Who shall leave is still a member, and who shall join has never been one.
    fn check_voters(&self, draft: &PlanDraft) -> Result<(), Rejection> {
        let goal = draft.voters.ok_or(Rejection::Unknown("voter"))?;
        let gone = goal.leave.is_some_and(|voter| self.voters.get(voter).is_none());
        let taken = goal.join.is_some_and(|entry| self.voters.is_retired(entry.voter));
        if gone || taken { Err(Rejection::PlanOutdated(draft.made_from)) } else { Ok(()) }
    }

    /// Whether a store that the node runs or ran may hold bytes of a volume.
    pub fn holds_anything(&self, node: NodeId) -> bool {
        let stores = self.topology.stores_of(node);
        stores
            .into_iter()
            .any(|store| self.volumes.all().any(|record| record.config.ever_held.contains(&store)))
    }

    /// Volumes that moved away from the node and of which it has not yet said that nothing is left.
    pub fn left_by(&self, node: NodeId) -> impl Iterator<Item = &VolumeRecord> {
        self.topology.stores_of(node).into_iter().flat_map(|store| self.volumes.left_by(store))
    }
}
