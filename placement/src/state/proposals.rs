//! What takes two operators: proposals by one, approvals by another, kept with both names, the reason and
//! what both were shown. An approval and what it approves are one command, so neither is ever there
//! without the other.

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::{Decode, Encode};
use trefoil_protocol::ids::{ConfigIndex, OperatorId};
use trefoil_protocol::message::approval::{JointAction, ProposalState, ProposalView};
use trefoil_protocol::time::CpTime;

use super::State;
use super::command::{Outcome, Rejection};

/// A proposal that nobody approved is void after this long.
pub const PROPOSAL_LASTS: Duration = Duration::from_secs(3600);

/// So many proposals are kept; beyond, those that nobody approved go first, oldest first.
const KEPT_MAX: usize = 1024;

/// A proposal to be numbered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProposalDraft {
    /// What is to be done.
    #[n(0)]
    pub action: JointAction,
    /// Who proposes it.
    #[n(1)]
    pub by: OperatorId,
    /// Why.
    #[n(2)]
    pub reason: String,
    /// What it does and costs, for both to see.
    #[n(3)]
    pub shown: Vec<String>,
}

/// All proposals that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Proposals {
    #[n(0)]
    last: u64,
    #[n(1)]
    kept: BTreeMap<u64, ProposalView>,
}

impl Proposals {
    /// All of them as they stand at `now`, the oldest first.
    pub fn all(&self, now: CpTime) -> impl Iterator<Item = ProposalView> {
        self.kept.values().map(move |proposal| as_of(proposal, now))
    }

    /// One of them as it stands at `now`.
    pub fn get(&self, number: u64, now: CpTime) -> Option<ProposalView> {
        self.kept.get(&number).map(|proposal| as_of(proposal, now))
    }

    /// Numbers a proposal; asked again, it is the same one.
    fn enter(&mut self, draft: &ProposalDraft, now: CpTime) -> u64 {
        let same = |kept: &&ProposalView| {
            (kept.action, kept.by, &kept.reason) == (draft.action, draft.by, &draft.reason)
                && as_of(kept, now).state == ProposalState::Open
        };
        if let Some(known) = self.kept.values().find(same) {
            return known.number;
        }
        while self.kept.len() >= KEPT_MAX {
            let approved = |kept: &&ProposalView| matches!(kept.state, ProposalState::Approved { .. });
            let first = self.kept.values().find(|kept| !approved(kept)).or(self.kept.values().next());
            let Some(number) = first.map(|kept| kept.number) else { break };
            self.kept.remove(&number);
        }
        self.last += 1;
        let proposal = ProposalView {
            number: self.last,
            action: draft.action,
            by: draft.by,
            at: now,
            expires: now + PROPOSAL_LASTS,
            reason: draft.reason.clone(),
            shown: draft.shown.clone(),
            state: ProposalState::Open,
        };
        self.kept.insert(self.last, proposal);
        self.last
    }

    /// What `by` may approve by the rules of proposals; `None` if that very operator has approved it before.
    fn approvable(&self, number: u64, by: OperatorId, now: CpTime) -> Result<Option<JointAction>, Rejection> {
        let proposal = self.get(number, now).ok_or(Rejection::Unknown("proposal"))?;
        match proposal.state {
            ProposalState::Expired => Err(Rejection::ProposalExpired(number)),
            ProposalState::Approved { by: known, .. } if known == by => Ok(None),
            ProposalState::Approved { .. } => Err(Rejection::ApprovedBefore(number)),
            ProposalState::Open if proposal.by == by => Err(Rejection::OwnProposal(number)),
            ProposalState::Open => Ok(Some(proposal.action)),
        }
    }

    fn approved(&mut self, number: u64, by: OperatorId, at: CpTime) {
        let proposal = self.kept.get_mut(&number).expect("it was found approvable");
        proposal.state = ProposalState::Approved { by, at };
    }
}

fn as_of(proposal: &ProposalView, now: CpTime) -> ProposalView {
    let over = proposal.state == ProposalState::Open && now >= proposal.expires;
    let state = if over { ProposalState::Expired } else { proposal.state };
    ProposalView { state, ..proposal.clone() }
}

impl State {
    pub(super) fn propose(&mut self, draft: &ProposalDraft) -> Result<Outcome, Rejection> {
        if let Err(why) = self.check_joint(&draft.action) {
            self.refused_to_propose(draft, &why);
            return Err(why);
        }
        Ok(Outcome::Proposal(self.proposals.enter(draft, self.clock.now())))
    }

    /// Approves a proposal and does what it says, or neither.
    pub(super) fn approve(
        &mut self,
        index: ConfigIndex,
        number: u64,
        by: OperatorId,
    ) -> Result<Outcome, Rejection> {
        let now = self.clock.now();
        match self.approvable(number, by, now) {
            Ok(Some(action)) => {
                self.carry_out(index, number, &action);
                self.proposals.approved(number, by, now);
            }
            Ok(None) => {}
            Err(why) => {
                self.refused_to_approve(number, by, &why);
                return Err(why);
            }
        }
        Ok(Outcome::Proposal(number))
    }

    /// What `by` may approve now; `None` if that very operator has approved it before.
    fn approvable(&self, number: u64, by: OperatorId, now: CpTime) -> Result<Option<JointAction>, Rejection> {
        let action = self.proposals.approvable(number, by, now)?;
        action.iter().try_for_each(|action| self.check_joint(action))?;
        Ok(action)
    }

    fn check_joint(&self, action: &JointAction) -> Result<(), Rejection> {
        match action {
            JointAction::AcceptLoss { volume, epoch, store } => {
                self.volumes.check_loss(*volume, *epoch, *store, &self.topology)
            }
            JointAction::Discard { volume, store } => {
                self.volumes.check_discard(*volume, *store, &self.topology)
            }
        }
    }

    fn carry_out(&mut self, index: ConfigIndex, number: u64, action: &JointAction) {
        match action {
            JointAction::AcceptLoss { volume, store, .. } => {
                let now = self.clock.now();
                self.volumes.accept_loss(index, number, *volume, *store, &self.topology, now);
            }
            JointAction::Discard { volume, store } => self.volumes.discard(index, *volume, *store),
        }
    }
}
