//! Puts, deletes, undeletes and outcomes at the primary: each is evaluated against the committed
//! state when no other mutation of its key is under way, becomes one record, and is answered when
//! that record is committed.
//!
//! A token takes effect at most once, and nothing is ever answered from an uncommitted record.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use trefoil_engine::index::{ObjectVersion, Outcome, TokenResult, TokenState, VersionState};
use trefoil_engine::{Disk, DiskError, Index, StageError};
use trefoil_protocol::config::{Member, VolumeConfig};
use trefoil_protocol::ids::{Hash, Lsn, NameTag, PrincipalId, Token, VersionId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{
    Precondition, PutReceipt, PutRequest, Refusal, TenantAnswer, TenantCall, TenantResponse, TokenUse,
    UploadEnd,
};
use trefoil_protocol::mutant;
use trefoil_protocol::record::{Cause, Delete, Erasable, Put, Record, RecordBody, RecordPosition, Undelete};
use trefoil_protocol::time::{BootTime, lease};

use super::emptied::give_back;
use super::holding::Holding;
use super::orphans::is_settled;
use super::owing::owed;
use super::primary::Primary;
use crate::event::RequestId;
use crate::outbox::Context;

/// Mutations that may wait for one key.
const QUEUE_MAX: usize = 64;
/// Records that may be under way in one volume.
const PENDING_MAX: usize = 4096;

/// What a mutation wants.
#[derive(Clone, Debug)]
pub enum Intent {
    /// Store a version.
    Put {
        /// The request.
        request: Box<PutRequest>,
        /// What its bytes amount to.
        end: UploadEnd,
        /// The bytes, if they ride in the record.
        inline: Option<Bytes>,
    },
    /// Hide the live version.
    Delete {
        /// The name.
        key: ObjectKey,
        /// What must be true.
        precondition: Precondition,
    },
    /// Bring a deleted version back.
    Undelete {
        /// The name.
        key: ObjectKey,
        /// Its keyed hash.
        name_tag: NameTag,
        /// The version, if not the last deleted one.
        version: Option<VersionId>,
    },
}

/// A mutation that was asked for.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// Who hears the answer.
    pub request: RequestId,
    /// Who asks, from the certificate.
    pub principal: PrincipalId,
    /// Its token.
    pub token: TokenUse,
    /// Hash of the request.
    pub hash: Hash,
    /// What it wants.
    pub intent: Intent,
    /// Until when its client listens: what is not begun by then is not begun.
    pub until: BootTime,
}

/// The hash that a token is bound to: of the whole call but for the mark that moves between retries.
pub fn request_hash(call: &TenantCall) -> Hash {
    let mut call = call.clone();
    if let TenantCall::Put(PutRequest { token, .. })
    | TenantCall::Delete { token, .. }
    | TenantCall::Undelete { token, .. } = &mut call
    {
        token.confirmed_below = 0;
    }
    Hash(*blake3::hash(&trefoil_protocol::codec::to_vec(&call)).as_bytes())
}

/// The primary's desk, at which a mutation is evaluated.
pub struct Desk<'d, D: Disk> {
    /// What this store holds.
    pub holding: &'d mut Holding<D>,
    /// The configuration.
    pub config: &'d VolumeConfig,
    /// The epoch's state.
    pub primary: &'d Primary,
    /// This store's membership.
    pub me: Member,
}

#[derive(Clone, Copy, Debug)]
enum Waiter {
    Mutation(RequestId),
    Outcome(RequestId),
}

#[derive(Debug)]
struct Pending {
    keys: Vec<ObjectKey>,
    token: Option<Token>,
    waiters: Vec<Waiter>,
}

#[derive(Debug, Default)]
struct KeyQueue {
    under_way: bool,
    waiting: VecDeque<Mutation>,
}

/// A token that is in use but not yet in the committed log.
#[derive(Debug)]
struct InUse {
    hash: Hash,
    /// The record, once there is one; waiters are with it then.
    record: Option<Lsn>,
    waiters: Vec<Waiter>,
    /// Until when anybody listens to what becomes of it.
    until: BootTime,
}

