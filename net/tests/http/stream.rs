//! Pieces, trailers and `100 Continue`, which a proxy must neither collect nor drop.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{OK, header, proxied, soon};

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn an_event_reaches_the_client_before_the_next_is_made() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("GET /events HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send(EVENTS).await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 "), "the head comes without any event");
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        upstream.send(&format!("{:x}\r\n{event}\r\n", event.len())).await;
        assert!(client.read_until(event).await.ends_with(event));
    }
    upstream.send("0\r\n\r\n").await;
    client.read_until("0\r\n\r\n").await;
}

#[tokio::test]
async fn an_answer_may_begin_and_end_while_the_request_goes_on() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
    let mut upstream = app.accept().await;
    upstream.read_until("1\r\na\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n").await;
    client.read_until("1\r\nA\r\n").await;
    client.send("1\r\nb\r\n").await;
    upstream.read_until("1\r\nb\r\n").await;
    upstream.send("1\r\nB\r\n0\r\n\r\n").await;
    client.read_until("1\r\nB\r\n0\r\n\r\n").await;
    client.send("0\r\n\r\n").await;
    upstream.read_until("0\r\n\r\n").await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_until_it_has_sent_all_does_not_hang() {
    // Together, these are more than all buffers on the way take.
    const BYTES: usize = 32 << 20;
    let (mut client, app, _proxy) = proxied().await;
    client.send(&format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {BYTES}\r\n\r\n")).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    // The app answers before it has read the body.
    let (mut reader, mut writer) = upstream.into_stream().into_split();
    let answering = tokio::spawn(async move {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.unwrap();
        writer.write_all(&vec![b'A'; BYTES]).await.unwrap();
        writer
    });
    let reading = tokio::spawn(async move {
        let mut read = vec![0; BYTES];
        reader.read_exact(&mut read).await.unwrap();
    });
    soon("all is sent", client.try_send(&vec![b'a'; BYTES])).await.unwrap();
    soon("all is read", reading).await.unwrap();
    assert!(client.read_message().await.ends_with(&"A".repeat(BYTES)));
    soon("all is answered", answering).await.unwrap();
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (mut client, app, _proxy) = proxied().await;
    let head =
        "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(&format!("{head}1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")).await;
    let mut upstream = app.accept().await;
    let seen = upstream.read_head().await;
    assert_eq!(header(&seen, "trailer").as_deref(), Some("X-Sum"), "{seen}");
    assert_eq!(header(&seen, "te").as_deref(), Some("trailers"), "{seen}");
    let body = upstream.read_until("\r\n\r\n").await;
    assert!(body.to_lowercase().ends_with("0\r\nx-sum: 1\r\n\r\n"), "{body}");
    let head = "HTTP/1.1 200 OK\r\nTrailer: Grpc-Status\r\nTransfer-Encoding: chunked\r\n\r\n";
    upstream.send(&format!("{head}1\r\nb\r\n0\r\nGrpc-Status: 7\r\n\r\n")).await;
    let head = client.read_head().await;
    assert_eq!(header(&head, "trailer").as_deref(), Some("Grpc-Status"), "{head}");
    let body = client.read_until("\r\n\r\n").await;
    assert!(body.to_lowercase().ends_with("0\r\ngrpc-status: 7\r\n\r\n"), "{body}");
}

const ASKS_FIRST: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";

#[tokio::test]
async fn the_app_decides_whether_a_client_that_asks_first_may_continue() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(ASKS_FIRST).await;
    let mut upstream = app.accept().await;
    let seen = upstream.read_head().await;
    assert_eq!(header(&seen, "expect").as_deref(), Some("100-continue"), "{seen}");
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 100 "));
    client.send("body").await;
    assert_eq!(upstream.read_until("body").await, "body");
    upstream.send(OK).await;
    assert!(client.read_message().await.ends_with("ok"));
}

#[tokio::test]
async fn an_app_that_refuses_first_never_has_the_client_continue() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(ASKS_FIRST).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    let response = client.read_message().await;
    assert!(response.starts_with("HTTP/1.1 417 ") && response.ends_with("no"), "{response}");
    assert_eq!(client.read_to_end().await, "", "what comes next would be taken for the body");
    assert_eq!(upstream.read_to_end().await, "");
}

#[tokio::test]
async fn an_app_that_knows_nothing_of_continuing_gets_the_body_all_the_same() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(ASKS_FIRST).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    // The body comes after a second of silence.
    assert!(client.read_head().await.starts_with("HTTP/1.1 100 "));
    client.send("body").await;
    assert_eq!(soon("the body", upstream.read_until("body")).await, "body");
}

#[tokio::test]
async fn answers_in_between_reach_the_client_in_front_of_the_last() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    for link in ["</a>", "</b>"] {
        upstream.send(&format!("HTTP/1.1 103 Early Hints\r\nLink: {link}\r\nKeep-Alive: 5\r\n\r\n")).await;
        let hint = client.read_head().await;
        assert_eq!(hint, format!("HTTP/1.1 103 Early Hints\r\nLink: {link}\r\n\r\n"));
    }
    // Two interim responses come at once, and the final one with them.
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </c>\r\n\r\n";
    upstream.send(&format!("{hint}HTTP/1.1 102 Processing\r\n\r\n{OK}")).await;
    assert_eq!(client.read_head().await, hint);
    assert_eq!(client.read_head().await, "HTTP/1.1 102 Processing\r\n\r\n");
    let response = client.read_message().await;
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("ok"), "{response}");
}

#[tokio::test]
async fn a_client_of_http_1_0_hears_only_the_last_answer() {
    let (mut client, app, _proxy) = proxied().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send(&format!("HTTP/1.1 103 Early Hints\r\n\r\n{OK}")).await;
    let response = client.read_to_end().await;
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("ok"), "{response}");
}
