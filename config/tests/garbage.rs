//! Whatever is written, the answer is a value or faults, never a panic.

use pilotlight_config::explain::{explain, render, render_json};
use pilotlight_config::workload::{self, Manifest};
use pilotlight_config::{AutoscalerConfig, keys};
use proptest::prelude::*;

fn read(text: &str) {
    let (found, findings) = workload::survey(&[Manifest { file: "garbage.yaml", text }], None);
    render_json(&found, &findings);
    render(&found);
    for workload in &found.workloads {
        assert!(explain(workload).iter().all(|sentence| sentence.ends_with('.')));
    }
    let _ = AutoscalerConfig::from_yaml(text);
}

/// A value that might stand anywhere.
fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("[{}]".to_owned()),
        Just("[null, 1, a]".to_owned()),
        Just(".nan".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:?}")),
        "[a-z0-9.]{0,8}".prop_map(|text| format!("\"{text}\"")),
        prop::sample::select(&["0", "1", "60s", "Inf", "-1", "100", "0.01", "1h"][..])
            .prop_map(|t| format!("\"{t}\"")),
    ]
}

proptest! {
    #[test]
    fn arbitrary_text_is_survived(text in "\\PC{0,200}|[-a-z:{}\\[\\]#&*!|> \n\"']{0,200}") {
        read(&text);
    }

    #[test]
    fn any_value_in_any_place_is_survived(
        kind in prop::sample::select(&[
            ("serving.knative.dev/v1", "Service", "spec: {template: {metadata: {annotations: ANNOTATIONS}, spec: POD}}"),
            ("serving.knative.dev/v1", "Revision", "spec: POD"),
            ("apps/v1", "Deployment", "spec: {template: {metadata: {annotations: ANNOTATIONS}, spec: POD}}"),
            ("serving.kserve.io/v1beta1", "InferenceService", "spec: {predictor: POD}"),
            ("serving.kubeflow.org/v1alpha2", "InferenceService", "spec: {default: {predictor: POD}}"),
        ][..]),
        annotations in prop::collection::btree_map(
            prop::sample::select(keys::annotation::ALL.iter().map(|entry| entry.name()).collect::<Vec<_>>()),
            scalar(),
            0..4,
        ),
        fields in prop::collection::btree_map(
            prop::sample::select(&[
                "containerConcurrency", "timeoutSeconds", "idleTimeoutSeconds", "minReplicas", "maxReplicas", "sklearn",
                "scaleTarget", "scaleMetric", "parallelism", "custom", "model",
            ][..]),
            scalar(),
            0..4,
        ),
        inner in prop::collection::btree_map(
            prop::sample::select(&["image", "command", "args", "env", "ports", "readinessProbe", "workingDir"][..]),
            scalar(),
            0..4,
        ),
        containers in prop::option::of(scalar()),
    ) {
        let flow = |map: &std::collections::BTreeMap<&str, String>| {
            map.iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", ")
        };
        let container = format!("[{{{}}}]", flow(&inner));
        let pod = format!("{{containers: {}, {}}}", containers.unwrap_or(container), flow(&fields));
        let (version, kind, spec) = kind;
        let annotations = format!("{{{}}}", flow(&annotations));
        let spec = spec.replace("ANNOTATIONS", &annotations).replace("POD", &pod);
        read(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x, annotations: {annotations}}}\n{spec}\n"));
    }

    #[test]
    fn any_value_of_any_key_is_survived(
        data in prop::collection::btree_map(
            prop::sample::select(keys::config_map::ALL.iter().map(|entry| entry.name().to_owned()).collect::<Vec<_>>()),
            "\\PC{0,6}|[-0-9.eshm%]{0,6}|0|1|-1|true|70|6s|NaN|Inf",
            0..6,
        ),
    ) {
        let parsed = AutoscalerConfig::from_map(&data);
        if let Ok(config) = parsed.value {
            let fraction = config.container_concurrency_target_fraction;
            prop_assert!(fraction > 0.0 && fraction <= 1.0);
            prop_assert!(config.max_scale_up_rate > 1.0 && config.max_scale_down_rate > 1.0);
            prop_assert!(config.max_scale.is_none_or(|max| config.min_scale <= max));
        }
    }
}
