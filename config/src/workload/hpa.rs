//! HorizontalPodAutoscalers and KEDA's ScaledObjects: what stands in them, checked as Kubernetes and KEDA do.
//! Neither is ours to scale; what they will do is explained.

use serde_json::Value;

use super::elsewhere::{Goal, hpa, needed, range};
use super::manifest::{Node, shown};
use super::requests::{Share, Shares};
use crate::fault::Findings;
use crate::wording::time;

/// An object that scales: its explanation, the kind and name of what it scales, and what must be requested there.
pub(super) struct Scaler {
    pub(super) explanation: Vec<String>,
    pub(super) scales: Option<(String, String)>,
    pub(super) needed: Shares,
}

/// Reads a HorizontalPodAutoscaler of any version.
pub(super) fn horizontal(node: &Node<'_>, findings: &mut Findings) -> Scaler {
    let spec = node.child("spec");
    let target = spec.child("scaleTargetRef");
    let scales = named(&target, &target.child("kind"), findings);
    let (min_field, max_field) = (spec.child("minReplicas"), spec.child("maxReplicas"));
    let min = min_field.whole(i32::MAX as u32, findings).unwrap_or(1);
    if !max_field.is_present() {
        max_field.fault("is missing", findings);
    }
    let max = max_field.whole(i32::MAX as u32, findings);
    match max {
        Some(0) => findings.fault(&max_field.path, "0", "is not a whole number of at least 1"),
        Some(max) if max < min => {
            findings.fault(
                &max_field.path,
                &max.to_string(),
                format!("is less than minReplicas, which is {min}"),
            );
        }
        _ => {}
    }
    let metrics = spec.child("metrics");
    let items = metrics.items(findings);
    let mut goals: Vec<Goal> = items.iter().filter_map(|metric| goal(metric, findings)).collect();
    let percentage = spec.child("targetCPUUtilizationPercentage");
    if let Some(percent) = percentage.whole(i32::MAX as u32, findings) {
        goals.push(Goal::utilization("cpu", percent));
    }
    let is_external = |metric: &Node<'_>| {
        metric.child("type").value.is_some_and(|kind| kind == "External" || kind == "Object")
    };
    if min == 0 && !items.iter().any(is_external) {
        let rule = "needs an Object or External metric; write at least 1";
        findings.fault(&min_field.path, "0", rule);
    }
    let mut explanation = vec![scaled(scales.as_ref())];
    explanation.extend(hpa(min, max.unwrap_or(min), &goals, spec.child("behavior").is_present()));
    // Metrics at fault are not the default.
    let needed = if goals.len() < items.len() { Shares::default() } else { needed(&goals) };
    Scaler { explanation, scales, needed }
}

/// One metric of a HorizontalPodAutoscaler, as `autoscaling/v2` writes it and as `v2beta1` did.
fn goal(metric: &Node<'_>, findings: &mut Findings) -> Option<Goal> {
    let kind = metric.child("type");
    if !kind.is_present() {
        kind.fault("is missing", findings);
    }
    let kind_text = kind.text(findings)?;
    let field = match kind_text.as_str() {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => {
            let rule = "is not one of Resource, ContainerResource, Pods, Object, External";
            findings.fault(&kind.path, &kind_text, rule);
            return None;
        }
    };
    let source = metric.child(field);
    if !source.is_present() {
        source.fault("is missing", findings);
        return None;
    }
    let name = [source.child("name"), source.at(&["metric", "name"]), source.child("metricName")];
    let name = name.iter().find_map(|name| name.value.map(shown)).unwrap_or_else(|| field.to_owned());
    let target = source.child("target");
    let amount = |new: &str, old: &str| target.child(new).value.or(source.child(old).value).map(shown);
    if let Some(percent) = amount("averageUtilization", "targetAverageUtilization") {
        let container = source.child("container").value.map(shown);
        return Some(Goal::utilization(&name, percent).of_container(container));
    }
    if let Some(amount) = amount("averageValue", "targetAverageValue") {
        return Some(Goal::per_pod(&name, &amount));
    }
    if let Some(amount) = amount("value", "targetValue") {
        return Some(Goal::in_all(&name, &amount));
    }
    target.fault("has no averageUtilization, averageValue or value", findings);
    None
}

