//! HorizontalPodAutoscalers and ScaledObjects, alone and beside what they scale.

use pilotlight_config::explain::{explain, render};
use pilotlight_config::workload::{self, Manifest, Workloads};
use pilotlight_config::{Faults, Findings};

fn survey(text: &str) -> (Workloads, Findings) {
    workload::survey(&[Manifest { file: "f.yaml", text }], None)
}

fn hpa(spec: &str) -> String {
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: web}}\nspec: {{scaleTargetRef: \
         {{apiVersion: apps/v1, kind: Deployment, name: web}}, {spec}}}\n"
    )
}

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: \
                          {containers: [{image: a}]}}}\n---\n";

fn faults(text: &str) -> String {
    Faults::all(survey(text).1.faults).map_or(String::new(), |faults| faults.to_string())
}

#[test]
fn a_horizontal_pod_autoscaler_is_explained() {
    let metrics = "minReplicas: 2, maxReplicas: 10, metrics: [{type: Resource, resource: {name: cpu, target: {type: \
                   Utilization, averageUtilization: 60}}}, {type: Pods, pods: {metric: {name: rps}, target: {type: \
                   AverageValue, averageValue: \"10\"}}}]";
    let (found, findings) = survey(&hpa(metrics));
    assert_eq!((findings.faults, findings.warnings), (vec![], vec![]));
    assert_eq!(
        found.elsewhere[0].explanation,
        [
            "It scales Deployment web.",
            "There are as many pods as keep each of these: cpu at 60 % of what the pods request, rps at 10 a pod; the largest \
             number counts.",
            "There are always 2 to 10 pods.",
            "It is decided every 15 s: up at once, to at most twice as many or 4 more; down to the most that was needed in the \
             last 5 min.",
            "It never goes to zero.",
        ]
    );
    assert!(render(&found).starts_with("default/web  HorizontalPodAutoscaler, f.yaml:1\n\n  It scales"));
}

#[test]
fn a_horizontal_pod_autoscaler_has_faults_of_its_own_beside_a_deployment_too() {
    let object = "HorizontalPodAutoscaler default/web";
    let less = "spec.maxReplicas: \"12\" is less than minReplicas, which is 20";
    let bad = hpa("minReplicas: 20, maxReplicas: 12");
    assert_eq!(faults(&bad), format!("f.yaml:4: {object}: {less}"));
    assert_eq!(faults(&format!("{DEPLOYMENT}{bad}")), format!("f.yaml:9: document 2, {object}: {less}"));
    // The Deployment is still told to be scaled by it.
    let (found, _) = survey(&format!("{DEPLOYMENT}{bad}"));
    assert_eq!(
        explain(&found.workloads[0]),
        [
            "In a cluster HorizontalPodAutoscaler default/web scales it; `pilotlight run` scales it by requests."
        ]
    );
    assert!(faults(&hpa("minReplicas: 1")).contains("spec.maxReplicas: is missing"));
    assert!(faults(&hpa("minReplicas: 0, maxReplicas: 2")).contains("needs an Object or External metric"));
    assert!(faults(&hpa("maxReplicas: 2, metrics: [{type: Cpu}]")).contains("is not one of Resource"));
    let old = hpa("maxReplicas: 2").replace("autoscaling/v2", "autoscaling/v3");
    assert!(faults(&old).contains(
        "\"autoscaling/v3\" is no known version of HorizontalPodAutoscaler; known are autoscaling/v2"
    ));
}

#[test]
fn two_autoscalers_of_one_deployment_are_told() {
    let annotated = DEPLOYMENT.replace(
        "metadata: {name: web}",
        "metadata: {name: web, annotations: {autoscaling.knative.dev/target: \"5\"}}",
    );
    let warned = |text: &str| survey(text).1.warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
    let packets = "maxReplicas: 2, metrics: [{type: Pods, pods: {metric: {name: packets}, target: {type: AverageValue, \
                   averageValue: 1k}}}]";
    assert_eq!(
        warned(&format!("{annotated}{}", hpa(packets))),
        [
            "f.yaml:1: Deployment default/web: metadata: annotated for scaling by requests, and HorizontalPodAutoscaler \
          default/web scales it, too: both contradict each other"
        ]
    );
    let twice = format!(
        "{}---\n{}",
        hpa("maxReplicas: 2"),
        hpa("maxReplicas: 3").replace("{name: web}", "{name: other}")
    );
    assert_eq!(
        warned(&twice),
        [
            "f.yaml:6: HorizontalPodAutoscaler default/other: spec.scaleTargetRef: HorizontalPodAutoscaler default/web scales \
          Deployment web, too: both contradict each other"
        ]
    );
}

#[test]
fn a_scaled_object_is_explained_and_checked() {
    let object = |spec: &str| {
        format!(
            "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: web}}\nspec: {{scaleTargetRef: {{name: web}}, \
             {spec}}}\n"
        )
    };
    let (found, findings) =
        survey(&object("maxReplicaCount: 5, triggers: [{type: kafka, metadata: {a: b}}]"));
    assert_eq!((findings.faults, findings.warnings), (vec![], vec![]));
    assert_eq!(
        found.elsewhere[0].explanation,
        [
            "It scales Deployment web.",
            "KEDA's ScaledObject sets the number of pods by its triggers (kafka), through a HorizontalPodAutoscaler.",
            "0 to 5 pods.",
            "The last pod goes 5 min after the last trigger was active.",
        ]
    );
    let trigger = "triggers: [{type: cron, metadata: {}}]";
    assert!(faults(&object("")).contains("spec.triggers: has no trigger"));
    assert!(
        faults(&object(&format!("minReplicaCount: 7, maxReplicaCount: 5, {trigger}")))
            .contains("minReplicaCount is 7")
    );
    let (_, findings) = survey(&object(&format!("minReplicas: 2, {trigger}")));
    assert_eq!(
        findings.warnings[0].to_string(),
        "f.yaml:4: ScaledObject default/web: spec.minReplicas: unknown field; did you mean `minReplicaCount`? In force: 0"
    );
}
