//! Bytes from somebody who means harm: never a panic, never more memory than a small multiple of what
//! was sent, and an error that says what is wrong.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use trefoil_protocol::codec;
use trefoil_protocol::frame::{BODY_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader};
use trefoil_protocol::ids::Lsn;
use trefoil_protocol::message::control::{ControlAnswer, ControlRequest, Renew};
use trefoil_protocol::message::peer::{PeerBody, PeerMessage, decode_records, encode_records};
use trefoil_protocol::message::tenant::{TenantRequest, TenantResponse};
use trefoil_protocol::record::{Record, RecordError};

use crate::allocation::peak_of;
use crate::draw::{Draw, Source};
use crate::papers::record;
use crate::shapes::{Shape, Visit, every};

/// The most memory that decoding may hold for each byte that came in, besides a small constant: list
/// entries are larger in memory than their shortest encoding, and a list that grows is held twice.
const BYTES_HELD_PER_BYTE_MAX: usize = 64;
const BYTES_HELD_ALWAYS: usize = 4096;

/// Decodes without a panic and within bounds; what was accepted can be written again.
fn decode<T: Shape>(bytes: &[u8]) -> Result<T, String> {
    let (result, peak) = peak_of(|| codec::from_slice::<T>(bytes));
    let allowed = BYTES_HELD_ALWAYS + BYTES_HELD_PER_BYTE_MAX * bytes.len();
    assert!(peak <= allowed, "{}: {peak} bytes held for {}, {allowed} allowed", T::NAME, bytes.len());
    if let Ok(value) = &result {
        codec::to_vec(value);
    }
    result.map_err(|error| error.to_string())
}

/// How valid bytes are spoilt.
#[derive(Clone, Debug)]
enum Spoil {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
}

fn spoils() -> impl Strategy<Value = Vec<Spoil>> {
    let one = prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Replace(at, byte)),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Insert(at, byte)),
        any::<prop::sample::Index>().prop_map(Spoil::Remove),
    ];
    prop::collection::vec(one, 1..4)
}

fn spoilt(mut bytes: Vec<u8>, spoils: &[Spoil]) -> Vec<u8> {
    for spoil in spoils {
        let length = bytes.len();
        match spoil {
            _ if length == 0 => {}
            Spoil::Replace(at, byte) => bytes[at.index(length)] = *byte,
            Spoil::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Spoil::Remove(at) => {
                bytes.remove(at.index(length));
            }
        }
    }
    bytes
}

