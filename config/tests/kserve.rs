//! InferenceServices are explained as KServe treats them: by mode, class of autoscaler and what it drops.

use pilotlight_config::Findings;
use pilotlight_config::explain::explain;
use pilotlight_config::workload::{self, Manifest, Workloads};

fn survey(annotations: &str, predictor: &str) -> (Workloads, Findings) {
    let text = format!(
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {{name: iris, annotations: \
         {{{annotations}}}}}\nspec: {{predictor: {{{predictor} model: {{modelFormat: {{name: sklearn}}, image: a}}}}}}\n"
    );
    workload::survey(&[Manifest { file: "f.yaml", text: &text }], None)
}

fn explained(annotations: &str, predictor: &str) -> Vec<String> {
    let (found, findings) = survey(annotations, predictor);
    assert_eq!(findings.faults, []);
    explain(&found.workloads[0])
}

fn warned(annotations: &str, predictor: &str) -> Vec<(String, String)> {
    let (_, findings) = survey(annotations, predictor);
    assert_eq!(findings.faults, []);
    findings.warnings.into_iter().map(|it| (it.key, it.advice)).collect()
}

fn faults(annotations: &str, predictor: &str) -> Vec<String> {
    survey(annotations, predictor).1.faults.iter().map(ToString::to_string).collect()
}

fn has(sentences: &[String], expected: &str) {
    assert!(sentences.iter().any(|sentence| sentence == expected), "{expected} is not in {sentences:#?}");
}

const RAW: &str = "serving.kserve.io/deploymentMode: RawDeployment";

#[test]
fn a_standard_deployment_is_scaled_by_a_horizontal_pod_autoscaler() {
    for mode in ["RawDeployment", "Standard"] {
        let sentences = explained(&format!("serving.kserve.io/deploymentMode: {mode}"), "maxReplicas: 5,");
        has(&sentences, "There are as many pods as keep cpu at 80 % of what the pods request.");
        has(&sentences, "There are always 1 to 5 pods.");
        has(&sentences, "It never goes to zero.");
        assert!(sentences.iter().all(|sentence| !sentence.contains("in flight")), "{sentences:#?}");
    }
    let memory = explained(RAW, "maxReplicas: 3, scaleMetric: memory, scaleTarget: 60,");
    has(&memory, "There are as many pods as keep memory at 60 % of what the pods request.");
    let written = explained(
        &format!(
            "{RAW}, serving.kserve.io/autoscalerClass: hpa, serving.kserve.io/targetUtilizationPercentage: \"60\""
        ),
        "maxReplicas: 3,",
    );
    has(&written, "There are as many pods as keep cpu at 60 % of what the pods request.");
}

#[test]
fn zero_replicas_have_no_effect_under_a_horizontal_pod_autoscaler() {
    has(&explained(RAW, "minReplicas: 0, maxReplicas: 3,"), "There are always 1 to 3 pods.");
    assert_eq!(
        warned(RAW, "minReplicas: 0, maxReplicas: 3,"),
        [(
            "spec.predictor.minReplicas".to_owned(),
            "no effect: a HorizontalPodAutoscaler keeps 1 pod at least; only mode Knative (Serverless) and KEDA go to zero"
                .to_owned()
        )]
    );
    // KServe lifts the maximum to the minimum.
    has(&explained(RAW, "minReplicas: 2,"), "There are always exactly 2 pods.");
    assert_eq!(warned(RAW, "minReplicas: 2,")[0].0, "spec.predictor.maxReplicas");
}

#[test]
fn keda_external_and_none_are_explained() {
    let class = |class: &str| format!("{RAW}, serving.kserve.io/autoscalerClass: {class}");
    let metrics = "minReplicas: 0, maxReplicas: 4, autoScaling: {metrics: [{type: External, external: {metric: {backend: \
                   prometheus, query: up}, target: {type: Value, value: \"5\"}}}]},";
    let keda = explained(&class("keda"), metrics);
    has(
        &keda,
        "KEDA's ScaledObject sets the number of pods by its triggers (prometheus), through a HorizontalPodAutoscaler.",
    );
    has(&keda, "0 to 4 pods.");
    assert_eq!(
        faults(&class("keda"), &format!("scaleMetric: cpu, {metrics}")),
        [
            "f.yaml:4: InferenceService default/iris: spec.predictor.scaleMetric: \"cpu\" is not supported with KEDA: write \
          autoScaling.metrics"
        ]
    );
    has(&explained(&class("none"), "minReplicas: 2,"), "autoscalerClass none: there are always 2 pods.");
    has(
        &explained(&class("external"), ""),
        "autoscalerClass external: whatever you bring yourself sets the number of pods.",
    );
    has(
        &explained("serving.kserve.io/deploymentMode: ModelMesh", ""),
        "ModelMesh loads the model into pods that it shares with others: no setting of this object scales them.",
    );
}

