//! Progress on standard error: a bar for what takes long, and nothing where nobody looks (a bar is
//! drawn on terminals only).

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Bytes from which a single object gets a bar.
const LARGE: u64 = 8 << 20;

/// A bar over bytes; hidden for small or unknown lengths that pass at once.
pub(crate) fn bytes(name: &str, length: Option<u64>) -> ProgressBar {
    match length {
        Some(length) if length < LARGE => ProgressBar::hidden(),
        Some(length) => {
            let bar = ProgressBar::new(length).with_message(name.to_owned());
            styled(bar, "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        }
        None => {
            styled(ProgressBar::new_spinner().with_message(name.to_owned()), "{msg} {bytes} {bytes_per_sec}")
        }
    }
}

/// A bar over objects, of which none is known yet, with a running count of bytes in its message.
pub(crate) fn objects(name: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_prefix(name.to_owned());
    styled(bar, "{prefix} {bar:30} {pos}/{len} objects {msg} {eta}")
}

/// A bar over the volumes of a plan, with what is waited for in its message.
pub(crate) fn volumes() -> ProgressBar {
    styled(ProgressBar::new(0), "{bar:30} {pos}/{len} volumes {elapsed} {msg}")
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("our templates are valid");
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
