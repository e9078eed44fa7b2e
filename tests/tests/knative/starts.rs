//! Revisions start: with one pod, with several, or not at all.

use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};
use pilotlight_kubernetes::knative::{PodAutoscaler, ServerlessService};
use pilotlight_tests::cluster::Revision;
use pilotlight_tests::eventually;

use crate::support::{LATER, cluster, condition, image, is_answered, ready_revision};

#[tokio::test]
async fn a_new_revision_becomes_ready_and_every_object_says_so() {
    let cluster = cluster().await;
    ready_revision(&cluster, "hello", &[]).await;
    let is_active =
        |each: &PodAutoscaler| condition(each, "Active").is_some_and(|active| active.status == "True");
    let autoscaler = cluster.until("the autoscaler is active", "hello", LATER, is_active).await;
    let status = autoscaler.status.clone().unwrap();
    assert_eq!(
        (status.service_name.as_str(), status.metrics_service_name.as_str()),
        ("hello", "hello-private")
    );
    assert_eq!(condition(&autoscaler, "ScaleTargetInitialized").unwrap().status, "True");
    let has_endpoints = |sks: &ServerlessService| {
        let conditions = sks.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|each| each.type_ == "Ready" && each.status == "True")
    };
    let sks = cluster.until("the Services are ready", "hello", LATER, has_endpoints).await;
    // With the default target burst capacity one pod leaves the activator in the path.
    assert_eq!(sks.spec.mode, "Proxy");
    is_answered(&cluster, "hello").await;
    assert_eq!(cluster.replicas_of("hello"), [1]);
}

#[tokio::test]
async fn the_initial_scale_is_reached_first_and_the_minimum_kept_then() {
    let cluster = cluster().await;
    ready_revision(&cluster, "hello", &[("initial-scale", "3"), ("min-scale", "2")]).await;
    cluster.has_scale("hello", 2, LATER).await;
    assert_eq!(cluster.replicas_of("hello"), [3, 2]);
    is_answered(&cluster, "hello").await;
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told_in_an_event() {
    let cluster = cluster().await;
    cluster.create_revision("hello", &[], image("registry.example/none:1")).await.expect("created");
    let is_told = |revision: &Revision| {
        let available = revision.condition("ResourcesAvailable");
        available.is_some_and(|each| each.status == "False" && each.reason.contains("Image"))
    };
    cluster.until("the revision says why", "hello", LATER, is_told).await;
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let says_so = async || {
        let events = api.list(&ListParams::default()).await.ok()?.items;
        events.into_iter().find(|event| {
            let text = event.message.as_deref().unwrap_or_default();
            event.involved_object.kind.as_deref() == Some("PodAutoscaler")
                && text.contains("registry.example/none:1")
        })
    };
    eventually("an Event about the PodAutoscaler names the image", LATER, says_so).await;
}
