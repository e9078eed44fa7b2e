//! `pilotlight knative adopt` and `rollback`: what is changed, what is waited for, and what is taken back.

use std::future::pending;
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use pilotlight_knative::adopt::{AdoptError, AdoptParams, Component, adopt, rollback, status};
use pilotlight_tests::cluster::api::{ApiServer, Outage, Requests, Verb};
use pilotlight_tests::process::send;
use pilotlight_tests::{SOON, binary, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

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
        rollback_command: "pilotlight knative rollback --component activator".to_owned(),
    }
}

/// No signal.
fn never() -> impl AsyncFnMut() {
    async || pending().await
}

/// Signals, and who sends them.
fn signals() -> (mpsc::UnboundedSender<()>, impl AsyncFnMut()) {
    let (send, mut sent) = mpsc::unbounded_channel();
    let next = async move || {
        if sent.recv().await.is_none() {
            pending::<()>().await;
        }
    };
    (send, next)
}

/// Waits for a request that has no answer yet.
async fn asked(server: &ApiServer, verb: Verb) {
    let is_asked = async || (server.log().count(|it| it.verb == verb && it.status == 0) > 0).then_some(());
    eventually("a request", SOON, is_asked).await;
}

/// Waits for a line.
async fn line(lines: &mut mpsc::UnboundedReceiver<String>, part: &str) {
    let found = async {
        while let Some(line) = lines.recv().await {
            if line.contains(part) {
                return;
            }
        }
        panic!("never told: {part}");
    };
    timeout(SOON, found).await.expect("a line in time");
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
    let (adopted, ()) = tokio::join!(adopt(&params, OURS, never(), tell), roll_out(&server, OURS));
    adopted.expect("adopted");
    assert_eq!(activator(&server), (OURS.to_owned(), Some(KNATIVE.to_owned())));
    let told = lines.lock().join("\n");
    let change =
        format!("  - {KNATIVE}\n  + {OURS}\n  + annotation pilotlight.dev/former-image: {KNATIVE}\n");
    assert!(told.contains(&change) && told.ends_with(&format!("activator is {OURS} now")), "{told}");
    let whose = status(&server.client(), "knative-serving").await.expect("a status");
    assert!(whose[0].starts_with("activator    Pilotlight's"), "{whose:?}");
    assert!(whose.contains(&"autoscaler   not there".to_owned()), "{whose:?}");

    let (rolled_back, ()) = tokio::join!(rollback(&params, never(), tell), roll_out(&server, KNATIVE));
    rolled_back.expect("rolled back");
    assert_eq!(activator(&server), (KNATIVE.to_owned(), None));
    let refused = rollback(&params, never(), tell).await.expect_err("it is Knative's");
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
    let (adopted, ()) = tokio::join!(adopt(&params, OURS, never(), |_| {}), back);
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
async fn time_that_is_over_takes_it_back_too() {
    let server = cluster().await;
    let late = AdoptParams { timeout: Duration::ZERO, ..params(&server, Component::Activator) };
    let refused = adopt(&late, OURS, never(), |_| {}).await.expect_err("no time");
    assert!(refused.to_string().starts_with("activator did not become ready within 0s"), "{refused}");
    assert_eq!(activator(&server), (KNATIVE.to_owned(), None));
}

#[tokio::test]
async fn a_dry_run_and_a_cluster_that_lacks_something_change_nothing() {
    let server = cluster().await;
    server.log().clear();
    let dry = AdoptParams { dry_run: true, ..params(&server, Component::Activator) };
    adopt(&dry, OURS, never(), |_| {}).await.expect("shown");
    let queue_proxy = params(&server, Component::QueueProxy);
    let refused = adopt(&queue_proxy, OURS, never(), |_| {}).await.expect_err("no config-deployment");
    assert!(refused.to_string().starts_with("queue-proxy is not there"), "{refused}");
    let elsewhere = AdoptParams { namespace: "default".to_owned(), ..params(&server, Component::Activator) };
    let refused = adopt(&elsewhere, OURS, never(), |_| {}).await.expect_err("no Knative there");
    assert!(refused.to_string().starts_with("Knative Serving is not there"), "{refused}");
    let refused = adopt(&dry, "https://a", never(), |_| {}).await.expect_err("no image");
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
    adopt(&params(&server, Component::QueueProxy), image, never(), tell).await.expect("adopted");
    let map: ConfigMap = server.get("knative-serving", "config-deployment").expect("a ConfigMap");
    assert_eq!(map.annotations()["pilotlight.dev/former-image"], former);
    let data = map.data.expect("data");
    assert_eq!((data["queue-sidecar-image"].as_str(), data["progress-deadline"].as_str()), (image, "600s"));
    let told = lines.lock().join("\n");
    assert!(told.contains("knative-serving/broken is not well already, and is not waited for"), "{told}");
}

#[tokio::test]
async fn the_command_ends_with_130_after_a_ctrl_c() {
    let server = cluster().await;
    let mut command = Command::new(binary());
    command.args(["knative", "adopt", "--component", "activator", "--image", OURS, "--kubeconfig"]);
    command.arg(server.kubeconfig()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = command.spawn().expect("started");
    let has_ours = |server: &ApiServer| (activator(server).0 == OURS).then_some(());
    server.wait_until("our image", SOON, has_ours).await;
    send(run.id(), Signal::INT);
    roll_out(&server, KNATIVE).await;
    eventually("the exit", SOON, async || run.try_wait().expect("our child")).await;
    let ended = run.wait_with_output().expect("its output");
    let told = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    assert!(told.ends_with(&format!("activator was interrupted; {KNATIVE} is back\n")), "{told}");
    assert_eq!(activator(&server), (KNATIVE.to_owned(), None));
}

const COMMAND: &str = "activator was interrupted twice, and may have either image: run `pilotlight knative rollback --component activator`";

#[tokio::test]
async fn a_signal_before_the_change_leaves_everything_as_it_is() {
    let server = cluster().await;
    server.log().clear();
    let params = params(&server, Component::Activator);
    // A server that does not answer, so that the signal comes in the middle of the reads.
    server.faults().delay(Requests::all().verb(Verb::Get), Duration::from_secs(3600));
    let (send, interrupted) = signals();
    let people = async {
        asked(&server, Verb::Get).await;
        send.send(()).expect("somebody listens");
    };
    let (adopted, ()) = tokio::join!(adopt(&params, OURS, interrupted, |_| {}), people);
    let stopped = adopted.expect_err("interrupted");
    assert!(stopped.is_interruption());
    assert_eq!(stopped.to_string(), "activator was not changed: the command was interrupted before that");
    assert_eq!(server.log().writes().len(), 0);
}

#[tokio::test]
async fn the_first_signal_takes_the_change_back_and_waits_for_the_pods() {
    let server = cluster().await;
    let params = params(&server, Component::Activator);
    let (send, interrupted) = signals();
    let (tell, mut told) = mpsc::unbounded_channel();
    let tell = move |line: &str| tell.send(line.to_owned()).expect("somebody listens");
    let people = async {
        line(&mut told, "waiting for the controller").await;
        assert_eq!(activator(&server), (OURS.to_owned(), Some(KNATIVE.to_owned())));
        send.send(()).expect("somebody listens");
        line(&mut told, &format!("activator was interrupted; putting {KNATIVE} back")).await;
        roll_out(&server, KNATIVE).await;
    };
    let (adopted, ()) = tokio::join!(adopt(&params, OURS, interrupted, tell), people);
    let stopped = adopted.expect_err("interrupted");
    assert!(stopped.is_interruption());
    assert_eq!(stopped.to_string(), format!("activator was interrupted; {KNATIVE} is back"));
    assert_eq!(activator(&server), (KNATIVE.to_owned(), None));
}

#[tokio::test]
async fn a_second_signal_ends_the_wait_for_the_former_pods() {
    let server = cluster().await;
    let params = params(&server, Component::Activator);
    let (send, interrupted) = signals();
    let (tell, mut told) = mpsc::unbounded_channel();
    let tell = move |line: &str| tell.send(line.to_owned()).expect("somebody listens");
    let people = async {
        line(&mut told, "waiting for the controller").await;
        send.send(()).expect("somebody listens");
        line(&mut told, "putting").await;
        line(&mut told, "waiting for the controller").await;
        send.send(()).expect("somebody listens");
    };
    let (adopted, ()) = tokio::join!(adopt(&params, OURS, interrupted, tell), people);
    let stopped = adopted.expect_err("interrupted");
    assert_eq!(stopped.to_string(), format!("activator was interrupted; {KNATIVE} is back"));
    assert_eq!(activator(&server), (KNATIVE.to_owned(), None));
}

#[tokio::test]
async fn a_second_signal_while_the_change_is_taken_back_names_the_command_that_does_so() {
    let server = cluster().await;
    let params = params(&server, Component::Activator);
    let (send, interrupted) = signals();
    let (tell, mut told) = mpsc::unbounded_channel();
    let tell = move |line: &str| tell.send(line.to_owned()).expect("somebody listens");
    let people = async {
        line(&mut told, "waiting for the controller").await;
        // Nothing that is sent from here on is carried out, not even later.
        server.faults().outage(Outage::Silent);
        send.send(()).expect("somebody listens");
        line(&mut told, "putting").await;
        send.send(()).expect("somebody listens");
    };
    let (adopted, ()) = tokio::join!(adopt(&params, OURS, interrupted, tell), people);
    let stopped = adopted.expect_err("interrupted");
    assert!(stopped.is_interruption());
    assert_eq!(stopped.to_string(), COMMAND);
    server.faults().heal();
    let (rolled_back, ()) = tokio::join!(rollback(&params, never(), |_| {}), roll_out(&server, KNATIVE));
    rolled_back.expect("the command that was named");
    assert_eq!(activator(&server), (KNATIVE.to_owned(), None));
}

#[tokio::test]
async fn a_change_that_is_under_way_is_waited_for_until_the_second_signal() {
    let server = cluster().await;
    let params = params(&server, Component::Activator);
    server.faults().delay(Requests::all().verb(Verb::Patch), Duration::from_secs(3600));
    let (send, interrupted) = signals();
    let (tell, mut told) = mpsc::unbounded_channel();
    let tell = move |line: &str| tell.send(line.to_owned()).expect("somebody listens");
    let people = async {
        asked(&server, Verb::Patch).await;
        send.send(()).expect("somebody listens");
        line(&mut told, "Interrupted; waiting for the change to be made").await;
        send.send(()).expect("somebody listens");
    };
    let (adopted, ()) = tokio::join!(adopt(&params, OURS, interrupted, tell), people);
    assert_eq!(adopted.expect_err("interrupted").to_string(), COMMAND);
}
