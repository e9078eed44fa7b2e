//! Installing and uninstalling.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use pilotlight_controller::crd::RequestAutoscaler;
use pilotlight_controller::manifest::{NAME, SYSTEM_NAMESPACE};
use pilotlight_tests::manifest::arg;
use pilotlight_tests::run::run_to_end;
use serde_json::json;

use crate::support::{app, are_rolled_out, installed, kube, server};

#[tokio::test]
async fn a_dry_run_prints_the_manifest_of_the_repository_without_a_cluster() {
    let printed = run_to_end(["kube", "install", "--dry-run"]).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/deploy/kubernetes/pilotlight.yaml");
    let committed = std::fs::read_to_string(path).expect("the manifest");
    assert_eq!(printed.stdout.trim_end(), committed.trim_end());
    let other = run_to_end(["kube", "install", "--dry-run", "--image", "registry.example/p:1"]).await;
    assert_eq!(
        other.stdout.matches("image: \"registry.example/p:1\"").count()
            + other.stdout.matches("image: registry.example/p:1").count(),
        2
    );
}

#[tokio::test]
async fn without_a_cluster_one_line_says_so_and_what_runs_without_one() {
    let nowhere = tempfile::NamedTempFile::new().expect("a file");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(nowhere.path(), config.to_string()).expect("written");
    let ended = run_to_end(["kube", "status", "--kubeconfig", arg(nowhere.path())]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("the cluster does not answer; `pilotlight demo` runs without one"),
        "{ended:?}"
    );
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
}

#[tokio::test]
async fn an_installation_is_applied_waited_for_and_taken_away() {
    let server = server().await;
    let (installed, ()) = tokio::join!(kube(&server, &["install"]), are_rolled_out(&server));
    assert_eq!(installed.code, Some(0), "{installed:?}");
    assert!(
        installed.stdout.contains("applied Deployment pilotlight-system/pilotlight-activator"),
        "{installed:?}"
    );
    assert!(installed.stdout.contains("Next: `pilotlight kube doctor deploy/NAME`"), "{installed:?}");
    let crds = server.objects::<CustomResourceDefinition>();
    assert_eq!(crds.len(), 1);

    // A second time nothing changes.
    let before = server.revision();
    let again = kube(&server, &["install"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(server.revision(), before);

    let gone = kube(&server, &["uninstall"]).await;
    assert_eq!(gone.code, Some(0), "{gone:?}");
    assert_eq!(server.objects::<CustomResourceDefinition>().len(), 0);
    assert!(server.get::<Deployment>(SYSTEM_NAMESPACE, NAME).is_none());
    assert!(
        server
            .get::<Namespace>("", SYSTEM_NAMESPACE)
            .is_none_or(|it| it.metadata.deletion_timestamp.is_some())
    );
}

#[tokio::test]
async fn without_a_living_controller_force_restores_everything() {
    let server = installed().await;
    app(&server, "web", 3);
    let enabled = kube(&server, &["enable", "deploy/web", "--min", "0", "--exact"]).await;
    assert_eq!(enabled.code, Some(0), "{enabled:?}");
    // What a controller would have left behind.
    let autoscalers: Api<RequestAutoscaler> = Api::namespaced(server.client(), "default");
    let held = json!({"metadata": {"finalizers": ["pilotlight.dev/restore"]}});
    autoscalers.patch("web", &PatchParams::default(), &Patch::Merge(held)).await.expect("a finalizer");
    let deployments: Api<Deployment> = Api::namespaced(server.client(), "default");
    let asleep = json!({"spec": {"replicas": 0}});
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(asleep)).await.expect("asleep");
    server.add(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-pilotlight", "namespace": "default", "labels": {
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "pilotlight.dev"}},
        "endpoints": [], "ports": []}));

    let stuck = kube(&server, &["uninstall", "--timeout", "1s"]).await;
    assert_eq!(stuck.code, Some(1), "{stuck:?}");
    assert!(stuck.stderr.contains("`pilotlight kube uninstall --force` does it without"), "{stuck:?}");
    let forced = kube(&server, &["uninstall", "--force"]).await;
    assert_eq!(forced.code, Some(0), "{forced:?}");
    let deployment: Deployment = server.get("default", "web").expect("the target");
    assert_eq!(deployment.spec.and_then(|spec| spec.replicas), Some(1));
    let service: Service = server.get("default", "web").expect("the Service");
    assert_eq!(
        service.spec.and_then(|spec| spec.selector),
        Some([("app".to_owned(), "web".to_owned())].into())
    );
    assert_eq!(service.metadata.annotations.unwrap_or_default().len(), 0);
    assert_eq!(server.objects::<EndpointSlice>().len(), 0);
}
