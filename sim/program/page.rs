//! One page that needs nothing else: the sums, and one run as a picture. Each volume has a lane of
//! epochs and one of who served it; faults are lines through all lanes, errors of clients are ticks.

use std::fmt::Write as _;

use trefoil_sim::product::run::Report;
use trefoil_sim::product::timeline::{Reign, Timeline, VolumeLine};
use trefoil_sim::trace::Seconds;

use crate::report::Totals;

const LEFT: u64 = 90;
const WIDTH: u64 = 1_100;
const LANE: u64 = 22;
const STYLE: &str = "body{font:14px sans-serif;margin:2em;max-width:1300px;color:#222;background:#fff}\
table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:left}\
td.n{text-align:right}.bad{color:#b00020}svg{background:#fafafa;border:1px solid #ddd}\
text{font:11px sans-serif;fill:#222}";

/// The page.
pub(crate) fn page(totals: &Totals, shown: Option<&Report>) -> String {
    let mut html = String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    add(&mut html, format_args!("<title>Trefoil, simulated</title><style>{STYLE}</style></head><body>"));
    add(&mut html, format_args!("<h1>Trefoil, simulated</h1>"));
    let rows = [
        ("seeds", totals.seeds.to_string()),
        ("seeds with violations", totals.violating.to_string()),
        ("hours simulated", format!("{:.2}", totals.simulated_hours)),
        ("events", totals.events.to_string()),
        ("operations checked", totals.operations_checked.to_string()),
        ("deletes certified", totals.certified.to_string()),
        ("CPU-seconds", format!("{:.1}", totals.cpu_seconds)),
    ];
    table(&mut html, "Sums", rows.into_iter().map(|(name, value)| (name.to_owned(), value)));
    for (title, counts) in [
        ("Faults by kind", &totals.faults_by_kind),
        ("Checkers that fired, in seeds", &totals.checkers),
        ("Commits, in seeds", &totals.commits),
    ] {
        table(&mut html, title, counts.iter().map(|(name, count)| (name.clone(), count.to_string())));
    }
    if let Some(report) = shown {
        run(&mut html, report);
    }
    html.push_str("</body></html>\n");
    html
}

fn add(html: &mut String, what: std::fmt::Arguments<'_>) {
    html.write_fmt(what).expect("a string takes more");
}

fn table(html: &mut String, title: &str, rows: impl Iterator<Item = (String, String)>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    add(html, format_args!("<h2>{title}</h2><table>"));
    for (name, value) in rows {
        add(html, format_args!("<tr><td>{}</td><td class=\"n\">{value}</td></tr>", escaped(&name)));
    }
    html.push_str("</table>");
}

fn run(html: &mut String, report: &Report) {
    let (seed, hash) = (report.seed, report.trace.hash);
    add(html, format_args!("<h2>Seed {seed}</h2><p>Trace {hash}; point at anything to read more.</p>"));
    for violation in &report.violations {
        let (checker, sentence) = (violation.checker, escaped(&violation.sentence));
        let (at, object) = (Seconds(violation.at_ns), escaped(&violation.object));
        add(html, format_args!("<p class=\"bad\"><b>{checker}</b> on {object} at {at} s: {sentence}</p>"));
    }
    picture(html, &report.timeline);
    html.push_str("<h2>What happened when</h2><pre>");
    html.push_str(&escaped(&report.timeline.to_text()));
    html.push_str("</pre>");
}

/// Places along the time of a run.
#[derive(Clone, Copy)]
struct Scale {
    ends: u64,
}

impl Scale {
    fn x(self, at: u64) -> u64 {
        LEFT + at.min(self.ends) * WIDTH / self.ends.max(1)
    }
}

