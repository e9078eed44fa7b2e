use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use pilotlight_net::{Body, Client as Ourselves, Request, SendError};
use tokio::time::timeout;

use crate::support::{App, Client, GET, OK, header, nobody, proxied, soon, start_proxy, upstreams};

const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";

#[tokio::test]
async fn request_and_response_pass_with_their_headers_as_they_were_written() {
    let (mut client, app, _proxy) = proxied().await;
    client
        .send(
            "POST /a//b/%2F?q=%20&r HTTP/1.1\r\nhost: h:80\r\nx-foo-BAR: 1\r\ncontent-length: 4\r\n\r\nbody",
        )
        .await;
    let mut upstream = app.accept().await;
    let seen = upstream.read_message().await;
    assert!(
        seen.starts_with("POST /a//b/%2F?q=%20&r HTTP/1.1\r\n") && seen.ends_with("\r\n\r\nbody"),
        "{seen}"
    );
    for line in ["host: h:80", "x-foo-BAR: 1", "content-length: 4", "X-Forwarded-For: 127.0.0.1"] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} in {seen}");
    }
    assert_eq!(header(&seen, "user-agent"), None);
    upstream
        .send("HTTP/1.1 418 Teapot\r\nx-a: 1\r\nX-C: 3\r\nconnection: x-b\r\nx-b: 2\r\ncontent-length: 3\r\n\r\ntea")
        .await;
    let response = client.read_message().await;
    assert!(response.starts_with("HTTP/1.1 418 ") && response.ends_with("\r\n\r\ntea"), "{response}");
    for line in ["x-a: 1", "X-C: 3", "content-length: 3"] {
        assert!(response.contains(&format!("\r\n{line}\r\n")), "{line} in {response}");
    }
    assert_eq!(header(&response, "x-b"), None);
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let (mut client, app, _proxy) = proxied().await;
    let mut upstream = {
        client.send(GET).await;
        app.accept().await
    };
    for request in [GET, POST, GET] {
        upstream.read_message().await;
        upstream.send(OK).await;
        client.read_message().await;
        client.send(request).await;
    }
    upstream.read_message().await;
    upstream.send(OK).await;
    assert!(client.read_message().await.ends_with("ok"));
}

#[tokio::test]
async fn a_kept_connection_that_the_app_closed_costs_only_a_new_one() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send(OK).await;
    client.read_message().await;
    drop(upstream);
    client.send(POST).await;
    let mut upstream = app.accept().await;
    assert!(upstream.read_message().await.ends_with("body"));
    upstream.send(OK).await;
    assert!(client.read_message().await.ends_with("ok"));
}

#[tokio::test]
async fn a_get_that_met_a_closing_connection_is_sent_again() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send(OK).await;
    client.read_message().await;
    client.send(GET).await;
    upstream.read_head().await;
    drop(upstream);
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send(OK).await;
    assert!(client.read_message().await.ends_with("ok"));
}

#[tokio::test]
async fn a_post_that_was_written_is_never_sent_twice() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send(OK).await;
    client.read_message().await;
    client.send(POST).await;
    upstream.read_message().await;
    drop(upstream);
    let response = client.read_message().await;
    assert!(response.starts_with("HTTP/1.1 502 ") && response.ends_with("\r\n\r\nEOF\n"), "{response}");
}

#[tokio::test]
async fn nobody_at_the_other_end_is_a_502_in_gos_words() {
    let to = nobody().await;
    let proxy = start_proxy(to).await;
    let response = Client::connect(proxy.address).await.send(POST).await.read_message().await;
    assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
    assert!(
        response.ends_with(&format!("\r\n\r\ndial tcp {to}: connect: connection refused\n")),
        "{response}"
    );
    assert_eq!(header(&response, "content-type").as_deref(), Some("text/plain; charset=utf-8"));
    assert_eq!(header(&response, "x-content-type-options").as_deref(), Some("nosniff"));
}

