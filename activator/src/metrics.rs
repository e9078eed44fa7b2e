//! Every metric of the activator: names, help, and the handles the hot path holds.
//!
//! Names and labels are Knative's (`kn.revision.request.concurrency` and so on) in Prometheus' spelling.
#![expect(clippy::disallowed_macros, reason = "this is the file of the metrics")]

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use metrics::{Counter, Gauge, Histogram, Label, Level, Metadata, Unit};
use pilotlight_core::RevisionId;
use pilotlight_telemetry::MakeHistogram;

/// Requests in flight of a revision, averaged over the last second, as reported to the autoscaler.
pub(crate) const REQUEST_CONCURRENCY: &str = "kn_revision_request_concurrency";
/// Requests of a revision that wait for a pod.
pub(crate) const REQUEST_QUEUED: &str = "kn_revision_request_queued";
/// Requests of a revision that are at a pod.
pub(crate) const REQUEST_ACTIVE: &str = "kn_revision_request_active";
/// From a request's arrival to the end of its response.
pub(crate) const REQUEST_DURATION: &str = "http_server_request_duration_seconds";
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

/// OpenTelemetry's name for where these come from, which dashboards may select by.
const SCOPE: Label = Label::from_static_parts("otel_scope_name", "knative.dev/serving/pkg/activator");

/// Registers units and help texts. Call it once, after a recorder is installed.
pub(crate) fn describe() {
    metrics::describe_gauge!(REQUEST_CONCURRENCY, "Requests in flight, averaged over the last second");
    metrics::describe_gauge!(REQUEST_QUEUED, "Requests waiting for a pod");
    metrics::describe_gauge!(REQUEST_ACTIVE, "Requests at a pod");
    metrics::describe_histogram!(REQUEST_DURATION, Unit::Seconds, "From arrival to the end of the response");
    metrics::describe_gauge!(STATS_REACHABLE, "1 while the autoscaler is connected, else 0");
    metrics::describe_counter!(STATS_ERRORS, "Failed or broken connections to the autoscaler");
    metrics::describe_counter!(STATS_DROPPED, "Stats thrown away because the autoscaler was away or slow");
    metrics::describe_histogram!(COLD_START, Unit::Seconds, "From arrival at zero pods until sent to a pod");
    metrics::describe_counter!(LOST_REQUESTS, "Requests that a pod took and did not answer");
}

/// Where the histograms of requests are made: by the process's recorder.
pub(crate) fn histograms() -> MakeHistogram {
    const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);
    Box::new(|key| metrics::with_recorder(|recorder| recorder.register_histogram(key, &METADATA)))
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

/// The handles of one revision. `queued` and `active` go up and down and so end at zero by themselves.
#[derive(Debug)]
pub(crate) struct RevisionMetrics {
    labels: Vec<Label>,
    pub(crate) concurrency: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) active: Gauge,
    pub(crate) cold_start: Histogram,
    pub(crate) lost: Counter,
    // None: those who count requests in all their detail have them, too.
    durations: Option<BTreeMap<(&'static str, u16), Histogram>>,
}

impl RevisionMetrics {
    pub(crate) fn new(id: &RevisionId, times_answers: bool) -> Self {
        let labels = vec![
            SCOPE,
            Label::new("k8s_namespace_name", id.namespace.clone()),
            Label::new("kn_revision_name", id.name.clone()),
        ];
        RevisionMetrics {
            concurrency: metrics::gauge!(REQUEST_CONCURRENCY, labels.clone()),
            queued: metrics::gauge!(REQUEST_QUEUED, labels.clone()),
            active: metrics::gauge!(REQUEST_ACTIVE, labels.clone()),
            cold_start: metrics::histogram!(COLD_START, labels.clone()),
            lost: metrics::counter!(LOST_REQUESTS, labels.clone()),
            durations: times_answers.then(BTreeMap::new),
            labels,
        }
    }

    /// Records one answered request.
    pub(crate) fn answered(&mut self, method: &Method, status: u16, duration: Duration) {
        let Some(durations) = &mut self.durations else { return };
        let method = method_label(method);
        let histogram = durations.entry((method, status)).or_insert_with(|| {
            let mut labels = self.labels.clone();
            labels.push(Label::new("http_request_method", method));
            labels.push(Label::new("http_response_status_code", status.to_string()));
            metrics::histogram!(REQUEST_DURATION, labels)
        });
        histogram.record(duration.as_secs_f64());
    }
}

/// The method as a label: clients can make methods up, so all but the known ones share one.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "PATCH", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_methods_share_one_label() {
        assert_eq!(method_label(&Method::PATCH), "PATCH");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "_OTHER");
    }
}
