//! Since when a data centre lacks a complete copy of a volume, as far as this store knows. Up to its deadline the
//! volume's backfill yields to clients; then it gets its share by force.
//!
//! A node that began anew counts from then on: that is later than it was, never earlier.

use std::collections::BTreeSet;

use trefoil_protocol::config::{MemberState, VolumeConfig};
use trefoil_protocol::debt;
use trefoil_protocol::ids::DcId;
use trefoil_protocol::time::BootTime;

use crate::yielding::Claim;

/// The debt of one volume.
#[derive(Debug, Default)]
pub(super) struct Arrears(Option<BootTime>);

impl Arrears {
    /// The volume has another configuration.
    pub(super) fn follow(&mut self, config: &VolumeConfig, now: BootTime) {
        let whole = |dc: DcId| config.in_sync().any(|member| member.dc == dc);
        let owing = config.members.iter().filter(|member| member.state == MemberState::CatchingUp);
        let owing: BTreeSet<DcId> = owing.map(|member| member.dc).filter(|dc| !whole(*dc)).collect();
        self.0 = (!owing.is_empty()).then(|| self.0.unwrap_or(now));
    }

    /// With what right the backfill of so many bytes has a part of the disk.
    pub(super) fn claim(&self, bytes: u64, now: BootTime) -> Claim {
        match self.0 {
            Some(since) if now.since(since) > debt::deadline(bytes) => Claim::Overdue,
            _ => Claim::Patient,
        }
    }
}
