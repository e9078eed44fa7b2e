//! The kinds of objects that are read, each in its own words.

use pilotlight_core::Reachability;
use serde_json::Value;

use super::draft::{Draft, common, container_concurrency, timeouts};
use super::manifest::Node;
use super::object::kind;
use super::requests::Requests;
use super::{Kind, config, fields, hpa, kserve, placement, pod, unused};
use crate::fault::Findings;
use crate::keys::annotation::{self as keys, PREFIX};
use crate::spelling::nearest;

/// The outcome of reading an object.
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

/// The ports of the queue-proxy in the same pod.
const RESERVED_PORTS: &[u16] = &[8008, 8012, 8013, 8022, 9090, 9091];

/// How an object is read.
#[derive(Clone, Copy)]
enum Form {
    KnativeService,
    KnativeConfiguration,
    KnativeRevision,
    InferenceV1beta1,
    InferenceV1alpha2,
    Deployment(Kind),
    PodAutoscaler,
    HorizontalPodAutoscaler,
    ScaledObject,
    Config,
}

/// The kinds that are read: their apiVersion, the type of their fields, and how.
const KINDS: &[(&str, &str, &str, Form)] = &[
    ("Service", "serving.knative.dev/v1", "KnativeService", Form::KnativeService),
    ("Service", "serving.knative.dev/v1beta1", "KnativeService", Form::KnativeService),
    ("Service", "serving.knative.dev/v1alpha1", "KnativeService", Form::KnativeService),
    ("Configuration", "serving.knative.dev/v1", "KnativeConfiguration", Form::KnativeConfiguration),
    ("Configuration", "serving.knative.dev/v1beta1", "KnativeConfiguration", Form::KnativeConfiguration),
    ("Configuration", "serving.knative.dev/v1alpha1", "KnativeConfiguration", Form::KnativeConfiguration),
    ("Revision", "serving.knative.dev/v1", "KnativeRevision", Form::KnativeRevision),
    ("Revision", "serving.knative.dev/v1beta1", "KnativeRevision", Form::KnativeRevision),
    ("Revision", "serving.knative.dev/v1alpha1", "KnativeRevision", Form::KnativeRevision),
    ("InferenceService", "serving.kserve.io/v1beta1", "InferenceService", Form::InferenceV1beta1),
    ("InferenceService", "serving.kubeflow.org/v1beta1", "InferenceService", Form::InferenceV1beta1),
    (
        "InferenceService",
        "serving.kubeflow.org/v1alpha2",
        "InferenceServiceV1alpha2",
        Form::InferenceV1alpha2,
    ),
    ("Deployment", "apps/v1", "Deployment", Form::Deployment(Kind::Deployment)),
    ("Deployment", "apps/v1beta2", "Deployment", Form::Deployment(Kind::Deployment)),
    ("Deployment", "apps/v1beta1", "Deployment", Form::Deployment(Kind::Deployment)),
    ("StatefulSet", "apps/v1", "StatefulSet", Form::Deployment(Kind::StatefulSet)),
    ("ReplicaSet", "apps/v1", "ReplicaSet", Form::Deployment(Kind::ReplicaSet)),
    ("PodAutoscaler", "autoscaling.internal.knative.dev/v1alpha1", "PodAutoscaler", Form::PodAutoscaler),
    ("HorizontalPodAutoscaler", "autoscaling/v2", "HorizontalPodAutoscaler", Form::HorizontalPodAutoscaler),
    (
        "HorizontalPodAutoscaler",
        "autoscaling/v2beta2",
        "HorizontalPodAutoscaler",
        Form::HorizontalPodAutoscaler,
    ),
    (
        "HorizontalPodAutoscaler",
        "autoscaling/v2beta1",
        "HorizontalPodAutoscalerV2beta1",
        Form::HorizontalPodAutoscaler,
    ),
    ("HorizontalPodAutoscaler", "autoscaling/v1", "HorizontalPodAutoscalerV1", Form::HorizontalPodAutoscaler),
    ("ScaledObject", "keda.sh/v1alpha1", "ScaledObject", Form::ScaledObject),
    ("ConfigMap", "v1", "ConfigMap", Form::Config),
    ("KnativeServing", "operator.knative.dev/v1beta1", "KnativeServing", Form::Config),
    ("KnativeServing", "operator.knative.dev/v1alpha1", "KnativeServing", Form::Config),
];

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
        Form::Config => return Read::Config,
        Form::HorizontalPodAutoscaler => return Read::Scaler(kind, hpa::horizontal(node, findings)),
        Form::ScaledObject => return Read::Scaler(kind, hpa::scaled_object(node, findings)),
        Form::KnativeService => knative_service(node, Kind::Service, findings),
        Form::KnativeConfiguration => knative_service(node, Kind::Configuration, findings),
        Form::KnativeRevision => knative_pod(node, Kind::Revision, node, findings),
        Form::InferenceV1beta1 => kserve::v1beta1(node, findings),
        Form::InferenceV1alpha2 => kserve::v1alpha2(node, findings),
        Form::Deployment(kind) => deployment(node, kind, findings),
        Form::PodAutoscaler => pod_autoscaler(node, findings),
    };
    Read::Workload(Box::new(draft))
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
        requests: Requests::of(&spec),
        ..draft
    }
}

/// What Knative makes of a revision for its autoscaler: the settings, and no container.
fn pod_autoscaler(node: &Node<'_>, findings: &mut Findings) -> Draft {
    let spec = node.child("spec");
    let place = spec.child("reachability");
    let reachability = match place.text(findings).as_deref() {
        None | Some("") => Reachability::Unknown,
        Some("Reachable") => Reachability::Reachable,
        Some("Unreachable") => Reachability::Unreachable,
        Some(other) => {
            findings.fault(&place.path, other, "is not one of Reachable, Unreachable");
            Reachability::Unknown
        }
    };
    let annotations = node.at(&["metadata", "annotations"]);
    let draft = common(node, Kind::PodAutoscaler, &annotations, None, findings);
    Draft {
        container_concurrency: container_concurrency(&spec.child("containerConcurrency"), findings),
        reachability,
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
    draft.requests = Requests::of(&template.child("spec"));
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
