//! The metrics users see: how long the app takes, and how many wait for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use metrics::{Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;
use parking_lot::Mutex;
use pilotlight_config::process::{MetricsProtocol, QueueProxyEnv};
use pilotlight_net::{Admin, Breaker, Ending};
use pilotlight_process::exposition;
use pilotlight_telemetry::MakeHistogram;
use tokio::time::{Instant, interval};
use tracing::warn;

/// The queue-proxy's series. All clones are the same. They have a recorder of their own rather than the process's,
/// so that several queue-proxies can live in one process.
#[derive(Clone)]
pub(crate) struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    recorder: PrometheusRecorder,
    // Filled as statuses occur: a handful.
    invocations: Mutex<Vec<(StatusCode, Histogram)>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Begins to record, as long as the runtime lives; `None`: nobody asked for it.
    pub(crate) fn start(env: &QueueProxyEnv) -> Option<Self> {
        match env.telemetry.observability.request_metrics.protocol {
            MetricsProtocol::None => return None,
            MetricsProtocol::Otlp => {
                warn!("Request metrics are not sent by OTLP; `prometheus` serves them");
                return None;
            }
            MetricsProtocol::Prometheus => {}
        }
        let recorder = pilotlight_net::admin::metrics_builder(&[]).build_recorder();
        recorder.describe_histogram(
            KeyName::from_const_str(INVOCATION_DURATION),
            Some(Unit::Seconds),
            "The duration of the app's responses, from the request's turn to the response's last byte".into(),
        );
        let handle = recorder.handle();
        tokio::spawn(async move {
            let mut ticks = interval(UPKEEP_PERIOD);
            loop {
                ticks.tick().await;
                handle.run_upkeep();
            }
        });
        Some(Metrics { shared: Arc::new(Shared { recorder, invocations: Mutex::default() }) })
    }

    /// Where all other histograms of requests are made.
    pub(crate) fn histograms(&self) -> MakeHistogram {
        let shared = Arc::clone(&self.shared);
        Box::new(move |key| shared.recorder.register_histogram(key, &METADATA))
    }

    /// A request goes to the app.
    pub(crate) fn invocation_started(&self) -> Invocation {
        Invocation {
            metrics: self.clone(),
            started: Instant::now(),
            status: StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The port Prometheus scrapes. The depth of the queue is what it is at that moment, not, as in Knative, what
    /// it was when the last request passed.
    pub(crate) fn server(&self, breaker: Option<Breaker>, resource: &[(&str, String)]) -> Admin {
        let recorder = &self.shared.recorder;
        let depth = breaker.map(|breaker| {
            let description = "Requests that wait for the app or are with it";
            recorder.describe_gauge(KeyName::from_const_str(QUEUE_DEPTH), None, description.into());
            let key = Key::from_parts(QUEUE_DEPTH, vec![SCOPE]);
            (breaker, recorder.register_gauge(&key, &METADATA))
        });
        let handle = recorder.handle();
        let target = exposition::target_info(resource);
        Admin::new().metrics(move || {
            if let Some((breaker, gauge)) = &depth {
                gauge.set(f64::from(breaker.in_use()) + breaker.waiting() as f64);
            }
            handle.render() + &exposition::exposition() + &target
        })
    }

    fn record(&self, status: StatusCode, duration: Duration) {
        let mut invocations = self.shared.invocations.lock();
        if let Some((_, histogram)) = invocations.iter().find(|(of, _)| *of == status) {
            return histogram.record(duration);
        }
        let label = Label::new("http_response_status_code", status.as_str().to_owned());
        let key = Key::from_parts(INVOCATION_DURATION, vec![SCOPE, label]);
        let histogram = self.shared.recorder.register_histogram(&key, &METADATA);
        histogram.record(duration);
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
        self.metrics.record(self.status, self.started.elapsed());
    }
}

const INVOCATION_DURATION: &str = "kn_serving_invocation_duration_seconds";
const QUEUE_DEPTH: &str = "kn_serving_queue_depth";
/// OpenTelemetry's name for where these come from, which dashboards may select by.
const SCOPE: Label = Label::from_static_parts("otel_scope_name", "knative.dev/serving/pkg/queue");
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// Samples wait in a buffer until they are sorted into buckets; this bounds it.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);
