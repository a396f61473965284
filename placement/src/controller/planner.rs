//! From what an operator wants to a plan: which volume gives which copy to whom, what that risks, what
//! it cannot do. It looks at the committed state and at what nodes reported, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use trefoil_protocol::config::{Duty, Member, MemberState, NodeEntry, NodeState};
use trefoil_protocol::ids::{DcId, LinkId, NodeId, StoreId, VolumeId};
use trefoil_protocol::message::plan::{PlanView, StepView, Verb, VoterVerb};

use crate::controller::balance::balance;
use crate::controller::council::DrawnGoal;
use crate::controller::failover::eligible;
use crate::controller::recruit::{rendezvous, up_nodes};
use crate::state::{Lead, PlanDraft, PlanStep, State, Topology, VolumeRecord, VoterGoal};

/// The least that repair may be limited to, over a whole link, in bytes a second.
const REPAIR_LIMIT_MIN: u64 = 1 << 20;

/// A plan before it has its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drawn {
    pub(crate) draft: PlanDraft,
    pub(crate) risks: Vec<String>,
    pub(crate) cannot: Vec<String>,
    pub(crate) undo: String,
}

/// How much a volume holds, as its primary said last.
pub(crate) type Sizes<'s> = &'s dyn Fn(VolumeId) -> (u64, u64);

/// Makes the plan of a verb; what becomes of voters is worked out by whoever knows which of them are
/// heard.
pub(crate) fn draw(
    state: &State,
    verb: Verb,
    voters: impl FnOnce(VoterVerb) -> Result<DrawnGoal, String>,
) -> Result<Drawn, String> {
    let mut planner =
        Planner { state, steps: Vec::new(), risks: Vec::new(), cannot: Vec::new(), voters: None };
    let undo = match verb {
        Verb::Failover(dc) => planner.failover(dc)?,
        Verb::Failback(dc) => planner.failback(dc)?,
        Verb::DrainNode(node) => planner.drain(node)?,
        Verb::RestoreNode(node) => planner.restore(node)?,
        Verb::RemoveNode(node) => planner.remove(node)?,
        Verb::DrainLink(link) => planner.drain_link(link),
        Verb::RestoreLink(link) => format!("trefoil link drain {link}"),
        Verb::LimitRepair { link, per_second } => planner.limit_repair(link, per_second)?,
        Verb::Rebalance => planner.rebalance(),
        Verb::Voters(verb) => {
            let drawn = voters(verb)?;
            planner.risks = drawn.risks;
            planner.voters = Some(drawn.goal);
            drawn.undo
        }
    };
    planner.note_risks_of_steps();
    let draft = PlanDraft { verb, made_from: state.applied, steps: planner.steps, voters: planner.voters };
    Ok(Drawn { draft, risks: planner.risks, cannot: planner.cannot, undo })
}

impl Drawn {
    /// As it is told.
    pub(crate) fn view(&self, state: &State, sizes: Sizes<'_>) -> PlanView {
        let node_of = |store: StoreId| state.topology.store(store).map(|record| record.node);
        let step = |step: &PlanStep| {
            let (objects, bytes) = step.join.map_or((0, 0), |_| sizes(step.volume));
            StepView {
                volume: step.volume,
                home: step.home,
                lead: step.lead.map(|lead| lead.node),
                leave: step.leave.and_then(node_of),
                join: step.join,
                objects,
                bytes,
            }
        };
        PlanView {
            number: 0,
            made_from: self.draft.made_from,
            verb: self.draft.verb,
            steps: self.draft.steps.iter().map(step).collect(),
            risks: self.risks.clone(),
            cannot: self.cannot.clone(),
            expected: None,
            undo: self.undo.clone(),
        }
    }
}

struct Planner<'s> {
    state: &'s State,
    steps: Vec<PlanStep>,
    risks: Vec<String>,
    cannot: Vec<String>,
    voters: Option<VoterGoal>,
}

