//! Where a drill takes place: an operator's way in, the tenants' clients, hands, and what the file's names mean.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use trefoil_client::{Client, Profile, Settings};
use trefoil_drill::{Blackout, DrillFile};

use super::command::Hands;
use super::rescuer::Rescuer;
use crate::admin::connection::Admin;
use crate::config::{beside, load};
use crate::data::connect;
use crate::failure::{Failure, Verdict};
use crate::local::TENANTS;
use crate::local::hands::Deed;

/// The file of a cluster that is drilled.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterTable {
    /// The operator's profile.
    operator: PathBuf,
    /// That of another operator, for what takes two.
    second: Option<PathBuf>,
    /// The folder, if the cluster is on this machine alone.
    #[serde(skip)]
    folder: Option<PathBuf>,
    /// The profile of each tenant that a drill may name.
    tenants: BTreeMap<String, PathBuf>,
    /// What a drill's names are here, where they differ.
    #[serde(default)]
    names: BTreeMap<String, String>,
    /// A command for each deed.
    #[serde(default)]
    hands: BTreeMap<String, String>,
    /// When no drill may run.
    #[serde(default, rename = "blackout")]
    blackouts: Vec<Blackout>,
}

/// A cluster that is drilled.
pub(crate) struct Field {
    pub(crate) admin: Admin,
    pub(crate) operator: Profile,
    /// Who does what operators do when the rules alone cannot go on.
    pub(crate) rescuer: Rescuer,
    /// A client for each tenant of the file, in its order, with the tenant's name here.
    pub(crate) tenants: Vec<(String, Client)>,
    pub(crate) hands: Hands,
    /// When the cluster's owner wants no drill.
    pub(crate) blackouts: Vec<Blackout>,
    names: BTreeMap<String, String>,
}

impl Field {
    /// Goes to the cluster in a folder, or to that of a file.
    pub(crate) async fn enter(
        file: &DrillFile,
        data: Option<&Path>,
        cluster: Option<&Path>,
    ) -> Verdict<Self> {
        match (data, cluster) {
            (Some(folder), _) => {
                let profile = |(place, name): (usize, &String)| {
                    let of = |name: &str| folder.join("tenants").join(format!("{name}.toml"));
                    let own = Some(of(name)).filter(|own| own.exists());
                    // Tenants that the cluster has not are its own in turn: every client has keys of its own.
                    (name.clone(), own.unwrap_or_else(|| of(TENANTS[place % TENANTS.len()])))
                };
                let table = ClusterTable {
                    operator: folder.join("admin.toml"),
                    second: Some(folder.join("admin-2.toml")),
                    folder: Some(folder.to_owned()),
                    tenants: file.load.tenants.iter().enumerate().map(profile).collect(),
                    names: BTreeMap::new(),
                    hands: BTreeMap::new(),
                    blackouts: Vec::new(),
                };
                let hands = Hands::lent(folder).await?;
                Self::open(file, table, hands).await
            }
            (None, Some(path)) => {
                let mut table: ClusterTable = load(path)?;
                for profile in
                    table.tenants.values_mut().chain([&mut table.operator]).chain(&mut table.second)
                {
                    *profile = beside(path, profile);
                }
                let hands = Hands::Commands(table.hands.clone());
                Self::open(file, table, hands).await
            }
            (None, None) => Err(Failure::usage("which cluster? give --data DIR or --cluster FILE")),
        }
    }

    async fn open(file: &DrillFile, table: ClusterTable, hands: Hands) -> Verdict<Self> {
        let rescuer = Rescuer::new(table.folder, &table.operator, table.second);
        let operator = Profile::load(table.operator).map_err(Failure::usage)?;
        let admin = Admin::new(&operator)?;
        let mut tenants = Vec::new();
        for name in &file.load.tenants {
            let profile = table.tenants.get(name);
            let profile = profile
                .ok_or_else(|| Failure::refused(format!("the cluster's file has no tenant {name}")))?;
            let profile = Profile::load(profile).map_err(Failure::usage)?;
            let own = profile.tenant.as_ref().map_or_else(|| name.clone(), ToString::to_string);
            let client =
                connect(profile, Settings { deadline: Duration::from_nanos(file.load.deadline.0) }).await;
            tenants.push((own, client.map_err(|failure| failure.within(format!("tenant {name}")))?));
        }
        let (blackouts, names) = (table.blackouts, table.names);
        Ok(Self { admin, operator, rescuer, tenants, hands, blackouts, names })
    }

    /// The cluster's name of what the file calls so.
    pub(crate) fn name(&self, name: &str) -> String {
        self.names.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// The cluster's names of several.
    pub(crate) fn names(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        names.iter().map(|name| self.name(name)).collect()
    }

    /// Does what the file says in its names.
    pub(crate) async fn act(&mut self, deed: &Deed) -> Verdict {
        let deed = match deed {
            Deed::Kill(name) => Deed::Kill(self.name(name)),
            Deed::Start(name) => Deed::Start(self.name(name)),
            Deed::Pause(name) => Deed::Pause(self.name(name)),
            Deed::Continue(name) => Deed::Continue(self.name(name)),
            Deed::Starve { node, still, runs } => {
                Deed::Starve { node: self.name(node), still: *still, runs: *runs }
            }
            Deed::Part(pair) => Deed::Part(pair.each_ref().map(|name| self.name(name))),
            Deed::Join(pair) => Deed::Join(pair.each_ref().map(|name| self.name(name))),
            Deed::Lose(name) => Deed::Lose(self.name(name)),
            Deed::Regain(name) => Deed::Regain(self.name(name)),
            Deed::Cut(_) | Deed::Restore(_) | Deed::Model(..) => deed.clone(),
        };
        self.hands.act(&deed).await
    }

    /// The clients alone.
    pub(crate) fn clients(&self) -> Vec<Client> {
        self.tenants.iter().map(|(_, client)| client.clone()).collect()
    }
}
