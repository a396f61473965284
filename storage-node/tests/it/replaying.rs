//! A data centre takes a volume over that the other one acknowledged alone: what was hidden and brought back
//! there is hidden and brought back here, before anything is answered.

use std::time::Duration;

use trefoil_engine::index::VersionState;
use trefoil_protocol::config::Protection;
use trefoil_protocol::ids::{Lsn, VersionId};
use trefoil_protocol::message::control::{ControlRequest, Visibility, VisibilityChange};
use trefoil_protocol::message::tenant::Refusal;

use crate::cluster::{Cluster, VOLUME, node, object};

const NODES: [&str; 3] = ["a1", "a2", "b1"];
const MINUTE: Duration = Duration::from_secs(60);

fn change(version: u8, lsn: u64, visibility: Visibility) -> VisibilityChange {
    VisibilityChange { version: VersionId([version; 16]), lsn: Lsn(lsn), visibility }
}

/// A1 acknowledged alone that two versions are hidden, one of which nobody else had, and that another one is
/// back. Then it is lost, and others take over; the control plane does not hear that it is done.
fn taken_over() -> Cluster {
    let mut cluster = Cluster::healthy(&NODES);
    for (key, version) in [("gone", 1), ("back", 2), ("here", 3), ("overwritten", 4)] {
        cluster.put("a1", key, version, &object(version, 100)).unwrap();
    }
    cluster.delete("a1", "back").unwrap();
    cluster.run(Duration::from_secs(1));
    cluster.crash("a1", 1);
    cluster.placement.replay = vec![
        change(4, 20, Visibility::Hidden),
        change(9, 21, Visibility::Hidden),
        change(1, 22, Visibility::Hidden),
        change(2, 23, Visibility::Live),
    ];
    cluster.placement.is_deaf = true;
    take_over(&mut cluster, "a2");
    cluster
}

fn take_over(cluster: &mut Cluster, by: &str) {
    let by = node(by);
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("a1"));
        config.primary = Some(by);
        config.protection = Protection::SingleDc;
        config.intervals.clear();
        config.replays = true;
    });
}

fn has_said_so(cluster: &Cluster, name: &str) -> bool {
    let said = |(from, request): &(_, ControlRequest)| {
        *from == node(name) && matches!(request, ControlRequest::Replayed { .. })
    };
    cluster.placement.asked.iter().any(said)
}

fn everything_stands(cluster: &mut Cluster, name: &str) {
    cluster.run(Duration::from_secs(2)); // The lease covers the configuration again.
    for key in ["gone", "overwritten"] {
        assert_eq!(cluster.get(name, key).response, Some(Err(Refusal::NotFound)), "{key}");
    }
    assert_eq!(cluster.get(name, "back").bytes, object(2, 100));
    assert_eq!(cluster.get(name, "here").bytes, object(3, 100));
}

fn records(cluster: &Cluster, name: &str) -> Lsn {
    cluster.core(name).volumes()[&VOLUME].holding().committed()
}

#[test]
fn deletes_are_replayed_before_anything_is_served() {
    let mut cluster = taken_over();
    cluster.run(Duration::from_secs(5));
    assert!(!has_said_so(&cluster, "a2"), "the new account does not have them either");
    assert_eq!(cluster.serving(), None);
    assert!(cluster.get_version("b1", "here", 3).response.is_some_and(|answer| answer.is_err()));
    assert!(cluster.get("a2", "here").response.is_some_and(|answer| answer.is_err()));
    cluster.placement.is_deaf = false;
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a2"))));
    assert!(has_said_so(&cluster, "a2"));
    everything_stands(&mut cluster, "a2");
    cluster.put("a2", "gone", 5, &object(5, 100)).unwrap();
}

#[test]
fn a_replay_that_breaks_off_is_taken_up_by_the_next_primary_and_happens_once() {
    let mut cluster = taken_over();
    cluster.placement.is_deaf = false;
    let has_begun = |c: &Cluster| {
        let index = c.core("a2").volumes()[&VOLUME].holding().index();
        let overwritten = index.version(VersionId([4; 16])).expect("it is here");
        matches!(overwritten.state, VersionState::Deleted(_))
    };
    assert!(cluster.run_until(MINUTE, has_begun));
    assert_eq!(cluster.serving(), None);
    cluster.crash("a2", 2);
    cluster.start("a2");
    take_over(&mut cluster, "b1");
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("b1"))));
    everything_stands(&mut cluster, "b1");
    // Once more, from the beginning: there is nothing left to do but to say so.
    let before = records(&cluster, "b1");
    take_over(&mut cluster, "b1");
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("b1"))));
    assert_eq!(records(&cluster, "b1"), before.next(), "an epoch begins with a record of its own");
    everything_stands(&mut cluster, "b1");
}
