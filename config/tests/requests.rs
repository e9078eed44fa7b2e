//! HorizontalPodAutoscalers whose pods request nothing that could be divided by.

use pilotlight_config::workload::{self, Manifest};
use serde_json::json;

fn warned(text: &str) -> Vec<String> {
    let (_, findings) = workload::survey(&[Manifest { file: "f.yaml", text }], None);
    assert_eq!(findings.faults, []);
    let about = |warning: &String| warning.contains("missing request");
    findings.warnings.iter().map(ToString::to_string).filter(about).collect()
}

fn deployment(containers: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  template:\n    spec:\n{containers}---\n"
    )
}

fn hpa(metrics: &str) -> String {
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: web}}\nspec: {{scaleTargetRef: \
         {{apiVersion: apps/v1, kind: Deployment, name: web}}, maxReplicas: 3{metrics}}}\n"
    )
}

fn metric(resource: &str, target: &str) -> String {
    format!("{{type: Resource, resource: {{name: {resource}, target: {{{target}}}}}}}")
}

const SHARE: &str = "type: Utilization, averageUtilization: 60";
const AMOUNT: &str = "type: AverageValue, averageValue: 100m";

#[test]
fn a_container_without_the_request_is_told_with_its_line_and_what_to_write() {
    let containers = "      containers:\n      - {name: a, image: a, resources: {requests: {cpu: 1}}}\n      - name: b\n        \
                      image: b\n";
    let expected = [
        "f.yaml:9: document 1, Deployment default/web: spec.template.spec.containers[1]: requests no cpu, and \
         HorizontalPodAutoscaler default/web, which divides by the requests, never scales (\"missing request for cpu\"); \
         write resources.requests.cpu, such as 100m",
    ];
    let metrics = format!(", metrics: [{}]", metric("cpu", SHARE));
    assert_eq!(warned(&format!("{}{}", deployment(containers), hpa(&metrics))), expected);
    // Without metrics, cpu at 80 % is the default.
    assert_eq!(warned(&format!("{}{}", deployment(containers), hpa(""))), expected);
    let old = hpa(", targetCPUUtilizationPercentage: 50").replace("autoscaling/v2", "autoscaling/v1");
    assert_eq!(warned(&format!("{}{old}", deployment(containers))), expected);
}

#[test]
fn it_is_the_same_in_a_list_and_in_json_whatever_comes_first() {
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let target = json!({"type": "Utilization", "averageUtilization": 60});
    let metrics = json!([{"type": "Resource", "resource": {"name": "memory", "target": target}}]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
            "spec": {"scaleTargetRef": reference, "maxReplicas": 3, "metrics": metrics},
        },
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"template": {"spec": {"containers": [{"image": "a"}]}}},
        },
    ]});
    assert_eq!(
        warned(&list.to_string()),
        [
            "f.yaml:1: Deployment default/web: items[1].spec.template.spec.containers[0]: requests no memory, and \
             HorizontalPodAutoscaler default/web, which divides by the requests, never scales (\"missing request for \
             memory\"); write resources.requests.memory, such as 128Mi"
        ]
    );
}

#[test]
fn nothing_is_said_where_the_request_is_there_or_not_needed() {
    let cpu = format!(", metrics: [{}]", metric("cpu", SHARE));
    for requested in [
        "      containers: [{image: a, resources: {requests: {cpu: 100m}}}]\n",
        // The API server copies a limit.
        "      containers: [{image: a, resources: {limits: {cpu: 1}}}]\n",
        "      resources: {requests: {cpu: 1}}\n      containers: [{image: a}]\n",
        // Init containers have ended when anything is measured.
        "      initContainers: [{image: b}]\n      containers: [{image: a, resources: {requests: {cpu: 1}}}]\n",
    ] {
        assert_eq!(warned(&format!("{}{}", deployment(requested), hpa(&cpu))), [""; 0], "{requested}");
    }
    let nothing = deployment("      containers: [{image: a}]\n");
    let amount = format!(", metrics: [{}]", metric("cpu", AMOUNT));
    assert_eq!(warned(&format!("{nothing}{}", hpa(&amount))), [""; 0]);
    // Another target, another namespace: what it scales is not in the files.
    let others =
        [("name: web}, max", "name: api}, max"), ("{name: web}\n", "{name: web, namespace: shop}\n")];
    for (from, to) in others {
        assert_eq!(warned(&format!("{nothing}{}", hpa(&cpu).replace(from, to))), [""; 0], "{to}");
    }
    assert_eq!(warned(&hpa(&cpu)), [""; 0]);
}

