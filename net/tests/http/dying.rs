//! Upstreams that die: what may be sent again, and what is not even written.

use http::{Method, Version};
use pilotlight_net::{Body, Client as Ourselves, Request, SendError, Upstreams};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::frames::Peer;
use crate::support::{App, OK, soon, upstreams};

type Outcome = (Result<u16, SendError>, Request);

fn request(method: &Method, version: Version) -> Request {
    let has_body = *method == Method::POST;
    let request = http::Request::builder().method(method).version(version).uri("http://h/");
    request.body(if has_body { Body::full("body") } else { Body::empty() }).unwrap()
}

/// Sends a request, and returns it with its outcome.
fn send(over: &Upstreams, app: std::net::SocketAddr, mut request: Request) -> JoinHandle<Outcome> {
    let over = over.clone();
    tokio::spawn(async move {
        let sent = over.send(&Ourselves::ourselves(), app, &mut request).await;
        (sent.map(|response| response.status().as_u16()), request)
    })
}

async fn outcome(sending: JoinHandle<Outcome>) -> Outcome {
    soon("an outcome", sending).await.unwrap()
}

/// Has a `POST` end with its connection.
async fn breaks(over: &Upstreams, app: &App) {
    let lost = send(over, app.address, request(&Method::POST, Version::HTTP_11));
    app.accept().await.read_message().await;
    let lost = outcome(lost).await.0;
    assert!(matches!(lost, Err(SendError::Failed { .. })), "{lost:?}");
}

#[tokio::test]
async fn what_was_not_answered_with_a_byte_may_be_sent_again_if_it_is_safe_and_has_no_body() {
    let (app, over) = (App::listen().await, upstreams());
    for (method, may_be_repeated) in
        [(Method::GET, true), (Method::HEAD, true), (Method::OPTIONS, true), (Method::DELETE, false)]
    {
        let sending = send(&over, app.address, request(&method, Version::HTTP_11));
        app.accept().await.read_head().await;
        let (failure, request) = outcome(sending).await;
        assert_eq!(matches!(failure, Err(SendError::Replayable { .. })), may_be_repeated, "{failure:?}");
        assert_eq!(request.method(), method);
        // A byte of an answer is one.
        let sending = send(&over, app.address, request);
        let mut upstream = app.accept().await;
        upstream.read_head().await;
        upstream.send("H").await;
        drop(upstream);
        let failure = outcome(sending).await.0;
        assert!(matches!(failure, Err(SendError::Failed { .. })), "{failure:?}");
    }
    breaks(&over, &app).await;
}

#[tokio::test]
async fn the_same_goes_for_a_new_connection_over_http_2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, over) = (listener.local_addr().unwrap(), upstreams());
    for method in [Method::GET, Method::POST] {
        let sending = send(&over, address, request(&method, Version::HTTP_2));
        let mut app = Peer::accept(&listener).await;
        app.request().await;
        drop(app);
        let (failure, request) = outcome(sending).await;
        let may_be_repeated = method == Method::GET;
        assert_eq!(matches!(failure, Err(SendError::Replayable { .. })), may_be_repeated, "{failure:?}");
        if may_be_repeated {
            assert_eq!((request.method(), request.version()), (&method, Version::HTTP_2));
        }
    }
}

#[tokio::test]
async fn a_request_that_may_be_sent_again_is_there_again_with_its_response() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let get = request(&Method::GET, Version::HTTP_2);
    let sending = send(&upstreams(), listener.local_addr().unwrap(), get);
    let mut app = Peer::accept(&listener).await;
    let stream = app.request().await;
    app.send(&crate::frames::response(stream, crate::frames::END_STREAM, &[])).await;
    let (status, request) = outcome(sending).await;
    assert_eq!((status.unwrap(), request.uri().host()), (200, Some("h")));
}

#[tokio::test]
async fn nothing_is_written_to_a_connection_that_a_dying_upstream_has_accepted() {
    let (app, over) = (App::listen().await, upstreams());
    // The upstream has 50 ms to die, which a busy machine may be late for.
    for _ in 0..20 {
        breaks(&over, &app).await;
        let sending = send(&over, app.address, request(&Method::POST, Version::HTTP_11));
        drop(app.accept().await);
        if let (Err(SendError::NotSent { .. }), request) = outcome(sending).await {
            assert!(!http_body::Body::is_end_stream(request.body()), "it has its body");
            return;
        }
    }
    panic!("each request was written");
}

#[tokio::test]
async fn an_upstream_that_lives_on_is_sent_the_next_request_after_a_moment() {
    let (app, over) = (App::listen().await, upstreams());
    breaks(&over, &app).await;
    let sending = send(&over, app.address, request(&Method::POST, Version::HTTP_11));
    let mut upstream = app.accept().await;
    upstream.read_message().await;
    upstream.send(OK).await;
    assert_eq!(outcome(sending).await.0.unwrap(), 200);
}
