//! The attempts to begin a log anew, also those that were refused: a file beside the log, in which each of them
//! stands before anything is done, and what the control plane is told of those that were refused.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use trefoil_client::Profile;
use trefoil_placement::state::RefusalDraft;
use trefoil_protocol::ids::OperatorId;
use trefoil_protocol::message::admin::AdminRequest;
use trefoil_protocol::message::refused::Override;

use super::paper::{Paper, Wanted};
use super::scene::Scene;
use crate::admin::connection::Admin;
use crate::drill::keep::now;
use crate::failure::{Failure, Verdict, at};
use crate::output;

/// The file in the data folder.
const RECORD_FILE: &str = "restores.jsonl";

/// How long the control plane has to hear of a refusal: it may be gone.
const TOLD_WITHIN: Duration = Duration::from_secs(3);

/// The attempts that stand beside a log.
pub(super) struct Record<'p> {
    path: PathBuf,
    by: OperatorId,
    signed_by: Vec<String>,
    paper: &'p Paper,
}

/// One line of it.
#[derive(Serialize)]
struct Attempt<'p> {
    at: u64,
    by: String,
    outcome: &'p str,
    refused: bool,
    signed_by: &'p [String],
    paper: &'p Paper,
}

/// What of a line is told to the control plane.
#[derive(Deserialize)]
struct Refused {
    by: String,
    outcome: String,
    refused: bool,
    paper: Paper,
}

impl<'p> Record<'p> {
    /// Beside the log that is to begin; its folder is made if the disk is new.
    pub(super) fn open(scene: &Scene, paper: &'p Paper, profile: &Profile) -> Verdict<Self> {
        let data = &scene.settings.data;
        fs::create_dir_all(data).map_err(at(data))?;
        let (by, signed_by) = (super::paper::operator(profile)?, paper.signers(profile)?);
        Ok(Self { path: data.join(RECORD_FILE), by, signed_by, paper })
    }

    /// Notes an attempt, or what became of it.
    pub(super) fn write(&self, outcome: &str) -> Verdict {
        self.note(&self.attempt(outcome))
    }

    /// Notes that it was refused, here and at the control plane that goes on.
    pub(super) async fn refuse(&self, failure: &Failure, profile: &Profile) -> Verdict {
        self.note(&Attempt { refused: true, ..self.attempt(&failure.message) })?;
        let Override::Begin { begins, without } = what(&self.paper.wanted) else { unreachable!("it begins") };
        let (reason, why) = (self.paper.wanted.reason.clone(), failure.message.clone());
        let request = AdminRequest::BeginRefused { begins, without, reason, why };
        let admin = Admin::new(profile)?;
        match timeout(TOLD_WITHIN, admin.ask(request)).await {
            Ok(Ok(_)) => {
                output::note("the control plane notes that this was refused: `trefoil status` shows it")
            }
            Ok(Err(_)) | Err(_) => output::note(&format!(
                "no control plane answers that could note it: it stands in {} alone until a log begins here",
                self.path.display()
            )),
        }
        Ok(())
    }

    fn attempt<'a>(&'a self, outcome: &'a str) -> Attempt<'a> {
        let (signed_by, paper) = (&self.signed_by, self.paper);
        Attempt { at: now().0, by: self.by.to_string(), outcome, refused: false, signed_by, paper }
    }

    fn note(&self, attempt: &Attempt<'_>) -> Verdict {
        let mut line = serde_json::to_vec(attempt).expect("plain fields");
        line.push(b'\n');
        let mut file =
            OpenOptions::new().append(true).create(true).open(&self.path).map_err(at(&self.path))?;
        file.write_all(&line).and_then(|()| file.sync_all()).map_err(at(&self.path))
    }
}

/// Everything that was refused here before, for the log that begins now.
pub(super) fn refused_before(data: &Path) -> Verdict<Vec<RefusalDraft>> {
    let path = data.join(RECORD_FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.map_err(at(&path))?,
    };
    let mut drafts = Vec::new();
    for line in BufReader::new(file).lines() {
        drafts.extend(draft_of(&line.map_err(at(&path))?));
    }
    Ok(drafts)
}

/// The refusal that a line tells of. Whoever wrote a line by hand keeps nobody from a restore.
fn draft_of(line: &str) -> Option<RefusalDraft> {
    let Refused { by, outcome: why, refused, paper } = serde_json::from_str(line).ok()?;
    let (what, reason) = (what(&paper.wanted), paper.wanted.reason);
    refused.then_some(())?;
    Some(RefusalDraft { by: by.parse().ok()?, what, reason, why })
}

fn what(wanted: &Wanted) -> Override {
    let without = wanted.without.iter().filter_map(|name| name.parse().ok()).collect();
    Override::Begin { begins: wanted.begins, without }
}
