//! The steps of deletion: hidden and back, gone for good, proven.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use trefoil_client::{ReadError, Trust, verify_certificate};
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::key::ObjectKey;

use super::ledger::read;
use super::report::Report;
use super::show::{LARGE, SMALL, Show};
use super::verdict::{self, Checked, Purged, Undeleted};
use crate::failure::{Failure, Verdict};

/// How long a purge may take after its window: time of the control plane runs a little behind.
const PURGE_WITHIN: Duration = Duration::from_secs(120);

/// How often the state of a purge is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What proves a delete: the certificate, and the version it must be about.
pub(super) struct Proof {
    bytes: Bytes,
    version: VersionId,
    key: ObjectKey,
}

impl Show {
    /// Deletes an object and takes it back.
    pub(super) async fn delete_and_undelete(&mut self, report: &mut Report) -> Verdict {
        report.begin("A delete hides at once, and an undelete brings back");
        let client = &self.clients[0];
        let sample = &self.samples[0];
        let version = client.head(&sample.key).await?.view.upload.version;
        client.delete(&sample.key).await?;
        let hidden_as = answer(read(client, &sample.key).await);
        let listed =
            client.list(sample.key.as_str()).next().await?.is_some_and(|page| !page.lines.is_empty());
        let deleted = client.deleted(sample.key.as_str()).next().await?;
        let in_deleted = deleted.is_some_and(|page| page.lines.iter().any(|line| line.key == sample.key));
        let restored = client.undelete(&sample.key, None).await?;
        let same_bytes = read(client, &sample.key).await? == blake3::hash(&sample.plaintext);
        let same_version = restored.version == version;
        report.end(&verdict::undeleted(&Undeleted {
            hidden_as,
            listed,
            in_deleted,
            same_bytes,
            same_version,
        }));
        Ok(())
    }

    /// Deletes both samples, and waits until the last copy is erased.
    pub(super) async fn delete_for_good(&mut self, report: &mut Report) -> Verdict<Proof> {
        report.begin("A delete whose window passes is purged from every copy");
        let client = &self.clients[0];
        let (large, small) = (&self.samples[0], &self.samples[1]);
        let version = client.delete(&large.key).await?.version;
        client.delete(&small.key).await?;
        let deleted = Instant::now();
        let mut window = None;
        let mut states: Vec<(String, u32)> = Vec::new();
        while deleted.elapsed() < PURGE_WITHIN + self.window {
            let seen = self.state(&large.key, version).await?;
            if seen.0 != "DELETED" {
                window.get_or_insert(deleted.elapsed());
            }
            if states.last() != Some(&seen) {
                report.say(&format!("{}, {} copies left", seen.0, seen.1));
                states.push(seen.clone());
            }
            if seen.0 == "ERASED" && self.last_state(&small.key).await? == "ERASED" {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let undelete = client.undelete(&large.key, Some(version)).await;
        let undelete = undelete.err().map_or_else(|| "back".to_owned(), |error| error.to_string());
        let window = window.unwrap_or_default();
        report.end(&verdict::purged(&Purged { states, window, window_min: self.window, undelete }));
        let certificates = client.certificates(&large.key).await?;
        let certificate = certificates.into_iter().rfind(|signed| signed.certificate.version == version);
        let certificate = certificate.ok_or_else(|| Failure::failed("there is no certificate"))?;
        Ok(Proof { bytes: certificate.to_bytes(), version, key: large.key.clone() })
    }

    async fn state(&self, key: &ObjectKey, version: VersionId) -> Verdict<(String, u32)> {
        let purges = self.clients[0].purge_status(key).await?;
        let purge = purges.into_iter().find(|purge| purge.version == version);
        let purge = purge.ok_or_else(|| Failure::failed("the deleted version is not known any more"))?;
        Ok((purge.stage.name().to_owned(), purge.copies_left))
    }

    async fn last_state(&self, key: &ObjectKey) -> Verdict<&'static str> {
        let purges = self.clients[0].purge_status(key).await?;
        Ok(purges.last().map_or("UNKNOWN", |purge| purge.stage.name()))
    }

    /// Looks for the deleted ciphertext in every file of every server.
    pub(super) async fn scan_for_the_deleted(&mut self, report: &mut Report) -> Verdict {
        report.begin("No file of any server holds the deleted ciphertext");
        let after = self.scan().await?;
        report.end(&verdict::erased(&self.before, &after, &[LARGE, SMALL]));
        Ok(())
    }

    /// Verifies the certificate with nothing but the trusted keys, then with each byte changed.
    pub(super) fn check_the_certificate(&mut self, proof: &Proof, report: &mut Report) -> Verdict {
        report.begin("The certificate verifies offline");
        let trust = Trust::load(self.cluster.layout.trust()).map_err(Failure::failed)?;
        let signed = verify_certificate(&proof.bytes, &trust);
        let mut stores = BTreeMap::new();
        for store in signed.iter().flat_map(|signed| &signed.certificate.stores) {
            *stores.entry(store.dc.to_string()).or_default() += 1;
        }
        let mut believed = 0;
        for position in 0..proof.bytes.len() {
            let mut changed = proof.bytes.to_vec();
            changed[position] ^= 1;
            believed += u64::from(verify_certificate(&changed, &trust).is_ok());
        }
        let name = proof.key.as_bytes();
        let checked = Checked {
            same_version: signed.as_ref().is_ok_and(|signed| signed.certificate.version == proof.version),
            genuine: signed.map(drop).map_err(|error| error.to_string()),
            doctored: proof.bytes.len() as u64,
            believed,
            stores,
            names_it: proof.bytes.windows(name.len()).any(|window| window == name),
        };
        report.end(&verdict::certified(&checked));
        Ok(())
    }
}

fn answer<T>(result: Result<T, ReadError>) -> String {
    result.err().map_or_else(|| "here it is".to_owned(), |error| error.to_string())
}
