//! Lines of requests in front of pods that come, go and refuse.

use std::pin::pin;

use futures_util::FutureExt;

use super::*;

fn throttler(queue_depth: usize, total: usize) -> Arc<Throttler> {
    Throttler::new(queue_depth, Backlog::new(total), Gauge::noop(), Gauge::noop())
}

fn endpoints(container_concurrency: u32, ports: &[u16]) -> RevisionEndpoints {
    let pod = |port: &u16| PodEndpoint {
        name: format!("pod-{port}"),
        address: SocketAddr::from(([127, 0, 0, 1], *port)),
        timeline: PodTimeline::default(),
    };
    RevisionEndpoints {
        container_concurrency,
        ready: ports.iter().map(pod).collect(),
        ..RevisionEndpoints::default()
    }
}

/// What a table gives whose pods are taken at their word.
fn list(throttler: &Arc<Throttler>, endpoints: &RevisionEndpoints) {
    let pods = endpoints.ready.iter().map(|pod| pod.address).collect();
    supply(throttler, endpoints, &Destinations::Pods(pods), ActivatorPlace::default());
}

fn supply(
    throttler: &Arc<Throttler>,
    endpoints: &RevisionEndpoints,
    destinations: &Destinations,
    place: ActivatorPlace,
) {
    throttler.update(Some(Supply { endpoints, destinations, place }));
}

fn gives_up() -> Trouble {
    Trouble {
        reason: "exited".to_owned(),
        message: "the process exited".to_owned(),
        exit_code: Some(1),
        log_tail: vec![],
        failures: 3,
        retry_at: None,
        give_up: true,
    }
}

#[tokio::test]
async fn requests_wait_until_pods_come_and_go_in_order() {
    let throttler = throttler(10, 10);
    let places = [throttler.arrive(), throttler.arrive(), throttler.arrive()];
    let mut first = pin!(places[0].slot());
    let mut second = pin!(places[1].slot());
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    list(&throttler, &endpoints(1, &[1]));
    let slot = first.await.unwrap();
    assert!(second.as_mut().now_or_never().is_none());
    assert!(places[2].try_slot().is_none(), "a newcomer must not overtake");
    drop(slot);
    assert_eq!(second.await.unwrap().pod.name, "pod-1");
}

#[tokio::test]
async fn a_waiter_that_leaves_frees_its_place_in_both_counts() {
    let throttler = throttler(1, 1);
    let place = throttler.arrive();
    let mut waiter = Box::pin(place.slot());
    assert!(waiter.as_mut().now_or_never().is_none());
    let late = throttler.arrive();
    assert!(matches!(late.slot().now_or_never(), Some(Err(Refusal::QueueFull))));
    drop(waiter);
    assert_eq!(throttler.queued_and_active(), (0, 0));
    assert!(late.slot().now_or_never().is_none(), "there is room again");
}

#[tokio::test]
async fn the_total_is_shared_between_revisions() {
    let backlog = Backlog::new(1);
    let one = Throttler::new(10, Arc::clone(&backlog), Gauge::noop(), Gauge::noop());
    let other = Throttler::new(10, backlog, Gauge::noop(), Gauge::noop());
    let place = one.arrive();
    let mut waiter = Box::pin(place.slot());
    assert!(waiter.as_mut().now_or_never().is_none());
    let place = other.arrive();
    assert!(matches!(place.slot().now_or_never(), Some(Err(Refusal::QueueFull))));
}

#[tokio::test]
async fn a_waiter_that_leaves_after_it_was_called_passes_its_pod_on() {
    let throttler = throttler(10, 10);
    let places = [throttler.arrive(), throttler.arrive()];
    let mut first = Box::pin(places[0].slot());
    let mut second = pin!(places[1].slot());
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    list(&throttler, &endpoints(1, &[1]));
    drop(first);
    assert!(second.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_refuses_connections_is_left_alone_for_a_moment() {
    let throttler = throttler(10, 10);
    list(&throttler, &endpoints(0, &[1]));
    let place = throttler.arrive();
    place.slot().await.unwrap().pod_refused();
    assert!(place.try_slot().is_none());
    let before = tokio::time::Instant::now();
    let slot = place.slot().await.unwrap();
    assert!(before.elapsed() >= FIRST_PAUSE);
    slot.pod_refused();
    let before = tokio::time::Instant::now();
    assert!(place.slot().await.is_ok());
    assert!(before.elapsed() >= FIRST_PAUSE * 2);
}

#[tokio::test]
async fn giving_up_and_deletion_answer_everybody_at_once() {
    let throttler = throttler(10, 10);
    let place = throttler.arrive();
    let mut waiter = pin!(place.slot());
    assert!(waiter.as_mut().now_or_never().is_none());
    list(&throttler, &RevisionEndpoints { trouble: Some(gives_up()), ..endpoints(0, &[]) });
    assert!(matches!(waiter.await, Err(Refusal::Trouble(trouble)) if trouble.exit_code == Some(1)));
    assert!(matches!(throttler.arrive().slot().await, Err(Refusal::Trouble(_))));
    // A pod that is ready makes up for one that is not.
    list(&throttler, &RevisionEndpoints { trouble: Some(gives_up()), ..endpoints(0, &[1]) });
    assert!(throttler.arrive().slot().await.is_ok());
    throttler.update(None);
    assert!(matches!(throttler.arrive().slot().await, Err(Refusal::Deleted)));
}

#[tokio::test]
async fn whoever_waited_longest_wakes() {
    let throttler = throttler(10, 10);
    let places = [throttler.arrive(), throttler.arrive(), throttler.arrive()];
    let mut first = Box::pin(places[0].slot());
    let mut second = Box::pin(places[1].slot());
    let mut third = Box::pin(places[2].slot());
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    assert!(third.as_mut().now_or_never().is_none());
    list(&throttler, &endpoints(0, &[1]));
    // Whatever the order in which the waiters get to run.
    assert!(!third.await.unwrap().take_wake());
    let mut slot = first.await.unwrap();
    assert!(slot.take_wake());
    assert!(!slot.take_wake(), "once");
    assert!(!second.await.unwrap().take_wake());
}

#[tokio::test]
async fn a_waker_that_sends_nothing_hands_the_part_on() {
    let throttler = throttler(10, 10);
    let places = [throttler.arrive(), throttler.arrive()];
    let mut first = Box::pin(places[0].slot());
    let mut second = Box::pin(places[1].slot());
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    list(&throttler, &endpoints(1, &[1]));
    drop(first);
    assert!(second.await.unwrap().take_wake());
}

#[tokio::test]
async fn pods_that_come_up_with_nobody_waiting_wake_nobody() {
    let throttler = throttler(10, 10);
    let early = throttler.arrive();
    list(&throttler, &endpoints(0, &[2]));
    assert!(early.found_no_pods());
    assert!(!early.slot().await.unwrap().take_wake());
    assert!(!throttler.arrive().found_no_pods());
}
