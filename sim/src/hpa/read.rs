//! Reads a HorizontalPodAutoscaler out of its manifest. All faults at once, each with its field; the bounds are
//! Kubernetes' own.

use std::time::Duration;

use pilotlight_config::workload::manifest::{self, Document, Node, shown};
use pilotlight_config::{Fault, Findings, Parsed};

use super::quantity::Quantity;
use super::spec::{Behavior, HpaMetric, HpaSpec, Measure, Policy, PolicyStep, Rules, Select};

const DEFAULT_CPU_PERCENT: u32 = 80;
const MAX_PERIOD_SECONDS: u32 = 1_800;
const MAX_STABILIZATION_SECONDS: u32 = 3_600;
const MAX_INT32: u32 = i32::MAX as u32;

/// Names that exporters, meshes and adapters give to what pods measure.
const MEASURES: &[(&str, Measure)] = &[
    ("http_requests_per_second", Measure::RequestsPerSecond),
    ("http_requests_in_flight", Measure::InFlight),
    ("requests_per_second", Measure::RequestsPerSecond),
    ("requests-per-second", Measure::RequestsPerSecond),
    ("http_requests", Measure::RequestsPerSecond),
    ("rps", Measure::RequestsPerSecond),
    ("http_in_flight_requests", Measure::InFlight),
    ("in_flight_requests", Measure::InFlight),
    ("requests_in_flight", Measure::InFlight),
    ("concurrent_requests", Measure::InFlight),
    ("concurrency", Measure::InFlight),
];

impl HpaSpec {
    /// Reads the one HorizontalPodAutoscaler among the objects of a file.
    ///
    /// ```
    /// use pilotlight_sim::hpa::HpaSpec;
    /// let text = "
    /// apiVersion: autoscaling/v2
    /// kind: HorizontalPodAutoscaler
    /// metadata: { name: web }
    /// spec:
    ///   maxReplicas: 0
    ///   metrics:
    ///     - type: Resource
    ///       resource: { name: cpu, target: { type: Utilization, averageUtilisation: 80 } }
    /// ";
    /// let faults = HpaSpec::read("hpa.yaml", text).value.unwrap_err();
    /// assert_eq!(
    ///     faults.to_string(),
    ///     "hpa.yaml: spec.maxReplicas: \"0\" is not a whole number between 1 and 2147483647\n\
    ///      hpa.yaml: spec.metrics[0].resource.target.averageUtilisation: \
    ///      unknown field; did you mean `averageUtilization`?\n\
    ///      hpa.yaml: spec.metrics[0].resource.target: needs averageUtilization or averageValue"
    /// );
    /// ```
    pub fn read(file: &str, text: &str) -> Parsed<Self> {
        let unusable = |rule: String| Parsed {
            value: Err(Fault::without_value("", rule).in_file(file).into()),
            warnings: Vec::new(),
        };
        let documents = match manifest::documents(text) {
            Ok(documents) => documents,
            Err(message) => return unusable(message),
        };
        let is_hpa =
            |node: &Node<'_>| node.child("kind").value.is_some_and(|kind| kind == "HorizontalPodAutoscaler");
        let found: Vec<Node<'_>> = documents.iter().map(Document::root).filter(is_hpa).collect();
        let [one] = found.as_slice() else {
            return unusable(match found.len() {
                0 => "holds no HorizontalPodAutoscaler".to_owned(),
                several => format!("holds {several} HorizontalPodAutoscalers, and one is needed"),
            });
        };
        let mut findings = Findings::default();
        let spec = object(one, &mut findings);
        let parsed = Parsed::new(spec, findings);
        Parsed {
            value: parsed.value.map_err(|faults| faults.in_file(file)),
            warnings: parsed.warnings.into_iter().map(|warning| warning.in_file(file)).collect(),
        }
    }
}

fn object(node: &Node<'_>, findings: &mut Findings) -> HpaSpec {
    let name = node.at(&["metadata", "name"]).text(findings);
    let spec = node.child("spec");
    let min = spec.child("minReplicas");
    let max = spec.child("maxReplicas");
    let min_replicas = whole(&min, 0, MAX_INT32, findings).unwrap_or(1);
    let max_replicas = required(&max, findings).then(|| whole(&max, 1, MAX_INT32, findings)).flatten();
    if min_replicas == 0 {
        let rule = "needs an Object or External metric, which cannot be simulated: write at least 1";
        findings.fault(&min.path, "0", rule);
    }
    if let Some(max_replicas) = max_replicas.filter(|&max_replicas| max_replicas < min_replicas) {
        let rule = format!("is less than minReplicas, which is {min_replicas}");
        findings.fault(&max.path, &max_replicas.to_string(), rule);
    }
    let version = node.child("apiVersion");
    let (metrics, behavior) = match version.value.map(shown).as_deref() {
        Some("autoscaling/v1") => {
            let percentage = "targetCPUUtilizationPercentage";
            spec.only(&["scaleTargetRef", "minReplicas", "maxReplicas", percentage], findings);
            let target_percent = whole(&spec.child(percentage), 1, MAX_INT32, findings);
            let target_percent = target_percent.unwrap_or(DEFAULT_CPU_PERCENT);
            (vec![HpaMetric::CpuUtilization { target_percent }], None)
        }
        Some("autoscaling/v2" | "autoscaling/v2beta2") => {
            spec.only(&["scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"], findings);
            (metrics(&spec.child("metrics"), findings), behavior(&spec.child("behavior"), findings))
        }
        Some(other) => {
            findings.fault(&version.path, other, "must be autoscaling/v2 or autoscaling/v1");
            (Vec::new(), None)
        }
        None => {
            version.fault("is missing: autoscaling/v2 or autoscaling/v1", findings);
            (Vec::new(), None)
        }
    };
    HpaSpec { name, min_replicas, max_replicas: max_replicas.unwrap_or(min_replicas), metrics, behavior }
}

