//! The operator's defaults: what keeps them from having an effect is told, and what they do is explained.

use pilotlight_config::AutoscalerConfig;
use pilotlight_config::explain::render;
use pilotlight_config::workload::{self, Manifest, Workloads};
use pilotlight_config::{Findings, Warning};

fn survey(text: &str) -> (Workloads, Findings) {
    workload::survey(&[Manifest { file: "f.yaml", text }], None)
}

/// Key and advice of all warnings of a legal file, which are the same where it is named by `--config`.
fn warned(text: &str) -> Vec<(String, String)> {
    let parsed = AutoscalerConfig::from_yaml(text);
    let (found, findings) = survey(text);
    assert_eq!(findings.faults, []);
    assert_eq!(parsed.value.unwrap(), found.config);
    let pairs = |warnings: Vec<Warning>| -> Vec<(String, String)> {
        warnings.into_iter().map(|it| (it.key, it.advice)).collect()
    };
    let all = pairs(findings.warnings);
    let by_flag = pairs(parsed.warnings);
    assert!(all.len() == by_flag.len() && all.iter().all(|it| by_flag.contains(it)), "{all:#?} {by_flag:#?}");
    all
}

fn map(data: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config-autoscaler, namespace: knative-serving}}\n{data}\n"
    )
}

#[test]
fn keys_outside_of_data_are_told() {
    assert_eq!(
        warned(&map(
            "container-concurrency-target-default: \"20\"\nstable-window: 30s\ndata: {stable-window: 90s}"
        )),
        [
            (
                "container-concurrency-target-default".to_owned(),
                "no effect here: keys belong below data. In force: 100".to_owned()
            ),
            ("stable-window".to_owned(), "no effect here: keys belong below data. In force: 90s".to_owned()),
        ]
    );
    assert_eq!(warned(&map("Data: {stable-window: 30s}"))[0].1, "unknown field; did you mean `data`?");
    let below_metadata = map("").replace("namespace: knative-serving", "stable-window: 30s");
    assert_eq!(warned(&below_metadata)[0].1, "no effect here: keys belong below data. In force: 60s");
}

#[test]
fn what_is_changed_in_the_example_is_told_and_the_example_itself_is_not() {
    let example = "data:\n  _example: |\n    # A comment.\n    container-concurrency-target-default: \"20\"\n    \
                   panic-window-percentage: \"10.0\"\n    stable-window: \"60s\"\n    max-scale: \"7\"\n";
    let no_effect = |key: &str, default: &str| {
        let advice = format!(
            "{key} has no effect: _example is not read; write it beside _example, below data. In force: {default}"
        );
        ("data._example".to_owned(), advice)
    };
    let target = no_effect("container-concurrency-target-default \"20\"", "100");
    assert_eq!(warned(&map(example)), [target.clone(), no_effect("max-scale \"7\"", "0")]);
    // What is set beside it is in force all the same.
    assert_eq!(warned(&map(&format!("{example}  max-scale: \"7\"\n"))), [target]);
    // Knative's checksum says that nobody touched it.
    let untouched = map("data:\n  _example: |\n    stable-window: \"30s\"\n\n    max-scale: \"7\"")
        .replace("namespace:", "annotations: {knative.dev/example-checksum: \"f3d52e01\"}, namespace:");
    assert_eq!(warned(&untouched), []);
    assert_eq!(warned(&untouched.replace("30s", "40s")).len(), 2);
}

#[test]
fn a_config_map_of_another_name_is_told() {
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: my-app-config}\ndata: {foo: bar}\n";
    let fault = |text: &str| AutoscalerConfig::from_yaml(text).value.unwrap_err().to_string();
    assert_eq!(fault(other), "holds no ConfigMap config-autoscaler, only ConfigMap my-app-config");
    let (_, findings) = survey(other);
    assert_eq!(
        findings.faults[0].to_string(),
        "f.yaml: holds nothing to scale, only ConfigMap my-app-config"
    );
    let renamed = other.replace("foo: bar", "stable-window: 90s");
    assert_eq!(
        AutoscalerConfig::from_yaml(&renamed).warnings[0].advice,
        "is read as config-autoscaler; Knative reads a ConfigMap of this name only"
    );
    let misspelt = renamed.replace("my-app-config", "config-autoscalar");
    assert_eq!(
        survey(&misspelt).1.warnings[0].advice,
        "config-autoscalar is not read: the autoscaler's defaults are in the ConfigMap config-autoscaler"
    );
    let elsewhere = map("data: {}").replace("knative-serving", "shop");
    assert_eq!(warned(&elsewhere)[0].1, "Knative reads its own namespace, knative-serving, and not shop");
}

