//! The log under the state: what is answered is durable, and the same commands give the same state.

use trefoil_placement::log_store::{LogStore, MemoryLogStore, NextSync};
use trefoil_placement::state::{Command, State};
use trefoil_placement::{Effect, Event, OpenError, Placement, Request, RequestId};
use trefoil_protocol::ids::{ConfigIndex, Incarnation};
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::time::{CpTime, Millis};

use crate::cluster::{Cluster, at, entropy, keyring, node, settings, store, voter};

#[test]
fn one_wrong_clock_ends_no_window() {
    let mut cluster = Cluster::with_volume();
    let before = cluster.state().clock.now();
    // Leadership moves to a voter whose boot clock is a year ahead.
    cluster.now += 365 * 24 * 3_600 * 1_000;
    cluster.restart_placement();
    assert_eq!(cluster.state().clock.now(), before, "a leader's first tick adds nothing");
    cluster.run(10_000);
    let passed = cluster.state().clock.now().0 - before.0;
    assert!(passed <= 10_000, "{passed} ms");
    // A leader whose clock jumps while it leads.
    let before = cluster.state().clock.now();
    cluster.now += 365 * 24 * 3_600 * 1_000;
    cluster.run(1_000);
    let passed = cluster.state().clock.now().0 - before.0;
    assert!(passed <= 3_000, "{passed} ms");
}

#[test]
fn control_plane_time_never_runs_faster_than_its_leaders_clock() {
    let mut cluster = Cluster::new();
    let (start, began) = (cluster.state().clock.now(), cluster.now);
    cluster.run(60_000);
    let passed = cluster.state().clock.now().0 - start.0;
    assert!(passed <= cluster.now - began + 500);
    assert!(passed >= 58_000, "{passed} ms in a minute");
}

#[test]
fn an_outage_makes_windows_longer() {
    let mut cluster = Cluster::new();
    let before = cluster.state().clock.now();
    let log = cluster.placement.take().unwrap().into_store();
    cluster.now += 3_600_000;
    cluster.open(log);
    cluster.run(1_000);
    assert!(cluster.state().clock.now().0 - before.0 <= 1_000);
}

#[test]
fn a_restart_finds_exactly_what_was_committed() {
    let mut cluster = Cluster::with_volume();
    cluster.stop(&["b1"]);
    cluster.run(9_000);
    let before = cluster.state().to_bytes();
    let applied = cluster.state().applied;
    let mut log = cluster.placement.take().unwrap().into_store();
    log.crash();
    let mut placement =
        Placement::open(settings("p-a1", &[voter("p-a1")]), Some(keyring()), log, entropy(), at(cluster.now))
            .unwrap();
    placement.step(at(cluster.now), Event::Wakeup);
    // The new leader's own first entry and tick are the only difference.
    let state = placement.state().clone();
    assert!(state.applied > applied);
    let mut replayed = State::from_bytes(&before).unwrap();
    replayed.applied = state.applied;
    assert_eq!(replayed, state);
}

#[test]
fn a_failed_sync_is_fatal_and_answers_nobody() {
    for plan in [NextSync::FailsLost, NextSync::FailsKept] {
        let mut cluster = Cluster::empty();
        cluster.placement.as_mut().unwrap().store_mut().plan_sync(plan);
        let asked = Cluster::register("a1", store("a1"), Incarnation(0));
        let request = Request::Control(node("a1"), ControlRequest::Register(asked));
        let effects = cluster.step(Event::Request(RequestId(77), request));
        assert!(matches!(effects.as_slice(), [Effect::Fatal(_)]), "{effects:?}");
        assert!(cluster.step(Event::Wakeup).is_empty());
        assert_eq!(cluster.placement.as_ref().unwrap().next_wakeup(), None);
        cluster.restart_placement();
        let kept = cluster.state().topology.node(node("a1")).is_some();
        assert_eq!(kept, plan == NextSync::FailsKept);
    }
}

#[test]
fn the_same_commands_give_the_same_bytes() {
    let run = || {
        let mut cluster = Cluster::with_volume();
        cluster.stop(&["a1", "b2"]);
        cluster.run(12_000);
        cluster.restart("a1");
        cluster.complete_all();
        cluster.run(5_000);
        (cluster.state().to_bytes(), cluster.answers)
    };
    let (first, second) = (run(), run());
    assert_eq!(first.0, second.0);
    assert_eq!(first.1, second.1);
    let state = State::from_bytes(&first.0).unwrap();
    assert_eq!(state.to_bytes(), first.0, "a snapshot says everything");
}

#[test]
fn a_long_log_is_compacted_and_still_complete() {
    let mut cluster = Cluster::with_volume();
    let before = cluster.config();
    // Half a second a tick: more ticks than the log keeps.
    for _ in 0..4_200 {
        cluster.now += 500;
        cluster.step(Event::Wakeup);
        for id in cluster.nodes.keys().copied().collect::<Vec<_>>() {
            cluster.renew(id);
        }
    }
    let log = cluster.placement.take().unwrap().into_store();
    assert!(log.durable_entries() < 4_200, "{}", log.durable_entries());
    let stored = log.load().unwrap().unwrap();
    assert!(stored.snapshot.index > 1);
    cluster.open(log);
    cluster.run(1_000);
    assert_eq!(cluster.config(), before);
}

#[test]
fn a_log_of_another_cluster_is_refused() {
    let log = Cluster::empty().placement.unwrap().into_store();
    let mut other = settings("p-a1", &[voter("p-a1")]);
    other.cluster = "other".into();
    let opened = Placement::open(other, Some(keyring()), log, entropy(), at(0));
    assert!(matches!(opened.err(), Some(OpenError::Cluster { .. })));
    let fresh = Placement::open(
        settings("p-a1", &[voter("p-a1")]),
        Some(keyring()),
        MemoryLogStore::default(),
        entropy(),
        at(0),
    );
    assert_eq!(fresh.unwrap().state().cluster, "test");
}

#[test]
fn a_tick_in_the_log_adds_no_more_than_its_limit() {
    let mut state = State::new("test", &[]);
    state.apply(ConfigIndex(2), &Command::Tick(Millis(u64::MAX)));
    assert_eq!(state.clock.now(), CpTime(2_000));
}
