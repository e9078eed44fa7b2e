use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Version;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use pilotlight_net::{Body, Breaker, Handler, Request, Response, Timeouts, once, plain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

use crate::support::{Answer, Client, GET, Server, bounded, header, soon, start, until};

async fn hello() -> Server {
    start(Answer(|_| std::future::ready(Response::new(Body::full("hello"))))).await
}

// Answers with the request's body.
async fn echo() -> Server {
    start(Answer(|request: Request| async {
        match request.into_body().collect().await {
            Ok(body) => Response::new(Body::full(body.to_bytes())),
            Err(error) => plain(error.status(), error.to_string()),
        }
    }))
    .await
}

async fn answer_to(request: &str) -> String {
    let server = echo().await;
    let mut client = Client::connect(server.address).await;
    client.send(request).await.read_to_end().await
}

#[tokio::test]
async fn a_connection_carries_one_request_after_the_other() {
    let server = hello().await;
    let mut client = Client::connect(server.address).await;
    for _ in 0..3 {
        assert!(client.send(GET).await.read_message().await.ends_with("hello"));
    }
}

/// Answers with the port that the request came in at.
struct Port;

impl Handler for Port {
    async fn handle(&self, client: &pilotlight_net::Client, _: Request) -> Response {
        Response::new(Body::full(client.local().unwrap().port().to_string()))
    }
}

#[tokio::test]
async fn a_handler_knows_the_port_that_a_request_came_in_at() {
    for server in [start(Port).await, start(Port).await] {
        let port = server.address.port().to_string();
        let mut client = Client::connect(server.address).await;
        assert!(client.send(GET).await.read_message().await.ends_with(&port));
        let mut request = Request::new(Body::empty());
        *request.version_mut() = Version::HTTP_2;
        let answer = soon("an answer", once::ask(server.address, None, request, 100)).await.unwrap();
        assert_eq!(answer.body.unwrap(), port);
    }
    assert_eq!(pilotlight_net::Client::ourselves().local(), None);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = echo().await;
    let mut client = Client::connect(server.address).await;
    let post = |body| format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n{body}");
    client.send(&[post("1"), post("2"), post("3")].concat()).await;
    for body in ["1", "2", "3"] {
        assert!(client.read_message().await.ends_with(body));
    }
}

#[tokio::test]
async fn responses_have_title_case_headers_and_a_date() {
    let server = hello().await;
    let head = Client::connect(server.address).await.send(GET).await.read_head().await;
    assert!(head.contains("\r\nContent-Length: 5\r\n") && head.contains("\r\nDate: "), "{head}");
}

#[tokio::test]
async fn a_draining_server_closes_idle_connections_and_takes_no_new_ones() {
    let server = hello().await;
    let mut idle = Client::connect(server.address).await;
    idle.send(GET).await.read_message().await;
    server.drain.start();
    assert_eq!(idle.read_to_end().await, "");
    soon("the end of the server", server.task).await.unwrap();
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_draining_server_lets_the_request_in_flight_finish() {
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&arrived), Arc::clone(&go_on));
    let server = start(Answer(move |_| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            tell.notify_one();
            wait.notified().await;
            Response::new(Body::full("done"))
        }
    }))
    .await;
    let mut client = Client::connect(server.address).await;
    client.send(GET).await;
    soon("the request", arrived.notified()).await;
    server.drain.start();
    go_on.notify_one();
    let response = client.read_to_end().await;
    assert!(response.ends_with("done"), "{response}");
    assert_eq!(header(&response, "connection").as_deref(), Some("close"));
    soon("the end of the server", server.task).await.unwrap();
}

