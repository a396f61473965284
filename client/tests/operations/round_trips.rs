//! What goes in comes out, at every length that matters.

use std::sync::{Arc, Mutex};

use trefoil_client::seal::{ChunkLen, padme, plaintext_len};
use trefoil_client::shell::{FileSource, ReaderSource};
use trefoil_client::{FailureKind, Padding, PutOptions, ReadError, WriteError};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::Precondition;

use crate::World;

pub(crate) fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text.to_owned()).unwrap()
}

pub(crate) fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 253) as u8).collect()
}

/// Around inline, leaf, frame and chunk boundaries.
const LENGTHS: [usize; 12] =
    [0, 1, 16_224, 16_225, 65_376, 65_392, 65_536, 65_537, 261_936, 262_000, 600_000, 3_000_001];

#[tokio::test]
async fn objects_of_every_length_come_back_from_memory_files_and_streams() {
    let world = World::new().await;
    let path = std::env::temp_dir().join(format!("trefoil-round-trip-{}", std::process::id()));
    for len in LENGTHS {
        let (bytes, key) = (text(len), key(&format!("k{len}")));
        std::fs::write(&path, &bytes).unwrap();
        let memory = world.client.put(&key, bytes.clone()).await.unwrap();
        assert_eq!((memory.bytes, memory.attempts), (len as u64, 1));
        assert!(world.client.get(&key).await.unwrap().bytes().await.unwrap() == bytes, "{len}");
        world.client.put(&key, FileSource::open(&path).unwrap()).await.unwrap();
        assert!(world.client.get(&key).await.unwrap().bytes().await.unwrap() == bytes, "{len}");
        let stream = world.client.put(&key, ReaderSource::new(&bytes[..])).await.unwrap();
        assert!(world.client.get(&key).await.unwrap().bytes().await.unwrap() == bytes, "{len}");
        let head = world.client.head(&key).await.unwrap();
        assert_eq!((head.bytes, head.view.upload.version), (len as u64, stream.receipt.version));
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(world.state().keys_asked_of_nodes, 0, "keys are the custodian's");
}

#[tokio::test]
async fn r089_a_padded_object_tells_a_class_of_lengths_and_comes_back_as_it_was() {
    let world = World::new().await;
    for len in LENGTHS.into_iter().chain([15_872, 15_873, 16_000]) {
        let (bytes, key) = (text(len), key(&format!("k{len}")));
        let padded = || PutOptions { padding: Some(Padding::Padme), ..PutOptions::default() };
        for spooled in [false, true] {
            let stored = match spooled {
                false => world.client.put_with(&key, bytes.clone(), padded()).await.unwrap(),
                true => world.client.put_with(&key, ReaderSource::new(&bytes[..]), padded()).await.unwrap(),
            };
            assert_eq!(stored.bytes, len as u64);
            let head = world.client.head(&key).await.unwrap();
            assert_eq!(head.bytes, len as u64);
            let class = plaintext_len(head.view.sealed_length, ChunkLen::DEFAULT);
            assert_eq!(class, Some(padme(len as u64)), "{len}");
            assert!(world.client.get(&key).await.unwrap().bytes().await.unwrap() == bytes, "{len}");
            if len > 0 {
                let range = len as u64 / 2..len as u64;
                let got = world.client.get_range(&key, range).await.unwrap().bytes().await.unwrap();
                assert!(got == bytes[len / 2..], "{len}");
                let beyond = world.client.get_range(&key, 0..len as u64 + 1).await.unwrap_err();
                assert_eq!(beyond.kind(), FailureKind::Refused, "padding is nobody's to read");
            }
        }
    }
}

#[tokio::test]
async fn a_range_fetches_only_the_leaves_that_cover_it() {
    let world = World::new().await;
    let (bytes, key) = (text(3_000_001), key("k"));
    world.client.put(&key, bytes.clone()).await.unwrap();
    for range in [0..1, 65_535..65_537, 100..2_900_000, 2_999_999..3_000_001, 0..3_000_001] {
        world.state().leaves_sent = 0;
        let download = world.client.get_range(&key, range.clone()).await.unwrap();
        assert_eq!(download.length(), range.end - range.start);
        let got = download.bytes().await.unwrap();
        assert!(got == bytes[range.start as usize..range.end as usize], "{range:?}");
        assert!(world.state().leaves_sent <= (range.end - range.start).div_ceil(65_536) + 2, "{range:?}");
    }
    for range in [5..5, 0..3_000_002, 4_000_000..4_000_001] {
        let error = world.client.get_range(&key, range).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Refused, "{error}");
    }
}

#[tokio::test]
async fn user_pairs_travel_with_the_object_and_progress_is_told() {
    let world = World::new().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let options = PutOptions { user: [("colour".into(), "green".into())].into(), ..PutOptions::default() }
        .with_progress(move |bytes| tell.lock().unwrap().push(bytes));
    world.client.put_with(&key("k"), text(1_000_000), options).await.unwrap();
    let head = world.client.head(&key("k")).await.unwrap();
    assert_eq!(head.user["colour"], "green");
    assert!(head.created_ms > 0);
    let told = told.lock().unwrap();
    assert!(told.is_sorted() && told.last() == Some(&1_000_000), "{told:?}");
}

#[tokio::test]
async fn pages_list_every_object_once() {
    let world = World::new().await;
    let mut names: Vec<String> = (0..25).map(|n| format!("list/{}", n * 7919 % 100)).collect();
    for name in &names {
        world.client.put(&key(name), "x").await.unwrap();
    }
    world.client.put(&key("other"), "x").await.unwrap();
    names.sort();
    let mut listed = Vec::new();
    let mut pages = world.client.list("list/").page_size(4);
    while let Some(page) = pages.next().await.unwrap() {
        assert!(page.lines.len() <= 4);
        assert!(page.lines.iter().all(|line| line.bytes == 1));
        listed.extend(page.lines.into_iter().map(|line| line.key.to_string()));
    }
    assert_eq!(listed, names);
}

#[tokio::test]
async fn a_deleted_object_is_hidden_until_it_is_undeleted() {
    let world = World::new().await;
    let key = key("k");
    let stored = world.client.put(&key, "words").await.unwrap();
    let hidden = world.client.delete(&key).await.unwrap();
    assert_eq!(hidden.version, stored.receipt.version);
    assert_eq!(world.client.get(&key).await.unwrap_err(), ReadError::NotFound);
    assert!(matches!(world.client.delete(&key).await, Err(WriteError::NotFound)));
    let deleted = world.client.deleted("").next().await.unwrap().unwrap();
    assert_eq!(deleted.lines[0].key, key);
    world.client.undelete(&key, None).await.unwrap();
    assert_eq!(world.client.get(&key).await.unwrap().bytes().await.unwrap(), "words");
    assert_eq!(world.client.purge_status(&key).await.unwrap_err().kind(), FailureKind::NotFound);
    assert_eq!(world.client.certificates(&key).await.unwrap_err().kind(), FailureKind::NotFound);
}

#[tokio::test]
async fn a_precondition_that_does_not_hold_is_refused() {
    let world = World::new().await;
    world.client.put(&key("k"), "one").await.unwrap();
    let options = PutOptions { precondition: Precondition::Absent, ..PutOptions::default() };
    let error = world.client.put_with(&key("k"), "two", options).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused);
    assert_eq!(world.client.get(&key("k")).await.unwrap().bytes().await.unwrap(), "one");
}
