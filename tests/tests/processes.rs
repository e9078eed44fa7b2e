//! Activator and autoscaler side by side, as `docs/processes.md` describes them: each may die and come back, and
//! whoever waits is served.

use std::net::SocketAddr;

use pilotlight_core::{RevisionId, Rng, Stat};
use pilotlight_net::wire;
use pilotlight_tests::components::{Addresses, Component};
use pilotlight_tests::http::{Answer, get, send_raw};
use pilotlight_tests::process::Bearer;
use pilotlight_tests::run::sample_command;
use pilotlight_tests::{SOON, eventually, manifest};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// One service, asleep, and the two processes that serve it.
struct House {
    manifest: NamedTempFile,
    config: NamedTempFile,
    autoscaler: Component,
    activator: Component,
}

impl House {
    async fn start() -> House {
        let command = sample_command();
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let manifest = manifest::file(&[manifest::service("hello", &[], &command)]);
        let config = manifest::file(&[manifest::quick_config()]);
        let autoscaler = Component::autoscaler(Addresses::free(), manifest.path(), config.path()).await;
        let activator = Component::activator(Addresses::free(), autoscaler.at).await;
        House { manifest, config, autoscaler, activator }
    }

    /// In the place of the one that was.
    async fn start_autoscaler_again(&mut self) {
        let (at, manifest, config) = (self.autoscaler.at, self.manifest.path(), self.config.path());
        self.autoscaler = Component::autoscaler(at, manifest, config).await;
    }

    /// In the place of the one that was.
    async fn start_activator_again(&mut self) {
        self.activator = Component::activator(self.activator.at, self.autoscaler.at).await;
    }

    /// Sends a request in the background.
    fn ask(&self) -> JoinHandle<Answer> {
        let address = self.activator.at.address;
        tokio::spawn(async move { get(address, "hello.default.localhost", "/").await.expect("an answer") })
    }

    async fn is_served(&self) -> Answer {
        served(self.ask()).await
    }

    async fn queued(&self) -> u64 {
        let activity: Value =
            serde_json::from_str(&self.activator.admin("/v1/activity").await.body).expect("JSON");
        activity["default/hello"]["queued"].as_u64().expect("a number")
    }

    async fn activator_is_ready(&self) {
        let ready = async || (self.activator.admin("/readyz").await.status == 200).then_some(());
        eventually("the activator is ready", SOON, ready).await;
    }
}

