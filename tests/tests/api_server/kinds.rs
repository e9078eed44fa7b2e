//! The kinds that manifests of workloads bring along: each can be created, listed, watched and deleted.

use std::pin::pin;

use futures_util::TryStreamExt;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams, WatchEvent, WatchParams,
};
use kube::core::GroupVersionKind;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Cluster, SOON, cluster_under_test, refusal};

/// API version, kind, plural, and what an object has beside its metadata.
fn namespaced() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let selector = json!({"matchLabels": {"app": "a"}});
    let template = json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "app", "image": "example.org/app:1"}]}
    });
    let rbac = "rbac.authorization.k8s.io/v1";
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "a"});
    let subject = json!({"kind": "ServiceAccount", "name": "a", "namespace": "default"});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}});
    vec![
        ("v1", "ServiceAccount", "serviceaccounts", json!({})),
        ("v1", "ResourceQuota", "resourcequotas", json!({"spec": {"hard": {"pods": "10"}}})),
        ("v1", "LimitRange", "limitranges", json!({"spec": {"limits": []}})),
        ("v1", "PersistentVolumeClaim", "persistentvolumeclaims", json!({"spec": claim})),
        ("apps/v1", "DaemonSet", "daemonsets", json!({"spec": {"selector": selector, "template": template}})),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            json!({"spec": {"scaleTargetRef": target, "maxReplicas": 3}}),
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            "poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1, "selector": selector}}),
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "networkpolicies",
            json!({"spec": {"podSelector": selector}}),
        ),
        (
            "networking.k8s.io/v1",
            "Ingress",
            "ingresses",
            json!({"spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}}}),
        ),
        (rbac, "Role", "roles", json!({"rules": []})),
        (rbac, "RoleBinding", "rolebindings", json!({"roleRef": role, "subjects": [subject]})),
    ]
}

fn cluster_scoped() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let rbac = "rbac.authorization.k8s.io/v1";
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    vec![
        ("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", json!({"value": 1})),
        (rbac, "ClusterRole", "clusterroles", json!({"rules": []})),
        (rbac, "ClusterRoleBinding", "clusterrolebindings", json!({"roleRef": role})),
    ]
}

fn resource(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn object(api_version: &str, kind: &str, name: &str, rest: &Value) -> DynamicObject {
    let mut object = rest.clone();
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    object["metadata"] = json!({"name": name, "labels": {"pilotlight-test": name}});
    serde_json::from_value(object).expect("an object")
}

/// Creates, lists, watches and deletes an object.
async fn live(api: Api<DynamicObject>, object: DynamicObject) {
    let (name, kind) = (object.name_any(), object.types.clone().expect("a kind").kind);
    let selector = format!("pilotlight-test={name}");
    let listed = api.list(&ListParams::default().labels(&selector)).await.expect("a list");
    let made =
        api.create(&PostParams::default(), &object).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
    let found = api.list(&ListParams::default().labels(&selector)).await.expect("a list");
    assert_eq!(found.items.len(), 1, "{kind}");
    assert_eq!(found.items[0].uid(), made.uid(), "{kind}");
    let version = listed.metadata.resource_version.expect("a version");
    let mut events =
        pin!(api.watch(&WatchParams::default().labels(&selector), &version).await.expect("a watch"));
    let told = timeout(SOON, events.try_next()).await.expect("told in time").expect("a watch");
    assert!(matches!(&told, Some(WatchEvent::Added(added)) if added.uid() == made.uid()), "{kind}: {told:?}");
    api.delete(&name, &DeleteParams::background()).await.expect("deleted");
}

#[tokio::test]
async fn what_manifests_bring_along_is_stored() {
    let cluster = cluster_under_test().await;
    for (api_version, kind, plural, rest) in namespaced() {
        let resource = resource(api_version, kind, plural);
        let api = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource);
        live(api, object(api_version, kind, "a", &rest)).await;
    }
    for (api_version, kind, plural, rest) in cluster_scoped() {
        let api = Api::all_with(cluster.client.clone(), &resource(api_version, kind, plural));
        live(api, object(api_version, kind, &cluster.namespace, &rest)).await;
    }
}

#[tokio::test]
async fn pods_and_nodes_have_metrics() {
    let cluster = cluster_under_test().await;
    // A real server takes them from a metrics server, and nobody else may write them.
    if cluster.faulty().is_none() {
        return;
    }
    let usage = json!({"cpu": "250m", "memory": "64Mi"});
    let pod = json!({
        "timestamp": "2026-01-01T00:00:00Z", "window": "15s", "containers": [{"name": "app", "usage": usage}]
    });
    let version = "metrics.k8s.io/v1beta1";
    let pods = resource(version, "PodMetrics", "pods");
    let pods = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &pods);
    live(pods, object(version, "PodMetrics", "a", &pod)).await;
    let node = json!({"timestamp": "2026-01-01T00:00:00Z", "window": "15s", "usage": usage});
    let nodes = Api::all_with(cluster.client.clone(), &resource(version, "NodeMetrics", "nodes"));
    live(nodes, object(version, "NodeMetrics", "a", &node)).await;
}

async fn create(
    cluster: &Cluster,
    (api_version, kind, plural): (&str, &str, &str),
    rest: Value,
) -> kube::Result<DynamicObject> {
    let resource = resource(api_version, kind, plural);
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource);
    api.create(&PostParams::default(), &object(api_version, kind, "a", &rest)).await
}

#[tokio::test]
async fn an_autoscaler_gets_what_it_leaves_out() {
    let cluster = cluster_under_test().await;
    let kind = ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"});
    let refused = create(
        &cluster,
        kind,
        json!({"spec": {"scaleTargetRef": target, "minReplicas": 4, "maxReplicas": 3}}),
    );
    let causes = refusal(refused.await).details.expect("details").causes;
    assert_eq!(causes.iter().map(|cause| cause.field.as_str()).collect::<Vec<_>>(), ["spec.maxReplicas"]);
    let made = create(&cluster, kind, json!({"spec": {"scaleTargetRef": target, "maxReplicas": 3}}))
        .await
        .expect("created");
    let spec = &made.data["spec"];
    assert_eq!((&spec["minReplicas"], &spec["metrics"][0]["resource"]["name"]), (&json!(1), &json!("cpu")));
    assert!(made.meta().generation.is_none(), "an autoscaler has no generation");
}

#[tokio::test]
async fn a_budget_has_one_bound() {
    let cluster = cluster_under_test().await;
    let kind = ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets");
    let both = json!({"spec": {"minAvailable": 1, "maxUnavailable": 1}});
    let causes = refusal(create(&cluster, kind, both).await).details.expect("details").causes;
    assert_eq!(causes.iter().map(|cause| cause.field.as_str()).collect::<Vec<_>>(), ["spec"]);
}
