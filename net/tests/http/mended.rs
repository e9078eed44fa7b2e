//! Responses that are malformed in a way that means one thing to everybody: they are mended, and passed on.

use crate::support::{GET, proxied};

/// What the client gets for these lines in the head of the app's response.
async fn passed_on(status_line: &str, lines: &str) -> String {
    let (mut client, app, _proxy) = proxied().await;
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    let head = format!("{status_line}\r\n{lines}Date: now\r\nContent-Length: 2\r\n\r\nok");
    // Byte by byte, so that a fold may come behind what looks like the end of a line.
    for byte in head.chars() {
        upstream.send(&byte.to_string()).await;
    }
    client.read_message().await
}

#[tokio::test]
async fn folded_lines_of_a_response_are_joined_by_a_space() {
    for (lines, joined) in [
        ("X: a\r\n b\r\n", "X: a b\r\n"),
        ("X: a \r\n\t  b\r\n c\r\n", "X: a b c\r\n"),
        ("X:\r\n a\r\n", "X: a\r\n"),
        ("X: a\r\n \r\n b\r\n", "X: a b\r\n"),
        ("X: a\r\n \r\n", "X: a\r\n"),
        ("X: a\n b\r\n", "X: a b\r\n"),
        ("X: a\r\n b: c\r\nY: d\r\n", "X: a b: c\r\nY: d\r\n"),
        (
            "Content-Security-Policy: default-src 'self';\r\n      script-src 'self' cdn.example;\r\n      img-src *\r\n",
            "Content-Security-Policy: default-src 'self'; script-src 'self' cdn.example; img-src *\r\n",
        ),
    ] {
        let response = passed_on("HTTP/1.1 200 OK", lines).await;
        assert_eq!(response, format!("HTTP/1.1 200 OK\r\n{joined}Date: now\r\nContent-Length: 2\r\n\r\nok"));
    }
}

#[tokio::test]
async fn folded_trailers_of_a_response_are_joined_too_and_those_of_a_request_are_malformed() {
    let (mut client, app, _proxy) = proxied().await;
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    let response =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: a\r\n\t b\r\nY : c\r\n\r\n";
    for byte in response.chars() {
        upstream.send(&byte.to_string()).await;
    }
    let end = client.read_until("0\r\nX: a b\r\nY: c\r\n\r\n").await;
    assert!(end.starts_with("HTTP/1.1 200 OK\r\n"), "{end}");

    let chunks = "2\r\nok\r\n0\r\nX: a\r\n b\r\n\r\n";
    client.send(&format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")).await;
    let response = client.read_message().await;
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("malformed trailers"), "{response}");
}

#[tokio::test]
async fn blanks_in_front_of_a_colon_are_taken_out_of_a_response() {
    let response = passed_on("HTTP/1.1 200 OK", "X : a\r\nY\t: b\r\n").await;
    assert_eq!(response, "HTTP/1.1 200 OK\r\nX: a\r\nY: b\r\nDate: now\r\nContent-Length: 2\r\n\r\nok");
}

#[tokio::test]
async fn a_later_minor_version_of_a_response_is_taken_for_http_1_1() {
    for version in ["HTTP/1.2", "HTTP/1.9"] {
        let response = passed_on(&format!("{version} 200 OK"), "").await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("ok"), "{response}");
    }
}

#[tokio::test]
async fn what_cannot_be_mended_is_a_502_that_shows_the_line() {
    let long = format!("{}\u{1}: a\r\n", "x".repeat(200));
    let shown = format!("malformed header name: \"{}...\"", "x".repeat(80));
    for (status_line, lines, what) in [
        ("HTTP/1.1 200 OK", "A: b\r\nX Y: a\r\n", r#"malformed header name: "X Y: a""#),
        ("HTTP/1.1 200 OK", "A: b\r\nno colon\r\n", r#"malformed header name: "no colon""#),
        ("HTTP/1.1 200 OK", ": a\r\n", r#"malformed header name: ": a""#),
        ("HTTP/1.1 200 OK", " a: b\r\n", r#"malformed header name: " a: b""#),
        ("HTTP/1.1 200 OK", "A: b\r\n c\r\nX: \u{1}\r\n", r#"malformed header value: "X: \x01""#),
        ("HTTP/1.1 200 OK", &long, &shown),
        ("HTTP/1.1 20 OK", "", r#"malformed HTTP status code: "HTTP/1.1 20 OK""#),
        ("HTTP/2.0 200 OK", "", r#"malformed HTTP version: "HTTP/2.0"#),
    ] {
        let response = passed_on_at_once(status_line, lines).await;
        let expected = format!("\r\n\r\nmalformed HTTP response: {what}");
        assert!(response.starts_with("HTTP/1.1 502 ") && response.contains(&expected), "{what}: {response}");
    }
}

#[tokio::test]
async fn a_folded_length_or_coding_is_what_it_is_when_it_is_joined() {
    for lines in
        ["Content-Length: 1\r\n 0\r\n", "Transfer-Encoding: chun\r\n ked\r\n", "Content-Length: 2\r\n 2\r\n"]
    {
        let response = passed_on_at_once("HTTP/1.1 200 OK", lines).await;
        assert!(response.starts_with("HTTP/1.1 502 "), "{lines:?}: {response}");
    }
    let response = passed_on("HTTP/1.1 200 OK", "X: a\r\nContent-Length:\r\n 2\r\n").await;
    assert!(response.contains("\r\nContent-Length: 2\r\n") && response.ends_with("\r\n\r\nok"), "{response}");
}

/// The same for a head that comes in one piece.
async fn passed_on_at_once(status_line: &str, lines: &str) -> String {
    let (mut client, app, _proxy) = proxied().await;
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.read_head().await;
    upstream.send(&format!("{status_line}\r\n{lines}\r\n")).await;
    client.read_message().await
}
