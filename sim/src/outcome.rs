//! The results of a run, in numbers that mean the same in a table, in JSON and in an assertion.
//!
//! Times are in seconds, as floats, because these values are for people and for comparing; nothing is decided
//! with them in the simulation itself.

mod mean;

use std::collections::BTreeMap;

use serde::Serialize;

/// All results of one run. The JSON form is versioned by [`SCHEMA`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed all randomness came from: the same seed gives the same outcome, byte for byte.
    pub seed: u64,
    /// For how long load was offered, in seconds.
    pub duration_s: f64,
    /// Requests as their clients count them: retries are part of the request they repeat.
    pub requests: u64,
    /// Attempts that were sent because an earlier one had failed.
    pub retries: u64,
    /// How requests ended, by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests whose client left before there was an answer.
    pub abandoned: u64,
    /// Attempts that a pod had taken and did not answer, because it crashed or was killed.
    pub lost: u64,
    /// From sending to the end of the answer, as the client sees it: retries and pauses included. Answers with
    /// status 200 only.
    pub latency: Quantiles,
    /// The part of it that was not service: in queues, and for pods to come up.
    pub wait: Quantiles,
    /// The part of the wait during which pods were ready, but busy.
    pub queue: Quantiles,
    /// The part of the wait during which no pod was ready.
    pub cold_start: Quantiles,
    /// The part at the app.
    pub service: Quantiles,
    /// How often pods came up after there had been none, with a request waiting.
    pub cold_starts: u64,
    /// Requests that waited for such a start.
    pub cold_requests: u64,
    /// The share of requests that kept the objective, if one was set; those that failed did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo_fraction: Option<f64>,
    /// The cost of pods, and their work.
    pub pods: PodUse,
    /// The autoscaler's decisions, in counts.
    pub scaling: Scaling,
    /// The run over time; only when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// Events the run consisted of.
    pub events: u64,
}

/// The distribution of a time, in seconds; all 0 where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// The mean.
    pub mean: f64,
    /// Half of all are below.
    pub p50: f64,
    /// 90 % are below.
    pub p90: f64,
    /// 95 % are below.
    pub p95: f64,
    /// 99 % are below.
    pub p99: f64,
    /// 99.9 % are below.
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
}

/// The cost of pods, and their work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PodUse {
    /// The time all pods together existed, from their start to their end: what is paid for.
    pub pod_seconds: f64,
    /// The part of it in which they were ready.
    pub ready_seconds: f64,
    /// The part in which they were on their way up.
    pub starting_seconds: f64,
    /// The part in which they were on their way out.
    pub terminating_seconds: f64,
    /// The time pods waited for a place in the cluster; not paid for, and not in `pod_seconds`.
    pub pending_seconds: f64,
    /// The most pods that existed at once; those that wait for room do not yet.
    pub peak: u32,
    /// Pods that were started; those that never had room were not.
    pub starts: u64,
    /// Pods that ended by themselves.
    pub crashes: u64,
    /// The time nodes existed, all together; 0 where the cluster has no nodes of its own.
    pub node_seconds: f64,
    /// Work done over what ready pods could have done: 1.0 is full.
    pub utilization: f64,
    /// Pod-seconds of an autoscaler that knows every request beforehand: for each second, just enough
    /// pods for its load.
    pub oracle_pod_seconds: f64,
    /// `pod_seconds` over `oracle_pod_seconds`; 0 where there was no load.
    pub over_provision: f64,
}

/// The autoscaler's decisions, in counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scaling {
    /// Evaluations that led to a decision.
    pub decisions: u64,
    /// Times the wanted number of pods rose.
    pub ups: u64,
    /// Times it fell.
    pub downs: u64,
    /// Times panic began.
    pub panics: u64,
    /// Time spent in panic, in seconds.
    pub panic_seconds: f64,
    /// Time during which the activator stood in the request path, in seconds.
    pub proxied_seconds: f64,
}

/// A run over time, in equal steps. Their length doubles as a run grows longer, so that there are
/// never more than a few thousand.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timeline {
    /// The length of a step, in seconds.
    pub step_s: f64,
    /// The steps, one after the other, from 0.
    pub points: Vec<Point>,
}

/// One step of a timeline. Counts of things that are there (pods, requests in flight) are averages over the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// The beginning of the step, in seconds from the start.
    pub at_s: f64,
    /// Requests that arrived, per second.
    pub arrivals_per_s: f64,
    /// Requests that ended with status 200, per second.
    pub completions_per_s: f64,
    /// Requests that ended otherwise, per second.
    pub failures_per_s: f64,
    /// Requests between arrival and answer.
    pub in_flight: f64,
    /// Requests in flight that wait, wherever that is.
    pub queued: f64,
    /// The load the ready pods are meant to carry: their number times the target.
    pub target: f64,
    /// Pods the autoscaler wants, at the end of the step.
    pub wanted: f64,
    /// Pods that are ready.
    pub ready: f64,
    /// Pods on their way up.
    pub starting: f64,
    /// Pods that wait for a place in the cluster.
    pub pending: f64,
    /// Pods on their way out.
    pub terminating: f64,
    /// Nodes of a cluster that has them.
    pub nodes: f64,
    /// The share of the step spent in panic.
    pub panic_fraction: f64,
    /// Half of the requests that ended in the step took less, in seconds; 0 if none ended.
    pub latency_p50_s: f64,
    /// 95 % of them took less.
    pub latency_p95_s: f64,
    /// The longest of them.
    pub latency_max_s: f64,
}

