//! The cases of h2spec (github.com/summerwind/h2spec) as a client sends them to both proxies: what RFC 9113 and RFC 7541
//! ask for each, and where the library does otherwise. Another request is under way on the same connection.

use pilotlight_tests::proxies::Proxy;
use pilotlight_tests::recorder::Recorder;

use self::Must::{Answer, End, Ignore, Reset};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, OTHER, Outcome, PADDED, PING, PRIORITY,
    PUSH_PROMISE, RST_STREAM, Reaction, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, field, fields, frame, get,
    outcome_of, usual,
};

/// What the RFCs ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    Answer,
    Ignore,
    /// The stream is reset, or the whole connection ends: either is allowed where h2spec has it so.
    Reset,
    End,
}

/// Section, what is sent, the bytes, and what must come of it.
type Case = (&'static str, &'static str, Vec<u8>, Must);

/// Runs the cases at both proxies. The library does something else with those of these names.
async fn hold(cases: &[Case], otherwise: &[(&str, Must)]) {
    let app = Recorder::start().await;
    let mut wrong = Vec::new();
    for (kind, proxy) in Proxy::each(app.address).await {
        for (section, name, bytes, must) in cases {
            let otherwise = otherwise.iter().find(|(other, _)| other == name);
            let expected = otherwise.map_or(*must, |(_, does)| *does);
            let Outcome { reaction, other_is_answered } =
                outcome_of(proxy.address, bytes, expected == Answer).await;
            let does = match reaction {
                Reaction::Answered => Answer,
                Reaction::Nothing => Ignore,
                Reaction::Reset(_) => Reset,
                Reaction::Closed(_) => End,
            };
            if does != expected || other_is_answered != (expected != End) {
                wrong
                    .push(format!("{section} {name} at the {kind}: {reaction:?}, other {other_is_answered}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn head(flags: u8, list: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, 3, list)
}

fn whole(list: &[u8]) -> Vec<u8> {
    head(END_STREAM | END_HEADERS, list)
}

/// A request whose body has not ended.
fn open(more: &[(&str, &str)]) -> Vec<u8> {
    head(END_HEADERS, &fields(&[&usual("POST", "/a")[..], more].concat()))
}

fn with(more: &[(&str, &str)]) -> Vec<u8> {
    get(3, "/a", more)
}

/// A setting of this number and value.
fn setting(number: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&number.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

#[tokio::test]
async fn what_is_unusual_and_legal_is_served() {
    let list = fields(&usual("GET", "/a"));
    let padded = [&[3][..], &list, &[0; 3]].concat();
    let priority = [&[0, 0, 0, 0, 15][..], &list].concat();
    let both = [&[3, 0, 0, 0, 0, 15][..], &list, &[0; 3]].concat();
    let (first, rest) = list.split_at(10);
    let pieces = [head(END_STREAM, first), frame(CONTINUATION, END_HEADERS, 3, rest)].concat();
    let many = [head(END_STREAM, first), frame(CONTINUATION, 0, 3, b"").repeat(20)].concat();
    let many = [many, frame(CONTINUATION, END_HEADERS, 3, rest)].concat();
    hold(
        &[
            ("generic/3.8", "a ping", frame(PING, 0, 0, b"87654321"), Ignore),
            ("generic/3.2", "a padded head", head(END_STREAM | END_HEADERS | PADDED, &padded), Answer),
            (
                "generic/3.2",
                "a head with a priority",
                head(END_STREAM | END_HEADERS | WITH_PRIORITY, &priority),
                Answer,
            ),
            (
                "generic/3.2",
                "a padded head with a priority",
                head(END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY, &both),
                Answer,
            ),
            ("generic/3.3", "a priority", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 15]), Ignore),
            (
                "generic/3.3",
                "a priority of a stream to come",
                frame(PRIORITY, 0, 99, &[0, 0, 0, 0, 15]),
                Ignore,
            ),
            ("generic/3.5", "a setting", setting(3, 100), Ignore),
            ("generic/3.7", "a farewell without a fault", frame(GOAWAY, 0, 0, &[0; 8]), Ignore),
            (
                "generic/3.9",
                "a window of the connection that grows",
                frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 9]),
                Ignore,
            ),
            ("generic/3.10", "a head in two pieces", pieces, Answer),
            ("generic/3.10", "a head in many pieces", many, Answer),
            (
                "generic/4",
                "a request with a body",
                [open(&[]), frame(DATA, END_STREAM, 3, b"body")].concat(),
                Answer,
            ),
            (
                "generic/3.1",
                "padded data",
                [open(&[]), frame(DATA, END_STREAM | PADDED, 3, b"\x02body\0\0")].concat(),
                Answer,
            ),
            (
                "generic/4",
                "trailers",
                [open(&[]), frame(DATA, 0, 3, b"b"), whole(&fields(&[("x-trailer", "t")]))].concat(),
                Answer,
            ),
            ("http2/4.1", "a frame of a type that nobody knows", frame(0xff, 0, 0, &[0; 8]), Ignore),
            ("http2/4.1", "a flag that means nothing", frame(PING, 0x16, 0, b"12345678"), Ignore),
            ("http2/4.1", "a reserved bit", frame(PING, 0, 1 << 31, b"12345678"), Ignore),
            (
                "http2/5.5",
                "a frame nobody knows on a stream",
                [open(&[]), frame(0xfe, 0, 3, b"x")].concat(),
                Ignore,
            ),
            ("http2/6.5.3", "two values of one setting", [setting(4, 100), setting(4, 1)].concat(), Ignore),
            ("http2/6.5.2", "a setting that nobody knows", setting(0xff, 1), Ignore),
            ("http2/6.7", "the answer to a ping that nobody sent", frame(PING, 1, 0, b"unasked."), Ignore),
            (
                "http2/5.1",
                "a window of a stream that has ended",
                [with(&[]), frame(WINDOW_UPDATE, 0, 3, &[0, 0, 0, 1])].concat(),
                Answer,
            ),
            (
                "http2/5.1",
                "a priority of a stream that has ended",
                [with(&[]), frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1])].concat(),
                Answer,
            ),
            (
                "http2/5.1",
                "a reset of a stream",
                [open(&[]), frame(RST_STREAM, 0, 3, &[0, 0, 0, 8])].concat(),
                Ignore,
            ),
            ("hpack/2.3", "a field of the static table", whole(&[0x82, 0x86, 0x84, 0x41, 1, b'h']), Answer),
            ("hpack/4.2", "a table of another size", whole(&[&[0x20][..], &list].concat()), Answer),
        ],
        &[],
    )
    .await;
}

