//! Records that rot: one good copy mends the others, and without any the volume stops and says which
//! record it is. Nothing is ever passed over.

use std::time::Duration;

use trefoil_engine::disk::fault::FaultDisk;
use trefoil_protocol::config::MemberState;
use trefoil_protocol::ids::Lsn;
use trefoil_protocol::message::peer::PeerBody;
use trefoil_protocol::message::tenant::{Refusal, TenantAnswer};
use trefoil_storage_node::Notice;
use trefoil_storage_node::volume::replica::Stop;

use crate::cluster::{Cluster, VOLUME, member, node, object};

const NODES: [&str; 3] = ["a1", "a2", "b1"];
const MINUTE: Duration = Duration::from_secs(60);
const FRAME_HEADER: usize = 192;

/// Flips a bit in the public part of the record that carries `payload`.
fn spoil(disk: &FaultDisk, payload: &[u8]) {
    let holds = |(path, file): (String, Vec<u8>)| {
        Some((path, file.windows(payload.len()).position(|window| window == payload)?, file))
    };
    let (path, payload_at, file) = disk.files().into_iter().find_map(holds).expect("it is on the disk");
    let starts = (0..=payload_at - payload_at % 64).rev().step_by(64);
    let frame = starts.into_iter().find(|at| &file[*at..*at + 4] == b"TRFS").expect("in a frame");
    disk.flip_bit(&path, (frame + FRAME_HEADER + 8) as u64, 3);
}

/// Flips a bit in the last record that names `version`: its delete, if it was deleted.
fn spoil_last_word_on(disk: &FaultDisk, version: u8) {
    let names = |file: &[u8]| file.windows(16).rposition(|window| window == [version; 16]);
    let segments = disk.files().into_iter().filter(|(path, _)| path.contains("segment-"));
    let (path, at) =
        segments.filter_map(|(path, file)| Some((path, names(&file)?))).next_back().expect("is named");
    disk.flip_bit(&path, at as u64, 3);
}

fn spoil_everywhere(cluster: &mut Cluster, version: u8) {
    for name in NODES {
        spoil(&cluster.machine(name).disk.clone(), &object(version, 300));
    }
}

/// Six small objects; which record put the third of them.
fn six_objects(cluster: &mut Cluster) -> Lsn {
    let mut third = Lsn::ZERO;
    for version in 1..=6 {
        let response = cluster.put("a1", &format!("k{version}"), version, &object(version, 300));
        let Ok(TenantAnswer::Stored(receipt)) = response else { panic!("{response:?}") };
        if version == 3 {
            third = receipt.lsn;
        }
    }
    cluster.run(Duration::from_secs(2));
    third
}

fn power_off(cluster: &mut Cluster) {
    for (name, seed) in NODES.into_iter().zip(1..) {
        cluster.crash(name, seed);
    }
}

fn power_on(cluster: &mut Cluster) {
    NODES.into_iter().for_each(|name| cluster.start(name));
}

fn reads_everything(cluster: &mut Cluster, at: &str) {
    for version in 1..=6 {
        assert_eq!(cluster.get(at, &format!("k{version}")).bytes, object(version, 300), "{version}");
    }
}

fn notices(cluster: &Cluster, name: &str) -> Vec<Notice> {
    cluster.machines[&node(name)].notices.clone()
}

#[test]
fn r010_a_record_that_is_bad_on_every_copy_stops_the_volume_by_name_and_no_history_is_shortened() {
    let mut cluster = Cluster::healthy(&NODES);
    let lsn = six_objects(&mut cluster);
    let last = cluster.core("a1").volumes()[&VOLUME].holding().last();
    power_off(&mut cluster);
    spoil_everywhere(&mut cluster, 3);
    power_on(&mut cluster);
    cluster.run(MINUTE);
    assert_eq!(cluster.serving(), None);
    let stop = Stop::Lost { volume: VOLUME, epoch: cluster.epoch(), lsn };
    assert_eq!(cluster.core("a1").volumes()[&VOLUME].stopped(), Some(stop.clone()));
    assert_eq!(notices(&cluster, "a1"), [Notice::Stopped(stop)], "said once");
    assert_eq!(cluster.get("a1", "k1").response, Some(Err(Refusal::Unavailable)), "not a shorter history");
    for name in NODES {
        let holding = cluster.core(name).volumes()[&VOLUME].holding();
        assert!(holding.passes(last), "nothing is cut on {name}");
        assert!(cluster.machine(name).fatal.is_none(), "{name} serves its other volumes");
    }
    cluster.sent.clear();
    cluster.run(MINUTE);
    let asks = |body: &PeerBody| matches!(body, PeerBody::FetchLog { .. });
    let from_primary = cluster.sent.iter().filter(|(from, _, _, _)| *from == node("a1"));
    let asked = from_primary.filter(|(_, _, message, _)| asks(&message.body)).count();
    assert!((10..=80).contains(&asked), "it goes on asking, with pauses: {asked} times a minute");
    // Whoever finds a good copy starts a store with it.
    cluster.crash("b1", 9);
    spoil(&cluster.machine("b1").disk.clone(), &object(3, 300));
    cluster.start("b1");
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))), "it goes on by itself");
    reads_everything(&mut cluster, "a1");
}

