//! The charts of a page: of one run, the run over time; of several, the quantities in which they differ.

use super::markup::{coordinate, escaped};
use super::plot::{Color, Layer, Plot, Shape};
use crate::outcome::{Point, Timeline};
use crate::report::ReportedRun;
use crate::report::number::{significant, with_commas};
use crate::report::scale::{Axis, Scale};

/// The timelines of a page, in as many steps as a page can show.
pub(super) struct Drawn {
    runs: Vec<DrawnRun>,
    /// How many runs there are, drawn or not.
    all: usize,
    across: Scale,
}

struct DrawnRun {
    name: String,
    timeline: Timeline,
    /// Intervals of panic, in seconds.
    panics: Vec<(f64, f64)>,
}

/// A series: its name in the data, how the script writes it, and where it is in a point.
struct Series {
    key: &'static str,
    unit: &'static str,
    value: fn(&Point) -> f64,
}

impl Drawn {
    pub(super) fn of(runs: &[ReportedRun]) -> Drawn {
        let with_timeline = |run: &ReportedRun| {
            let timeline = run.outcome.timeline.as_ref().filter(|timeline| !timeline.points.is_empty())?;
            let thin = timeline.thinned(MOST_POINTS);
            let panics = panics(&thin);
            Some(DrawnRun { name: run.name.clone(), timeline: thin, panics })
        };
        let drawn: Vec<DrawnRun> = runs.iter().filter_map(with_timeline).take(MOST_RUNS).collect();
        let length = drawn.iter().map(|run| run.timeline.end_s()).fold(0.0, f64::max);
        Drawn { runs: drawn, all: runs.len(), across: Scale::clock(length, 8) }
    }

    /// The values the script shows, as JSON.
    pub(super) fn data(&self) -> String {
        let runs: Vec<String> = self.runs.iter().map(run_data).collect();
        format!("{{\"runs\":[{}]}}", runs.join(","))
    }

    fn layer(&self, run: usize, name: &str, series: &Series, color: Color, shape: Shape) -> Layer {
        let timeline = &self.runs[run].timeline;
        // No time at all means that nothing ended; and an area that covers nothing has no edge to draw.
        let is_gap =
            |value: f64| !value.is_finite() || value == 0.0 && (series.unit == "s" || shape == Shape::Area);
        let mut times: Vec<f64> = timeline.points.iter().map(|point| point.at_s).collect();
        times.push(timeline.end_s());
        Layer {
            name: name.to_owned(),
            color,
            shape,
            source: (run, series.key),
            unit: series.unit,
            times,
            values: timeline.points.iter().map(|p| Some((series.value)(p)).filter(|&v| !is_gap(v))).collect(),
            floor: Vec::new(),
        }
    }

    fn has(&self, value: fn(&Point) -> f64) -> bool {
        self.runs.iter().any(|run| run.timeline.points.iter().any(|point| value(point) > 0.0))
    }

    fn plot<'a>(&'a self, title: &str, note: &'a str, axis: Axis, layers: Vec<Layer>) -> Plot<'a> {
        let values = layers.iter().flat_map(|layer| layer.values.iter().flatten().copied());
        let bands = if self.all == 1 { &self.runs[0].panics[..] } else { &[] };
        let up = Scale::of(axis, values, 4);
        let note = if up.is_log() { LOG_NOTE } else { note };
        Plot { title: title.to_owned(), note, across: &self.across, up, bands, layers }
    }
}

