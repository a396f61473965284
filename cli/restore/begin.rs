//! `trefoil restore begin`: nothing begins while a voter answers that would be left out, and every attempt
//! stands beside the log before anything is done.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use trefoil_client::Profile;
use trefoil_placement::Refounding;
use trefoil_placement::shell::refound;
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::DcId;
use trefoil_protocol::time::lease;
use trefoil_transport::{DialError, Endpoint, Limits, Plane, local_address_for};

use super::paper::{Paper, Wanted};
use super::record::{Record, refused_before};
use super::scene::Scene;
use super::{BeginArguments, tell};
use crate::failure::{Failure, Kind, Verdict};
use crate::output::{self, Format};

/// How long a voter that is thought dead has for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Begins the log, if the paper is about what there is here.
pub(super) async fn begin(arguments: &BeginArguments, profile: &Profile, format: Format) -> Verdict {
    let paper = Paper::read(&arguments.paper)?;
    let scene = Scene::open(&arguments.place)?;
    let record = Record::open(&scene, &paper, profile)?;
    record.write("asked for")?;
    let outcome = carry_out(&paper, scene, profile).await;
    match &outcome {
        Ok(()) => record.write("begun")?,
        Err(failure) if failure.kind == Kind::Refused => record.refuse(failure, profile).await?,
        Err(failure) => record.write(&failure.message)?,
    }
    outcome?;
    tell(&paper, profile, format)
}

async fn carry_out(paper: &Paper, scene: Scene, profile: &Profile) -> Verdict {
    let wanted = &paper.wanted;
    if *wanted != scene.wanted(wanted.begins, wanted.given_up.clone(), wanted.reason.clone(), wanted.proposed)
    {
        return Err(Failure::refused(
            "the paper is about another state or other voters than there are here: propose it anew",
        ));
    }
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
        refused: refused_before(&scene.settings.data)?,
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
