//! HTTP/2 and upgraded connections through the activator: held, counted and retried like any other request.

use http::Request as HttpRequest;
use pilotlight_net::{Body, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

fn h2(path: &str, body: &'static str) -> Request {
    let request = HttpRequest::post(path).version(http::Version::HTTP_2).header("host", HOST);
    request.body(Body::full(body)).unwrap()
}

#[tokio::test]
async fn an_http_2_request_waits_for_a_pod_and_reaches_it_as_http_2() {
    let world = World::start(revision(1)).await;
    let waiting = [world.send(h2("/one", "1")), world.send(h2("/two", "2"))];
    eventually("both wait", || world.queued() == 2).await;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod.endpoint()]);
    for response in waiting {
        assert_eq!(outcome(response).await, (200, "pod".to_owned()));
    }
    assert_eq!(pod.versions(), [http::Version::HTTP_2; 2]);
    assert_eq!(pod.most_at_once(), 1, "one connection, and still one request at a time");
    assert_eq!(pod.header("k-original-host"), HOST);
    assert_eq!(pod.header("host"), pod.address.to_string());
    eventually("all is over", || world.active() == 0).await;
}

#[tokio::test]
async fn a_cancelled_stream_leaves_the_line_at_once() {
    let world = World::start(revision(1)).await;
    let waiting = world.send(h2("/", "body"));
    eventually("it waits", || world.queued() == 1).await;
    waiting.abort();
    eventually("it has left", || world.queued() == 0).await;
}

#[tokio::test]
async fn a_pod_that_is_gone_costs_an_http_2_request_nothing() {
    let world = World::start(revision(1)).await;
    let gone = listen().await.0;
    let pod = FakePod::start().await;
    world.set(|revision| revision.ready = vec![pod_at(gone), pod.endpoint()]);
    for _ in 0..2 {
        assert_eq!(outcome(world.send(h2("/", "body"))).await, (200, "pod".to_owned()));
    }
    assert_eq!(pod.bodies(), ["body", "body"]);
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_pod_until_it_closes() {
    let world = World::start(revision(1)).await;
    let (address, listener) = listen().await;
    world.set(|revision| revision.ready = vec![pod_at(address)]);
    let wish = "Connection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    let mut client = world.send_raw(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{wish}")).await;
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    read_until(&mut pod, "\r\n\r\n").await;
    pod.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{wish}hello").as_bytes()).await.unwrap();
    let head = read_until(&mut client, "hello").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let next = world.get_queued("/next").await;
    assert_eq!(world.active(), 1);
    drop((client, pod));
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    read_until(&mut pod, "\r\n\r\n").await;
    pod.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\npod").await.unwrap();
    assert_eq!(outcome(next).await, (200, "pod".to_owned()));
    eventually("all is over", || world.active() == 0).await;
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    soon(async {
        while !read.ends_with(end.as_bytes()) {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "closed before {end:?}");
        }
    })
    .await;
    String::from_utf8(read).unwrap()
}
