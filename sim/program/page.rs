//! One page that needs nothing else: the sums, and one run as a picture. Each volume has a lane of
//! epochs and one of who served it; faults are lines through all lanes, errors of clients are ticks.

use std::fmt::Write as _;

use trefoil_drill::{STYLE, escaped, section};

use crate::report::{Run, Totals};

/// The page.
pub(crate) fn page(totals: &Totals, shown: Option<&Run>) -> String {
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
    if let Some(shown) = shown {
        run(&mut html, shown);
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

fn run(html: &mut String, run: &Run) {
    html.push_str(&section(&run.document.report));
    html.push_str("<h2>What happened when</h2><pre>");
    html.push_str(&escaped(&run.report.timeline.to_text()));
    html.push_str("</pre>");
}

#[cfg(test)]
mod tests {
    use super::page;
    use crate::report::{Run, Totals};
    use trefoil_sim::product::run::{Profile, Setting};
    use trefoil_sim::product::scenario::Scenario;

    #[test]
    fn a_page_shows_sums_faults_epochs_and_who_served() {
        let setting = Setting { horizon: 2_000_000_000, ..Setting::of_profile(Profile::Light, 5) };
        let mut setting = setting;
        setting.plan.faults.clear();
        let scenario = Scenario::record("nothing breaks", 5, &setting, None);
        let html = page(&Totals::default(), Some(&Run::of(5, &scenario).expect("it fits")));
        for needle in ["seed 5, trace", "volume 1</text>", "served from", "epoch 1:", "hours simulated"] {
            assert!(html.contains(needle), "{needle}");
        }
        let outside = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http://") && !outside.contains("https://"), "it needs nothing else");
    }
}
