//! The verbs that change the cluster as a whole. Each is a plan first: `--plan` shows it and its
//! number, `--apply NUMBER` does exactly that, and without either the plan is shown and somebody at a
//! terminal is asked.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use trefoil_protocol::ids::{DcId, LinkId, NodeId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::plan::{PlanView, Progress, StepView, Verb, VoterVerb};

use super::connection::{Admin, unexpected};
use crate::failure::{Failure, Kind, Verdict};
use crate::output::{self, Format};
use crate::progress;
use crate::quantity::{self, InvalidQuantity};

/// How often is looked how far a plan is.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// How a plan is asked for.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlanFlags {
    /// Show what would be done, under a number, and do nothing
    #[arg(long, conflicts_with_all = ["apply", "yes"])]
    plan: bool,
    /// Do what the plan of this number says, or nothing if what it was made from has changed
    #[arg(long, value_name = "NUMBER", conflicts_with = "yes")]
    apply: Option<u64>,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Return when it has begun
    #[arg(long)]
    no_wait: bool,
}

/// `trefoil dc`.
#[derive(Debug, Subcommand)]
pub(crate) enum DcVerb {
    /// Move every primary, and the second copies, out of a data centre
    Failover(DcArguments),
    /// Move what was at home in a data centre back into it
    Failback(DcArguments),
}

/// Which data centre.
#[derive(Debug, Args)]
pub(crate) struct DcArguments {
    /// The data centre
    dc: DcId,
    #[command(flatten)]
    flags: PlanFlags,
}

/// Which node.
#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    /// The node
    node: NodeId,
    #[command(flatten)]
    flags: PlanFlags,
}

/// `trefoil link`.
#[derive(Debug, Subcommand)]
pub(crate) enum LinkVerb {
    /// Send nothing over a link as long as there is another one
    Drain(LinkArguments),
    /// Use a link again
    Restore(LinkArguments),
    /// Let repair take so many bytes a second of a link, in either direction
    Limit(LimitArguments),
}

/// How much of which link.
#[derive(Debug, Args)]
pub(crate) struct LimitArguments {
    /// The link: 1 or 2
    #[arg(value_parser = link)]
    link: LinkId,
    /// Bytes a second, such as 50MiB; `none` for as many as there are
    #[arg(value_parser = rate)]
    rate: Rate,
    #[command(flatten)]
    flags: PlanFlags,
}

/// Bytes a second, or as many as there are.
#[derive(Clone, Copy, Debug)]
struct Rate(Option<u64>);

/// Which link.
#[derive(Debug, Args)]
pub(crate) struct LinkArguments {
    /// The link: 1 or 2
    #[arg(value_parser = link)]
    link: LinkId,
    #[command(flatten)]
    flags: PlanFlags,
}

/// `trefoil plan`.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanVerb {
    /// How far the plan is that was applied last
    Progress,
    /// Give up what is left of it; what is done stays done
    Cancel,
}

fn link(text: &str) -> Result<LinkId, String> {
    let found = LinkId::ALL.into_iter().find(|link| link.number().to_string() == text);
    found.ok_or_else(|| "there are links 1 and 2".to_owned())
}

fn rate(text: &str) -> Result<Rate, InvalidQuantity> {
    match text {
        "none" => Ok(Rate(None)),
        _ => quantity::size(text).map(|rate| Rate(Some(rate))),
    }
}

/// `trefoil dc ...`.
pub(crate) async fn dc(verb: &DcVerb, admin: &Admin, format: Format) -> Verdict {
    match verb {
        DcVerb::Failover(arguments) => {
            carry(Verb::Failover(arguments.dc), &arguments.flags, admin, format).await
        }
        DcVerb::Failback(arguments) => {
            carry(Verb::Failback(arguments.dc), &arguments.flags, admin, format).await
        }
    }
}

/// `trefoil node drain|restore|remove`.
pub(crate) async fn node(
    verb: fn(NodeId) -> Verb,
    arguments: &NodeArguments,
    admin: &Admin,
    format: Format,
) -> Verdict {
    carry(verb(arguments.node), &arguments.flags, admin, format).await
}

/// `trefoil link ...`.
pub(crate) async fn links(verb: &LinkVerb, admin: &Admin, format: Format) -> Verdict {
    match verb {
        LinkVerb::Drain(arguments) => {
            carry(Verb::DrainLink(arguments.link), &arguments.flags, admin, format).await
        }
        LinkVerb::Restore(arguments) => {
            carry(Verb::RestoreLink(arguments.link), &arguments.flags, admin, format).await
        }
        LinkVerb::Limit(LimitArguments { link, rate: Rate(per_second), flags }) => {
            let verb = Verb::LimitRepair { link: *link, per_second: *per_second };
            carry(verb, flags, admin, format).await
        }
    }
}

