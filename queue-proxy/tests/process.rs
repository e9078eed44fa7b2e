//! The queue-proxy as a process: what it exits with, and when.

#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};

fn queue_proxy(changes: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight-queue-proxy"));
    command.env_clear().stderr(Stdio::piped()).envs([
        ("CONTAINER_CONCURRENCY", "1"),
        ("QUEUE_SERVING_PORT", "0"),
        ("QUEUE_SERVING_TLS_PORT", "0"),
        ("USER_PORT", "8080"),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("SERVING_NAMESPACE", "default"),
        ("SERVING_CONFIGURATION", ""),
        ("SERVING_REVISION", "hello-00001"),
        ("SERVING_POD", "pod-1"),
        ("SERVING_POD_IP", "127.0.0.1"),
        ("PILOTLIGHT_BIND_ADDRESS", "127.0.0.1"),
        ("PILOTLIGHT_METRICS_PORT", "0"),
        ("PILOTLIGHT_ADMIN_PORT", "0"),
        ("PILOTLIGHT_USER_METRICS_PORT", "0"),
    ]);
    command.envs(changes.iter().copied());
    command
}

type Log = BufReader<ChildStderr>;

fn log_of(child: &mut Child) -> Log {
    BufReader::new(child.stderr.take().unwrap())
}

/// Reads what the process says until a line contains `text`.
fn wait_for(log: &mut Log, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended without saying {text:?}");
    }
}

fn kill(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn failure(mut command: Command, code: i32) -> String {
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    log_of(&mut child).read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
    said
}

#[test]
fn everything_that_is_wrong_is_named_and_ends_it_with_2() {
    let mut command = queue_proxy(&[("QUEUE_SERVING_PORT", "http")]);
    command.env_remove("USER_PORT").env_remove("SERVING_POD").env("PILOTLIGHT_LOG_FORMAT", "yaml");
    assert_eq!(
        failure(command, 2),
        "error: PILOTLIGHT_LOG_FORMAT: `yaml` is neither text nor json\n\
         error: QUEUE_SERVING_PORT: \"http\" is not a port number (0 to 65535)\n\
         error: required key USER_PORT missing value\nerror: required key SERVING_POD missing value\n"
    );
    let mut unknown = queue_proxy(&[]);
    unknown.arg("--serve");
    assert!(failure(unknown, 2).starts_with("error: unexpected argument '--serve'\n"));
}

#[test]
fn a_check_of_the_settings_says_what_is_in_force_and_opens_no_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = queue_proxy(&[("QUEUE_SERVING_PORT", &port)]);
    let output = command.arg("--check-config").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let expected =
        format!("configuration is valid\nrequests: 127.0.0.1:{port} (no TLS) to the app on port 8080, ");
    assert!(said.starts_with(&expected), "{said}");

    let mut command =
        queue_proxy(&[("METRICS_PROMETHEUS_HOST", "here"), ("OBSERVABILITY_CONFIG", PROMETHEUS)]);
    command.arg("--check-config");
    assert_eq!(failure(command, 2), "error: cannot serve metrics at `here`: it is not an IP address\n");
}

const PROMETHEUS: &str = r#"{"requestMetrics":{"protocol":"prometheus"}}"#;

#[test]
fn machines_read_every_fault_as_a_line_of_json() {
    let mut command = queue_proxy(&[]);
    command.env_remove("USER_PORT").args(["--log-format", "json"]);
    let said = failure(command, 2);
    let line: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(line["error"], "required key USER_PORT missing value", "{said}");
}

#[test]
fn it_is_built_without_a_parser_of_flags() {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--offline", "-p", "pilotlight-queue-proxy", "-e", "normal", "--prefix", "none"]);
    let output = tree.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let crates = String::from_utf8(output.stdout).unwrap();
    assert!(crates.contains("\ntokio v"), "{crates}");
    assert!(!crates.contains("\nclap"), "{crates}");
}

#[test]
fn a_port_that_is_taken_is_named_once_and_ends_it_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let said = failure(queue_proxy(&[("QUEUE_SERVING_PORT", &address.port().to_string())]), 1);
    assert!(
        said.contains(&format!("error: cannot listen on {address} for requests: Address already in use")),
        "{said}"
    );
    assert_eq!(said.matches("in use").count(), 1, "{said}");
}

