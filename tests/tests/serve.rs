//! `pilotlight run` under requests: from nothing, to many, to nothing again, and no request lost.

use std::env;
use std::time::Duration;

use pilotlight_cli::latency::RequestSummary;
use pilotlight_cli::load::{End, Load, Mode};
use pilotlight_tests::manifest::{arg, file, service};
use pilotlight_tests::run::{Pilotlight, sample_command};
use pilotlight_tests::{SOON, eventually};

/// Stable window, grace period, drain, and time to spare: from the last request to no process.
const TO_ZERO: Duration = Duration::from_secs(60);
const CONNECTIONS: u32 = 200;
const HOUR: Duration = Duration::from_secs(3600);

/// A load that other code ends.
fn endless(load: Load) -> Load {
    Load { end: End::After(HOUR), ..load }
}

fn assert_all_succeeded(summary: &RequestSummary) {
    assert!(summary.requests > 0 && summary.failed() == 0, "{summary}");
}

#[tokio::test]
async fn the_first_request_is_served_from_zero_and_says_what_the_wait_was() {
    let pilotlight = Pilotlight::sample(&[]).await;
    assert_eq!(pilotlight.pods().len(), 0);
    let first = pilotlight.get("/?sleep=10").await;
    assert_eq!(first.status, 200, "{first:?}");
    assert!(first.body.starts_with("Slept for 10 ms.\n"), "{first:?}");
    assert!(first.header("server-timing").starts_with("cold-start;dur="), "{first:?}");
    assert_eq!(pilotlight.pods().len(), 1);
    let second = pilotlight.get("/").await;
    assert_eq!((second.status.as_u16(), second.header("server-timing")), (200, ""), "{second:?}");
}

#[tokio::test]
async fn cycles_from_zero_to_one_to_zero_lose_nothing() {
    let cycles = env::var("PILOTLIGHT_CYCLES").map_or(2, |count| count.parse().expect("a number of cycles"));
    let pilotlight = Pilotlight::sample(&[]).await;
    for cycle in 0..cycles {
        pilotlight.wait_for_pods(0, TO_ZERO).await;
        let load = Load { connections: 10, end: End::Requests(50), ..pilotlight.load("/?sleep=5") };
        let summary = load.run().await.expect("a legal load");
        assert_eq!((summary.requests, summary.succeeded()), (50, 50), "cycle {cycle}: {summary}");
    }
    pilotlight.wait_for_pods(0, TO_ZERO).await;
}

#[tokio::test]
async fn requests_that_meet_a_leaving_pod_lose_nothing() {
    let pilotlight = Pilotlight::sample(&[]).await;
    for cycle in 1..=2 {
        assert_eq!(pilotlight.get("/").await.status, 200);
        let leaving = async || (pilotlight.said().matches("Stopping pod").count() == cycle).then_some(());
        eventually("a pod that is leaving", TO_ZERO, leaving).await;
        let load = Load { connections: 20, end: End::Requests(200), ..pilotlight.load("/?sleep=5") };
        assert_all_succeeded(&load.run().await.expect("a legal load"));
    }
}

#[tokio::test]
async fn one_to_eight_to_one_under_two_hundred_connections_loses_nothing() {
    let pilotlight = Pilotlight::sample(&["--min", "1", "--max", "8", "--target", "10"]).await;
    pilotlight.wait_for_pods(1, SOON).await;

    let heavy = Load { connections: CONNECTIONS, ..pilotlight.load("/?sleep=100") };
    let heavy = endless(heavy).start().expect("a legal load");
    pilotlight.wait_for_pods(8, Duration::from_secs(30)).await;
    heavy.stop();
    assert_all_succeeded(&heavy.finish().await);

    let mode = Mode::Open { rate_per_second: 40.0 };
    let light = Load { connections: CONNECTIONS, mode, ..pilotlight.load("/?sleep=10") };
    let light = endless(light).start().expect("a legal load");
    pilotlight.wait_for_pods(1, TO_ZERO).await;
    light.stop();
    assert_all_succeeded(&light.finish().await);
}

#[tokio::test]
async fn a_hard_limit_is_kept_and_what_is_beyond_it_waits() {
    let pilotlight = Pilotlight::sample(&["--min", "1", "--max", "1", "--concurrency", "2"]).await;
    pilotlight.wait_for_pods(1, SOON).await;
    let load = Load { connections: 6, end: End::Requests(12), ..pilotlight.load("/?sleep=200") };
    let summary = load.run().await.expect("a legal load");
    assert_all_succeeded(&summary);
    // Two at a time, 200 ms each: the twelfth is done after 1.2 s at the earliest.
    assert!(summary.duration + summary.wait >= Duration::from_millis(1200), "{summary}");
}

#[tokio::test]
async fn two_services_are_told_apart_by_host() {
    let sample = sample_command();
    let sample: Vec<&str> = sample.iter().map(String::as_str).collect();
    let named = |name: &'static str| {
        let mut service = service(name, &[], &sample);
        let container = &mut service["spec"]["template"]["spec"]["containers"][0];
        container["env"] = serde_json::json!([{ "name": "POD_NAME", "value": format!("{name}-pod") }]);
        service
    };
    let manifest = file(&[named("red"), named("blue")]);
    let pilotlight = Pilotlight::run(["-f", arg(manifest.path())]).await;
    for (host, pod) in [("red.default.localhost", "red-pod"), ("BLUE.default.localhost:80", "blue-pod")] {
        let answer = pilotlight.get_from(host, "/").await;
        assert_eq!(answer.body, format!("Pod {pod}, 1 in flight.\n"), "{answer:?}");
    }
    let unknown = pilotlight.get_from("green.default.localhost", "/").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("red.default.localhost"), "{unknown:?}");
}
