//! Revisions go to zero, wake, and follow their load.

use pilotlight_tests::eventually;

use crate::support::{LATER, cluster, is_answered, nothing_is_lost, one_request_a_pod, ready_revision};

#[tokio::test]
async fn a_request_at_zero_is_held_and_answered() {
    let cluster = cluster().await;
    ready_revision(&cluster, "hello", &[]).await;
    is_answered(&cluster, "hello").await;
    cluster.has_scale("hello", 0, LATER).await;
    eventually("no pod is left", LATER, async || cluster.pods_of("hello").await.is_empty().then_some(()))
        .await;
    let answer = cluster.ingress("hello").get("/").await.expect("an answer");
    assert_eq!(
        (answer.status.as_u16(), answer.body.starts_with("Pod hello-deployment-")),
        (200, true),
        "{answer:?}"
    );
    assert_eq!(cluster.replicas_of("hello"), [1, 0, 1]);
}

#[tokio::test]
async fn load_brings_four_pods_for_four_requests_at_a_time_and_loses_none() {
    let cluster = cluster().await;
    one_request_a_pod(&cluster, "hello", &[]).await;
    let load = cluster.ingress("hello").load(4, "/?sleep=200");
    cluster.has_scale("hello", 4, LATER).await;
    nothing_is_lost(&load.so_far());
    let outcomes = load.finish().await;
    cluster.has_scale("hello", 0, LATER).await;
    nothing_is_lost(&outcomes);
    let counts = cluster.replicas_of("hello");
    assert_eq!((counts.iter().max(), counts.last()), (Some(&4), Some(&0)), "{counts:?}");
}

#[tokio::test]
async fn a_pod_that_crashes_comes_back_and_no_count_changes() {
    use rustix::process::Signal;

    let cluster = cluster().await;
    ready_revision(&cluster, "hello", &[("min-scale", "2")]).await;
    cluster.has_scale("hello", 2, LATER).await;
    let before = cluster.replicas_of("hello");
    let pod = cluster.pods_of("hello").await.remove(0).metadata.name.expect("a name");
    assert!(cluster.small.kubelet.signal(&cluster.namespace, &pod, "app", Signal::KILL));
    let has_restarted = |each: &k8s_openapi::api::core::v1::Pod| {
        let containers = each.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        containers
            .into_iter()
            .flatten()
            .any(|container| container.name == "app" && container.restart_count == 1)
    };
    cluster.until("the app has been restarted", &pod, LATER, has_restarted).await;
    cluster.has_scale("hello", 2, LATER).await;
    is_answered(&cluster, "hello").await;
    assert_eq!(cluster.replicas_of("hello"), before);
}
