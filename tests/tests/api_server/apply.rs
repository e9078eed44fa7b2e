//! Server-side apply: owners of fields, conflicts, and what is applied no longer.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::{cluster_under_test, deployment, reason, refusal, value, version};

fn map(name: &str, data: &Value) -> Patch<Value> {
    Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}))
}

/// Managers of an object: name, operation, subresource.
fn managers(object: &impl ResourceExt) -> Vec<(String, String, String)> {
    let entry = |entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        (text(&entry.manager), text(&entry.operation), text(&entry.subresource))
    };
    object.managed_fields().iter().map(entry).collect()
}

#[tokio::test]
async fn apply_creates_what_is_not_there() {
    let cluster = cluster_under_test().await;
    let maps = cluster.api::<ConfigMap>();
    let made =
        maps.patch("a", &PatchParams::apply("m"), &map("a", &json!({"x": "1"}))).await.expect("applied");
    assert_eq!(managers(&made), [("m".into(), "Apply".into(), String::new())]);
    let fields = &value(&made)["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!(*fields, json!({"f:data": {"f:x": {}}}));
}

#[tokio::test]
async fn apply_of_the_same_is_no_change() {
    let cluster = cluster_under_test().await;
    let maps = cluster.api::<ConfigMap>();
    let params = PatchParams::apply("m");
    let made = maps.patch("a", &params, &map("a", &json!({"x": "1"}))).await.expect("applied");
    let again = maps.patch("a", &params, &map("a", &json!({"x": "1"}))).await.expect("applied");
    assert_eq!(version(&again), version(&made));
}

#[tokio::test]
async fn fields_that_are_applied_no_longer_go() {
    let cluster = cluster_under_test().await;
    let maps = cluster.api::<ConfigMap>();
    let params = PatchParams::apply("m");
    maps.patch("a", &params, &map("a", &json!({"x": "1", "y": "2"}))).await.expect("applied");
    let other = Patch::Merge(json!({"data": {"z": "3"}}));
    maps.patch("a", &PatchParams { field_manager: Some("n".into()), ..PatchParams::default() }, &other)
        .await
        .expect("patched");
    let left = maps.patch("a", &params, &map("a", &json!({"x": "1"}))).await.expect("applied");
    assert_eq!(value(&left.data), json!({"x": "1", "z": "3"}));
}

#[tokio::test]
async fn a_field_that_two_apply_goes_with_the_last() {
    let cluster = cluster_under_test().await;
    let maps = cluster.api::<ConfigMap>();
    let (first, second) = (PatchParams::apply("m"), PatchParams::apply("n"));
    maps.patch("a", &first, &map("a", &json!({"x": "1", "y": "1"}))).await.expect("applied");
    maps.patch("a", &second, &map("a", &json!({"x": "1"}))).await.expect("no conflict with the same value");
    let shared = maps.patch("a", &first, &map("a", &json!({"y": "1"}))).await.expect("applied");
    assert_eq!(value(&shared.data), json!({"x": "1", "y": "1"}));
    let last = maps.patch("a", &second, &map("a", &json!({}))).await.expect("applied");
    assert_eq!(value(&last.data), json!({"y": "1"}));
}

#[tokio::test]
async fn a_field_of_another_is_a_conflict() {
    let cluster = cluster_under_test().await;
    let maps = cluster.api::<ConfigMap>();
    maps.patch("a", &PatchParams::apply("m"), &map("a", &json!({"x": "1"}))).await.expect("applied");
    let params = PatchParams::apply("n");
    let status = refusal(maps.patch("a", &params, &map("a", &json!({"x": "2"}))).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"m\": .data.x");
    let cause = &status.details.expect("details").causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".data.x"));
    let forced = maps.patch("a", &params.force(), &map("a", &json!({"x": "2"}))).await.expect("forced");
    assert_eq!(value(&forced.data), json!({"x": "2"}));
    assert_eq!(managers(&forced), [("n".into(), "Apply".into(), String::new())]);
}

#[tokio::test]
async fn an_update_owns_what_it_changes() {
    let cluster = cluster_under_test().await;
    let maps = cluster.api::<ConfigMap>();
    maps.patch("a", &PatchParams::apply("m"), &map("a", &json!({"x": "1", "y": "1"})))
        .await
        .expect("applied");
    let params = PatchParams { field_manager: Some("editor".into()), ..PatchParams::default() };
    let edited = maps.patch("a", &params, &Patch::Merge(json!({"data": {"x": "2"}}))).await.expect("patched");
    let mut all = managers(&edited);
    all.sort();
    assert_eq!(
        all,
        [("editor".into(), "Update".into(), String::new()), ("m".into(), "Apply".into(), String::new())]
    );
    let status =
        refusal(maps.patch("a", &PatchParams::apply("m"), &map("a", &json!({"x": "1", "y": "1"}))).await);
    let field = &status.details.expect("details").causes[0].field;
    assert_eq!((status.code, field.as_str()), (409, ".data.x"));
}

