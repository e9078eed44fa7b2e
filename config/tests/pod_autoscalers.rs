//! PodAutoscalers as `kubectl get kpa -o yaml` prints them.

use pilotlight_config::explain::{explain, render, render_json};
use pilotlight_config::workload::{self, Kind, Manifest, Workloads};
use pilotlight_config::{Findings, Origin};
use serde_json::{Value, json};

fn survey(text: &str) -> (Workloads, Findings) {
    workload::survey(&[Manifest { file: "kpa.yaml", text }], None)
}

fn object(annotations: &Value, spec: &Value) -> Value {
    let mut whole = json!({
        "containerConcurrency": 20,
        "protocolType": "http1",
        "reachability": "Reachable",
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hello-00001-deployment"},
    });
    let fields = spec.as_object().unwrap().clone();
    whole.as_object_mut().unwrap().extend(fields);
    json!({
        "apiVersion": "autoscaling.internal.knative.dev/v1alpha1",
        "kind": "PodAutoscaler",
        "metadata": {
            "annotations": annotations,
            "creationTimestamp": "2026-11-30T10:00:00Z",
            "generation": 2,
            "labels": {"app": "hello-00001", "serving.knative.dev/revision": "hello-00001"},
            "name": "hello-00001",
            "namespace": "shop",
            "ownerReferences": [{
                "apiVersion": "serving.knative.dev/v1", "blockOwnerDeletion": true, "controller": true,
                "kind": "Revision", "name": "hello-00001", "uid": "1",
            }],
            "resourceVersion": "7",
            "uid": "2",
        },
        "spec": whole,
        "status": {
            "actualScale": 0,
            "conditions": [{"lastTransitionTime": "2026-11-30T10:01:00Z", "message": "The target is not receiving traffic.",
                            "reason": "NoTraffic", "status": "False", "type": "Active"}],
            "desiredScale": 0,
            "metricsServiceName": "hello-00001-private",
            "observedGeneration": 2,
            "serviceName": "hello-00001",
        },
    })
}

fn target(target: &str) -> Value {
    json!({"autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev", "autoscaling.knative.dev/target": target})
}

#[test]
fn it_is_explained_as_its_revision_would_be_but_for_the_time_limits_that_it_does_not_have() {
    let text = object(&target("10"), &json!({})).to_string();
    let (found, findings) = survey(&text);
    assert_eq!((findings.faults, findings.warnings, findings.repeated), (vec![], vec![], vec![]));
    let workload = &found.workloads[0];
    assert_eq!(
        (workload.kind, workload.id.to_string()),
        (Kind::PodAutoscaler, "shop/hello-00001".to_owned())
    );
    let setting = workload.settings.iter().find(|it| it.name == "target").unwrap();
    assert_eq!(setting.from, Origin::Annotation("autoscaling.knative.dev/target"));

    let revision = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
        "metadata": {"name": "hello-00001", "namespace": "shop", "annotations": target("10")},
        "spec": {"containerConcurrency": 20, "containers": [{"image": "a"}]},
    });
    let (of_revision, _) = survey(&revision.to_string());
    let mut expected = explain(&of_revision.workloads[0]);
    let limits = expected.pop().unwrap();
    assert!(limits.starts_with("A request may take 5 min"), "{limits}");
    assert_eq!(explain(workload), expected);
    assert_eq!(workload.spec, of_revision.workloads[0].spec);

    assert!(render(&found).starts_with("shop/hello-00001  PodAutoscaler, kpa.yaml:1\n\n  setting"));
    let json = &render_json(&found, &Findings::default())["workloads"][0];
    for unknown in ["timeoutSeconds", "responseStartTimeoutSeconds", "readinessProbe", "container"] {
        assert_eq!(json[unknown], Value::Null, "{unknown}");
    }
    assert_eq!((&json["kind"], &json["containerConcurrency"]), (&json!("PodAutoscaler"), &json!(20)));
}

