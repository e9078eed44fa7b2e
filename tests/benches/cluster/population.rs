//! The revisions of a large cluster, as Knative's controller would have left them.

use std::net::{IpAddr, Ipv4Addr};

use pilotlight_tests::cluster::api::ApiServer;
use serde_json::{Value, json};

/// The namespace of all revisions.
pub(crate) const NAMESPACE: &str = "default";

/// The revision of this number.
pub(crate) fn name(number: usize) -> String {
    format!("app-{number:05}")
}

/// The address of the only pod of a revision with traffic.
pub(crate) fn pod_ip(number: usize) -> IpAddr {
    Ipv4Addr::new(127, 80, (number / 200) as u8, (number % 200 + 1) as u8).into()
}

/// The ConfigMaps of Knative's own namespace.
pub(crate) fn add_config_maps(server: &ApiServer) {
    for name in MAPS {
        server.add(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": "knative-serving" }, "data": {},
        }));
    }
}

/// Adds everything of the revisions from `0` to `revisions`, of which the first `busy` have one ready pod and the others
/// none.
pub(crate) fn add_revisions(server: &ApiServer, revisions: usize, busy: usize) {
    for number in 0..revisions {
        let is_busy = number < busy;
        server.add(revision(number));
        let owner = server.add(autoscaler(number, is_busy))["metadata"]["uid"].clone();
        server.add(service(number, is_busy, &owner));
        server.add(metric(number, &owner));
        server.add(deployment(number, is_busy));
        for object in services(number).into_iter().chain(endpoints(number, is_busy)) {
            server.add(object);
        }
        if is_busy {
            server.add(pod(number));
        }
    }
}

fn labels(number: usize) -> Value {
    let name = name(number);
    json!({
        "serving.knative.dev/revision": name, "serving.knative.dev/revisionUID": format!("uid-{number}"),
        "serving.knative.dev/configuration": name, "serving.knative.dev/service": name, "app": name,
    })
}

fn metadata(number: usize, name: &str) -> Value {
    json!({
        "name": name, "namespace": NAMESPACE, "labels": labels(number),
        "annotations": {
            "autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev", "autoscaling.knative.dev/metric": "concurrency",
            "serving.knative.dev/creator": "somebody@example.com",
        },
    })
}

/// Metadata of an object that belongs to the revision's PodAutoscaler.
fn owned(number: usize, owner: &Value) -> Value {
    let mut metadata = metadata(number, &name(number));
    metadata["ownerReferences"] = json!([{
        "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "PodAutoscaler", "name": name(number),
        "uid": owner, "controller": true, "blockOwnerDeletion": true,
    }]);
    metadata
}

fn condition(type_: &str, status: &str) -> Value {
    json!({ "type": type_, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

fn revision(number: usize) -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Revision", "metadata": metadata(number, &name(number)),
        "spec": {
            "containerConcurrency": 0, "timeoutSeconds": 300,
            "containers": [{ "name": "user-container", "image": "example.com/app:1", "ports": [{ "containerPort": 8080 }] }],
        },
        "status": { "conditions": [condition("Ready", "True")] },
    })
}

fn target(number: usize) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": format!("{}-deployment", name(number)) })
}

fn autoscaler(number: usize, is_busy: bool) -> Value {
    let active = match is_busy {
        true => condition("Active", "True"),
        false => json!({
            "type": "Active", "status": "False", "reason": "NoTraffic", "lastTransitionTime": "2026-01-01T00:00:00Z",
            "message": "The target is not receiving traffic.",
        }),
    };
    let ready = json!({ "type": "Ready", "status": active["status"], "lastTransitionTime": "2026-01-01T00:00:00Z",
        "reason": active["reason"].as_str().unwrap_or_default(), "message": active["message"].as_str().unwrap_or_default() });
    let scale = i32::from(is_busy);
    json!({
        "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "PodAutoscaler",
        "metadata": metadata(number, &name(number)),
        "spec": {
            "containerConcurrency": 0, "scaleTargetRef": target(number), "protocolType": "http1",
            "reachability": "Reachable",
        },
        "status": {
            "observedGeneration": 1, "serviceName": name(number), "metricsServiceName": private(number),
            "desiredScale": scale, "actualScale": scale,
            "conditions": [active, ready, condition("SKSReady", "True"), condition("ScaleTargetInitialized", "True")],
        },
    })
}

