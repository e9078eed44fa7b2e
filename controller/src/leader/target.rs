//! The object that is scaled: how many pods it asks for, who said so, and how its pods are found.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ManagedFieldsEntry, ObjectMeta};
use pilotlight_kubernetes::known::Versioned;
use pilotlight_kubernetes::scale::ScaleFact;

use crate::crd::ScaleTargetRef;
use crate::facts::QUEUE_PROXY;
use crate::refusal::TargetFact;

/// The name of a scale target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ScaledName {
    pub(crate) namespace: String,
    pub(crate) target: ScaleTargetRef,
}

impl Hash for ScaledName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.namespace, &self.target.kind, &self.target.name).hash(state);
    }
}

/// A scale target that is watched.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ScaledFact {
    /// Version and number of pods.
    pub(crate) scale: ScaleFact,
    /// Whether it is being deleted.
    pub(crate) is_deleted: bool,
    /// The label selector of its pods, as its scale subresource tells it.
    pub(crate) selector: String,
    /// A number that differs where the template of its pods does.
    pub(crate) template: u64,
    /// The manager that wrote `spec.replicas` last.
    pub(crate) last_manager: Option<String>,
    /// The rest of it, as it decides what may be done.
    pub(crate) around: Arc<TargetFact>,
}

impl Versioned for ScaledFact {
    fn resource_version(&self) -> &str {
        &self.scale.resource_version
    }
}

/// Reads a Deployment.
pub(crate) fn deployment(object: &Deployment) -> Option<(ScaledName, ScaledFact)> {
    let spec = object.spec.as_ref()?;
    read("Deployment", &object.metadata, spec.replicas, &spec.selector, Some(&spec.template))
}

/// Reads a StatefulSet.
pub(crate) fn stateful_set(object: &StatefulSet) -> Option<(ScaledName, ScaledFact)> {
    let spec = object.spec.as_ref()?;
    read("StatefulSet", &object.metadata, spec.replicas, &spec.selector, Some(&spec.template))
}

/// Reads a ReplicaSet; `None`: a Deployment's, which nobody else scales.
pub(crate) fn replica_set(object: &ReplicaSet) -> Option<(ScaledName, ScaledFact)> {
    let spec = object.spec.as_ref()?;
    let is_owned =
        object.metadata.owner_references.iter().flatten().any(|owner| owner.controller == Some(true));
    if is_owned {
        return None;
    }
    read("ReplicaSet", &object.metadata, spec.replicas, &spec.selector, spec.template.as_ref())
}

fn read(
    kind: &str,
    meta: &ObjectMeta,
    replicas: Option<i32>,
    selector: &LabelSelector,
    template: Option<&PodTemplateSpec>,
) -> Option<(ScaledName, ScaledFact)> {
    let target =
        ScaleTargetRef { api_version: "apps/v1".to_owned(), kind: kind.to_owned(), name: meta.name.clone()? };
    let of_pods = template.and_then(|template| template.metadata.as_ref());
    let spec = template.and_then(|template| template.spec.as_ref());
    let settings = |meta: &ObjectMeta| {
        let annotations = meta.annotations.iter().flatten().filter(|(key, _)| key.starts_with(SETTINGS));
        annotations.map(|(key, value)| (key.clone(), value.clone())).collect::<BTreeMap<_, _>>()
    };
    let mut annotations = of_pods.map(settings).unwrap_or_default();
    annotations.extend(settings(meta));
    let writers = Writers::read(meta);
    let around = TargetFact {
        annotations,
        pod_labels: of_pods.and_then(|meta| meta.labels.clone()).unwrap_or_default(),
        match_labels: selector.match_labels.clone().unwrap_or_default(),
        has_queue_proxy: spec.is_some_and(has_queue_proxy),
        on_host_network: spec.is_some_and(|spec| spec.host_network == Some(true)),
        progressive: None,
        replicas_managers: writers.appliers,
    };
    let fact = ScaledFact {
        scale: ScaleFact {
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            replicas: replicas.map_or(1, |replicas| u32::try_from(replicas).unwrap_or(0)),
        },
        is_deleted: meta.deletion_timestamp.is_some(),
        selector: selector_text(selector),
        template: template.map_or(0, fingerprint),
        last_manager: writers.last,
        around: Arc::new(around),
    };
    Some((ScaledName { namespace: meta.namespace.clone()?, target }, fact))
}

fn has_queue_proxy(spec: &PodSpec) -> bool {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.into_iter().any(|container| container.name == QUEUE_PROXY)
}

/// The manager that has written `spec.replicas`.
struct Writers {
    appliers: Vec<String>,
    last: Option<String>,
}

