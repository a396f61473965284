//! `trefoil operator issue`: the profile of another operator. The certificate is made where the
//! authority's key is; whoever holds that key decides who is an operator.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use trefoil_client::Profile;
use trefoil_client::shell::{Padding, ProfileFile, ProfileRole};
use trefoil_protocol::ids::OperatorId;
use trefoil_transport::{Authority, Identity};

use super::principal;
use crate::config;
use crate::failure::{Failure, Verdict};
use crate::output::Format;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum OperatorVerb {
    /// Write the profile of another operator
    Issue(IssueArguments),
}

/// Arguments of `operator issue`.
#[derive(Debug, Args)]
pub(crate) struct IssueArguments {
    /// Who: 1 to 15 of a-z, 0-9 and -
    name: OperatorId,
    /// The folder with `ca.pem` and `ca.key`; by default `ca` beside the operator's profile
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// Where the profile goes; certificate and key go beside it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Serialize)]
struct OperatorView {
    operator: String,
    profile: String,
}

/// Runs a verb with the operator's profile, which was read from `path`.
pub(crate) fn run(verb: &OperatorVerb, profile: &Profile, path: &Path, format: Format) -> Verdict {
    let OperatorVerb::Issue(arguments) = verb;
    let folder = arguments.ca.clone().unwrap_or_else(|| config::beside(path, Path::new("ca")));
    let authority = Authority::load(&folder, &profile.cluster).map_err(Failure::usage)?;
    let identity = Identity::operator(arguments.name.as_str()).map_err(Failure::usage)?;
    let file = ProfileFile {
        cluster: profile.cluster.to_string(),
        role: ProfileRole::Operator,
        tenant: None,
        dc: profile.dc.map(|dc| dc.to_string()),
        padding: Padding::None,
        endpoints: profile.endpoints.clone(),
        trust: profile.trust.clone(),
        certificate: String::new(),
        key: String::new(),
    };
    principal::write(&arguments.output, file, &authority, &identity)?;
    let view = OperatorView {
        operator: arguments.name.to_string(),
        profile: arguments.output.display().to_string(),
    };
    format.answer(&view, |view| format!("operator {}: {}", view.operator, view.profile));
    Ok(())
}
