//! `pilotlight knative adopt` and `rollback`: what is changed, what is waited for, and what is taken back.

use std::future::{pending, ready};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use pilotlight_knative::adopt::{AdoptError, AdoptParams, Component, adopt, rollback, status};
use pilotlight_tests::SOON;
use pilotlight_tests::cluster::api::ApiServer;
use serde_json::{Value, json};

const KNATIVE: &str = "gcr.io/knative-releases/activator:v1.20";
const OURS: &str = "registry.example/pilotlight-activator:0.1.0";

async fn cluster() -> ApiServer {
    let server = ApiServer::start().await;
    server.add(deployment("controller", "gcr.io/knative-releases/controller:v1.20"));
    server.add(deployment("activator", KNATIVE));
    is_rolled_out(&server, "activator").await;
    server
}

fn deployment(name: &str, image: &str) -> Value {
    let container = json!({"name": name, "image": image, "env": [{"name": "GOGC", "value": "500"}]});
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "knative-serving", "labels": {"app.kubernetes.io/version": "1.20.0"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}}})
}

fn params(server: &ApiServer, component: Component) -> AdoptParams {
    AdoptParams {
        client: server.client(),
        namespace: "knative-serving".to_owned(),
        component,
        timeout: SOON,
        dry_run: false,
    }
}

/// Says in its status that a Deployment's pods are all new and available, as its controller does.
async fn is_rolled_out(server: &ApiServer, name: &str) {
    let deployments: Api<Deployment> = Api::namespaced(server.client(), "knative-serving");
    let generation = deployments.get(name).await.expect("a Deployment").metadata.generation;
    let status = json!({"status": {"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1,
        "readyReplicas": 1, "availableReplicas": 1}});
    deployments.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
}

/// Waits for an image, and rolls it out.
async fn roll_out(server: &ApiServer, image: &str) {
    let has = |server: &ApiServer| (activator(server).0 == image).then_some(());
    server.wait_until("the image", SOON, has).await;
    is_rolled_out(server, "activator").await;
}

/// Image of the activator, and the annotation that remembers another.
fn activator(server: &ApiServer) -> (String, Option<String>) {
    let deployment: Deployment = server.get("knative-serving", "activator").expect("a Deployment");
    let former = deployment.annotations().get("pilotlight.dev/former-image").cloned();
    let containers = deployment.spec.and_then(|spec| spec.template.spec).expect("pods").containers;
    assert_eq!(containers[0].env.as_ref().map(Vec::len), Some(1), "the rest of the container is as it was");
    (containers[0].image.clone().expect("an image"), former)
}

#[tokio::test]
async fn an_adopted_part_can_be_rolled_back() {
    let server = cluster().await;
    let (params, lines) = (params(&server, Component::Activator), Mutex::new(Vec::new()));
    let tell = |line: &str| lines.lock().push(line.to_owned());
    let (adopted, ()) = tokio::join!(adopt(&params, OURS, pending(), tell), roll_out(&server, OURS));
    adopted.expect("adopted");
    assert_eq!(activator(&server), (OURS.to_owned(), Some(KNATIVE.to_owned())));
    let told = lines.lock().join("\n");
    let change =
        format!("  - {KNATIVE}\n  + {OURS}\n  + annotation pilotlight.dev/former-image: {KNATIVE}\n");
    assert!(told.contains(&change) && told.ends_with(&format!("activator is {OURS} now")), "{told}");
    let whose = status(&server.client(), "knative-serving").await.expect("a status");
    assert!(whose[0].starts_with("activator    Pilotlight's"), "{whose:?}");
    assert!(whose.contains(&"autoscaler   not there".to_owned()), "{whose:?}");

    let (rolled_back, ()) = tokio::join!(rollback(&params, pending(), tell), roll_out(&server, KNATIVE));
    rolled_back.expect("rolled back");
    assert_eq!(activator(&server), (KNATIVE.to_owned(), None));
    let refused = rollback(&params, pending(), tell).await.expect_err("it is Knative's");
    assert!(matches!(refused, AdoptError::Plan(_)), "{refused}");
}

