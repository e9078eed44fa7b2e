use serde_json::json;

use super::*;

fn named(spec: &Value) -> Value {
    json!({"metadata": {"name": "it"}, "spec": spec})
}

#[test]
fn a_policy_restricts_unless_it_is_about_egress_or_lets_everybody_in() {
    let pods = json!({"matchLabels": {"app": "web"}});
    let table = [
        (json!({"podSelector": pods}), true),
        (json!({"podSelector": pods, "policyTypes": ["Egress"]}), false),
        (json!({"podSelector": pods, "policyTypes": ["Egress", "Ingress"]}), true),
        (json!({"podSelector": pods, "ingress": [{}]}), false),
        (json!({"podSelector": pods, "ingress": [{"ports": [{"port": 80}]}]}), true),
        (json!({"podSelector": pods, "ingress": [{"from": [{"podSelector": {}}]}]}), true),
    ];
    for (spec, restricts) in table {
        assert_eq!(policy(&named(&spec)).is_some(), restricts, "{spec}");
    }
    let about = |spec| policy(&named(&spec)).unwrap().1.pods.map(|pods| pods.to_string());
    assert_eq!(about(json!({"podSelector": pods})).as_deref(), Some("app=web"));
    assert_eq!(about(json!({"podSelector": {}})), None);
    let expressions = json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "old", "operator": "DoesNotExist"}]});
    assert_eq!(about(json!({"podSelector": expressions})).as_deref(), Some("tier in (a,b),!old"));
}

#[test]
fn a_budget_lets_the_only_pod_go_or_does_not() {
    let table = [
        (json!({"minAvailable": 1}), false),
        (json!({"minAvailable": "10%"}), false),
        (json!({"minAvailable": 0}), true),
        (json!({"maxUnavailable": 1}), true),
        (json!({"maxUnavailable": "10%"}), true),
        (json!({"maxUnavailable": 0}), false),
        (json!({"maxUnavailable": "0%"}), false),
    ];
    for (mut spec, allows) in table {
        spec["selector"] = json!({"matchLabels": {"app": "web"}});
        assert_eq!(budget(&named(&spec)).unwrap().1.allows_one_of_one, allows, "{spec}");
    }
    assert!(budget(&named(&json!({"minAvailable": 1}))).is_none(), "about no pod");
}

#[test]
fn a_scaled_object_is_paused_by_annotation() {
    let read = |annotations: Value| {
        let object = json!({"metadata": {"name": "it", "annotations": annotations},
            "spec": {"scaleTargetRef": {"name": "web"}}});
        scaled_object(&object).unwrap().1
    };
    assert!(!read(json!({})).is_paused);
    assert!(!read(json!({"autoscaling.keda.sh/paused": "false"})).is_paused);
    assert!(read(json!({"autoscaling.keda.sh/paused": "true"})).is_paused);
    assert!(read(json!({"autoscaling.keda.sh/paused-replicas": "0"})).is_paused);
    assert_eq!(read(json!({})).target.kind, "Deployment");
}

#[test]
fn numbers_of_objects_are_limited_by_quotas_without_scope() {
    let hard = json!({"pods": "10", "requests.cpu": "4", "limits.memory": "8Gi"});
    let fact = quota(&named(&json!({"hard": hard}))).unwrap().1;
    assert_eq!(fact.hard.get("pods"), Some(&10));
    assert!(!fact.hard.contains_key("limits.memory"));
    assert!(quota(&named(&json!({"hard": hard, "scopes": ["BestEffort"]}))).is_none());
}

#[test]
fn whoever_applies_replicas_is_named_and_a_scale_is_not() {
    let replicas = json!({"f:spec": {"f:replicas": {}}});
    let entry = |manager: &str, operation: &str, subresource: &str| json!({"manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": replicas});
    let managers = |entries: Vec<Value>| {
        target(&json!({"metadata": {"name": "web", "managedFields": entries}})).replicas_managers
    };
    assert_eq!(managers(vec![entry("argocd-controller", "Update", "")]), ["argocd-controller"]);
    assert_eq!(managers(vec![entry("anybody", "Apply", "")]), ["anybody"]);
    assert_eq!(managers(vec![entry("kubectl", "Update", "scale")]), [""; 0]);
    assert_eq!(managers(vec![entry("kubectl-create", "Update", "")]), [""; 0]);
    let last = json!({"metadata": {"name": "web", "annotations": {
        "kubectl.kubernetes.io/last-applied-configuration": "{\"spec\":{\"replicas\":2}}"}}});
    assert_eq!(target(&last).replicas_managers, ["kubectl apply"]);
}

#[test]
fn whatever_moves_traffic_between_versions_is_seen() {
    let rollout = |strategy: Value| {
        target(&json!({"kind": "Rollout", "metadata": {"name": "web"}, "spec": {"strategy": strategy}}))
            .progressive
    };
    assert_eq!(rollout(json!({"blueGreen": {}})), Some(Progressive::BlueGreen));
    assert_eq!(rollout(json!({"canary": {"trafficRouting": {}}})), Some(Progressive::TrafficRouting));
    assert_eq!(rollout(json!({"canary": {"steps": []}})), None);
    let owned = json!({"metadata": {"name": "web-primary", "ownerReferences": [{"kind": "Canary"}]}});
    assert_eq!(target(&owned).progressive, Some(Progressive::Flagger));
}

#[test]
fn an_ingress_is_read_with_its_class_and_services() {
    let object = json!({"metadata": {"name": "front", "annotations": {"kubernetes.io/ingress.class": "nginx"}},
        "spec": {"defaultBackend": {"service": {"name": "web"}},
            "rules": [{"http": {"paths": [{"backend": {"service": {"name": "api"}}}]}}]}});
    assert_eq!(ingress(&object).unwrap().1.class.as_deref(), Some("nginx"));
    assert_eq!(services_of_ingress(&object), BTreeSet::from(["api".to_owned(), "web".to_owned()]));
}
