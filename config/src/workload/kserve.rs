//! InferenceServices, as KServe and KFServing read them. KServe makes of one a Knative Service, which is scaled by
//! requests, or a Deployment with another autoscaler, or leaves it to ModelMesh; annotations and fields decide.

use pilotlight_core::ConcurrencyLimit;
use serde_json::Value;

use super::draft::{Draft, common, container_concurrency, timeouts};
use super::elsewhere::{Goal, hpa, needed, range};
use super::hpa::{keda, to_zero};
use super::manifest::{Node, shown};
use super::placement;
use super::requests::Requests;
use super::written::Written;
use super::{Kind, pod, unused};
use crate::fault::Findings;
use crate::keys::annotation::{self as keys, HPA, KPA, PREFIX};
use crate::spelling::{hint, nearest};
use crate::wording::count;

/// KServe keeps one pod unless told otherwise.
const DEFAULT_MIN_REPLICAS: &str = "1";
/// KFServing v1alpha2 aims for one request per pod unless told otherwise.
const DEFAULT_V1ALPHA2_TARGET: &str = "1";
/// KServe's goal for cpu.
const DEFAULT_CPU_PERCENT: u32 = 80;

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

pub(super) fn v1beta1(node: &Node<'_>, findings: &mut Findings) -> Draft {
    let spec = node.child("spec");
    let predictor = spec.child("predictor");
    if !predictor.is_present() {
        predictor.fault("is missing", findings);
    }
    note_other_parts(&spec, findings);
    let containers = predictor.child("containers");
    let serving = if containers.is_present() {
        pod::serving(&containers, false, findings)
    } else {
        model_server(&predictor, findings)
    };
    unused::pod(&predictor, findings);
    unused::predictor(&predictor, serving.as_ref(), findings);
    let metadata = node.at(&["metadata", "annotations"]);
    let mode = Mode::of(node, &metadata, &predictor, findings);
    let mut draft = common(node, Kind::InferenceService, &metadata, serving, findings);
    draft.requests = requests(&predictor);
    draft.container_concurrency = container_concurrency(&predictor.child("containerConcurrency"), findings);
    let absent = predictor.child("responseStartTimeoutSeconds");
    draft.timeouts =
        timeouts(&predictor.child("timeout"), &absent, &predictor.child("idleTimeoutSeconds"), findings);
    // Annotations of the predictor go over those of the whole service.
    let own = predictor.child("annotations");
    placement::check_annotations(&own, findings);
    draft.written.add_above(&own, findings);
    if mode == Mode::Knative {
        draft.written.stand_in(keys::TARGET.name, &predictor.child("scaleTarget"), findings);
        draft.written.stand_in(keys::METRIC.name, &predictor.child("scaleMetric"), findings);
        let strategy = predictor.child("deploymentStrategy");
        if strategy.is_present() {
            findings.warn(&strategy.path, "no effect: KServe takes it in mode Standard only");
        }
    } else {
        drop_settings(&mut draft.written, &mode, findings);
        draft.elsewhere = Some(mode.explain(&predictor, &metadata, &draft.requests, findings));
    }
    // In another mode they are told already.
    let dropped: &[&Node<'_>] = if mode == Mode::Knative { &[&metadata, &own] } else { &[] };
    replicas(&mut draft.written, dropped, &predictor, findings);
    draft
}

pub(super) fn v1alpha2(node: &Node<'_>, findings: &mut Findings) -> Draft {
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
    unused::pod(&predictor, findings);
    unused::predictor(&predictor, serving.as_ref(), findings);
    let metadata = node.at(&["metadata", "annotations"]);
    let mut draft = common(node, Kind::InferenceService, &metadata, serving, findings);
    let parallelism = predictor.child("parallelism");
    draft.container_concurrency = container_concurrency(&parallelism, findings);
    if !draft.written.has(keys::TARGET.name) {
        match draft.container_concurrency {
            ConcurrencyLimit::UNLIMITED => draft.written.assume(keys::TARGET.name, DEFAULT_V1ALPHA2_TARGET),
            _ => draft.written.stand_in(keys::TARGET.name, &parallelism, findings),
        }
    }
    replicas(&mut draft.written, &[&metadata], &predictor, findings);
    draft
}

/// The requests of a predictor's containers. KServe gives the one that serves a request for cpu and memory where it has
/// none: the model server, or else the first container (`setResourceRequirementDefaults`).
fn requests(predictor: &Node<'_>) -> Requests {
    let requests = Requests::of(predictor);
    let has_model = PREDICTOR_FIELDS.iter().any(|name| predictor.child(name).is_present());
    if has_model { requests } else { requests.with_first_completed() }
}

/// The form in which KServe runs an InferenceService.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A Knative Service.
    Knative,
    /// A Deployment, with an autoscaler of its own.
    Standard(DeploymentScaler),
    /// A model in pods that others share.
    ModelMesh,
}

