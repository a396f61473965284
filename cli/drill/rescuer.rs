//! What operators do in a drill when the rules alone cannot go on. Logs are begun anew by the program's own verbs, in
//! the folder of a cluster on this machine; what becomes of volumes is proposed by one operator and approved by another.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::task::JoinSet;
use trefoil_client::Profile;
use trefoil_drill::Deed;
use trefoil_protocol::config::{NodeEntry, NodeState, VolumeConfig, VoterEntry};
use trefoil_protocol::ids::{DcId, VersionId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest, ClusterStatus};
use trefoil_protocol::message::approval::JointAction;
use trefoil_protocol::message::loss::LostStoreState;
use trefoil_protocol::message::refused::Override;

use crate::admin::connection::{Admin, unexpected};
use crate::admin::loss_list;
use crate::failure::{Failure, Kind, Verdict, at};

/// How long stores may take until what only they have is told and given up.
const DISCARDED_WITHIN: Duration = Duration::from_secs(30);

/// How often is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Two operators, and where the logs are that they begin anew.
pub(crate) struct Rescuer {
    folder: Option<PathBuf>,
    first: PathBuf,
    second: Option<PathBuf>,
    /// Volumes that were not to go on elsewhere, and of which the state tells.
    declared_in_vain: u64,
}

impl Rescuer {
    /// `folder` is that of a cluster on this machine, the others are profiles.
    pub(crate) fn new(folder: Option<PathBuf>, first: &Path, second: Option<PathBuf>) -> Self {
        Self { folder, first: first.to_owned(), second, declared_in_vain: 0 }
    }

    /// Whether all of it can be done here.
    pub(crate) fn can(&self, rescues: impl Iterator<Item = Deed>) -> Verdict {
        for deed in rescues {
            match deed {
                Deed::Backup | Deed::Lose | Deed::Restore | Deed::Survive => drop(self.folder()?),
                Deed::AcceptLoss | Deed::Discard => drop(self.second()?),
                Deed::DeclareDead => {}
            }
        }
        Ok(())
    }

    fn folder(&self) -> Verdict<&Path> {
        self.folder.as_deref().ok_or_else(|| {
            Failure::refused(
                "the drill begins the control plane's logs anew, where they are: it runs with --data, on a cluster of \
                 `trefoil dev`",
            )
        })
    }

    fn second(&self) -> Verdict<&Path> {
        let missing = "the drill takes two operators: name the profile of another one as `second` in the cluster's file";
        self.second.as_deref().ok_or_else(|| Failure::refused(missing))
    }

    /// Volumes that were refused to go on without what lives, as the state tells.
    pub(crate) fn declared_in_vain(&self) -> u64 {
        self.declared_in_vain
    }

    /// Versions that volumes went on without. Nothing of the kind befalls a cluster that nobody rescues.
    pub(crate) async fn listed(&self, admin: &Admin) -> Verdict<BTreeSet<VersionId>> {
        let mut listed = BTreeSet::new();
        for loss in admin.status().await?.losses {
            let versions = loss_list::versions(admin, loss.volume, loss.epoch).await?;
            listed.extend(versions.into_iter().map(|lost| lost.version));
        }
        Ok(listed)
    }

    /// Saves the control plane's state, and the keys that sign it.
    pub(crate) async fn back_up(&self, cluster: &str) -> Verdict {
        let papers = self.papers()?;
        fs::create_dir_all(&papers).map_err(at(&papers))?;
        self.ask(&self.first, [OsStr::new("backup"), "-o".as_ref(), self.backup()?.as_ref()]).await?;
        let keys = self.ask(&self.first, ["voter", "trust", cluster]).await?;
        let trust = self.trust()?;
        fs::write(&trust, keys.stdout).map_err(at(&trust))
    }

