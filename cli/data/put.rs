//! `trefoil put`: a file, standard input, or a directory.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use trefoil_client::shell::{FileSource, ReaderSource};
use trefoil_client::{Client, Padding, PutOptions, Spool, Stored};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::Precondition;

use super::convoy::{Arrived, Convoy, all_or};
use super::{CopyView, shown};
use crate::failure::{Failure, Verdict, at};
use crate::output::{self, Format};
use crate::progress;

/// Arguments of `put`.
#[derive(Debug, Args)]
pub(crate) struct PutArguments {
    /// Store every regular file below a directory
    #[arg(short, long)]
    recursive: bool,
    /// The object's key; with -r the directory
    #[arg(value_name = "KEY|DIR")]
    first: OsString,
    /// The file, or `-` for standard input; with -r the prefix of the keys
    #[arg(value_name = "FILE|PREFIX")]
    second: OsString,
    /// Refuse if the key exists
    #[arg(long)]
    if_absent: bool,
    /// Keep nothing of standard input for another attempt; a break then ends the put with 5
    #[arg(long)]
    no_spool: bool,
    /// Pad objects, so that their ciphertext tells a class of lengths and not the length
    #[arg(long)]
    pad: bool,
}

/// What `put --json` says.
#[derive(Debug, Serialize)]
struct StoredView {
    key: String,
    version: String,
    bytes: u64,
    root: String,
    epoch: u64,
    protection: &'static str,
    copies: Vec<CopyView>,
    attempts: u32,
}

impl StoredView {
    fn of(stored: &Stored) -> Self {
        let receipt = &stored.receipt;
        Self {
            key: stored.key.to_string(),
            version: receipt.version.to_string(),
            bytes: stored.bytes,
            root: receipt.root.to_string(),
            epoch: receipt.epoch.0,
            protection: receipt.protection.reported(),
            copies: CopyView::all(&receipt.copies),
            attempts: stored.attempts,
        }
    }
}

/// What `put -r --json` says.
#[derive(Debug, Serialize)]
struct TreeStored {
    objects: u64,
    bytes: u64,
    skipped_symlinks: u64,
    failed: u64,
}

/// What is to be stored: it was looked at and is there.
#[derive(Debug)]
pub(crate) enum What {
    /// A directory, and what its keys begin with.
    Tree { root: PathBuf, prefix: String },
    /// One object.
    One { key: ObjectKey, from: Origin },
}

/// Where an object's bytes come from.
#[derive(Debug)]
pub(crate) enum Origin {
    StandardInput,
    /// A regular file of this length.
    File(PathBuf, u64),
    /// A pipe or a device: it has no length and cannot be read twice.
    Stream(PathBuf),
}

impl What {
    /// What the arguments name.
    pub(crate) fn of(arguments: &PutArguments) -> Verdict<Self> {
        let text = |argument: &OsString| {
            let text = argument.to_str().map(str::to_owned);
            text.ok_or_else(|| Failure::usage(format!("a key is UTF-8, {argument:?} is not")))
        };
        if arguments.recursive {
            let root = PathBuf::from(&arguments.first);
            fs::read_dir(&root).map_err(at(&root))?;
            return Ok(Self::Tree { root, prefix: text(&arguments.second)? });
        }
        let key = super::key(&text(&arguments.first)?).map_err(Failure::usage)?;
        Ok(Self::One { key, from: Origin::of(PathBuf::from(&arguments.second))? })
    }
}

impl Origin {
    fn of(path: PathBuf) -> Verdict<Self> {
        if path == Path::new("-") {
            return Ok(Self::StandardInput);
        }
        let metadata = fs::metadata(&path).map_err(at(&path))?;
        if metadata.is_dir() {
            return Err(Failure::usage(format!("{}: is a directory; use put -r", path.display())));
        }
        Ok(if metadata.is_file() { Self::File(path, metadata.len()) } else { Self::Stream(path) })
    }
}

/// Stores it.
pub(crate) async fn run(what: What, arguments: &PutArguments, client: &Client, format: Format) -> Verdict {
    let (key, from) = match what {
        What::Tree { root, prefix } => return put_tree(client, &root, &prefix, arguments, format).await,
        What::One { key, from } => (key, from),
    };
    let stored = put_one(client, &key, from, arguments).await?;
    format.answer(&StoredView::of(&stored), |view| {
        let copies = CopyView::in_words(&view.copies);
        format!("{}: {} on {copies}, version {}", shown(&stored.key), output::bytes(view.bytes), view.version)
    });
    Ok(())
}

fn options(arguments: &PutArguments) -> PutOptions {
    PutOptions {
        precondition: if arguments.if_absent { Precondition::Absent } else { Precondition::Any },
        spool: if arguments.no_spool { Spool::Forbidden } else { Spool::Allowed },
        padding: arguments.pad.then_some(Padding::Padme),
        ..PutOptions::default()
    }
}

