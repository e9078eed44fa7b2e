//! The activator as a process: what its environment tells it, and what it tells of requests.

#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

fn activator(env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight-activator"));
    command.env_clear().args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.envs(env.iter().copied());
    command
}

/// Exit code and standard error of an activator that cannot start.
fn failure(env: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = activator(env).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_is_wrong_with_the_environment_is_named() {
    let (code, said) = failure(&[("PROBE_TIMEOUT", "soon")]);
    assert!(code == Some(2) && said.contains("--probe-timeout"), "{said}");
    let (code, said) = failure(&[("OBSERVABILITY_CONFIG", "{"), ("OTEL_TRACES_SAMPLER_ARG", "1")]);
    assert!(code == Some(2) && said.starts_with("error: OBSERVABILITY_CONFIG"), "{said}");
    let (code, said) = failure(&[("METRICS_PROMETHEUS_TLS_CERT", "/x")]);
    assert!(code == Some(2) && said.contains("METRICS_PROMETHEUS_TLS_KEY"), "{said}");
}

#[test]
fn urls_that_are_none_are_refused_before_a_port_is_opened() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight-activator"));
    let output = command
        .args(["--listen", &taken, "--autoscaler", "http://x", "--endpoints", "localhost:9090"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: --endpoints: `localhost:9090` is not of the form http://host:port/path\n\
         error: --autoscaler: `http://x` is not of the form ws://host:port\n"
    );
}

#[test]
fn a_check_of_the_settings_says_what_is_in_force_and_opens_no_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight-activator"));
    let args = [
        "--check-config",
        "--listen",
        &taken.to_string(),
        "--autoscaler",
        "ws://a:1",
        "--admin",
        "127.0.0.1:2",
    ];
    let output = command.env_clear().args(args).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(
        said,
        format!(
            "configuration is valid\nrequests: {taken} (no TLS), to pods in the clear; admin port: 127.0.0.1:2\n\
             autoscaler: ws://a:1/, endpoints: http://127.0.0.1:9090/v1/endpoints\n"
        )
    );
}

#[test]
fn help_lists_the_variables() {
    let output = Command::new(env!("CARGO_BIN_EXE_pilotlight-activator")).arg("--help").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for name in
        ["POD_NAME", "PILOTLIGHT_LOG_FORMAT", "RUST_LOG", "ACTIVATOR_TLS_MIN_VERSION", "OBSERVABILITY_CONFIG"]
    {
        assert!(said.contains(name), "{name} in\n{said}");
    }
}

#[test]
fn requests_are_lines_on_standard_output_if_asked_for_and_so_are_spans() {
    let endpoints = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/endpoints", endpoints.local_addr().unwrap());
    let config = r#"{"enableRequestLog":true,"requestLogTemplate":"LOG {{.Request.RequestURI}} {{.Response.Code}}",
                     "tracing":{"protocol":"stdout","samplingRate":1}}"#;
    let mut child = Running(
        activator(&[("OBSERVABILITY_CONFIG", config), ("POD_IP", "10.0.0.1"), ("PROBE_TIMEOUT", "100ms")])
            .args(["--endpoints", &url, "--drain-wait", "0s"])
            .spawn()
            .unwrap(),
    );
    let mut follower = BufReader::new(endpoints.accept().unwrap().0);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        follower.read_line(&mut line).unwrap();
    }
    let empty = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n{\"snapshot\":{}}\n";
    follower.get_mut().write_all(empty.as_bytes()).unwrap();

    let mut log = BufReader::new(child.0.stderr.take().unwrap());
    while !line.contains("Activator is listening") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended");
    }
    let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET /a HTTP/1.1\r\nHost: nobody\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");

    // The log and the spans have a writer each: their order is open.
    let told = BufReader::new(child.0.stdout.take().unwrap());
    let mut lines: Vec<String> = told.lines().take(2).map(Result::unwrap).collect();
    lines.sort_unstable();
    assert_eq!(lines[0], "LOG /a 404");
    let span: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!((&span["name"], &span["kind"]), (&"GET".into(), &"server".into()), "{span}");
    assert_eq!(span["attributes"]["http.response.status_code"], "404", "{span}");
}
