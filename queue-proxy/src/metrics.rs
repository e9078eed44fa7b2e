//! The metrics users see: how long the app takes, and how many wait for it.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use metrics::{Histogram, Label};
use parking_lot::Mutex;
use pilotlight_config::process::{MetricsProtocol, QueueProxyEnv};
use pilotlight_net::{Breaker, Ending};
use pilotlight_process::MetricsPage;
use pilotlight_telemetry::Registry;
use tokio::time::Instant;
use tracing::warn;

/// The queue-proxy's series. All clones are the same. They are in a registry of their own rather than the process's,
/// so that several queue-proxies can live in one process.
#[derive(Clone)]
pub(crate) struct Metrics {
    series: Arc<Series>,
}

struct Series {
    registry: Registry,
    // Filled as statuses occur: a handful.
    invocations: Mutex<Vec<(StatusCode, Histogram)>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Begins to record; `None`: no metrics are asked for.
    pub(crate) fn start(env: &QueueProxyEnv) -> Option<Self> {
        match env.telemetry.observability.request_metrics.protocol {
            MetricsProtocol::None => return None,
            MetricsProtocol::Otlp => {
                warn!("Request metrics are not sent by OTLP; `prometheus` serves them");
                return None;
            }
            MetricsProtocol::Prometheus => {}
        }
        let registry = Registry::new();
        registry.describe(
            INVOCATION_DURATION,
            "The duration of the app's responses, from the request's turn to the response's last byte",
        );
        Some(Metrics { series: Arc::new(Series { registry, invocations: Mutex::default() }) })
    }

    /// The registry of all other series of requests.
    pub(crate) fn registry(&self) -> &Registry {
        &self.series.registry
    }

    /// A request goes to the app.
    pub(crate) fn invocation_started(&self) -> Invocation {
        Invocation {
            metrics: self.clone(),
            started: Instant::now(),
            status: StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The page that Prometheus scrapes. The depth of the queue is what it is at that moment, not, as in Knative, what
    /// it was when the last request passed.
    pub(crate) fn page(
        &self,
        breaker: Option<Breaker>,
        resource: &[(&str, String)],
    ) -> impl Fn() -> String + Clone + Send + Sync + use<> {
        let registry = self.registry();
        let depth = breaker.map(|breaker| {
            registry.describe(QUEUE_DEPTH, "Requests that wait for the app or are with it");
            (breaker, registry.gauge(QUEUE_DEPTH, &[SCOPE]))
        });
        let page = MetricsPage::new(registry.clone(), resource);
        move || {
            if let Some((breaker, gauge)) = &depth {
                gauge.set(f64::from(breaker.in_use()) + breaker.waiting() as f64);
            }
            page.render()
        }
    }

    fn record(&self, status: StatusCode, started: Instant) {
        let took = started.elapsed();
        let mut invocations = self.series.invocations.lock();
        if let Some((_, histogram)) = invocations.iter().find(|(of, _)| *of == status) {
            return histogram.record(took);
        }
        let label = Label::new("http_response_status_code", status.as_str().to_owned());
        let histogram = self.series.registry.histogram(INVOCATION_DURATION, &[SCOPE, label]);
        histogram.record(took);
        invocations.push((status, histogram));
    }
}

/// A request that is with the app. Recorded when dropped: as a 500 unless the response ended well.
pub(crate) struct Invocation {
    metrics: Metrics,
    started: Instant,
    status: StatusCode,
}

impl Invocation {
    /// The response has ended.
    pub(crate) fn ended(mut self, status: StatusCode, ending: Ending) {
        if ending == Ending::Complete {
            self.status = status;
        }
    }
}

impl Drop for Invocation {
    fn drop(&mut self) {
        self.metrics.record(self.status, self.started);
    }
}

const INVOCATION_DURATION: &str = "kn_serving_invocation_duration_seconds";
const QUEUE_DEPTH: &str = "kn_serving_queue_depth";
/// OpenTelemetry's name for where these come from, which dashboards may select by.
const SCOPE: Label = Label::from_static_parts("otel_scope_name", "knative.dev/serving/pkg/queue");