#[tokio::test]
async fn a_forced_server_cuts_what_is_left() {
    let server = start(Answer(|_| std::future::pending())).await;
    let mut client = Client::connect(server.address).await;
    client.send(GET).await;
    server.drain.start();
    server.drain.force();
    soon("the end of the server", server.task).await.unwrap();
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn headers_beyond_any_measure_are_refused() {
    let server = hello().await;
    let mut client = Client::connect(server.address).await;
    let huge = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Huge: {}\r\n\r\n", "x".repeat(2 << 20));
    // The server stops reading somewhere in the middle, so the writing may fail.
    let _ = client.try_send(huge.as_bytes()).await;
    let response = client.read_to_end().await;
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 431 "), "{response}");
    assert!(Client::connect(server.address).await.send(GET).await.read_message().await.ends_with("hello"));
}

#[tokio::test]
async fn headers_somewhat_too_large_are_answered_with_431() {
    let server = hello().await;
    let mut client = Client::connect(server.address).await;
    // The head exceeds the limit, but fits into the bytes that the server reads before it refuses.
    let large = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X-Many: x\r\n".repeat(1000));
    let _ = client.try_send(large.as_bytes()).await;
    assert!(client.read_to_end().await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn nonsense_is_a_400_and_the_end_of_the_connection() {
    for nonsense in
        ["\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n", "GET / HTTP/1.1\r\n: v\r\n\r\n"]
    {
        let response = answer_to(nonsense).await;
        assert!(response.starts_with("HTTP/1.1 400 "), "{nonsense:?}: {response}");
    }
}

#[tokio::test]
async fn two_lengths_that_differ_are_a_400() {
    let response =
        answer_to("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab").await;
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
}

#[tokio::test]
async fn a_transfer_encoding_that_does_not_end_in_chunked_is_a_400() {
    let response = answer_to("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
}

#[tokio::test]
async fn with_a_length_and_chunks_only_the_chunks_count_and_nothing_can_follow() {
    for (first, second) in [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 4"),
    ] {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
        let request =
            format!("POST / HTTP/1.1\r\nHost: h\r\n{first}\r\n{second}\r\n\r\n1\r\na\r\n0\r\n\r\n{smuggled}");
        let response = answer_to(&request).await;
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
        assert!(response.ends_with("\r\n\r\na"), "{response}");
    }
}

#[tokio::test]
async fn a_malformed_chunk_is_the_clients_fault() {
    let response = answer_to("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await;
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
}

#[tokio::test]
async fn exactly_one_host_must_be_named() {
    let server = hello().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.0\r\n\r\n", "200"),
    ] {
        let mut client = Client::connect(server.address).await;
        let head = client.send(request).await.read_head().await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{request:?}");
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_continue() {
    let server = echo().await;
    let mut client = Client::connect(server.address).await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 100 "));
    assert!(client.send("ab").await.read_message().await.ends_with("ab"));
}

#[tokio::test]
async fn a_permit_is_held_until_the_body_has_ended() {
    let breaker = Breaker::new(1, 0);
    let (finish, finished) = oneshot::channel::<()>();
    let (shared, finished) = (breaker.clone(), Arc::new(Mutex::new(Some(finished))));
    let server = start(Answer(move |_| {
        let permit = shared.try_acquire();
        let finished = finished.lock().take();
        let rest = futures_util::stream::once(async move {
            finished.unwrap().await.unwrap();
            Ok(http_body::Frame::data(bytes::Bytes::from_static(b"end")))
        });
        let body = Body::stream(http_body_util::StreamBody::new(rest)).guarded(permit);
        std::future::ready(Response::new(body))
    }))
    .await;
    let mut client = Client::connect(server.address).await;
    client.send(GET).await.read_head().await;
    assert_eq!(breaker.in_use(), 1, "the head is out, the body is not");
    finish.send(()).unwrap();
    client.read_until("end\r\n0\r\n\r\n").await;
    until("the permit back", || breaker.in_use() == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_within_the_body_frees_what_it_holds() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dropped);
    let server = start(Answer(move |_| {
        let count = Arc::clone(&count);
        let endless =
            futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, pilotlight_net::Error>>();
        let body = Body::stream(http_body_util::StreamBody::new(endless)).watched(move |ending| {
            assert_eq!(ending, pilotlight_net::Ending::Dropped);
            count.fetch_add(1, Ordering::Relaxed);
        });
        std::future::ready(Response::new(body))
    }))
    .await;
    let mut client = Client::connect(server.address).await;
    client.send(GET).await.read_head().await;
    drop(client);
    until("the body dropped", || dropped.load(Ordering::Relaxed) == 1).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_cannot_hold_a_response_past_its_time() {
    let breaker = Breaker::new(1, 0);
    let shared = breaker.clone();
    let server = start(Answer(move |_| {
        let permit = shared.try_acquire();
        // One piece is more than all buffers on the way take: the server has no reason to poll the body again.
        let pieces =
            futures_util::stream::repeat_with(|| Ok(http_body::Frame::data(vec![0; 64 << 20].into())));
        let body = Body::stream(http_body_util::StreamBody::new(pieces)).guarded(permit);
        let timeouts = Timeouts { total: Duration::from_millis(200), response_start: None, idle: None };
        bounded(timeouts, Response::new(body))
    }))
    .await;
    let mut client = Client::connect(server.address).await;
    client.send(GET).await;
    until("the permit taken", || breaker.in_use() == 1).await;
    until("the permit back", || breaker.in_use() == 0).await;
    drop(client);
}

#[tokio::test]
async fn a_client_that_takes_nothing_cannot_hold_the_rest_of_a_response_past_its_time_either() {
    let server = start(Answer(|_| {
        // The body ends with its first poll: there is none left that could look at its timer.
        let timeouts = Timeouts { total: Duration::from_millis(200), response_start: None, idle: None };
        bounded(timeouts, Response::new(Body::full(vec![0; 64 << 20])))
    }))
    .await;
    let mut client = Client::connect(server.address).await;
    client.send(GET).await.read_head().await;
    server.drain.start();
    soon("the end of the server", server.task).await.unwrap();
    drop(client);
}

#[tokio::test]
async fn a_connection_outlives_the_time_limits_of_its_responses() {
    let server = start(Answer(|_| {
        let pieces = futures_util::stream::iter([Ok(http_body::Frame::data("ok".into()))]);
        let timeouts = Timeouts { total: Duration::from_millis(50), response_start: None, idle: None };
        let body = Body::stream(http_body_util::StreamBody::new(pieces));
        bounded(timeouts, Response::new(body))
    }))
    .await;
    let mut client = Client::connect(server.address).await;
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_millis(200) {
        client.send(GET).await.read_until("ok\r\n0\r\n\r\n").await;
    }
}

// The clock is paused although the sockets are real: the server's limit is the only timer there is, and time passes only
// when no task can run.
#[tokio::test(start_paused = true)]
async fn half_a_head_is_waited_for_no_longer_than_a_minute() {
    for half in ["", "G", "PRI * HT", "GET / HTTP/1.1\r\nHost: h\r\nX-Slow: "] {
        let server = hello().await;
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let start = tokio::time::Instant::now();
        stream.write_all(half.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!((answer.as_str(), start.elapsed().as_secs()), ("", 60), "{half:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_be_idle_between_two_requests_for_as_long_as_its_client_likes() {
    let server = hello().await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(GET.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "closed while idle");
        }
        tokio::time::advance(Duration::from_secs(3600)).await;
    }
}