#[tokio::test]
async fn containers_and_ports_are_applied_one_by_one() {
    let cluster = cluster_under_test().await;
    let deployments = cluster.api::<Deployment>();
    let applied = |containers: Value| {
        let mut object = deployment("a");
        object["apiVersion"] = "apps/v1".into();
        object["kind"] = "Deployment".into();
        object["spec"]["template"]["spec"]["containers"] = containers;
        Patch::Apply(object)
    };
    let app = json!([{"name": "app", "image": "i:1", "ports": [{"containerPort": 80}]}]);
    deployments.patch("a", &PatchParams::apply("m"), &applied(app.clone())).await.expect("applied");
    let more =
        json!([{"name": "app", "ports": [{"containerPort": 81}], "env": [{"name": "E", "value": "1"}]}]);
    let mut sidecar = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}});
    sidecar["spec"]["template"]["spec"]["containers"] = more;
    let both =
        deployments.patch("a", &PatchParams::apply("n"), &Patch::Apply(sidecar)).await.expect("applied");
    let container = &value(&both)["spec"]["template"]["spec"]["containers"][0];
    let ports: Vec<_> = container["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .map(|port| port["containerPort"].clone())
        .collect();
    assert_eq!((ports, &container["image"]), (vec![json!(80), json!(81)], &json!("i:1")));
    let bare = json!([{"name": "app", "image": "i:1"}]);
    let left = deployments.patch("a", &PatchParams::apply("m"), &applied(bare)).await.expect("applied");
    let container = &value(&left)["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["ports"], json!([{"containerPort": 81, "protocol": "TCP"}]));
    assert_eq!(container["env"], json!([{"name": "E", "value": "1"}]));
}

#[tokio::test]
async fn a_selector_is_applied_as_a_whole() {
    let cluster = cluster_under_test().await;
    let services = cluster.api::<Service>();
    let applied = |selector: Value| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"selector": selector, "ports": [{"port": 80}]}
        }))
    };
    let params = PatchParams::apply("m");
    let first = services.patch("a", &params, &applied(json!({"x": "1", "y": "2"}))).await.expect("applied");
    let second = services.patch("a", &params, &applied(json!({"x": "1"}))).await.expect("applied");
    let (first, second) = (value(&first), value(&second));
    assert_eq!(second["spec"]["selector"], json!({"x": "1"}));
    assert_eq!(first["spec"]["clusterIP"], second["spec"]["clusterIP"]);
}

#[tokio::test]
async fn the_status_is_applied_apart() {
    let cluster = cluster_under_test().await;
    cluster.create_pod("a").await;
    let pods = cluster.api::<Pod>();
    let condition = |status: &str| json!([{"type": "Fine", "status": status}]);
    let applied = |status: &str| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "status": {"conditions": condition(status)}}),
        )
    };
    let params = PatchParams::apply("m");
    let pod = pods.patch_status("a", &params, &applied("True")).await.expect("applied");
    assert!(managers(&pod).contains(&("m".into(), "Apply".into(), "status".into())), "{:?}", managers(&pod));
    let conditions = |pod: &Pod| {
        let conditions = value(pod)["status"]["conditions"].clone();
        let conditions = conditions.as_array().cloned().unwrap_or_default();
        conditions.iter().map(|each| (each["type"].clone(), each["status"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(conditions(&pod), [(json!("Fine"), json!("True"))]);
    let none = Patch::Apply(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}));
    let pod = pods.patch_status("a", &params, &none).await.expect("applied");
    assert_eq!(conditions(&pod), []);
}

#[tokio::test]
async fn apply_needs_a_manager_a_kind_and_its_own_name() {
    let cluster = cluster_under_test().await;
    let maps: Api<ConfigMap> = cluster.api();
    let path = format!("/api/v1/namespaces/{}/configmaps/a", cluster.namespace);
    let request = http::Request::patch(path).header("content-type", "application/apply-patch+yaml");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let request = request.body(serde_json::to_vec(&body).expect("JSON")).expect("a request");
    let (code, _) = reason(cluster.client.request::<ConfigMap>(request).await);
    assert!([400, 422].contains(&code), "{code}");
    let other = maps.patch("a", &PatchParams::apply("m"), &map("b", &json!({}))).await;
    assert_eq!(reason(other), (400, "BadRequest".into()));
}
