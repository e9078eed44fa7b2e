//! Reports of simulations, for people and for programs: a [`Page`] as text, JSON, CSV or HTML.
//!
//! A page holds one run, several runs of the same load, or a search for settings. Everything about how numbers are
//! written, how axes are divided and how many points a chart has is shared by all its forms.

pub mod csv;
pub mod html;
pub mod json;
pub(crate) mod number;
mod scale;
pub mod text;
mod thin;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::outcome::{Better, Metric, Outcome};

/// The contents of a report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Page {
    /// The scenario, in a few words.
    pub title: String,
    /// A sentence more about it: the load, the settings. May be empty.
    pub subtitle: String,
    /// The command that makes this page again.
    pub command: String,
    /// The seed all randomness came from.
    pub seed: u64,
    /// The scenario as text, as it can be run again; empty if flags said it all.
    pub scenario: String,
    /// The runs: one, or several side by side. The others are compared with the first.
    pub runs: Vec<ReportedRun>,
    /// The result of a search for settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
}

/// A run and its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReportedRun {
    /// The name that tells it from the others: `defaults`, `window=30s`.
    pub name: String,
    /// The outcome.
    pub outcome: Outcome,
    /// By how much the named metrics vary from seed to seed: half the width of the 95 % interval around the mean.
    /// Empty if there was one seed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub margins: BTreeMap<String, f64>,
}

/// A search for better settings: what was tried, what was chosen, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tuning {
    /// The finding, as one would tell a colleague.
    pub reason: String,
    /// The extent of the search: `240 settings of 4 parameters, 3 seeds each`.
    pub searched: String,
    /// The metric that is the cost: the front's horizontal axis.
    pub cost_metric: String,
    /// The metric that is paid for: its vertical axis.
    pub latency_metric: String,
    /// Every candidate that was tried.
    pub candidates: Vec<Candidate>,
    /// The index of the defaults among the candidates.
    pub defaults: Option<usize>,
    /// The index of the choice; that of the defaults, if nothing beats them.
    pub chosen: Option<usize>,
    /// How the choice did on the part of the load it was not chosen on.
    pub gains: Vec<Gain>,
    /// Settings that mattered, and how much.
    pub sensitivities: Vec<Sensitivity>,
    /// The patch for the cluster: annotations or a ConfigMap. Empty if the defaults stay.
    pub patch: String,
}

/// Settings that were tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Candidate {
    /// The settings, as far as they are not defaults.
    pub name: String,
    /// The cost, in the cost metric.
    pub cost: f64,
    /// The latency, in the latency metric.
    pub latency: f64,
    /// Whether it keeps the constraints.
    pub is_feasible: bool,
}

/// One metric of the choice against the defaults, on load that neither was chosen on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Gain {
    /// The metric.
    pub metric: String,
    /// With the defaults.
    pub defaults: f64,
    /// With the choice.
    pub chosen: f64,
    /// The 95 % interval of the change on loads like it, as shares of what the defaults have: -0.3 is 30 % less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
}

/// How much hangs on one setting.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sensitivity {
    /// The setting's name.
    pub setting: String,
    /// The share of the variation between candidates that it explains beyond the settings before it, from 0 to 1. All
    /// together are at most 1.
    pub effect_fraction: f64,
    /// The effect, in a few words: `longer: fewer cold starts`. May be empty.
    pub about: String,
}

impl ReportedRun {
    /// A run with one seed.
    pub fn new(name: impl Into<String>, outcome: Outcome) -> ReportedRun {
        ReportedRun { name: name.into(), outcome, margins: BTreeMap::new() }
    }

    /// A metric with its unit, and how sure it is if that is known: `412 ms ±12 ms`; `–` if it was not measured.
    fn shown(&self, metric: &str) -> String {
        let Some(value) = self.outcome.metric(metric) else {
            return "–".to_owned();
        };
        match self.margins.get(metric) {
            Some(&margin) => {
                // Two digits: a third would say that the spread itself is known that well.
                let margin = number::rounded(margin, 2);
                format!("{} ±{}", number::shown(metric, value), number::shown(metric, margin))
            }
            None => number::shown(metric, value),
        }
    }

    /// Whether it is better than `first` in a metric, or worse; `None` if that cannot be told, or not from chance.
    fn improves_on(&self, first: &ReportedRun, metric: &str) -> Option<bool> {
        let (base, value) = (first.outcome.metric(metric)?, self.outcome.metric(metric)?);
        let noise = |run: &ReportedRun| run.margins.get(metric).copied().unwrap_or_default();
        // Half a percent is no difference that anybody would act on.
        let least = (noise(first) + noise(self)).max(base.abs() * 0.005);
        if (value - base).abs() <= least {
            return None;
        }
        match Metric::named(metric)?.better {
            Better::Lower => Some(value < base),
            Better::Higher => Some(value > base),
            Better::Neither => None,
        }
    }
}

