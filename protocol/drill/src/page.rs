//! A report as one page of HTML that needs nothing else: no script, no font, no picture from elsewhere.

use std::fmt::Write as _;

use crate::course::Kind;
use crate::duration::Seconds;
use crate::picture::picture;
use crate::report::{Place, Report, Verification};

/// The style of a page.
pub const STYLE: &str = "body{font:14px/1.4 sans-serif;margin:2em auto;max-width:1200px;padding:0 1em;color:#222;background:#fff}\
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:.25em .9em;border-bottom:1px solid #ddd;\
text-align:left;vertical-align:top}th{color:#555;font-weight:normal}.held{color:#2e7d32}.bad{color:#b3261e}\
svg{max-width:100%;height:auto;border:1px solid #ddd}pre{background:#f6f6f6;padding:1em;overflow-x:auto;\
font-size:12px}.verdict{font-size:1.2em}";

/// The page of a report. `signer` is who vouches for it, if it was checked.
#[must_use]
pub fn page(report: &Report, signer: Option<&str>) -> String {
    let mut html = String::new();
    add(&mut html, format_args!("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">"));
    let name = escaped(&report.name);
    add(&mut html, format_args!("<title>Drill: {name}</title><style>{STYLE}</style></head><body>"));
    html.push_str(&section(report));
    match signer {
        Some(signer) => add(&mut html, format_args!("<p>Signed by {}.</p>", escaped(signer))),
        None => add(&mut html, format_args!("<p>Not signed.</p>")),
    }
    html.push_str("</body></html>\n");
    html
}

/// What a page says of a report, for a page around it.
#[must_use]
pub fn section(report: &Report) -> String {
    let mut html = String::new();
    heading(&mut html, report);
    verdicts(&mut html, report);
    html.push_str(&picture(report));
    marks(&mut html, report);
    verification(&mut html, &report.verification);
    list(&mut html, "Notes", report.notes.iter().map(String::as_str));
    let errors = report.errors.iter().map(|error| format!("{} s {}", Seconds(error.at_ns), error.what));
    let errors: Vec<String> = errors.collect();
    list(&mut html, "What was refused, or had no answer", errors.iter().map(String::as_str));
    add(&mut html, format_args!("<h2>The file</h2><pre>{}</pre>", escaped(&report.file)));
    html
}

fn heading(html: &mut String, report: &Report) {
    let row = report.row.map_or_else(String::new, |row| format!(" Row {row} of the decision table."));
    let place = match &report.place {
        Place::Simulated { seed, trace_hash } => format!("Simulated under seed {seed}, trace {trace_hash}."),
        Place::Live { cluster, operator, began } => {
            format!("On cluster {cluster} by {operator}, begun at {began}.")
        }
    };
    let class = if report.held() { "held" } else { "bad" };
    add(
        html,
        format_args!(
            "<h1>{}</h1><p class=\"verdict {class}\"><b>{}</b></p><p>{}{row} Report {}.</p>",
            escaped(&report.name),
            escaped(&report.outcome_text()),
            escaped(&place),
            escaped(&report.id),
        ),
    );
}

fn verdicts(html: &mut String, report: &Report) {
    html.push_str("<table><tr><th>expectation</th><th>target</th><th>measured</th><th></th></tr>");
    for verdict in &report.verdicts {
        let (class, word) = if verdict.held { ("held", "held") } else { ("bad", "FAILED") };
        add(
            html,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{word}</td></tr>",
                escaped(&verdict.what),
                escaped(&verdict.target),
                escaped(&verdict.measured)
            ),
        );
    }
    let (counts, writes, reads) =
        (report.operations, report.answered(Kind::Writes), report.answered(Kind::Reads));
    add(
        html,
        format_args!(
            "</table><p>{writes} changes and {reads} reads were answered, {} operations refused, {} had no answer.</p>",
            counts.refused, counts.failed
        ),
    );
}

fn marks(html: &mut String, report: &Report) {
    html.push_str(
        "<h2>What was done</h2><table><tr><th>at</th><th>what</th><th>held clients up for</th></tr>",
    );
    for mark in &report.marks {
        let pause = match (mark.pause_ms, mark.served_again) {
            (_, false) => "not all were served again".to_owned(),
            (None, _) => "nobody longer than a second".to_owned(),
            // Rounded up, as the expectations are.
            (Some(pause), _) => format!("{}.{} s", pause.div_ceil(100) / 10, pause.div_ceil(100) % 10),
        };
        let (second, tenth) = (mark.at_ms / 1_000, mark.at_ms % 1_000 / 100);
        let what = escaped(&mark.what);
        add(html, format_args!("<tr><td>{second}.{tenth} s</td><td>{what}</td><td>{pause}</td></tr>"));
    }
    html.push_str("</table>");
}

fn verification(html: &mut String, verification: &Verification) {
    let Verification { whole, whole_after_ms, objects, copies, .. } = verification;
    let state = match whole {
        true => format!(
            "Every volume had three in-sync copies again {} s after the healing.",
            whole_after_ms / 1_000
        ),
        false => "NOT every volume has three in-sync copies.".to_owned(),
    };
    add(html, format_args!("<h2>Verification</h2><p>{state} {objects} objects were looked at"));
    match copies {
        0 => html.push_str(".</p>"),
        copies => add(html, format_args!(", {copies} copies read and hashed, each from its own node.</p>")),
    }
    for (title, wrong) in [
        ("Acknowledged and not there", &verification.lost),
        ("Damaged or missing copies", &verification.damaged),
        ("Could not be looked at", &verification.unreadable),
        ("Violations", &verification.violations),
    ] {
        list(html, title, wrong.iter().map(String::as_str));
    }
}

fn list<'t>(html: &mut String, title: &str, lines: impl Iterator<Item = &'t str>) {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return;
    }
    add(html, format_args!("<h2>{title}</h2><ul>"));
    for line in lines {
        add(html, format_args!("<li>{}</li>", escaped(line)));
    }
    html.push_str("</ul>");
}

fn add(html: &mut String, what: std::fmt::Arguments<'_>) {
    html.write_fmt(what).expect("a string takes more");
}

/// Text that a page shows as it is.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::page;
    use crate::report::tests::a_report;

    #[test]
    fn a_page_needs_nothing_else_and_believes_nobody() {
        let html = page(&a_report(), Some("operator/<admin>"));
        for needle in [
            "<h1>a &lt;node&gt; dies</h1>",
            "<b>held</b>",
            "Row 3 of the decision table",
            "<td>at most 15.0 s</td><td>7.1 s</td><td class=\"held\">held</td>",
            "9 copies read and hashed",
            "Signed by operator/&lt;admin&gt;.",
        ] {
            assert!(html.contains(needle), "{needle}: {html}");
        }
        let outside = html.replace("http://www.w3.org/2000/svg", "");
        for barred in ["http:", "https:", "<script", "src=", "@import", "url("] {
            assert!(!outside.contains(barred), "{barred}");
        }
    }

    #[test]
    fn who_did_not_sign_is_not_named() {
        assert!(page(&a_report(), None).contains("<p>Not signed.</p>"));
    }
}
