//! Requests that wait: until there is a pod, in order, within limits.

use std::time::Duration;

use http_body_util::BodyExt;
use pilotlight_core::{PodTimeline, RevisionEndpoints};
use pilotlight_net::Clock;

use crate::harness::*;

#[tokio::test]
async fn a_request_is_held_until_a_pod_is_ready() {
    let world = World::start(revision(0)).await;
    let waiting = world.get_queued("/").await;
    let pod = FakePod::start().await;
    let now = Clock::start().now();
    let timeline = PodTimeline { decided: Some(now), spawned: Some(now), ready: Some(now) };
    world.set(|revision| revision.ready = vec![pilotlight_core::PodEndpoint { timeline, ..pod.endpoint() }]);

    let response = soon(waiting).await.unwrap();
    assert_eq!(code(&response), 200);
    let timing = response.headers()["server-timing"].to_str().unwrap().to_owned();
    assert!(timing.starts_with("cold-start;dur="), "{timing}");
    response.into_body().collect().await.unwrap();

    let warm = soon(world.get()).await.unwrap();
    assert!(!warm.headers().contains_key("server-timing"), "only those that waited are told");
    warm.into_body().collect().await.unwrap();

    eventually("both are in the books", || world.activator.ledger().total.statuses.get(&200) == Some(&2))
        .await;
    let book = world.activator.ledger().revisions.remove(&hello()).unwrap();
    assert_eq!((book.requests, book.lost, book.abandoned, book.broken), (2, 0, 0, 0));
    assert_eq!(book.cold_starts.count, 1);
    let start = book.cold_starts.recent[0];
    assert_eq!(start.decide + start.start + start.ready + start.forward, start.total());
    assert!(start.decide > Duration::ZERO);
}

#[tokio::test]
async fn one_cold_start_is_counted_however_many_waited() {
    let world = World::start(revision(0)).await;
    let pod = FakePod::start().await;
    for wake in 1..=2 {
        let waiting = [world.get_queued("/").await, world.get_queued("/").await];
        world.set(|revision| revision.ready = vec![pod.endpoint()]);
        for response in waiting {
            assert_eq!(outcome(response).await.0, 200);
        }
        assert_eq!(world.activator.ledger().total.cold_starts.count, wake);
        world.set(|revision| revision.ready.clear());
        eventually("nobody is at the pod", || world.active() == 0).await;
    }
}

#[tokio::test]
async fn waiting_requests_are_served_in_the_order_of_their_arrival() {
    let world = World::start(revision(1)).await;
    let mut responses = Vec::new();
    for n in 0..20 {
        responses.push(world.get_queued(&format!("/{n}")).await);
    }
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    for response in responses {
        assert_eq!(outcome(response).await, (200, "pod".to_owned()));
    }
    assert_eq!(pod.paths(), (0..20).map(|n| format!("/{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_pod_ever_has_more_than_its_limit() {
    let world = World::start(revision(2)).await;
    let pods = [FakePod::start_blocked().await, FakePod::start_blocked().await];
    world.set(|revision| revision.ready = pods.iter().map(FakePod::endpoint).collect());
    let responses: Vec<_> = (0..30).map(|_| world.get()).collect();
    eventually("both are full", || world.active() == 4 && world.queued() == 26).await;
    let activity = world.activator.activity().remove(&hello()).unwrap();
    assert_eq!(activity.pods.into_values().collect::<Vec<_>>(), [2, 2]);
    for pod in &pods {
        eventually("the pod is full", || pod.most_at_once() == 2).await;
        pod.may_answer.add_permits(30);
    }
    for response in responses {
        assert_eq!(outcome(response).await.0, 200);
    }
    assert_eq!(pods.map(|pod| pod.most_at_once()), [2, 2]);
    eventually("all slots are back", || world.active() == 0).await;
}

#[tokio::test]
async fn a_hundred_at_once_with_one_per_pod_all_succeed() {
    let world = World::start(revision(1)).await;
    let responses: Vec<_> = (0..100).map(|_| world.get()).collect();
    eventually("all wait", || world.queued() == 100).await;
    for _ in 0..10 {
        let pod = FakePod::start().await;
        world.set(|revision| revision.ready.push(pod.endpoint()));
    }
    for response in responses {
        assert_eq!(outcome(response).await.0, 200);
    }
    assert_eq!(world.activator.ledger().total.lost, 0);
}

#[tokio::test]
async fn a_slot_is_kept_until_the_body_has_ended() {
    let world = World::start(revision(1)).await;
    let pod = FakePod::start().await;
    let (address, listener) = listen().await;
    let (body_sender, body_ends) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
        body_ends.await.unwrap();
        stream.write_all(b"cd").await.unwrap();
    });
    world.set(|revision| revision.ready = vec![pod_at(address)]);
    let slow = soon(world.get()).await.unwrap();
    assert_eq!(code(&slow), 200);
    let behind = world.get_queued("/").await;
    assert_eq!(world.active(), 1, "the head is here, the body is not");
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(behind).await.0, 200);
    eventually("only the slow one is left", || world.active() == 1).await;
    body_sender.send(()).unwrap();
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes(), "abcd");
    eventually("its slot is back", || world.active() == 0).await;
}

