//! Ports with an identity: whose a request is, is said by the port that it came in at.

use std::sync::Arc;
use std::time::Duration;

use http::Request as HttpRequest;
use pilotlight_activator::{PortIdentity, PortSettings};
use pilotlight_core::{PodEndpoint, RevisionId};
use pilotlight_net::{Body, Drain, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::harness::*;

fn request(headers: &[(&str, &str)]) -> Request {
    let builder = HttpRequest::builder().uri("//path?query");
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    builder.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_port_says_whose_a_request_is_and_its_headers_are_the_apps() {
    let world = World::start(revision(0)).await;
    world.publish("other", revision(0));
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_with_port(pod.address)]);
    let port = world.open_port(PortSettings::default()).await;
    let sent = [
        ("host", "other.default.svc.cluster.local"),
        ("knative-serving-revision", "other"),
        ("knative-serving-namespace", "default"),
        ("k-proxy-request", "mine"),
        ("k-original-host", "first.example"),
        ("k-network-probe", "activator"),
        ("k-network-hash", "abc"),
        ("k-kubelet-probe", "queue"),
        ("user-agent", "Knative-Activator-Probe"),
    ];
    let hop = [("connection", "keep-alive, x-private"), ("x-private", "1"), ("x-forwarded-for", "10.1.2.3")];
    let response = port.send(request(&[&sent[..], &hop].concat()));
    assert_eq!(outcome(response).await, (200, "pod".to_owned()));
    assert_eq!(pod.paths(), ["//path?query"]);
    for (name, value) in sent {
        assert_eq!(pod.header(name), value, "{name}");
    }
    assert_eq!(pod.header("x-forwarded-for"), "10.1.2.3, 127.0.0.1");
    assert_eq!(pod.header("x-private"), "");
    assert_eq!(world.activator.ledger().total.requests, 1);
}

#[tokio::test]
async fn nothing_of_knatives_is_added() {
    let world = World::start(revision(0)).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_with_port(pod.address)]);
    let port = world.open_port(PortSettings::default()).await;
    assert_eq!(outcome(port.send(request(&[("host", "web:8080")]))).await.0, 200);
    assert_eq!(pod.header("host"), "web:8080");
    for name in ["k-proxy-request", "k-original-host", "k-passthrough-lb"] {
        assert_eq!(pod.header(name), "", "{name}");
    }
}

#[tokio::test]
async fn a_request_wakes_its_revision_and_a_pod_without_the_port_is_no_pod_for_it() {
    let autoscaler = FakeAutoscaler::start().await;
    let target = autoscaler.target();
    let world = World::start_with(revision(0), |params| params.autoscaler = target).await;
    let port = world.open_port(PortSettings::default()).await;
    let waiting = port.send(get("/"));
    eventually("it waits", || world.queued() == 1).await;
    eventually("it is told", || autoscaler.heard().first() == Some(&(1.0, 1.0))).await;
    let other = FakePod::start().await;
    let without = PodEndpoint { ports: Arc::new([("hello/grpc".to_owned(), 1)].into()), ..other.endpoint() };
    world.set(|revision| revision.ready = vec![without.clone()]);
    assert_eq!(outcome(world.get()).await.0, 200, "the pod is there for other ports");
    assert_eq!(world.queued(), 1);
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![without, pod_with_port(pod.address)]);
    let response = soon(waiting).await.unwrap();
    assert!(response.headers().contains_key("server-timing"), "its cold start is told");
    assert_eq!((pod.paths().len(), other.paths().len()), (1, 1));
}

#[tokio::test]
async fn the_limit_of_a_pod_holds_for_all_of_its_ports_together() {
    let world = World::start(revision(1)).await;
    let pod = FakePod::start_blocked().await;
    // The same server at either port.
    let both = PodEndpoint { address: pod.address, ..pod_with_port(pod.address) };
    world.set(|revision| revision.ready = vec![both]);
    let port = world.open_port(PortSettings::default()).await;
    let first = port.send(get("/first"));
    eventually("it is at the pod", || world.active() == 1).await;
    let second = world.get_queued("/second").await;
    pod.may_answer.add_permits(2);
    assert_eq!(outcome(first).await.0, 200);
    assert_eq!(outcome(second).await.0, 200);
    assert_eq!((pod.most_at_once(), pod.paths()), (1, vec!["/first".to_owned(), "/second".to_owned()]));
}

