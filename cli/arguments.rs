//! The command line: every verb, and the options that all of them share. A verb's own arguments
//! stand in the verb's file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use trefoil_client::{Client, Profile, Settings};

use crate::admin::backup::BackupArguments;
use crate::admin::connection::Admin;
use crate::admin::joint::{ApprovalsArguments, ApproveArguments, LossVerb};
use crate::admin::node::NodeVerb;
use crate::admin::operator::OperatorVerb;
use crate::admin::plan::{DcVerb, LinkVerb, PlanFlags, PlanVerb};
use crate::admin::principal::PrincipalVerb;
use crate::admin::status::StatusArguments;
use crate::admin::tenant::TenantVerb;
use crate::admin::voter::VoterVerb;
use crate::bench::BenchVerb;
use crate::certificate::{CertificateArguments, VerifyArguments};
use crate::data::get::GetArguments;
use crate::data::list::ListArguments;
use crate::data::put::PutArguments;
use crate::data::remove::{PurgeStatusArguments, RemoveArguments, UndeleteArguments};
use crate::demo::DemoArguments;
use crate::dev::DevArguments;
use crate::drill::DrillVerb;
use crate::failure::{Failure, Verdict};
use crate::output::Format;
use crate::prepare::PrepareArguments;
use crate::restore::RestoreVerb;
use crate::serve::{PlacementArguments, ServeArguments};
use crate::{admin, bench, certificate, data, demo, dev, drill, prepare, quantity, restore, serve, version};

/// What stands below the list of verbs.
const AFTER_HELP: &str = "\
Try it:
  trefoil dev --data /tmp/trefoil                          in one terminal, and in another
  export TREFOIL_PROFILE=/tmp/trefoil/tenants/acme.toml
  trefoil put hello README.md && trefoil get hello && trefoil rm hello && trefoil undelete hello
  trefoil --profile /tmp/trefoil/admin.toml status

Exit codes: 0 it held, 1 it failed, 2 wrong usage, 3 not found or gone, 4 refused, 5 unavailable and worth
another try, 6 the bytes are not what they must be";

/// Tenant-segregated storage: three copies over two data centres, sealed, provably deleted
#[derive(Debug, Parser)]
#[command(name = "trefoil", disable_version_flag = true, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct CommandLine {
    /// The profile: which cluster, as whom
    #[arg(long, global = true, env = "TREFOIL_PROFILE", value_name = "FILE", hide_env_values = true)]
    profile: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    /// How long an operation may take without progress
    #[arg(long, global = true, default_value = "60s", value_parser = quantity::duration, value_name = "TIME")]
    deadline: Duration,
    /// Show the version
    #[arg(long, short = 'V')]
    version: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show everything on this machine: a cluster, its failures, its recovery, its deletes
    Demo(DemoArguments),
    /// Run a cluster of two data centres on this machine until Ctrl-C
    Dev(DevArguments),
    /// Write the folder of a cluster from its plan; starts nothing
    Prepare(PrepareArguments),
    /// Store a file, standard input or a directory
    Put(PutArguments),
    /// Read an object, a part of it, or all under a prefix
    Get(GetArguments),
    /// Describe an object and where its copies are
    Head(data::get::HeadArguments),
    /// List objects
    Ls(ListArguments),
    /// Delete an object; it can be undeleted until its window ends
    Rm(RemoveArguments),
    /// Take back a delete
    Undelete(UndeleteArguments),
    /// List deleted objects that can still be undeleted
    Deleted(ListArguments),
    /// How far a delete is
    PurgeStatus(PurgeStatusArguments),
    /// Fetch the certificate of a completed delete
    Certificate(CertificateArguments),
    /// Check a certificate or a list of lost versions; needs no cluster
    VerifyCertificate(VerifyArguments),
    /// The state of the cluster
    Status(StatusArguments),
    /// Tenants
    #[command(subcommand)]
    Tenant(TenantVerb),
    /// People and services of a tenant
    #[command(subcommand)]
    Principal(PrincipalVerb),
    /// Storage nodes
    #[command(subcommand)]
    Node(NodeVerb),
    /// Voters of the control plane: who keeps its log
    #[command(subcommand)]
    Voter(VoterVerb),
    /// Data centres: planned failover and failback
    #[command(subcommand)]
    Dc(DcVerb),
    /// The links between the data centres
    #[command(subcommand)]
    Link(LinkVerb),
    /// Give every node its share again, moving as little as possible
    Rebalance(PlanFlags),
    /// The plan that was applied last
    #[command(subcommand)]
    Plan(PlanVerb),
    /// Operators of the cluster
    #[command(subcommand)]
    Operator(OperatorVerb),
    /// What was proposed to a second operator, and who approved it
    Approvals(ApprovalsArguments),
    /// Approve what another operator proposed: it is done at once
    Approve(ApproveArguments),
    /// Write the control plane's state to a file, to restore it from
    Backup(BackupArguments),
    /// Begin the control plane again, from a backup or from one surviving voter
    #[command(subcommand)]
    Restore(RestoreVerb),
    /// Volumes whose complete stores are all gone
    #[command(subcommand)]
    Loss(LossVerb),
    /// Measure a running cluster
    #[command(subcommand)]
    Bench(BenchVerb),
    /// Break a cluster on purpose, measure what its clients see, heal it
    #[command(subcommand)]
    Drill(DrillVerb),
    /// Run a storage node
    StorageNode(ServeArguments),
    /// Run a placement process
    Placement(PlacementArguments),
}

