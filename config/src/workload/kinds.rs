//! The content of each kind of object, in its own words, brought to the one shape [`Draft`].

use std::time::Duration;

use pilotlight_core::{ConcurrencyLimit, RevisionId, Timeouts};
use serde_json::Value;

use super::manifest::Node;
use super::written::Written;
use super::{Container, Kind, pod};
use crate::fault::Findings;
use crate::keys::annotation::{self as keys, KPA, PREFIX};

/// The content of an object, before its annotations are read.
pub(super) struct Draft {
    /// `None` where its name is a fault.
    pub(super) id: Option<RevisionId>,
    pub(super) kind: Kind,
    /// The object's place in its document.
    pub(super) path: String,
    pub(super) written: Written,
    pub(super) container_concurrency: ConcurrencyLimit,
    pub(super) timeouts: Timeouts,
    pub(super) container: Container,
    pub(super) readiness_probe: Value,
}

/// What an object turned out to be.
pub(super) enum Read {
    Workload(Box<Draft>),
    /// The ConfigMap `config-autoscaler`, read elsewhere.
    Config,
    /// Not something to scale; its name.
    Unsupported(String),
    /// Nothing one can make sense of; the fault is recorded.
    Invalid,
}

/// Knative's limits where its ConfigMap `config-defaults` does not say otherwise.
const DEFAULT_TIMEOUT_SECONDS: u32 = 300;
const MAX_TIMEOUT_SECONDS: u32 = 600;
const DEFAULT_RESPONSE_START_TIMEOUT_SECONDS: u32 = 300;
const MAX_CONTAINER_CONCURRENCY: u32 = 1_000;

/// The ports of the queue-proxy in the same pod.
const RESERVED_PORTS: &[u16] = &[8008, 8012, 8013, 8022, 9090, 9091];

/// KServe keeps one pod unless told otherwise.
const DEFAULT_MIN_REPLICAS: &str = "1";
/// KFServing v1alpha2 aims for one request per pod unless told otherwise.
const DEFAULT_V1ALPHA2_TARGET: &str = "1";

/// The fields of an InferenceService's predictor in which a model server may be described.
const PREDICTOR_FIELDS: &[&str] = &[
    "model",
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "tensorrt",
    "onnx",
    "pmml",
    "lightgbm",
    "paddle",
    "huggingface",
    "mlflow",
];

pub(super) fn is_config_map(node: &Node<'_>) -> bool {
    is(node, "kind", "ConfigMap") && is(&node.child("metadata"), "name", "config-autoscaler")
}

/// The name of an object in messages: its kind and name.
pub(super) fn name(node: &Node<'_>) -> String {
    let kind =
        node.child("kind").value.and_then(Value::as_str).unwrap_or("an object without a kind").to_owned();
    match node.at(&["metadata", "name"]).value.and_then(Value::as_str) {
        Some(name) => format!("{kind} {name}"),
        None => kind,
    }
}

/// Reads one object.
pub(super) fn draft(node: &Node<'_>, findings: &mut Findings) -> Read {
    if is_config_map(node) {
        return Read::Config;
    }
    if !node.child("kind").is_present() || !node.child("apiVersion").is_present() {
        node.fault("is not a Kubernetes manifest: it has no apiVersion and kind", findings);
        return Read::Invalid;
    }
    let group_version = node.child("apiVersion").value.and_then(Value::as_str).unwrap_or_default();
    let kind = node.child("kind").value.and_then(Value::as_str).unwrap_or_default();
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    let draft = match (group, version, kind) {
        ("serving.knative.dev", _, "Service") => knative_service(node, findings),
        ("serving.knative.dev", _, "Revision") => knative_revision(node, findings),
        ("serving.kubeflow.org", "v1alpha2", "InferenceService") => inference_v1alpha2(node, findings),
        ("serving.kserve.io" | "serving.kubeflow.org", "v1beta1", "InferenceService") => {
            inference_v1beta1(node, findings)
        }
        ("apps", _, "Deployment") => deployment(node, findings),
        _ => return Read::Unsupported(name(node)),
    };
    Read::Workload(Box::new(draft))
}

fn is(node: &Node<'_>, key: &str, value: &str) -> bool {
    node.child(key).value.and_then(Value::as_str) == Some(value)
}

fn id(node: &Node<'_>, findings: &mut Findings) -> Option<RevisionId> {
    let metadata = node.child("metadata");
    let namespace = metadata.child("namespace").text(findings).unwrap_or_else(|| "default".to_owned());
    let name = metadata.child("name");
    if !name.is_present() {
        name.fault("is missing", findings);
    }
    name.text(findings).map(|name| RevisionId::new(namespace, name))
}

