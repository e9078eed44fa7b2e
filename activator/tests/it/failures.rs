//! Failures of pods and clients, and the responses to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pilotlight_net::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::harness::*;

/// An address where nobody listens.
async fn dead_address() -> std::net::SocketAddr {
    let (address, listener) = listen().await;
    drop(listener);
    address
}

async fn with_reason(response: JoinHandle<Response>) -> (u16, String, String) {
    let response = soon(response).await.unwrap();
    let reason = response.headers()["x-pilotlight-reason"].to_str().unwrap().to_owned();
    let (status, text) = outcome(tokio::spawn(async { response })).await;
    (status, reason, text)
}

#[tokio::test]
async fn a_pod_that_refuses_the_connection_is_passed_over() {
    let world = World::start(revision(0)).await;
    let pod = FakePod::start().await;
    let dead = dead_address().await;
    world.set(|revision| revision.ready = vec![pod_at(dead), pod.endpoint()]);
    for _ in 0..10 {
        assert_eq!(outcome(world.send(post("/", "x"))).await, (200, "pod".to_owned()));
    }
    assert_eq!(pod.bodies(), ["x"; 10]);
    assert_eq!(world.activator.ledger().total.lost, 0);
    let last_error = world.activator.activity()[&hello()].last_error.clone().unwrap();
    assert!(last_error.contains("refused"), "{last_error}");
}

#[tokio::test]
async fn where_every_pod_refuses_the_request_waits_for_a_better_one() {
    let world = World::start(revision(1)).await;
    let dead = dead_address().await;
    world.set(|revision| revision.ready = vec![pod_at(dead)]);
    let waiting = world.get();
    eventually("it was tried", || world.activator.activity()[&hello()].last_error.is_some()).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(waiting).await.0, 200);
}

#[tokio::test]
async fn a_request_that_a_pod_has_seen_is_never_sent_twice() {
    let world = World::start(revision(0)).await;
    let (address, listener) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    tokio::spawn({
        let connections = Arc::clone(&connections);
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let mut buffer = [0; 4096];
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
                // Dropped: the pod dies with the request in its hands.
            }
        }
    });
    let other = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_at(address)]);
    let lost = world.send(post("/", "once"));
    let (status, text) = outcome(lost).await;
    assert_eq!((status, text.as_str()), (502, "EOF\n"));
    world.set(|revision| revision.ready = vec![other.endpoint()]);
    assert_eq!(outcome(world.get()).await.0, 200);
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    assert!(!other.bodies().contains(&"once".to_owned()));
    let activity = world.activator.activity().remove(&hello()).unwrap();
    assert_eq!((activity.lost, activity.statuses[&502]), (1, 1));
    assert_eq!(activity.last_error.as_deref(), Some("EOF"));
}

#[tokio::test]
async fn an_app_that_failed_behind_its_queue_proxy_counts_as_lost_and_a_502_of_its_own_does_not() {
    let world = World::start(revision(0)).await;
    let (address, listener) = listen().await;
    tokio::spawn(async move {
        for reason in ["X-Pilotlight-Reason: app-failed\r\n", ""] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            let head = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n";
            stream.write_all(format!("{head}{reason}\r\n").as_bytes()).await.unwrap();
        }
    });
    world.set(|revision| revision.ready = vec![pod_at(address)]);
    for lost in [1, 1] {
        assert_eq!(outcome(world.get()).await.0, 502);
        assert_eq!(world.activator.ledger().total.lost, lost);
    }
}

