//! Queues of requests in front of pods that come, go and refuse connections.

use std::net::SocketAddr;
use std::pin::pin;

use futures_util::FutureExt;
use pilotlight_core::backends::Destinations;
use pilotlight_core::balance::{FIRST_PAUSE, pod_owner};
use pilotlight_core::{Place, PodEndpoint, PodSharing, PodTimeline, RevisionEndpoints};

use super::*;

fn throttler(queue_depth: usize, total: usize) -> Arc<Throttler> {
    Throttler::new(Clock::start(), queue_depth, Backlog::new(total), Gauge::noop(), Gauge::noop())
}

fn endpoints(container_concurrency: u32, ports: &[u16]) -> RevisionEndpoints {
    let pod = |port: &u16| PodEndpoint {
        name: format!("pod-{port}"),
        address: SocketAddr::from(([127, 0, 0, 1], *port)),
        tls_address: None,
        ports: Arc::default(),
        timeline: PodTimeline::default(),
    };
    RevisionEndpoints {
        container_concurrency: container_concurrency.into(),
        ready: ports.iter().map(pod).collect(),
        ..RevisionEndpoints::default()
    }
}

/// Supplies all ready pods, unprobed.
fn list(throttler: &Arc<Throttler>, endpoints: &RevisionEndpoints) {
    let pods = endpoints.ready.iter().map(|pod| pod.address).collect();
    supply(throttler, endpoints, &Destinations::Pods(pods), Place::default());
}

fn supply(
    throttler: &Arc<Throttler>,
    endpoints: &RevisionEndpoints,
    destinations: &Destinations,
    place: Place,
) {
    throttler.update(Some(Supply { endpoints, destinations, place, own: None }));
}

fn gives_up() -> Trouble {
    Trouble {
        reason: pilotlight_core::TroubleReason::Exited,
        message: "the process exited".to_owned(),
        exit_code: Some(1),
        log_tail: vec![],
        failures: 3,
        retry_at: None,
        on_demand_at: None,
        give_up: true,
    }
}

#[tokio::test]
async fn requests_wait_until_pods_come_and_go_in_order() {
    let throttler = throttler(10, 10);
    let places = [throttler.arrive(&None), throttler.arrive(&None), throttler.arrive(&None)];
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
    let place = throttler.arrive(&None);
    let mut waiter = Box::pin(place.slot());
    assert!(waiter.as_mut().now_or_never().is_none());
    let late = throttler.arrive(&None);
    assert!(matches!(late.slot().now_or_never(), Some(Err(Refusal::QueueFull))));
    drop(waiter);
    assert_eq!(throttler.queued_and_active(), (0, 0));
    assert!(late.slot().now_or_never().is_none(), "there is room again");
}

#[tokio::test]
async fn the_total_is_shared_between_revisions() {
    let backlog = Backlog::new(1);
    let one = Throttler::new(Clock::start(), 10, Arc::clone(&backlog), Gauge::noop(), Gauge::noop());
    let other = Throttler::new(Clock::start(), 10, backlog, Gauge::noop(), Gauge::noop());
    let place = one.arrive(&None);
    let mut waiter = Box::pin(place.slot());
    assert!(waiter.as_mut().now_or_never().is_none());
    let place = other.arrive(&None);
    assert!(matches!(place.slot().now_or_never(), Some(Err(Refusal::QueueFull))));
}