impl Outcome {
    /// The share of requests answered with status 200; 1 if there was none.
    pub fn success_fraction(&self) -> f64 {
        let answered = self.statuses.get(&200).copied().unwrap_or_default();
        if self.requests == 0 { 1.0 } else { answered as f64 / self.requests as f64 }
    }

    /// The number that goes by `name` in assertions, objectives and tables: see [`METRICS`]. `None` if there is no
    /// such name, or it was not measured.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (whole, quantile) = match name.split_once('-') {
            Some(("wait", quantile)) => (&self.wait, quantile),
            Some(("queue", quantile)) => (&self.queue, quantile),
            Some(("cold", quantile)) => (&self.cold_start, quantile),
            Some(("service", quantile)) => (&self.service, quantile),
            _ => (&self.latency, name),
        };
        if let Some(value) = whole.named(quantile) {
            return Some(value);
        }
        let status = |code: u16| self.statuses.get(&code).copied().unwrap_or_default() as f64;
        Some(match name {
            "requests" => self.requests as f64,
            "retries" => self.retries as f64,
            "abandoned" => self.abandoned as f64,
            "lost" => self.lost as f64,
            "errors" => self.requests as f64 - status(200),
            "success" => self.success_fraction(),
            "slo" => self.slo_fraction?,
            "cold-starts" => self.cold_starts as f64,
            "cold-requests" => self.cold_requests as f64,
            "cold-share" if self.requests == 0 => 0.0,
            "cold-share" => self.cold_requests as f64 / self.requests as f64,
            "pod-seconds" => self.pods.pod_seconds,
            "ready-seconds" => self.pods.ready_seconds,
            "pending-seconds" => self.pods.pending_seconds,
            "node-seconds" => self.pods.node_seconds,
            "mean-pods" if self.duration_s == 0.0 => 0.0,
            "mean-pods" => self.pods.pod_seconds / self.duration_s,
            "peak" => f64::from(self.pods.peak),
            "starts" => self.pods.starts as f64,
            "crashes" => self.pods.crashes as f64,
            "utilization" => self.pods.utilization,
            "over-provision" => self.pods.over_provision,
            "panics" => self.scaling.panics as f64,
            "panic-seconds" => self.scaling.panic_seconds,
            _ => return Some(status(name.parse().ok().filter(|code| (100..600).contains(code))?)),
        })
    }
}

impl Quantiles {
    /// The quantile that goes by `name`: `mean`, `p50`, ... `p99.9`, `max`.
    pub fn named(&self, name: &str) -> Option<f64> {
        Some(match name {
            "mean" => self.mean,
            "p50" => self.p50,
            "p90" => self.p90,
            "p95" => self.p95,
            "p99" => self.p99,
            "p99.9" => self.p99_9,
            "max" => self.max,
            _ => return None,
        })
    }
}

/// A number an outcome has a name for: see [`METRICS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name [`Outcome::metric`] knows it by; in the table it may stand for a family of names.
    pub name: &'static str,
    /// The unit.
    pub unit: Unit,
    /// The better direction.
    pub better: Better,
    /// The meaning, in a few words.
    pub about: &'static str,
}

/// The unit of a metric, and so how its values are written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A time in seconds: `412 ms`. Written with a unit in expressions.
    Seconds,
    /// Seconds that are summed up over pods, and so an amount rather than a time: `12,345`.
    SecondsInAll,
    /// A share between 0 and 1: `99.9 %`.
    Fraction,
    /// How many: `1,234`.
    Count,
    /// A ratio, or an average: `1.34`.
    Ratio,
}

/// The direction in which a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
    /// No direction is better.
    Neither,
}

