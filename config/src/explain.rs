//! Settings in plain words: each sentence carries the numbers that are in force, worked out.

use std::time::Duration;

use pilotlight_core::cadence::TICK;
use pilotlight_core::{ConcurrencyLimit, RevisionSpec, ScalingMetric, TargetBurstCapacity};
use serde_json::{Value, json};

use crate::fault::Parsed;
use crate::resolve::{Origin, Setting};
use crate::wording::{count, number, time};
use crate::workload::{Workload, Workloads};

/// How a workload will scale, sentence by sentence.
pub fn explain(workload: &Workload) -> Vec<String> {
    let spec = &workload.spec;
    let mut sentences = vec![target(spec)];
    sentences.extend(container_concurrency(workload.container_concurrency));
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
    sentences.push(last_pod(spec));
    sentences.push(activator(spec));
    sentences.extend(start(spec));
    sentences.push(time_limits(workload));
    sentences
}

/// The settings and their explanation for each workload, as text for a terminal.
pub fn render(workloads: &Workloads) -> String {
    let mut text = String::new();
    for workload in &workloads.workloads {
        let source = &workload.source;
        text += &format!("{}  {:?}, {}:{}\n\n", workload.id, workload.kind, source.file, source.line);
        text += &table(&workload.settings);
        text += "\n";
        for sentence in explain(workload) {
            text += &format!("  {sentence}\n");
        }
        text += "\n";
    }
    if workloads.workloads.is_empty() {
        text += "There is no workload; the ConfigMap config-autoscaler is valid.\n";
    }
    text
}

/// Everything at once, for machines: workloads, warnings and faults.
pub fn render_json(parsed: &Parsed<Workloads>) -> Value {
    let workloads = parsed.value.as_ref().map(|found| found.workloads.as_slice()).unwrap_or_default();
    let faults = parsed.value.as_ref().err().map(|faults| json!(faults));
    json!({
        "workloads": workloads.iter().map(workload_json).collect::<Vec<_>>(),
        "warnings": parsed.warnings,
        "faults": faults.unwrap_or_else(|| json!([])),
    })
}

fn workload_json(workload: &Workload) -> Value {
    let seconds = |limit: Option<Duration>| limit.map(|limit| limit.as_secs_f64());
    json!({
        "name": workload.id,
        "kind": workload.kind,
        "source": workload.source,
        "settings": workload.settings,
        "spec": workload.spec,
        "containerConcurrency": workload.container_concurrency,
        "timeoutSeconds": workload.timeouts.total.as_secs_f64(),
        "responseStartTimeoutSeconds": seconds(workload.timeouts.response_start),
        "idleTimeoutSeconds": seconds(workload.timeouts.idle),
        "readinessProbe": workload.readiness_probe,
        "container": workload.container,
        "secondsToZero": seconds(workload.spec.time_to_zero()),
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
    format!("A pod is added for each {each} {requests} {unit}: target {total} x {share} %.")
}

fn container_concurrency(limit: ConcurrencyLimit) -> Option<String> {
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

fn start(spec: &RevisionSpec) -> Vec<String> {
    let mut sentences = Vec::new();
    let first = spec.initial_scale.max(spec.min_scale);
    if first == 0 {
        sentences.push("A new version starts asleep and is first tried when a request comes.".to_owned());
    } else {
        sentences.push(format!(
            "A new version starts with {} and is ready once that many are.",
            count(first, "pod")
        ));
    }
    if let Some(pods) = spec.activation_scale.filter(|&pods| pods > 1) {
        sentences.push(format!("Whenever there is demand, there are at least {}.", count(pods, "pod")));
    }
    if spec.min_scale == 0 && spec.enable_scale_to_zero {
        sentences.push(format!(
            "A request that finds no pod waits for one; waking is given up after {}.",
            time(spec.activation_timeout)
        ));
    }
    sentences
}

fn time_limits(workload: &Workload) -> String {
    let mut sentence = format!("A request may take {}", time(workload.timeouts.total));
    if let Some(limit) = workload.timeouts.response_start {
        sentence += &format!(", its response must start within {}", time(limit));
    }
    if let Some(limit) = workload.timeouts.idle {
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
