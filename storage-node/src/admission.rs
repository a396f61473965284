//! How many clients' requests a node has under way, and how many bytes of theirs it holds: bounded for all
//! together, and for each tenant by a share that always leaves one for the next. How many may be under way
//! follows from how long they take: when requests wait long, fewer are let in, so that what is let in is
//! answered while its client still listens. What is above is refused at once, before it costs anything, and
//! is told when to ask again.
//!
//! Each volume has a room of its own for what changes it, because it waits for its own members: one that is
//! stuck takes nothing from another. Reads wait for this node's disk and share one room.
//!
//! It counts and says no. What is admitted is never thrown out again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trefoil_protocol::ids::{TenantId, VolumeId};
use trefoil_protocol::message::load::NodeLoad;
use trefoil_protocol::message::tenant::Refusal;
use trefoil_protocol::time::{BootTime, Millis};

use crate::event::RequestId;
use crate::yielding::Yielding;

/// Requests that may be under way on a node.
const REQUESTS_MAX: usize = 4096;
/// Bytes of clients that a node may hold and not yet have on its way to the disk.
const BYTES_MAX: u64 = 512 << 20;
/// How much room there is while nothing is known of how long answers take.
const ROOM_FIRST: usize = 256;
/// So many may be under way however long they take: who waits for another node goes on trying.
const ROOM_MIN: usize = 8;
/// Who waits for longer says that too many are under way.
const LONG: Duration = Duration::from_secs(1);
/// Nobody is told to ask again sooner, nor later.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This node's disk: it wants to be told something.
    Read,
    /// The members of a volume: it changes something, or wants to know what became of a change.
    Change(VolumeId),
}

/// One request under way.
#[derive(Clone, Copy, Debug)]
struct Guest {
    kind: Kind,
    tenant: TenantId,
    bytes: u64,
    /// Since when its client waits: since its last frame. None once an answer began.
    waits_since: Option<BootTime>,
}

/// What one tenant has under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    requests: usize,
    bytes: u64,
}

/// How many requests that wait for the same may be under way.
#[derive(Debug)]
struct Room {
    under_way: usize,
    /// So many may be now.
    size: usize,
    /// When it became smaller.
    shrunk_at: BootTime,
    /// How long answers took lately, the later ones counting more.
    took: Duration,
    /// Who waits, the longest first.
    waiting: BTreeSet<(BootTime, RequestId)>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            under_way: 0,
            size: ROOM_FIRST,
            shrunk_at: BootTime::default(),
            took: Duration::ZERO,
            waiting: BTreeSet::new(),
        }
    }
}

impl Room {
    fn has_place(&mut self, now: BootTime) -> bool {
        if let Some((since, _)) = self.waiting.first()
            && now.since(*since) > LONG
        {
            self.shrink(now);
        }
        self.under_way < self.size
    }

    fn shrink(&mut self, now: BootTime) {
        if now.since(self.shrunk_at) >= LONG {
            self.size = (self.size.min(self.under_way) * 3 / 4).max(ROOM_MIN);
            self.shrunk_at = now;
        }
    }

    fn waited(&mut self, took: Duration, now: BootTime) {
        self.took = (self.took * 15 + took) / 16;
        if took > LONG {
            return self.shrink(now);
        }
        // As many more as were answered in time: it doubles in the time that an answer takes.
        let is_used = self.under_way * 2 >= self.size;
        self.size = (self.size + usize::from(is_used)).min(REQUESTS_MAX);
    }

    /// About as long as an answer takes now: by then, as many as there are now will have left.
    fn retry_after(&self) -> Millis {
        self.took.clamp(RETRY_AFTER.0, RETRY_AFTER.1).into()
    }
}

/// Everything that clients have under way on a node.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    guests: BTreeMap<RequestId, Guest>,
    /// Tenants that have something under way.
    tenants: BTreeMap<TenantId, Load>,
    reads: Room,
    changes: BTreeMap<VolumeId, Room>,
    /// How many were refused in this run.
    refused: u64,
}

impl Admission {
    fn room(&mut self, kind: Kind) -> &mut Room {
        match kind {
            Kind::Read => &mut self.reads,
            Kind::Change(volume) => self.changes.entry(volume).or_default(),
        }
    }