#[test]
fn lists_of_them_are_read_in_json_and_in_yaml() {
    let items = || {
        let mut second = object(&target("20"), &json!({}));
        second["metadata"]["name"] = json!("hello-00002");
        vec![object(&target("10"), &json!({})), second]
    };
    let list = |kind: &str, version: &str, items: Vec<Value>| {
        json!({"apiVersion": version, "kind": kind, "items": items, "metadata": {"resourceVersion": ""}})
            .to_string()
    };
    // The API server itself names the kind once, for the whole list.
    let unnamed = items().into_iter().map(|mut item| {
        let fields = item.as_object_mut().unwrap();
        fields.retain(|name, _| name != "kind" && name != "apiVersion");
        item
    });
    let typed = list("PodAutoscalerList", "autoscaling.internal.knative.dev/v1alpha1", unnamed.collect());
    let yaml = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: autoscaling.internal.knative.dev/v1alpha1\n  kind: \
                PodAutoscaler\n  metadata: {name: a}\n  spec: {scaleTargetRef: {}}\n- apiVersion: \
                autoscaling.internal.knative.dev/v1alpha1\n  kind: PodAutoscaler\n  metadata: {name: b, annotations: \
                {autoscaling.knative.dev/target: \"20\"}}\n  spec: {scaleTargetRef: {}}\n";
    for text in [list("List", "v1", items()), typed, yaml.to_owned()] {
        let (found, findings) = survey(&text);
        assert_eq!((findings.faults, findings.warnings), (vec![], vec![]), "{text}");
        let totals: Vec<f64> = found.workloads.iter().map(|it| it.spec.total).collect();
        assert_eq!((totals.len(), totals[1]), (2, 20.0), "{text}");
    }
}

#[test]
fn one_of_another_class_is_told_as_such() {
    let annotations = json!({"autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev",
                             "autoscaling.knative.dev/metric": "cpu", "autoscaling.knative.dev/target": "70"});
    let (found, findings) = survey(&object(&annotations, &json!({})).to_string());
    assert_eq!((found.workloads, findings.faults), (vec![], vec![]));
    let warnings: Vec<String> = findings.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["kpa.yaml:1: PodAutoscaler shop/hello-00001: metadata.annotations.autoscaling.knative.dev/class: \
             shop/hello-00001 belongs to the autoscaler hpa.autoscaling.knative.dev; it is left alone"]
    );
}

#[test]
fn one_that_no_route_leads_to_has_no_minimum() {
    let annotations = json!({"autoscaling.knative.dev/min-scale": "3"});
    let sentences = |reachability: &str| {
        let text = object(&annotations, &json!({"reachability": reachability})).to_string();
        explain(&survey(&text).0.workloads[0])
    };
    let (reached, alone) = (sentences("Reachable"), sentences("Unreachable"));
    assert!(
        reached.contains(&"There are always at least 3 pods, and no upper limit.".to_owned()),
        "{reached:?}"
    );
    assert!(alone.contains(&"0 pods or more: there is no upper limit.".to_owned()), "{alone:?}");
    assert!(alone.iter().any(|it| it.starts_with("No route leads to it: ")), "{alone:?}");
}

#[test]
fn its_faults_are_told_as_those_of_others() {
    let faults = |annotations: &Value, spec: &Value| {
        let (_, findings) = survey(&object(annotations, spec).to_string());
        findings.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert!(faults(&target("many"), &json!({})).contains("autoscaling.knative.dev/target: \"many\" is not"));
    assert!(
        faults(&target("1"), &json!({"reachability": "Far"}))
            .contains("spec.reachability: \"Far\" is not one of Reachable, Unreachable")
    );
    let version = object(&target("1"), &json!({})).to_string().replace("/v1alpha1", "/v1");
    assert!(survey(&version).1.faults[0].to_string().contains("is no known version of PodAutoscaler"));
}

#[test]
fn one_beside_its_revision_is_not_explained_twice() {
    let revision = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
        "metadata": {"name": "hello-00001", "namespace": "shop", "annotations": target("10")},
        "spec": {"containers": [{"image": "a"}]},
    });
    let list =
        json!({"apiVersion": "v1", "kind": "List", "items": [revision, object(&target("10"), &json!({}))]});
    let (found, findings) = survey(&list.to_string());
    assert_eq!((found.workloads.len(), found.workloads[0].kind), (1, Kind::Revision));
    assert!(
        findings.warnings[0].advice.starts_with("PodAutoscaler hello-00001 is made by another object here")
    );
}
