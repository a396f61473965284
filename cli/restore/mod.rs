//! `trefoil restore`: the control plane begins again, from a backup or from what one surviving voter knows.
//! One operator proposes it in a paper, another one approves it with a signature of his own, and whoever
//! begins is refused while any voter answers that would be left out.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use trefoil_client::Profile;
use trefoil_protocol::ids::DcId;

use crate::drill::keep::now;
use crate::failure::Verdict;
use crate::output::Format;

mod begin;
mod paper;
mod record;
mod scene;

use begin::begin;
use paper::{Paper, Wanted};
use scene::Scene;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum RestoreVerb {
    /// Write down what is to be done and why, signed by you; changes nothing
    Propose(ProposeArguments),
    /// Sign what another operator proposed; changes nothing
    Approve(ApproveArguments),
    /// Begin the log of a placement process that does not run, as two operators want it
    Begin(BeginArguments),
}

/// What to begin from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The backup, where the log is lost everywhere
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
    /// What this voter itself knows, where all others are gone for good
    #[arg(long)]
    survivor: bool,
}

/// Whose log.
#[derive(Debug, Args)]
struct Place {
    /// The configuration of the placement process, which does not run
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The keys that may have signed the backup
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

/// Arguments of `restore propose`.
#[derive(Debug, Args)]
pub(crate) struct ProposeArguments {
    #[command(flatten)]
    place: Place,
    /// The number of the restore, if the one after the saved state's was used before
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,
    /// A data centre whose stores nobody waits for: what it may have acknowledged alone is given up
    #[arg(long, value_name = "DC")]
    give_up: Vec<DcId>,
    /// Why, for the second operator and for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Where the paper goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Arguments of `restore approve`.
#[derive(Debug, Args)]
pub(crate) struct ApproveArguments {
    /// The paper; the signature is added to it
    paper: PathBuf,
}

/// Arguments of `restore begin`.
#[derive(Debug, Args)]
pub(crate) struct BeginArguments {
    /// The paper with two signatures
    paper: PathBuf,
    #[command(flatten)]
    place: Place,
}

#[derive(Serialize)]
struct PaperText<'p> {
    wanted: &'p Wanted,
    signed_by: Vec<String>,
}

/// Runs a verb as the operator of a profile.
pub(crate) async fn run(verb: &RestoreVerb, profile: &Profile, format: Format) -> Verdict {
    match verb {
        RestoreVerb::Propose(arguments) => propose(arguments, profile, format),
        RestoreVerb::Approve(arguments) => {
            let mut paper = Paper::read(&arguments.paper)?;
            paper.check_time()?;
            paper.sign(profile)?;
            paper.write(&arguments.paper)?;
            tell(&paper, profile, format)
        }
        RestoreVerb::Begin(arguments) => begin(arguments, profile, format).await,
    }
}

fn tell(paper: &Paper, profile: &Profile, format: Format) -> Verdict {
    let text = paper.text(profile)?;
    let view = PaperText { wanted: &paper.wanted, signed_by: paper.signers(profile)? };
    format.answer(&view, |_| text);
    Ok(())
}

fn propose(arguments: &ProposeArguments, profile: &Profile, format: Format) -> Verdict {
    let scene = Scene::open(&arguments.place)?;
    let begins = arguments.generation.unwrap_or(scene.saved.generation() + 1);
    let given_up = arguments.give_up.iter().map(ToString::to_string).collect();
    let wanted = scene.wanted(begins, given_up, arguments.reason.clone(), now().0);
    let mut paper = Paper::of(wanted);
    paper.sign(profile)?;
    paper.write(&arguments.output)?;
    tell(&paper, profile, format)
}
