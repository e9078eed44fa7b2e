//! Pods that are limited, and pods that leave.

use std::time::Duration;

use futures_util::future::join_all;
use pilotlight_cli::load::{End, Load};
use pilotlight_tests::SOON;
use pilotlight_tests::http::{Answer, get, send_raw};
use pilotlight_tests::proxies::Proxy;
use pilotlight_tests::recorder::{Recorder, Seen};
use pilotlight_tests::run::Pilotlight;
use pilotlight_tests::sample::Sample;
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::interval;

#[tokio::test]
async fn a_hundred_at_once_for_ten_pods_of_one_place_each_are_all_served() {
    let burst = ["--annotation", "target-burst-capacity=-1"];
    let args = [&["--concurrency", "1", "--max", "10"], &burst[..]].concat();
    let pilotlight = Pilotlight::sample(&args).await;
    let load = Load { connections: 100, end: End::Requests(100), ..pilotlight.load("/?sleep=300") };
    let summary = load.run().await.expect("a legal load");
    assert_eq!(summary.succeeded(), 100, "{summary}");
}

#[tokio::test]
async fn an_app_of_one_place_never_sees_two_requests_at_once() {
    let pilotlight = Pilotlight::sample(&["--concurrency", "1", "--max", "2"]).await;
    let client = async || {
        for _ in 0..40 {
            let answer = pilotlight.get("/?sleep=20").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.body.ends_with(", 1 in flight.\n"), "{answer:?}");
        }
    };
    join_all((0..5).map(|_| client())).await;
}

#[tokio::test]
async fn a_pod_that_is_deleted_answers_all_that_came_before_and_while_the_news_spread() {
    let app = Sample::start(&["--port", "0"], &[]).await;
    let mut proxy = Proxy::queue_proxy(app.address, &[("PILOTLIGHT_DRAIN_QUIET_PERIOD", "1s")]).await;
    // One every 200 ms, each of which takes longer than all of them need to begin.
    let mut begin = interval(Duration::from_millis(200));
    let mut requests = Vec::new();
    for number in 0..8 {
        begin.tick().await;
        if number == 4 {
            proxy.signal(Signal::TERM);
        }
        let address = proxy.address;
        requests.push(tokio::spawn(async move { get(address, "localhost", "/?sleep=2000").await }));
    }
    let probe = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.34\r\nK-Network-Probe: queue\r\n\
                  Connection: close\r\n\r\n";
    let probed =
        String::from_utf8(send_raw(proxy.address, probe).await.expect("a connection")).expect("text");
    assert!(probed.starts_with("HTTP/1.1 503 ") && probed.ends_with("\r\n\r\nshutting down\n"), "{probed}");
    for answer in join_all(requests).await {
        let Answer { status, body, .. } = answer.expect("no panic").expect("an answer");
        assert_eq!(status, 200, "{body}");
    }
    assert!(proxy.exit(SOON).await.success());
    assert!(TcpStream::connect(proxy.address).await.is_err());
}

#[tokio::test]
async fn the_kubelet_is_let_go_after_a_second_if_only_the_app_restarts() {
    let app = Sample::start(&["--port", "0"], &[]).await;
    let mut proxy = Proxy::queue_proxy(app.address, &[("PILOTLIGHT_DRAIN_QUIET_PERIOD", "1h")]).await;
    let answer = get(proxy.at_port(8022), "localhost", "/wait-for-drain").await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""));
    assert!(proxy.is_running());
    let probe = b"GET / HTTP/1.1\r\nHost: a\r\nK-Network-Probe: probe\r\nK-Network-Hash: abc\r\n\
                  Connection: close\r\n\r\n";
    let probed =
        String::from_utf8(send_raw(proxy.address, probe).await.expect("a connection")).expect("text");
    assert!(probed.starts_with("HTTP/1.1 200 ") && probed.contains("K-Network-Hash: abc\r\n"), "{probed}");
}

#[tokio::test]
async fn readiness_is_asked_at_the_port_and_the_path_of_the_probe() {
    let (app, health) = (Sample::start(&["--port", "0"], &[]).await, Recorder::start().await);
    let probe = json!({ "successThreshold": 1, "httpGet": {
        "path": "/ready?deep=yes", "port": health.address.port(), "host": "127.0.0.1", "scheme": "HTTP",
    } });
    let proxy = Proxy::queue_proxy(app.address, &[("SERVING_READINESS_PROBE", &probe.to_string())]).await;
    let ask =
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.34\r\nK-Network-Probe: queue\r\n\
                Connection: close\r\n\r\n";
    let told = String::from_utf8(send_raw(proxy.address, ask).await.expect("a connection")).expect("text");
    assert!(told.starts_with("HTTP/1.1 200 ") && told.ends_with("\r\n\r\nqueue"), "{told}");
    let asked: Vec<String> = health.take_seen().iter().map(Seen::essence).collect();
    assert_eq!(asked, ["GET /ready?deep=yes \"\""]);
}