#[tokio::test]
async fn a_body_survives_the_wait_be_there_room_to_read_it_ahead_or_not() {
    for body_bytes in [0, 1 << 20] {
        let world = World::start_with(revision(0), |params| params.limits.body_bytes = body_bytes).await;
        let waiting = world.send(post("/", "the whole body"));
        eventually("it waits", || world.queued() == 1).await;
        let pod = FakePod::start().await;
        world.set(|revision| revision.ready = vec![pod.endpoint()]);
        assert_eq!(outcome(waiting).await.0, 200);
        assert_eq!(pod.bodies(), ["the whole body"]);
        assert_eq!(pod.header("content-length"), "14");
    }
}

#[tokio::test]
async fn a_large_body_survives_the_wait() {
    let text: &'static str = Box::leak("0123456789abcdef".repeat(1 << 16).into_boxed_str());
    let world = World::start(revision(0)).await;
    let waiting = world.send(post("/", text));
    eventually("it waits", || world.queued() == 1).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(waiting).await.0, 200);
    assert!(pod.bodies() == [text], "the body differs");
}

#[tokio::test]
async fn a_request_that_comes_before_the_endpoints_are_known_waits_for_them() {
    let world = World::start_uninformed().await;
    let early = world.get();
    // On one thread, whoever came first has been served as far as can be.
    for _ in 0..3 {
        let mut probe = get("/");
        probe.headers_mut().insert("user-agent", "kube-probe/1.30".parse().unwrap());
        assert_eq!(outcome(world.send(probe)).await.0, 500);
    }
    assert!(!early.is_finished());
    let pod = FakePod::start().await;
    let mut revision = revision(0);
    revision.ready = vec![pod.endpoint()];
    world.inform(revision);
    assert_eq!(outcome(early).await.0, 200);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let world = World::start_with(revision(0), |params| params.limits.requests_per_revision = 2).await;
    let waiting = [world.get_queued("/").await, world.get_queued("/").await];
    let refused = soon(world.get()).await.unwrap();
    assert_eq!(refused.headers()["x-pilotlight-reason"], "queue-full");
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(
        outcome(tokio::spawn(async { refused })).await,
        (503, "pending request queue full\n".to_owned())
    );
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    for response in waiting {
        assert_eq!(outcome(response).await.0, 200);
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_frees_its_place_at_once() {
    let world = World::start_with(revision(0), |params| params.limits.requests_per_revision = 1).await;
    let requests = [
        "GET / HTTP/1.1\r\nHost: hello.example\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: hello.example\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: hello.example\r\nContent-Length: 5\r\n\r\nhel",
        "POST / HTTP/1.1\r\nHost: hello.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
    ];
    for (n, request) in requests.into_iter().enumerate() {
        let stream = world.send_raw(request).await;
        eventually("it waits", || world.queued() == 1).await;
        drop(stream);
        eventually(request, || world.queued() == 0).await;
        // A body that breaks off is a malformed request, were anybody left to be told.
        let over = || {
            let total = world.activator.ledger().total;
            total.abandoned + total.statuses.get(&400).unwrap_or(&0)
        };
        eventually("it is in the books", || over() == n as u64 + 1).await;
    }
    // The place is really free.
    let waiting = world.get_queued("/").await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(waiting).await.0, 200);
    assert_eq!(pod.paths().len(), 1, "no request of a client that left");
}

#[tokio::test]
async fn a_request_without_room_to_wait_is_refused_at_once_and_other_revisions_go_on() {
    let world = World::start_with(revision(0), |params| params.limits.body_bytes_per_revision = 50_000).await;
    let pod = FakePod::start().await;
    let other = RevisionEndpoints {
        hosts: vec!["other.example".to_owned()],
        ready: vec![pod.endpoint()],
        ..revision(0)
    };
    world.publish("other", other);
    world.activator.caught_up().await;
    let large = |host: &str| {
        let mut request = get("/");
        request.headers_mut().insert("host", host.parse().unwrap());
        request.headers_mut().insert("x-large", "x".repeat(40_000).parse().unwrap());
        request
    };
    let waiting = world.send(large(HOST));
    eventually("it waits", || world.queued() == 1).await;
    let refused = soon(world.send(large(HOST))).await.unwrap();
    assert_eq!(
        (code(&refused), &refused.headers()["x-pilotlight-reason"]),
        (503, &"no-room".parse().unwrap())
    );
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(outcome(world.send(large("other.example"))).await.0, 200);

    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(waiting).await.0, 200);
    assert_eq!(outcome(world.send(large(HOST))).await.0, 200);
}
