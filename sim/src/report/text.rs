//! A page on a terminal: compact tables, and charts of block characters.
//!
//! Whether there is colour, and how wide it may be, the caller says; without colour the text is plain and says the
//! same. Colour marks what went wrong and which column is better, and is nowhere the only mark.

mod chart;
mod compare;

use crate::outcome::Outcome;
use crate::report::number::{amount, percent, seconds, short_seconds, with_commas};
use crate::report::{Page, Tuning, number};

pub use compare::table as compare;

/// How text is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether the terminal shows colour.
    pub color: bool,
    /// Columns there are; less than 80 counts as 80.
    pub width: usize,
    /// Whether timelines are drawn.
    pub charts: bool,
}

impl Default for Style {
    /// Plain, for 80 columns, without charts.
    fn default() -> Style {
        Style { color: false, width: 80, charts: false }
    }
}

impl Style {
    fn columns(self) -> usize {
        self.width.clamp(80, 200)
    }

    fn paint(self, text: &str, paint: Paint) -> String {
        if self.color { format!("\x1b[{}m{text}\x1b[0m", paint.code()) } else { text.to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paint {
    Bold,
    Dim,
    Good,
    Bad,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Good => "32",
            Paint::Bad => "31",
        }
    }
}

/// The whole page: a table of its run, or of its runs side by side; charts; what a search found.
pub fn page(page: &Page, style: Style) -> String {
    let mut text = String::new();
    if !page.title.is_empty() {
        text += &format!("{}\n", style.paint(&printable(&page.title), Paint::Bold));
    }
    for line in wrapped(&printable(&page.subtitle), style.columns()) {
        text += &format!("{line}\n");
    }
    match &page.runs[..] {
        [] => {}
        [run] => text += &summary(&run.outcome, style),
        runs => text += &compare(runs, style),
    }
    for run in page.runs.iter().filter(|_| style.charts) {
        if let Some(timeline) = &run.outcome.timeline {
            if page.runs.len() > 1 {
                text += &format!("\n{}\n", style.paint(&printable(&run.name), Paint::Bold));
            }
            text += &chart::timeline(timeline, style);
        }
    }
    if let Some(tuning) = &page.tuning {
        text += &self::tuning(tuning, style);
    }
    text += &format!("\nseed {}\n", page.seed);
    text
}

/// One outcome as a table.
pub fn summary(outcome: &Outcome, style: Style) -> String {
    let Outcome { latency, wait, queue, cold_start, service, pods, scaling, .. } = outcome;
    let mut text = format!("\n{:<14}", "Latency");
    for quantile in LATENCY_COLUMNS {
        text += &format!("{quantile:>11}");
    }
    text.push('\n');
    let parts = [
        ("total", latency),
        ("  wait", wait),
        ("    queue", queue),
        ("    cold start", cold_start),
        ("  service", service),
    ];
    for (name, times) in parts {
        text += &format!("{name:<14}");
        for quantile in LATENCY_COLUMNS {
            text += &format!("{:>11}", times.named(quantile).map_or_else(String::new, short_seconds));
        }
        text.push('\n');
    }

    let mut rows = Rows { text, style };
    rows.row(
        "Requests",
        &[
            format!("{} in {}", with_commas(outcome.requests as f64, 0), seconds(outcome.duration_s)),
            format!("success {}", percent(outcome.success_fraction())),
        ],
    );
    let statuses = outcome.statuses.iter().filter(|&(_, &count)| count > 0);
    let mut ends: Vec<String> = statuses
        .map(|(&status, &count)| {
            let shown = format!("{status} × {}", with_commas(count as f64, 0));
            if status == 200 { shown } else { style.paint(&shown, Paint::Bad) }
        })
        .collect();
    for (name, count) in
        [("abandoned", outcome.abandoned), ("lost", outcome.lost), ("retries", outcome.retries)]
    {
        if count > 0 {
            ends.push(style.paint(&format!("{name} {}", with_commas(count as f64, 0)), Paint::Bad));
        }
    }
    rows.row("", &ends);
    if let Some(share) = outcome.slo_fraction {
        rows.row("Objective", &[format!("kept by {} of requests", percent(share))]);
    }
    let share = outcome.metric("cold-share").unwrap_or_default();
    rows.row(
        "Cold starts",
        &[
            with_commas(outcome.cold_starts as f64, 0),
            format!("{} requests waited, {}", with_commas(outcome.cold_requests as f64, 0), percent(share)),
        ],
    );
    rows.row(
        "Pods",
        &[
            format!("peak {}", pods.peak),
            format!("mean {}", amount(outcome.metric("mean-pods").unwrap_or_default())),
            format!("starts {}", with_commas(pods.starts as f64, 0)),
            format!("utilization {}", percent(pods.utilization)),
        ],
    );
    if pods.crashes > 0 {
        rows.row("", &[style.paint(&format!("crashes {}", with_commas(pods.crashes as f64, 0)), Paint::Bad)]);
    }
    rows.row(
        "Pod-seconds",
        &[
            amount(pods.pod_seconds),
            format!("ready {}", amount(pods.ready_seconds)),
            format!("starting {}", amount(pods.starting_seconds)),
            over_provision(pods.over_provision),
        ],
    );
    let room = [("waiting for room", pods.pending_seconds), ("node-seconds", pods.node_seconds)];
    let room = room.iter().filter(|(_, seconds)| *seconds > 0.0);
    let room: Vec<String> = room.map(|(name, seconds)| format!("{name} {}", amount(*seconds))).collect();
    rows.row("", &room);
    rows.row(
        "Scaling",
        &[
            format!(
                "{} up, {} down",
                with_commas(scaling.ups as f64, 0),
                with_commas(scaling.downs as f64, 0)
            ),
            format!(
                "panics {}, {} in all",
                with_commas(scaling.panics as f64, 0),
                seconds(scaling.panic_seconds)
            ),
            format!("activator in the path {}", seconds(scaling.proxied_seconds)),
        ],
    );
    rows.text
}

/// Fewer pods than an oracle has are not better: they carry more than they are meant to, or requests wait for them.
fn over_provision(ratio: f64) -> String {
    let shown = format!("{} × what an oracle needs", amount(ratio));
    if ratio > 0.0 && ratio < 1.0 { shown + " (fuller pods, or a wait)" } else { shown }
}

/// The result of a search, with its front.
pub fn tuning(tuning: &Tuning, style: Style) -> String {
    let mut text = String::from("\n");
    for line in wrapped(&printable(&tuning.reason), style.columns()) {
        text += &format!("{}\n", style.paint(&line, Paint::Bold));
    }
    for line in wrapped(&printable(&tuning.searched), style.columns()) {
        text += &format!("{}\n", style.paint(&line, Paint::Dim));
    }
    if style.charts {
        text += &chart::front(tuning, style);
    }
    if !tuning.gains.is_empty() {
        text += &format!(
            "\n{:<20}{:>14}{:>14}  {:<8}on loads like it\n",
            "On held-out load", "defaults", "chosen", "change"
        );
        for gain in &tuning.gains {
            let shown = |value| number::shown(&gain.metric, value);
            text += &format!(
                "{:<20}{:>14}{:>14}  {:<8}{}\n",
                clipped(&gain.metric, 19),
                shown(gain.defaults),
                shown(gain.chosen),
                gain.change(),
                gain.change_on_others()
            );
        }
    }
    if !tuning.sensitivities.is_empty() {
        text += "\nWhat mattered, each beyond those above it\n";
        let widest =
            tuning.sensitivities.iter().map(|s| s.setting.chars().count()).max().unwrap_or(0).min(40);
        for sensitivity in &tuning.sensitivities {
            let eighths =
                (sensitivity.effect_fraction.clamp(0.0, 1.0) * (BAR_CELLS * 8) as f64).round() as usize;
            let cell = |cell: usize| chart::across(eighths.saturating_sub(cell * 8), '·');
            let bar: String = (0..BAR_CELLS).map(cell).collect();
            let line = format!(
                "{:<widest$}  {bar} {:>7}  {}",
                clipped(&sensitivity.setting, widest),
                percent(sensitivity.effect_fraction),
                printable(&sensitivity.about)
            );
            text += &format!("{}\n", clipped(line.trim_end(), style.columns()));
        }
    }
    if !tuning.patch.is_empty() {
        text.push('\n');
        for line in tuning.patch.trim_end().lines() {
            text += &format!("{}\n", printable(line));
        }
    }
    text
}

/// Rows of a name and some facts, which wrap where the line ends.
struct Rows {
    text: String,
    style: Style,
}

impl Rows {
    fn row(&mut self, name: &str, facts: &[String]) {
        if facts.is_empty() {
            return;
        }
        let mut line = format!("{name:<14}");
        let mut used = 14;
        for (at, fact) in facts.iter().enumerate() {
            let wide = visible_width(fact);
            if at > 0 && used + 3 + wide > self.style.columns() {
                self.text += &format!("{line}\n");
                (line, used) = (" ".repeat(14), 14);
            } else if at > 0 {
                line += "   ";
                used += 3;
            }
            line += fact;
            used += wide;
        }
        self.text += &format!("{line}\n");
    }
}

/// Characters on the screen: those of colour codes take no place.
fn visible_width(text: &str) -> usize {
    let mut width = 0;
    let mut is_code = false;
    for c in text.chars() {
        match c {
            '\x1b' => is_code = true,
            'm' if is_code => is_code = false,
            _ if is_code => {}
            _ => width += 1,
        }
    }
    width
}

/// A text from outside, without what would move the cursor or change the colour.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// At most so many characters; what is cut off is marked.
fn clipped(text: &str, width: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= width {
        return text;
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

const BAR_CELLS: usize = 12;
const LATENCY_COLUMNS: [&str; 6] = ["p50", "p90", "p95", "p99", "p99.9", "max"];
