//! Framing: the end of each message, and the fields that two readers could see differently.

use std::future::poll_fn;
use std::task::Poll;

use pilotlight_net::{Body, Request, Upstreams};
use tokio::task::coop;

use crate::support::{App, Client, GET, OK, header, proxied, soon, upstreams};

#[tokio::test]
async fn a_target_without_a_path_is_sent_with_one() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("GET http://h?q HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let seen = app.accept().await.read_head().await;
    assert!(seen.starts_with("GET /?q HTTP/1.1\r\n"), "{seen}");
}

#[tokio::test]
async fn a_coding_that_is_named_twice_is_refused() {
    let (mut client, _app, _proxy) = proxied().await;
    let coding = "Transfer-Encoding: chunked\r\n".repeat(2);
    client.send(&format!("POST / HTTP/1.1\r\nHost: h\r\n{coding}\r\n0\r\n\r\n")).await;
    let response = client.read_message().await;
    assert!(response.starts_with("HTTP/1.1 501 "), "{response}");
}

#[tokio::test]
async fn a_connection_is_not_kept_after_a_response_that_may_be_longer_than_it_seems() {
    for odd in [
        "HTTP/1.1 204 No Content\r\nContent-Length: 40\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let (mut client, app, _proxy) = proxied().await;
        client.send(GET).await;
        let mut upstream = app.accept().await;
        upstream.read_head().await;
        upstream.send(odd).await;
        client.read_head().await;
        assert_eq!(upstream.read_to_end().await, "", "{odd}");
    }
}

/// Spends the task's budget: whatever it polls until it yields is `Pending`.
async fn spend_budget() {
    poll_fn(|cx| {
        while let Poll::Ready(progress) = coop::poll_proceed(cx) {
            progress.made_progress();
        }
        Poll::Ready(())
    })
    .await;
}

async fn send(upstreams: &Upstreams, app: &App, request: &mut Request) -> String {
    let client = pilotlight_net::Client::ourselves();
    let response = upstreams.send(&client, app.address, request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

// A pool with one kept connection to an app.
async fn kept() -> (Upstreams, App, Client) {
    let (upstreams, app) = (upstreams(), App::listen().await);
    let mut request = Request::default();
    let (body, upstream) = tokio::join!(send(&upstreams, &app, &mut request), async {
        let mut upstream = app.accept().await;
        upstream.read_head().await;
        upstream.send(OK).await;
        upstream
    });
    assert_eq!(body, "ok");
    (upstreams, app, upstream)
}

#[tokio::test]
async fn a_busy_task_notices_what_became_of_its_kept_connections_all_the_same() {
    for said in [None, Some("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")] {
        let (upstreams, app, mut upstream) = kept().await;
        match said {
            Some(unasked) => drop(upstream.send(unasked).await),
            None => drop(upstream),
        }
        // The runtime gets to see the close.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let mut request = Request::new(Body::full("body"));
        *request.method_mut() = http::Method::POST;
        let busy = async {
            spend_budget().await;
            send(&upstreams, &app, &mut request).await
        };
        let (body, ()) = tokio::join!(soon("the answer", busy), async {
            let mut upstream = app.accept().await;
            assert!(upstream.read_message().await.ends_with("body"));
            upstream.send(OK).await;
        });
        assert_eq!(body, "ok", "{said:?}");
    }
}

#[tokio::test]
async fn a_request_is_sent_whole_before_its_connection_is_no_longer_http() {
    let (mut client, app, _proxy) = proxied().await;
    let wish = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    client.send(&format!("POST / HTTP/1.1\r\nHost: h\r\n{wish}Content-Length: 8\r\n\r\npart")).await;
    let mut upstream = app.accept().await;
    upstream.read_until("part").await;
    upstream.send(&format!("HTTP/1.1 101 Switching Protocols\r\n{wish}\r\n")).await;
    let response = client.read_message().await;
    assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
    assert_eq!(header(&response, "upgrade"), None);
}