    /// Takes a request in, with the bytes that came with it, or says that there is too much.
    pub(crate) fn admit(
        &mut self,
        request: RequestId,
        kind: Kind,
        tenant: TenantId,
        bytes: u64,
        now: BootTime,
    ) -> Result<(), Refusal> {
        let own = self.tenants.get(&tenant).copied().unwrap_or_default();
        // Its own share is counted whether it has anything under way or not, and one is left for others.
        let shares = self.tenants.len() + usize::from(own == Load::default()) + 1;
        let too_many = own.requests >= REQUESTS_MAX / shares;
        let too_much = own.bytes + bytes > BYTES_MAX / shares as u64 && own.bytes > 0;
        let room = self.room(kind);
        if !room.has_place(now) || too_many || too_much {
            let retry_after = room.retry_after();
            self.refused += 1;
            return Err(Refusal::Busy { retry_after });
        }
        room.under_way += 1;
        room.waiting.insert((now, request));
        self.guests.insert(request, Guest { kind, tenant, bytes, waits_since: Some(now) });
        let load = self.tenants.entry(tenant).or_default();
        load.requests += 1;
        load.bytes += bytes;
        Ok(())
    }

    /// When a change of a volume that cannot be begun may be asked for again.
    pub(crate) fn retry_after(&self, volume: VolumeId) -> Millis {
        self.changes.get(&volume).map_or_else(|| Room::default().retry_after(), Room::retry_after)
    }

    /// More bytes of a request came.
    pub(crate) fn came(&mut self, request: RequestId, bytes: u64, now: BootTime) {
        let Some(guest) = self.guests.get_mut(&request) else { return };
        guest.bytes += bytes;
        let since = guest.waits_since.replace(now);
        let Guest { kind, tenant, .. } = *guest;
        self.tenants.entry(tenant).or_default().bytes += bytes;
        let waiting = &mut self.room(kind).waiting;
        if let Some(since) = since {
            waiting.remove(&(since, request));
        }
        waiting.insert((now, request));
    }

    /// Bytes of a request were taken over.
    pub(crate) fn taken(&mut self, request: RequestId, bytes: u64) {
        if let Some(guest) = self.guests.get_mut(&request) {
            let bytes = bytes.min(guest.bytes);
            guest.bytes -= bytes;
            self.tenants.entry(guest.tenant).or_default().bytes -= bytes;
        }
    }

    /// The answer to a request began: says how long it took, and so how many may be under way.
    pub(crate) fn answered(&mut self, request: RequestId, now: BootTime) {
        let Some(guest) = self.guests.get_mut(&request) else { return };
        let (kind, since) = (guest.kind, guest.waits_since.take());
        if let Some(since) = since {
            let room = self.room(kind);
            room.waiting.remove(&(since, request));
            room.waited(now.since(since), now);
        }
    }

    /// A request is answered, or nobody waits for its answer.
    pub(crate) fn ended(&mut self, request: RequestId) {
        let Some(Guest { kind, tenant, bytes, waits_since }) = self.guests.remove(&request) else { return };
        let room = self.room(kind);
        room.under_way -= 1;
        if let Some(since) = waits_since {
            room.waiting.remove(&(since, request));
        }
        let load = self.tenants.get_mut(&tenant).expect("whose request it was has it under way");
        load.requests -= 1;
        load.bytes -= bytes;
        if load.requests == 0 {
            self.tenants.remove(&tenant);
        }
    }

    /// The client of a request does not wait for its answer any more.
    pub(crate) fn gone(&mut self, request: RequestId, now: BootTime) {
        let waited = self.guests.get(&request).and_then(|guest| Some((guest.kind, guest.waits_since?)));
        if let Some((kind, since)) = waited.filter(|(_, since)| now.since(*since) > LONG) {
            self.room(kind).waited(now.since(since), now);
        }
        self.ended(request);
    }

    /// A volume is not held here any more.
    pub(crate) fn forget(&mut self, volume: VolumeId) {
        if self.changes.get(&volume).is_some_and(|room| room.under_way == 0) {
            self.changes.remove(&volume);
        }
    }

