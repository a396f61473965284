//! Hedged reads: a slow replica costs no more than the time in which most reads are answered.

use trefoil_protocol::message::tenant::{Refusal, Selector, Want};

use super::*;

const SOON: Duration = Duration::from_millis(30);

fn exact() -> TenantCall {
    let selector = Selector::Version(VersionId([1; 16]));
    TenantCall::Get { key: key("k"), selector, want: Want::Leaves(vec![(0, 1)]) }
}

fn ask(dc: Option<&str>, hedge_after: Option<Duration>) -> Rig<Hedged> {
    let dc = dc.map(|name| name.parse().unwrap());
    let hedged = Hedged::new(key("k"), dc, exact(), Patience::default(), hedge_after, BootTime(0), 1);
    Rig::new(hedged, routes(vec![volume(0, 1, Some("a1"))]))
}

fn whom(rig: &Rig<Hedged>) -> Vec<Peer> {
    rig.asked.iter().map(|asked| asked.to).collect()
}

#[test]
fn a_silent_replica_is_not_waited_for_and_the_first_answer_is_heard() {
    for (dc, first, second) in [(None, "a1", "a2"), (Some("a"), "a1", "a2"), (Some("b"), "b1", "a1")] {
        let mut rig = ask(dc, Some(SOON));
        rig.wait();
        assert_eq!(whom(&rig), [first, second].map(|name| Peer::Node(node(name))), "{dc:?}");
        assert_eq!(rig.now, BootTime(0) + SOON);
        assert_eq!(rig.asked[0].request.call, rig.asked[1].request.call);
        rig.answer(Ok(deleted()));
        let heard = rig.output.expect("one answer is enough");
        assert_eq!((heard.answer, heard.after, heard.hedged), (Ok(deleted()), SOON, true));
    }
}

#[test]
fn the_first_replica_may_still_win_and_is_alone_while_it_is_fast() {
    let mut rig = ask(None, Some(SOON));
    rig.answer(Ok(deleted()));
    assert!(!rig.output.expect("answered").hedged);
    let mut rig = ask(None, Some(SOON));
    rig.wait();
    rig.feed(Event::Answered(rig.asked[0].exchange, Box::new(Ok(deleted()))));
    assert_eq!(rig.output.expect("answered").answer, Ok(deleted()));
}

#[test]
fn without_a_hedge_nobody_else_is_asked() {
    let mut rig = ask(None, None);
    rig.wait();
    assert!(rig.now >= BootTime(0) + Patience::default().silence_first, "it waits as long as any question");
}

#[test]
fn a_second_replica_that_knows_nothing_does_not_speak_for_the_first() {
    let mut rig = ask(None, Some(SOON));
    rig.wait();
    let (first, second) = (rig.asked[0].exchange, rig.asked[1].exchange);
    rig.feed(Event::Answered(second, Box::new(Err(Refusal::Changed))));
    assert_eq!(rig.output, None, "a replica may lag behind");
    rig.feed(Event::Answered(first, Box::new(Err(Refusal::Changed))));
    let heard = rig.output.expect("the primary's word");
    assert_eq!(heard.answer, Err(QuestionFailure::Refused(Refusal::Changed)));
}

#[test]
fn both_silent_is_one_failure_at_the_deadline() {
    let mut rig = ask(None, Some(SOON));
    while rig.output.is_none() {
        rig.now = rig.now.max(rig.operation.next_wakeup().expect("open"));
        rig.feed(Event::Wakeup);
    }
    assert!(matches!(rig.output.unwrap().answer, Err(QuestionFailure::Unavailable(_))));
    assert!(rig.now >= BootTime(0) + Patience::default().deadline);
}

#[test]
fn the_pace_is_that_of_nineteen_of_twenty_and_a_slow_cluster_is_not_asked_twice() {
    let mut pace = Pace::default();
    assert_eq!(pace.hedge_after(), Some(Duration::from_millis(250)), "nothing is known");
    (1..=100).map(Duration::from_millis).for_each(|time| pace.answered(time));
    assert_eq!(pace.hedge_after(), Some(Duration::from_millis(96)));
    // Every read is hedged from here on: after a few there are no more.
    let mut hedges = 0;
    for _ in 0..200 {
        if pace.hedge_after().is_some() {
            pace.hedged();
            hedges += 1;
        }
        pace.answered(Duration::from_secs(1));
    }
    assert!((20..=26).contains(&hedges), "{hedges} of 200 reads were hedged");
}
