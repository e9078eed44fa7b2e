//! Requests that are no demand: at zero the activator answers them, and otherwise they pass uncounted.

use std::sync::Arc;

use http::Request as HttpRequest;
use pilotlight_activator::{IgnoreRule, IgnoreRules, PortSettings};
use pilotlight_net::{Body, Request};

use crate::harness::*;

fn check(path: &str, user_agent: &str) -> Request {
    let request = HttpRequest::builder().uri(path).header("host", "web").header("user-agent", user_agent);
    request.body(Body::empty()).unwrap()
}

fn ignoring(path: &str) -> PortSettings {
    let rule = IgnoreRule { path: Some(path.to_owned()), user_agent: None };
    PortSettings { ignore: Arc::new(IgnoreRules::new([rule])), ..PortSettings::default() }
}

#[tokio::test]
async fn at_zero_a_health_check_is_answered_and_wakes_nothing() {
    let autoscaler = FakeAutoscaler::start().await;
    let target = autoscaler.target();
    let world = World::start_with(revision(0), |params| params.autoscaler = target).await;
    eventually("the autoscaler is connected", || world.activator.connected()).await;
    let port = world.open_port(ignoring("/status")).await;
    for request in [check("/", "kube-probe/1.36"), check("/", "GoogleHC/1.0"), check("/status?x", "curl")] {
        assert_eq!(outcome(port.send(request)).await, (200, String::new()));
    }
    assert_eq!(world.activator.ledger().total.requests, 0);
    // The request behind them is the first that the autoscaler hears of.
    let waiting = port.send(check("/", "curl"));
    eventually("it is told", || !autoscaler.heard().is_empty()).await;
    assert_eq!((autoscaler.heard()[0], world.queued()), ((1.0, 1.0), 1));
    waiting.abort();
}

#[tokio::test]
async fn before_anything_is_known_a_health_check_is_answered_at_once() {
    let world = World::start_uninformed().await;
    let port = world.open_port(PortSettings::default()).await;
    assert_eq!(outcome(port.send(check("/", "Envoy/HC"))).await, (200, String::new()));
}

#[tokio::test]
async fn with_a_pod_a_health_check_is_forwarded_and_not_counted() {
    let world = World::start(revision(1)).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_with_port(pod.address)]);
    let port = world.open_port(PortSettings::default()).await;
    assert_eq!(outcome(port.send(check("/a", "kube-probe/1.36"))).await, (200, "pod".to_owned()));
    assert_eq!(
        (pod.paths(), pod.header("user-agent")),
        (vec!["/a".to_owned()], "kube-probe/1.36".to_owned())
    );
    let ledger = world.activator.ledger().total;
    assert_eq!((ledger.requests, ledger.statuses.len(), ledger.abandoned), (0, 0, 0));
    eventually("its place is free again", || world.active() == 0).await;
}

#[tokio::test]
async fn a_health_check_never_waits_for_a_place_at_a_pod() {
    let world = World::start(revision(1)).await;
    let pod = FakePod::start_blocked().await;
    world.set(|revision| revision.ready = vec![pod_with_port(pod.address)]);
    let port = world.open_port(PortSettings::default()).await;
    let running = port.send(check("/", "curl"));
    eventually("it is at the pod", || world.active() == 1).await;
    assert_eq!(outcome(port.send(check("/", "kube-probe/1.36"))).await, (200, String::new()));
    pod.may_answer.add_permits(1);
    assert_eq!(outcome(running).await.0, 200);
    assert_eq!(pod.paths().len(), 1);
}

#[tokio::test]
async fn a_health_check_whose_pod_is_gone_is_answered() {
    let world = World::start(revision(0)).await;
    world.set(|revision| revision.ready = vec![pod_with_port(([127, 0, 0, 1], 9).into())]);
    let port = world.open_port(PortSettings::default()).await;
    assert_eq!(outcome(port.send(check("/", "kube-probe/1.36"))).await, (200, String::new()));
}

#[tokio::test]
async fn settings_hold_for_connections_that_come_in_later() {
    let world = World::start(revision(0)).await;
    let port = world.open_port(PortSettings::default()).await;
    let waiting = port.send(check("/status", "curl"));
    eventually("it waits", || world.queued() == 1).await;
    port.settings.send_replace(Arc::new(ignoring("/status")));
    assert_eq!(outcome(port.send(check("/status", "curl"))).await, (200, String::new()));
    assert_eq!(world.queued(), 1);
    waiting.abort();
}