    /// Begins the logs of all voters from the backup.
    pub(crate) async fn restore(&self, voters: &[VoterEntry]) -> Verdict {
        let (backup, trust) = (self.backup()?, self.trust()?);
        let source = ["--backup".as_ref(), backup.as_os_str(), "--trust".as_ref(), trust.as_os_str()];
        let voters: Vec<String> = voters.iter().map(|entry| entry.name.to_string()).collect();
        self.begin_anew(&voters, &source, &[]).await
    }

    /// Begins the log of one voter alone, from what it knows.
    pub(crate) async fn survive(&self, survivor: &VoterEntry, given_up: &[DcId]) -> Verdict {
        let voters = [survivor.name.to_string()];
        self.begin_anew(&voters, &["--survivor".as_ref()], given_up).await
    }

    /// One paper of two operators, for each of the voters.
    async fn begin_anew(&self, voters: &[String], source: &[&OsStr], given_up: &[DcId]) -> Verdict {
        let (papers, folder) = (self.papers()?, self.folder()?);
        fs::create_dir_all(&papers).map_err(at(&papers))?;
        let paper = papers.join("paper.json");
        let configuration = |voter: &String| folder.join(voter).join("config.toml");
        let place = |voter: &String| {
            let configuration = configuration(voter).into_os_string();
            let source = source.iter().map(|word| (*word).to_owned());
            ["--config".into(), configuration].into_iter().chain(source).collect::<Vec<_>>()
        };
        let Some(any) = voters.first() else { return Err(Failure::refused("no voter is left")) };
        let mut propose = words(["restore", "propose", "--reason", "a drill", "-o"]);
        propose.push(paper.clone().into());
        propose.extend(place(any));
        propose.extend(given_up.iter().flat_map(|dc| words(["--give-up", dc.as_str()])));
        self.ask(&self.first, propose).await?;
        let approve = [OsStr::new("restore"), "approve".as_ref(), paper.as_os_str()];
        self.ask(self.second()?, approve).await?;
        let mut beginning = JoinSet::new();
        for voter in voters {
            let mut begin = words(["restore", "begin"]);
            begin.push(paper.clone().into());
            begin.extend(place(voter));
            beginning.spawn(ask(self.first.clone(), begin));
        }
        while let Some(begun) = beginning.join_next().await {
            begun.map_err(Failure::failed)??;
        }
        Ok(())
    }

    async fn ask<W: AsRef<OsStr>>(
        &self,
        profile: &Path,
        verb: impl IntoIterator<Item = W>,
    ) -> Verdict<Output> {
        let verb = verb.into_iter().map(|word| word.as_ref().to_owned()).collect();
        ask(profile.to_owned(), verb).await
    }

    fn papers(&self) -> Verdict<PathBuf> {
        Ok(self.folder()?.join("drills"))
    }

    fn backup(&self) -> Verdict<PathBuf> {
        Ok(self.papers()?.join("backup"))
    }

    fn trust(&self) -> Verdict<PathBuf> {
        Ok(self.papers()?.join("trust.toml"))
    }

    /// What becomes of volumes.
    pub(crate) async fn decide(&mut self, deed: Deed, admin: &Admin) -> Verdict {
        match deed {
            Deed::DeclareDead => self.declare_dead(admin).await,
            Deed::AcceptLoss => self.accept_losses(admin).await,
            _ => self.discard(admin).await,
        }
    }

    /// Wants every volume to go on where it is not led. Each must be refused, and the state must tell of it.
    async fn declare_dead(&mut self, admin: &Admin) -> Verdict {
        let status = admin.status().await?;
        let actions: Vec<JointAction> = status.volumes.iter().filter_map(elsewhere).collect();
        for action in actions.iter().copied() {
            let reason = Deed::DeclareDead.words().to_owned();
            match admin.ask(AdminRequest::Propose { action, reason }).await {
                Err(failure) if failure.kind == Kind::Refused => {}
                Err(failure) => return Err(failure),
                Ok(answer) => {
                    return Err(Failure::failed(format!(
                        "a data centre that lives was given up: {answer:?}"
                    )));
                }
            }
        }
        let told = admin.status().await?.refused;
        let is_told =
            |action: &&JointAction| told.iter().any(|line| line.what == Override::Propose(**action));
        self.declared_in_vain += actions.iter().filter(is_told).count() as u64;
        Ok(())
    }

