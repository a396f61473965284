//! What went between the nodes: epochs, the committed log, and what its records did to each version.

use std::collections::BTreeSet;

use bytes::Bytes;
use trefoil_protocol::deletion::SignedPurgeOrder;
use trefoil_protocol::ids::{Lsn, Token, VersionId, VolumeId};
use trefoil_protocol::message::peer::{PeerBody, PeerMessage};
use trefoil_protocol::record::{Cause, RecordBody};

use super::health::newest_state;
use super::{Oracle, tag};
use crate::checkers::Violation;
use crate::checkers::idempotency::{Effect, Token as TokenKey};
use crate::checkers::no_resurrection::RUN_BYTES;
use crate::cluster::View;
use crate::network::NodeIndex;
use crate::product::process::Process;
use crate::product::roster;

impl Oracle {
    /// A storage node sends something to another one.
    pub(super) fn sent(
        &mut self,
        view: &View<'_, Process>,
        node: NodeIndex,
        message: &PeerMessage,
        bulk: &Bytes,
    ) {
        let (volume, epoch, now) = (message.volume.0, message.epoch.0, view.now);
        // Who does not have an epoch yet does not act under it.
        if !matches!(message.body, PeerBody::NotYet) {
            let went_back = self.epochs.observed(volume, &message.store.to_string(), epoch, now);
            self.once(went_back);
        }
        match &message.body {
            PeerBody::Append { .. } => {
                let name = roster::STORAGE[usize::from(node.0)].0;
                let second = self.epochs.leads(volume, epoch, name, now);
                self.once(second);
                self.follow(view, message, bulk);
            }
            PeerBody::Erased { receipts } => {
                for signed in receipts {
                    let receipt = &signed.receipt;
                    let store = receipt.store.to_string();
                    let found = self.erase.erased(tag(receipt.version), &store, now);
                    self.once(found);
                }
            }
            _ => {}
        }
    }

    /// Keeps the first violation of a kind on an object.
    pub(super) fn once(&mut self, found: Option<Violation>) {
        let Some(found) = found else { return };
        let known = |before: &Violation| before.checker == found.checker && before.object == found.object;
        if !self.violations.iter().any(known) {
            self.violations.push(found);
        }
    }

    fn follow(&mut self, view: &View<'_, Process>, message: &PeerMessage, bulk: &Bytes) {
        let log = self.logs.entry(message.volume).or_default();
        match log.appended(message, bulk) {
            Ok(told) => {
                if !told.lost.is_empty() {
                    self.went_on_without(view, message.volume, &told.lost);
                }
                for (lsn, body) in told.records {
                    self.committed(view, message.volume, lsn, &body);
                }
            }
            Err(parted) => self.once(Some(Violation {
                checker: "one_history",
                object: format!("volume {}", message.volume),
                at_ns: view.now,
                sentence: format!("two committed logs part behind record {}", parted.at),
            })),
        }
    }

    fn committed(&mut self, view: &View<'_, Process>, volume: VolumeId, lsn: Lsn, body: &RecordBody) {
        let now = view.now;
        self.note_hidden(volume, lsn, body);
        if let Some(cause) = body.cause() {
            self.took_effect(volume, lsn, cause, body, now);
        }
        match body {
            RecordBody::Put(put) => {
                let object = self.object_of(put.upload.version);
                self.erase.put(tag(put.upload.version), &object);
                self.is_put_again(volume, put.upload.version);
                if let Some(replaced) = put.replaces {
                    self.condemn(replaced, put.cause.at.0 + put.window.0);
                }
            }
            RecordBody::Delete(delete) => {
                self.condemn(delete.version, delete.cause.at.0 + delete.window.0);
            }
            RecordBody::Undelete(undelete) => {
                self.condemned.remove(&undelete.version);
                let found = self.erase.undeleted(tag(undelete.version), now);
                self.once(found);
            }
            RecordBody::Purging(purging) => {
                self.look_at_signatures(view, volume, &purging.order);
                let (keeper, at) = (purging.retained.to_string(), purging.order.order.at.0);
                for item in &purging.items {
                    self.past_return.insert(item.version);
                    let found = self.erase.purging(tag(item.version), &keeper, at, now);
                    self.once(found);
                }
            }
            RecordBody::Certified(certified) => {
                self.certify(certified.version, now);
                self.look_at_absent_stores(view, certified.version);
            }
            RecordBody::OthersErased(erased) => {
                erased.versions.iter().for_each(|version| self.erase.others_erased(tag(*version)));
            }
            RecordBody::EpochStart { .. } | RecordBody::Void { .. } | RecordBody::UploadVoid { .. } => {}
        }
    }

