//! Settings in plain words: each sentence carries the numbers that are in force, worked out.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::cadence::TICK;
use pilotlight_core::{
    ConcurrencyLimit, Reachability, RevisionId, RevisionSpec, ScalingMetric, TargetBurstCapacity, Timeouts,
};
use serde_json::{Value, json};

use crate::autoscaler::AutoscalerConfig;
use crate::fault::{Findings, Warning};
use crate::resolve::{Origin, Setting, Verdict, resolve};
use crate::wording::{count, number, time};
use crate::workload::{Kind, Source, Workload, Workloads};

/// The time that `pilotlight run` gives a pod to become ready unless told otherwise.
pub const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// How a workload will scale, sentence by sentence.
pub fn explain(workload: &Workload) -> Vec<String> {
    if let Some(elsewhere) = &workload.elsewhere {
        return elsewhere.clone();
    }
    let asks_initial =
        workload.settings.iter().any(|it| it.name == "initial-scale" && it.from != Origin::Default);
    let timeouts = has_pods(workload).then_some(&workload.timeouts);
    let own = sentences(&workload.spec, workload.container_concurrency, asks_initial, timeouts);
    plain(workload).into_iter().chain(own).collect()
}

/// Whether its pods are described with it, and what only they have: time limits, a container, a probe.
fn has_pods(workload: &Workload) -> bool {
    workload.kind != Kind::PodAutoscaler
}

/// A Deployment without settings is scaled by nothing in a cluster.
fn plain(workload: &Workload) -> Option<String> {
    let is_plain = matches!(workload.kind, Kind::Deployment | Kind::StatefulSet | Kind::ReplicaSet);
    let is_set = |setting: &Setting| !matches!(setting.from, Origin::Default | Origin::Config(_));
    let sets = workload.settings.iter().any(|it| is_set(it) && it.name != "activation-timeout");
    (is_plain && !sets).then(|| {
        "Nothing here scales it in a cluster; `pilotlight run` scales it by requests, as follows.".to_owned()
    })
}

fn sentences(
    spec: &RevisionSpec,
    container_concurrency: ConcurrencyLimit,
    asks_initial: bool,
    timeouts: Option<&Timeouts>,
) -> Vec<String> {
    let mut sentences = vec![target(spec)];
    sentences.extend(small_target(spec));
    sentences.extend(at_once(container_concurrency));
    sentences.push(format!(
        "The number of pods follows the average load of the last {}, and is decided every {}.",
        time(spec.stable_window),
        time(TICK.period)
    ));
    sentences.push(panic(spec));
    sentences.push(rates(spec));
    if !spec.scale_down_delay.is_zero() {
        sentences.push(format!("Pods go only after fewer were enough for {}.", time(spec.scale_down_delay)));
    }
    sentences.push(bounds(spec));
    if spec.reachability == Reachability::Unreachable {
        sentences.push("No route leads to it: min-scale does not count until one does.".to_owned());
    }
    sentences.push(last_pod(spec));
    sentences.push(activator(spec));
    sentences.extend(start(spec, asks_initial));
    sentences.extend(timeouts.map(time_limits));
    sentences
}

/// The settings and their explanation for each workload, as text for a terminal.
pub fn render(found: &Workloads) -> String {
    let mut text = String::new();
    for workload in &found.workloads {
        text += &heading(&workload.id, &format!("{:?}", workload.kind), &workload.source);
        if workload.elsewhere.is_none() {
            text += &table(&workload.settings);
            text += "\n";
        }
        text += &indented(&explain(workload));
    }
    for other in &found.elsewhere {
        text += &heading(&other.id, other.kind, &other.source);
        text += &indented(&other.explanation);
    }
    if let (Some(source), true) = (&found.config_source, found.workloads.is_empty()) {
        text += &defaults(&found.config, source);
    }
    text
}

fn heading(id: &RevisionId, kind: &str, source: &Source) -> String {
    format!("{id}  {kind}, {}:{}\n\n", source.file, source.line)
}

fn indented(sentences: &[String]) -> String {
    let lines: String = sentences.iter().map(|sentence| format!("  {sentence}\n")).collect();
    lines + "\n"
}

/// The defaults, and how a revision that sets nothing itself is scaled by them.
fn defaults(config: &AutoscalerConfig, source: &Source) -> String {
    let unlimited = ConcurrencyLimit::UNLIMITED;
    let resolved = resolve(config, &BTreeMap::new(), unlimited, Reachability::Reachable).value;
    let Ok(Verdict::Resolved(resolved)) = resolved else { return String::new() };
    let mut text = format!("Defaults of all revisions, {}:{}\n\n", source.file, source.line);
    let written = |setting: &&Setting| matches!(setting.from, Origin::Config(_));
    let settings: Vec<Setting> = resolved.settings.iter().filter(written).cloned().collect();
    if settings.is_empty() {
        text += "  It sets nothing: these are Knative's own.\n\n";
    } else {
        text += &table(&settings);
        text += "\n";
    }
    text += "  A revision without annotations of its own is scaled so:\n\n";
    let asks_initial = config.is_written("initial-scale");
    let timeouts = Timeouts::total(Duration::from_secs(300));
    text + &indented(&sentences(&resolved.spec, unlimited, asks_initial, Some(&timeouts)))
}

