//! The repository's files as the house rules see them, and the rules that hold for each of them.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository.
pub(super) struct Source {
    /// Its path from the root, with `/`.
    pub(super) path: String,
    /// What it says.
    pub(super) text: String,
}

impl Source {
    /// The lines that are neither comments nor inside the tests at the file's foot.
    pub(super) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines
            .take_while(|(_, line)| *line != "#[cfg(test)]")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(index, line)| (index + 1, line))
    }
}

/// The folder of the workspace.
pub(super) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file below the root whose name ends so, without build output.
pub(super) fn files(suffix: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), suffix, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no file ends with {suffix}");
    found
}

fn collect(folder: &Path, suffix: &str, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("named").to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                collect(&path, suffix, found);
            }
        } else if name.ends_with(suffix) {
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let relative = path.strip_prefix(root()).expect("below the root");
            found.push(Source { path: relative.to_string_lossy().into_owned(), text });
        }
    }
}

/// Fails with all findings at once.
pub(super) fn none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

#[test]
fn every_source_file_opens_with_its_purpose() {
    let bare = files(".rs").into_iter().filter(|file| !file.text.starts_with("//! "));
    none("a file opens with `//!`", bare.map(|file| file.path).collect());
}

/// Files that are one list of cases, and why each may be long.
const LONG: &[(&str, &str)] = &[];

#[test]
fn files_stay_below_eight_hundred_lines() {
    let long = files(".rs")
        .into_iter()
        .filter(|file| file.text.lines().count() > 800 && !LONG.iter().any(|(path, _)| *path == file.path));
    none("a file is one room", long.map(|file| file.path).collect());
}

#[test]
fn no_file_is_named_after_nothing() {
    let empty = ["util", "utils", "helper", "helpers", "common", "manager", "misc"];
    let stem = |file: &Source| Path::new(&file.path).file_stem().map(|s| s.to_string_lossy().into_owned());
    let named =
        files(".rs").into_iter().filter(|file| stem(file).is_some_and(|s| empty.contains(&s.as_str())));
    none("a file is a noun you could say in a meeting", named.map(|file| file.path).collect());
}

#[test]
fn nothing_is_left_behind() {
    // Written apart, so that this list is not its own first finding.
    let left = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X "),
        concat!("/wo", "rk/"),
        concat!("/tmp/", "plan"),
        concat!("db", "g!("),
    ];
    let mut findings = Vec::new();
    for suffix in [".rs", ".toml", ".md", "run"] {
        for file in files(suffix) {
            for (index, line) in file.text.lines().enumerate() {
                for word in left.iter().filter(|word| line.contains(**word)) {
                    findings.push(format!("{}:{}: {word}", file.path, index + 1));
                }
            }
        }
    }
    none("say it, do it, or leave it", findings);
}
