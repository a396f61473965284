//! How many clients' requests a node has under way, and how many bytes of theirs it holds: bounded for all
//! together, and for each tenant by a share that always leaves one for the next. How many may be under way
//! follows from how long they take: when requests wait long, fewer are let in, so that what is let in is
//! answered while its client still listens. What is above is refused at once, before it costs anything, and
//! is told when to ask again.
//!
//! It counts and says no. What is admitted is never thrown out again.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_protocol::ids::TenantId;
use trefoil_protocol::message::load::NodeLoad;
use trefoil_protocol::message::tenant::Refusal;
use trefoil_protocol::time::{BootTime, Millis};

use crate::event::RequestId;
use crate::yielding::Yielding;

/// Requests that may be under way on a node.
const REQUESTS_MAX: usize = 4096;
/// So many may be under way however long they take: a node that waits for another one goes on trying.
const REQUESTS_MIN: usize = 64;
/// Bytes of clients that a node may hold and not yet have on its way to the disk.
const BYTES_MAX: u64 = 512 << 20;
/// An answer that took longer says that too many are under way.
const LONG: Duration = Duration::from_secs(1);
/// Nobody is told to ask again sooner, nor later.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// One request under way.
#[derive(Clone, Copy, Debug)]
struct Guest {
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

/// Everything that clients have under way on a node.
#[derive(Debug)]
pub(crate) struct Admission {
    guests: BTreeMap<RequestId, Guest>,
    /// Tenants that have something under way.
    tenants: BTreeMap<TenantId, Load>,
    /// So many may be under way now.
    room: usize,
    /// When there came to be less room.
    shrunk_at: BootTime,
    /// How long answers took lately, the later ones counting more.
    took: Duration,
    /// How many were refused in this run.
    refused: u64,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            guests: BTreeMap::new(),
            tenants: BTreeMap::new(),
            room: REQUESTS_MAX,
            shrunk_at: BootTime::default(),
            took: Duration::ZERO,
            refused: 0,
        }
    }
}

impl Admission {
    /// Takes a request in, with the bytes that came with it, or says that there is too much.
    pub(crate) fn admit(
        &mut self,
        request: RequestId,
        tenant: TenantId,
        bytes: u64,
        now: BootTime,
    ) -> Result<(), Refusal> {
        let own = self.tenants.get(&tenant).copied().unwrap_or_default();
        // Its own share is counted whether it has anything under way or not, and one is left for others.
        let shares = self.tenants.len() + usize::from(own == Load::default()) + 1;
        let too_many = own.requests >= self.room / shares;
        let too_much = own.bytes + bytes > BYTES_MAX / shares as u64 && own.bytes > 0;
        if too_many || too_much {
            self.refused += 1;
            return Err(Refusal::Busy { retry_after: self.retry_after() });
        }
        self.guests.insert(request, Guest { tenant, bytes, waits_since: Some(now) });
        let load = self.tenants.entry(tenant).or_default();
        load.requests += 1;
        load.bytes += bytes;
        Ok(())
    }

    /// About as long as an answer takes now: by then, as many as there are now will have left.
    pub(crate) fn retry_after(&self) -> Millis {
        self.took.clamp(RETRY_AFTER.0, RETRY_AFTER.1).into()
    }

    /// More bytes of a request came.
    pub(crate) fn came(&mut self, request: RequestId, bytes: u64, now: BootTime) {
        if let Some(guest) = self.guests.get_mut(&request) {
            guest.bytes += bytes;
            guest.waits_since = Some(now);
            self.tenants.entry(guest.tenant).or_default().bytes += bytes;
        }
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
        let since = self.guests.get_mut(&request).and_then(|guest| guest.waits_since.take());
        if let Some(since) = since {
            self.took_so_long(now.since(since), now);
        }
    }

    fn took_so_long(&mut self, took: Duration, now: BootTime) {
        self.took = (self.took * 15 + took) / 16;
        let under_way = self.guests.len();
        if took <= LONG {
            // As many more as were answered in time: it doubles in the time that an answer takes.
            let is_used = under_way * (self.tenants.len() + 1) * 2 >= self.room;
            self.room = (self.room + usize::from(is_used)).min(REQUESTS_MAX);
        } else if now.since(self.shrunk_at) >= LONG {
            // A part of the room is left for the next tenant.
            let taken = under_way * (self.tenants.len() + 1);
            self.room = (self.room.min(taken) * 3 / 4).max(REQUESTS_MIN);
            self.shrunk_at = now;
        }
    }

