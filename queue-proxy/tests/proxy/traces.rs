//! Spans, as a collector sees them.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use parking_lot::Mutex;
use pilotlight_net::{Body, Response};
use prost::Message;

use crate::support::{GET, Running, app, body, env, mirror, nobody, send, soon, status};

/// A collector of traces, by HTTP or by gRPC.
struct Collector {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<ResourceSpans>>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    async fn start() -> Collector {
        let (seen, heads) =
            (Arc::<Mutex<Vec<ResourceSpans>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (taken, noted) = (Arc::clone(&seen), Arc::clone(&heads));
        let address = app(move |request| {
            let (taken, noted) = (Arc::clone(&taken), Arc::clone(&noted));
            async move {
                let (head, body) = request.into_parts();
                let mut message = body.collect().await.unwrap().to_bytes();
                let key = head.headers.get("api-key").map(|key| key.to_str().unwrap()).unwrap_or_default();
                noted.lock().push(format!(
                    "{:?} {} {} {} {key}",
                    head.version,
                    head.method,
                    head.uri.path(),
                    head.headers[header::CONTENT_TYPE].to_str().unwrap()
                ));
                let is_grpc = head.version == Version::HTTP_2;
                if is_grpc {
                    message.advance(5);
                }
                taken.lock().extend(ExportTraceServiceRequest::decode(message).unwrap().resource_spans);
                if is_grpc { grpc_answer() } else { Response::new(Body::empty()) }
            }
        })
        .await;
        Collector { address, seen, heads }
    }

