//! Ends: grace periods, finalizers, owners, collections, namespaces; and kinds that come and go.

use std::pin::pin;

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Cluster, SOON, cluster_under_test, reason, value, version};

/// Waits until there is no object of this name.
async fn gone<K>(api: Api<K>, name: &str)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut objects = pin!(watcher::watch_object(api, name));
    let is_gone = async {
        while let Some(object) = objects.try_next().await.expect("a watch") {
            if object.is_none() {
                return;
            }
        }
    };
    timeout(SOON, is_gone).await.expect("gone in time");
}

fn owned(name: &str, owner: &impl Resource<DynamicType = ()>, blocks: bool) -> Value {
    let mut reference = value(&owner.owner_ref(&()).expect("an owner"));
    reference["blockOwnerDeletion"] = blocks.into();
    json!({"metadata": {"name": name, "ownerReferences": [reference]}})
}

/// A pod that a node has taken.
async fn scheduled_pod(cluster: &Cluster, name: &str) -> Pod {
    cluster.create_pod(name).await;
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "nowhere"}
    });
    let path = format!("/api/v1/namespaces/{}/pods/{name}/binding", cluster.namespace);
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(&binding).expect("JSON")).expect("a request");
    cluster.client.request::<Value>(request).await.expect("bound");
    cluster.api::<Pod>().get(name).await.expect("there")
}

#[tokio::test]
async fn a_deleted_object_is_gone() {
    let cluster = cluster_under_test().await;
    cluster.create_map("a", json!({})).await;
    let maps = cluster.api::<ConfigMap>();
    let status =
        maps.delete("a", &DeleteParams::default()).await.expect("deleted").right().expect("a status");
    let details = status.details.expect("details");
    assert_eq!((details.name.as_str(), details.kind.as_str()), ("a", "configmaps"));
    assert!(maps.get_opt("a").await.expect("an answer").is_none());
    assert_eq!(reason(maps.delete("a", &DeleteParams::default()).await), (404, "NotFound".into()));
}

#[tokio::test]
async fn a_deletion_may_insist_on_uid_and_version() {
    let cluster = cluster_under_test().await;
    let map = cluster.create_map("a", json!({})).await;
    let maps = cluster.api::<ConfigMap>();
    let with = |uid: Option<String>, resource_version: Option<String>| {
        DeleteParams::default().preconditions(Preconditions { uid, resource_version })
    };
    let wrong = with(Some("11111111-1111-1111-1111-111111111111".into()), None);
    assert_eq!(reason(maps.delete("a", &wrong).await), (409, "Conflict".into()));
    assert_eq!(reason(maps.delete("a", &with(None, Some("1".into()))).await), (409, "Conflict".into()));
    maps.delete("a", &with(map.uid(), Some(version(&map)))).await.expect("deleted");
}

