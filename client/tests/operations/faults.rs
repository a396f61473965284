//! What the caller sees of broken streams, moved primaries, lost answers and damaged bytes.

use std::collections::BTreeSet;

use trefoil_client::shell::ReaderSource;
use trefoil_client::{FailureKind, PutOptions, Spool, WriteError};

use crate::World;
use crate::round_trips::{key, text};
use crate::world::Fault;

const LONG: usize = 2_000_000;

#[tokio::test]
async fn a_broken_upload_from_memory_is_sealed_anew() {
    let world = World::new().await;
    world.will(Fault::BreakUpload);
    let stored = world.client.put(&key("k"), text(LONG)).await.unwrap();
    assert_eq!(stored.attempts, 2);
    assert!(world.client.get(&key("k")).await.unwrap().bytes().await.unwrap() == text(LONG));
    assert_eq!(world.versions_of(&key("k")), 1);
    let uploads = world.state().uploads.clone();
    assert_eq!((uploads.len(), uploads[0].1), (1, 1), "the second attempt alone reached its end");
}

#[tokio::test]
async fn r032_a_put_whose_answer_was_lost_takes_effect_once() {
    for fault in [Fault::LoseAnswer, Fault::Move] {
        let world = World::new().await;
        for len in [100, LONG] {
            let key = key(&format!("k{len}"));
            world.will(fault);
            world.client.put(&key, text(len)).await.unwrap();
            assert!(world.has_no_fault_left());
            assert_eq!(world.versions_of(&key), 1);
            assert!(world.client.get(&key).await.unwrap().bytes().await.unwrap() == text(len));
        }
    }
}

#[tokio::test]
async fn r032_a_spooled_stream_repeats_the_identical_bytes() {
    for fault in [Fault::BreakUpload, Fault::LoseAnswer] {
        for spool in [Spool::Allowed, Spool::Forbidden] {
            let world = World::new().await;
            world.will(fault);
            let bytes = text(LONG);
            let options = PutOptions { spool, ..PutOptions::default() };
            let source = ReaderSource::new(&bytes[..]);
            let stored = world.client.put_with(&key("k"), source, options).await.unwrap();
            assert!(world.has_no_fault_left());
            assert_eq!(stored.attempts, 1, "one attempt, sent twice");
            assert!(world.client.get(&key("k")).await.unwrap().bytes().await.unwrap() == bytes);
            assert_eq!(world.versions_of(&key("k")), 1);
            let distinct: BTreeSet<_> = world.state().uploads.iter().copied().collect();
            assert_eq!(distinct.len(), 1, "one version, one attempt, one root");
        }
    }
}

#[tokio::test]
async fn a_long_stream_survives_a_break_by_its_spool_and_without_one_is_left_to_the_caller() {
    let world = World::new().await;
    let bytes = text(70 * 1024 * 1024);
    world.will(Fault::BreakUploadLate);
    world.client.put(&key("spooled"), ReaderSource::new(&bytes[..])).await.unwrap();
    assert!(world.client.get(&key("spooled")).await.unwrap().bytes().await.unwrap() == bytes);
    world.will(Fault::BreakUploadLate);
    let options = PutOptions { spool: Spool::Forbidden, ..PutOptions::default() };
    let put = world.client.put_with(&key("k"), ReaderSource::new(&bytes[..]), options).await;
    assert!(matches!(put, Err(WriteError::Unrepeatable)));
    assert_eq!((put.unwrap_err().kind(), world.versions_of(&key("k"))), (FailureKind::Unavailable, 0));
    world.state().outcomes = 0;
    world.will(Fault::LoseAnswer);
    let options = PutOptions { spool: Spool::Forbidden, ..PutOptions::default() };
    world.client.put_with(&key("k"), ReaderSource::new(&bytes[..]), options).await.unwrap();
    assert_eq!(world.state().outcomes, 1, "its end had been sent: it is asked about");
}

