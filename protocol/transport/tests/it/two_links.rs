//! Traffic moves off a cut link within its second, and the link comes back by itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use trefoil_protocol::ids::{LinkId, UploadId, VersionId};
use trefoil_protocol::message::traffic::Class;
use trefoil_transport::{
    AskError, Closed, Endpoint, Lane, Limits, PeerLinks, PeerPath, Plane, ReadFrameError, Receiver,
};

use crate::cluster::{Cluster, PATIENCE, identity, loopback};
use crate::relay::Relay;

const UPLOAD: Lane = Lane::Upload(UploadId { version: VersionId([7; 16]), attempt: 0 });

/// Node b1 with a listener behind a relay on each link, and node a1's links to it.
struct Cross {
    relays: [Relay; 2],
    links: Arc<PeerLinks>,
    receiver: Receiver,
    listeners: [Endpoint; 2],
}

impl Cross {
    async fn new() -> Self {
        let cluster = Cluster::new();
        let (one, one_address) = cluster.server("node/b1", &[Plane::Node]);
        let (two, two_address) = cluster.server("node/b1", &[Plane::Node]);
        let relays = [Relay::to(one_address).await, Relay::to(two_address).await];
        let paths = LinkId::ALL
            .into_iter()
            .zip(&relays)
            .map(|(link, relay)| PeerPath { link, local: cluster.client("node/a1"), remote: relay.address })
            .collect();
        let links = Arc::new(PeerLinks::open(identity("node/b1"), Plane::Node, paths));
        let cross = Self { relays, links, receiver: Receiver::new(64), listeners: [one, two] };
        for listener in cross.listeners.clone() {
            let (connection, _, _) = timeout(PATIENCE, listener.accept()).await.expect("soon").expect("open");
            cross.receiver.add(connection);
        }
        for link in LinkId::ALL {
            cross.until(link, true).await;
        }
        cross
    }

