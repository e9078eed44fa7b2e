//! Fields that mean something in a cluster and nothing on one machine. Each is told once a file, so that nobody
//! waits for what it should have done; docs/parity.md has the same list.

use serde_json::Value;

use super::manifest::Node;
use crate::fault::Findings;

/// Tells the fields of a pod's `spec`, except for its containers.
pub(super) fn pod(spec: &Node<'_>, findings: &mut Findings) {
    tell(spec, POD, findings);
}

/// Tells the fields of the container that serves.
pub(super) fn container(container: &Node<'_>, findings: &mut Findings) {
    tell(container, CONTAINER, findings);
}

/// Tells the containers beside the one that serves.
pub(super) fn sidecars(containers: &Node<'_>, serving: &Node<'_>, findings: &mut Findings) {
    let items = containers.items(&mut Findings::default());
    if items.len() > 1 {
        let name = serving.child("name").value.and_then(Value::as_str).unwrap_or("the one that serves");
        let advice = format!("only one container runs on one machine, {name}: sidecars are left out");
        findings.warn_once(&containers.path, advice);
    }
}

/// Tells the fields of a Knative Service beside its template.
pub(super) fn knative_service(spec: &Node<'_>, findings: &mut Findings) {
    let traffic = spec.child("traffic");
    let targets = traffic.items(&mut Findings::default());
    // Knative itself fills this in.
    let is_all_to_latest = matches!(targets.as_slice(), [one]
        if one.child("latestRevision").value == Some(&Value::Bool(true)) && !one.child("tag").is_present());
    if traffic.is_present() && !targets.is_empty() && !is_all_to_latest {
        findings.warn_once(
            &traffic.path,
            "left out: this template takes all requests, there are no other revisions",
        );
    }
}

/// Tells the fields of a Deployment, StatefulSet or ReplicaSet beside its template.
pub(super) fn deployment(spec: &Node<'_>, findings: &mut Findings) {
    tell(spec, DEPLOYMENT, findings);
}

/// Tells the fields of a predictor and of the model in it.
pub(super) fn predictor(predictor: &Node<'_>, server: Option<&Node<'_>>, findings: &mut Findings) {
    tell(predictor, PREDICTOR, findings);
    if let Some(server) = server {
        tell(server, MODEL, findings);
    }
}

fn tell(node: &Node<'_>, known: &[(&str, &str)], findings: &mut Findings) {
    let Some(Value::Object(fields)) = node.value else { return };
    for (name, value) in fields {
        if let Some((_, advice)) = known.iter().find(|(known, _)| known == name)
            && !is_trivial(name, value)
        {
            findings.warn_once(&node.child(name).path, *advice);
        }
    }
}

/// Nothing at all, or what the API server fills in by itself.
fn is_trivial(name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => match name {
            "dnsPolicy" => text == "ClusterFirst",
            "restartPolicy" => text == "Always",
            "schedulerName" => text == "default-scheduler",
            _ => text.is_empty(),
        },
        Value::Number(number) => name == "terminationGracePeriodSeconds" && number.as_u64() == Some(30),
        Value::Bool(true) => false,
    }
}

const LEFT_OUT: &str = "left out on one machine";
const NOT_PLACED: &str = "left out on one machine: there is one node, this one";
const NOT_LIMITED: &str = "left out on one machine: a pod is a process of yours, without limits of its own";
const NO_VOLUMES: &str = "left out on one machine: the app sees the files of this machine";

const POD: &[(&str, &str)] = &[
    ("activeDeadlineSeconds", LEFT_OUT),
    ("affinity", NOT_PLACED),
    ("dnsConfig", LEFT_OUT),
    ("dnsPolicy", LEFT_OUT),
    ("ephemeralContainers", LEFT_OUT),
    ("hostAliases", LEFT_OUT),
    ("hostIPC", LEFT_OUT),
    ("hostNetwork", LEFT_OUT),
    ("hostPID", LEFT_OUT),
    ("imagePullSecrets", "left out on one machine: no image is pulled"),
    ("initContainers", "left out on one machine: nothing runs before the app"),
    ("nodeName", NOT_PLACED),
    ("nodeSelector", NOT_PLACED),
    ("overhead", LEFT_OUT),
    ("priorityClassName", LEFT_OUT),
    ("readinessGates", LEFT_OUT),
    ("resourceClaims", LEFT_OUT),
    ("resources", NOT_LIMITED),
    ("restartPolicy", LEFT_OUT),
    ("runtimeClassName", LEFT_OUT),
    ("schedulerName", NOT_PLACED),
    ("securityContext", NOT_LIMITED),
    ("serviceAccount", "left out on one machine: there is no API server to speak to"),
    ("serviceAccountName", "left out on one machine: there is no API server to speak to"),
    ("shareProcessNamespace", LEFT_OUT),
    ("terminationGracePeriodSeconds", "left out on one machine: an app has 10 s to end"),
    ("tolerations", NOT_PLACED),
    ("topologySpreadConstraints", NOT_PLACED),
    ("volumes", NO_VOLUMES),
];

const CONTAINER: &[(&str, &str)] = &[
    ("lifecycle", "left out on one machine: no hook runs"),
    (
        "livenessProbe",
        "left out on one machine: a process that has ended is started again, none is probed once ready",
    ),
    ("resources", NOT_LIMITED),
    ("securityContext", NOT_LIMITED),
    ("startupProbe", "left out on one machine: the readiness probe is asked from the start"),
    ("stdin", LEFT_OUT),
    ("tty", LEFT_OUT),
    ("volumeDevices", NO_VOLUMES),
    ("volumeMounts", NO_VOLUMES),
];

const DEPLOYMENT: &[(&str, &str)] = &[
    ("minReadySeconds", LEFT_OUT),
    ("paused", LEFT_OUT),
    ("replicas", "left out on one machine: the number of pods follows the requests"),
    ("volumeClaimTemplates", NO_VOLUMES),
];

const PREDICTOR: &[(&str, &str)] = &[
    ("batcher", "left out on one machine: requests are not batched"),
    ("canaryTrafficPercent", "left out: this predictor takes all requests, there are no other revisions"),
    ("logger", "left out on one machine: requests and answers are not sent on"),
    ("storageUris", "left out on one machine: the app finds its model itself"),
    ("workerSpec", "left out on one machine: there are no other nodes"),
];

const MODEL: &[(&str, &str)] = &[
    ("storage", "left out on one machine: the app finds its model itself"),
    ("storageUri", "left out on one machine: the app finds its model itself"),
];
