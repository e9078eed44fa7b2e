//! The end of `pilotlight run`: polite, impatient or brutal, and nothing is ever left behind.

use pilotlight_cli::load::{End, Load, RunningLoad};
use pilotlight_tests::run::Pilotlight;
use pilotlight_tests::{SOON, eventually};
use rustix::process::Signal;
use serde_json::Value;

/// A run with one pod and one request in flight that takes this long.
async fn busy(millis: u32) -> (Pilotlight, RunningLoad) {
    let pilotlight = Pilotlight::sample(&["--min", "1"]).await;
    let load = Load { end: End::Requests(1), ..pilotlight.load(&format!("/?sleep={millis}")) };
    // Only when the pod is up does the request reach it at once.
    assert_eq!(pilotlight.get("/").await.status, 200);
    let load = load.start().expect("a legal load");
    let in_flight = async || {
        let other = pilotlight.get("/").await.body;
        other.contains(", 2 in flight.").then_some(())
    };
    eventually("the request in the pod", SOON, in_flight).await;
    (pilotlight, load)
}

#[tokio::test]
async fn ctrl_c_finishes_what_is_in_flight_and_sums_up() {
    stops_politely(Signal::INT).await;
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_sums_up() {
    stops_politely(Signal::TERM).await;
}

async fn stops_politely(signal: Signal) {
    let (mut pilotlight, load) = busy(2000).await;
    pilotlight.signal(signal);
    let summary = load.finish().await;
    assert_eq!(summary.succeeded(), 1, "{summary}");
    let status = pilotlight.exit(SOON).await;
    assert!(status.success(), "{status}");
    pilotlight.nothing_is_left().await;
    let said = pilotlight.said();
    let numbers: Value = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["event"] == "summary")
        .unwrap_or_else(|| panic!("no summary in\n{said}"));
    assert_eq!(
        (&numbers["lost"], &numbers["success_fraction"]),
        (&Value::from(0), &Value::from(1.0)),
        "{numbers}"
    );
    assert!(numbers["requests"].as_u64().is_some_and(|requests| requests >= 3), "{numbers}");
}

#[tokio::test]
async fn a_second_ctrl_c_ends_it_at_once() {
    let (mut pilotlight, load) = busy(60_000).await;
    pilotlight.signal(Signal::INT);
    // It has heard the first when it accepts nobody any more.
    let refused = async || pilotlight_tests::http::get(pilotlight.address, "localhost", "/").await.err();
    eventually("nobody is accepted", SOON, refused).await;
    pilotlight.signal(Signal::INT);
    pilotlight.exit(SOON).await;
    // Cut off: its minute is not over.
    assert_eq!(load.finish().await.failed(), 1);
    pilotlight.nothing_is_left().await;
}

#[tokio::test]
async fn kill_9_leaves_nothing() {
    let (mut pilotlight, load) = busy(60_000).await;
    pilotlight.signal(Signal::KILL);
    pilotlight.exit(SOON).await;
    assert_eq!(load.finish().await.failed(), 1);
    pilotlight.nothing_is_left().await;
}

#[tokio::test]
async fn ctrl_c_while_a_pod_is_starting_ends_soon() {
    let mut pilotlight = Pilotlight::run(["--min", "1", "--", "sleep", "1000"]).await;
    pilotlight.signal(Signal::INT);
    pilotlight.exit(SOON).await;
    pilotlight.nothing_is_left().await;
}
