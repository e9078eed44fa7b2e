//! Every metric of the activator: names, help, and the handles the hot path holds.
//!
//! Names and labels are Knative's (`kn.revision.request.concurrency` and so on) in Prometheus' spelling.
#![expect(clippy::disallowed_macros, reason = "this is the file of the metrics")]

use std::time::Duration;

use http::Method;
use metrics::{Counter, Gauge, Histogram, Label, Unit};
use pilotlight_core::RevisionId;
use pilotlight_telemetry::RequestDurations;

/// Requests in flight of a revision, averaged over the last second, as reported to the autoscaler.
pub(crate) const REQUEST_CONCURRENCY: &str = "kn_revision_request_concurrency";
/// Requests of a revision that wait for a pod.
pub(crate) const REQUEST_QUEUED: &str = "kn_revision_request_queued";
/// Requests of a revision that are at a pod.
pub(crate) const REQUEST_ACTIVE: &str = "kn_revision_request_active";
/// Whether the autoscaler is connected.
pub(crate) const STATS_REACHABLE: &str = "kn_activator_stats_conn_reachable";
/// Failed attempts to reach the autoscaler, and connections that broke.
pub(crate) const STATS_ERRORS: &str = "kn_activator_stats_conn_errors";
/// Stats thrown away because the autoscaler could not take them.
pub(crate) const STATS_DROPPED: &str = "pilotlight_activator_stats_dropped_total";
/// From the arrival of the request that woke a revision until it was sent to a pod.
pub(crate) const COLD_START: &str = "pilotlight_activator_cold_start_seconds";
/// Requests that a pod took and did not answer.
pub(crate) const LOST_REQUESTS: &str = "pilotlight_activator_lost_requests_total";
/// Connections of a revision that were closed at once, since it had its most already.
pub(crate) const REFUSED_CONNECTIONS: &str = "pilotlight_activator_refused_connections_total";

/// OpenTelemetry's name for where these come from, which dashboards may select by.
const SCOPE: Label = Label::from_static_parts("otel_scope_name", "knative.dev/serving/pkg/activator");

/// Registers units and help texts. Call it once, after a recorder is installed.
pub(crate) fn describe() {
    metrics::describe_gauge!(REQUEST_CONCURRENCY, "Requests in flight, averaged over the last second");
    metrics::describe_gauge!(REQUEST_QUEUED, "Requests waiting for a pod");
    metrics::describe_gauge!(REQUEST_ACTIVE, "Requests at a pod");
    metrics::describe_histogram!(
        RequestDurations::NAME,
        Unit::Seconds,
        "From arrival to the end of the response"
    );
    metrics::describe_gauge!(STATS_REACHABLE, "1 while the autoscaler is connected, else 0");
    metrics::describe_counter!(STATS_ERRORS, "Failed or broken connections to the autoscaler");
    metrics::describe_counter!(STATS_DROPPED, "Stats thrown away because the autoscaler was away or slow");
    metrics::describe_histogram!(COLD_START, Unit::Seconds, "From arrival at zero pods until sent to a pod");
    metrics::describe_counter!(LOST_REQUESTS, "Requests that a pod took and did not answer");
    metrics::describe_counter!(
        REFUSED_CONNECTIONS,
        "Connections closed at once, since the revision had its most already"
    );
}

/// The handle of a revision's refused connections.
pub(crate) fn refused_connections(id: &RevisionId) -> Counter {
    metrics::counter!(REFUSED_CONNECTIONS, revision_labels(id))
}

fn revision_labels(id: &RevisionId) -> Vec<Label> {
    vec![
        SCOPE,
        Label::new("k8s_namespace_name", id.namespace.clone()),
        Label::new("kn_revision_name", id.name.clone()),
    ]
}

/// The handles of the connection to the autoscaler.
#[derive(Debug)]
pub(crate) struct StatsMetrics {
    pub(crate) reachable: Gauge,
    pub(crate) errors: Counter,
    pub(crate) dropped: Counter,
}

impl StatsMetrics {
    pub(crate) fn new() -> Self {
        StatsMetrics {
            reachable: metrics::gauge!(STATS_REACHABLE, "peer" => "autoscaler"),
            errors: metrics::counter!(STATS_ERRORS, "peer" => "autoscaler"),
            dropped: metrics::counter!(STATS_DROPPED),
        }
    }
}

/// The handles of one revision: its series are there as long as this is. `queued` and `active` go up and down and so
/// end at zero by themselves.
#[derive(Debug)]
pub(crate) struct RevisionMetrics {
    pub(crate) concurrency: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) active: Gauge,
    pub(crate) cold_start: Histogram,
    pub(crate) lost: Counter,
    // None: telemetry counts requests in all their detail, and times them too.
    durations: Option<RequestDurations>,
}

impl RevisionMetrics {
    pub(crate) fn new(id: &RevisionId, times_answers: bool) -> Self {
        let labels = revision_labels(id);
        RevisionMetrics {
            concurrency: metrics::gauge!(REQUEST_CONCURRENCY, labels.clone()),
            queued: metrics::gauge!(REQUEST_QUEUED, labels.clone()),
            active: metrics::gauge!(REQUEST_ACTIVE, labels.clone()),
            cold_start: metrics::histogram!(COLD_START, labels.clone()),
            lost: metrics::counter!(LOST_REQUESTS, labels.clone()),
            durations: times_answers.then(|| RequestDurations::new(labels)),
        }
    }

    /// Records one answered request.
    pub(crate) fn answered(&mut self, method: &Method, status: u16, duration: Duration) {
        if let Some(durations) = &mut self.durations {
            durations.record(method, status, duration);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use pilotlight_telemetry::Registry;

    use super::*;

    #[test]
    fn of_two_thousand_revisions_deployed_one_after_the_other_the_hundred_that_live_are_told() {
        let registry = Registry::new();
        metrics::with_local_recorder(&registry, || {
            let mut alive = VecDeque::new();
            for number in 0..2000 {
                let mut revision = RevisionMetrics::new(&RevisionId::new("ns", format!("r{number}")), true);
                revision.answered(&Method::GET, 200, Duration::ZERO);
                alive.push_back(revision);
                if alive.len() > 100 {
                    alive.pop_front();
                }
            }
            let page = registry.render();
            for name in [
                REQUEST_CONCURRENCY,
                REQUEST_QUEUED,
                REQUEST_ACTIVE,
                LOST_REQUESTS,
                &format!("{COLD_START}_count"),
                &format!("{}_count", RequestDurations::NAME),
            ] {
                assert_eq!(page.matches(&format!("\n{name}{{")).count(), 100, "{name}");
            }
        });
    }
}