fn picture(html: &mut String, timeline: &Timeline) {
    let scale = Scale { ends: timeline.ends_ns.max(1) };
    let lanes = timeline.volumes.len() as u64 * 2 + 2;
    let (width, height) = (LEFT + WIDTH + 20, (lanes + 1) * LANE);
    add(html, format_args!("<svg width=\"{width}\" height=\"{height}\" role=\"img\">"));
    let mut y = LANE;
    for (volume, line) in &timeline.volumes {
        add(html, format_args!("<text x=\"4\" y=\"{}\">volume {volume}</text>", y + 14));
        epochs(html, line, scale, y);
        service(html, line, scale, y + LANE);
        y += 2 * LANE;
    }
    add(html, format_args!("<text x=\"4\" y=\"{}\">client errors</text>", y + 14));
    for error in &timeline.errors {
        let (x, what) = (scale.x(error.at_ns), escaped(&error.what));
        let bottom = y + LANE - 4;
        add(
            html,
            format_args!(
                "<line x1=\"{x}\" x2=\"{x}\" y1=\"{y}\" y2=\"{bottom}\" stroke=\"#b00020\"><title>{} s {what}</title></line>",
                Seconds(error.at_ns)
            ),
        );
    }
    for fault in &timeline.faults {
        let (x, what, bottom) = (scale.x(fault.at_ns), escaped(&fault.what), y + LANE);
        add(
            html,
            format_args!(
                "<line x1=\"{x}\" x2=\"{x}\" y1=\"4\" y2=\"{bottom}\" stroke=\"#d98200\" stroke-dasharray=\"3 2\">\
                 <title>{} s {what}</title></line>",
                Seconds(fault.at_ns)
            ),
        );
    }
    for tenth in 0..=10u64 {
        let at = scale.ends / 10 * tenth;
        let (x, seconds) = (scale.x(at), at / 1_000_000_000);
        add(html, format_args!("<text x=\"{x}\" y=\"{}\">{seconds} s</text>", height - 6));
    }
    html.push_str("</svg>");
}

fn epochs(html: &mut String, line: &VolumeLine, scale: Scale, y: u64) {
    let ends = line.reigns.iter().skip(1).map(|reign| reign.at_ns).chain([scale.ends]);
    for (reign, end) in line.reigns.iter().zip(ends) {
        let (x, width) = (scale.x(reign.at_ns), scale.x(end).saturating_sub(scale.x(reign.at_ns)).max(1));
        let colour = match (reign.activated, reign.protection.as_str()) {
            (false, _) => "#ddd",
            (true, "BothDcs") => "#9ecae1",
            (true, _) => "#fdd49e",
        };
        let (title, label) = (escaped(&title_of(reign)), reign.epoch);
        add(
            html,
            format_args!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"18\" fill=\"{colour}\" stroke=\"#888\">\
                 <title>{title}</title></rect>"
            ),
        );
        if width > 16 {
            add(html, format_args!("<text x=\"{}\" y=\"{}\">{label}</text>", x + 2, y + 13));
        }
    }
}

fn title_of(reign: &Reign) -> String {
    let primary = reign.primary.as_deref().unwrap_or("nobody");
    let waits = if reign.activated { "" } else { ", not activated" };
    let (epoch, members, protection) = (reign.epoch, reign.members.join(" "), &reign.protection);
    format!("{} s epoch {epoch}: {primary} of {members}, {protection}{waits}", Seconds(reign.at_ns))
}

fn service(html: &mut String, line: &VolumeLine, scale: Scale, y: u64) {
    for service in &line.service {
        let x = scale.x(service.from_ns);
        let width = scale.x(service.until_ns).saturating_sub(x).max(1);
        let (node, from, until) =
            (escaped(&service.node), Seconds(service.from_ns), Seconds(service.until_ns));
        let colour = if node.starts_with('a') { "#74c476" } else { "#31a354" };
        add(
            html,
            format_args!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"14\" fill=\"{colour}\">\
                 <title>{node} served from {from} s to {until} s</title></rect>"
            ),
        );
        if width > 20 {
            add(html, format_args!("<text x=\"{}\" y=\"{}\">{node}</text>", x + 2, y + 11));
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::page;
    use crate::report::Totals;
    use trefoil_sim::product::run::{Profile, Setting, run};

    #[test]
    fn a_page_shows_sums_faults_epochs_and_who_served() {
        let setting = Setting { horizon: 2_000_000_000, ..Setting::of_profile(Profile::Light, 5) };
        let report = run(5, &setting, None).expect("a drawn plan fits");
        let html = page(&Totals::default(), Some(&report));
        for needle in ["<h2>Seed 5</h2>", "volume 1</text>", "served from", "epoch 1:", "hours simulated"] {
            assert!(html.contains(needle), "{needle}");
        }
        assert!(!html.contains("http://") && !html.contains("https://"), "it needs nothing else");
    }
}
