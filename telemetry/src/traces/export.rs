//! Export of finished spans: into a bounded queue, and from there in batches to a collector, over OTLP, or as lines to
//! standard output. One task; a span that ends waits for nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use opentelemetry::trace::{SpanId, Status};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use parking_lot::Mutex;
use pilotlight_config::process::{OtlpEndpoint, TraceReceiver};
use pilotlight_net::grpc::{self, GrpcError};
use pilotlight_net::tls::{ClientTls, TlsError};
use pilotlight_net::{Body, Drain, Error, Request, once};
use prost::Message;
use serde_json::{Value, json};
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::lines::Lines;

/// Why there can be no traces.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// TLS to the collector cannot be set up.
    #[error("cannot send traces over TLS")]
    Tls(#[from] TlsError),
    /// A header for the collector is malformed.
    #[error("cannot send traces with the header `{0}`: it is not legal")]
    Header(String),
    /// Standard output cannot be written to.
    #[error("cannot write traces to standard output")]
    Stdout(#[source] io::Error),
}

/// Takes spans as they end.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    dropped: Arc<AtomicU64>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                warn!(dropped, "Spans are dropped: they come faster than they can be sent");
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends spans on.
pub(super) struct Exporter {
    stop: Drain,
    task: Mutex<Option<JoinHandle<()>>>,
    dropped: Arc<AtomicU64>,
}

impl Exporter {
    /// Starts the task.
    pub(super) fn start(
        receiver: &TraceReceiver,
        resource: &Resource,
    ) -> Result<(Queue, Exporter), TraceError> {
        let sink = Sink::new(receiver, resource)?;
        let (queue, spans, exporter) = Exporter::new();
        let worker =
            Worker { sink, spans, stop: exporter.stop.clone(), dropped: Arc::clone(&exporter.dropped) };
        *exporter.task.lock() = Some(tokio::spawn(worker.run()));
        Ok((queue, exporter))
    }

    fn new() -> (Queue, mpsc::Receiver<SpanData>, Exporter) {
        let (sender, spans) = mpsc::channel(MAX_QUEUED);
        let dropped = Arc::<AtomicU64>::default();
        let exporter =
            Exporter { stop: Drain::default(), task: Mutex::default(), dropped: Arc::clone(&dropped) };
        (Queue { spans: sender, dropped }, spans, exporter)
    }

    #[cfg(test)]
    pub(super) fn to_nobody() -> (Queue, Exporter) {
        let (queue, _, exporter) = Exporter::new();
        (queue, exporter)
    }

    /// Sends what is left, but takes no longer than this.
    pub(super) async fn finish(&self, limit: Duration) {
        self.stop.start();
        let task = self.task.lock().take();
        if let Some(task) = task
            && timeout(limit, task).await.is_err()
        {
            warn!(?limit, "Gave up sending the last spans");
        }
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            info!(dropped, "Spans were dropped");
        }
    }
}

struct Worker {
    sink: Sink,
    spans: mpsc::Receiver<SpanData>,
    stop: Drain,
    dropped: Arc<AtomicU64>,
}