/// Everything asked of a primary that is not answered.
#[derive(Debug, Default)]
pub struct Mutations {
    keys: BTreeMap<ObjectKey, KeyQueue>,
    pending: BTreeMap<Lsn, Pending>,
    tokens: BTreeMap<Token, InUse>,
    /// Answers to deletes and undeletes that the control plane does not have yet, by record.
    held: BTreeMap<Lsn, Vec<(RequestId, TenantResponse)>>,
}

/// A record to be: what an evaluation decides.
struct Draft {
    body: RecordBody,
    wrapped: Option<Bytes>,
    erasable: Option<Erasable>,
}

/// What became of a mutation at its turn.
enum Attempt {
    UnderWay(Lsn),
    Decided(Box<Decided>),
    Refused(Refusal),
}

/// The answer to a mutation whose token was decided before.
pub(super) struct Decided {
    outcome: Option<Outcome>,
    response: TenantResponse,
}

impl Decided {
    fn refused(refusal: Refusal) -> Self {
        Self { outcome: None, response: Err(refusal) }
    }

    fn of<D: Disk>(outcome: Outcome, desk: &Desk<'_, D>) -> Self {
        Self { outcome: Some(outcome), response: answer(&outcome, desk) }
    }

    /// As the answer to the question what became of it.
    fn into_outcome(self) -> Self {
        let response = match &self.outcome {
            Some(outcome) => as_outcome(outcome, self.response),
            None => self.response,
        };
        Self { outcome: self.outcome, response }
    }

    fn copy(&self) -> Self {
        Self { outcome: self.outcome, response: self.response.clone() }
    }
}

impl Mutations {
    /// Takes a mutation in: answers it from the token table, joins it to itself, or queues it.
    pub fn accept<D: Disk>(&mut self, mutation: Mutation, desk: &mut Desk<'_, D>, cx: &mut Context<'_, D>) {
        let request = mutation.request;
        if let Some(decided) = decided(&mutation.token.token, &mutation.hash, desk) {
            return self.deliver(request, decided, desk, cx);
        }
        let token = mutation.token.token;
        if let Some(in_use) = self.tokens.get_mut(&token) {
            if in_use.hash != mutation.hash && in_use.hash != Hash::ZERO {
                return cx.out.refuse(request, Refusal::TokenMismatch);
            }
            in_use.until = in_use.until.max(mutation.until);
            return self.join(token, Waiter::Mutation(request));
        }
        let key = mutation.key().clone();
        let queued = self.keys.get(&key).map_or(0, |queue| queue.waiting.len());
        if queued >= QUEUE_MAX || self.pending.len() >= PENDING_MAX {
            return cx.out.refuse(request, cx.busy(desk.config));
        }
        let queue = self.keys.entry(key.clone()).or_default();
        let in_use = InUse { hash: mutation.hash, record: None, waiters: Vec::new(), until: mutation.until };
        self.tokens.insert(token, in_use);
        queue.waiting.push_back(mutation);
        self.run(&key, desk, cx);
    }

    /// Answers what became of a token, sealing it first if nothing did.
    pub fn outcome<D: Disk>(
        &mut self,
        request: RequestId,
        token: Token,
        desk: &mut Desk<'_, D>,
        cx: &mut Context<'_, D>,
    ) {
        match desk.holding.index().token_outcome(&token) {
            TokenState::Decided(outcome) => {
                return self.deliver(request, Decided::of(outcome, desk).into_outcome(), desk, cx);
            }
            TokenState::Expired => return cx.out.refuse(request, Refusal::Expired),
            TokenState::Open | TokenState::Mismatch => {}
        }
        if self.tokens.contains_key(&token) {
            return self.join(token, Waiter::Outcome(request));
        }
        if desk.primary.refuses_writes(desk.config) {
            return cx.out.refuse(request, Refusal::Unavailable);
        }
        if mutant!(R14, false, true) {
            return cx.out.answer(request, TenantAnswer::NotApplied);
        }
        match self.append(RecordBody::Void { token }, None, None, desk, cx) {
            Ok(lsn) => {
                let waiters = vec![Waiter::Outcome(request)];
                self.pending.insert(lsn, Pending { keys: Vec::new(), token: Some(token), waiters });
                let in_use =
                    InUse { hash: Hash::ZERO, record: Some(lsn), waiters: Vec::new(), until: cx.now };
                self.tokens.insert(token, in_use);
            }
            Err(refusal) => cx.out.refuse(request, refusal),
        }
    }

