//! What a step has to say: commands to propose, rounds to confirm, answers to give, and which request
//! waits for which command.

use std::collections::BTreeMap;

use trefoil_protocol::ids::{NodeId, TenantId, VolumeId, VoterId};
use trefoil_protocol::message::admin::AdminAnswer;
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, PurgeEvidence, Renew};
use trefoil_protocol::message::plan::PlanView;
use trefoil_protocol::message::tenant::Refusal;
use trefoil_protocol::message::voter::VoterBody;

use crate::event::{Answer, RequestId};
use crate::state::Command;

/// Who waits for a command's outcome.
pub(crate) enum Waiting {
    /// A node's registration.
    Register(RequestId, NodeId),
    /// A renewal that waits for the node to count as there.
    Renew(RequestId, NodeId, Renew),
    /// A node that wants to hear `Done`.
    Control(RequestId),
    /// A purge order.
    Order(RequestId),
    /// A store that a volume went on without.
    Differs(RequestId),
    /// A primary that acknowledges in one data centre alone.
    Note(RequestId),
    /// Certificates, with the evidence they are made from.
    Certify(RequestId, VolumeId, Vec<PurgeEvidence>),
    /// An operator.
    Admin(RequestId),
    /// An operator who wants a plan, all of it but its number.
    Plan(RequestId, Box<PlanView>),
    /// A principal that wants its keys.
    Keys(RequestId, TenantId),
    /// The controller: a volume's change or activation.
    Volume(VolumeId),
    /// The controller: a silent node.
    Node(NodeId),
    /// The controller: the clock.
    Tick,
    /// The controller: who keeps the log.
    Council,
    /// Nobody: what it is for shows in the state.
    Nobody,
}

impl Waiting {
    /// What the one who waits hears if nothing is going to come of it here.
    pub(crate) fn given_up(&self) -> Option<(RequestId, Answer)> {
        match self {
            Self::Register(id, _)
            | Self::Renew(id, ..)
            | Self::Control(id)
            | Self::Order(id)
            | Self::Note(id)
            | Self::Differs(id)
            | Self::Certify(id, ..) => Some((
                *id,
                Answer::Control(ControlAnswer::Refused(ControlRefusal::NotLeader { leader: None })),
            )),
            Self::Admin(id) | Self::Plan(id, _) => {
                let reason = "the control plane changed its leader; look whether it was done".to_owned();
                Some((*id, Answer::Admin(AdminAnswer::Refused(reason))))
            }
            Self::Keys(id, _) => Some((*id, Answer::Tenant(Err(Refusal::Unavailable)))),
            Self::Volume(_) | Self::Node(_) | Self::Tick | Self::Council | Self::Nobody => None,
        }
    }
}

/// A command with the number under which its outcome is awaited.
pub(crate) struct Proposal {
    pub(crate) sequence: u64,
    pub(crate) command: Command,
}

/// Collected over a step.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) rounds: Vec<u64>,
    pub(crate) answers: Vec<(RequestId, Answer)>,
    /// What is said to other voters besides the log's messages.
    pub(crate) said: Vec<(VoterId, VoterBody)>,
    /// Somebody else shall lead.
    pub(crate) hand_over: bool,
    waiting: BTreeMap<u64, Waiting>,
    last_sequence: u64,
}

impl Outbox {
    /// Proposes a command for somebody.
    pub(crate) fn propose(&mut self, command: Command, waiting: Waiting) {
        self.last_sequence += 1;
        self.waiting.insert(self.last_sequence, waiting);
        self.proposals.push(Proposal { sequence: self.last_sequence, command });
    }

    /// Asks for a round of confirmation.
    pub(crate) fn confirm(&mut self, round: u64) {
        self.rounds.push(round);
    }

    /// Answers a request.
    pub(crate) fn answer(&mut self, id: RequestId, answer: Answer) {
        self.answers.push((id, answer));
    }

    /// How many commands are awaited.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Who waited for the command with this number.
    pub(crate) fn settle(&mut self, sequence: u64) -> Option<Waiting> {
        self.waiting.remove(&sequence)
    }

    /// Nothing more will come of anything awaited.
    pub(crate) fn give_up(&mut self) {
        self.proposals.clear();
        self.rounds.clear();
        let given_up = std::mem::take(&mut self.waiting).into_values();
        self.answers.extend(given_up.filter_map(|waiting| waiting.given_up()));
    }
}
