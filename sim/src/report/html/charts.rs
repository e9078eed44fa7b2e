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
    /// Whether all runs had the same requests. Users of a closed loop send more where answers are faster.
    has_one_load: bool,
    across: Scale,
}

struct DrawnRun {
    name: String,
    timeline: Timeline,
    /// How long requests were sent, in seconds.
    duration_s: f64,
    /// Intervals of panic, in seconds.
    panics: Vec<(f64, f64)>,
}

/// A series: its name in the data, how the script writes it, and where it is in a point.
struct Series {
    key: &'static str,
    unit: &'static str,
    /// Whether it is a number per second, which the last step, cut short by the end, does not tell.
    is_rate: bool,
    value: fn(&Point) -> f64,
}

impl Drawn {
    pub(super) fn of(runs: &[ReportedRun]) -> Drawn {
        let with_timeline = |run: &ReportedRun| {
            let timeline = run.outcome.timeline.as_ref().filter(|timeline| !timeline.points.is_empty())?;
            let thin = timeline.thinned(MOST_POINTS);
            let panics = panics(&thin);
            Some(DrawnRun {
                name: run.name.clone(),
                timeline: thin,
                duration_s: run.outcome.duration_s,
                panics,
            })
        };
        let drawn: Vec<DrawnRun> = runs.iter().filter_map(with_timeline).take(MOST_RUNS).collect();
        let length = drawn.iter().map(|run| run.timeline.end_s()).fold(0.0, f64::max);
        let has_one_load = drawn.iter().all(|run| has_same_arrivals(&run.timeline, &drawn[0].timeline));
        Drawn { runs: drawn, all: runs.len(), has_one_load, across: Scale::clock(length, 8) }
    }

    /// The values the script shows, as JSON.
    pub(super) fn data(&self) -> String {
        let runs: Vec<String> = self.runs.iter().map(run_data).collect();
        format!("{{\"runs\":[{}]}}", runs.join(","))
    }

