//! A cluster on this machine: its folder, its certificates, its processes. `dev` keeps one running;
//! `demo` runs one and breaks it. Nothing here knows a protocol; servers are processes with
//! configuration files, exactly as on many machines.

mod files;
pub(crate) mod hands;
mod plan;
mod processes;
mod relay;
mod weather;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use trefoil_client::{Profile, Trust};
use trefoil_protocol::ids::{PrincipalId, TenantId, TenantName};
use trefoil_transport::{Authority, Identity};

pub(crate) use self::files::Layout;
pub(crate) use self::plan::{Seat, Voters};
pub(crate) use self::processes::Processes;
pub(crate) use self::relay::{Relay, Traffic};
use crate::admin::connection::Admin;
use crate::admin::status::StatusView;
use crate::admin::{principal, tenant, wait};
use crate::config::cluster::{ClusterFile, TenantPlan};
use crate::config::server::DetourTable;
use crate::config::{load, store};
use crate::failure::{Failure, Verdict, at};
use crate::quantity;

/// The tenants of a local cluster.
pub(crate) const TENANTS: [&str; 2] = ["acme", "globex"];

/// Its operators; some things take two of them.
const OPERATORS: [&str; 2] = ["admin", "admin-2"];

/// How long a cluster may take until every volume is whole.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long deletes can be undone when nothing else is asked for.
const WINDOW_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);

/// A cluster on this machine.
pub(crate) struct LocalCluster {
    /// Where everything is.
    pub(crate) layout: Layout,
    /// Names, places and ports.
    pub(crate) plan: ClusterFile,
    /// The servers that this process started.
    pub(crate) processes: Processes,
    authority: Authority,
}

