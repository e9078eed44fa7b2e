//! HTTP/2 connections to an upstream that fail, wear out or fall silent, and what becomes of the requests on them.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use http::Version;
use pilotlight_net::{Body, Client, Pings, Request, SendError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, Peer, RST_STREAM, fields, frame, response,
};
use crate::h2::{Sender, connect, grpc};
use crate::support::{Server, soon, start_proxy, upstreams};

/// An app whose connections the test takes, a proxy in front of it, and a client.
async fn proxied() -> (TcpListener, Server, Sender) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = start_proxy(listener.local_addr().unwrap()).await;
    let client = connect(proxy.address).await;
    (listener, proxy, client)
}

fn get() -> Request {
    let request = http::Request::get("http://hello.example/").version(Version::HTTP_2);
    request.body(Body::empty()).unwrap()
}

/// A call under way, which ends with a status.
fn call(client: &Sender, request: Request) -> JoinHandle<u16> {
    let mut client = client.clone();
    tokio::spawn(async move { client.send_request(request).await.unwrap().status().as_u16() })
}

async fn statuses(calls: Vec<JoinHandle<u16>>) -> Vec<u16> {
    soon("all responses", join_all(calls)).await.into_iter().map(Result::unwrap).collect()
}

/// A frame out of place, after which nothing on the connection can be read.
fn broken() -> Vec<u8> {
    frame(CONTINUATION, END_HEADERS, 1, b"")
}

/// Answers each request on further connections of the app, until the test ends.
fn answer(listener: TcpListener) {
    tokio::spawn(async move {
        loop {
            let mut app = Peer::accept(&listener).await;
            tokio::spawn(async move {
                loop {
                    let stream = app.request().await;
                    app.send(&response(stream, END_STREAM, &[])).await;
                }
            });
        }
    });
}

#[tokio::test]
async fn a_malformed_response_fails_alone() {
    let (listener, _proxy, client) = proxied().await;
    let other = call(&client, grpc("/", Body::empty()));
    let mut app = Peer::accept(&listener).await;
    let waiting = app.request().await;
    for (name, value) in [
        (&b"grpc-message"[..], &b"two\nlines"[..]),
        (b"X-Capital", b"a"),
        (b"x y", b"a"),
        (b":odd", b"a"),
        (b"x", b"\0"),
        (b"connection", b"close"),
        (b"content-length", b"x"),
    ] {
        // In a head, and in trailers.
        let (head, trailers) = (call(&client, get()), call(&client, get()));
        let streams = [app.request().await, app.request().await];
        app.send(&response(streams[0], END_STREAM, &[(name, value)])).await;
        app.send(&response(streams[1], 0, &[])).await;
        let list = fields(&[(name, value)]);
        app.send(&frame(HEADERS, END_HEADERS | END_STREAM, streams[1], &list)).await;
        assert_eq!(statuses(vec![head, trailers]).await, [502, 200], "{name:?}");
    }
    app.send(&response(waiting, END_STREAM, &[])).await;
    assert_eq!(statuses(vec![other]).await, [200]);
}

#[tokio::test]
async fn a_connection_that_breaks_costs_its_own_calls_only() {
    let (listener, _proxy, client) = proxied().await;
    let calls: Vec<_> = (0..100).map(|_| call(&client, grpc("/", Body::empty()))).collect();
    let mut connections = Vec::new();
    for streams in [32, 32, 32, 4] {
        let mut app = Peer::accept(&listener).await;
        let mut waiting = Vec::new();
        for _ in 0..streams {
            waiting.push(app.request().await);
        }
        connections.push((app, waiting));
    }
    connections[1].0.send(&broken()).await;
    for (number, (app, waiting)) in connections.iter_mut().enumerate() {
        for stream in waiting.iter().filter(|_| number != 1) {
            app.send(&response(*stream, END_STREAM, &[])).await;
        }
    }
    let statuses = statuses(calls).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 68, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 32, "{statuses:?}");
}

#[tokio::test]
async fn what_may_be_sent_again_is_if_a_connection_breaks() {
    let (listener, _proxy, client) = proxied().await;
    let calls: Vec<_> = (0..32).map(|_| call(&client, get())).collect();
    let mut app = Peer::accept(&listener).await;
    for _ in 0..32 {
        app.request().await;
    }
    app.send(&broken()).await;
    answer(listener);
    assert_eq!(statuses(calls).await, vec![200; 32]);
}