    /// Whether no mutation of any of these keys is under way.
    pub fn are_free<'k>(&self, keys: impl IntoIterator<Item = &'k ObjectKey>) -> bool {
        keys.into_iter().all(|key| self.keys.get(key).is_none_or(|queue| !queue.under_way))
    }

    /// Appends a record that no client asked for; mutations of `keys` wait until it is committed.
    pub fn append_own<D: Disk>(
        &mut self,
        body: RecordBody,
        keys: Vec<ObjectKey>,
        desk: &mut Desk<'_, D>,
        cx: &mut Context<'_, D>,
    ) -> Option<Lsn> {
        let lsn = self.append(body, None, None, desk, cx).ok()?;
        for key in &keys {
            self.keys.entry(key.clone()).or_default().under_way = true;
        }
        self.pending.insert(lsn, Pending { keys, token: None, waiters: Vec::new() });
        Some(lsn)
    }

    /// Whether a record of this node's own making is still on its way.
    pub fn is_pending(&self, lsn: Lsn) -> bool {
        self.pending.contains_key(&lsn)
    }

    /// Records were committed: answers who waits for them, and goes on with their keys.
    pub fn committed<D: Disk>(
        &mut self,
        records: &[Record],
        desk: &mut Desk<'_, D>,
        cx: &mut Context<'_, D>,
    ) {
        let mut free = BTreeSet::new();
        for record in records {
            let Some(pending) = self.pending.remove(&record.lsn()) else { continue };
            let joined = pending.token.and_then(|token| self.tokens.remove(&token));
            let waiters = pending.waiters.iter().chain(joined.iter().flat_map(|in_use| &in_use.waiters));
            if let Some(token) = pending.token
                && let TokenState::Decided(outcome) = desk.holding.index().token_outcome(&token)
            {
                let decided = Decided::of(outcome, desk);
                for waiter in waiters.copied().collect::<Vec<_>>() {
                    match waiter {
                        Waiter::Mutation(request) => self.deliver(request, decided.copy(), desk, cx),
                        Waiter::Outcome(request) => {
                            self.deliver(request, decided.copy().into_outcome(), desk, cx);
                        }
                    }
                }
            }
            for key in pending.keys {
                if let Some(queue) = self.keys.get_mut(&key) {
                    queue.under_way = false;
                    free.insert(key);
                }
            }
        }
        for key in free {
            self.run(&key, desk, cx);
        }
        give_back(&mut self.pending);
        give_back(&mut self.keys);
        give_back(&mut self.tokens);
    }

    /// Answers, unless it is about a delete or undelete that the control plane must have first.
    pub(super) fn deliver<D: Disk>(
        &mut self,
        request: RequestId,
        decided: Decided,
        desk: &Desk<'_, D>,
        cx: &mut Context<'_, D>,
    ) {
        if let Some(outcome) = &decided.outcome
            && desk.primary.refuses_writes(desk.config)
            && !desk.primary.is_in_both(outcome.lsn)
        {
            // It was begun before the other data centre was lost. It may stay, or be lost with this
            // one: nobody is promised anything.
            return cx.out.refuse(request, Refusal::Unavailable);
        }
        let hides =
            |o: &Outcome| matches!(o.result, TokenResult::Deleted { .. } | TokenResult::Undeleted { .. });
        match decided.outcome.filter(hides).filter(|outcome| desk.primary.owes_note(outcome.lsn)) {
            Some(outcome) => {
                self.held.entry(outcome.lsn).or_default().push((request, decided.response));
            }
            None => cx.out.respond(request, decided.response),
        }
    }

    /// Whether nobody waits for anything.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.tokens.is_empty() && self.held.is_empty()
    }

    /// Whether answers wait for the control plane.
    pub fn holds_answers(&self) -> bool {
        !self.held.is_empty()
    }

    /// Gives the answers that need not wait any more.
    pub fn release<D: Disk>(&mut self, primary: &Primary, holding: &Holding<D>, cx: &mut Context<'_, D>) {
        if !primary.is_serving(holding) {
            return;
        }
        while let Some(entry) = self.held.first_entry().filter(|entry| !primary.owes_note(*entry.key())) {
            for (request, response) in entry.remove() {
                cx.out.respond(request, response);
            }
        }
    }

    /// Records above `last` were cut: what waits for them may or may not happen later.
    pub fn cut<D: Disk>(&mut self, last: Lsn, cx: &mut Context<'_, D>) {
        for (_, pending) in self.pending.split_off(&last.next()) {
            for key in &pending.keys {
                if let Some(queue) = self.keys.get_mut(key) {
                    queue.under_way = false;
                }
            }
            let joined = pending.token.and_then(|token| self.tokens.remove(&token));
            let joined = joined.map(|in_use| in_use.waiters).unwrap_or_default();
            refuse_all(pending.waiters.into_iter().chain(joined), &Refusal::Unavailable, cx);
        }
    }

    /// This node is not the primary any more: everybody asks the next one.
    pub fn abandon<D: Disk>(&mut self, refusal: &Refusal, cx: &mut Context<'_, D>) {
        let Self { keys, pending, tokens, held } = std::mem::take(self);
        for (request, _) in held.into_values().flatten() {
            cx.out.refuse(request, refusal.clone());
        }
        let queued = keys.into_values().flat_map(|queue| queue.waiting);
        refuse_all(queued.map(|mutation| Waiter::Mutation(mutation.request)), refusal, cx);
        refuse_all(pending.into_values().flat_map(|pending| pending.waiters), refusal, cx);
        refuse_all(tokens.into_values().flat_map(|in_use| in_use.waiters), refusal, cx);
    }

    fn join(&mut self, token: Token, waiter: Waiter) {
        let in_use = self.tokens.get_mut(&token).expect("the caller found it");
        match in_use.record.and_then(|lsn| self.pending.get_mut(&lsn)) {
            Some(pending) => pending.waiters.push(waiter),
            None => in_use.waiters.push(waiter),
        }
    }

    /// Evaluates what waits for a key, until something is under way.
    fn run<D: Disk>(&mut self, key: &ObjectKey, desk: &mut Desk<'_, D>, cx: &mut Context<'_, D>) {
        loop {
            let Some(queue) = self.keys.get_mut(key) else { return };
            if queue.under_way {
                return;
            }
            let Some(mutation) = queue.waiting.pop_front() else {
                self.keys.remove(key);
                return;
            };
            if self.is_late(&mutation, cx.now) {
                self.drop_late(&mutation, desk, cx);
            } else {
                self.start(mutation, desk, cx);
            }
        }
    }

    /// Whether nobody listens to what would become of it.
    fn is_late(&self, mutation: &Mutation, now: BootTime) -> bool {
        self.tokens.get(&mutation.token.token).is_some_and(|in_use| now > in_use.until)
    }

    /// Its turn comes too late: it is not begun, and whoever asks after it hears nothing of it yet.
    fn drop_late<D: Disk>(&mut self, mutation: &Mutation, desk: &Desk<'_, D>, cx: &mut Context<'_, D>) {
        let joined = self.tokens.remove(&mutation.token.token).map(|in_use| in_use.waiters);
        cx.out.refuse_late(mutation.request);
        for waiter in joined.unwrap_or_default() {
            match waiter {
                Waiter::Mutation(request) => cx.out.refuse_late(request),
                Waiter::Outcome(request) => cx.out.refuse(request, cx.busy(desk.config)),
            }
        }
    }

    fn start<D: Disk>(&mut self, mutation: Mutation, desk: &mut Desk<'_, D>, cx: &mut Context<'_, D>) {
        let token = mutation.token.token;
        let waiter = Waiter::Mutation(mutation.request);
        match self.attempt(&mutation, desk, cx) {
            Attempt::UnderWay(lsn) => {
                let keys = vec![mutation.key().clone()];
                self.pending.insert(lsn, Pending { keys, token: Some(token), waiters: vec![waiter] });
                self.keys.entry(mutation.key().clone()).or_default().under_way = true;
                if let Some(in_use) = self.tokens.get_mut(&token) {
                    in_use.record = Some(lsn);
                }
            }
            Attempt::Decided(decided) => self.answer_all(&mutation, &decided, desk, cx),
            Attempt::Refused(refusal) => self.answer_all(&mutation, &Decided::refused(refusal), desk, cx),
        }
    }

    /// Answers a mutation that needs no record, and whoever joined it.
    fn answer_all<D: Disk>(
        &mut self,
        mutation: &Mutation,
        decided: &Decided,
        desk: &Desk<'_, D>,
        cx: &mut Context<'_, D>,
    ) {
        let joined = self.tokens.remove(&mutation.token.token).map(|in_use| in_use.waiters);
        self.deliver(mutation.request, decided.copy(), desk, cx);
        for waiter in joined.unwrap_or_default() {
            match waiter {
                Waiter::Mutation(request) => self.deliver(request, decided.copy(), desk, cx),
                // Nothing is sealed: it was refused, and the client may try again.
                Waiter::Outcome(request) => cx.out.refuse(request, cx.busy(desk.config)),
            }
        }
    }

    fn attempt<D: Disk>(
        &mut self,
        mutation: &Mutation,
        desk: &mut Desk<'_, D>,
        cx: &mut Context<'_, D>,
    ) -> Attempt {
        if let Some(decided) = decided(&mutation.token.token, &mutation.hash, desk) {
            return Attempt::Decided(Box::new(decided));
        }
        let draft = evaluate(mutation, desk, cx);
        let appended =
            draft.and_then(|draft| self.append(draft.body, draft.wrapped, draft.erasable, desk, cx));
        match appended {
            Ok(lsn) => Attempt::UnderWay(lsn),
            Err(refusal) => Attempt::Refused(refusal),
        }
    }

    fn append<D: Disk>(
        &mut self,
        body: RecordBody,
        wrapped: Option<Bytes>,
        erasable: Option<Erasable>,
        desk: &mut Desk<'_, D>,
        cx: &mut Context<'_, D>,
    ) -> Result<Lsn, Refusal> {
        let last = desk.holding.last();
        let position = RecordPosition {
            tenant: desk.config.tenant,
            volume: desk.config.volume,
            epoch: desk.config.epoch,
            lsn: last.lsn.next(),
            previous: last.hash,
        };
        let record = Record::new(position, body, wrapped, erasable.as_ref());
        match desk.holding.append(record, cx.now) {
            Ok(()) => Ok(position.lsn),
            Err(StageError::Disk(DiskError::Full { .. })) => Err(Refusal::Full),
            Err(error) => {
                cx.out.fail_store(error);
                Err(Refusal::Unavailable)
            }
        }
    }
}

