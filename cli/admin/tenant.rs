//! `trefoil tenant`: makes tenants and lists them.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use trefoil_protocol::config::{SingleDcPolicy, StaleReads, TenantEntry};
use trefoil_protocol::ids::TenantName;
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};

use super::connection::{Admin, unexpected};
use crate::failure::Verdict;
use crate::output::{self, Format};
use crate::quantity;

/// Volumes of a tenant when nothing else is asked for.
const VOLUMES_DEFAULT: u32 = 4;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantVerb {
    /// Make a tenant with its key and its volumes
    Create(CreateArguments),
    /// List tenants
    List,
}

/// Arguments of `tenant create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// Its name: 1 to 15 of a-z, 0-9 and -
    name: TenantName,
    /// How long a delete can be undone
    #[arg(long, default_value = "7d", value_parser = quantity::duration, value_name = "TIME")]
    delete_window: Duration,
    /// How long the first copy stays after the others are erased
    #[arg(long, default_value = "0s", value_parser = quantity::duration, value_name = "TIME")]
    first_copy_retention: Duration,
    /// How many volumes, a power of two
    #[arg(long, default_value_t = VOLUMES_DEFAULT, value_name = "N")]
    volumes: u32,
    /// While one data centre cannot be reached: `available` writes to the other one alone, `strict`
    /// refuses writes
    #[arg(long, default_value = "available")]
    protection: Policy,
    /// Whether exact versions can be read, marked, from replicas that have lost the control plane: they may be
    /// deleted by then
    #[arg(long, default_value = "refuse")]
    stale_reads: StalePolicy,
    /// Show what would be made and make nothing
    #[arg(long)]
    plan: bool,
}

/// What a tenant wants while one data centre cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    Available,
    Strict,
}

impl Policy {
    /// What operators call a tenant's wish.
    pub(crate) fn name(policy: SingleDcPolicy) -> &'static str {
        match policy {
            SingleDcPolicy::Allow => "available",
            SingleDcPolicy::Refuse => "strict",
        }
    }

    fn meant(self) -> SingleDcPolicy {
        match self {
            Self::Available => SingleDcPolicy::Allow,
            Self::Strict => SingleDcPolicy::Refuse,
        }
    }
}

/// What a tenant wants of reads of versions that may be deleted by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StalePolicy {
    Refuse,
    Allow,
}

impl StalePolicy {
    fn name(policy: StaleReads) -> &'static str {
        match policy {
            StaleReads::Refuse => "refuse",
            StaleReads::Allow => "allow",
        }
    }

    fn meant(self) -> StaleReads {
        match self {
            Self::Refuse => StaleReads::Refuse,
            Self::Allow => StaleReads::Allow,
        }
    }
}

#[derive(Serialize)]
struct TenantView {
    name: String,
    /// `None` in a plan.
    id: Option<u64>,
    volumes: u32,
    delete_window: String,
    first_copy_retention: String,
    protection: &'static str,
    stale_reads: &'static str,
}

impl TenantView {
    fn of(tenant: &TenantEntry) -> Self {
        Self {
            name: tenant.name.to_string(),
            id: Some(tenant.tenant.0),
            volumes: tenant.volume_count,
            delete_window: quantity::duration_text(tenant.window.into()),
            first_copy_retention: quantity::duration_text(tenant.first_copy_retention.into()),
            protection: Policy::name(tenant.single_dc),
            stale_reads: StalePolicy::name(tenant.stale_reads),
        }
    }

    fn planned(arguments: &CreateArguments) -> Self {
        Self {
            name: arguments.name.to_string(),
            id: None,
            volumes: arguments.volumes,
            delete_window: quantity::duration_text(arguments.delete_window),
            first_copy_retention: quantity::duration_text(arguments.first_copy_retention),
            protection: Policy::name(arguments.protection.meant()),
            stale_reads: StalePolicy::name(arguments.stale_reads.meant()),
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.id.map_or_else(|| "planned".to_owned(), |id| id.to_string()),
            self.volumes.to_string(),
            self.delete_window.clone(),
            self.first_copy_retention.clone(),
            self.protection.to_owned(),
            self.stale_reads.to_owned(),
        ]
    }
}

fn table<'a>(tenants: impl IntoIterator<Item = &'a TenantView>) -> String {
    let header =
        ["TENANT", "ID", "VOLUMES", "DELETE WINDOW", "FIRST COPY RETENTION", "PROTECTION", "STALE READS"];
    output::table(&header, tenants.into_iter().map(TenantView::row))
}

/// Runs a verb.
pub(crate) async fn run(verb: &TenantVerb, admin: &Admin, format: Format) -> Verdict {
    match verb {
        TenantVerb::Create(arguments) if arguments.plan => {
            format.answer(&TenantView::planned(arguments), |view| table([view]));
        }
        TenantVerb::Create(arguments) => {
            let tenant = create(admin, arguments).await?;
            format.answer(&TenantView::of(&tenant), |view| table([view]));
        }
        TenantVerb::List => {
            let tenants = match admin.ask(AdminRequest::ListTenants).await? {
                AdminAnswer::Tenants(tenants) => tenants,
                other => return Err(unexpected(&other)),
            };
            let views: Vec<TenantView> = tenants.iter().map(TenantView::of).collect();
            format.answer(&views, |views| table(views));
        }
    }
    Ok(())
}

async fn create(admin: &Admin, arguments: &CreateArguments) -> Verdict<TenantEntry> {
    let request = AdminRequest::CreateTenant {
        name: arguments.name,
        volumes: arguments.volumes,
        window: arguments.delete_window.into(),
        first_copy_retention: arguments.first_copy_retention.into(),
        single_dc: arguments.protection.meant(),
        stale_reads: arguments.stale_reads.meant(),
    };
    match admin.ask(request).await? {
        AdminAnswer::Tenant(tenant) => Ok(tenant),
        other => Err(unexpected(&other)),
    }
}

/// Makes a tenant as local clusters have them, or finds it as it was made.
pub(crate) async fn create_default(
    admin: &Admin,
    name: TenantName,
    window: Duration,
) -> Verdict<TenantEntry> {
    let arguments = CreateArguments {
        name,
        delete_window: window,
        first_copy_retention: Duration::ZERO,
        volumes: VOLUMES_DEFAULT,
        protection: Policy::Available,
        stale_reads: StalePolicy::Refuse,
        plan: false,
    };
    create(admin, &arguments).await
}
