//! The program's own files: server configurations and the plan of a local cluster. Profiles and
//! trust files are the client library's. Parsed here and nowhere else; a key that nobody knows is an
//! error with its line, never ignored.

pub(crate) mod cluster;
pub(crate) mod server;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Verdict, at};
use crate::whole_file::WholeFile;

/// Reads a TOML file. The error shows the line.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Verdict<T> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    toml::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// Writes a TOML file in one step.
pub(crate) fn store<T: Serialize>(path: &Path, value: &T) -> Verdict {
    let text = toml::to_string(value).expect("our files are tables of plain values");
    write_whole(path, text.as_bytes(), 0o644)
}

/// Writes a file durably and in one step, so that readers see the old or the new text and never half
/// of one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Verdict {
    let mut file = WholeFile::create(path, mode)?;
    file.write(bytes)?;
    file.sync()?;
    file.finish()
}

/// The path that `text` names in the file at `of`: relative paths start at the file's folder.
pub(crate) fn beside(of: &Path, text: &Path) -> PathBuf {
    of.parent().unwrap_or(Path::new("")).join(text)
}
