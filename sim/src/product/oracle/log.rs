//! The oracle's own copy of a volume's committed log, put together from what primaries send their
//! members. Two things follow from it: that there is one committed history, and what each record
//! did, which other checkers judge.
//!
//! It never asks a node's index; it reads records.

use std::collections::BTreeMap;

use bytes::Bytes;
use trefoil_protocol::ids::{Epoch, Hash, Lsn};
use trefoil_protocol::message::peer::{LogPoint, PeerBody, PeerMessage, decode_records};
use trefoil_protocol::record::{Record, RecordBody};

/// A record that was sent.
#[derive(Clone, Debug)]
struct Sent {
    previous: Hash,
    body: RecordBody,
}

/// The log of one volume, as far as it is known to be committed, and what may come behind.
#[derive(Clone, Debug, Default)]
pub(super) struct VolumeLog {
    committed: Vec<Hash>,
    /// Everything that was ever sent, by position and hash.
    candidates: BTreeMap<Lsn, BTreeMap<Hash, Sent>>,
    /// From an epoch behind this one on the volume may go on without its newest records.
    parts_behind: Option<Epoch>,
}

/// What an append told of the committed log.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// What is not there any more, because operators let the volume go on without it.
    pub(super) lost: Vec<(Lsn, RecordBody)>,
    /// What is newly known to be committed.
    pub(super) records: Vec<(Lsn, RecordBody)>,
}

/// Two primaries told of different committed histories.
#[derive(Clone, Debug)]
pub(super) struct Parted {
    pub(super) at: Lsn,
}

impl VolumeLog {
    /// Operators let the volume go on without some of its records, under a later epoch than this.
    pub(super) fn may_part_behind(&mut self, epoch: Epoch) {
        self.parts_behind = Some(epoch);
    }

    /// Everything that is known to be committed, from the first record on.
    pub(super) fn bodies(&self) -> impl Iterator<Item = (Lsn, &RecordBody)> {
        self.bodies_behind(Lsn::ZERO)
    }

    fn bodies_behind(&self, before: Lsn) -> impl Iterator<Item = (Lsn, &RecordBody)> {
        let lsns = (before.0 + 1..).map(Lsn);
        let behind = self.committed.iter().skip(before.0 as usize);
        lsns.zip(behind).map(|(lsn, hash)| (lsn, &self.candidates[&lsn][hash].body))
    }

    /// Looks at an append.
    pub(super) fn appended(&mut self, message: &PeerMessage, bulk: &Bytes) -> Result<Told, Parted> {
        let PeerBody::Append { previous, committed, count } = &message.body else {
            return Ok(Told::default());
        };
        let records = decode_records(bulk.clone(), *count).unwrap_or_default();
        let mut end = *previous;
        for record in &records {
            end = self.note(record);
        }
        if end.lsn < *committed {
            return Ok(Told::default());
        }
        let may_part = self.parts_behind.is_some_and(|epoch| message.epoch > epoch);
        if *committed <= self.end() && !may_part {
            return Ok(Told::default());
        }
        self.commit(*committed, end, may_part)
    }

    fn end(&self) -> Lsn {
        Lsn(self.committed.len() as u64)
    }

    fn knows(&self, lsn: Lsn, hash: Hash) -> bool {
        lsn == Lsn::ZERO || self.committed.get(lsn.0 as usize - 1) == Some(&hash)
    }

    fn note(&mut self, record: &Record) -> LogPoint {
        let (lsn, hash) = (record.lsn(), record.chain_hash());
        let sent = || Sent { previous: record.position().previous, body: record.body().clone() };
        self.candidates.entry(lsn).or_default().entry(hash).or_insert_with(sent);
        LogPoint { epoch: record.epoch(), lsn, hash }
    }

    /// Walks back from `end`, which is at or behind the committed point, to what was committed
    /// before.
    fn commit(&mut self, committed: Lsn, end: LogPoint, may_part: bool) -> Result<Told, Parted> {
        let mut chain = Vec::new();
        let (mut lsn, mut hash) = (end.lsn, end.hash);
        while lsn > self.end() || may_part && !self.knows(lsn, hash) {
            let sent = self.candidates.get(&lsn).and_then(|sent| sent.get(&hash));
            // What was committed without having been sent was sent by somebody who died unheard.
            let Some(sent) = sent else { return Ok(Told::default()) };
            if lsn <= committed {
                chain.push((lsn, sent.body.clone(), hash));
            }
            (lsn, hash) = (lsn.previous(), sent.previous);
        }
        if !self.knows(lsn, hash) {
            return Err(Parted { at: self.end() });
        }
        if chain.is_empty() {
            return Ok(Told::default()); // Nothing that is not known.
        }
        let lost = self.bodies_behind(lsn).map(|(lsn, body)| (lsn, body.clone())).collect();
        self.committed.truncate(lsn.0 as usize);
        if may_part {
            self.parts_behind = None;
        }
        chain.reverse();
        self.committed.extend(chain.iter().map(|(.., hash)| *hash));
        let records = chain.into_iter().map(|(lsn, body, _)| (lsn, body)).collect();
        Ok(Told { lost, records })
    }
}
