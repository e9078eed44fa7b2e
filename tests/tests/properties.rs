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

/// Pieces of HTTP/1.1 behind the bytes that say what is done with them, and usually between a good beginning and a body.
fn http1(good: &'static str, pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let pieces = move |most| {
        let piece = prop_oneof![
            9 => prop::sample::select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..20),
        ];
        prop::collection::vec(piece, 0..=most).prop_map(|pieces| pieces.concat())
    };
    let often = |texts: &'static [&'static str]| {
        prop::option::weighted(0.9, prop::sample::select(texts))
            .prop_map(|text| text.unwrap_or_default().as_bytes().to_vec())
    };
    let good =
        prop::option::weighted(0.9, Just(good)).prop_map(|good| good.unwrap_or_default().as_bytes().to_vec());
    (prop::collection::vec(any::<u8>(), 2), good, pieces(2), often(BODIES), pieces(5))
        .prop_map(|(first, good, fields, body, rest)| [first, good, fields, body, rest].concat())
}

proptest! {
    #![proptest_config(Config::with_cases(500))]

    #[test]
    fn requests_are_the_same_in_pieces_and_behind_a_proxy(bytes in http1("POST /a HTTP/1.1\r\nHost: app.example\r\n", PIECES)) {
        // The first of the two says where it is cut.
        properties::http1_request(&bytes[1..]);
    }

    #[test]
    fn responses_are_the_same_in_pieces_and_behind_a_proxy(bytes in http1("HTTP/1.1 200 OK\r\n", RESPONSE_PIECES)) {
        properties::http1_response(&bytes);
    }
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

/// The ends of heads, and what should follow them.
const BODIES: &[&str] = &[
    "\r\n",
    "Content-Length: 5\r\n\r\n",
    "Content-Length: 5\r\n\r\nhello",
    "Transfer-Encoding: chunked\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: z\r\n\r\n",
];

const RESPONSE_PIECES: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.0 404 Nowhere\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Connection: close\r\n",
    "Connection: X-A\r\nX-A: y\r\n",
    "Trailer: X-T\r\n",
    "X-B: z\r\n",
    "X : y\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "hello",
    "5\r\nhello\r\n",
    "3;x=y\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nX-T: z\r\nContent-Length: 5\r\n\r\n",
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
