//! Charts of characters. An area of block characters is what a chart is about; marks above it are what to hold
//! it against. Both are told apart by their shape, so that nothing hangs on colour.

use super::{Paint, Style, clipped};
use crate::outcome::{Metric, Point, Timeline, Unit};
use crate::report::number;
use crate::report::scale::{Axis, Scale};
use crate::report::{Candidate, Tuning};

/// Load, pods, requests that wait, and latency, one below the other over the same time.
pub(super) fn timeline(timeline: &Timeline, style: Style) -> String {
    let columns = style.columns() - GUTTER;
    let thin = timeline.thinned(columns);
    let points = &thin.points;
    if points.is_empty() {
        return String::new();
    }
    let chart = |title, axis, area: &[f64], above: &[f64], marks: &[(char, &[f64])]| {
        Chart { title, axis, area, above, marks }.draw(columns, &thin, style)
    };
    let of = |value: fn(&Point) -> f64| points.iter().map(value).collect::<Vec<f64>>();
    let mut text = String::new();
    let failures = of(|p| p.failures_per_s);
    let load = of(|p| p.arrivals_per_s);
    let failed: &[(char, &[f64])] = &[('x', &failures)];
    let has_failures = failures.iter().any(|&rate| rate > 0.0);
    let title = if has_failures { "Requests/s   █ arrive   x fail" } else { "Requests/s   █ arrive" };
    text += &chart(title, Axis::Number, &load, &[], if has_failures { failed } else { &[] });
    let (ready, starting, wanted) = (of(|p| p.ready), of(|p| p.starting), of(|p| p.wanted));
    text +=
        &chart("Pods   █ ready   ░ starting   ─ wanted", Axis::Number, &ready, &starting, &[('─', &wanted)]);
    let queued = of(|p| p.queued);
    if queued.iter().any(|&queued| queued > 0.0) {
        text += &chart("Waiting requests", Axis::Number, &queued, &[], &[]);
    }
    let (p50, p95, max) = (of(|p| p.latency_p50_s), of(|p| p.latency_p95_s), of(|p| p.latency_max_s));
    text += &chart("Latency   █ p50   ─ p95   ^ max", Axis::Seconds, &p50, &[], &[('^', &max), ('─', &p95)]);
    if points.iter().any(|point| point.panic_fraction > 0.0) {
        let panics: String =
            cells(points, columns).map(|p| if p.panic_fraction > 0.0 { '▀' } else { ' ' }).collect();
        text += &format!("{:>1$} {2}\n", "panic", GUTTER - 1, panics.trim_end());
    }
    text
}

struct Chart<'a> {
    title: &'a str,
    axis: Axis,
    /// The area from 0 up.
    area: &'a [f64],
    /// A lighter area on top of it.
    above: &'a [f64],
    /// Single marks; later ones are drawn over earlier ones.
    marks: &'a [(char, &'a [f64])],
}

impl Chart<'_> {
    fn draw(&self, columns: usize, timeline: &Timeline, style: Style) -> String {
        let stacked =
            self.area.iter().zip(self.above.iter().chain(std::iter::repeat(&0.0))).map(|(a, b)| a + b);
        let scale = Scale::of(
            self.axis,
            stacked.chain(self.marks.iter().flat_map(|(_, values)| values.iter().copied())),
            2,
        );
        let count = self.area.len();
        let cells: Vec<_> =
            (0..columns).map(|column| self.column(column * count / columns, &scale)).collect();
        let mut text = format!("\n{}\n", style.paint(self.title, Paint::Bold));
        for row in 0..ROWS {
            let is_here = |tick: &&f64| ((1.0 - scale.at(**tick)) * ROWS as f64).round() as usize == row;
            let label = scale.ticks.iter().find(is_here).map(|&tick| scale.label(tick)).unwrap_or_default();
            let line: String = cells.iter().map(|cells| cells[ROWS - 1 - row]).collect();
            text += &format!("{label:>0$} ┤{1}\n", GUTTER - 2, line.trim_end());
        }
        text + &axis_below(&scale.label(scale.ticks[0]), timeline.end_s(), columns)
    }

    /// The cells of one column, from below.
    fn column(&self, at: usize, scale: &Scale) -> [char; ROWS] {
        let eighths = |value: f64| (scale.at(value) * (ROWS * 8) as f64).round() as usize;
        let row_of = |eighths: usize| (eighths.saturating_sub(1) / 8).min(ROWS - 1);
        let low = eighths(self.area[at]);
        let high = self.above.get(at).map_or(low, |above| eighths(self.area[at] + above));
        let mut cells = std::array::from_fn(|row| match eighth(low.saturating_sub(row * 8), ' ') {
            // A lighter cell where about half of it or more is the upper area.
            ' ' if high > row * 8 + 3 => '░',
            block => block,
        });
        for (mark, values) in self.marks {
            let value = values.get(at).copied().unwrap_or_default();
            let row = row_of(eighths(value));
            // The area ends in the same row: its edge says it already.
            if value > 0.0 && (low == 0 || row != row_of(low)) {
                cells[row] = *mark;
            }
        }
        cells
    }
}