    /// A request is answered, or nobody waits for its answer.
    pub(crate) fn ended(&mut self, request: RequestId) {
        let Some(Guest { tenant, bytes, .. }) = self.guests.remove(&request) else { return };
        let load = self.tenants.get_mut(&tenant).expect("whose request it was has it under way");
        load.requests -= 1;
        load.bytes -= bytes;
        if load.requests == 0 {
            self.tenants.remove(&tenant);
        }
    }

    /// The client of a request does not wait for its answer any more.
    pub(crate) fn gone(&mut self, request: RequestId, now: BootTime) {
        let waited = self.guests.get(&request).and_then(|guest| guest.waits_since);
        if let Some(took) = waited.map(|since| now.since(since)).filter(|took| *took > LONG) {
            self.took_so_long(took, now);
        }
        self.ended(request);
    }

    /// How it stands, for operators; `late` were dropped because nobody listened any more.
    pub(crate) fn report(&self, late: u64, yielding: &Yielding) -> NodeLoad {
        let (repaired, forced, put_off) = yielding.report();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        NodeLoad {
            under_way: count(self.guests.len()),
            room: count(self.room),
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

    const fn at(millis: u64) -> BootTime {
        BootTime(millis * 1_000_000)
    }

    fn is_busy(answer: Result<(), Refusal>) -> bool {
        matches!(answer, Err(Refusal::Busy { .. }))
    }

    /// How many requests of a tenant are admitted in a row.
    fn storm(admission: &mut Admission, tenant: u64, bytes: u64) -> usize {
        let first = tenant * 100_000;
        let requests = (first..first + 2 * REQUESTS_MAX as u64).map(RequestId);
        requests.filter(|request| admission.admit(*request, TenantId(tenant), bytes, at(0)).is_ok()).count()
    }

    #[test]
    fn whoever_storms_leaves_the_others_their_share() {
        let mut admission = Admission::default();
        let admitted: Vec<usize> = (1..=4).map(|tenant| storm(&mut admission, tenant, 0)).collect();
        assert_eq!(admitted, [2048, 1365, 1024, 819]);
        assert!(storm(&mut admission, 5, 0) > 600, "there is room for the next one");
        assert!(is_busy(admission.admit(RequestId(1), TenantId(1), 0, at(0))));
    }

    #[test]
    fn bytes_are_bounded_too_and_an_idle_tenant_may_always_begin() {
        let mut admission = Admission::default();
        assert_eq!(storm(&mut admission, 1, 1 << 20), 256);
        assert_eq!(admission.admit(RequestId(1), TenantId(2), BYTES_MAX, at(0)), Ok(()));
        admission.came(RequestId(1), 5, at(0));
        admission.taken(RequestId(1), BYTES_MAX);
        assert_eq!(admission.tenants[&TenantId(2)], Load { requests: 1, bytes: 5 });
    }

    #[test]
    fn what_ended_makes_room() {
        let mut admission = Admission::default();
        storm(&mut admission, 1, 10);
        for request in (100_000..110_000).map(RequestId) {
            admission.taken(request, 3);
            admission.ended(request);
            admission.ended(request);
        }
        assert!(admission.guests.is_empty() && admission.tenants.is_empty());
        assert_eq!(storm(&mut admission, 1, 0), 2048);
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
                if admission.admit(RequestId(next), TenantId(1), 0, at(millis)).is_ok() {
                    queue.push_back(RequestId(next));
                }
            }
            if millis == 35_000 {
                refused_then = admission.refused;
            }
            if millis == 30_000 {
                assert!(queue.len() < 300, "{} wait after thirty seconds of too much", queue.len());
                assert!(admission.retry_after() >= Millis(500), "{:?}", admission.retry_after());
            }
        }
        assert!(refused_then > 3_000, "what is too much is refused: {refused_then}");
        assert_eq!(admission.refused, refused_then, "and nothing once there was less to do");
        assert!(queue.len() < 5);
    }
}
