//! What a voter that knows no leader tells a tenant that allows stale reads: where its volumes were, and
//! the keys to open what can be read. Nothing is counted out and nothing decided, so it needs no majority; whoever
//! is told may be told of yesterday.

use trefoil_protocol::config::StaleReads;
use trefoil_protocol::message::tenant::{TenantCall, TenantRequest};

use super::outcome::keys_to_read;
use super::route;
use crate::custodian::Keyring;
use crate::event::{Answer, Request};
use crate::state::State;

/// The answer, if one can be given without a leader.
pub(crate) fn answer(state: &State, keyring: Option<&Keyring>, request: &Request) -> Option<Answer> {
    let Request::Tenant(tenant, principal, TenantRequest { call, .. }) = request else { return None };
    let record = state.tenants.get(*tenant).filter(|record| record.has_principal(*principal))?;
    if record.entry.stale_reads != StaleReads::Allow {
        return None;
    }
    let response = match call {
        TenantCall::Route => Ok(route(state, record, *principal)),
        TenantCall::KeysToRead => keys_to_read(state, keyring, *tenant),
        _ => return None,
    };
    Some(Answer::Tenant(response))
}