    async fn until(&self, link: LinkId, up: bool) {
        let wait = async {
            while self.links.health(link).up != up {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("link {link} is not up={up}"));
    }

    /// The next message's number.
    async fn number(&mut self) -> u64 {
        let (from, frame) = timeout(PATIENCE, self.receiver.next()).await.expect("a message");
        assert_eq!(from.identity(), identity("node/a1"));
        u64::from_le_bytes(frame.body.as_ref().try_into().expect("a number"))
    }
}

fn numbered(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_moves_traffic_and_comes_back() {
    let mut cross = Cross::new().await;
    // Both lanes begin on link 1.
    cross.links.drain(LinkId::Two);
    for lane in [Lane::Control, UPLOAD] {
        cross.links.send(lane, Class::Control, numbered(0), Bytes::new()).await.expect("taken");
        assert_eq!(cross.number().await, 0);
    }
    cross.links.restore(LinkId::Two);

    cross.relays[0].cut();
    let cut_at = Instant::now();
    // The caller's part: send again until it arrives.
    let sender = Arc::clone(&cross.links);
    let retransmission = tokio::spawn(async move {
        loop {
            for (lane, number) in [(Lane::Control, 1), (UPLOAD, 2)] {
                sender.send(lane, Class::Control, numbered(number), Bytes::new()).await.expect("taken");
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    let mut arrived = BTreeSet::new();
    while arrived.len() < 2 {
        arrived.insert(cross.number().await);
    }
    let moved_after = cut_at.elapsed();
    retransmission.abort();
    assert_eq!(arrived, BTreeSet::from([1, 2]));
    assert!(moved_after < Duration::from_secs(3), "moved after {moved_after:?}");
    assert!(!cross.links.health(LinkId::One).up);
    assert!(cross.links.health(LinkId::Two).up);
    assert!(cross.links.health(LinkId::Two).rtt.is_some());

    // Past hope: the connection is given up and dialled anew once the link is mended.
    sleep(Duration::from_secs(4)).await;
    cross.relays[0].mend();
    let (connection, _, _) =
        timeout(PATIENCE, cross.listeners[0].accept()).await.expect("soon").expect("open");
    cross.receiver.add(connection);
    cross.until(LinkId::One, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_cut_keeps_its_connection() {
    let cross = Cross::new().await;
    cross.relays[1].cut();
    cross.until(LinkId::Two, false).await;
    cross.relays[1].mend();
    cross.until(LinkId::Two, true).await;
    assert_eq!(cross.listeners[1].connection_count(), 1);
    assert!(cross.links.health(LinkId::One).up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r096_an_old_connection_is_replaced_and_no_message_is_lost() {
    let cluster = Cluster::new();
    let (server, address) = cluster.server("node/b1", &[Plane::Node]);
    let limits = Limits { connection_age_max: Duration::from_millis(300), ..Limits::default() };
    let local =
        Endpoint::client(loopback(), cluster.own("node/a1"), cluster.trust(), limits).expect("a socket");
    let path = PeerPath { link: LinkId::One, local, remote: address };
    let links = PeerLinks::open(identity("node/b1"), Plane::Node, vec![path]);
    let mut receiver = Receiver::new(64);
    let begun = Instant::now();
    let (mut connections, mut sent, mut expected) = (0, 0_u64, BTreeSet::new());
    while begun.elapsed() < Duration::from_millis(1500) {
        tokio::select! {
            accepted = server.accept() => {
                receiver.add(accepted.expect("open").0);
                connections += 1;
            }
            (_, frame) = receiver.next() => {
                assert!(expected.remove(&frame.body), "a message that was not sent");
            }
            () = sleep(Duration::from_millis(2)) => {
                links.send(Lane::Control, Class::Control, numbered(sent), Bytes::new()).await.expect("taken");
                expected.insert(numbered(sent));
                sent += 1;
            }
        }
    }
    while !expected.is_empty() {
        let (_, frame) = timeout(PATIENCE, receiver.next()).await.expect("the rest");
        expected.remove(&frame.body);
    }
    assert!((3..=6).contains(&connections), "{connections} connections in five times their age");
}

#[tokio::test]
async fn r096_a_listener_closes_what_its_dialler_does_not_replace() {
    let cluster = Cluster::new();
    let limits = Limits { connection_age_max: Duration::from_millis(100), ..Limits::default() };
    let (server, address) = cluster.limited_server("node/b1", &[Plane::Node], limits);
    let connection = cluster.client("node/a1").connect(address, Plane::Node, None).await.expect("open");
    let _other_end = server.accept().await.expect("the other end");
    assert_eq!(timeout(PATIENCE, connection.closed()).await.expect("soon"), Closed::ByPeer(4));
}

#[tokio::test]
async fn a_question_gets_its_answer() {
    let (here, there, _client, _server) = Cluster::new().pair().await;
    let answering = async {
        let (mut send, mut recv) = there.accept_bi().await.expect("a question");
        let question = recv.read_frame().await.expect("readable").expect("not the end");
        send.write_frame(question.bulk, question.body).await.expect("answered");
        send.finish().expect("open");
        // A question without an answer.
        there.accept_bi().await.expect("a question")
    };
    let asking = async {
        let answer = here.ask(Bytes::from_static(b"body"), Bytes::from_static(b"bulk")).await;
        let answer = answer.expect("an answer");
        assert_eq!((&answer.body[..], &answer.bulk[..]), (&b"bulk"[..], &b"body"[..]));
        here.ask(Bytes::from_static(b"again"), Bytes::new()).await
    };
    let answering = async {
        drop(answering.await);
    };
    let (second, ()) = timeout(PATIENCE, async { tokio::join!(asking, answering) }).await.expect("soon");
    assert!(matches!(second, Err(AskError::Answer(ReadFrameError::Abandoned { .. }))), "{second:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_keeps_its_order_and_a_finished_lane_begins_anew() {
    let mut cross = Cross::new().await;
    for number in 0..1000 {
        cross.links.send(UPLOAD, Class::Clients, numbered(number), Bytes::new()).await.expect("taken");
        assert_eq!(cross.number().await, number);
    }
    cross.links.finish(UPLOAD);
    cross.links.send(UPLOAD, Class::Clients, numbered(7), Bytes::new()).await.expect("taken");
    assert_eq!(cross.number().await, 7);
    assert_eq!(cross.links.dropped(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_not_read_holds_an_upload_back_and_loses_nothing() {
    let mut cross = Cross::new().await;
    let sender = Arc::clone(&cross.links);
    let bulk = Bytes::from(vec![9; 1 << 20]);
    let sending = tokio::spawn(async move {
        for number in 0..400 {
            sender.send(UPLOAD, Class::Clients, numbered(number), bulk.clone()).await.expect("taken");
        }
    });
    sleep(Duration::from_millis(500)).await;
    assert!(!sending.is_finished(), "400 MiB do not fit into windows and inbox");
    for number in 0..400 {
        assert_eq!(cross.number().await, number);
    }
    timeout(PATIENCE, sending).await.expect("soon").expect("all taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_not_read_is_not_taken_for_a_cut_link() {
    let mut cross = Cross::new().await;
    cross.links.drain(LinkId::Two);
    let bulk = Bytes::from(vec![9; 1 << 20]);
    let uploads: Vec<_> = (0..16)
        .map(|number| Lane::Upload(UploadId { version: VersionId([number; 16]), attempt: 0 }))
        .collect();
    // More than every window between the two ends holds.
    let sender = Arc::clone(&cross.links);
    let sending = tokio::spawn(async move {
        for _ in 0..30 {
            for lane in &uploads {
                sender.send(*lane, Class::Clients, numbered(1), bulk.clone()).await.expect("taken");
            }
        }
    });
    sleep(Duration::from_secs(3)).await;
    assert!(!sending.is_finished(), "480 MiB do not fit");
    let health = cross.links.health(LinkId::One);
    assert!(health.up, "{health:?}");
    for _ in 0..30 * 16 {
        cross.number().await;
    }
    sending.await.expect("all taken");
    assert_eq!(cross.listeners[0].connection_count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_over_a_link_is_counted_by_what_it_is_for() {
    let mut cross = Cross::new().await;
    cross.links.drain(LinkId::Two);
    let bulk = Bytes::from(vec![9; 512 << 10]);
    for number in 0..4 {
        cross.links.send(UPLOAD, Class::Repair, numbered(number), bulk.clone()).await.expect("taken");
        cross.number().await;
    }
    cross.links.send(Lane::Control, Class::Control, numbered(4), Bytes::new()).await.expect("taken");
    cross.number().await;
    // The last message is counted when it was written, perhaps after it arrived.
    let counted = || cross.links.traffic(LinkId::One);
    timeout(PATIENCE, async {
        while counted().repair.frames < 4 || counted().control.frames < 1 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("soon");
    assert!(counted().repair.bytes >= 4 * bulk.len() as u64);
    assert_eq!(counted().clients.frames, 0);
    assert_eq!(cross.links.traffic(LinkId::Two).repair.frames, 0);
    assert!(cross.links.packets(LinkId::One).0 > 4);
}