/// The autoscaler of a Deployment that KServe makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeploymentScaler {
    Hpa,
    Keda,
    External,
    None,
}

const MODE: &str = "serving.kserve.io/deploymentMode";
const CLASS: &str = "serving.kserve.io/autoscalerClass";
const UTILIZATION: &str = "serving.kserve.io/targetUtilizationPercentage";
const METRIC: &str = "serving.kserve.io/metric";

const MODES: &[&str] = &["Serverless", "Knative", "RawDeployment", "Standard", "ModelMesh"];
const CLASSES: &[(&str, DeploymentScaler)] = &[
    ("hpa", DeploymentScaler::Hpa),
    ("keda", DeploymentScaler::Keda),
    ("external", DeploymentScaler::External),
    ("none", DeploymentScaler::None),
];

/// Annotations of KServe in force or harmless; what is close to one of these and is none is misspelt.
const ANNOTATIONS: &[&str] = &[
    MODE,
    CLASS,
    UTILIZATION,
    METRIC,
    "serving.kserve.io/metrics",
    "serving.kserve.io/enable-tag-routing",
    "serving.kserve.io/enable-metric-aggregation",
    "serving.kserve.io/enable-prometheus-scraping",
    "serving.kserve.io/enable-auth",
    "serving.kserve.io/stop",
    "serving.kserve.io/gke-accelerator",
    "serving.kserve.io/disable-localmodel",
    "serving.kserve.io/disable-auto-update",
    "serving.kserve.io/nodegroup",
    "serving.kserve.io/secretKey",
    "serving.kserve.io/storageSecretName",
];

impl Mode {
    /// The mode: by the status, else by the annotation, else by what only one of them reads.
    fn of(node: &Node<'_>, annotations: &Node<'_>, predictor: &Node<'_>, findings: &mut Findings) -> Self {
        misspelt(annotations, findings);
        let (mode, class) = (annotations.child(MODE), annotations.child(CLASS));
        let class_text = class.value.map(shown);
        let known = class_text.as_ref().and_then(|text| CLASSES.iter().find(|(name, _)| name == text));
        if let (Some(text), None) = (&class_text, known) {
            let names = CLASSES.iter().map(|&(name, _)| name);
            let rule = format!(
                "is not one of hpa, keda, external, none{}",
                nearest(text, names).map_or(String::new(), |name| format!(" (did you mean {name:?}?)"))
            );
            findings.fault(&class.path, text, rule);
        }
        let standard = Mode::Standard(known.map_or(DeploymentScaler::Hpa, |&(_, class)| class));
        let written = [node.at(&["status", "deploymentMode"]), mode.clone()];
        let written = written.iter().find_map(|place| place.value.map(shown));
        match written.as_deref() {
            Some("RawDeployment" | "Standard") => return standard,
            Some("Serverless" | "Knative") => {
                if class.is_present() {
                    findings.warn(&class.path, "no effect in this mode: Knative scales by requests");
                }
                return Mode::Knative;
            }
            Some("ModelMesh") => return Mode::ModelMesh,
            Some(other) => {
                let advice = format!(
                    "{other:?} is no mode{}, and KServe takes its default; there are {}",
                    hint(other, MODES.iter().copied()),
                    MODES.join(", ")
                );
                findings.warn(&mode.path, advice);
            }
            None => {}
        }
        let is_knative_hpa = annotations.child(keys::CLASS.name).value.is_some_and(|class| class == HPA);
        let metric = predictor.child("scaleMetric");
        let is_resource = metric.value.is_some_and(|metric| metric == "cpu" || metric == "memory");
        let autoscaling = predictor.child("autoScaling");
        let sign =
            [(known.is_some(), &class), (autoscaling.is_present(), &autoscaling), (is_resource, &metric)];
        match sign.into_iter().find_map(|(is_there, place)| is_there.then_some(place)) {
            Some(place) if !is_knative_hpa => {
                let advice = format!(
                    "KServe reads this in mode Standard (RawDeployment) only, which is taken to be the cluster's default; \
                     write {MODE} to say so"
                );
                findings.warn(&place.path, advice);
                standard
            }
            _ => Mode::Knative,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Mode::Knative => "Knative",
            Mode::Standard(_) => "Standard (RawDeployment)",
            Mode::ModelMesh => "ModelMesh",
        }
    }

