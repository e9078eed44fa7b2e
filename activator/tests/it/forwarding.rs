//! Forwarded requests, responses of the activator's own, and how both end.

use http::Request as HttpRequest;
use pilotlight_net::{Body, Request};
use tokio::io::AsyncReadExt;

use crate::harness::*;

fn request(headers: &[(&str, &str)]) -> Request {
    let builder = HttpRequest::builder().uri("//healthz");
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    builder.body(Body::empty()).unwrap()
}

async fn answer(world: &World, headers: &[(&str, &str)]) -> (u16, String) {
    let host = [("host", "nobody.example")];
    outcome(world.send(request(&[headers, &host].concat()))).await
}

#[tokio::test]
async fn the_pod_is_told_who_forwards_and_whom_the_client_asked_for() {
    let world = World::start(revision(0)).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    let sent = request(&[
        ("host", "HELLO.example:8080"),
        ("k-proxy-request", "forged"),
        ("k-network-hash", "abc"),
        ("k-network-probe", ""),
        ("knative-serving-revision", "hello"),
        ("knative-serving-namespace", "default"),
        ("connection", "keep-alive, x-private"),
        ("x-private", "1"),
        ("x-forwarded-for", "10.1.2.3"),
        ("te", "trailers"),
    ]);
    assert_eq!(outcome(world.send(sent)).await.0, 200);
    assert_eq!(pod.paths(), ["//healthz"]);
    let expected = [
        ("host", pod.address.to_string()),
        ("k-original-host", "HELLO.example:8080".to_owned()),
        ("k-proxy-request", "activator".to_owned()),
        ("x-forwarded-for", "10.1.2.3, 127.0.0.1".to_owned()),
        ("te", "trailers".to_owned()),
    ];
    for (name, value) in expected {
        assert_eq!(pod.header(name), value, "{name}");
    }
    for gone in ["k-network-hash", "knative-serving-revision", "knative-serving-namespace", "x-private"] {
        assert_eq!(pod.header(gone), "", "{gone}");
    }
}

#[tokio::test]
async fn an_original_host_that_is_there_already_stays() {
    let world = World::start(revision(0)).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    let sent = request(&[("host", HOST), ("k-original-host", "first.example")]);
    assert_eq!(outcome(world.send(sent)).await.0, 200);
    assert_eq!(pod.header("k-original-host"), "first.example");
}

#[tokio::test]
async fn what_is_not_there_is_a_404_in_knatives_words() {
    let world = World::start(revision(0)).await;
    let not_found = |name| {
        (404, format!("Error getting active endpoint: revision.serving.knative.dev \"{name}\" not found\n"))
    };
    let named = [("knative-serving-namespace", "default"), ("knative-serving-revision", "zzz")];
    assert_eq!(answer(&world, &named).await, not_found("zzz"));
    let sent = request(&[("host", "gone.default.svc.cluster.local:80")]);
    assert_eq!(outcome(world.send(sent)).await, not_found("gone"));
    assert_eq!(answer(&world, &[]).await, not_found(""));
    assert_eq!(world.activator.ledger().total.requests, 0);
}

#[tokio::test]
async fn locally_the_only_revision_answers_every_host() {
    let world = World::start_with(revision(0), |params| params.single_default = true).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(answer(&world, &[]).await.0, 200);
    world.delete_revision();
    eventually("it is gone", || world.activator.activity().is_empty()).await;
    let (status, text) = answer(&world, &[]).await;
    assert_eq!(status, 404);
    assert!(text.contains("no revision answers to the host \"nobody.example\""), "{text}");
}

#[tokio::test]
async fn probes_are_answered_as_knative_answers_them() {
    let autoscaler = FakeAutoscaler::start().await;
    let target = autoscaler.target();
    let world = World::start_with(revision(0), |params| params.autoscaler = target).await;
    eventually("the autoscaler is connected", || world.activator.connected()).await;
    let bad = |value: &str| (400, format!("unexpected probe header value: \"{value}\"\n"));
    let ok = |text: &str| (200, text.to_owned());
    let no_hash = "a probe request must contain a non-empty \"K-Network-Hash\" header\n";
    type Headers = &'static [(&'static str, &'static str)];
    let cases: [(Headers, (u16, String)); 8] = [
        (&[("user-agent", "kube-probe/1.30")], ok("")),
        (&[("k-kubelet-probe", "queue")], ok("")),
        (&[("k-network-probe", "probe"), ("k-network-hash", "abc")], ok("")),
        (&[("k-network-probe", "probe")], (400, no_hash.to_owned())),
        (&[("k-network-probe", "activator")], ok("activator")),
        (&[("k-network-probe", "queue")], bad("queue")),
        (&[("k-network-probe", "<b>")], bad("&lt;b&gt;")),
        // Empty: a request like any other, and nobody answers to this host.
        (&[("k-network-probe", "")], answer(&world, &[]).await),
    ];
    for (headers, expected) in &cases {
        assert_eq!(answer(&world, headers).await, *expected, "{headers:?}");
    }
    let sent = request(&[("host", HOST), ("k-network-probe", "probe"), ("k-network-hash", "abc")]);
    let response = soon(world.send(sent)).await.unwrap();
    assert_eq!(response.headers()["k-network-hash"], "abc");

    world.activator.drain().await;
    let stopping = (500, "received SIGTERM from kubelet\n".to_owned());
    assert_eq!(answer(&world, &[("user-agent", "kube-probe/1.30")]).await, stopping);
    assert_eq!(answer(&world, &[("k-network-probe", "probe"), ("k-network-hash", "abc")]).await, ok(""));
}

#[tokio::test]
async fn requests_in_flight_and_waiting_ones_outlive_the_drain() {
    let world = World::start(revision(1)).await;
    let pod = FakePod::start_blocked().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    let running = world.get();
    eventually("it runs", || world.active() == 1).await;
    let waiting = world.get_queued("/").await;
    world.activator.drain().await;
    world.drain.start();
    pod.may_answer.add_permits(2);
    assert_eq!(outcome(running).await.0, 200);
    assert_eq!(outcome(waiting).await.0, 200);
    soon(world.serving).await.unwrap();
    soon(world.activator.close()).await;
}

#[tokio::test]
async fn a_connect_wakes_nobody() {
    let world = World::start(revision(0)).await;
    let mut stream = world.send_raw("CONNECT example.com:443 HTTP/1.1\r\nHost: hello.example\r\n\r\n").await;
    let mut response = String::new();
    soon(stream.read_to_string(&mut response)).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 501 "), "{response}");
    assert_eq!(world.activator.ledger().total.requests, 0);
}