    /// How it stands, for operators: the fullest of the rooms. `late` were dropped because nobody listened any
    /// more.
    pub(crate) fn report(&self, late: u64, yielding: &Yielding) -> NodeLoad {
        let (repaired, forced, put_off) = yielding.report();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let left = |room: &&Room| room.size.saturating_sub(room.under_way);
        let rooms = self.changes.values().filter(|room| room.under_way > 0).chain([&self.reads]);
        let fullest = rooms.min_by_key(left).expect("reads always have a room");
        NodeLoad {
            under_way: count(fullest.under_way),
            room: count(fullest.size),
            refused: self.refused,
            late,
            repaired,
            forced,
            put_off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGE: Kind = Kind::Change(VolumeId(1));

    const fn at(millis: u64) -> BootTime {
        BootTime(millis * 1_000_000)
    }

    fn is_busy(answer: Result<(), Refusal>) -> bool {
        matches!(answer, Err(Refusal::Busy { .. }))
    }

    /// One that has learned that answers come in time.
    fn roomy() -> Admission {
        let reads = Room { size: REQUESTS_MAX, ..Room::default() };
        Admission { reads, ..Admission::default() }
    }

    /// How many requests of a tenant are admitted in a row.
    fn storm(admission: &mut Admission, tenant: u64, bytes: u64) -> usize {
        let first = tenant * 100_000;
        let requests = (first..first + 2 * REQUESTS_MAX as u64).map(RequestId);
        let admit = |request: &RequestId| {
            admission.admit(*request, Kind::Read, TenantId(tenant), bytes, at(0)).is_ok()
        };
        requests.filter(admit).count()
    }

    #[test]
    fn whoever_storms_leaves_the_others_their_share() {
        let mut admission = roomy();
        admission.reads.size = 2 * REQUESTS_MAX;
        let admitted: Vec<usize> = (1..=4).map(|tenant| storm(&mut admission, tenant, 0)).collect();
        assert_eq!(admitted, [2048, 1365, 1024, 819]);
        assert!(storm(&mut admission, 5, 0) > 600, "there is room for the next one");
        assert!(is_busy(admission.admit(RequestId(1), Kind::Read, TenantId(1), 0, at(0))));
    }

    #[test]
    fn bytes_are_bounded_too_and_an_idle_tenant_may_always_begin() {
        let mut admission = roomy();
        assert_eq!(storm(&mut admission, 1, 1 << 20), 256);
        assert_eq!(admission.admit(RequestId(1), Kind::Read, TenantId(2), BYTES_MAX, at(0)), Ok(()));
        admission.came(RequestId(1), 5, at(0));
        admission.taken(RequestId(1), BYTES_MAX);
        assert_eq!(admission.tenants[&TenantId(2)], Load { requests: 1, bytes: 5 });
    }

    #[test]
    fn what_ended_makes_room() {
        let mut admission = roomy();
        storm(&mut admission, 1, 10);
        for request in (100_000..110_000).map(RequestId) {
            admission.taken(request, 3);
            admission.ended(request);
            admission.ended(request);
        }
        assert!(admission.guests.is_empty() && admission.tenants.is_empty());
        assert!(admission.reads.waiting.is_empty());
        assert_eq!(storm(&mut admission, 1, 0), 2048);
    }

    #[test]
    fn a_volume_that_is_stuck_takes_nothing_from_another_nor_from_reads() {
        let mut admission = Admission::default();
        let mut next = 0;
        let mut admit = |kind, millis| {
            next += 1;
            admission.admit(RequestId(next), kind, TenantId(1), 0, at(millis)).is_ok()
        };
        let stuck = (0..10_000).filter(|millis| admit(CHANGE, *millis)).count();
        assert!(stuck <= ROOM_FIRST, "{stuck} wait for a volume that answers nobody");
        assert!(!admit(CHANGE, 10_000));
        assert!(admit(Kind::Change(VolumeId(2)), 10_000) && admit(Kind::Read, 10_000));
    }

    /// A disk that does so many requests a second, in their order, and a crowd that brings more.
    #[test]
    fn r049_queues_stay_as_short_as_clients_listen_and_grow_again() {
        let mut admission = Admission::default();
        let mut queue = std::collections::VecDeque::new();
        let (mut next, mut refused_then) = (0, 0);
        for millis in 0..60_000 {
            // 200 a second are done, 400 come for half a minute, then 100.
            if millis % 5 == 0
                && let Some(request) = queue.pop_front()
            {
                admission.answered(request, at(millis));
                admission.ended(request);
            }
            let comes = if millis < 30_000 { millis % 5 < 2 } else { millis % 10 == 0 };
            if comes {
                next += 1;
                if admission.admit(RequestId(next), CHANGE, TenantId(1), 0, at(millis)).is_ok() {
                    queue.push_back(RequestId(next));
                }
            }
            // What two seconds bring more than is done, and the one whose answer tells that it is too much.
            assert!(queue.len() <= 401, "{} wait after {millis} ms", queue.len());
            if millis == 35_000 {
                refused_then = admission.refused;
            }
            if millis == 30_000 {
                assert!(queue.len() < 300, "{} wait after thirty seconds of too much", queue.len());
                assert!(admission.retry_after(VolumeId(1)) >= Millis(500));
            }
        }
        assert!(refused_then > 3_000, "what is too much is refused: {refused_then}");
        assert_eq!(admission.refused, refused_then, "and nothing once there was less to do");
        assert!(queue.len() < 5);
    }
}
