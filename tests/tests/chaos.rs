//! Processes killed, stopped and choked while requests come: what recovers, how soon, and who pays.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use pilotlight_cli::load::{End, Load};
use pilotlight_tests::http::get;
use pilotlight_tests::process::{Bearer, send};
use pilotlight_tests::run::Pilotlight;
use pilotlight_tests::{SOON, binary, eventually};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::timeout;

/// Messages of the log about pods.
const STARTING: &str = "\"Starting pod\"";
const READY: &str = "\"Pod is ready\"";
const FAILED: &str = "\"Pod failed\"";

fn queue_proxies(pilotlight: &Pilotlight) -> Vec<Bearer> {
    let mut processes = pilotlight.processes();
    processes.retain(Bearer::is_queue_proxy);
    processes
}

/// What a failed test leaves behind would be busy for ever.
struct KilledWhenDropped(Child);

impl Drop for KilledWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_costs_lines_and_no_requests() {
    // Far more than a pipe holds, at once and without end.
    let script = "yes 'a line that nobody reads' >&2 & exec \"$0\" sample --port \"$PORT\"";
    let mut command = Command::new(binary());
    command.args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json", "--"]);
    command.args(["/bin/sh", "-c", script]).arg(binary());
    let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut process = KilledWhenDropped(process);
    // Open, and never read.
    let _stderr = process.0.stderr.take().expect("piped");
    let mut stdout = BufReader::new(process.0.stdout.take().expect("piped"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("a line");
    let first: Value = serde_json::from_str(&first).expect("a line of JSON");
    let address: SocketAddr = first["address"].as_str().and_then(|it| it.parse().ok()).expect("an address");

    for _ in 0..100 {
        // A request that waits for the reader of the log waits for ever.
        let answer = timeout(SOON, get(address, "localhost", "/")).await.expect("no request hangs");
        assert_eq!(answer.expect("an answer").status, 200);
    }
    send(process.0.id(), Signal::INT);
    let exited = async || process.0.try_wait().expect("our child");
    let status = eventually("the exit", SOON, exited).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_start_that_failed_does_not_slow_those_after_one_that_worked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The first start fails. All others take two seconds.
    let script =
        "mkdir \"$1/started\" 2>/dev/null && exit 1; exec \"$0\" sample --port \"$PORT\" --startup 2s";
    let args = ["--target", "1", "--max", "4", "--", "/bin/sh", "-c", script].map(str::to_owned);
    let own = [binary(), folder.path()].map(|path| path.display().to_string());
    let pilotlight = Pilotlight::run(args.into_iter().chain(own)).await;
    let load = Load { connections: 20, end: End::Requests(200), ..pilotlight.load("/?sleep=500") };
    let load = load.start().expect("a legal load");

    let ready = async || (pilotlight.said().matches(READY).count() == 4).then_some(());
    eventually("four ready pods", SOON, ready).await;
    // As long as starts fail, they are tried one at a time.
    assert_eq!(most_at_once(&pilotlight.said()), 3);
    let summary = load.finish().await;
    assert_eq!(summary.succeeded(), 200, "{summary}");
}

/// The most pods that were starting at the same time.
fn most_at_once(said: &str) -> usize {
    let (mut starting, mut most) = (0, 0);
    for line in said.lines() {
        if line.contains(STARTING) {
            starting += 1;
        } else if line.contains(READY) || line.contains(FAILED) {
            starting -= 1;
        }
        most = most.max(starting);
    }
    most
}

#[tokio::test]
async fn pods_that_are_killed_together_are_one_failure_and_not_many() {
    let pilotlight = Pilotlight::sample(&["--min", "5"]).await;
    pilotlight.wait_for_pods(5, SOON).await;
    assert_eq!(pilotlight.get("/").await.status, 200);
    let killed = pilotlight.pods();
    killed.iter().for_each(|pod| send(pod.pid, Signal::KILL));
    eventually("pods that are noticed to be gone", SOON, async || {
        let noticed = pilotlight.said().matches(FAILED).count() == 5;
        noticed.then_some(())
    })
    .await;
    // Three failures in a row would be told to the client, as a 503.
    let answer = pilotlight.get("/").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    pilotlight.wait_for_pods(5, SOON).await;
}

#[tokio::test]
async fn killed_helpers_are_replaced_and_nothing_is_left_in_the_end() {
    let mut pilotlight = Pilotlight::sample(&["--min", "2", "--max", "2"]).await;
    pilotlight.wait_for_pods(2, SOON).await;
    assert_eq!(pilotlight.get("/").await.status, 200);
    let guard = async || {
        let mut processes = pilotlight.processes();
        processes.retain(|process| process.command.get(1).is_some_and(|word| word == "__guard"));
        processes.pop()
    };
    let first = guard().await.expect("a guard process");
    send(first.pid, Signal::KILL);
    let proxy = queue_proxies(&pilotlight).pop().expect("a queue-proxy");
    send(proxy.pid, Signal::KILL);

    // Whoever starts the next pod finds the guard gone, and replaces it.
    eventually("another guard process", SOON, async || guard().await.filter(|it| it.pid != first.pid)).await;
    pilotlight.wait_for_pods(2, SOON).await;
    assert_eq!(pilotlight.get("/").await.status, 200);
    pilotlight.signal(Signal::KILL);
    pilotlight.exit(SOON).await;
    pilotlight.nothing_is_left().await;
}

#[tokio::test]
async fn a_pod_that_is_stopped_holds_up_its_own_requests_only() {
    let pilotlight = Pilotlight::sample(&["--min", "2", "--max", "2", "--timeout", "2s"]).await;
    pilotlight.wait_for_pods(2, SOON).await;
    assert_eq!(pilotlight.get("/").await.status, 200);
    eventually("two ready pods", SOON, async || {
        (pilotlight.said().matches(READY).count() == 2).then_some(())
    })
    .await;
    let stopped = queue_proxies(&pilotlight).pop().expect("a queue-proxy");
    send(stopped.pid, Signal::STOP);
    let load = Load { connections: 4, end: End::Requests(400), ..pilotlight.load("/?sleep=10") };
    let summary = load.run().await.expect("a legal load");
    send(stopped.pid, Signal::CONT);
    // At most one request of each connection runs into the stopped pod, again after each time limit.
    assert!(summary.succeeded() >= 380, "{summary}");
    assert_eq!(pilotlight.get("/").await.status, 200);
}
