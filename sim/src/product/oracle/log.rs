//! The oracle's own copy of a volume's committed log, put together from what primaries send their
//! members. Two things follow from it: that there is one committed history, and what each record
//! did, which other checkers judge.
//!
//! It never asks a node's index; it reads records.

use std::collections::BTreeMap;

use bytes::Bytes;
use trefoil_protocol::ids::{Hash, Lsn};
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
    committed: Lsn,
    tip: Hash,
    /// Everything that was ever sent above the committed point, by position and hash.
    candidates: BTreeMap<Lsn, BTreeMap<Hash, Sent>>,
}

/// Two primaries told of different committed histories.
#[derive(Clone, Debug)]
pub(super) struct Parted {
    pub(super) at: Lsn,
}

impl VolumeLog {
    /// Looks at an append; gives the records that are newly known to be committed.
    pub(super) fn appended(
        &mut self,
        message: &PeerMessage,
        bulk: &Bytes,
    ) -> Result<Vec<(Lsn, RecordBody)>, Parted> {
        let PeerBody::Append { previous, committed, count } = &message.body else {
            return Ok(Vec::new());
        };
        let records = decode_records(bulk.clone(), *count).unwrap_or_default();
        let mut end = *previous;
        for record in &records {
            end = self.note(record);
        }
        if *committed <= self.committed || end.lsn < *committed {
            return Ok(Vec::new());
        }
        self.commit(*committed, end)
    }

    fn note(&mut self, record: &Record) -> LogPoint {
        let (lsn, hash) = (record.lsn(), record.chain_hash());
        if lsn > self.committed {
            let sent = Sent { previous: record.position().previous, body: record.body().clone() };
            self.candidates.entry(lsn).or_default().entry(hash).or_insert(sent);
        }
        LogPoint { epoch: record.epoch(), lsn, hash }
    }

    /// Walks back from `end`, which is at or behind the committed point, to what was committed
    /// before.
    fn commit(&mut self, committed: Lsn, end: LogPoint) -> Result<Vec<(Lsn, RecordBody)>, Parted> {
        let mut chain = Vec::new();
        let (mut lsn, mut hash) = (end.lsn, end.hash);
        while lsn > self.committed {
            let sent = self.candidates.get(&lsn).and_then(|sent| sent.get(&hash));
            // What was committed without having been sent was sent by somebody who died unheard.
            let Some(sent) = sent else { return Ok(Vec::new()) };
            if lsn <= committed {
                chain.push((lsn, sent.body.clone(), hash));
            }
            (lsn, hash) = (lsn.previous(), sent.previous);
        }
        if hash != self.tip {
            return Err(Parted { at: self.committed });
        }
        chain.reverse();
        if let Some((_, _, tip)) = chain.last() {
            self.tip = *tip;
        }
        self.committed = committed;
        self.candidates = self.candidates.split_off(&committed.next());
        Ok(chain.into_iter().map(|(lsn, body, _)| (lsn, body)).collect())
    }
}
