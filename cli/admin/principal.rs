//! `trefoil principal issue`: registers a principal of a tenant and writes its profile. The
//! certificate is made where the authority's key is, which is here and not in the control plane.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use trefoil_client::Profile;
use trefoil_client::shell::{Padding, ProfileFile, ProfileRole};
use trefoil_protocol::ids::{PrincipalId, TenantId, TenantName};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_transport::{Authority, Identity, LEAF_LIFETIME};

use super::connection::{Admin, unexpected};
use crate::config;
use crate::failure::{Failure, Verdict, at};
use crate::output::Format;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum PrincipalVerb {
    /// Register a principal and write its profile
    Issue(IssueArguments),
}

/// Arguments of `principal issue`.
#[derive(Debug, Args)]
pub(crate) struct IssueArguments {
    /// The tenant's name
    tenant: TenantName,
    /// The folder with `ca.pem` and `ca.key`; by default `ca` beside the operator's profile
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// Where the profile goes; certificate and key go beside it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Where the principal shall ask first: the custodian and storage nodes
    #[arg(long = "endpoint", required = true, value_name = "HOST:PORT")]
    endpoints: Vec<String>,
}

#[derive(Serialize)]
struct PrincipalView {
    tenant: String,
    tenant_id: u64,
    principal: u64,
    profile: String,
}

/// Runs a verb with the operator's profile, which was read from `path`.
pub(crate) async fn run(verb: &PrincipalVerb, profile: &Profile, path: &Path, format: Format) -> Verdict {
    let PrincipalVerb::Issue(arguments) = verb;
    let folder = arguments.ca.clone().unwrap_or_else(|| config::beside(path, Path::new("ca")));
    let authority = Authority::load(&folder, &profile.cluster).map_err(Failure::usage)?;
    let (tenant, principal) = register(&Admin::new(profile)?, arguments.tenant).await?;
    let file = ProfileFile {
        cluster: profile.cluster.to_string(),
        role: ProfileRole::Tenant,
        tenant: Some(arguments.tenant.to_string()),
        dc: profile.dc.map(|dc| dc.to_string()),
        padding: Padding::None,
        endpoints: arguments.endpoints.clone(),
        trust: profile.trust.clone(),
        certificate: String::new(),
        key: String::new(),
    };
    write(&arguments.output, file, &authority, &Identity::Principal { tenant, principal })?;
    let view = PrincipalView {
        tenant: arguments.tenant.to_string(),
        tenant_id: tenant.0,
        principal: principal.0,
        profile: arguments.output.display().to_string(),
    };
    format.answer(&view, |view| format!("principal {} of {}: {}", view.principal, view.tenant, view.profile));
    Ok(())
}

/// Asks for the next principal of a tenant.
pub(crate) async fn register(admin: &Admin, tenant: TenantName) -> Verdict<(TenantId, PrincipalId)> {
    match admin.ask(AdminRequest::CreatePrincipal { tenant }).await? {
        AdminAnswer::Principal { tenant, principal } => Ok((tenant, principal)),
        other => Err(unexpected(&other)),
    }
}

/// Issues a certificate, and writes it with its key beside the profile that names both.
pub(crate) fn write(
    path: &Path,
    mut file: ProfileFile,
    authority: &Authority,
    identity: &Identity,
) -> Verdict {
    let pem = path.with_extension("pem");
    issue(authority, identity, &pem)?;
    let name = pem.file_name().unwrap_or_default().to_string_lossy().into_owned();
    file.certificate.clone_from(&name);
    file.key = name;
    config::write_whole(path, file.to_toml().as_bytes(), 0o644)
}

/// Issues a leaf and writes certificate and key into one file, so that the two always fit.
pub(crate) fn issue(authority: &Authority, identity: &Identity, path: &Path) -> Verdict {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let issued = authority.issue(identity, LEAF_LIFETIME).map_err(Failure::failed)?;
    let both = format!("{}{}", issued.certificate_pem, issued.key_pem);
    config::write_whole(path, both.as_bytes(), 0o600)
}
