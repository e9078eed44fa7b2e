//! Metrics of the autoscaler for Prometheus: Knative's, dots as underscores.
#![expect(clippy::disallowed_macros, reason = "this is the file of the metrics")]

use metrics::{Gauge, Histogram, Label, Unit, describe_gauge, describe_histogram, gauge, histogram};
use pilotlight_core::{Evaluation, RevisionId, ScalingMetric};

use crate::cluster::Parents;

/// Pods wanted after the scale-down delay, before minimum and maximum.
const PODS_DESIRED: &str = "kn_revision_pods_desired";
/// Room beyond the load and the burst capacity asked for.
const CAPACITY_EXCESS: &str = "kn_revision_capacity_excess";
/// 1 while there is panic.
const PANIC_MODE: &str = "kn_revision_panic_mode";
/// The metric over the stable window, over the panic window, and its target: concurrency ...
const CONCURRENCY: [&str; 3] =
    ["kn_revision_concurrency_stable", "kn_revision_concurrency_panic", "kn_revision_concurrency_target"];
/// ... or requests per second.
const RPS: [&str; 3] = [
    "kn_revision_rps_stable_per_second",
    "kn_revision_rps_panic_per_second",
    "kn_revision_rps_target_per_second",
];
/// Pods asked of the cluster.
const PODS_REQUESTED: &str = "kn_revision_pods_requested";
/// Pods that are ready.
const PODS_COUNT: &str = "kn_revision_pods_count";
/// Pods that are pending, running and not ready, or ending.
const PODS_NOT_READY: &str = "kn_revision_pods_not_ready_count";
/// Pods whose containers do not run yet.
const PODS_PENDING: &str = "kn_revision_pods_pending_count";
/// Pods that are ending.
const PODS_TERMINATING: &str = "kn_revision_pods_terminating_count";
/// How long it took to scrape a revision's pods.
const SCRAPE_DURATION: &str = "kn_autoscaler_scrape_duration_seconds";
/// How long after it was due a tick had decided about every revision.
const TICK_DELAY: &str = "pilotlight_tick_delay_seconds";

/// Describes every metric to the recorder. Once a process.
pub fn describe() {
    describe_gauge!(PODS_DESIRED, "Pods wanted, before minimum and maximum");
    describe_gauge!(
        CAPACITY_EXCESS,
        "Room beyond load and target burst capacity; negative: activator in the path"
    );
    describe_gauge!(PANIC_MODE, "1 while the panic window leads");
    for (names, what) in [(CONCURRENCY, "Requests in flight"), (RPS, "Requests per second")] {
        describe_gauge!(names[0], format!("{what}, averaged over the stable window"));
        describe_gauge!(names[1], format!("{what}, averaged over the panic window"));
        describe_gauge!(names[2], format!("{what} aimed for in each pod"));
    }
    describe_gauge!(PODS_REQUESTED, "Pods asked of the cluster");
    describe_gauge!(PODS_COUNT, "Pods that are ready");
    describe_gauge!(PODS_NOT_READY, "Pods that are pending, running and not ready, or ending");
    describe_gauge!(PODS_PENDING, "Pods whose containers do not run yet");
    describe_gauge!(PODS_TERMINATING, "Pods that are ending");
    describe_histogram!(SCRAPE_DURATION, Unit::Seconds, "Time taken to scrape the pods of a revision");
    describe_histogram!(
        TICK_DELAY,
        Unit::Seconds,
        "Time from when a tick was due until every revision had been decided about"
    );
}

/// The handles of one revision: its series are there as long as this is.
pub(crate) struct RevisionMetrics {
    desired: Gauge,
    capacity_excess: Gauge,
    panic_mode: Gauge,
    load: [Gauge; 3],
    requested: Gauge,
    ready: Gauge,
    not_ready: Gauge,
    pending: Gauge,
    terminating: Gauge,
    /// The histogram of the Service's scrapes: between two of them nobody else holds it.
    _scrapes: Histogram,
}

impl RevisionMetrics {
    /// The gauges of a revision that scales by `metric`: its load is shown in requests at once or per second.
    pub(crate) fn new(id: &RevisionId, parents: &Parents, metric: ScalingMetric) -> Self {
        let mut labels = labels(&id.namespace, parents);
        labels.push(Label::new("kn_revision_name", id.name.clone()));
        let gauge = |name: &'static str| gauge!(name, labels.clone());
        RevisionMetrics {
            desired: gauge(PODS_DESIRED),
            capacity_excess: gauge(CAPACITY_EXCESS),
            panic_mode: gauge(PANIC_MODE),
            load: match metric {
                ScalingMetric::Concurrency => CONCURRENCY,
                ScalingMetric::Rps => RPS,
            }
            .map(gauge),
            requested: gauge(PODS_REQUESTED),
            ready: gauge(PODS_COUNT),
            not_ready: gauge(PODS_NOT_READY),
            pending: gauge(PODS_PENDING),
            terminating: gauge(PODS_TERMINATING),
            _scrapes: scrape_duration(&id.namespace, parents),
        }
    }

