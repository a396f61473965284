//! `trefoil drill`: breaks a cluster on purpose, under a load of its own, and reports what clients saw. The
//! words of files and reports are the drill crate's; here are the hands, the load and the clock.
//!
//! A drill tells no server what it breaks. It heals what it broke, however it ends.

mod arrivals;
mod book;
mod capacity;
mod command;
mod conduct;
mod errands;
mod field;
pub(crate) mod keep;
mod load;
mod playbook;
mod preflight;
mod rescuer;
mod rescues;
mod tell;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use trefoil_client::{Client, Profile};
use trefoil_drill::{Document, DrillFile};

use self::playbook::{Playbook, from_outside};
use crate::config::write_whole;
use crate::failure::{Failure, Verdict, at};
use crate::output::{self, Format};
use crate::quantity;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum DrillVerb {
    /// Run a drill on a cluster: preflight, load, faults, healing, verification, report
    Run(RunArguments),
    /// Read a drill and say what would happen on a cluster, or why it cannot run there
    Check(CheckArguments),
    /// List the reports that are kept in the cluster, with the profile of the drill's first tenant
    List,
    /// Fetch a report from the cluster and check its signature
    Report(ReportArguments),
    /// Check the signature of a report's file; asks no server
    Verify(VerifyArguments),
}

/// Arguments of `drill run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The drill
    file: PathBuf,
    /// The folder of a cluster that `trefoil dev` runs on this machine
    #[arg(long, value_name = "DIR", conflicts_with = "cluster", required_unless_present = "cluster")]
    data: Option<PathBuf>,
    /// Profiles, names and hands of any other cluster
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Do not measure how many operations a second the cluster can do, where the file asks for that: so many
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    capacity: Option<u64>,
    /// How long the healed cluster may take until every volume is whole
    #[arg(long, default_value = "5m", value_parser = quantity::duration, value_name = "TIME")]
    recovery: Duration,
}

/// Arguments of `drill check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The drill
    file: PathBuf,
}

/// Arguments of `drill report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// The report, as `drill list` names it
    id: String,
    /// Write the page here
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Arguments of `drill verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The report's JSON file
    report: PathBuf,
}

/// Runs a drill; brings its own profiles.
pub(crate) async fn run(arguments: &RunArguments, format: Format) -> Verdict {
    let (text, file) = read(&arguments.file)?;
    if arguments.capacity.is_some() && file.load.capacity.is_none() {
        return Err(Failure::usage(
            "--capacity is for a drill with `load.capacity`: this one offers what it says",
        ));
    }
    let playbook = Playbook::of(&file).map_err(|reason| reason.within(arguments.file.display()))?;
    if !arguments.out.is_dir() {
        return Err(Failure::usage(format!("{}: no such folder", arguments.out.display())));
    }
    let field = field::Field::enter(&file, arguments.data.as_deref(), arguments.cluster.as_deref()).await?;
    let stem = arguments.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let terms = conduct::Terms { stem, recovery: arguments.recovery, capacity: arguments.capacity };
    let document = conduct::conduct(field, from_outside(&file), text, playbook, terms).await?;
    let path = |ending: &str| arguments.out.join(format!("{}.{ending}", document.report.id));
    write_whole(&path("json"), document.to_json().as_bytes(), 0o644)?;
    let signer = document.signature.is_some().then_some(&document.report.place);
    write_page(&path("html"), &document, signer.map(keep::operator_of))?;
    output::note(&format!("wrote {} and {}", path("json").display(), path("html").display()));
    format.answer(&document, tell::table);
    tell::verdict(&document.report)
}

/// Says what would happen.
pub(crate) fn check(arguments: &CheckArguments, format: Format) -> Verdict {
    let (_, file) = read(&arguments.file)?;
    let playbook = Playbook::of(&file).map_err(|reason| reason.within(arguments.file.display()))?;
    format.answer(&tell::Steps::of(&file, &playbook), tell::Steps::text);
    Ok(())
}

/// Lists the reports of a tenant's cluster.
pub(crate) async fn list(client: &Client, format: Format) -> Verdict {
    for document in keep::all(client).await? {
        format.answer(&tell::Line::of(&document.report), tell::Line::text);
    }
    Ok(())
}

/// Fetches a report and checks who signed it.
pub(crate) async fn report(
    arguments: &ReportArguments,
    client: &Client,
    profile: &Profile,
    format: Format,
) -> Verdict {
    let document = keep::fetch(client, &arguments.id).await?;
    let signer = keep::signer(&document, profile)?;
    if let Some(path) = &arguments.html {
        write_page(path, &document, Some(signer))?;
        output::note(&format!("wrote {}", path.display()));
    }
    format.answer(&document, tell::table);
    Ok(())
}

/// Checks who signed the report in a file.
pub(crate) fn verify(arguments: &VerifyArguments, profile: &Profile, format: Format) -> Verdict {
    let text = fs::read_to_string(&arguments.report).map_err(at(&arguments.report))?;
    let document = Document::parse(&text).map_err(Failure::usage);
    let document = document.map_err(|failure| failure.within(arguments.report.display()))?;
    let signer = keep::signer(&document, profile)?;
    let valid = tell::Valid { valid: true, signer };
    format.answer(&valid, |valid| format!("genuine: signed by {}", valid.signer));
    Ok(())
}

fn read(path: &Path) -> Verdict<(String, DrillFile)> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    let file = DrillFile::parse(&text);
    let file = file.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok((text, file))
}

fn write_page(path: &Path, document: &Document, signer: Option<String>) -> Verdict {
    write_whole(path, trefoil_drill::page(&document.report, signer.as_deref()).as_bytes(), 0o644)
}
