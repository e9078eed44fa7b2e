//! Watches: from a version on, through selectors, with bookmarks and initial events; and kube's own watcher on top.

use std::collections::BTreeSet;
use std::pin::pin;

use futures_util::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use serde_json::json;
use tokio::time::timeout;

use crate::support::{SOON, cluster_under_test, version};

/// The next event in short: `ADDED a`.
async fn next<K, S>(events: &mut S) -> String
where
    K: ResourceExt,
    S: Stream<Item = kube::Result<WatchEvent<K>>> + Unpin,
{
    let event = timeout(SOON, events.next()).await.expect("an event in time");
    match event {
        None => "END".into(),
        Some(Ok(WatchEvent::Added(object))) => format!("ADDED {}", object.name_any()),
        Some(Ok(WatchEvent::Modified(object))) => format!("MODIFIED {}", object.name_any()),
        Some(Ok(WatchEvent::Deleted(object))) => format!("DELETED {}", object.name_any()),
        Some(Ok(WatchEvent::Bookmark(bookmark))) => {
            let is_end = bookmark.metadata.annotations.contains_key("k8s.io/initial-events-end");
            if is_end { "BOOKMARK end of initial events".into() } else { "BOOKMARK".into() }
        }
        Some(Ok(WatchEvent::Error(status))) => format!("ERROR {} {}", status.code, status.reason),
        Some(Err(error)) => format!("FAILED {error}"),
    }
}

fn labelled(label: &str) -> Patch<serde_json::Value> {
    Patch::Merge(json!({"metadata": {"labels": {"l": label}}}))
}

#[tokio::test]
async fn a_watch_tells_what_came_after_its_version() {
    let cluster = cluster_under_test().await;
    let pods = cluster.api::<Pod>();
    let first = cluster.create_pod("a").await;
    cluster.create_pod("b").await;
    let mut events = pin!(pods.watch(&WatchParams::default(), &version(&first)).await.expect("a watch"));
    assert_eq!(next(&mut events).await, "ADDED b");
    pods.patch("a", &PatchParams::default(), &labelled("x")).await.expect("patched");
    assert_eq!(next(&mut events).await, "MODIFIED a");
    pods.delete("b", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    // A pod begins to end before it is gone.
    assert_eq!(next(&mut events).await, "MODIFIED b");
    assert_eq!(next(&mut events).await, "DELETED b");
}

#[tokio::test]
async fn a_deleted_object_has_the_version_of_its_end() {
    let cluster = cluster_under_test().await;
    let maps = cluster.api::<ConfigMap>();
    let made = cluster.create_map("a", json!({})).await;
    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    let params = WatchParams::default().fields("metadata.name=a");
    let mut events = pin!(maps.watch(&params, &version(&made)).await.expect("a watch"));
    let event = timeout(SOON, events.try_next()).await.expect("in time").expect("an event");
    let Some(WatchEvent::Deleted(object)) = event else { panic!("{event:?}") };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    assert!(number(&version(&object)) > number(&version(&made)));
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let cluster = cluster_under_test().await;
    for name in ["a", "b"] {
        cluster.create_pod(name).await;
    }
    let pods = cluster.api::<Pod>();
    let mut events = pin!(pods.watch(&WatchParams::default(), "0").await.expect("a watch"));
    let seen = BTreeSet::from([next(&mut events).await, next(&mut events).await]);
    assert_eq!(seen, BTreeSet::from(["ADDED a".into(), "ADDED b".into()]));
    assert_eq!(next(&mut events).await, "BOOKMARK end of initial events");
    cluster.create_pod("c").await;
    assert_eq!(next(&mut events).await, "ADDED c");
}

#[tokio::test]
async fn objects_enter_and_leave_a_selector() {
    let cluster = cluster_under_test().await;
    let pods = cluster.api::<Pod>();
    let made = cluster.create_pod("a").await;
    let params = WatchParams::default().labels("l=x");
    let mut events = pin!(pods.watch(&params, &version(&made)).await.expect("a watch"));
    for label in ["y", "x", "x2", "x"] {
        pods.patch("a", &PatchParams::default(), &labelled(label)).await.expect("patched");
    }
    pods.patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"m": "1"}}})))
        .await
        .expect("patched");
    pods.delete("a", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    for expected in ["ADDED a", "DELETED a", "ADDED a", "MODIFIED a", "MODIFIED a", "DELETED a"] {
        assert_eq!(next(&mut events).await, expected);
    }
}

#[tokio::test]
async fn a_change_of_nothing_is_not_told() {
    let cluster = cluster_under_test().await;
    let pods = cluster.api::<Pod>();
    let made = cluster.create_pod("a").await;
    pods.patch("a", &PatchParams::default(), &labelled("x")).await.expect("patched");
    let same = pods.patch("a", &PatchParams::default(), &labelled("x")).await.expect("patched");
    cluster.create_pod("b").await;
    let mut events = pin!(pods.watch(&WatchParams::default(), &version(&made)).await.expect("a watch"));
    assert_eq!(next(&mut events).await, "MODIFIED a");
    assert_eq!(next(&mut events).await, "ADDED b");
    assert_eq!(pods.get("a").await.expect("there").resource_version(), same.resource_version());
}

