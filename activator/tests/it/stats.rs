//! Stats that reach the autoscaler, and when.

use pilotlight_telemetry::Registry;
use tokio::net::TcpSocket;

use crate::harness::*;

#[tokio::test]
async fn the_first_request_is_announced_at_once_and_waiting_ones_are_repeated() {
    let autoscaler = FakeAutoscaler::start().await;
    let target = autoscaler.target();
    let world = World::start_with(revision(0), |params| params.autoscaler = target).await;
    eventually("the autoscaler is connected", || world.activator.connected()).await;
    let waiting = world.get_queued("/").await;
    eventually("the announcement", || autoscaler.heard().first() == Some(&(1.0, 1.0))).await;
    // The first sample leaves the announced request out; from the second on, each one wakes.
    eventually("two samples", || autoscaler.heard().len() >= 3).await;
    assert_eq!(autoscaler.heard()[1..3], [(0.0, 0.0), (1.0, 0.0)]);
    assert!(autoscaler.reporters().iter().all(|name| name == "act"));

    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(waiting).await.0, 200);
    eventually("the last word is zero", || autoscaler.heard().last() == Some(&(0.0, 0.0))).await;
}

#[tokio::test]
async fn samples_do_not_share_a_second() {
    let autoscaler = FakeAutoscaler::start().await;
    let target = autoscaler.target();
    let world = World::start_with(revision(0), |params| params.autoscaler = target).await;
    eventually("the autoscaler is connected", || world.activator.connected()).await;
    let clock = pilotlight_net::Clock::start();
    let _waiting = world.get_queued("/").await;
    let mut seen = 1;
    for _ in 0..2 {
        eventually("a sample", || autoscaler.heard().len() > seen).await;
        seen = autoscaler.heard().len();
        let into_second = clock.now().as_nanos() % 1_000_000_000;
        assert!((500_000_000..990_000_000).contains(&into_second), "{into_second} ns into the second");
    }
}

#[tokio::test]
async fn an_autoscaler_that_comes_back_hears_at_once_of_those_who_wait() {
    let (address, listener) = listen().await;
    let autoscaler = FakeAutoscaler::on(listener);
    let target = autoscaler.target();
    let world = World::start_with(revision(0), |params| params.autoscaler = target).await;
    eventually("the autoscaler is connected", || world.activator.connected()).await;
    assert_eq!(world.activator.check(), Ok(()));
    autoscaler.kill().await;
    eventually("the loss is noticed", || !world.activator.connected()).await;
    assert_eq!(world.activator.check(), Err("connection has not yet been established"));

    // Announced to nobody.
    let waiting = [world.get_queued("/").await, world.get_queued("/").await];
    assert!(world.activator.ledger().stats_dropped >= 1);

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let autoscaler = FakeAutoscaler::on(socket.listen(16).unwrap());
    eventually("the new one hears", || !autoscaler.heard().is_empty()).await;
    let (concurrency, _) = autoscaler.heard()[0];
    assert!(concurrency > 0.0, "the first word must wake: {:?}", autoscaler.heard());
    assert!(world.activator.connected());
    eventually("samples go on", || autoscaler.heard().contains(&(2.0, 0.0))).await;

    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    for response in waiting {
        assert_eq!(outcome(response).await.0, 200);
    }
}

#[tokio::test]
async fn metrics_have_knatives_names_and_a_deleted_revision_is_told_no_more() {
    let metrics = Registry::new();
    // This test's runtime has one thread, so everything below records here.
    let _recording = ::metrics::set_default_local_recorder(&metrics);
    let autoscaler = FakeAutoscaler::start().await;
    let target = autoscaler.target();
    let world = World::start_with(revision(1), |params| params.autoscaler = target).await;
    let labels = "{otel_scope_name=\"knative.dev/serving/pkg/activator\",k8s_namespace_name=\"default\",kn_revision_name=\"hello\"}";
    let shows = |name: &str, labels: &str, value: &str| {
        let line = format!("{name}{labels} {value}\n");
        metrics.render().contains(&line)
    };
    let pod = FakePod::start_blocked().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    let running = world.get();
    eventually("it runs", || world.active() == 1).await;
    let waiting = world.get_queued("/").await;
    assert!(shows("kn_revision_request_active", labels, "1"), "{}", metrics.render());
    assert!(shows("kn_revision_request_queued", labels, "1"), "{}", metrics.render());
    eventually("connected", || shows("kn_activator_stats_conn_reachable", "{peer=\"autoscaler\"}", "1"))
        .await;
    eventually("a sample", || shows("kn_revision_request_concurrency", labels, "2")).await;

    pod.may_answer.add_permits(2);
    for response in [running, waiting] {
        assert_eq!(outcome(response).await.0, 200);
    }
    let answered = "{otel_scope_name=\"knative.dev/serving/pkg/activator\",k8s_namespace_name=\"default\",kn_revision_name=\"hello\",http_request_method=\"GET\",\
                    http_response_status_code=\"200\"}";
    eventually("both are recorded", || shows("http_server_request_duration_seconds_count", answered, "2"))
        .await;

    world.delete_revision();
    eventually("its series are gone", || !metrics.render().contains("kn_revision_name")).await;
    assert!(shows("kn_activator_stats_conn_reachable", "{peer=\"autoscaler\"}", "1"), "others stay");
}
