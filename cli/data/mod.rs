//! The tenant's verbs: thin words around the client library. What can go wrong becomes an exit code
//! here; what is tried again is the library's business.

mod convoy;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod put;
pub(crate) mod remove;

use serde::Serialize;
use trefoil_client::shell::ProfileRole;
use trefoil_client::{Client, ConnectError, FailureKind, Profile, ReadError, Settings, WriteError};
use trefoil_protocol::key::{InvalidKey, ObjectKey};
use trefoil_protocol::message::tenant::Copy;

use crate::failure::{Failure, Kind, Verdict};

/// Connects as the profile's tenant.
pub(crate) async fn connect(profile: Profile, settings: Settings) -> Verdict<Client> {
    check_role(&profile)?;
    Ok(Client::connect_with(profile, settings).await?)
}

/// Connects as somebody who only reads, and takes what can be read without a control plane.
pub(crate) async fn connect_to_read(profile: Profile, settings: Settings) -> Verdict<Client> {
    check_role(&profile)?;
    Ok(Client::connect_to_read(profile, settings).await?)
}

fn check_role(profile: &Profile) -> Verdict {
    match profile.role {
        ProfileRole::Tenant => Ok(()),
        _ => Err(Failure::usage("this verb needs the profile of a tenant")),
    }
}

/// Parses a key of the command line.
pub(crate) fn key(text: &str) -> Result<ObjectKey, InvalidKey> {
    ObjectKey::new(text.as_bytes().to_vec())
}

/// A copy, as JSON tells it.
#[derive(Debug, Serialize)]
pub(crate) struct CopyView {
    node: String,
    dc: String,
}

impl CopyView {
    fn all(copies: &[Copy]) -> Vec<Self> {
        copies.iter().map(|copy| Self { node: copy.node.to_string(), dc: copy.dc.to_string() }).collect()
    }

    fn in_words(copies: &[Self]) -> String {
        let names: Vec<String> = copies.iter().map(|copy| format!("{} ({})", copy.node, copy.dc)).collect();
        names.join(", ")
    }
}

/// A key in a line of text: as it is, unless control characters would break the line.
pub(crate) fn shown(key: &ObjectKey) -> String {
    let text = key.as_str();
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.to_owned() }
}

impl From<FailureKind> for Kind {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Local => Self::Failed,
            FailureKind::NotFound => Self::NotFound,
            FailureKind::Refused => Self::Refused,
            FailureKind::Unavailable => Self::Unavailable,
            FailureKind::Integrity => Self::Integrity,
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self { kind: error.kind().into(), message: error.to_string() }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self { kind: error.kind().into(), message: error.to_string() }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self { kind: error.kind().into(), message: error.to_string() }
    }
}