fn metrics(node: &Node<'_>, findings: &mut Findings) -> Vec<HpaMetric> {
    let items = node.items(findings);
    if items.is_empty() {
        return vec![HpaMetric::CpuUtilization { target_percent: DEFAULT_CPU_PERCENT }];
    }
    let (before, mut metrics) = (findings.faults.len(), Vec::new());
    for item in items {
        metrics.extend(metric(&item, findings));
    }
    if metrics.is_empty() && findings.faults.len() == before {
        let rule = "holds nothing that can be simulated: cpu, requests a second or requests in flight";
        node.fault(rule, findings);
    }
    metrics
}

/// Reads a metric. One that a simulated pod cannot measure is passed over, with a warning.
fn metric(node: &Node<'_>, findings: &mut Findings) -> Option<HpaMetric> {
    let kind = node.child("type");
    if !required(&kind, findings) {
        return None;
    }
    let field = match kind.text(findings)?.as_str() {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        source @ ("Object" | "External") => {
            findings.warn(&node.path, format!("{source} metrics cannot be simulated; it is passed over"));
            return None;
        }
        other => {
            let rule = "is not one of Resource, ContainerResource, Pods, Object, External";
            findings.fault(&kind.path, other, rule);
            return None;
        }
    };
    node.only(&["type", field], findings);
    let source = node.child(field);
    if !required(&source, findings) {
        return None;
    }
    match field {
        "pods" => pods_metric(&source, findings),
        _ => resource_metric(&source, findings),
    }
}

fn resource_metric(node: &Node<'_>, findings: &mut Findings) -> Option<HpaMetric> {
    // The simulated pod has a single container, so a container's usage is the pod's.
    node.only(&["name", "container", "target"], findings);
    let name = node.child("name");
    if !required(&name, findings) {
        return None;
    }
    let resource = name.text(findings)?;
    if resource != "cpu" {
        findings.warn(&name.path, format!("{resource} cannot be simulated; the metric is passed over"));
        return None;
    }
    let target = node.child("target");
    target.only(TARGET_FIELDS, findings);
    let kind = target_kind(&target, &["Utilization", "AverageValue"], findings)?;
    let (percent, value) = (target.child("averageUtilization"), target.child("averageValue"));
    match (percent.is_present(), value.is_present()) {
        (true, true) => target.fault("has both averageUtilization and averageValue", findings),
        (false, false) => target.fault("needs averageUtilization or averageValue", findings),
        (true, false) if kind == "AverageValue" => {
            target.fault("is an AverageValue without averageValue", findings);
        }
        (false, true) if kind == "Utilization" => {
            target.fault("is a Utilization without averageUtilization", findings);
        }
        (true, false) => {
            let target_percent = whole(&percent, 1, MAX_INT32, findings)?;
            return Some(HpaMetric::CpuUtilization { target_percent });
        }
        (false, true) => return Some(HpaMetric::Cpu { target_millicores: milli(&value, findings)? }),
    }
    None
}

fn pods_metric(node: &Node<'_>, findings: &mut Findings) -> Option<HpaMetric> {
    node.only(&["metric", "target"], findings);
    let metric = node.child("metric");
    metric.only(&["name", "selector"], findings);
    let name = metric.child("name");
    let target = node.child("target");
    target.only(TARGET_FIELDS, findings);
    let value = target.child("averageValue");
    let target_milli = target_kind(&target, &["AverageValue"], findings)
        .filter(|_| required(&value, findings))
        .and_then(|_| milli(&value, findings));
    if !required(&name, findings) {
        return None;
    }
    let name_text = name.text(findings)?;
    let Some(&(_, measure)) = MEASURES.iter().find(|(known, _)| *known == name_text) else {
        let rule =
            format!("is nothing a simulated pod measures: write {} or {}", MEASURES[0].0, MEASURES[1].0);
        findings.fault(&name.path, &name_text, rule);
        return None;
    };
    Some(HpaMetric::Pods { name: name_text, measure, target_milli: target_milli? })
}