/// Reads a ScaledObject of KEDA.
pub(super) fn scaled_object(node: &Node<'_>, findings: &mut Findings) -> Scaler {
    let spec = node.child("spec");
    let target = spec.child("scaleTargetRef");
    let kind = target.child("kind");
    let scales = named(&target, &kind, findings);
    let (min_field, max_field) = (spec.child("minReplicaCount"), spec.child("maxReplicaCount"));
    let min = min_field.whole(i32::MAX as u32, findings).unwrap_or(0);
    let max = max_field.whole(i32::MAX as u32, findings).unwrap_or(DEFAULT_MAX_REPLICA_COUNT);
    if max < min {
        let (path, value) =
            if max_field.is_present() { (&max_field.path, max) } else { (&min_field.path, min) };
        let rule = format!("contradicts: minReplicaCount is {min}, maxReplicaCount {max}");
        findings.fault(path, &value.to_string(), rule);
    }
    let idle = spec.child("idleReplicaCount");
    if let Some(count) = idle.whole(i32::MAX as u32, findings).filter(|&count| count >= min) {
        let rule = format!("is not below minReplicaCount, which is {min}");
        findings.fault(&idle.path, &count.to_string(), rule);
    }
    let triggers = spec.child("triggers");
    let items = triggers.items(findings);
    if items.is_empty() {
        triggers.fault("has no trigger", findings);
    }
    let kinds: Vec<String> =
        items.iter().filter_map(|trigger| trigger.child("type").text(findings)).collect();
    let cooldown = spec.child("cooldownPeriod").whole(i32::MAX as u32, findings).unwrap_or(300);
    let mut explanation = vec![scaled(scales.as_ref()), keda(&kinds), range(min, max)];
    if min == 0 || idle.is_present() {
        explanation.push(to_zero(cooldown));
    }
    let shares: Vec<Share> = items.iter().filter_map(share).collect();
    let needed = Shares { has_others: shares.len() < items.len(), shares };
    Scaler { explanation, scales, needed }
}

/// The share that a trigger `cpu` or `memory` holds; its type stood in the metadata once.
fn share(trigger: &Node<'_>) -> Option<Share> {
    let resource = trigger.child("type").value?.as_str().filter(|it| matches!(*it, "cpu" | "memory"))?;
    let metadata = trigger.child("metadata");
    let kind = trigger.child("metricType").value.or(metadata.child("type").value)?;
    let container = metadata.child("containerName").value.map(shown);
    (kind == "Utilization").then(|| Share { resource: resource.to_owned(), container })
}

/// KEDA's default.
const DEFAULT_MAX_REPLICA_COUNT: u32 = 100;

/// The sentence about KEDA's triggers.
pub(super) fn keda(triggers: &[String]) -> String {
    format!(
        "KEDA's ScaledObject sets the number of pods by its triggers ({}), through a HorizontalPodAutoscaler.",
        triggers.join(", ")
    )
}

/// When KEDA takes the last pod away.
pub(super) fn to_zero(cooldown_seconds: u32) -> String {
    let after = time(std::time::Duration::from_secs(cooldown_seconds.into()));
    format!("The last pod goes {after} after the last trigger was active.")
}

fn scaled(scales: Option<&(String, String)>) -> String {
    match scales {
        Some((kind, name)) => format!("It scales {kind} {name}."),
        None => "It scales nothing that it names.".to_owned(),
    }
}

/// The kind (a Deployment where none is written) and name of what is scaled.
fn named(target: &Node<'_>, kind: &Node<'_>, findings: &mut Findings) -> Option<(String, String)> {
    let name = target.child("name");
    if !name.is_present() {
        let missing = if target.is_present() { &name } else { target };
        missing.fault("is missing", findings);
    }
    let kind = kind.value.and_then(Value::as_str).unwrap_or("Deployment").to_owned();
    Some((kind, name.text(findings)?))
}
