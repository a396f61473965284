//! What is written is read back, and what a later version adds is skipped.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use trefoil_protocol::codec;
use trefoil_protocol::ids::Lsn;
use trefoil_protocol::message::peer::{PeerMessage, decode_records, encode_records};
use trefoil_protocol::message::tenant::{Refusal, TenantAnswer, TenantResponse};

use crate::draw::{Draw, Source};
use crate::papers::record;
use crate::shapes::{Shape, Visit, every};

/// Runs `test` on many values of `T`.
pub(crate) fn with_values<T: Draw + std::fmt::Debug>(cases: u32, test: impl Fn(T)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let values = (any::<u64>(), 0_u64..5).prop_map(|(seed, length)| T::draw(Source::seeded(seed, length)));
    TestRunner::new(config)
        .run(&values, |value| {
            test(value);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

struct RoundTrip;

impl Visit for RoundTrip {
    fn visit<T: Shape + Draw>(&mut self, _: &'static str) {
        with_values(64, |value: T| {
            let bytes = codec::to_vec(&value);
            assert_eq!(codec::from_slice::<T>(&bytes).expect("our own bytes"), value);
        });
    }
}

#[test]
fn what_is_written_is_read_back() {
    every(&mut RoundTrip);
}

#[test]
fn an_answer_and_a_refusal_are_told_apart() {
    with_values(64, |response: TenantResponse| {
        let bytes = codec::to_vec(&response);
        assert_eq!(bytes[..2], [0x82, u8::from(response.is_err())]);
        assert_eq!(codec::from_slice::<TenantResponse>(&bytes).expect("our own bytes"), response);
    });
    let refusal: Result<TenantAnswer, Refusal> = Err(Refusal::Unavailable);
    assert_eq!(codec::to_vec(&refusal), [0x82, 1, 0x82, 3, 0x80]);
}

#[test]
fn records_are_read_back_from_a_bulk_with_the_parts_that_are_there() {
    with_values(64, |seeds: Vec<(u64, u64)>| {
        let records: Vec<_> = (1..)
            .zip(seeds)
            .map(|(lsn, (seed, parts))| {
                let whole = record(Source::seeded(seed, 2), Lsn(lsn));
                match parts % 3 {
                    0 => whole,
                    1 => whole.without_wrapped(),
                    _ => whole.without_erasable(),
                }
            })
            .collect();
        let bulk = encode_records(&records);
        assert_eq!(decode_records(bulk, records.len() as u32).expect("our own bytes"), records);
    });
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    with_values(64, |(message, later): (PeerMessage, u64)| {
        let mut bytes = codec::to_vec(&message);
        assert_eq!(bytes[0], 0x86, "six fields");
        bytes[0] += 2;
        bytes.extend(codec::to_vec(&vec![later; 3]));
        bytes.extend(codec::to_vec(&"something new"));
        assert_eq!(codec::from_slice::<PeerMessage>(&bytes).expect("known fields"), message);
    });
}

struct OldSender;

impl Visit for OldSender {
    /// An optional field at the end may be missing: senders from before it did not know it.
    fn visit<T: Shape + Draw>(&mut self, _: &'static str) {
        if T::CASES.len() > 1 {
            return;
        }
        let mut bytes = codec::to_vec(&T::draw(Source::seeded(0, 0)));
        // Encoded null, a last field that is optional and absent can be left out altogether.
        if bytes.last() == Some(&0xf6) && (0x81..0x97).contains(&bytes[0]) {
            let with = codec::from_slice::<T>(&bytes).expect("our own bytes");
            bytes[0] -= 1;
            bytes.pop();
            assert_eq!(codec::from_slice::<T>(&bytes).expect("without its last field"), with);
        }
    }
}

#[test]
fn an_optional_field_at_the_end_may_be_missing() {
    every(&mut OldSender);
}
