//! `trefoil restore`: the control plane begins again, from a backup or from what one surviving voter knows.
//! One operator proposes it in a paper, another one approves it with a signature of his own, and whoever
//! begins is refused while any voter answers that would be left out.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use trefoil_client::{Profile, Trust};
use trefoil_placement::Refounding;
use trefoil_placement::shell::{Saved, Settings, has_log, refound};
use trefoil_protocol::backup::SignedBackup;
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::deletion::Signers;
use trefoil_protocol::ids::DcId;
use trefoil_protocol::time::lease;
use trefoil_transport::{DialError, Endpoint, Identity, Limits, Plane, local_address_for, paper};

use crate::config;
use crate::config::server::PlacementFile;
use crate::drill::keep::{from_hex, now, to_hex};
use crate::failure::{Failure, Kind, Verdict, at};
use crate::local::occupy;
use crate::output::{self, Format};
use crate::serve::placement_settings;

/// A paper is no good after this long.
const PAPER_LASTS: Duration = Duration::from_secs(3600);

/// How long a voter that is thought dead has for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The file in the data folder in which every attempt is written down.
const RECORD_FILE: &str = "restores.jsonl";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum RestoreVerb {
    /// Write down what is to be done and why, signed by you; changes nothing
    Propose(ProposeArguments),
    /// Sign what another operator proposed; changes nothing
    Approve(ApproveArguments),
    /// Begin the log of a placement process that does not run, as two operators want it
    Begin(BeginArguments),
}

/// What to begin from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The backup, where the log is lost everywhere
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
    /// What this voter itself knows, where all others are gone for good
    #[arg(long)]
    survivor: bool,
}

/// Whose log.
#[derive(Debug, Args)]
struct Place {
    /// The configuration of the placement process, which does not run
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The keys that may have signed the backup
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

/// Arguments of `restore propose`.
#[derive(Debug, Args)]
pub(crate) struct ProposeArguments {
    #[command(flatten)]
    place: Place,
    /// The number of the restore, if the one after the saved state's was used before
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,
    /// A data centre whose stores nobody waits for: what it may have acknowledged alone is given up
    #[arg(long, value_name = "DC")]
    give_up: Vec<DcId>,
    /// Why, for the second operator and for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Where the paper goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Arguments of `restore approve`.
#[derive(Debug, Args)]
pub(crate) struct ApproveArguments {
    /// The paper; the signature is added to it
    paper: PathBuf,
}

/// Arguments of `restore begin`.
#[derive(Debug, Args)]
pub(crate) struct BeginArguments {
    /// The paper with two signatures
    paper: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// What both operators sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    cluster: String,
    from: String,
    /// The saved state: its restore generation, its last command, and blake3 of its bytes.
    generation: u64,
    index: u64,
    hash: String,
    /// The number of what begins.
    begins: u64,
    /// Who keeps the log from then on.
    voters: Vec<String>,
    /// Who is left out; none of them may answer.
    without: Vec<String>,
    /// Data centres whose stores are not waited for.
    given_up: Vec<String>,
    reason: String,
    /// Seconds since 1970.
    proposed: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    at: u64,
    certificate: String,
    bytes: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paper {
    wanted: Wanted,
    signatures: Vec<Signature>,
}

#[derive(Serialize)]
struct PaperText<'p> {
    wanted: &'p Wanted,
    signed_by: Vec<String>,
}

/// One line of the record.
#[derive(Serialize)]
struct Attempt<'p> {
    at: u64,
    outcome: String,
    signed_by: Vec<String>,
    paper: &'p Paper,
}

impl Wanted {
    fn statement(&self, at: u64) -> Vec<u8> {
        let text = serde_json::to_vec(&(self, at)).expect("plain fields");
        [b"trefoil/v1/restore\0".as_slice(), &text].concat()
    }
}

impl Paper {
    fn read(path: &Path) -> Verdict<Self> {
        let text = fs::read(path).map_err(at(path))?;
        serde_json::from_slice(&text).map_err(|error| Failure::usage(error).within(path.display()))
    }

    fn write(&self, path: &Path) -> Verdict {
        let mut text = serde_json::to_vec_pretty(self).expect("plain fields");
        text.push(b'\n');
        config::write_whole(path, &text, 0o644)
    }

