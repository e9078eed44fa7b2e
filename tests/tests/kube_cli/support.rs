//! A cluster to run commands against.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use pilotlight_controller::manifest::{ACTIVATOR_NAME, NAME, SYSTEM_NAMESPACE};
use pilotlight_tests::SOON;
use pilotlight_tests::cluster::api::{ApiServer, Definition};
use pilotlight_tests::manifest::arg;
use pilotlight_tests::run::{Ended, run_to_end};
use serde_json::{Value, json};

/// A server with the kinds that an installation has.
pub(crate) async fn server() -> ApiServer {
    let server = ApiServer::start().await;
    let rbac = |kind: &str, plural: &str| Definition::new("rbac.authorization.k8s.io", "v1", kind, plural);
    server.define(rbac("Role", "roles"));
    server.define(rbac("RoleBinding", "rolebindings"));
    server.define(rbac("ClusterRole", "clusterroles").cluster_scoped());
    server.define(rbac("ClusterRoleBinding", "clusterrolebindings").cluster_scoped());
    server.define(Definition::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"));
    server
}

/// Runs `pilotlight kube ...` against a server.
pub(crate) async fn kube(server: &ApiServer, args: &[&str]) -> Ended {
    let config = server.kubeconfig();
    let fixed = ["kube"].into_iter().chain(args.iter().copied());
    run_to_end(fixed.chain(["--kubeconfig", arg(&config)])).await
}

/// Says in the status of both programs that they are rolled out, as their controllers do.
pub(crate) async fn are_rolled_out(server: &ApiServer) {
    for name in [NAME, ACTIVATOR_NAME] {
        let there = |server: &ApiServer| server.get::<Deployment>(SYSTEM_NAMESPACE, name);
        let deployment = server.wait_until("a Deployment", SOON, there).await;
        let api: Api<Deployment> = Api::namespaced(server.client(), SYSTEM_NAMESPACE);
        let status = json!({"status": {"observedGeneration": deployment.metadata.generation, "replicas": 2,
            "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}});
        api.patch_status(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(status))
            .await
            .expect("a status");
    }
}

/// A server on which Pilotlight is installed.
pub(crate) async fn installed() -> ApiServer {
    let server = server().await;
    let (installed, ()) = tokio::join!(kube(&server, &["install"]), are_rolled_out(&server));
    assert_eq!(installed.code, Some(0), "{installed:?}");
    server
}

/// A Deployment and a Service for it.
pub(crate) fn app(server: &ApiServer, name: &str, replicas: u32) {
    let labels = json!({"app": name});
    let container =
        json!({"name": "app", "image": "sample", "ports": [{"name": "http", "containerPort": 8080}]});
    server.add(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}}));
    service(server, name, &json!({}));
}

/// A Service, with more in its spec.
pub(crate) fn service(server: &ApiServer, name: &str, more: &Value) {
    let mut spec =
        json!({"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]});
    let more = more.as_object().expect("fields").clone();
    spec.as_object_mut().expect("fields").extend(more);
    server.add(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec}));
}
