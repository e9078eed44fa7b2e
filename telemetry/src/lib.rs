//! What a proxy tells of its requests: metrics, traces, the request log.
//!
//! A proxy says when a request [begins](Telemetry::begin), when a [part](Telemetry::span) of its way does, and when it
//! is [sent on](Telemetry::sending); what is made of that is decided here, by what the operator has asked for. Nobody
//! waits for any of it: spans and lines wait in bounded queues, are dropped when these are full, and are counted then.
//! Where nothing was asked for, nothing is noted, and it costs one comparison.

mod call;
mod http_metrics;
pub mod lines;
mod prometheus;
mod request_log;
mod traces;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use metrics::{Histogram, Key};
use pilotlight_config::process::TelemetryEnv;
use pilotlight_net::headers::{DEFAULT_ROUTE, TAG};
use pilotlight_net::{Request, is_probe};

pub use crate::call::{Call, OverTls, Sending};
use crate::http_metrics::HttpMetrics;
pub use crate::prometheus::{PrometheusError, prometheus_tls};
use crate::request_log::RequestLog;
use crate::traces::{Parent, Tracer};
pub use crate::traces::{Span, TraceError};

/// Tells of requests. All clones are the same.
#[derive(Clone, Default)]
pub struct Telemetry {
    // None: nobody wants to hear anything.
    shared: Option<Arc<Shared>>,
}

/// Who tells, and where the numbers go.
pub struct TelemetryParams<'a> {
    /// What is told, and to whom.
    pub env: &'a TelemetryEnv,
    /// Knative's name for the part of it that this is.
    pub scope: &'static str,
    /// What all spans have in common.
    pub resource: &'a [(&'static str, String)],
    /// Whose requests these are, for the request log; until it is [found out](Call::about).
    pub revision: RevisionNames,
    /// What the span of a request that is sent on is called.
    pub sending_span: fn(&Request) -> String,
    /// Makes the histograms of requests; `None`: they are not counted.
    pub histograms: Option<MakeHistogram>,
    /// Whether they tell one upstream from another: not if upstreams come and go, for series stay.
    pub names_upstreams: bool,
}

/// Makes a histogram.
pub type MakeHistogram = Box<dyn Fn(&Key) -> Histogram + Send + Sync>;

/// Whose request it is, as far as that is known. What is not is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RevisionNames {
    /// The revision.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The service it belongs to.
    pub service: String,
    /// The configuration it belongs to.
    pub configuration: String,
    /// The pod.
    pub pod_name: String,
    /// The pod's address.
    pub pod_ip: String,
}

struct Shared {
    metrics: Option<HttpMetrics>,
    tracer: Option<Tracer>,
    log: Option<RequestLog>,
    revision: RevisionNames,
    sending_span: fn(&Request) -> String,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("tells", &self.shared.is_some()).finish()
    }
}

impl Telemetry {
    /// Begins to tell, on the current runtime.
    pub fn start(params: TelemetryParams<'_>) -> Result<Self, TraceError> {
        let TelemetryParams { env, scope, resource, revision, sending_span, histograms, names_upstreams } =
            params;
        let tracer = match &env.traces {
            Some(export) => Some(Tracer::start(export, scope, resource)?),
            None => None,
        };
        let log = RequestLog::start(&env.observability);
        let metrics = histograms.map(|make| HttpMetrics::new(make, names_upstreams));
        let is_asked_for = metrics.is_some() || tracer.is_some() || log.is_some();
        let shared = is_asked_for.then(|| Arc::new(Shared { metrics, tracer, log, revision, sending_span }));
        Ok(Telemetry { shared })
    }

    /// A request has arrived; `None`: there is nothing to be told of it.
    pub fn begin(&self, peer: SocketAddr, request: &mut Request) -> Option<Call> {
        Call::begin(self.shared.as_ref()?, peer, request)
    }

    /// A part of the request's way begins. It ends when the span is dropped.
    pub fn span(&self, request: &Request, name: &'static str) -> Span {
        match (self.tracer(), request.extensions().get::<Parent>()) {
            (Some(tracer), Some(parent)) => tracer.part(parent, name),
            _ => Span::none(),
        }
    }

    /// The same, and what comes after it is a part of this one.
    pub fn enter(&self, request: &mut Request, name: &'static str) -> Span {
        let span = self.span(request, name);
        if let Some(parent) = span.as_parent() {
            request.extensions_mut().insert(parent);
        }
        span
    }

    /// The request is about to be sent to an upstream, which will see whose part that is; `None`: there is nothing to
    /// be told of it.
    pub fn sending(&self, to: SocketAddr, request: &mut Request) -> Option<Sending> {
        self.sending_in(&Span::none(), to, request)
    }

    /// The same, as a part of `span`.
    pub fn sending_in(&self, span: &Span, to: SocketAddr, request: &mut Request) -> Option<Sending> {
        let shared = self.shared.as_ref()?;
        if shared.metrics.is_none() && shared.tracer.is_none() {
            return None;
        }
        Sending::begin(shared, span.as_parent(), to, request)
    }

    /// Whether requests are counted here.
    pub fn counts_requests(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.metrics.is_some())
    }

    /// Tells what is left to be told, but takes no longer than this.
    pub async fn finish(&self, limit: Duration) {
        let Some(shared) = self.shared.clone() else { return };
        if let Some(tracer) = &shared.tracer {
            tracer.finish(limit).await;
        }
        if shared.log.is_some() {
            // It waits on a thread. The error is a panic, which has been printed.
            let flush = move || shared.log.as_ref().map(|log| log.flush(limit.min(LOG_FLUSH_LIMIT)));
            let _ = tokio::task::spawn_blocking(flush).await;
        }
    }

    fn tracer(&self) -> Option<&Tracer> {
        self.shared.as_ref()?.tracer.as_ref()
    }
}

/// Which traffic target the request was for: Knative's `kn.route.tag`.
fn route_tag(headers: &HeaderMap) -> Cow<'static, str> {
    let text = |name: &HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let tag = text(&TAG).filter(|tag| !tag.is_empty());
    let default = text(&DEFAULT_ROUTE).filter(|default| !default.is_empty());
    match (tag, default) {
        (None, None) => "kn:disabled".into(),
        (None, Some(_)) => "kn:default".into(),
        (Some(_), Some(default)) if default == "true" => "kn:undefined".into(),
        (Some(tag), _) => tag.into_owned().into(),
    }
}

/// Whether it is a request that traces and metrics are about.
fn is_counted(request: &Request) -> bool {
    !is_probe(request.headers())
}

const LOG_FLUSH_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_route_tag_is_knatives() {
        for (tag, default, expected) in [
            (None, None, "kn:disabled"),
            (None, Some("true"), "kn:default"),
            (None, Some("false"), "kn:default"),
            (Some("test"), Some("true"), "kn:undefined"),
            (Some("test"), Some("false"), "test"),
            (Some("test"), None, "test"),
        ] {
            let mut headers = HeaderMap::new();
            tag.map(|tag| headers.insert(TAG, HeaderValue::from_static(tag)));
            default.map(|default| headers.insert(DEFAULT_ROUTE, HeaderValue::from_static(default)));
            assert_eq!(route_tag(&headers), expected);
        }
    }
}