impl Mutation {
    fn key(&self) -> &ObjectKey {
        match &self.intent {
            Intent::Put { request, .. } => &request.key,
            Intent::Delete { key, .. } | Intent::Undelete { key, .. } => key,
        }
    }

    /// Why it must wait, if the bytes that it would hide, replace or bring back are not here.
    fn owed<D: Disk>(&self, desk: &Desk<'_, D>) -> Option<Refusal> {
        let index = desk.holding.index();
        let object = match &self.intent {
            Intent::Put { request, .. } => index.latest(&request.key),
            Intent::Delete { key, .. } => index.latest(key),
            Intent::Undelete { key, version: None, .. } => last_deleted(index, key),
            Intent::Undelete { version: Some(version), .. } => index.version(*version),
        };
        owed(object, &desk.me, desk.holding, desk.config)
    }

    /// Whether a version is hidden or brought back by it.
    fn hides<D: Disk>(&self, desk: &Desk<'_, D>) -> bool {
        match &self.intent {
            Intent::Put { request, .. } => desk.holding.index().latest(&request.key).is_some(),
            Intent::Delete { .. } | Intent::Undelete { .. } => true,
        }
    }

    fn cause<D: Disk>(&self, cx: &Context<'_, D>) -> Cause {
        Cause {
            token: self.token.token,
            confirmed_below: self.token.confirmed_below,
            request: self.hash,
            principal: self.principal,
            // The control plane's clock may be ahead of what was heard by as much as the lease lasts.
            at: cx.view.now + lease::LENGTH,
        }
    }
}