fn run<V: std::fmt::Debug>(cases: u32, values: impl Strategy<Value = V>, test: impl Fn(V)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&values, |value| {
        test(value);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

struct Hostile;

impl Visit for Hostile {
    fn visit<T: Shape + Draw>(&mut self, _: &'static str) {
        run(64, prop::collection::vec(any::<u8>(), 0..200), |bytes| {
            let _ = decode::<T>(&bytes);
        });
        run(128, (any::<u64>(), spoils()), |(seed, spoils)| {
            let bytes = codec::to_vec(&T::draw(Source::seeded(seed, 3)));
            let _ = decode::<T>(&spoilt(bytes, &spoils));
        });
    }
}

#[test]
fn random_and_spoilt_bytes_are_an_error_or_a_value() {
    every(&mut Hostile);
}

struct CutShort;

impl Visit for CutShort {
    fn visit<T: Shape + Draw>(&mut self, _: &'static str) {
        for index in 0..T::CASES.len() {
            let bytes = codec::to_vec(&T::case(index, Source::golden()));
            for length in 0..bytes.len() {
                assert!(decode::<T>(&bytes[..length]).is_err(), "{} cut to {length}", T::NAME);
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(decode::<T>(&longer).unwrap_err().contains("left over"), "{}", T::NAME);
        }
    }
}

#[test]
fn a_message_cut_anywhere_or_followed_by_more_is_refused() {
    every(&mut CutShort);
}

struct LaterVariant;

impl Visit for LaterVariant {
    fn visit<T: Shape + Draw>(&mut self, _: &'static str) {
        if T::CASES.len() == 1 {
            return;
        }
        let bytes = codec::to_vec(&T::case(0, Source::golden()));
        // Alone a number, otherwise a pair of a number and its fields.
        let later = if bytes.len() == 1 { vec![0x18, 200] } else { vec![0x82, 0x18, 200, 0x80] };
        let error = decode::<T>(&later).expect_err("nobody knows variant 200");
        assert!(error.contains("unknown enum variant 200"), "{}: {error}", T::NAME);
    }
}

#[test]
fn a_variant_of_a_later_version_is_named_in_the_error() {
    every(&mut LaterVariant);
}

#[test]
fn a_later_variant_inside_an_optional_field_shifts_no_other_field() {
    let renew = Renew::draw(Source::golden());
    let bytes = codec::to_vec(&renew);
    let (links, timings) = (codec::to_vec(&renew.links), codec::to_vec(&renew.timings));
    let last = [links, timings, codec::to_vec(&renew.condition)].concat();
    assert!(bytes.ends_with(&last), "links, timings and condition come last");
    // The list's head, the first entry's head, the first entry's link.
    let at = bytes.len() - last.len() + 2;
    let later = [&bytes[..at], &[23], &bytes[at + 1..]].concat();
    assert!(decode::<Renew>(&later).is_err());
}

#[test]
fn an_answer_within_an_answer_within_an_answer_does_not_reach_the_stack() {
    let applied = [0x82, 7, 0x81].repeat(BODY_BYTES_MAX as usize / 3 - 1);
    let error = codec::from_slice::<TenantResponse>(&[&[0x82, 0][..], &applied, &[0xf6]].concat());
    assert!(error.unwrap_err().to_string().contains("nested deeper"));
    let twice = [0x82, 0, 0x82, 7, 0x81, 0x82, 7, 0x81, 0x82, 8, 0x80];
    let error = codec::from_slice::<TenantResponse>(&twice).unwrap_err().to_string();
    assert!(error.contains("not that of a mutation"), "{error}");
}

#[test]
fn the_longest_lists_of_the_shortest_entries_stay_within_bounds() {
    let body = 1 << 18;
    let list = |entry: &[u8]| {
        let count = (body / entry.len()) as u32;
        [&[0x9a][..], &count.to_be_bytes(), &entry.repeat(count as usize)].concat()
    };
    let volume = [0x91, 0, 0, 0, 0, 0xf6, 0x80, 0, 0xf4, 0, 0x80, 0x80, 0, 0, 0, 0xf6, 0xf4, 0];
    let tenant = [0x87, 0, 0x61, b'a', 1, 0, 0, 0, 0];
    let signers = [0x81, 0x80];
    let news = |volumes: &[u8], tenants: &[u8], retire: &[u8]| {
        [
            &[0x82, 2, 0x81, 0x8b, 0, 0][..],
            volumes,
            &[0x80],
            tenants,
            retire,
            &[0xf6],
            &signers,
            &[0x80, 0x80, 0x80],
        ]
        .concat()
    };
    for (what, bytes) in [
        ("volumes", news(&list(&volume), &[0x80], &[0x80])),
        ("tenants", news(&[0x80], &list(&tenant), &[0x80])),
        ("numbers", news(&[0x80], &[0x80], &list(&[0]))),
        (
            "of a later version",
            [
                &[0x82, 2, 0x81, 0x8c, 0, 0, 0x80, 0x80, 0x80, 0x80, 0xf6][..],
                &signers,
                &[0x80, 0x80, 0x80],
                &list(&[0x80]),
            ]
            .concat(),
        ),
    ] {
        let (result, peak) = peak_of(|| codec::from_slice::<ControlAnswer>(&bytes));
        assert!(result.is_ok(), "{what}: {:?}", result.err());
        assert!(peak <= BYTES_HELD_PER_BYTE_MAX * bytes.len(), "{what}: {peak} for {}", bytes.len());
    }
}

#[test]
fn a_list_that_drives_work_has_a_limit() {
    let too_many = |bytes: Vec<u8>| decode::<PeerBody>(&bytes).unwrap_err();
    let receipts = PeerBody::Erased { receipts: vec![Draw::draw(Source::golden()); 257] };
    assert!(too_many(codec::to_vec(&receipts)).contains("a list of 257, at most 256"));
    let leaves = PeerBody::Payload {
        upload: Draw::draw(Source::golden()),
        first: 0,
        leaves: vec![Draw::draw(Source::golden()); 65],
        relay_to: None,
        fetched: false,
    };
    assert!(too_many(codec::to_vec(&leaves)).contains("a list of 65, at most 64"));
    let stores = ControlRequest::Lagging {
        volume: Draw::draw(Source::golden()),
        epoch: Draw::draw(Source::golden()),
        stores: vec![Draw::draw(Source::golden()); 257],
    };
    let error = decode::<ControlRequest>(&codec::to_vec(&stores)).unwrap_err();
    assert!(error.contains("at most 256"), "{error}");
}

#[test]
fn a_tenant_cannot_send_a_key_or_metadata_that_no_record_holds() {
    use trefoil_protocol::message::tenant::{PutRequest, TenantCall};
    let request = |wrapped: usize, metadata: usize| {
        let mut put = PutRequest::draw(Source::golden());
        put.wrapped_key = vec![1; wrapped].into();
        put.inline.as_mut().expect("a golden option is there").metadata = vec![1; metadata].into();
        let request = TenantRequest {
            volume: Draw::draw(Source::golden()),
            epoch: Draw::draw(Source::golden()),
            call: TenantCall::Put(put),
            within: Draw::draw(Source::golden()),
        };
        decode::<TenantRequest>(&codec::to_vec(&request))
    };
    assert!(request(128, 16 * 1024).is_ok());
    assert!(request(129, 0).unwrap_err().contains("at most 128"));
    assert!(request(0, 16 * 1024 + 1).unwrap_err().contains("at most 16384"));
}

#[test]
fn a_bulk_of_records_cut_or_changed_anywhere_is_refused() {
    let records: Vec<_> =
        (1..4).map(|lsn| record(Source::golden().field(&lsn.to_string()), Lsn(lsn))).collect();
    let bulk = encode_records(&records);
    for length in 0..bulk.len() {
        assert!(decode_records(bulk.slice(..length), 3).is_err(), "cut to {length}");
    }
    for at in 0..bulk.len() {
        for bit in 0..8 {
            let mut changed = bulk.to_vec();
            changed[at] ^= 1 << bit;
            assert!(decode_records(changed.into(), 3).is_err(), "byte {at}, bit {bit}");
        }
    }
    assert!(decode_records(bulk.clone(), 2).unwrap_err().to_string().contains("left over"));
    assert!(decode_records(bulk, u32::MAX).unwrap_err().to_string().contains("fewer records"));
}

#[test]
fn hostile_bulks_are_refused_without_a_panic() {
    run(256, (any::<u64>(), any::<u32>(), spoils()), |(seed, count, spoils)| {
        let records = [record(Source::seeded(seed, 3), Lsn(seed))];
        let bytes = spoilt(encode_records(&records).to_vec(), &spoils);
        let length = bytes.len();
        let (_, peak) = peak_of(|| decode_records(Bytes::from(bytes), count));
        assert!(peak <= BYTES_HELD_ALWAYS + BYTES_HELD_PER_BYTE_MAX * length, "{peak} for {length}");
    });
}

#[test]
fn a_record_of_another_format_says_so() {
    let mut bytes = record(Source::golden(), Lsn(1)).public().to_vec();
    bytes[4] = 2;
    let error = Record::parse_public(&bytes.into()).expect_err("format 2 is not known");
    assert_eq!(error, RecordError::Format { got: 2 });
    assert!(error.to_string().contains("knows 1"), "{error}");
}

#[test]
fn a_frame_of_another_version_says_so() {
    let mut header = FrameHeader::new(1, 2).expect("short").encode();
    assert_eq!(header.len(), FRAME_HEADER_BYTES);
    header[4] = 2;
    let error = FrameHeader::decode(header).expect_err("version 2 is not known").to_string();
    assert!(error.contains("version is 2, expected 1"), "{error}");
}

#[test]
fn a_peer_that_names_the_last_position_overflows_nothing() {
    let message = PeerMessage::draw(Source::golden());
    let last = Lsn(u64::MAX);
    assert_eq!(last.next(), last);
    assert!(message.epoch.next() >= message.epoch);
}