/// Everything at once, for machines: workloads, warnings and faults.
pub fn render_json(found: &Workloads, findings: &Findings) -> Value {
    let warnings: Vec<&Warning> = findings.warnings.iter().chain(&findings.repeated).collect();
    json!({
        "workloads": found.workloads.iter().map(workload_json).collect::<Vec<_>>(),
        "elsewhere": found.elsewhere,
        "warnings": warnings,
        "faults": findings.faults,
    })
}

fn workload_json(workload: &Workload) -> Value {
    let seconds = |limit: Option<Duration>| limit.map(|limit| limit.as_secs_f64());
    let own = |value: Value| if has_pods(workload) { value } else { Value::Null };
    json!({
        "name": workload.id,
        "kind": workload.kind,
        "source": workload.source,
        "settings": workload.settings,
        "spec": workload.spec,
        "containerConcurrency": workload.container_concurrency,
        "timeoutSeconds": own(workload.timeouts.total.as_secs_f64().into()),
        "responseStartTimeoutSeconds": own(seconds(workload.timeouts.response_start).into()),
        "idleTimeoutSeconds": seconds(workload.timeouts.idle),
        "readinessProbe": workload.readiness_probe.clone().map_or(Value::Null, own),
        "container": own(json!(workload.container)),
        "secondsToZero": seconds(workload.spec.time_to_zero()),
        "scaledElsewhere": workload.elsewhere.is_some(),
        "explanation": explain(workload),
    })
}

fn target(spec: &RevisionSpec) -> String {
    let unit = match spec.scaling_metric {
        ScalingMetric::Concurrency => "in flight",
        ScalingMetric::Rps => "per second",
    };
    let requests = if spec.target == 1.0 { "request" } else { "requests" };
    let share = number(spec.target / spec.total * 100.0);
    let (each, total) = (number(spec.target), number(spec.total));
    let alone = (1.0 / spec.target).ceil();
    let alone = match spec.scaling_metric {
        // 1 / 0.7 is more than one: the first thing one takes for a fault.
        ScalingMetric::Concurrency if alone > 1.0 => {
            format!(" One request alone asks for {} pods.", number(alone))
        }
        ScalingMetric::Concurrency | ScalingMetric::Rps => String::new(),
    };
    format!("A pod is added for each {each} {requests} {unit}: target {total} x {share} %.{alone}")
}

/// A target below one request surprises everybody once.
fn small_target(spec: &RevisionSpec) -> Option<String> {
    let is_small = spec.scaling_metric == ScalingMetric::Concurrency && spec.target < 1.0;
    let pods = (1.0 / spec.target).ceil();
    is_small.then(|| {
        format!(
            "A single request in flight asks for {} pods: 1 / {}, rounded up.",
            number(pods),
            number(spec.target)
        )
    })
}

fn at_once(limit: ConcurrencyLimit) -> Option<String> {
    limit.get().zip(limit.queue_depth()).map(|(limit, waiting)| {
        format!(
            "A pod answers at most {} at once; {waiting} more may wait in front of it, and the next is refused.",
            count(limit, "request")
        )
    })
}

fn panic(spec: &RevisionSpec) -> String {
    format!(
        "Panic starts when the last {} ask for {} times the ready pods; it ends {} after they last did, and until then \
         no pod goes.",
        time(spec.panic_window),
        number(spec.panic_threshold),
        time(spec.stable_window)
    )
}

fn rates(spec: &RevisionSpec) -> String {
    let least = match spec.max_scale_down_rate {
        2.0 => "to half".to_owned(),
        rate => format!("to 1/{}", number(rate)),
    };
    format!(
        "Every {} the number of pods can grow at most {}-fold and shrink at most {least}.",
        time(TICK.period),
        number(spec.max_scale_up_rate)
    )
}

