//! What takes two operators: `approvals` shows what was proposed, `approve` does it, and `loss accept`
//! and `loss discard` propose what becomes of a volume that has lost stores.

use clap::{Args, Subcommand};
use serde::Serialize;
use trefoil_protocol::ids::{NodeId, VolumeId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::approval::{JointAction, ProposalState, ProposalView};

use super::connection::{Admin, unexpected};
use super::loss::ReportArguments;
use super::loss_list::ListArguments;
use crate::failure::{Failure, Verdict};
use crate::output::Format;

/// Arguments of `approve`.
#[derive(Debug, Args)]
pub(crate) struct ApproveArguments {
    /// The proposal's number
    number: u64,
}

/// Arguments of `approvals`.
#[derive(Debug, Args)]
pub(crate) struct ApprovalsArguments {
    /// Show what was refused instead: who wanted to go on against the rules, or to approve alone
    #[arg(long)]
    refused: bool,
}

/// The verbs of `loss`.
#[derive(Debug, Subcommand)]
pub(crate) enum LossVerb {
    /// Propose that a volume goes on with one node's store, without what only its lost stores have
    Accept(AcceptArguments),
    /// Propose that a store which a volume went on without gives up all that it has of the volume
    Discard(DiscardArguments),
    /// Show what volumes went on without, as the stores that came back have told
    Report(ReportArguments),
    /// List the versions that are known to be lost, signed
    List(ListArguments),
}

/// Arguments of `loss accept`.
#[derive(Debug, Args)]
pub(crate) struct AcceptArguments {
    /// The volume's number, as `status` shows it
    volume: u64,
    /// The node whose store it goes on with
    #[arg(long)]
    node: NodeId,
    /// Why, for the second operator and for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Arguments of `loss discard`.
#[derive(Debug, Args)]
pub(crate) struct DiscardArguments {
    /// The volume's number, as `status` shows it
    volume: u64,
    /// The node whose store gives it up
    #[arg(long)]
    node: NodeId,
    /// Why, for the second operator and for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Serialize)]
struct ProposalText {
    number: u64,
    action: String,
    proposed_by: String,
    proposed_at: String,
    expires: String,
    reason: String,
    shown: Vec<String>,
    state: &'static str,
    approved_by: Option<String>,
    approved_at: Option<String>,
}

impl ProposalText {
    fn of(view: &ProposalView) -> Self {
        let (state, approval) = match view.state {
            ProposalState::Open => ("open", None),
            ProposalState::Expired => ("expired", None),
            ProposalState::Approved { by, at } => ("approved", Some((by.to_string(), at.to_string()))),
        };
        let (approved_by, approved_at) = approval.unzip();
        Self {
            number: view.number,
            action: words(&view.action),
            proposed_by: view.by.to_string(),
            proposed_at: view.at.to_string(),
            expires: view.expires.to_string(),
            reason: view.reason.clone(),
            shown: view.shown.clone(),
            state,
            approved_by,
            approved_at,
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}  {}  proposed by {} at {}: {}\n",
            self.number, self.action, self.proposed_by, self.proposed_at, self.reason
        );
        for line in &self.shown {
            text += &format!("   {line}\n");
        }
        text + &match (&self.approved_by, &self.approved_at) {
            (Some(by), Some(at)) => format!("   approved by {by} at {at}: done"),
            _ if self.state == "open" => {
                format!(
                    "   to do it, as another operator, before {}: trefoil approve {}",
                    self.expires, self.number
                )
            }
            _ => format!("   expired at {}", self.expires),
        }
    }
}

/// An action as the verb that proposes it.
pub(super) fn words(action: &JointAction) -> String {
    match action {
        JointAction::AcceptLoss { volume, .. } => format!("loss accept {volume}"),
        JointAction::Discard { volume, .. } => format!("loss discard {volume}"),
    }
}

/// `trefoil approvals`.
pub(crate) async fn list(arguments: &ApprovalsArguments, admin: &Admin, format: Format) -> Verdict {
    if arguments.refused {
        return super::refused::list(admin, format).await;
    }
    let proposals = match admin.ask(AdminRequest::Proposals).await? {
        AdminAnswer::Proposals(proposals) => proposals,
        other => return Err(unexpected(&other)),
    };
    let texts: Vec<ProposalText> = proposals.iter().map(ProposalText::of).collect();
    format.answer(&texts, |texts| match texts.is_empty() {
        true => "nothing was proposed".to_owned(),
        false => texts.iter().map(ProposalText::text).collect::<Vec<_>>().join("\n"),
    });
    Ok(())
}

/// `trefoil approve`.
pub(crate) async fn approve(arguments: &ApproveArguments, admin: &Admin, format: Format) -> Verdict {
    tell(admin, AdminRequest::Approve { number: arguments.number }, format).await
}

/// `trefoil loss`.
pub(crate) async fn loss(verb: &LossVerb, admin: &Admin, format: Format) -> Verdict {
    let (volume, node, reason) = match verb {
        LossVerb::Accept(AcceptArguments { volume, node, reason }) => (*volume, *node, reason),
        LossVerb::Discard(DiscardArguments { volume, node, reason }) => (*volume, *node, reason),
        LossVerb::List(arguments) => return super::loss_list::list(arguments, admin, format).await,
        LossVerb::Report(arguments) => return super::loss::report(arguments, admin, format).await,
    };
    let volume = VolumeId(volume);
    let status = admin.status().await?;
    let config = status.volumes.iter().find(|config| config.volume == volume);
    let config = config.ok_or_else(|| Failure::not_found(format!("there is no volume {volume}")))?;
    let entry = status.nodes.iter().find(|entry| entry.node == node);
    let store = entry.ok_or_else(|| Failure::not_found(format!("there is no node {node}")))?.store;
    let action = match verb {
        LossVerb::Accept(_) => JointAction::AcceptLoss { volume, epoch: config.epoch, store },
        _ => JointAction::Discard { volume, store },
    };
    tell(admin, AdminRequest::Propose { action, reason: reason.clone() }, format).await
}

async fn tell(admin: &Admin, request: AdminRequest, format: Format) -> Verdict {
    match admin.ask(request).await? {
        AdminAnswer::Proposal(proposal) => {
            format.answer(&ProposalText::of(&proposal), ProposalText::text);
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}
