//! Rows of the table of failures on real hosts: each breaks something under load, sees
//! that nothing failed or only what may, tells the pauses beside the target, and lets the history be
//! judged.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::history::Contest;
use super::net::{Site, Wire};
use super::reader::Reader;
use super::{Sites, on_sites};
use crate::outside::{NODES, PLACEMENT, is_whole};

/// Operations of every client after a fault: enough to reach every volume.
const ENOUGH: usize = 25;

/// Runs a test with clients at work. Afterwards no request has failed, every volume has its three
/// copies, and one order explains what the clients saw.
fn under_load(name: &str, test: impl FnOnce(&mut Sites, &Contest) + Send) {
    on_sites(name, |sites| {
        let client = sites.client("acme");
        let contest = Contest::start(sites, &client);
        test(sites, &contest);
        sites.wait_for("a whole cluster", is_whole);
        contest.goes_on(Instant::now(), ENOUGH);
        contest.none_failed();
        contest.judge(sites, &client);
    });
}

/// Tells what was measured beside what was aimed at.
fn tell(row: &str, contest: &Contest, fault: Instant, target: &str) {
    let pause = contest.pause(fault);
    println!("{row}: longest write {:.1?}, longest read {:.1?}; target {target}", pause.writes, pause.reads);
}

/// The nodes of a data centre.
fn nodes_of(dc: &str) -> Vec<&'static str> {
    NODES.into_iter().filter(|node| node.starts_with(dc)).collect()
}

/// The primary of a volume, and its member in the other data centre.
fn primary_and_far_member(sites: &Sites) -> [String; 2] {
    let status = sites.status().unwrap();
    let volume = &status["volumes"][0];
    let primary = volume["primary"].as_str().unwrap();
    let mut members = volume["in_sync"].as_array().unwrap().iter().map(|node| node.as_str().unwrap());
    let far = members.find(|node| node[..1] != primary[..1]).expect("one in each data centre");
    [primary.to_owned(), far.to_owned()]
}

/// Waits until no volume is led from a data centre, and all are led.
fn led_elsewhere(sites: &Sites, dc: &str) {
    sites.wait_for("primaries elsewhere", |status| {
        let volumes = status["volumes"].as_array().unwrap().iter();
        volumes.clone().all(|volume| {
            volume["active"] == true && volume["primary"].as_str().is_some_and(|node| !node.starts_with(dc))
        })
    });
}

#[test]
fn r043_row_07_a_link_is_cut_both_ways_and_one_way_and_no_request_fails() {
    under_load("sites-row-07", |sites, contest| {
        for wire in Wire::LINKS {
            let fault = Instant::now();
            sites.net.cut(wire);
            contest.goes_on(fault, ENOUGH);
            tell(&format!("row 7, {wire:?} cut"), contest, fault, "3 s");
            sites.net.mend();
            contest.goes_on(Instant::now(), ENOUGH);
        }
        for site in [Site::A, Site::B] {
            let fault = Instant::now();
            sites.net.cut_towards(site, Wire::Link1);
            contest.goes_on(fault, ENOUGH);
            tell(&format!("row 7, link 1 deaf towards {site:?}"), contest, fault, "3 s");
            sites.net.mend();
            contest.goes_on(Instant::now(), ENOUGH);
        }
    });
}

#[test]
fn a_drained_link_carries_probes_and_is_fallen_back_on() {
    under_load("sites-drained", |sites, contest| {
        let link = |state: &'static str| move |status: &Value| status["links"][0]["state"] == state;
        sites.operator(&["link", "drain", "1", "--yes"]).held();
        sites.wait_for("a drained link", link("drained"));
        // Nodes hear it within a second; what was under way is over by then.
        contest.goes_on(Instant::now() + Duration::from_secs(2), ENOUGH);
        let before = Wire::LINKS.map(|wire| sites.net.carried(wire).bytes);
        contest.goes_on(Instant::now(), 2 * ENOUGH);
        let after = Wire::LINKS.map(|wire| sites.net.carried(wire).bytes);
        let carried = [after[0] - before[0], after[1] - before[1]];
        println!("link 1 drained: it carried {} bytes, link 2 {}", carried[0], carried[1]);
        assert!(10 * carried[0] < carried[1], "{carried:?}");
        let fault = Instant::now();
        sites.net.cut(Wire::Link2);
        contest.goes_on(fault, ENOUGH);
        tell("link 1 drained, link 2 cut", contest, fault, "3 s");
        sites.net.mend();
        sites.operator(&["link", "restore", "1", "--yes"]).held();
        sites.wait_for("two links", link("up"));
    });
}

