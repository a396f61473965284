//! Questions: retried while that can help, answered or refused once.

use trefoil_protocol::message::tenant::{Refusal, Selector, Want};

use super::*;

fn head() -> TenantCall {
    TenantCall::Get { key: key("k"), selector: Selector::Latest, want: Want::Head }
}

fn ask(whom: Whom, routes: RouteCache) -> Rig<Question> {
    Rig::new(Question::new(whom, head(), Patience::default(), BootTime(0), 1), routes)
}

fn primary_of_k() -> Whom {
    Whom::PrimaryOf(key("k"))
}

#[test]
fn a_refusal_for_good_ends_the_question_at_once() {
    for refusal in [
        Refusal::NotFound,
        Refusal::PreconditionFailed,
        Refusal::Gone,
        Refusal::Expired,
        Refusal::TokenMismatch,
        Refusal::Full,
        Refusal::Changed,
        Refusal::Invalid("x".into()),
    ] {
        let mut rig = ask(primary_of_k(), routes(vec![volume(0, 1, Some("a1"))]));
        rig.answer(Err(refusal.clone()));
        assert_eq!(rig.output, Some(Err(QuestionFailure::Refused(refusal))));
    }
}

#[test]
fn a_passing_refusal_is_asked_again_after_a_look_at_the_route() {
    for refusal in [Refusal::LeaseExpired, Refusal::Unavailable, Refusal::Corrupt] {
        let mut rig = ask(primary_of_k(), routes(vec![volume(0, 1, Some("a1"))]));
        rig.answer(Err(refusal));
        assert_eq!(rig.asked.len(), 1, "it rests first");
        rig.wait();
        assert_eq!(rig.last().request.call, TenantCall::Route);
        rig.route(&view(vec![volume(0, 1, Some("a1"))]));
        assert_eq!((rig.last().to, &rig.last().request.call), (Peer::Node(node("a1")), &head()));
        rig.answer(Ok(deleted()));
        assert_eq!(rig.output, Some(Ok(deleted())));
    }
}

#[test]
fn a_hint_to_a_newer_primary_is_followed_at_once() {
    let mut rig = ask(primary_of_k(), routes(vec![volume(0, 1, Some("a1"))]));
    rig.answer(Err(Refusal::NotPrimary { epoch: Epoch(2), primary: Some(node("a2")) }));
    assert_eq!((rig.last().to, rig.last().request.epoch), (Peer::Node(node("a2")), Epoch(2)));
    assert_eq!(rig.now, BootTime(0));
}

#[test]
fn a_hint_to_an_older_primary_is_not_believed() {
    let mut rig = ask(primary_of_k(), routes(vec![volume(0, 5, Some("a1"))]));
    rig.answer(Err(Refusal::NotPrimary { epoch: Epoch(4), primary: Some(node("b1")) }));
    rig.wait();
    assert_eq!(rig.last().request.call, TenantCall::Route);
}

#[test]
fn nodes_that_point_at_each_other_are_not_chased_without_rest() {
    let mut rig = ask(primary_of_k(), routes(vec![volume(0, 1, Some("a1"))]));
    for epoch in 2..50 {
        let other = if epoch % 2 == 0 { "a2" } else { "a1" };
        rig.answer(Err(Refusal::NotPrimary { epoch: Epoch(epoch), primary: Some(node(other)) }));
        if rig.now == BootTime(0) && rig.asked.len() as u64 == epoch {
            continue;
        }
        return;
    }
    panic!("it never rested");
}

#[test]
fn a_silent_primary_is_given_up_and_its_successor_found() {
    let mut rig = ask(primary_of_k(), routes(vec![volume(0, 1, Some("a1"))]));
    rig.wait();
    assert_eq!(rig.last().request.call, TenantCall::Route);
    rig.route(&view(vec![volume(0, 2, Some("b1"))]));
    assert_eq!(rig.last().to, Peer::Node(node("b1")));
    rig.answer(Ok(deleted()));
    assert!(rig.output.unwrap().is_ok());
    assert!(rig.now < BootTime(0) + std::time::Duration::from_secs(4));
}

#[test]
fn an_answer_of_a_forgotten_exchange_is_not_heard() {
    let mut rig = ask(primary_of_k(), routes(vec![volume(0, 1, Some("a1"))]));
    let late = rig.last().exchange;
    rig.wait();
    rig.feed(Event::Answered(late, Box::new(Ok(deleted()))));
    assert_eq!(rig.output, None);
}

#[test]
fn the_route_is_asked_of_one_informant_after_the_other() {
    let mut rig = ask(primary_of_k(), RouteCache::new(3));
    let first = rig.last().to;
    rig.fail(Failed::Unreachable);
    let second = rig.last().to;
    rig.answer(Err(Refusal::NotFound));
    let third = rig.last().to;
    let all: std::collections::BTreeSet<Peer> = [first, second, third].into();
    assert_eq!(all.len(), 3);
    rig.route(&view(vec![volume(0, 1, Some("a1"))]));
    assert_eq!(rig.last().to, Peer::Node(node("a1")));
}

