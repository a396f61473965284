//! What goes in comes out: trees, sizes at every border, ranges, names, long listings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use blake3::Hasher;
use serde_json::Value;
use tokio::task::JoinSet;
use trefoil_client::Client;
use trefoil_protocol::key::ObjectKey;

use crate::cluster::{Cluster, shared};
use crate::program::{Folder, Run, trefoil};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Bytes that follow from a seed and look like none of each other.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn key(text: impl Into<String>) -> ObjectKey {
    ObjectKey::new(text.into()).unwrap()
}

/// A tree with what trees have: depth, emptiness, borders, and names that nobody would choose.
fn write_tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let longest = "ö".repeat(127) + "x";
    let names = [
        "plain.txt",
        "with space",
        " leading",
        "trailing ",
        "-dash",
        "--help",
        "quote'\"",
        "back\\slash",
        "ünï/cödé/名前",
        "emoji 🦀",
        "new\nline",
        "tab\there",
        "*",
        "?",
        "a/b/c/d/e/f/g",
        ".hidden",
        "..two",
        "x",
        "x.trefoil-part",
        "~",
        "%20",
        "#",
        &longest,
        "e\u{301}",
        "é",
        "CON",
        "\u{202e}rtl",
    ];
    let lengths = [0, 1, 63, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 16 * KIB, 200 * KIB];
    for (seed, (name, length)) in names.iter().zip(lengths.iter().cycle()).enumerate() {
        files.insert(PathBuf::from(name), content(seed as u64, *length));
    }
    for seed in 0..150_u64 {
        files.insert(format!("many/{}/{seed}", seed % 7).into(), content(1000 + seed, seed as usize * 37));
    }
    for (path, bytes) in &files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    files
}