/// Load, concurrency, pods, queue and latency, one below the other.
pub(super) fn of_one(drawn: &Drawn) -> String {
    if drawn.runs.is_empty() {
        return String::new();
    }
    let layer = |name: &str, series, color, shape| drawn.layer(0, name, series, color, shape);
    let mut load = vec![
        layer("completed", &COMPLETIONS, Color::Sky, Shape::Area),
        layer("arrived", &ARRIVALS, Color::Blue, Shape::Step),
    ];
    if drawn.has(FAILURES.value) {
        load.push(layer("failed", &FAILURES, Color::Vermilion, Shape::Area));
    }
    let concurrency = vec![
        layer("in flight", &IN_FLIGHT, Color::Blue, Shape::Line),
        layer("target", &TARGET, Color::Ink, Shape::Dashed),
    ];
    let mut pods = stacked(vec![
        layer("ready", &READY, Color::Green, Shape::Area),
        layer("starting", &STARTING, Color::Orange, Shape::Area),
        layer("pending", &PENDING, Color::Purple, Shape::Area),
        layer("terminating", &TERMINATING, Color::Sky, Shape::Area),
    ]);
    if drawn.has(NODES.value) {
        pods.push(layer("nodes", &NODES, Color::Blue, Shape::Dotted));
    }
    pods.push(layer("wanted", &WANTED, Color::Ink, Shape::Step));
    let latency = vec![
        layer("longest", &LONGEST, Color::Orange, Shape::Dotted),
        layer("p95", &P95, Color::Vermilion, Shape::Line),
        layer("p50", &P50, Color::Blue, Shape::Line),
    ];
    let mut text = String::from("<section><h2>Over time</h2>\n");
    text += match drawn.runs[0].panics.is_empty() {
        true => "",
        false => "<p class=\"note\"><i class=\"swatch panic\"></i>shaded: the autoscaler was in panic</p>\n",
    };
    text += &drawn.plot("Load", "requests per second", Axis::Number, load).figure();
    text += &drawn
        .plot(
            "Concurrency",
            "requests in flight, and what ready pods are meant to carry",
            Axis::Number,
            concurrency,
        )
        .figure();
    text += &drawn.plot("Pods", "", Axis::Number, pods).figure();
    if drawn.has(QUEUED.value) {
        let queue = vec![layer("waiting", &QUEUED, Color::Purple, Shape::Area)];
        text += &drawn.plot("Queue", "requests that wait, wherever that is", Axis::Number, queue).figure();
    }
    text += &drawn.plot("Latency", "", Axis::Seconds, latency).figure();
    text + "</section>\n"
}

/// A quantity of every run in one chart.
pub(super) fn of_several(drawn: &Drawn) -> String {
    if drawn.runs.is_empty() {
        return String::new();
    }
    let overlaid = |title: &str, note, axis, series: &Series| {
        // The first is drawn last: the others are held against it.
        let layers = (0..drawn.runs.len()).rev().map(|run| {
            let (color, shape) = LOOKS[run];
            drawn.layer(run, &drawn.runs[run].name, series, color, shape)
        });
        drawn.plot(title, note, axis, layers.collect()).figure()
    };
    let mut text = String::from("<section><h2>Over time</h2>\n");
    if drawn.all > drawn.runs.len() {
        text += &format!(
            "<p class=\"note\">Of {} runs, {} are drawn.</p>\n",
            with_commas(drawn.all as f64, 0),
            drawn.runs.len()
        );
    }
    let load = vec![drawn.layer(0, "arrived", &ARRIVALS, Color::Blue, Shape::Area)];
    text += &drawn.plot("Load", "requests per second, the same for all", Axis::Number, load).figure();
    text += &overlaid("Ready pods", "", Axis::Number, &READY);
    if drawn.has(STARTING.value) {
        text += &overlaid("Starting pods", "", Axis::Number, &STARTING);
    }
    if drawn.has(QUEUED.value) {
        text += &overlaid("Queue", "requests that wait, wherever that is", Axis::Number, &QUEUED);
    }
    text += &overlaid("Latency, p95", "", Axis::Seconds, &P95);
    if drawn.has(FAILURES.value) {
        text += &overlaid("Failures", "requests per second", Axis::Number, &FAILURES);
    }
    text += &lanes(drawn);
    text + "</section>\n"
}

/// Intervals of panic of each run: a lane each.
fn lanes(drawn: &Drawn) -> String {
    if drawn.runs.iter().all(|run| run.panics.is_empty()) {
        return String::new();
    }
    let mut text = String::from("<figure class=\"chart lanes\"><figcaption><b>Panic</b></figcaption>");
    for (run, (color, _)) in drawn.runs.iter().zip(LOOKS) {
        let name = escaped(&run.name);
        text += &format!(
            "<div class=\"frame\"><div class=\"ys\"></div><div class=\"paper\"><svg role=\"img\" width=\"100%\" \
             height=\"100%\"><title>Panic of {name}</title><desc>{} times</desc>",
            run.panics.len()
        );
        for &(from, to) in &run.panics {
            let (left, right) = (drawn.across.at(from) * 100.0, drawn.across.at(to) * 100.0);
            let width = (right - left).max(0.25);
            let left = left.min(100.0 - width);
            text += &format!(
                "<rect class=\"lane {}\" x=\"{}%\" y=\"0\" width=\"{}%\" height=\"100%\"/>",
                color.class(),
                coordinate(left),
                coordinate(width)
            );
        }
        text += &format!(
            "</svg></div><ul class=\"legend\"><li class=\"area {}\"><span>{name}</span></li></ul></div>",
            color.class()
        );
    }
    text + "</figure>\n"
}

