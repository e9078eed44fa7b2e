//! HTTP/1.1, by the table. After each case comes one proper request, which shows whether both sides still agree on
//! where a message ends.

use pilotlight_tests::proxies::Proxy;
use pilotlight_tests::recorder::{Recorder, Seen};

use crate::{exchange, statuses, whole};

enum Outcome {
    /// The first answer has this status, nothing reaches the app, and the connection is over.
    Refused(&'static str),
    /// The same, but it was clear where the request ends: the next one is served.
    Answered(&'static str),
    /// The app sees exactly this, and the next request.
    Seen(&'static [&'static str]),
    /// The app sees exactly this, and the connection is over.
    SeenLast(&'static str),
}
use Outcome::{Answered, Refused, Seen as Sees, SeenLast};

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    outcome: Outcome,
}

/// A request whose first line and further lines are these, for the host that both proxies know.
fn request(line: &str, more: &str) -> String {
    format!("{line}\r\nHost: app.example\r\n{more}\r\n")
}

fn case(name: &'static str, line: &str, more: &str, outcome: Outcome) -> Case {
    raw(name, &request(line, more), outcome)
}

fn raw(name: &'static str, bytes: &str, outcome: Outcome) -> Case {
    Case { name, bytes: bytes.into(), outcome }
}

fn chunked(name: &'static str, chunks: &str, outcome: Outcome) -> Case {
    let head = request("POST /a HTTP/1.1", "Transfer-Encoding: chunked\r\n");
    raw(name, &(head + chunks), outcome)
}

fn post(name: &'static str, more: &str, body: &str, outcome: Outcome) -> Case {
    raw(name, &(request("POST /a HTTP/1.1", &format!("{more}\r\n")) + body), outcome)
}

async fn check(cases: Vec<Case>) {
    let app = Recorder::start().await;
    for (kind, proxy) in Proxy::each(app.address).await {
        for Case { name, bytes, outcome } in &cases {
            let next = request("GET /next HTTP/1.1", "Connection: close\r\n");
            let answer = exchange(proxy.address, &[bytes, next.as_bytes()].concat()).await;
            let (statuses, seen) = (statuses(&answer), whole(&app));
            let next = "GET /next \"\"";
            let (first, expected) = match outcome {
                Refused(status) => (*status, vec![]),
                Answered(status) => (*status, vec![next]),
                Sees(requests) => ("200", [requests, &[next][..]].concat()),
                SeenLast(request) => ("200", vec![*request]),
            };
            let what = format!("{name} at the {kind}: {answer}");
            assert_eq!(statuses.first(), Some(&first), "{what}");
            assert_eq!(seen, expected, "{what}");
            let answered = expected.len() + usize::from(matches!(outcome, Refused(_) | Answered(_)));
            assert_eq!(statuses.len(), answered, "{what}");
        }
    }
}

const A: &[&str] = &["POST /a \"a\""];
const ABC: &[&str] = &["POST /a \"abc\""];
const AB: &[&str] = &["POST /a \"ab\""];
const GET_A: &[&str] = &["GET /a \"\""];
const ONE_CHUNK: &str = "1\r\na\r\n0\r\n\r\n";

#[tokio::test]
async fn heads_beyond_any_measure_are_refused() {
    let (large, many) = ("x".repeat(1 << 20), "X-Many: x\r\n".repeat(2000));
    check(vec![
        case("a large header", "GET /a HTTP/1.1", &format!("X: {large}\r\n"), Refused("431")),
        case("a large target", &format!("GET /{large} HTTP/1.1"), "", Refused("431")),
        case("many headers", "GET /a HTTP/1.1", &many, Refused("431")),
        case("a large name", "GET /a HTTP/1.1", &format!("{large}: x\r\n"), Refused("431")),
    ])
    .await;
}

#[tokio::test]
async fn chunks_are_taken_by_the_letter() {
    let (large, long) = ("x".repeat(1 << 20), format!("1;{}\r\na\r\n", "y".repeat(200)).repeat(1000));
    check(vec![
        chunked("no number", "zz\r\nabc\r\n0\r\n\r\n", Refused("400")),
        chunked("a prefix", "0x3\r\nabc\r\n0\r\n\r\n", Refused("400")),
        chunked("a plus", "+3\r\nabc\r\n0\r\n\r\n", Refused("400")),
        chunked("a minus", "-3\r\nabc\r\n0\r\n\r\n", Refused("400")),
        chunked("more than 64 bits", "10000000000000003\r\nabc\r\n0\r\n\r\n", Refused("400")),
        chunked("nothing", "\r\nabc\r\n0\r\n\r\n", Refused("400")),
        chunked("a chunk that is longer than it says", "3\r\nabcd\r\n0\r\n\r\n", Refused("400")),
        chunked("line feeds alone", "3\nabc\n0\n\n", Refused("400")),
        chunked("a space after the size", "3 \r\nabc\r\n0\r\n\r\n", Sees(ABC)),
        chunked("zeros before the size", "0003\r\nabc\r\n000\r\n\r\n", Sees(ABC)),
        chunked("an extension", "3;a=b\r\nabc\r\n0;c\r\n\r\n", Sees(ABC)),
        chunked("a line feed in an extension", "3;a\nb\r\nabc\r\n0\r\n\r\n", Refused("400")),
        chunked("an extension without end", &format!("3;{large}\r\nabc\r\n0\r\n\r\n"), Refused("400")),
        chunked("extensions without end", &format!("{long}0\r\n\r\n"), Refused("400")),
        chunked("trailers without end", &format!("0\r\n{}\r\n", "x: y\r\n".repeat(100_000)), Refused("400")),
    ])
    .await;
}

#[tokio::test]
async fn one_body_has_one_length() {
    check(vec![
        post("two lengths", "Content-Length: 1\r\nContent-Length: 2", "ab", Refused("400")),
        post("the same length twice", "Content-Length: 2\r\nContent-Length: 2", "ab", Sees(AB)),
        post("a list of lengths", "Content-Length: 2, 2", "ab", Refused("400")),
        post("a plus", "Content-Length: +2", "ab", Refused("400")),
        post("a minus", "Content-Length: -2", "ab", Refused("400")),
        post("more than 64 bits", "Content-Length: 18446744073709551618", "ab", Refused("400")),
        post("no number", "Content-Length: 0x2", "ab", Refused("400")),
        post("nothing", "Content-Length: ", "ab", Refused("400")),
        post("a space before the colon", "Content-Length : 2", "ab", Refused("400")),
        // The chunks count, and nothing can follow: who wrote this may not have meant them to.
        post(
            "a length and chunks",
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            ONE_CHUNK,
            SeenLast(A[0]),
        ),
        post(
            "chunks and a length",
            "Transfer-Encoding: chunked\r\nContent-Length: 4",
            ONE_CHUNK,
            SeenLast(A[0]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn chunked_is_the_only_coding_of_a_transfer() {
    let coding =
        |name, coding: &str, outcome| post(name, &format!("Transfer-Encoding: {coding}"), ONE_CHUNK, outcome);
    check(vec![
        coding("in capitals", "CHUNKED", Sees(A)),
        coding("an x before it", "xchunked", Refused("400")),
        coding("a vertical tab before it", "\u{b}chunked", Refused("400")),
        coding("none at all", "identity", Refused("400")),
        coding("another after it", "chunked, gzip", Refused("400")),
        coding(
            "another after it, in a line of its own",
            "chunked\r\nTransfer-Encoding: identity",
            Refused("400"),
        ),
        coding("another before it", "gzip, chunked", Answered("501")),
        coding(
            "another before it, in a line of its own",
            "gzip\r\nTransfer-Encoding: chunked",
            Answered("501"),
        ),
        coding("twice", "chunked, chunked", Answered("501")),
        post("a space before the colon", "Transfer-Encoding : chunked", ONE_CHUNK, Refused("400")),
        case("chunks in HTTP/1.0", "POST /a HTTP/1.0", "Transfer-Encoding: chunked\r\n", Refused("400")),
    ])
    .await;
}

#[tokio::test]
async fn lines_are_what_they_seem() {
    check(vec![
        case("a folded line", "GET /a HTTP/1.1", "X: a\r\n b\r\n", Refused("400")),
        raw("a folded first line", "GET /a HTTP/1.1\r\n X: a\r\nHost: app.example\r\n\r\n", Refused("400")),
        case("a bare carriage return", "GET /a HTTP/1.1", "X: a\rY: b\r\n", Refused("400")),
        case("a NUL in a value", "GET /a HTTP/1.1", "X: a\0b\r\n", Refused("400")),
        case("a NUL in a name", "GET /a HTTP/1.1", "X\0: a\r\n", Refused("400")),
        case("a space in a name", "GET /a HTTP/1.1", "X Y: a\r\n", Refused("400")),
        case("no name", "GET /a HTTP/1.1", ": a\r\n", Refused("400")),
        case("no colon", "GET /a HTTP/1.1", "X\r\n", Refused("400")),
        // As the standard allows, and Go does. What goes on has both.
        raw("line feeds alone", "GET /a HTTP/1.1\nHost: app.example\n\n", Sees(GET_A)),
        raw("empty lines first", "\r\n\r\nGET /a HTTP/1.1\r\nHost: app.example\r\n\r\n", Sees(GET_A)),
    ])
    .await;
}

#[tokio::test]
async fn the_first_line_has_three_words_that_are_understood() {
    check(vec![
        case("a space in the target", "GET /a b HTTP/1.1", "", Refused("400")),
        case("two spaces", "GET  /a HTTP/1.1", "", Refused("400")),
        case("tabs", "GET\t/a\tHTTP/1.1", "", Refused("400")),
        case("an odd method", "G(T /a HTTP/1.1", "", Refused("400")),
        case("HTTP/2.0 in a line", "GET /a HTTP/2.0", "", Refused("400")),
        case("HTTP/1.2", "GET /a HTTP/1.2", "", Refused("400")),
        case("the lower case", "GET /a http/1.1", "", Refused("400")),
        raw("HTTP/0.9", "GET /a\r\n", Refused("400")),
        raw("the beginning of TLS", "\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03", Refused("400")),
        case("any method", "PURGE /a HTTP/1.1", "", Sees(&["PURGE /a \"\""])),
        case("TRACE", "TRACE /a HTTP/1.1", "", Sees(&["TRACE /a \"\""])),
        case(
            "odd bytes that are a path",
            "GET /%00//../;?a=%zz HTTP/1.1",
            "",
            Sees(&["GET /%00//../;?a=%zz \"\""]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_target_is_a_path_or_a_whole_url() {
    check(vec![
        case("a path without a slash", "GET a HTTP/1.1", "", Answered("400")),
        case("a host", "GET app.example:80 HTTP/1.1", "", Answered("400")),
        case("a URL with a user", "GET http://app.example@app.example/a HTTP/1.1", "", Answered("400")),
        case("a star that asks for no options", "GET * HTTP/1.1", "", Answered("400")),
        case("half the beginning of HTTP/2", "PRI * HTTP/1.1", "", Answered("400")),
        case("a star", "OPTIONS * HTTP/1.1", "", Sees(&["OPTIONS * \"\""])),
        case("a URL", "GET http://app.example:80/a?b HTTP/1.1", "", Sees(&["GET /a?b \"\""])),
        case("CONNECT", "CONNECT app.example:80 HTTP/1.1", "", Refused("501")),
        case("CONNECT with a path", "CONNECT /a HTTP/1.1", "", Refused("501")),
        raw("CONNECT without a host", "CONNECT app.example:80 HTTP/1.1\r\n\r\n", Refused("501")),
        raw(
            "CONNECT in HTTP/1.0",
            "CONNECT app.example:80 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            Refused("501"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_target_that_is_no_uri_passes_byte_for_byte() {
    let odd = [
        r#"/?filter={"where":{"a":1}}"#,
        r#"/"<>`{x}|^\\[]"#,
        r#"/?"<>`{x}|^\\[]"#,
        "/?a<b&c>d",
        "/<x>",
        "/`",
        "/caf\u{e9}?q=caf\u{e9}",
        "/?",
        "//h\"/a",
    ];
    let path = |target: &str| format!("{target} \"\"");
    for target in odd {
        let seen: &'static str = Box::leak(format!("GET {}", path(target)).into_boxed_str());
        let seen = Sees(Box::leak(vec![seen].into_boxed_slice()));
        check(vec![case("a target", &format!("GET {target} HTTP/1.1"), "", seen)]).await;
    }
    let latin_1 = |target: &[u8]| [b"GET ", target, b" HTTP/1.1\r\nHost: app.example\r\n\r\n"].concat();
    let bytes = |name, target, outcome| Case { name, bytes: latin_1(target), outcome };
    check(vec![
        bytes("Latin-1 in a path", b"/caf\xe9", Sees(&["GET /caf\u{e9} \"\""])),
        bytes("Latin-1 in a query", b"/?q=caf\xe9", Sees(&["GET /?q=caf\u{e9} \"\""])),
        bytes("Shift-JIS", b"/\x83\x5c\x83\x74", Sees(&["GET /\u{83}\\\u{83}t \"\""])),
        bytes("a fragment", b"/\"a#b\"", Sees(&["GET /\"a \"\""])),
        bytes("half of UTF-8", b"/\xc3", Sees(&["GET /\u{c3} \"\""])),
        bytes("a URL", b"http://app.example/\"\xe9?<\"", Sees(&["GET /\"\u{e9}?<\" \"\""])),
        bytes("a URL with a query alone", b"http://app.example?\"", Sees(&["GET /?\" \"\""])),
        bytes("Latin-1 in a host", b"http://app.ex\xe9mple/", Refused("400")),
        bytes("a quote in a host", b"http://app.example\"/", Refused("400")),
        bytes("a backslash before a host", b"http://app.example\\@other.example/\"", Refused("400")),
        bytes("quotes without a path", b"\"a\"", Refused("400")),
        bytes("DEL", b"/\"a\x7f", Refused("400")),
        bytes("NUL", b"/\"a\0", Refused("400")),
        bytes("a tab", b"/\"a\tb", Refused("400")),
        bytes("a blank", b"/\"a b", Refused("400")),
        bytes("a vertical tab", b"/\xe9\x0b", Refused("400")),
        bytes("a bare carriage return", b"/\xe9\rb", Refused("400")),
    ])
    .await;
}

#[tokio::test]
async fn exactly_one_host_is_named() {
    let host = |name, lines: &str, outcome| raw(name, &format!("GET /a HTTP/1.1\r\n{lines}\r\n"), outcome);
    check(vec![
        host("none", "", Answered("400")),
        host("two", "Host: app.example\r\nHost: app.example\r\n", Answered("400")),
        host("a path in it", "Host: app.example/a\r\n", Answered("400")),
        host("a space in it", "Host: app.example b\r\n", Answered("400")),
        host("a user in it", "Host: app.example@app.example\r\n", Answered("400")),
        host("listed away", "Host: app.example\r\nConnection: host\r\n", Sees(GET_A)),
        raw(
            "another one than the URL",
            "GET http://app.example/a HTTP/1.1\r\nHost: other.example\r\n\r\n",
            Sees(GET_A),
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_only_looks_like_the_end_of_a_message_is_none() {
    let two = request("GET /a HTTP/1.1", "") + &request("POST /b HTTP/1.1", "Content-Length: 2\r\n") + "hi";
    let inner = "GET /inner HTTP/1.1\r\n\r\n";
    let get = |more: &str| request("GET /a HTTP/1.1", &format!("{more}\r\n"));
    let length = get("Content-Length: 2") + "ab";
    let listed = get("Connection: content-length\r\nContent-Length: 2") + "ab";
    let switch = get("Connection: Upgrade\r\nUpgrade: websocket");
    let unlisted = get("Upgrade: websocket");
    check(vec![
        raw("requests in one piece", &two, Sees(&["GET /a \"\"", "POST /b \"hi\""])),
        post(
            "a request as a body",
            "Content-Length: 23",
            inner,
            Sees(&["POST /a \"GET /inner HTTP/1.1\\r\\n\\r\\n\""]),
        ),
        raw("the body of a GET", &length, Sees(&["GET /a \"ab\""])),
        raw("a length that is listed away", &listed, Sees(&["GET /a \"ab\""])),
        // What follows may be meant for the other protocol.
        raw("an upgrade that is not taken up", &switch, SeenLast(GET_A[0])),
        raw("an upgrade that nothing lists", &unlisted, Sees(GET_A)),
        post("an expectation that nobody knows", "Expect: the-moon\r\nContent-Length: 2", "ab", Sees(AB)),
    ])
    .await;
}

#[tokio::test]
async fn trailers_cannot_change_what_the_head_has_said() {
    let app = Recorder::start().await;
    let head = request(
        "POST /a HTTP/1.1",
        "Transfer-Encoding: chunked\r\nTrailer: Content-Length, Host, X-Fine\r\nConnection: close\r\n",
    );
    let trailers =
        "Content-Length: 5\r\nHost: other.example\r\nTransfer-Encoding: chunked\r\nX-Fine: yes\r\n";
    for (kind, proxy) in Proxy::each(app.address).await {
        let bytes = format!("{head}1\r\na\r\n0\r\n{trailers}\r\n");
        let answer = exchange(proxy.address, bytes.as_bytes()).await;
        assert_eq!(statuses(&answer), ["200"], "{kind}: {answer}");
        let seen = app.take_seen();
        let [Seen::Request { trailers, .. }] = seen.as_slice() else { panic!("{kind}: {seen:?}") };
        assert_eq!(
            trailers.iter().map(|line| line.to_ascii_lowercase()).collect::<Vec<_>>(),
            ["x-fine: yes"],
            "{kind}"
        );
    }
}
