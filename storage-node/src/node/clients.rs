//! What clients ask of a node: it is admitted, checked against the volume, and handed to the replica that
//! answers it.

use bytes::Bytes;
use trefoil_engine::Disk;
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::message::tenant::{
    PutRequest, Refusal, RouteView, TenantAnswer, TenantCall, TenantRequest, UploadPart,
};
use trefoil_protocol::time::{BootTime, Millis};

use super::NodeCore;
use crate::admission::Kind;
use crate::authorise::authorise;
use crate::event::{RequestId, VerifiedPrincipal};
use crate::volume::calls::Ask;
use crate::yielding::Work;

impl<D: Disk> NodeCore<D> {
    pub(super) fn request(
        &mut self,
        request: RequestId,
        principal: VerifiedPrincipal,
        body: TenantRequest,
        bulk: Bytes,
        now: BootTime,
    ) {
        if let Err(refusal) = body.check(bulk.len()) {
            return self.out.refuse(request, refusal);
        }
        let TenantRequest { volume, epoch, call, within } = body;
        if matches!(call, TenantCall::Route) {
            return self.answer_route(request, principal);
        }
        let scope = match authorise(principal, self.volumes.get(&volume).map(|replica| replica.config())) {
            Ok(scope) => scope,
            Err(refusal) => return self.out.refuse(request, refusal),
        };
        if within == Millis(0) {
            return self.out.refuse_late(request);
        }
        if let Err(refusal) =
            self.admission.admit(request, kind_of(&call, volume), principal.tenant, bulk.len() as u64, now)
        {
            return self.out.refuse(request, refusal);
        }
        if matches!(call, TenantCall::Put(PutRequest { inline: None, .. }) | TenantCall::Get { .. }) {
            self.streams.insert(request, volume);
        }
        self.yielding.clients_did(Work::one(bulk.len() as u64), now);
        let ask = Ask { request, scope, epoch, within: within.into() };
        self.with_volume(volume, now, |replica, cx| replica.request(ask, call, bulk, cx));
        self.forget_ended(request, volume);
    }

    pub(super) fn upload(&mut self, request: RequestId, part: UploadPart, bulk: Bytes, now: BootTime) {
        let Some(volume) = self.streams.get(&request).copied() else { return };
        self.admission.came(request, bulk.len() as u64, now);
        self.yielding.clients_did(Work { operations: 0, bytes: bulk.len() as u64 }, now);
        self.with_volume(volume, now, |replica, cx| {
            if replica.has_request(request) {
                replica.upload(request, part, bulk, cx);
            }
        });
        self.forget_ended(request, volume);
    }

    pub(super) fn gone(&mut self, request: RequestId, now: BootTime) {
        self.admission.gone(request, now);
        if let Some(volume) = self.streams.remove(&request)
            && let Some(replica) = self.volumes.get_mut(&volume)
        {
            replica.gone(request);
            self.wakeups.set(volume, replica.next_wakeup());
        }
    }

    pub(super) fn forget_ended(&mut self, request: RequestId, volume: VolumeId) {
        if !self.volumes.get(&volume).is_some_and(|replica| replica.has_request(request)) {
            self.streams.remove(&request);
        }
    }

    pub(super) fn answer_route(&mut self, request: RequestId, who: VerifiedPrincipal) {
        let Some(tenant) = self.view.tenants.get(&who.tenant).cloned() else {
            return self.out.refuse(request, Refusal::NotFound);
        };
        let own = self.view.volumes.values().filter(|config| config.tenant == who.tenant);
        let mut volumes: Vec<VolumeConfig> = own.map(|config| VolumeConfig::clone(config)).collect();
        volumes.sort_by_key(|config| config.slot);
        // A node knows the volumes it holds; a part of a route would send keys nowhere. Who votes it knows.
        if volumes.len() != tenant.volume_count as usize {
            volumes.clear();
        }
        let nodes = self.view.nodes.values().cloned().collect();
        let (now, principal) = (self.view.now, who.principal);
        let voters = self.view.voters.iter().filter(|voter| !voter.witness).copied().collect();
        let route = RouteView { tenant, volumes, nodes, now, principal, voters };
        self.out.answer(request, TenantAnswer::Route(route));
    }
}

/// What a call waits for.
fn kind_of(call: &TenantCall, volume: VolumeId) -> Kind {
    match call {
        TenantCall::Put(_)
        | TenantCall::Delete { .. }
        | TenantCall::Undelete { .. }
        | TenantCall::Outcome { .. } => Kind::Change(volume),
        _ => Kind::Read,
    }
}
