//! `trefoil restore begin`: nothing begins while a voter answers that would be left out, and every attempt
//! stands beside the log before anything is done.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use trefoil_client::Profile;
use trefoil_placement::Refounding;
use trefoil_placement::shell::refound;
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::DcId;
use trefoil_protocol::time::lease;
use trefoil_transport::{DialError, Endpoint, Limits, Plane, local_address_for};

use super::paper::{Paper, Wanted};
use super::scene::Scene;
use super::{BeginArguments, tell};
use crate::drill::keep::now;
use crate::failure::{Failure, Verdict, at};
use crate::output::{self, Format};

/// How long a voter that is thought dead has for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The file in the data folder in which every attempt is written down.
const RECORD_FILE: &str = "restores.jsonl";

/// Begins the log, if the paper is about what there is here.
pub(super) async fn begin(arguments: &BeginArguments, profile: &Profile, format: Format) -> Verdict {
    let paper = Paper::read(&arguments.paper)?;
    let scene = Scene::open(&arguments.place)?;
    let wanted = &paper.wanted;
    if *wanted != scene.wanted(wanted.begins, wanted.given_up.clone(), wanted.reason.clone(), wanted.proposed)
    {
        return Err(Failure::refused(
            "the paper is about another state or other voters than there are here: propose it anew",
        ));
    }
    let record = Record::open(&scene, &paper, profile)?;
    record.write("asked for")?;
    let outcome = carry_out(&paper, scene, profile).await;
    match &outcome {
        Ok(()) => record.write("begun")?,
        Err(failure) => record.write(&failure.message)?,
    }
    outcome?;
    tell(&paper, profile, format)
}

async fn carry_out(paper: &Paper, scene: Scene, profile: &Profile) -> Verdict {
    paper.check_time()?;
    let signers = paper.signers(profile)?;
    if signers.len() < 2 {
        return Err(Failure::refused(format!(
            "signed by {} alone: another operator must approve it, with `trefoil restore approve`",
            signers.join(", ")
        )));
    }
    wait_out(&scene.without, profile).await?;
    let refounding = Refounding {
        cluster: scene.settings.cluster.clone(),
        voters: scene.voters,
        generation: Some(paper.wanted.begins),
        given_up: given_up(&paper.wanted)?,
    };
    refound(&scene.settings, &refounding, scene.saved).map_err(Failure::failed)
}

fn given_up(wanted: &Wanted) -> Verdict<Vec<DcId>> {
    wanted.given_up.iter().map(|dc| dc.parse().map_err(Failure::usage)).collect()
}

/// Waits out every lease that those who are left out may have given, and is refused if one of them answers.
async fn wait_out(without: &[VoterEntry], profile: &Profile) -> Verdict {
    output::note(&format!(
        "waiting out leases, and whether anybody answers: {} s",
        lease::WAIT_OUT.as_secs()
    ));
    let callers: Vec<(&VoterEntry, Endpoint)> =
        without.iter().map(|entry| Ok((entry, caller(entry.control, profile)?))).collect::<Verdict<_>>()?;
    let until = Instant::now() + lease::WAIT_OUT;
    loop {
        for (entry, caller) in &callers {
            if answers(caller, entry.control).await {
                return Err(Failure::refused(format!(
                    "voter {} at {} answers: it is not gone, so nothing begins without it",
                    entry.name, entry.control
                )));
            }
        }
        if Instant::now() >= until {
            return Ok(());
        }
        sleep(ANSWER_WITHIN.min(until - Instant::now())).await;
    }
}

fn caller(remote: SocketAddr, profile: &Profile) -> Verdict<Endpoint> {
    let own = profile.own_certificate().map_err(Failure::usage)?;
    let trust = profile.trust_store().map_err(Failure::usage)?;
    Endpoint::client(local_address_for(remote), own, trust, Limits::default()).map_err(Failure::failed)
}

/// Whether anybody is there; whoever refuses us is there, too.
async fn answers(caller: &Endpoint, remote: SocketAddr) -> bool {
    let connected = timeout(ANSWER_WITHIN, caller.connect(remote, Plane::Admin, None)).await;
    matches!(connected, Ok(Ok(_) | Err(DialError::Refused { .. })))
}

/// The attempts that stand beside the log, also those that were refused.
struct Record<'p> {
    path: PathBuf,
    signed_by: Vec<String>,
    paper: &'p Paper,
}

/// One line of it.
#[derive(Serialize)]
struct Attempt<'p> {
    at: u64,
    outcome: &'p str,
    signed_by: &'p [String],
    paper: &'p Paper,
}

impl<'p> Record<'p> {
    /// Beside the log that is to begin; its folder is made if the disk is new.
    fn open(scene: &Scene, paper: &'p Paper, profile: &Profile) -> Verdict<Self> {
        let data = &scene.settings.data;
        fs::create_dir_all(data).map_err(at(data))?;
        Ok(Self { path: data.join(RECORD_FILE), signed_by: paper.signers(profile)?, paper })
    }

    fn write(&self, outcome: &str) -> Verdict {
        let attempt = Attempt { at: now().0, outcome, signed_by: &self.signed_by, paper: self.paper };
        let mut line = serde_json::to_vec(&attempt).expect("plain fields");
        line.push(b'\n');
        let mut file =
            OpenOptions::new().append(true).create(true).open(&self.path).map_err(at(&self.path))?;
        file.write_all(&line).and_then(|()| file.sync_all()).map_err(at(&self.path))
    }
}
