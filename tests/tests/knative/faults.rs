//! The API server is away, slow or forgetful. A real one cannot be asked to be: there these tests are left out.

use pilotlight_kubernetes::knative::PodAutoscaler;
use pilotlight_tests::cluster::api::{Outage, Requests, Verb};

use crate::support::{
    LATER, cluster, condition, goes_on, is_answered, nothing_is_lost, one_request_a_pod, ready_revision,
};

#[tokio::test]
async fn while_the_api_server_is_away_requests_are_answered_and_counts_stay() {
    let cluster = cluster().await;
    let Some(server) = cluster.server.in_process("the API server is away") else { return };
    one_request_a_pod(&cluster, "hello", &[]).await;
    let load = cluster.ingress("hello").load(2, "/?sleep=200");
    cluster.has_scale("hello", 2, LATER).await;
    let before = cluster.replicas_of("hello");
    for outage in [Outage::Refused, Outage::Silent] {
        server.faults().outage(outage);
        // Longer than a lease.
        goes_on(&load, 2 * 5 * 5).await;
        server.faults().heal();
        goes_on(&load, 2 * 5 * 2).await;
    }
    assert_eq!(cluster.replicas_of("hello"), before);
    nothing_is_lost(&load.finish().await);
    // It knows again: without load the revision goes to zero.
    cluster.has_scale("hello", 0, LATER).await;
}

#[tokio::test]
async fn watches_that_break_and_expire_are_taken_up_again() {
    let cluster = cluster().await;
    let Some(server) = cluster.server.in_process("watches break and expire") else { return };
    ready_revision(&cluster, "hello", &[]).await;
    is_answered(&cluster, "hello").await;
    server.faults().break_watches(Requests::all());
    is_answered(&cluster, "hello").await;
    server.faults().expire_watches(Requests::all());
    cluster.has_scale("hello", 0, LATER).await;
    server.faults().expire_watches(Requests::all());
    is_answered(&cluster, "hello").await;
    cluster.has_scale("hello", 1, LATER).await;
    ready_revision(&cluster, "later", &[]).await;
    is_answered(&cluster, "later").await;
}

#[tokio::test]
async fn writes_that_fail_are_repeated_until_they_are_done() {
    let cluster = cluster().await;
    let Some(server) = cluster.server.in_process("writes fail") else { return };
    let of = |resource: &str| Requests::all().verb(Verb::Patch).verb(Verb::Update).resource(resource);
    let statuses = of("podautoscalers.autoscaling.internal.knative.dev").subresource("status");
    server.faults().fail(statuses, 409, 0, Some(3));
    let created =
        Requests::all().verb(Verb::Create).resource("serverlessservices.networking.internal.knative.dev");
    server.faults().fail(created, 500, 0, Some(2));
    server.faults().lose_answers(of("deployments.apps").subresource("scale"), Some(1));
    ready_revision(&cluster, "hello", &[]).await;
    let is_active =
        |each: &PodAutoscaler| condition(each, "Active").is_some_and(|active| active.status == "True");
    cluster.until("the autoscaler is active", "hello", LATER, is_active).await;
    is_answered(&cluster, "hello").await;
    cluster.has_scale("hello", 0, LATER).await;
}
