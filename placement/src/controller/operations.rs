//! Plans at the leader: made on request, numbered by the log, applied by number, and told how far they
//! are.

use std::time::Duration;

use trefoil_protocol::config::{MemberState, Protection};
use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::message::admin::AdminAnswer;
use trefoil_protocol::message::plan::{PlanView, Progress, Verb};
use trefoil_protocol::time::Millis;

use crate::controller::outbox::Waiting;
use crate::controller::wishes::MOVES_AT_ONCE;
use crate::controller::{Controller, Turn, council, planner};
use crate::event::{Answer, RequestId};
use crate::state::{Command, State, VolumeRecord};

/// So many things that are waited for are named.
const WAITING_MAX: usize = 20;

impl Controller {
    /// Makes a plan; its number comes with the commit.
    pub(crate) fn make_plan(&mut self, turn: &mut Turn<'_>, id: RequestId, verb: Verb) {
        match planner::draw(turn.state, verb, |verb| self.council.draw(turn.state, turn.now, verb)) {
            Ok(drawn) => {
                let mut view = drawn.view(turn.state, &|volume| self.reported.size(volume));
                view.expected = self.expected(&view).map(Millis::from);
                turn.out.propose(Command::EnterPlan(drawn.draft), Waiting::Plan(id, Box::new(view)));
            }
            Err(reason) => turn.out.answer(id, Answer::Admin(AdminAnswer::Refused(reason))),
        }
    }

    fn expected(&self, plan: &PlanView) -> Option<Duration> {
        let copies = plan.steps.iter().filter(|step| step.join.is_some()).count() as u64;
        let bytes = plan.steps.iter().map(|step| step.bytes).sum();
        let handovers = plan.steps.iter().filter(|step| step.lead.is_some()).count() as u32;
        let (done, longest) = self.handovers.measured();
        let switching = match (handovers, done) {
            (0, _) => Some(Duration::ZERO),
            (_, 0) => None,
            _ => Some(longest * handovers),
        };
        let copying = match copies {
            0 => Some(Duration::ZERO),
            _ => self.pace.expected(copies, bytes, MOVES_AT_ONCE as u64),
        };
        Some(switching? + copying?)
    }

    /// How far the plan is that was applied last.
    pub(crate) fn progress(&self, state: &State) -> Option<Progress> {
        let applied = state.plans.applied()?;
        let goal = state.voters.goal().filter(|goal| goal.plan == applied.number);
        let wishes = |record: &VolumeRecord| record.wish.is_some_and(|wish| wish.plan == applied.number);
        let wished = || state.volumes.wished().filter(|record| wishes(record));
        let erases = || emptied(state, applied.verb).filter(|record| !wishes(record));
        let (handovers, longest_pause) = self.handovers.measured();
        let voters = goal.map(|goal| council::waits_for(state, goal));
        Some(Progress {
            number: applied.number,
            verb: applied.verb,
            volumes: applied.volumes,
            left: u32::try_from(wished().count() + erases().count() + goal.iter().count())
                .unwrap_or(u32::MAX),
            handovers,
            longest_pause: Millis::from(longest_pause),
            waiting: wished()
                .map(waits_for)
                .chain(voters)
                .chain(erases().map(keeps))
                .take(WAITING_MAX)
                .collect(),
        })
    }

    /// Sees copies begin and end.
    pub(crate) fn look_at_pace(&mut self, turn: &Turn<'_>, volume: VolumeId) {
        if let Some(record) = turn.state.volumes.get(volume) {
            let (_, bytes) = self.reported.size(volume);
            self.pace.look(record, bytes, turn.now);
        }
    }
}

/// Volumes that have left a node that is to be emptied, and whose bytes it has not yet given up.
fn emptied(state: &State, verb: Verb) -> impl Iterator<Item = &VolumeRecord> {
    let node = match verb {
        Verb::DrainNode(node) => Some(node),
        _ => None,
    };
    node.into_iter().flat_map(|node| state.left_by(node))
}

/// Why bytes are kept where a volume has left.
fn keeps(record: &VolumeRecord) -> String {
    let config = &record.config;
    let reason = match config.protection {
        Protection::BothDcs if config.activated => "has moved; its old copy is not erased yet",
        _ => "has moved; its old copy is kept until both data centres are whole",
    };
    format!("volume {} {reason}", config.volume)
}

/// What stands between a volume and what is wanted of it.
fn waits_for(record: &VolumeRecord) -> String {
    let config = &record.config;
    let behind = config.members.iter().find(|member| member.state == MemberState::CatchingUp);
    let reason = match (config.primary, behind) {
        (None, _) => "is down".to_owned(),
        _ if !config.activated => "begins an epoch".to_owned(),
        _ if config.handover.is_some() => "hands over".to_owned(),
        (_, Some(member)) => format!("waits for {} to catch up", member.node),
        _ => "waits for its turn".to_owned(),
    };
    format!("volume {} {reason}", config.volume)
}
