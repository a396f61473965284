//! A healthy volume: what is acknowledged is everywhere, and is read back byte for byte.

use std::time::Duration;

use trefoil_protocol::config::Protection;
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::message::tenant::{Refusal, TenantAnswer};

use crate::cluster::{Cluster, object};

const NODES: [&str; 3] = ["a1", "a2", "b1"];

#[test]
fn r016_a_put_is_acknowledged_with_three_copies_in_both_data_centres() {
    let mut cluster = Cluster::healthy(&NODES);
    for (version, length) in [(1, 0), (2, 100), (3, 16 * 1024), (4, 16 * 1024 + 1), (5, 1_000_000)] {
        let bytes = object(version, length);
        let response = cluster.put("a1", "k", version, &bytes);
        let Ok(TenantAnswer::Stored(receipt)) = response else { panic!("{length}: {response:?}") };
        assert_eq!(receipt.protection, Protection::BothDcs);
        assert!(Protection::BothDcs.satisfied_by(receipt.copies.iter().map(|copy| copy.dc)));
        assert_eq!(receipt.copies.len(), 3, "{length}");
        assert_eq!(cluster.get("a1", "k").bytes, bytes, "{length}");
        cluster.run(Duration::from_secs(1));
        for node in NODES {
            assert_eq!(cluster.get_version(node, "k", version).bytes, bytes, "{node} {length}");
        }
    }
}

#[test]
fn r052_a_deleted_object_is_not_found_anywhere_and_comes_back_by_undelete() {
    let mut cluster = Cluster::healthy(&NODES);
    let bytes = object(1, 200_000);
    cluster.put("a1", "k", 1, &bytes).unwrap();
    cluster.run(Duration::from_secs(1));
    assert!(matches!(cluster.delete("a1", "k"), Ok(TenantAnswer::Deleted { .. })));
    for node in NODES {
        let heard = cluster.get_version(node, "k", 1);
        assert_eq!(heard.response, Some(Err(Refusal::Changed)), "{node}");
    }
    assert_eq!(cluster.get("a1", "k").response, Some(Err(Refusal::NotFound)));
    assert!(matches!(cluster.undelete("a1", "k"), Ok(TenantAnswer::Undeleted { .. })));
    assert_eq!(cluster.get("a1", "k").bytes, bytes);
}

#[test]
fn r004_a_member_without_room_refuses_new_puts_by_its_primary_and_keeps_its_place() {
    let mut cluster = Cluster::healthy(&NODES);
    let object = object(1, 100_000);
    cluster.put("a1", "k", 1, &object).unwrap();
    cluster.machine("b1").disk.set_room(Some(2 << 20));
    let refused = (2..40).find_map(|version| cluster.put("a1", "k", version, &object).err());
    assert_eq!(refused, Some(Refusal::Full), "b1 is full, and the primary is not");
    // What was begun before is on the disk of b1 too: nobody complains of it.
    cluster.run(Duration::from_secs(20));
    let complains = |asked: &ControlRequest| matches!(asked, ControlRequest::Lagging { .. });
    assert!(!cluster.placement.asked.iter().any(|(_, asked)| complains(asked)));
    assert_eq!(cluster.get("a1", "k").bytes, object);
    assert!(matches!(cluster.delete("a1", "k"), Ok(TenantAnswer::Deleted { .. })));
    cluster.machine("b1").disk.set_room(None);
    cluster.run(Duration::from_secs(3));
    cluster.put("a1", "k", 40, &object).unwrap();
}