/// The answer to a mutation whose token was decided before.
pub(super) fn decided<D: Disk>(token: &Token, hash: &Hash, desk: &Desk<'_, D>) -> Option<Decided> {
    match desk.holding.index().token(token, hash) {
        TokenState::Open => None,
        TokenState::Decided(outcome) => {
            mutant!(M25, Some(Decided::of(outcome, desk)), forgetful_answer(outcome, desk))
        }
        TokenState::Mismatch => Some(Decided::refused(Refusal::TokenMismatch)),
        TokenState::Expired => Some(Decided::refused(Refusal::Expired)),
    }
}

/// Forgets the tokens of earlier epochs.
#[cfg(feature = "mutants")]
fn forgetful_answer<D: Disk>(outcome: Outcome, desk: &Desk<'_, D>) -> Option<Decided> {
    let point = desk.holding.point(outcome.lsn)?;
    (point.epoch == desk.config.epoch).then(|| Decided::of(outcome, desk))
}

/// What a mutation does to the committed state, or why it does nothing. Either needs the lease: a refusal that the state
/// decides is as good as a read, and whoever the control plane has lost acknowledges no more than it may lose.
fn evaluate<D: Disk>(
    mutation: &Mutation,
    desk: &Desk<'_, D>,
    cx: &mut Context<'_, D>,
) -> Result<Draft, Refusal> {
    if !cx.leased(desk.config) {
        return Err(Refusal::LeaseExpired);
    }
    if desk.primary.refuses_writes(desk.config) {
        return Err(Refusal::SingleDc);
    }
    if let Some(refusal) = mutation.owed(desk) {
        return Err(refusal);
    }
    if desk.primary.is_short_of_room() && matches!(mutation.intent, Intent::Put { .. }) {
        return Err(Refusal::Full);
    }
    if desk.primary.may_hide_no_more() && mutation.hides(desk) {
        return Err(cx.busy(desk.config));
    }
    match &mutation.intent {
        Intent::Put { request, end, inline } => put(mutation, request, end, inline.clone(), desk, cx),
        Intent::Delete { key, precondition } => delete(mutation, key, *precondition, desk, cx),
        Intent::Undelete { key, name_tag, version } => undelete(mutation, key, *name_tag, *version, desk, cx),
    }
}

