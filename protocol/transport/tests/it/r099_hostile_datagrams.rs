//! Datagrams of somebody who has no certificate: noise, packets that look like QUIC, and Initials with
//! correct protection, whose keys anybody can derive, around frames that nobody should send. A listener
//! outlives them, its connections go on, and its memory stays small.
//!
//! The long run: `TREFOIL_DATAGRAMS=100000000 cargo test --release -p trefoil-transport --test it
//! r099_long -- --ignored --nocapture`.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use rustls::Side;
use rustls::quic::{Keys, Version};
use trefoil_transport::Plane;

use crate::cluster::{Cluster, PATIENCE, loopback};

/// Datagrams between two looks at the connection that must go on.
const VOLLEY: u64 = 1000;

/// What the process may hold more after the storm than before it, in KiB.
const GROWTH_MAX_KIB: u64 = 256 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r099_hostile_datagrams_hurt_neither_a_listener_nor_its_connections() {
    storm(20_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as many datagrams as TREFOIL_DATAGRAMS says, ten million without it"]
async fn r099_long_storm_of_hostile_datagrams() {
    let asked = std::env::var("TREFOIL_DATAGRAMS").ok();
    storm(asked.map_or(10_000_000, |text| text.parse().expect("a number of datagrams"))).await;
}

async fn storm(datagrams: u64) {
    let cluster = Cluster::new();
    let (server, address) = cluster.server("node/b1", &[Plane::Node]);
    tokio::task::spawn_blocking(move || one_is_opened(address)).await.expect("no flood yet");
    let client = cluster.client("node/a1");
    let connection = client.connect(address, Plane::Node, None).await.expect("open");
    let (other_end, _, _) = server.accept().await.expect("the other end");
    let mut stream = connection.open_uni().await.expect("a stream");
    let mut received = None;
    let (began, held_before) = (Instant::now(), memory_kib());
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut answers = Answers::default();
    for volley in 0..datagrams.div_ceil(VOLLEY) {
        (random, answers) =
            tokio::task::spawn_blocking(move || throw(random, address, answers)).await.expect("thrown");
        let word = Bytes::copy_from_slice(&volley.to_le_bytes());
        stream.write_frame(word.clone(), Bytes::new()).await.expect("sent");
        let received = match &mut received {
            Some(received) => received,
            none => none.insert(other_end.accept_uni().await.expect("a stream")),
        };
        let frame =
            tokio::time::timeout(PATIENCE, received.read_frame()).await.expect("the connection lives");
        assert_eq!(frame.expect("a frame").expect("not the end").body, word);
    }
    let taken = began.elapsed();
    let another = client.connect(address, Plane::Node, None).await;
    assert!(another.is_ok(), "new peers still get in: {another:?}");
    let (dropped, grown) = (dropped_by_the_system(address), memory_kib().saturating_sub(held_before));
    println!(
        "r099: {datagrams} datagrams in {taken:.1?}, {:.0} a second; {dropped} never reached the listener, \
         {} were refused in words, {} had to prove their address; {grown} KiB more in memory",
        datagrams as f64 / taken.as_secs_f64(),
        answers.refused,
        answers.retried
    );
    assert!(answers.refused > 0 && answers.retried > datagrams / 100, "{answers:?}: too few are Initials");
    assert!(dropped < datagrams / 2, "{dropped} of {datagrams} were lost on their way");
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB more than before");
}

/// What the listener answered.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    /// With an Initial.
    refused: u64,
    /// With a Retry.
    retried: u64,
}

/// Throws a volley, and counts the answers.
fn throw(mut random: TestRng, address: SocketAddr, mut answers: Answers) -> (TestRng, Answers) {
    let socket = UdpSocket::bind(loopback()).expect("a socket");
    for _ in 0..VOLLEY {
        let datagram = match random.next_u32() % 8 {
            0 => noise(&mut random),
            1 => behind_a_long_header(&mut random),
            2 => behind_a_short_header(&mut random),
            3 => damaged(&mut random),
            _ => initial(&mut random),
        };
        socket.send_to(&datagram, address).expect("loopback takes it");
    }
    socket.set_nonblocking(true).expect("a socket");
    let mut answer = [0; 1500];
    while let Ok(length) = socket.recv(&mut answer) {
        // A long header of version 1, and its type.
        let is_long = length > 5 && answer[1..5] == [0, 0, 0, 1];
        answers.refused += u64::from(is_long && answer[0] & 0xf0 == 0xc0);
        answers.retried += u64::from(is_long && answer[0] & 0xf0 == 0xf0);
    }
    (random, answers)
}

/// Without a flood an Initial is answered by one only if its protection is right: ours are not turned
/// away at the door.
fn one_is_opened(address: SocketAddr) {
    let socket = UdpSocket::bind(loopback()).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut answer = [0; 1500];
    let opened = (0..50).any(|_| {
        socket.send_to(&initial(&mut random), address).expect("loopback takes it");
        socket.recv(&mut answer).is_ok_and(|_| answer[0] & 0xf0 == 0xc0)
    });
    assert!(opened, "no Initial of ours was opened");
}

fn noise(random: &mut TestRng) -> Vec<u8> {
    let mut bytes = vec![0; 1 + random.next_u32() as usize % 1472];
    random.fill_bytes(&mut bytes);
    bytes
}

fn behind_a_long_header(random: &mut TestRng) -> Vec<u8> {
    let mut bytes = noise(random);
    let header = [0xc0 | random.next_u32() as u8, 0, 0, 0, random.next_u32() as u8 % 3, 8];
    let length = header.len().min(bytes.len());
    bytes[..length].copy_from_slice(&header[..length]);
    bytes
}

fn behind_a_short_header(random: &mut TestRng) -> Vec<u8> {
    let mut bytes = noise(random);
    bytes[0] = 0x40 | (bytes[0] & 0x3f);
    bytes
}

/// An Initial that is cut, or has a flipped bit.
fn damaged(random: &mut TestRng) -> Vec<u8> {
    let mut bytes = initial(random);
    if random.next_u32().is_multiple_of(2) {
        bytes.truncate(1 + random.next_u32() as usize % bytes.len());
    } else {
        let at = random.next_u32() as usize % bytes.len();
        bytes[at] ^= 1 << (random.next_u32() % 8);
    }
    bytes
}

/// An Initial as RFC 9001 protects it, around hostile frames.
fn initial(random: &mut TestRng) -> Vec<u8> {
    const NUMBER_LEN: usize = 4;
    let mut ids = [0; 16];
    random.fill_bytes(&mut ids);
    let (destination, source) = ids.split_at(8);
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = suite.tls13().expect("a suite of TLS 1.3");
    let keys = Keys::initial(Version::V1, suite, suite.quic.expect("for QUIC"), destination, Side::Client);

    let mut payload = Vec::new();
    while payload.len() < 1200 && !random.next_u32().is_multiple_of(6) {
        frame(random, &mut payload);
    }
    payload.truncate(1300);
    payload.resize(payload.len().max(1162), 0);
    let mut packet = vec![0xc0 | (NUMBER_LEN as u8 - 1), 0, 0, 0, 1, 8];
    packet.extend_from_slice(destination);
    packet.push(8);
    packet.extend_from_slice(source);
    packet.push(0);
    let length = u16::try_from(NUMBER_LEN + payload.len() + 16).expect("short");
    packet.extend_from_slice(&(0x4000 | length).to_be_bytes());
    let number = u64::from(random.next_u32() % 3);
    packet.extend_from_slice(&u32::try_from(number).expect("small").to_be_bytes());
    let number_at = packet.len() - NUMBER_LEN;

    let tag = keys.local.packet.encrypt_in_place(number, &packet, &mut payload).expect("protected");
    packet.extend_from_slice(&payload);
    packet.extend_from_slice(tag.as_ref());
    let sample_at = number_at + 4;
    let sample = packet[sample_at..sample_at + keys.local.header.sample_len()].to_vec();
    let (first, rest) = packet.split_at_mut(1);
    let bytes = &mut rest[number_at - 1..number_at - 1 + NUMBER_LEN];
    keys.local.header.encrypt_in_place(&sample, &mut first[0], bytes).expect("a sample of the right length");
    packet
}

/// A frame, often one that no Initial may carry.
fn frame(random: &mut TestRng, payload: &mut Vec<u8>) {
    let kind = match random.next_u32() % 6 {
        // CRYPTO, with gaps that a receiver would have to remember.
        0..=2 => 0x06,
        // ACK of what was never sent.
        3 => 0x02,
        // CONNECTION_CLOSE.
        4 => 0x1c,
        _ => random.next_u32() as u8 % 0x40,
    };
    payload.push(kind);
    for _ in 0..random.next_u32() % 5 {
        let value = random.next_u64() >> (random.next_u32() % 63);
        payload.extend_from_slice(&(0xc000_0000_0000_0000 | value).to_be_bytes());
    }
    let mut content = vec![0; random.next_u32() as usize % 64];
    random.fill_bytes(&mut content);
    payload.extend_from_slice(&content);
}

/// What the system threw away because the listener's buffer was full.
fn dropped_by_the_system(address: SocketAddr) -> u64 {
    let table = fs::read_to_string("/proc/net/udp").expect("a table of sockets");
    let port = format!(":{:04X}", address.port());
    let line =
        table.lines().find(|line| line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&port)));
    let dropped = line.expect("the listener's line").split_whitespace().next_back().expect("a last column");
    dropped.parse().expect("a number")
}

/// What this process holds in memory now.
fn memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
