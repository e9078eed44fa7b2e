//! Metrics, traces and the request log of a proxy's requests.
//!
//! A proxy says when a request [begins](Telemetry::begin), when a [part](Telemetry::span) of its way does, and when it
//! is [sent on](Telemetry::sending); the operator's settings decide which metrics, spans and log lines are made of
//! that. No request waits for any of them: spans and lines wait in bounded queues, are dropped when these are full, and
//! are counted then. Where the operator asked for nothing, nothing is noted: that costs one comparison a request.
//!
//! | file | what is in it |
//! |---|---|
//! | `registry.rs` | the series of a process and their text for Prometheus |
//! | `call.rs` | one request: what is noted of it, and when |
//! | `http_metrics.rs` | OpenTelemetry's metrics of requests |
//! | `traces.rs`, `request_log.rs` | spans; a line for each request |
//! | `sinks.rs` | the three of them, as far as they were asked for |
//! | `lines.rs` | lines written by a thread of their own |

mod call;
mod http_metrics;
pub mod lines;
mod names;
mod prometheus;
pub mod registry;
mod request_log;
mod sinks;
mod traces;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_config::process::{Observability, TelemetryEnv};
use pilotlight_net::Request;

pub use crate::call::{Call, OverTls, Sending};
use crate::http_metrics::HttpMetrics;
pub use crate::http_metrics::RequestDurations;
pub use crate::names::{RevisionNames, program_resource};
pub use crate::prometheus::{PrometheusError, prometheus_tls};
pub use crate::registry::Registry;
use crate::request_log::RequestLog;
use crate::sinks::{LogSlot, Sinks};
use crate::traces::{Parent, Tracer};
pub use crate::traces::{Span, TraceError};

/// The telemetry of a proxy. All clones are the same.
#[derive(Clone, Default)]
pub struct Telemetry {
    // None: nothing was asked for.
    sinks: Option<Arc<Sinks>>,
}

/// The settings of a proxy's telemetry.
pub struct TelemetryParams<'a> {
    /// The metrics, traces and logs that the operator asked for.
    pub env: &'a TelemetryEnv,
    /// Knative's name for this part of it.
    pub scope: &'static str,
    /// Attributes that all spans have in common.
    pub resource: &'a [(&'static str, String)],
    /// Names for the request log, until a request's own are [found out](Call::about).
    pub revision: RevisionNames,
    /// Names the span of a request that is sent on.
    pub sending_span: fn(&Request) -> String,
    /// The series of requests go here; `None`: requests are not counted.
    pub registry: Option<Registry>,
    /// Whether series tell one upstream from another: not if upstreams come and go, for series stay.
    pub names_upstreams: bool,
    /// Whether the request log may be [changed](Telemetry::change_request_log) later.
    pub changes_log: bool,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("tells", &self.sinks.is_some()).finish()
    }
}

impl Telemetry {
    /// Starts what the settings ask for, on the current runtime.
    pub fn start(params: TelemetryParams<'_>) -> Result<Self, TraceError> {
        let TelemetryParams {
            env,
            scope,
            resource,
            revision,
            sending_span,
            registry,
            names_upstreams,
            changes_log,
        } = params;
        let tracer = match &env.traces {
            Some(export) => Some(Tracer::start(export, scope, resource)?),
            None => None,
        };
        let log = RequestLog::start(&env.observability);
        let metrics = registry.map(|registry| HttpMetrics::new(registry, names_upstreams));
        let is_asked_for = metrics.is_some() || tracer.is_some() || log.is_some() || changes_log;
        let log = LogSlot::new(log);
        let sinks = is_asked_for.then(|| Arc::new(Sinks { metrics, tracer, log, revision, sending_span }));
        Ok(Telemetry { sinks })
    }

    /// Replaces the request log by what is asked for now; what was begun is written as it was asked for. Only of use if
    /// [`changes_log`](TelemetryParams::changes_log) was set.
    pub fn change_request_log(&self, asked: &Observability) {
        if let Some(sinks) = &self.sinks {
            sinks.log.set(RequestLog::start(asked));
        }
    }

    /// Begins to watch a request that has arrived; `None`: nothing of it is recorded.
    pub fn begin(&self, peer: SocketAddr, request: &mut Request) -> Option<Call> {
        Call::begin(self.sinks.as_ref()?, peer, request)
    }

    /// Begins a span for a part of the request's way. It ends when it is dropped.
    pub fn span(&self, request: &Request, name: &'static str) -> Span {
        match (self.tracer(), request.extensions().get::<Parent>()) {
            (Some(tracer), Some(parent)) => tracer.part(parent, name),
            _ => Span::none(),
        }
    }

    /// Begins a span as [`span`](Telemetry::span) does, and makes it the parent of the request's later spans.
    pub fn enter(&self, request: &mut Request, name: &'static str) -> Span {
        let span = self.span(request, name);
        if let Some(parent) = span.as_parent() {
            request.extensions_mut().insert(parent);
        }
        span
    }

    /// Begins to watch a request that is about to be sent to an upstream, and tells the upstream its trace; `None`:
    /// nothing of it is recorded.
    pub fn sending(&self, to: SocketAddr, request: &mut Request) -> Option<Sending> {
        self.sending_in(&Span::none(), to, request)
    }

    /// Begins to watch it as [`sending`](Telemetry::sending) does, as a part of `span`.
    pub fn sending_in(&self, span: &Span, to: SocketAddr, request: &mut Request) -> Option<Sending> {
        let sinks = self.sinks.as_ref()?;
        if sinks.metrics.is_none() && sinks.tracer.is_none() {
            return None;
        }
        Sending::begin(sinks, span.as_parent(), to, request)
    }

    /// Whether requests are counted.
    pub fn counts_requests(&self) -> bool {
        self.metrics().is_some()
    }

    /// Drops the series of requests whose revision is gone: of which nobody else holds the [`RevisionNames`].
    pub fn forget_gone_revisions(&self) {
        if let Some(metrics) = self.metrics() {
            metrics.forget_gone_revisions();
        }
    }

    /// Sends the spans and writes the lines that are left, but takes no longer than this.
    pub async fn finish(&self, limit: Duration) {
        let Some(sinks) = self.sinks.clone() else { return };
        if let Some(tracer) = &sinks.tracer {
            tracer.finish(limit).await;
        }
        if let Some(log) = sinks.log.current() {
            // The flush blocks a thread. Err: it panicked, which has been printed.
            let flush = move || log.flush(limit.min(LOG_FLUSH_LIMIT));
            let _ = tokio::task::spawn_blocking(flush).await;
        }
    }

    fn tracer(&self) -> Option<&Tracer> {
        self.sinks.as_ref()?.tracer.as_ref()
    }

    fn metrics(&self) -> Option<&HttpMetrics> {
        self.sinks.as_ref()?.metrics.as_ref()
    }
}

const LOG_FLUSH_LIMIT: Duration = Duration::from_secs(1);
