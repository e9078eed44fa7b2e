//! Workloads sleep, wake, and follow their load.

use pilotlight_tests::cluster::plain::{AppPort, Way, WorkloadSpec};
use serde_json::json;

use crate::support::{LATER, cluster, created, is_answered, load, nothing_is_left, nothing_is_lost};

#[tokio::test]
async fn a_request_at_zero_is_held_and_answered() {
    let cluster = cluster().await;
    created(&cluster, &WorkloadSpec::exact("web")).await;
    is_answered(&cluster, "web").await;
    cluster.has_scale("web", 0, LATER).await;
    assert_eq!(cluster.replicas_of("web"), [0, 1, 0]);
    nothing_is_left(&cluster).await;
}

#[tokio::test]
async fn load_brings_four_pods_for_seven_requests_at_a_time_and_loses_none() {
    let cluster = cluster().await;
    created(&cluster, &WorkloadSpec::exact("web")).await;
    let load = load(&cluster, "web", 7);
    cluster.has_scale("web", 4, LATER).await;
    let tally = load.finish().await;
    cluster.has_scale("web", 0, LATER).await;
    nothing_is_lost(&tally);
    let counts = cluster.replicas_of("web");
    assert_eq!((counts.iter().max(), counts.last()), (Some(&4), Some(&0)), "{counts:?}");
    nothing_is_left(&cluster).await;
}

#[tokio::test]
async fn every_port_of_a_service_wakes_its_pods_and_leads_to_its_own() {
    let cluster = cluster().await;
    let ways = [(AppPort::HTTP, Way::Once), (AppPort::H2C, Way::Http2), (AppPort::TCP, Way::Line)];
    let mut spec = WorkloadSpec::exact("web");
    spec.ports = ways.iter().map(|(port, _)| port.clone()).collect();
    // One protocol a time: asleep at first, each wakes the pods.
    let spec = spec.with(json!({ "scaleToZeroPodRetention": "0s" }));
    created(&cluster, &spec).await;
    for (port, way) in &ways {
        nothing_is_lost(&cluster.ask("web", port, *way, "/").await);
        cluster.has_scale("web", 0, LATER).await;
    }
    let mut loads: Vec<_> =
        ways.iter().map(|(port, way)| cluster.load("web", port, *way, 2, "/?sleep=200")).collect();
    loads.push(cluster.load("web", &AppPort::HTTP, Way::Kept, 1, "/?sleep=200"));
    cluster.has_scale("web", 4, LATER).await;
    for load in loads {
        nothing_is_lost(&load.finish().await);
    }
    cluster.has_scale("web", 0, LATER).await;
    nothing_is_left(&cluster).await;
}

#[tokio::test]
async fn pods_without_a_probe_are_dialled_until_they_listen() {
    let cluster = cluster().await;
    let mut spec = WorkloadSpec::exact("web");
    spec.is_probed = false;
    spec.startup = "700ms".to_owned();
    created(&cluster, &spec).await;
    is_answered(&cluster, "web").await;
    let load = load(&cluster, "web", 3);
    cluster.has_scale("web", 2, LATER).await;
    nothing_is_lost(&load.finish().await);
}