#[tokio::test]
async fn a_watch_ends_after_its_timeout() {
    let cluster = cluster_under_test().await;
    let pods = cluster.api::<Pod>();
    let params = WatchParams::default().timeout(1).disable_bookmarks();
    let made = cluster.create_pod("a").await;
    let mut events = pin!(pods.watch(&params, &version(&made)).await.expect("a watch"));
    assert_eq!(next(&mut events).await, "END");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let cluster = cluster_under_test().await;
    let pods = cluster.api::<Pod>();
    for name in ["a", "b"] {
        cluster.create_pod(name).await;
    }
    let mut events = pin!(pods.watch(&WatchParams::default().initial_events(), "").await.expect("a watch"));
    let seen = BTreeSet::from([next(&mut events).await, next(&mut events).await]);
    assert_eq!(seen, BTreeSet::from(["ADDED a".into(), "ADDED b".into()]));
    assert_eq!(next(&mut events).await, "BOOKMARK end of initial events");
    cluster.create_pod("c").await;
    assert_eq!(next(&mut events).await, "ADDED c");
}

#[tokio::test]
async fn a_watch_from_an_ancient_version_is_expired() {
    let cluster = cluster_under_test().await;
    // A real server keeps at least what is of the last minutes.
    let Some(server) = cluster.faulty() else { return };
    let made = cluster.create_pod("a").await;
    cluster.create_pod("b").await;
    server.faults().compact(&pilotlight_tests::cluster::api::Requests::all());
    let pods = cluster.api::<Pod>();
    let mut events = pin!(pods.watch(&WatchParams::default(), &version(&made)).await.expect("a watch"));
    assert_eq!(next(&mut events).await, "ERROR 410 Expired");
    assert_eq!(next(&mut events).await, "END");
}

#[tokio::test]
async fn metadata_can_be_watched_alone() {
    let cluster = cluster_under_test().await;
    let pods = cluster.api::<Pod>();
    cluster.create_pod("a").await;
    let mut events = pin!(pods.watch_metadata(&WatchParams::default(), "0").await.expect("a watch"));
    assert_eq!(next(&mut events).await, "ADDED a");
}

#[tokio::test]
async fn one_object_can_be_watched() {
    let cluster = cluster_under_test().await;
    let pods = cluster.api::<Pod>();
    for name in ["a", "b"] {
        cluster.create_pod(name).await;
    }
    let params = WatchParams::default().fields("metadata.name=b");
    let mut events = pin!(pods.watch(&params, "0").await.expect("a watch"));
    assert_eq!(next(&mut events).await, "ADDED b");
}

#[tokio::test]
async fn kubes_watcher_lists_in_pages_and_follows() {
    let cluster = cluster_under_test().await;
    for number in 0..7 {
        cluster.create_map(&format!("m{number}"), json!({})).await;
    }
    let config = watcher::Config::default().page_size(2).fields("metadata.name!=kube-root-ca.crt");
    let mut events = pin!(watcher(cluster.api::<ConfigMap>(), config));
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "done") {
        let event =
            timeout(SOON, events.try_next()).await.expect("in time").expect("no failure").expect("no end");
        seen.push(match event {
            watcher::Event::Init => "init".to_owned(),
            watcher::Event::InitApply(map) => map.name_any(),
            watcher::Event::InitDone => "done".into(),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["init", "m0", "m1", "m2", "m3", "m4", "m5", "m6", "done"]);
    cluster.create_map("late", json!({})).await;
    let event = timeout(SOON, events.try_next()).await.expect("in time").expect("no failure");
    assert!(matches!(&event, Some(watcher::Event::Apply(map)) if map.name_any() == "late"), "{event:?}");
}

#[tokio::test]
async fn kubes_reflector_keeps_what_is_there() {
    let cluster = cluster_under_test().await;
    for name in ["a", "b"] {
        cluster.create_pod(name).await;
    }
    let (reader, writer) = reflector::store();
    let config = watcher::Config::default().streaming_lists();
    let mut changes = pin!(watcher(cluster.api::<Pod>(), config).reflect(writer).applied_objects());
    let mut take = async || timeout(SOON, changes.try_next()).await.expect("in time").expect("no failure");
    assert!(take().await.is_some() && take().await.is_some());
    cluster.api::<Pod>().patch("a", &PatchParams::default(), &labelled("x")).await.expect("patched");
    let pod = take().await.expect("a change");
    assert_eq!((pod.name_any().as_str(), pod.labels()["l"].as_str()), ("a", "x"));
    assert_eq!(reader.state().len(), 2);
}