impl Writers {
    fn read(meta: &ObjectMeta) -> Writers {
        let has = |entry: &&ManagedFieldsEntry| {
            entry.fields_v1.as_ref().is_some_and(|fields| !fields.0["f:spec"]["f:replicas"].is_null())
        };
        let writers: Vec<_> = meta.managed_fields.iter().flatten().filter(has).collect();
        let is_scale = |entry: &&ManagedFieldsEntry| entry.subresource.as_deref() == Some("scale");
        let name = |entry: &ManagedFieldsEntry| entry.manager.clone();
        let mut appliers: Vec<String> =
            writers.iter().filter(|entry| !is_scale(entry)).filter_map(|entry| name(entry)).collect();
        if last_applied_replicas(meta) && appliers.is_empty() {
            appliers.push("kubectl apply".to_owned());
        }
        appliers.sort();
        appliers.dedup();
        let last = writers.iter().max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
        Writers { appliers, last: last.and_then(|entry| name(entry)) }
    }
}

/// Whether the manifest that `kubectl apply` applied last says how many pods there are.
fn last_applied_replicas(meta: &ObjectMeta) -> bool {
    let applied = meta.annotations.iter().flatten().find(|(key, _)| *key == LAST_APPLIED);
    let applied = applied.and_then(|(_, text)| serde_json::from_str::<serde_json::Value>(text).ok());
    applied.is_some_and(|object| !object["spec"]["replicas"].is_null())
}

/// A number that differs where the template does.
fn fingerprint(template: &PodTemplateSpec) -> u64 {
    let text = serde_json::to_string(template).unwrap_or_default();
    // FNV-1a.
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// The text of a selector, as scale subresources tell it.
fn selector_text(selector: &LabelSelector) -> String {
    let equal = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let others = selector.match_expressions.iter().flatten().map(|requirement| {
        let (key, values) = (&requirement.key, requirement.values.clone().unwrap_or_default().join(","));
        match requirement.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        }
    });
    equal.chain(others).collect::<Vec<_>>().join(",")
}

/// The beginning of annotations that are settings.
const SETTINGS: &str = "autoscaling.knative.dev/";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(meta: &Value, spec: &Value) -> ScaledFact {
        let mut object = json!({
            "metadata": {"namespace": "shop", "name": "web", "resourceVersion": "7"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {}}});
        for (part, more) in [("metadata", meta), ("spec", spec)] {
            object[part].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        let (name, fact) = deployment(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!((name.namespace.as_str(), name.target.name.as_str()), ("shop", "web"));
        fact
    }

    #[test]
    fn a_deployment_that_names_no_number_asks_for_one_pod() {
        let fact = read(&json!({}), &json!({}));
        assert_eq!(fact.scale, ScaleFact { resource_version: "7".to_owned(), replicas: 1 });
        assert_eq!(read(&json!({}), &json!({"replicas": 0})).scale.replicas, 0);
    }

    #[test]
    fn the_selector_is_told_as_the_scale_subresource_tells_it() {
        let selector = json!({"selector": {"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"}]}});
        assert_eq!(read(&json!({}), &selector).selector, "app=web,tier in (a,b),!old");
    }

    #[test]
    fn annotations_of_the_object_win_over_those_of_its_pods() {
        let meta = json!({"annotations": {"autoscaling.knative.dev/target": "5", "other": "x"}});
        let template = json!({"template": {"metadata": {"annotations": {
            "autoscaling.knative.dev/target": "7", "autoscaling.knative.dev/window": "30s"}}}});
        let expected = [("autoscaling.knative.dev/target", "5"), ("autoscaling.knative.dev/window", "30s")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(read(&meta, &template).around.annotations, BTreeMap::from(expected));
    }

    #[test]
    fn whoever_writes_the_number_of_pods_is_named() {
        let entry = |manager: &str, subresource: &str, time: &str| {
            json!({"manager": manager, "operation": "Update", "subresource": subresource, "time": time,
                "fieldsV1": {"f:spec": {"f:replicas": {}}}})
        };
        let argo = entry("argocd", "", "2026-01-01T00:00:00Z");
        let ours = entry("pilotlight", "scale", "2026-01-01T00:00:05Z");
        let fact = read(&json!({"managedFields": [argo, ours]}), &json!({}));
        assert_eq!(fact.around.replicas_managers, ["argocd"]);
        assert_eq!(fact.last_manager.as_deref(), Some("pilotlight"));
        let applied = json!({"annotations": {LAST_APPLIED: r#"{"spec":{"replicas":2}}"#}});
        assert_eq!(read(&applied, &json!({})).around.replicas_managers, ["kubectl apply"]);
    }

    #[test]
    fn a_template_that_changes_is_seen_and_a_number_that_changes_is_not() {
        let one = read(&json!({}), &json!({"replicas": 1}));
        assert_eq!(one.template, read(&json!({}), &json!({"replicas": 2})).template);
        let labelled = json!({"template": {"metadata": {"labels": {"app": "web"}}}});
        assert_ne!(one.template, read(&json!({}), &labelled).template);
    }
}