#[tokio::test]
async fn a_moved_primary_is_found_by_every_operation() {
    let world = World::new().await;
    world.client.put(&key("k"), "words").await.unwrap();
    for fault in [Fault::Move, Fault::Refuse] {
        world.will(fault);
        assert_eq!(world.client.get(&key("k")).await.unwrap().bytes().await.unwrap(), "words");
        world.will(fault);
        assert_eq!(world.client.get_range(&key("k"), 1..3).await.unwrap().bytes().await.unwrap(), "or");
        world.will(fault);
        assert_eq!(world.client.list("").next().await.unwrap().unwrap().lines.len(), 1);
        world.will(fault);
        world.client.delete(&key("k")).await.unwrap();
        world.will(fault);
        world.client.undelete(&key("k"), None).await.unwrap();
        assert!(world.has_no_fault_left());
    }
}

#[tokio::test]
async fn a_broken_download_goes_on_elsewhere_where_it_stopped() {
    let world = World::new().await;
    world.client.put(&key("k"), text(LONG)).await.unwrap();
    world.state().leaves_sent = 0;
    world.will(Fault::BreakDownload);
    assert!(world.client.get(&key("k")).await.unwrap().bytes().await.unwrap() == text(LONG));
    assert!(world.has_no_fault_left());
    assert!(world.state().leaves_sent <= 31 + 4, "what had come is not sent again");
}

#[tokio::test]
async fn a_silent_replica_costs_a_range_read_little() {
    let world = World::new().await;
    world.client.put(&key("k"), text(LONG)).await.unwrap();
    for _ in 0..3 {
        world.will(Fault::Stall);
        let began = tokio::time::Instant::now();
        let range = world.client.get_range(&key("k"), 100_000..900_000).await.unwrap();
        assert!(range.bytes().await.unwrap() == text(LONG)[100_000..900_000]);
        assert!(world.has_no_fault_left());
        assert!(began.elapsed().as_secs() < 2, "{:?}: a silence is waited for 3 s", began.elapsed());
    }
}

#[tokio::test]
async fn one_wrong_byte_is_an_integrity_failure_and_never_reaches_the_caller() {
    let world = World::new().await;
    for len in [100, LONG] {
        world.client.put(&key("k"), text(len)).await.unwrap();
        world.will(Fault::Damage);
        let error = world.client.get(&key("k")).await.unwrap().bytes().await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Integrity, "{error}");
        world.will(Fault::Damage);
        let error = world.client.get_range(&key("k"), 10..90).await.unwrap().bytes().await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Integrity, "{error}");
    }
}

#[tokio::test]
async fn an_object_replaced_while_it_is_read_is_said_to_have_changed() {
    let world = World::new().await;
    world.client.put(&key("k"), text(LONG)).await.unwrap();
    let download = world.client.get_range(&key("k"), 0..LONG as u64).await.unwrap();
    world.client.put(&key("k"), text(100)).await.unwrap();
    assert_eq!(download.bytes().await.unwrap_err().kind(), FailureKind::Unavailable);
}

#[tokio::test]
async fn many_operations_at_once_share_one_client() {
    let world = World::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40_usize {
        let client = world.client.clone();
        tasks.spawn(async move {
            let (key, bytes) = (key(&format!("many/{n}")), text(n * 3001));
            client.put(&key, bytes.clone()).await.unwrap();
            assert!(client.get(&key).await.unwrap().bytes().await.unwrap() == bytes);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(world.client.list("many/").next().await.unwrap().unwrap().lines.len(), 40);
}

#[tokio::test]
async fn a_deactivated_principal_is_told_so_and_does_not_wait_for_the_deadline() {
    let world = World::new().await;
    world.client.put(&key("k"), "words").await.unwrap();
    world.deactivate();
    let began = tokio::time::Instant::now();
    let error = world.client.get(&key("k")).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused, "{error}");
    let error = world.client.delete(&key("k")).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused, "{error}");
    assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
}