    fn layer(&self, run: usize, name: &str, series: &Series, color: Color, shape: Shape) -> Layer {
        let DrawnRun { timeline, duration_s, .. } = &self.runs[run];
        let last = timeline.points.len().saturating_sub(1);
        let is_cut =
            |at: usize| series.is_rate && at == last && at > 0 && timeline.end_s() > duration_s + 1e-9;
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
            values: (timeline.points.iter().enumerate())
                .map(|(at, point)| Some((series.value)(point)).filter(|&value| !is_gap(value) && !is_cut(at)))
                .collect(),
            floor: Vec::new(),
        }
    }

    fn has(&self, value: fn(&Point) -> f64) -> bool {
        self.runs.iter().any(|run| run.timeline.points.iter().any(|point| value(point) > 0.0))
    }

    fn plot<'a>(&'a self, title: &str, note: &'a str, axis: Axis, layers: Vec<Layer>) -> Plot<'a> {
        let values = layers.iter().flat_map(|layer| layer.values.iter().flatten().copied());
        let bands = if self.all == 1 { &self.runs[0].panics[..] } else { &[] };
        let highest = values.clone().fold(0.0, f64::max);
        let up = Scale::of(axis, values, 4).with_headroom(highest);
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
    // Names have as much room as the longest needs, up to what a chart can spare.
    let longest = drawn.runs.iter().map(|run| run.name.chars().count()).max().unwrap_or(0);
    let mut text = format!(
        "<section style=\"--names:{}px\"><h2>Over time</h2>\n",
        (longest.min(LONGEST_NAME) * NAME_PIXELS + SWATCH_PIXELS).max(132)
    );
    if drawn.all > drawn.runs.len() {
        text += &format!(
            "<p class=\"note\">Of {} runs, {} are drawn.</p>\n",
            with_commas(drawn.all as f64, 0),
            drawn.runs.len()
        );
    }
    if drawn.has_one_load {
        let load = vec![drawn.layer(0, "arrived", &ARRIVALS, Color::Blue, Shape::Area)];
        text += &drawn.plot("Load", "requests per second, the same for all", Axis::Number, load).figure();
    } else {
        text += &overlaid("Load", "requests that arrived per second", Axis::Number, &ARRIVALS);
    }
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

/// Whether as many requests arrived at the same times, as far as both are told in the same steps.
fn has_same_arrivals(one: &Timeline, other: &Timeline) -> bool {
    let rates =
        |timeline: &Timeline| -> Vec<f64> { timeline.points.iter().map(|p| p.arrivals_per_s).collect() };
    let (one_rates, other_rates) = (rates(one), rates(other));
    let requests = |rates: &[f64], timeline: &Timeline| rates.iter().sum::<f64>() * timeline.step_s;
    // Steps of another length, after one run went on for longer: the totals have to do.
    if one.step_s != other.step_s {
        let (all, others) = (requests(&one_rates, one), requests(&other_rates, other));
        return (all - others).abs() <= 0.001 * all;
    }
    let (short, long) = if one_rates.len() < other_rates.len() {
        (&one_rates, &other_rates)
    } else {
        (&other_rates, &one_rates)
    };
    // The end of a run cuts its last step short.
    let whole = short.len().saturating_sub(1);
    long[..whole] == short[..whole] && long[short.len()..].iter().all(|rate| *rate == 0.0)
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
    Series { key, unit, is_rate: false, value }
}

const fn rate(key: &'static str, value: fn(&Point) -> f64) -> Series {
    Series { key, unit: "n", is_rate: true, value }
}

const ARRIVALS: Series = rate("arrivals", |p| p.arrivals_per_s);
const COMPLETIONS: Series = rate("completions", |p| p.completions_per_s);
const FAILURES: Series = rate("failures", |p| p.failures_per_s);
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
/// Characters of a name that there is room for beside a chart, and the pixels that each, the line and the value under
/// the pointer take.
pub(super) const LONGEST_NAME: usize = 30;
const NAME_PIXELS: usize = 7;
const SWATCH_PIXELS: usize = 76;

/// About as many as a page has pixels for, and few enough for a small file.
const MOST_POINTS: usize = 600;
const LOG_NOTE: &str = "logarithmic";

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(rates: &[f64]) -> Timeline {
        let point =
            |(at, &rate): (usize, &f64)| Point { at_s: at as f64, arrivals_per_s: rate, ..Point::default() };
        Timeline { step_s: 1.0, points: rates.iter().enumerate().map(point).collect() }
    }

    #[test]
    fn a_load_is_one_for_all_only_if_as_much_came_at_the_same_times() {
        let one = arrivals(&[5.0, 3.0, 4.0, 1.0]);
        assert!(has_same_arrivals(&one, &one));
        assert!(has_same_arrivals(&arrivals(&[5.0, 3.0, 4.0, 2.0, 0.0]), &one), "the last step is cut short");
        assert!(!has_same_arrivals(&arrivals(&[5.0, 2.0, 5.0, 1.0]), &one), "users waited");
        assert!(!has_same_arrivals(&arrivals(&[5.0, 3.0, 4.0, 1.0, 1.0]), &one));
    }

    #[test]
    fn a_step_that_the_end_cuts_short_is_not_drawn_as_a_rate() {
        let outcome = crate::outcome::Outcome {
            duration_s: 3.0,
            timeline: Some(arrivals(&[5.0, 3.0, 4.0, 150.0])),
            ..Default::default()
        };
        let drawn = Drawn::of(&[ReportedRun::new("one", outcome.clone())]);
        let values = drawn.layer(0, "arrived", &ARRIVALS, Color::Blue, Shape::Step).values;
        assert_eq!(values, [Some(5.0), Some(3.0), Some(4.0), None]);
        let whole = crate::outcome::Outcome { duration_s: 4.0, ..outcome };
        let drawn = Drawn::of(&[ReportedRun::new("one", whole)]);
        assert_eq!(drawn.layer(0, "arrived", &ARRIVALS, Color::Blue, Shape::Step).values[3], Some(150.0));
    }

    #[test]
    fn panics_next_to_each_other_are_one_band() {
        let point = |at, panic_fraction| Point { at_s: f64::from(at), panic_fraction, ..Point::default() };
        let points =
            (0..9).map(|at| point(at * 2, if (2..5).contains(&at) || at == 8 { 0.5 } else { 0.0 })).collect();
        assert_eq!(panics(&Timeline { step_s: 2.0, points }), [(4.0, 10.0), (16.0, 18.0)]);
    }
}
