//! The admin port, for machines and operators: metrics, health, and a few exact paths more.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use http::{HeaderValue, StatusCode, header};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{Body, Client, Handler, Request, Response, plain};

/// A small server of exact paths. Any other path is a 404 that lists them.
#[derive(Default)]
pub struct Admin {
    routes: BTreeMap<String, AdminRoute>,
}

type AdminResponse = Pin<Box<dyn Future<Output = Response> + Send>>;
type AdminRoute = Box<dyn Fn(Request) -> AdminResponse + Send + Sync>;

impl Admin {
    /// A server without paths.
    pub fn new() -> Self {
        Admin::default()
    }

    /// Answers requests for exactly `path`, of any method.
    pub fn route<F>(mut self, path: &str, answer: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        self.routes.insert(path.to_owned(), Box::new(move |request| Box::pin(answer(request))));
        self
    }

    /// `/metrics`: Prometheus text, made anew for each request.
    pub fn metrics(self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.route("/metrics", move |_| {
            let mut response = Response::new(Body::full(render()));
            let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            std::future::ready(response)
        })
    }

    /// `/healthz`: 200 as long as the process answers.
    pub fn healthz(self) -> Self {
        self.route("/healthz", |_| std::future::ready(plain(StatusCode::OK, "ok")))
    }

    /// `/readyz`: 200, or 503 with the reason.
    pub fn readyz(self, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.route("/readyz", move |_| {
            std::future::ready(match check() {
                Ok(()) => plain(StatusCode::OK, "ok"),
                Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, reason),
            })
        })
    }
}

impl Handler for Admin {
    async fn handle(&self, _client: &Client, request: Request) -> Response {
        match self.routes.get(request.uri().path()) {
            Some(answer) => answer(request).await,
            None => {
                let paths: Vec<&str> = self.routes.keys().map(String::as_str).collect();
                plain(StatusCode::NOT_FOUND, format!("404 page not found; known paths: {}", paths.join(", ")))
            }
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("paths", &self.routes.keys()).finish()
    }
}

/// A recorder with these labels on every series; with [`SIZE_BUCKETS`] for every histogram whose name ends in `_bytes`
/// and [`SECONDS_BUCKETS`] for all others.
pub fn metrics_builder(global_labels: &[(&str, String)]) -> PrometheusBuilder {
    let labelled = global_labels
        .iter()
        .fold(PrometheusBuilder::new(), |builder, (name, value)| builder.add_global_label(*name, value));
    // An empty list is the only error.
    let timed = labelled.set_buckets(&SECONDS_BUCKETS).unwrap_or_default();
    timed.set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &SIZE_BUCKETS).unwrap_or_default()
}

/// Makes the process's recorder. The handle renders the metrics; its `run_upkeep` must be called every few seconds, or
/// histograms grow.
pub fn install_metrics(global_labels: &[(&str, String)]) -> Result<PrometheusHandle, BuildError> {
    metrics_builder(global_labels).install_recorder()
}

/// Bounds of histograms of durations, in seconds, as Knative has them.
pub const SECONDS_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Bounds of histograms of sizes: OpenTelemetry's, for histograms without bounds of their own.
pub const SIZE_BUCKETS: [f64; 15] =
    [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];