#[test]
fn rows_05_and_06_either_data_centre_dies_and_comes_back() {
    under_load("sites-row-05", |sites, contest| {
        for dc in ["b", "a"] {
            let fault = Instant::now();
            sites.kill(&nodes_of(dc));
            contest.goes_on(fault, ENOUGH);
            tell(&format!("rows 5 and 6, {dc} killed"), contest, fault, "30 s, writes 60 s");
            let status = sites.status().unwrap();
            assert_eq!((&status["healthy"], &status["protection"]), (&false.into(), &"SingleDc".into()));
            nodes_of(dc).into_iter().for_each(|node| sites.begin(node));
            sites.wait_for("a whole cluster", is_whole);
        }
    });
}

#[test]
fn row_11_an_isolated_data_centre_serves_nothing_stale() {
    under_load("sites-row-11", |sites, contest| {
        let fault = Instant::now();
        // Its clients still reach it: whatever it said to them now would be stale.
        for wire in [Wire::Link1, Wire::Link2, Wire::WA] {
            sites.net.cut(wire);
        }
        contest.goes_on(fault, ENOUGH);
        led_elsewhere(sites, "a");
        tell("row 11", contest, fault, "30 s");
        sites.net.mend();
    });
}

#[test]
fn row_08_both_links_are_cut_and_one_side_goes_on() {
    under_load("sites-row-08", |sites, contest| {
        let fault = Instant::now();
        Wire::LINKS.into_iter().for_each(|wire| sites.net.cut(wire));
        contest.goes_on(fault, ENOUGH);
        tell("row 8", contest, fault, "30 s");
        sites.net.mend();
    });
}

#[test]
fn r040_row_10_without_a_control_plane_nothing_is_answered_once_leases_are_over_but_marked_versions() {
    under_load("sites-row-10", |sites, contest| {
        let create = ["tenant", "create", "lenient", "--delete-window", "7d", "--volumes", "4"];
        sites.operator(&[&create[..], &["--stale-reads", "allow"]].concat()).held();
        sites.issue("lenient");
        sites.wait_for("a whole cluster", is_whole);
        let [lenient, strict] = ["lenient", "acme"].map(|tenant| Reader::with_objects(sites, tenant));
        let fault = Instant::now();
        [Wire::WA, Wire::WB].into_iter().for_each(|wire| sites.net.cut(wire));
        // A lease is six seconds from when its renewal was sent.
        std::thread::sleep(Duration::from_secs(8));
        let over = Instant::now();
        lenient.is_given_marked("kept", sites);
        std::thread::scope(|scope| {
            scope.spawn(|| lenient.is_refused(&lenient.version_of("gone", &["--stale-possible"]), sites));
            scope.spawn(|| lenient.is_refused(&lenient.version_of("kept", &[]), sites));
            scope.spawn(|| lenient.is_refused(&["kept"], sites));
            scope.spawn(|| strict.is_refused(&strict.version_of("kept", &["--stale-possible"]), sites));
        });
        assert_eq!(contest.answered_since(over), 0, "somebody answers without a lease");
        sites.net.mend();
        contest.goes_on(over, ENOUGH);
        tell("row 10, the third site cut off", contest, fault, "manual: until it is back");
        strict.is_given("kept", sites);
    });
}