fn knative_service(node: &Node<'_>, findings: &mut Findings) -> Draft {
    // Knative refuses them here, since here they would have no effect.
    let metadata = node.at(&["metadata", "annotations"]);
    for key in metadata.strings(findings).into_keys().filter(|key| key.starts_with(PREFIX)) {
        let rule = "autoscaling annotations must be put under spec.template.metadata.annotations to work";
        metadata.child(&key).fault(rule, findings);
    }
    let template = node.at(&["spec", "template"]);
    knative_pod(node, Kind::Service, &template, findings)
}

fn knative_revision(node: &Node<'_>, findings: &mut Findings) -> Draft {
    knative_pod(node, Kind::Revision, node, findings)
}

/// A revision, or the template of one.
fn knative_pod(node: &Node<'_>, kind: Kind, revision: &Node<'_>, findings: &mut Findings) -> Draft {
    let annotations = revision.at(&["metadata", "annotations"]);
    let spec = revision.child("spec");
    let serving = pod::serving(&spec.child("containers"), true, findings);
    let ports = serving.as_ref().map(|node| node.child("ports"));
    let draft = common(node, kind, &annotations, serving, findings);
    if let (Some(ports), Some(port)) = (ports, draft.container.port)
        && RESERVED_PORTS.contains(&port)
    {
        let path = format!("{}[0].containerPort", ports.path);
        findings.fault(&path, &port.to_string(), "is a port that Knative keeps for itself");
    }
    Draft {
        container_concurrency: container_concurrency(&spec.child("containerConcurrency"), findings),
        timeouts: timeouts(
            &spec.child("timeoutSeconds"),
            &spec.child("responseStartTimeoutSeconds"),
            &spec.child("idleTimeoutSeconds"),
            findings,
        ),
        ..draft
    }
}

fn inference_v1beta1(node: &Node<'_>, findings: &mut Findings) -> Draft {
    let spec = node.child("spec");
    let predictor = spec.child("predictor");
    if !predictor.is_present() {
        predictor.fault("is missing", findings);
    }
    note_other_parts(&spec, findings);
    let serving = if predictor.child("containers").is_present() {
        pod::serving(&predictor.child("containers"), false, findings)
    } else {
        model_server(&predictor, findings)
    };
    let mut draft =
        common(node, Kind::InferenceService, &node.at(&["metadata", "annotations"]), serving, findings);
    draft.container_concurrency = container_concurrency(&predictor.child("containerConcurrency"), findings);
    let absent = predictor.child("responseStartTimeoutSeconds");
    draft.timeouts =
        timeouts(&predictor.child("timeout"), &absent, &predictor.child("idleTimeoutSeconds"), findings);
    // What the predictor itself is annotated with goes over what the whole service is annotated with.
    draft.written.annotations.extend(predictor.child("annotations").strings(findings));
    draft.written.stand_in(keys::TARGET.name, &predictor.child("scaleTarget"), findings);
    draft.written.stand_in(keys::METRIC.name, &predictor.child("scaleMetric"), findings);
    replicas(&mut draft.written, &predictor, findings);
    draft
}

fn inference_v1alpha2(node: &Node<'_>, findings: &mut Findings) -> Draft {
    let spec = node.child("spec");
    let predictor = spec.at(&["default", "predictor"]);
    if !predictor.is_present() {
        predictor.fault("is missing", findings);
    }
    if spec.child("canary").is_present() {
        findings.warn(&spec.child("canary").path, "the canary is left out; only the default is served");
    }
    note_other_parts(&spec.child("default"), findings);
    let custom = predictor.at(&["custom", "container"]);
    let serving = if custom.is_present() { Some(custom) } else { model_server(&predictor, findings) };
    let mut draft =
        common(node, Kind::InferenceService, &node.at(&["metadata", "annotations"]), serving, findings);
    let parallelism = predictor.child("parallelism");
    draft.container_concurrency = container_concurrency(&parallelism, findings);
    if !draft.written.has(keys::TARGET.name) {
        match draft.container_concurrency {
            ConcurrencyLimit::UNLIMITED => draft.written.assume(keys::TARGET.name, DEFAULT_V1ALPHA2_TARGET),
            _ => draft.written.stand_in(keys::TARGET.name, &parallelism, findings),
        }
    }
    replicas(&mut draft.written, &predictor, findings);
    draft
}

fn deployment(node: &Node<'_>, findings: &mut Findings) -> Draft {
    let spec = node.child("spec");
    let template = spec.child("template");
    let serving = pod::serving(&template.at(&["spec", "containers"]), false, findings);
    let on_template = template.at(&["metadata", "annotations"]);
    let on_object = node.at(&["metadata", "annotations"]);
    let annotations = if on_template.is_present() { &on_template } else { &on_object };
    let mut draft = common(node, Kind::Deployment, annotations, serving, findings);
    if on_template.is_present() {
        draft.written.add_below(&on_object, findings);
    }
    let deadline = spec.child("progressDeadlineSeconds");
    if let Some(seconds) = deadline.whole(i32::MAX as u32, findings)
        && !draft.written.has(keys::PROGRESS_DEADLINE.name)
    {
        draft.written.stand_in_as(keys::PROGRESS_DEADLINE.name, &deadline, format!("{seconds}s"));
    }
    draft
}