    /// The autoscaler that there will be, sentence by sentence.
    fn explain(
        self,
        predictor: &Node<'_>,
        annotations: &Node<'_>,
        requests: &Requests,
        findings: &mut Findings,
    ) -> Vec<String> {
        let (min_field, max_field) = (predictor.child("minReplicas"), predictor.child("maxReplicas"));
        let mut silent = Findings::default();
        let min = min_field.whole(i32::MAX as u32, &mut silent).unwrap_or(1);
        let max = max_field.whole(i32::MAX as u32, &mut silent).unwrap_or(0);
        let class = match self {
            Mode::ModelMesh | Mode::Knative => {
                let rest = "ModelMesh loads the model into pods that it shares with others: no setting of this object \
                            scales them.";
                return vec![rest.to_owned()];
            }
            Mode::Standard(class) => class,
        };
        let makes = "KServe makes a Deployment of it (mode Standard, once RawDeployment): nothing scales it by requests.";
        let mut sentences = vec![makes.to_owned()];
        match class {
            DeploymentScaler::Hpa => {
                if min == 0 {
                    let advice = "no effect: a HorizontalPodAutoscaler keeps 1 pod at least; only mode Knative \
                                  (Serverless) and KEDA go to zero";
                    findings.warn(&min_field.path, advice);
                }
                let min = min.max(1);
                if max < min {
                    let advice = format!(
                        "{} in this mode: there are never more than {}",
                        if max_field.is_present() {
                            "means minReplicas"
                        } else {
                            "not written, which means minReplicas"
                        },
                        count(min, "pod")
                    );
                    findings.warn(&max_field.path, advice);
                }
                let goals = hpa_goals(predictor, annotations, findings);
                requests.warn(&needed(&goals), "the HorizontalPodAutoscaler that KServe makes", findings);
                let behavior = predictor.at(&["autoScaling", "behavior"]);
                if behavior.is_present() {
                    findings.warn(&behavior.path, "no effect: KServe hands it to KEDA only");
                }
                sentences.push("It makes a HorizontalPodAutoscaler, too.".to_owned());
                sentences.extend(hpa(min, max.max(min), &goals, false));
            }
            DeploymentScaler::Keda => {
                let metric = predictor.child("scaleMetric");
                if let Some(text) = metric.value.map(shown) {
                    findings.fault(
                        &metric.path,
                        &text,
                        "is not supported with KEDA: write autoScaling.metrics",
                    );
                }
                let triggers = keda_triggers(predictor, findings);
                sentences.push(keda(&triggers));
                sentences.push(range(min, max.max(min)));
                if min == 0 {
                    sentences.push(to_zero(300));
                }
            }
            DeploymentScaler::External => {
                sentences.push(
                    "autoscalerClass external: whatever you bring yourself sets the number of pods."
                        .to_owned(),
                );
            }
            DeploymentScaler::None => {
                sentences.push(format!("autoscalerClass none: there are always {}.", count(min, "pod")));
            }
        }
        sentences
    }
}

