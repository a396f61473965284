//! The picture of a report, one SVG that needs nothing else: what clients were answered each second, how
//! long it took, each volume's epochs and who served it; and over all of it what was done, with the time
//! that it held somebody up in red.

use std::fmt::Write as _;

use crate::course::{Mark, Second};
use crate::duration::{MILLISECOND, Seconds};
use crate::page::escaped;
use crate::report::Report;
use crate::scale::{LEFT, RIGHT, Scale, WIDTH, labels, round_up, share};
use crate::timeline::{Moment, Reign, VolumeLine};

/// The height of a row of labels.
const ROW: u64 = 15;

/// The height of a panel.
const PANEL: u64 = 96;

/// The height of a lane.
const LANE: u64 = 20;

/// Between panels.
const GAP: u64 = 22;

/// A label of a mark is cut behind so many letters.
const LETTERS: usize = 44;

/// The bottom of the latency panel: 1 ms, in microseconds.
const FASTEST_US: u64 = 1_000;

/// Decades above it: to 100 s.
const DECADES: u64 = 5;

/// The top.
const SLOWEST_US: u64 = 100_000_000;

const WRITES: &str = "#4c78a8";
const READS: &str = "#72b7b2";
const REFUSED: &str = "#e8a838";
const FAILED: &str = "#c4314b";
const FAULT: &str = "#b3261e";
const HEALING: &str = "#2e7d32";

/// Draws a report.
#[must_use]
pub(crate) fn picture(report: &Report) -> String {
    let scale = Scale::new(report.lasted_ms.max(report.seconds.len() as u64 * 1_000));
    let mut svg = Svg { text: String::new(), scale, y: 4 };
    // Drawn first, because it says how much room it takes, and put last, because nothing may lie on it.
    svg.marks(&report.marks);
    let labels = std::mem::take(&mut svg.text);
    if !report.seconds.is_empty() {
        svg.rates(&report.seconds);
        svg.waits(&report.seconds);
    }
    for (volume, line) in &report.volumes {
        svg.volume(*volume, line);
    }
    svg.errors(&report.errors);
    svg.time();
    svg.lines(&report.marks);
    svg.text += &labels;
    let (width, height) = (LEFT + WIDTH + RIGHT, svg.y + 6);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" font-family=\"sans-serif\" font-size=\"11\">\
         <title>{}</title><rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>{}</svg>",
        escaped(&report.name),
        svg.text
    )
}

struct Svg {
    text: String,
    scale: Scale,
    /// What is drawn next begins here.
    y: u64,
}

impl Svg {
    fn add(&mut self, what: std::fmt::Arguments<'_>) {
        self.text.write_fmt(what).expect("a string takes more");
    }

    fn words(&mut self, x: u64, y: u64, colour: &str, anchor: &str, words: &str) {
        let words = escaped(words);
        self.add(format_args!(
            "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\" text-anchor=\"{anchor}\">{words}</text>"
        ));
    }

    /// What was done, in words above the panels.
    fn marks(&mut self, marks: &[Mark]) {
        let texts = marks.iter().map(|mark| (self.scale.x(mark.at_ms), cut(&mark.what)));
        let placed = labels(texts);
        let rows = placed.iter().map(|label| label.row + 1).max().unwrap_or_default();
        for (label, mark) in placed.iter().zip(marks) {
            let (baseline, width) = (self.y + label.row * ROW + 11, label.until - label.from - 4);
            self.add(format_args!(
                "<rect x=\"{}\" y=\"{}\" width=\"{width}\" height=\"13\" fill=\"#fff\" opacity=\"0.8\"/>",
                label.from - 1,
                baseline - 10
            ));
            self.words(label.from, baseline, colour_of(mark), "start", &label.text);
        }
        self.y += rows * ROW + 6;
    }

    /// Answers a second, stacked; what was refused or had no answer above.
    fn rates(&mut self, seconds: &[Second]) {
        let all = |second: &Second| second.writes + second.reads + second.refused + second.failed;
        let most = round_up(seconds.iter().map(all).max().unwrap_or_default());
        let bottom =
            self.frame("answers a second", &[(most, most.to_string()), (most / 2, String::new())], most);
        for (place, second) in (0_u64..).zip(seconds) {
            let (x, right) = (self.scale.x(place * 1_000), self.scale.x(place * 1_000 + 1_000));
            let mut top = bottom;
            for (count, colour, what) in [
                (second.writes, WRITES, "writes"),
                (second.reads, READS, "reads"),
                (second.refused, REFUSED, "refused"),
                (second.failed, FAILED, "without an answer"),
            ] {
                let height = share(count, most, PANEL).max(u64::from(count > 0));
                top -= height.min(top);
                let width = right.saturating_sub(x).saturating_sub(1).max(1);
                if height > 0 {
                    self.add(format_args!(
                        "<rect x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"{colour}\">\
                         <title>second {place}: {count} {what}</title></rect>"
                    ));
                }
            }
        }
        let (x, y) = (LEFT - 8, self.y - GAP - PANEL);
        for (row, (what, colour)) in
            (0..).zip([("writes", WRITES), ("reads", READS), ("refused", REFUSED), ("no answer", FAILED)])
        {
            self.words(x, y + 40 + row * 14, colour, "end", what);
        }
    }