/// Layers on top of each other; those that are nothing throughout fall away.
fn stacked(layers: Vec<Layer>) -> Vec<Layer> {
    let mut sum: Vec<f64> = Vec::new();
    let mut stacked = Vec::new();
    for mut layer in layers {
        let is_first = sum.is_empty();
        sum.resize(layer.values.len(), 0.0);
        if !is_first && layer.values.iter().flatten().all(|&value| value <= 0.0) {
            continue;
        }
        layer.floor.clone_from(&sum);
        for (value, sum) in layer.values.iter_mut().zip(&mut sum) {
            let own = value.unwrap_or_default();
            *sum += own;
            *value = value.is_some().then_some(*sum);
        }
        stacked.push(layer);
    }
    stacked
}

/// Intervals of panic; neighbours are one.
fn panics(timeline: &Timeline) -> Vec<(f64, f64)> {
    let mut bands: Vec<(f64, f64)> = Vec::new();
    for point in timeline.points.iter().filter(|point| point.panic_fraction > 0.0) {
        let end = point.at_s + timeline.step_s;
        match bands.last_mut() {
            Some(band) if point.at_s - band.1 < timeline.step_s / 2.0 => band.1 = end,
            _ => bands.push((point.at_s, end)),
        }
    }
    bands
}

fn run_data(run: &DrawnRun) -> String {
    let series: Vec<String> = SERIES
        .iter()
        .filter(|series| run.timeline.points.iter().any(|point| (series.value)(point) != 0.0))
        .map(|series| {
            let value = |point: &Point| significant((series.value)(point)).to_string();
            let values: Vec<String> = run.timeline.points.iter().map(value).collect();
            format!("\"{}\":[{}]", series.key, values.join(","))
        })
        .collect();
    format!("{{\"step\":{},\"series\":{{{}}}}}", run.timeline.step_s, series.join(","))
}

const fn series(key: &'static str, unit: &'static str, value: fn(&Point) -> f64) -> Series {
    Series { key, unit, value }
}

const ARRIVALS: Series = series("arrivals", "n", |p| p.arrivals_per_s);
const COMPLETIONS: Series = series("completions", "n", |p| p.completions_per_s);
const FAILURES: Series = series("failures", "n", |p| p.failures_per_s);
const IN_FLIGHT: Series = series("in_flight", "n", |p| p.in_flight);
const TARGET: Series = series("target", "n", |p| p.target);
const QUEUED: Series = series("queued", "n", |p| p.queued);
const WANTED: Series = series("wanted", "n", |p| p.wanted);
const READY: Series = series("ready", "n", |p| p.ready);
const STARTING: Series = series("starting", "n", |p| p.starting);
const PENDING: Series = series("pending", "n", |p| p.pending);
const TERMINATING: Series = series("terminating", "n", |p| p.terminating);
const NODES: Series = series("nodes", "n", |p| p.nodes);
const P50: Series = series("p50", "s", |p| p.latency_p50_s);
const P95: Series = series("p95", "s", |p| p.latency_p95_s);
const LONGEST: Series = series("longest", "s", |p| p.latency_max_s);

const SERIES: [Series; 15] = [
    ARRIVALS,
    COMPLETIONS,
    FAILURES,
    IN_FLIGHT,
    TARGET,
    QUEUED,
    WANTED,
    READY,
    STARTING,
    PENDING,
    TERMINATING,
    NODES,
    P50,
    P95,
    LONGEST,
];

/// How runs are told from each other: by colour and by dashes.
const LOOKS: [(Color, Shape); MOST_RUNS] = [
    (Color::Ink, Shape::Line),
    (Color::Blue, Shape::Line),
    (Color::Vermilion, Shape::Dashed),
    (Color::Green, Shape::Line),
    (Color::Purple, Shape::Dashed),
    (Color::Orange, Shape::Dotted),
];

/// More lines than this in one chart cannot be told apart.
pub(super) const MOST_RUNS: usize = 6;
/// About as many as a page has pixels for, and few enough for a small file.
const MOST_POINTS: usize = 600;
const LOG_NOTE: &str = "logarithmic";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_next_to_each_other_are_one_band() {
        let point = |at, panic_fraction| Point { at_s: f64::from(at), panic_fraction, ..Point::default() };
        let points =
            (0..9).map(|at| point(at * 2, if (2..5).contains(&at) || at == 8 { 0.5 } else { 0.0 })).collect();
        assert_eq!(panics(&Timeline { step_s: 2.0, points }), [(4.0, 10.0), (16.0, 18.0)]);
    }
}
