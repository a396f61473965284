//! How many clients' requests a node has under way, and how many bytes of theirs it holds: bounded for all
//! together, and for each tenant by a share that always leaves one for the next. What is above is refused
//! at once, before it costs anything; the client asks again in a moment.
//!
//! It counts and says no. What is admitted is never thrown out again.

use std::collections::BTreeMap;

use trefoil_protocol::ids::TenantId;
use trefoil_protocol::message::tenant::Refusal;

use crate::event::RequestId;

/// Requests that may be under way on a node.
const REQUESTS_MAX: usize = 4096;
/// Bytes of clients that a node may hold and not yet have on its way to the disk.
const BYTES_MAX: u64 = 512 << 20;

/// One request under way.
#[derive(Clone, Copy, Debug)]
struct Guest {
    tenant: TenantId,
    bytes: u64,
}

/// What one tenant has under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    requests: usize,
    bytes: u64,
}

/// Everything that clients have under way on a node.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    guests: BTreeMap<RequestId, Guest>,
    /// Tenants that have something under way.
    tenants: BTreeMap<TenantId, Load>,
}

impl Admission {
    /// Takes a request in, with the bytes that came with it, or says that there is too much.
    pub(crate) fn admit(&mut self, request: RequestId, tenant: TenantId, bytes: u64) -> Result<(), Refusal> {
        let own = self.tenants.get(&tenant).copied().unwrap_or_default();
        // Its own share is counted whether it has anything under way or not, and one is left for others.
        let shares = self.tenants.len() + usize::from(own == Load::default()) + 1;
        let too_many = own.requests >= REQUESTS_MAX / shares;
        let too_much = own.bytes + bytes > BYTES_MAX / shares as u64 && own.bytes > 0;
        if too_many || too_much {
            return Err(Refusal::Busy);
        }
        self.guests.insert(request, Guest { tenant, bytes });
        let load = self.tenants.entry(tenant).or_default();
        load.requests += 1;
        load.bytes += bytes;
        Ok(())
    }

    /// More bytes of a request came.
    pub(crate) fn came(&mut self, request: RequestId, bytes: u64) {
        if let Some(guest) = self.guests.get_mut(&request) {
            guest.bytes += bytes;
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

    /// A request is answered, or nobody waits for its answer.
    pub(crate) fn ended(&mut self, request: RequestId) {
        let Some(Guest { tenant, bytes }) = self.guests.remove(&request) else { return };
        let load = self.tenants.get_mut(&tenant).expect("whose request it was has it under way");
        load.requests -= 1;
        load.bytes -= bytes;
        if load.requests == 0 {
            self.tenants.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests of a tenant are admitted in a row.
    fn storm(admission: &mut Admission, tenant: u64, bytes: u64) -> usize {
        let first = tenant * 100_000;
        let requests = (first..first + 2 * REQUESTS_MAX as u64).map(RequestId);
        requests.filter(|request| admission.admit(*request, TenantId(tenant), bytes).is_ok()).count()
    }

    #[test]
    fn whoever_storms_leaves_the_others_their_share() {
        let mut admission = Admission::default();
        let admitted: Vec<usize> = (1..=4).map(|tenant| storm(&mut admission, tenant, 0)).collect();
        assert_eq!(admitted, [2048, 1365, 1024, 819]);
        assert!(storm(&mut admission, 5, 0) > 600, "there is room for the next one");
        assert_eq!(admission.admit(RequestId(1), TenantId(1), 0), Err(Refusal::Busy));
    }

    #[test]
    fn bytes_are_bounded_too_and_an_idle_tenant_may_always_begin() {
        let mut admission = Admission::default();
        assert_eq!(storm(&mut admission, 1, 1 << 20), 256);
        assert_eq!(admission.admit(RequestId(1), TenantId(2), BYTES_MAX), Ok(()));
        admission.came(RequestId(1), 5);
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
}
