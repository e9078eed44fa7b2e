//! Objects of other people's kinds, as far as they have a say. Pure.
//!
//! They are read as JSON: each gives two or three fields, and most kinds are nowhere typed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::{
    BudgetFact, HpaFact, IngressAround, PolicyFact, Progressive, QuotaFact, ScaledObjectFact, ServiceAround,
    TargetFact,
};
use crate::crd::ScaleTargetRef;
use crate::facts::QUEUE_PROXY;
use crate::selector::Selector;

/// The names in the answer of `/apis`.
pub(super) fn names_of_groups(list: &Value) -> BTreeSet<String> {
    items(&list["groups"]).filter_map(|group| Some(group["name"].as_str()?.to_owned())).collect()
}

/// A map of texts in an object's metadata.
pub(super) fn map(object: &Value, field: &str) -> BTreeMap<String, String> {
    texts(&object["metadata"][field])
}

pub(super) fn ingress_class(object: &Value) -> Option<(String, String)> {
    Some((name(object)?, object["spec"]["controller"].as_str()?.to_owned()))
}

pub(super) fn default_ingress_class(object: &Value) -> Option<String> {
    let annotations = map(object, "annotations");
    let is_default =
        annotations.get("ingressclass.kubernetes.io/is-default-class").is_some_and(|is| is == "true");
    name(object).filter(|_| is_default)
}

/// Whether a namespace is in Istio's ambient mode.
pub(super) fn is_ambient(namespace: &Value) -> bool {
    map(namespace, "labels").get("istio.io/dataplane-mode").is_some_and(|mode| mode == "ambient")
}

/// Whether a pod has a mesh's sidecar.
pub(super) fn is_meshed(pod: &Value) -> bool {
    let spec = &pod["spec"];
    items(&spec["containers"])
        .chain(items(&spec["initContainers"]))
        .any(|container| matches!(container["name"].as_str(), Some("istio-proxy" | "linkerd-proxy")))
}

/// A PeerAuthentication that takes only mutual TLS, with the pods that it is about; `None`: all of them.
pub(super) fn strict_mtls(object: &Value) -> Option<(String, Option<Selector>)> {
    let spec = &object["spec"];
    let is_strict = spec["mtls"]["mode"] == "STRICT";
    is_strict.then_some(())?;
    Some((name(object)?, selector(&spec["selector"])))
}

pub(super) fn hpa(object: &Value) -> Option<(String, HpaFact)> {
    let spec = &object["spec"];
    let fact = HpaFact {
        target: reference(&spec["scaleTargetRef"])?,
        min_replicas: number(&spec["minReplicas"]).unwrap_or(1),
        max_replicas: number(&spec["maxReplicas"])?,
        load_fraction: None,
    };
    Some((name(object)?, fact))
}

pub(super) fn scaled_object(object: &Value) -> Option<(String, ScaledObjectFact)> {
    let annotations = map(object, "annotations");
    // KEDA takes any number of pods to stay at for a pause, and the word `true`.
    let is_paused = annotations.contains_key("autoscaling.keda.sh/paused-replicas")
        || annotations.get("autoscaling.keda.sh/paused").is_some_and(|paused| paused == "true");
    let target = reference(&object["spec"]["scaleTargetRef"])?;
    Some((name(object)?, ScaledObjectFact { target, is_paused }))
}

/// A NetworkPolicy that restricts ingress; `None`: it is about egress, or lets everybody in.
pub(super) fn policy(object: &Value) -> Option<(String, PolicyFact)> {
    let spec = &object["spec"];
    let types: Vec<&str> = items(&spec["policyTypes"]).filter_map(Value::as_str).collect();
    let is_open =
        |rule: &Value| items(&rule["from"]).next().is_none() && items(&rule["ports"]).next().is_none();
    let restricts = (types.is_empty() || types.contains(&"Ingress")) && !items(&spec["ingress"]).any(is_open);
    restricts.then_some(())?;
    Some((name(object)?, PolicyFact { pods: selector(&spec["podSelector"]) }))
}

pub(super) fn budget(object: &Value) -> Option<(String, BudgetFact)> {
    let spec = &object["spec"];
    // Without a selector it is about no pod, unlike with an empty one.
    spec["selector"].as_object()?;
    let amount = |field: &str| match &spec[field] {
        Value::Number(number) => number.as_f64().map(|number| (number, false)),
        Value::String(text) => Some((text.strip_suffix('%')?.parse().ok()?, true)),
        _ => None,
    };
    // A share of one pod is rounded up to the one.
    let allows_one_of_one = match (amount("minAvailable"), amount("maxUnavailable")) {
        (Some((least, _)), _) => least <= 0.0,
        (None, Some((most, _))) => most > 0.0,
        (None, None) => false,
    };
    Some((name(object)?, BudgetFact { pods: selector(&spec["selector"]), allows_one_of_one }))
}

pub(super) fn quota(object: &Value) -> Option<(String, QuotaFact)> {
    // A quota of some priority or lifetime is about pods that are not known.
    if items(&object["spec"]["scopes"]).next().is_some() || !object["spec"]["scopeSelector"].is_null() {
        return None;
    }
    let hard = texts(&object["spec"]["hard"]).into_iter();
    let hard = hard.filter_map(|(resource, limit)| Some((resource, limit.parse().ok()?))).collect();
    Some((name(object)?, QuotaFact { hard }))
}

pub(super) fn service(object: &Value) -> Option<(String, ServiceAround)> {
    let annotations = map(object, "annotations");
    let has_neg = ["cloud.google.com/neg", "cloud.google.com/neg-status"]
        .iter()
        .any(|key| annotations.contains_key(*key));
    Some((name(object)?, ServiceAround { has_neg, ..ServiceAround::default() }))
}

