//! The queue-proxy's reports to the autoscaler and its metrics for Prometheus.

use http::{HeaderValue, StatusCode};
use pilotlight_net::tls::ClientTls;
use pilotlight_net::{Body, Request, Response, once};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::{GET, Gate, Running, app, ask, ask_bytes, body, env, mirror, nobody, status, until};

#[tokio::test]
async fn the_report_is_protobuf_whatever_the_scraper_accepts() {
    let proxy = Running::start(env(mirror().await, &[])).await;
    for accept in ["application/protobuf", "text/plain", "*/*"] {
        let (head, report) =
            ask_bytes(proxy.at.stats, &format!("GET /metrics HTTP/1.1\nAccept: {accept}")).await;
        assert_eq!(status(&head), 200);
        assert!(head.contains("\r\nContent-Type: application/protobuf\r\n"), "{head}");
        assert!(report.starts_with(b"\x0a\x05pod-1"));
    }
}

#[tokio::test]
async fn requests_of_the_activator_are_counted_as_such_too() {
    let proxy = Running::start(env(mirror().await, &[])).await;
    proxy.next_report().await;
    let response = proxy.ask("GET / HTTP/1.1\nK-Proxy-Request: activator").await;
    assert!(body(&response).contains("k-proxy-request: activator"), "the app sees the marker");
    let report = proxy.next_report().await;
    assert_eq!((report.request_count, report.proxied_request_count), (1.0, 1.0));
    proxy.ask("GET / HTTP/1.1\nK-Proxy-Request: other").await;
    let report = proxy.next_report().await;
    assert_eq!((report.request_count, report.proxied_request_count), (1.0, 0.0));
}

#[tokio::test]
async fn requests_that_wait_count_as_load() {
    let gate = Gate::closed().await;
    let proxy = Running::start(env(gate.address, &[("CONTAINER_CONCURRENCY", "1")])).await;
    let asking: Vec<_> = (0..4).map(|_| tokio::spawn(ask(proxy.at.requests, GET))).collect();
    gate.holds(1).await;
    let mut report = proxy.next_report().await;
    if report.average_concurrent_requests < 4.0 {
        report = proxy.next_report().await;
    }
    assert!((report.average_concurrent_requests - 4.0).abs() < 1e-9, "{report:?}");
    gate.let_through(4);
    for response in asking {
        response.await.unwrap();
    }
}

async fn metric(proxy: &Running, start: &str) -> Option<String> {
    proxy.metrics().await.lines().find(|line| line.starts_with(start)).map(str::to_owned)
}

