//! Wrapped keys on their way from the records to the key bag and out of it, by running nodes: one
//! replica at a time, through crashes, damage and purges.

use std::time::Duration;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use trefoil_engine::{EraseTarget, Store};
use trefoil_protocol::config::MemberState;
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::message::peer::{BagTurn, PeerBody};
use trefoil_storage_node::Pace;

use crate::cluster::{Cluster, LAYOUT, TENANT, VOLUME, member, node, object, store_of};

const NODES: [&str; 3] = ["a1", "a2", "b1"];
const MINUTE: Duration = Duration::from_secs(60);
const PACE: Pace = Pace {
    keys_move_after: Duration::from_secs(5),
    keys_move_count: 1000,
    scrub_every: Duration::from_secs(7 * 24 * 3600),
    repair_floor: 8 << 20,
};
const WINDOW_MS: u64 = 20_000;

fn wrapped(version: u8) -> [u8; 40] {
    [version; 40]
}

/// How many places of a node's disk hold a version's wrapped key in the clear.
fn places(cluster: &mut Cluster, name: &str, version: u8) -> usize {
    let files = cluster.machine(name).disk.files();
    let holds = |file: &[u8]| file.windows(40).filter(|window| **window == wrapped(version)).count();
    files.iter().map(|(_, file)| holds(file)).sum()
}

/// Whether a bag of this node opens with a key, as docs/disk-format.md says.
fn opens(file: &[u8], name: &str, key: &[u8]) -> bool {
    let mut bound = b"trefoil/v1 key bag".to_vec();
    bound.extend_from_slice(&store_of(node(name)).0);
    bound.extend_from_slice(&TENANT.0.to_le_bytes());
    bound.extend_from_slice(&VOLUME.0.to_le_bytes());
    bound.extend_from_slice(&file[8..16]);
    let cipher = ChaCha20Poly1305::new_from_slice(key).expect("32 bytes");
    cipher.decrypt(&Nonce::default(), Payload { msg: &file[24..], aad: &bound }).is_ok()
}

fn bag_has(cluster: &Cluster, name: &str, version: u8) -> bool {
    let Some(core) = &cluster.machines[&node(name)].core else { return false };
    let Some(replica) = core.volumes().get(&VOLUME) else { return false };
    replica.holding().volume().bag().get(VersionId([version; 16])).is_some()
}

/// Whether a node's bag has the keys and its records have them no more.
fn has_moved(cluster: &Cluster, name: &str, version: u8) -> bool {
    bag_has(cluster, name, version) && {
        let log = cluster.core(name).volumes()[&VOLUME].holding().log();
        log.is_erased(EraseTarget::WrappedKey(VersionId([version; 16])))
    }
}

fn certified(cluster: &Cluster, name: &str, version: u8) -> bool {
    let replica = &cluster.core(name).volumes()[&VOLUME];
    let object = replica.holding().index().version(VersionId([version; 16]));
    object.is_some_and(|object| matches!(object.state, trefoil_engine::index::VersionState::Certified { .. }))
}

fn reads(cluster: &mut Cluster, at: &str, key: &str, version: u8, bytes: &[u8]) {
    let heard = cluster.get(at, key);
    let answer = heard.response.expect("answered");
    let Ok(trefoil_protocol::message::tenant::TenantAnswer::Object(view)) = answer else {
        panic!("{key}: {answer:?}")
    };
    assert_eq!(view.wrapped_key[..], wrapped(version), "{key}");
    assert_eq!(heard.bytes, bytes, "{key}");
}

/// A small and a large object whose keys rest in every bag.
fn cluster_with_moved_keys(names: &[&str]) -> Cluster {
    let mut cluster = Cluster::healthy_at(names, PACE);
    cluster.put("a1", "small", 1, &object(1, 1000)).unwrap();
    cluster.put("a1", "large", 2, &object(2, 200_000)).unwrap();
    let all = |c: &Cluster| NODES.iter().all(|name| has_moved(c, name, 1) && has_moved(c, name, 2));
    assert!(cluster.run_until(MINUTE, all), "the keys move");
    cluster
}

