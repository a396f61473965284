//! One errand under way: which core operation does it, and what its answer means.

use bytes::{Bytes, BytesMut};
use trefoil_client::core::{
    Event, ExchangeId, Lenient, Listing, ListingKind, Mutation, MutationFailure, Operation, Parts, Patience,
    Question, QuestionFailure, RouteCache, Whom,
};
use trefoil_client::failure::Peer;
use trefoil_protocol::ids::{DcId, VersionId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{
    DataPart, KeysView, ObjectView, Precondition, PutRequest, Refusal, Selector, TenantAnswer, TenantCall,
    TenantRequest, TokenUse, UploadEnd, Want,
};
use trefoil_protocol::record::INLINE_MAX;
use trefoil_protocol::time::BootTime;

use super::asks_of;
use super::keys::{Keys, Sealed};
use crate::product::seen::{Ending, Errand, SealedPut};
use crate::random::Draws;
use crate::workload::Task;

/// Bytes that do not come for this long do not come any more.
const DATA_SILENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Few lines, so that most listings have several pages.
const PAGE_LINES: u32 = 4;

/// What an operation wants from its client.
#[derive(Debug)]
pub(super) enum Ask {
    Send(ExchangeId, Peer, Box<TenantRequest>, Bytes),
    Forget(ExchangeId),
}

/// What came of a step.
#[derive(Debug)]
pub(super) enum Worked {
    Keys(Box<KeysView>),
    Ended(Ending),
}

/// An errand under way.
#[derive(Debug)]
pub(super) struct Work {
    machine: Machine,
    token: Option<TokenUse>,
}

#[derive(Debug)]
enum Machine {
    Learning(Box<Question>),
    Changing(Box<Mutation>, Option<Box<Sealed>>),
    Asking(Box<Question>, Reading),
    /// A version, also where it may be stale.
    Exact(Box<Lenient>),
    Listing(Box<Paging>),
    /// The description is here, the bytes are on their way on this exchange.
    Receiving {
        exchange: ExchangeId,
        view: Box<ObjectView>,
        parts: Box<Parts>,
        bytes: BytesMut,
        until: BootTime,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Bytes,
    Description,
}

impl Work {
    /// Learns the tenant's keys.
    pub(super) fn learn(patience: Patience, now: BootTime, seed: u64) -> Self {
        let question = Question::new(Whom::Custodian, TenantCall::Keys, patience, now, seed);
        Self { machine: Machine::Learning(Box::new(question)), token: None }
    }

    /// Begins an errand; a put is sealed first.
    pub(super) fn of(
        patience: Patience,
        now: BootTime,
        errand: Errand,
        dc: Option<DcId>,
        keys: &mut Keys,
        token: impl FnOnce() -> TokenUse,
        draws: &mut Draws,
    ) -> (Self, Option<SealedPut>) {
        let key = ObjectKey::new(errand.object.key).expect("a workload's keys are short text");
        let seed = draws.next();
        let ask = |want, reading| {
            let call = TenantCall::Get { key: key.clone(), selector: Selector::Latest, want };
            let question = Question::new(Whom::PrimaryOf(key.clone()), call, patience, now, seed);
            Self { machine: Machine::Asking(Box::new(question), reading), token: None }
        };
        let change = |call: TenantCall, bulk, token, sealed: Option<Sealed>| {
            let mutation = Mutation::new(key.clone(), call, bulk, patience, now, seed);
            let machine = Machine::Changing(Box::new(mutation), sealed.map(Box::new));
            Self { machine, token: Some(token) }
        };
        match errand.task {
            Task::Get => (ask(Want::Whole, Reading::Bytes), None),
            Task::Version => {
                let version = errand.version.expect("a read of a version names it");
                let read = Lenient::new(key.clone(), version, Want::Whole, dc, patience, now, seed);
                (Self { machine: Machine::Exact(Box::new(read)), token: None }, None)
            }
            Task::Head => (ask(Want::Head, Reading::Description), None),
            Task::List => {
                let paging = Paging {
                    listing: page_after(None, patience, now, seed),
                    lines: Vec::new(),
                    patience,
                    seed,
                };
                (Self { machine: Machine::Listing(Box::new(paging)), token: None }, None)
            }
            Task::Delete => {
                let token = token();
                let call = TenantCall::Delete { key: key.clone(), precondition: Precondition::Any, token };
                (change(call, Bytes::new(), token, None), None)
            }
            Task::Undelete => {
                let token = token();
                let (name_tag, version) = (keys.name_tag(&key), errand.version);
                let call = TenantCall::Undelete { key: key.clone(), name_tag, version, token };
                (change(call, Bytes::new(), token, None), None)
            }
            Task::Put { .. } => {
                let token = token();
                let sealed = keys.seal(&key, &errand.payload, draws);
                let inline = (sealed.end.sealed_length <= INLINE_MAX).then(|| sealed.end.clone());
                let bulk = if inline.is_some() { sealed.bytes.clone() } else { Bytes::new() };
                let call = TenantCall::Put(PutRequest {
                    key: key.clone(),
                    name_tag: sealed.name_tag,
                    upload: sealed.upload,
                    precondition: Precondition::Any,
                    kek_version: sealed.kek_version,
                    wrapped_key: sealed.wrapped.clone(),
                    inline,
                    token,
                });
                let (bytes, wrapped) = (sealed.bytes.clone(), sealed.wrapped.clone());
                let put = SealedPut { upload: sealed.upload, sealed: bytes, wrapped };
                (change(call, bulk, token, Some(sealed)), Some(put))
            }
        }
    }

    /// The token, once, when the work is over.
    pub(super) fn take_token(&mut self) -> Option<TokenUse> {
        self.token.take()
    }

    pub(super) fn next_wakeup(&self) -> Option<BootTime> {
        match &self.machine {
            Machine::Learning(question) | Machine::Asking(question, _) => question.next_wakeup(),
            Machine::Exact(read) => read.next_wakeup(),
            Machine::Changing(mutation, _) => mutation.next_wakeup(),
            Machine::Listing(paging) => paging.listing.next_wakeup(),
            Machine::Receiving { until, .. } => Some(*until),
        }
    }

    /// The upload that goes out behind this request, if one does.
    pub(super) fn upload_behind(&self, request: &TenantRequest) -> Option<(Bytes, UploadEnd)> {
        match (&request.call, &self.machine) {
            (TenantCall::Put(put), Machine::Changing(_, Some(sealed))) if put.inline.is_none() => {
                Some((sealed.bytes.clone(), sealed.end.clone()))
            }
            _ => None,
        }
    }

    pub(super) fn step(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        event: Event,
    ) -> (Vec<Ask>, Option<Worked>) {
        let exchange = match &event {
            Event::Answered(exchange, _) => Some(*exchange),
            _ => None,
        };
        match &mut self.machine {
            Machine::Learning(question) => {
                let (asks, output) = asks_of(&mut **question, now, routes, event);
                (asks, output.map(learned))
            }
            Machine::Changing(mutation, _) => {
                let token = mutation.token().token;
                let (asks, output) = asks_of(&mut **mutation, now, routes, event);
                (asks, output.map(|output| Worked::Ended(changed(output, token))))
            }
            Machine::Listing(paging) => paging.step(now, routes, event),
            Machine::Asking(question, reading) => {
                let reading = *reading;
                let (asks, output) = asks_of(&mut **question, now, routes, event);
                (asks, output.and_then(|output| self.read(output, reading, exchange, now)))
            }
            Machine::Exact(read) => {
                let (asks, output) = asks_of(&mut **read, now, routes, event);
                let output = output.map(|output| match output {
                    // The primary's word: it is not live.
                    Err(QuestionFailure::Refused(Refusal::Changed)) => {
                        Err(QuestionFailure::Refused(Refusal::NotFound))
                    }
                    output => output,
                });
                (asks, output.and_then(|output| self.read(output, Reading::Bytes, exchange, now)))
            }
            Machine::Receiving { view, until, .. } => {
                let late = now >= *until;
                let found = found(view, None);
                (Vec::new(), late.then_some(Worked::Ended(found)))
            }
        }
    }

    fn read(
        &mut self,
        output: Result<TenantAnswer, QuestionFailure>,
        reading: Reading,
        exchange: Option<ExchangeId>,
        now: BootTime,
    ) -> Option<Worked> {
        let view = match output {
            Ok(TenantAnswer::Object(view)) => view,
            Err(QuestionFailure::Refused(Refusal::NotFound)) => return Some(Worked::Ended(Ending::NotFound)),
            Err(QuestionFailure::Broken(damage)) => {
                return Some(Worked::Ended(Ending::Damaged(damage.to_string())));
            }
            other => return Some(Worked::Ended(Ending::Unknown(format!("{other:?}")))),
        };
        let parts = Parts::whole(view.root, view.sealed_length);
        match (reading, exchange, parts) {
            (Reading::Bytes, Some(exchange), Ok(parts)) => {
                let (view, parts, bytes) = (Box::new(view), Box::new(parts), BytesMut::new());
                let until = now + DATA_SILENCE;
                self.machine = Machine::Receiving { exchange, view, parts, bytes, until };
                None
            }
            (_, _, Err(damage)) => Some(Worked::Ended(Ending::Damaged(damage.to_string()))),
            _ => Some(Worked::Ended(found(&view, None))),
        }
    }

    /// Leaves came behind an answer.
    pub(super) fn data(
        &mut self,
        now: BootTime,
        from: ExchangeId,
        part: DataPart,
        bulk: Bytes,
        keys: Option<&Keys>,
    ) -> Option<Worked> {
        let Machine::Receiving { exchange, view, parts, bytes, until } = &mut self.machine else {
            return None;
        };
        if *exchange != from {
            return None;
        }
        *until = now + DATA_SILENCE;
        match parts.accept(part, bulk) {
            Ok(more) => bytes.extend_from_slice(&more.unwrap_or_default()),
            Err(damage) => return Some(Worked::Ended(Ending::Damaged(damage.to_string()))),
        }
        if !parts.is_complete() {
            return None;
        }
        let sealed = std::mem::take(bytes).freeze();
        let opened = keys.expect("a client with work has keys").open(view, &sealed);
        let version = view.upload.version;
        Some(Worked::Ended(match opened {
            Ok(plain) => found(view, Some(plain)),
            Err(reason) => Ending::Damaged(format!("version {version}: {reason}")),
        }))
    }

    /// The stream behind an answer broke: what was described stands, its bytes do not come.
    pub(super) fn broken(&mut self, from: ExchangeId) -> Option<Worked> {
        match &self.machine {
            Machine::Receiving { exchange, view, .. } if *exchange == from => {
                Some(Worked::Ended(found(view, None)))
            }
            _ => None,
        }
    }
}

fn found(view: &ObjectView, plain: Option<Bytes>) -> Ending {
    let version = view.upload.version;
    match view.stale_possible {
        true => Ending::FoundStale(version, plain),
        false => Ending::Found(version, plain),
    }
}

fn learned(output: Result<TenantAnswer, QuestionFailure>) -> Worked {
    match output {
        Ok(TenantAnswer::Keys(view)) => Worked::Keys(Box::new(view)),
        other => Worked::Ended(Ending::Unknown(format!("{other:?}"))),
    }
}

fn changed(output: Result<TenantAnswer, MutationFailure>, token: trefoil_protocol::ids::Token) -> Ending {
    match output {
        Ok(TenantAnswer::Stored(_)) => Ending::Stored,
        Ok(TenantAnswer::Deleted { version, .. }) => Ending::Deleted(version),
        Ok(TenantAnswer::Undeleted { version, .. }) => Ending::Undeleted(version),
        Ok(other) => Ending::Damaged(format!("a mutation was answered with {other:?}")),
        Err(MutationFailure::Refused(Refusal::NotFound)) => Ending::NotFound,
        Err(MutationFailure::Refused(refusal)) => Ending::Refused(refusal.to_string()),
        Err(MutationFailure::NotApplied(_)) => Ending::NotApplied(token),
        Err(MutationFailure::Unknown(trouble)) => Ending::Unknown(trouble.to_string()),
        Err(MutationFailure::Broken(damage)) => Ending::Damaged(damage.to_string()),
    }
}

/// A listing, page by page.
#[derive(Debug)]
struct Paging {
    listing: Listing,
    lines: Vec<(String, VersionId)>,
    patience: Patience,
    seed: u64,
}

impl Paging {
    fn step(&mut self, now: BootTime, routes: &mut RouteCache, event: Event) -> (Vec<Ask>, Option<Worked>) {
        let (mut asks, output) = asks_of(&mut self.listing, now, routes, event);
        let page = match output {
            None => return (asks, None),
            Some(Ok(page)) => page,
            Some(Err(QuestionFailure::Broken(damage))) => {
                return (asks, Some(Worked::Ended(Ending::Damaged(damage.to_string()))));
            }
            Some(Err(other)) => return (asks, Some(Worked::Ended(Ending::Unknown(other.to_string())))),
        };
        let last = page.entries.last().map(|entry| entry.key.clone()).filter(|_| page.more);
        self.lines
            .extend(page.entries.into_iter().map(|entry| (entry.key.as_str().to_owned(), entry.version)));
        let Some(last) = last else {
            return (asks, Some(Worked::Ended(Ending::Listed(std::mem::take(&mut self.lines)))));
        };
        self.seed += 1;
        self.listing = page_after(Some(last), self.patience, now, self.seed);
        let (more, _) = asks_of(&mut self.listing, now, routes, Event::Wakeup);
        asks.extend(more);
        (asks, None)
    }
}

fn page_after(after: Option<ObjectKey>, patience: Patience, now: BootTime, seed: u64) -> Listing {
    Listing::new(ListingKind::Live, String::new(), after, PAGE_LINES, patience, now, seed)
}
