//! Telemetry of `pilotlight run` and of each component: metrics with Knative's names, and a journal that can be replayed.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use pilotlight_cli::load::{End, Load};
use pilotlight_core::Record;
use pilotlight_tests::components::{Addresses, Component};
use pilotlight_tests::http::get;
use pilotlight_tests::manifest::{self, arg};
use pilotlight_tests::proxies::Proxy;
use pilotlight_tests::run::{Pilotlight, run_to_end, sample_command};
use pilotlight_tests::sample::Sample;
use pilotlight_tests::{SOON, eventually, series};
use rustix::process::Signal;
use serde_json::Value;

#[tokio::test]
async fn metrics_have_knatives_names() {
    let pilotlight = Pilotlight::sample(&["--name", "hello", "--min", "1"]).await;
    assert_eq!(pilotlight.get("/").await.status, 200);
    let wanted = [
        "kn_revision_pods_requested",
        "kn_revision_pods_count",
        "kn_revision_pods_desired",
        "kn_revision_capacity_excess",
        "kn_revision_panic_mode",
        "kn_revision_concurrency_stable",
        "kn_revision_concurrency_panic",
        "kn_revision_concurrency_target",
        "kn_revision_request_concurrency",
        "http_server_request_duration_seconds_bucket",
    ];
    let mut page = String::new();
    let complete = async || {
        page = get(pilotlight.admin, "localhost", "/metrics").await.expect("an answer").body;
        let has = |name: &&str| page.lines().any(|line| line.starts_with(*name) && line.contains("hello"));
        let missing: Vec<_> = wanted.iter().filter(|name| !has(name)).collect();
        missing.is_empty().then_some(())
    };
    eventually(&format!("all of {wanted:?}"), SOON, complete).await;
    let series: Vec<&str> = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    // The exposition format: a name, perhaps labels, one number.
    for line in &series {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    let mut unique = series.iter().map(|line| line.rsplit_once(' ').expect("checked").0).collect::<Vec<_>>();
    unique.sort_unstable();
    assert!(unique.windows(2).all(|pair| pair[0] != pair[1]), "the same series twice in\n{page}");
}

#[tokio::test]
async fn a_request_is_counted_once_by_the_activator_and_once_by_its_pod_on_two_pages() {
    let pilotlight = Pilotlight::sample(&["--min", "1"]).await;
    pilotlight.wait_for_pods(1, SOON).await;
    for _ in 0..5 {
        assert_eq!(pilotlight.get("/").await.status, 200);
    }
    for path in ["/metrics", "/metrics/pods"] {
        let all = async || {
            let page = get(pilotlight.admin, "localhost", path).await.expect("an answer").body;
            let counts =
                page.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
            let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            (counts.sum::<f64>() == 5.0).then_some(())
        };
        eventually(&format!("5 requests on {path}"), SOON, all).await;
    }
}

/// Dashboards and alerts find a series by its name and labels: one that changes is lost to them, unseen.
#[tokio::test]
async fn the_series_of_activator_and_autoscaler_are_those_that_are_listed() {
    let command = sample_command();
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let service = |name: &str, metric: &str| manifest::service(name, &[("metric", metric)], &command);
    let services = manifest::file(&[service("hello", "concurrency"), service("by-rate", "rps")]);
    let config = manifest::file(&[manifest::quick_config()]);
    let autoscaler = Component::autoscaler(Addresses::free(), services.path(), config.path()).await;
    let activator = Component::activator(Addresses::free(), autoscaler.at).await;
    let answer = get(activator.at.address, "hello.default.localhost", "/").await.expect("an answer");
    assert_eq!(answer.status, 200);
    are_listed(activator.at.admin, "activator", include_str!("series/activator.txt")).await;
    are_listed(autoscaler.at.admin, "autoscaler", include_str!("series/autoscaler.txt")).await;
}

#[tokio::test]
async fn the_series_of_a_queue_proxy_are_those_that_are_listed() {
    let app = Sample::start(&[], &[]).await;
    let observability = r#"{"requestMetrics":{"protocol":"prometheus"}}"#;
    let env = [("OBSERVABILITY_CONFIG", observability), ("CONTAINER_CONCURRENCY", "1")];
    let proxy = Proxy::queue_proxy(app.address, &env).await;
    assert_eq!(get(proxy.address, "h", "/").await.expect("an answer").status, 200);
    are_listed(proxy.at_port(8022), "queue-proxy", include_str!("series/queue-proxy.txt")).await;
}

/// Compares the page at `admin` with the list in `tests/tests/series`, once there are as many series.
async fn are_listed(admin: SocketAddr, component: &str, list: &str) {
    let listed: BTreeSet<String> =
        list.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let mut shown = BTreeSet::new();
    let all = async || {
        shown = series::of(&get(admin, "localhost", "/metrics").await.ok()?.body);
        (shown.len() >= listed.len()).then_some(())
    };
    eventually(&format!("as many series as tests/tests/series/{component}.txt has"), SOON, all).await;
    let lost: Vec<_> = listed.difference(&shown).collect();
    let new: Vec<_> = shown.difference(&listed).collect();
    assert!(
        lost.is_empty() && new.is_empty(),
        "{component} lost {lost:#?} and shows {new:#?}; what is meant to be so belongs into tests/tests/series/\
         {component}.txt and the changelog"
    );
}

#[tokio::test]
async fn the_journal_replays_to_the_same_decisions() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let journal = folder.path().join("decisions.jsonl");
    let mut pilotlight =
        Pilotlight::sample(&["--max", "3", "--target", "5", "--journal", arg(&journal)]).await;
    let forever = End::After(Duration::from_secs(60));
    let load = Load { connections: 20, end: forever, ..pilotlight.load("/?sleep=50") };
    let load = load.start().expect("a legal load");
    // Until a regular evaluation has seen it: the first request alone asks for one pod.
    pilotlight.wait_for_pods(3, SOON).await;
    load.stop();
    assert_eq!(load.finish().await.failed(), 0);
    pilotlight.signal(Signal::INT);
    assert!(pilotlight.exit(SOON).await.success());

    let text = fs::read_to_string(&journal).expect("a journal");
    let record = |line: &str| serde_json::from_str::<Record>(line).expect("a record a line");
    let records: Vec<Record> = text.lines().map(record).collect();
    assert!(records[0].start.is_some(), "{text}");
    assert!(records.iter().any(|record| record.evaluation.plan.scale == Some(3)), "{text}");

    let replay = async || run_to_end(["sim", "replay", arg(&journal)]).await;
    let replayed = replay().await;
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    let found: Value = serde_json::from_str(&replayed.stdout).expect("JSON");
    assert_eq!((&found["evaluations"], &found["differing"]), (&records.len().into(), &0.into()), "{found}");

    // Another decision than the recorded one is noticed.
    let changed = text.replacen("\"plan\":{\"scale\":1,", "\"plan\":{\"scale\":2,", 1);
    assert_ne!(changed, text);
    fs::write(&journal, changed).expect("writable");
    let replayed = replay().await;
    assert_eq!(replayed.code, Some(1), "{replayed:?}");
}
