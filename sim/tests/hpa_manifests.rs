//! HorizontalPodAutoscalers as people have them, right and wrong.

use std::time::Duration;

use pilotlight_sim::hpa::{Behavior, HpaMetric, HpaSpec, Measure, Policy, PolicyStep, Rules, Select};

fn read(text: &str) -> HpaSpec {
    HpaSpec::read("hpa.yaml", text).value.unwrap_or_else(|faults| panic!("{faults}"))
}

fn faults(text: &str) -> Vec<String> {
    let faults = HpaSpec::read("hpa.yaml", text).value.expect_err("there is a fault");
    faults.iter().map(ToString::to_string).collect()
}

fn warnings(text: &str) -> Vec<String> {
    HpaSpec::read("hpa.yaml", text).warnings.iter().map(ToString::to_string).collect()
}

/// A manifest with this below `spec`, of an indentation of two.
fn v2(spec: &str) -> String {
    format!("apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nspec:\n  maxReplicas: 10\n{spec}")
}

#[test]
fn a_whole_manifest_is_read() {
    let spec = read(
        r"
apiVersion: v1
kind: Service
metadata: { name: web }
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: web
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: web }
  minReplicas: 2
  maxReplicas: 12
  metrics:
    - type: Resource
      resource: { name: cpu, target: { type: Utilization, averageUtilization: 80 } }
    - type: ContainerResource
      containerResource: { name: cpu, container: app, target: { type: AverageValue, averageValue: 500m } }
    - type: Pods
      pods:
        metric: { name: http_requests_per_second, selector: { matchLabels: { verb: GET } } }
        target: { type: AverageValue, averageValue: 1k }
    - type: Pods
      pods: { metric: { name: concurrency }, target: { type: AverageValue, averageValue: 7.5 } }
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 60
      selectPolicy: Min
      tolerance: 0.05
      policies:
        - { type: Pods, value: 4, periodSeconds: 15 }
        - { type: Percent, value: 100, periodSeconds: 1800 }
    scaleDown:
      selectPolicy: Disabled
status: { currentReplicas: 3 }
",
    );
    let pods =
        |name: &str, measure, target_milli| HpaMetric::Pods { name: name.to_owned(), measure, target_milli };
    let expected = HpaSpec {
        name: Some("web".to_owned()),
        min_replicas: 2,
        max_replicas: 12,
        metrics: vec![
            HpaMetric::CpuUtilization { target_percent: 80 },
            HpaMetric::Cpu { target_millicores: 500 },
            pods("http_requests_per_second", Measure::RequestsPerSecond, 1_000_000),
            pods("concurrency", Measure::InFlight, 7_500),
        ],
        behavior: Some(Behavior {
            scale_up: Rules {
                stabilization_window: Duration::from_secs(60),
                select: Select::Min,
                policies: vec![
                    Policy { step: PolicyStep::Pods(4), period: Duration::from_secs(15) },
                    Policy { step: PolicyStep::Percent(100), period: Duration::from_secs(1_800) },
                ],
                tolerance_fraction: Some(0.05),
            },
            scale_down: Rules { select: Select::Disabled, ..Rules::scale_down() },
        }),
    };
    assert_eq!(spec, expected);
}

#[test]
fn what_is_not_written_is_as_in_kubernetes() {
    let cpu = |target_percent| vec![HpaMetric::CpuUtilization { target_percent }];
    let spec = read(&v2(""));
    assert_eq!((spec.min_replicas, spec.max_replicas, spec.metrics, spec.behavior), (1, 10, cpu(80), None));
    let v1 = |spec: &str| {
        read(&format!(
            "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nspec: {{ maxReplicas: 3{spec} }}"
        ))
    };
    assert_eq!(v1("").metrics, cpu(80));
    assert_eq!(v1(", targetCPUUtilizationPercentage: 55").metrics, cpu(55));
    // As soon as one direction is written, the other one has the newer rules as well.
    let spec = read(&v2("  behavior: { scaleDown: { stabilizationWindowSeconds: 0 } }"));
    let scale_down = Rules { stabilization_window: Duration::ZERO, ..Rules::scale_down() };
    assert_eq!(spec.behavior, Some(Behavior { scale_up: Rules::scale_up(), scale_down }));
}

#[test]
fn what_cannot_be_simulated_is_passed_over_as_long_as_something_remains() {
    let memory = "{ type: Resource, resource: { name: memory, target: { type: Utilization, averageUtilization: 70 } } }";
    let queue =
        "{ type: External, external: { metric: { name: queue }, target: { type: Value, value: 30 } } }";
    let cpu =
        "{ type: Resource, resource: { name: cpu, target: { type: Utilization, averageUtilization: 70 } } }";
    let text = v2(&format!("  metrics: [{memory}, {queue}, {cpu}]"));
    assert_eq!(read(&text).metrics, [HpaMetric::CpuUtilization { target_percent: 70 }]);
    let passed_over = [
        "hpa.yaml: spec.metrics[0].resource.name: memory cannot be simulated; the metric is passed over",
        "hpa.yaml: spec.metrics[1]: External metrics cannot be simulated; it is passed over",
    ];
    assert_eq!(warnings(&text), passed_over);
    let text = v2(&format!("  metrics: [{memory}, {queue}]"));
    assert_eq!(
        faults(&text),
        [
            "hpa.yaml: spec.metrics: holds nothing that can be simulated: cpu, requests a second or requests in flight"
        ]
    );
    assert_eq!(warnings(&text), passed_over);
}