#[test]
fn the_first_signal_drains_and_ends_it_with_0() {
    let mut child = queue_proxy(&[("PILOTLIGHT_DRAIN_QUIET_PERIOD", "10ms")]).spawn().unwrap();
    let mut log = log_of(&mut child);
    wait_for(&mut log, "Serving");
    kill(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_second_signal_ends_it_with_1_at_once() {
    let mut child = queue_proxy(&[("PILOTLIGHT_DRAIN_QUIET_PERIOD", "1h")]).spawn().unwrap();
    let mut log = log_of(&mut child);
    wait_for(&mut log, "Serving");
    kill(&child, Signal::INT);
    wait_for(&mut log, "Draining");
    kill(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

/// An address that no other test has, so that its ports are known and free.
fn address_of_its_own(number: u8) -> String {
    let [a, b, ..] = std::process::id().to_le_bytes();
    format!("127.{}.{b}.{number}", 100 + a % 100)
}

/// A port on which nobody listens, for as long as the socket is kept.
fn nobody() -> (tokio::net::TcpSocket, String) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    (socket, port)
}

#[test]
fn every_request_is_a_line_on_standard_output_if_asked_for() {
    let ip = address_of_its_own(7);
    let (_nobody, app) = nobody();
    let mut child = queue_proxy(&[
        ("PILOTLIGHT_BIND_ADDRESS", &ip),
        ("QUEUE_SERVING_PORT", "8012"),
        ("USER_PORT", &app),
        ("SERVING_POD_IP", &ip),
        ("OBSERVABILITY_CONFIG", r#"{"enableRequestLog":true}"#),
    ])
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut log = log_of(&mut child);
    wait_for(&mut log, "Serving");

    let mut client = std::net::TcpStream::connect((ip.as_str(), 8012)).unwrap();
    let probe = "GET / HTTP/1.1\r\nHost: h\r\nK-Network-Probe: probe\r\nK-Network-Hash: x\r\n\r\n";
    let request = "GET /a?b='c' HTTP/1.1\r\nHost: h\r\nUser-Agent: ua\r\nConnection: close\r\n\r\n";
    client.write_all(format!("{probe}{request}").as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.rsplit_once("\r\n\r\n").unwrap();

    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let logged: serde_json::Value = serde_json::from_str(&line).unwrap();
    let logged = &logged["httpRequest"];
    assert_eq!((&logged["requestUrl"], &logged["userAgent"]), (&"/a?b='c'".into(), &"ua".into()), "{line}");
    assert_eq!((&logged["status"], &logged["serverIp"]), (&502.into(), &ip.into()), "{line}");
    assert_eq!(logged["responseSize"], body.len().to_string(), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_log_that_nobody_reads_stops_no_request_and_says_later_what_is_missing() {
    let ip = address_of_its_own(8);
    let (_nobody, app) = nobody();
    let mut child = queue_proxy(&[
        ("PILOTLIGHT_BIND_ADDRESS", &ip),
        ("QUEUE_SERVING_PORT", "8012"),
        ("USER_PORT", &app),
        ("SERVING_LOGGING_LEVEL", "debug"),
        ("PILOTLIGHT_DRAIN_QUIET_PERIOD", "10ms"),
    ])
    .spawn()
    .unwrap();
    let mut log = log_of(&mut child);
    wait_for(&mut log, "Serving");

    // Each of these is a line. A pipe holds 64 KiB, and the queue in front of it 4096 lines.
    let mut client = BufReader::new(std::net::TcpStream::connect((ip.as_str(), 8012)).unwrap());
    client.get_ref().set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    for _ in 0..6000 {
        client.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            client.read_line(&mut line).unwrap();
            let header = line.strip_prefix("Content-Length: ");
            length = header.map_or(length, |length| length.trim().parse().unwrap());
        }
        client.read_exact(&mut vec![0; length]).unwrap();
    }
    wait_for(&mut log, "Dropped log lines that nobody read");
    kill(&child, Signal::TERM);
    wait_for(&mut log, "Stopped");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// As Knative's controller has it run: no arguments, a file system that takes no writes, a user that is only a number.
#[test]
fn it_runs_where_it_can_write_nothing_and_has_no_home() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("queue-proxy");
    std::fs::copy(env!("CARGO_BIN_EXE_pilotlight-queue-proxy"), &program).unwrap();
    for path in [folder.path(), &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    let known = queue_proxy(&[("TMPDIR", NOWHERE)]);
    let mut command = Command::new(&program);
    command.env_clear().envs(known.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(NOWHERE).stderr(Stdio::piped());
    if geteuid().is_root() {
        command.uid(65532).gid(65532);
    }
    let mut child = command.spawn().unwrap();
    let mut log = log_of(&mut child);
    wait_for(&mut log, "Serving");
    kill(&child, Signal::TERM);
    wait_for(&mut log, "Draining");
    kill(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

/// A folder in which nobody can make a file, not even root.
const NOWHERE: &str = "/proc";
