//! Sizes that take too long or too much disk for every run:
//! `cargo test --release --test it -- --ignored scale`.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use crate::cluster::Alone;
use crate::outside::NODES;
use crate::program::Folder;
use crate::storing::a_listing_is_complete;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

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
