//! Revisions that change, go and come back while requests wait for them or run.

use std::pin::pin;

use futures_util::FutureExt;
use http::{Method, StatusCode};
use pilotlight_core::{PodEndpoint, PodTimeline, Stat, Time, Timeouts};
use pilotlight_feed::Change;
use tokio::time::sleep;

use super::*;
use crate::activator::ActivatorState;
use crate::revision::RevisionTraffic;

/// The state of an activator by itself, with one revision.
struct Script {
    state: ActivatorState,
    id: Arc<RevisionId>,
}

impl Script {
    fn new(hello: RevisionEndpoints) -> Script {
        let script = Script { state: ActivatorState::new(params()), id: Arc::new(id("hello")) };
        script.state.apply(Change::Complete);
        script.set(hello);
        script
    }

    fn set(&self, hello: RevisionEndpoints) {
        self.state.apply(Change::Set(Arc::clone(&self.id), Arc::new(hello)));
    }

    fn delete(&self) {
        self.state.apply(Change::Gone(Arc::clone(&self.id)));
    }

    /// The names of all revisions that are not retired.
    fn names(&self) -> Vec<String> {
        self.state.all_revisions().iter().map(|revision| revision.id().name.clone()).collect()
    }
}

/// The revision with one pod that takes so many requests at once.
fn with_pod(container_concurrency: u32) -> RevisionEndpoints {
    let pod = PodEndpoint {
        name: "pod-1".to_owned(),
        address: ([10, 0, 0, 1], 8012).into(),
        tls_address: None,
        ports: Arc::default(),
        timeline: PodTimeline::default(),
    };
    RevisionEndpoints {
        container_concurrency: container_concurrency.into(),
        ready: vec![pod],
        ..revision("hello")
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_concurrency_that_changes_holds_for_those_who_wait() {
    let script = Script::new(with_pod(1));
    let throttler = Arc::clone(script.state.all_revisions()[0].throttler());
    let places = [(); 5].map(|()| throttler.arrive(&None));
    let mut waiting: Vec<_> = places.iter().map(|place| place.slot().boxed()).collect();
    let mut running = Vec::new();
    // Lets those run whose turn has come. How many run then?
    let mut running_with = |running: &mut Vec<_>, endpoints| {
        script.set(endpoints);
        waiting.retain_mut(|slot| match slot.now_or_never() {
            Some(slot) => {
                running.push(slot.unwrap());
                false
            }
            None => true,
        });
        running.len()
    };
    assert_eq!(running_with(&mut running, with_pod(1)), 1);
    assert_eq!(running_with(&mut running, with_pod(2)), 2);
    assert_eq!(running_with(&mut running, with_pod(0)), 5, "no limit");
    script.set(with_pod(1));
    let late = throttler.arrive(&None);
    let mut late = pin!(late.slot());
    while let Some(slot) = running.pop() {
        assert!(late.as_mut().now_or_never().is_none(), "one at a time, and there are more");
        drop(slot);
    }
    assert_eq!(late.await.unwrap().pod.name, "pod-1");
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_that_changes_holds_for_those_who_come_later() {
    let (activator, feed, _autoscaler) = start(&["hello"]).await;
    let limited = |secs| RevisionEndpoints {
        timeouts: Timeouts::total(Duration::from_secs(secs)),
        ..revision("hello")
    };
    feed.set(id("hello"), limited(10));
    activator.caught_up().await;
    let began = Instant::now();
    let early = request(&activator, "hello");
    sleep(Duration::from_secs(1)).await;
    feed.set(id("hello"), limited(2));
    activator.caught_up().await;
    let late = request(&activator, "hello");
    for (request, seconds) in [(late, 3), (early, 10)] {
        assert_eq!(request.await.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!((Instant::now() - began).as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_that_change_lead_elsewhere_at_once_and_nobody_who_waits_is_lost() {
    let (activator, feed, _autoscaler) = start(&["blue", "green"]).await;
    let waiting = |name| activator.activity()[&id(name)].queued;
    let first = request(&activator, "blue");
    sleep(millis(1)).await;
    let both = RevisionEndpoints { hosts: vec!["green".into(), "blue".into()], ..revision("green") };
    feed.set(id("blue"), RevisionEndpoints { hosts: vec![], ..revision("blue") });
    feed.set(id("green"), both);
    activator.caught_up().await;
    let second = request(&activator, "blue");
    sleep(millis(1)).await;
    assert_eq!((waiting("blue"), waiting("green")), (1, 1));
    leave(first).await;
    leave(second).await;
}

#[tokio::test(start_paused = true)]
async fn where_pods_are_at_work_a_new_connection_changes_nothing_about_the_reports() {
    let script = Script::new(with_pod(0));
    let (state, clock) = (&script.state, script.state.params.clock);
    let second = clock.now().whole_seconds() + 1;
    let at = |millis: u64| Time::from_millis(second * 1000 + millis);
    let averages = |stats: Vec<(RevisionId, Stat)>| -> Vec<f64> {
        stats.iter().map(|(_, stat)| (stat.average_concurrent_requests * 1e2).round() / 1e2).collect()
    };
    sleep_until(clock.instant_at(at(0))).await;
    let hello = state.all_revisions().remove(0);
    let _running = [(); 3].map(|()| {
        let (exchange, announcement) = hello.begin(clock, Method::GET);
        if let Some(stat) = announcement {
            state.announce(&hello, stat);
        }
        exchange
    });
    // Half a second of three, one of which was announced. A timer may be late by a millisecond.
    assert_eq!(averages(state.reporting.report(at(500))), [0.5]);
    assert!(state.reporting.resync(at(700)).is_empty(), "three would be told of twice in this second");
    assert!(state.reporting.report(at(900)).is_empty(), "this second has its report");
    assert_eq!(averages(state.reporting.report(at(1500))), [3.0]);
    // Without pods the requests wait for one.
    script.set(revision("hello"));
    assert_eq!(averages(state.reporting.resync(at(2100))), [3.0]);
    assert!(state.reporting.report(at(2500)).is_empty(), "this second has its report");
    assert_eq!(averages(state.reporting.report(at(3500))), [3.0]);
}

#[test]
fn a_deleted_revision_is_retired_when_its_last_request_is_over() {
    let script = Script::new(with_pod(1));
    script.state.apply(Change::Set(Arc::new(id("other")), Arc::new(revision("other"))));
    let is_hello = |revision: &Arc<RevisionTraffic>| revision.id().name == "hello";
    let hello = script.state.all_revisions().into_iter().find(is_hello).unwrap();
    let (exchange, _) = hello.begin(script.state.params.clock, Method::GET);
    script.delete();
    script.state.retire();
    assert_eq!(script.names(), ["other", "hello"], "a request is under way");
    drop(exchange);
    script.state.retire();
    assert_eq!(script.names(), ["other"]);
}

#[test]
fn a_revision_that_is_created_again_in_time_keeps_its_line_and_its_books() {
    let script = Script::new(with_pod(1));
    let hello = script.state.all_revisions().remove(0);
    let (exchange, _) = hello.begin(script.state.params.clock, Method::GET);
    script.delete();
    script.state.retire();
    script.set(with_pod(1));
    drop(exchange);
    script.state.retire();
    assert!(Arc::ptr_eq(&hello, &script.state.all_revisions()[0]));
    script.delete();
    script.state.retire();
    script.set(with_pod(1));
    assert!(!Arc::ptr_eq(&hello, &script.state.all_revisions()[0]), "too late: a new one");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_deleted_revision_are_answered_at_once() {
    let (activator, feed, mut autoscaler) = start(&["hello"]).await;
    let mut connection = autoscaler.accept().await;
    let waiting = request(&activator, "hello");
    connection.expect(&[("hello", 1.0, 1.0)]).await;
    feed.remove(&id("hello"));
    assert_eq!(waiting.await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(request(&activator, "hello").await.unwrap().status(), StatusCode::NOT_FOUND);
    sleep(Duration::from_secs(1)).await;
    assert!(activator.activity().is_empty());
    assert_eq!(activator.shared.reporting.len(), 0);
    assert_eq!(activator.ledger().revisions[&id("hello")].requests, 1, "its books are kept");
}