    /// Adds the signature of a profile's operator, who has not signed yet.
    fn sign(&mut self, profile: &Profile) -> Verdict {
        let moment = now().0;
        let statement = self.wanted.statement(moment);
        let signed = paper::sign(&profile.certificate, &profile.key, &statement).map_err(Failure::usage)?;
        let signature = Signature {
            at: moment,
            certificate: to_hex(&signed.certificate),
            bytes: to_hex(&signed.signature),
        };
        let who = self.signer(&signature, profile)?;
        if self.signers(profile)?.contains(&who) {
            return Err(Failure::refused(format!("{who} has signed: another operator must approve it")));
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Everybody who signed, each once.
    fn signers(&self, profile: &Profile) -> Verdict<Vec<String>> {
        let mut signers = Vec::new();
        for signature in &self.signatures {
            let who = self.signer(signature, profile)?;
            if !signers.contains(&who) {
                signers.push(who);
            }
        }
        Ok(signers)
    }

    fn signer(&self, signature: &Signature, profile: &Profile) -> Verdict<String> {
        let wrong = |message: String| Failure { kind: Kind::Integrity, message };
        let bytes = |text: &str| from_hex(text).ok_or_else(|| wrong("a signature is no number".to_owned()));
        let signed = paper::Signed {
            certificate: bytes(&signature.certificate)?,
            signature: bytes(&signature.bytes)?,
        };
        let trust = profile.trust_store().map_err(Failure::usage)?;
        let statement = self.wanted.statement(signature.at);
        let identity = paper::verify(&signed, &trust, Duration::from_secs(signature.at), &statement);
        match identity.map_err(|error| wrong(error.to_string()))? {
            Identity::Operator(operator) => Ok(operator.to_string()),
            other => Err(wrong(format!("{other} is no operator"))),
        }
    }

    fn check_time(&self) -> Verdict {
        let ends = self.wanted.proposed + PAPER_LASTS.as_secs();
        match now().0 <= ends {
            true => Ok(()),
            false => Err(Failure::refused("the paper has expired: propose it anew")),
        }
    }

    fn text(&self, profile: &Profile) -> Verdict<String> {
        let Wanted { from, index, begins, voters, without, given_up, reason, .. } = &self.wanted;
        let signers = self.signers(profile)?;
        Ok(format!(
            "restore {begins} of the control plane, from {from}, state {index}: {reason}\nvoters    {}\n\
             without   {}\ngiven up  {}\nrisk      tenants, keys, fences and policies that are newer than that state are lost; what \
             stores know of volumes and purges is not\nsigned by {}",
            voters.join(", "),
            if without.is_empty() { "nobody".to_owned() } else { without.join(", ") },
            if given_up.is_empty() {
                "nothing".to_owned()
            } else {
                format!("what {} alone may have acknowledged: unknown how much", given_up.join(", "))
            },
            signers.join(", ")
        ))
    }
}

/// Runs a verb as the operator of a profile.
pub(crate) async fn run(verb: &RestoreVerb, profile: &Profile, format: Format) -> Verdict {
    match verb {
        RestoreVerb::Propose(arguments) => propose(arguments, profile, format),
        RestoreVerb::Approve(arguments) => {
            let mut paper = Paper::read(&arguments.paper)?;
            paper.check_time()?;
            paper.sign(profile)?;
            paper.write(&arguments.paper)?;
            tell(&paper, profile, format)
        }
        RestoreVerb::Begin(arguments) => begin(arguments, profile, format).await,
    }
}

fn tell(paper: &Paper, profile: &Profile, format: Format) -> Verdict {
    let text = paper.text(profile)?;
    let view = PaperText { wanted: &paper.wanted, signed_by: paper.signers(profile)? };
    format.answer(&view, |_| text);
    Ok(())
}

fn propose(arguments: &ProposeArguments, profile: &Profile, format: Format) -> Verdict {
    let scene = Scene::open(&arguments.place)?;
    let begins = arguments.generation.unwrap_or(scene.saved.generation() + 1);
    let given_up = arguments.give_up.iter().map(ToString::to_string).collect();
    let wanted = scene.wanted(begins, given_up, arguments.reason.clone(), now().0);
    let mut paper = Paper { wanted, signatures: Vec::new() };
    paper.sign(profile)?;
    paper.write(&arguments.output)?;
    tell(&paper, profile, format)
}

/// What there is to begin from, and where.
struct Scene {
    from: &'static str,
    settings: Settings,
    saved: Saved,
    voters: Vec<VoterEntry>,
    without: Vec<VoterEntry>,
    /// Held so that the process cannot start meanwhile.
    _occupied: fs::File,
}

impl Scene {
    fn open(place: &Place) -> Verdict<Self> {
        let occupied = occupy(&place.config)?;
        let settings = placement_settings(PlacementFile::read(&place.config)?, None)
            .map_err(|failure| failure.within(place.config.display()))?;
        let (from, saved) = match &place.source.backup {
            Some(path) => ("a backup", from_backup(path, place, &settings)?),
            None => ("what one voter knows", Saved::by_survivor(&settings).map_err(Failure::failed)?),
        };
        let own = |entry: &VoterEntry| entry.voter == settings.voter;
        let voters: Vec<VoterEntry> = match place.source.survivor {
            true => settings.voters.iter().copied().filter(own).collect(),
            false => settings.voters.clone(),
        };
        if place.source.survivor && settings.keys.is_none() {
            return Err(Failure::refused("a witness holds no keys: it cannot be the only voter"));
        }
        let kept = |entry: &VoterEntry| voters.iter().any(|voter| voter.voter == entry.voter);
        let without = saved.voters().into_iter().filter(|entry| !kept(entry)).collect();
        Ok(Self { from, settings, saved, voters, without, _occupied: occupied })
    }

    fn wanted(&self, begins: u64, given_up: Vec<String>, reason: String, proposed: u64) -> Wanted {
        let names = |entries: &[VoterEntry]| entries.iter().map(|entry| entry.name.to_string()).collect();
        Wanted {
            cluster: self.settings.cluster.clone(),
            from: self.from.to_owned(),
            generation: self.saved.generation(),
            index: self.saved.index().0,
            hash: self.saved.hash.to_string(),
            begins,
            voters: names(&self.voters),
            without: names(&self.without),
            given_up,
            reason,
            proposed,
        }
    }
}

fn from_backup(path: &Path, place: &Place, settings: &Settings) -> Verdict<Saved> {
    if has_log(settings).map_err(Failure::failed)? {
        let data = settings.data.display();
        return Err(Failure::refused(format!(
            "{data}: there is a log: a backup is older than it; begin with --survivor, or take the folder away"
        )));
    }
    let trust = place.trust.as_ref().ok_or_else(|| Failure::usage("--backup needs --trust FILE"))?;
    let trust = Trust::load(trust).map_err(Failure::usage)?;
    let signers = Signers { terms: trust.signers };
    let file = fs::read(path).map_err(at(path))?;
    let opened = SignedBackup::open(&file, &signers);
    let (_, state) = opened.map_err(|error| {
        Failure { kind: Kind::Integrity, message: error.to_string() }.within(path.display())
    })?;
    Saved::from_backup(state).map_err(Failure::failed)
}

async fn begin(arguments: &BeginArguments, profile: &Profile, format: Format) -> Verdict {
    let paper = Paper::read(&arguments.paper)?;
    let scene = Scene::open(&arguments.place)?;
    let wanted = &paper.wanted;
    if *wanted != scene.wanted(wanted.begins, wanted.given_up.clone(), wanted.reason.clone(), wanted.proposed)
    {
        return Err(Failure::refused(
            "the paper is about another state or other voters than there are here: propose it anew",
        ));
    }
    let outcome = carry_out(&paper, &scene, profile).await;
    let said = match &outcome {
        Ok(()) => "begun".to_owned(),
        Err(failure) => failure.message.clone(),
    };
    write_down(&paper, &said, &scene, profile)?;
    outcome?;
    let refounding = Refounding {
        cluster: scene.settings.cluster.clone(),
        voters: scene.voters.clone(),
        generation: Some(wanted.begins),
        given_up: given_up(wanted)?,
    };
    refound(&scene.settings, &refounding, scene.saved).map_err(Failure::failed)?;
    tell(&paper, profile, format)
}

fn given_up(wanted: &Wanted) -> Verdict<Vec<DcId>> {
    wanted.given_up.iter().map(|dc| dc.parse().map_err(Failure::usage)).collect()
}

/// Checks what must hold, and waits out every lease that those who are left out may have given.
async fn carry_out(paper: &Paper, scene: &Scene, profile: &Profile) -> Verdict {
    paper.check_time()?;
    let signers = paper.signers(profile)?;
    if signers.len() < 2 {
        return Err(Failure::refused(format!(
            "signed by {} alone: another operator must approve it, with `trefoil restore approve`",
            signers.join(", ")
        )));
    }
    output::note(&format!(
        "waiting out leases, and whether anybody answers: {} s",
        lease::WAIT_OUT.as_secs()
    ));
    let until = Instant::now() + lease::WAIT_OUT;
    loop {
        nobody_answers(scene, profile).await?;
        if Instant::now() >= until {
            return Ok(());
        }
        sleep(ANSWER_WITHIN.min(until - Instant::now())).await;
    }
}

async fn nobody_answers(scene: &Scene, profile: &Profile) -> Verdict {
    for entry in &scene.without {
        if answers(entry.control, profile).await? {
            return Err(Failure::refused(format!(
                "voter {} at {} answers: it is not gone, so nothing begins without it",
                entry.name, entry.control
            )));
        }
    }
    Ok(())
}

async fn answers(remote: SocketAddr, profile: &Profile) -> Verdict<bool> {
    let own = profile.own_certificate().map_err(Failure::usage)?;
    let trust = profile.trust_store().map_err(Failure::usage)?;
    let endpoint = Endpoint::client(local_address_for(remote), own, trust, Limits::default());
    let endpoint = endpoint.map_err(Failure::failed)?;
    let connected = timeout(ANSWER_WITHIN, endpoint.connect(remote, Plane::Admin, None)).await;
    // Whoever refuses us is there, too.
    Ok(matches!(connected, Ok(Ok(_) | Err(DialError::Refused { .. }))))
}

/// Every attempt stands beside the log, also one that was refused.
fn write_down(paper: &Paper, outcome: &str, scene: &Scene, profile: &Profile) -> Verdict {
    let path = scene.settings.data.join(RECORD_FILE);
    let signed_by = paper.signers(profile)?;
    let attempt = Attempt { at: now().0, outcome: outcome.to_owned(), signed_by, paper };
    let mut line = serde_json::to_vec(&attempt).expect("plain fields");
    line.push(b'\n');
    let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(at(&path))?;
    file.write_all(&line).and_then(|()| file.sync_all()).map_err(at(&path))
}