impl CommandLine {
    /// Runs the verb.
    pub(crate) fn run(self) -> Verdict {
        let format = if self.json { Format::Json } else { Format::Text };
        if self.version {
            version::tell(format);
            return Ok(());
        }
        let shared = Shared { profile: self.profile, deadline: self.deadline, format };
        match self.verb {
            Some(verb) => verb.run(&shared),
            None => Err(Failure::usage(CommandLine::command().render_usage())),
        }
    }
}

/// What every verb may need.
struct Shared {
    profile: Option<PathBuf>,
    deadline: Duration,
    format: Format,
}

impl Shared {
    fn profile_path(&self) -> Verdict<&PathBuf> {
        let missing = "which profile? give --profile FILE or set TREFOIL_PROFILE";
        self.profile.as_ref().ok_or_else(|| Failure::usage(missing))
    }

    fn profile(&self) -> Verdict<Profile> {
        Profile::load(self.profile_path()?).map_err(Failure::usage)
    }

    fn admin(&self) -> Verdict<Admin> {
        Admin::new(&self.profile()?)
    }

    async fn drill(&self, verb: &DrillVerb) -> Verdict {
        match verb {
            DrillVerb::Run(arguments) => drill::run(arguments, self.format).await,
            DrillVerb::Check(arguments) => drill::check(arguments, self.format),
            DrillVerb::List => drill::list(&self.client().await?, self.format).await,
            DrillVerb::Report(arguments) => {
                drill::report(arguments, &self.client().await?, &self.profile()?, self.format).await
            }
            DrillVerb::Verify(arguments) => drill::verify(arguments, &self.profile()?, self.format),
        }
    }

    async fn client(&self) -> Verdict<Client> {
        data::connect(self.profile()?, Settings { deadline: self.deadline }).await
    }

    async fn reader(&self) -> Verdict<Client> {
        data::connect_to_read(self.profile()?, Settings { deadline: self.deadline }).await
    }
}

impl Verb {
    fn run(self, shared: &Shared) -> Verdict {
        match self {
            // Servers, and what spawns them, choose their own runtimes.
            Self::StorageNode(arguments) => return serve::storage_node(&arguments),
            Self::Placement(arguments) => return serve::placement(&arguments),
            Self::Dev(arguments) => return dev::run(&arguments, shared.format),
            Self::Prepare(arguments) => return prepare::run(&arguments, shared.format),
            Self::Demo(arguments) => return demo::run(&arguments, shared.format),
            Self::VerifyCertificate(arguments) => return certificate::verify(&arguments, shared.format),
            _ => {}
        }
        runtime()?.block_on(self.ask(shared))
    }

