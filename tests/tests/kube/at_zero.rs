//! Services that keep their selector: activators stand in while there are no pods, and nothing of the user's is changed.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::ListParams;
use pilotlight_tests::cluster::plain::WorkloadSpec;
use pilotlight_tests::eventually;

use crate::support::{LATER, cluster, goes_on, is_answered, load, nothing_is_left, nothing_is_lost};

#[tokio::test]
async fn pods_that_nobody_can_see_into_are_woken_and_never_taken_away() {
    let cluster = cluster().await;
    let spec = WorkloadSpec { has_selector: true, ..WorkloadSpec::exact("web") };
    cluster.create(&spec).await.expect("created");
    cluster.has_condition("web", "Intercepting", ("True", "AtZero"), LATER).await;
    cluster.has_condition("web", "ZeroBlocked", ("True", "CannotSee"), LATER).await;
    cluster.takes_connections(&spec, LATER).await;
    let load = load(&cluster, "web", 3);
    cluster.has_scale("web", 1, LATER).await;
    cluster.has_condition("web", "Intercepting", ("True", "Standby"), LATER).await;
    // Every node has heard of the pods by now: our slices leave, and nothing is lost over it.
    eventually("only Kubernetes' own slice is left", LATER, async || {
        let slices = cluster.api::<EndpointSlice>().list(&ListParams::default()).await.ok()?.items;
        let label = "endpointslice.kubernetes.io/managed-by";
        let of = |slice: &EndpointSlice| slice.labels().get(label).cloned().unwrap_or_default();
        slices.iter().all(|slice| of(slice) == "endpointslice-controller.k8s.io").then_some(())
    })
    .await;
    // More than a stable window.
    goes_on(&load, 3 * 5 * 8).await;
    nothing_is_lost(&load.finish().await);
    is_answered(&cluster, "web").await;
    assert_eq!(cluster.replicas_of("web"), [0, 1]);
    nothing_is_left(&cluster).await;
}