#[test]
fn a_resource_as_metric_or_a_class_means_a_standard_deployment_where_no_mode_is_written() {
    let place = |annotations, predictor| warned(annotations, predictor)[0].0.clone();
    let sentences = explained("", "scaleMetric: cpu, scaleTarget: 50, maxReplicas: 3,");
    has(&sentences, "There are as many pods as keep cpu at 50 % of what the pods request.");
    assert_eq!(place("", "scaleMetric: cpu, maxReplicas: 3,"), "spec.predictor.scaleMetric");
    let class = "serving.kserve.io/autoscalerClass: hpa";
    assert_eq!(place(class, "maxReplicas: 3,"), "metadata.annotations.serving.kserve.io/autoscalerClass");
    has(&explained(class, "maxReplicas: 3,"), "There are always 1 to 3 pods.");
    // Knative's own class of this name stays Knative's.
    let (found, findings) =
        survey("autoscaling.knative.dev/class: hpa.autoscaling.knative.dev", "scaleMetric: cpu,");
    assert_eq!((findings.faults.len(), found.workloads.len()), (0, 0));
}

#[test]
fn serverless_is_scaled_by_requests_and_says_what_it_does_not_read() {
    for mode in ["Serverless", "Knative"] {
        let annotations =
            format!("serving.kserve.io/deploymentMode: {mode}, serving.kserve.io/autoscalerClass: hpa");
        has(
            &explained(&annotations, "scaleTarget: 10,"),
            "A pod is added for each 7 requests in flight: target 10 x 70 %.",
        );
        assert_eq!(
            warned(&annotations, ""),
            [(
                "metadata.annotations.serving.kserve.io/autoscalerClass".to_owned(),
                "no effect in this mode: Knative scales by requests".to_owned()
            )]
        );
    }
}

#[test]
fn wrong_modes_and_classes_are_told() {
    assert_eq!(
        warned("serving.kserve.io/deploymentMode: Rawdeployment", "")[0].1,
        "\"Rawdeployment\" is no mode (did you mean \"RawDeployment\"?), and KServe takes its default; there are Serverless, \
         Knative, RawDeployment, Standard, ModelMesh"
    );
    assert_eq!(
        warned("serving.kserve.io/deploymentmode: RawDeployment", "")[0].1,
        "unknown annotation; did you mean `serving.kserve.io/deploymentMode`?"
    );
    assert_eq!(
        faults("serving.kserve.io/autoscalerClass: hpaa", ""),
        [
            "f.yaml:3: InferenceService default/iris: metadata.annotations.serving.kserve.io/autoscalerClass: \"hpaa\" is not \
          one of hpa, keda, external, none (did you mean \"hpa\"?)"
        ]
    );
    let class = format!("{RAW}, serving.kserve.io/autoscalerClass: hpa");
    assert_eq!(faults(&class, "scaleMetric: rps,").len(), 1);
    assert_eq!(faults(&class, "scaleTarget: 120,").len(), 1);
}

#[test]
fn knatives_annotations_have_no_effect_on_a_standard_deployment() {
    let annotations = format!("{RAW}, autoscaling.knative.dev/target: \"5\"");
    assert_eq!(
        warned(&annotations, "maxReplicas: 2,"),
        [(
            "metadata.annotations.autoscaling.knative.dev/target".to_owned(),
            "no effect in mode Standard (RawDeployment): only mode Knative (Serverless) reads it".to_owned()
        )]
    );
}

#[test]
fn kserve_drops_min_scale_and_max_scale_wherever_they_are_annotated() {
    let max = "autoscaling.knative.dev/max-scale: \"3\"";
    let min = "autoscaling.knative.dev/min-scale: \"2\"";
    let dropped = "no effect: KServe drops it; write maxReplicas in the predictor. In force: no limit";
    let (found, _) = survey(max, "");
    assert_eq!(found.workloads[0].spec.max_scale, None);
    assert_eq!(
        warned(max, ""),
        [("metadata.annotations.autoscaling.knative.dev/max-scale".to_owned(), dropped.to_owned())]
    );
    let both = warned(&format!("{max}, {min}"), &format!("annotations: {{{max}}},"));
    let keys: Vec<&str> = both.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "metadata.annotations.autoscaling.knative.dev/min-scale",
            "metadata.annotations.autoscaling.knative.dev/max-scale",
            "spec.predictor.annotations.autoscaling.knative.dev/max-scale",
        ]
    );
    let (found, _) = survey(max, "maxReplicas: 7,");
    assert_eq!(found.workloads[0].spec.max_scale, Some(7));
    // The older spelling passes.
    let (found, findings) = survey("autoscaling.knative.dev/maxScale: \"3\"", "");
    assert_eq!((found.workloads[0].spec.max_scale, findings.warnings), (Some(3), Vec::new()));
}