fn serving(config: &str) -> String {
    format!(
        "apiVersion: operator.knative.dev/v1beta1\nkind: KnativeServing\nmetadata: {{name: knative-serving, namespace: \
         knative-serving}}\nspec:\n  config: {{{config}}}\n"
    )
}

#[test]
fn the_operators_object_is_read_as_the_config_map() {
    for name in ["autoscaler", "config-autoscaler"] {
        let text =
            serving(&format!("{name}: {{container-concurrency-target-default: \"20\"}}, network: {{a: b}}"));
        assert_eq!(warned(&text), []);
        let config = AutoscalerConfig::from_yaml(&text).value.unwrap();
        assert_eq!(config.container_concurrency_target_default, 20.0);
        assert_eq!(workload::data_in(&text)["container-concurrency-target-default"], "20");
        let service = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\nspec: {template: {spec: \
                       {containers: [{image: a}]}}}\n";
        let (found, _) = survey(&format!("{service}---\n{text}"));
        assert_eq!(found.workloads[0].spec.total, 20.0);
    }
    let (_, findings) = survey(&serving("autoscaler: {stable-window: 1s, stabel-window: 60s}"));
    assert!(findings.faults[0].to_string().starts_with(
        "f.yaml:5: KnativeServing knative-serving/knative-serving: spec.config.autoscaler.stable-window: \"1s\" is not"
    ));
    assert!(findings.warnings[0].advice.contains("did you mean `stable-window`?"));
}

#[test]
fn keys_of_the_operators_object_in_the_wrong_place_are_told() {
    assert_eq!(
        warned(&serving("autoscaler: {max-scale: \"3\"}, stable-window: 30s")),
        [(
            "spec.config.stable-window".to_owned(),
            "no effect here: it belongs below spec.config.autoscaler. In force: 60s".to_owned()
        )]
    );
    let (_, findings) = survey(&serving("autoscaler: {max-scale: \"3\"}, autoscalr: {}"));
    assert_eq!(
        findings.warnings[0].advice,
        "the operator knows no such ConfigMap; did you mean `spec.config.autoscaler`?"
    );
}

#[test]
fn defaults_alone_say_what_they_do() {
    let (found, _) = survey(&map("data: {container-concurrency-target-default: \"20\", stable-window: 90s}"));
    let text = render(&found);
    assert!(text.starts_with("Defaults of all revisions, f.yaml:1\n\n  setting "), "{text}");
    for line in [
        "  stable-window  1m30s         config",
        "  A revision without annotations of its own is scaled so:",
        "  A pod is added for each 14 requests in flight: target 20 x 70 %.",
        "  The number of pods follows the average load of the last 90 s, and is decided every 2 s.",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
    // Without a ConfigMap nothing speaks of one.
    let class = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\nspec: {template: {metadata: \
                 {annotations: {autoscaling.knative.dev/class: hpa.autoscaling.knative.dev}}, spec: {containers: [{image: \
                 a}]}}}\n";
    assert_eq!(render(&survey(class).0), "");
}

#[test]
fn a_second_one_and_one_beside_the_flag_are_told() {
    let (_, findings) =
        survey(&format!("{}---\n{}", map("data: {}"), serving("autoscaler: {max-scale: \"3\"}")));
    assert_eq!(
        findings.warnings[0].to_string(),
        "f.yaml:6: document 2, KnativeServing knative-serving/knative-serving: no effect: the defaults are written twice, and \
         those at f.yaml:1 count"
    );
    let text = map("data: {max-scale: \"3\"}");
    let given = AutoscalerConfig::default();
    let (found, findings) = workload::survey(&[Manifest { file: "f.yaml", text: &text }], Some(&given));
    assert_eq!(found.config, given);
    assert_eq!(findings.warnings[0].advice, "no effect: the defaults come from the file that --config names");
}