impl Metric {
    /// The entry of the table that `name` belongs to: `wait-p99.9` is one of those that `wait-p95` stands for.
    pub fn named(name: &str) -> Option<&'static Metric> {
        let (family, quantile) = match name.split_once('-') {
            Some((part @ ("wait" | "queue" | "cold" | "service"), quantile)) => (Some(part), quantile),
            _ => (None, name),
        };
        let is_quantile = QUANTILES.contains(&quantile);
        let is_status = name.len() == 3 && name.parse().is_ok_and(|code: u16| (100..600).contains(&code));
        METRICS.iter().find(|metric| match metric.name.strip_suffix("p95") {
            Some(prefix) if is_quantile => prefix.strip_suffix('-') == family,
            _ => metric.name == name || is_status && metric.name == "503",
        })
    }

    /// Every name there is, families written out, but status codes only those that proxies make.
    pub fn names() -> impl Iterator<Item = String> {
        METRICS.iter().flat_map(|metric| -> Vec<String> {
            match metric.name.strip_suffix("p95") {
                Some(prefix) => QUANTILES.iter().map(|quantile| format!("{prefix}{quantile}")).collect(),
                None if metric.name == "503" => STATUSES.map(str::to_owned).to_vec(),
                None => vec![metric.name.to_owned()],
            }
        })
    }
}

const fn metric(name: &'static str, unit: Unit, better: Better, about: &'static str) -> Metric {
    Metric { name, unit, better, about }
}

/// The names [`Outcome::metric`] knows. `p95` stands for any quantile: `mean`, `p50`, `p90`, `p95`, `p99`, `p99.9`,
/// `max`; `503` for any status code.
pub const METRICS: &[Metric] = &[
    metric("p95", Unit::Seconds, Better::Lower, "latency of answers with status 200, in seconds"),
    metric("wait-p95", Unit::Seconds, Better::Lower, "its part before service, in seconds"),
    metric("queue-p95", Unit::Seconds, Better::Lower, "the wait while pods were ready but busy, in seconds"),
    metric("cold-p95", Unit::Seconds, Better::Lower, "the wait while no pod was ready, in seconds"),
    metric("service-p95", Unit::Seconds, Better::Lower, "the part at the app, in seconds"),
    metric("requests", Unit::Count, Better::Neither, "requests, retries not counted"),
    metric("retries", Unit::Count, Better::Lower, "attempts after a failed one"),
    metric("errors", Unit::Count, Better::Lower, "requests without an answer of status 200"),
    metric("503", Unit::Count, Better::Neither, "requests that ended with this status code"),
    metric("success", Unit::Fraction, Better::Higher, "the share of requests answered with status 200"),
    metric("slo", Unit::Fraction, Better::Higher, "the share of requests within the objective"),
    metric("abandoned", Unit::Count, Better::Lower, "requests whose client left"),
    metric("lost", Unit::Count, Better::Lower, "attempts that a pod took and did not answer"),
    metric("cold-starts", Unit::Count, Better::Lower, "times pods came up after there had been none"),
    metric("cold-requests", Unit::Count, Better::Lower, "requests that waited for such a start"),
    metric("cold-share", Unit::Fraction, Better::Lower, "their share of all requests"),
    metric("pod-seconds", Unit::SecondsInAll, Better::Lower, "time all pods existed"),
    metric("ready-seconds", Unit::SecondsInAll, Better::Lower, "time all pods were ready"),
    metric("pending-seconds", Unit::SecondsInAll, Better::Lower, "time pods waited for room, all together"),
    metric("node-seconds", Unit::SecondsInAll, Better::Lower, "time all nodes existed"),
    metric("mean-pods", Unit::Ratio, Better::Lower, "pods on average"),
    metric("peak", Unit::Count, Better::Lower, "the most pods at once"),
    metric("starts", Unit::Count, Better::Lower, "pods started"),
    metric("crashes", Unit::Count, Better::Neither, "pods that ended by themselves"),
    metric("utilization", Unit::Fraction, Better::Higher, "work over what ready pods could have done"),
    metric("over-provision", Unit::Ratio, Better::Lower, "pod-seconds over those of an oracle"),
    metric("panics", Unit::Count, Better::Neither, "times panic began"),
    metric("panic-seconds", Unit::SecondsInAll, Better::Neither, "time in panic"),
];

/// The quantiles every time is known by.
pub const QUANTILES: [&str; 7] = ["mean", "p50", "p90", "p95", "p99", "p99.9", "max"];

/// The status codes that proxies on the way make themselves, and success.
const STATUSES: [&str; 6] = ["200", "429", "500", "502", "503", "504"];

/// The version of the JSON form; it grows when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_value_and_belongs_to_the_table() {
        let outcome = Outcome { slo_fraction: Some(0.5), ..Outcome::default() };
        for name in Metric::names() {
            assert!(outcome.metric(&name).is_some(), "{name}");
            assert!(Metric::named(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_family_is_found_by_each_of_its_names() {
        let found = |name| Metric::named(name).map(|metric| metric.name);
        assert_eq!(found("max"), Some("p95"));
        assert_eq!(found("wait-p99.9"), Some("wait-p95"));
        assert_eq!(found("418"), Some("503"));
        for unknown in ["wait", "p42", "wait-", "-p95", "pod-p95", "600", "0503", "pod"] {
            assert_eq!(found(unknown), None, "{unknown}");
        }
    }
}