async fn put_one(
    client: &Client,
    key: &ObjectKey,
    from: Origin,
    arguments: &PutArguments,
) -> Verdict<Stored> {
    let bar = match &from {
        Origin::StandardInput => progress::bytes("standard input", None),
        Origin::File(path, length) => progress::bytes(&path.display().to_string(), Some(*length)),
        Origin::Stream(path) => progress::bytes(&path.display().to_string(), None),
    };
    let shown = bar.clone();
    let options = options(arguments).with_progress(move |bytes| shown.set_position(bytes));
    let stored = match from {
        Origin::StandardInput => client.put_with(key, ReaderSource::new(tokio::io::stdin()), options).await,
        Origin::File(path, _) => {
            client.put_with(key, FileSource::open(&path).map_err(at(&path))?, options).await
        }
        Origin::Stream(path) => {
            let file = tokio::fs::File::open(&path).await.map_err(at(&path))?;
            client.put_with(key, ReaderSource::new(file), options).await
        }
    };
    bar.finish_and_clear();
    Ok(stored?)
}

/// A regular file of a tree and the key it is stored under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its key.
    pub(crate) key: ObjectKey,
    /// Its length when it was seen.
    pub(crate) length: u64,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Regular files, ordered by path.
    pub(crate) files: Vec<TreeFile>,
    /// Symbolic links, which are not followed.
    pub(crate) symlinks: u64,
    /// What cannot be a key, with the reason.
    pub(crate) unnamable: Vec<String>,
}

impl Tree {
    /// Walks a directory. Names below `skip` at the top level are left out.
    pub(crate) fn walk(root: &Path, prefix: &str, skip: &[&str]) -> Verdict<Self> {
        let mut tree = Self::default();
        let mut folders = VecDeque::from([root.to_owned()]);
        while let Some(folder) = folders.pop_front() {
            let entries = fs::read_dir(&folder).map_err(at(&folder))?;
            let mut paths =
                entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(at(&folder))?;
            paths.sort();
            for path in paths {
                let top =
                    folder == root && path.file_name().is_some_and(|name| skip.iter().any(|s| name == *s));
                let metadata = fs::symlink_metadata(&path).map_err(at(&path))?;
                if top {
                } else if metadata.is_dir() {
                    folders.push_back(path);
                } else if metadata.is_symlink() {
                    tree.symlinks += 1;
                } else if metadata.is_file() {
                    tree.add(root, prefix, path, metadata.len());
                }
            }
        }
        Ok(tree)
    }

    fn add(&mut self, root: &Path, prefix: &str, path: PathBuf, length: u64) {
        let relative = path.strip_prefix(root).expect("found below the root");
        let Some(text) = relative.to_str() else {
            return self.unnamable.push(format!("{}: the name is not UTF-8", path.display()));
        };
        match ObjectKey::new(format!("{prefix}{text}")) {
            Ok(key) => self.files.push(TreeFile { path, key, length }),
            Err(error) => self.unnamable.push(format!("{}: {error}", path.display())),
        }
    }
}

async fn put_tree(
    client: &Client,
    root: &Path,
    prefix: &str,
    arguments: &PutArguments,
    format: Format,
) -> Verdict {
    let tree = Tree::walk(root, prefix, &[])?;
    if tree.symlinks > 0 {
        output::note(&format!("skipped {}", output::counted(tree.symlinks, "symbolic link")));
    }
    let mut convoy = Convoy::new(&root.display().to_string());
    convoy.expect(tree.files.len() as u64);
    tree.unnamable.iter().for_each(|reason| convoy.fail(Failure::failed(reason)));
    for file in tree.files {
        convoy.send(put_file(client.clone(), file, options(arguments))).await;
    }
    let (arrived, failures) = convoy.arrive().await;
    let Arrived { objects, bytes } = arrived;
    let failed = failures.len() as u64;
    let stored = TreeStored { objects, bytes, skipped_symlinks: tree.symlinks, failed };
    format.answer(&stored, |_| arrived.in_words());
    all_or(failures, "not stored")
}

async fn put_file(client: Client, file: TreeFile, options: PutOptions) -> Verdict<u64> {
    let source = FileSource::open(&file.path).map_err(at(&file.path))?;
    match client.put_with(&file.key, source, options).await {
        Ok(stored) => Ok(stored.bytes),
        Err(error) => Err(Failure::from(error).within(file.path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_its_regular_files_under_a_prefix() {
        let root = std::env::temp_dir().join(format!("trefoil-tree-{}", std::process::id()));
        fs::create_dir_all(root.join("inner")).unwrap();
        fs::create_dir_all(root.join("target")).unwrap();
        fs::write(root.join("b"), "1").unwrap();
        fs::write(root.join("inner/a"), "22").unwrap();
        fs::write(root.join("target/x"), "333").unwrap();
        std::os::unix::fs::symlink("b", root.join("link")).unwrap();
        let tree = Tree::walk(&root, "p/", &["target"]).unwrap();
        let keys: Vec<_> = tree.files.iter().map(|file| (file.key.as_str(), file.length)).collect();
        assert_eq!(keys, [("p/b", 1), ("p/inner/a", 2)]);
        assert_eq!((tree.symlinks, tree.unnamable.len()), (1, 0));
        fs::remove_dir_all(&root).unwrap();
    }
}
