//! The stage: the cluster, the relay, the tenants' clients and the book; and the steps that need
//! nothing broken.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::{JoinSet, spawn_blocking};
use trefoil_client::shell::FileSource;
use trefoil_client::{Client, Profile, ReadError, Settings, Stored};
use trefoil_protocol::config::Protection;
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::Copy;

use super::DemoArguments;
use super::ledger::{HashedFile, Ledger, read};
use super::load::content;
use super::report::Report;
use super::scan::{Found, Place, Sought};
use super::verdict::{self, Copies, Isolation, Judgement, Receipts, Told};
use crate::admin::connection::Admin;
use crate::data::connect;
use crate::data::put::{Tree, TreeFile};
use crate::failure::{Failure, Verdict};
use crate::local::{LocalCluster, Relay, TENANTS};
use crate::output;

/// How much of the current directory is stored when no input is named.
const INPUT_BYTES: u64 = 64 << 20;

/// What of the current directory is no input.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// Files that are stored at once.
const FILES_AT_ONCE: usize = 16;

/// How long one operation of the demo may go without progress.
const DEADLINE: Duration = Duration::from_secs(90);

/// The texts that the raw scans look for.
pub(super) const LARGE: &str = "the streamed object";
pub(super) const SMALL: &str = "the small object";
const PLAINTEXT: &str = "its plaintext";

/// An object that is looked for on disk.
pub(super) struct Sample {
    pub(super) key: ObjectKey,
    /// What the client knows.
    pub(super) plaintext: Bytes,
    /// What nodes hold.
    pub(super) ciphertext: Bytes,
    pub(super) told: Vec<Told>,
}

/// Everything the steps need. The cluster stands first: it is dropped, and its servers killed, before
/// the rest.
pub(super) struct Show {
    pub(super) cluster: LocalCluster,
    pub(super) relay: Relay,
    pub(super) admin: Admin,
    /// One client for each tenant.
    pub(super) clients: Vec<Client>,
    pub(super) ledger: Ledger,
    /// The streamed and the small sample of the first tenant.
    pub(super) samples: Vec<Sample>,
    /// What a scan found while the samples were there.
    pub(super) before: Found,
    pub(super) window: Duration,
    /// Counts the loads, so that no two write the same bytes.
    pub(super) round: u64,
    input: Vec<TreeFile>,
}

impl Show {
    /// Starts the cluster and connects both tenants.
    pub(super) async fn open(arguments: &DemoArguments, folder: &Path, report: &mut Report) -> Verdict<Self> {
        let input = input(arguments.input.as_deref())?;
        let began = Instant::now();
        let (layout, plan) = LocalCluster::plan(folder, Some(arguments.delete_window), None)?;
        let relay = Relay::open(&plan).await?;
        let mut cluster = LocalCluster::prepare(layout, plan, |node| relay.detours(node))?;
        report.say("starting seven processes");
        cluster.start_missing()?;
        let view = cluster.settle().await?;
        let admin = cluster.admin()?;
        let mut clients = Vec::new();
        for tenant in TENANTS {
            let profile = Profile::load(cluster.layout.tenant_profile(tenant)).map_err(Failure::failed)?;
            clients.push(connect(profile, Settings { deadline: DEADLINE }).await?);
        }
        let detail = format!(
            "{} nodes up, {} volumes with three in-sync replicas each, after {:.1} s",
            view.nodes.len(),
            view.volumes.len(),
            began.elapsed().as_secs_f64()
        );
        report.end(&Judgement { ok: view.whole(), pause: None, detail });
        Ok(Self {
            cluster,
            relay,
            admin,
            clients,
            ledger: Ledger::default(),
            samples: Vec::new(),
            before: Found::default(),
            window: arguments.delete_window,
            round: 0,
            input,
        })
    }

    /// Both tenants store the same tree, and the first one two samples.
    pub(super) async fn store_two_trees(&mut self, report: &mut Report) -> Verdict {
        report.begin("Two tenants store a directory tree");
        let mut seen = Receipts::default();
        let count = self.input.len() * self.clients.len();
        let mut storing = JoinSet::new();
        let all = self.input.iter().flat_map(|file| (0..TENANTS.len()).map(move |tenant| (tenant, file)));
        for (tenant, file) in all {
            if storing.len() >= FILES_AT_ONCE {
                note_stored(storing.join_next().await, &mut seen);
                report.say(&format!("{} of {count} objects", seen.acknowledged));
            }
            let (client, ledger) = (self.clients[tenant].clone(), self.ledger.clone());
            storing.spawn(store_file(client, ledger, tenant, file.clone()));
        }
        while let Some(done) = storing.join_next().await {
            note_stored(Some(done), &mut seen);
        }
        report.end(&verdict::stored(&seen));
        Ok(())
    }

    /// Where the copies of an object are said to be, and where its bytes are.
    pub(super) async fn find_three_copies(&mut self, report: &mut Report) -> Verdict {
        report.begin("An object has three copies, in both data centres");
        for (key, seed, length) in [("sample/large", 1, 1 << 20), ("sample/small", 2, 4096)] {
            let sample = self.make_sample(key, content(u64::MAX - seed, length)).await?;
            self.samples.push(sample);
        }
        report.say("looking at every file of every node");
        self.before = self.scan().await?;
        for (sample, text) in self.samples.iter().zip([LARGE, SMALL]) {
            let seen = Copies { told: sample.told.clone(), found: self.before.places_of(text) };
            let judgement = verdict::three_copies(&seen);
            if text == LARGE || !judgement.ok {
                report.end(&judgement);
            }
        }
        Ok(())
    }

