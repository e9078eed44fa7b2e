//! HTTP/2 that no client may send: the stream or the connection ends, and the app hears nothing of it. Another request is
//! under way on the same connection, and is answered unless the fault is one of the whole connection.

use pilotlight_tests::proxies::Proxy;
use pilotlight_tests::recorder::{Recorder, Seen};

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Outcome, PING, PRIORITY, RST_STREAM,
    Reaction, SETTINGS, Verdict, WINDOW_UPDATE, field, fields, frame, get, outcome, usual, verdict,
};
use crate::whole;

/// Each of these requests on stream 3 at both proxies: the stream is reset, the app sees nothing of it, and the other
/// request is answered.
async fn streams_are_reset(cases: &[(&str, Vec<u8>)]) {
    let app = Recorder::start().await;
    for (kind, proxy) in Proxy::each(app.address).await {
        for (name, bytes) in cases {
            let Outcome { reaction, other_is_answered } = outcome(proxy.address, bytes).await;
            assert!(matches!(reaction, Reaction::Reset(_)), "{name} at the {kind}: {reaction:?}");
            assert!(other_is_answered, "{name} at the {kind}");
            assert_eq!(whole(&app), ["POST /other \"done\""], "{name} at the {kind}");
        }
        still_serves(&proxy, &app).await;
    }
}

/// Each of these at both proxies ends the connection, and with it the other request. The app sees none of it.
async fn connections_end(cases: &[(&str, Vec<u8>)]) {
    let app = Recorder::start().await;
    for (kind, proxy) in Proxy::each(app.address).await {
        for (name, bytes) in cases {
            let Outcome { reaction, .. } = outcome(proxy.address, bytes).await;
            assert!(matches!(reaction, Reaction::Closed(_)), "{name} at the {kind}: {reaction:?}");
            assert_eq!(whole(&app), Vec::<String>::new(), "{name} at the {kind}");
        }
        still_serves(&proxy, &app).await;
    }
}

async fn still_serves(proxy: &Proxy, app: &Recorder) {
    app.take_seen();
    assert_eq!(verdict(proxy.address, 1, &get(1, "/next", &[])).await, Verdict::Answered);
    assert_eq!(whole(app), ["GET /next \"\""]);
}

fn headers(list: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 3, &fields(list))
}

#[tokio::test]
async fn what_belongs_to_http_1_connections_has_no_place() {
    let with = |name, value| get(3, "/a", &[(name, value)]);
    streams_are_reset(&[
        ("connection", with("connection", "close")),
        ("keep-alive", with("keep-alive", "timeout=5")),
        ("proxy-connection", with("proxy-connection", "close")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("upgrade", with("upgrade", "websocket")),
        ("te", with("te", "gzip")),
    ])
    .await;
}

#[tokio::test]
async fn heads_that_mean_nothing_or_two_things_are_refused() {
    let [method, scheme, path, authority] = usual("GET", "/a");
    streams_are_reset(&[
        ("no method", headers(&[scheme, path, authority])),
        ("no path", headers(&[method, scheme, authority])),
        ("an empty path", headers(&[method, scheme, (":path", ""), authority])),
        ("a path that is none", headers(&[method, scheme, (":path", "a"), authority])),
        ("a space in the path", headers(&[method, scheme, (":path", "/a b"), authority])),
        ("two methods", headers(&[method, (":method", "POST"), scheme, path, authority])),
        ("two paths", headers(&[method, scheme, path, (":path", "/b"), authority])),
        ("a pseudo-header of a response", get(3, "/a", &[(":status", "200")])),
        ("a pseudo-header after the others", headers(&[method, ("x", "y"), scheme, path, authority])),
        ("a user in the authority", headers(&[method, scheme, path, (":authority", "u@app.example/")])),
        ("a stream that depends on itself", frame(PRIORITY, 0, 3, &[0, 0, 0, 3, 1])),
        ("a window of a stream that grows by nothing", {
            let open = frame(HEADERS, END_HEADERS, 3, &fields(&usual("GET", "/a")));
            [open, frame(WINDOW_UPDATE, 0, 3, &[0; 4])].concat()
        }),
    ])
    .await;
}

#[tokio::test]
async fn fields_that_http_does_not_allow_are_refused() {
    let usual = usual("GET", "/a");
    let [method, scheme, path, authority] = usual;
    let with = |name: &[u8], value: &[u8]| {
        let list = [fields(&usual), field(name, value)].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, 3, &list)
    };
    let latin = [fields(&[method, scheme]), field(b":path", b"/caf\xe9"), fields(&[authority])].concat();
    streams_are_reset(&[
        ("a capital in a name", with(b"X-A", b"b")),
        ("a line feed in a value", with(b"x", b"a\r\nhost: b")),
        ("a NUL in a value", with(b"x", b"a\0b")),
        ("a colon in a name", with(b"x:y", b"b")),
        ("a space in a name", with(b"x y", b"b")),
        ("an empty name", with(b"", b"b")),
        ("a pseudo-header that nobody knows", headers(&[&usual[..], &[(":odd", "b")]].concat())),
        ("a byte above 127 in the path", frame(HEADERS, END_STREAM | END_HEADERS, 3, &latin)),
        ("a method that is none", headers(&[(":method", "G T"), scheme, path, authority])),
        ("an empty method", headers(&[(":method", ""), scheme, path, authority])),
    ])
    .await;
}

