//! A Revision with all of its containers, and what Knative's controller makes of it: a Deployment and a PodAutoscaler.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Probe};
use kube::{CustomResource, ResourceExt};
use pilotlight_kubernetes::knative::Condition;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cluster::objects::controlled_by;

/// A revision: one version of an app.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "serving.knative.dev",
    version = "v1",
    kind = "Revision",
    namespaced,
    status = "RevisionStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionSpec {
    /// The most requests a pod may run at once; 0 or nothing: any number.
    pub container_concurrency: Option<i64>,
    /// The longest time a request may take, in seconds; nothing: 300.
    pub timeout_seconds: Option<i64>,
    /// The containers; that with ports, or the only one, serves.
    pub containers: Vec<Container>,
}

/// The controller's findings about a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionStatus {
    /// The generation of the spec that this speaks of.
    pub observed_generation: Option<i64>,
    /// `Ready`, `ResourcesAvailable`, `ContainerHealthy`, `Active`.
    pub conditions: Vec<Condition>,
    /// Pods that are wanted.
    pub desired_replicas: Option<i32>,
    /// Pods that are ready.
    pub actual_replicas: Option<i32>,
}

impl Revision {
    /// The condition of this type.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether requests come over HTTP/2.
    pub(super) fn is_h2c(&self) -> bool {
        self.serving().is_some_and(|container| {
            container.ports.iter().flatten().any(|port| port.name.as_deref() == Some("h2c"))
        })
    }

    fn serving(&self) -> Option<&Container> {
        let containers = &self.spec.containers;
        containers.iter().find(|container| container.ports.is_some()).or_else(|| containers.first())
    }
}

/// The name of the revision's Deployment.
pub(super) fn deployment_name(revision: &str) -> String {
    format!("{revision}-deployment")
}

/// The selector of the revision's pods.
pub(super) fn selector(revision: &Revision) -> BTreeMap<String, String> {
    BTreeMap::from([(UID.to_owned(), revision.uid().unwrap_or_default())])
}

/// The Deployment, with this many pods to begin with, and these variables on top of those of its queue-proxies.
pub(super) fn deployment_of(
    revision: &Revision,
    replicas: i32,
    queue_proxy_env: &BTreeMap<String, String>,
) -> Deployment {
    let labels = labels_of(revision);
    let user = revision.spec.containers.iter().map(|container| user_container(revision, container));
    let containers: Vec<Value> = user.chain([queue_proxy(revision, queue_proxy_env)]).collect();
    let annotations =
        annotations_of(revision, |key| !key.starts_with(AUTOSCALING) && !key.starts_with(ROUTING));
    let deployment = json!({
        "metadata": {
            "name": deployment_name(&revision.name_any()), "namespace": revision.namespace(),
            "labels": labels, "annotations": annotations, "ownerReferences": controlled_by(revision),
        },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": selector(revision) },
            "progressDeadlineSeconds": progress_deadline(revision),
            "revisionHistoryLimit": 0,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0 } },
            "template": {
                "metadata": { "labels": labels, "annotations": annotations },
                "spec": {
                    "containers": containers,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": timeout_of(revision),
                },
            },
        },
    });
    serde_json::from_value(deployment).expect("a Deployment")
}

/// The PodAutoscaler as a value: fields of it that others write are not in it.
pub(super) fn autoscaler_of(revision: &Revision, reachability: &str) -> Value {
    let mut annotations = annotations_of(revision, |key| !BOOKKEEPING.contains(&key));
    // Knative's webhook sets these two.
    for (key, default) in [("class", "kpa.autoscaling.knative.dev"), ("metric", "concurrency")] {
        annotations.entry(format!("{AUTOSCALING}/{key}")).or_insert_with(|| default.to_owned());
    }
    let mut spec = json!({
        "containerConcurrency": revision.spec.container_concurrency.unwrap_or(0),
        "scaleTargetRef": {
            "apiVersion": "apps/v1", "kind": "Deployment", "name": deployment_name(&revision.name_any()),
        },
        "protocolType": if revision.is_h2c() { "h2c" } else { "http1" },
    });
    if !reachability.is_empty() {
        spec["reachability"] = reachability.into();
    }
    json!({
        "apiVersion": "autoscaling.internal.knative.dev/v1alpha1",
        "kind": "PodAutoscaler",
        "metadata": {
            "name": revision.name_any(), "namespace": revision.namespace(),
            "labels": labels_of(revision), "annotations": annotations, "ownerReferences": controlled_by(revision),
        },
        "spec": spec,
    })
}