#[tokio::test]
async fn a_pod_of_a_node_ends_when_its_kubelet_says_so() {
    let cluster = cluster_under_test().await;
    let pod = scheduled_pod(&cluster, "a").await;
    assert_eq!(value(&pod)["spec"]["nodeName"], "nowhere");
    let pods = cluster.api::<Pod>();
    let ending = pods.delete("a", &DeleteParams::default()).await.expect("begun").left().expect("a pod");
    assert!(ending.metadata.deletion_timestamp.is_some());
    assert_eq!(ending.metadata.deletion_grace_period_seconds, Some(30));
    let shorter = pods
        .delete("a", &DeleteParams::default().grace_period(5))
        .await
        .expect("begun")
        .left()
        .expect("a pod");
    assert_eq!(shorter.metadata.deletion_grace_period_seconds, Some(5));
    pods.delete("a", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    assert!(pods.get_opt("a").await.expect("an answer").is_none());
}

#[tokio::test]
async fn a_pod_of_no_node_ends_at_once() {
    let cluster = cluster_under_test().await;
    cluster.create_pod("a").await;
    let pods = cluster.api::<Pod>();
    pods.delete("a", &DeleteParams::default()).await.expect("deleted");
    assert!(pods.get_opt("a").await.expect("an answer").is_none());
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_taken_off() {
    let cluster = cluster_under_test().await;
    let maps = cluster.api::<ConfigMap>();
    cluster.create::<ConfigMap>(json!({"metadata": {"name": "a", "finalizers": ["example.org/hold"]}})).await;
    let ending = maps.delete("a", &DeleteParams::default()).await.expect("begun").left().expect("a map");
    assert!(ending.metadata.deletion_timestamp.is_some());
    let again = maps.delete("a", &DeleteParams::default()).await.expect("begun").left().expect("a map");
    assert_eq!(version(&again), version(&ending));
    let more = Patch::Merge(json!({"metadata": {"finalizers": ["example.org/hold", "example.org/more"]}}));
    assert_eq!(reason(maps.patch("a", &PatchParams::default(), &more).await), (422, "Invalid".into()));
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("a", &PatchParams::default(), &none).await.expect("patched");
    assert!(maps.get_opt("a").await.expect("an answer").is_none());
}

#[tokio::test]
async fn dependents_go_with_their_owner() {
    let cluster = cluster_under_test().await;
    let owner = cluster.create_map("owner", json!({})).await;
    cluster.create::<ConfigMap>(owned("a", &owner, false)).await;
    let a = cluster.api::<ConfigMap>().get("a").await.expect("there");
    cluster.create::<ConfigMap>(owned("b", &a, false)).await;
    cluster.api::<ConfigMap>().delete("owner", &DeleteParams::background()).await.expect("deleted");
    gone(cluster.api::<ConfigMap>(), "a").await;
    gone(cluster.api::<ConfigMap>(), "b").await;
}

#[tokio::test]
async fn a_dependent_of_two_stays_with_the_other() {
    let cluster = cluster_under_test().await;
    let (first, second) =
        (cluster.create_map("x", json!({})).await, cluster.create_map("y", json!({})).await);
    let mut object = owned("a", &first, false);
    let other = owned("a", &second, false)["metadata"]["ownerReferences"][0].clone();
    object["metadata"]["ownerReferences"].as_array_mut().expect("owners").push(other);
    cluster.create::<ConfigMap>(object).await;
    let maps = cluster.api::<ConfigMap>();
    maps.delete("x", &DeleteParams::background()).await.expect("deleted");
    let left = |map: Option<&ConfigMap>| map.is_some_and(|map| map.owner_references().len() == 1);
    let map =
        timeout(SOON, await_condition(maps.clone(), "a", left)).await.expect("in time").expect("a watch");
    assert_eq!(map.expect("there").owner_references()[0].uid, second.uid().expect("a uid"));
    maps.delete("y", &DeleteParams::background()).await.expect("deleted");
    gone(maps, "a").await;
}

#[tokio::test]
async fn a_dependent_of_nobody_is_collected() {
    let cluster = cluster_under_test().await;
    let mut owner = cluster.create_map("owner", json!({})).await;
    owner.metadata.uid = Some("11111111-1111-1111-1111-111111111111".into());
    cluster.create::<ConfigMap>(owned("a", &owner, false)).await;
    gone(cluster.api::<ConfigMap>(), "a").await;
}

#[tokio::test]
async fn an_owner_may_leave_its_dependents() {
    let cluster = cluster_under_test().await;
    let owner = cluster.create_map("owner", json!({})).await;
    cluster.create::<ConfigMap>(owned("a", &owner, false)).await;
    let maps = cluster.api::<ConfigMap>();
    maps.delete("owner", &DeleteParams::orphan()).await.expect("deleted");
    gone(maps.clone(), "owner").await;
    assert!(maps.get("a").await.expect("there").owner_references().is_empty());
}

#[tokio::test]
async fn an_owner_may_wait_for_its_dependents() {
    let cluster = cluster_under_test().await;
    let owner = cluster.create_map("owner", json!({})).await;
    let mut held = owned("a", &owner, true);
    held["metadata"]["finalizers"] = json!(["example.org/hold"]);
    cluster.create::<ConfigMap>(held).await;
    let maps = cluster.api::<ConfigMap>();
    maps.delete("owner", &DeleteParams::foreground()).await.expect("begun");
    let is_ending =
        |map: Option<&ConfigMap>| map.is_some_and(|map| map.metadata.deletion_timestamp.is_some());
    timeout(SOON, await_condition(maps.clone(), "a", is_ending)).await.expect("in time").expect("a watch");
    let waiting = maps.get("owner").await.expect("there");
    assert_eq!(waiting.finalizers(), ["foregroundDeletion"]);
    let patch = Patch::Json::<Value>(
        serde_json::from_value(json!([{"op": "remove", "path": "/metadata/finalizers/0"}])).expect("a patch"),
    );
    // The dependent may have got the collector's own finalizer as well.
    assert_eq!(maps.get("a").await.expect("there").finalizers()[0], "example.org/hold");
    maps.patch("a", &PatchParams::default(), &patch).await.expect("patched");
    gone(maps.clone(), "a").await;
    gone(maps, "owner").await;
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_labels() {
    let cluster = cluster_under_test().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        cluster.create::<ConfigMap>(json!({"metadata": {"name": name, "labels": {"l": label}}})).await;
    }
    let maps = cluster.api::<ConfigMap>();
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("l=x"))
        .await
        .expect("deleted");
    let left = maps.list(&ListParams::default().labels("l")).await.expect("a list");
    assert_eq!(left.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn a_namespace_takes_its_content_along() {
    let cluster = cluster_under_test().await;
    cluster
        .create::<ConfigMap>(json!({"metadata": {"name": "held", "finalizers": ["example.org/hold"]}}))
        .await;
    cluster.create_map("a", json!({})).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let ending = namespaces.delete(&cluster.namespace, &DeleteParams::default()).await.expect("begun");
    let ending = ending.left().expect("a namespace");
    assert_eq!(ending.status.expect("a status").phase.as_deref(), Some("Terminating"));
    gone(cluster.api::<ConfigMap>(), "a").await;
    let late = cluster.try_create::<ConfigMap>(json!({"metadata": {"name": "late"}})).await;
    assert_eq!(reason(late), (403, "Forbidden".into()));
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    cluster.api::<ConfigMap>().patch("held", &PatchParams::default(), &none).await.expect("patched");
    gone(namespaces, &cluster.namespace).await;
}

/// A kind of this test alone, with status and scale.
async fn birds(cluster: &Cluster) -> Api<DynamicObject> {
    let group = format!("{}.example.org", cluster.namespace);
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let crd = json!({
        "metadata": {"name": format!("birds.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": "birds", "singular": "bird", "kind": "Bird"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.count"}}
            }]
        }
    });
    let crd: CustomResourceDefinition = serde_json::from_value(crd).expect("a CRD");
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    crds.create(&PostParams::default(), &crd).await.expect("created");
    let name = crd.name_any();
    let established = await_condition(crds, &name, conditions::is_crd_established());
    timeout(SOON, established).await.expect("in time").expect("established");
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(&group, "v1", "Bird"), "birds");
    Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &kind)
}

