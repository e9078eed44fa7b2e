//! Revisions and ServerlessServices, without an autoscaler.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Endpoints, Pod};
use kube::api::{Api, PostParams};
use pilotlight_kubernetes::knative::{PodAutoscaler, ServerlessService};
use pilotlight_tests::cluster::{ACTIVATOR_SERVICE, Ingress, Revision, SYSTEM_NAMESPACE};
use pilotlight_tests::eventually;
use serde_json::{Value, json};

use crate::support::{Fixture, SOON};

/// A revision with its ServerlessService, as the autoscaler would create it, and an activator that nobody asks.
async fn revision(fixture: &mut Fixture, mode: &str) {
    let config = json!({ "metadata": { "name": "config-autoscaler" } });
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
        Api::namespaced(fixture.client.clone(), SYSTEM_NAMESPACE);
    // With a real API server it may be there.
    let _ = maps.create(&PostParams::default(), &serde_json::from_value(config).unwrap()).await;
    let activators: Api<Endpoints> = Api::namespaced(fixture.client.clone(), SYSTEM_NAMESPACE);
    let ports = json!([{ "name": "http", "port": 8012 }]);
    let endpoints = json!({
        "metadata": { "name": ACTIVATOR_SERVICE }, "subsets": [{ "addresses": [{ "ip": ACTIVATOR }], "ports": ports }],
    });
    let _ = activators.create(&PostParams::default(), &serde_json::from_value(endpoints).unwrap()).await;
    fixture.cluster.start_knative(BTreeMap::from([("PILOTLIGHT_DRAIN_QUIET_PERIOD".into(), "500ms".into())]));
    fixture
        .create::<Revision>(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": { "name": "hello", "labels": { "serving.knative.dev/routingState": "active" } },
            "spec": { "timeoutSeconds": 20, "containers": [{
                "name": "app", "image": "sample",
                "readinessProbe": { "httpGet": { "path": "/healthz" }, "periodSeconds": 1 },
            }] },
        }))
        .await;
    fixture
        .create::<ServerlessService>(json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ServerlessService",
            "metadata": { "name": "hello" },
            "spec": {
                "mode": mode, "protocolType": "http1",
                "objectRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "hello-deployment" },
            },
        }))
        .await;
}

/// An address of TEST-NET-1 (RFC 5737).
const ACTIVATOR: &str = "192.0.2.7";

fn ips(endpoints: &Endpoints) -> Vec<String> {
    let subsets = endpoints.subsets.iter().flatten();
    subsets.flat_map(|subset| subset.addresses.iter().flatten()).map(|address| address.ip.clone()).collect()
}

#[tokio::test]
async fn a_revision_gets_a_deployment_an_autoscaler_and_services_that_lead_to_its_pods() {
    let mut fixture = Fixture::start().await;
    revision(&mut fixture, "Serve").await;
    let deployment = fixture.has_ready("hello-deployment", 1).await;
    let spec = deployment.spec.unwrap().template.spec.unwrap();
    let containers: Vec<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(containers, ["app", "queue-proxy"]);
    let has_target = |each: &PodAutoscaler| each.spec.scale_target_ref.name == "hello-deployment";
    let autoscaler = fixture.until::<PodAutoscaler>("there is an autoscaler", "hello", has_target).await;
    assert_eq!(autoscaler.spec.reachability, "Reachable");
    let ingress = Ingress::new(&fixture.cluster.names, &fixture.namespace, "hello");
    let answered = async || ingress.get("/").await.ok().filter(|answer| answer.status == 200);
    let answer = eventually("the queue-proxy passes a request on", SOON, answered).await;
    assert!(answer.body.starts_with("Pod hello-deployment-"), "{answer:?}");
    let is_served = |sks: &ServerlessService| {
        let status = sks.status.clone().unwrap_or_default();
        let is = |type_: &str, wanted: &str| {
            status.conditions.iter().any(|each| each.type_ == type_ && each.status == wanted)
        };
        is("Ready", "True")
            && is("ActivatorEndpointsPopulated", "False")
            && status.private_service_name == "hello-private"
    };
    fixture.until("the Services are served by pods", "hello", is_served).await;
}

#[tokio::test]
async fn the_public_service_leads_to_activators_in_proxy_mode_and_while_no_pod_is_ready() {
    let mut fixture = Fixture::start().await;
    revision(&mut fixture, "Proxy").await;
    fixture.has_ready("hello-deployment", 1).await;
    let by_activator = |endpoints: &Endpoints| ips(endpoints) == [ACTIVATOR];
    fixture.until("activators are in the path", "hello", by_activator).await;
    fixture.patch::<ServerlessService>("hello", json!({ "spec": { "mode": "Serve" } })).await;
    let by_pod = |endpoints: &Endpoints| !ips(endpoints).is_empty() && ips(endpoints)[0] != ACTIVATOR;
    fixture.until("a pod is in the path", "hello", by_pod).await;
    let scale: Value = json!({ "spec": { "replicas": 0 } });
    fixture.patch::<k8s_openapi::api::apps::v1::Deployment>("hello-deployment", scale).await;
    fixture.until("activators are in the path again", "hello", by_activator).await;
}

#[tokio::test]
async fn a_pod_that_ends_lets_its_queue_proxy_drain_before_the_app_is_told() {
    let mut fixture = Fixture::start().await;
    revision(&mut fixture, "Serve").await;
    fixture.has_ready("hello-deployment", 1).await;
    let ingress = Ingress::new(&fixture.cluster.names, &fixture.namespace, "hello");
    let answered = async || ingress.get("/").await.ok().filter(|answer| answer.status == 200);
    eventually("a request is answered", SOON, answered).await;
    let pods: Api<Pod> = fixture.api();
    let pod = pods.list(&Default::default()).await.unwrap().items.remove(0).metadata.name.unwrap();
    let load = ingress.load(2, "/?sleep=300");
    eventually("the load goes on", SOON, async || (load.so_far().answered > 2).then_some(())).await;
    fixture
        .patch::<k8s_openapi::api::apps::v1::Deployment>(
            "hello-deployment",
            json!({ "spec": { "replicas": 2 } }),
        )
        .await;
    fixture.has_ready("hello-deployment", 2).await;
    fixture.patch::<Pod>(&pod, json!({ "metadata": { "annotations": { COST: "-1" } } })).await;
    fixture
        .patch::<k8s_openapi::api::apps::v1::Deployment>(
            "hello-deployment",
            json!({ "spec": { "replicas": 1 } }),
        )
        .await;
    fixture.gone::<Pod>(&pod).await;
    let outcomes = load.finish().await;
    assert!(outcomes.lost.is_empty(), "of {}: {:#?}", outcomes.answered, outcomes.lost);
}

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
