//! Users change what is theirs.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use pilotlight_tests::cluster::plain::{AppPort, Way, WorkloadSpec};
use pilotlight_tests::eventually;
use serde_json::json;

use crate::support::{LATER, cluster, created, goes_on, is_answered, load, nothing_is_left, nothing_is_lost};

/// The manifest says two pods, and is applied while the workload sleeps: it wakes, is respected for a stable window, and
/// sleeps again.
#[tokio::test]
async fn replicas_that_somebody_applies_are_respected_for_a_stable_window() {
    let cluster = cluster().await;
    let spec = WorkloadSpec { replicas: 2, ..WorkloadSpec::exact("web") };
    let applied = spec.deployment();
    created(&cluster, &WorkloadSpec::exact("web")).await;
    cluster
        .apply::<Deployment>("web", applied)
        .await
        .expect_err("the first apply conflicts with who created it");
    cluster.patch::<Deployment>("web", json!({ "spec": { "replicas": 2 } })).await.expect("patched");
    cluster.has_scale("web", 2, LATER).await;
    is_answered(&cluster, "web").await;
    cluster.has_scale("web", 0, LATER).await;
    assert_eq!(cluster.replicas_of("web")[..2], [0, 2]);
    is_answered(&cluster, "web").await;
    nothing_is_left(&cluster).await;
}

#[tokio::test]
async fn a_port_that_is_renamed_under_load_keeps_its_requests() {
    let cluster = cluster().await;
    let mut spec = WorkloadSpec::exact("web");
    created(&cluster, &spec).await;
    let load = load(&cluster, "web", 3);
    cluster.has_scale("web", 2, LATER).await;
    spec.ports[0].name = "renamed";
    let before = cluster.port_table().await.expect("a table");
    let ports = json!([{ "name": "renamed", "port": 80, "targetPort": "http" }]);
    cluster.patch::<Service>("web", json!({ "spec": { "ports": ports } })).await.expect("patched");
    eventually("the table has the new name alone", LATER, async || {
        let table = cluster.port_table().await.ok()?;
        let names: Vec<_> = table.entries().map(|(owner, _)| owner.port.clone()).collect();
        (names == ["renamed"] && table.version() != before.version()).then_some(())
    })
    .await;
    cluster.passes(&spec, LATER).await;
    let tally = load.so_far();
    goes_on(&load, 30).await;
    // Between the change of the Service and that of its slices no slice has the port: as with Kubernetes' own.
    let later = load.finish().await;
    assert!(later.wrong.is_empty(), "{:#?}", later.wrong);
    assert!(later.lost.len() == tally.lost.len(), "{:#?}", later.lost);
    cluster.has_scale("web", 0, LATER).await;
    nothing_is_left(&cluster).await;
}

#[tokio::test]
async fn a_service_that_is_made_again_is_led_to_the_activators_again() {
    let cluster = cluster().await;
    let mut spec = WorkloadSpec::exact("web");
    created(&cluster, &spec).await;
    is_answered(&cluster, "web").await;
    cluster.has_scale("web", 0, LATER).await;
    cluster.delete::<Service>("web").await.expect("deleted");
    spec.ports.push(AppPort::TCP);
    let service = serde_json::from_value(spec.service()).expect("a Service");
    cluster.api::<Service>().create(&kube::api::PostParams::default(), &service).await.expect("created");
    // The pods listen at the new port from the next wake on.
    cluster.patch::<Deployment>("web", json!({ "spec": spec.deployment()["spec"] })).await.expect("patched");
    eventually("there is a port for lines", LATER, async || {
        let table = cluster.port_table().await.ok()?;
        (table.entries().count() == 2).then_some(())
    })
    .await;
    cluster.passes(&spec, LATER).await;
    nothing_is_lost(&cluster.ask("web", &AppPort::TCP, Way::Line, "/?hello").await);
    is_answered(&cluster, "web").await;
    cluster.has_scale("web", 0, LATER).await;
    nothing_is_left(&cluster).await;
}

/// A new template while asleep starts nothing; under load it is rolled out, and nothing is lost.
#[tokio::test]
async fn a_rollout_of_the_target_loses_nothing() {
    let cluster = cluster().await;
    created(&cluster, &WorkloadSpec::exact("web")).await;
    let template = |version: &str| json!({ "spec": { "template": { "metadata": { "annotations": { "version": version } } } } });
    cluster.patch::<Deployment>("web", template("2")).await.expect("patched");
    let load = load(&cluster, "web", 3);
    cluster.has_scale("web", 2, LATER).await;
    cluster.patch::<Deployment>("web", template("3")).await.expect("patched");
    let is_rolled = |each: &Deployment| {
        let status = each.status.clone().unwrap_or_default();
        status.observed_generation == each.metadata.generation
            && (status.updated_replicas, status.replicas) == (Some(2), Some(2))
    };
    cluster.until("it is rolled out", "web", LATER, is_rolled).await;
    cluster.has_scale("web", 2, LATER).await;
    nothing_is_lost(&load.finish().await);
    cluster.has_scale("web", 0, LATER).await;
}
