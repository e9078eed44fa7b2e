use std::collections::BTreeMap;
use std::sync::Arc;

use pilotlight_core::{RevisionId, ScalingMetric};
use serde_json::{Value, json};

use super::*;
use crate::facts::{AutoscalerFact, ServiceFact, ServicePort, TargetPort};

fn workload(spec: &Value) -> Workload {
    let mut whole = json!({"scaleTargetRef": {"name": "web"}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let spec = serde_json::from_value(whole).unwrap();
    let port = |name: &str| ServicePort {
        name: name.to_owned(),
        port: 80,
        target: TargetPort::Number(8080),
        transport: "TCP".to_owned(),
        app_protocol: String::new(),
    };
    let service = ServiceFact { ports: vec![port("http"), port("grpc")], ..ServiceFact::default() };
    Workload {
        id: Arc::new(RevisionId::new("shop", "web")),
        autoscaler: Arc::new(AutoscalerFact { spec, ..AutoscalerFact::default() }),
        services: BTreeMap::from([("web".to_owned(), Arc::new(service))]),
        pods: BTreeMap::new(),
        former: Vec::new(),
    }
}

fn read(spec: &Value, annotations: &[(&str, &str)]) -> Result<Accepted, Vec<String>> {
    let annotations =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    accept(&workload(spec), &annotations, &AutoscalerConfig::default())
}

#[test]
fn what_is_not_written_is_knatives_but_for_the_one_pod_that_stays() {
    let accepted = read(&json!({}), &[]).unwrap();
    assert_eq!((accepted.spec.min_scale, accepted.spec.max_scale), (1, None));
    assert_eq!(accepted.spec.target, 70.0);
    assert_eq!(accepted.timeouts.total, Duration::from_secs(300));
    assert_eq!(accepted.scale_in_drain, Duration::from_secs(30));
    assert_eq!((accepted.tcp_idle, accepted.tcp_idle_timeout), (Duration::from_secs(60), None));
    assert_eq!(accepted.limit, ConcurrencyLimit::UNLIMITED);
    assert_eq!(accepted.warnings, [""; 0]);
}

#[test]
fn every_field_is_a_setting_of_knatives() {
    let spec = json!({"minReplicas": 0, "maxReplicas": 10, "metric": "rps", "target": 50,
        "targetUtilizationPercentage": 80, "window": "30s", "panicWindowPercentage": 20,
        "panicThresholdPercentage": 150, "metricAggregationAlgorithm": "weighted-exponential", "scaleDownDelay": "5m",
        "initialScale": 2, "activationScale": 3, "scaleToZeroPodRetention": "1m", "timeoutSeconds": 60,
        "containerConcurrency": 4, "scaleInDrain": "1m", "tcpIdle": "5s", "tcpIdleTimeout": "1h"});
    let accepted = read(&spec, &[]).unwrap();
    let it = &accepted.spec;
    assert_eq!((it.min_scale, it.max_scale, it.scaling_metric), (0, Some(10), ScalingMetric::Rps));
    assert_eq!((it.total, it.target), (50.0, 40.0));
    assert_eq!((it.stable_window, it.panic_window), (Duration::from_secs(30), Duration::from_secs(6)));
    assert_eq!((it.panic_threshold, it.scale_down_delay), (1.5, Duration::from_secs(300)));
    assert_eq!(it.aggregation, pilotlight_core::Aggregation::WeightedExponential);
    assert_eq!((it.initial_scale, it.activation_scale), (2, Some(3)));
    assert_eq!(it.pod_retention, Duration::from_secs(60));
    assert_eq!(accepted.limit.get(), Some(4));
    assert_eq!(accepted.timeouts.total, Duration::from_secs(60));
    assert_eq!(accepted.scale_in_drain, Duration::from_secs(60));
    assert_eq!(accepted.tcp_idle, Duration::from_secs(5));
    assert_eq!(accepted.tcp_idle_timeout, Some(Duration::from_secs(3_600)));
}

#[test]
fn annotations_of_the_target_fill_what_the_spec_leaves_open() {
    let annotations =
        [("autoscaling.knative.dev/minScale", "0"), ("autoscaling.knative.dev/target", "20"), ("team", "a")];
    let accepted = read(&json!({"target": 10}), &annotations).unwrap();
    assert_eq!((accepted.spec.min_scale, accepted.spec.total), (0, 10.0));
    let [warning] = accepted.warnings.as_slice() else { panic!("{:?}", accepted.warnings) };
    let expected = r#"target: the spec's 10 holds; the target's annotation autoscaling.knative.dev/target: "20" has no effect"#;
    assert_eq!(warning, expected);
    // The same number in other letters is the same.
    let same = read(&json!({"window": "60s"}), &[("autoscaling.knative.dev/window", "1m")]).unwrap();
    assert_eq!(same.warnings, [""; 0]);
}

#[test]
fn all_faults_are_told_at_once_and_named_by_the_field() {
    let spec = json!({"minReplicas": 5, "maxReplicas": 3, "window": "2s", "timeoutSeconds": 0, "tcpIdle": "0s",
        "scaleInDrain": "soon", "ignore": [{}, {"path": "healthz"}], "proxyProtocol": ["htp"],
        "services": [{"name": "web"}, {"name": "web"}]});
    let faults = read(&spec, &[("autoscaling.knative.dev/panicWindowPercentage", "0")]).unwrap_err();
    let expected = [
        r#"window: "2s" is not a duration between 6s and 1h0m0s, in whole seconds"#,
        r#"the target's annotation autoscaling.knative.dev/panicWindowPercentage: "0" is not a number between 1 and 100"#,
        r#"maxReplicas: "3" is less than the minReplicas of 5"#,
        r#"scaleInDrain: "soon" is not a duration between 0s and 1h0m0s: a duration is written like 30s or 1m30s"#,
        r#"tcpIdle: "0s" is not a duration above 0s"#,
        r#"timeoutSeconds: "0" is not a whole number of at least 1"#,
        r#"services[1].name: "web" is there twice"#,
        "ignore[0]: has neither a path nor a userAgent",
        r#"ignore[1].path: "healthz" does not begin with /"#,
        r#"proxyProtocol: "htp" is the name of no TCP port of its Services (did you mean "http"?)"#,
    ];
    assert_eq!(faults, expected);
}

#[test]
fn settings_that_mean_nothing_here_are_told() {
    let annotations = [
        ("autoscaling.knative.dev/class", "hpa.autoscaling.knative.dev"),
        ("autoscaling.knative.dev/target-burst-capacity", "0"),
        ("autoscaling.knative.dev/targt", "5"),
    ];
    let warnings = read(&json!({}), &annotations).unwrap().warnings.join("\n");
    for part in [
        "class: \"hpa.",
        "target-burst-capacity: no effect",
        "did you mean `autoscaling.knative.dev/target`?",
    ] {
        assert!(warnings.contains(part), "{part} in\n{warnings}");
    }
}

#[test]
fn activators_stay_in_the_path_where_they_see_every_request() {
    let accepted = read(&json!({"minReplicas": 0}), &[]).unwrap();
    let path = |way| {
        let spec = accepted.for_path(way);
        (spec.target_burst_capacity, spec.scraped)
    };
    assert_eq!(path(Way::Always), (TargetBurstCapacity::Unlimited, false));
    assert_eq!(path(Way::AtZero(AtZeroSignal::QueueProxy)), (TargetBurstCapacity::Off, true));
    for way in [Way::AtZero(AtZeroSignal::Autoscaler), Way::AtZero(AtZeroSignal::Cpu), Way::WakeOnly] {
        assert_eq!(path(way), (TargetBurstCapacity::Off, false), "{way:?}");
    }
}
