//! `trefoil loss list`: the versions that are known to be lost with a loss, and that list signed, in a file
//! that anybody checks without the cluster.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use trefoil_client::{Trust, verify_loss_list};
use trefoil_protocol::ids::{Epoch, VersionId, VolumeId};
use trefoil_protocol::loss_list::{SignedLossList, SignedLossStatement};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::loss::{LossTotals, LostKind, LostVersion};

use super::connection::{Admin, unexpected};
use crate::config;
use crate::failure::{Failure, Verdict};
use crate::output::{self, Format};

/// So often the versions are fetched anew when stores told more meanwhile.
const TRIES: usize = 5;

/// So many versions are told one by one to people; programs and files are told all.
const SHOWN: usize = 100;

/// Arguments of `loss list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// The volume's number
    volume: u64,
    /// The first epoch after the loss, if it was not the last one
    #[arg(long)]
    epoch: Option<u64>,
    /// Where the signed list goes, for `verify-certificate`
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct VersionLine {
    version: String,
    /// `put`, `deleted` or `brought_back`.
    what: &'static str,
    bytes: u64,
    at_ms: u64,
    /// Whether a store knows that it was committed: else nobody knows whether it was acknowledged.
    committed: bool,
}

impl VersionLine {
    fn of(lost: &LostVersion) -> Self {
        let what = match lost.kind {
            LostKind::Put => "put",
            LostKind::Delete => "deleted",
            LostKind::Undelete => "brought_back",
        };
        let (version, at_ms) = (lost.version.to_string(), lost.at.0);
        Self { version, what, bytes: lost.bytes, at_ms, committed: lost.committed }
    }
}

#[derive(Serialize)]
struct ListView {
    volume: u64,
    epoch: u64,
    operators: Vec<String>,
    unknown_since_ms: Option<u64>,
    at_most_objects: Option<u64>,
    unlisted: u64,
    signers: Vec<String>,
    versions: Vec<VersionLine>,
    file: Option<String>,
}

/// `trefoil loss list`.
pub(crate) async fn list(arguments: &ListArguments, admin: &Admin, format: Format) -> Verdict {
    let volume = VolumeId(arguments.volume);
    let epoch = match arguments.epoch {
        Some(epoch) => Epoch(epoch),
        None => {
            let status = admin.status().await?;
            let last = status.losses.iter().filter(|loss| loss.volume == volume).map(|loss| loss.epoch).max();
            last.ok_or_else(|| Failure::not_found(format!("volume {volume} never went on without a store")))?
        }
    };
    let list = fetch(admin, volume, epoch).await?;
    if let Some(path) = &arguments.output {
        config::write_whole(path, &list.to_bytes(), 0o644)?;
    }
    let statement = &list.statement;
    let view = ListView {
        volume: volume.0,
        epoch: epoch.0,
        operators: statement.operators.iter().map(ToString::to_string).collect(),
        unknown_since_ms: statement.unknown_since.map(|since| since.0),
        at_most_objects: statement.account.map(|(objects, _)| objects),
        unlisted: statement.unlisted,
        signers: list.signatures.iter().map(|by| by.key.to_string()).collect(),
        versions: list.versions.iter().map(VersionLine::of).collect(),
        file: arguments.output.as_ref().map(|path| path.display().to_string()),
    };
    format.answer(&view, |view| {
        let rows = view.versions.iter().take(SHOWN).map(|line| {
            let committed = if line.committed { "yes" } else { "unknown" };
            let what = line.what.replace('_', " ");
            vec![line.version.clone(), what, output::bytes(line.bytes), committed.to_owned()]
        });
        let table = output::table(&["VERSION", "WHAT", "BYTES", "COMMITTED"], rows);
        let more = view.versions.len().saturating_sub(SHOWN);
        let more =
            if more > 0 { format!("and {more} more: -o FILE or --json has all\n") } else { String::new() };
        format!("{table}\n\n{more}{}", in_words(&list))
    });
    Ok(())
}

/// The statement and all of its versions; once more if stores told more in between.
async fn fetch(admin: &Admin, volume: VolumeId, epoch: Epoch) -> Verdict<SignedLossList> {
    for _ in 0..TRIES {
        let SignedLossStatement { statement, signatures } =
            match admin.ask(AdminRequest::LossList { volume, epoch }).await? {
                AdminAnswer::LossList(signed) => signed,
                other => return Err(unexpected(&other)),
            };
        let versions = versions(admin, volume, epoch).await?;
        let list = SignedLossList { statement, signatures, versions };
        if list.is_whole() {
            return Ok(list);
        }
    }
    Err(Failure::unavailable(
        "stores are telling what they have: ask again when `loss report` says that all told",
    ))
}

/// All versions that are known to be lost.
pub(crate) async fn versions(admin: &Admin, volume: VolumeId, epoch: Epoch) -> Verdict<Vec<LostVersion>> {
    let mut all: Vec<LostVersion> = Vec::new();
    loop {
        let after: Option<VersionId> = all.last().map(|lost| lost.version);
        match admin.ask(AdminRequest::LostVersions { volume, epoch, after }).await? {
            AdminAnswer::LostVersions { versions, more } => {
                let is_last = !more || versions.is_empty();
                all.extend(versions);
                if is_last {
                    return Ok(all);
                }
            }
            other => return Err(unexpected(&other)),
        }
    }
}

/// What a list says.
fn in_words(list: &SignedLossList) -> String {
    let statement = &list.statement;
    let mut totals = LossTotals::default();
    list.versions.iter().for_each(|lost| totals.add(lost));
    let operators: Vec<String> = statement.operators.iter().map(ToString::to_string).collect();
    let by = match operators.is_empty() {
        true => "a restore of the control plane".to_owned(),
        false => operators.join(" and "),
    };
    let signers: Vec<String> = list.signatures.iter().map(|by| by.key.to_string()).collect();
    let silent = statement.stores.iter().filter(|store| !store.heard).count();
    let unknown = match (statement.unknown_since, statement.account) {
        (Some(since), _) => format!("what else was acknowledged and lost is UNKNOWN since {since}"),
        (None, Some((objects, bytes))) => {
            format!("at most {objects} objects and {} were lost", output::bytes(bytes))
        }
        (None, None) => "every store that may have more has told".to_owned(),
    };
    format!(
        "volume {} of tenant {} went on in epoch {} at {} by {by}\n\
         {} put ({}), {} deleted, {} brought back; {} more found no room; {silent} stores have told nothing\n\
         {unknown}\n\
         signed at {} by {}",
        statement.volume,
        statement.tenant,
        statement.epoch,
        statement.accepted_at,
        totals.puts,
        output::bytes(totals.bytes),
        totals.deletes,
        totals.undeletes,
        statement.unlisted,
        statement.at,
        signers.join(" and "),
    )
}

/// Checks a list offline; its signers and what it says.
pub(crate) fn verify(list: &SignedLossList, trust: &Trust) -> Result<(Vec<String>, String), String> {
    verify_loss_list(list, trust).map_err(|error| error.to_string())?;
    let signers = list.signatures.iter().map(|by| by.key.to_string()).collect();
    Ok((signers, format!("valid: {}", in_words(list))))
}
