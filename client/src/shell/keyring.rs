//! The tenant's keys as the custodian gave them: in memory only, overwritten when dropped.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use trefoil_protocol::ids::{NameTag, TenantId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::KeysView;
use trefoil_protocol::time::BootTime;

use crate::core::Stock;
use crate::failure::Damage;
use crate::seal::{
    Attempt, Begun, ChunkLen, NameHash, NameKey, Sealer, TenantKey, WRAPS_PER_KEY_MAX, WrapBlock,
    WrapCounter, WrapError, name_hash, name_tag,
};
use crate::secret::Secret;

/// The version under which the custodian gives the key that hashes names.
const NAME_KEY_VERSION: u32 = 0;

pub(super) struct Keyring {
    tenant: TenantId,
    names: NameKey,
    keys: RwLock<BTreeMap<u32, Arc<TenantKey>>>,
    wraps: Mutex<Wraps>,
}

/// The wraps at hand.
struct Wraps {
    /// None where the keys were given to read with.
    counter: Option<WrapCounter>,
    stock: Stock,
}

impl Wraps {
    fn left(&self) -> u64 {
        self.counter.as_ref().map_or(0, WrapCounter::left)
    }
}

impl Keyring {
    pub(super) fn new(tenant: TenantId, view: KeysView, now: BootTime) -> Result<Self, Damage> {
        let names = view.keys.iter().find(|grant| grant.version == NAME_KEY_VERSION);
        let names = names.ok_or(Damage::Answer("the custodian gives the name key"))?;
        Ok(Self {
            tenant,
            names: NameKey::new(Secret::copy_of(&names.key)),
            wraps: Mutex::new(Wraps { counter: counter_of(&view)?, stock: Stock::new(now) }),
            keys: RwLock::new(tenant_keys(tenant, &view)),
        })
    }

    /// Takes over further keys and another block of wrap counters. One of a former key is left: its
    /// answer was overtaken.
    pub(super) fn refill(&self, view: &KeysView) -> Result<(), Damage> {
        let block = block(view)?;
        let mut wraps = self.wraps();
        let counter = wraps.counter.as_mut();
        match counter.map(|counter| (block.key_version.cmp(&counter.key_version()), counter)) {
            Some((Ordering::Less, _)) => return Ok(()),
            Some((Ordering::Equal, counter)) => counter.refill(block)?,
            // The tenant key was rotated: its counters are its own.
            Some((Ordering::Greater, _)) | None => wraps.counter = Some(WrapCounter::new(block)?),
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = tenant_keys(self.tenant, view);
        Ok(())
    }

    pub(super) fn name_hash(&self, key: &ObjectKey) -> NameHash {
        name_hash(&self.names, key.as_bytes())
    }

    pub(super) fn name_tag(&self, key: &ObjectKey) -> NameTag {
        name_tag(&self.names, key.as_bytes())
    }

    pub(super) fn key(&self, version: u32) -> Option<Arc<TenantKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(&version).cloned()
    }

    /// The newest version of the tenant key.
    pub(super) fn newest(&self) -> u32 {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.last_key_value().map_or(NAME_KEY_VERSION, |(version, _)| *version)
    }

    /// Whether a data key can be wrapped without asking the custodian.
    pub(super) fn can_wrap(&self) -> bool {
        self.wraps().left() > 0
    }

    /// Whether the custodian should be asked before the wraps run out.
    pub(super) fn is_short(&self, now: BootTime) -> bool {
        let mut wraps = self.wraps();
        let left = wraps.left();
        wraps.stock.is_short(left, now)
    }

    fn wraps(&self) -> MutexGuard<'_, Wraps> {
        // A counter moves on before its nonce is used: a panic skips one and repeats none.
        self.wraps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt under the newest tenant key.
    pub(super) fn begin(&self, attempt: Attempt, now: BootTime) -> Result<(u32, Begun), WrapError> {
        let mut wraps = self.wraps();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let newest = keys.last_key_value().map(|(_, key)| key).ok_or(WrapError::Exhausted)?;
        let counter = wraps.counter.as_mut().ok_or(WrapError::Exhausted)?;
        let begun = Sealer::begin(attempt, newest, counter, ChunkLen::DEFAULT)?;
        wraps.stock.note(now);
        Ok((newest.version(), begun))
    }
}

fn newest(view: &KeysView) -> Result<u32, Damage> {
    let newest = view.keys.iter().map(|grant| grant.version).max().filter(|v| *v != NAME_KEY_VERSION);
    newest.ok_or(Damage::Answer("the custodian gives a tenant key"))
}

fn block(view: &KeysView) -> Result<WrapBlock, Damage> {
    Ok(WrapBlock {
        key_version: newest(view)?,
        instance: view.nonce_prefix,
        start: 0,
        end: view.nonce_count.min(WRAPS_PER_KEY_MAX),
    })
}

/// Keys to read with come without a block.
fn counter_of(view: &KeysView) -> Result<Option<WrapCounter>, Damage> {
    newest(view)?;
    Ok(match view.nonce_count {
        0 => None,
        _ => Some(WrapCounter::new(block(view)?)?),
    })
}

fn tenant_keys(tenant: TenantId, view: &KeysView) -> BTreeMap<u32, Arc<TenantKey>> {
    let grants = view.keys.iter().filter(|grant| grant.version != NAME_KEY_VERSION);
    grants
        .map(|grant| {
            let secret = Secret::copy_of(&grant.key);
            (grant.version, Arc::new(TenantKey::new(tenant, grant.version, secret)))
        })
        .collect()
}