/// `trefoil rebalance`.
pub(crate) async fn rebalance(flags: &PlanFlags, admin: &Admin, format: Format) -> Verdict {
    carry(Verb::Rebalance, flags, admin, format).await
}

/// `trefoil plan ...`.
pub(crate) async fn plan(verb: &PlanVerb, admin: &Admin, format: Format) -> Verdict {
    if matches!(verb, PlanVerb::Cancel) {
        done(admin.ask(AdminRequest::CancelPlan).await?)?;
    }
    match how_far(admin).await? {
        Some(progress) => format.answer(&ProgressView::of(&progress), ProgressView::text),
        None => format.answer(&None::<ProgressView>, |_| "no plan was ever applied".to_owned()),
    }
    Ok(())
}

/// Shows the plan of a verb, applies it, follows it, as far as is wanted.
pub(super) async fn carry(verb: Verb, flags: &PlanFlags, admin: &Admin, format: Format) -> Verdict {
    let number = match flags.apply {
        Some(number) => number,
        None => {
            let plan = make(verb, admin).await?;
            if flags.plan {
                format.answer(&PlanText::of(&plan), PlanText::text);
                return Ok(());
            }
            if !flags.yes {
                confirm(&plan)?;
            }
            plan.number
        }
    };
    done(admin.ask(AdminRequest::Apply { number, verb }).await?)?;
    let last = follow(number, flags, admin).await?;
    format.answer(&ProgressView::of(&last), ProgressView::text);
    Ok(())
}

async fn make(verb: Verb, admin: &Admin) -> Verdict<PlanView> {
    match admin.ask(AdminRequest::Plan { verb }).await? {
        AdminAnswer::Plan(plan) => Ok(plan),
        other => Err(unexpected(&other)),
    }
}

fn done(answer: AdminAnswer) -> Verdict {
    match answer {
        AdminAnswer::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

async fn how_far(admin: &Admin) -> Verdict<Option<Progress>> {
    match admin.ask(AdminRequest::Progress).await? {
        AdminAnswer::Progress(progress) => Ok(progress),
        other => Err(unexpected(&other)),
    }
}

/// Asks somebody at a terminal; nobody else can say yes.
fn confirm(plan: &PlanView) -> Verdict {
    output::note(&PlanText::of(plan).text());
    if !io::stdin().is_terminal() {
        let number = plan.number;
        return Err(Failure::usage(format!("nobody to ask: give --apply {number}, or --yes, to do this")));
    }
    let mut asked = io::stderr();
    let mut answer = String::new();
    let heard = write!(asked, "do it? [y/N] ").and_then(|()| asked.flush());
    heard.and_then(|()| io::stdin().read_line(&mut answer).map(drop)).map_err(Failure::failed)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::refused("nothing was done")),
    }
}

