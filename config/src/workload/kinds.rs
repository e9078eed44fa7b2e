//! The content of each kind of object, in its own words, brought to the one shape [`Draft`].

use std::time::Duration;

use pilotlight_core::{ConcurrencyLimit, RevisionId, Timeouts};
use serde_json::Value;

use super::manifest::Node;
use super::written::Written;
use super::{Container, Kind, config, fields, hpa, kserve, placement, pod, unused};
use crate::fault::Findings;
use crate::keys::annotation::{self as keys, PREFIX};
use crate::spelling::nearest;

/// The content of an object, before its annotations are read.
pub(super) struct Draft {
    /// `None` where its name is a fault.
    pub(super) id: Option<RevisionId>,
    pub(super) kind: Kind,
    pub(super) written: Written,
    pub(super) container_concurrency: ConcurrencyLimit,
    pub(super) timeouts: Timeouts,
    pub(super) container: Container,
    pub(super) readiness_probe: Value,
    /// What scales it in a cluster, where requests do not.
    pub(super) elsewhere: Option<Vec<String>>,
}

/// What an object turned out to be.
pub(super) enum Read {
    Workload(Box<Draft>),
    /// The defaults of all revisions, read elsewhere.
    Config,
    /// Another autoscaler's.
    Scaler(&'static str, hpa::Scaler),
    /// Not something to scale.
    Unsupported,
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

/// How an object is read.
#[derive(Clone, Copy)]
enum Reader {
    KnativeService,
    KnativeConfiguration,
    KnativeRevision,
    InferenceV1beta1,
    InferenceV1alpha2,
    Deployment(Kind),
    HorizontalPodAutoscaler,
    ScaledObject,
    Config,
}

/// The kinds that are read: their apiVersion, the type of their fields, and how.
const KINDS: &[(&str, &str, &str, Reader)] = &[
    ("Service", "serving.knative.dev/v1", "KnativeService", Reader::KnativeService),
    ("Service", "serving.knative.dev/v1beta1", "KnativeService", Reader::KnativeService),
    ("Service", "serving.knative.dev/v1alpha1", "KnativeService", Reader::KnativeService),
    ("Configuration", "serving.knative.dev/v1", "KnativeConfiguration", Reader::KnativeConfiguration),
    ("Configuration", "serving.knative.dev/v1beta1", "KnativeConfiguration", Reader::KnativeConfiguration),
    ("Configuration", "serving.knative.dev/v1alpha1", "KnativeConfiguration", Reader::KnativeConfiguration),
    ("Revision", "serving.knative.dev/v1", "KnativeRevision", Reader::KnativeRevision),
    ("Revision", "serving.knative.dev/v1beta1", "KnativeRevision", Reader::KnativeRevision),
    ("Revision", "serving.knative.dev/v1alpha1", "KnativeRevision", Reader::KnativeRevision),
    ("InferenceService", "serving.kserve.io/v1beta1", "InferenceService", Reader::InferenceV1beta1),
    ("InferenceService", "serving.kubeflow.org/v1beta1", "InferenceService", Reader::InferenceV1beta1),
    (
        "InferenceService",
        "serving.kubeflow.org/v1alpha2",
        "InferenceServiceV1alpha2",
        Reader::InferenceV1alpha2,
    ),
    ("Deployment", "apps/v1", "Deployment", Reader::Deployment(Kind::Deployment)),
    ("Deployment", "apps/v1beta2", "Deployment", Reader::Deployment(Kind::Deployment)),
    ("Deployment", "apps/v1beta1", "Deployment", Reader::Deployment(Kind::Deployment)),
    ("StatefulSet", "apps/v1", "StatefulSet", Reader::Deployment(Kind::StatefulSet)),
    ("ReplicaSet", "apps/v1", "ReplicaSet", Reader::Deployment(Kind::ReplicaSet)),
    ("HorizontalPodAutoscaler", "autoscaling/v2", "HorizontalPodAutoscaler", Reader::HorizontalPodAutoscaler),
    (
        "HorizontalPodAutoscaler",
        "autoscaling/v2beta2",
        "HorizontalPodAutoscaler",
        Reader::HorizontalPodAutoscaler,
    ),
    (
        "HorizontalPodAutoscaler",
        "autoscaling/v2beta1",
        "HorizontalPodAutoscalerV2beta1",
        Reader::HorizontalPodAutoscaler,
    ),
    (
        "HorizontalPodAutoscaler",
        "autoscaling/v1",
        "HorizontalPodAutoscalerV1",
        Reader::HorizontalPodAutoscaler,
    ),
    ("ScaledObject", "keda.sh/v1alpha1", "ScaledObject", Reader::ScaledObject),
    ("ConfigMap", "v1", "ConfigMap", Reader::Config),
    ("KnativeServing", "operator.knative.dev/v1beta1", "KnativeServing", Reader::Config),
    ("KnativeServing", "operator.knative.dev/v1alpha1", "KnativeServing", Reader::Config),
];

/// The kind of an object in messages.
pub(super) fn kind<'a>(node: &Node<'a>) -> &'a str {
    node.child("kind").value.and_then(Value::as_str).unwrap_or("an object without a kind")
}