#[tokio::test]
async fn a_request_that_was_not_sent_comes_back_whole() {
    let mut request = Request::new(Body::full("body"));
    *request.method_mut() = Method::POST;
    match upstreams().send(&Ourselves::ourselves(), nobody().await, &mut request).await {
        Err(SendError::NotSent { source }) => {
            assert!(source.is_refused());
            assert_eq!(request.method(), Method::POST);
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "body");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_app_that_hangs_up_without_an_answer_is_a_502() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(POST).await;
    app.accept().await.read_message().await;
    let response = client.read_message().await;
    assert!(response.starts_with("HTTP/1.1 502 ") && response.ends_with("\r\n\r\nEOF\n"), "{response}");
}

#[tokio::test]
async fn an_app_that_does_not_speak_http_is_a_502() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send("SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    assert!(client.read_message().await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn a_response_that_breaks_off_is_never_taken_for_whole() {
    for start in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    ] {
        let (mut client, app, _proxy) = proxied().await;
        client.send(GET).await;
        let mut upstream = app.accept().await;
        upstream.read_head().await;
        upstream.send(start).await;
        client.read_until("part").await;
        drop(upstream);
        let rest = client.read_to_end().await;
        assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
    }
}

#[tokio::test]
async fn a_response_without_a_length_that_is_reset_is_never_taken_for_whole() {
    for part in ["part", &"x".repeat(50_000)] {
        let (mut client, app, _proxy) = proxied().await;
        client.send(GET).await;
        let mut upstream = app.accept().await;
        upstream.read_head().await;
        upstream.send(&format!("HTTP/1.1 200 OK\r\n\r\n{part}end")).await;
        let upstream = upstream.into_stream();
        upstream.set_zero_linger().unwrap();
        drop(upstream);
        // However much of it arrives.
        assert!(!client.read_to_end().await.ends_with("0\r\n\r\n"));
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_upstream_connection_with_it() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart").await;
    client.read_until("part").await;
    drop(client);
    assert_eq!(upstream.read_to_end().await, "");
}

#[tokio::test]
async fn pieces_pass_as_they_come_in_both_directions() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut upstream = app.accept().await;
    assert_eq!(header(&upstream.read_head().await, "transfer-encoding").as_deref(), Some("chunked"));
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.read_head().await;
    for piece in ["1\r\na\r\n", "2\r\nbc\r\n", "0\r\n\r\n"] {
        client.send(piece).await;
        upstream.read_until(piece).await;
        upstream.send(piece).await;
        client.read_until(piece).await;
    }
}

#[tokio::test]
async fn an_app_that_does_not_read_holds_the_client_back() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    let megabyte = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let mut sent = 0;
    while sent < 100
        && timeout(Duration::from_millis(300), client.try_send(megabyte.as_bytes())).await.is_ok()
    {
        sent += 1;
    }
    // Socket buffers take a few megabytes each: back-pressure must set in some time.
    assert!(sent < 50, "the proxy took {sent} MiB that nobody reads");
}

#[tokio::test]
async fn a_get_with_a_body_of_unknown_length_keeps_it() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    app.accept().await.read_until("3\r\nabc\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn a_get_without_a_body_gets_none() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(GET).await;
    let head = app.accept().await.read_head().await;
    assert_eq!((header(&head, "content-length"), header(&head, "transfer-encoding")), (None, None));
}

#[tokio::test]
async fn announced_trailers_of_a_response_pass() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\n\r\n").await;
    let mut upstream = app.accept().await;
    assert_eq!(header(&upstream.read_head().await, "te").as_deref(), Some("trailers"));
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n").await;
    let response = client.read_until("\r\n0\r\n").await;
    assert_eq!(header(&response, "trailer").as_deref(), Some("X-Sum"));
    assert!(client.read_until("\r\n\r\n").await.eq_ignore_ascii_case("x-sum: 7\r\n\r\n"));
}

#[tokio::test]
async fn a_head_response_keeps_its_length() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut upstream = app.accept().await;
    assert!(upstream.read_head().await.starts_with("HEAD / "));
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    assert_eq!(header(&client.read_head().await, "content-length").as_deref(), Some("1234"));
    client.send(GET).await;
    assert!(upstream.read_head().await.starts_with("GET / "), "and the connection is still good");
}

#[tokio::test]
async fn old_clients_and_old_apps_are_understood() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let mut upstream = app.accept().await;
    let seen = upstream.read_head().await;
    assert!(seen.starts_with("GET / HTTP/1.1\r\n"), "{seen}");
    assert_eq!(header(&seen, "host"), Some(app.address.to_string()));
    upstream.send("HTTP/1.0 200 OK\r\n\r\nto the end").await;
    drop(upstream);
    assert!(client.read_to_end().await.ends_with("to the end"));
}

#[tokio::test]
async fn connect_is_refused_and_nothing_behind_it_is_a_request() {
    for behind in ["", "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n", "\x16\x03\x01"] {
        let (mut client, _app, _proxy) = proxied().await;
        client.send(&format!("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n{behind}")).await;
        let response = client.read_to_end().await;
        assert!(
            response.starts_with("HTTP/1.1 501 ") && response.matches("HTTP/1.1 ").count() == 1,
            "{response}"
        );
        assert_eq!(header(&response, "connection").as_deref(), Some("close"));
    }
}

