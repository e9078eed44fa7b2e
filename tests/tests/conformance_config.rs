//! Settings resolve as Knative resolves them: every vector was answered by Knative's own code.
//!
//! The vectors are `conformance/config.jsonl`, or `config.jsonl` in the folder that `PILOTLIGHT_CONFORMANCE`
//! names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pilotlight_config::{AutoscalerConfig, Verdict, resolve};
use pilotlight_core::{
    Aggregation, ConcurrencyLimit, Reachability, RevisionSpec, ScalingMetric, TargetBurstCapacity,
    num_activators,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    config: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    container_concurrency: ConcurrencyLimit,
    reachability: String,
    verdict: String,
    resolved: Option<Expected>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    activation_scale: u32,
    activator_capacity: f64,
    aggregation: String,
    enable_scale_to_zero: bool,
    initial_scale: u32,
    max_scale: u32,
    max_scale_down_rate: f64,
    max_scale_up_rate: f64,
    min_scale: u32,
    num_activators: BTreeMap<u32, u32>,
    panic_threshold: f64,
    panic_window_s: f64,
    pod_retention_s: f64,
    reachable: bool,
    scale_down_delay_s: f64,
    scale_to_zero_grace_period_s: f64,
    scaling_metric: String,
    stable_window_s: f64,
    target_burst_capacity: f64,
    target_value: f64,
    total_value: f64,
}

impl Expected {
    /// Our answer in the words of the vectors.
    fn of(spec: &RevisionSpec) -> Self {
        Expected {
            activation_scale: spec.activation_scale.unwrap_or(0),
            activator_capacity: spec.activator_capacity,
            aggregation: match spec.aggregation {
                Aggregation::Linear => "linear".to_owned(),
                Aggregation::WeightedExponential => "weighted-exponential".to_owned(),
            },
            enable_scale_to_zero: spec.enable_scale_to_zero,
            initial_scale: spec.initial_scale,
            max_scale: spec.max_scale.unwrap_or(0),
            max_scale_down_rate: spec.max_scale_down_rate,
            max_scale_up_rate: spec.max_scale_up_rate,
            min_scale: spec.min_scale,
            num_activators: [0, 1, 10, 1000]
                .into_iter()
                .map(|ready| (ready, num_activators(ready, spec)))
                .collect(),
            panic_threshold: spec.panic_threshold,
            panic_window_s: spec.panic_window.as_secs_f64(),
            pod_retention_s: spec.pod_retention.as_secs_f64(),
            reachable: spec.reachability != Reachability::Unreachable,
            scale_down_delay_s: spec.scale_down_delay.as_secs_f64(),
            scale_to_zero_grace_period_s: spec.scale_to_zero_grace_period.as_secs_f64(),
            scaling_metric: match spec.scaling_metric {
                ScalingMetric::Concurrency => "concurrency".to_owned(),
                ScalingMetric::Rps => "rps".to_owned(),
            },
            stable_window_s: spec.stable_window.as_secs_f64(),
            target_burst_capacity: match spec.target_burst_capacity {
                TargetBurstCapacity::Off => 0.0,
                TargetBurstCapacity::Unlimited => -1.0,
                TargetBurstCapacity::Of(burst) => burst,
            },
            target_value: spec.target,
            total_value: spec.total,
        }
    }
}

/// The verdict in the words of the vectors, what was resolved, and what we would say about it.
fn answer(case: &Case) -> (&'static str, Option<Expected>, String) {
    let config = match AutoscalerConfig::from_map(&case.config.clone().unwrap_or_default()).value {
        Ok(config) => config,
        Err(faults) => return ("config-rejected", None, faults.to_string()),
    };
    let reachability = match case.reachability.as_str() {
        "" => Reachability::Unknown,
        "Reachable" => Reachability::Reachable,
        "Unreachable" => Reachability::Unreachable,
        other => panic!("unknown reachability {other:?}"),
    };
    let annotations = case.annotations.clone().unwrap_or_default();
    match resolve(&config, &annotations, case.container_concurrency, reachability).value {
        Err(faults) => ("annotations-rejected", None, faults.to_string()),
        Ok(Verdict::OtherClass(class)) => ("accepted-other-class", None, class),
        Ok(Verdict::Resolved(resolved)) => ("resolved", Some(Expected::of(&resolved.spec)), String::new()),
    }
}

#[test]
fn every_setting_resolves_as_in_knative() {
    let folder = std::env::var_os("PILOTLIGHT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance"), PathBuf::from);
    let file = folder.join("config.jsonl");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));

    let mut differences = Vec::new();
    let mut cases = 0;
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        cases += 1;
        let case: Case =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("line {}: {error}", at + 1));
        let (verdict, resolved, said) = answer(&case);
        if verdict != case.verdict || resolved != case.resolved {
            let expected = (&case.verdict, &case.resolved);
            differences.push(format!(
                "line {}: expected {expected:?}\n    answered {verdict:?} {resolved:?}\n    said {said}",
                at + 1,
            ));
        }
    }
    println!("{} of {cases} cases of {} matched", cases - differences.len(), file.display());
    assert!(cases > 0, "{} holds no case", file.display());
    assert!(differences.is_empty(), "{} of {cases} differ:\n{}", differences.len(), differences.join("\n"));
}
