//! Payload that is missing here although a record refers to it: who is asked for it, how much is
//! under way; and the other side, which hands payload out.
//!
//! Nothing is ever fetched or handed out of a version that is past the point of no return.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use trefoil_engine::{Disk, ReadError};
use trefoil_protocol::config::{Member, VolumeConfig};
use trefoil_protocol::ids::{Hash, NodeId, UploadId};
use trefoil_protocol::message::peer::PeerBody;
use trefoil_protocol::record::RecordBody;
use trefoil_protocol::time::BootTime;
use trefoil_protocol::tree::LEAF_LEN;

use super::holding::{Holding, Unpaid};
use crate::effect::Lane;
use crate::event::ReadTicket;
use crate::outbox::Context;
use crate::read_queue::Reader;
use crate::yielding::{Claim, Work};

/// The stream of a put gets this long to bring the bytes before they are fetched.
const PATIENCE: Duration = Duration::from_millis(250);
/// Leaves asked for and not yet here, at most: 4 MiB,
const UNDER_WAY_MAX: usize = 64;
/// and at least, when sources bring less than they are asked for.
const UNDER_WAY_MIN: usize = 4;
/// Leaves in one request.
const REQUEST_LEAVES: usize = 16;
/// A request that brought nothing is asked again, of the next source.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Payload that came so lately is on its way.
const GETS_ON: Duration = Duration::from_secs(2);
/// How often what is missing is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is being fetched and what is being read for others.
#[derive(Debug, Default)]
pub struct Backfill {
    under_way: BTreeMap<(UploadId, u64), UnderWay>,
    /// How far below the most it has been brought what may be under way.
    less: usize,
    turn: usize,
    /// Who was asked last and has not refused since.
    asked: Option<NodeId>,
    was_refused: bool,
    looked_at: BootTime,
    arrived_at: BootTime,
    serving: BTreeMap<ReadTicket, Serving>,
}

/// A leaf that was asked for.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    asked: BootTime,
    /// Somebody waits for it.
    is_needed: bool,
}

#[derive(Debug)]
struct Serving {
    to: NodeId,
    lane: Lane,
    upload: UploadId,
    first: u32,
    hashes: Vec<Hash>,
}