/// The regular files below a folder.
pub(crate) fn read_tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = crate::traces::files(root, None).into_iter();
    files.map(|path| (path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

#[test]
fn a_tree_comes_back_byte_for_byte() {
    let cluster = shared();
    cluster.found("trees", "7d");
    let source = Folder::new("tree-source");
    let files = write_tree(source.path());
    std::os::unix::fs::symlink("plain.txt", source.path().join("link")).unwrap();
    let stored = cluster.tenant("trees", &["put", "-r", source.path().to_str().unwrap(), "docs/"]).held();
    assert_eq!(stored.json()["objects"], files.len());
    assert_eq!(stored.json()["skipped_symlinks"], 1);

    let out = Folder::new("tree-out");
    let read = cluster.tenant("trees", &["get", "-r", "docs/", "-o", out.path().to_str().unwrap()]).held();
    assert_eq!(read.json()["objects"], files.len());
    let back = read_tree(out.path());
    let differing: Vec<_> = files.iter().filter(|(path, bytes)| back.get(*path) != Some(bytes)).collect();
    assert!(
        differing.is_empty() && back.len() == files.len(),
        "{:?}",
        differing.iter().map(|f| f.0).collect::<Vec<_>>()
    );

    assert_eq!(listed_in_pages(&cluster, "trees", "40"), listed_in_pages(&cluster, "trees", "1000"));

    // Another tenant has none of it.
    cluster
        .tenant("globex", &["get", "-r", "docs/", "-o", out.path().to_str().unwrap()])
        .failed(3, "no object");
    cluster.nothing_panicked();
}

/// The keys that `ls` gives, page by page, each beginning where the one before said.
fn listed_in_pages(cluster: &Cluster, tenant: &str, limit: &str) -> Vec<String> {
    let (mut keys, mut after) = (Vec::new(), None::<String>);
    loop {
        let begin: Vec<&str> = after.iter().flat_map(|key| ["--after", key]).collect();
        let page = cluster.tenant(tenant, &[&["ls", "--limit", limit], &begin[..]].concat()).held();
        let mut lines = page.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let next = lines.next_back().expect("a page ends with where to go on");
        keys.extend(lines.map(|line| line["key"].as_str().unwrap().to_owned()));
        match next["next"].as_str() {
            Some(key) => after = Some(key.to_owned()),
            None => return keys,
        }
    }
}

#[test]
fn objects_of_every_size_come_back_whole_and_in_ranges() {
    let cluster = shared();
    let client = cluster.client("acme");
    let lengths =
        [0, 1, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 20 * MIB];
    cluster.block_on(async {
        for length in lengths {
            let (key, bytes) = (key(format!("size/{length}")), content(length as u64, length));
            client.put(&key, bytes.clone()).await.unwrap();
            assert_eq!(client.head(&key).await.unwrap().bytes, length as u64);
            assert!(client.get(&key).await.unwrap().bytes().await.unwrap() == bytes, "{length} bytes");
            for range in ranges(length) {
                let wide = range.start as u64..range.end as u64;
                let got = client.get_range(&key, wide).await.unwrap().bytes().await.unwrap();
                assert!(got == bytes[range.clone()], "{range:?} of {length} bytes");
            }
        }
    });
    // The same through the command line, and a range that is none.
    let out = Folder::new("sizes-out");
    let file = out.path().join("part");
    let text = file.to_str().unwrap();
    cluster.tenant("acme", &["get", "size/65537", "--range", "65530-65536", "-o", text]).held();
    assert_eq!(fs::read(&file).unwrap(), content(65537, 65537)[65530..]);
    cluster.tenant("acme", &["get", "size/1", "--range", "1-", "-o", text]).failed(4, "range");
    cluster.tenant("acme", &["get", "size/2", "-o", text]).failed(3, "no such object");
    let head = cluster.tenant("acme", &["head", "size/65537"]).held().json();
    let centres: BTreeSet<_> =
        head["copies"].as_array().unwrap().iter().map(|copy| copy["dc"].as_str().unwrap()).collect();
    assert_eq!((centres.len(), &head["bytes"], &head["protection"]), (2, &65537.into(), &"BothDcs".into()));
    cluster.nothing_panicked();
}

/// Ranges at the borders of leaves and chunks.
fn ranges(length: usize) -> Vec<std::ops::Range<usize>> {
    let places = [
        0,
        1,
        64 * KIB - 17,
        64 * KIB - 1,
        64 * KIB,
        64 * KIB + 1,
        7 * MIB + 5,
        length.saturating_sub(1),
        length,
    ];
    let within: Vec<usize> = places.into_iter().filter(|place| *place <= length).collect();
    let short = |range: &std::ops::Range<usize>| !range.is_empty() && range.len() <= 8 * MIB;
    within.windows(2).map(|pair| pair[0]..pair[1]).filter(short).collect()
}

#[test]
fn names_may_be_1024_bytes_of_any_unicode_and_list_in_byte_order() {
    let cluster = shared();
    cluster.found("names", "7d");
    let client = cluster.client("names");
    let longest = ["\u{1}", "\0", "é", "名", "🦀", "\u{10ffff}", "\u{7f}", "\u{feff}", "/", ".", " ", "\n"];
    let mut names: Vec<String> = longest.iter().map(|text| text.repeat(1024 / text.len())).collect();
    names.extend(
        ["a", "a/", "a//b", "..", "../../etc/passwd", "/", "A", "ａ", "e\u{301}", "é"].map(String::from),
    );
    names.iter_mut().filter(|name| name.len() == 1023).for_each(|name| name.push('z'));
    cluster.block_on(async {
        for (seed, name) in names.iter().enumerate() {
            client.put(&key(name), content(seed as u64, 100)).await.unwrap();
        }
        for (seed, name) in names.iter().enumerate() {
            let got = client.get(&key(name)).await.unwrap().bytes().await.unwrap();
            assert!(got == content(seed as u64, 100), "{name:?}");
        }
        names.sort();
        assert_eq!(listed(&client, "", 5).await, names);
        let crabs = listed(&client, "🦀🦀", 1000).await;
        assert_eq!(crabs, ["🦀".repeat(256)]);
    });
    assert!(ObjectKey::new("x".repeat(1025)).is_err() && ObjectKey::new("").is_err());
    let raw = cluster.plain("names", &["ls", "-0"]).held();
    let raw: Vec<&[u8]> = raw.stdout.split(|byte| *byte == 0).collect();
    let expected = names.join("\0") + "\0";
    assert_eq!(raw, expected.as_bytes().split(|byte| *byte == 0).collect::<Vec<_>>());
    cluster.tenant("names", &["head", &"x".repeat(1025)]).failed(2, "1024");
    cluster.nothing_panicked();
}

async fn listed(client: &Client, prefix: &str, page: u32) -> Vec<String> {
    let (mut pages, mut names) = (client.list(prefix).page_size(page), Vec::new());
    while let Some(page) = pages.next().await.unwrap() {
        names.extend(page.lines.iter().map(|line| line.key.to_string()));
    }
    names
}

#[test]
fn a_long_listing_is_complete_at_every_page_size() {
    a_listing_is_complete(&shared(), 3000);
}

/// Stores objects of 1 KiB and lists them in pages of several sizes.
pub(crate) fn a_listing_is_complete(cluster: &Cluster, count: usize) {
    let client = cluster.client("acme");
    let name = |number: usize| format!("list/{:02}/{number:06}", number % 17);
    cluster.block_on(async {
        let mut putting = JoinSet::new();
        for number in 0..count {
            let client = client.clone();
            let (key, bytes) = (key(name(number)), content(number as u64, KIB));
            putting.spawn(async move { client.put(&key, bytes).await.map(drop) });
            if putting.len() >= 64 {
                putting.join_next().await.unwrap().unwrap().unwrap();
            }
        }
        while let Some(done) = putting.join_next().await {
            done.unwrap().unwrap();
        }
        let mut expected: Vec<String> = (0..count).map(name).collect();
        expected.sort();
        for page in [1000, 333] {
            assert!(listed(&client, "list/", page).await == expected, "in pages of {page}");
        }
        let some: Vec<&String> = expected.iter().filter(|name| name.starts_with("list/03/")).collect();
        assert_eq!(listed(&client, "list/03/", 7).await.iter().collect::<Vec<_>>(), some);
    });
    cluster.nothing_panicked();
}

#[test]
fn standard_input_is_stored_and_keys_may_look_like_options() {
    let cluster = shared();
    let bytes = content(2, 300_000);
    for name in ["piped", "--looks-like-an-option", "a\nb"] {
        let profile = cluster.profile("acme");
        let mut put = trefoil(&["--profile", profile.to_str().unwrap(), "put", "--", name, "-"]);
        let mut put =
            put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        put.stdin.take().unwrap().write_all(&bytes).unwrap();
        Run::of(put.wait_with_output().unwrap()).held();
        assert!(cluster.plain("acme", &["get", "--", name]).held().stdout == bytes, "{name:?}");
    }
}
