//! A Service's selector is taken away and put back, under load.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::ListParams;
use pilotlight_tests::cluster::plain::{PlainCluster, WorkloadSpec};
use pilotlight_tests::eventually;
use serde_json::json;

use crate::support::{LATER, cluster_of, goes_on, is_answered, load, nothing_is_left, nothing_is_lost};

/// A workload with two pods whose Service selects them.
async fn awake(cluster: &PlainCluster) -> WorkloadSpec {
    let spec = WorkloadSpec { replicas: 2, has_selector: true, ..WorkloadSpec::exact("web") };
    cluster.create(&spec).await.expect("created");
    cluster.has_scale("web", 2, LATER).await;
    cluster.takes_connections(&spec, LATER).await;
    spec
}

async fn managers(cluster: &PlainCluster) -> Vec<String> {
    let slices = cluster.api::<EndpointSlice>().list(&ListParams::default()).await.expect("a list").items;
    let label = "endpointslice.kubernetes.io/managed-by";
    slices.iter().map(|slice| slice.labels().get(label).cloned().unwrap_or_default()).collect()
}

#[tokio::test]
async fn a_selector_that_is_taken_away_under_load_loses_nothing_and_leaves_nothing() {
    let cluster = cluster_of(1, 2).await;
    let spec = awake(&cluster).await;
    // While it is there nobody can see the load, so that no pod goes.
    cluster.has_condition("web", "ZeroBlocked", ("True", "CannotSee"), LATER).await;
    let load = load(&cluster, "web", 3);
    goes_on(&load, 10).await;
    cluster.patch::<Service>("web", json!({ "spec": { "selector": null } })).await.expect("patched");
    cluster.passes(&spec, LATER).await;
    eventually("nothing is left of the selector", LATER, async || {
        let is_gone = cluster.api::<Endpoints>().get_opt("web").await.ok()?.is_none();
        (is_gone && managers(&cluster).await == ["pilotlight.dev"]).then_some(())
    })
    .await;
    goes_on(&load, 3 * 5 * 8).await;
    assert_eq!(cluster.replicas_of("web"), [2]);
    nothing_is_lost(&load.finish().await);
    cluster.has_scale("web", 0, LATER).await;
    is_answered(&cluster, "web").await;
    nothing_is_left(&cluster).await;
}

#[tokio::test]
async fn a_selector_that_is_put_back_splits_the_traffic_and_loses_nothing() {
    let cluster = cluster_of(1, 1).await;
    let spec = awake(&cluster).await;
    cluster.patch::<Service>("web", json!({ "spec": { "selector": null } })).await.expect("patched");
    cluster.passes(&spec, LATER).await;
    cluster
        .patch::<pilotlight_controller::crd::RequestAutoscaler>(
            "web",
            json!({ "spec": { "interception": "Always" } }),
        )
        .await
        .expect("patched");
    let load = load(&cluster, "web", 3);
    goes_on(&load, 10).await;
    let selector = json!({ "spec": { "selector": { "app": "web" } } });
    cluster.patch::<Service>("web", selector).await.expect("patched");
    cluster.has_condition("web", "Intercepting", ("False", "SelectorPresent"), LATER).await;
    // More than a stable window: with a part of the load seen, no pod goes.
    goes_on(&load, 3 * 5 * 8).await;
    assert_eq!(cluster.replicas_of("web"), [2]);
    cluster.patch::<Service>("web", json!({ "spec": { "selector": null } })).await.expect("patched");
    cluster.passes(&spec, LATER).await;
    goes_on(&load, 10).await;
    nothing_is_lost(&load.finish().await);
    cluster.has_scale("web", 0, LATER).await;
    nothing_is_left(&cluster).await;
}
