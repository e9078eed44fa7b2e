//! `pilotlight run` with apps, clients and manifests that are wrong: each gets a clear answer, in time, and nobody
//! else suffers.

use std::time::{Duration, Instant};

use pilotlight_cli::load::{End, Load};
use pilotlight_tests::http::{Answer, get, send_raw};
use pilotlight_tests::manifest::{arg, file, service, text_file};
use pilotlight_tests::run::{Pilotlight, run_to_end, sample_command};
use pilotlight_tests::{SOON, binary};
use tokio::time::timeout;

fn sample(args: &[&str]) -> Vec<String> {
    let mut command = vec![binary().display().to_string(), "sample".to_owned()];
    command.extend(args.iter().map(|&word| word.to_owned()));
    command
}

/// The answer of a broken app: no client waits for it until its own patience is at an end.
async fn soon(answer: impl Future<Output = Answer>) -> Answer {
    timeout(SOON, answer).await.expect("an answer and no hanging")
}

#[tokio::test]
async fn an_app_that_exits_at_once_is_reported_and_the_others_are_not_disturbed() {
    let script = "echo 'no such table: users' >&2; exit 3";
    let good = sample_command();
    let good: Vec<&str> = good.iter().map(String::as_str).collect();
    let manifest = file(&[service("bad", &[], &["/bin/sh", "-c", script]), service("good", &[], &good)]);
    let pilotlight = Pilotlight::run(["-f", arg(manifest.path())]).await;

    let host = Some("good.default.localhost".to_owned());
    let load = Load { host, connections: 4, end: End::Requests(400), ..pilotlight.load("/?sleep=10") };
    let load = load.start().expect("a legal load");
    let answer = soon(pilotlight.get_from("bad.default.localhost", "/")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("x-pilotlight-reason"), "exited", "{answer:?}");
    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{answer:?}");
    assert!(answer.body.contains("no such table: users") && answer.body.contains('3'), "{answer:?}");
    let good = load.finish().await;
    assert_eq!(good.succeeded(), 400, "{good}");
}