#[tokio::test]
async fn frames_out_of_place_end_the_connection() {
    let open = frame(HEADERS, 0, 3, &fields(&usual("GET", "/a")));
    connections_end(&[
        ("data without a head", frame(DATA, END_STREAM, 3, b"ab")),
        ("a stream of the server's", get(2, "/a", &[])),
        ("a head on stream 0", get(0, "/a", &[])),
        ("a head that another frame interrupts", [open.clone(), frame(PING, 0, 0, b"12345678")].concat()),
        ("the rest of another head", [open, frame(CONTINUATION, END_HEADERS, 5, b"")].concat()),
        ("a rest of nothing", frame(CONTINUATION, END_HEADERS, 3, b"")),
        ("a window beyond its limit", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a ping that is too long", frame(PING, 0, 0, b"123456789")),
        ("settings in pieces", frame(SETTINGS, 0, 0, b"12345")),
        ("compression that is none", frame(HEADERS, END_STREAM | END_HEADERS, 3, &[0x80; 40])),
        ("a frame of 16 MiB", frame(DATA, 0, 3, &vec![0; (1 << 24) - 1])),
        ("a farewell, and then a request", [frame(GOAWAY, 0, 0, &[0; 8]), frame(DATA, 0, 3, b"x")].concat()),
    ])
    .await;
}

#[tokio::test]
async fn a_body_of_another_length_than_it_said_is_never_whole() {
    let app = Recorder::start().await;
    let post = |body: &[u8]| {
        let head = fields(&[&usual("POST", "/a")[..], &[("content-length", "3")]].concat());
        [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, END_STREAM, 1, body)].concat()
    };
    for (kind, proxy) in Proxy::each(app.address).await {
        for body in [&b"ab"[..], b"abcd"] {
            let verdict = verdict(proxy.address, 1, &post(body)).await;
            assert!(matches!(verdict, Verdict::Reset(_)), "{body:?} at the {kind}: {verdict:?}");
            assert_eq!(whole(&app), Vec::<String>::new(), "{body:?} at the {kind}: {verdict:?}");
        }
        still_serves(&proxy, &app).await;
    }
}

#[tokio::test]
async fn the_authority_counts_and_not_the_host() {
    let app = Recorder::start().await;
    for (kind, proxy) in Proxy::each(app.address).await {
        assert_eq!(
            verdict(proxy.address, 1, &get(1, "/a", &[("host", "other.example")])).await,
            Verdict::Answered
        );
        let seen = app.take_seen();
        let hosts: Vec<&str> = seen.iter().flat_map(Seen::hosts).collect();
        assert!(!hosts.contains(&"other.example") && hosts.contains(&"app.example"), "{kind}: {seen:?}");
    }
}

#[tokio::test]
async fn a_head_without_end_ends_the_connection_before_it_fills_the_memory() {
    let head = frame(HEADERS, END_STREAM, 3, &fields(&usual("GET", "/a")));
    let piece = fields(&[("x", &"y".repeat(100))]).repeat(100);
    let full = [head.clone(), frame(CONTINUATION, 0, 3, &piece).repeat(10_000)].concat();
    let empty = [head, frame(CONTINUATION, 0, 3, b"").repeat(1_000_000)].concat();
    connections_end(&[("full pieces", full), ("empty pieces", empty)]).await;
}

#[tokio::test]
async fn streams_that_are_reset_at_once_and_again_end_the_connection() {
    let app = Recorder::start().await;
    for (kind, proxy) in Proxy::each(app.address).await {
        let reset = |stream| {
            [get(stream, "/reset", &[]), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        };
        let flood: Vec<u8> = (0..50_000).flat_map(|number| reset(2 * number + 1)).collect();
        let verdict = verdict(proxy.address, u32::MAX, &flood).await;
        assert!(matches!(verdict, Verdict::Closed(_)), "{kind}: {verdict:?}");
        still_serves(&proxy, &app).await;
    }
}
