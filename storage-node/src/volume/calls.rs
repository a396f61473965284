//! Clients' calls about one volume: what may be asked of this store now, and which protocol answers.
//! Only a primary whose epoch has begun answers anything but exact versions.

use super::holding::Holding;
use super::mutations::{self, Desk, Intent, Mutation, Mutations, request_hash};
use super::owing::owed;
use super::reads::{self, Counter};
use super::replica::{Replica, Role};
use super::uploads::{Arrived, check_metadata};
use std::time::Duration;

use crate::authorise::TenantScope;
use crate::event::RequestId;
use crate::outbox::Context;
use bytes::Bytes;
use trefoil_engine::Disk;
use trefoil_protocol::config::{Member, MemberState, VolumeConfig};
use trefoil_protocol::ids::{Epoch, Hash, Token};
use trefoil_protocol::message::tenant::{Refusal, Selector, TenantCall, UploadEnd, UploadPart, Want};
use trefoil_protocol::record::{INLINE_MAX, WRAPPED_MAX};

/// A client's request: who asks what of whom is proven, and for how long its answer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Its number.
    pub request: RequestId,
    /// That this tenant may ask this volume.
    pub scope: TenantScope,
    /// The volume's epoch as the client knows it.
    pub epoch: Epoch,
    /// For how long the client listens, from its last frame on.
    pub within: Duration,
}

impl<D: Disk> Replica<D> {
    /// A client's request about this volume.
    pub fn request(&mut self, ask: Ask, call: TenantCall, bulk: Bytes, cx: &mut Context<'_, D>) {
        assert!(ask.scope.volume() == self.config.volume, "a proof for another volume");
        if let Err(refusal) = self.call(ask, call, bulk, cx) {
            cx.out.refuse(ask.request, refusal);
        }
        self.settle(cx);
    }

    fn call(
        &mut self,
        ask: Ask,
        call: TenantCall,
        bulk: Bytes,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        let request = ask.request;
        if let TenantCall::Get { key, selector, want } = &call
            && let Some(version) = selector.version()
            && !self.is_serving()
        {
            // A member that catches up may not have heard of a delete that was acknowledged, nobody has of
            // those that are to be replayed, and whoever waits to be told where it stands knows nothing.
            let is_told = !matches!(self.role, Role::Absent);
            let knows = |me: &Member| me.state == MemberState::InSync && !self.config.replays && is_told;
            let in_sync = self.me(cx).filter(knows);
            let me = in_sync.ok_or_else(|| self.not_primary())?;
            let (holding, config, within) = (&self.holding, &*self.config, ask.within);
            let counter = Counter { holding, config, primary: None, me, within };
            let given = self.reads.exact(request, key, (*selector, version), want, &counter, cx);
            let denies =
                |refusal| if cx.leased(&self.config) { self.denied(refusal, ask.epoch) } else { refusal };
            return given.map_err(denies);
        }
        self.check_serving()?;
        self.check_handover(&call)?;
        match call {
            TenantCall::Put(_) | TenantCall::Delete { .. } | TenantCall::Undelete { .. } => {
                self.mutate(ask, call, bulk, cx)
            }
            TenantCall::Outcome { token } => {
                let (mutations, mut desk) = self.desk(cx).ok_or(Refusal::Unavailable)?;
                mutations.outcome(request, token, &mut desk, cx);
                Ok(())
            }
            TenantCall::Get { key, selector, want } => self.get(ask, &key, selector, &want, cx),
            call => self.look_up(ask, &call, cx),
        }
    }

    /// That a version is not live is the word of a primary that serves. Until its epoch has begun it may not have applied
    /// what was acknowledged; and of a member that word is taken for its primary's by whoever does not know that
    /// another one leads now.
    fn denied(&self, refusal: Refusal, known: Epoch) -> Refusal {
        match (&refusal, &self.role) {
            (Refusal::Changed, Role::Peering(_) | Role::Primary(_)) => Refusal::LeaseExpired,
            (Refusal::Changed, _) if known != self.config.epoch => self.not_primary(),
            _ => refusal,
        }
    }