    /// How long the answers of each second took: the middle one and the longest, each decade as high as the other.
    fn waits(&mut self, seconds: &[Second]) {
        let names = ["1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"];
        let lines: Vec<(u64, String)> = (0..).zip(names).map(|(n, name)| (n, name.to_owned())).collect();
        let bottom = self.frame("time to an answer", &lines, DECADES);
        for (place, second) in (0_u64..).zip(seconds).filter(|(_, second)| second.longest_us > 0) {
            let (x, right) = (self.scale.x(place * 1_000), self.scale.x(place * 1_000 + 1_000));
            let (middle, longest) = (bottom - decades(second.median_us), bottom - decades(second.longest_us));
            let width = right.saturating_sub(x).saturating_sub(1).max(1);
            let (median_ms, longest_ms) = (second.median_us / 1_000, second.longest_us / 1_000);
            self.add(format_args!(
                "<g><title>second {place}: half within {median_ms} ms, the longest {longest_ms} ms</title>\
                 <rect x=\"{x}\" y=\"{longest}\" width=\"{width}\" height=\"{}\" fill=\"#d6e3f0\"/>\
                 <rect x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"2\" fill=\"#4c78a8\"/></g>",
                bottom - longest,
                middle.saturating_sub(1)
            ));
        }
    }

    /// A panel with its name and its lines; returns where its bottom is.
    fn frame(&mut self, name: &str, lines: &[(u64, String)], most: u64) -> u64 {
        let (top, bottom, right) = (self.y + 14, self.y + 14 + PANEL, LEFT + WIDTH);
        self.words(LEFT, self.y + 9, "#333", "start", name);
        for (value, label) in lines {
            let y = bottom - share(*value, most, PANEL);
            self.add(format_args!(
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#e6e6e6\"/>"
            ));
            self.words(LEFT - 8, y + 4, "#666", "end", label);
        }
        self.add(format_args!(
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\" stroke=\"#888\"/>"
        ));
        self.y = top + PANEL + GAP;
        bottom
    }

    /// A volume's epochs, and below them who served it.
    fn volume(&mut self, volume: u64, line: &VolumeLine) {
        let y = self.y;
        self.words(LEFT - 8, y + 13, "#333", "end", &format!("volume {volume}"));
        if !line.service.is_empty() {
            self.words(LEFT - 8, y + LANE + 12, "#666", "end", "served by");
        }
        let ends = line.reigns.iter().skip(1).map(|reign| reign.at_ns).chain([u64::MAX]);
        for (reign, end) in line.reigns.iter().zip(ends) {
            self.reign(reign, end, y);
        }
        for service in &line.service {
            let (x, right) = (self.at(service.from_ns), self.at(service.until_ns));
            let width = right.saturating_sub(x).max(1);
            let (node, from, until) =
                (escaped(&service.node), Seconds(service.from_ns), Seconds(service.until_ns));
            self.add(format_args!(
                "<rect x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"15\" fill=\"#a6d3a0\">\
                 <title>{node} served from {from} s to {until} s</title></rect>",
                y + LANE
            ));
            self.fitting(x, y + LANE + 11, width, &service.node);
        }
        self.y += if line.service.is_empty() { LANE + 2 } else { 2 * LANE + 4 };
    }