#[tokio::test]
async fn a_request_whose_connection_breaks_again_hurts_nobody_the_second_time() {
    let (listener, _proxy, client) = proxied().await;
    let fails = call(&client, get());
    let mut app = Peer::accept(&listener).await;
    app.request().await;
    app.send(&broken()).await;
    // It is sent again, on a connection that no other request uses.
    let mut alone = Peer::accept(&listener).await;
    alone.request().await;
    let other = call(&client, grpc("/", Body::empty()));
    let mut shared = Peer::accept(&listener).await;
    let waits = shared.request().await;
    alone.send(&broken()).await;
    assert_eq!(statuses(vec![fails]).await, [502]);
    shared.send(&response(waits, END_STREAM, &[])).await;
    assert_eq!(statuses(vec![other]).await, [200]);
}

#[tokio::test]
async fn a_connection_makes_room_for_the_next_before_the_upstream_has_seen_too_many_resets() {
    let (listener, _proxy, client) = proxied().await;
    let waits = call(&client, grpc("/", Body::empty()));
    let mut first = Peer::accept(&listener).await;
    let waiting = first.request().await;
    for _ in 0..100 {
        let cancelled = call(&client, grpc("/", Body::empty()));
        let stream = first.request().await;
        cancelled.abort();
        first.wait_for(RST_STREAM, stream).await;
    }
    let next = call(&client, grpc("/", Body::empty()));
    let mut second = Peer::accept(&listener).await;
    let stream = second.request().await;
    second.send(&response(stream, END_STREAM, &[])).await;
    first.send(&response(waiting, END_STREAM, &[])).await;
    assert_eq!(statuses(vec![next, waits]).await, [200, 200]);
    // Nobody is left on the first, and it ends.
    while first.next().await.is_some() {}
}

#[tokio::test]
async fn an_app_that_does_not_speak_http_2_is_named() {
    let (listener, _proxy, mut client) = proxied().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    for request in [get(), grpc("/", Body::full("body"))] {
        let response = soon("a response", client.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 502);
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        assert_eq!(body, "the client speaks HTTP/2, the app does not\n");
    }
}

const PINGS: Pings = Pings { interval: Duration::from_secs(10), timeout: Duration::from_secs(5) };

/// Sends a request to an app that never answers it, over connections that are pinged.
fn send(to: SocketAddr) -> JoinHandle<Result<u16, SendError>> {
    tokio::spawn(async move {
        let mut request = grpc("/", Body::empty());
        let upstreams = upstreams().pinging(Some(PINGS));
        let response = upstreams.send(&Client::ourselves(), to, &mut request).await?;
        Ok(response.status().as_u16())
    })
}

// The clock is paused although the sockets are real: pings are the only timers there are.
#[tokio::test(start_paused = true)]
async fn an_upstream_that_has_vanished_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sending = send(listener.local_addr().unwrap());
    let mut app = Peer::accept_patiently(&listener).await;
    let start = tokio::time::Instant::now();
    let failure = sending.await.unwrap().unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 15);
    assert!(matches!(failure, SendError::Failed { .. }), "{failure:?}");
    assert!(failure.to_string().contains("keep-alive timed out"), "{failure}");
    while let Some(frame) = app.next_patiently().await {
        if frame.kind == PING {
            return;
        }
    }
    panic!("it was not asked");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_its_time_and_answers_pings_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sending = send(listener.local_addr().unwrap());
    let mut app = Peer::accept_patiently(&listener).await;
    let (mut pings, mut stream) = (0, 0);
    while pings < 20 {
        let next = app.next_patiently().await.expect("the connection is kept");
        match next.kind {
            HEADERS => stream = next.stream,
            PING => {
                pings += 1;
                app.send(&frame(PING, 1, 0, &next.payload)).await;
            }
            _ => {}
        }
    }
    app.send(&response(stream, END_STREAM, &[])).await;
    assert_eq!(sending.await.unwrap().unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_vanished_is_noticed_over_http_2() {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = start_proxy(app.local_addr().unwrap()).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    let hello = [crate::frames::PREFACE, &frame(crate::frames::SETTINGS, 0, 0, &[])].concat();
    client.write_all(&hello).await.unwrap();
    let start = tokio::time::Instant::now();
    client.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 80);
}