/// The name of an object in messages: its kind and name.
pub(super) fn name(node: &Node<'_>) -> String {
    let kind = kind(node);
    match node.at(&["metadata", "name"]).value.and_then(Value::as_str) {
        Some(name) => format!("{kind} {name}"),
        None => kind.to_owned(),
    }
}

/// The kind, namespace and name by which an object is found among others.
pub(super) fn identity(node: &Node<'_>) -> Option<[String; 3]> {
    let metadata = node.child("metadata");
    let text = |node: Node<'_>| node.value.and_then(Value::as_str).map(str::to_owned);
    let namespace = text(metadata.child("namespace")).unwrap_or_else(|| "default".to_owned());
    Some([text(node.child("kind"))?, namespace, text(metadata.child("name"))?])
}

/// The object that made this one, if it says so.
pub(super) fn owner(node: &Node<'_>) -> Option<[String; 3]> {
    let owners = node.at(&["metadata", "ownerReferences"]).items(&mut Findings::default());
    let owner = owners.iter().find(|owner| owner.child("controller").value == Some(&Value::Bool(true)))?;
    let text = |key| owner.child(key).value.and_then(Value::as_str).map(str::to_owned);
    let [_, namespace, _] = identity(node)?;
    Some([text("kind")?, namespace, text("name")?])
}

/// Reads one object.
pub(super) fn read(node: &Node<'_>, findings: &mut Findings) -> Read {
    if !node.child("kind").is_present() || !node.child("apiVersion").is_present() {
        node.fault("is not a Kubernetes manifest: it has no apiVersion and kind", findings);
        return Read::Invalid;
    }
    let api_version = node.child("apiVersion").value.and_then(Value::as_str).unwrap_or_default();
    let known = KINDS.iter().find(|(known, version, ..)| *known == kind(node) && *version == api_version);
    let Some(&(kind, _, fields_of, reader)) = known else {
        return if refuse_near(node, kind(node), api_version, findings) {
            Read::Invalid
        } else {
            Read::Unsupported
        };
    };
    if kind == "ConfigMap" && !config::is_named_right(node) {
        config::advise_other(node, findings);
        return Read::Unsupported;
    }
    fields::check(node, fields_of, findings);
    placement::check(&node.child("metadata"), findings);
    placement::check(&node.at(&["spec", "template", "metadata"]), findings);
    let draft = match reader {
        Reader::Config => return Read::Config,
        Reader::HorizontalPodAutoscaler => return Read::Scaler(kind, hpa::horizontal(node, findings)),
        Reader::ScaledObject => return Read::Scaler(kind, hpa::scaled_object(node, findings)),
        Reader::KnativeService => knative_service(node, Kind::Service, findings),
        Reader::KnativeConfiguration => knative_service(node, Kind::Configuration, findings),
        Reader::KnativeRevision => knative_pod(node, Kind::Revision, node, findings),
        Reader::InferenceV1beta1 => kserve::v1beta1(node, findings),
        Reader::InferenceV1alpha2 => kserve::v1alpha2(node, findings),
        Reader::Deployment(kind) => deployment(node, kind, findings),
    };
    Read::Workload(Box::new(draft))
}

/// Warns of the fields of an object that its kind does not have.
pub(super) fn check_fields(node: &Node<'_>, findings: &mut Findings) {
    let version = node.child("apiVersion").value.and_then(Value::as_str).unwrap_or_default();
    let known = KINDS.iter().find(|(known, at, ..)| *known == kind(node) && *at == version);
    if let Some((_, _, fields_of, _)) = known {
        fields::check(node, fields_of, findings);
    }
}

