//! Joins docs/requirements.md with the names of tests: `r026_...` shows R26.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{files, none, root};

#[test]
fn a_number_in_a_tests_name_stands_in_the_page() {
    let page = stated();
    let unknown = shown_by_tests().into_iter().filter(|(number, _)| !page.contains_key(number));
    none(
        "restate it in docs/requirements.md",
        unknown.map(|(number, test)| format!("R{number}: {test}")).collect(),
    );
}

#[test]
fn what_the_page_calls_shown_has_a_test_and_nothing_else_has() {
    let tests = shown_by_tests();
    let wrong =
        stated().into_iter().filter(|(number, part)| (*part == Part::Shown) != tests.contains_key(number));
    none(
        "move it to the part of docs/requirements.md where it belongs",
        wrong.map(|(number, part)| format!("R{number} is under {part:?}")).collect(),
    );
}

#[test]
fn numbers_stand_once_and_in_order() {
    let text = page();
    let mut seen = BTreeSet::new();
    let mut last = 0;
    for line in text.lines() {
        if line.starts_with("## ") {
            last = 0;
        }
        if let Some(number) = row_number(line) {
            assert!(seen.insert(number), "R{number} stands twice");
            assert!(number > last, "R{number} stands behind R{last}");
            last = number;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Shown,
    NotYet,
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/requirements.md")).expect("the page is there")
}

fn stated() -> BTreeMap<u32, Part> {
    let mut part = Part::NotYet;
    let mut found = BTreeMap::new();
    for line in page().lines() {
        match line {
            "## Shown" => part = Part::Shown,
            _ if line.starts_with("## ") => part = Part::NotYet,
            _ => found.extend(row_number(line).map(|number| (number, part))),
        }
    }
    found
}

fn row_number(line: &str) -> Option<u32> {
    line.strip_prefix("| R")?.split(' ').next()?.parse().ok()
}

/// Each number with one test that carries it.
fn shown_by_tests() -> BTreeMap<u32, String> {
    let mut found = BTreeMap::new();
    for file in files(".rs") {
        for line in file.text.lines() {
            let Some(name) = line.trim_start().trim_start_matches("async ").strip_prefix("fn r") else {
                continue;
            };
            let Some((digits, _)) = name.split_once('_') else { continue };
            if let (3, Ok(number)) = (digits.len(), digits.parse()) {
                let name = name.split('(').next().unwrap_or(name);
                found.insert(number, format!("{} r{name}", file.path));
            }
        }
    }
    found
}