#[tokio::test]
async fn when_starting_is_given_up_everybody_is_told_why_at_once() {
    let autoscaler = FakeAutoscaler::start().await;
    let target = autoscaler.target();
    let world = World::start_with(revision(0), |params| params.autoscaler = target).await;
    eventually("the autoscaler is connected", || world.activator.connected()).await;
    let waiting = world.get_queued("/").await;
    world.set(|revision| revision.trouble = Some(trouble(false)));
    assert_eq!(world.queued(), 1, "there will be another try");
    world.set(|revision| revision.trouble = Some(trouble(true)));
    let expected = "`./app` exited\nexit code: 3\nlast lines of its standard error:\n  no database\n";
    assert_eq!(with_reason(waiting).await, (503, "exited".to_owned(), expected.to_owned()));

    let late = soon(world.get()).await.unwrap();
    assert_eq!((code(&late), late.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    // Answered, and still demand: the autoscaler must hear of it, or there would never be another try.
    eventually("both requests are reported", || {
        autoscaler.heard().iter().map(|(_, count)| count).sum::<f64>() == 2.0
    })
    .await;

    world.set(|revision| revision.trouble = None);
    let waiting = world.get_queued("/").await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(waiting).await.0, 200);
}

#[tokio::test]
async fn a_request_that_waits_too_long_hears_what_it_waited_for() {
    let mut short = revision(0);
    short.timeouts.total = Duration::from_millis(50);
    let world = World::start(short).await;
    let (status, reason, text) = with_reason(world.get()).await;
    assert_eq!((status, reason.as_str()), (504, "no-pods"));
    assert!(text.starts_with("activator request timeout\n"), "{text}");

    world.set(|revision| revision.starting = 2);
    let (status, reason, text) = with_reason(world.get()).await;
    assert_eq!((status, reason.as_str()), (504, "not-ready"));
    assert_eq!(text, "activator request timeout\nno pod became ready (2 starting)\n");

    world.set(|revision| revision.trouble = Some(trouble(false)));
    let (status, reason, text) = with_reason(world.get()).await;
    assert_eq!((status, reason.as_str()), (504, "exited"));
    assert!(text.contains("no database"), "{text}");
}

#[tokio::test]
async fn a_request_whose_turn_comes_when_its_time_is_over_is_not_sent() {
    let total = Duration::from_secs(5);
    let pod = FakePod::start_blocked().await;
    let mut short = revision(2);
    short.timeouts.total = total;
    short.ready = vec![pod.endpoint()];
    let world = World::start(short).await;
    // Two at once leave two connections to the pod behind, over which a request could be sent at once.
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let mut two = [world.send_raw(&request).await, world.send_raw(&request).await];
    eventually("both are at the pod", || pod.most_at_once() == 2).await;
    pod.may_answer.add_permits(2);
    for stream in &mut two {
        soon(stream.read_to_end(&mut Vec::new())).await.unwrap();
    }
    world.set(|revision| revision.container_concurrency = 1.into());
    let first = world.send(get("/first"));
    eventually("the first is at the pod", || pod.paths().len() == 3).await;
    let second = world.get_queued("/second").await;
    // One step of the clock for both: the second gets the slot of the first when its own time is over, too.
    tokio::time::pause();
    tokio::time::advance(total).await;
    tokio::time::resume();
    assert_eq!(outcome(first).await, (504, "activator request timeout".to_owned()));
    assert_eq!(outcome(second).await.0, 504);
    pod.may_answer.add_permits(1);
    assert_eq!(outcome(world.send(get("/third"))).await.0, 200);
    assert_eq!(pod.paths(), ["/", "/", "/first", "/third"]);
}

#[tokio::test]
async fn a_pod_that_is_too_slow_is_a_plain_timeout() {
    let mut short = revision(0);
    short.timeouts.total = Duration::from_millis(50);
    let world = World::start(short).await;
    let pod = FakePod::start_blocked().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(world.get()).await, (504, "activator request timeout".to_owned()));
    eventually("its slot is back", || world.active() == 0).await;
}

#[tokio::test]
async fn deleting_the_revision_answers_who_waits_and_hides_it_from_newcomers() {
    let world = World::start(revision(0)).await;
    let waiting = world.get_queued("/").await;
    world.delete_revision();
    assert_eq!(with_reason(waiting).await, (500, "revision-deleted".to_owned(), String::new()));
    assert_eq!(outcome(world.get()).await.0, 404);
    eventually("its books are kept", || {
        world.activator.activity().is_empty() && world.activator.ledger().revisions[&hello()].requests == 1
    })
    .await;
    assert_eq!(world.activator.ledger().total.requests, 1);
}

#[tokio::test]
async fn a_response_that_breaks_off_is_broken_for_the_client_too() {
    use http_body_util::BodyExt;
    use tokio::io::AsyncWriteExt;
    let world = World::start(revision(0)).await;
    let (address, listener) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
    });
    world.set(|revision| revision.ready = vec![pod_at(address)]);
    let response = soon(world.get()).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    eventually("it is in the books", || world.activator.ledger().total.broken == 1).await;
}

/// A pod whose queue-proxy answers each connection like this, after it has read so much of the request.
async fn pod_that_says(response: &'static str, read_first: usize) -> std::net::SocketAddr {
    let (address, listener) = listen().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while request.len() < read_first && stream.read_buf(&mut request).await.unwrap() > 0 {}
                stream.write_all(response.as_bytes()).await.unwrap();
                while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}

/// A queue-proxy's answer to a request that it could not send to its app.
const SENT_BACK: &str = "HTTP/1.1 502 Bad Gateway\r\nX-Pilotlight-Reason: app-failed\r\nContent-Length: 8\r\n\
    Connection: pilotlight-unsent\r\n\r\nrefused\n";

#[tokio::test]
async fn a_request_that_no_app_has_seen_goes_to_another_pod_with_its_body() {
    let world = World::start(revision(0)).await;
    let other = FakePod::start().await;
    let without_app = pod_that_says(SENT_BACK, 1).await;
    world.set(|revision| revision.ready = vec![pod_at(without_app), other.endpoint()]);
    for body in ["x", "", "y"] {
        let request = if body.is_empty() { get("/") } else { post("/", body) };
        assert_eq!(outcome(world.send(request)).await, (200, "pod".to_owned()));
    }
    assert_eq!(other.bodies(), ["x", "", "y"]);
    let activity = world.activator.activity().remove(&hello()).unwrap();
    assert_eq!((activity.lost, activity.last_error.as_deref()), (0, Some("refused")));
}