#[test]
fn all_faults_come_in_one_answer_each_with_its_field() {
    let text = r"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
spec:
  minReplica: 2
  minReplicas: 5
  maxReplicas: 3
  metrics:
    - type: Resource
      resource: { name: cpu, target: { type: Utilization, averageUtilization: 0 } }
    - type: Resource
      resource: { name: cpu, target: { type: Utilization, averageValue: 500m } }
    - type: Resource
      resource: { name: cpu, target: { type: AverageValue, averageValue: half } }
    - type: Resource
      resource: { name: cpu, target: { averageUtilization: 80 } }
    - type: pods
    - type: Pods
      pods: { metric: { name: queue_depth }, target: { type: AverageValue, averageValue: 0 } }
    - type: Pods
      pods: { metric: { name: rps }, target: { type: Utilization, averageUtilization: 50 } }
    - resource: { name: cpu }
    - type: Resource
      pods: {}
  behavior:
    scaleUp:
      stabilizationWindowSecond: 10
      stabilizationWindowSeconds: 3601
      selectPolicy: max
      tolerance: -0.1
      policies: []
    scaleDown:
      policies:
        - { type: Pod, value: 0, periodSeconds: 1801 }
        - { type: Pods }
";
    assert_eq!(
        faults(text),
        [
            "spec.maxReplicas: \"3\" is less than minReplicas, which is 5",
            "spec.minReplica: unknown field; did you mean `minReplicas`?",
            "spec.metrics[0].resource.target.averageUtilization: \"0\" is not a whole number between 1 and 2147483647",
            "spec.metrics[1].resource.target: is a Utilization without averageUtilization",
            "spec.metrics[2].resource.target.averageValue: \"half\" is not a quantity, such as 10, 0.5, 500m or 1k",
            "spec.metrics[3].resource.target.type: is missing",
            "spec.metrics[4].type: \"pods\" is not one of Resource, ContainerResource, Pods, Object, External",
            "spec.metrics[5].pods.target.averageValue: \"0\" must be more than nothing",
            "spec.metrics[5].pods.metric.name: \"queue_depth\" is nothing a simulated pod measures: \
             write http_requests_per_second or http_requests_in_flight",
            "spec.metrics[6].pods.target.type: \"Utilization\" must be AverageValue here",
            "spec.metrics[7].type: is missing",
            "spec.metrics[8].pods: unknown field; there are type, resource",
            "spec.metrics[8].resource: is missing",
            "spec.behavior.scaleUp.stabilizationWindowSecond: \
             unknown field; did you mean `stabilizationWindowSeconds`?",
            "spec.behavior.scaleUp.stabilizationWindowSeconds: \"3601\" is not a whole number between 0 and 3600",
            "spec.behavior.scaleUp.policies: needs at least one policy",
            "spec.behavior.scaleUp.selectPolicy: \"max\" is not one of Max, Min, Disabled",
            "spec.behavior.scaleUp.tolerance: \"-0.1\" is not a quantity, such as 10, 0.5, 500m or 1k",
            "spec.behavior.scaleDown.policies[0].value: \"0\" is not a whole number between 1 and 2147483647",
            "spec.behavior.scaleDown.policies[0].periodSeconds: \"1801\" is not a whole number between 1 and 1800",
            "spec.behavior.scaleDown.policies[0].type: \"Pod\" is not one of Pods, Percent",
            "spec.behavior.scaleDown.policies[1].value: is missing",
            "spec.behavior.scaleDown.policies[1].periodSeconds: is missing",
        ]
        .map(|fault| format!("hpa.yaml: {fault}"))
    );
}

#[test]
fn what_is_no_autoscaler_at_all_is_said_in_one_line() {
    let one = |text: &str| {
        let faults = faults(text);
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0].clone()
    };
    assert_eq!(one(""), "hpa.yaml: holds no HorizontalPodAutoscaler");
    assert_eq!(one("kind: Deployment"), "hpa.yaml: holds no HorizontalPodAutoscaler");
    assert!(one("spec: [").starts_with("hpa.yaml: is not valid YAML: "));
    let two = format!("{}---\n{}", v2(""), v2(""));
    assert_eq!(one(&two), "hpa.yaml: holds 2 HorizontalPodAutoscalers, and one is needed");
    let old = v2("").replace("/v2", "/v2beta1");
    assert_eq!(
        one(&old),
        "hpa.yaml: apiVersion: \"autoscaling/v2beta1\" must be autoscaling/v2 or autoscaling/v1"
    );
    let none = v2("").replace("apiVersion", "version");
    assert_eq!(one(&none), "hpa.yaml: apiVersion: is missing: autoscaling/v2 or autoscaling/v1");
    assert_eq!(
        one(&v2("  minReplicas: 0")),
        "hpa.yaml: spec.minReplicas: \"0\" needs an Object or External metric, which cannot be simulated: \
         write at least 1"
    );
    let unbounded = v2("").replace("maxReplicas", "minReplicas");
    assert_eq!(one(&unbounded), "hpa.yaml: spec.maxReplicas: is missing");
}