impl Planner<'_> {
    fn topology(&self) -> &Topology {
        &self.state.topology
    }

    fn dcs(&self) -> BTreeSet<DcId> {
        self.topology().nodes().map(|record| record.entry.dc).collect()
    }

    fn other_dc(&self, dc: DcId) -> Result<DcId, String> {
        let dcs = self.dcs();
        if !dcs.contains(&dc) {
            return Err(format!("there is no data centre `{dc}`"));
        }
        dcs.into_iter().find(|other| *other != dc).ok_or_else(|| "there is no other data centre".to_owned())
    }

    fn known(&self, node: NodeId) -> Result<NodeEntry, String> {
        self.topology().node(node).cloned().ok_or_else(|| format!("there is no node `{node}`"))
    }

    fn failover(&mut self, dc: DcId) -> Result<String, String> {
        let other = self.other_dc(dc)?;
        let is_dead = up_nodes(self.topology()).all(|entry| entry.dc != dc);
        if is_dead {
            self.risks.push(format!(
                "no node of `{dc}` answers: this is no planned failover; what `{dc}` alone acknowledged may be lost"
            ));
            self.note_at_risk(dc);
        }
        for record in self.state.volumes.all() {
            if record.config.primary.is_none() {
                let reason = "is down: no store that holds everything acknowledged is there";
                self.cannot
                    .push(format!("volume {} {reason}; it comes up when one returns", record.config.volume));
            }
            let lead = self.lead_in(record, other);
            let moves = (record.home == dc).then(|| self.reshaped(record, other));
            self.step(record, moves.is_some().then_some(other), lead, moves.flatten());
        }
        self.risks.push(format!(
            "afterwards `{other}` holds two copies and `{dc}` one; without `{other}` writes would wait"
        ));
        Ok(format!("trefoil dc failback {dc}"))
    }

    fn failback(&mut self, dc: DcId) -> Result<String, String> {
        self.other_dc(dc)?;
        if up_nodes(self.topology()).all(|entry| entry.dc != dc) {
            return Err(format!("no node of `{dc}` is there to return to"));
        }
        for record in self.state.volumes.all() {
            let returns = record.home_before == Some(dc) && record.home != dc;
            if !returns && record.home != dc {
                continue;
            }
            let lead = self.lead_in(record, dc);
            let moves = if returns { self.reshaped(record, dc) } else { None };
            self.step(record, returns.then_some(dc), lead, moves);
        }
        Ok(format!("trefoil dc failover {dc}"))
    }

    fn drain(&mut self, node: NodeId) -> Result<String, String> {
        let entry = self.known(node)?;
        for record in self.state.volumes.all() {
            let Some(member) = record.config.member(node).copied() else { continue };
            let join = self.best_in(record, entry.dc);
            if join.is_none() {
                let reason = format!("no other node of `{}` can take it", entry.dc);
                self.cannot.push(format!("volume {} stays on {node}: {reason}", record.config.volume));
                continue;
            }
            let lead =
                if record.config.primary == Some(node) { self.lead_instead(record, &member) } else { None };
            self.step(record, None, lead, Some((member.store, join.expect("it was just checked"))));
        }
        Ok(format!("trefoil node restore {node}"))
    }

    fn restore(&mut self, node: NodeId) -> Result<String, String> {
        self.known(node)?;
        self.risks.push(
            "what was moved away stays where it is; `trefoil rebalance` brings a share back".to_owned(),
        );
        Ok(format!("trefoil node drain {node}"))
    }

    fn remove(&mut self, node: NodeId) -> Result<String, String> {
        let entry = self.known(node)?;
        if self.state.holds_anything(node) {
            return Err(format!(
                "node {node} may still hold volumes: drain it first, or fence its store {} if it is lost",
                entry.store
            ));
        }
        if entry.duty == Duty::Full && entry.state == NodeState::Up {
            return Err(format!("node {node} is at work: drain it first, so that it gets nothing new"));
        }
        self.risks.push(format!("the store {} can never join again", entry.store));
        Ok("start the node over an empty disk: it registers as a new one".to_owned())
    }

    fn drain_link(&mut self, link: LinkId) -> String {
        let others = LinkId::ALL.into_iter().filter(|other| *other != link);
        if others.clone().all(|other| self.state.links.policy(other).drained) {
            self.cannot.push("the other link is drained, too: both stay in use".to_owned());
        }
        let rest: Vec<String> = others.map(|other| other.to_string()).collect();
        self.risks.push(format!(
            "everything between the data centres goes over link {}; should it fail, link {link} is used all the same",
            rest.join(", ")
        ));
        format!("trefoil link restore {link}")
    }

    fn limit_repair(&mut self, link: LinkId, per_second: Option<u64>) -> Result<String, String> {
        if per_second.is_some_and(|limit| limit < REPAIR_LIMIT_MIN) {
            return Err(format!(
                "{} bytes a second would leave copies missing for too long: give at least {REPAIR_LIMIT_MIN}, or drain the link",
                per_second.unwrap_or(0)
            ));
        }
        if per_second.is_some() {
            self.risks.push(format!("what lacks a copy across link {link} lacks it for longer"));
        }
        let before = self.state.links.policy(link).repair_limit;
        Ok(match before {
            Some(limit) => format!("trefoil link limit {link} {limit}"),
            None => format!("trefoil link limit {link} none"),
        })
    }

    fn rebalance(&mut self) -> String {
        for (volume, leave, join) in balance(self.state) {
            let Some(record) = self.state.volumes.get(volume) else { continue };
            let Some(member) = record.config.member(leave).copied() else { continue };
            let lead =
                if record.config.primary == Some(leave) { self.lead_instead(record, &member) } else { None };
            self.step(record, None, lead, Some((member.store, join)));
        }
        "give it up with `trefoil plan cancel`; what has moved stays".to_owned()
    }

    fn step(
        &mut self,
        record: &VolumeRecord,
        home: Option<DcId>,
        lead: Option<Lead>,
        moves: Option<(StoreId, NodeId)>,
    ) {
        if home.is_none() && lead.is_none() && moves.is_none() {
            return;
        }
        let (leave, join) = moves.map_or((None, None), |(leave, join)| (Some(leave), Some(join)));
        let (volume, from) = (record.config.volume, record.config.epoch);
        self.steps.push(PlanStep { volume, from, home, lead, leave, join });
    }

    /// Who can be primary in `dc`, if the present one stands elsewhere.
    fn lead_in(&mut self, record: &VolumeRecord, dc: DcId) -> Option<Lead> {
        let primary = record.config.primary_member()?;
        if primary.dc == dc {
            return None;
        }
        let eligible = eligible(self.topology(), record, &record.config.members);
        let lead = eligible
            .iter()
            .filter(|member| member.dc == dc && self.is_at_work(member.node))
            .min_by_key(|m| m.node);
        if lead.is_none() {
            let reason = format!("`{dc}` has no complete copy of it yet");
            self.cannot
                .push(format!("volume {} stays led by {}: {reason}", record.config.volume, primary.node));
        }
        lead.map(|member| Lead { node: member.node, dc })
    }

    /// Who can be primary instead of a member, at home if possible.
    fn lead_instead(&mut self, record: &VolumeRecord, member: &Member) -> Option<Lead> {
        let eligible = eligible(self.topology(), record, &record.config.members);
        let others =
            eligible.iter().filter(|other| other.store != member.store && self.is_at_work(other.node));
        let lead = others.min_by_key(|other| (other.dc != record.home, other.node));
        if lead.is_none() {
            let reason = "there is no other complete copy";
            self.cannot
                .push(format!("volume {} stays led by {}: {reason}", record.config.volume, member.node));
        }
        lead.map(|other| Lead { node: other.node, dc: other.dc })
    }

    fn is_at_work(&self, node: NodeId) -> bool {
        self.topology().node(node).is_some_and(NodeEntry::is_at_work)
    }

    /// Which copy goes, and who gets one, so that two are in `home`.
    fn reshaped(&mut self, record: &VolumeRecord, home: DcId) -> Option<(StoreId, NodeId)> {
        let members = &record.config.members;
        let held = |here: bool| members.iter().filter(move |member| (member.dc == home) == here);
        if held(true).count() != 1 || held(false).count() != 2 {
            return None; // Repair puts copies where they lack.
        }
        let join = self.best_in(record, home);
        if join.is_none() {
            let reason = format!("no other node of `{home}` can take a second copy");
            self.cannot.push(format!("volume {} keeps one copy in `{home}`: {reason}", record.config.volume));
        }
        let rank = |member: &&Member| self.rank(record, member.node);
        let leave = held(false).max_by_key(rank)?.store;
        Some((leave, join?))
    }

    /// The best node of `dc` that is no member: in a rack of its own, with data from before.
    fn best_in(&self, record: &VolumeRecord, dc: DcId) -> Option<NodeId> {
        let members = &record.config.members;
        let racks: BTreeSet<_> = members
            .iter()
            .filter(|member| member.dc == dc)
            .filter_map(|member| self.topology().node(member.node))
            .map(|entry| entry.rack)
            .collect();
        let free = up_nodes(self.topology()).filter(|entry| {
            entry.dc == dc && entry.is_at_work() && record.config.member(entry.node).is_none()
        });
        let rank = |entry: &&NodeEntry| {
            let held = record.config.ever_held.contains(&entry.store);
            (racks.contains(&entry.rack), !held, self.rank(record, entry.node), entry.node)
        };
        free.min_by_key(rank).map(|entry| entry.node)
    }

    fn rank(&self, record: &VolumeRecord, node: NodeId) -> u64 {
        let entry = self.topology().node(node);
        entry.map_or(u64::MAX, |entry| rendezvous(record.config.tenant, record.config.volume, entry))
    }

    /// What only this data centre may have.
    fn note_at_risk(&mut self, dc: DcId) {
        let mut sums: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
        for record in self.state.volumes.all() {
            let alone = record
                .config
                .members
                .iter()
                .all(|member| member.dc == dc || member.state == MemberState::CatchingUp);
            if let Some(account) = record.at_risk.as_ref().filter(|_| alone) {
                let view = account.view(record.config.volume);
                let sum = sums.entry("volumes").or_default();
                *sum = (sum.0 + 1, sum.1 + view.objects, sum.2 + view.bytes);
            }
        }
        self.risks.push(match sums.get("volumes") {
            Some((volumes, objects, bytes)) => format!(
                "`{dc}` alone acknowledged at most {objects} objects ({bytes} bytes) of {volumes} volumes: they stay down \
                 until it returns"
            ),
            None => format!("nothing was acknowledged by `{dc}` alone: nothing acknowledged is lost"),
        });
    }

    fn note_risks_of_steps(&mut self) {
        let handovers = self.steps.iter().filter(|step| step.lead.is_some()).count();
        if handovers > 0 {
            self.risks.push(format!(
                "writes to {handovers} volumes wait for a moment each while their primary changes, four volumes at once"
            ));
        }
        let copies = self.steps.iter().filter(|step| step.join.is_some()).count();
        if copies > 0 {
            self.risks.push(format!(
                "{copies} copies are made before the old ones go: no volume has fewer copies meanwhile"
            ));
        }
    }
}
