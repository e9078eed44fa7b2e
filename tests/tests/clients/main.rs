//! Clients that other people wrote, at the real binaries. Each test says so and passes if its client is not on this
//! machine; `.ci/run` installs those it can.

mod app;
mod curl;
mod python;
mod tool;

use pilotlight_tests::run::Pilotlight;

use crate::tool::Tool;

#[tokio::test]
async fn wrk_wakes_a_service_and_loses_nothing() {
    let Some(wrk) = Tool::find("wrk", "-v") else { return };
    let pilotlight = Pilotlight::run(["--sample", "--target", "10", "--max", "3"]).await;
    let url = format!("http://{}/?sleep=5", pilotlight.address);
    let said = wrk.run(&["-t1", "-c20", "-d2s", "--timeout", "20s", &url]).await;
    assert!(said.contains(" requests in ") && !said.contains("\n  0 requests in "), "{said}");
    for trouble in ["Socket errors", "Non-2xx"] {
        assert!(!said.contains(trouble), "{said}");
    }
}

#[tokio::test]
async fn h2load_wakes_a_service_and_loses_nothing() {
    let Some(h2load) = Tool::find("h2load", "--version") else { return };
    let pilotlight = Pilotlight::run(["--sample", "--target", "10", "--max", "3"]).await;
    let url = format!("http://{}/?sleep=5", pilotlight.address);
    let said = h2load.run(&["-n", "2000", "-c", "10", "-m", "10", &url]).await;
    assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    assert!(said.contains("status codes: 2000 2xx"), "{said}");
    let said = h2load.run(&["--h1", "-n", "500", "-c", "10", &url]).await;
    assert!(said.contains("status codes: 500 2xx"), "{said}");
}

#[tokio::test]
async fn nghttp_wakes_a_service_and_switches_to_http_2() {
    let Some(nghttp) = Tool::find("nghttp", "--version") else { return };
    let pilotlight = Pilotlight::run(["--sample"]).await;
    let url = |query: &str| format!("http://{}/?{query}", pilotlight.address);
    let args = ["--upgrade", "--null-out", "--stat", "--timeout=20s"];
    let said = nghttp.run(&[&args[..], &[&url("sleep=1"), &url("sleep=2")]].concat()).await;
    assert_eq!(said.lines().filter(|line| line.contains(" 200 ")).count(), 2, "{said}");
}

#[tokio::test]
async fn hey_wakes_a_service_and_loses_nothing() {
    let Some(hey) = Tool::find("hey", "-version") else { return };
    let pilotlight = Pilotlight::run(["--sample", "--target", "10", "--max", "3"]).await;
    let url = format!("http://{}/?sleep=5", pilotlight.address);
    let said = hey.run(&["-n", "1000", "-c", "20", "-t", "20", &url]).await;
    assert!(said.contains("[200]\t1000 responses"), "{said}");
    assert!(!said.contains("Error distribution"), "{said}");
}