    /// Lets every volume that is down go on with the first store that may.
    async fn accept_losses(&self, admin: &Admin) -> Verdict {
        let status = admin.status().await?;
        for config in status.volumes.iter().filter(|config| config.primary.is_none()) {
            let held = up(&status).filter(|entry| config.ever_held.contains(&entry.store));
            for entry in held {
                let (volume, epoch, store) = (config.volume, config.epoch, entry.store);
                if self.both_want(admin, JointAction::AcceptLoss { volume, epoch, store }).await? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Lets all stores that are kept apart and there give up what only they have, once they have told it.
    async fn discard(&self, admin: &Admin) -> Verdict {
        let began = Instant::now();
        loop {
            let status = admin.status().await?;
            let apart = status.losses.iter().flat_map(|loss| {
                let estranged = loss.stores.iter().filter(|store| store.state == LostStoreState::Estranged);
                estranged.map(|store| JointAction::Discard { volume: loss.volume, store: store.store })
            });
            let apart: Vec<JointAction> = apart.collect();
            if apart.is_empty() {
                return Ok(());
            }
            if began.elapsed() > DISCARDED_WITHIN {
                let left = apart.len();
                return Err(Failure::unavailable(format!(
                    "{left} stores have not told yet what only they have"
                )));
            }
            for action in apart {
                self.both_want(admin, action).await?;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Proposes and approves; `false` if it is refused.
    async fn both_want(&self, admin: &Admin, action: JointAction) -> Verdict<bool> {
        let reason = "a drill".to_owned();
        let number = match admin.ask(AdminRequest::Propose { action, reason }).await {
            Ok(AdminAnswer::Proposal(proposal)) => proposal.number,
            Ok(other) => return Err(unexpected(&other)),
            Err(failure) if failure.kind == Kind::Refused => return Ok(false),
            Err(failure) => return Err(failure),
        };
        let second = Profile::load(self.second()?).map_err(Failure::usage)?;
        match Admin::new(&second)?.ask(AdminRequest::Approve { number }).await {
            Err(failure) if failure.kind == Kind::Refused => Ok(false),
            answer => answer.map(|_| true),
        }
    }
}

/// A volume shall go on in the data centre that does not lead it.
fn elsewhere(config: &VolumeConfig) -> Option<JointAction> {
    let dc = config.primary_member()?.dc;
    let other = config.members.iter().find(|member| member.dc != dc).map(|member| member.store);
    let held = config.ever_held.iter().find(|store| config.member_of_store(**store).is_none());
    let store = other.or(held.copied())?;
    Some(JointAction::AcceptLoss { volume: config.volume, epoch: config.epoch, store })
}

fn up(status: &ClusterStatus) -> impl Iterator<Item = &NodeEntry> {
    status.nodes.iter().filter(|entry| entry.state == NodeState::Up)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<std::ffi::OsString> {
    words.map(Into::into).to_vec()
}

/// Runs a verb as the operator of a profile.
async fn ask(profile: PathBuf, verb: Vec<std::ffi::OsString>) -> Verdict<Output> {
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let mut command = Command::new(program);
    command.arg("--profile").arg(profile).args(&verb).kill_on_drop(true);
    let output = command.output().await.map_err(Failure::failed)?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let verb: Vec<_> = verb.iter().take(2).map(|word| word.to_string_lossy()).collect();
    let last = said.lines().last().unwrap_or("it said nothing");
    Err(Failure::failed(format!("`trefoil {}`: {last}", verb.join(" "))))
}
