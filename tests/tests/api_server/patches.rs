//! Patches: RFC 6902, RFC 7386, strategic merge; and the status apart from the spec.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use crate::support::{cluster_under_test, reason, refusal, value, version};

fn json_patch(operations: Value) -> Patch<Value> {
    Patch::Json(serde_json::from_value(operations).expect("a JSON patch"))
}

#[tokio::test]
async fn a_json_patch_changes_what_it_names() {
    let cluster = cluster_under_test().await;
    cluster.create_map("a", json!({"x": "1", "y": "2"})).await;
    let patch = json_patch(json!([
        {"op": "test", "path": "/data/x", "value": "1"},
        {"op": "replace", "path": "/data/x", "value": "3"},
        {"op": "remove", "path": "/data/y"},
        {"op": "replace", "path": "/data/z", "value": "4"},
        {"op": "add", "path": "/metadata/labels", "value": {"l/l": "1"}},
        {"op": "replace", "path": "/metadata/labels/l~1l", "value": "2"}
    ]));
    let map = cluster.api::<ConfigMap>().patch("a", &PatchParams::default(), &patch).await.expect("patched");
    // RFC 6902 would not let a field be replaced that is not there; Kubernetes does.
    assert_eq!((value(&map.data), map.labels()["l/l"].as_str()), (json!({"x": "3", "z": "4"}), "2"));
}

#[tokio::test]
async fn a_json_patch_whose_test_fails_changes_nothing() {
    let cluster = cluster_under_test().await;
    let map = cluster.create_map("a", json!({"x": "1"})).await;
    let maps = cluster.api::<ConfigMap>();
    for operations in [
        json!([{"op": "replace", "path": "/data/x", "value": "2"}, {"op": "test", "path": "/data/x", "value": "1"}]),
        json!([{"op": "remove", "path": "/data/none"}]),
        json!([{"op": "replace", "path": "/none/none", "value": 1}]),
    ] {
        let refused = maps.patch("a", &PatchParams::default(), &json_patch(operations)).await;
        assert_eq!(reason(refused), (422, "Invalid".into()));
    }
    assert_eq!(version(&maps.get("a").await.expect("there")), version(&map));
}

#[tokio::test]
async fn a_merge_patch_merges_and_takes_nulls_out() {
    let cluster = cluster_under_test().await;
    cluster.create_map("a", json!({"x": "1", "y": "2"})).await;
    let patch = Patch::Merge(json!({"data": {"x": null, "z": "3"}, "metadata": {"annotations": {"n": "v"}}}));
    let map = cluster.api::<ConfigMap>().patch("a", &PatchParams::default(), &patch).await.expect("patched");
    assert_eq!((value(&map.data), map.annotations()["n"].as_str()), (json!({"y": "2", "z": "3"}), "v"));
}

