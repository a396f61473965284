//! Sizes that take too long or too much disk for every run:
//! `cargo test --release --test it -- --ignored scale`.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::Alone;
use crate::outside::{NODES, Outside, is_whole};
use crate::program::Folder;
use crate::storing::a_listing_is_complete;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// In which Linux tells processor time.
const TICKS_PER_SECOND: f64 = 100.0;

#[test]
#[ignore = "5 GiB on three stores: about a minute and 16 GiB of disk"]
fn scale_an_object_of_5_gib_is_streamed_and_read_by_range() {
    let cluster = Alone::start("huge");
    let folder = Folder::new("huge-files");
    let path = folder.join("huge");
    let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
    file.set_len(5 * GIB).unwrap();
    let mut mark = vec![0; MIB as usize];
    blake3::Hasher::new().update(b"mark").finalize_xof().fill(&mut mark);
    let places = [0, 2 * GIB + 12_345, 5 * GIB - MIB];
    for place in places {
        file.write_all_at(&mark, place).unwrap();
    }
    let put = cluster.tenant("acme", &["put", "huge", path.to_str().unwrap()]).held().json();
    assert_eq!(put["bytes"], 5 * GIB);
    fs::remove_file(&path).unwrap();
    for place in places {
        let range = format!("{place}-{}", place + MIB - 1);
        assert!(
            cluster.plain("acme", &["get", "huge", "--range", &range]).held().stdout == mark,
            "at {place}"
        );
    }
    for node in NODES {
        let status =
            fs::read_to_string(format!("/proc/{}/status", cluster.pid(node).as_raw_nonzero())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 512 * 1024, "{node} held {kib} KiB in memory");
    }
}

#[test]
#[ignore = "100 000 objects: about a minute"]
fn scale_a_hundred_thousand_objects_are_listed_in_pages() {
    let cluster = Alone::start("many");
    a_listing_is_complete(&cluster, 100_000);
}

/// How much of a core and of memory the processes take while nobody asks for anything.
#[test]
#[ignore = "10 240 volumes, their files and their idleness: two minutes and 3 GiB of disk"]
fn scale_ten_thousand_volumes_settle_and_cost_little_when_idle() {
    let cluster = Alone::start_in_quiet("volumes");
    println!("volumes | settled after s | % of a core | RSS MiB | PSS MiB");
    tell_idle_cost(&cluster, 8, Duration::ZERO);
    let mut made = 0;
    for tenants in [2, 10] {
        let began = Instant::now();
        while made < tenants {
            made += 1;
            let name = format!("t{made}");
            cluster.operator(&["tenant", "create", &name, "--volumes", "1024"]).held();
        }
        let volumes = 8 + 1024 * tenants;
        wait_until_whole(&cluster, volumes);
        let (share, pss) = tell_idle_cost(&cluster, volumes, began.elapsed());
        assert!(share < 0.05 && pss < 300, "{share} of a core, {pss} MiB");
    }
}

fn wait_until_whole(cluster: &Outside, volumes: usize) {
    let began = Instant::now();
    let settled = |status: Value| {
        let all = status["volumes"].as_array().is_some_and(|listed| listed.len() == volumes);
        all && is_whole(&status)
    };
    while !cluster.status().is_some_and(settled) {
        assert!(began.elapsed() < Duration::from_secs(300), "{volumes} volumes do not settle");
        thread::sleep(Duration::from_secs(1));
    }
}

fn tell_idle_cost(cluster: &Outside, volumes: usize, settled: Duration) -> (f64, u64) {
    // What was touched last has its turn before it is at rest.
    thread::sleep(Duration::from_secs(12));
    let before = processor_ticks(cluster);
    let measured = Duration::from_secs(30);
    thread::sleep(measured);
    let share = (processor_ticks(cluster) - before) as f64 / TICKS_PER_SECOND / measured.as_secs_f64();
    let (rss, pss) = (memory(cluster, "Rss:"), memory(cluster, "Pss:"));
    let settled = settled.as_secs_f64();
    println!("{volumes} | {settled:.1} | {:.2} | {rss} | {pss}", share * 100.0);
    (share, pss)
}

fn of_all(cluster: &Outside, file: &str, read: impl Fn(&str) -> u64) -> u64 {
    let servers = cluster.servers().into_iter();
    servers
        .map(|server| {
            let process = cluster.pid(&server).as_raw_nonzero();
            read(&fs::read_to_string(format!("/proc/{process}/{file}")).unwrap())
        })
        .sum()
}

fn processor_ticks(cluster: &Outside) -> u64 {
    of_all(cluster, "stat", |stat| {
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    })
}

fn memory(cluster: &Outside, field: &str) -> u64 {
    let kib = of_all(cluster, "smaps_rollup", |text| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    });
    kib / 1024
}