#[test]
fn only_the_containers_that_count_are_told() {
    let sidecar = "      initContainers: [{image: b, restartPolicy: Always}]\n      containers: [{name: a, image: a, \
                   resources: {requests: {cpu: 1}}}, {name: c, image: c}]\n";
    let told = |metrics: &str| -> Vec<String> {
        let warned = warned(&format!("{}{}", deployment(sidecar), hpa(metrics)));
        let path = |warning: &String| warning.split(": ").nth(2).unwrap_or_default().to_owned();
        warned.iter().map(path).collect()
    };
    let (container, init) = ("spec.template.spec.containers[1]", "spec.template.spec.initContainers[0]");
    assert_eq!(told(&format!(", metrics: [{}]", metric("cpu", SHARE))), [container, init]);
    let of = |name| {
        let source = format!("{{name: cpu, container: {name}, target: {{{SHARE}}}}}");
        format!(", metrics: [{{type: ContainerResource, containerResource: {source}}}]")
    };
    assert_eq!((told(&of("a")), told(&of("c"))), (vec![], vec![container.to_owned()]));
}

#[test]
fn beside_another_metric_only_the_way_down_is_lost() {
    let nothing = deployment("      containers: [{image: a}]\n");
    let metrics = format!(", metrics: [{}, {}]", metric("cpu", SHARE), metric("memory", AMOUNT));
    let warned = warned(&format!("{nothing}{}", hpa(&metrics)));
    assert_eq!(warned.len(), 1);
    assert!(warned[0].contains("which divides by the requests, takes no pod away (\"missing"), "{warned:?}");
}

#[test]
fn a_scaled_object_with_a_share_of_the_requests_is_told_too() {
    let nothing = deployment("      containers: [{image: a}]\n");
    let object = |kind: &str| {
        format!(
            "{nothing}apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: web}}\nspec: {{scaleTargetRef: \
             {{name: web}}, triggers: [{{type: cpu, metricType: {kind}, metadata: {{value: \"50\"}}}}]}}\n"
        )
    };
    let share = warned(&object("Utilization"));
    assert!(share.len() == 1 && share[0].contains("and ScaledObject default/web, which"), "{share:?}");
    assert_eq!(warned(&object("AverageValue")), [""; 0]);
}

#[test]
fn knatives_class_hpa_needs_requests_for_cpu() {
    let service = |annotations: &str, resources: &str| {
        format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  template:\n    metadata: \
             {{annotations: {{autoscaling.knative.dev/class: hpa.autoscaling.knative.dev{annotations}}}}}\n    spec:\n      \
             containers:\n      - {{image: a{resources}}}\n"
        )
    };
    let expected = "f.yaml:9: Service default/web: spec.template.spec.containers[0]: requests no cpu, and the \
                    HorizontalPodAutoscaler that Knative makes, which divides by the requests, never scales (\"missing \
                    request for cpu\"); write resources.requests.cpu, such as 100m";
    assert_eq!(warned(&service("", "")), [expected]);
    assert_eq!(warned(&service(", autoscaling.knative.dev/metric: cpu", "")), [expected]);
    assert_eq!(warned(&service("", ", resources: {requests: {cpu: 1}}")), [""; 0]);
    // An amount a pod.
    let memory = ", autoscaling.knative.dev/metric: memory, autoscaling.knative.dev/target: \"75\"";
    assert_eq!(warned(&service(memory, "")), [""; 0]);
}

#[test]
fn kserve_gives_requests_to_the_container_that_serves_and_to_no_other() {
    let inference = |mode: &str, predictor: &str| {
        format!(
            "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {{name: iris, annotations: \
             {{serving.kserve.io/deploymentMode: {mode}}}}}\nspec:\n  predictor:\n    maxReplicas: 3\n{predictor}"
        )
    };
    let two = "    containers:\n    - {image: a}\n    - {name: b, image: b}\n";
    let expected = "f.yaml:9: InferenceService default/iris: spec.predictor.containers[1]: requests no cpu, and the \
                    HorizontalPodAutoscaler that KServe makes, which divides by the requests, never scales (\"missing \
                    request for cpu\"); write resources.requests.cpu, such as 100m";
    assert_eq!(warned(&inference("Standard", two)), [expected]);
    assert_eq!(warned(&inference("RawDeployment", two)), [expected]);
    assert_eq!(warned(&inference("Knative", two)), [""; 0]);
    assert_eq!(warned(&inference("Standard", "    containers: [{image: a}]\n")), [""; 0]);
    assert_eq!(warned(&inference("Standard", "    model: {modelFormat: {name: sklearn}}\n")), [""; 0]);
}