#[tokio::test]
async fn durations_are_told_by_status_and_probes_are_left_out() {
    let proxy = Running::start(env(mirror().await, &[])).await;
    proxy.ask(GET).await;
    proxy.ask("GET / HTTP/1.1\nK-Network-Probe: activator").await;
    let count = "kn_serving_invocation_duration_seconds_count{";
    until("the series", async || metric(&proxy, count).await.is_some()).await;
    let line = metric(&proxy, count).await.unwrap();
    for label in [r#"otel_scope_name="knative.dev/serving/pkg/queue""#, r#"http_response_status_code="200""#]
    {
        assert!(line.contains(label), "{label} in {line}");
    }
    assert!(line.ends_with(" 1"), "{line}");
    let bucket = metric(&proxy, "kn_serving_invocation_duration_seconds_bucket{").await.unwrap();
    assert!(bucket.contains(r#"le="0.005""#), "{bucket}");
}

#[tokio::test]
async fn a_response_that_breaks_off_is_told_as_a_500() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Running::start(env(listener.local_addr().unwrap(), &[])).await;
    let asking = tokio::spawn(ask(proxy.at.requests, GET));
    let (mut in_app, _) = listener.accept().await.unwrap();
    in_app.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart").await.unwrap();
    drop(in_app);
    let response = asking.await.unwrap();
    assert!(body(&response).len() < 9, "{response}");
    let series = async || metric(&proxy, "kn_serving_invocation_duration_seconds_count{").await;
    until("the series", async || series().await.is_some()).await;
    assert!(series().await.unwrap().contains(r#"http_response_status_code="500""#));
}

#[tokio::test]
async fn the_depth_of_the_queue_is_a_gauge() {
    let proxy = Running::start(env(mirror().await, &[("CONTAINER_CONCURRENCY", "3")])).await;
    proxy.ask(GET).await;
    assert!(metric(&proxy, "kn_serving_queue_depth{").await.is_some());
}

#[tokio::test]
async fn requests_are_told_from_both_sides_and_the_target_is_named() {
    let app = mirror().await;
    let app_port = app.port();
    let proxy = Running::start(env(app, &[])).await;
    proxy.ask("GET / HTTP/1.1\nHost: hello.example:8080\nKnative-Serving-Tag: blue").await;
    proxy.ask("GET / HTTP/1.1\nUser-Agent: curl\nK-Network-Probe: activator").await;
    let server = "http_server_request_duration_seconds_count{";
    until("the series", async || metric(&proxy, server).await.is_some()).await;
    let server = metric(&proxy, server).await.unwrap();
    for label in [
        r#"http_request_method="GET""#,
        r#"url_scheme="http""#,
        r#"server_address="hello.example",server_port="8080""#,
        r#"network_protocol_name="http",network_protocol_version="1.1""#,
        r#"http_response_status_code="200""#,
        r#"kn_route_tag="blue""#,
    ] {
        assert!(server.contains(label), "{label} in {server}");
    }
    assert!(server.ends_with(" 1"), "no probes: {server}");
    let client = metric(&proxy, "http_client_request_duration_seconds_count{").await.unwrap();
    let app = format!(r#"server_address="127.0.0.1",server_port="{app_port}""#);
    assert!(client.contains(&app) && client.ends_with(" 1"), "{client}");
    let size = metric(&proxy, "http_server_response_body_size_bytes_sum{").await.unwrap();
    assert!(!size.ends_with(" 0"), "{size}");
    let target = metric(&proxy, "target_info{").await.unwrap();
    assert!(
        target.contains(r#"service_name="hello""#) && target.contains(r#"k8s_pod_name="pod-1""#),
        "{target}"
    );
    assert!(metric(&proxy, "process_resident_memory_bytes ").await.is_some());
}

#[tokio::test]
async fn without_a_protocol_there_are_no_metrics_and_no_port_for_them() {
    let proxy = Running::start(env(mirror().await, &[("OBSERVABILITY_CONFIG", "")])).await;
    assert_eq!(status(&proxy.ask(GET).await), 200);
    assert_eq!(proxy.at.user_metrics, None);
}

#[tokio::test]
async fn errors_of_the_queue_proxy_itself_say_why_to_machines() {
    let reason = |response: &str| {
        let line = response.lines().find_map(|line| line.strip_prefix("X-Pilotlight-Reason: ")?.into());
        line.map(str::to_owned)
    };
    let gate = Gate::closed().await;
    let slow = Running::start(env(gate.address, &[("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "1")])).await;
    let response = slow.ask(GET).await;
    assert_eq!((status(&response), reason(&response).as_deref()), (504, Some("timeout")));
    let response = Running::start(env(nobody(), &[])).await.ask(GET).await;
    assert_eq!((status(&response), reason(&response).as_deref()), (502, Some("app-failed")));
    let gateway = app(|_| async {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
        response.headers_mut().insert("x-pilotlight-reason", HeaderValue::from_static("its own"));
        response
    });
    let response = Running::start(env(gateway.await, &[])).await.ask(GET).await;
    assert_eq!((status(&response), reason(&response)), (504, None), "an app does not speak for us");
}

#[tokio::test]
async fn prometheus_is_answered_over_tls_where_there_is_a_certificate_for_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let pair = rcgen::generate_simple_self_signed(["metrics.example".to_owned()]).unwrap();
    std::fs::write(path("crt"), pair.cert.pem()).unwrap();
    std::fs::write(path("key"), pair.signing_key.serialize_pem()).unwrap();
    let (certificate, key) = (path("crt"), path("key"));
    let files = [("METRICS_PROMETHEUS_TLS_CERT", &*certificate), ("METRICS_PROMETHEUS_TLS_KEY", &*key)];
    let proxy = Running::start(env(mirror().await, &files)).await;
    let tls = ClientTls::to("metrics.example", &[path("crt").into()]).unwrap();
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "/metrics".parse().unwrap();
    let answer = once::ask(proxy.at.user_metrics.unwrap(), Some(&tls), request, 1 << 20).await.unwrap();
    assert!(answer.status == StatusCode::OK && answer.body.as_ref().unwrap().starts_with(b"#"), "{answer:?}");
    assert!(!proxy.metrics().await.contains("HTTP"), "in the clear it is no more than an alert");
}
