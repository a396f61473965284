//! Grants and the waits that follow from them.

use trefoil_protocol::ids::{ConfigIndex, Epoch, VolumeId};
use trefoil_protocol::message::control::{
    ControlAnswer, ControlRefusal, ControlRequest, Renew, StoreCondition,
};

use crate::cluster::{Cluster, at, node, store};

#[test]
fn r019_a_grant_covers_what_the_renewal_said_it_knew() {
    let mut cluster = Cluster::with_volume();
    let primary = cluster.config().primary.unwrap();
    let known = cluster.nodes[&primary].applied;
    let ControlAnswer::Granted { covers, sent, news } = cluster.renew(primary) else { panic!() };
    assert_eq!((covers, sent), (known, at(cluster.now)));
    assert_eq!(news.index, cluster.state().applied);
    let boast = Renew {
        store: cluster.nodes[&primary].store,
        incarnation: cluster.nodes[&primary].incarnation,
        applied: ConfigIndex(u64::MAX),
        sent: at(0),
        volumes: Vec::new(),
        links: None,
        timings: Vec::new(),
        condition: StoreCondition::default(),
    };
    let answer = cluster.ask(primary, ControlRequest::Renew(boast));
    assert!(matches!(answer, ControlAnswer::Refused(ControlRefusal::Denied(_))));
}

#[test]
fn r019_a_silent_primary_is_waited_out_for_the_whole_of_its_last_grant() {
    let mut cluster = Cluster::with_volume();
    let first = cluster.primary();
    cluster.renew(node(&first));
    let granted = cluster.now;
    cluster.stop(&[&first]);
    cluster.run_until(12_000, |c| c.config().epoch > Epoch(1) && c.config().activated);
    let waited = cluster.now - granted;
    assert!((7_000..=7_200).contains(&waited), "{waited} ms");
}

#[test]
fn r019_a_primary_that_acknowledged_its_removal_is_not_waited_for() {
    let mut cluster = Cluster::with_volume();
    let stores = cluster.others().iter().map(|name| store(name)).collect();
    let (first, epoch) = (cluster.primary(), cluster.config().epoch);
    cluster.report(ControlRequest::Lagging { volume: VolumeId(1), epoch, stores });
    assert_ne!(cluster.primary(), first);
    let took = cluster.run_until(3_000, |c| c.config().activated);
    assert!(took <= 1_100, "{took} ms");
}

#[test]
fn r019_a_removed_member_is_waited_for_like_a_primary() {
    let mut cluster = Cluster::with_volume();
    let remote = cluster.remote();
    cluster.renew(node(&remote));
    let granted = cluster.now;
    cluster.stop(&[&remote]);
    cluster.run_until(12_000, |c| c.config().epoch > Epoch(1) && c.config().activated);
    assert!(cluster.now - granted >= 7_000, "it could still serve versions");
}

#[test]
fn r019_a_restarted_voter_assumes_that_everybody_was_just_granted() {
    let mut cluster = Cluster::with_volume();
    let first = cluster.primary();
    cluster.stop(&[&first]);
    cluster.run(6_000);
    let epoch = cluster.config().epoch;
    assert!(epoch > Epoch(1) && !cluster.config().activated);
    cluster.restart_placement();
    let restarted = cluster.now;
    cluster.run_until(12_000, |c| c.config().activated);
    let waited = cluster.now - restarted;
    assert!((7_000..=7_700).contains(&waited), "{waited} ms");
    assert_eq!(cluster.config().epoch, epoch);
}

#[test]
fn a_restart_of_the_control_plane_alone_changes_no_configuration() {
    let mut cluster = Cluster::with_volume();
    let before = cluster.config();
    cluster.restart_placement();
    cluster.run(10_000);
    assert_eq!(cluster.config(), before);
}

#[test]
fn a_watch_is_answered_by_news_or_after_a_second() {
    let mut cluster = Cluster::with_volume();
    cluster.run(1_000);
    let primary = cluster.config().primary.unwrap();
    let applied = cluster.nodes[&primary].applied;
    let watch = trefoil_placement::Request::Control(primary, ControlRequest::Watch { applied, partly: None });
    let idle = cluster.send(watch.clone());
    cluster.run(900);
    assert!(cluster.answer(idle).is_none(), "ticks are no news");
    cluster.run(100);
    assert!(cluster.answer(idle).is_some());
    let woken = cluster.send(watch);
    assert!(cluster.answer(woken).is_none());
    cluster.create_tenant("other", 1);
    assert!(cluster.answer(woken).is_some());
}

#[test]
fn nobody_who_is_unknown_or_from_a_former_run_is_granted() {
    let mut cluster = Cluster::with_volume();
    let a1 = node("a1");
    let old = cluster.nodes[&a1].incarnation;
    cluster.restart("a1");
    cluster.nodes.get_mut(&a1).unwrap().incarnation = old;
    assert_eq!(cluster.renew(a1), ControlAnswer::Refused(ControlRefusal::Unregistered));
    let stranger = ControlRequest::Watch { applied: ConfigIndex(0), partly: None };
    let refused = ControlAnswer::Refused(ControlRefusal::Unregistered);
    assert_eq!(cluster.ask(node("c1"), stranger), refused);
}

#[test]
fn a_thousand_volumes_are_told_in_parts_each_once_and_none_is_left_out() {
    let mut cluster = Cluster::with_volume();
    cluster.run(1_000);
    let a1 = node("a1");
    let (mut applied, mut partly) = (cluster.nodes[&a1].applied, None);
    cluster.create_tenant("many", 1024);
    let mut told = Vec::new();
    loop {
        let ControlAnswer::News(news) = cluster.ask(a1, ControlRequest::Watch { applied, partly }) else {
            panic!("there is news")
        };
        assert!(news.index < cluster.state().applied || news.partly.is_none());
        told.extend(news.volumes.iter().map(|config| config.volume));
        (applied, partly) = (news.index, news.partly);
        if partly.is_none() {
            break;
        }
    }
    let held = cluster.state().volumes.all().filter(|record| record.config.slot > 0);
    let held = held.filter(|record| record.config.member(a1).is_some());
    let held: Vec<_> = held.map(|record| record.config.volume).collect();
    assert!(held.len() > 256, "{}", held.len());
    told.retain(|volume| cluster.state().volumes.get(*volume).unwrap().config.slot > 0);
    assert_eq!(told, held);
    assert_eq!(applied, cluster.state().applied);
}
