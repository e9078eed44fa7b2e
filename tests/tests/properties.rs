//! Properties that hold for any bytes, tried with random ones; and the whole of both proxies under random pieces of
//! HTTP, which must reach the app as requests or not at all.

use pilotlight_tests::http::send_raw;
use pilotlight_tests::properties;
use pilotlight_tests::proxies::Proxy;
use pilotlight_tests::recorder::{Recorder, Seen};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    // Lines are what the properties are about, so there shall be some; and those that list names.
    let any_line = prop::collection::vec(any::<u8>(), 0..30);
    let list = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..4))
        .prop_map(|(name, listed)| [&[name, b'*'], listed.as_slice()].concat());
    let line = prop_oneof![any_line, list];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join(&b'\n'))
}

proptest! {
    #![proptest_config(Config::with_cases(2000))]

    #[test]
    fn requests_keep_their_headers_but_those_of_one_hop(bytes in bytes()) {
        properties::request_headers(&bytes);
    }

    #[test]
    fn responses_keep_their_headers_but_those_of_one_hop(bytes in bytes()) {
        properties::response_headers(&bytes);
    }

    #[test]
    fn reports_are_read_as_they_were_written(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        properties::stats(&bytes);
    }

    #[test]
    fn forwarded_says_what_the_older_headers_say(bytes in bytes()) {
        properties::forwarded(&bytes);
    }
}

/// Pieces of which requests are made, good and bad ones.
const PIECES: &[&str] = &[
    "GET /a HTTP/1.1\r\n",
    "POST /b HTTP/1.1\r\n",
    "GET http://app.example/c HTTP/1.1\r\n",
    "GET /d HTTP/1.0\r\n",
    "Host: app.example\r\n",
    "Host: app.example\r\n",
    "Host: app.example\r\n\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Connection: close\r\n",
    "Connection: Transfer-Encoding, Content-Length\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\n",
    "X: y\r\n z\r\n",
    "X : y\r\n",
    "X: y\n",
    "\r\n",
    "\r\n",
    "\r",
    "\n",
    "hello",
    "5\r\nhello\r\n",
    "3;x=y\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nX-Trailer: z\r\n\r\n",
    "GET /inner HTTP/1.1\r\nHost: app.example\r\n\r\n",
    "\0",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

#[tokio::test]
async fn whatever_is_sent_reaches_the_app_as_requests_or_not_at_all() {
    let app = Recorder::start().await;
    let mut runner = TestRunner::deterministic();
    let soup = prop::collection::vec(prop::sample::select(PIECES), 1..14).prop_map(|pieces| pieces.concat());
    let end = "\r\n\r\nGET /end HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n";
    let mut most = 0;
    for (kind, proxy) in Proxy::each(app.address).await {
        for _ in 0..150 {
            let soup = soup.new_tree(&mut runner).expect("a value").current() + end;
            let answer = send_raw(proxy.address, soup.as_bytes()).await.expect("a connection");
            let answer = String::from_utf8_lossy(&answer);
            let seen = app.take_seen();
            let nonsense = seen.iter().find(|seen| matches!(seen, Seen::Nonsense(_)));
            assert_eq!(nonsense, None, "{kind}: {soup:?}");
            // One answer of the app for each request that it has seen whole, and none for anything else.
            let whole = seen.iter().filter(|seen| matches!(seen, Seen::Request { .. })).count();
            assert_eq!(
                answer.matches("HTTP/1.1 200 ").count() + answer.matches("HTTP/1.0 200 ").count(),
                whole,
                "{kind}: {soup:?}\n{answer}\n{seen:#?}"
            );
            most = most.max(whole);
        }
    }
    assert!(most >= 2, "the pieces never made two requests, and this test shows little");
}
