//! Tenants with their principals and wrapped keys, and how much of each key's nonces was handed out.
//! Nothing here can open a key.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use trefoil_protocol::config::TenantEntry;
use trefoil_protocol::ids::{ConfigIndex, PrincipalId, TenantId, TenantName};

use super::command::{NewTenant, Outcome, Rejection, WrappedKey};
use super::search::first_of;

/// How many wraps one block of nonces allows.
pub const NONCE_BLOCK: u64 = 1 << 10;

/// How many blocks one key version gives out: 2^30 wraps in all.
pub const NONCE_BLOCKS_MAX: u32 = 1 << 20;

/// So many key versions a tenant may have used up between a backup and its restore.
const KEYS_OF_A_GENERATION: u32 = 1 << 16;

const _: () = assert!(NONCE_BLOCK * NONCE_BLOCKS_MAX as u64 == 1 << 30);

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TenantRecord {
    /// The tenant as told to others.
    #[n(0)]
    pub entry: TenantEntry,
    /// The command that changed it last.
    #[n(1)]
    pub changed: ConfigIndex,
    /// Its keys by version, wrapped.
    #[n(2)]
    pub keys: BTreeMap<u32, WrappedKey>,
    /// Blocks of nonces handed out under the newest key.
    #[n(3)]
    pub blocks: u32,
    /// Who may act for it.
    #[n(4)]
    pub principals: Vec<PrincipalId>,
    /// No new key has a lower version: after a restore lower ones may have been given already.
    #[n(5)]
    pub keys_from: u32,
}

impl TenantRecord {
    /// The key version that new data keys are wrapped with.
    pub fn newest_key(&self) -> u32 {
        *self.keys.keys().next_back().expect("a tenant is made with its keys")
    }

    /// Whether the next block of nonces needs a new key.
    pub fn is_used_up(&self) -> bool {
        self.blocks >= NONCE_BLOCKS_MAX
    }

    /// The version of the next key.
    pub fn next_key(&self) -> u32 {
        (self.newest_key() + 1).max(self.keys_from)
    }

    /// Whether `principal` may act for this tenant.
    pub fn has_principal(&self, principal: PrincipalId) -> bool {
        self.principals.contains(&principal)
    }
}

/// All tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Tenants {
    #[n(0)]
    tenants: BTreeMap<TenantId, TenantRecord>,
    #[n(1)]
    last_tenant: TenantId,
    #[n(2)]
    last_principal: PrincipalId,
    #[n(3)]
    keys_from: u32,
}

impl Tenants {
    /// All tenants.
    pub fn all(&self) -> impl Iterator<Item = &TenantRecord> {
        self.tenants.values()
    }

    /// A tenant.
    pub fn get(&self, tenant: TenantId) -> Option<&TenantRecord> {
        self.tenants.get(&tenant)
    }

    /// A tenant by name.
    pub fn named(&self, name: TenantName) -> Option<&TenantRecord> {
        self.tenants.values().find(|record| record.entry.name == name)
    }

    /// The id the next tenant gets.
    pub fn next_id(&self) -> TenantId {
        TenantId(self.last_tenant.0 + 1)
    }

    pub(super) fn check(&self, new: &NewTenant) -> Result<(), Rejection> {
        if self.named(new.name).is_some() {
            return Err(Rejection::NameTaken);
        }
        // The keys are bound to the id they were made for.
        if new.tenant != self.next_id() {
            return Err(Rejection::Stale);
        }
        if new.keys.is_empty() {
            return Err(Rejection::Unknown("key"));
        }
        Ok(())
    }

    pub(super) fn create(&mut self, index: ConfigIndex, new: &NewTenant) {
        let entry = TenantEntry {
            tenant: new.tenant,
            name: new.name,
            volume_count: u32::try_from(new.volumes.len()).expect("checked against the limit"),
            window: new.window,
            first_copy_retention: new.first_copy_retention,
            single_dc: new.single_dc,
            stale_reads: new.stale_reads,
        };
        let keys = new.keys.iter().map(|key| (key.version, key.clone())).collect();
        let (principals, keys_from) = (Vec::new(), self.keys_from);
        let record = TenantRecord { entry, changed: index, keys, blocks: 0, principals, keys_from };
        self.tenants.insert(new.tenant, record);
        self.last_tenant = new.tenant;
    }

    /// After a restore: no number, no key version and no nonce is given that may have been given since
    /// the backup.
    pub(super) fn begin_generation(&mut self, index: ConfigIndex, generation: u64) {
        let first = first_of(generation);
        self.last_tenant = self.last_tenant.max(TenantId(first));
        self.last_principal = self.last_principal.max(PrincipalId(first));
        self.keys_from = u32::try_from(generation).unwrap_or(u32::MAX).saturating_mul(KEYS_OF_A_GENERATION);
        for record in self.tenants.values_mut() {
            (record.changed, record.keys_from) = (index, self.keys_from);
            // Its blocks since the backup are not known: the next wrap needs a new key.
            record.blocks = NONCE_BLOCKS_MAX;
        }
    }

    pub(super) fn create_principal(&mut self, tenant: TenantId) -> Result<Outcome, Rejection> {
        let record = self.tenants.get_mut(&tenant).ok_or(Rejection::Unknown("tenant"))?;
        self.last_principal = PrincipalId(self.last_principal.0 + 1);
        record.principals.push(self.last_principal);
        Ok(Outcome::Principal(tenant, self.last_principal))
    }

    pub(super) fn reserve_nonces(
        &mut self,
        tenant: TenantId,
        fresh: Option<&WrappedKey>,
    ) -> Result<Outcome, Rejection> {
        let record = self.tenants.get_mut(&tenant).ok_or(Rejection::Unknown("tenant"))?;
        if record.is_used_up() {
            let next = record.next_key();
            let key = fresh.filter(|key| key.version == next).ok_or(Rejection::KeyUsedUp)?;
            record.keys.insert(next, key.clone());
            record.blocks = 0;
        }
        let prefix = record.blocks;
        record.blocks += 1;
        Ok(Outcome::Nonces { version: record.newest_key(), prefix })
    }
}