#[test]
fn row_12_two_nodes_that_cannot_hear_each_other_cost_no_request() {
    under_load("sites-row-12", |sites, contest| {
        let fault = Instant::now();
        let [one, other] = primary_and_far_member(sites);
        for link in 0..2 {
            let end = |node: &str| (Site::of_dc(&node[..1]), sites.link_port(node, link));
            let ends = [end(&one), end(&other)];
            sites.net.part(ends[0], ends[1]);
        }
        contest.goes_on(fault, ENOUGH);
        tell(
            &format!("row 12, {one} leads a volume and cannot hear its member {other}"),
            contest,
            fault,
            "20 s",
        );
        sites.net.mend();
    });
}

#[test]
fn row_13_a_link_that_has_become_narrow_is_avoided() {
    under_load("sites-row-13", |sites, contest| {
        let fault = Instant::now();
        sites.net.narrow(Wire::Link1, 500_000);
        contest.goes_on(fault, ENOUGH);
        tell("row 13, link 1 at 0.5 Mbit/s", contest, fault, "30 s");
        sites.net.widen(Wire::Link1);
    });
}

#[test]
fn row_17_everything_loses_power_and_everything_acknowledged_is_there() {
    under_load("sites-row-17", |sites, contest| {
        let fault = Instant::now();
        let all: Vec<&str> = NODES.into_iter().chain([PLACEMENT]).collect();
        sites.kill(&all);
        all.iter().for_each(|server| sites.begin(server));
        contest.goes_on(fault, ENOUGH);
        tell("row 17", contest, fault, "5 min for 10^6 objects a node");
    });
}

#[test]
fn r020_row_20_nodes_that_stood_still_say_nothing_stale() {
    under_load("sites-row-20", |sites, contest| {
        for node in ["a1", "b2"] {
            let fault = Instant::now();
            sites.signal(node, Signal::STOP);
            // Beyond its lease and the wait for it, so that somebody else leads by now.
            std::thread::sleep(Duration::from_secs(18));
            sites.signal(node, Signal::CONT);
            contest.goes_on(fault, ENOUGH);
            tell(&format!("row 20, {node} stood still for 18 s"), contest, fault, "L + grace = 13 s");
            sites.wait_for("a whole cluster", is_whole);
        }
    });
}

#[test]
fn what_crosses_between_the_data_centres_is_the_payload_once() {
    on_sites("sites-crossing", |sites| {
        const OBJECTS: u64 = 48;
        const LENGTH: usize = 1 << 20;
        let client = sites.client("acme");
        let carried = |sites: &Sites| {
            let links = Wire::LINKS.map(|wire| sites.net.carried(wire));
            (
                links.iter().map(|link| link.bytes).sum::<u64>(),
                links.iter().map(|link| link.packets).sum::<u64>(),
            )
        };
        let idle_from = (Instant::now(), carried(sites));
        std::thread::sleep(Duration::from_secs(3));
        let idle = carried(sites).0 - idle_from.1.0;
        println!(
            "idle, the links carry {:.1} KiB/s",
            idle as f64 / 1024.0 / idle_from.0.elapsed().as_secs_f64()
        );
        let before = carried(sites);
        sites.block_on(async {
            for number in 0..OBJECTS {
                let bytes = crate::storing::content(number, LENGTH);
                client.put(&crate::storing::key(format!("big/{number}")), bytes).await.unwrap();
            }
        });
        let after = carried(sites);
        let payload = OBJECTS * LENGTH as u64;
        let (bytes, packets) = (after.0 - before.0, after.1 - before.1);
        // 14 bytes of Ethernet, 20 of IPv4, 8 of UDP.
        let datagrams = bytes - 42 * packets;
        let ratio = |bytes: u64| bytes as f64 / payload as f64;
        println!(
            "{OBJECTS} objects of 1 MiB: {:.4} bytes of QUIC and {:.4} of frames cross per byte of payload",
            ratio(datagrams),
            ratio(bytes)
        );
        assert!(ratio(datagrams) <= 1.05, "{bytes} bytes in {packets} packets for {payload} of payload");
    });
}