#[test]
fn after_its_time_no_record_holds_a_key_and_reads_go_on_after_a_crash() {
    let mut cluster = Cluster::healthy_at(&NODES, PACE);
    cluster.put("a1", "small", 1, &object(1, 1000)).unwrap();
    assert_eq!(NODES.map(|name| places(&mut cluster, name, 1)), [1; 3], "it rides in its record");
    cluster.put("a1", "large", 2, &object(2, 200_000)).unwrap();
    let all = |c: &Cluster| NODES.iter().all(|name| has_moved(c, name, 1) && has_moved(c, name, 2));
    assert!(cluster.run_until(MINUTE, all));
    for name in NODES {
        assert_eq!((places(&mut cluster, name, 1), places(&mut cluster, name, 2)), (0, 0), "{name}");
    }
    for (seed, name) in (1..).zip(NODES) {
        cluster.crash(name, seed);
    }
    NODES.iter().for_each(|name| cluster.start(name));
    cluster.change(|config| config.primary = Some(node("a2")));
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a2"))));
    reads(&mut cluster, "a2", "small", 1, &object(1, 1000));
    reads(&mut cluster, "a2", "large", 2, &object(2, 200_000));
}

#[test]
fn many_keys_move_before_their_time() {
    let pace = Pace { keys_move_count: 4, ..Pace::default() };
    let mut cluster = Cluster::healthy_at(&NODES, pace);
    for version in 1..=4 {
        cluster.put("a1", &format!("k{version}"), version, &object(version, 100)).unwrap();
    }
    let all = |c: &Cluster| NODES.iter().all(|name| (1..=4).all(|version| has_moved(c, name, version)));
    assert!(cluster.run_until(Duration::from_secs(10), all));
}

#[test]
fn one_replica_rotates_at_a_time() {
    let mut cluster = Cluster::healthy_at(&NODES, PACE);
    for version in 1..=3 {
        cluster.put("a1", &format!("k{version}"), version, &object(version, 100)).unwrap();
    }
    let at_it = |c: &Cluster| {
        let is_rotating = |name: &&&str| c.core(name).volumes()[&VOLUME].holding().keys().is_rotating();
        NODES.iter().filter(is_rotating).count()
    };
    let mut most = 0;
    let all = |c: &Cluster| {
        most = most.max(at_it(c));
        NODES.iter().all(|name| has_moved(c, name, 3))
    };
    assert!(cluster.run_until(MINUTE, all));
    assert_eq!(most, 1);
    // A store that is at it when the epoch ends keeps its turn under the next primary.
    cluster.put("a1", "k9", 9, &object(9, 100)).unwrap();
    cluster.machine("b1").rotations_held = true;
    assert!(cluster.run_until(MINUTE, |c| c.core("b1").volumes()[&VOLUME].holding().keys().is_rotating()));
    cluster.put("a1", "k10", 10, &object(10, 100)).unwrap();
    cluster.change(|config| config.primary = Some(node("a2")));
    assert!(!cluster.run_until(MINUTE, |c| has_moved(c, "a2", 10)), "b1 is still at it");
    cluster.release_rotations("b1");
    // After so long a rotation its disk has a long rest.
    assert!(cluster.run_until(15 * MINUTE, |c| NODES.iter().all(|name| has_moved(c, name, 10))));
}

#[test]
fn a_store_that_dies_at_its_turn_holds_up_nobody_for_ever() {
    let mut cluster = Cluster::healthy_at(&NODES, PACE);
    cluster.put("a1", "k", 1, &object(1, 100)).unwrap();
    cluster.machine("b1").rotations_held = true;
    assert!(cluster.run_until(MINUTE, |c| c.core("b1").volumes()[&VOLUME].holding().keys().is_rotating()));
    cluster.crash("b1", 3);
    cluster.begin_put("a1", "k2", 2, &object(2, 100));
    cluster.run(Duration::from_secs(10));
    cluster.start("b1");
    assert!(cluster.run_until(MINUTE, |c| NODES.iter().all(|name| has_moved(c, name, 2))));
}

