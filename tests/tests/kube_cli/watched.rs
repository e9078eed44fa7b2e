//! Looking at what is scaled, and at what stands in the way.

use kube::api::{Api, Patch, PatchParams};
use pilotlight_controller::crd::RequestAutoscaler;
use pilotlight_tests::cluster::api::ApiServer;
use serde_json::{Value, json};

use crate::support::{app, installed, kube, server};

/// A workload as its controller tells it: four pods, and a selector that is back.
async fn told() -> ApiServer {
    let server = installed().await;
    app(&server, "web", 4);
    let enabled = kube(&server, &["enable", "deploy/web", "--min", "0", "--max", "9"]).await;
    assert_eq!(enabled.code, Some(0), "{enabled:?}");
    let condition = |name: &str, status: &str, reason: &str, message: &str| {
        json!({"type": name, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let status = json!({"status": {"observedGeneration": 1, "replicas": 4, "readyReplicas": 3, "wantedReplicas": 5,
        "inFlight": 31.25, "signal": "Activators", "path": "Activator", "ports": {"web/http": 10_007},
        "lastDecision": {"time": "2026-01-01T10:32:00Z", "from": 2, "to": 4, "rule": "stable-demand",
            "why": "28 in flight, 7 for each pod"},
        "conditions": [condition("Accepted", "True", "Accepted", "All settings are legal."),
            condition("ZeroBlocked", "True", "CannotSee", "Requests go straight to the pods.")]}});
    let api: Api<RequestAutoscaler> = Api::namespaced(server.client(), "default");
    api.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
    server.add(
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "web.1", "namespace": "default"},
        "involvedObject": {"kind": "RequestAutoscaler", "name": "web", "namespace": "default"},
        "reason": "Scaled", "message": "2 to 4: 28 in flight", "count": 2,
        "lastTimestamp": "2026-01-01T10:32:00Z"}),
    );
    server
}

#[tokio::test]
async fn status_is_a_table_or_json() {
    let server = told().await;
    let table = kube(&server, &["status"]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    let rows: Vec<Vec<&str>> = table.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][0], "NAME");
    assert_eq!(
        rows[1],
        ["web", "deployment/web", "0", "9", "4", "3", "5", "31.2", "activator", "CannotSee"],
        "{table:?}"
    );
    let all = kube(&server, &["status", "-A"]).await;
    assert!(all.stdout.starts_with("NAMESPACE"), "{all:?}");
    let json = kube(&server, &["status", "-o", "json"]).await;
    let objects: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(objects[0]["status"]["wantedReplicas"], 5);
    let none = kube(&server, &["status", "-n", "kube-system"]).await;
    assert!(none.stdout.starts_with("No RequestAutoscaler in namespace kube-system"), "{none:?}");
}

#[tokio::test]
async fn explain_tells_decision_path_ports_conditions_and_events() {
    let server = told().await;
    let explained = kube(&server, &["explain", "deploy/web"]).await;
    assert_eq!(explained.code, Some(0), "{explained:?}");
    for part in [
        "web scales deployment/web",
        "4 pods asked for, 3 ready, 5 wanted",
        "2 to 4 by stable-demand: 28 in flight, 7 for each pod",
        "Requests go through the activators",
        "Port web/http is 10007 at the activators",
        "ZeroBlocked: True (CannotSee). Requests go straight to the pods.",
        "Scaled (2 times)  2 to 4: 28 in flight",
    ] {
        assert!(explained.stdout.contains(part), "{part}: {explained:?}");
    }
    let unknown = kube(&server, &["explain", "wbe"]).await;
    assert_eq!(unknown.stderr, "error: no RequestAutoscaler wbe in default (did you mean \"web\"?)");
}

#[tokio::test]
async fn doctor_tells_rights_refusals_and_warnings_and_fails_if_anything_is_at_fault() {
    let server = installed().await;
    app(&server, "web", 2);
    server.allow(|verb, resource| (verb, resource) != ("patch", "services"));
    let well = kube(&server, &["doctor", "deploy/web"]).await;
    assert_eq!(well.code, Some(0), "{well:?}");
    for part in [
        "ok       pilotlight runs",
        "ok       Service web leads to it",
        "warning  you may not take selectors away (enable --exact) in default: the right to patch services is missing",
        "warning  CannotSee: ",
    ] {
        assert!(well.stdout.contains(part), "{part}: {well:?}");
    }
    server.add(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 0, "maxReplicas": 5}}));
    let ill = kube(&server, &["doctor", "deploy/web"]).await;
    assert_eq!(ill.code, Some(1), "{ill:?}");
    assert!(ill.stdout.contains("fault    AutoscalerToZero: HorizontalPodAutoscaler web"), "{ill:?}");
}

#[tokio::test]
async fn doctor_says_that_pilotlight_is_not_there() {
    let server = server().await;
    let ended = kube(&server, &["doctor"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("fault    Pilotlight is not on this cluster"), "{ended:?}");
}