    fn reign(&mut self, reign: &Reign, end: u64, y: u64) {
        let x = self.at(reign.at_ns);
        let width = self.at(end).saturating_sub(x).max(1);
        let colour = match (reign.activated, reign.protection.as_str()) {
            (false, _) => "#e0e0e0",
            (true, "BothDcs") => "#b9d3ec",
            (true, _) => "#fdd49e",
        };
        let title = escaped(&reign.text());
        self.add(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"17\" fill=\"{colour}\" stroke=\"#999\" \
             stroke-width=\"0.5\"><title>{title}</title></rect>"
        ));
        let alone = if reign.protection == "BothDcs" { "" } else { ", one data centre alone" };
        let long = format!("epoch {}: {}{alone}", reign.epoch, reign.members.join(" "));
        if !self.fitting(x, y + 12, width, &long) {
            self.fitting(x, y + 12, width, &reign.epoch.to_string());
        }
    }

    /// Words inside of a box, if they fit.
    fn fitting(&mut self, x: u64, y: u64, width: u64, words: &str) -> bool {
        let fits = words.chars().count() as u64 * 7 + 4 <= width;
        if fits {
            self.words(x + 3, y, "#222", "start", words);
        }
        fits
    }

    fn errors(&mut self, errors: &[Moment]) {
        if errors.is_empty() {
            return;
        }
        self.words(LEFT - 8, self.y + 12, "#333", "end", "refused");
        let (top, bottom) = (self.y, self.y + LANE - 5);
        for error in errors {
            let (x, what, at) = (self.at(error.at_ns), escaped(&error.what), Seconds(error.at_ns));
            self.add(format_args!(
                "<line x1=\"{x}\" x2=\"{x}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"{FAILED}\">\
                 <title>{at} s {what}</title></line>"
            ));
        }
        self.y += LANE;
    }

    fn time(&mut self) {
        self.y += 14;
        let y = self.y;
        let ticks: Vec<u64> = self.scale.ticks().collect();
        for second in ticks {
            self.words(self.scale.x(second * 1_000), y, "#666", "middle", &format!("{second} s"));
        }
    }

    /// What was done, through all panels, and how long it held somebody up.
    fn lines(&mut self, marks: &[Mark]) {
        let bottom = self.y - 12;
        for mark in marks {
            let (x, colour, what) = (self.scale.x(mark.at_ms), colour_of(mark), escaped(&mark.what));
            let end = self.scale.x(mark.at_ms + mark.pause_ms.unwrap_or_default());
            if end > x {
                let (width, pause) = (end - x, mark.pause_ms.unwrap_or_default());
                self.add(format_args!(
                    "<rect x=\"{x}\" y=\"4\" width=\"{width}\" height=\"{}\" fill=\"{FAILED}\" opacity=\"0.09\">\
                     <title>{what}: clients were held up for {pause} ms</title></rect>",
                    bottom - 4
                ));
            }
            self.add(format_args!(
                "<line x1=\"{x}\" x2=\"{x}\" y1=\"4\" y2=\"{bottom}\" stroke=\"{colour}\" stroke-dasharray=\"4 3\">\
                 <title>{} s {what}</title></line>",
                Seconds(mark.at_ms * MILLISECOND)
            ));
        }
    }

    fn at(&self, nanoseconds: u64) -> u64 {
        self.scale.x(nanoseconds / MILLISECOND)
    }
}

fn colour_of(mark: &Mark) -> &'static str {
    if mark.heals { HEALING } else { FAULT }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}\u{2026}", &text[..end]),
        None => text.to_owned(),
    }
}

/// How high a time stands: each decade alike.
fn decades(us: u64) -> u64 {
    let us = us.clamp(FASTEST_US, SLOWEST_US);
    let decade = us.ilog10() - FASTEST_US.ilog10();
    let from = FASTEST_US * 10_u64.pow(decade);
    let inside = (us - from) * PANEL / (9 * from * DECADES);
    (u64::from(decade) * PANEL / DECADES + inside).min(PANEL)
}

#[cfg(test)]
mod tests {
    use super::{PANEL, decades, picture};
    use crate::report::tests::a_report;

    #[test]
    fn a_picture_shows_what_was_done_what_it_cost_and_who_served() {
        let svg = picture(&a_report());
        for needle in [
            "process death of a1</text>",
            "clients were held up for 7001 ms",
            "answers a second",
            "time to an answer",
            "volume 1</text>",
            "a2 served from",
            "second 3: 5 writes",
            "c0 &lt;refused&gt;",
            "20 s</text>",
        ] {
            assert!(svg.contains(needle), "{needle}: {svg}");
        }
        assert_eq!(svg.matches("<svg").count(), 1);
        assert!(svg.contains("<title>a &lt;node&gt; dies</title>"), "names are escaped");
    }

    #[test]
    fn every_decade_is_as_high_as_the_other() {
        let heights = [1, 1_000, 10_000, 100_000, 1_000_000, 100_000_000, u64::MAX].map(decades);
        assert_eq!(heights, [0, 0, 19, 38, 57, 96, 96]);
        assert!(heights.iter().all(|height| *height <= PANEL));
    }
}