impl Worker {
    /// Runs until no span can end any more, or until it was asked to stop and everything has been sent.
    async fn run(mut self) {
        let mut is_failing = false;
        loop {
            let mut batch = Vec::new();
            let first = tokio::select! {
                first = self.spans.recv() => first,
                () = self.stop.started() => self.spans.try_recv().ok(),
            };
            let Some(first) = first else { return };
            batch.push(first);
            // A request to stop may come while the rest of a batch is waited for.
            let filled = async {
                while batch.len() < BATCH {
                    let room = BATCH - batch.len();
                    if self.spans.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = filled => {}
                () = sleep(self.sink.batch_delay()) => {}
                () = self.stop.started() => {}
            }
            while batch.len() < BATCH
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
            is_failing = self.send(batch, is_failing).await;
        }
    }

    /// Sends a batch, with attempts. Returns whether it failed in the end.
    async fn send(&self, batch: Vec<SpanData>, was_failing: bool) -> bool {
        let spans = batch.len() as u64;
        let message = self.sink.encode(batch);
        let mut pauses = RETRY_PAUSES.iter();
        let failure = loop {
            match self.sink.send(&message).await {
                Ok(rejected) => {
                    if rejected > 0 {
                        warn!(rejected, "The collector rejected spans");
                        self.dropped.fetch_add(rejected, Ordering::Relaxed);
                    }
                    if was_failing {
                        info!("The collector takes spans again");
                    }
                    return false;
                }
                Err(failure) => match pauses.next() {
                    Some(pause) if failure.may_pass() && !self.stop.is_started() => tokio::select! {
                        () = sleep(*pause) => {}
                        () = self.stop.started() => {}
                    },
                    _ => break failure,
                },
            }
        };
        self.dropped.fetch_add(spans, Ordering::Relaxed);
        if !was_failing {
            warn!(error = %failure, spans, "The collector does not take spans, dropping them");
        }
        true
    }
}

/// The receiver of spans.
enum Sink {
    Stdout(Lines),
    Otlp(Box<Collector>),
}

struct Collector {
    endpoint: OtlpEndpoint,
    tls: Option<ClientTls>,
    headers: HeaderMap,
    resource: ResourceAttributesWithSchema,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum SendFailure {
    #[error("cannot find {0}")]
    Resolve(String),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Failed(#[from] Error),
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    #[error("status code {}", .0.as_u16())]
    Status(StatusCode),
}

impl SendFailure {
    /// Whether another attempt may go better; the list is OTLP's.
    fn may_pass(&self) -> bool {
        match self {
            SendFailure::Resolve(_) | SendFailure::TimedOut(_) | SendFailure::Failed(_) => true,
            SendFailure::Status(status) => matches!(status.as_u16(), 429 | 502..=504),
            SendFailure::Grpc(GrpcError::Failed(_) | GrpcError::Http(_)) => true,
            SendFailure::Grpc(GrpcError::Status { code, .. }) => matches!(code, 1 | 4 | 10 | 11 | 14 | 15),
            SendFailure::Grpc(_) => false,
        }
    }
}

impl Sink {
    fn new(receiver: &TraceReceiver, resource: &Resource) -> Result<Sink, TraceError> {
        let endpoint = match receiver {
            TraceReceiver::Otlp(endpoint) => endpoint.clone(),
            TraceReceiver::Stdout => {
                let lost: fn(u64) -> String = |lost| {
                    warn!(lost, "Spans were dropped: nobody read standard output");
                    String::new()
                };
                return Lines::start("traces", io::stdout(), lost)
                    .map(Sink::Stdout)
                    .map_err(TraceError::Stdout);
            }
        };
        let tls = match (endpoint.is_secure, &endpoint.certificate) {
            (false, _) => None,
            (true, Some(bundle)) => Some(ClientTls::to(&endpoint.host, std::slice::from_ref(bundle))?),
            (true, None) => Some(ClientTls::to(&endpoint.host, &SYSTEM_BUNDLES.map(PathBuf::from))?),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &endpoint.headers {
            let illegal = || TraceError::Header(name.clone());
            let legal_name = HeaderName::try_from(name).map_err(|_| illegal())?;
            headers.append(legal_name, HeaderValue::try_from(value).map_err(|_| illegal())?);
        }
        Ok(Sink::Otlp(Box::new(Collector { endpoint, tls, headers, resource: resource.into() })))
    }

    /// Time to wait for more spans to send at once.
    fn batch_delay(&self) -> Duration {
        match self {
            Sink::Stdout(_) => Duration::ZERO,
            Sink::Otlp(_) => BATCH_DELAY,
        }
    }

    fn encode(&self, batch: Vec<SpanData>) -> Vec<u8> {
        match self {
            Sink::Stdout(_) => batch.iter().map(|span| line(span) + "\n").collect::<String>().into_bytes(),
            Sink::Otlp(collector) => {
                let resource_spans = group_spans_by_resource_and_scope(batch, &collector.resource);
                ExportTraceServiceRequest { resource_spans }.encode_to_vec()
            }
        }
    }

    /// Spans that the collector took and then rejected.
    async fn send(&self, message: &[u8]) -> Result<u64, SendFailure> {
        match self {
            Sink::Stdout(lines) => {
                lines.push(message.to_vec());
                Ok(0)
            }
            Sink::Otlp(collector) => {
                let limit = collector.endpoint.timeout;
                timeout(limit, collector.send(message)).await.map_err(|_| SendFailure::TimedOut(limit))?
            }
        }
    }
}

impl Collector {
    async fn send(&self, message: &[u8]) -> Result<u64, SendFailure> {
        let (host, port) = (self.endpoint.host.as_str(), self.endpoint.port);
        let found = lookup_host((host, port)).await.ok().and_then(|mut addresses| addresses.next());
        let to = found.ok_or_else(|| SendFailure::Resolve(host.to_owned()))?;
        let mut headers = self.headers.clone();
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        if let Ok(host) = HeaderValue::try_from(authority) {
            headers.insert(header::HOST, host);
        }
        let answer = if self.endpoint.is_grpc {
            grpc::call(to, self.tls.as_ref(), EXPORT, headers, message).await?
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            let mut request = Request::new(Body::full(message.to_vec()));
            *request.method_mut() = Method::POST;
            *request.version_mut() = Version::HTTP_11;
            *request.headers_mut() = headers;
            *request.uri_mut() = self.endpoint.path.parse().unwrap_or_default();
            let answer = once::ask(to, self.tls.as_ref(), request, MAX_ANSWER_BYTES).await?;
            if !answer.status.is_success() {
                return Err(SendFailure::Status(answer.status));
            }
            answer.body.unwrap_or_default()
        };
        // Some collectors do not answer in protobuf; the status has said that the batch was taken.
        let partial =
            ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
        Ok(partial.map_or(0, |partial| partial.rejected_spans.try_into().unwrap_or(0)))
    }
}

/// A span as a line of JSON.
fn line(span: &SpanData) -> String {
    let nanos = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let attributes = span.attributes.iter();
    let attributes: serde_json::Map<String, Value> =
        attributes.map(|it| (it.key.to_string(), it.value.to_string().into())).collect();
    let parent = (span.parent_span_id != SpanId::INVALID).then(|| span.parent_span_id.to_string());
    let error = match &span.status {
        Status::Error { description } => Some(description.to_string()),
        _ => None,
    };
    let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
    json!({
        "name": span.name, "kind": format!("{:?}", span.span_kind).to_lowercase(),
        "trace_id": span.span_context.trace_id().to_string(),
        "span_id": span.span_context.span_id().to_string(), "parent_id": parent,
        "start_unix_nanos": nanos(span.start_time), "duration_seconds": took.as_secs_f64(),
        "attributes": attributes, "error": error,
    })
    .to_string()
}

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// OpenTelemetry's defaults: spans that may wait, spans in a message, time to fill a message.
const MAX_QUEUED: usize = 2048;
const BATCH: usize = 512;
const BATCH_DELAY: Duration = Duration::from_secs(5);
const RETRY_PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(9)];
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Files in which systems keep the authorities they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanKind, TraceFlags, TraceId, TraceState};
    use opentelemetry::{InstrumentationScope, KeyValue};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    fn span() -> SpanData {
        let (trace, span) = (TraceId::from(7), SpanId::from(8));
        let start_time = UNIX_EPOCH + Duration::from_secs(1);
        SpanData {
            span_context: SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Server,
            name: "GET".into(),
            start_time,
            end_time: start_time + Duration::from_millis(250),
            attributes: vec![KeyValue::new("url.path", "/\"x")],
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::error("no"),
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, mut spans, exporter) = Exporter::new();
        for _ in 0..MAX_QUEUED + 3 {
            queue.on_end(span());
        }
        assert_eq!(exporter.dropped.load(Ordering::Relaxed), 3);
        assert!(spans.try_recv().is_ok());
        queue.on_end(span());
        assert_eq!(exporter.dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_span_is_a_line_of_json() {
        let told: Value = serde_json::from_str(&line(&span())).unwrap();
        assert_eq!(told["trace_id"], "00000000000000000000000000000007");
        assert_eq!((&told["parent_id"], &told["kind"]), (&Value::Null, &"server".into()));
        assert_eq!((&told["duration_seconds"], &told["error"]), (&0.25.into(), &"no".into()));
        assert_eq!(told["attributes"]["url.path"], "/\"x");
        assert!(!line(&span()).contains('\n'));
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, again) in [(429, true), (503, true), (400, false), (500, false)] {
            assert_eq!(
                SendFailure::Status(StatusCode::from_u16(status).unwrap()).may_pass(),
                again,
                "{status}"
            );
        }
        for (code, again) in [(14, true), (3, false), (16, false)] {
            let failure = SendFailure::Grpc(GrpcError::Status { code, message: String::new() });
            assert_eq!(failure.may_pass(), again, "{code}");
        }
    }
}
