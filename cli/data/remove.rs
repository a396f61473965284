//! `trefoil rm`, `undelete` and `purge-status`: the two phases of a delete.

use clap::Args;
use serde::Serialize;
use trefoil_client::{Client, WriteError};
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{Precondition, PurgeView, Refusal};

use super::{key, shown};
use crate::failure::{Failure, Verdict};
use crate::output::Format;

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// The object's key
    #[arg(value_parser = key)]
    key: ObjectKey,
    /// Only if this is the live version
    #[arg(long, value_name = "VERSION")]
    if_version: Option<VersionId>,
}

/// Arguments of `undelete`.
#[derive(Debug, Args)]
pub(crate) struct UndeleteArguments {
    /// The object's key
    #[arg(value_parser = key)]
    key: ObjectKey,
    /// The version, if not the one deleted last
    #[arg(long)]
    version: Option<VersionId>,
}

/// Arguments of `purge-status`.
#[derive(Debug, Args)]
pub(crate) struct PurgeStatusArguments {
    /// The object's key
    #[arg(value_parser = key)]
    key: ObjectKey,
    /// Tell every version, oldest first, instead of the newest
    #[arg(long)]
    all: bool,
}

#[derive(Serialize)]
struct Removed {
    key: String,
    version: String,
    tombstone: u64,
    window_ends: u64,
}

#[derive(Serialize)]
struct Undeleted {
    key: String,
    version: String,
}

/// What `purge-status --json` says.
#[derive(Serialize)]
struct PurgeLine {
    key: String,
    version: String,
    state: &'static str,
    window_ends: Option<u64>,
    copies_left: u32,
}

/// Hides an object.
pub(crate) async fn remove(arguments: &RemoveArguments, client: &Client, format: Format) -> Verdict {
    let precondition = arguments.if_version.map_or(Precondition::Any, Precondition::Version);
    let hidden = client.delete_if(&arguments.key, precondition).await?;
    let view = Removed {
        key: hidden.key.to_string(),
        version: hidden.version.to_string(),
        tombstone: hidden.tombstone.0,
        window_ends: hidden.window_ends.0,
    };
    format.answer(&view, |view| {
        format!("{}: deleted version {}; it can be undeleted for now", shown(&hidden.key), view.version)
    });
    Ok(())
}

/// Takes a delete back.
pub(crate) async fn undelete(arguments: &UndeleteArguments, client: &Client, format: Format) -> Verdict {
    let restored = client.undelete(&arguments.key, arguments.version).await;
    let restored = restored.map_err(|error| match error {
        WriteError::Refused(Refusal::PreconditionFailed) => Failure::refused(format!(
            "{}: a version of it is live, which an undelete would hide; `rm` it first",
            shown(&arguments.key)
        )),
        error => error.into(),
    })?;
    let view = Undeleted { key: restored.key.to_string(), version: restored.version.to_string() };
    format.answer(&view, |view| format!("{}: version {} is back", shown(&restored.key), view.version));
    Ok(())
}

/// Tells how far a delete is.
pub(crate) async fn purge_status(
    arguments: &PurgeStatusArguments,
    client: &Client,
    format: Format,
) -> Verdict {
    let purges = client.purge_status(&arguments.key).await?;
    let from = if arguments.all { 0 } else { purges.len().saturating_sub(1) };
    if purges.is_empty() {
        return Err(Failure::not_found("no such object"));
    }
    for purge in &purges[from..] {
        format.answer(&line(&arguments.key, purge), |line| {
            format!("{} {} with {} copies left", line.version, line.state, line.copies_left)
        });
    }
    Ok(())
}

fn line(key: &ObjectKey, purge: &PurgeView) -> PurgeLine {
    PurgeLine {
        key: key.to_string(),
        version: purge.version.to_string(),
        state: purge.stage.name(),
        window_ends: purge.window_ends.map(|time| time.0),
        copies_left: purge.copies_left,
    }
}