pub(super) fn ingress(object: &Value) -> Option<(String, IngressAround)> {
    let annotations = map(object, "annotations");
    let class = object["spec"]["ingressClassName"].as_str().map(str::to_owned);
    let fact = IngressAround {
        class: class.or_else(|| annotations.get("kubernetes.io/ingress.class").cloned()),
        uses_cluster_ip: annotations.get("nginx.org/use-cluster-ip").is_some_and(|uses| uses == "true"),
    };
    Some((name(object)?, fact))
}

/// The Services that an Ingress leads to.
pub(super) fn services_of_ingress(object: &Value) -> BTreeSet<String> {
    let spec = &object["spec"];
    let paths =
        items(&spec["rules"]).flat_map(|rule| items(&rule["http"]["paths"])).map(|path| &path["backend"]);
    let all = paths.chain([&spec["defaultBackend"]]);
    all.filter_map(|backend| Some(backend["service"]["name"].as_str()?.to_owned())).collect()
}

/// A TargetGroupBinding of target type `ip`, with its Service.
pub(super) fn target_group(object: &Value) -> Option<(String, String)> {
    let spec = &object["spec"];
    let service = spec["serviceRef"]["name"].as_str()?.to_owned();
    Some((name(object)?, service)).filter(|_| spec["targetType"] == "ip")
}

/// The target of a Flagger Canary.
pub(super) fn canary(object: &Value) -> Option<(String, ScaleTargetRef)> {
    Some((name(object)?, reference(&object["spec"]["targetRef"])?))
}

pub(super) fn target(object: &Value) -> TargetFact {
    let (spec, template) = (&object["spec"], &object["spec"]["template"]);
    let pod = &template["spec"];
    let has = |container: &Value| container["name"] == QUEUE_PROXY;
    TargetFact {
        annotations: map(object, "annotations"),
        pod_labels: map(template, "labels"),
        match_labels: texts(&spec["selector"]["matchLabels"]),
        has_queue_proxy: items(&pod["containers"]).chain(items(&pod["initContainers"])).any(has),
        on_host_network: pod["hostNetwork"] == true,
        progressive: progressive(object),
        replicas_managers: replicas_managers(object),
    }
}

fn progressive(object: &Value) -> Option<Progressive> {
    let owners = items(&object["metadata"]["ownerReferences"]);
    let is_flagger = |owner: &Value| owner["kind"] == "Canary";
    let is_rollout = object["kind"] == "Rollout";
    let strategy = &object["spec"]["strategy"];
    match () {
        () if owners.into_iter().any(is_flagger) => Some(Progressive::Flagger),
        () if is_rollout && !strategy["blueGreen"].is_null() => Some(Progressive::BlueGreen),
        () if is_rollout && !strategy["canary"]["trafficRouting"].is_null() => {
            Some(Progressive::TrafficRouting)
        }
        () => None,
    }
}

/// Managers that write `spec.replicas` again whenever the object is applied. Whoever wrote it by the subresource `scale`, or
/// once, is none of them.
fn replicas_managers(object: &Value) -> Vec<String> {
    let owns = |entry: &&Value| !entry["fieldsV1"]["f:spec"]["f:replicas"].is_null();
    let applies = |entry: &&Value| {
        let manager = entry["manager"].as_str().unwrap_or_default();
        entry["subresource"].as_str().unwrap_or_default().is_empty()
            && (entry["operation"] == "Apply" || WRITERS.iter().any(|writer| manager.starts_with(writer)))
    };
    let managers = items(&object["metadata"]["managedFields"]).filter(owns).filter(applies);
    let mut managers: Vec<String> =
        managers.filter_map(|entry| Some(entry["manager"].as_str()?.to_owned())).collect();
    let last = map(object, "annotations").remove("kubectl.kubernetes.io/last-applied-configuration");
    let last: Option<Value> = last.and_then(|last| serde_json::from_str(&last).ok());
    let is_applied = last.is_some_and(|last| !last["spec"]["replicas"].is_null());
    if is_applied && !managers.iter().any(|manager| manager.starts_with("kubectl")) {
        managers.push("kubectl apply".to_owned());
    }
    managers.dedup();
    managers
}

/// Managers that update, and do so with everything that is written down.
const WRITERS: [&str; 4] = ["argocd", "helm", "kubectl-client-side-apply", "kustomize-controller"];

fn name(object: &Value) -> Option<String> {
    Some(object["metadata"]["name"].as_str()?.to_owned())
}

fn reference(value: &Value) -> Option<ScaleTargetRef> {
    let text = |field: &str, other: &str| value[field].as_str().unwrap_or(other).to_owned();
    Some(ScaleTargetRef {
        api_version: text("apiVersion", "apps/v1"),
        kind: text("kind", "Deployment"),
        name: value["name"].as_str()?.to_owned(),
    })
}

/// A label selector with `matchLabels` and `matchExpressions`; `None`: there is none, or it is empty, and selects all.
fn selector(value: &Value) -> Option<Selector> {
    let mut parts: Vec<String> =
        texts(&value["matchLabels"]).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    for expression in items(&value["matchExpressions"]) {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = items(&expression["values"]).filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key.to_owned(),
            Some("DoesNotExist") => format!("!{key}"),
            _ => continue,
        });
    }
    Selector::parse(&parts.join(",")).ok().filter(|selector| !selector.is_empty())
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

#[cfg(test)]
mod tests;
