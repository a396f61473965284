//! What a store holds, as its node states it to a control plane that was restored: what was decided after
//! the backup is known to the stores alone.

use minicbor::{Decode, Encode};

use crate::config::VolumeConfig;
use crate::deletion::SignedPurgeOrder;
use crate::ids::{Epoch, Incarnation, StoreId, TenantId, VolumeId};

/// Epochs, incarnations and log positions of a restore generation begin this far above those of the one
/// before; the first generation begins at 0.
pub const GENERATION_STEP: u64 = 1 << 32;
/// The most volumes in one [`Holdings`].
pub const HOLDINGS_MAX: usize = 32;
/// The most open purges of one volume.
pub const OPEN_ORDERS_MAX: usize = 256;

/// A part of what a store holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Holdings {
    /// The store.
    #[n(0)]
    pub store: StoreId,
    /// The run of the process.
    #[n(1)]
    pub incarnation: Incarnation,
    /// Volumes, in the order of their numbers.
    #[cbor(n(2), decode_with = "crate::codec::list::<HOLDINGS_MAX, _, _>")]
    pub volumes: Vec<VolumeHolding>,
    /// Whether this is the last part.
    #[n(3)]
    pub last: bool,
}

/// What a store holds of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VolumeHolding {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// Its tenant.
    #[n(1)]
    pub tenant: TenantId,
    /// The highest epoch that the store promised.
    #[n(2)]
    pub promised: Epoch,
    /// The configuration that it adopted with that promise.
    #[n(3)]
    pub adopted: Option<VolumeConfig>,
    /// The epoch of the last record of its log.
    #[n(4)]
    pub written: Epoch,
    /// The orders of purges that its log has begun, and perhaps not ended.
    #[cbor(n(5), decode_with = "crate::codec::list::<OPEN_ORDERS_MAX, _, _>")]
    pub orders: Vec<SignedPurgeOrder>,
}
