//! HTTP/2 and upgraded connections: counted, limited and drained like any other request.

use http_body_util::BodyExt;
use pilotlight_net::{Body, Request, Response, SendError, UpstreamParams, Upstreams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::*;

fn h2_client() -> Upstreams {
    let second = std::time::Duration::from_secs(1);
    Upstreams::new(UpstreamParams {
        max_idle_per_host: 1,
        idle_timeout: 60 * second,
        connect_timeout: second,
    })
}

fn h2_get(headers: &[(&'static str, &'static str)]) -> Request {
    let request = http::Request::get("/").version(http::Version::HTTP_2).header("host", "h");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::empty()).unwrap()
}

fn send(client: &Upstreams, proxy: &Running, mut request: Request) -> JoinHandle<Response> {
    let (client, to) = (client.clone(), proxy.at.requests);
    tokio::spawn(async move {
        client.send(&pilotlight_net::Client::ourselves(), to, &mut request).await.expect("an answer")
    })
}

async fn text(response: JoinHandle<Response>) -> (u16, String) {
    let response = soon("a response", response).await.unwrap();
    let status = response.status().as_u16();
    let body = soon("a body", response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn streams_of_one_connection_are_counted_and_limited_one_by_one() {
    let gate = Gate::closed().await;
    let proxy = Running::start(env(gate.address, &[("CONTAINER_CONCURRENCY", "1")])).await;
    let client = h2_client();
    let calls = [0; 3].map(|_| send(&client, &proxy, h2_get(&[("k-proxy-request", "activator")])));
    gate.holds(1).await;
    until("all three are counted", async || {
        proxy.next_report().await.average_proxied_concurrent_requests > 2.9
    })
    .await;
    gate.let_through(3);
    for call in calls {
        assert_eq!(text(call).await, (200, "through".to_owned()));
    }
    assert_eq!(gate.most.load(std::sync::atomic::Ordering::SeqCst), 1, "one at a time");
}

#[tokio::test]
async fn a_cancelled_stream_leaves_its_place_to_the_next() {
    let gate = Gate::closed().await;
    let proxy = Running::start(env(gate.address, &[("CONTAINER_CONCURRENCY", "1")])).await;
    let client = h2_client();
    let first = send(&client, &proxy, h2_get(&[]));
    gate.holds(1).await;
    let second = send(&client, &proxy, h2_get(&[]));
    first.abort();
    gate.let_through(2);
    assert_eq!(text(second).await, (200, "through".to_owned()));
}

#[tokio::test]
async fn probes_are_answered_over_http_2() {
    let proxy = Running::start(env(mirror().await, &[])).await;
    let probe = h2_get(&[("user-agent", "kube-probe/1.29"), ("k-network-probe", "queue")]);
    assert_eq!(text(send(&h2_client(), &proxy, probe)).await, (200, "queue".to_owned()));
}

#[tokio::test]
async fn the_app_hears_the_host_a_mesh_has_hidden_over_http_2_too() {
    let app = app(|request: Request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        Response::new(Body::full(format!("{:?} {host}", request.version())))
    })
    .await;
    let proxy = Running::start(env(app, &[])).await;
    let request = h2_get(&[("k-original-host", "a-better-host.com")]);
    let answer = text(send(&h2_client(), &proxy, request)).await;
    assert_eq!(answer, (200, "HTTP/2.0 a-better-host.com".to_owned()));
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    soon(end, async {
        while !read.ends_with(end.as_bytes()) {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "closed before {end:?}");
        }
    })
    .await;
    String::from_utf8(read).unwrap()
}

/// An upgraded connection through a queue-proxy that allows one request: the client's end, and the app's.
async fn upgraded(listener: &TcpListener, proxy: &Running) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(proxy.at.requests).await.unwrap();
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    let (mut app, _) = soon("a connection", listener.accept()).await.unwrap();
    read_until(&mut app, "\r\n\r\n").await;
    app.write_all(SWITCHED.as_bytes()).await.unwrap();
    assert!(read_until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
    (client, app)
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_place_and_its_count_until_it_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Running::start(env(address, &[("CONTAINER_CONCURRENCY", "1")])).await;
    let (client, app) = upgraded(&listener, &proxy).await;
    until("it counts", async || proxy.next_report().await.average_concurrent_requests > 0.99).await;
    let next = tokio::spawn(ask(proxy.at.requests, GET));
    until("the next one waits", async || proxy.next_report().await.average_concurrent_requests > 1.99).await;
    drop((client, app));
    let (mut app, _) = soon("the next one's turn", listener.accept()).await.unwrap();
    read_until(&mut app, "\r\n\r\n").await;
    app.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(body(&soon("the answer", next).await.unwrap()), "ok");
}

#[tokio::test]
async fn the_end_of_the_drain_waits_for_upgraded_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut proxy = Running::start(env(listener.local_addr().unwrap(), &[])).await;
    let (mut client, mut app) = upgraded(&listener, &proxy).await;
    proxy.terminate();
    until("the port closed", async || TcpStream::connect(proxy.at.requests).await.is_err()).await;
    client.write_all(b"still here").await.unwrap();
    assert_eq!(read_until(&mut app, "still here").await, "still here");
    assert!(!proxy.task.is_finished());
    drop((client, app));
    soon("the end", proxy.task).await.unwrap();
}

#[tokio::test]
async fn no_upgraded_connection_outlives_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let timeout = [("REVISION_TIMEOUT_SECONDS", "1")];
    let mut proxy = Running::start(env(listener.local_addr().unwrap(), &timeout)).await;
    let (_client, _app) = upgraded(&listener, &proxy).await;
    proxy.terminate();
    soon("the end", proxy.task).await.unwrap();
}

#[tokio::test]
async fn over_http_2_a_request_that_no_app_has_seen_is_a_stream_that_was_not_processed() {
    let proxy = Running::start(env(nobody(), &[])).await;
    let mut request = h2_get(&[("k-proxy-request", "activator")]);
    let sent = h2_client().send(&pilotlight_net::Client::ourselves(), proxy.at.requests, &mut request).await;
    assert!(matches!(sent, Err(SendError::NotSent { .. })), "{sent:?}");
    // Whoever is no activator may have nobody else to ask, and is told why.
    let (status, text) = text(send(&h2_client(), &proxy, h2_get(&[]))).await;
    assert!(status == 502 && text.contains("connection refused"), "{status} {text}");
}