impl Tuning {
    /// The candidates that no other beats in both cost and latency, by cost. Those that break a constraint are not
    /// among them.
    pub fn front(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.candidates.len())
            .filter(|&at| {
                let candidate = &self.candidates[at];
                candidate.is_feasible && candidate.cost.is_finite() && candidate.latency.is_finite()
            })
            .collect();
        let of = |at: usize| &self.candidates[at];
        order.sort_by(|&a, &b| {
            of(a).cost.total_cmp(&of(b).cost).then(of(a).latency.total_cmp(&of(b).latency))
        });
        let mut best = f64::INFINITY;
        order.retain(|&at| {
            let is_better = of(at).latency < best;
            best = best.min(of(at).latency);
            is_better
        });
        order
    }

    /// Whether the answer is to leave everything as it is.
    pub fn keeps_defaults(&self) -> bool {
        self.chosen.is_none() || self.chosen == self.defaults
    }
}

impl Gain {
    /// The change on the very load it was judged on: `−32 %`.
    pub(crate) fn change(&self) -> String {
        number::change(self.defaults, self.chosen).unwrap_or_default()
    }

    /// The 95 % interval of the change on loads like it: `−38 % to −25 %`.
    pub(crate) fn change_on_others(&self) -> String {
        let share = |part: f64| number::change(1.0, 1.0 + part).unwrap_or_default();
        self.interval
            .map_or_else(String::new, |(low, high)| format!("{} to {}", share(low.max(-1.0)), share(high)))
    }
}

/// A group of metrics as tables list them.
struct Group {
    title: &'static str,
    /// Whether these are quantiles of times.
    is_of_times: bool,
    metrics: &'static [&'static str],
}

/// Rows of tables of several runs, in this order.
const GROUPS: [Group; 5] = [
    group("Latency", true, &["p50", "p90", "p95", "p99", "p99.9", "max"]),
    group("Wait", true, &["wait-mean", "wait-p95", "wait-p99", "queue-p95", "cold-p95", "service-p95"]),
    group("Requests", false, REQUEST_METRICS),
    group("Pods", false, POD_METRICS),
    group("Scaling", false, &["cold-starts", "cold-requests", "cold-share", "panics", "panic-seconds"]),
];

const REQUEST_METRICS: &[&str] =
    &["requests", "success", "errors", "slo", "429", "503", "504", "abandoned", "lost", "retries"];
const POD_METRICS: &[&str] = &[
    "pod-seconds",
    "ready-seconds",
    "pending-seconds",
    "node-seconds",
    "mean-pods",
    "peak",
    "starts",
    "crashes",
    "utilization",
    "over-provision",
];

const fn group(title: &'static str, is_of_times: bool, metrics: &'static [&'static str]) -> Group {
    Group { title, is_of_times, metrics }
}

/// Metrics that are listed only where one of the runs has something to say.
fn is_worth_a_row(metric: &str, runs: &[ReportedRun]) -> bool {
    let is_quiet = matches!(
        metric,
        "errors"
            | "slo"
            | "429"
            | "503"
            | "504"
            | "abandoned"
            | "lost"
            | "retries"
            | "pending-seconds"
            | "node-seconds"
            | "crashes"
    );
    !is_quiet || runs.iter().any(|run| run.outcome.metric(metric).is_some_and(|value| value != 0.0))
}

/// The meaning of a metric, for the reader who points at it.
fn about(metric: &str) -> &'static str {
    Metric::named(metric).map_or("", |metric| metric.about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_nothing_beats_in_both() {
        let candidate =
            |cost, latency, is_feasible| Candidate { cost, latency, is_feasible, ..Candidate::default() };
        let tuning = Tuning {
            candidates: vec![
                candidate(3.0, 1.0, true),
                candidate(1.0, 9.0, true),
                candidate(2.0, 4.0, true),
                candidate(2.5, 4.0, true),
                candidate(2.0, 5.0, true),
                candidate(0.5, 0.5, false),
                candidate(f64::NAN, 0.0, true),
            ],
            ..Tuning::default()
        };
        assert_eq!(tuning.front(), [1, 2, 0]);
    }

    #[test]
    fn every_listed_metric_exists() {
        for metric in GROUPS.iter().flat_map(|group| group.metrics) {
            assert!(Metric::named(metric).is_some(), "{metric}");
        }
    }
}
