//! The paper that two operators sign before a control plane begins again: what is wanted, and their
//! signatures, each with the operator's certificate.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trefoil_client::Profile;
use trefoil_protocol::ids::OperatorId;
use trefoil_transport::{Identity, paper};

use crate::config;
use crate::drill::keep::{from_hex, identity, now, to_hex};
use crate::failure::{Failure, Kind, Verdict, at};

/// A paper is no good after this long.
const PAPER_LASTS: Duration = Duration::from_secs(3600);

/// Whose profile this is, by its certificate.
pub(super) fn operator(profile: &Profile) -> Verdict<OperatorId> {
    match identity(profile)? {
        Identity::Operator(operator) => Ok(operator),
        other => Err(Failure::usage(format!("{other} is no operator"))),
    }
}

/// What both operators sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    pub(super) cluster: String,
    pub(super) from: String,
    /// The saved state: its restore generation, its last command, and blake3 of its bytes.
    pub(super) generation: u64,
    pub(super) index: u64,
    pub(super) hash: String,
    /// The number of what begins.
    pub(super) begins: u64,
    /// Who keeps the log from then on.
    pub(super) voters: Vec<String>,
    /// Who is left out; none of them may answer.
    pub(super) without: Vec<String>,
    /// Data centres whose stores are not waited for.
    pub(super) given_up: Vec<String>,
    pub(super) reason: String,
    /// Seconds since 1970.
    pub(super) proposed: u64,
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
pub(super) struct Paper {
    pub(super) wanted: Wanted,
    signatures: Vec<Signature>,
}

impl Wanted {
    fn statement(&self, at: u64) -> Vec<u8> {
        let text = serde_json::to_vec(&(self, at)).expect("plain fields");
        [b"trefoil/v1/restore\0".as_slice(), &text].concat()
    }
}

impl Paper {
    /// A paper that nobody has signed.
    pub(super) const fn of(wanted: Wanted) -> Self {
        Self { wanted, signatures: Vec::new() }
    }

    pub(super) fn read(path: &Path) -> Verdict<Self> {
        let text = fs::read(path).map_err(at(path))?;
        serde_json::from_slice(&text).map_err(|error| Failure::usage(error).within(path.display()))
    }

    pub(super) fn write(&self, path: &Path) -> Verdict {
        let mut text = serde_json::to_vec_pretty(self).expect("plain fields");
        text.push(b'\n');
        config::write_whole(path, &text, 0o644)
    }

    /// Adds the signature of a profile's operator, who has not signed yet.
    pub(super) fn sign(&mut self, profile: &Profile) -> Verdict {
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
    pub(super) fn signers(&self, profile: &Profile) -> Verdict<Vec<String>> {
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

    pub(super) fn check_time(&self) -> Verdict {
        let ends = self.wanted.proposed + PAPER_LASTS.as_secs();
        match now().0 <= ends {
            true => Ok(()),
            false => Err(Failure::refused("the paper has expired: propose it anew")),
        }
    }

    pub(super) fn text(&self, profile: &Profile) -> Verdict<String> {
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