    /// A purge begins under two signatures of different voters, if two hold keys.
    fn look_at_signatures(&mut self, view: &View<'_, Process>, volume: VolumeId, order: &SignedPurgeOrder) {
        let Some(state) = newest_state(view) else { return };
        let signed: BTreeSet<_> = order.signatures.iter().map(|signature| signature.key).collect();
        // Those of an earlier restore generation sign no more.
        let terms = state.voters.signers().terms;
        let newest = terms.iter().map(|term| term.generation).max();
        let expected = terms.iter().filter(|term| Some(term.generation) == newest).count().min(2);
        self.once((signed.len() < expected).then(|| Violation {
            checker: "erase_is_legal",
            object: format!("volume {volume}"),
            at_ns: view.now,
            sentence: format!("order {} is signed by {} of {expected} voters", order.order.id, signed.len()),
        }));
    }

    pub(super) fn condemn(&mut self, version: VersionId, window_ends: u64) {
        self.erase.deleted(tag(version), window_ends);
        self.condemned.insert(version);
    }

    fn certify(&mut self, version: VersionId, now: u64) {
        self.condemned.remove(&version);
        self.certified += 1;
        if let Some(made) = self.made.get(&version) {
            let mut runs = runs_of(&made.sealed);
            runs.push(made.wrapped.to_vec());
            self.resurrection.certified(tag(version), &made.object.to_string(), runs, now);
        }
    }

    /// A store that is away cannot have given a receipt lately. If it holds the bytes, it gave none.
    fn look_at_absent_stores(&mut self, view: &View<'_, Process>, version: VersionId) {
        let away = view.nodes[..roster::STORAGE.len()].iter().filter(|node| node.program().is_none());
        let away: Vec<_> = away.filter(|node| !self.is_refused(node.name())).collect();
        for node in away {
            let found = self.resurrection.scan_for(tag(version), node.name(), node.disk(), view.now);
            self.once(found);
        }
    }

    fn took_effect(&mut self, volume: VolumeId, lsn: Lsn, cause: &Cause, body: &RecordBody, now: u64) {
        let version = match body {
            RecordBody::Put(put) => put.upload.version,
            RecordBody::Delete(delete) => delete.version,
            RecordBody::Undelete(undelete) => undelete.version,
            _ => return,
        };
        let object = self.object_of(version);
        let effect = Effect { volume: volume.0, lsn: lsn.0 };
        let found = self.idempotency.effect(token_key(cause.token), effect, &object, now);
        self.once(found);
    }
}

/// The checker's name of a token.
pub(super) fn token_key(token: Token) -> TokenKey {
    let instance = u64::from_le_bytes(*token.instance.0.first_chunk().expect("16 bytes"));
    TokenKey { principal: 0, instance, sequence: token.sequence }
}

/// Pieces of ciphertext, each long enough that it occurs nowhere else by chance: the first one
/// behind the header, one in the middle, the last one.
fn runs_of(sealed: &Bytes) -> Vec<Vec<u8>> {
    let last = sealed.len().saturating_sub(RUN_BYTES);
    let starts = [trefoil_client::seal::HEADER_LEN.min(last), sealed.len() / 2, last];
    let run = |start: usize| sealed.get(start..start + RUN_BYTES).map(<[u8]>::to_vec);
    starts.into_iter().filter_map(run).collect()
}
