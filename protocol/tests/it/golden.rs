//! Frozen bytes: one sample of every message, record and paper. A difference is a change of the format,
//! which needs its lines in docs/wire-format.md, and a reason.
//!
//! `TREFOIL_GOLDEN=write cargo test -p trefoil-protocol` writes the files anew; never in CI.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use trefoil_protocol::codec;

use crate::draw::{Draw, Source};
use crate::shapes::{Shape, Visit, every};

/// Compares `lines` with the golden file `page`, or writes it.
pub(crate) fn compare(page: &str, lines: &BTreeMap<String, Vec<u8>>) {
    let path = folder().join(format!("{page}.hex"));
    let now = lines.iter().fold(String::new(), |mut text, (name, bytes)| {
        writeln!(text, "{name} {}", hex(bytes)).expect("a text grows");
        text
    });
    if std::env::var("TREFOIL_GOLDEN").is_ok_and(|value| value == "write") {
        assert!(std::env::var("CI").is_err(), "golden files are not written in CI");
        std::fs::write(&path, now).expect("the folder of golden files is there");
        return;
    }
    let frozen = std::fs::read_to_string(&path).unwrap_or_default();
    let differing: Vec<&str> =
        now.lines().filter(|line| !frozen.lines().any(|old| old == *line)).map(first_word).collect();
    assert!(differing.is_empty(), "{page}.hex: the format of these changed: {differing:?}");
    let gone: Vec<&str> = frozen.lines().map(first_word).filter(|name| !lines.contains_key(*name)).collect();
    assert!(gone.is_empty(), "{page}.hex: these are no more: {gone:?}");
}

fn first_word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text grows");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("golden files hold hex");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// The name of a case in the golden files.
fn line_name<T: Shape>(index: usize) -> String {
    if T::CASES.len() == 1 { T::NAME.to_owned() } else { format!("{}.{}", T::NAME, T::CASES[index].name) }
}

#[derive(Default)]
struct Samples(BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>);

impl Visit for Samples {
    fn visit<T: Shape + Draw>(&mut self, page: &'static str) {
        for index in 0..T::CASES.len() {
            let bytes = codec::to_vec(&T::case(index, Source::golden()));
            let previous = self.0.entry(page).or_default().insert(line_name::<T>(index), bytes);
            assert!(previous.is_none(), "two shapes of one name");
        }
    }
}

#[test]
fn every_message_keeps_its_bytes() {
    let mut samples = Samples::default();
    every(&mut samples);
    for (page, lines) in &samples.0 {
        compare(page, lines);
    }
}

struct Frozen;

impl Visit for Frozen {
    fn visit<T: Shape + Draw>(&mut self, page: &'static str) {
        let text = std::fs::read_to_string(folder().join(format!("{page}.hex"))).unwrap_or_default();
        for index in 0..T::CASES.len() {
            let name = line_name::<T>(index);
            let line = text.lines().find(|line| first_word(line) == name);
            let line = line.unwrap_or_else(|| panic!("{page}.hex has no {name}"));
            let bytes = unhex(&line[name.len() + 1..]);
            let value: T = codec::from_slice(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(value, T::case(index, Source::golden()), "{name}");
        }
    }
}

#[test]
fn frozen_bytes_still_mean_what_they_meant() {
    every(&mut Frozen);
}