    fn spans(&self) -> Vec<Span> {
        let seen = self.seen.lock();
        let scopes = seen.iter().flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn span(&self, name: &str) -> Span {
        let spans = self.spans();
        let found = spans.iter().find(|span| span.name == name).cloned();
        found.unwrap_or_else(|| {
            panic!("no {name} in {:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>())
        })
    }
}

fn grpc_answer() -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0"))), Ok(Frame::trailers(trailers))];
    Response::new(Body::stream(StreamBody::new(stream::iter(frames))))
}

fn tracing_config(protocol: &str, to: SocketAddr, rate: f64) -> String {
    format!(
        r#"{{"tracing":{{"protocol":"{protocol}","endpoint":"http://{to}","samplingRate":{rate}}},
            "requestMetrics":{{"protocol":"prometheus"}}}}"#
    )
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

/// Ends the queue-proxy, which sends what is left.
async fn finish(mut proxy: Running) {
    proxy.terminate();
    soon("the end", &mut proxy.task).await.unwrap();
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn the_way_of_a_request_is_four_spans_of_its_callers_trace() {
    for (protocol, expected) in [
        ("http/protobuf", "HTTP/1.1 POST /v1/traces application/x-protobuf secret"),
        (
            "grpc",
            "HTTP/2.0 POST /opentelemetry.proto.collector.trace.v1.TraceService/Export application/grpc secret",
        ),
    ] {
        let collector = Collector::start().await;
        let config = tracing_config(protocol, collector.address, 0.5);
        let settings = [
            ("CONTAINER_CONCURRENCY", "1"),
            ("OBSERVABILITY_CONFIG", config.as_str()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret"),
        ];
        let proxy = Running::start(env(mirror().await, &settings)).await;
        let request = format!("{GET}\ntraceparent: 00-{TRACE}-{CALLER}-01\nbaggage: a=b\ntracestate: v=1");
        let response = proxy.ask(&request).await;
        proxy
            .ask(&format!("{GET}\nUser-Agent: curl\nK-Network-Probe: x\ntraceparent: 00-{TRACE}-{CALLER}-01"))
            .await;
        finish(proxy).await;

        assert_eq!(collector.heads.lock()[..], [expected]);
        let [server, proxying, waiting, client] =
            ["GET", "kn.queueproxy.proxy", "kn.queueproxy.wait", "HTTP GET"].map(|name| collector.span(name));
        assert_eq!(collector.spans().len(), 4, "nothing is told of probes");
        for span in [&server, &proxying, &waiting, &client] {
            assert_eq!(hex(&span.trace_id), TRACE, "{}", span.name);
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{}", span.name);
        }
        assert_eq!(hex(&server.parent_span_id), CALLER);
        assert_eq!(proxying.parent_span_id, server.span_id);
        assert_eq!(waiting.parent_span_id, proxying.span_id);
        assert_eq!(client.parent_span_id, proxying.span_id);
        assert!(waiting.end_time_unix_nano <= client.start_time_unix_nano);
        // Server, internal, internal, client.
        assert_eq!([server.kind, proxying.kind, waiting.kind, client.kind], [2, 1, 1, 3]);
        assert_eq!(attribute(&server.attributes, "http.response.status_code").as_deref(), Some("200"));
        assert_eq!(attribute(&server.attributes, "url.path").as_deref(), Some("/"));

        let seen_by_app = body(&response);
        assert!(
            seen_by_app.contains(&format!("traceparent: 00-{TRACE}-{}-01", hex(&client.span_id))),
            "{seen_by_app}"
        );
        assert!(
            seen_by_app.contains("baggage: a=b") && seen_by_app.contains("tracestate: v=1"),
            "{seen_by_app}"
        );

        let resource = collector.seen.lock()[0].resource.clone().unwrap().attributes;
        assert_eq!(attribute(&resource, "service.name").as_deref(), Some("hello"));
        assert_eq!(attribute(&resource, "kn.revision.name").as_deref(), Some("hello-00001"));
    }
}

#[tokio::test]
async fn without_a_limit_nothing_waits_and_there_are_three() {
    let collector = Collector::start().await;
    let config = tracing_config("http/protobuf", collector.address, 1.0);
    let proxy = Running::start(env(mirror().await, &[("OBSERVABILITY_CONFIG", config.as_str())])).await;
    proxy.ask(GET).await;
    finish(proxy).await;
    let mut names: Vec<String> = collector.spans().into_iter().map(|span| span.name).collect();
    names.sort();
    assert_eq!(names, ["GET", "HTTP GET", "kn.queueproxy.proxy"]);
    assert!(collector.span("GET").parent_span_id.is_empty(), "the trace begins here");
}

#[tokio::test]
async fn a_failure_is_an_error_on_the_spans_it_concerns() {
    let collector = Collector::start().await;
    let config = tracing_config("http/protobuf", collector.address, 1.0);
    let proxy = Running::start(env(nobody(), &[("OBSERVABILITY_CONFIG", config.as_str())])).await;
    assert_eq!(status(&proxy.ask(GET).await), 502);
    finish(proxy).await;
    let (server, client) = (collector.span("GET"), collector.span("HTTP GET"));
    assert_eq!(attribute(&client.attributes, "error.type").as_deref(), Some("connect"));
    assert_eq!(attribute(&server.attributes, "error.type").as_deref(), Some("502"));
    for span in [server, client] {
        assert_eq!(span.status.unwrap().code, 2, "{}", span.name);
    }
}

#[tokio::test]
async fn what_its_caller_does_not_want_traced_is_not_but_the_app_hears_of_it() {
    let collector = Collector::start().await;
    let config = tracing_config("http/protobuf", collector.address, 0.99);
    let proxy = Running::start(env(mirror().await, &[("OBSERVABILITY_CONFIG", config.as_str())])).await;
    let response = proxy.ask(&format!("{GET}\ntraceparent: 00-{TRACE}-{CALLER}-00")).await;
    assert!(body(&response).contains(&format!("traceparent: 00-{TRACE}-")), "{response}");
    finish(proxy).await;
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn without_tracing_a_trace_passes_as_it_is_and_none_begins() {
    let proxy = Running::start(env(mirror().await, &[])).await;
    let context = format!("traceparent: 00-{TRACE}-{CALLER}-01");
    let seen = proxy.ask(&format!("{GET}\n{context}\ntracestate: v=1\nbaggage: a=b")).await;
    for line in [context.as_str(), "tracestate: v=1", "baggage: a=b"] {
        assert!(body(&seen).contains(line), "{line} in {seen}");
    }
    assert!(!proxy.ask(GET).await.contains("traceparent"));
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_request_and_no_more_than_its_time_in_the_end() {
    let config = tracing_config("grpc", nobody(), 1.0);
    let proxy = Running::start(env(mirror().await, &[("OBSERVABILITY_CONFIG", config.as_str())])).await;
    for _ in 0..10 {
        assert_eq!(status(&proxy.ask(GET).await), 200);
    }
    finish(proxy).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_spans() {
    let collector = Collector::start().await;
    let config = tracing_config("http/protobuf", collector.address, 1.0);
    let gate = crate::support::Gate::closed().await;
    let proxy = Running::start(env(gate.address, &[("OBSERVABILITY_CONFIG", config.as_str())])).await;
    let client = send(proxy.at.requests, GET).await;
    gate.holds(1).await;
    drop(client);
    // The request is over when the queue-proxy's count is back at zero.
    crate::support::until("the series", async || {
        proxy.metrics().await.contains(r#"error_type="client_left""#)
    })
    .await;
    finish(proxy).await;
    assert_eq!(collector.span("GET").status.unwrap().message, "the client left");
}