#[tokio::test]
async fn a_merge_patch_replaces_lists() {
    let cluster = cluster_under_test().await;
    cluster.create_deployment("a").await;
    let containers = json!([{"name": "other", "image": "i:1"}]);
    let patch = Patch::Merge(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
    let object =
        cluster.api::<Deployment>().patch("a", &PatchParams::default(), &patch).await.expect("patched");
    let containers = &value(&object)["spec"]["template"]["spec"]["containers"];
    assert_eq!((containers.as_array().map(Vec::len), &containers[0]["name"]), (Some(1), &json!("other")));
}

#[tokio::test]
async fn a_strategic_patch_merges_containers_by_name() {
    let cluster = cluster_under_test().await;
    cluster.create_deployment("a").await;
    let containers =
        json!([{"name": "app", "env": [{"name": "E", "value": "1"}]}, {"name": "proxy", "image": "p:1"}]);
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
    let deployments = cluster.api::<Deployment>();
    let object = deployments.patch("a", &PatchParams::default(), &patch).await.expect("patched");
    let containers = value(&object)["spec"]["template"]["spec"]["containers"].clone();
    let find = |name: &str| {
        containers
            .as_array()
            .expect("containers")
            .iter()
            .find(|each| each["name"] == name)
            .cloned()
            .expect("there")
    };
    assert_eq!(
        (&find("app")["image"], &find("app")["env"]),
        (&json!("example.org/app:1"), &json!([{"name": "E", "value": "1"}]))
    );
    assert_eq!(find("proxy")["image"], "p:1");
    let delete = json!([{"name": "proxy", "$patch": "delete"}]);
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": delete}}}}));
    let object = deployments.patch("a", &PatchParams::default(), &patch).await.expect("patched");
    assert_eq!(value(&object)["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_strategic_patch_merges_conditions_by_type() {
    let cluster = cluster_under_test().await;
    cluster.create_pod("a").await;
    let pods = cluster.api::<Pod>();
    for (name, status) in [("A", "True"), ("B", "True"), ("A", "False")] {
        let patch = Patch::Strategic(json!({"status": {"conditions": [{"type": name, "status": status}]}}));
        pods.patch_status("a", &PatchParams::default(), &patch).await.expect("patched");
    }
    let conditions = value(&pods.get("a").await.expect("there"))["status"]["conditions"].clone();
    let status = |name: &str| {
        let all = conditions.as_array().expect("conditions").iter();
        all.filter(|each| each["type"] == name).map(|each| each["status"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((status("A"), status("B")), (vec![json!("False")], vec![json!("True")]));
}

#[tokio::test]
async fn a_patch_may_insist_on_a_version() {
    let cluster = cluster_under_test().await;
    let old = cluster.create_map("a", json!({"x": "1"})).await;
    let maps = cluster.api::<ConfigMap>();
    let patch = |map: &ConfigMap, value: &str| {
        Patch::Merge(json!({"metadata": {"resourceVersion": version(map)}, "data": {"x": value}}))
    };
    let new = maps.patch("a", &PatchParams::default(), &patch(&old, "2")).await.expect("patched");
    assert_eq!(
        reason(maps.patch("a", &PatchParams::default(), &patch(&old, "3")).await),
        (409, "Conflict".into())
    );
    maps.patch("a", &PatchParams::default(), &patch(&new, "3")).await.expect("patched");
}

#[tokio::test]
async fn a_patch_of_nothing_is_no_change() {
    let cluster = cluster_under_test().await;
    let map = cluster.create_map("a", json!({"x": "1"})).await;
    let same = Patch::Merge(json!({"data": {"x": "1"}}));
    let again = cluster.api::<ConfigMap>().patch("a", &PatchParams::default(), &same).await.expect("patched");
    assert_eq!(version(&again), version(&map));
}

#[tokio::test]
async fn a_patch_needs_its_object() {
    let cluster = cluster_under_test().await;
    let patch = Patch::Merge(json!({"data": {"x": "1"}}));
    let refused = cluster.api::<ConfigMap>().patch("a", &PatchParams::default(), &patch).await;
    assert_eq!(reason(refused), (404, "NotFound".into()));
}

#[tokio::test]
async fn a_patched_object_is_validated() {
    let cluster = cluster_under_test().await;
    cluster.create_deployment("a").await;
    let patch = Patch::Merge(json!({"spec": {"replicas": -1}}));
    let status = refusal(cluster.api::<Deployment>().patch("a", &PatchParams::default(), &patch).await);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
}

#[tokio::test]
async fn the_status_is_written_apart_from_the_spec() {
    let cluster = cluster_under_test().await;
    cluster.create_pod("a").await;
    let pods = cluster.api::<Pod>();
    let both =
        json!({"metadata": {"labels": {"l": "v"}}, "status": {"phase": "Running", "podIP": "10.1.2.3"}});
    let main = pods.patch("a", &PatchParams::default(), &Patch::Merge(both)).await.expect("patched");
    let status = value(&main.status);
    assert_eq!(
        (main.labels()["l"].as_str(), &status["phase"], &status["podIP"]),
        ("v", &json!("Pending"), &Value::Null)
    );
    let both = json!({"spec": {"priority": 7, "activeDeadlineSeconds": 7}, "status": {"phase": "Running"}});
    let written =
        pods.patch_status("a", &PatchParams::default(), &Patch::Merge(both)).await.expect("patched");
    let written = value(&written);
    assert_eq!(
        (&written["status"]["phase"], &written["spec"]["activeDeadlineSeconds"]),
        (&json!("Running"), &Value::Null)
    );
}

#[tokio::test]
async fn a_status_does_not_count_for_the_generation() {
    let cluster = cluster_under_test().await;
    cluster.create_deployment("a").await;
    let deployments = cluster.api::<Deployment>();
    let patch = Patch::Merge(json!({"status": {"replicas": 2, "observedGeneration": 1}}));
    let object = deployments.patch_status("a", &PatchParams::default(), &patch).await.expect("patched");
    assert_eq!(object.meta().generation, Some(1));
    assert_eq!(object.status.expect("a status").replicas, Some(2));
}

#[tokio::test]
async fn a_whole_status_can_be_replaced_with_its_version() {
    let cluster = cluster_under_test().await;
    let old = cluster.create_pod("a").await;
    let pods = cluster.api::<Pod>();
    let mut running = old.clone();
    running.status.get_or_insert_default().phase = Some("Running".into());
    let new = pods.replace_status("a", &PostParams::default(), &running).await.expect("updated");
    assert_eq!(new.status.expect("a status").phase.as_deref(), Some("Running"));
    running.status.get_or_insert_default().phase = Some("Failed".into());
    assert_eq!(
        reason(pods.replace_status("a", &PostParams::default(), &running).await),
        (409, "Conflict".into())
    );
}

#[tokio::test]
async fn a_patch_has_to_be_of_a_known_kind() {
    let cluster = cluster_under_test().await;
    cluster.create_map("a", json!({})).await;
    let path = format!("/api/v1/namespaces/{}/configmaps/a", cluster.namespace);
    let request = http::Request::patch(path)
        .header("content-type", "text/plain")
        .body(b"{}".to_vec())
        .expect("a request");
    assert_eq!(
        reason(cluster.client.request::<ConfigMap>(request).await),
        (415, "UnsupportedMediaType".into())
    );
}