#[tokio::test]
async fn a_part_whose_pods_do_not_become_ready_is_taken_back_with_the_reason() {
    let server = cluster().await;
    server.add(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "activator-new", "namespace": "knative-serving", "labels": {"app": "activator"}},
        "spec": {"containers": [{"name": "activator", "image": OURS}]}}));
    let waiting = json!({"status": {"containerStatuses": [{"name": "activator", "image": OURS, "imageID": "",
        "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "InvalidImageName", "message": "couldn't parse it"}}}]}});
    let pods: Api<Pod> = Api::namespaced(server.client(), "knative-serving");
    pods.patch_status("activator-new", &PatchParams::default(), &Patch::Merge(waiting))
        .await
        .expect("a status");
    let params = params(&server, Component::Activator);
    let back = async {
        let has_ours = |server: &ApiServer| (activator(server).0 == OURS).then_some(());
        server.wait_until("our image", SOON, has_ours).await;
        // The controller has seen it, and waits for the pod.
        let deployments: Api<Deployment> = Api::namespaced(server.client(), "knative-serving");
        let status = json!({"status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1}});
        deployments
            .patch_status("activator", &PatchParams::default(), &Patch::Merge(status))
            .await
            .expect("a status");
        roll_out(&server, KNATIVE).await;
    };
    let (adopted, ()) = tokio::join!(adopt(&params, OURS, pending(), |_| {}), back);
    assert_eq!(
        adopted.expect_err("taken back").to_string(),
        format!(
            "activator cannot become ready: pod knative-serving/activator-new, container activator: InvalidImageName: \
             couldn't parse it; {KNATIVE} is back"
        )
    );
    assert_eq!(activator(&server), (KNATIVE.to_owned(), None));
}

#[tokio::test]
async fn time_that_is_over_and_an_interruption_take_it_back_too() {
    let server = cluster().await;
    let late = AdoptParams { timeout: Duration::ZERO, ..params(&server, Component::Activator) };
    let refused = adopt(&late, OURS, pending(), |_| {}).await.expect_err("no time");
    assert!(refused.to_string().starts_with("activator did not become ready within 0s"), "{refused}");
    assert_eq!(activator(&server), (KNATIVE.to_owned(), None));
    let refused = adopt(&late, OURS, ready(()), |_| {}).await.expect_err("interrupted");
    assert!(refused.to_string().ends_with(&format!("{KNATIVE} is back")), "{refused}");
    assert_eq!(activator(&server), (KNATIVE.to_owned(), None));
}

#[tokio::test]
async fn a_dry_run_and_a_cluster_that_lacks_something_change_nothing() {
    let server = cluster().await;
    server.log().clear();
    let dry = AdoptParams { dry_run: true, ..params(&server, Component::Activator) };
    adopt(&dry, OURS, pending(), |_| {}).await.expect("shown");
    let queue_proxy = params(&server, Component::QueueProxy);
    let refused = adopt(&queue_proxy, OURS, pending(), |_| {}).await.expect_err("no config-deployment");
    assert!(refused.to_string().starts_with("queue-proxy is not there"), "{refused}");
    let elsewhere = AdoptParams { namespace: "default".to_owned(), ..params(&server, Component::Activator) };
    let refused = adopt(&elsewhere, OURS, pending(), |_| {}).await.expect_err("no Knative there");
    assert!(refused.to_string().starts_with("Knative Serving is not there"), "{refused}");
    let refused = adopt(&dry, "https://a", pending(), |_| {}).await.expect_err("no image");
    assert_eq!(refused.to_string(), "--image: \"https://a\" is a URL; an image has no scheme in front");
    assert_eq!(server.log().writes().len(), 0);
}

#[tokio::test]
async fn the_queue_proxy_is_a_key_and_revisions_that_were_not_well_are_not_waited_for() {
    let server = cluster().await;
    let (former, image) =
        ("gcr.io/knative-releases/queue:v1.20", "registry.example/pilotlight-queue-proxy:0.1.0");
    server.add(json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "config-deployment", "namespace": "knative-serving"},
        "data": {"queue-sidecar-image": former, "progress-deadline": "600s"}}));
    let mut broken = deployment("broken", former);
    broken["metadata"]["labels"]["serving.knative.dev/revision"] = json!("broken");
    server.add(broken);
    let lines = Mutex::new(Vec::new());
    let tell = |line: &str| lines.lock().push(line.to_owned());
    adopt(&params(&server, Component::QueueProxy), image, pending(), tell).await.expect("adopted");
    let map: ConfigMap = server.get("knative-serving", "config-deployment").expect("a ConfigMap");
    assert_eq!(map.annotations()["pilotlight.dev/former-image"], former);
    let data = map.data.expect("data");
    assert_eq!((data["queue-sidecar-image"].as_str(), data["progress-deadline"].as_str()), (image, "600s"));
    let told = lines.lock().join("\n");
    assert!(told.contains("knative-serving/broken is not well already, and is not waited for"), "{told}");
}
