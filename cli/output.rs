//! What goes to standard output: the answer and nothing else, as text or, with `--json`, as JSON.
//! Everything that is not the answer goes to standard error.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Format {
    /// Writes one answer: as JSON, or as the text that `text` makes of it.
    pub(crate) fn answer<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) {
        match self {
            Self::Json => line(&serde_json::to_string(value).expect("answers have string keys")),
            Self::Text => match text(value) {
                text if text.is_empty() => {}
                text => line(text.trim_end_matches('\n')),
            },
        }
    }
}

/// Writes a line to standard output. A reader that has gone away (`trefoil ls | head`) ends the
/// program quietly, as it does every other.
pub(crate) fn line(text: &str) {
    raw(text.as_bytes());
    raw(b"\n");
}

/// Writes bytes to standard output as they are.
pub(crate) fn raw(bytes: &[u8]) {
    if let Err(error) = io::stdout().lock().write_all(bytes) {
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        if !quiet {
            note(&format!("standard output: {error}"));
        }
        std::process::exit(i32::from(!quiet));
    }
}

/// Writes a remark to standard error.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A table without decoration, which can be cut with column tools.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table.add_rows(rows);
    // Every cell is padded by one, the first of a line too.
    let trimmed = |line: &str| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned();
    table.to_string().lines().map(trimmed).collect::<Vec<_>>().join("\n")
}

/// A number of things: `1 object`, `2 objects`.
pub(crate) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A number of bytes as people read it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