/// Drops Knative's settings, which nobody reads in this mode.
fn drop_settings(written: &mut Written, mode: &Mode, findings: &mut Findings) {
    let dropped: Vec<String> =
        written.annotations.keys().filter(|key| key.starts_with(PREFIX)).cloned().collect();
    for key in dropped {
        written.annotations.remove(&key);
        let advice = format!("no effect in mode {}: only mode Knative (Serverless) reads it", mode.name());
        findings.warn(&written.path_of(&key), advice);
    }
}

/// The metrics of the HorizontalPodAutoscaler that KServe makes.
fn hpa_goals(predictor: &Node<'_>, annotations: &Node<'_>, findings: &mut Findings) -> Vec<Goal> {
    let (metric, target) = (predictor.child("scaleMetric"), predictor.child("scaleTarget"));
    let metrics = predictor.at(&["autoScaling", "metrics"]);
    if metrics.is_present() {
        for field in [&metric, &target].into_iter().filter(|field| field.is_present()) {
            findings.warn(&field.path, "no effect: autoScaling counts");
        }
        return metrics.items(findings).iter().filter_map(|item| resource_goal(item, findings)).collect();
    }
    let has_class = annotations.child(CLASS).is_present();
    let resource = match metric.value.map(shown).as_deref() {
        None | Some("cpu") => "cpu",
        Some("memory") => "memory",
        Some(other) if has_class => {
            findings.fault(
                &metric.path,
                other,
                "is not one of cpu, memory, which autoscalerClass hpa scales on",
            );
            return Vec::new();
        }
        Some(other) => {
            let advice = format!(
                "{other:?} has no effect in this mode, which scales on cpu or memory. In force: cpu at 80 %"
            );
            findings.warn(&metric.path, advice);
            return Vec::new();
        }
    };
    if let Some(note) = annotations.child(METRIC).value.filter(|note| *note != resource) {
        let advice =
            format!("{note} has no effect: write scaleMetric in the predictor. In force: {resource}");
        findings.warn(&annotations.child(METRIC).path, advice);
    }
    let percent = percentage(&target, findings);
    match (resource, percent) {
        (_, Some(percent)) => vec![Goal::utilization(resource, percent)],
        ("memory", None) => {
            let advice = "has no effect without scaleTarget. In force: cpu at 80 %";
            findings.warn(&metric.path, advice);
            Vec::new()
        }
        (_, None) => vec![Goal::utilization("cpu", cpu_percent(annotations, findings))],
    }
}

/// The annotation that KServe read before there was `scaleTarget`.
fn cpu_percent(annotations: &Node<'_>, findings: &mut Findings) -> u32 {
    let place = annotations.child(UTILIZATION);
    let Some(text) = place.value.map(shown) else { return DEFAULT_CPU_PERCENT };
    let Some(percent) = text.parse().ok().filter(|percent| (1..=100).contains(percent)) else {
        findings.fault(&place.path, &text, "is not a whole number between 1 and 100");
        return DEFAULT_CPU_PERCENT;
    };
    if percent != DEFAULT_CPU_PERCENT {
        let advice = "KServe reads this up to 0.14 only, and 80 % is in force later: write scaleTarget in the predictor";
        findings.warn(&place.path, advice);
    }
    percent
}

fn percentage(target: &Node<'_>, findings: &mut Findings) -> Option<u32> {
    let percent = target.whole(i32::MAX as u32, findings)?;
    if !(1..=100).contains(&percent) {
        findings.fault(&target.path, &percent.to_string(), "is not a percentage between 1 and 100");
        return None;
    }
    Some(percent)
}