fn bounds(spec: &RevisionSpec) -> String {
    match (spec.min_scale, spec.max_scale) {
        (0, None) => "0 pods or more: there is no upper limit.".to_owned(),
        (0, Some(max)) => format!("0 to {}.", count(max, "pod")),
        (1, None) => "There is always at least 1 pod, and no upper limit.".to_owned(),
        (min, None) => format!("There are always at least {}, and no upper limit.", count(min, "pod")),
        (1, Some(1)) => "There is always exactly 1 pod.".to_owned(),
        // Where both disagree, the core lets the minimum win.
        (min, Some(max)) if min >= max => format!("There are always exactly {}.", count(min, "pod")),
        (min, Some(max)) => format!("There are always {min} to {}.", count(max, "pod")),
    }
}

fn last_pod(spec: &RevisionSpec) -> String {
    match spec.time_to_zero() {
        Some(after) => format!("The last pod goes about {} after the last request.", time(after)),
        None if spec.enable_scale_to_zero => format!("It never sleeps: min-scale is {}.", spec.min_scale),
        None => "The last pod never goes: scaling to zero is switched off.".to_owned(),
    }
}

fn activator(spec: &RevisionSpec) -> String {
    let burst = match spec.target_burst_capacity {
        TargetBurstCapacity::Off => {
            return "Requests go through the activator only while there is no pod.".to_owned();
        }
        TargetBurstCapacity::Unlimited => return "Requests always go through the activator.".to_owned(),
        TargetBurstCapacity::Of(burst) => number(burst),
    };
    match (spec.pods_without_activator(), spec.max_scale) {
        (Some(pods), _) => {
            let are = if pods == 1 { "is" } else { "are" };
            format!(
                "Requests go through the activator until {} {are} ready and idle: then there is room for {burst} more.",
                count(pods, "pod")
            )
        }
        (None, Some(max)) => format!(
            "The activator always stays in the path: {} x {} never have the spare room ({burst}) that \
             target-burst-capacity asks for.",
            count(max, "pod"),
            number(spec.total)
        ),
        (None, None) => "Requests always go through the activator.".to_owned(),
    }
}

fn start(spec: &RevisionSpec, asks_initial: bool) -> Vec<String> {
    let mut sentences = Vec::new();
    let first = spec.initial_scale.max(spec.min_scale);
    // Where nobody asks for an initial scale, `pilotlight run` starts as asleep as the minimum allows.
    let here = if asks_initial { first } else { spec.min_scale };
    let is_ready = if first == 1 { "it is" } else { "that many are" };
    sentences.push(match (first, here) {
        (0, _) => "A new version starts asleep and is first tried when a request comes.".to_owned(),
        (first, here) if first == here => {
            format!("A new version starts with {} and is ready once {is_ready}.", count(first, "pod"))
        }
        (first, here) => format!(
            "In a cluster a new version starts with {} and is ready once {is_ready}; `pilotlight run` starts {}.",
            count(first, "pod"),
            if here == 0 { "none before a request comes".to_owned() } else { here.to_string() }
        ),
    });
    if let Some(pods) = spec.activation_scale.filter(|&pods| pods > 1) {
        sentences.push(format!("Whenever there is demand, there are at least {}.", count(pods, "pod")));
    }
    if spec.min_scale == 0 && spec.enable_scale_to_zero {
        sentences.push(format!(
            "A request that finds no pod waits for one; waking is given up after {} in a cluster, and a pod after {} in \
             `pilotlight run` (--startup-timeout).",
            time(spec.activation_timeout),
            time(STARTUP_TIMEOUT)
        ));
    }
    sentences
}

fn time_limits(timeouts: &Timeouts) -> String {
    let mut sentence = format!("A request may take {}", time(timeouts.total));
    if let Some(limit) = timeouts.response_start {
        sentence += &format!(", its response must start within {}", time(limit));
    }
    if let Some(limit) = timeouts.idle {
        sentence += &format!(", and must not pause for {}", time(limit));
    }
    sentence + "; waiting for a pod counts."
}

fn table(settings: &[Setting]) -> String {
    let rows: Vec<[String; 3]> = settings
        .iter()
        .map(|setting| [setting.name.to_owned(), setting.value.clone(), origin(setting)])
        .collect();
    let heading = ["setting", "value", "from"].map(str::to_owned);
    let width = |column: usize| {
        rows.iter().chain([&heading]).map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let (first, second) = (width(0), width(1));
    let mut text = String::new();
    for [name, value, from] in [&heading].into_iter().chain(&rows) {
        text += &format!("  {name:first$}  {value:second$}  {from}\n");
    }
    text
}

/// The source of a setting, with the key where its name does not give it away.
fn origin(setting: &Setting) -> String {
    let kind = setting.from.name();
    let key = match &setting.from {
        Origin::Default => return kind.to_owned(),
        Origin::Config(key) => key,
        Origin::Annotation(key) => key.rsplit('/').next().unwrap_or(key),
        Origin::Field(path) => path.as_str(),
    };
    if key == setting.name { kind.to_owned() } else { format!("{kind} {key}") }
}