/// Waits until the plan is done. Whoever interrupts this ends the waiting, not the plan.
async fn follow(number: u64, flags: &PlanFlags, admin: &Admin) -> Verdict<Progress> {
    let bar = progress::volumes();
    loop {
        match how_far(admin).await {
            Ok(Some(last)) if last.number == number => {
                bar.set_length(u64::from(last.volumes));
                bar.set_position(u64::from(last.volumes.saturating_sub(last.left)));
                bar.set_message(last.waiting.first().cloned().unwrap_or_default());
                if last.left == 0 || flags.no_wait {
                    bar.finish_and_clear();
                    return Ok(last);
                }
            }
            Ok(_) => return Err(Failure::failed("another plan was applied meanwhile")),
            // The control plane may lose a voter on the way; the plan goes on.
            Err(failure) if failure.kind == Kind::Unavailable => bar.set_message(failure.message),
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a verb is called on the command line.
pub(super) fn words(verb: Verb) -> String {
    match verb {
        Verb::Failover(dc) => format!("dc failover {dc}"),
        Verb::Failback(dc) => format!("dc failback {dc}"),
        Verb::DrainNode(node) => format!("node drain {node}"),
        Verb::RestoreNode(node) => format!("node restore {node}"),
        Verb::RemoveNode(node) => format!("node remove {node}"),
        Verb::DrainLink(link) => format!("link drain {link}"),
        Verb::RestoreLink(link) => format!("link restore {link}"),
        Verb::LimitRepair { link, per_second: Some(limit) } => format!("link limit {link} {limit}"),
        Verb::LimitRepair { link, per_second: None } => format!("link limit {link} none"),
        Verb::Rebalance => "rebalance".to_owned(),
        Verb::Voters(VoterVerb::Add(voter)) => format!("voter add {voter}"),
        Verb::Voters(VoterVerb::Remove(voter)) => format!("voter remove {voter}"),
        Verb::Voters(VoterVerb::Replace { old, new }) => format!("voter replace {old} {new}"),
    }
}

#[derive(Debug, Serialize)]
struct PlanText {
    number: u64,
    made_from: u64,
    verb: String,
    steps: Vec<StepText>,
    objects: u64,
    bytes: u64,
    risks: Vec<String>,
    cannot: Vec<String>,
    expected_ms: Option<u64>,
    undo: String,
}

#[derive(Debug, Serialize)]
struct StepText {
    volume: u64,
    home: Option<String>,
    lead: Option<String>,
    leave: Option<String>,
    join: Option<String>,
    objects: u64,
    bytes: u64,
}

impl StepText {
    fn of(step: &StepView) -> Self {
        Self {
            volume: step.volume.0,
            home: step.home.map(|dc| dc.to_string()),
            lead: step.lead.map(|node| node.to_string()),
            leave: step.leave.map(|node| node.to_string()),
            join: step.join.map(|node| node.to_string()),
            objects: step.objects,
            bytes: step.bytes,
        }
    }

    fn row(&self) -> Vec<String> {
        let moves = match (&self.leave, &self.join) {
            (Some(from), Some(to)) => format!("{from} -> {to}"),
            (Some(from), None) => format!("{from} ->"),
            (None, Some(to)) => format!("-> {to}"),
            (None, None) => String::new(),
        };
        let told = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            self.volume.to_string(),
            told(&self.lead),
            moves,
            told(&self.home),
            self.objects.to_string(),
            output::bytes(self.bytes),
        ]
    }
}

impl PlanText {
    fn of(plan: &PlanView) -> Self {
        Self {
            number: plan.number,
            made_from: plan.made_from.0,
            verb: words(plan.verb),
            steps: plan.steps.iter().map(StepText::of).collect(),
            objects: plan.steps.iter().map(|step| step.objects).sum(),
            bytes: plan.steps.iter().map(|step| step.bytes).sum(),
            risks: plan.risks.clone(),
            cannot: plan.cannot.clone(),
            expected_ms: plan.expected.map(|expected| expected.0),
            undo: plan.undo.clone(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("plan {}: {}, made from state {}\n", self.number, self.verb, self.made_from);
        if !self.steps.is_empty() {
            let header = ["VOLUME", "NEXT PRIMARY", "COPY", "HOME", "OBJECTS", "BYTES"];
            text += &format!("\n{}\n\n", output::table(&header, self.steps.iter().map(StepText::row)));
        }
        let (volumes, bytes) = (self.steps.len(), output::bytes(self.bytes));
        text += &format!("moves     {volumes} volumes, {} objects, {bytes}\n", self.objects);
        for risk in &self.risks {
            text += &format!("risk      {risk}\n");
        }
        for cannot in &self.cannot {
            text += &format!("cannot    {cannot}\n");
        }
        let expected = self.expected_ms.map(Duration::from_millis).map(quantity::duration_text);
        text += &format!(
            "takes     {}\n",
            expected.unwrap_or_else(|| "unknown: nothing was measured yet".to_owned())
        );
        text += &format!("undo      {}\n", self.undo);
        text + &format!("to do it  trefoil {} --apply {}", self.verb, self.number)
    }
}

/// The plan that was applied last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ProgressView {
    pub(crate) number: u64,
    pub(crate) verb: String,
    pub(crate) volumes: u32,
    pub(crate) left: u32,
    /// Handovers of this leadership, and the longest that one kept writers waiting.
    pub(crate) handovers: u64,
    pub(crate) longest_pause_ms: u64,
    pub(crate) waiting: Vec<String>,
}

impl ProgressView {
    /// As the control plane tells it.
    pub(super) fn of(progress: &Progress) -> Self {
        Self {
            number: progress.number,
            verb: words(progress.verb),
            volumes: progress.volumes,
            left: progress.left,
            handovers: progress.handovers,
            longest_pause_ms: progress.longest_pause.0,
            waiting: progress.waiting.clone(),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let Self { number, verb, volumes, left, handovers, longest_pause_ms, waiting } = self;
        let done = volumes.saturating_sub(*left);
        let state = match (volumes, left) {
            (_, 0) => "done".to_owned(),
            _ => format!("{done} of {volumes} volumes done"),
        };
        let handovers = match (volumes, handovers) {
            (0, _) | (_, 0) => String::new(),
            (_, count) => format!(
                "; {count} handovers since this leader began, the longest kept writers waiting for \
                 {longest_pause_ms} ms"
            ),
        };
        let head = format!("plan {number} ({verb}): {state}{handovers}");
        waiting.iter().fold(head, |text, line| format!("{text}\n  {line}"))
    }
}