const TARGET_FIELDS: &[&str] = &["type", "averageUtilization", "averageValue", "value"];

/// The kind of a target, if it is one of those that make sense here.
fn target_kind(target: &Node<'_>, known: &[&str], findings: &mut Findings) -> Option<String> {
    if !required(target, findings) {
        return None;
    }
    let node = target.child("type");
    if !required(&node, findings) {
        return None;
    }
    let kind = node.text(findings)?;
    if !known.contains(&kind.as_str()) {
        findings.fault(&node.path, &kind, format!("must be {} here", known.join(" or ")));
        return None;
    }
    Some(kind)
}

fn behavior(node: &Node<'_>, findings: &mut Findings) -> Option<Behavior> {
    if !node.is_present() {
        return None;
    }
    node.only(&["scaleUp", "scaleDown"], findings);
    let Behavior { scale_up, scale_down } = Behavior::default();
    Some(Behavior {
        scale_up: rules(&node.child("scaleUp"), scale_up, findings),
        scale_down: rules(&node.child("scaleDown"), scale_down, findings),
    })
}

/// The rules of one direction; what is not written stays as in `default`.
fn rules(node: &Node<'_>, default: Rules, findings: &mut Findings) -> Rules {
    node.only(&["stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance"], findings);
    let window = whole(&node.child("stabilizationWindowSeconds"), 0, MAX_STABILIZATION_SECONDS, findings);
    let policies = node.child("policies");
    let written: Vec<Policy> =
        policies.items(findings).iter().filter_map(|item| policy(item, findings)).collect();
    if policies.value.and_then(|value| value.as_array()).is_some_and(Vec::is_empty) {
        policies.fault("needs at least one policy", findings);
    }
    Rules {
        stabilization_window: window.map_or(default.stabilization_window, seconds),
        select: one_of(&node.child("selectPolicy"), SELECTS, findings).unwrap_or(default.select),
        policies: if policies.is_present() { written } else { default.policies },
        tolerance_fraction: quantity(&node.child("tolerance"), findings).map(Quantity::value),
    }
}

const SELECTS: &[(&str, Select)] =
    &[("Max", Select::Max), ("Min", Select::Min), ("Disabled", Select::Disabled)];

fn policy(node: &Node<'_>, findings: &mut Findings) -> Option<Policy> {
    node.only(&["type", "value", "periodSeconds"], findings);
    let (kind, value, period) = (node.child("type"), node.child("value"), node.child("periodSeconds"));
    for field in [&kind, &value, &period] {
        required(field, findings);
    }
    let value = whole(&value, 1, MAX_INT32, findings);
    let period = whole(&period, 1, MAX_PERIOD_SECONDS, findings);
    let step = one_of::<fn(u32) -> PolicyStep>(
        &kind,
        &[("Pods", PolicyStep::Pods), ("Percent", PolicyStep::Percent)],
        findings,
    );
    Some(Policy { step: step?(value?), period: seconds(period?) })
}

/// Records that something is not there that must be.
fn required(node: &Node<'_>, findings: &mut Findings) -> bool {
    if !node.is_present() {
        node.fault("is missing", findings);
    }
    node.is_present()
}

fn whole(node: &Node<'_>, min: u32, max: u32, findings: &mut Findings) -> Option<u32> {
    let value = node.value?;
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (min..=max).contains(n));
    if number.is_none() {
        let rule = format!("is not a whole number between {min} and {max}");
        findings.fault(&node.path, &shown(value), rule);
    }
    number
}

fn one_of<T: Copy>(node: &Node<'_>, known: &[(&str, T)], findings: &mut Findings) -> Option<T> {
    let text = node.text(findings)?;
    let found = known.iter().find(|(name, _)| *name == text).map(|&(_, value)| value);
    if found.is_none() {
        let names: Vec<&str> = known.iter().map(|&(name, _)| name).collect();
        findings.fault(&node.path, &text, format!("is not one of {}", names.join(", ")));
    }
    found
}

fn quantity(node: &Node<'_>, findings: &mut Findings) -> Option<Quantity> {
    let text = shown(node.value?);
    let quantity = Quantity::parse(&text);
    if quantity.is_none() {
        findings.fault(&node.path, &text, "is not a quantity, such as 10, 0.5, 500m or 1k");
    }
    quantity
}

/// A quantity that can be aimed for, in thousandths.
fn milli(node: &Node<'_>, findings: &mut Findings) -> Option<u64> {
    let milli = quantity(node, findings)?.milli();
    let rule = match milli {
        Some(0) => "must be more than nothing",
        None => "is too large",
        Some(_) => return milli,
    };
    findings.fault(&node.path, &node.value.map(shown).unwrap_or_default(), rule);
    None
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}