/// Refuses an object that is meant to be of a kind that is read: its apiVersion or its kind is not one of those.
fn refuse_near(node: &Node<'_>, kind: &str, api_version: &str, findings: &mut Findings) -> bool {
    let versions: Vec<&str> =
        KINDS.iter().filter(|(known, ..)| *known == kind).map(|&(_, it, ..)| it).collect();
    let group = |version: &str| version.rsplit_once('/').map_or(String::new(), |(group, _)| group.to_owned());
    let own = group(api_version);
    // Kubernetes has a Service of its own, and others have a Configuration.
    let is_common = matches!(kind, "Service" | "Configuration" | "ConfigMap" | "Revision");
    let is_near = |version: &&str| {
        let known = group(version);
        !known.is_empty() && !own.is_empty() && strsim::damerau_levenshtein(&own, &known) <= 3
    };
    if !versions.is_empty() && (!is_common || versions.iter().any(is_near)) {
        let place = node.child("apiVersion");
        let rule = format!("is no known version of {kind}; known are {}", versions.join(", "));
        findings.fault(&place.path, api_version, rule);
        return true;
    }
    let kinds = KINDS.iter().filter(|(_, version, ..)| *version == api_version).map(|&(kind, ..)| kind);
    let near = nearest(kind, kinds).filter(|meant| strsim::damerau_levenshtein(meant, kind) <= 2);
    if let Some(meant) = near {
        findings.fault(&node.child("kind").path, kind, format!("is unknown; did you mean {meant:?}?"));
    }
    near.is_some()
}

pub(super) fn id(node: &Node<'_>, findings: &mut Findings) -> Option<RevisionId> {
    let metadata = node.child("metadata");
    let namespace = metadata.child("namespace").text(findings).unwrap_or_else(|| "default".to_owned());
    let name = metadata.child("name");
    if !name.is_present() {
        name.fault("is missing", findings);
    }
    name.text(findings).map(|name| RevisionId::new(namespace, name))
}

/// A Knative Service or Configuration.
fn knative_service(node: &Node<'_>, kind: Kind, findings: &mut Findings) -> Draft {
    // Knative refuses them here, since here they would have no effect.
    let metadata = node.at(&["metadata", "annotations"]);
    for key in metadata.strings(findings).into_keys() {
        if key.starts_with(PREFIX) {
            let rule = "autoscaling annotations must be put under spec.template.metadata.annotations to work";
            metadata.child(&key).fault(rule, findings);
        } else if key == keys::PROGRESS_DEADLINE.name {
            let advice = "no effect here: write it below spec.template.metadata.annotations. In force: 600 s";
            findings.warn(&metadata.child(&key).path, advice);
        }
    }
    let spec = node.child("spec");
    unused::knative_service(&spec, findings);
    knative_pod(node, kind, &spec.child("template"), findings)
}

/// A revision, or the template of one.
fn knative_pod(node: &Node<'_>, kind: Kind, revision: &Node<'_>, findings: &mut Findings) -> Draft {
    let annotations = revision.at(&["metadata", "annotations"]);
    let spec = revision.child("spec");
    let serving = pod::serving(&spec.child("containers"), true, findings);
    unused::pod(&spec, findings);
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

/// A Deployment, StatefulSet or ReplicaSet.
fn deployment(node: &Node<'_>, kind: Kind, findings: &mut Findings) -> Draft {
    let spec = node.child("spec");
    let template = spec.child("template");
    unused::deployment(&spec, findings);
    unused::pod(&template.child("spec"), findings);
    let serving = pod::serving(&template.at(&["spec", "containers"]), false, findings);
    let on_template = template.at(&["metadata", "annotations"]);
    let on_object = node.at(&["metadata", "annotations"]);
    let annotations = if on_template.is_present() { &on_template } else { &on_object };
    let mut draft = common(node, kind, annotations, serving, findings);
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
pub(super) fn common(
    node: &Node<'_>,
    kind: Kind,
    annotations: &Node<'_>,
    serving: Option<Node<'_>>,
    findings: &mut Findings,
) -> Draft {
    // Without a container, which is a fault already, the rest is still read: all faults come at once.
    let nowhere = Node { value: None, path: node.path.clone() };
    let serving = serving.unwrap_or(nowhere);
    unused::container(&serving, findings);
    let is_strict = matches!(kind, Kind::Service | Kind::Configuration | Kind::Revision);
    let container = pod::container(&serving, is_strict, findings);
    Draft {
        id: id(node, findings),
        kind,
        written: Written::at(annotations, findings),
        container_concurrency: ConcurrencyLimit::UNLIMITED,
        timeouts: Timeouts::total(seconds(DEFAULT_TIMEOUT_SECONDS)),
        readiness_probe: pod::readiness_probe(&serving, container.port, findings),
        container,
        elsewhere: None,
    }
}

pub(super) fn container_concurrency(field: &Node<'_>, findings: &mut Findings) -> ConcurrencyLimit {
    let limit = field.whole(i32::MAX as u32, findings).unwrap_or(0);
    if limit > MAX_CONTAINER_CONCURRENCY {
        let advice =
            format!("Knative allows {MAX_CONTAINER_CONCURRENCY} unless config-defaults says otherwise");
        findings.warn(&field.path, advice);
    }
    limit.into()
}

pub(super) fn timeouts(
    total: &Node<'_>,
    start: &Node<'_>,
    idle: &Node<'_>,
    findings: &mut Findings,
) -> Timeouts {
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