fn put<D: Disk>(
    mutation: &Mutation,
    request: &PutRequest,
    end: &UploadEnd,
    inline: Option<Bytes>,
    desk: &Desk<'_, D>,
    cx: &mut Context<'_, D>,
) -> Result<Draft, Refusal> {
    let index = desk.holding.index();
    let live = index.latest(&request.key).map(|object| object.version());
    check(request.precondition, live)?;
    if index.version(request.upload.version).is_some() {
        return Err(Refusal::Invalid("the version id is in use".into()));
    }
    if is_settled(desk.holding, request.upload) {
        return Err(Refusal::Expired);
    }
    let put = Put {
        upload: request.upload,
        root: end.root,
        sealed_length: end.sealed_length,
        name_tag: request.name_tag,
        kek_version: request.kek_version,
        replaces: live,
        window: desk.config.window,
        cause: mutation.cause(cx),
    };
    let salt = cx.out.salt();
    let erasable = Erasable {
        salt: salt[..16].try_into().expect("16 of 32 bytes"),
        key: request.key.clone(),
        metadata: end.metadata.clone(),
        payload: inline,
    };
    let wrapped = Some(request.wrapped_key.clone());
    Ok(Draft { body: RecordBody::Put(put), wrapped, erasable: Some(erasable) })
}

fn delete<D: Disk>(
    mutation: &Mutation,
    key: &ObjectKey,
    precondition: Precondition,
    desk: &Desk<'_, D>,
    cx: &Context<'_, D>,
) -> Result<Draft, Refusal> {
    let live = desk.holding.index().latest(key).map(|object| object.version());
    if precondition == Precondition::Absent {
        return Err(Refusal::Invalid("a delete of what must be absent".into()));
    }
    let version = live.ok_or(Refusal::NotFound)?;
    check(precondition, live)?;
    let body = Delete { version, window: desk.config.window, cause: mutation.cause(cx) };
    Ok(Draft { body: RecordBody::Delete(body), wrapped: None, erasable: None })
}