impl LocalCluster {
    /// Finds the plan of the cluster in `folder`, or makes one.
    pub(crate) fn plan(
        folder: &Path,
        window: Option<Duration>,
        voters: Option<Voters>,
    ) -> Verdict<(Layout, ClusterFile)> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let layout = Layout::new(fs::canonicalize(folder).map_err(at(folder))?);
        let plan = find_or_make_plan(&layout, window, voters)?;
        Ok((layout, plan))
    }

    /// Adds a node to the plan of the cluster in `folder` and writes its configuration and certificate, and gives
    /// the configuration's place. Starts nothing.
    pub(crate) fn add_node(folder: &Path, id: &str, dc: &str, rack: Option<&str>) -> Verdict<PathBuf> {
        let layout = Layout::new(fs::canonicalize(folder).map_err(at(folder))?);
        let mut plan: ClusterFile = load(&layout.plan())?;
        let identity = Identity::node(id).map_err(Failure::usage)?;
        let cluster = plan.cluster.parse().map_err(Failure::usage)?;
        let authority = Authority::load(&layout.authority(), &cluster).map_err(Failure::usage)?;
        let node = plan::another(&plan, id, dc, rack)?;
        files::write_node(&layout, &plan, &node, Vec::new())?;
        principal::issue(&authority, &identity, &layout.identity(id))?;
        plan.nodes.push(node);
        store(&layout.plan(), &plan)?;
        Ok(layout.configuration(id))
    }

    /// Adds a placement process to the plan of the cluster in `folder` and writes its configuration and
    /// certificate, and gives the configuration's place. Starts nothing.
    pub(crate) fn add_voter(folder: &Path, seat: Seat<'_>) -> Verdict<PathBuf> {
        let layout = Layout::new(fs::canonicalize(folder).map_err(at(folder))?);
        let mut plan: ClusterFile = load(&layout.plan())?;
        let Seat { id, .. } = seat;
        let identity = Identity::placement(id).map_err(Failure::usage)?;
        let cluster = plan.cluster.parse().map_err(Failure::usage)?;
        let authority = Authority::load(&layout.authority(), &cluster).map_err(Failure::usage)?;
        let voter = plan::another_voter(&plan, seat)?;
        plan.placement.push(voter.clone());
        files::write_voter(&layout, &plan, &voter)?;
        principal::issue(&authority, &identity, &layout.identity(id))?;
        store(&layout.plan(), &plan)?;
        Ok(layout.configuration(id))
    }

    /// Reads the plan again: nodes may have been added to it since.
    pub(crate) fn read_plan_again(&mut self) -> Verdict {
        self.plan = load(&self.layout.plan())?;
        Ok(())
    }

    /// Writes configurations and issues fresh certificates. `detours` gives a node its other ways
    /// to peers. Starts nothing yet.
    pub(crate) fn prepare(
        layout: Layout,
        plan: ClusterFile,
        detours: impl Fn(&str) -> Vec<DetourTable>,
    ) -> Verdict<Self> {
        let cluster = plan.cluster.parse().map_err(Failure::usage)?;
        let authority = Authority::load_or_create(&layout.authority(), &cluster).map_err(Failure::failed)?;
        files::write_secrets(&layout)?;
        if plan.placement.len() > 1 {
            files::make_keys(&layout)?;
        }
        files::write_configurations(&layout, &plan, detours)?;
        let local = Self { layout, plan, authority, processes: Processes::default() };
        local.issue_certificates()?;
        Ok(local)
    }

    /// Gives every server and every profile a certificate for the next day.
    pub(crate) fn issue_certificates(&self) -> Verdict {
        for voter in &self.plan.placement {
            let identity = Identity::placement(&voter.id).map_err(Failure::usage)?;
            principal::issue(&self.authority, &identity, &self.layout.identity(&voter.id))?;
        }
        for node in &self.plan.nodes {
            let identity = Identity::node(&node.id).map_err(Failure::usage)?;
            principal::issue(&self.authority, &identity, &self.layout.identity(&node.id))?;
        }
        for name in OPERATORS {
            let operator = Identity::operator(name).map_err(Failure::usage)?;
            let profile = files::admin_profile(&self.plan);
            principal::write(&self.layout.operator_profile(name), profile, &self.authority, &operator)?;
        }
        self.plan.tenants.iter().try_for_each(|tenant| self.write_tenant_profile(tenant))
    }

    fn write_tenant_profile(&self, tenant: &TenantPlan) -> Verdict {
        let (number, principal) = (TenantId(tenant.tenant), PrincipalId(tenant.principal));
        let identity = Identity::Principal { tenant: number, principal };
        let profile = files::tenant_profile(&self.plan, &tenant.name);
        principal::write(&self.layout.tenant_profile(&tenant.name), profile, &self.authority, &identity)
    }

    /// The names of all servers, placement first.
    pub(crate) fn servers(&self) -> Vec<String> {
        let nodes = self.plan.nodes.iter().map(|node| node.id.clone());
        self.plan.placement.iter().map(|voter| voter.id.clone()).chain(nodes).collect()
    }

    /// Starts every server that does not run, placement first. Must be called on the main thread:
    /// children die with the thread that started them.
    pub(crate) fn start_missing(&mut self) -> Verdict<Vec<String>> {
        let mut started = Vec::new();
        for name in self.servers() {
            if !processes::is_running(&self.layout, &name) {
                self.start(&name)?;
                started.push(name);
            }
        }
        Ok(started)
    }

    /// Starts a server of this cluster if it does not run. Must be called on the main thread.
    pub(crate) fn start_if_missing(&mut self, name: &str) -> Verdict {
        self.known(name)?;
        if processes::is_running(&self.layout, name) { Ok(()) } else { self.start(name) }
    }

    /// Kills a server of this cluster, whoever started it.
    fn kill(&mut self, name: &str) -> Verdict {
        match self.processes.has(name) {
            true => self.processes.kill(&[name]).map(drop),
            false => processes::kill_other(&self.layout, name),
        }
    }

    /// Sends a signal to a server of this cluster, whoever started it.
    fn signal(&self, name: &str, signal: Signal) -> Verdict {
        match self.processes.has(name) {
            true => self.processes.signal(name, signal),
            false => processes::signal_other(&self.layout, name, signal),
        }
    }

    /// Puts the data of a server aside that does not run.
    fn lose_data(&self, name: &str) -> Verdict {
        self.known(name)?;
        if processes::is_running(&self.layout, name) {
            return Err(Failure::refused(format!("{name} runs: its data is not lost under it")));
        }
        let (data, aside) = (self.layout.data(name), self.layout.lost_data(name));
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(at(&aside))?;
        }
        fs::rename(&data, &aside).map_err(at(&data))
    }

    /// Takes the data back that was put aside, in place of any that was begun since.
    fn regain_data(&self, name: &str) -> Verdict {
        self.known(name)?;
        let (data, aside) = (self.layout.data(name), self.layout.lost_data(name));
        if !aside.exists() {
            return Err(Failure::not_found(format!("{name} has lost nothing")));
        }
        if data.exists() {
            fs::remove_dir_all(&data).map_err(at(&data))?;
        }
        fs::rename(&aside, &data).map_err(at(&aside))
    }

    fn known(&self, name: &str) -> Verdict {
        let is_node = self.plan.nodes.iter().any(|node| node.id == name);
        match is_node || self.plan.is_placement(name) {
            true => Ok(()),
            false => Err(Failure::not_found(format!("there is no server {name}"))),
        }
    }

    /// Takes placement processes out of the plan that have ended and keep the log no more: `true` if this one was
    /// removed from the voters, so that nobody starts it again.
    pub(crate) async fn forget_if_removed(&mut self, name: &str) -> Verdict<bool> {
        if !self.plan.is_placement(name) {
            return Ok(false);
        }
        let status = self.admin()?.status().await?;
        if status.voters.iter().any(|voter| voter.entry.name.as_str() == name) {
            return Ok(false);
        }
        self.read_plan_again()?;
        let was_there = self.plan.placement.len();
        // Who waits to join is no voter yet, and none that was removed.
        self.plan.placement.retain(|voter| voter.id != name || voter.join);
        store(&self.layout.plan(), &self.plan)?;
        Ok(self.plan.placement.len() < was_there)
    }

    /// Starts one server. Must be called on the main thread.
    pub(crate) fn start(&mut self, name: &str) -> Verdict {
        let verb = if self.plan.is_placement(name) { "placement" } else { "storage-node" };
        self.processes.start(&self.layout, name, verb)
    }

    /// Makes the tenants if they are not there, writes their profiles and the trusted keys, and
    /// waits until every volume has three in-sync replicas.
    pub(crate) async fn settle(&mut self) -> Verdict<StatusView> {
        let admin = self.admin()?;
        let nodes = self.plan.nodes.len();
        self.processes
            .watched(wait::until(&admin, PATIENCE, "every node to come up", |view| {
                view.nodes.iter().filter(|node| node.state == "up").count() == nodes
            }))
            .await?;
        for name in TENANTS {
            if !self.plan.tenants.iter().any(|tenant| tenant.name == name) {
                self.make_tenant(&admin, name).await?;
            }
        }
        self.write_trust(&admin).await?;
        self.processes
            .watched(wait::until(&admin, PATIENCE, "every volume to be whole", StatusView::whole))
            .await
    }

    async fn make_tenant(&mut self, admin: &Admin, name: &str) -> Verdict {
        let parsed: TenantName = name.parse().expect("our tenants have valid names");
        let window = quantity::duration(&self.plan.delete_window).map_err(Failure::usage)?;
        let made = tenant::create_default(admin, parsed, window).await?;
        let (_, principal) = principal::register(admin, parsed).await?;
        let tenant = TenantPlan { name: name.to_owned(), tenant: made.tenant.0, principal: principal.0 };
        self.write_tenant_profile(&tenant)?;
        self.plan.tenants.push(tenant);
        store(&self.layout.plan(), &self.plan)
    }

    /// Waits until every voter with keys has said which one is its own.
    async fn write_trust(&mut self, admin: &Admin) -> Verdict {
        let settled = self.processes.watched(wait::signers_when_all_are_known(admin, PATIENCE)).await?;
        let trust = Trust { cluster: self.plan.cluster.clone(), signers: settled.terms };
        crate::config::write_whole(&self.layout.trust(), trust.to_toml().as_bytes(), 0o644)
    }

    /// An operator's way in.
    pub(crate) fn admin(&self) -> Verdict<Admin> {
        Admin::new(&Profile::load(self.layout.admin_profile()).map_err(Failure::failed)?)
    }
}

fn find_or_make_plan(
    layout: &Layout,
    window: Option<Duration>,
    voters: Option<Voters>,
) -> Verdict<ClusterFile> {
    let path = layout.plan();
    if !path.exists() {
        let plan = plan::new(window.unwrap_or(WINDOW_DEFAULT), voters.unwrap_or(Voters::One))?;
        store(&path, &plan)?;
        return Ok(plan);
    }
    let plan: ClusterFile = load(&path)?;
    let kept = quantity::duration(&plan.delete_window).map_err(Failure::usage)?;
    if window.is_some_and(|window| window != kept) {
        let path = path.display();
        return Err(Failure::usage(format!(
            "{path}: this cluster's delete window is {}; a tenant's window does not change",
            plan.delete_window
        )));
    }
    if voters.is_some_and(|voters| voters.count() != plan.placement.len()) {
        let (path, voters) = (path.display(), plan.placement.len());
        return Err(Failure::usage(format!("{path}: this cluster has {voters} voters")));
    }
    Ok(plan)
}