#[tokio::test]
async fn a_malformed_request_body_is_the_clients_fault() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await;
    let mut upstream = app.accept().await;
    let response = client.read_to_end().await;
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    assert!(!upstream.read_to_end().await.contains("\r\n0\r\n"), "the app must not take it for whole");
}

#[tokio::test]
async fn an_early_response_does_not_wait_for_the_request_body() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\npart").await;
    let mut upstream = app.accept().await;
    upstream.read_until("part").await;
    upstream.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await;
    assert!(client.read_message().await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn idle_connections_to_a_forgotten_upstream_are_closed() {
    let (app, upstreams) = (App::listen().await, upstreams());
    let mut exchange = std::pin::pin!(async {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = "/".parse().unwrap();
        let response = upstreams.send(&Ourselves::ourselves(), app.address, &mut request).await.unwrap();
        response.into_body().collect().await.unwrap();
    });
    let mut upstream = tokio::select! {
        upstream = app.accept() => upstream,
        () = &mut exchange => unreachable!("nobody has answered yet"),
    };
    let answering = async {
        upstream.read_head().await;
        upstream.send(OK).await;
    };
    tokio::join!(soon("the exchange", exchange), answering);
    upstreams.forget(app.address);
    assert_eq!(upstream.read_to_end().await, "");
}

#[tokio::test]
async fn of_all_upstreams_together_no_more_connections_are_kept_than_allowed() {
    let (one, other, upstreams) =
        (App::listen().await, App::listen().await, upstreams().keep_no_more_than(1));
    let exchange = async |app: &App| {
        let answering = async {
            let mut upstream = app.accept().await;
            upstream.read_head().await;
            upstream.send(OK).await;
            upstream
        };
        let asking = async {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = "/".parse().unwrap();
            let response = upstreams.send(&Ourselves::ourselves(), app.address, &mut request).await.unwrap();
            response.into_body().collect().await.unwrap();
        };
        tokio::join!(answering, soon("the exchange", asking)).0
    };
    let mut kept = exchange(&one).await;
    assert_eq!(exchange(&other).await.read_to_end().await, "", "there is one already");
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "/again".parse().unwrap();
    let client = Ourselves::ourselves();
    let asking = upstreams.send(&client, one.address, &mut request);
    let answering = async {
        assert!(kept.read_head().await.starts_with("GET /again "));
        kept.send(OK).await;
    };
    tokio::join!(asking, answering).0.unwrap();
}

#[tokio::test]
async fn a_request_over_a_kept_connection_wakes_its_task_once() {
    let (app, upstreams) = (App::listen().await, upstreams());
    let to = app.address;
    let asking = tokio::spawn(async move {
        let (client, mut polls) = (Ourselves::ourselves(), 0);
        for _ in 0..2 {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = "/".parse().unwrap();
            let mut sending = pin!(upstreams.send(&client, to, &mut request));
            polls = 0;
            let response = poll_fn(|cx| {
                polls += 1;
                sending.as_mut().poll(cx)
            });
            response.await.unwrap().into_body().collect().await.unwrap();
        }
        polls
    });
    let mut upstream = app.accept().await;
    for _ in 0..2 {
        upstream.read_head().await;
        upstream.send(OK).await;
    }
    assert_eq!(soon("both responses", asking).await.unwrap(), 2, "once to send, once for the answer");
}

#[tokio::test]
async fn a_connection_that_its_app_is_about_to_close_is_not_used_again() {
    for (keep_alive, is_used) in
        [("timeout=0", false), ("timeout=600, max=9", true), ("timeout=18446744073709551615", true)]
    {
        let (mut client, app, _proxy) = proxied().await;
        client.send(GET).await;
        let mut upstream = app.accept().await;
        upstream.read_head().await;
        let response = OK.replace("\r\n\r\n", &format!("\r\nKeep-Alive: {keep_alive}\r\n\r\n"));
        upstream.send(&response).await;
        let response = client.read_message().await;
        assert_eq!(header(&response, "keep-alive"), None, "it is for one hop");
        client.send(POST).await;
        if !is_used {
            assert_eq!(upstream.read_to_end().await, "", "{keep_alive}");
            upstream = app.accept().await;
        }
        upstream.read_message().await;
        upstream.send(OK).await;
        client.read_message().await;
    }
}
