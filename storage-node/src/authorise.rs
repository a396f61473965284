//! Who may touch what: the only place where a [`TenantScope`] is made. Every tenant operation on a
//! volume takes one, so no path can forget the check.
//!
//! Another tenant's volume is refused exactly like a volume that this node does not have. That is no
//! `NotFound`: a node that lost its place, or has not heard of it yet, knows nothing of the object.

use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{Epoch, PrincipalId, TenantId, VolumeId};
use trefoil_protocol::message::tenant::Refusal;

use crate::event::VerifiedPrincipal;

/// Proof that a verified principal's tenant owns a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantScope {
    tenant: TenantId,
    principal: PrincipalId,
    volume: VolumeId,
}

impl TenantScope {
    /// The tenant, from the certificate.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The principal, from the certificate.
    pub fn principal(&self) -> PrincipalId {
        self.principal
    }

    /// The volume that it covers.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }
}

/// Mints the proof, or refuses as for a volume that is not here.
pub fn authorise(who: VerifiedPrincipal, config: Option<&VolumeConfig>) -> Result<TenantScope, Refusal> {
    match config {
        Some(config) if config.tenant == who.tenant => {
            Ok(TenantScope { tenant: who.tenant, principal: who.principal, volume: config.volume })
        }
        _ => Err(Refusal::NotPrimary { epoch: Epoch(0), primary: None }),
    }
}
