//! Deployments come up, roll, and lose the pods they should.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use pilotlight_tests::eventually;
use serde_json::json;

use crate::support::{Fixture, SOON, deployment, is_ready, names, service, web};

#[tokio::test]
async fn a_deployment_comes_up_and_its_service_reaches_all_of_its_pods() {
    let fixture = Fixture::start().await;
    web(&fixture, 2).await;
    let pods: BTreeSet<String> = names(&fixture.pods("web").await).into_iter().collect();
    let mut seen = BTreeSet::new();
    eventually("both pods have answered", SOON, async || {
        seen.insert(fixture.answers("web").await);
        (seen.len() == 2).then_some(())
    })
    .await;
    assert_eq!(seen, pods);
    let status = fixture.has_ready("web", 2).await.status.unwrap();
    let conditions = status.conditions.unwrap();
    let reason =
        |type_: &str| conditions.iter().find(|each| each.type_ == type_).and_then(|each| each.reason.clone());
    assert_eq!(reason("Available").as_deref(), Some("MinimumReplicasAvailable"));
    assert_eq!(reason("Progressing").as_deref(), Some("NewReplicaSetAvailable"));
}

#[tokio::test]
async fn a_roll_never_has_fewer_ready_pods_than_replicas() {
    let fixture = Fixture::start().await;
    web(&fixture, 2).await;
    let before: BTreeSet<String> = names(&fixture.pods("web").await).into_iter().collect();
    let template = json!({ "spec": { "template": { "metadata": { "annotations": { "version": "2" } } } } });
    fixture.patch::<Deployment>("web", template).await;
    let (mut fewest, mut most) = (usize::MAX, 0);
    eventually("the roll is over", SOON, async || {
        let pods = fixture.pods("web").await;
        let serving =
            pods.iter().filter(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none()).count();
        fewest = fewest.min(serving);
        most = most.max(pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count());
        let is_over =
            pods.len() == 2 && pods.iter().all(|pod| is_ready(pod) && !before.contains(&pod.name_any()));
        is_over.then_some(())
    })
    .await;
    assert_eq!((fewest, most), (2, 3), "ready pods never below replicas, pods never beyond the surge");
}

#[tokio::test]
async fn the_pod_with_the_lowest_deletion_cost_goes_first() {
    let fixture = Fixture::start().await;
    web(&fixture, 3).await;
    let pods = names(&fixture.pods("web").await);
    let cost =
        json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": "-10" } } });
    fixture.patch::<Pod>(&pods[1], cost).await;
    fixture.patch::<Deployment>("web", json!({ "spec": { "replicas": 2 } })).await;
    let left = fixture.pods_until("one pod is gone", "web", |pods| pods.len() == 2).await;
    assert_eq!(names(&left), [pods[0].clone(), pods[2].clone()]);
}

#[tokio::test]
async fn a_deployment_that_is_deleted_takes_its_pods_along_and_their_service_refuses() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    fixture.answers("web").await;
    fixture.delete::<Deployment>("web").await;
    fixture.pods_until("no pod is left", "web", <[Pod]>::is_empty).await;
    eventually("the Service refuses", SOON, async || fixture.get("web", "/").await.is_err().then_some(()))
        .await;
    assert_eq!(fixture.cluster.kubelet.processes().len(), 0);
}

#[tokio::test]
async fn pods_that_never_are_ready_exceed_the_progress_deadline() {
    let fixture = Fixture::start().await;
    let mut slow = deployment("slow", 1, &["--startup", "1h"]);
    slow["spec"]["progressDeadlineSeconds"] = 1.into();
    fixture.create::<Service>(service("slow")).await;
    fixture.create::<Deployment>(slow).await;
    let has_exceeded = |deployment: &Deployment| {
        let conditions = deployment.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|each| {
            each.type_ == "Progressing"
                && each.reason.as_deref() == Some("ProgressDeadlineExceeded")
                && each.status == "False"
        })
    };
    fixture.until("the deadline is exceeded", "slow", has_exceeded).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_cluster_that_is_dropped() {
    let fixture = Fixture::start().await;
    web(&fixture, 2).await;
    let before = fixture.cluster.kubelet.processes();
    assert_eq!(before.len(), 2, "{before:?}");
    let Fixture { cluster, server, .. } = fixture;
    drop(cluster);
    let is_gone =
        async || before.iter().all(|each| !pilotlight_tests::process::is_running(each.pid)).then_some(());
    eventually("the pods' processes are gone", SOON, is_gone).await;
    drop(server);
}
