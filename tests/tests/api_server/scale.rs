//! The `scale` subresource, of built-in kinds and of custom resources.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v1::Scale;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{cluster_under_test, deployment, reason, value, version};

#[tokio::test]
async fn a_scale_shows_replicas_and_selector() {
    let cluster = cluster_under_test().await;
    cluster.create_deployment("a").await;
    let deployments = cluster.api::<Deployment>();
    let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let object = deployments.patch("a", &PatchParams::default(), &patch).await.expect("patched");
    let scale = deployments.get_scale("a").await.expect("a scale");
    let scale = value(&scale);
    assert_eq!(scale["spec"], json!({"replicas": 3}));
    assert_eq!(scale["status"], json!({"replicas": 0, "selector": "app=a"}));
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(scale["metadata"]["uid"], object.metadata.uid.clone().expect("a uid"));
}

#[tokio::test]
async fn a_json_patch_scales() {
    let cluster = cluster_under_test().await;
    cluster.create_deployment("a").await;
    let deployments = cluster.api::<Deployment>();
    let add = json!([{"op": "add", "path": "/spec/replicas", "value": 3}]);
    let patch: Patch<Value> = Patch::Json(serde_json::from_value(add).expect("a patch"));
    let scale = deployments.patch_scale("a", &PatchParams::default(), &patch).await.expect("scaled");
    assert_eq!(scale.spec.expect("a spec").replicas, Some(3));
    let object = deployments.get("a").await.expect("there");
    assert_eq!((object.spec.expect("a spec").replicas, object.metadata.generation), (Some(3), Some(2)));
}

#[tokio::test]
async fn a_json_patch_may_replace_replicas_that_are_left_out() {
    let cluster = cluster_under_test().await;
    cluster.create_deployment("a").await;
    let replace = json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]);
    let patch: Patch<Value> = Patch::Json(serde_json::from_value(replace).expect("a patch"));
    let scale =
        cluster.api::<Deployment>().patch_scale("a", &PatchParams::default(), &patch).await.expect("scaled");
    assert_eq!(scale.spec.expect("a spec").replicas, Some(3));
}

#[tokio::test]
async fn a_merge_patch_scales_and_the_same_again_changes_nothing() {
    let cluster = cluster_under_test().await;
    cluster.create_deployment("a").await;
    let deployments = cluster.api::<Deployment>();
    let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let first = deployments.patch_scale("a", &PatchParams::default(), &patch).await.expect("scaled");
    let again = deployments.patch_scale("a", &PatchParams::default(), &patch).await.expect("scaled");
    assert_eq!(first.metadata.resource_version, again.metadata.resource_version);
    let zero = Patch::Merge(json!({"spec": {"replicas": 0}}));
    deployments.patch_scale("a", &PatchParams::default(), &zero).await.expect("scaled");
    assert_eq!(deployments.get("a").await.expect("there").spec.expect("a spec").replicas, Some(0));
}

#[tokio::test]
async fn a_scale_can_be_replaced_with_its_version() {
    let cluster = cluster_under_test().await;
    let object = cluster.create_deployment("a").await;
    let put = async |replicas: i32, version: Option<&str>| {
        let scale = json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": "a", "namespace": cluster.namespace, "resourceVersion": version}, "spec": {"replicas": replicas}
        });
        let path = format!("/apis/apps/v1/namespaces/{}/deployments/a/scale", cluster.namespace);
        let request = http::Request::put(path).header("content-type", "application/json");
        let request = request.body(serde_json::to_vec(&scale).expect("JSON")).expect("a request");
        cluster.client.request::<Scale>(request).await
    };
    let scale = put(2, Some(&version(&object))).await.expect("scaled");
    assert_eq!(scale.spec.expect("a spec").replicas, Some(2));
    assert_eq!(reason(put(3, Some(&version(&object))).await), (409, "Conflict".into()));
    assert_eq!(reason(put(-1, None).await), (422, "Invalid".into()));
    put(4, None).await.expect("scaled");
}

#[tokio::test]
async fn replica_sets_and_stateful_sets_scale_as_well() {
    let cluster = cluster_under_test().await;
    let mut object = deployment("a");
    object["spec"].as_object_mut().expect("a spec").remove("paused");
    cluster.create::<ReplicaSet>(object.clone()).await;
    object["spec"]["serviceName"] = "a".into();
    cluster.create::<StatefulSet>(object).await;
    let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let set =
        cluster.api::<ReplicaSet>().patch_scale("a", &PatchParams::default(), &patch).await.expect("scaled");
    assert_eq!(set.spec.expect("a spec").replicas, Some(2));
    let set =
        cluster.api::<StatefulSet>().patch_scale("a", &PatchParams::default(), &patch).await.expect("scaled");
    assert_eq!(set.spec.expect("a spec").replicas, Some(2));
}

#[tokio::test]
async fn what_has_no_replicas_has_no_scale() {
    let cluster = cluster_under_test().await;
    cluster.create_map("a", json!({})).await;
    let maps = cluster.api::<k8s_openapi::api::core::v1::ConfigMap>();
    assert_eq!(reason(maps.get_scale("a").await), (404, "NotFound".into()));
    assert_eq!(reason(cluster.api::<Deployment>().get_scale("none").await), (404, "NotFound".into()));
}
