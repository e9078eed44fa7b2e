//! Headers that only proxies set, written by a client, under `pilotlight run` with two services: they must not bring a
//! request to the other service, nor wake it, nor count there, nor have an app believe what nobody has found out.

use std::net::SocketAddr;
use std::time::Duration;

use pilotlight_tests::eventually;
use pilotlight_tests::http::{get, send_raw};
use pilotlight_tests::manifest::{arg, file, service};
use pilotlight_tests::run::Pilotlight;
use serde_json::Value;
use tempfile::NamedTempFile;

/// Two services that say who they are, and what they were told.
async fn two_services() -> (Pilotlight, NamedTempFile) {
    let mirror = [env!("CARGO_BIN_EXE_talker"), "mirror", "{port}"];
    let manifest = file(&[service("mine", &[], &mirror), service("other", &[], &mirror)]);
    (Pilotlight::run(["-f", arg(manifest.path())]).await, manifest)
}

/// The answer to a request to `mine` with these lines in its head.
async fn ask(to: SocketAddr, target: &str, lines: &[&str]) -> String {
    let lines = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: mine.default.localhost\r\n{lines}Connection: close\r\n\r\n");
    String::from_utf8(send_raw(to, request.as_bytes()).await.expect("a connection")).expect("text")
}

/// The service that answered, and the headers that it was sent.
fn mirrored(answer: &str) -> (&str, Vec<&str>) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut lines = body.lines();
    (lines.next().unwrap_or_default(), lines.collect())
}

async fn pods_of(pilotlight: &Pilotlight, service: &str) -> u64 {
    let answer = get(pilotlight.admin, "localhost", "/v1/decisions").await.expect("an answer");
    let decisions: Vec<Value> = serde_json::from_str(&answer.body).expect("JSON");
    let decision = decisions.iter().find(|decision| decision["revision"] == format!("default/{service}"));
    let pods = &decision.expect("a decision")["evaluation"]["pods"];
    ["ready", "starting", "terminating"].iter().filter_map(|phase| pods[phase].as_u64()).sum()
}

#[tokio::test]
async fn a_client_reaches_the_service_it_asks_for_whatever_headers_it_invents() {
    let (pilotlight, _manifest) = two_services().await;
    let revision = ["Knative-Serving-Namespace: default", "Knative-Serving-Revision: other"];
    let host = "K-Original-Host: other.default.localhost";
    let hop = "Connection: Host, K-Original-Host, K-Proxy-Request, X-Forwarded-For";
    for lines in [
        &revision[..],
        &[revision[1], revision[0], host],
        &[host],
        &["X-Forwarded-Host: other.default.localhost"],
        &["Forwarded: host=other.default.localhost"],
        &["K-Proxy-Request: other", "K-Passthrough-Lb: true"],
        &["Knative-Serving-Tag: other", "Knative-Serving-Default-Route: false"],
        &[hop, host],
    ] {
        let answer = ask(pilotlight.address, "/", lines).await;
        let (service, headers) = mirrored(&answer);
        assert_eq!(service, "mine", "{lines:?}");
        let told = |name: &str| {
            let values = headers.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            values.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(told("host"), ["mine.default.localhost"], "{lines:?}");
        assert_eq!(told("k-proxy-request"), ["activator"], "{lines:?}");
        assert_eq!(told("x-forwarded-for"), ["127.0.0.1, 127.0.0.1"], "{lines:?}");
        for name in ["k-original-host", "knative-serving-revision", "knative-serving-namespace"] {
            assert_eq!(told(name), Vec::<String>::new(), "{lines:?}");
        }
    }
    assert_eq!((pods_of(&pilotlight, "mine").await, pods_of(&pilotlight, "other").await), (1, 0));
}

#[tokio::test]
async fn headers_alone_lead_nowhere_and_wake_nobody() {
    let (pilotlight, _manifest) = two_services().await;
    let request = "GET / HTTP/1.1\r\nHost: nobody.example\r\nKnative-Serving-Namespace: default\r\n\
        Knative-Serving-Revision: other\r\nK-Original-Host: other.default.localhost\r\nConnection: close\r\n\r\n";
    let answer = send_raw(pilotlight.address, request.as_bytes()).await.expect("a connection");
    assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answer));
    let is_connected = async || {
        let answer = ask(pilotlight.address, "/", &["K-Kubelet-Probe: x"]).await;
        answer.starts_with("HTTP/1.1 200 ").then_some(())
    };
    eventually("the front door has found the autoscaler", Duration::from_secs(10), is_connected).await;
    // What an ingress would ask is answered by the front door, and reaches no app either.
    for (line, status) in [
        ("User-Agent: kube-probe/1.34", "200"),
        ("K-Kubelet-Probe: x", "200"),
        ("K-Network-Probe: activator", "200"),
        ("K-Network-Probe: queue", "400"),
    ] {
        let answer = ask(pilotlight.address, "/", &[line]).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
    }
    assert_eq!((pods_of(&pilotlight, "mine").await, pods_of(&pilotlight, "other").await), (0, 0));
}

#[tokio::test]
async fn a_url_names_the_host_and_nothing_else_does() {
    let (pilotlight, _manifest) = two_services().await;
    let answer = ask(pilotlight.address, "http://other.default.localhost/", &[]).await;
    let (service, headers) = mirrored(&answer);
    assert_eq!(service, "other");
    assert!(headers.contains(&"host: other.default.localhost"), "{headers:?}");
}
