//! Endpoints and EndpointSlices of Services, with and without a selector.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use pilotlight_tests::eventually;
use serde_json::json;

use crate::support::{Fixture, SOON, plain, service, web};

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

#[tokio::test]
async fn without_a_selector_pods_that_are_gone_stay_in_both_slices() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    let before = addresses(&slices(&fixture, "web", OF_SELECTORS).await);
    fixture.patch::<Service>("web", json!({ "spec": { "selector": null } })).await;
    fixture.patch::<Deployment>("web", json!({ "spec": { "replicas": 0 } })).await;
    fixture.pods_until("no pod is left", "web", <[Pod]>::is_empty).await;
    eventually("there is a mirror", SOON, async || {
        (addresses(&slices(&fixture, "web", OF_MIRRORS).await) == before).then_some(())
    })
    .await;
    assert_eq!(addresses(&slices(&fixture, "web", OF_SELECTORS).await), before);
}

#[tokio::test]
async fn without_a_selector_what_is_deleted_does_not_come_back() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    fixture.patch::<Service>("web", json!({ "spec": { "selector": null } })).await;
    let has_mirror = async || (!slices(&fixture, "web", OF_MIRRORS).await.is_empty()).then_some(());
    eventually("there is a mirror", SOON, has_mirror).await;
    fixture.delete::<Endpoints>("web").await;
    for manager in [OF_SELECTORS, OF_MIRRORS] {
        for slice in slices(&fixture, "web", manager).await {
            let deleted =
                fixture.api::<EndpointSlice>().delete(&slice.name_any(), &DeleteParams::default()).await;
            // The mirror's controller may have been first.
            assert!(deleted.is_ok() || manager == OF_MIRRORS, "{deleted:?}");
        }
    }
    eventually("the Service refuses", SOON, async || fixture.is_refused("web").await.then_some(())).await;
    // Something else happens in the namespace, which all controllers hear of.
    fixture.create::<Service>(service("other")).await;
    eventually("another Service has its slice", SOON, async || {
        (!slices(&fixture, "other", OF_SELECTORS).await.is_empty()).then_some(())
    })
    .await;
    for manager in [OF_SELECTORS, OF_MIRRORS] {
        assert_eq!(addresses(&slices(&fixture, "web", manager).await), [""; 0], "{manager}");
    }
}

#[tokio::test]
async fn a_selector_that_is_put_back_follows_the_pods_again_and_takes_the_mirror_away() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    fixture.patch::<Service>("web", json!({ "spec": { "selector": null } })).await;
    let has_mirror = async || (!slices(&fixture, "web", OF_MIRRORS).await.is_empty()).then_some(());
    eventually("there is a mirror", SOON, has_mirror).await;
    fixture.patch::<Deployment>("web", json!({ "spec": { "replicas": 2 } })).await;
    fixture.has_ready("web", 2).await;
    assert_eq!(addresses(&slices(&fixture, "web", OF_SELECTORS).await).len(), 1);
    fixture.patch::<Service>("web", json!({ "spec": { "selector": { "app": "web" } } })).await;
    eventually("both pods are in the slice, and the mirror is gone", SOON, async || {
        let own = addresses(&slices(&fixture, "web", OF_SELECTORS).await).len();
        (own == 2 && slices(&fixture, "web", OF_MIRRORS).await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pods_that_mean_different_numbers_by_a_port_are_in_slices_apart() {
    let fixture = Fixture::start().await;
    let mut both = service("both");
    both["spec"]["selector"] = json!({ "tier": "front" });
    fixture.create::<Service>(both).await;
    for (name, listen) in [("one", "8080/http"), ("two", "8090/http")] {
        let mut deployment = plain(name, listen, &[]);
        deployment["spec"]["template"]["metadata"]["labels"] = json!({ "app": name, "tier": "front" });
        fixture.create::<Deployment>(deployment).await;
        fixture.has_ready(name, 1).await;
    }
    let ports = async || {
        let slices = slices(&fixture, "both", OF_SELECTORS).await;
        let numbers =
            slices.iter().filter(|slice| !slice.endpoints.is_empty()).flat_map(|slice| &slice.ports);
        let mut numbers: Vec<_> = numbers.flatten().filter_map(|port| port.port).collect();
        numbers.sort_unstable();
        (numbers == [8080, 8090]).then_some(())
    };
    eventually("there is a slice for each number", SOON, ports).await;
    let mut answered = std::collections::BTreeSet::new();
    eventually("both pods have answered", SOON, async || {
        let pod = fixture.answers("both").await;
        answered.insert(pod.split('-').next().unwrap_or_default().to_owned());
        (answered.len() == 2).then_some(())
    })
    .await;
}
