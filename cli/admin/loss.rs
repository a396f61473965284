//! What volumes went on without: a line in `status` while a store is kept apart, and `loss report`, which
//! sums up what the stores that came back have told, by tenant.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use trefoil_protocol::ids::TenantId;
use trefoil_protocol::message::admin::ClusterStatus;
use trefoil_protocol::message::loss::{LossTotals, LossView, LostStoreState, LostStoreView};
use trefoil_protocol::time::CpTime;

use super::connection::Admin;
use crate::failure::{Failure, Verdict};
use crate::output::{self, Format};

/// Arguments of `loss report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// The volume's number; without, of all volumes
    volume: Option<u64>,
}

/// A sum of versions that a volume went on without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    put: u64,
    deleted: u64,
    brought_back: u64,
    bytes: u64,
    oldest_ms: Option<u64>,
    /// Not known to be committed: nobody knows whether they were acknowledged.
    unsure: u64,
}

impl Totals {
    fn of(totals: &LossTotals) -> Self {
        Self {
            put: totals.puts,
            deleted: totals.deletes,
            brought_back: totals.undeletes,
            bytes: totals.bytes,
            oldest_ms: totals.oldest.map(|oldest| oldest.0),
            unsure: totals.unsure,
        }
    }

    fn add(&mut self, other: &Self) {
        self.put += other.put;
        self.deleted += other.deleted;
        self.brought_back += other.brought_back;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.unsure += other.unsure;
        self.oldest_ms = self.oldest_ms.into_iter().chain(other.oldest_ms).min();
    }

    fn cells(&self) -> [String; 5] {
        let oldest = self.oldest_ms.map_or_else(|| "-".to_owned(), |oldest| CpTime(oldest).to_string());
        let numbers = [self.put.to_string(), output::bytes(self.bytes), self.deleted.to_string()];
        let [put, bytes, deleted] = numbers;
        [put, bytes, deleted, self.brought_back.to_string(), oldest]
    }
}

/// A store that a volume went on without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StoreLine {
    store: String,
    node: Option<String>,
    /// `estranged`, `reconciled`, `discarded` or `fenced`.
    state: &'static str,
    /// Whether it has told everything that it has alone.
    told: bool,
    totals: Totals,
    unreadable: u64,
}

impl StoreLine {
    fn of(status: &ClusterStatus, view: &LostStoreView) -> Self {
        let node = status.nodes.iter().find(|entry| entry.store == view.store);
        Self {
            store: view.store.to_string(),
            node: node.map(|entry| entry.node.to_string()),
            state: match view.state {
                LostStoreState::Estranged => "estranged",
                LostStoreState::Reconciled => "reconciled",
                LostStoreState::Discarded => "discarded",
                LostStoreState::Fenced => "fenced",
            },
            told: view.heard,
            totals: Totals::of(&view.totals),
            unreadable: view.unreadable,
        }
    }
}

/// What is known of one time that a volume went on without stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LossLine {
    pub(crate) volume: u64,
    pub(crate) tenant: String,
    /// The first epoch after it.
    pub(crate) epoch: u64,
    /// The proposal by which it was wanted; none for a restore of the control plane.
    pub(crate) proposal: Option<u64>,
    pub(crate) at_ms: u64,
    /// `unknown`, `at_most` by the account, or `told` by every store.
    pub(crate) known: &'static str,
    pub(crate) unknown_since_ms: Option<u64>,
    pub(crate) at_most_objects: Option<u64>,
    pub(crate) at_most_bytes: Option<u64>,
    /// A store is kept apart.
    pub(crate) open: bool,
    pub(crate) stores: Vec<StoreLine>,
    pub(crate) listed: Totals,
    pub(crate) unlisted: u64,
}

impl LossLine {
    /// All of them, of the volumes in the status.
    pub(crate) fn all(status: &ClusterStatus) -> Vec<Self> {
        status.losses.iter().map(|view| Self::of(status, view)).collect()
    }

    fn of(status: &ClusterStatus, view: &LossView) -> Self {
        let told = view.stores.iter().all(|store| store.heard && store.unreadable == 0);
        Self {
            volume: view.volume.0,
            tenant: name_of(status, view.tenant),
            epoch: view.epoch.0,
            proposal: (view.proposal != 0).then_some(view.proposal),
            at_ms: view.at.0,
            known: match (told, view.unknown_since) {
                (_, Some(_)) => "unknown",
                (true, None) => "told",
                (false, None) => "at_most",
            },
            unknown_since_ms: view.unknown_since.map(|since| since.0),
            at_most_objects: view.account.map(|(objects, _)| objects),
            at_most_bytes: view.account.map(|(_, bytes)| bytes),
            open: view.open,
            stores: view.stores.iter().map(|store| StoreLine::of(status, store)).collect(),
            listed: Totals::of(&view.listed),
            unlisted: view.unlisted,
        }
    }

    fn extent(&self) -> String {
        let listed = self.listed;
        let told =
            format!("{} put ({}) and {} hidden", listed.put, output::bytes(listed.bytes), listed.deleted);
        match (self.unknown_since_ms, self.at_most_objects, self.at_most_bytes) {
            (Some(since), ..) => {
                format!(
                    "what was acknowledged and lost is UNKNOWN since {}; told so far: {told}",
                    CpTime(since)
                )
            }
            (None, Some(objects), Some(bytes)) if self.known == "at_most" => format!(
                "at most {objects} objects and {} are lost; told so far: {told}",
                output::bytes(bytes)
            ),
            _ => format!("lost is what was told: {told}"),
        }
    }