async fn served(request: JoinHandle<Answer>) -> Answer {
    let answer = timeout(SOON, request).await.expect("served soon").expect("no panic");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

fn is_cold(answer: &Answer) -> bool {
    answer.header("server-timing").starts_with("cold-start;dur=")
}

#[tokio::test]
async fn both_tell_what_they_use_and_what_they_are() {
    let house = House::start().await;
    for (component, name) in [(&house.autoscaler, "autoscaler"), (&house.activator, "activator")] {
        let page = component.admin("/metrics").await.body;
        let target = format!("target_info{{service_name=\"{name}\",service_version=");
        for start in
            [&target, "process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds "]
        {
            assert!(page.lines().any(|line| line.starts_with(start)), "{start} in\n{page}");
        }
        assert_eq!(component.admin("/healthz").await.status, 200);
    }
}

#[tokio::test]
async fn the_queue_proxy_of_a_pod_is_the_small_executable_that_lies_beside() {
    let house = House::start().await;
    house.is_served().await;
    let proxies: Vec<Bearer> =
        house.autoscaler.processes().into_iter().filter(Bearer::is_queue_proxy).collect();
    let programs: Vec<&str> = proxies.iter().map(|proxy| proxy.command[0].as_str()).collect();
    let beside = pilotlight_tests::binary().with_file_name("pilotlight-queue-proxy");
    assert_eq!(programs, [manifest::arg(&beside)]);
}

#[tokio::test]
async fn a_request_from_zero_goes_through_separate_processes() {
    let house = House::start().await;
    assert_eq!(house.autoscaler.pods().len(), 0);
    // At once: neither the first table nor the connection for stats need be there yet.
    assert!(is_cold(&house.is_served().await));
    assert_eq!(house.autoscaler.pods().len(), 1);
    assert!(!is_cold(&house.is_served().await));
    house.activator_is_ready().await;
}

#[tokio::test]
async fn an_autoscaler_that_is_killed_takes_its_pods_along_and_the_next_serves_who_waited() {
    let mut house = House::start().await;
    house.is_served().await;
    house.activator_is_ready().await;
    assert!(house.activator.probe().await.contains(" 200 "));

    house.autoscaler.kill_9().await;
    let refused = async || house.activator.probe().await.contains(" 500 ").then_some(());
    eventually("probes fail", SOON, refused).await;
    assert_eq!(house.activator.admin("/readyz").await.status, 503);
    let waiting = [house.ask(), house.ask(), house.ask()];
    eventually("all wait", SOON, async || (house.queued().await == 3).then_some(())).await;

    house.start_autoscaler_again().await;
    for request in waiting {
        served(request).await;
    }
    assert_eq!(house.autoscaler.pods().len(), 1);
    house.activator_is_ready().await;
}

#[tokio::test]
async fn an_activator_that_is_killed_comes_back_and_requests_go_on() {
    let mut house = House::start().await;
    house.activator.kill_9().await;
    house.start_activator_again().await;
    assert!(is_cold(&house.is_served().await));
    let pods = house.autoscaler.pods();

    house.activator.kill_9().await;
    house.start_activator_again().await;
    assert!(!is_cold(&house.is_served().await), "its pod was there all the time");
    let numbers = |pods: &[Bearer]| pods.iter().map(|pod| pod.pid).collect::<Vec<_>>();
    assert_eq!(numbers(&house.autoscaler.pods()), numbers(&pods));
}

#[tokio::test]
async fn sigterm_ends_each_politely() {
    let mut house = House::start().await;
    house.is_served().await;
    house.activator_is_ready().await;
    let status = house.autoscaler.terminate().await;
    assert!(status.success(), "{status}");
    let told =
        async || (house.activator.times_said("Lost the connection to the autoscaler") == 1).then_some(());
    eventually("the activator has heard of it", SOON, told).await;
    assert!(
        house.activator.said().contains("closed by the autoscaler: it restarts"),
        "{}",
        house.activator.said()
    );
    let status = house.activator.terminate().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn garbage_at_the_stat_port_disturbs_nobody() {
    let house = House::start().await;
    house.activator_is_ready().await;
    let stats = house.autoscaler.at.address;
    let mut rng = Rng::new(20_240_229);
    for length in [1, 100, 10_000, 1_000_000] {
        let noise: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
        let answer = send_raw(stats, &noise).await.expect("a connection");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
    }
    // A client that says nothing at all, to the end of the test.
    let _silent = TcpStream::connect(stats).await.expect("a connection");

    let mut peer = WebSocket::open(stats).await;
    peer.send(TEXT, b"{\"concurrency\": 1}").await;
    peer.send(BINARY, b"").await;
    for length in [1, 10, 100] {
        let noise: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
        peer.send(BINARY, &noise).await;
    }
    let stat = Stat {
        pod_name: "an activator".to_owned(),
        average_concurrent_requests: 1.0,
        request_count: 1.0,
        ..Stat::default()
    };
    let nobody = RevisionId::new("default", "nobody");
    peer.send(BINARY, &wire::encode_stats(&[(nobody, stat.clone())])).await;
    assert_eq!(house.autoscaler.pods().len(), 0, "nothing so far was a reason to start one");
    // The same connection is still heard.
    let hello = RevisionId::new("default", "hello");
    peer.send(BINARY, &wire::encode_stats(&[(hello, stat)])).await;
    let pod = async || (house.autoscaler.pods().len() == 1).then_some(());
    eventually("a pod", SOON, pod).await;
    assert_eq!(house.autoscaler.times_said("Text frame dropped: stats are binary"), 1);
    assert!(house.autoscaler.times_said("Undecodable stats dropped") >= 1);

    // A frame of four exabytes ends the connection that announced it, and no other.
    peer.write(&[0x82, 0xff, 0x3f, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]).await;
    peer.is_closed().await;
    house.is_served().await;
    assert_eq!(house.activator.times_said("Connected to the autoscaler"), 1);
    assert_eq!(house.activator.times_said("Lost the connection to the autoscaler"), 0);
}

/// A client of the stat port that frames by hand, so that it can say what no library lets it say.
struct WebSocket(TcpStream);

impl WebSocket {
    async fn open(address: SocketAddr) -> WebSocket {
        let mut peer = WebSocket(TcpStream::connect(address).await.expect("a connection"));
        let handshake = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        peer.write(handshake.as_bytes()).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = timeout(SOON, peer.0.read_buf(&mut head)).await.expect("an answer soon");
            assert!(read.expect("readable") > 0, "no answer, but the end");
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        peer
    }

    /// One frame, masked with zeros.
    async fn send(&mut self, kind: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).expect("a short frame");
        self.write(&[&[kind, 0x80 | length, 0, 0, 0, 0], payload].concat()).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("writable");
    }

    /// Waits for the end; what comes before it does not matter.
    async fn is_closed(&mut self) {
        let mut rest = Vec::new();
        // An end or a reset: either way it is closed.
        let _ = timeout(SOON, self.0.read_to_end(&mut rest)).await.expect("closed soon");
    }
}

/// The first bytes of frames that are whole messages.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