#[test]
fn r064_a_purge_rotates_the_bag_before_it_gives_a_receipt_and_no_older_bag_opens() {
    let mut cluster = cluster_with_moved_keys(&NODES);
    let is_bag = |path: &str| path.contains("/bag-");
    let copies: Vec<(&str, String, Vec<u8>)> = NODES
        .into_iter()
        .flat_map(|name| {
            let files = cluster.machines[&node(name)].disk.files().into_iter();
            files.filter(|(path, _)| is_bag(path)).map(move |(path, bytes)| (name, path, bytes))
        })
        .collect();
    assert_eq!(copies.len(), 3);
    cluster.delete("a1", "small").unwrap();
    cluster.placement.ahead += WINDOW_MS;
    let mut early = false;
    let all = |c: &Cluster| {
        early |= NODES.iter().any(|name| certified(c, name, 1) && NODES.iter().any(|n| bag_has(c, n, 1)));
        NODES.iter().all(|name| certified(c, name, 1))
    };
    assert!(cluster.run_until(MINUTE, all));
    assert!(!early, "the certificate waits for every bag");
    for (name, path, stolen) in copies {
        let disk = cluster.machines[&node(name)].disk.clone();
        let files = disk.files();
        assert!(!files.iter().any(|(left, _)| *left == path), "{name}: the old bag is no more");
        // Whatever lies on the disk now: no 32 bytes of it open the copy.
        let mut tried = 0_usize;
        for (_, file) in &files {
            for key in file.windows(32).filter(|key| key[0] != 0 || key[31] != 0) {
                tried += 1;
                assert!(!opens(&stolen, name, key), "{name}: {path}");
            }
        }
        assert!(tried > 1000, "{name}: {tried}");
        let live = files.iter().find(|(path, _)| is_bag(path)).expect("a bag");
        let opened = files.iter().any(|(_, file)| file.windows(32).any(|key| opens(&live.1, name, key)));
        assert!(opened, "the search finds the key of today's bag");
    }
    reads(&mut cluster, "a1", "large", 2, &object(2, 200_000));
}

#[test]
fn a_replacement_gets_keys_that_have_left_their_records() {
    let mut cluster = cluster_with_moved_keys(&["a1", "a2", "b1", "b2"]);
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("b1"));
        config.members.push(member("b2", MemberState::CatchingUp));
        config.ever_held.push(store_of(node("b2")));
    });
    assert!(cluster.run_until(MINUTE, |c| has_moved(c, "b2", 1) && has_moved(c, "b2", 2)));
}

#[test]
fn a_damaged_bag_is_filled_again_from_other_copies() {
    for victim in ["a1", "b1"] {
        let mut cluster = cluster_with_moved_keys(&NODES);
        cluster.crash(victim, 0);
        let disk = cluster.machine(victim).disk.clone();
        let (path, _) = disk.files().into_iter().find(|(path, _)| path.contains("/bag-")).expect("a bag");
        disk.flip_bit(&path, 70, 5);
        cluster.start(victim);
        let healed = |c: &Cluster| has_moved(c, victim, 1) && has_moved(c, victim, 2);
        assert!(cluster.run_until(MINUTE, healed), "{victim}");
        cluster.change(|config| config.primary = Some(node(victim)));
        assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node(victim))), "{victim}");
        reads(&mut cluster, victim, "small", 1, &object(1, 1000));
        reads(&mut cluster, victim, "large", 2, &object(2, 200_000));
        let store = Store::open(&disk, LAYOUT).expect("opens");
        assert!(store.find_bytes(&wrapped(1)).expect("scans").is_empty());
    }
}

#[test]
fn no_word_of_an_earlier_wish_starts_a_rotation() {
    let mut cluster = cluster_with_moved_keys(&NODES);
    let turns = cluster
        .sent
        .iter()
        .filter(|(_, _, message, _)| matches!(message.body, PeerBody::BagTurn { number } if number > 0));
    let turns: Vec<_> = turns.cloned().collect();
    assert!(!turns.is_empty());
    let generation =
        |c: &Cluster| NODES.map(|name| c.core(name).volumes()[&VOLUME].holding().volume().bag().generation());
    let before = generation(&cluster);
    for (from, to, message, bulk) in turns {
        cluster.step(to, trefoil_storage_node::Event::Peer { from, message, bulk });
    }
    cluster.run(Duration::from_secs(5));
    assert_eq!(generation(&cluster), before);
    let words = cluster.sent.iter().filter_map(|(_, _, message, _)| match message.body {
        PeerBody::Bag(word) => Some(word.turn),
        _ => None,
    });
    assert!(words.filter(|turn| *turn == BagTurn::Taken).count() >= 2, "two members rotated");
}