    async fn make_sample(&self, key: &str, plaintext: Bytes) -> Verdict<Sample> {
        let key = ObjectKey::new(key.to_owned()).map_err(Failure::failed)?;
        let client = &self.clients[0];
        client.put(&key, plaintext.clone()).await?;
        let told = told(&client.head(&key).await?.view.copies);
        let ciphertext = client.sealed(&key).await?;
        Ok(Sample { key, plaintext, ciphertext, told })
    }

    /// Looks for the samples, sealed and plain, in every file of every server.
    pub(super) async fn scan(&self) -> Verdict<Found> {
        let (large, small) = (&self.samples[0], &self.samples[1]);
        let sought = Sought::new(&[
            (LARGE, &large.ciphertext),
            (SMALL, &small.ciphertext),
            (PLAINTEXT, &large.plaintext),
            (PLAINTEXT, &small.plaintext),
        ]);
        let pids = self.cluster.processes.pids();
        let servers = self
            .cluster
            .plan
            .nodes
            .iter()
            .map(|node| &node.id)
            .chain(self.cluster.plan.placement.iter().map(|voter| &voter.id));
        let places: Vec<Place> = servers
            .map(|name| Place {
                name: name.clone(),
                folder: self.cluster.layout.root().join(name),
                pid: pids.get(name).copied(),
            })
            .collect();
        spawn_blocking(move || sought.find(&places)).await.map_err(Failure::failed)?
    }

    /// One tenant asks for the other's objects, and for objects that nobody has.
    pub(super) async fn look_into_the_other_tenant(&mut self, report: &mut Report) -> Verdict {
        report.begin("Neither tenant sees the other");
        let (owner, stranger) = (&self.clients[0], &self.clients[1]);
        let sample = &self.samples[1];
        let nobodys = ObjectKey::new("sample/nobody-has-this").map_err(Failure::failed)?;
        let mut listed = 0;
        let mut pages = stranger.list("sample/");
        while let Some(page) = pages.next().await? {
            listed += page.lines.len() as u64;
        }
        let seen = Isolation {
            foreign: questions(stranger, &sample.key).await,
            absent: questions(stranger, &nobodys).await,
            listed,
            owner_reads: read(owner, &sample.key).await? == blake3::hash(&sample.plaintext),
        };
        report.end(&verdict::isolated(&seen));
        Ok(())
    }

    /// The scan of before, asked for plaintext.
    pub(super) async fn look_for_plaintext(&mut self, report: &mut Report) -> Verdict {
        report.begin("No file of any server holds plaintext");
        report.end(&verdict::no_plaintext(&self.before, PLAINTEXT, LARGE));
        Ok(())
    }

    /// Everything that was acknowledged and not deleted, once more.
    pub(super) async fn read_everything_back(&mut self, report: &mut Report) -> Verdict {
        report.begin("Everything acknowledged is there");
        let bar = report.bar();
        let count = self.ledger.count();
        let read =
            self.ledger.read_back(&self.clients, |done| bar.set_message(format!("{done} of {count}"))).await;
        report.summary.acknowledged = read.acknowledged;
        report.summary.lost = read.lost.len() as u64;
        report.end(&verdict::nothing_lost(&read));
        Ok(())
    }
}

/// Where copies are said to be.
pub(super) fn told(copies: &[Copy]) -> Vec<Told> {
    copies.iter().map(|copy| (copy.node.to_string(), copy.dc.to_string())).collect()
}

fn input(named: Option<&Path>) -> Verdict<Vec<TreeFile>> {
    let root = named.map_or_else(|| PathBuf::from("."), Path::to_owned);
    let skip: &[&str] = if named.is_some() { &[] } else { &SKIPPED };
    let tree = Tree::walk(&root, "tree/", skip)?;
    if tree.symlinks > 0 {
        output::note(&format!("skipped {}", output::counted(tree.symlinks, "symbolic link")));
    }
    for reason in &tree.unnamable {
        output::note(&format!("skipped: {reason}"));
    }
    let mut sum = 0;
    let first = tree.files.into_iter().take_while(|file| {
        sum += file.length;
        named.is_some() || sum <= INPUT_BYTES
    });
    let files: Vec<TreeFile> = first.collect();
    if files.is_empty() {
        return Err(Failure::usage(format!("{}: there is no file to store", root.display())));
    }
    Ok(files)
}

async fn store_file(client: Client, ledger: Ledger, tenant: usize, file: TreeFile) -> Result<Stored, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.path.display());
    let (source, hasher) = HashedFile::new(FileSource::open(&file.path).map_err(|error| said(&error))?);
    let stored = client.put(&file.key, source).await.map_err(|error| said(&error))?;
    let hash = hasher.lock().unwrap_or_else(PoisonError::into_inner).finalize();
    ledger.acknowledge((tenant, file.key.clone()), hash);
    Ok(stored)
}

fn note_stored(done: Option<Result<Result<Stored, String>, tokio::task::JoinError>>, seen: &mut Receipts) {
    let Some(done) = done else { return };
    match done.expect("a put does not panic") {
        Ok(stored) => {
            let centres: std::collections::BTreeSet<_> =
                stored.receipt.copies.iter().map(|copy| copy.dc).collect();
            seen.acknowledged += 1;
            seen.bytes += stored.bytes;
            seen.lopsided += u64::from(centres.len() < 2);
            seen.weak += u64::from(stored.receipt.protection != Protection::BothDcs);
        }
        Err(reason) => seen.failed.push(reason),
    }
}

/// What a client hears when it asks for a key.
async fn questions(client: &Client, key: &ObjectKey) -> Vec<String> {
    let words =
        |result: Result<(), ReadError>| result.err().map_or_else(|| "here it is".into(), |e| e.to_string());
    let delete = client.delete(key).await.err().map_or_else(|| "deleted".into(), |error| error.to_string());
    vec![words(read(client, key).await.map(drop)), words(client.head(key).await.map(drop)), delete]
}
