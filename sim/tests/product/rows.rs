//! The decision table: its page and its scenarios say the same, and the scenarios hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use trefoil_sim::product::rows::{Columns, Line, heading, sums};
use trefoil_sim::product::scenario::Scenario;

use crate::scenarios::scenarios;

/// A row of the page.
struct Row {
    words: [BTreeSet<String>; 4],
    shown_by: BTreeSet<String>,
}

/// Which of these words stand in a cell.
fn words(cell: &str, known: &[&str]) -> BTreeSet<String> {
    let apart = |letter: char| !letter.is_ascii_alphanumeric() && letter != '-';
    let found = cell.split(apart).filter(|word| known.contains(word));
    found.map(str::to_owned).collect()
}

/// The times of a cell, each with what it counts from.
fn times(cell: &str) -> BTreeSet<String> {
    let time = |part: &str| {
        let is_time = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let time = part.split([' ', ',']).find(is_time).expect("each part has a time");
        let since = ["after the return", "after the load"].into_iter().find(|since| part.contains(since));
        since.map_or_else(|| time.to_owned(), |since| format!("{time} {since}"))
    };
    cell.split(';').map(time).collect()
}

fn page() -> BTreeMap<u8, Row> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/decision-table.md");
    let text = fs::read_to_string(path).expect("the page is there");
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Ok(number) = cells[0].parse() else { continue };
        let [_, _, writes, reads, rpo, rto, by] = cells[..] else { panic!("seven columns: {line}") };
        let served = ["yes", "some", "refused", "none"];
        let words = [
            words(writes, &served),
            words(reads, &served),
            words(rpo, &["0", "at-risk", "unknown"]),
            times(rto),
        ];
        let shown_by = by.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(rows.insert(number, Row { words, shown_by }).is_none(), "row {number} stands twice");
    }
    rows
}

#[test]
fn r042_every_row_of_the_decision_table_asserts_its_columns() {
    let page = page();
    assert_eq!(page.keys().copied().collect::<Vec<_>>(), (1..=22).collect::<Vec<_>>());
    let mut expected: BTreeMap<u8, Row> = BTreeMap::new();
    let mut rows = Vec::new();
    for file in scenarios() {
        let scenario =
            Scenario::parse(&fs::read_to_string(&file).expect("it can be read")).expect("it is one");
        let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("a plain name").to_owned();
        let Some(number) = scenario.file.row else {
            assert!(!stem.starts_with("row_"), "{stem} does not say which row it shows");
            continue;
        };
        let Columns { writes, reads, rpo, rto } = Columns::of(&scenario.file);
        let row = expected
            .entry(number)
            .or_insert_with(|| Row { words: Default::default(), shown_by: BTreeSet::new() });
        row.words[0].extend(writes);
        row.words[1].extend(reads);
        row.words[2].insert(rpo.unwrap_or_else(|| panic!("{stem} expects no RPO")));
        row.words[3].insert(rto.unwrap_or_else(|| panic!("{stem} expects no RTO")));
        row.shown_by.insert(stem);
        rows.push(scenario);
    }
    for (number, row) in &page {
        let files = expected.get(number).unwrap_or_else(|| panic!("no scenario shows row {number}"));
        for (column, (stands, holds)) in
            ["writes", "reads", "RPO", "RTO"].into_iter().zip(row.words.iter().zip(&files.words))
        {
            assert_eq!(stands, holds, "row {number}, {column}: the page, and what scenarios expect");
        }
        assert_eq!(row.shown_by, files.shown_by, "row {number}: the page, and the scenarios");
    }
    let run = |scenario| Line::run(scenario, u64::MAX).expect("its names are known");
    let mut lines: Vec<Line> = rows.iter().flat_map(run).collect();
    lines.sort_by_key(|line| line.row);
    println!("{}", heading());
    lines.iter().for_each(|line| println!("{}", line.text()));
    println!("{}", sums(&lines));
    let failed: Vec<&String> = lines.iter().flat_map(|line| &line.failed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
