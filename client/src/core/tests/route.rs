//! Routes and tokens.

use super::*;

#[test]
fn a_view_replaces_only_older_volumes() {
    let mut routes = routes(vec![volume(0, 3, Some("a1")), volume(1, 3, Some("a1"))]);
    routes.learn(view(vec![volume(0, 2, Some("b1")), volume(1, 4, Some("b1"))])).unwrap();
    let primaries = [0, 1].map(|slot| routes.slot(slot).unwrap().primary.unwrap());
    assert_eq!(primaries, [node("a1"), node("b1")]);
}

#[test]
fn a_view_after_a_hint_of_the_same_epoch_is_taken_over() {
    let mut routes = routes(vec![volume(0, 3, Some("a1"))]);
    assert!(routes.hint(VolumeId(10), Epoch(4), None));
    assert!(!routes.hint(VolumeId(10), Epoch(4), Some(node("a2"))));
    routes.learn(view(vec![volume(0, 4, Some("b1"))])).unwrap();
    assert_eq!(routes.slot(0).unwrap().primary, Some(node("b1")));
}

#[test]
fn a_view_that_contradicts_itself_is_refused() {
    let mut routes = RouteCache::new(1);
    let odd = view(vec![volume(0, 1, None), volume(1, 1, None), volume(2, 1, None)]);
    let twice = view(vec![volume(0, 1, None), volume(0, 1, None)]);
    let turned = view(vec![volume(1, 1, None), volume(0, 1, None)]);
    for bad in [odd, twice, turned] {
        assert!(routes.learn(bad).is_err());
    }
    assert!(routes.volume_of(&key("k")).is_none());
}

#[test]
fn the_partial_views_of_nodes_add_up() {
    let mut routes = RouteCache::new(1);
    for known in [volume(0, 1, Some("a1")), volume(1, 1, Some("b1"))] {
        let mut partial = view(vec![known]);
        partial.tenant.volume_count = 2;
        routes.learn(partial).unwrap();
    }
    let primaries = [0, 1].map(|slot| routes.slot(slot).unwrap().primary.unwrap());
    assert_eq!((routes.slots(), primaries), (2, [node("a1"), node("b1")]));
}

#[test]
fn voters_are_taken_from_the_newest_view_that_names_any_and_asked_when_nobody_else_is_left() {
    let told = |at, ports: &[u16]| RouteView {
        now: CpTime(at),
        voters: ports.iter().copied().map(voter).collect(),
        ..view(vec![volume(0, 1, Some("a1"))])
    };
    let mut routes = RouteCache::new(2);
    routes.learn(told(5, &[])).unwrap();
    assert_eq!((routes.custodians().len(), routes.informants()), (0, 2 + 3));
    for (at, ports) in [(6, &[1, 2][..]), (5, &[9]), (7, &[]), (8, &[2, 3])] {
        routes.learn(told(at, ports)).unwrap();
    }
    let ports: Vec<u16> = routes.custodians().iter().map(std::net::SocketAddr::port).collect();
    assert_eq!(ports, [2, 3]);
    let asked: Vec<Peer> = (0..6).map(|n| routes.informant(n)).collect();
    assert_eq!(asked[5], Peer::Custodian, "{asked:?}");
}

#[test]
fn the_mark_waits_for_the_oldest_open_token_and_the_window_is_bounded() {
    let mut tokens = TokenTable::new(ClientInstance([1; 16]));
    let oldest = tokens.begin().unwrap();
    for _ in 1..TOKENS_OPEN_MAX - 1 {
        let next = tokens.begin().unwrap();
        tokens.end(next);
    }
    assert_eq!(tokens.mark(), 1);
    let last = tokens.begin();
    assert!(last.is_some() && tokens.begin().is_none());
    tokens.end(oldest);
    assert_eq!(tokens.begin().unwrap().confirmed_below, last.unwrap().token.sequence);
}
