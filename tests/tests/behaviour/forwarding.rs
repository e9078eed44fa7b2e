//! The app's view of requests, through both proxies one after the other as in a cluster, and large bodies both ways.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pilotlight_tests::http::send_raw;
use pilotlight_tests::proxies::{HOST, Proxy};
use pilotlight_tests::recorder::{Recorder, Seen};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn the_app_hears_what_the_client_said_and_nothing_of_what_only_proxies_say() {
    let app = Recorder::start().await;
    let pod = Proxy::queue_proxy(app.address, &[]).await;
    let front = Proxy::activator(&[("app", &[HOST], &[pod.address])]).await;
    let request = "POST /a//b/%2F?q=%20 HTTP/1.1\r\nHost: app.example\r\nUser-Agent: mine\r\n\
        X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: app.example\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nCookie: a=b; c=d\r\n\
        Knative-Serving-Revision: app\r\nKnative-Serving-Namespace: default\r\nX-Mine: 1\r\nX-Mine: 2\r\n\
        Proxy-Authorization: secret\r\nKeep-Alive: 5\r\nX-Hop: 3\r\nConnection: close, X-Hop\r\n\
        Content-Length: 5\r\n\r\nhello";
    let answer = send_raw(front.address, request.as_bytes()).await.expect("a connection");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    let seen = app.take_seen();
    let [seen] = seen.as_slice() else { panic!("one request: {seen:?}") };
    assert_eq!(seen.essence(), "POST /a//b/%2F?q=%20 \"hello\"");
    for (name, values) in [
        ("host", &["app.example"][..]),
        ("user-agent", &["mine"]),
        ("cookie", &["a=b; c=d"]),
        ("x-mine", &["1", "2"]),
        ("x-forwarded-proto", &["https"]),
        ("x-forwarded-for", &["10.1.2.3, 127.0.0.1, 127.0.0.1"]),
        ("forwarded", &["for=10.1.2.3;host=app.example;proto=https, for=127.0.0.1"]),
        ("traceparent", &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]),
        ("k-proxy-request", &["activator"]),
        ("content-length", &["5"]),
        ("knative-serving-revision", &[]),
        ("knative-serving-namespace", &[]),
        ("k-original-host", &[]),
        ("proxy-authorization", &[]),
        ("keep-alive", &[]),
        ("x-hop", &[]),
    ] {
        assert_eq!(seen.header(name), values, "{name} in {seen:?}");
    }
}

#[tokio::test]
async fn a_client_without_a_user_agent_is_given_none() {
    let app = Recorder::start().await;
    for (kind, proxy) in Proxy::each(app.address).await {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        send_raw(proxy.address, request.as_bytes()).await.expect("a connection");
        let seen = app.take_seen();
        assert!(
            seen.iter().all(|seen| seen.header("user-agent").is_empty()) && seen.len() == 1,
            "{kind}: {seen:?}"
        );
        assert!(matches!(seen[0], Seen::Request { .. }), "{kind}: {seen:?}");
    }
}

/// An app that sends a body back as it comes, and does not wait for its end.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let back = |request: Request<Incoming>| async {
                Ok::<_, Infallible>(http::Response::new(request.into_body()))
            };
            tokio::spawn(server::Builder::new().serve_connection(TokioIo::new(stream), service_fn(back)));
        }
    });
    address
}

#[tokio::test]
async fn large_bodies_come_back_whole_on_many_kept_connections() {
    let app = echo().await;
    for (kind, proxy) in Proxy::each(app).await {
        let clients = (0..32_u8).map(async |number| {
            let stream = TcpStream::connect(proxy.address).await.expect("a connection");
            let (mut sender, driver) = client::handshake(TokioIo::new(stream)).await.expect("a connection");
            let driver = tokio::spawn(driver);
            let body = Bytes::from(vec![number; 32 << 10]);
            for _ in 0..20 {
                let request = Request::post("/").header(header::HOST, HOST).body(Full::new(body.clone()));
                sender.ready().await.expect("the connection is kept");
                let response = sender.send_request(request.expect("a request")).await.expect("an answer");
                assert_eq!(response.status(), 200, "{kind}");
                let back = response.into_body().collect().await.expect("a whole body").to_bytes();
                assert!(back == body, "{kind}: {} bytes came back", back.len());
            }
            driver.abort();
        });
        join_all(clients).await;
    }
}
