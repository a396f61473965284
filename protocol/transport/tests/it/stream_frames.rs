//! Frames over a live stream: what is written is read, and hostile bytes end in a clear error.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustls::client::Resumption;
use tokio::time::timeout;
use trefoil_protocol::frame::{BODY_BYTES_MAX, BULK_BYTES_MAX, FrameHeader, FrameHeaderError};
use trefoil_transport::{
    CloseReason, Connection, Frame, LEAF_LIFETIME, Plane, ReadFrameError, WriteFrameError,
};

use crate::cluster::{Cluster, PATIENCE, RawClient, identity};

#[tokio::test]
async fn frames_of_every_size_arrive_whole_and_in_order() {
    let (here, there, _client, _server) = Cluster::new().pair().await;
    let sizes = [(0, 0), (1, 0), (0, 1), (100, 65_536), (BODY_BYTES_MAX, BULK_BYTES_MAX)];
    let frames: Vec<Frame> = sizes.iter().map(|(body, bulk)| frame(*body, *bulk)).collect();
    let sent = frames.clone();
    let writer = tokio::spawn(async move {
        let mut stream = here.open_uni().await.expect("a stream");
        for frame in sent {
            stream.write_frame(frame.body, frame.bulk).await.expect("written");
        }
        stream.finish().expect("open");
        stream.delivered().await.expect("delivered");
    });
    let mut stream = there.accept_uni().await.expect("a stream");
    for expected in frames {
        assert_eq!(stream.read_frame().await.expect("a frame"), Some(expected));
    }
    assert_eq!(stream.read_frame().await, Ok(None));
    timeout(PATIENCE, writer).await.expect("in time").expect("delivered");
}

fn frame(body: u32, bulk: u32) -> Frame {
    Frame { body: Bytes::from(vec![1; body as usize]), bulk: Bytes::from(vec![2; bulk as usize]) }
}

#[tokio::test]
async fn a_frame_that_is_too_long_is_not_begun() {
    let (here, _there, _client, _server) = Cluster::new().pair().await;
    let mut stream = here.open_uni().await.expect("a stream");
    let long = Bytes::from(vec![0; BODY_BYTES_MAX as usize + 1]);
    let got = u64::from(BODY_BYTES_MAX) + 1;
    let expected = WriteFrameError::TooLong(FrameHeaderError::BodyTooLong { got });
    assert_eq!(stream.write_frame(long, Bytes::new()).await, Err(expected));
    assert_eq!(stream.write_frame(Bytes::new(), Bytes::new()).await, Ok(()));
}

#[tokio::test]
async fn an_abandoned_stream_says_so() {
    let (here, there, _client, _server) = Cluster::new().pair().await;
    let mut stream = here.open_uni().await.expect("a stream");
    stream.write_frame(Bytes::from_static(b"one"), Bytes::new()).await.expect("written");
    let mut received = there.accept_uni().await.expect("a stream");
    assert!(received.read_frame().await.expect("a frame").is_some());
    stream.abandon(CloseReason::Superseded);
    assert_eq!(received.read_frame().await, Err(ReadFrameError::Abandoned { code: 4 }));
}

/// A raw peer that writes bytes of its choice, and our end of its connection.
async fn hostile_pair(cluster: &Cluster) -> (quinn::Connection, Connection, RawClient, impl Drop + use<>) {
    let (server, address) = cluster.server("node/b1", &[Plane::Node]);
    let issued = cluster.authority.issue(&identity("node/a1"), LEAF_LIFETIME).expect("a leaf");
    let protocols = [Plane::Node.alpn()];
    let client = RawClient::new(&issued.certificate_pem, &issued.key_pem, &protocols, Resumption::disabled());
    let connection = client.dial(address).await.expect("a connection");
    let (ours, _, _) = server.accept().await.expect("the other end");
    (connection, ours, client, KeepOpen(server))
}