#[tokio::test]
async fn an_app_that_does_not_exist_is_refused_before_anything_starts() {
    let ended = run_to_end(["run", "--listen", "127.0.0.1:0", "--", "no-such-program", "{port}"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("no-such-program"), "{ended:?}");
}

#[tokio::test]
async fn an_app_that_never_listens_is_reported_by_the_deadline() {
    let pilotlight = Pilotlight::run(["--startup-timeout", "2s", "--", "sleep", "1000"]).await;
    never_ready(&pilotlight).await;
}

#[tokio::test]
async fn an_app_on_the_wrong_port_is_reported_by_the_deadline() {
    let app = sample(&["--port", "0"]);
    let args = ["--startup-timeout", "2s", "--"].map(str::to_owned).into_iter().chain(app);
    let pilotlight = Pilotlight::run(args).await;
    let answer = never_ready(&pilotlight).await;
    assert!(answer.body.contains("listen"), "{answer:?}");
}

#[tokio::test]
async fn an_app_that_listens_elsewhere_is_reported_after_seconds_not_after_its_whole_time() {
    let app = sample(&["--port", "0"]);
    let args = ["--startup-timeout", "1h", "--"].map(str::to_owned).into_iter().chain(app);
    let pilotlight = Pilotlight::run(args).await;
    let answer = soon(pilotlight.get("/")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-pilotlight-reason")),
        (503, "never-ready"),
        "{answer:?}"
    );
    assert!(answer.body.contains("it listens on port ") && answer.body.contains("{port}"), "{answer:?}");
    // The log is written beside the answer.
    let warned = "\"level\":\"WARN\",\"message\":\"Pod failed\"";
    let told = async || pilotlight.said().contains(warned).then_some(());
    pilotlight_tests::eventually("a warning in the log", SOON, told).await;
}

#[tokio::test]
async fn an_app_that_listens_out_of_reach_is_reported_after_seconds_too() {
    let app = sample(&["--port", "{port}", "--host", "127.0.0.9"]);
    let args = ["--startup-timeout", "1h", "--max", "1", "--"].map(str::to_owned).into_iter().chain(app);
    let pilotlight = Pilotlight::run(args).await;
    let answer = soon(pilotlight.get("/")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer.body.contains("it listens on 127.0.0.9:") && answer.body.contains("not on 127.0.0.1"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_app_with_a_port_of_its_own_runs_where_there_is_one_pod() {
    let port = free_port().to_string();
    let app = sample(&["--port", &port]);
    let app: Vec<&str> = app.iter().map(String::as_str).collect();
    let args = ["--max", "1", "--name", "one", "--"].iter().chain(&app);
    let pilotlight = Pilotlight::run(args).await;
    let answer = soon(pilotlight.get("/")).await;
    assert_eq!(answer.status, 200, "{answer:?}");

    let mut declared = service("declared", &[], &app);
    let container = &mut declared["spec"]["template"]["spec"]["containers"][0];
    container["ports"] = serde_json::json!([{ "containerPort": port.parse::<u16>().unwrap() }]);
    drop(pilotlight);
    let manifest = file(&[declared]);
    let pilotlight = Pilotlight::run(["-f", arg(manifest.path())]).await;
    assert_eq!(soon(pilotlight.get("/")).await.status, 200);
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

#[tokio::test]
async fn an_app_that_goes_into_the_background_is_told_to_stay() {
    let pilotlight = Pilotlight::run(["--", "sh", "-c", "exit 0"]).await;
    let answer = soon(pilotlight.get("/")).await;
    assert!(answer.body.contains("exited with code 0: it has to stay in the foreground"), "{answer:?}");
}

#[tokio::test]
async fn a_command_without_port_is_said_to_have_none_at_the_start() {
    let hint = "add {port} to its command";
    let pilotlight = Pilotlight::run(["--", "sleep", "1000"]).await;
    let said = async || pilotlight.said().contains(hint).then_some(());
    pilotlight_tests::eventually("the hint", SOON, said).await;
    let told = Pilotlight::sample(&[]).await;
    assert_eq!(told.get("/").await.status, 200);
    assert!(!told.said().contains(hint), "{}", told.said());
}

#[tokio::test]
async fn lines_of_apps_go_where_they_are_sent() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sample = sample_command().join(" ");
    let app =
        ["--name", "chat", "--", "sh", "-c", &format!("echo I am here; exec {sample}")].map(str::to_owned);
    let started = async |target: &str| {
        let args = ["--app-logs", target].map(str::to_owned).into_iter().chain(app.clone());
        let pilotlight = Pilotlight::run(args).await;
        assert_eq!(soon(pilotlight.get("/")).await.status, 200);
        pilotlight
    };
    let logged = |pilotlight: &Pilotlight| pilotlight.said().contains("I am here").then_some(());
    let screen = started("screen").await;
    pilotlight_tests::eventually("the line in the log", SOON, async || logged(&screen)).await;
    let file = folder.path().join("lines/default/chat-1.log");
    let to_file = started(arg(&folder.path().join("lines"))).await;
    let written = async || std::fs::read_to_string(&file).ok().filter(|text| text.starts_with("I am here\n"));
    pilotlight_tests::eventually("the line in the file", SOON, written).await;
    let off = started("off").await;
    assert_eq!((logged(&to_file), logged(&off)), (None, None));
}

#[tokio::test]
async fn a_crash_loop_is_told_everywhere_and_the_first_request_after_the_repair_is_served() {
    let repaired = std::env::temp_dir().join(format!("pilotlight-repaired-{}", std::process::id()));
    let script = format!(
        "test -e {} || {{ echo 'RuntimeError: DATABASE_URL is not set' >&2; exit 7; }}; exec \"$0\" \"$@\"",
        repaired.display()
    );
    let app = sample_command();
    let command = ["--name", "crash", "--", "sh", "-c", &script].map(str::to_owned);
    let pilotlight = Pilotlight::run(command.iter().chain(&app)).await;
    let answer = soon(pilotlight.get("/")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("DATABASE_URL is not set"), "{answer:?}");

    let admin = pilotlight.admin.to_string();
    let cause = ", exit code 7: RuntimeError: DATABASE_URL is not set; ";
    pilotlight_tests::eventually("explain tells the cause", SOON, async || {
        let explained = run_to_end(["explain", "--admin", &admin, "crash"]).await.stdout;
        (explained.contains("  crashing (") && explained.contains(cause)).then_some(())
    })
    .await;
    let page = async |path| get(pilotlight.admin, "localhost", path).await.expect("an answer").body;
    let decisions: serde_json::Value = serde_json::from_str(&page("/v1/decisions").await).expect("JSON");
    assert_eq!(decisions[0]["trouble"]["exit_code"], 7, "{decisions:#}");
    let failed = "pilotlight_pods_failed_total{";
    let metrics = page("/metrics").await;
    let exited = metrics.lines().find(|line| line.starts_with(failed) && line.contains("\"exited\""));
    assert!(exited.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");

    std::fs::write(&repaired, "").expect("a file in the temporary folder");
    // A second after the last failure, a request has a start tried and waits for it.
    let served = pilotlight_tests::eventually("a request is served", SOON, async || {
        Some(soon(pilotlight.get("/")).await).filter(|answer| answer.status == 200)
    });
    served.await;
    std::fs::remove_file(&repaired).expect("it is there");
}

async fn never_ready(pilotlight: &Pilotlight) -> Answer {
    let start = Instant::now();
    let answer = soon(pilotlight.get("/")).await;
    assert!([503, 504].contains(&answer.status.as_u16()), "{answer:?}");
    assert_eq!(answer.header("x-pilotlight-reason"), "never-ready", "{answer:?}");
    assert!(start.elapsed() >= Duration::from_secs(2), "before its deadline");
    answer
}

#[tokio::test]
async fn an_app_that_starts_slowly_is_waited_for() {
    let app = sample(&["--port", "{port}", "--startup", "3s"]);
    let pilotlight = Pilotlight::run(["--".to_owned()].into_iter().chain(app)).await;
    let start = Instant::now();
    let answer = pilotlight.get("/").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(start.elapsed() >= Duration::from_secs(3), "before it listened");
}

#[tokio::test]
async fn an_app_that_crashes_is_started_again() {
    let app = sample(&["--port", "{port}", "--exit-after", "1s"]);
    let args = ["--min", "1", "--"].map(str::to_owned).into_iter().chain(app);
    let pilotlight = Pilotlight::run(args).await;
    pilotlight.wait_for_pods(1, SOON).await;
    let first = pilotlight.pods()[0].pid;
    let again = async || pilotlight.pods().first().filter(|pod| pod.pid != first).map(|_| ());
    pilotlight_tests::eventually("another process", SOON, again).await;
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_hurts_nobody() {
    let pilotlight = Pilotlight::sample(&["--min", "1"]).await;
    pilotlight.wait_for_pods(1, SOON).await;
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let nonsense: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELO mail.example.org\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        long.as_bytes(),
    ];
    for bytes in nonsense {
        let answer = send_raw(pilotlight.address, bytes).await.expect("a connection");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert_eq!(pilotlight.get("/").await.status, 200);
    }
    assert_eq!(pilotlight.pods().len(), 1);
}

#[tokio::test]
async fn every_fault_of_a_manifest_is_named_and_nothing_starts() {
    let manifest = file(&[
        service("one", &[("max-scale", "ten"), ("window", "5s")], &["sleep", "1"]),
        service("two", &[("target-utilization-percentage", "120")], &["sleep", "1"]),
    ]);
    let ended = run_to_end(["run", "--listen", "127.0.0.1:0", "-f", arg(manifest.path())]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for fault in ["max-scale", "window", "target-utilization-percentage"] {
        assert!(ended.stderr.contains(fault), "{fault} is missing in:\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn two_workloads_that_answer_to_one_host_are_refused_like_any_fault_of_a_manifest() {
    let in_namespace = |namespace| {
        let mut service = service("hello", &[], &["sleep", "1"]);
        service["metadata"]["namespace"] = serde_json::json!(namespace);
        service
    };
    let faulty = file(&[service("hello", &[("max-scale", "ten")], &["sleep", "1"])]);
    let both = file(&[in_namespace("one"), in_namespace("two")]);
    for command in ["run", "autoscaler"] {
        let start = |manifest| run_to_end([command, "--listen", "127.0.0.1:0", "-f", manifest]);
        let (ended, usual) = (start(arg(both.path())).await, start(arg(faulty.path())).await);
        assert_eq!((ended.code, ended.code == Some(0)), (usual.code, false), "{ended:?}");
        for name in ["one/hello", "two/hello", "the host hello:", "another name"] {
            assert!(ended.stderr.contains(name), "{name} is missing in:\n{}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn text_that_is_no_yaml_is_refused_with_file_and_place() {
    let manifest = text_file("kind: [Service\nmetadata: {");
    let ended = run_to_end(["run", "--listen", "127.0.0.1:0", "-f", arg(manifest.path())]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains(arg(manifest.path())), "{ended:?}");
}