fn bird(api: &Api<DynamicObject>, name: &str, spec: &Value) -> DynamicObject {
    let group = api.resource_url().split('/').nth(2).expect("a group").to_owned();
    let object = json!({"apiVersion": format!("{group}/v1"), "kind": "Bird", "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).expect("a bird")
}

#[tokio::test]
async fn a_custom_kind_has_status_scale_and_generation() {
    let cluster = cluster_under_test().await;
    let birds = birds(&cluster).await;
    let mut first = bird(&birds, "a", &json!({"count": 1}));
    first.data["status"] = json!({"count": 9});
    let made = birds.create(&PostParams::default(), &first).await.expect("created");
    assert_eq!((made.metadata.generation, made.data.get("status")), (Some(1), None));
    let patch = Patch::Merge(json!({"spec": {"count": 7}, "status": {"count": 5}}));
    let status = birds.patch_status("a", &PatchParams::default(), &patch).await.expect("patched");
    assert_eq!((&status.data["spec"], &status.data["status"]), (&json!({"count": 1}), &json!({"count": 5})));
    assert_eq!(status.metadata.generation, Some(1));
    let scale = birds
        .patch_scale("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}})))
        .await;
    let scale = scale.expect("scaled");
    assert_eq!(
        (scale.spec.and_then(|spec| spec.replicas), scale.status.map(|status| status.replicas)),
        (Some(3), Some(5))
    );
    let read = birds.get("a").await.expect("there");
    assert_eq!((&read.data["spec"], read.metadata.generation), (&json!({"count": 3}), Some(2)));
}

#[tokio::test]
async fn a_custom_kind_needs_versions_and_takes_no_strategic_patch() {
    let cluster = cluster_under_test().await;
    let birds = birds(&cluster).await;
    birds.create(&PostParams::default(), &bird(&birds, "a", &json!({"count": 1}))).await.expect("created");
    let blind = birds.replace("a", &PostParams::default(), &bird(&birds, "a", &json!({"count": 2}))).await;
    assert_eq!(reason(blind), (422, "Invalid".into()));
    let patch = Patch::Strategic(json!({"spec": {"count": 2}}));
    assert_eq!(
        reason(birds.patch("a", &PatchParams::default(), &patch).await),
        (415, "UnsupportedMediaType".into())
    );
}

#[tokio::test]
async fn a_custom_kind_is_discovered() {
    let cluster = cluster_under_test().await;
    birds(&cluster).await;
    let group = format!("{}.example.org", cluster.namespace);
    // Discovery follows the definition a little later.
    let found = async || kube::discovery::group(&cluster.client, &group).await.ok();
    let found = pilotlight_tests::eventually("the group of a new kind", SOON, found).await;
    let (resource, capabilities) = found.recommended_kind("Bird").expect("a kind");
    assert_eq!(
        (resource.plural.as_str(), capabilities.scope.clone()),
        ("birds", kube::discovery::Scope::Namespaced)
    );
    assert!(capabilities.supports_operation(kube::discovery::verbs::WATCH));
    let all = kube::Discovery::new(cluster.client.clone()).run_aggregated().await.expect("discovered");
    assert!(all.has_group("apps") && all.has_group("coordination.k8s.io"));
    let resolved = all.resolve_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment")).expect("a kind");
    assert_eq!(resolved.0.plural, "deployments");
}
