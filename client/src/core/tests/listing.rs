//! Listings: every key once, in order, or no page at all.

use std::collections::BTreeSet;

use proptest::prelude::*;
use trefoil_protocol::key::volume_slot;
use trefoil_protocol::message::tenant::Refusal;

use super::*;

/// What a volume answers: at most `cap` lines, however many were asked for.
fn page_of(
    keys: &BTreeSet<String>,
    slot: u32,
    after: Option<&ObjectKey>,
    limit: usize,
    cap: usize,
) -> VolumePage {
    let mine = keys.iter().map(|k| key(k)).filter(|k| volume_slot(k, 4) == slot);
    let mut rest: Vec<ObjectKey> = mine.filter(|k| after.is_none_or(|after| k > after)).collect();
    let more = rest.len() > limit.min(cap);
    rest.truncate(limit.min(cap));
    VolumePage { entries: rest.iter().map(|k| line(k.as_str())).collect(), more }
}

proptest! {
    #[test]
    fn pages_give_every_key_once_in_order(
        keys in prop::collection::btree_set("[a-c]{1,4}|ä|z{0,2}é", 0..40),
        limit in 1_usize..12,
        caps in prop::array::uniform4(1_usize..9),
    ) {
        let mut listed = Vec::new();
        let mut after: Option<ObjectKey> = None;
        loop {
            let volumes = (0..4).map(|slot| page_of(&keys, slot, after.as_ref(), limit, caps[slot as usize]));
            let page = merge(volumes.collect(), limit);
            prop_assert!(page.entries.len() <= limit);
            listed.extend(page.entries.into_iter().map(|entry| entry.key.as_str().to_owned()));
            if !page.more {
                break;
            }
            let last = key(listed.last().expect("a page with more behind it has a line"));
            prop_assert!(after.replace(last.clone()).is_none_or(|before| last > before));
        }
        prop_assert_eq!(listed, keys.into_iter().collect::<Vec<_>>());
    }
}

fn start(routes: RouteCache) -> Rig<Listing> {
    let patience = Patience::default();
    Rig::new(Listing::new(ListingKind::Live, "a".into(), None, 2, patience, BootTime(0), 5), routes)
}

fn two_volumes() -> RouteCache {
    routes(vec![volume(0, 1, Some("a1")), volume(1, 1, Some("b1"))])
}

fn page(lines: &[&str], more: bool) -> Box<TenantResponse> {
    Box::new(Ok(TenantAnswer::Page { entries: lines.iter().map(|text| line(text)).collect(), more }))
}

#[test]
fn a_page_asks_every_volume_at_once() {
    let mut rig = start(two_volumes());
    let peers: Vec<Peer> = rig.asked.iter().map(|asked| asked.to).collect();
    assert_eq!(peers, [Peer::Node(node("a1")), Peer::Node(node("b1"))]);
    let exchanges: Vec<ExchangeId> = rig.asked.iter().map(|asked| asked.exchange).collect();
    rig.feed(Event::Answered(exchanges[1], page(&["a1", "a4"], true)));
    assert_eq!(rig.output, None);
    rig.feed(Event::Answered(exchanges[0], page(&["a3"], false)));
    let merged = rig.output.unwrap().unwrap();
    assert_eq!(merged.entries, [line("a1"), line("a3")]);
    assert!(merged.more);
}

#[test]
fn a_volume_that_cannot_answer_fails_the_page() {
    let mut rig = start(two_volumes());
    let exchanges: Vec<ExchangeId> = rig.asked.iter().map(|asked| asked.exchange).collect();
    rig.feed(Event::Answered(exchanges[0], page(&["a3"], false)));
    rig.feed(Event::Answered(exchanges[1], Box::new(Err(Refusal::Unavailable))));
    while rig.output.is_none() {
        rig.wait();
    }
    assert!(matches!(rig.output, Some(Err(QuestionFailure::Unavailable(_)))));
}

#[test]
fn a_listing_learns_the_route_first() {
    let mut rig = start(RouteCache::new(1));
    assert_eq!(rig.last().request.call, TenantCall::Route);
    rig.fail(Failed::Unreachable);
    rig.wait();
    rig.answer(Ok(TenantAnswer::Route(view(vec![volume(0, 1, Some("a2"))]))));
    assert_eq!(rig.last().to, Peer::Node(node("a2")));
    let exchange = rig.last().exchange;
    rig.feed(Event::Answered(exchange, page(&[], false)));
    assert_eq!(rig.output, Some(Ok(MergedPage::default())));
}

#[test]
fn a_page_that_breaks_its_rules_is_refused() {
    for bad in [
        page(&["a2", "a1"], false),
        page(&["b"], false),
        page(&["a1", "a2", "a3"], false),
        page(&[], true),
        Box::new(Ok(deleted())),
    ] {
        let mut rig = start(routes(vec![volume(0, 1, Some("a1"))]));
        let exchange = rig.last().exchange;
        rig.feed(Event::Answered(exchange, bad));
        assert!(matches!(rig.output, Some(Err(QuestionFailure::Broken(_)))));
    }
}
