//! Reads that take a stale answer: asked for properly first, then of every member in turn.

use trefoil_protocol::message::tenant::{Refusal, Selector, Want};

use super::*;

const VERSION: VersionId = VersionId([1; 16]);

fn ask(dc: Option<&str>) -> Rig<Lenient> {
    let dc = dc.map(|name| name.parse().unwrap());
    let patience = Patience { deadline: Duration::from_secs(20), ..Patience::default() };
    let read = Lenient::new(key("k"), VERSION, Want::Whole, dc, patience, BootTime(0), 1);
    Rig::new(read, routes(vec![volume(0, 1, Some("a1"))]))
}

fn selector(asked: &Asked) -> Option<Selector> {
    match &asked.request.call {
        TenantCall::Get { selector, .. } => Some(*selector),
        _ => None,
    }
}

/// Refuses everything until a member is asked for what may be stale.
fn until_lenient(rig: &mut Rig<Lenient>) {
    let lenient = Some(Selector::StalePossible(VERSION));
    while rig.output.is_none() && selector(rig.last()) != lenient {
        let asked = rig.asked.len();
        match &rig.last().request.call {
            TenantCall::Route => rig.fail(Failed::Unreachable),
            _ => rig.answer(Err(Refusal::LeaseExpired)),
        }
        if rig.asked.len() == asked {
            rig.wait();
        }
    }
}

#[test]
fn who_answers_under_a_lease_is_asked_as_by_anybody() {
    let mut rig = ask(Some("b"));
    assert_eq!(rig.last().to, Peer::Node(node("b1")));
    assert_eq!(selector(rig.last()), Some(Selector::Version(VERSION)));
    rig.answer(Err(Refusal::LeaseExpired));
    rig.wait();
    rig.route(&view(vec![volume(0, 1, Some("a1"))]));
    assert_eq!(
        (rig.last().to, selector(rig.last())),
        (Peer::Node(node("a1")), Some(Selector::Version(VERSION)))
    );
    rig.answer(Err(Refusal::Changed));
    let changed = Err(QuestionFailure::Refused(Refusal::Changed));
    assert_eq!(rig.output, Some(changed), "the primary's word needs nobody else's");
}

#[test]
fn without_anybody_who_may_answer_each_member_is_asked_the_nearest_first() {
    for (dc, order) in [("a", ["a2", "a1", "b1"]), ("b", ["b1", "a2", "a1"])] {
        let mut rig = ask(Some(dc));
        until_lenient(&mut rig);
        assert!(rig.now <= BootTime(0) + Duration::from_secs(2), "{:?}", rig.now);
        for (place, name) in order.into_iter().enumerate() {
            assert_eq!(rig.last().to, Peer::Node(node(name)), "{dc}: {place}");
            assert_eq!(selector(rig.last()), Some(Selector::StalePossible(VERSION)));
            match place {
                0 => rig.fail(Failed::Unreachable),
                1 => rig.answer(Err(Refusal::LeaseExpired)),
                _ => rig.answer(Ok(deleted())),
            }
        }
        assert_eq!(rig.output, Some(Ok(deleted())));
    }
}

#[test]
fn a_member_without_the_version_does_not_speak_for_the_others_and_is_named_if_none_has_it() {
    let mut rig = ask(Some("a"));
    until_lenient(&mut rig);
    rig.answer(Err(Refusal::Changed));
    assert_eq!(rig.last().to, Peer::Node(node("a1")), "it may not know the version yet");
    rig.fail(Failed::Unreachable);
    rig.fail(Failed::Unreachable);
    let trouble = Trouble::Refused(Peer::Node(node("a2")), Refusal::Changed);
    assert_eq!(rig.output, Some(Err(QuestionFailure::Unavailable(trouble))));
}

#[test]
fn a_tenant_that_allows_none_hears_at_the_deadline_that_there_is_none() {
    let mut rig = ask(None);
    for _ in 0..10_000 {
        if rig.output.is_some() {
            break;
        }
        let asked = rig.asked.len();
        match &rig.last().request.call {
            TenantCall::Route => rig.fail(Failed::Unreachable),
            _ => rig.answer(Err(Refusal::LeaseExpired)),
        }
        if rig.asked.len() == asked && rig.output.is_none() {
            rig.wait();
        }
    }
    assert!(matches!(rig.output, Some(Err(QuestionFailure::Unavailable(_)))));
    assert!(rig.now >= BootTime(0) + Duration::from_secs(18), "{:?}", rig.now);
}