/// One of `autoScaling.metrics`, where a HorizontalPodAutoscaler reads them.
fn resource_goal(metric: &Node<'_>, findings: &mut Findings) -> Option<Goal> {
    let kind = metric.child("type");
    let resource = metric.child("resource");
    if !resource.is_present() {
        let text = kind.value.map(shown).unwrap_or_default();
        findings.fault(&kind.path, &text, "is not Resource, the only type that autoscalerClass hpa reads");
        return None;
    }
    let name = resource.child("name").text(findings)?;
    let target = resource.child("target");
    if let Some(percent) = percentage(&target.child("averageUtilization"), findings) {
        return Some(Goal::utilization(&name, percent));
    }
    match target.child("averageValue").value {
        Some(amount) if name == "memory" => Some(Goal::per_pod(&name, &shown(amount))),
        _ => (name == "cpu").then(|| Goal::utilization("cpu", DEFAULT_CPU_PERCENT)),
    }
}

/// The triggers of the ScaledObject that KServe makes, by their types.
fn keda_triggers(predictor: &Node<'_>, findings: &mut Findings) -> Vec<String> {
    let metrics = predictor.at(&["autoScaling", "metrics"]);
    let items = metrics.items(findings);
    if items.is_empty() {
        findings.warn(&metrics.path, "nothing is written: KEDA has no trigger, and refuses the ScaledObject");
    }
    let trigger = |metric: &Node<'_>| {
        let names = [
            metric.at(&["resource", "name"]),
            metric.at(&["external", "metric", "backend"]),
            metric.at(&["podmetric", "metric", "backend"]),
        ];
        names.iter().find_map(|name| name.value.map(shown))
    };
    items.iter().filter_map(trigger).collect()
}

/// Warns of annotations of KServe that are nearly known.
fn misspelt(annotations: &Node<'_>, findings: &mut Findings) {
    let Some(Value::Object(fields)) = annotations.value else { return };
    for key in fields.keys().filter(|key| !ANNOTATIONS.contains(&key.as_str())) {
        let Some(name) = key.strip_prefix("serving.kserve.io/") else { continue };
        let known = ANNOTATIONS.iter().filter_map(|known| known.strip_prefix("serving.kserve.io/"));
        if let Some(meant) = nearest(name, known) {
            let advice = format!("unknown annotation; did you mean `serving.kserve.io/{meant}`?");
            findings.warn(&annotations.child(key).path, advice);
        }
    }
}

/// `minReplicas` and `maxReplicas` of a predictor. KServe hands the annotations of these names on to nobody, only
/// their older spelling passes, and then the field still counts before it; one pod is the default.
fn replicas(written: &mut Written, annotations: &[&Node<'_>], predictor: &Node<'_>, findings: &mut Findings) {
    let (min, max) = (predictor.child("minReplicas"), predictor.child("maxReplicas"));
    // 0 is how KServe writes "not set".
    let is_limited = max.value.is_some_and(|value| value.as_u64() != Some(0));
    let min_advice = "no effect: minReplicas of the predictor counts, which is 1 where it is not written";
    let max_advice = match is_limited {
        true => "no effect: maxReplicas of the predictor counts",
        false => "no effect: KServe drops it; write maxReplicas in the predictor. In force: no limit",
    };
    let alias = keys::MIN_SCALE.alias.unwrap_or(keys::MIN_SCALE.name);
    for (key, advice) in
        [(keys::MIN_SCALE.name, min_advice), (alias, min_advice), (keys::MAX_SCALE.name, max_advice)]
    {
        written.annotations.remove(key);
        for place in annotations.iter().map(|place| place.child(key)).filter(Node::is_present) {
            findings.warn(&place.path, advice);
        }
    }
    written.assume(keys::MIN_SCALE.name, DEFAULT_MIN_REPLICAS);
    written.stand_in(keys::MIN_SCALE.name, &min, findings);
    if is_limited {
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
        findings.warn_once(&server.path, "image and command come from the cluster's serving runtime");
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
