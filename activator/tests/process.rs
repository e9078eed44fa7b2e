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

/// What it says when it cannot start, and what it exits with.
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
    assert!(code == Some(1) && said.contains("OBSERVABILITY_CONFIG"), "{said}");
    let (code, said) = failure(&[("METRICS_PROMETHEUS_TLS_CERT", "/x")]);
    assert!(code == Some(1) && said.contains("METRICS_PROMETHEUS_TLS_KEY"), "{said}");
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

    let mut told = BufReader::new(child.0.stdout.take().unwrap());
    line.clear();
    told.read_line(&mut line).unwrap();
    assert_eq!(line, "LOG /a 404\n");
    line.clear();
    told.read_line(&mut line).unwrap();
    let span: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&span["name"], &span["kind"]), (&"GET".into(), &"server".into()), "{line}");
    assert_eq!(span["attributes"]["http.response.status_code"], "404", "{line}");
}