#[tokio::test]
async fn frames_that_break_the_rules_of_the_connection_end_it() {
    let list = fields(&usual("GET", "/a"));
    let size = |kind, length| frame(kind, 0, 0, &vec![0; length]);
    hold(
        &[
            ("http2/4.2", "a frame larger than is allowed", frame(DATA, 0, 3, &vec![0; (64 << 10) + 1]), End),
            ("http2/4.3", "a head that cannot be decoded", whole(b"\xbf"), End),
            (
                "http2/4.3",
                "priority within a head",
                [head(0, &list), frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9])].concat(),
                End,
            ),
            ("http2/4.3", "another head within a head", [head(0, &list), get(5, "/b", &[])].concat(), End),
            ("http2/5.1", "data of an idle stream", frame(DATA, END_STREAM, 3, b"x"), End),
            ("http2/5.1", "a reset of an idle stream", frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]), End),
            ("http2/5.1", "a window of an idle stream", frame(WINDOW_UPDATE, 0, 3, &[0, 0, 0, 9]), End),
            (
                "http2/5.1",
                "the rest of a head of an idle stream",
                frame(CONTINUATION, END_HEADERS, 3, &list),
                End,
            ),
            ("http2/5.1.1", "a stream with an even number", get(2, "/a", &[]), End),
            (
                "http2/5.1.1",
                "a stream whose number is behind",
                [get(5, "/a", &[]), get(3, "/a", &[])].concat(),
                End,
            ),
            ("http2/6.1", "data on stream 0", frame(DATA, 0, 0, b"x"), End),
            (
                "http2/6.1",
                "padding longer than the frame",
                [open(&[]), frame(DATA, PADDED, 3, b"\x06body")].concat(),
                End,
            ),
            ("http2/6.2", "a head on stream 0", frame(HEADERS, END_STREAM | END_HEADERS, 0, &list), End),
            (
                "http2/6.2",
                "a head padded beyond its end",
                head(END_STREAM | END_HEADERS | PADDED, &[&[200][..], &list].concat()),
                End,
            ),
            ("http2/6.3", "a priority on stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 9, 1]), End),
            ("http2/6.4", "a reset on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), End),
            (
                "http2/6.4",
                "a reset of three bytes",
                [open(&[]), frame(RST_STREAM, 0, 3, &[0; 3])].concat(),
                End,
            ),
            ("http2/6.5", "settings on a stream", frame(SETTINGS, 0, OTHER, &[]), End),
            ("http2/6.5", "an acknowledgement with content", frame(SETTINGS, 1, 0, &[0; 6]), End),
            ("http2/6.5", "settings of three bytes", size(SETTINGS, 3), End),
            ("http2/6.5.2", "a push setting of 2", setting(2, 2), End),
            ("http2/6.5.2", "a window setting beyond its limit", setting(4, 1 << 31), End),
            ("http2/6.5.2", "a frame size below its limit", setting(5, 16_383), End),
            ("http2/6.5.2", "a frame size beyond its limit", setting(5, 1 << 24), End),
            ("http2/6.7", "a ping on a stream", frame(PING, 0, OTHER, b"12345678"), End),
            ("http2/6.7", "a ping of six bytes", size(PING, 6), End),
            ("http2/6.8", "a farewell on a stream", frame(GOAWAY, 0, OTHER, &[0; 8]), End),
            ("http2/6.9", "a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), End),
            ("http2/6.9", "a window of three bytes", size(WINDOW_UPDATE, 3), End),
            (
                "http2/6.9.1",
                "a window beyond its limit",
                frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
                End,
            ),
            (
                "http2/6.10",
                "more of a head that has ended",
                [whole(&list), frame(CONTINUATION, END_HEADERS, 3, &list)].concat(),
                End,
            ),
            (
                "http2/6.10",
                "more of a head on stream 0",
                [head(0, &list), frame(CONTINUATION, END_HEADERS, 0, b"")].concat(),
                End,
            ),
            ("http2/6.10", "data within a head", [head(0, &list), frame(DATA, 0, 3, b"x")].concat(), End),
            (
                "http2/8.2",
                "a promise of the client's",
                frame(PUSH_PROMISE, END_HEADERS, 3, &[&[0, 0, 0, 2][..], &list].concat()),
                End,
            ),
            (
                "hpack/2.3.3",
                "an index beyond the tables",
                whole(&[&list[..], &[0xff, 0x81, 0x7f]].concat()),
                End,
            ),
            ("hpack/4.2", "a table size at the end of a head", whole(&[&list[..], &[0x20]].concat()), End),
            (
                "hpack/5.2",
                "Huffman's padding of more than seven bits",
                whole(&[&list[..], b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"].concat()),
                End,
            ),
            (
                "hpack/5.2",
                "Huffman's padding of zeros",
                whole(&[&list[..], b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"].concat()),
                End,
            ),
            (
                "hpack/5.2",
                "Huffman's end within a text",
                whole(&[&list[..], b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x51\xff\xff\xff\xfa\x7f\xff"].concat()),
                End,
            ),
            ("hpack/6.1", "index 0", whole(&[&list[..], &[0x80]].concat()), End),
            (
                "hpack/6.3",
                "a table larger than is allowed",
                whole(&[&[0x3f, 0xe1, 0xff, 0x03][..], &list].concat()),
                End,
            ),
        ],
        &[],
    )
    .await;
}

#[tokio::test]
async fn a_malformed_request_ends_its_own_stream() {
    let [method, scheme, path, authority] = usual("GET", "/a");
    let list = |list: &[(&str, &str)]| whole(&fields(list));
    let usual = fields(&usual("GET", "/a"));
    hold(
        &[
            (
                "http2/5.3.1",
                "a head that depends on itself",
                head(END_STREAM | END_HEADERS | WITH_PRIORITY, &[&[0, 0, 0, 3, 9][..], &usual].concat()),
                Reset,
            ),
            (
                "http2/5.3.1",
                "a priority that depends on itself",
                frame(PRIORITY, 0, 3, &[0, 0, 0, 3, 9]),
                Reset,
            ),
            (
                "http2/6.9.1",
                "a window of a stream beyond its limit",
                [open(&[]), frame(WINDOW_UPDATE, 0, 3, &[0x7f, 0xff, 0xff, 0xff])].concat(),
                Reset,
            ),
            (
                "http2/8.1",
                "trailers that do not end the stream",
                [open(&[]), head(END_HEADERS, &fields(&[("x", "y")]))].concat(),
                Reset,
            ),
            ("http2/8.1.2.1", "a pseudo-header of a response", with(&[(":status", "200")]), Reset),
            (
                "http2/8.1.2.1",
                "a pseudo-header after the others",
                list(&[method, scheme, ("x", "y"), path, authority]),
                Reset,
            ),
            (
                "http2/8.1.2.1",
                "a pseudo-header in trailers",
                [open(&[]), whole(&fields(&[(":method", "GET")]))].concat(),
                Reset,
            ),
            ("http2/8.1.2.2", "a field of the connection", with(&[("connection", "keep-alive")]), Reset),
            (
                "http2/8.1.2.2",
                "te of something else",
                with(&[("trailers", "t"), ("te", "trailers, deflate")]),
                Reset,
            ),
            ("http2/8.1.2.3", "an empty path", list(&[method, scheme, (":path", ""), authority]), Reset),
            ("http2/8.1.2.3", "no method", list(&[scheme, path, authority]), Reset),
            ("http2/8.1.2.3", "no scheme", list(&[method, path, authority]), Reset),
            ("http2/8.1.2.3", "no path", list(&[method, scheme, authority]), Reset),
            ("http2/8.1.2.3", "two methods", list(&[method, method, scheme, path, authority]), Reset),
            ("http2/8.1.2.3", "two schemes", list(&[method, scheme, scheme, path, authority]), Reset),
            ("http2/8.1.2.3", "two paths", list(&[method, scheme, path, path, authority]), Reset),
            (
                "http2/8.1.2.6",
                "a length that one frame does not have",
                [open(&[("content-length", "1")]), frame(DATA, END_STREAM, 3, b"body")].concat(),
                Reset,
            ),
            (
                "http2/8.1.2.6",
                "a length that two frames do not have",
                [open(&[("content-length", "1")]), frame(DATA, 0, 3, b"a"), frame(DATA, END_STREAM, 3, b"b")]
                    .concat(),
                Reset,
            ),
            ("http2/8.1.2", "a capital in a name", with(&[("X-A", "b")]), Reset),
            ("http2/8.1.2.1", "a pseudo-header that nobody knows", with(&[(":odd", "b")]), Reset),
            (
                "RFC 9113, 8.2.1",
                "a line feed in a value",
                whole(&[&usual[..], &field(b"x", b"a\nb")].concat()),
                Reset,
            ),
            (
                "http2/5.1",
                "data of a stream that the client has ended",
                [with(&[]), frame(DATA, 0, 3, b"x")].concat(),
                Reset,
            ),
            ("http2/5.1", "a second head of such a stream", [with(&[]), with(&[])].concat(), Reset),
            (
                "http2/5.1",
                "data of a stream that the client has reset",
                [open(&[]), frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]), frame(DATA, 0, 3, b"x")].concat(),
                Reset,
            ),
            (
                "http2/5.1",
                "trailers of a stream that the client has reset",
                [open(&[]), frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]), whole(&fields(&[("x", "y")]))].concat(),
                Reset,
            ),
            (
                "http2/5.1",
                "trailers behind the end of a body",
                [open(&[]), frame(DATA, END_STREAM, 3, b"x"), whole(&fields(&[("x", "y")]))].concat(),
                Reset,
            ),
            (
                "RFC 9110, 9.3.6",
                "a length of a CONNECT",
                list(&[(":method", "CONNECT"), authority, ("content-length", "3")]),
                Reset,
            ),
            (
                "http2/6.3",
                "a priority of four bytes",
                [open(&[]), frame(PRIORITY, 0, 3, &[0; 4])].concat(),
                Reset,
            ),
            (
                "http2/6.9",
                "a window of a stream that grows by nothing",
                [open(&[]), frame(WINDOW_UPDATE, 0, 3, &[0; 4])].concat(),
                Reset,
            ),
        ],
        &[
            // It is left out.
            ("a pseudo-header in trailers", Answer),
        ],
    )
    .await;
}