#[test]
fn a_client_that_the_control_plane_does_not_know_is_told_so_at_once() {
    for whom in [Whom::Informant, Whom::Custodian, primary_of_k()] {
        let mut rig = ask(whom, RouteCache::new(3));
        rig.answer(Err(Refusal::NotFound));
        assert_eq!(rig.output, None, "a node may not have heard of a new tenant yet");
        while rig.asked.len() < 2 {
            rig.wait();
        }
        rig.answer(Err(Refusal::Stranger));
        assert_eq!(rig.output, Some(Err(QuestionFailure::Unavailable(Trouble::Stranger))));
    }
}

#[test]
fn whoever_finds_no_custodian_looks_who_votes_now_and_asks_on_without_an_answer_too() {
    let mut rig = ask(Whom::Custodian, RouteCache::new(2));
    assert_eq!(rig.last().to, Peer::Custodian);
    rig.answer(Err(Refusal::Unavailable));
    rig.wait();
    assert_eq!(rig.last().request.call, TenantCall::Route, "it does not lead, or votes no more");
    rig.route(&view(vec![volume(0, 1, None)]));
    assert_eq!(rig.last().to, Peer::Custodian, "whether the volume has a primary or not");
    rig.fail(Failed::Unreachable);
    rig.wait();
    while rig.last().to != Peer::Custodian {
        assert!(rig.asked.len() < 20, "nobody tells a route, and the known voters are not asked");
        let asked = rig.asked.len();
        rig.answer(Err(Refusal::Unavailable));
        while rig.asked.len() == asked {
            rig.wait();
        }
    }
}

#[test]
fn a_node_that_knows_no_volumes_tells_who_votes_and_another_one_is_asked_for_them() {
    let part = || view(Vec::new());
    for whom in [Whom::Informant, primary_of_k()] {
        let mut rig = ask(whom.clone(), RouteCache::new(3));
        let first = rig.last().to;
        rig.answer(Ok(TenantAnswer::Route(part())));
        while rig.asked.len() < 2 {
            rig.wait();
        }
        assert_eq!((rig.output.clone(), rig.last().to == first), (None, false), "{whom:?}");
    }
}

#[test]
fn whoever_looks_for_the_route_asks_the_voters_that_it_was_told_of_and_rests_only_when_all_were_asked() {
    let mut rig = ask(Whom::Informant, RouteCache::new(7));
    rig.answer(Ok(TenantAnswer::Route(RouteView { voters: vec![voter(1)], ..view(Vec::new()) })));
    assert_eq!((rig.last().to, rig.now), (Peer::Custodian, BootTime(0)));
    while rig.now == BootTime(0) {
        let asked = rig.asked.len();
        rig.answer(Err(Refusal::Unavailable));
        if rig.asked.len() == asked {
            rig.wait();
        }
    }
    let asked: std::collections::BTreeSet<Peer> = rig.asked.iter().take(8).map(|ask| ask.to).collect();
    assert!((7..=8).contains(&asked.len()), "{asked:?}");
}

#[test]
fn without_a_primary_it_asks_until_there_is_one_or_time_is_over() {
    let mut rig = ask(primary_of_k(), routes(vec![volume(0, 1, None)]));
    for _ in 0..5 {
        rig.answer(Ok(TenantAnswer::Route(view(vec![volume(0, 1, None)]))));
        rig.wait();
    }
    let mut found = ask(primary_of_k(), routes(vec![volume(0, 1, None)]));
    found.route(&view(vec![volume(0, 2, Some("a2"))]));
    assert_eq!(found.last().to, Peer::Node(node("a2")));
    while rig.output.is_none() {
        rig.answer(Ok(TenantAnswer::Route(view(vec![volume(0, 1, None)]))));
        if rig.output.is_none() {
            rig.wait();
        }
    }
    assert_eq!(rig.output, Some(Err(QuestionFailure::Unavailable(Trouble::NoPrimary))));
    assert_eq!(rig.now, BootTime(0) + Patience::default().deadline);
}

#[test]
fn a_near_replica_that_cannot_or_will_not_is_passed_over_for_the_primary() {
    for refusal in [Refusal::NotFound, Refusal::Changed, Refusal::LeaseExpired] {
        let whom = Whom::NearestTo("b".parse().unwrap(), key("k"));
        let mut rig = ask(whom, routes(vec![volume(0, 1, Some("a1"))]));
        assert_eq!(rig.last().to, Peer::Node(node("b1")));
        rig.answer(Err(refusal));
        rig.wait();
        assert_eq!(rig.last().to, Peer::Node(node("a1")));
        rig.answer(Err(Refusal::Changed));
        assert_eq!(rig.output, Some(Err(QuestionFailure::Refused(Refusal::Changed))));
    }
}