#[test]
fn r010_a_primary_that_serves_stops_when_nobody_has_a_record_any_more() {
    let mut cluster = Cluster::healthy(&["a1", "a2", "b1", "b2"]);
    let lsn = six_objects(&mut cluster);
    // More than stays in memory for members that are a little behind.
    for _ in 0..300 {
        cluster.delete("a1", "k6").unwrap();
        cluster.undelete("a1", "k6").unwrap();
    }
    spoil_everywhere(&mut cluster, 3);
    // A replacement needs the whole log.
    cluster.crash("b1", 1);
    let (lost, new) = (node("b1"), member("b2", MemberState::CatchingUp));
    cluster.change(|config| {
        config.members.retain(|member| member.node != lost);
        config.members.push(new);
    });
    let stopped = |c: &Cluster| c.core("a1").volumes()[&VOLUME].stopped().is_some();
    assert!(cluster.run_until(MINUTE, stopped));
    let stop = Stop::Lost { volume: VOLUME, epoch: cluster.epoch(), lsn };
    assert_eq!(cluster.core("a1").volumes()[&VOLUME].stopped(), Some(stop));
    assert_eq!(cluster.get("a1", "k1").response, Some(Err(Refusal::Unavailable)));
}

#[test]
fn r008_damage_at_another_place_on_each_copy_is_mended_from_the_others() {
    let mut cluster = Cluster::healthy(&NODES);
    six_objects(&mut cluster);
    power_off(&mut cluster);
    for (name, versions) in NODES.into_iter().zip([[2, 3], [3, 4], [4, 2]]) {
        let disk = cluster.machine(name).disk.clone();
        versions.into_iter().for_each(|version| spoil(&disk, &object(version, 300)));
    }
    power_on(&mut cluster);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    reads_everything(&mut cluster, "a1");
    cluster.run(Duration::from_secs(5));
    for name in NODES {
        let holding = cluster.core(name).volumes()[&VOLUME].holding();
        assert_eq!(holding.hole(), None, "{name}");
    }
}

#[test]
fn r009_a_store_with_a_damaged_range_leads_only_when_it_is_mended() {
    let mut cluster = Cluster::healthy(&NODES);
    let lsn = six_objects(&mut cluster);
    cluster.crash("a1", 1);
    spoil(&cluster.machine("a1").disk.clone(), &object(3, 300));
    cluster.start("a1");
    cluster.cut("a1", "a2");
    cluster.cut("a1", "b1");
    cluster.run(Duration::from_secs(20));
    assert_eq!(cluster.core("a1").volumes()[&VOLUME].holding().hole(), Some(lsn));
    assert_eq!(cluster.serving(), None, "damaged, and nobody to mend it from");
    cluster.heal();
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    assert_eq!(cluster.core("a1").volumes()[&VOLUME].holding().hole(), None);
    reads_everything(&mut cluster, "a1");
}

/// A member has a lease, and of two objects that were deleted the one delete stands in the middle of its log and the
/// other one at the end. That one of them rots.
fn member_with_a_rotten_delete(version: u8) -> Cluster {
    let mut cluster = Cluster::healthy(&NODES);
    six_objects(&mut cluster);
    cluster.delete("a1", "k3").unwrap();
    cluster.put("a1", "k7", 7, &object(7, 300)).unwrap();
    cluster.delete("a1", "k4").unwrap();
    cluster.run(Duration::from_secs(2));
    cluster.crash("b1", 1);
    spoil_last_word_on(&cluster.machine("b1").disk.clone(), version);
    cluster.cut("b1", "a1");
    cluster.cut("b1", "a2");
    cluster.start("b1");
    cluster.run(Duration::from_secs(5));
    cluster
}

#[test]
fn r009_a_member_that_cannot_read_a_delete_neither_gives_nor_denies_a_version() {
    for deleted in [3, 4] {
        let mut cluster = member_with_a_rotten_delete(deleted);
        for version in 1..=7 {
            let heard = cluster.get_version("b1", &format!("k{version}"), version);
            assert_eq!(heard.response, Some(Err(Refusal::Unavailable)), "{version}, {deleted} is rotten");
        }
        cluster.heal();
        cluster.run(Duration::from_secs(5));
        for version in 1..=7 {
            let heard = cluster.get_version("b1", &format!("k{version}"), version);
            match version {
                3 | 4 => assert_eq!(heard.response, Some(Err(Refusal::Changed)), "{version}"),
                _ => assert_eq!(heard.bytes, object(version, 300), "{version}"),
            }
        }
    }
}