/// Pods of a new revision: its annotation, else the operator's setting.
pub(super) fn initial_scale(revision: &Revision, default: i32) -> i32 {
    let keys = ["initial-scale", "initialScale"].map(|key| format!("{AUTOSCALING}/{key}"));
    let annotated = keys.iter().find_map(|key| revision.annotations().get(key));
    annotated.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn user_container(revision: &Revision, container: &Container) -> Value {
    let name = |label: &str| revision.labels().get(label).cloned().unwrap_or_default();
    let mut env = container.env.clone().unwrap_or_default();
    let mut set = |name: &str, value: String| {
        env.push(serde_json::from_value(json!({ "name": name, "value": value })).expect("a variable"));
    };
    set("K_REVISION", revision.name_any());
    set("K_CONFIGURATION", name(CONFIGURATION));
    set("K_SERVICE", name(SERVICE));
    let mut container = container.clone();
    if revision.serving().is_some_and(|serving| serving.name == container.name) {
        let port = port_of(&container);
        set("PORT", port.to_string());
        container.ports =
            serde_json::from_value(json!([{ "name": "user-port", "containerPort": port }])).expect("ports");
    }
    container.env = Some(env);
    // The queue-proxy probes in its place.
    container.readiness_probe = container.readiness_probe.filter(|probe| probe.exec.is_some());
    container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    let mut value = serde_json::to_value(container).expect("JSON");
    value["lifecycle"] = json!({ "preStop": { "httpGet": { "port": 8022, "path": "/wait-for-drain" } } });
    value
}

fn queue_proxy(revision: &Revision, more: &BTreeMap<String, String>) -> Value {
    let name = |label: &str| revision.labels().get(label).cloned().unwrap_or_default();
    let serving = revision.serving().cloned().unwrap_or_default();
    let port = if revision.is_h2c() { 8013 } else { 8012 };
    let user_port = port_of(&serving);
    // Knative's webhook sets the default.
    let default = || serde_json::from_value(json!({ "tcpSocket": { "port": 0 } })).expect("a probe");
    let probe: Probe = serving.readiness_probe.clone().unwrap_or_else(default);
    let mut env = vec![
        variable("SERVING_NAMESPACE", revision.namespace().unwrap_or_default()),
        variable("SERVING_SERVICE", name(SERVICE)),
        variable("SERVING_CONFIGURATION", name(CONFIGURATION)),
        variable("SERVING_REVISION", revision.name_any()),
        variable("QUEUE_SERVING_PORT", port.to_string()),
        variable("QUEUE_SERVING_TLS_PORT", "8112".to_owned()),
        variable("CONTAINER_CONCURRENCY", revision.spec.container_concurrency.unwrap_or(0).to_string()),
        variable("REVISION_TIMEOUT_SECONDS", timeout_of(revision).to_string()),
        variable("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "0".to_owned()),
        variable("REVISION_IDLE_TIMEOUT_SECONDS", "0".to_owned()),
        field("SERVING_POD", "metadata.name"),
        field("SERVING_POD_IP", "status.podIP"),
        field("HOST_IP", "status.hostIP"),
        variable("SERVING_LOGGING_CONFIG", String::new()),
        variable("SERVING_LOGGING_LEVEL", String::new()),
        variable("OBSERVABILITY_CONFIG", "{}".to_owned()),
        variable("USER_PORT", user_port.to_string()),
        variable("SYSTEM_NAMESPACE", "knative-serving".to_owned()),
        variable("SERVING_READINESS_PROBE", encoded(&probe, user_port)),
        variable("ENABLE_HTTP2_AUTO_DETECTION", "false".to_owned()),
        variable("ENABLE_HTTP_FULL_DUPLEX", "false".to_owned()),
        variable("ROOT_CA", String::new()),
        variable("ENABLE_MULTI_CONTAINER_PROBES", "false".to_owned()),
    ];
    env.extend(more.iter().map(|(name, value)| variable(name, value.clone())));
    let mut readiness = serde_json::to_value(&probe).expect("JSON");
    ["httpGet", "tcpSocket", "grpc", "exec"].iter().for_each(|handler| {
        readiness.as_object_mut().map(|fields| fields.remove(*handler));
    });
    readiness["httpGet"] =
        json!({ "port": port, "httpHeaders": [{ "name": "K-Network-Probe", "value": "queue" }] });
    json!({
        "name": "queue-proxy",
        "image": "queue-proxy",
        "ports": [
            { "name": "http-autometric", "containerPort": 9090 },
            { "name": "http-usermetric", "containerPort": 9091 },
            { "name": "queue-port", "containerPort": port },
            { "name": "https-port", "containerPort": 8112 },
        ],
        "readinessProbe": readiness,
        "env": env,
    })
}

/// The probe as the queue-proxy gets it: with the app's host and port filled in.
fn encoded(probe: &Probe, user_port: i32) -> String {
    let mut value = serde_json::to_value(probe).expect("JSON");
    value["successThreshold"] = probe.success_threshold.unwrap_or(1).into();
    if probe.period_seconds.is_some_and(|period| period > 0)
        && probe.timeout_seconds.is_none_or(|timeout| timeout < 1)
    {
        value["timeoutSeconds"] = 1.into();
    }
    for handler in ["httpGet", "tcpSocket", "grpc"] {
        if let Some(fields) = value.get_mut(handler).and_then(Value::as_object_mut) {
            let port = fields.get("port").and_then(Value::as_i64).filter(|port| *port != 0);
            fields.insert("port".to_owned(), port.unwrap_or(user_port.into()).into());
            if handler != "grpc" {
                fields.insert("host".to_owned(), "127.0.0.1".into());
            }
        }
    }
    if value.get("exec").is_some() {
        value = json!({ "tcpSocket": { "port": user_port, "host": "127.0.0.1" }, "successThreshold": 1 });
    }
    value.to_string()
}

fn labels_of(revision: &Revision) -> BTreeMap<String, String> {
    let mut labels = revision.labels().clone();
    labels.retain(|key, _| key != ROUTING_STATE && key != ROUTE);
    labels.insert(REVISION.to_owned(), revision.name_any());
    labels.insert(UID.to_owned(), revision.uid().unwrap_or_default());
    labels.entry("app".to_owned()).or_insert_with(|| revision.name_any());
    labels
}

fn annotations_of(revision: &Revision, is_kept: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let mut annotations = revision.annotations().clone();
    annotations.retain(|key, _| is_kept(key));
    annotations
}

fn timeout_of(revision: &Revision) -> i64 {
    revision.spec.timeout_seconds.unwrap_or(300)
}

fn progress_deadline(revision: &Revision) -> u64 {
    let annotated = revision.annotations().get("serving.knative.dev/progress-deadline");
    annotated
        .and_then(|text| pilotlight_config::duration::parse(text).ok())
        .map_or(600, |time| time.as_secs())
}

fn port_of(container: &Container) -> i32 {
    container.ports.iter().flatten().map(|port| port.container_port).next().unwrap_or(8080)
}

fn variable(name: &str, value: impl Into<String>) -> Value {
    json!({ "name": name, "value": value.into() })
}

fn field(name: &str, path: &str) -> Value {
    let mut of = Map::new();
    of.insert("fieldPath".to_owned(), path.into());
    json!({ "name": name, "valueFrom": { "fieldRef": of } })
}

/// The prefix of annotations about scaling.
const AUTOSCALING: &str = "autoscaling.knative.dev";
const ROUTING: &str = "serving.knative.dev/rout";
/// The label with which a route says whether requests reach the revision.
pub(super) const ROUTING_STATE: &str = "serving.knative.dev/routingState";
const ROUTE: &str = "serving.knative.dev/route";
const REVISION: &str = "serving.knative.dev/revision";
const UID: &str = "serving.knative.dev/revisionUID";
const CONFIGURATION: &str = "serving.knative.dev/configuration";
const SERVICE: &str = "serving.knative.dev/service";
/// Annotations of the controller's own books.
const BOOKKEEPING: [&str; 4] = [
    "serving.knative.dev/lastPinned",
    "serving.knative.dev/routes",
    "serving.knative.dev/routingStateModified",
    "serving.knative.dev/creator",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(spec: &Value) -> Revision {
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": {
                "name": "hello-00001", "namespace": "default", "uid": "u-1",
                "labels": { ROUTING_STATE: "active", SERVICE: "hello", CONFIGURATION: "hello" },
                "annotations": { "autoscaling.knative.dev/min-scale": "2", "serving.knative.dev/routes": "hello", "own": "x" },
            },
            "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn the_deployment_has_the_queue_proxy_behind_the_app_as_knatives_controller_makes_it() {
        let revision = revision(&json!({
            "containerConcurrency": 5, "timeoutSeconds": 20,
            "containers": [{ "name": "app", "image": "sample", "readinessProbe": { "httpGet": { "path": "/healthz" }, "periodSeconds": 1 } }],
        }));
        let deployment = serde_json::to_value(deployment_of(&revision, 1, &BTreeMap::new())).unwrap();
        let pod = &deployment["spec"]["template"];
        assert_eq!(deployment["metadata"]["name"], "hello-00001-deployment");
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], json!({ UID: "u-1" }));
        assert_eq!(pod["metadata"]["labels"][REVISION], "hello-00001");
        assert_eq!(pod["metadata"]["labels"].get(ROUTING_STATE), None);
        assert_eq!(pod["metadata"]["annotations"], json!({ "own": "x" }));
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 20);
        let (app, proxy) = (&pod["spec"]["containers"][0], &pod["spec"]["containers"][1]);
        assert_eq!(app.get("readinessProbe"), None);
        assert_eq!(app["ports"][0], json!({ "name": "user-port", "containerPort": 8080 }));
        assert_eq!(app["lifecycle"]["preStop"]["httpGet"]["port"], 8022);
        assert_eq!(proxy["readinessProbe"]["httpGet"]["port"], 8012);
        assert_eq!(proxy["readinessProbe"]["periodSeconds"], 1);
        let env = proxy["env"].as_array().unwrap();
        let value =
            |name: &str| env.iter().find(|each| each["name"] == name).map(|each| each["value"].clone());
        assert_eq!(value("CONTAINER_CONCURRENCY"), Some("5".into()));
        let probe: Value =
            serde_json::from_str(value("SERVING_READINESS_PROBE").unwrap().as_str().unwrap()).unwrap();
        assert_eq!(
            probe,
            json!({
                "httpGet": { "path": "/healthz", "port": 8080, "host": "127.0.0.1" },
                "periodSeconds": 1, "successThreshold": 1, "timeoutSeconds": 1,
            })
        );
    }

    #[test]
    fn the_autoscaler_gets_annotations_and_the_defaults_of_the_webhook() {
        let revision = revision(
            &json!({ "containers": [{ "name": "app", "ports": [{ "name": "h2c", "containerPort": 9000 }] }] }),
        );
        let autoscaler = autoscaler_of(&revision, "Reachable");
        assert_eq!(
            autoscaler["metadata"]["annotations"],
            json!({
                "autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev", "autoscaling.knative.dev/metric": "concurrency",
                "autoscaling.knative.dev/min-scale": "2", "own": "x",
            })
        );
        assert_eq!(autoscaler["spec"]["protocolType"], "h2c");
        assert_eq!(autoscaler["spec"]["reachability"], "Reachable");
        assert_eq!((initial_scale(&revision, 1), initial_scale(&revision, 0)), (1, 0));
    }
}