#[test]
fn a_certificate_that_everybody_refuses_ends_the_question_soon() {
    let mut rig = ask(primary_of_k(), RouteCache::new(3));
    rig.fail(Failed::Denied);
    rig.fail(Failed::Unreachable);
    rig.fail(Failed::Denied);
    while rig.output.is_none() {
        rig.wait();
        if rig.output.is_none() {
            rig.fail(Failed::Denied);
        }
    }
    assert_eq!(rig.output, Some(Err(QuestionFailure::Unavailable(Trouble::Denied))));
    assert!(rig.now < BootTime(0) + std::time::Duration::from_secs(1));
}

#[test]
fn a_dead_primary_is_not_asked_again_before_the_route_was_looked_at_a_few_times() {
    let mut rig = ask(primary_of_k(), routes(vec![volume(0, 1, Some("a1"))]));
    rig.fail(Failed::Unreachable);
    let mut looks = 0;
    loop {
        rig.wait();
        match rig.last().request.call {
            TenantCall::Route => rig.answer(Ok(TenantAnswer::Route(view(vec![volume(0, 1, Some("a1"))])))),
            _ => break,
        }
        looks += 1;
        if rig.last().request.call != TenantCall::Route {
            break;
        }
    }
    assert_eq!((looks, rig.last().to), (5, Peer::Node(node("a1"))));
}

#[test]
fn who_told_the_route_last_is_asked_first_until_it_fails() {
    let mut rig = ask(primary_of_k(), RouteCache::new(3));
    rig.fail(Failed::Unreachable);
    let reliable = rig.last().to;
    rig.route(&view(vec![volume(0, 1, Some("a1"))]));
    for expected in [true, false] {
        rig.answer(Err(Refusal::LeaseExpired));
        rig.wait();
        assert_eq!(rig.last().to == reliable, expected);
        rig.fail(Failed::Lost);
        rig.route(&view(vec![volume(0, 1, Some("a1"))]));
    }
}

#[test]
fn a_holder_is_asked_until_it_answers_and_nobody_else_in_its_place() {
    let mut rig = ask(Whom::Holder(node("b1"), key("k")), routes(vec![volume(0, 1, Some("a1"))]));
    assert_eq!(rig.last().to, Peer::Node(node("b1")));
    rig.wait();
    rig.route(&view(vec![volume(0, 2, Some("a2"))]));
    assert_eq!((rig.last().to, rig.last().request.epoch), (Peer::Node(node("b1")), Epoch(2)));
    rig.answer(Err(Refusal::NotFound));
    assert_eq!(rig.output, None, "it may lag behind");
    rig.wait();
    rig.route(&view(vec![volume(0, 3, Some("a2"))]));
    assert_eq!((rig.last().to, rig.last().request.epoch), (Peer::Node(node("b1")), Epoch(3)));
    rig.answer(Err(Refusal::Changed));
    assert_eq!(rig.output, Some(Err(QuestionFailure::Refused(Refusal::Changed))));
}

#[test]
fn r049_who_is_told_to_come_back_later_does_not_come_sooner_and_asks_nobody_else() {
    let mut rig = ask(primary_of_k(), routes(vec![volume(0, 1, Some("a1"))]));
    assert_eq!(rig.last().request.within, Millis(3_000), "it says for how long it listens");
    for round in 1..4 {
        let (told_at, retry_after) = (rig.now, Millis(700));
        rig.answer(Err(Refusal::Busy { retry_after }));
        rig.wait();
        assert_eq!((rig.last().to, &rig.last().request.call), (Peer::Node(node("a1")), &head()));
        assert!(rig.now.since(told_at) >= Duration::from_millis(1050), "with some more, that differs");
        assert_eq!((rig.routes.retries().requests(), rig.routes.retries().retries()), (1, round));
    }
}

#[test]
fn r049_retries_beyond_the_budget_wait_for_a_second() {
    let mut rig = ask(primary_of_k(), routes(vec![volume(0, 1, Some("a1"))]));
    for _ in 0..10 {
        rig.answer(Err(Refusal::Late));
        rig.wait();
    }
    assert_eq!(rig.routes.retries().retries(), 10);
    rig.routes.retries.take(rig.now).unwrap_err();
    let before = rig.now;
    rig.answer(Err(Refusal::Late));
    let asked = rig.asked.len();
    while rig.asked.len() == asked {
        rig.wait();
    }
    assert!(rig.now.since(before) >= Duration::from_secs(1));
}

#[test]
fn a_volume_that_moved_is_followed_at_no_cost() {
    let mut rig = ask(primary_of_k(), routes(vec![volume(0, 1, Some("a1"))]));
    rig.answer(Err(Refusal::NotPrimary { epoch: Epoch(2), primary: Some(node("a2")) }));
    rig.answer(Ok(deleted()));
    assert_eq!((rig.routes.retries().requests(), rig.routes.retries().retries()), (1, 0));
}
