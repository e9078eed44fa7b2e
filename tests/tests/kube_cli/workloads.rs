//! Enabling and disabling workloads.

use k8s_openapi::api::core::v1::Service;
use pilotlight_controller::crd::{Interception, Mode, RequestAutoscaler};
use pilotlight_tests::manifest::arg;
use pilotlight_tests::run::run_to_end;
use serde_json::json;

use crate::support::{app, installed, kube, server, service};

#[tokio::test]
async fn a_dry_run_prints_yaml_for_git_without_a_cluster() {
    let printed = run_to_end([
        "kube",
        "enable",
        "deploy/web",
        "--min",
        "0",
        "--max",
        "10",
        "--target",
        "20",
        "--exact",
        "--service",
        "web",
        "--namespace",
        "shop",
        "--dry-run",
    ])
    .await;
    let expected = "\
# Remove spec.selector from Service web as well: all requests then pass the activators.
apiVersion: pilotlight.dev/v1alpha1
kind: RequestAutoscaler
metadata:
  name: web
  namespace: shop
spec:
  interception: Always
  maxReplicas: 10
  minReplicas: 0
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: web
  services:
  - name: web
  target: 20
";
    assert_eq!(printed.stdout.trim_end(), expected.trim_end(), "{printed:?}");
}

#[tokio::test]
async fn a_workload_is_enabled_and_left_alone_again() {
    let server = installed().await;
    app(&server, "web", 2);
    let args = ["enable", "deploy/web", "--min", "0", "--max", "5", "--target", "10", "--mode", "observe"];
    let enabled = kube(&server, &args).await;
    assert_eq!(enabled.code, Some(0), "{enabled:?}");
    assert!(enabled.stdout.contains("RequestAutoscaler web scales deployment/web"), "{enabled:?}");
    assert!(enabled.stdout.contains("nothing shows when there are none"), "{enabled:?}");
    let autoscaler: RequestAutoscaler = server.get("default", "web").expect("it is there");
    assert_eq!((autoscaler.spec.min_replicas, autoscaler.spec.max_replicas), (Some(0), Some(5)));
    assert_eq!((autoscaler.spec.target, autoscaler.spec.mode), (Some(10.0), Mode::Observe));
    assert_eq!(autoscaler.spec.interception, Interception::Auto);

    // What is not said again stays.
    let changed = kube(&server, &["enable", "deploy/web", "--mode", "act"]).await;
    assert_eq!(changed.code, Some(0), "{changed:?}");
    let autoscaler: RequestAutoscaler = server.get("default", "web").expect("it is there");
    assert_eq!((autoscaler.spec.min_replicas, autoscaler.spec.mode), (Some(0), Mode::Act));

    let disabled = kube(&server, &["disable", "deploy/web"]).await;
    assert_eq!(disabled.code, Some(0), "{disabled:?}");
    assert!(server.get::<RequestAutoscaler>("default", "web").is_none());
    let nothing = kube(&server, &["disable", "deploy/web"]).await;
    assert_eq!(nothing.stderr, "error: no RequestAutoscaler in default scales deployment/web");
}

#[tokio::test]
async fn exact_takes_the_selector_away_and_disable_puts_it_back() {
    let server = installed().await;
    app(&server, "web", 2);
    let before: Service = server.get("default", "web").expect("a Service");
    let enabled = kube(&server, &["enable", "deploy/web", "--exact"]).await;
    assert_eq!(enabled.code, Some(0), "{enabled:?}");
    assert!(enabled.stdout.contains("note: minReplicas is 1"), "{enabled:?}");
    let service: Service = server.get("default", "web").expect("a Service");
    assert_eq!(service.spec.clone().and_then(|spec| spec.selector).unwrap_or_default().len(), 0);
    let annotations = service.metadata.annotations.clone().unwrap_or_default();
    assert_eq!(annotations.get("pilotlight.dev/selector").map(String::as_str), Some("app=web"));
    let autoscaler: RequestAutoscaler = server.get("default", "web").expect("it is there");
    assert_eq!(autoscaler.spec.interception, Interception::Always);

    let disabled = kube(&server, &["disable", "deploy/web"]).await;
    assert_eq!(disabled.code, Some(0), "{disabled:?}");
    let after: Service = server.get("default", "web").expect("a Service");
    assert_eq!(after.spec, before.spec);
    assert_eq!(after.metadata.annotations.unwrap_or_default().len(), 0);
}

#[tokio::test]
async fn what_would_be_refused_is_not_written() {
    let server = installed().await;
    app(&server, "web", 2);
    service(&server, "local", &json!({"internalTrafficPolicy": "Local", "selector": {"app": "web"}}));
    let refused =
        kube(&server, &["enable", "deploy/web", "--service", "local", "--min", "5", "--max", "3"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let expected =
        [r#"maxReplicas: "3" is less than the minReplicas of 5"#, "TrafficPolicyLocal: Service local"];
    for part in expected {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    assert!(server.get::<RequestAutoscaler>("default", "web").is_none());
    let missing = kube(&server, &["enable", "deploy/wbe"]).await;
    assert_eq!(missing.stderr, "error: Deployment wbe is not there");
}

#[tokio::test]
async fn nothing_can_be_enabled_where_pilotlight_is_not() {
    let server = server().await;
    app(&server, "web", 2);
    let refused = kube(&server, &["enable", "deploy/web"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let expected = "error: Pilotlight is not on this cluster; `pilotlight kube install` puts it there";
    assert_eq!(refused.stderr, expected);
}

#[tokio::test]
async fn a_kind_that_is_not_known_is_a_slip() {
    let ended = run_to_end(["kube", "enable", "deplyo/web", "--dry-run"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("did you mean \"deploy\"?"), "{ended:?}");
}

#[tokio::test]
async fn the_queue_proxy_is_added_to_a_manifest() {
    let manifest = tempfile::NamedTempFile::new().expect("a file");
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n      \
        containers:\n      - name: app\n        ports: [{name: http, containerPort: 3000}]\n---\nkind: Service\n";
    std::fs::write(manifest.path(), text).expect("written");
    let injected = run_to_end(["kube", "inject", "--filename", arg(manifest.path())]).await;
    assert_eq!(injected.code, Some(0), "{injected:?}");
    assert!(injected.stdout.contains("- name: pilotlight-queue-proxy"), "{injected:?}");
    assert!(injected.stdout.ends_with("---\nkind: Service"), "{injected:?}");
    assert!(injected.stderr.contains("targetPort: http"), "{injected:?}");
}
