//! `trefoil ls` and `trefoil deleted`.

use clap::Args;
use serde::Serialize;
use trefoil_client::{Client, Listed, Pages};
use trefoil_protocol::key::ObjectKey;

use super::{key, shown};
use crate::failure::Verdict;
use crate::output::{self, Format};

/// Arguments of `ls` and `deleted`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Only keys after this one
    #[arg(long, value_parser = key, value_name = "KEY")]
    after: Option<ObjectKey>,
    /// Stop after this many, and say where to go on
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Show sizes and versions
    #[arg(short, long)]
    long: bool,
    /// End each key with a zero byte instead of a new line, and write it as it is
    #[arg(short = '0', long, conflicts_with_all = ["long", "json"])]
    null: bool,
}

#[derive(Serialize)]
struct Line {
    key: String,
    version: String,
    bytes: u64,
    root: String,
    created: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_ends: Option<u64>,
}

#[derive(Serialize)]
struct Next {
    next: Option<String>,
}

/// Lists live objects.
pub(crate) async fn live(arguments: &ListArguments, client: &Client, format: Format) -> Verdict {
    tell(client.list(&arguments.prefix), arguments, format).await
}

/// Lists deleted objects that can be undeleted.
pub(crate) async fn deleted(arguments: &ListArguments, client: &Client, format: Format) -> Verdict {
    tell(client.deleted(&arguments.prefix), arguments, format).await
}

async fn tell(mut pages: Pages, arguments: &ListArguments, format: Format) -> Verdict {
    if let Some(after) = &arguments.after {
        pages = pages.after(after.clone());
    }
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    if let Ok(limit) = u32::try_from(left) {
        pages = pages.page_size(limit);
    }
    let mut next = None;
    while left > 0
        && let Some(page) = pages.next().await?
    {
        let count = page.lines.len() as u64;
        let taken = page.lines.iter().take(usize::try_from(left).unwrap_or(usize::MAX));
        for line in taken {
            tell_line(line, arguments, format);
        }
        let cut = count > left;
        left = left.saturating_sub(count);
        next = if cut { page.lines.last().map(|line| line.key.clone()) } else { page.next };
    }
    if format == Format::Json {
        format.answer(&Next { next: next.map(|key| key.to_string()) }, |_| String::new());
    } else if let Some(next) = next {
        output::note(&format!("there is more after {}", shown(&next)));
    }
    Ok(())
}

fn tell_line(line: &Listed, arguments: &ListArguments, format: Format) {
    if arguments.null {
        output::raw(line.key.as_bytes());
        return output::raw(b"\0");
    }
    let view = Line {
        key: line.key.to_string(),
        version: line.version.to_string(),
        bytes: line.bytes,
        root: line.root.to_string(),
        created: line.created.0,
        window_ends: line.window_ends.map(|time| time.0),
    };
    format.answer(&view, |view| {
        if arguments.long {
            format!("{:>12} {} {}", view.bytes, view.version, shown(&line.key))
        } else {
            shown(&line.key)
        }
    });
}
