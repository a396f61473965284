//! `trefoil get` and `trefoil head`. Bytes reach a file under its final name, and standard output,
//! only after they were verified; a file only when it is whole.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Component, Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use trefoil_client::{Client, Download, Head, Staleness};
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::key::ObjectKey;

use super::convoy::{Arrived, Convoy, all_or};
use super::{CopyView, key, shown};
use crate::failure::{Failure, Verdict, at};
use crate::output::{self, Format};
use crate::whole_file::WholeFile;
use crate::{progress, quantity};

/// Arguments of `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArguments {
    /// Read everything under a prefix into a directory
    #[arg(short, long, requires = "output", conflicts_with = "range")]
    recursive: bool,
    /// The object's key; with -r the prefix, which is cut off the file names
    #[arg(value_name = "KEY|PREFIX")]
    key: String,
    /// This version instead of the latest one
    #[arg(long, conflicts_with_all = ["recursive", "range"])]
    version: Option<VersionId>,
    /// Also from a replica that has lost the control plane, if the tenant allows it; says so if that is the case: the
    /// version may have been deleted by then
    #[arg(long, requires = "version")]
    stale_possible: bool,
    /// Bytes FIRST-LAST, both included, counted from 0; or FIRST- to the end
    #[arg(long, value_parser = quantity::byte_range)]
    range: Option<(u64, Option<u64>)>,
    /// Where it goes: a file, with -r a directory; without, standard output
    #[arg(short, long, value_name = "FILE|DIR")]
    output: Option<PathBuf>,
}

impl GetArguments {
    /// Whether it takes what it gets without a control plane.
    pub(crate) fn is_lenient(&self) -> bool {
        self.stale_possible
    }
}

/// Arguments of `head`.
#[derive(Debug, Args)]
pub(crate) struct HeadArguments {
    /// The object's key
    #[arg(value_parser = key)]
    key: ObjectKey,
}

/// What `head --json` says.
#[derive(Debug, Serialize)]
struct HeadView {
    key: String,
    version: String,
    bytes: u64,
    root: String,
    epoch: u64,
    protection: &'static str,
    copies: Vec<CopyView>,
    attempts: u32,
    /// Milliseconds since 1970 by the writer's clock.
    created: u64,
    /// It came from a replica that had lost the control plane.
    stale_possible: bool,
}

impl HeadView {
    fn of(head: &Head) -> Self {
        Self {
            key: head.key.to_string(),
            version: head.view.upload.version.to_string(),
            bytes: head.bytes,
            root: head.view.root.to_string(),
            epoch: head.view.epoch.0,
            protection: head.view.protection.reported(),
            copies: CopyView::all(&head.view.copies),
            attempts: head.view.upload.attempt + 1,
            created: head.created_ms,
            stale_possible: head.view.stale_possible,
        }
    }
}

/// What `get -r --json` says.
#[derive(Debug, Serialize)]
struct TreeRead {
    objects: u64,
    bytes: u64,
    failed: u64,
}

/// Describes an object.
pub(crate) async fn head(arguments: &HeadArguments, client: &Client, format: Format) -> Verdict {
    let head = client.head(&arguments.key).await?;
    format.answer(&HeadView::of(&head), |view| {
        let copies = CopyView::in_words(&view.copies);
        format!(
            "{}\n  {}, version {}\n  copies on {copies}\n  protection {}, epoch {}\n  ciphertext {}",
            shown(&head.key),
            output::bytes(view.bytes),
            view.version,
            view.protection,
            view.epoch,
            view.root
        )
    });
    Ok(())
}

/// Reads what the arguments name.
pub(crate) async fn run(arguments: &GetArguments, client: &Client, format: Format) -> Verdict {
    match &arguments.output {
        Some(folder) if arguments.recursive => get_tree(client, &arguments.key, folder, format).await,
        Some(path) => {
            let download = begin(client, arguments).await?;
            let bar = progress::bytes(&path.display().to_string(), Some(download.length()));
            let (view, bytes) = into_file(download, path, &bar).await?;
            bar.finish_and_clear();
            warn(&view);
            format.answer(&view, |_| format!("{}: {}", path.display(), output::bytes(bytes)));
            Ok(())
        }
        None if format == Format::Json => {
            Err(Failure::usage("an object is not JSON: say where it goes with -o FILE"))
        }
        None => into_standard_output(begin(client, arguments).await?).await,
    }
}