/// Leaves that another store lacks.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The upload.
    pub upload: UploadId,
    /// Index of the first leaf.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Backfill {
    /// Asks for what is missing: the in-sync members, and `others` that may have it.
    pub fn fetch<D: Disk>(
        &mut self,
        holding: &Holding<D>,
        config: &VolumeConfig,
        others: Vec<NodeId>,
        claim: Claim,
        cx: &mut Context<'_, D>,
    ) {
        let now = cx.now;
        let before = self.under_way.len();
        self.under_way.retain(|_, leaf| now.since(leaf.asked) < AGAIN_AFTER);
        // Whoever said no was passed over already: twice on, and of two sources one is never asked.
        if self.under_way.len() < before && !std::mem::take(&mut self.was_refused) {
            self.turn += 1;
            self.less = UNDER_WAY_MAX - (self.may_be_under_way() / 2).max(UNDER_WAY_MIN);
        }
        let mut sources = sources(config, cx.identity.node);
        sources.extend(others);
        // What is not committed somebody waits for: it goes before all that was.
        let (committed, unpaid) = (holding.committed(), holding.unpaid());
        let needed_first = unpaid.range(committed.next()..).chain(unpaid.range(..=committed));
        for (lsn, unpaid) in needed_first.filter(|(_, unpaid)| now.since(unpaid.since) >= PATIENCE) {
            self.looked_at = now;
            if sources.is_empty() {
                return;
            }
            let to = sources[self.turn % sources.len()];
            self.asked = Some(to);
            let claim = (*lsn <= committed).then_some(claim);
            if !self.fetch_upload(holding, unpaid, claim, to, config, cx) {
                return;
            }
        }
    }

    /// Asks for what is missing of an upload, which nobody waits for if there is a claim; `false` when that was
    /// put off.
    fn fetch_upload<D: Disk>(
        &mut self,
        holding: &Holding<D>,
        unpaid: &Unpaid,
        claim: Option<Claim>,
        to: NodeId,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> bool {
        let (upload, length) = (unpaid.upload, unpaid.length);
        let is_needed = claim.is_none();
        let room = self.room(is_needed);
        if room == 0 {
            return is_needed;
        }
        let missing = holding.log().missing_leaves(upload, length);
        let wanted = missing.into_iter().filter(|leaf| !self.under_way.contains_key(&(upload, *leaf)));
        let wanted: Vec<u64> = wanted.take(room).collect();
        for run in consecutive(&wanted) {
            let work = Work::one(run.len() as u64 * LEAF_LEN);
            if claim.is_some_and(|claim| !cx.yielding.take(work, claim, cx.now)) {
                return false;
            }
            for leaf in run {
                self.under_way.insert((upload, *leaf), UnderWay { asked: cx.now, is_needed });
            }
            let Ok(first) = u32::try_from(run[0]) else { return true };
            let count = u32::try_from(run.len()).expect("a request is small");
            cx.tell(config, to, PeerBody::FetchPayload { upload, first, count });
        }
        true
    }

    /// How many more leaves may be asked for; what somebody waits for has room of its own.
    fn room(&self, is_needed: bool) -> usize {
        let like_it = self.under_way.values().filter(|leaf| leaf.is_needed == is_needed).count();
        self.may_be_under_way().saturating_sub(like_it)
    }

    /// How many leaves may be asked for at once: half as many after a question that brought nothing, one
    /// more after each answer.
    fn may_be_under_way(&self) -> usize {
        UNDER_WAY_MAX - self.less
    }

    /// Leaves arrived: there is room for others.
    pub fn arrived(&mut self, upload: UploadId, first: u32, count: usize, now: BootTime) {
        self.arrived_at = now;
        for leaf in (u64::from(first)..).take(count) {
            self.under_way.remove(&(upload, leaf));
        }
        self.less = self.less.saturating_sub(1);
    }

    /// Whether payload comes in.
    pub fn gets_on(&self, now: BootTime) -> bool {
        now.since(self.arrived_at) < GETS_ON
    }

    /// A source says that it lacks an upload: the next question goes to another one. Of many such words from one
    /// source only the first counts.
    pub fn refused(&mut self, from: NodeId) {
        self.turn += usize::from(self.asked.take_if(|asked| *asked == from).is_some());
        self.was_refused = true;
    }

    /// Somebody lacks leaves: read them, or say that they are not here. While clients have work, what nobody
    /// waits for is passed over: whoever asked asks again, perhaps another store.
    pub fn serve<D: Disk>(
        &mut self,
        to: NodeId,
        wanted: Wanted,
        claim: Claim,
        holding: &Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) {
        let Wanted { upload, first, count } = wanted;
        let lacking = PeerBody::NoPayload { upload };
        let Some(length) = length_of(holding, upload) else { return cx.tell(config, to, lacking) };
        let count = u64::from(count).min(REQUEST_LEAVES as u64);
        let range = u64::from(first)..u64::from(first) + count;
        match holding.log().read_plan(upload, length, range) {
            Ok(job) => {
                let is_committed = holding.index().version(upload.version).is_some();
                let work = Work::one(count * LEAF_LEN);
                if is_committed && !cx.yielding.take(work, claim, cx.now) {
                    return;
                }
                let hashes = job.hashes().map(Hash).collect();
                let reader = if is_committed { Reader::Nobody } else { Reader::Member };
                let ticket = cx.out.read_for(config.volume, job, reader, cx.now + AGAIN_AFTER);
                // What is not committed a client waits for.
                let lane = if is_committed { Lane::Background } else { Lane::Payload };
                self.serving.insert(ticket, Serving { to, lane, upload, first, hashes });
            }
            Err(_) => cx.tell(config, to, lacking),
        }
    }

    /// A read ended; `false` if it was not this protocol's.
    pub fn read<D: Disk>(
        &mut self,
        ticket: ReadTicket,
        result: &Result<Vec<Bytes>, ReadError>,
        holding: &Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> bool {
        let Some(serving) = self.serving.remove(&ticket) else { return false };
        let Serving { to, lane, upload, first, hashes } = serving;
        // The version may have been condemned while the disk was read.
        let still = length_of(holding, upload).is_some();
        match result {
            Ok(leaves) if still => {
                let body = PeerBody::Payload { upload, first, leaves: hashes, relay_to: None, fetched: true };
                cx.send(config, to, lane, body, leaves.clone());
            }
            _ => cx.tell(config, to, PeerBody::NoPayload { upload }),
        }
        true
    }

    /// The turn of a read came when it was asked of another store already; `false` if it was not this
    /// protocol's.
    pub fn read_late(&mut self, ticket: ReadTicket) -> bool {
        self.serving.remove(&ticket).is_some()
    }

    /// When to look again.
    pub fn next_wakeup<D: Disk>(&self, holding: &Holding<D>) -> Option<BootTime> {
        let patient = holding.unpaid().values().map(|unpaid| unpaid.since + PATIENCE).min()?;
        Some(patient.max(self.looked_at + LOOK_EVERY))
    }
}

/// Members other than this one that have everything, or as much as anybody, the primary first. Who leads and lacks
/// payload asks the others too: one that was in sync before may have what was lost here.
fn sources(config: &VolumeConfig, me: NodeId) -> Vec<NodeId> {
    let leads = config.primary == Some(me);
    let others = config.members.iter().filter(|member| member.node != me);
    let mut asked: Vec<&Member> = others.filter(|member| leads || member.state.is_required()).collect();
    asked.sort_by_key(|member| (Some(member.node) != config.primary, !member.state.is_required()));
    asked.into_iter().map(|member| member.node).collect()
}

/// The length of an upload that a record here refers to and that may be handed out.
fn length_of<D: Disk>(holding: &Holding<D>, upload: UploadId) -> Option<u64> {
    if let Some(version) = holding.index().version(upload.version) {
        let handed_out = version.upload == upload && !holding.is_past_return(upload.version);
        return handed_out.then_some(version.sealed_length);
    }
    holding.tail().find_map(|record| match record.body() {
        RecordBody::Put(put) if put.upload == upload => Some(put.sealed_length),
        _ => None,
    })
}

/// Cuts ascending numbers into runs without gaps, each at most one request long.
fn consecutive(numbers: &[u64]) -> Vec<&[u64]> {
    let mut runs = Vec::new();
    let mut start = 0;
    for end in 1..=numbers.len() {
        let breaks =
            end == numbers.len() || numbers[end] != numbers[end - 1] + 1 || end - start == REQUEST_LEAVES;
        if breaks {
            runs.push(&numbers[start..end]);
            start = end;
        }
    }
    runs
}