fn undelete<D: Disk>(
    mutation: &Mutation,
    key: &ObjectKey,
    name_tag: NameTag,
    version: Option<VersionId>,
    desk: &Desk<'_, D>,
    cx: &Context<'_, D>,
) -> Result<Draft, Refusal> {
    let index = desk.holding.index();
    let object = match version {
        Some(version) => index.version(version).filter(|object| object.name_tag == name_tag),
        None => last_deleted(index, key),
    };
    let object = object.ok_or_else(|| nothing_deleted(index, key, name_tag))?;
    let tombstone = match object.state {
        VersionState::Live => return Err(Refusal::PreconditionFailed),
        VersionState::Deleted(tombstone) => tombstone.lsn,
        _ => return Err(Refusal::Gone),
    };
    if index.latest(key).is_some() {
        return Err(Refusal::PreconditionFailed);
    }
    let body = Undelete { version: object.version(), tombstone, cause: mutation.cause(cx) };
    Ok(Draft { body: RecordBody::Undelete(body), wrapped: None, erasable: None })
}

fn last_deleted<'i>(index: &'i Index, key: &ObjectKey) -> Option<&'i ObjectVersion> {
    let deleted = index.versions_of(key).filter_map(|object| match object.state {
        VersionState::Deleted(tombstone) => Some((tombstone.lsn, object)),
        _ => None,
    });
    deleted.max_by_key(|(lsn, _)| *lsn).map(|(_, object)| object)
}

/// Why there is nothing to undelete: it is not deleted, it is gone for ever, or it never was.
fn nothing_deleted(index: &Index, key: &ObjectKey, name_tag: NameTag) -> Refusal {
    if index.latest(key).is_some() {
        Refusal::PreconditionFailed
    } else if index.by_tag(name_tag).next().is_some() {
        Refusal::Gone
    } else {
        Refusal::NotFound
    }
}

fn check(precondition: Precondition, live: Option<VersionId>) -> Result<(), Refusal> {
    let holds = match precondition {
        Precondition::Any => true,
        Precondition::Absent => live.is_none(),
        Precondition::Version(version) => live == Some(version),
    };
    if holds { Ok(()) } else { Err(Refusal::PreconditionFailed) }
}

/// The answer that a decided token has, now and on every retry.
fn answer<D: Disk>(outcome: &Outcome, desk: &Desk<'_, D>) -> TenantResponse {
    let lsn = outcome.lsn;
    match outcome.result {
        TokenResult::Put { version } => {
            let object = desk.holding.index().version(version).ok_or(Refusal::Unavailable)?;
            if let Some(refusal) = owed(Some(object), &desk.me, desk.holding, desk.config) {
                return Err(refusal);
            }
            Ok(TenantAnswer::Stored(PutReceipt {
                version,
                lsn,
                epoch: object.epoch,
                root: object.root,
                protection: desk.config.protection,
                copies: desk.primary.copies(lsn, &desk.me),
            }))
        }
        TokenResult::Deleted { version } => {
            let record = desk.holding.record(lsn).map_err(|_| Refusal::Unavailable)?;
            let RecordBody::Delete(delete) = record.body() else { return Err(Refusal::Unavailable) };
            let window_ends = delete.cause.at + delete.window.into();
            Ok(TenantAnswer::Deleted { version, tombstone: lsn, window_ends })
        }
        TokenResult::Undeleted { version } => Ok(TenantAnswer::Undeleted { version, lsn }),
        TokenResult::Refused => Err(Refusal::PreconditionFailed),
        TokenResult::Void => Err(Refusal::Expired),
    }
}

fn as_outcome(outcome: &Outcome, response: TenantResponse) -> TenantResponse {
    match outcome.result {
        TokenResult::Void | TokenResult::Refused => Ok(TenantAnswer::NotApplied),
        _ => response.map(|answer| TenantAnswer::Applied(Box::new(answer))),
    }
}

fn refuse_all<D: Disk>(waiters: impl Iterator<Item = Waiter>, refusal: &Refusal, cx: &mut Context<'_, D>) {
    for waiter in waiters {
        let (Waiter::Mutation(request) | Waiter::Outcome(request)) = waiter;
        cx.out.refuse(request, refusal.clone());
    }
}
