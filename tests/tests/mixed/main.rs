//! Everything a data plane carries, at once, while the pods under it come and go: 200 HTTP/1.1 connections, 20
//! HTTP/2 connections of ten streams each, 20 WebSockets and 10 gRPC streams, over one service that goes from one pod
//! to eight and back to one.
//!
//! Nothing may be lost, and nothing cut without cause. There are two causes: the client has ended it, or it has
//! lasted as long as the revision's timeout allows, which here is longer than the test. That its pod is to go is
//! no cause: a pod that leaves takes nothing new, and stays until the conversations it has are over. So
//!
//! * a request is lost if it is answered by anything but a 200 with its whole body;
//! * an HTTP/1.1 or HTTP/2 connection is cut if it takes no further request, for each is opened once, at the
//!   start, and used to the end;
//! * a conversation is cut if a word is not said back, or if its end is not the one its protocol has.

mod clients;

use std::time::Duration;

use pilotlight_tests::run::Pilotlight;
use pilotlight_tests::{eventually, http};
use rustix::process::Signal;
use serde_json::Value;

use crate::clients::{Clients, Phase};

/// How long the way to eight pods may take, and the way back: windows of six seconds, twice over.
const SCALING: Duration = Duration::from_secs(40);

/// The pods of the service, by phase, as the autoscaler counts them.
async fn pods(pilotlight: &Pilotlight, phase: &str) -> u64 {
    let answer = http::get(pilotlight.admin, "localhost", "/v1/decisions").await.expect("an answer");
    let decisions: Value = serde_json::from_str(&answer.body).expect("JSON");
    decisions[0]["evaluation"]["pods"][phase].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_cut_while_one_pod_becomes_eight_and_one_again() {
    // 430 at once ask for eight pods of 56; the 30 that talk, and a few requests, for one.
    let args = ["--sample", "--min", "1", "--max", "8", "--target", "80", "--utilization", "70"];
    let mut pilotlight = Pilotlight::run(args).await;
    pilotlight.wait_for_pods(1, SCALING).await;

    let mut clients = Clients::start(pilotlight.address).await;
    eventually("eight pods are in service", SCALING, async || {
        clients.fail_early();
        (pods(&pilotlight, "ready").await == 8).then_some(())
    })
    .await;
    clients.every_kind_goes_on().await;
    clients.short_conversations_begin_anew().await;
    clients.several_pods_talk().await;
    // From here on no conversation that has begun ends, so that those at the seven pods that go are among them.
    clients.enter(Phase::Calm);
    eventually("one pod is left in service", SCALING, async || {
        clients.fail_early();
        (pods(&pilotlight, "ready").await == 1).then_some(())
    })
    .await;
    // Past the moment of quiet after which pods without conversations are gone. The others stay.
    clients.every_kind_goes_on().await;
    clients.every_kind_goes_on().await;
    let [serving, leaving] = [pods(&pilotlight, "ready").await, pods(&pilotlight, "terminating").await];

    let done = clients.finish().await;
    println!("{done}; {leaving} pods were leaving while conversations went on");
    let held = done.pods_held.len() as u64;
    assert!(held > serving, "no conversation held a pod that was to go, and this test shows nothing: {done}");
    assert!(
        serving + leaving >= held,
        "pods have gone before their conversations: {serving} and {leaving}, {done}"
    );
    pilotlight.wait_for_pods(1, SCALING).await;
    pilotlight.signal(Signal::INT);
    assert!(pilotlight.exit(SCALING).await.success());
    let said = pilotlight.said();
    let summary = said.lines().find(|line| line.contains("\"event\":\"summary\"")).expect("a summary");
    let summary: Value = serde_json::from_str(summary).expect("JSON");
    assert!(done.failures.is_empty(), "{:#?}", done.failures);
    assert_eq!(summary["lost"], 0, "{summary}");
}
