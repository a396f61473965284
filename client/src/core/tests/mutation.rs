//! Mutations: identical bytes at every try, and a true word about their outcome.

use trefoil_protocol::ids::{NameTag, UploadId};
use trefoil_protocol::message::tenant::{PutRequest, Refusal};

use super::*;

fn start(call: TenantCall) -> Rig<Mutation> {
    let patience = Patience::default();
    let mutation = Mutation::new(key("k"), call, Bytes::from_static(b"bulk"), patience, BootTime(0), 3);
    Rig::new(mutation, routes(vec![volume(0, 1, Some("a1"))]))
}

fn streamed() -> TenantCall {
    TenantCall::Put(PutRequest {
        key: key("k"),
        name_tag: NameTag([0; 16]),
        upload: UploadId { version: VersionId([1; 16]), attempt: 0 },
        precondition: Precondition::Any,
        kek_version: 1,
        wrapped_key: Bytes::new(),
        inline: None,
        token: token(1),
    })
}

fn start_once() -> Rig<Mutation> {
    let mutation = Mutation::new(key("k"), streamed(), Bytes::new(), Patience::default(), BootTime(0), 3);
    Rig::new(mutation.once(), routes(vec![volume(0, 1, Some("a1"))]))
}

/// Fails whatever is asked until the outcome is asked for or the operation ends.
fn exhaust(rig: &mut Rig<Mutation>, failed: Failed) {
    while rig.output.is_none() && !matches!(rig.last().request.call, TenantCall::Outcome { .. }) {
        let before = rig.asked.len();
        match rig.last().request.call {
            TenantCall::Route => rig.answer(Ok(TenantAnswer::Route(view(vec![volume(0, 1, Some("a1"))])))),
            _ => rig.fail(failed),
        }
        if rig.output.is_none() && rig.asked.len() == before {
            rig.wait();
        }
    }
}

#[test]
fn r032_a_retry_sends_the_identical_bytes_to_the_new_primary() {
    let mut rig = start(delete(1));
    let first = rig.last().clone();
    rig.fail(Failed::Lost);
    rig.wait();
    rig.route(&view(vec![volume(0, 2, Some("b1"))]));
    let again = rig.last().clone();
    assert_eq!(again.to, Peer::Node(node("b1")));
    assert_eq!((first.request.call, first.bulk), (again.request.call, again.bulk));
    rig.answer(Ok(deleted()));
    assert_eq!(rig.output, Some(Ok(deleted())));
}

#[test]
fn what_was_never_sent_is_not_applied_without_asking() {
    let mut rig = start(delete(1));
    exhaust(&mut rig, Failed::Unreachable);
    let trouble = Trouble::Unreachable(Peer::Node(node("a1")));
    assert_eq!(rig.output, Some(Err(MutationFailure::NotApplied(trouble))));
}

#[test]
fn r032_out_of_time_it_asks_for_the_outcome_and_tells_it() {
    let lost = || Trouble::Lost(Peer::Node(node("a1")));
    for (answer, output) in [
        (Ok(TenantAnswer::Applied(Box::new(deleted()))), Ok(deleted())),
        (Ok(TenantAnswer::NotApplied), Err(MutationFailure::NotApplied(lost()))),
        (Err(Refusal::Expired), Err(MutationFailure::Unknown(lost()))),
    ] {
        let mut rig = start(delete(1));
        exhaust(&mut rig, Failed::Lost);
        assert_eq!(rig.last().request.call, TenantCall::Outcome { token: token(1).token });
        rig.answer(answer);
        assert_eq!(rig.output, Some(output));
    }
}

#[test]
fn an_outcome_that_nobody_tells_is_unknown() {
    let mut rig = start(delete(1));
    exhaust(&mut rig, Failed::Lost);
    while rig.output.is_none() {
        rig.wait();
    }
    assert!(matches!(rig.output, Some(Err(MutationFailure::Unknown(_)))));
    let latest = BootTime(0) + Patience::default().deadline + Patience::default().outcome;
    assert!(rig.now <= latest);
}

#[test]
fn a_stream_that_broke_before_its_end_is_not_applied_without_asking() {
    let mut rig = start_once();
    let exchange = rig.last().exchange;
    rig.feed(Event::Progress(exchange));
    rig.fail(Failed::Lost);
    assert!(matches!(rig.output, Some(Err(MutationFailure::NotApplied(_)))));
}

#[test]
fn a_stream_that_broke_after_its_end_is_asked_about_before_other_bytes_are_sent() {
    let mut rig = start_once();
    let exchange = rig.last().exchange;
    rig.feed(Event::Ended(exchange));
    rig.fail(Failed::Lost);
    assert_eq!(rig.last().request.call, TenantCall::Outcome { token: token(1).token });
    rig.answer(Ok(TenantAnswer::NotApplied));
    assert!(matches!(rig.output, Some(Err(MutationFailure::NotApplied(_)))));
}

#[test]
fn a_slow_stream_that_moves_is_not_given_up() {
    let mut rig = start_once();
    let exchange = rig.last().exchange;
    for _ in 0..100 {
        rig.now = rig.now + std::time::Duration::from_secs(2);
        rig.feed(Event::Progress(exchange));
        rig.feed(Event::Wakeup);
    }
    rig.feed(Event::Ended(exchange));
    rig.answer(Ok(deleted()));
    assert_eq!(rig.output, Some(Ok(deleted())));
}

#[test]
fn a_refusal_for_good_means_that_nothing_happened() {
    let mut rig = start(delete(1));
    rig.answer(Err(Refusal::PreconditionFailed));
    assert_eq!(rig.output, Some(Err(MutationFailure::Refused(Refusal::PreconditionFailed))));
}

#[test]
fn a_refusal_behind_a_lost_ask_is_believed_only_when_that_is_sealed() {
    for (answer, output) in [
        (Ok(TenantAnswer::NotApplied), Err(MutationFailure::Refused(Refusal::NotFound))),
        (Ok(TenantAnswer::Applied(Box::new(deleted()))), Ok(deleted())),
    ] {
        let mut rig = start(delete(1));
        rig.fail(Failed::Lost);
        rig.wait();
        rig.route(&view(vec![volume(0, 1, Some("a1"))]));
        rig.answer(Err(Refusal::NotFound));
        assert_eq!(rig.last().request.call, TenantCall::Outcome { token: token(1).token });
        rig.answer(answer);
        assert_eq!(rig.output, Some(output));
    }
}

#[test]
fn r049_what_was_refused_unbegun_is_not_applied_without_asking() {
    let mut rig = start(delete(1));
    let busy = || Refusal::Busy { retry_after: Millis(2_000) };
    while rig.output.is_none() {
        rig.answer(Err(busy()));
        rig.wait();
    }
    let trouble = Trouble::Refused(Peer::Node(node("a1")), busy());
    assert_eq!(rig.output, Some(Err(MutationFailure::NotApplied(trouble))));
    assert!(rig.asked.iter().all(|asked| asked.request.call == delete(1)));
}
