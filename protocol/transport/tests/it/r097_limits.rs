//! The limits hold on live connections, and a flood of dials is let in through Retries.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use bytes::Bytes;
use trefoil_transport::{Limits, Plane};

use crate::cluster::{Cluster, PATIENCE, loopback};

#[tokio::test]
async fn r097_a_peer_opens_no_more_streams_than_allowed() {
    let cluster = Cluster::new();
    let limits = Limits { streams_max: 8, ..Limits::default() };
    let (server, address) = cluster.limited_server("node/b1", &[Plane::Node], limits);
    let connection = cluster.client("node/a1").connect(address, Plane::Node, None).await.expect("open");
    let (other_end, _, _) = server.accept().await.expect("the other end");
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = connection.open_uni().await.expect("an allowed stream");
        stream.write_frame(Bytes::from_static(b"hold"), Bytes::new()).await.expect("written");
        streams.push(stream);
    }
    let ninth = tokio::time::timeout(Duration::from_millis(300), connection.open_uni()).await;
    assert!(ninth.is_err(), "the ninth waits");
    // QUIC gives room back in steps of an eighth of the limit, so one ended stream is too few.
    for stream in &mut streams[..2] {
        stream.finish().expect("open");
        let mut received = other_end.accept_uni().await.expect("a stream");
        while received.read_frame().await.expect("a frame").is_some() {}
    }
    let ninth = tokio::time::timeout(PATIENCE, connection.open_uni()).await;
    assert!(ninth.expect("room again").is_ok());
}

#[tokio::test]
async fn r097_what_is_not_read_stops_the_sender_at_the_window() {
    let cluster = Cluster::new();
    let limits =
        Limits { stream_window_bytes: 256 << 10, connection_window_bytes: 512 << 10, ..Limits::default() };
    let (server, address) = cluster.limited_server("node/b1", &[Plane::Node], limits);
    let connection = cluster.client("node/a1").connect(address, Plane::Node, None).await.expect("open");
    let (_unread, _, _) = server.accept().await.expect("the other end");
    let mut stream = connection.open_uni().await.expect("a stream");
    let bulk = Bytes::from(vec![7; 1 << 20]);
    let write = stream.write_frame(Bytes::new(), bulk);
    assert!(tokio::time::timeout(Duration::from_millis(300), write).await.is_err());
}

#[tokio::test]
async fn r097_a_silent_dial_ends_within_the_handshake_time() {
    let cluster = Cluster::new();
    let mute = UdpSocket::bind(loopback()).expect("a socket that never answers");
    let limits = Limits { handshake_time_max: Duration::from_millis(300), ..Limits::default() };
    let client =
        trefoil_transport::Endpoint::client(loopback(), cluster.own("node/a1"), cluster.trust(), limits)
            .expect("a socket");
    let begun = Instant::now();
    let remote = mute.local_addr().expect("bound");
    let error = client.connect(remote, Plane::Node, None).await.expect_err("nobody answers");
    assert_eq!(error, trefoil_transport::DialError::NoAnswer { remote });
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn r098_above_the_limit_an_unproven_address_must_prove_itself_and_then_gets_in() {
    let cluster = Cluster::new();
    let limits = Limits { unvalidated_max: 0, ..Limits::default() };
    let (server, address) = cluster.limited_server("node/b1", &[Plane::Node], limits);
    let client = cluster.client("node/a1");
    let _connection = client.connect(address, Plane::Node, None).await.expect("after a Retry");
    assert!(server.accept().await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r098_a_burst_of_dials_is_let_in_through_retries() {
    let cluster = Cluster::new();
    let limits = Limits { unvalidated_max: 2, ..Limits::default() };
    let (server, address) = cluster.limited_server("node/b1", &[Plane::Node], limits);
    let client = cluster.client("node/a1");
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let client = client.clone();
        dials.spawn(async move { client.connect(address, Plane::Node, None).await });
    }
    let connections: Vec<_> = dials.join_all().await.into_iter().map(|dial| dial.expect("let in")).collect();
    for _ in &connections {
        assert!(server.accept().await.is_some());
    }
}

#[tokio::test]
async fn a_listener_on_every_address_serves_large_loopback_datagrams() {
    let cluster = Cluster::new();
    let any = (std::net::Ipv4Addr::UNSPECIFIED, 0).into();
    let server = trefoil_transport::Endpoint::server(
        any,
        cluster.own("node/b1"),
        cluster.trust(),
        &[Plane::Node],
        Limits::default(),
    )
    .expect("a socket");
    let port = server.local_address().expect("bound").port();
    let address = (std::net::Ipv4Addr::LOCALHOST, port).into();
    let connection = cluster.client("node/a1").connect(address, Plane::Node, None).await.expect("open");
    let (other_end, _, _) = server.accept().await.expect("the other end");
    let bulk = Bytes::from(vec![5; 4 << 20]);
    let (mut send, _) = connection.open_bi().await.expect("a stream");
    send.write_frame(Bytes::new(), bulk.clone()).await.expect("taken");
    let (_, mut recv) = other_end.accept_bi().await.expect("a stream");
    let frame = tokio::time::timeout(PATIENCE, recv.read_frame()).await.expect("soon").expect("a frame");
    assert_eq!(frame.expect("not the end").bulk, bulk);
}
