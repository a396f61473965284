//! A store that a volume went on without returns: it tells which versions it has alone, and nothing else,
//! in pages, and goes on where it was heard when it or the primary dies in between.

use std::time::Duration;

use trefoil_protocol::config::Protection;
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::message::loss::{LOSS_PAGE_MAX, LostKind};

use crate::cluster::{Cluster, VOLUME, node, object};

const NODES: [&str; 4] = ["a1", "a2", "b1", "b2"];
const MINUTE: Duration = Duration::from_secs(60);

fn led_by(cluster: &mut Cluster, members: [&str; 2]) {
    cluster.change(|config| {
        let stays = |name: &str| members.contains(&name);
        let all = config.ever_held.clone();
        config.members.retain(|member| stays(member.node.as_str()));
        for name in members {
            if config.members.iter().all(|member| member.node != node(name)) {
                let state = trefoil_protocol::config::MemberState::InSync;
                config.members.push(crate::cluster::member(name, state));
            }
        }
        config.ever_held = all;
        config.primary = Some(node(members[0]));
        config.protection = Protection::SingleDc;
        config.intervals.clear();
    });
}

/// All four have four versions; A goes on alone, does `act`, and is lost; B goes on without it.
fn parted(act: impl FnOnce(&mut Cluster)) -> Cluster {
    let mut cluster = Cluster::healthy(&NODES);
    for version in 1..=4 {
        cluster.put("a1", &format!("key{version}"), version, &object(version, 100)).unwrap();
    }
    cluster.delete("a1", "key4").unwrap();
    cluster.run(Duration::from_secs(1));
    cluster.crash("b1", 1);
    cluster.crash("b2", 1);
    led_by(&mut cluster, ["a1", "a2"]);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    act(&mut cluster);
    cluster.crash("a1", 2);
    cluster.crash("a2", 2);
    cluster.start("b1");
    cluster.start("b2");
    led_by(&mut cluster, ["b1", "b2"]);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("b1"))));
    cluster
}

fn tell(cluster: &mut Cluster) {
    cluster.start("a1");
    cluster.placement.tell.insert(node("a1"), VOLUME);
    assert!(cluster.run_until(MINUTE, |c| c.placement.told.is_some_and(|(_, all)| all)));
}

fn kinds(cluster: &Cluster) -> Vec<(u8, LostKind, bool)> {
    let lost = cluster.placement.lost.values();
    lost.map(|lost| (lost.version.0[0], lost.kind, lost.bytes > 0)).collect()
}

#[test]
fn an_estranged_store_tells_what_it_has_alone_and_nothing_else() {
    let mut cluster = parted(|cluster| {
        cluster.put("a1", "new", 10, &object(10, 100)).unwrap();
        cluster.put("a1", "gone", 11, &object(11, 300)).unwrap();
        cluster.delete("a1", "gone").unwrap();
        cluster.delete("a1", "key1").unwrap();
        cluster.put("a1", "key2", 12, &object(12, 100)).unwrap();
        cluster.undelete("a1", "key4").unwrap();
    });
    // What B does on its own is no difference that A could tell of.
    cluster.delete("b1", "key3").unwrap();
    cluster.put("b1", "other", 20, &object(20, 100)).unwrap();
    tell(&mut cluster);
    let (put, delete, undelete) = (LostKind::Put, LostKind::Delete, LostKind::Undelete);
    let expected = [
        (1, delete, false),
        (2, delete, false),
        (4, undelete, false),
        (10, put, true),
        (11, delete, true),
        (12, put, true),
    ];
    assert_eq!(kinds(&cluster), expected);
    let gone = &cluster.placement.lost[&VersionId([11; 16])];
    assert!(gone.bytes >= 300 && gone.committed, "{gone:?}");
}

#[test]
fn it_is_told_in_pages_and_goes_on_where_it_was_heard() {
    let mut cluster = parted(|cluster| {
        for _ in 0..=LOSS_PAGE_MAX / 2 {
            cluster.delete("a1", "key1").unwrap();
            cluster.undelete("a1", "key1").unwrap();
        }
        cluster.put("a1", "first", 10, &object(10, 100)).unwrap();
        for _ in 0..=LOSS_PAGE_MAX / 2 {
            cluster.delete("a1", "key2").unwrap();
            cluster.undelete("a1", "key2").unwrap();
        }
        cluster.put("a1", "last", 11, &object(11, 100)).unwrap();
    });
    cluster.start("a1");
    cluster.placement.tell.insert(node("a1"), VOLUME);
    let begun = |c: &Cluster| c.placement.lost.contains_key(&VersionId([10; 16]));
    assert!(cluster.run_until(MINUTE, begun));
    assert!(!cluster.placement.lost.contains_key(&VersionId([11; 16])), "a page is bounded");
    cluster.crash("a1", 3);
    cluster.run(Duration::from_secs(3));
    tell(&mut cluster);
    assert_eq!(kinds(&cluster), [(10, LostKind::Put, true), (11, LostKind::Put, true)]);
}

#[test]
fn a_store_that_has_nothing_more_says_so() {
    let mut cluster = parted(|_| {});
    tell(&mut cluster);
    assert_eq!(kinds(&cluster), []);
}
