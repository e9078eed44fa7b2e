//! Telemetry of requests: spans as a collector sees them, and OpenTelemetry's metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::BodyExt;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use pilotlight_config::process::TelemetryEnv;
use pilotlight_net::{Body, Drain, Handler, Request, Response};
use pilotlight_telemetry::{Registry, RevisionNames, Telemetry, TelemetryParams};
use prost::Message;

use crate::harness::*;

/// A collector of traces.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start() -> (Collector, SocketAddr) {
        let (address, listener) = listen().await;
        let collector = Collector::default();
        tokio::spawn(pilotlight_net::serve(listener, Arc::new(collector.clone()), Drain::default()));
        (collector, address)
    }

    fn span(&self, name: &str) -> Span {
        let spans = self.spans.lock();
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        spans
            .iter()
            .find(|span| span.name == name)
            .unwrap_or_else(|| panic!("no {name} in {names:?}"))
            .clone()
    }
}

impl Handler for Collector {
    async fn handle(&self, _: &pilotlight_net::Client, request: Request) -> Response {
        let message = request.into_body().collect().await.unwrap().to_bytes();
        let seen = ExportTraceServiceRequest::decode(message).unwrap().resource_spans;
        let scopes = seen.into_iter().flat_map(|resource| resource.scope_spans);
        self.spans.lock().extend(scopes.flat_map(|scope| scope.spans));
        Response::new(Body::empty())
    }
}

fn telemetry(config: &str, registry: Option<Registry>) -> Telemetry {
    let lookup = |name: &str| (name == "OBSERVABILITY_CONFIG").then(|| config.to_owned());
    let env = TelemetryEnv::from_env(lookup).unwrap();
    Telemetry::start(TelemetryParams {
        env: &env,
        scope: "test",
        resource: &[],
        revision: RevisionNames::default(),
        sending_span: |request: &Request| format!("{} {}", request.method(), request.uri().path()),
        registry,
        names_upstreams: false,
        changes_log: false,
    })
    .unwrap()
}

fn traces_to(collector: SocketAddr) -> Telemetry {
    let to = format!(r#""protocol":"http/protobuf","endpoint":"http://{collector}","samplingRate":1"#);
    telemetry(&format!(r#"{{"tracing":{{{to}}}}}"#), None)
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn the_way_of_a_held_request_is_four_spans_of_its_callers_trace() {
    let (collector, address) = Collector::start().await;
    let world = World::start_with(revision(1), |params| params.telemetry = traces_to(address)).await;
    let mut request = get("/a?b");
    let context = format!("00-{TRACE}-b7ad6b7169203331-01");
    request.headers_mut().insert("traceparent", context.parse().unwrap());
    let response = world.send(request);
    eventually("it waits", || world.queued() == 1).await;
    // The first attempt finds nobody there.
    let gone = listen().await.0;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_at(gone), pod.endpoint()]);
    assert_eq!(outcome(response).await.0, 200);
    let seen_by_pod = pod.header("traceparent");
    soon(world.activator.close()).await;

    let [server, trying, proxying, client] =
        ["GET", "throttler_try", "activator_proxy", "GET /a"].map(|name| collector.span(name));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&server.trace_id), TRACE);
    assert_eq!(hex(&server.parent_span_id), "b7ad6b7169203331");
    assert_eq!(trying.parent_span_id, server.span_id);
    assert_eq!(proxying.parent_span_id, server.span_id);
    assert_eq!(client.parent_span_id, proxying.span_id);
    let last = collector.spans.lock().iter().rev().find(|span| span.name == "GET /a").unwrap().clone();
    let clients = collector.spans.lock().iter().filter(|span| span.name == "GET /a").count();
    assert!((1..=2).contains(&clients), "each attempt is told: {clients}");
    assert_eq!(seen_by_pod, format!("00-{TRACE}-{}-01", hex(&last.span_id)));
    let name = server.attributes.iter().find(|attribute| attribute.key == "kn.revision.name").unwrap();
    let name = name.value.as_ref().and_then(|value| value.value.clone());
    assert_eq!(name, Some(Value::StringValue("hello".to_owned())));
}

#[tokio::test]
async fn a_request_without_a_pod_is_an_error_of_the_try_and_one_without_a_revision_of_nobody() {
    let (collector, address) = Collector::start().await;
    let world = World::start_with(revision(1), |params| params.telemetry = traces_to(address)).await;
    world.set(|revision| revision.trouble = Some(trouble(true)));
    assert_eq!(outcome(world.get()).await.0, 503);
    world.delete_revision();
    eventually("it has gone", || world.activator.activity().is_empty()).await;
    assert_eq!(outcome(world.get()).await.0, 404);
    soon(world.activator.close()).await;
    assert_eq!(collector.span("throttler_try").status.unwrap().code, 2);
    let statuses: Vec<_> = collector.spans.lock().iter().filter(|span| span.name == "GET").cloned().collect();
    assert_eq!(statuses.len(), 2, "both requests are told");
}

#[tokio::test]
async fn requests_are_counted_by_revision_on_both_sides() {
    let registry = Registry::new();
    let telemetry = telemetry("{}", Some(registry.clone()));
    let telling = telemetry.clone();
    let world = World::start_with(revision(1), |params| params.telemetry = telling).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(world.send(post("/", "hello"))).await.0, 200);
    let whose = r#"kn_revision_name="hello",k8s_namespace_name="default""#;
    let line = |start: &str| {
        let text = registry.render();
        text.lines().find(|line| line.starts_with(start) && line.contains(whose)).map(str::to_owned)
    };
    eventually("both sides", || line("http_server_request_duration_seconds_count{").is_some()).await;
    assert!(line("http_server_request_body_size_bytes_sum{").unwrap().ends_with(" 5"));
    assert!(line("http_server_response_body_size_bytes_sum{").unwrap().ends_with(" 3"));
    let client = line("http_client_request_duration_seconds_count{").unwrap();
    assert!(client.ends_with(" 1") && !client.contains("server_address"), "pods come and go: {client}");

    world.delete_revision();
    let is_told = || {
        telemetry.forget_gone_revisions();
        registry.render().contains(whose)
    };
    eventually("its series are gone with it", || !is_told()).await;
}
