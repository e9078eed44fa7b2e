//! Explanations carry the numbers that are in force, worked out.

use pilotlight_config::explain::{explain, render, render_json};
use pilotlight_config::workload::{self, Manifest, Workloads};
use pilotlight_config::{Findings, Workload};

fn survey(annotations: &str, spec: &str) -> (Workloads, Findings) {
    let text = format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: hello}}\nspec: {{template: {{metadata: \
         {{annotations: {{{annotations}}}}}, spec: {{{spec} containers: [{{image: hello}}]}}}}}}\n"
    );
    workload::survey(&[Manifest { file: "hello.yaml", text: &text }], None)
}

fn hello(annotations: &str, spec: &str) -> Workload {
    let (mut found, findings) = survey(annotations, spec);
    assert_eq!(findings.faults, []);
    found.workloads.remove(0)
}

#[test]
fn the_defaults_are_explained_to_the_second() {
    assert_eq!(
        explain(&hello("", "")),
        [
            "A pod is added for each 70 requests in flight: target 100 x 70 %.",
            "The number of pods follows the average load of the last 1 min, and is decided every 2 s.",
            "Panic starts when the last 6 s ask for 2 times the ready pods; it ends 1 min after they last did, and until \
             then no pod goes.",
            "Every 2 s the number of pods can grow at most 1,000-fold and shrink at most to half.",
            "0 pods or more: there is no upper limit.",
            "The last pod goes about 62 s after the last request.",
            "Requests go through the activator until 3 pods are ready and idle: then there is room for 211 more.",
            "In a cluster a new version starts with 1 pod and is ready once it is; `pilotlight run` starts none before a \
             request comes.",
            "A request that finds no pod waits for one; waking is given up after 10 min 30 s in a cluster, and a pod after \
             1 min in `pilotlight run` (--startup-timeout).",
            "A request may take 5 min; waiting for a pod counts.",
        ]
    );
}

#[test]
fn what_a_revision_sets_is_explained() {
    let annotations = "autoscaling.knative.dev/target: \"10\", autoscaling.knative.dev/max-scale: \"5\", \
                       autoscaling.knative.dev/min-scale: \"1\", autoscaling.knative.dev/activation-scale: \"3\", \
                       autoscaling.knative.dev/scale-down-delay: 15m";
    let sentences = explain(&hello(annotations, "containerConcurrency: 20, timeoutSeconds: 600,"));
    for expected in [
        "A pod is added for each 7 requests in flight: target 10 x 70 %.",
        "A pod answers at most 20 requests at once; 200 more may wait in front of it, and the next is refused.",
        "Pods go only after fewer were enough for 15 min.",
        "There are always 1 to 5 pods.",
        "It never sleeps: min-scale is 1.",
        "The activator always stays in the path: 5 pods x 10 never have the spare room (211) that target-burst-capacity asks \
         for.",
        "Whenever there is demand, there are at least 3 pods.",
        "A request may take 10 min, its response must start within 5 min; waiting for a pod counts.",
    ] {
        assert!(sentences.iter().any(|sentence| sentence == expected), "{expected} is not in {sentences:#?}");
    }
}

#[test]
fn the_table_shows_value_and_origin() {
    let annotations = "autoscaling.knative.dev/window: 90s";
    let text = render(&survey(annotations, "").0);
    assert!(text.starts_with("default/hello  Service, hello.yaml:1\n\n  setting "), "{text}");
    let row = |name: &str| text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    let cells =
        |name: &str| row(name).split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect::<Vec<_>>();
    assert_eq!(cells("stable-window"), ["stable-window", "1m30s", "annotation window"]);
    assert_eq!(cells("max-scale "), ["max-scale", "unlimited", "default"]);
    assert_eq!(cells("utilization"), ["utilization", "70 %", "default"]);
    assert!(text.contains("\n  A pod is added for each 70 requests in flight"), "{text}");
}

#[test]
fn the_json_holds_settings_explanation_and_faults() {
    let json = |annotations| {
        let (found, findings) = survey(annotations, "");
        render_json(&found, &findings)
    };
    let value = json("autoscaling.knative.dev/minScale: \"2\"");
    let workload = &value["workloads"][0];
    assert_eq!(workload["name"], "default/hello");
    let settings = workload["settings"].as_array().unwrap();
    let min = settings.iter().find(|setting| setting["name"] == "min-scale").unwrap();
    assert_eq!(
        *min,
        serde_json::json!({
            "name": "min-scale", "value": "2", "from": "annotation", "key": "autoscaling.knative.dev/minScale",
        })
    );
    assert_eq!(workload["spec"]["min_scale"], 2);
    assert_eq!(value["faults"], serde_json::json!([]));

    let value = json("autoscaling.knative.dev/minScale: x");
    assert_eq!(value["workloads"], serde_json::json!([]));
    assert_eq!(value["faults"][0]["value"], "x");
    assert_eq!(value["faults"][0]["file"], "hello.yaml");
    assert_eq!(value["faults"][0]["line"], 4);
    assert_eq!(value["faults"][0]["object"], "Service default/hello");
}

#[test]
fn a_deployment_without_settings_is_told_to_be_scaled_by_nothing_in_a_cluster() {
    let first = |metadata: &str| {
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web{metadata}}}\nspec: {{progressDeadlineSeconds: 60, \
             template: {{spec: {{containers: [{{image: a}}]}}}}}}\n"
        );
        let (found, _) = workload::survey(&[Manifest { file: "web.yaml", text: &text }], None);
        explain(&found.workloads[0]).remove(0)
    };
    assert_eq!(
        first(""),
        "Nothing here scales it in a cluster; `pilotlight run` scales it by requests, as follows."
    );
    let annotated = first(", annotations: {autoscaling.knative.dev/target: \"5\"}");
    assert_eq!(annotated, "A pod is added for each 3.5 requests in flight: target 5 x 70 %.");
}

#[test]
fn a_target_below_one_request_is_worked_out() {
    let sentences = explain(&hello("", "containerConcurrency: 1,"));
    assert_eq!(sentences[1], "A single request in flight asks for 2 pods: 1 / 0.7, rounded up.");
}

#[test]
fn the_first_pods_of_lint_are_those_of_run_where_both_agree() {
    let told = |annotations: &str, start: &str| {
        let sentences = explain(&hello(annotations, ""));
        sentences.into_iter().find(|sentence| sentence.contains(start)).unwrap()
    };
    assert_eq!(
        told("autoscaling.knative.dev/initial-scale: \"3\"", "new version"),
        "A new version starts with 3 pods and is ready once that many are."
    );
    assert_eq!(
        told("autoscaling.knative.dev/min-scale: \"2\"", "new version"),
        "A new version starts with 2 pods and is ready once that many are."
    );
}
