use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn id(name: &str) -> RevisionId {
    RevisionId::new("shop", name)
}

fn autoscaler(name: &str, selector: &str, services: &[&str]) -> Fact {
    let services: Vec<Value> = services.iter().map(|name| json!({ "name": name })).collect();
    let object = json!({"apiVersion": "pilotlight.dev/v1alpha1", "kind": "RequestAutoscaler",
        "metadata": {"namespace": "shop", "name": name, "resourceVersion": "1"},
        "spec": {"scaleTargetRef": {"name": name}, "services": services}, "status": {"selector": selector}});
    let (id, fact) = AutoscalerFact::read(&serde_json::from_value(object).unwrap()).unwrap();
    Fact::Autoscaler(id.into(), Some(fact.into()))
}

fn service(name: &str, selector: &Value, ports: &Value) -> Fact {
    let object = json!({"metadata": {"namespace": "shop", "name": name},
        "spec": {"clusterIP": "10.96.0.1", "selector": selector, "ports": ports}});
    let (name, fact) = ServiceFact::read(&serde_json::from_value(object).unwrap()).unwrap();
    Fact::Service(name.into(), Some(fact.into()))
}

fn pod(name: &str, labels: &Value) -> Fact {
    let object = json!({"metadata": {"namespace": "shop", "name": name, "labels": labels},
        "spec": {"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running"}});
    let (name, fact) = PodFact::read(&serde_json::from_value(object).unwrap()).unwrap();
    Fact::Pod(name.into(), Some(fact.into()))
}

fn gone(name: &str) -> Fact {
    Fact::Pod(Name::new("shop", name).into(), None)
}

fn touched(index: &mut Index, fact: Fact) -> Vec<String> {
    index.learn(fact).into_iter().map(|id| id.name).collect()
}

fn seen(index: &Index, name: &str) -> (Vec<String>, Vec<String>) {
    let workload = index.workload(&id(name)).unwrap();
    (workload.services.into_keys().collect(), workload.pods.into_keys().collect())
}

#[test]
fn pods_and_services_find_the_workloads_that_they_belong_to() {
    let mut index = Index::default();
    assert_eq!(touched(&mut index, pod("web-1", &json!({"app": "web"}))), [""; 0]);
    touched(&mut index, autoscaler("web", "app=web", &[]));
    touched(&mut index, autoscaler("api", "app=api", &["api"]));
    assert_eq!(touched(&mut index, pod("web-2", &json!({"app": "web"}))), ["web"]);
    assert_eq!(touched(&mut index, pod("api-1", &json!({"app": "api"}))), ["api"]);
    assert_eq!(touched(&mut index, service("api", &json!({"app": "api"}), &json!([]))), ["api"]);
    assert_eq!(touched(&mut index, service("web", &json!({"app": "web"}), &json!([]))), ["web"]);
    assert_eq!(seen(&index, "web"), (vec!["web".to_owned()], vec!["web-1".to_owned(), "web-2".to_owned()]));
    assert_eq!(seen(&index, "api"), (vec!["api".to_owned()], vec!["api-1".to_owned()]));

    assert_eq!(touched(&mut index, pod("web-2", &json!({"app": "api"}))), ["api", "web"]);
    assert_eq!(touched(&mut index, gone("web-1")), ["web"]);
    assert_eq!(seen(&index, "web").1, [""; 0]);
    assert_eq!(seen(&index, "api").1, ["api-1", "web-2"]);
}

#[test]
fn a_workload_without_pods_knows_its_services_by_the_targets_selector() {
    let mut index = Index::default();
    touched(&mut index, autoscaler("web", "app=web,tier=front", &[]));
    touched(&mut index, service("web", &json!({"app": "web"}), &json!([])));
    touched(&mut index, service("other", &json!({"app": "other"}), &json!([])));
    touched(&mut index, service("bare", &json!({}), &json!([])));
    assert_eq!(seen(&index, "web").0, ["web"]);
}

#[test]
fn a_service_may_select_by_a_label_that_the_target_does_not() {
    let mut index = Index::default();
    touched(&mut index, autoscaler("web", "app=web", &[]));
    touched(&mut index, pod("web-1", &json!({"app": "web", "tier": "front"})));
    touched(&mut index, pod("web-2", &json!({"app": "web", "tier": "front"})));
    assert_eq!(touched(&mut index, service("front", &json!({"tier": "front"}), &json!([]))), ["web"]);
    assert_eq!(seen(&index, "web").0, ["front"]);
    touched(&mut index, gone("web-1"));
    assert_eq!(seen(&index, "web").0, ["front"]);
    touched(&mut index, gone("web-2"));
    assert_eq!(seen(&index, "web").0, [""; 0]);
    // The Service's former selector is asked as well as its new one.
    touched(&mut index, pod("web-1", &json!({"app": "web", "tier": "front"})));
    assert_eq!(touched(&mut index, service("front", &json!({"tier": "back"}), &json!([]))), ["web"]);
    assert_eq!(seen(&index, "web").0, [""; 0]);
}

#[test]
fn a_selector_that_changes_brings_other_pods() {
    let mut index = Index::default();
    touched(&mut index, pod("old", &json!({"app": "web"})));
    touched(&mut index, pod("new", &json!({"app": "shop"})));
    touched(&mut index, autoscaler("web", "app=web", &[]));
    assert_eq!(seen(&index, "web").1, ["old"]);
    touched(&mut index, autoscaler("web", "app=shop", &[]));
    assert_eq!(seen(&index, "web").1, ["new"]);
}

#[test]
fn nothing_is_left_of_what_is_gone() {
    let mut index = Index::default();
    touched(&mut index, autoscaler("web", "app=web", &["web"]));
    touched(&mut index, service("web", &json!({"app": "web"}), &json!([])));
    touched(&mut index, pod("web-1", &json!({"app": "web"})));
    index.learn(Fact::Autoscaler(id("web").into(), None));
    assert_eq!(index.workload(&id("web")), None);
    index.learn(Fact::Service(Name::new("shop", "web").into(), None));
    index.learn(gone("web-1"));
    let Index { autoscalers, services, pods, pods_of, naming, labelled, .. } = index;
    assert!(autoscalers.is_empty() && services.is_empty() && pods.is_empty() && pods_of.is_empty());
    assert!(naming.is_empty() && labelled.is_empty());
}

#[test]
fn a_pods_ports_are_those_of_the_services_that_lead_to_it() {
    let mut index = Index::default();
    touched(&mut index, autoscaler("web", "tier=front", &["web", "admin"]));
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 9, "targetPort": 99},
        {"name": "odd", "port": 5, "targetPort": "unknown"}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    touched(&mut index, service("web", &json!({"app": "web"}), &ports));
    touched(&mut index, service("admin", &json!({"app": "admin"}), &json!([{"port": 81}])));
    touched(&mut index, pod("web-1", &json!({"app": "web", "tier": "front"})));
    let workload = index.workload(&id("web")).unwrap();
    let expected = BTreeMap::from([("web/http".to_owned(), 8080), ("web/raw".to_owned(), 99)]);
    assert_eq!(workload.pod_ports(&workload.pods["web-1"]), expected);
    let keys: Vec<String> = workload.ports().map(|port| port.key()).collect();
    assert_eq!(keys, ["admin/", "web/http", "web/raw", "web/odd"]);
}