/// The part that all kinds have in common.
fn common(
    node: &Node<'_>,
    kind: Kind,
    annotations: &Node<'_>,
    serving: Option<Node<'_>>,
    findings: &mut Findings,
) -> Draft {
    // Without a container, which is a fault already, the rest is still read: all faults come at once.
    let nowhere = Node { value: None, path: node.path.clone() };
    let serving = serving.unwrap_or(nowhere);
    let container = pod::container(&serving, findings);
    Draft {
        id: id(node, findings),
        kind,
        path: node.path.clone(),
        written: Written::at(annotations, findings),
        container_concurrency: ConcurrencyLimit::UNLIMITED,
        timeouts: Timeouts::total(seconds(DEFAULT_TIMEOUT_SECONDS)),
        readiness_probe: pod::readiness_probe(&serving, container.port, findings),
        container,
    }
}

/// `minReplicas` and `maxReplicas` of a predictor. They count before annotations, and one pod is the default.
fn replicas(written: &mut Written, predictor: &Node<'_>, findings: &mut Findings) {
    let (min, max) = (predictor.child("minReplicas"), predictor.child("maxReplicas"));
    for key in [Some(keys::MIN_SCALE.name), keys::MIN_SCALE.alias].into_iter().flatten() {
        if written.annotations.remove(key).is_some() {
            let advice = "no effect: minReplicas of the predictor counts, which is 1 where it is not written";
            findings.warn(&written.path_of(key), advice);
        }
    }
    written.assume(keys::MIN_SCALE.name, DEFAULT_MIN_REPLICAS);
    written.stand_in(keys::MIN_SCALE.name, &min, findings);
    // 0 is how KServe writes "not set".
    if max.value.is_some_and(|value| value.as_u64() != Some(0)) {
        written.stand_in(keys::MAX_SCALE.name, &max, findings);
    }
    if !written.has(keys::CLASS.name) {
        written.assume(keys::CLASS.name, KPA);
    }
}

/// The description of a model server among the known ones. Its command comes from the cluster's runtimes.
fn model_server<'a>(predictor: &Node<'a>, findings: &mut Findings) -> Option<Node<'a>> {
    predictor.value?;
    let Some(server) = PREDICTOR_FIELDS.iter().map(|name| predictor.child(name)).find(Node::is_present)
    else {
        predictor.fault("has neither a container nor a model", findings);
        return None;
    };
    if !server.child("command").is_present() && !server.child("image").is_present() {
        findings.warn(&server.path, "image and command come from the cluster's serving runtime");
    }
    Some(server)
}

fn note_other_parts(parts: &Node<'_>, findings: &mut Findings) {
    for part in ["transformer", "explainer"].map(|name| parts.child(name)) {
        if part.is_present() {
            findings.warn(&part.path, "left out; only the predictor is served");
        }
    }
}

fn container_concurrency(field: &Node<'_>, findings: &mut Findings) -> ConcurrencyLimit {
    let limit = field.whole(i32::MAX as u32, findings).unwrap_or(0);
    if limit > MAX_CONTAINER_CONCURRENCY {
        let advice =
            format!("Knative allows {MAX_CONTAINER_CONCURRENCY} unless config-defaults says otherwise");
        findings.warn(&field.path, advice);
    }
    limit.into()
}

fn timeouts(total: &Node<'_>, start: &Node<'_>, idle: &Node<'_>, findings: &mut Findings) -> Timeouts {
    let unless_zero = |node: &Node<'_>, findings: &mut Findings| {
        node.whole(i32::MAX as u32, findings).filter(|&seconds| seconds > 0)
    };
    let total_seconds = unless_zero(total, findings).unwrap_or(DEFAULT_TIMEOUT_SECONDS);
    if total_seconds > MAX_TIMEOUT_SECONDS {
        let advice = format!("Knative allows {MAX_TIMEOUT_SECONDS} s unless config-defaults says otherwise");
        findings.warn(&total.path, advice);
    }
    let mut within_total = |node: &Node<'_>| {
        let limit = unless_zero(node, findings);
        if let Some(limit) = limit.filter(|&limit| limit > total_seconds) {
            findings.fault(
                &node.path,
                &limit.to_string(),
                format!("is above the timeout of {total_seconds} s"),
            );
        }
        limit
    };
    // Knative's webhook fills in this one only where it is shorter than the whole.
    let default_start = Some(DEFAULT_RESPONSE_START_TIMEOUT_SECONDS).filter(|&limit| limit < total_seconds);
    let start_seconds = if start.is_present() { within_total(start) } else { default_start };
    Timeouts {
        total: seconds(total_seconds),
        response_start: start_seconds.map(seconds),
        idle: within_total(idle).map(seconds),
    }
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(u64::from(number))
}
