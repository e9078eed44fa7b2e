//! Endpoints and EndpointSlices of Services, with and without a selector.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::ListParams;
use pilotlight_tests::eventually;
use serde_json::json;

use crate::support::{Fixture, SOON, web};

async fn slices(fixture: &Fixture, service: &str, manager: &str) -> Vec<EndpointSlice> {
    let labels =
        format!("kubernetes.io/service-name={service},endpointslice.kubernetes.io/managed-by={manager}");
    fixture.api::<EndpointSlice>().list(&ListParams::default().labels(&labels)).await.expect("a list").items
}

fn addresses(slices: &[EndpointSlice]) -> Vec<String> {
    slices.iter().flat_map(|slice| &slice.endpoints).flat_map(|endpoint| endpoint.addresses.clone()).collect()
}

const OF_SELECTORS: &str = "endpointslice-controller.k8s.io";
const OF_MIRRORS: &str = "endpointslicemirroring-controller.k8s.io";

#[tokio::test]
async fn endpoints_written_for_a_service_without_selector_are_mirrored_and_reached() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    let pod = fixture.pods("web").await.remove(0);
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address");
    let ports = json!([{ "name": "http", "port": 80 }]);
    fixture.create::<Service>(json!({ "metadata": { "name": "manual" }, "spec": { "ports": ports } })).await;
    let subsets = json!([{ "addresses": [{ "ip": ip }], "ports": [{ "name": "http", "port": 8080 }] }]);
    fixture.create::<Endpoints>(json!({ "metadata": { "name": "manual" }, "subsets": subsets })).await;
    assert_eq!(fixture.answers("manual").await, pod.name_any());
    assert_eq!(addresses(&slices(&fixture, "manual", OF_MIRRORS).await), [ip]);
    assert_eq!(slices(&fixture, "manual", OF_SELECTORS).await.len(), 0);
}

#[tokio::test]
async fn a_selector_that_is_taken_away_leaves_the_slices_as_they_were_and_a_mirror_besides() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    let before = addresses(&slices(&fixture, "web", OF_SELECTORS).await);
    assert_eq!(before.len(), 1);
    fixture.patch::<Service>("web", json!({ "spec": { "selector": null } })).await;
    eventually("there is a mirror", SOON, async || {
        (addresses(&slices(&fixture, "web", OF_MIRRORS).await) == before).then_some(())
    })
    .await;
    assert_eq!(addresses(&slices(&fixture, "web", OF_SELECTORS).await), before);
}
