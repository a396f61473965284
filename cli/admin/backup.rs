//! `trefoil backup`: fetches the control plane's state, part by part, checks it, and writes it to a file.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use trefoil_protocol::backup::SignedBackup;
use trefoil_protocol::ids::Hash;
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};

use super::connection::{Admin, unexpected};
use crate::config;
use crate::failure::{Failure, Kind, Verdict};
use crate::output::{self, Format};

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// Where the backup goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Serialize)]
struct BackupText {
    file: String,
    cluster: String,
    generation: u64,
    index: u64,
    at: String,
    bytes: u64,
    hash: String,
}

/// Fetches a backup and writes it.
pub(crate) async fn run(arguments: &BackupArguments, admin: &Admin, format: Format) -> Verdict {
    let (head, state) = fetch(admin).await?;
    config::write_whole(&arguments.output, &head.to_file(&state), 0o600)?;
    let text = BackupText {
        file: arguments.output.display().to_string(),
        cluster: head.statement.cluster.clone(),
        generation: head.statement.generation,
        index: head.statement.index.0,
        at: head.statement.at.to_string(),
        bytes: head.statement.length,
        hash: head.statement.hash.to_string(),
    };
    format.answer(&text, |text| {
        format!("{}: state {} at {}, {}", text.file, text.index, text.at, output::bytes(text.bytes))
    });
    Ok(())
}

async fn fetch(admin: &Admin) -> Verdict<(SignedBackup, Vec<u8>)> {
    let (head, mut state) = part(admin, 0).await?;
    while (state.len() as u64) < head.statement.length {
        let (next, bytes) = part(admin, state.len() as u64).await?;
        if next != head || bytes.is_empty() {
            return Err(Failure::unavailable("somebody else took a backup meanwhile: begin it anew"));
        }
        state.extend_from_slice(&bytes);
    }
    if Hash(*blake3::hash(&state).as_bytes()) != head.statement.hash {
        let message = "the parts are not those of one backup".to_owned();
        return Err(Failure { kind: Kind::Integrity, message });
    }
    Ok((head, state))
}

async fn part(admin: &Admin, offset: u64) -> Verdict<(SignedBackup, Vec<u8>)> {
    match admin.ask(AdminRequest::Backup { offset }).await? {
        AdminAnswer::Backup { head, offset: from, part } if from == offset => Ok((head, part.to_vec())),
        other => Err(unexpected(&other)),
    }
}