    /// Only a primary whose epoch has begun answers anything but exact versions.
    fn check_serving(&self) -> Result<(), Refusal> {
        match &self.role {
            Role::Primary(_) if self.is_serving() => Ok(()),
            _ if self.stopped().is_some() => Err(Refusal::Unavailable),
            Role::Primary(_) | Role::Peering(_) => Err(Refusal::LeaseExpired),
            Role::Stopped(_) => Err(Refusal::Unavailable),
            Role::Member(_) | Role::Absent => Err(self.not_primary()),
        }
    }

    /// The mutations with the desk they are evaluated at, if this store is the primary.
    pub(super) fn desk(&mut self, cx: &Context<'_, D>) -> Option<(&mut Mutations, Desk<'_, D>)> {
        let me = self.me(cx)?;
        let Role::Primary(primary) = &self.role else { return None };
        let desk = Desk { holding: &mut self.holding, config: &self.config, primary, me };
        Some((&mut self.mutations, desk))
    }

    fn mutate(
        &mut self,
        ask: Ask,
        call: TenantCall,
        bulk: Bytes,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        let Ask { request, scope, within, .. } = ask;
        let (principal, hash) = (scope.principal(), request_hash(&call));
        let (token, intent) = match call {
            TenantCall::Put(put) => {
                if put.wrapped_key.len() > WRAPPED_MAX {
                    return Err(Refusal::Invalid("the wrapped key is too long".into()));
                }
                let Some(end) = put.inline.clone() else {
                    if self.answers_at_once(request, put.token.token, &hash, cx) {
                        return Ok(());
                    }
                    self.check_policy()?;
                    self.check_owed(&put.key, cx)?;
                    self.uploads.begin(ask, Box::new(put), hash);
                    return Ok(());
                };
                check_inline(&end, &bulk)?;
                (put.token, Intent::Put { request: Box::new(put), end, inline: Some(bulk) })
            }
            TenantCall::Delete { key, precondition, token } => (token, Intent::Delete { key, precondition }),
            TenantCall::Undelete { key, name_tag, version, token } => {
                (token, Intent::Undelete { key, name_tag, version })
            }
            _ => return Err(Refusal::Invalid("no mutation".into())),
        };
        let mutation = Mutation { request, principal, token, hash, intent, until: cx.now + within };
        let (mutations, mut desk) = self.desk(cx).ok_or(Refusal::Unavailable)?;
        mutations.accept(mutation, &mut desk, cx);
        Ok(())
    }

    /// Whether a write may be begun: not one whose bytes would be sent in vain.
    fn check_policy(&self) -> Result<(), Refusal> {
        match &self.role {
            Role::Primary(primary) if primary.refuses_writes(&self.config) => Err(Refusal::SingleDc),
            Role::Primary(primary) if primary.is_short_of_room() => Err(Refusal::Full),
            _ => Ok(()),
        }
    }

    /// Whether the version that a put replaces is here.
    fn check_owed(&self, key: &trefoil_protocol::key::ObjectKey, cx: &Context<'_, D>) -> Result<(), Refusal> {
        let me = self.me(cx).ok_or(Refusal::Unavailable)?;
        owed(self.holding.index().latest(key), &me, &self.holding, &self.config).map_or(Ok(()), Err)
    }

    /// A retry of a streamed put that was decided needs no bytes.
    fn answers_at_once(
        &mut self,
        request: RequestId,
        token: Token,
        hash: &Hash,
        cx: &mut Context<'_, D>,
    ) -> bool {
        let Some((mutations, desk)) = self.desk(cx) else { return false };
        let Some(decided) = mutations::decided(&token, hash, &desk) else { return false };
        mutations.deliver(request, decided, &desk, cx);
        true
    }