/// The time axis: a line with ticks and, below, when they are.
fn axis_below(origin: &str, length_s: f64, columns: usize) -> String {
    let clock = Scale::clock(length_s, columns / 12);
    let mut line = vec!['─'; columns];
    let mut labels = String::new();
    for &tick in &clock.ticks {
        let column = ((clock.at(tick) * columns as f64) as usize).min(columns - 1);
        line[column] = '┬';
        let label = clock.label(tick);
        let used = labels.chars().count();
        let start = column.saturating_sub(label.chars().count() / 2);
        // A label that would touch its neighbour, or stand beyond the edge, is left out; its tick stays.
        if (used == 0 || start > used) && start + label.chars().count() <= columns {
            labels.extend(std::iter::repeat_n(' ', start - used));
            labels += &label;
        }
    }
    let line: String = line.iter().collect();
    format!("{origin:>0$} └{line}\n{1:GUTTER$}{labels}\n", GUTTER - 2, "")
}

/// The candidates of a search, cost against latency.
pub(super) fn front(tuning: &Tuning, style: Style) -> String {
    let columns = style.columns() - GUTTER - 2;
    let shown: Vec<_> =
        tuning.candidates.iter().filter(|c| c.cost.is_finite() && c.latency.is_finite()).collect();
    let axis = match Metric::named(&tuning.latency_metric).map(|metric| metric.unit) {
        Some(Unit::Seconds) => Axis::Seconds,
        _ => Axis::Number,
    };
    let Some(across) = cost_axis(shown.iter().map(|c| c.cost)) else {
        return String::new();
    };
    let up = Scale::of(axis, shown.iter().map(|c| c.latency), 3);
    let mut grid = vec![vec![' '; columns]; FRONT_ROWS];
    let mut put = |at: usize, mark: char| {
        let drawable = |c: &&Candidate| c.cost.is_finite() && c.latency.is_finite();
        if let Some(candidate) = tuning.candidates.get(at).filter(drawable) {
            let column = (across.at(candidate.cost) * (columns - 1) as f64).round() as usize;
            let row = ((1.0 - up.at(candidate.latency)) * (FRONT_ROWS - 1) as f64).round() as usize;
            grid[row][column] = mark;
        }
    };
    (0..tuning.candidates.len()).for_each(|at| put(at, '·'));
    tuning.front().into_iter().for_each(|at| put(at, 'o'));
    tuning.defaults.into_iter().for_each(|at| put(at, 'D'));
    tuning.chosen.filter(|_| !tuning.keeps_defaults()).into_iter().for_each(|at| put(at, '*'));
    let legend = "· tried   o front   D defaults   * chosen";
    let title = style
        .paint(&clipped(&format!("{} by {}", tuning.latency_metric, tuning.cost_metric), 35), Paint::Bold);
    let mut text = format!("\n{title}   {legend}\n");
    for (row, cells) in grid.iter().enumerate() {
        let near = |tick: &&f64| ((1.0 - up.at(**tick)) * (FRONT_ROWS - 1) as f64).round() as usize == row;
        let label = up.ticks.iter().find(near).map(|&tick| up.label(tick)).unwrap_or_default();
        let line: String = cells.iter().collect();
        text += &format!("{label:>0$} ┤{1}\n", GUTTER - 2, line.trim_end());
    }
    let (first, last) = (across.ticks[0], across.high());
    let (first, last) = (number::amount(first), number::amount(last));
    let gap = columns.saturating_sub(first.chars().count() + last.chars().count());
    text += &format!("{:>1$} └{2}\n", "", GUTTER - 2, "─".repeat(columns));
    text + &format!("{:GUTTER$}{first}{:gap$}{last}\n", "", "")
}

/// `None` if there is nothing to draw.
fn cost_axis(costs: impl Iterator<Item = f64>) -> Option<Scale> {
    let (min, max) = costs.fold((f64::INFINITY, 0.0), |(min, max), cost| (cost.min(min), cost.max(max)));
    min.is_finite().then(|| Scale::between(Axis::Number, min, max, 4))
}

/// A cell filled from the left to so many eighths.
pub(super) fn across(eighths: usize, empty: char) -> char {
    [empty, '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'][eighths.min(8)]
}

/// A cell filled from below to so many eighths.
fn eighth(eighths: usize, empty: char) -> char {
    [empty, '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][eighths.min(8)]
}

/// The point each column shows.
fn cells(points: &[Point], columns: usize) -> impl Iterator<Item = &Point> {
    (0..columns).map(move |column| &points[column * points.len() / columns])
}

/// Columns left of a chart: a label, a space and the axis.
const GUTTER: usize = 10;
const ROWS: usize = 6;
const FRONT_ROWS: usize = 14;
