//! `pilotlight sample` as a process: it starts, crashes and stops as it is told.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use pilotlight_tests::SOON;
use pilotlight_tests::eventually;
use pilotlight_tests::http::Answer;
use pilotlight_tests::run::run_to_end;
use pilotlight_tests::sample::Sample;
use pilotlight_tests::talk::{H2, Talk};
use rustix::process::Signal;

/// Waits until this many requests besides the asking one are in flight.
async fn until_in_flight(sample: &Sample, others: u32) {
    let wanted = format!(", {} in flight.", others + 1);
    let asked =
        async || sample.get("/").await.is_ok_and(|answer| answer.body.contains(&wanted)).then_some(());
    eventually("the requests in flight", SOON, asked).await;
}

#[tokio::test]
async fn sigterm_lets_requests_in_flight_end_and_takes_no_more() {
    let mut sample = Sample::start(&["--port", "0"], &[]).await;
    let slow = async { sample.get("/?sleep=1000").await.expect("an answer") };
    let terminate = async {
        until_in_flight(&sample, 1).await;
        sample.signal(Signal::TERM);
        eventually("a refusal", SOON, async || sample.get("/").await.err()).await;
    };
    let (Answer { status, body, .. }, ()) = tokio::join!(slow, terminate);
    assert_eq!(status, 200, "{body}");
    assert!(sample.exit(SOON).await.success());
}

#[tokio::test]
async fn a_second_signal_cuts_what_is_in_flight() {
    let mut sample = Sample::start(&["--port", "0"], &[]).await;
    let slow = async { sample.get("/?sleep=50000").await.expect_err("cut") };
    let terminate = async {
        until_in_flight(&sample, 1).await;
        sample.signal(Signal::TERM);
        eventually("a refusal", SOON, async || sample.get("/").await.err()).await;
        sample.signal(Signal::TERM);
    };
    tokio::join!(slow, terminate);
    sample.exit(SOON).await;
}

#[tokio::test]
async fn the_port_may_come_from_the_environment() {
    let sample = Sample::start(&[], &[("PORT", "0"), ("POD_NAME", "pod-7")]).await;
    assert_ne!(sample.address.port(), 0);
    assert_eq!(sample.get("/").await.expect("an answer").body, "Pod pod-7, 1 in flight.\n");
}

#[tokio::test]
async fn it_listens_only_after_its_start_up() {
    let start = Instant::now();
    let sample = Sample::start(&["--port", "0", "--startup", "300ms"], &[]).await;
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(sample.get("/healthz").await.expect("an answer").body, "ok\n");
}

#[tokio::test]
async fn health_is_answered_while_every_processor_computes() {
    let sample = Sample::start(&["--port", "0"], &[]).await;
    let prime = "/?prime=30000000";
    let computing = async { tokio::join!(sample.get(prime), sample.get(prime), sample.get(prime)) };
    let mut computing = std::pin::pin!(computing);
    let health = async {
        until_in_flight(&sample, 3).await;
        sample.get("/healthz").await.expect("an answer")
    };
    let health = tokio::select! {
        biased;
        health = health => health,
        _ = &mut computing => panic!("the computations were too short to ask meanwhile"),
    };
    assert_eq!(health.status, 200);
    let (answer, ..) = computing.await;
    assert!(answer.expect("an answer").body.starts_with("The largest prime below 30000000 is 29999999.\n"));
}

#[tokio::test]
async fn it_crashes_as_it_is_told() {
    let ended = run_to_end(["sample", "--port", "0", "--exit-after", "10ms", "--exit-code", "42"]).await;
    assert_eq!(ended.code, Some(42), "{ended:?}");
    assert!(ended.stderr.contains("exiting with 42"), "{ended:?}");
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let ended = run_to_end(["sample", "--port", &address.port().to_string()]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&format!("cannot listen on {address}")), "{ended:?}");
}

#[tokio::test]
async fn a_websocket_and_a_call_hear_what_they_say_and_a_polite_end_waits_for_them() {
    let mut sample = Sample::start(&["--port", "0"], &[("POD_NAME", "pod-7")]).await;
    let socket = Talk::socket(sample.address, "localhost").await.expect("a WebSocket");
    let mut connection = H2::connect(sample.address).await.expect("a connection");
    let call = Talk::call(&mut connection, "localhost").await.expect("a call");
    let mut talks = [socket, call];
    for talk in &mut talks {
        assert_eq!(talk.pod(), "pod-7");
        talk.say("one").await.expect("an echo");
        talk.say("").await.expect("an echo");
    }
    sample.signal(Signal::TERM);
    eventually("a refusal", SOON, async || sample.get("/").await.err()).await;
    for mut talk in talks {
        talk.say(&"x".repeat(100_000)).await.expect("an echo");
        talk.end().await.expect("a proper end");
    }
    assert!(sample.exit(SOON).await.success());
}