fn service(number: usize, is_busy: bool, owner: &Value) -> Value {
    json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ServerlessService",
        "metadata": owned(number, owner),
        "spec": {
            "mode": "Proxy", "objectRef": target(number), "protocolType": "http1", "numActivators": if is_busy { 4 } else { 3 },
        },
        "status": {
            "observedGeneration": 1, "serviceName": name(number), "privateServiceName": private(number),
            "conditions": [
                condition("ActivatorEndpointsPopulated", "True"), condition("EndpointsPopulated", "True"),
                condition("Ready", "True"),
            ],
        },
    })
}

fn metric(number: usize, owner: &Value) -> Value {
    json!({
        "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "Metric",
        "metadata": owned(number, owner),
        "spec": {
            "stableWindow": 60_000_000_000_i64, "panicWindow": 6_000_000_000_i64, "scrapeTarget": private(number),
        },
        "status": { "observedGeneration": 1, "conditions": [condition("Ready", "True")] },
    })
}

fn deployment(number: usize, is_busy: bool) -> Value {
    let labels = labels(number);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": metadata(number, &format!("{}-deployment", name(number))),
        "spec": {
            "replicas": i32::from(is_busy),
            "selector": { "matchLabels": { "serving.knative.dev/revisionUID": format!("uid-{number}") } },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [
                    { "name": "user-container", "image": "example.com/app:1" },
                    { "name": "queue-proxy", "image": "example.com/queue:1" },
                ] },
            },
        },
    })
}

fn pod(number: usize) -> Value {
    let ip = pod_ip(number).to_string();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata(number, &pod_name(number)),
        "spec": { "nodeName": "n1", "containers": [
            { "name": "user-container", "image": "example.com/app:1" },
            { "name": "queue-proxy", "image": "example.com/queue:1" },
        ] },
        "status": {
            "phase": "Running", "podIP": ip, "startTime": "2026-01-01T00:00:00Z",
            "conditions": [condition("Ready", "True")],
        },
    })
}

/// The pod of a revision with traffic.
pub(crate) fn pod_name(number: usize) -> String {
    format!("{}-deployment-1", name(number))
}

fn private(number: usize) -> String {
    format!("{}-private", name(number))
}

fn services(number: usize) -> [Value; 2] {
    [("Public", name(number)), ("Private", private(number))].map(|(side, name)| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": sided(number, &name, side),
            "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 8012 }] },
        })
    })
}

fn endpoints(number: usize, is_busy: bool) -> [Value; 2] {
    let subset = |ip: &str, pod: Option<String>| {
        let mut address = json!({ "ip": ip });
        if let Some(pod) = pod {
            address["targetRef"] = json!({ "kind": "Pod", "namespace": NAMESPACE, "name": pod });
        }
        json!([{ "addresses": [address], "ports": [{ "name": "http", "port": 8012 }] }])
    };
    let pods = if is_busy { subset(&pod_ip(number).to_string(), Some(pod_name(number))) } else { json!([]) };
    [("Public", name(number), subset("10.9.0.1", None)), ("Private", private(number), pods)].map(|(side, name, subsets)| {
        json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": sided(number, &name, side), "subsets": subsets,
        })
    })
}

fn sided(number: usize, name: &str, side: &str) -> Value {
    let mut metadata = metadata(number, name);
    metadata["labels"]["networking.internal.knative.dev/serviceType"] = side.into();
    metadata
}

const MAPS: [&str; 6] = [
    "config-autoscaler",
    "config-deployment",
    "config-network",
    "config-leader-election",
    "config-observability",
    "config-logging",
];
