//! The end of `pilotlight run`: polite, impatient or brutal, and nothing is ever left behind.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use pilotlight_cli::load::{End, Load, RunningLoad};
use pilotlight_tests::http::get;
use pilotlight_tests::process::send;
use pilotlight_tests::run::Pilotlight;
use pilotlight_tests::{SOON, binary, eventually};
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
    let refused = async || get(pilotlight.address, "localhost", "/").await.err();
    eventually("nobody is accepted", SOON, refused).await;
    pilotlight.signal(Signal::INT);
    pilotlight.exit(SOON).await;
    // Cut off: its minute is not over.
    assert_eq!(load.finish().await.failed(), 1);
    pilotlight.nothing_is_left().await;
    // We ended it, neither its client nor its pod.
    let said = pilotlight.said();
    let summary = said.lines().find(|line| line.contains("\"event\":\"summary\"")).expect("a summary");
    let numbers: Value = serde_json::from_str(summary).expect("a line of JSON");
    let of = |name: &str| numbers[name].as_u64();
    assert_eq!((of("cut"), of("abandoned"), of("lost")), (Some(1), Some(0), Some(0)), "{numbers}");
}

#[tokio::test]
async fn a_reader_of_its_output_that_has_seen_enough_ends_nothing() {
    let mut command = Command::new(binary());
    command.args(["run", "--listen", "0", "--admin", "0", "--log-format", "json", "--sample"]);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
    let mut first = String::new();
    let mut out = BufReader::new(run.stdout.take().expect("piped"));
    out.read_line(&mut first).expect("a line");
    drop(out);
    let told: Value = serde_json::from_str(&first).expect("a line of JSON");
    let address = told["address"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    assert_eq!(get(address, "localhost", "/").await.expect("an answer").status, 200);
    send(run.id(), Signal::INT);
    let status = eventually("the exit", SOON, async || run.try_wait().expect("our child")).await;
    assert!(status.success(), "{status}");
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