    /// The verbs that talk to a running cluster.
    async fn ask(self, shared: &Shared) -> Verdict {
        let format = shared.format;
        match self {
            Self::Put(arguments) => {
                // What is wrong here is told before anybody is asked.
                let what = data::put::What::of(&arguments)?;
                data::put::run(what, &arguments, &shared.client().await?, format).await
            }
            Self::Get(arguments) if arguments.is_lenient() => {
                data::get::run(&arguments, &shared.reader().await?, format).await
            }
            Self::Get(arguments) => data::get::run(&arguments, &shared.client().await?, format).await,
            Self::Head(arguments) => data::get::head(&arguments, &shared.client().await?, format).await,
            Self::Ls(arguments) => data::list::live(&arguments, &shared.client().await?, format).await,
            Self::Deleted(arguments) => {
                data::list::deleted(&arguments, &shared.client().await?, format).await
            }
            Self::Rm(arguments) => data::remove::remove(&arguments, &shared.client().await?, format).await,
            Self::Undelete(arguments) => {
                data::remove::undelete(&arguments, &shared.client().await?, format).await
            }
            Self::PurgeStatus(arguments) => {
                data::remove::purge_status(&arguments, &shared.client().await?, format).await
            }
            Self::Certificate(arguments) => {
                certificate::fetch(&arguments, &shared.client().await?, format).await
            }
            Self::Status(arguments) => admin::status::run(&arguments, &shared.admin()?, format).await,
            Self::Tenant(verb) => admin::tenant::run(&verb, &shared.admin()?, format).await,
            Self::Principal(verb) => {
                admin::principal::run(&verb, &shared.profile()?, shared.profile_path()?, format).await
            }
            Self::Node(verb) => admin::node::run(&verb, || shared.admin(), format).await,
            Self::Voter(verb) => admin::voter::run(&verb, || shared.admin(), format).await,
            Self::Dc(verb) => admin::plan::dc(&verb, &shared.admin()?, format).await,
            Self::Link(verb) => admin::plan::links(&verb, &shared.admin()?, format).await,
            Self::Rebalance(flags) => admin::plan::rebalance(&flags, &shared.admin()?, format).await,
            Self::Plan(verb) => admin::plan::plan(&verb, &shared.admin()?, format).await,
            Self::Operator(verb) => {
                admin::operator::run(&verb, &shared.profile()?, shared.profile_path()?, format)
            }
            Self::Backup(arguments) => admin::backup::run(&arguments, &shared.admin()?, format).await,
            Self::Restore(verb) => restore::run(&verb, &shared.profile()?, format).await,
            Self::Approvals(arguments) => admin::joint::list(&arguments, &shared.admin()?, format).await,
            Self::Approve(arguments) => admin::joint::approve(&arguments, &shared.admin()?, format).await,
            Self::Loss(verb) => admin::joint::loss(&verb, &shared.admin()?, format).await,
            Self::Bench(verb) => bench::run(&verb, &shared.client().await?, format).await,
            Self::Drill(verb) => shared.drill(&verb).await,
            Self::Demo(_)
            | Self::Dev(_)
            | Self::Prepare(_)
            | Self::StorageNode(_)
            | Self::Placement(_)
            | Self::VerifyCertificate(_) => unreachable!("run before a runtime was made"),
        }
    }
}

fn runtime() -> Verdict<Runtime> {
    Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn keys_that_look_like_options_stand_behind_two_dashes() {
        let line = CommandLine::try_parse_from(["trefoil", "rm", "--", "--json"]).unwrap();
        assert!(!line.json);
    }
}