    fn get(
        &mut self,
        ask: Ask,
        key: &trefoil_protocol::key::ObjectKey,
        selector: Selector,
        want: &Want,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        let me = self.me(cx).ok_or(Refusal::Unavailable)?;
        let counter = primarys_counter(&self.holding, &self.config, &self.role, me, ask.within)?;
        let request = ask.request;
        match selector.version() {
            None => self.reads.latest(request, key, want, &counter, cx),
            Some(version) => self.reads.exact(request, key, (selector, version), want, &counter, cx),
        }
    }

    fn look_up(&mut self, ask: Ask, call: &TenantCall, cx: &mut Context<'_, D>) -> Result<(), Refusal> {
        let me = self.me(cx).ok_or(Refusal::Unavailable)?;
        let counter = primarys_counter(&self.holding, &self.config, &self.role, me, ask.within)?;
        let answer = match call {
            TenantCall::List { prefix, after, limit } => {
                reads::list(&counter, prefix, after.as_ref(), *limit)
            }
            TenantCall::Deleted { prefix, after, limit } => {
                reads::list_deleted(&counter, prefix, after.as_ref(), *limit)
            }
            TenantCall::PurgeStatus { name_tag, after } => {
                let copies_left = |object: &_| self.purges.copies_left(object, &self.config);
                reads::purge_status(&counter, *name_tag, *after, copies_left)
            }
            TenantCall::Certificates { name_tag, after } => reads::certificates(&counter, *name_tag, *after)?,
            _ => return Err(Refusal::Invalid("no such call at a storage node".into())),
        };
        if !cx.leased(&self.config) {
            return Err(Refusal::LeaseExpired);
        }
        cx.out.answer(ask.request, answer);
        Ok(())
    }

    /// Whether a request is at work here.
    pub fn has_request(&self, request: RequestId) -> bool {
        self.uploads.has(request) || self.reads.has(request)
    }

    /// A further frame of a streamed put.
    pub fn upload(&mut self, request: RequestId, part: UploadPart, bulk: Bytes, cx: &mut Context<'_, D>) {
        if let Err(refusal) = self.check_policy() {
            self.uploads.end(request);
            return cx.out.refuse(request, refusal);
        }
        let arrived = self.uploads.part(request, part, bulk, &mut self.holding, &self.config, cx);
        let accepted = match arrived {
            Ok(Arrived::More) => Ok(()),
            Ok(Arrived::Whole(mutation)) => self.check_serving().map(|()| {
                if let Some((mutations, mut desk)) = self.desk(cx) {
                    mutations.accept(*mutation, &mut desk, cx);
                }
            }),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = accepted {
            cx.out.refuse(request, refusal);
        }
        self.settle(cx);
    }

    /// The client went away. What is under way goes on.
    pub fn gone(&mut self, request: RequestId) {
        self.uploads.end(request);
        self.reads.end(request);
    }
}

/// The counter that a primary answers at. No method of the replica, whose reads are borrowed beside it.
fn primarys_counter<'r, D: Disk>(
    holding: &'r Holding<D>,
    config: &'r VolumeConfig,
    role: &'r Role,
    me: Member,
    within: Duration,
) -> Result<Counter<'r, D>, Refusal> {
    let Role::Primary(primary) = role else { return Err(Refusal::Unavailable) };
    Ok(Counter { holding, config, primary: Some(primary), me, within })
}

fn check_inline(end: &UploadEnd, bulk: &Bytes) -> Result<(), Refusal> {
    if end.sealed_length > INLINE_MAX {
        return Err(Refusal::Invalid("a large object is streamed".into()));
    }
    check_metadata(end)?;
    let matches = bulk.len() as u64 == end.sealed_length && *blake3::hash(bulk).as_bytes() == end.root.0;
    if matches { Ok(()) } else { Err(Refusal::Corrupt) }
}