struct KeepOpen(#[expect(dead_code, reason = "held until the test ends")] trefoil_transport::Endpoint);

impl Drop for KeepOpen {
    fn drop(&mut self) {}
}

/// Opens a stream that carries these bytes and does not end, and reads its first frame.
async fn begin(
    peer: &quinn::Connection,
    ours: &Connection,
    bytes: &[u8],
) -> (quinn::SendStream, tokio::task::JoinHandle<Result<Option<Frame>, ReadFrameError>>) {
    let mut stream = peer.open_uni().await.expect("a stream");
    stream.write_all(bytes).await.expect("written");
    let mut received = ours.accept_uni().await.expect("a stream");
    (stream, tokio::spawn(async move { received.read_frame().await }))
}

#[tokio::test]
async fn r097_large_frames_that_never_end_hold_back_large_ones_only() {
    let cluster = Cluster::new();
    let (peer, ours, _client, _server) = hostile_pair(&cluster).await;
    // Sixteen announcements of 4 MiB use up the 64 MiB in which frames are put together.
    let announcement = FrameHeader::new(0, 4 << 20).expect("allowed").encode();
    let mut endless = Vec::new();
    for _ in 0..16 {
        endless.push(begin(&peer, &ours, &announcement).await);
    }
    let mut large = FrameHeader::new(0, 1 << 20).expect("allowed").encode().to_vec();
    large.resize(16 + (1 << 20), 0);
    let (_large_stream, mut large_read) = begin(&peer, &ours, &large).await;
    let mut small = FrameHeader::new(5, 0).expect("allowed").encode().to_vec();
    small.extend_from_slice(b"probe");
    let (_small_stream, small_read) = begin(&peer, &ours, &small).await;
    let small_frame = timeout(PATIENCE, small_read).await.expect("soon").expect("no panic");
    assert_eq!(small_frame.expect("a frame").expect("not the end").body, &b"probe"[..]);
    assert!(timeout(std::time::Duration::from_millis(200), &mut large_read).await.is_err(), "held back");

    endless[0].0.reset(0_u32.into()).expect("open");
    let large_frame = timeout(PATIENCE, large_read).await.expect("soon").expect("no panic");
    assert_eq!(large_frame.expect("a frame").expect("not the end").bulk.len(), 1 << 20);
}

/// What our end makes of a stream of exactly these bytes.
async fn read_all(
    peer: &quinn::Connection,
    ours: &Connection,
    bytes: &[u8],
) -> (usize, Option<ReadFrameError>) {
    let mut stream = peer.open_uni().await.expect("a stream");
    stream.write_all(bytes).await.expect("written");
    stream.finish().expect("open");
    let mut received = ours.accept_uni().await.expect("a stream");
    let mut frames = 0;
    loop {
        match received.read_frame().await {
            Ok(Some(_)) => frames += 1,
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

#[test]
fn truncated_and_random_frames_end_in_clear_errors() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let cluster = Cluster::new();
    let (peer, ours, _client, _server) = runtime.block_on(hostile_pair(&cluster));
    let mut runner = TestRunner::new(Config { cases: 128, ..Config::default() });
    let strategy = (proptest::collection::vec(any::<u8>(), 0..3000), 0_usize..3000, any::<bool>());
    runner
        .run(&strategy, |(content, cut, framed)| {
            let mut bytes = content.clone();
            if framed {
                let header = FrameHeader::new(content.len(), 0).expect("short").encode();
                bytes = [&header[..], &content[..]].concat();
            }
            bytes.truncate(bytes.len().min(cut));
            let outcome = runtime.block_on(read_all(&peer, &ours, &bytes));
            let whole = framed && bytes.len() == 16 + content.len();
            match outcome {
                (0, None) => prop_assert!(bytes.is_empty()),
                (1, None) => prop_assert!(whole),
                (0, Some(error)) => {
                    let text = error.to_string();
                    prop_assert!(text.contains("expected"), "{}", text);
                }
                other => prop_assert!(false, "{:?}", other),
            }
            Ok(())
        })
        .expect("every stream ends as it should");
}