#[tokio::test]
async fn a_waiter_that_leaves_after_it_was_called_passes_its_pod_on() {
    let throttler = throttler(10, 10);
    let places = [throttler.arrive(&None), throttler.arrive(&None)];
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
    let place = throttler.arrive(&None);
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

#[tokio::test(start_paused = true)]
async fn requests_refused_together_keep_their_places_and_cost_one_pause() {
    let throttler = throttler(10, 10);
    list(&throttler, &endpoints(2, &[1]));
    let [first, second, late] = [throttler.arrive(&None), throttler.arrive(&None), throttler.arrive(&None)];
    let slots = [&first, &second].map(|place| place.try_slot().unwrap().unwrap());
    let mut late = pin!(late.slot());
    assert!(late.as_mut().now_or_never().is_none());
    // The pod dies and refuses both, which is a pause of 10 ms; then it refuses the first alone: 20 ms.
    slots.into_iter().for_each(Slot::pod_refused);
    let mut second = pin!(second.slot());
    assert!(second.as_mut().now_or_never().is_none());
    first.slot().await.unwrap().pod_refused();
    let _second = second.await.unwrap();
    let before = tokio::time::Instant::now();
    let _first = first.slot().await.unwrap();
    assert!((FIRST_PAUSE * 2..FIRST_PAUSE * 3).contains(&before.elapsed()));
    assert!(late.now_or_never().is_none(), "a latecomer must not overtake");
}

#[tokio::test]
async fn giving_up_and_deletion_answer_everybody_at_once() {
    let throttler = throttler(10, 10);
    let place = throttler.arrive(&None);
    let mut waiter = pin!(place.slot());
    assert!(waiter.as_mut().now_or_never().is_none());
    list(&throttler, &RevisionEndpoints { trouble: Some(gives_up()), ..endpoints(0, &[]) });
    assert!(matches!(waiter.await, Err(Refusal::Trouble(trouble)) if trouble.exit_code == Some(1)));
    assert!(matches!(throttler.arrive(&None).slot().await, Err(Refusal::Trouble(_))));
    // A request that comes when a start is tried on demand waits for it.
    let on_demand = Trouble { on_demand_at: Some(Time::EPOCH), ..gives_up() };
    list(&throttler, &RevisionEndpoints { trouble: Some(on_demand), ..endpoints(0, &[]) });
    assert!(throttler.arrive(&None).slot().now_or_never().is_none());
    // A pod that is ready makes up for one that is not.
    list(&throttler, &RevisionEndpoints { trouble: Some(gives_up()), ..endpoints(0, &[1]) });
    assert!(throttler.arrive(&None).slot().await.is_ok());
    throttler.update(None);
    assert!(matches!(throttler.arrive(&None).slot().await, Err(Refusal::Deleted)));
}

#[tokio::test]
async fn whoever_waited_longest_wakes() {
    let throttler = throttler(10, 10);
    let places = [throttler.arrive(&None), throttler.arrive(&None), throttler.arrive(&None)];
    let mut first = Box::pin(places[0].slot());
    let mut second = Box::pin(places[1].slot());
    let mut third = Box::pin(places[2].slot());
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    assert!(third.as_mut().now_or_never().is_none());
    list(&throttler, &endpoints(0, &[1]));
    // The order in which the waiting tasks run does not matter.
    assert!(!third.await.unwrap().take_wake());
    let mut slot = first.await.unwrap();
    assert!(slot.take_wake());
    assert!(!slot.take_wake(), "once");
    assert!(!second.await.unwrap().take_wake());
}

#[tokio::test]
async fn a_waker_that_sends_nothing_hands_the_part_on() {
    let throttler = throttler(10, 10);
    let places = [throttler.arrive(&None), throttler.arrive(&None)];
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
    let early = throttler.arrive(&None);
    list(&throttler, &endpoints(0, &[2]));
    assert!(early.found_no_pods());
    assert!(!early.slot().await.unwrap().take_wake());
    assert!(!throttler.arrive(&None).found_no_pods());
}

/// Pods with addresses that sort by their number.
fn pods_of(container_concurrency: u32, pods: u16) -> RevisionEndpoints {
    let ports: Vec<u16> = (1..=pods).map(|port| 8000 + port).collect();
    endpoints(container_concurrency, &ports)
}

fn place(index: usize, activators: usize) -> Place {
    Place { index: Some(index), activators }
}

fn all(endpoints: &RevisionEndpoints) -> Destinations {
    Destinations::Pods(endpoints.ready.iter().map(|pod| pod.address).collect())
}

fn cluster_ip(ready: usize) -> Destinations {
    Destinations::ClusterIp { address: SocketAddr::from(([10, 96, 0, 1], 80)), ready }
}

/// Takes every slot there is, up to a thousand.
fn fill(throttler: &Arc<Throttler>) -> Vec<Slot> {
    let slots = std::iter::from_fn(|| throttler.arrive(&None).try_slot().map(Result::unwrap));
    slots.take(1000).collect()
}

fn ports(slots: &[Slot]) -> Vec<u16> {
    slots.iter().map(|slot| slot.pod.address.port() - 8000).collect()
}

#[tokio::test]
async fn capacity_behind_a_cluster_ip_is_shared_by_all_activators() {
    let capacity = |limit, ready, activators| {
        let throttler = throttler(10, 10);
        let place = Place { index: None, activators };
        supply(&throttler, &pods_of(limit, 0), &cluster_ip(ready), place);
        fill(&throttler).len()
    };
    assert_eq!(capacity(10, 10, 5), 20);
    assert_eq!(capacity(10, 10, 200), 1);
    assert_eq!(capacity(10, 10, 0), 100);
    assert_eq!(capacity(10, 0, 5), 0);
    assert_eq!(capacity(0, 0, 1), 0);
    assert_eq!([1, 10].map(|ready| capacity(0, ready, 1)), [1000, 1000], "no limit");
}

#[tokio::test]
async fn pods_are_shared_by_all_activators_each_with_its_full_limit() {
    let share = |pods, limit, place| {
        let (throttler, endpoints) = (throttler(10, 10), pods_of(limit, pods));
        supply(&throttler, &endpoints, &all(&endpoints), place);
        let slots = fill(&throttler);
        let mut used = ports(&slots);
        used.sort_unstable();
        used.dedup();
        (slots.len(), used)
    };
    assert_eq!(share(3, 10, place(0, 2)), (20, vec![1, 3]));
    assert_eq!(share(3, 10, place(1, 2)), (10, vec![2]));
    assert_eq!(share(5, 1, place(0, 2)), (3, vec![1, 2, 5]));
    assert_eq!(share(5, 1, place(1, 2)), (2, vec![3, 4]));
    assert_eq!(share(6, 42, place(0, 4)), (84, vec![1, 5]));
    assert_eq!(share(1, 2, place(1, 2)), (2, vec![1]), "the only pod belongs to everybody");
    assert_eq!(share(2, 3, place(2, 3)), (3, vec![1]));
    assert_eq!(share(3, 0, place(1, 2)), (1000, vec![1, 2, 3]), "without a limit there is nothing to share");
    assert_eq!(share(3, 1, Place::default()), (3, vec![1, 2, 3]), "nobody knows our place");
    assert_eq!(share(0, 42, place(0, 4)), (0, vec![]));
}

#[tokio::test]
async fn few_at_a_time_are_packed_and_many_are_spread() {
    let used = |pods, limit| {
        let throttler = throttler(10, 10);
        list(&throttler, &pods_of(limit, pods));
        let slots: Vec<Slot> = (0..3).filter_map(|_| throttler.arrive(&None).try_slot()?.ok()).collect();
        ports(&slots)
    };
    assert_eq!(used(5, 3), [1, 1, 1]);
    assert_eq!(used(3, 5), [1, 2, 3]);
}

#[tokio::test]
async fn the_cluster_ip_takes_the_place_of_every_pod() {
    let throttler = throttler(10, 10);
    supply(&throttler, &pods_of(5, 3), &cluster_ip(3), Place::default());
    let slots = fill(&throttler);
    assert_eq!(slots.len(), 15);
    assert!(slots.iter().all(|slot| slot.pod.address.ip().to_string() == "10.96.0.1"));
    assert_eq!(throttler.in_flight_by_pod(), [("cluster-ip".to_owned(), 15)]);
}

#[tokio::test]
async fn only_usable_pods_are_used_ready_or_not() {
    let throttler = throttler(10, 10);
    let mut endpoints = pods_of(1, 2);
    endpoints.not_ready = pods_of(1, 4).ready.split_off(2);
    let usable = [endpoints.ready[1].address, endpoints.not_ready[0].address].into();
    supply(&throttler, &endpoints, &Destinations::Pods(usable), Place::default());
    assert_eq!(ports(&fill(&throttler)), [2, 3]);
}

#[tokio::test]
async fn a_pod_listed_twice_has_one_limit() {
    let throttler = throttler(10, 10);
    let mut endpoints = pods_of(2, 1);
    endpoints.not_ready = endpoints.ready.clone();
    list(&throttler, &endpoints);
    assert_eq!(fill(&throttler).len(), 2);
}

#[tokio::test]
async fn requests_at_pods_that_are_not_ours_any_more_end_there() {
    let (throttler, endpoints) = (throttler(10, 10), pods_of(1, 4));
    supply(&throttler, &endpoints, &all(&endpoints), place(0, 1));
    let slots = fill(&throttler);
    assert_eq!(ports(&slots), [1, 2, 3, 4]);
    // Another activator comes: pods 3 and 4 are its own now.
    supply(&throttler, &endpoints, &all(&endpoints), place(0, 2));
    assert_eq!(throttler.queued_and_active(), (0, 4));
    let [one, _two, three, four] = <[Slot; 4]>::try_from(slots).unwrap();
    drop(three);
    assert!(throttler.arrive(&None).try_slot().is_none(), "pod 3 is not ours");
    drop(one);
    let again = throttler.arrive(&None).try_slot().unwrap().unwrap();
    assert_eq!(again.pod.name, "pod-8001");
    // The other goes: what pod 4 still carries of ours counts against its limit.
    supply(&throttler, &endpoints, &all(&endpoints), place(0, 1));
    assert_eq!(ports(&fill(&throttler)), [3]);
    drop(four);
    assert_eq!(ports(&fill(&throttler)), [3, 4]);
}

#[tokio::test]
async fn of_pods_with_owners_those_of_others_are_used_only_without_one_of_our_own() {
    let throttler = throttler(10, 10);
    let port: PortName = Some("web/http".into());
    let [own, other] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
    let mut all = pods_of(2, 20);
    all.sharing = PodSharing::Owned;
    all.activators = [own, other].into();
    all.ready.iter_mut().for_each(|pod| pod.ports = Arc::new([("web/http".to_owned(), 1)].into()));
    let is_ours = |pod: &PodEndpoint| pod_owner(pod.address, &[own, other].into()) == Some(own);
    let ours: Vec<String> = all.ready.iter().filter(|pod| is_ours(pod)).map(|pod| pod.name.clone()).collect();
    assert!((1..20).contains(&ours.len()), "{ours:?}");
    let own_of = |all: &RevisionEndpoints| {
        let pods = all.ready.iter().map(|pod| pod.address).collect();
        let (place, destinations) = (Place::default(), Destinations::Pods(pods));
        throttler.update(Some(Supply { endpoints: all, destinations: &destinations, place, own: Some(own) }));
    };
    let fill = |port: &PortName| -> Vec<Slot> {
        std::iter::from_fn(|| throttler.arrive(port).try_slot().map(Result::unwrap)).collect()
    };
    own_of(&all);
    let slots = fill(&port);
    assert!(slots.iter().all(|slot| slot.pod.owner.is_none()));
    let mut names: Vec<String> = slots.iter().map(|slot| slot.pod.name.clone()).collect();
    names.sort();
    assert_eq!(names, ours.iter().flat_map(|name| [name.clone(), name.clone()]).collect::<Vec<_>>());
    drop(slots);

    all.ready.retain(|pod| !is_ours(pod));
    own_of(&all);
    let slots = fill(&port);
    assert_eq!(slots.len(), all.ready.len() * 2, "no more are handed on than the others' pods take");
    let at = |slot: &Slot| (slot.pod.owner, slot.pod.address_for(&port, 12_345));
    assert!(slots.iter().all(|slot| at(slot) == (Some(other), SocketAddr::new(other, 12_345))));
    assert!(fill(&None).is_empty(), "an owner could not tell whose a request at a shared port is");
    drop(slots);

    all.container_concurrency = 0.into();
    own_of(&all);
    let slot = throttler.arrive(&port).try_slot().unwrap().unwrap();
    assert_eq!(slot.pod.owner, None, "without a limit everybody sends to every pod");
}

#[tokio::test]
async fn waiters_are_called_when_the_share_grows() {
    let (throttler, endpoints) = (throttler(10, 10), pods_of(1, 2));
    supply(&throttler, &endpoints, &all(&endpoints), place(0, 2));
    let _busy = fill(&throttler);
    let late = throttler.arrive(&None);
    let mut waiter = pin!(late.slot());
    assert!(waiter.as_mut().now_or_never().is_none());
    supply(&throttler, &endpoints, &all(&endpoints), place(0, 1));
    assert_eq!(waiter.await.unwrap().pod.name, "pod-8002");
}