    /// For people: what is kept apart.
    pub(super) fn text(&self) -> String {
        let apart = self.stores.iter().filter(|store| store.state == "estranged");
        let silent = apart.clone().filter(|store| !store.told).count();
        format!(
            "volume {} of {} went on without {} stores in epoch {}: {}; {silent} of them have not told what they \
             have",
            self.volume,
            self.tenant,
            apart.count(),
            self.epoch,
            self.extent()
        )
    }
}

fn name_of(status: &ClusterStatus, tenant: TenantId) -> String {
    let known = status.tenants.iter().find(|entry| entry.tenant == tenant);
    known.map_or_else(|| tenant.to_string(), |entry| entry.name.to_string())
}

/// A tenant's part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct TenantLoss {
    tenant: String,
    volumes: u64,
    /// Volumes of which nobody knows what was lost.
    unknown: u64,
    #[serde(flatten)]
    totals: Totals,
}

#[derive(Serialize)]
struct Report {
    losses: Vec<LossLine>,
    tenants: Vec<TenantLoss>,
}

impl Report {
    fn of(losses: Vec<LossLine>) -> Self {
        let mut tenants: BTreeMap<String, TenantLoss> = BTreeMap::new();
        for loss in &losses {
            let tenant = loss.tenant.clone();
            let sum = tenants.entry(tenant.clone()).or_insert(TenantLoss { tenant, ..TenantLoss::default() });
            sum.volumes += 1;
            sum.unknown += u64::from(loss.known == "unknown");
            sum.totals.add(&loss.listed);
        }
        Self { losses, tenants: tenants.into_values().collect() }
    }

    fn text(&self) -> String {
        if self.losses.is_empty() {
            return "no volume went on without a store".to_owned();
        }
        let row = |loss: &LossLine, store: &StoreLine| {
            let told = match (store.told, store.unreadable) {
                (true, 0) => "all".to_owned(),
                (true, unreadable) => format!("all but {unreadable} records"),
                (false, _) => "not yet".to_owned(),
            };
            let node = store.node.clone().unwrap_or_else(|| store.store.clone());
            let first = [loss.volume.to_string(), loss.tenant.clone(), node, store.state.to_owned(), told];
            first.into_iter().chain(store.totals.cells()).collect::<Vec<_>>()
        };
        let stores = output::table(
            &[
                "VOLUME",
                "TENANT",
                "NODE",
                "STATE",
                "TOLD",
                "PUT",
                "BYTES",
                "DELETED",
                "BROUGHT BACK",
                "OLDEST",
            ],
            self.losses.iter().flat_map(|loss| loss.stores.iter().map(move |store| row(loss, store))),
        );
        let sums = output::table(
            &["TENANT", "VOLUMES", "UNKNOWN", "PUT", "BYTES", "DELETED", "BROUGHT BACK", "OLDEST"],
            self.tenants.iter().map(|sum| {
                let first = [sum.tenant.clone(), sum.volumes.to_string(), sum.unknown.to_string()];
                first.into_iter().chain(sum.totals.cells()).collect()
            }),
        );
        let extents = self.losses.iter().map(|loss| format!("volume {}: {}\n", loss.volume, loss.extent()));
        format!("{stores}\n\n{}\n{sums}", extents.collect::<String>())
    }
}

/// `trefoil loss report`.
pub(crate) async fn report(arguments: &ReportArguments, admin: &Admin, format: Format) -> Verdict {
    let status = admin.status().await?;
    let wanted = |volume: u64| arguments.volume.is_none_or(|named| named == volume);
    if !status.volumes.iter().any(|config| wanted(config.volume.0)) && arguments.volume.is_some() {
        return Err(Failure::not_found("there is no such volume"));
    }
    let losses = LossLine::all(&status).into_iter().filter(|loss| wanted(loss.volume)).collect();
    format.answer(&Report::of(losses), Report::text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(tenant: &str, volume: u64, unknown_since_ms: Option<u64>) -> LossLine {
        let listed = Totals { put: 2, bytes: 4096, oldest_ms: Some(volume), deleted: 1, ..Totals::default() };
        LossLine {
            volume,
            tenant: tenant.to_owned(),
            epoch: 3,
            proposal: Some(1),
            at_ms: 9,
            known: if unknown_since_ms.is_some() { "unknown" } else { "at_most" },
            unknown_since_ms,
            at_most_objects: unknown_since_ms.is_none().then_some(7),
            at_most_bytes: unknown_since_ms.is_none().then_some(8192),
            open: true,
            stores: Vec::new(),
            listed,
            unlisted: 0,
        }
    }

    #[test]
    fn what_nobody_knows_is_said_as_unknown_and_since_when() {
        let text = line("acme", 1, Some(5000)).text();
        assert!(text.contains(&format!("UNKNOWN since {}", CpTime(5000))), "{text}");
        let text = line("acme", 1, None).text();
        assert!(text.contains("at most 7 objects") && !text.contains("UNKNOWN"), "{text}");
    }

    #[test]
    fn a_report_sums_by_tenant() {
        let report =
            Report::of(vec![line("acme", 4, None), line("acme", 2, Some(5)), line("globex", 3, None)]);
        let sums: Vec<_> = report
            .tenants
            .iter()
            .map(|sum| (sum.tenant.as_str(), sum.volumes, sum.unknown, sum.totals.put))
            .collect();
        assert_eq!(sums, [("acme", 2, 1, 4), ("globex", 1, 0, 2)]);
        assert_eq!(report.tenants[0].totals.oldest_ms, Some(2));
    }
}
