//! A planned handover: what is under way ends with an answer, nothing new is begun, and the one that
//! follows has everything. And it can be called off.

use std::time::Duration;

use bytes::Bytes;
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::message::tenant::Refusal;

use crate::cluster::{Cluster, node, object};

const NODES: [&str; 3] = ["a1", "a2", "b1"];
const MINUTE: Duration = Duration::from_secs(60);

fn yielded(cluster: &Cluster) -> usize {
    let asked = cluster.placement.asked.iter();
    asked.filter(|(_, request)| matches!(request, ControlRequest::Yield { .. })).count()
}

#[test]
fn a_put_under_way_is_answered_before_the_volume_changes_hands() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.machine("b1").syncs_held = true;
    let early = cluster.begin_put("a1", "early", 1, &object(1, 500));
    cluster.hand_over(Some("b1"));
    cluster.run(Duration::from_millis(100));
    let late = cluster.put("a1", "late", 2, &object(2, 500));
    assert_eq!(late, Err(Refusal::LeaseExpired), "nothing is begun any more");
    assert_eq!((yielded(&cluster), cluster.heard(early).response), (0, None));
    assert!(cluster.get("a1", "early").response.is_some(), "reads go on");
    cluster.machine("b1").syncs_held = false;
    cluster.release_syncs("b1");
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("b1"))));
    assert!(cluster.wait(early).response.expect("answered").is_ok());
    assert_eq!(cluster.get("b1", "early").bytes, object(1, 500));
    cluster.put("b1", "late", 2, &object(2, 500)).unwrap();
}

#[test]
fn an_upload_that_was_open_ends_first_and_nobody_waits_for_it_meanwhile() {
    let mut cluster = Cluster::healthy(&NODES);
    let large = object(3, 700_000);
    let call = cluster.put_call("large", 3, &large);
    let open = cluster.ask("a1", call, Bytes::new());
    cluster.hand_over(Some("a2"));
    cluster.run(Duration::from_secs(5));
    assert_eq!(yielded(&cluster), 0);
    cluster.put("a1", "small", 4, &object(4, 500)).unwrap();
    cluster.stream("a1", open, &large);
    cluster.finish("a1", open, &large);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a2"))));
    assert!(cluster.wait(open).response.expect("answered").is_ok());
    assert_eq!(cluster.get("a2", "large").bytes, large);
}

#[test]
fn an_upload_that_takes_too_long_is_sent_again_to_the_next_primary() {
    let mut cluster = Cluster::healthy(&NODES);
    let large = object(5, 700_000);
    let call = cluster.put_call("large", 5, &large);
    let open = cluster.ask("a1", call.clone(), Bytes::new());
    cluster.hand_over(Some("a2"));
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a2"))));
    let refused = cluster.wait(open).response.expect("answered").unwrap_err();
    assert!(matches!(refused, Refusal::NotPrimary { primary: Some(next), .. } if next == node("a2")));
    let again = cluster.begin("a2", call, &large);
    cluster.wait(again).response.expect("answered").unwrap();
}

#[test]
fn a_handover_is_called_off_and_the_volume_takes_writes_as_before() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.machine("b1").syncs_held = true;
    let early = cluster.begin_put("a1", "early", 1, &object(1, 500));
    cluster.hand_over(Some("a2"));
    cluster.run(Duration::from_millis(100));
    cluster.hand_over(None);
    cluster.run(Duration::from_millis(100));
    let late = cluster.begin_put("a1", "late", 2, &object(2, 500));
    cluster.run(Duration::from_millis(100));
    assert_eq!(cluster.heard(late).response, None, "taken, and waits for b1");
    cluster.machine("b1").syncs_held = false;
    cluster.release_syncs("b1");
    assert!(cluster.wait(early).response.expect("answered").is_ok());
    assert!(cluster.wait(late).response.expect("answered").is_ok());
    assert_eq!((cluster.serving(), yielded(&cluster)), (Some(node("a1")), 0));
}

#[test]
fn a_primary_that_cannot_hand_over_within_moments_goes_on_and_tries_again() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.machine("b1").syncs_held = true;
    let early = cluster.begin_put("a1", "early", 1, &object(1, 500));
    cluster.hand_over(Some("a2"));
    cluster.run(Duration::from_millis(1_000));
    assert_eq!(cluster.put("a1", "late", 2, &object(2, 500)), Err(Refusal::LeaseExpired));
    cluster.run(Duration::from_millis(1_000));
    let late = cluster.begin_put("a1", "late", 3, &object(2, 500));
    cluster.machine("b1").syncs_held = false;
    cluster.release_syncs("b1");
    assert!(cluster.wait(early).response.expect("answered").is_ok());
    assert!(cluster.wait(late).response.expect("answered").is_ok());
    assert_eq!(cluster.serving(), Some(node("a1")));
    assert!(
        cluster.run_until(Duration::from_secs(6), |c| c.serving() == Some(node("a2"))),
        "it is still wanted"
    );
}

#[test]
fn whoever_hears_of_a_handover_before_its_epoch_has_begun_hands_over_when_it_has() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.change(|config| config.primary = Some(node("a2")));
    cluster.hand_over(Some("b1"));
    assert_eq!(cluster.serving(), None);
    assert!(cluster.run_until(Duration::from_secs(10), |c| c.serving() == Some(node("b1"))));
}
