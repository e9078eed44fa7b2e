//! Clients that hang up, or stop in the middle: what they began never counts as whole.

use pilotlight_tests::proxies::Proxy;
use pilotlight_tests::recorder::{Recorder, Seen};
use pilotlight_tests::{SOON, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{exchange, statuses, whole};

#[tokio::test]
async fn a_body_that_is_shorter_than_it_said_reaches_the_app_as_one_that_broke_off() {
    let app = Recorder::start().await;
    for (kind, proxy) in Proxy::each(app.address).await {
        for (framing, body) in [("Content-Length: 10", "ab"), ("Transfer-Encoding: chunked", "2\r\nab\r\n")] {
            let mut stream = TcpStream::connect(proxy.address).await.expect("a connection");
            let bytes = format!("POST /a HTTP/1.1\r\nHost: app.example\r\n{framing}\r\n\r\n{body}");
            stream.write_all(bytes.as_bytes()).await.expect("writable");
            // A half-close: that is no end of a body either.
            stream.shutdown().await.expect("writable");
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            assert!(matches!(statuses(&answer).as_slice(), [] | ["400"]), "{kind}: {answer}");
            let seen = eventually("the app hears of it", SOON, async || app.take_seen().pop()).await;
            assert!(matches!(seen, Seen::Cut(_)), "{kind}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_head_that_breaks_off_reaches_nobody() {
    let app = Recorder::start().await;
    for (kind, proxy) in Proxy::each(app.address).await {
        for half in ["", "G", "GET /a HTTP/1.1\r\nHost: app.example\r\n", "PRI", "PRI * HTTP/2.0\r\n\r\nSM"] {
            let mut stream = TcpStream::connect(proxy.address).await.expect("a connection");
            stream.write_all(half.as_bytes()).await.expect("writable");
            stream.shutdown().await.expect("writable");
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            assert!(matches!(statuses(&answer).as_slice(), [] | ["400"]), "{kind}, {half:?}: {answer}");
        }
        let answer = exchange(proxy.address, LAST.as_bytes()).await;
        assert_eq!(
            (statuses(&answer), whole(&app)),
            (vec!["200"], vec!["GET /last \"\"".to_owned()]),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn http_1_0_is_kept_alive_only_if_the_client_says_so() {
    let app = Recorder::start().await;
    for (kind, proxy) in Proxy::each(app.address).await {
        let once = "GET /a HTTP/1.0\r\nHost: app.example\r\n\r\n";
        let answer = exchange(proxy.address, format!("{once}{LAST}").as_bytes()).await;
        assert_eq!((statuses(&answer), whole(&app)), (vec!["200"], vec!["GET /a \"\"".to_owned()]), "{kind}");
        let kept = "GET /a HTTP/1.0\r\nHost: app.example\r\nConnection: keep-alive\r\n\r\n";
        let answer = exchange(proxy.address, format!("{kept}{LAST}").as_bytes()).await;
        assert!(answer.to_ascii_lowercase().contains("\nconnection: keep-alive\r\n"), "{kind}: {answer}");
        assert_eq!((statuses(&answer).len(), whole(&app).len()), (2, 2), "{kind}: {answer}");
    }
}

const LAST: &str = "GET /last HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n";
