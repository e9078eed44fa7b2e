//! Reports in all their forms, from made-up runs.

#[path = "report/formats.rs"]
mod formats;
#[path = "report/html.rs"]
mod html;
#[path = "report/samples.rs"]
mod samples;
#[path = "report/text.rs"]
mod text;

use pilotlight_sim::report::{Candidate, Page, ReportedRun, Sensitivity, Tuning};
use pilotlight_sim::{Outcome, Point, Timeline};

/// Text that means something to every format there is.
const HOSTILE: &str = "</script><script>alert(1)</script>\"'&<b a=\"x\">]]>,\n\u{1b}[31m\u{0}\u{202e}x";

/// Pages whose every text is [`HOSTILE`], and whose numbers are what they should not be.
fn hostile() -> Page {
    let text = || HOSTILE.to_owned();
    let odd = [0.0, f64::NAN, f64::INFINITY, -1.0, 1e300, f64::MIN_POSITIVE];
    let points = odd
        .iter()
        .enumerate()
        .map(|(at, &value)| Point {
            at_s: at as f64,
            arrivals_per_s: value,
            completions_per_s: value,
            failures_per_s: value,
            in_flight: value,
            queued: value,
            target: value,
            wanted: value,
            ready: value,
            starting: value,
            pending: value,
            terminating: value,
            nodes: value,
            panic_fraction: value,
            latency_p50_s: value,
            latency_p95_s: value,
            latency_max_s: value,
        })
        .collect();
    let outcome = Outcome { timeline: Some(Timeline { step_s: 1.0, points }), ..Outcome::default() };
    let candidate = |&value: &f64| Candidate { name: text(), cost: value, latency: value, is_feasible: true };
    Page {
        title: text(),
        subtitle: text(),
        command: text(),
        scenario: text(),
        seed: u64::MAX,
        runs: vec![ReportedRun::new(text(), outcome.clone()), ReportedRun::new(text(), outcome)],
        tuning: Some(Tuning {
            reason: text(),
            searched: text(),
            cost_metric: text(),
            latency_metric: text(),
            candidates: odd.iter().map(candidate).collect(),
            defaults: Some(99),
            chosen: Some(1),
            gains: vec![pilotlight_sim::report::Gain {
                metric: text(),
                defaults: f64::NAN,
                chosen: 0.0,
                interval: Some((f64::NAN, 1.0)),
            }],
            sensitivities: vec![Sensitivity { setting: text(), effect_fraction: f64::NAN, about: text() }],
            patch: text(),
        }),
    }
}

/// Pages there may be: the usual ones, and those at the edge.
fn all_pages() -> Vec<(&'static str, Page)> {
    let one_run = |outcome| Page { runs: vec![ReportedRun::new("", outcome)], ..Page::default() };
    let mut one_of_hostile = hostile();
    one_of_hostile.runs.truncate(1);
    let short = Outcome {
        timeline: Some(Timeline { step_s: 1.0, points: vec![Point::default()] }),
        ..Outcome::default()
    };
    vec![
        ("run", samples::single()),
        ("compare", samples::comparison()),
        ("tune", samples::search()),
        ("hostile", hostile()),
        ("hostile, one run", one_of_hostile),
        ("nothing", Page::default()),
        ("an empty run", one_run(Outcome::default())),
        ("no step", one_run(Outcome { timeline: Some(Timeline::default()), ..Outcome::default() })),
        ("one step", one_run(short)),
        ("an empty search", Page { tuning: Some(Tuning::default()), ..Page::default() }),
    ]
}