    pub(crate) fn set(&self, evaluation: &Evaluation) {
        if let Some(decision) = &evaluation.decision {
            self.desired.set(decision.desired);
            self.capacity_excess.set(decision.excess_burst_capacity);
            self.panic_mode.set(f64::from(u8::from(decision.is_panicking())));
            for (gauge, value) in self.load.iter().zip([decision.stable, decision.panic, decision.target]) {
                gauge.set(value);
            }
        }
        if let Some(want) = evaluation.outcome.want {
            self.requested.set(want);
        }
        let pods = evaluation.pods;
        self.ready.set(pods.ready);
        self.not_ready.set(pods.starting + pods.terminating);
        self.pending.set(pods.pending);
        self.terminating.set(pods.terminating);
    }
}

/// The histogram of scrapes of a Service's revisions. It is there as long as one of them is.
pub(crate) fn scrape_duration(namespace: &str, parents: &Parents) -> Histogram {
    histogram!(SCRAPE_DURATION, labels(namespace, parents))
}

/// The histogram of ticks.
pub(crate) fn tick_delay() -> Histogram {
    histogram!(TICK_DELAY)
}

/// Labels of all that comes from one Service. Parents that are not known have none.
fn labels(namespace: &str, parents: &Parents) -> Vec<Label> {
    let mut labels = vec![Label::new("k8s_namespace_name", namespace.to_owned())];
    let named = [("kn_configuration_name", &parents.configuration), ("kn_service_name", &parents.service)];
    labels.extend(
        named.into_iter().filter_map(|(name, value)| Some(Label::new(name, value.as_deref()?.to_owned()))),
    );
    labels
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use pilotlight_core::{Input, PodCounts, Revision, RevisionSpec, Time};
    use pilotlight_telemetry::Registry;

    use super::*;

    #[test]
    fn pods_that_are_pending_are_told_apart_from_those_that_run_and_are_not_ready() {
        let registry = Registry::new();
        metrics::with_local_recorder(&registry, || {
            let gauges = RevisionMetrics::new(
                &RevisionId::new("ns", "r"),
                &Parents::default(),
                ScalingMetric::Concurrency,
            );
            let pods = PodCounts { ready: 1, starting: 5, pending: 2, terminating: 10 };
            let mut revision = Revision::new(Time::EPOCH, RevisionSpec::default(), pods);
            revision.step(Time::EPOCH, Input::Wake);
            gauges.set(revision.evaluation().expect("an evaluation"));
            let page = registry.render();
            for (name, value) in
                [(PODS_COUNT, 1), (PODS_NOT_READY, 15), (PODS_PENDING, 2), (PODS_TERMINATING, 10)]
            {
                let line = page.lines().find(|line| line.starts_with(&format!("{name}{{")));
                assert!(line.is_some_and(|line| line.ends_with(&format!(" {value}"))), "{line:?}");
            }
        });
    }

    #[test]
    fn of_two_thousand_revisions_deployed_one_after_the_other_the_hundred_that_live_are_told() {
        let registry = Registry::new();
        metrics::with_local_recorder(&registry, || {
            let mut alive = VecDeque::new();
            for number in 0..2000 {
                let id = RevisionId::new("ns", format!("r{number}"));
                alive.push_back(RevisionMetrics::new(&id, &Parents::default(), ScalingMetric::Concurrency));
                scrape_duration("ns", &Parents::default()).record(0.1);
                if alive.len() > 100 {
                    alive.pop_front();
                }
            }
            // A second look: a series that has not changed since the first is still told.
            for _ in 0..2 {
                let page = registry.render();
                for name in [PODS_DESIRED, CONCURRENCY[0], PODS_TERMINATING] {
                    assert_eq!(page.matches(&format!("\n{name}{{")).count(), 100, "{name}");
                }
                assert!(
                    page.contains(&format!("\n{SCRAPE_DURATION}_count{{k8s_namespace_name=\"ns\"}} 2000\n"))
                );
            }
            drop(alive);
            assert_eq!(registry.render(), "");
        });
    }
}