#[tokio::test]
async fn http_2_stays_http_2_and_its_authority_is_the_host() {
    let world = World::start(revision(0)).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_with_port(pod.address)]);
    let port = world.open_port(PortSettings::default()).await;
    let h2 = HttpRequest::post("/").version(http::Version::HTTP_2).header("host", "web");
    assert_eq!(outcome(port.send(h2.body(Body::full("body")).unwrap())).await, (200, "pod".to_owned()));
    assert_eq!((pod.versions(), pod.bodies()), (vec![http::Version::HTTP_2], vec!["body".to_owned()]));
    assert_eq!(pod.header("host"), "web");
}

#[tokio::test]
async fn a_client_may_upgrade_to_h2c() {
    let world = World::start(revision(0)).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_with_port(pod.address)]);
    let port = world.open_port(PortSettings::default()).await;
    let mut client = port.connect().await;
    let wish = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    client.write_all(format!("GET / HTTP/1.1\r\nHost: web\r\n{wish}").as_bytes()).await.unwrap();
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    eventually("the request is at the pod", || pod.paths() == ["/"]).await;
}

#[tokio::test]
async fn a_websocket_passes() {
    let world = World::start(revision(1)).await;
    let (address, listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod_with_port(address)]);
    let port = world.open_port(PortSettings::default()).await;
    let wish = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut client = port.connect().await;
    client.write_all(format!("GET / HTTP/1.1\r\nHost: web\r\n{wish}").as_bytes()).await.unwrap();
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    let head = read_until(&mut pod, "\r\n\r\n").await;
    assert!(head.contains("web\r\n"), "{head}");
    pod.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{wish}hello").as_bytes()).await.unwrap();
    read_until(&mut client, "hello").await;
    client.write_all(b"there").await.unwrap();
    assert_eq!(read_until(&mut pod, "there").await, "there");
    assert_eq!(world.active(), 1);
    drop((client, pod));
    eventually("all is over", || world.active() == 0).await;
}

#[tokio::test]
async fn a_pod_that_is_gone_costs_a_request_nothing() {
    let world = World::start(revision(1)).await;
    let gone = listen().await.0;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_with_port(gone)]);
    let port = world.open_port(PortSettings::default()).await;
    let waiting = port.send(post("/", "body"));
    eventually("it has tried", || world.activator.activity()[&hello()].last_error.is_some()).await;
    world.set(|revision| {
        revision.ready = vec![PodEndpoint { name: "b".into(), ..pod_with_port(pod.address) }];
    });
    assert_eq!(outcome(waiting).await, (200, "pod".to_owned()));
    assert_eq!(pod.bodies(), ["body"]);
}

#[tokio::test]
async fn a_request_waits_until_its_revision_is_known() {
    let world = World::start_uninformed().await;
    let port = world.open_port(PortSettings::default()).await;
    let waiting = port.send(get("/"));
    let pod = FakePod::start().await;
    let mut known = revision(0);
    known.ready = vec![pod_with_port(pod.address)];
    tokio::task::yield_now().await;
    world.inform(known);
    assert_eq!(outcome(waiting).await, (200, "pod".to_owned()));
}

#[tokio::test]
async fn where_no_revision_is_the_client_is_asked_to_come_back() {
    let world = World::start(revision(0)).await;
    let (address, listener) = listen().await;
    let identity = PortIdentity { revision: RevisionId::new("shop", "gone"), port: PORT.to_owned() };
    let settings = watch::Sender::new(Arc::<PortSettings>::default());
    let drain = Drain::default();
    tokio::spawn(world.activator.serve_port(listener, identity, settings.subscribe(), drain));
    let mut sent = get("/");
    let response = client().send(&pilotlight_net::Client::ourselves(), address, &mut sent).await.unwrap();
    assert_eq!((code(&response), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(response.headers()["x-pilotlight-reason"], "no-revision");
}

#[tokio::test]
async fn a_port_is_drained_by_itself() {
    let world = World::start(revision(0)).await;
    let pod = FakePod::start_blocked().await;
    world.set(|revision| revision.ready = vec![pod_with_port(pod.address)]);
    let port = world.open_port(PortSettings::default()).await;
    let running = port.send(get("/"));
    eventually("it is at the pod", || world.active() == 1).await;
    port.drain.start();
    pod.may_answer.add_permits(1);
    assert_eq!(outcome(running).await.0, 200);
    tokio::time::timeout(Duration::from_secs(10), port.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(port.address).await.is_err(), "the port is closed");
}

pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    soon(async {
        while !read.ends_with(end.as_bytes()) {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "closed before {end:?}");
        }
    })
    .await;
    String::from_utf8(read).unwrap()
}