async fn begin(client: &Client, arguments: &GetArguments) -> Verdict<Download> {
    let key = key(&arguments.key).map_err(Failure::usage)?;
    if let Some(version) = arguments.version {
        let staleness = if arguments.stale_possible { Staleness::Possible } else { Staleness::Refused };
        return Ok(client.get_version(&key, version, staleness).await?);
    }
    let Some((first, last)) = arguments.range else { return Ok(client.get(&key).await?) };
    let length = client.head(&key).await?.bytes;
    // A last byte of 2^64 - 1 has nothing behind it.
    let end = last.map_or(length, |last| last.saturating_add(1).min(length));
    if first >= end {
        return Err(Failure::refused(format!("the range begins behind the object's {length} bytes")));
    }
    Ok(client.get_range(&key, first..end).await?)
}

async fn into_standard_output(mut download: Download) -> Verdict {
    // On a terminal the bytes themselves are to be seen.
    let bar = match io::stdout().is_terminal() {
        true => ProgressBar::hidden(),
        false => progress::bytes(&shown(&download.head().key), Some(download.length())),
    };
    while let Some(bytes) = download.next().await? {
        output::raw(&bytes);
        bar.inc(bytes.len() as u64);
    }
    bar.finish_and_clear();
    warn(&HeadView::of(download.head()));
    Ok(())
}

/// Says on standard error what the bytes do not tell.
fn warn(view: &HeadView) {
    if view.stale_possible {
        output::note(&format!(
            "warning: stale possible: a replica that has lost the control plane gave version {}, which may have been \
             deleted since",
            view.version
        ));
    }
}

async fn into_file(mut download: Download, path: &Path, bar: &ProgressBar) -> Verdict<(HeadView, u64)> {
    let mut file = WholeFile::create(path, 0o666)?;
    let mut written = 0;
    while let Some(bytes) = download.next().await? {
        file.write(&bytes)?;
        written += bytes.len() as u64;
        bar.set_position(written);
    }
    file.finish()?;
    Ok((HeadView::of(download.head()), written))
}

async fn get_tree(client: &Client, prefix: &str, folder: &Path, format: Format) -> Verdict {
    fs::create_dir_all(folder).map_err(at(folder))?;
    let mut convoy = Convoy::new(prefix);
    let mut pages = client.list(prefix);
    while let Some(page) = pages.next().await? {
        convoy.expect(page.lines.len() as u64);
        for line in page.lines {
            match file_path(folder, prefix, &line.key) {
                Some(path) => convoy.send(get_file(client.clone(), line.key, path)).await,
                None => {
                    convoy.fail(Failure::failed(format!("{}: the key is no file name", shown(&line.key))));
                }
            }
        }
    }
    let (arrived, failures) = convoy.arrive().await;
    let Arrived { objects, bytes } = arrived;
    let failed = failures.len() as u64;
    format.answer(&TreeRead { objects, bytes, failed }, |_| arrived.in_words());
    if objects == 0 && failed == 0 {
        return Err(Failure::not_found("no object begins with that prefix"));
    }
    all_or(failures, "not read")
}

async fn get_file(client: Client, key: ObjectKey, path: PathBuf) -> Verdict<u64> {
    let get = async {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        into_file(client.get(&key).await?, &path, &ProgressBar::hidden()).await
    };
    get.await.map(|(_, bytes)| bytes).map_err(|failure: Failure| failure.within(shown(&key)))
}

/// Where a key's file goes; `None` for a key that would leave the folder or names no file.
fn file_path(folder: &Path, prefix: &str, key: &ObjectKey) -> Option<PathBuf> {
    let relative = key.as_str().strip_prefix(prefix)?;
    let path = Path::new(relative);
    let plain = !relative.is_empty()
        && !relative.ends_with('/')
        && !relative.contains(['\0'])
        && !relative.contains("//")
        && path.components().all(|component| matches!(component, Component::Normal(_)))
        && !relative.split('/').any(|part| part == ".");
    plain.then(|| folder.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_leaves_the_folder() {
        let path = |key: &str| file_path(Path::new("out"), "docs/", &super::key(key).unwrap());
        assert_eq!(path("docs/a/b.txt"), Some(PathBuf::from("out/a/b.txt")));
        for key in
            ["docs/../x", "docs//etc/passwd", "docs/a/../../x", "docs/", "docs/a/", "docs/a//b", "docs/./a"]
        {
            assert_eq!(path(key), None, "{key}");
        }
    }
}
