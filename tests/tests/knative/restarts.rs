//! Autoscalers and activators end and come back, without a count that changes or a request that is lost.

use kube::ResourceExt;
use pilotlight_tests::eventually;

use crate::support::{
    LATER, cluster, cluster_of, goes_on, holder, is_answered, nothing_is_lost, ready_revision,
    two_requests_a_pod,
};

#[tokio::test]
async fn an_autoscaler_that_is_killed_under_load_changes_no_count() {
    let cluster = cluster().await;
    two_requests_a_pod(&cluster, "hello", &[]).await;
    let load = cluster.ingress("hello").load(5, "/?sleep=200");
    cluster.has_scale("hello", 3, LATER).await;
    let before = cluster.replicas_of("hello");
    let pod = cluster.parts("autoscaler").await.remove(0).name_any();
    assert!(cluster.kill_part(&pod));
    let has_restarted = async || {
        let pods = cluster.parts("autoscaler").await;
        let containers = pods.first()?.status.as_ref()?.container_statuses.as_ref()?;
        (containers[0].restart_count == 1 && containers[0].ready).then_some(())
    };
    eventually("the autoscaler has been restarted", LATER, has_restarted).await;
    // More than a stable window of load: the new one decides by what it has seen itself.
    goes_on(&load, 5 * 5 * 8).await;
    assert_eq!(cluster.replicas_of("hello"), before);
    nothing_is_lost(&load.finish().await);
}

#[tokio::test]
async fn a_lease_moves_to_the_other_autoscaler_under_load() {
    let cluster = cluster_of(2, 1).await;
    two_requests_a_pod(&cluster, "hello", &[]).await;
    let load = cluster.ingress("hello").load(3, "/?sleep=200");
    cluster.has_scale("hello", 2, LATER).await;
    let before = cluster.replicas_of("hello");
    for is_killed in [false, true] {
        let first = eventually("somebody holds the lease", LATER, async || holder(&cluster).await).await;
        if is_killed {
            assert!(cluster.kill_part(&first));
        }
        cluster.end_part(&first).await.expect("ended");
        let is_other = async || holder(&cluster).await.filter(|holder| *holder != first);
        eventually("another holds the lease", LATER, is_other).await;
        cluster.has_ready_parts("autoscaler", 2).await;
        goes_on(&load, 3 * 5 * 4).await;
    }
    assert_eq!(cluster.replicas_of("hello"), before);
    nothing_is_lost(&load.finish().await);
}

#[tokio::test]
async fn a_restart_of_everything_at_rest_writes_nothing_about_revisions() {
    let cluster = cluster().await;
    let Some(server) = cluster.server.in_process("a restart of everything at rest") else { return };
    ready_revision(&cluster, "awake", &[("min-scale", "1")]).await;
    ready_revision(&cluster, "asleep", &[]).await;
    is_answered(&cluster, "awake").await;
    cluster.has_scale("asleep", 0, LATER).await;
    cluster.has_scale("awake", 1, LATER).await;
    eventually("no pod sleeps any more", LATER, async || {
        cluster.pods_of("asleep").await.is_empty().then_some(())
    })
    .await;
    let about_revisions = ["podautoscalers", "metrics", "serverlessservices", "deployments"];
    let is_about_revisions = |resource: &str| about_revisions.iter().any(|kind| resource.starts_with(kind));
    eventually("nothing is written about revisions while the lease is renewed twice", LATER, async || {
        let writes = server.log().writes();
        let last = writes.iter().rposition(|request| is_about_revisions(&request.resource))?;
        let renewals = writes[last..].iter().filter(|request| request.resource.starts_with("leases"));
        (renewals.count() >= 2).then_some(())
    })
    .await;
    server.log().clear();
    for part in ["autoscaler", "activator"] {
        let pod = cluster.parts(part).await.remove(0).name_any();
        cluster.end_part(&pod).await.expect("ended");
        let is_another = async || {
            let pods = cluster.parts(part).await;
            (pods.len() == 1 && pods[0].name_any() != pod).then_some(())
        };
        eventually("another pod is in its place", LATER, is_another).await;
        cluster.has_ready_parts(part, 1).await;
    }
    // The new one has decided about both: it answers, and a stable window has passed in which it would have written.
    is_answered(&cluster, "awake").await;
    let seen =
        server.log().count(|request| request.resource.starts_with("leases") && request.verb.is_write());
    let has_renewed = async || {
        let renewed =
            server.log().count(|request| request.resource.starts_with("leases") && request.verb.is_write());
        (renewed >= seen + 8).then_some(())
    };
    eventually("the lease has been renewed for some seconds", LATER, has_renewed).await;
    // The activator's address is in the public Endpoints, which are the controller's.
    let writes: Vec<String> = server
        .log()
        .writes()
        .iter()
        .filter(|request| request.namespace == cluster.namespace)
        .filter(|request| is_about_revisions(&request.resource))
        .map(|request| format!("{} {}", request.line(), String::from_utf8_lossy(&request.body)))
        .collect();
    assert!(writes.is_empty(), "{writes:#?}");
}
