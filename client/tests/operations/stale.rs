//! Exact versions, and what is told of them when no node has a lease.

use std::time::Duration;

use trefoil_client::{Client, ReadError, Settings, Staleness};
use trefoil_protocol::ids::VersionId;

use crate::World;
use crate::round_trips::{key, text};
use crate::world::Fault;

#[tokio::test]
async fn r040_a_version_is_read_unmarked_under_a_lease_and_marked_without_one_where_that_was_asked_for() {
    let world = World::new().await;
    let (bytes, key) = (text(600_000), key("k"));
    let version = world.client.put(&key, bytes.clone()).await.unwrap().receipt.version;
    for staleness in [Staleness::Refused, Staleness::Possible] {
        let read = world.client.get_version(&key, version, staleness).await.unwrap();
        assert!(!read.stale_possible());
        assert!(read.bytes().await.unwrap() == bytes);
        let other = world.client.get_version(&key, VersionId([9; 16]), staleness).await;
        assert!(matches!(other, Err(ReadError::NotFound)), "{other:?}");
    }
    let hasty = Settings { deadline: Duration::from_millis(300) };
    let hasty = Client::connect_with(world.profile(), hasty).await.unwrap();
    world.will(Fault::LoseControl);
    let strict = hasty.get_version(&key, version, Staleness::Refused).await;
    assert!(matches!(strict, Err(ReadError::Unavailable(_))), "{strict:?}");
    // A download that breaks goes on where it stopped, with the mark.
    world.will(Fault::BreakDownload);
    let read = world.client.get_version(&key, version, Staleness::Possible).await.unwrap();
    assert!(read.stale_possible());
    assert!(read.bytes().await.unwrap() == bytes);
}

#[tokio::test]
async fn r040_whoever_only_reads_needs_no_block_of_wraps_and_gets_one_when_it_writes() {
    let world = World::new().await;
    let key = key("k");
    let version = world.client.put(&key, "words").await.unwrap().receipt.version;
    let reader = Client::connect_to_read(world.profile(), Settings::default()).await.unwrap();
    world.will(Fault::LoseControl);
    let read = reader.get_version(&key, version, Staleness::Possible).await.unwrap();
    assert!(read.stale_possible());
    assert_eq!(read.bytes().await.unwrap(), "words");
    world.will_no_more(Fault::LoseControl);
    let written = reader.put(&key, "more words").await;
    assert!(written.is_ok(), "{written:?}");
}
