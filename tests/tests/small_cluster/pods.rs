//! Pods start, are probed, crash, and end as a kubelet has it.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use kube::ResourceExt;
use kube::api::ListParams;
use pilotlight_tests::cluster::images;
use pilotlight_tests::eventually;
use rustix::process::Signal;
use serde_json::json;

use crate::support::{Fixture, SOON, deployment, is_ready, names, service, state, waits_for, web};

#[tokio::test]
async fn a_pod_is_ready_only_when_its_probe_has_succeeded() {
    let fixture = Fixture::start().await;
    let begun = Instant::now();
    fixture.create::<Deployment>(deployment("slow", 1, &["--startup", "1500ms"])).await;
    let runs = |pods: &[Pod]| pods.iter().any(|pod| state(pod).running.is_some());
    let pods = fixture.pods_until("the container runs", "slow", runs).await;
    let status = pods[0].status.clone().unwrap();
    assert_eq!((status.phase.as_deref(), is_ready(&pods[0])), (Some("Running"), false));
    assert!(status.pod_ip.is_some() && status.start_time.is_some());
    fixture.has_ready("slow", 1).await;
    assert!(begun.elapsed() >= Duration::from_millis(1500), "ready before the app listened");
}

#[tokio::test]
async fn an_app_that_stops_answering_leaves_the_endpoints_and_comes_back() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    let pod = names(&fixture.pods("web").await).remove(0);
    assert!(fixture.cluster.kubelet.signal(&fixture.namespace, &pod, "app", Signal::STOP));
    fixture.until::<Pod>("the pod is not ready", &pod, |pod| !is_ready(pod)).await;
    eventually("the Service refuses", SOON, async || fixture.is_refused("web").await.then_some(())).await;
    assert!(fixture.cluster.kubelet.signal(&fixture.namespace, &pod, "app", Signal::CONT));
    fixture.until::<Pod>("the pod is ready again", &pod, is_ready).await;
    assert_eq!(fixture.answers("web").await, pod);
}

#[tokio::test]
async fn a_container_that_is_killed_is_restarted_at_once() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    let pod = names(&fixture.pods("web").await).remove(0);
    assert!(fixture.cluster.kubelet.signal(&fixture.namespace, &pod, "app", Signal::KILL));
    let is_back = |pod: &Pod| is_ready(pod) && restarts(pod) == 1;
    let pod = fixture.until::<Pod>("it has been restarted", &pod, is_back).await;
    let last =
        pod.status.unwrap().container_statuses.unwrap()[0].last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("Error")));
    fixture.answers("web").await;
}

#[tokio::test]
async fn a_container_that_crashes_again_and_again_is_backed_off() {
    let fixture = Fixture::start().await;
    let args = ["--exit-after", "50ms", "--exit-code", "3"];
    fixture.create::<Deployment>(deployment("crash", 1, &args)).await;
    let loops =
        |pods: &[Pod]| pods.iter().any(|pod| waits_for(pod) == "CrashLoopBackOff" && restarts(pod) >= 2);
    let pods = fixture.pods_until("it is backed off", "crash", loops).await;
    let status = pods[0].status.clone().unwrap();
    let last = status.container_statuses.unwrap()[0].last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(last.exit_code, 3);
    assert!(last.message.unwrap().contains("exiting with 3"), "the last lines of the log are the message");
    // Both states of a container that has run count as running.
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_tried_again_and_an_event_says_so() {
    let fixture = Fixture::start().await;
    let mut missing = deployment("missing", 1, &[]);
    missing["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/none:1".into();
    fixture.create::<Deployment>(missing).await;
    let waits = |pods: &[Pod]| pods.iter().any(|pod| waits_for(pod) == "ImagePullBackOff");
    let pods = fixture.pods_until("the pull is backed off", "missing", waits).await;
    assert_eq!(pods[0].status.as_ref().unwrap().phase.as_deref(), Some("Pending"));
    let events = fixture.api::<Event>();
    let says_so = async || {
        let all = events.list(&ListParams::default()).await.expect("a list").items;
        let is_it = |event: &Event| {
            event.reason.as_deref() == Some("Failed") && event.involved_object.uid == pods[0].uid()
        };
        all.into_iter().find(is_it)
    };
    let event = eventually("an Event says so", SOON, says_so).await;
    assert!(event.message.unwrap().starts_with("Failed to pull image \"registry.example/none:1\""));
    let sample = images().remove("sample").unwrap();
    fixture.cluster.kubelet.add_image("registry.example/none:1", sample);
    fixture.has_ready("missing", 1).await;
}

#[tokio::test]
async fn a_pod_that_ends_finishes_what_it_has_within_its_grace() {
    let fixture = Fixture::start().await;
    web(&fixture, 1).await;
    fixture.answers("web").await;
    let pod = names(&fixture.pods("web").await).remove(0);
    let working = fixture.get("web", "/?sleep=1500");
    let ending = async {
        // The request is inside when the pod says so.
        let inside = async || {
            let answer = fixture.get("web", "/").await.ok()?;
            answer.body.contains("2 in flight").then_some(())
        };
        eventually("the request is inside", SOON, inside).await;
        fixture.patch::<Deployment>("web", json!({ "spec": { "replicas": 0 } })).await;
        fixture
            .until::<Pod>("the pod is told to end", &pod, |pod| pod.metadata.deletion_timestamp.is_some())
            .await;
    };
    let (answer, ()) = tokio::join!(working, ending);
    assert_eq!(answer.expect("a whole answer").status, 200);
    fixture.gone::<Pod>(&pod).await;
}

#[tokio::test]
async fn a_pod_that_does_not_end_is_killed_when_its_grace_is_over() {
    let fixture = Fixture::start().await;
    fixture.create::<Service>(service("web")).await;
    let mut stubborn = deployment("web", 1, &[]);
    stubborn["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1.into();
    fixture.create::<Deployment>(stubborn).await;
    fixture.has_ready("web", 1).await;
    fixture.answers("web").await;
    let pod = names(&fixture.pods("web").await).remove(0);
    let begun = Instant::now();
    let working = fixture.get("web", "/?sleep=60000");
    let ending = async {
        let inside = async || {
            let answer = fixture.get("web", "/").await.ok()?;
            answer.body.contains("2 in flight").then_some(())
        };
        eventually("the request is inside", SOON, inside).await;
        fixture.patch::<Deployment>("web", json!({ "spec": { "replicas": 0 } })).await;
        fixture.gone::<Pod>(&pod).await;
    };
    let (answer, ()) = tokio::join!(working, ending);
    assert!(answer.is_err(), "a minute has not passed");
    assert!(begun.elapsed() >= Duration::from_secs(1), "killed before its grace was over");
}

#[tokio::test]
async fn pods_can_be_made_slow_to_start() {
    let fixture = Fixture::start().await;
    fixture
        .cluster
        .kubelet
        .set_pace(|pace| (pace.pull, pace.start) = (Duration::from_millis(700), Duration::from_millis(300)));
    let begun = Instant::now();
    fixture.create::<Deployment>(deployment("web", 1, &[])).await;
    fixture.has_ready("web", 1).await;
    assert!(
        begun.elapsed() >= Duration::from_secs(1),
        "ready before the image was there and the process started"
    );
}

fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().map(|container| container.restart_count).sum()
}