#[tokio::test]
async fn a_request_that_every_pod_sends_back_waits_for_a_better_one() {
    let world = World::start(revision(1)).await;
    let without_app = pod_that_says(SENT_BACK, 1).await;
    world.set(|revision| revision.ready = vec![pod_at(without_app)]);
    let waiting = world.send(post("/", "x"));
    eventually("it was tried", || world.activator.activity()[&hello()].last_error.is_some()).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    assert_eq!(outcome(waiting).await.0, 200);
    assert_eq!(pod.bodies(), ["x"]);
}

#[tokio::test]
async fn a_body_that_was_not_kept_is_lost_with_the_words_of_its_pod_but_not_their_sign() {
    let world = World::start(revision(0)).await;
    let without_app = pod_that_says(SENT_BACK, 100 * 1024).await;
    let other = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_at(without_app)]);
    let sending = world.send(post("/", Box::leak("b".repeat(200 * 1024).into_boxed_str())));
    let response = soon(sending).await.unwrap();
    assert_eq!((code(&response), response.headers().get("connection")), (502, None));
    assert_eq!(world.activator.ledger().total.lost, 1);
    assert!(other.bodies().is_empty());
}

#[tokio::test]
async fn a_502_without_the_sign_or_a_sign_without_a_502_is_the_last_word() {
    let world = World::start(revision(0)).await;
    for response in [
        "HTTP/1.1 502 Bad Gateway\r\nX-Pilotlight-Reason: app-failed\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 502 Bad Gateway\r\npilotlight-unsent: 1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\nConnection: pilotlight-unsent\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: pilotlight-unsent\r\nContent-Length: 0\r\n\r\n",
    ] {
        let pod = pod_that_says(response, 1).await;
        world.set(|revision| revision.ready = vec![pod_at(pod)]);
        let status: u16 = response[9..12].parse().unwrap();
        assert_eq!(outcome(world.get()).await.0, status, "{response}");
    }
}

/// A pod whose queue-proxy answers one request after the other like this, the last answer again and again; and how many
/// requests it has had.
async fn pod_that_says_in_turn(answers: &'static [&'static str]) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let (address, listener) = listen().await;
    let requests = Arc::new(AtomicUsize::new(0));
    tokio::spawn({
        let requests = Arc::clone(&requests);
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                let number = requests.fetch_add(1, Ordering::Relaxed);
                stream.write_all(answers[number.min(answers.len() - 1)].as_bytes()).await.unwrap();
            }
        }
    });
    (address, requests)
}

/// A queue-proxy's answer to a request whose app has died over it.
const APP_CLOSED: &str = "HTTP/1.1 502 Bad Gateway\r\nX-Pilotlight-Reason: app-closed\r\nContent-Length: 4\r\n\
    Connection: close\r\n\r\nEOF\n";
const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_request_whose_app_died_is_sent_once_more_if_it_is_safe_and_no_more_than_once() {
    let world = World::start(revision(0)).await;
    for (request, answers, requests_sent, status) in [
        (get("/"), &[APP_CLOSED, WELL][..], 2, 200),
        (get("/"), &[APP_CLOSED], 2, 502),
        (post("/", "x"), &[APP_CLOSED, WELL], 1, 502),
        (get("/"), &[SENT_BACK, APP_CLOSED, SENT_BACK, WELL], 4, 200),
    ] {
        let lost = world.activator.ledger().total.lost;
        let (pod, requests) = pod_that_says_in_turn(answers).await;
        world.set(|revision| revision.ready = vec![pod_at(pod)]);
        assert_eq!(outcome(world.send(request)).await.0, status, "{answers:?}");
        assert_eq!(requests.load(Ordering::Relaxed), requests_sent, "{answers:?}");
        assert_eq!(world.activator.ledger().total.lost, lost + u64::from(status == 502), "{answers:?}");
    }
}

#[tokio::test]
async fn a_request_whose_pods_die_is_sent_once_more_if_it_is_safe_and_no_more_than_once() {
    let world = World::start(revision(0)).await;
    for (request, requests_sent) in [(get("/"), 2), (post("/", "x"), 1)] {
        let (pod, requests) = pod_that_says_in_turn(&[""]).await;
        world.set(|revision| revision.ready = vec![pod_at(pod)]);
        assert_eq!(outcome(world.send(request)).await, (502, "EOF\n".to_owned()));
        assert_eq!(requests.load(Ordering::Relaxed), requests_sent);
    }
}
