//! Messages: most of them well-formed, many of them damaged.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// One to three requests, one after the other.
pub(super) fn requests() -> impl Strategy<Value = Bytes> {
    damaged(vec(request(), 1..4).prop_map(|requests| requests.concat()))
}

/// A response, maybe with interim responses in front of it and junk behind it.
pub(super) fn response() -> impl Strategy<Value = Bytes> {
    let interim = prop_oneof![8 => Just(""), 1 => Just(CONTINUE), 1 => Just(EARLY_HINTS)];
    let after = prop_oneof![8 => Just(""), 1 => Just("HTTP/1.1 200 OK\r\n\r\n"), 1 => Just("\r\n")];
    let head = (usually(STATUS_LINES[0], STATUS_LINES), fields()).prop_map(|(line, fields)| line + &fields);
    damaged((interim, head, framed(), after).prop_map(|(interim, head, framed, after)| {
        [interim.as_bytes(), head.as_bytes(), &framed, after.as_bytes()].concat()
    }))
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let line = (usually("GET", METHODS), usually("/", TARGETS), usually("HTTP/1.1", VERSIONS));
    (line, usually("Host: h\r\n", HOSTS), fields(), framed()).prop_map(|(line, host, fields, framed)| {
        let head = format!("{} {} {}\r\n{host}{fields}", line.0, line.1, line.2);
        [head.as_bytes(), &framed].concat()
    })
}

fn fields() -> impl Strategy<Value = String> {
    vec(select(FIELDS), 0..4).prop_map(|fields| fields.concat())
}

/// The last fields of a head, which frame the body, and the body; they may not agree.
fn framed() -> impl Strategy<Value = Vec<u8>> {
    let length = (content(), select(&[0_isize, 0, 0, 0, 0, -1, 1, 5][..]));
    let counted = (length, select(LENGTHS)).prop_map(|((content, off), text)| {
        let length = content.len().saturating_add_signed(off).to_string();
        [text.replace('#', &length).as_bytes(), b"\r\n", &content].concat()
    });
    let chunked =
        (usually(CODINGS[0], CODINGS), vec((content(), usually("", EXTENSIONS)), 0..4), select(TRAILERS));
    let chunked = chunked.prop_map(|(coding, chunks, trailers)| {
        let mut bytes = format!("{coding}\r\n").into_bytes();
        for (content, extension) in chunks.iter().filter(|(content, _)| !content.is_empty()) {
            bytes.extend_from_slice(format!("{:x}{extension}\r\n", content.len()).as_bytes());
            bytes.extend_from_slice(content);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(trailers.as_bytes());
        bytes
    });
    prop_oneof![3 => Just(b"\r\n".to_vec()), 4 => counted, 5 => chunked]
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(b' '..=b'~', 0..40),
        2 => select(&["hello", "0\r\n\r\n", "GET /inner HTTP/1.1\r\nHost: h\r\n\r\n"][..])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => (0_usize..20_000).prop_map(|length| vec![b'x'; length]),
    ]
}

/// A choice of which most are the first.
fn usually(first: &'static str, others: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(first), 1 => select(others)].prop_map(str::to_owned)
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Replace(u8),
    Insert(&'static str),
    Remove,
    RepeatLine,
    RemoveLine,
    CutOff,
}

/// Damages half of the messages.
fn damaged(message: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Bytes> {
    let damage = prop_oneof![
        4 => select(BYTES).prop_map(Damage::Replace),
        4 => select(PIECES).prop_map(Damage::Insert),
        2 => Just(Damage::Remove),
        2 => Just(Damage::RepeatLine),
        1 => Just(Damage::RemoveLine),
        1 => Just(Damage::CutOff),
    ];
    let damages = prop_oneof![1 => Just(Vec::new()), 1 => vec((any::<Index>(), any::<bool>(), damage), 1..4)];
    (message, damages).prop_map(|(mut message, damages)| {
        for (index, at_structure, damage) in damages {
            if message.is_empty() {
                break;
            }
            let mut at = index.index(message.len());
            if at_structure {
                // The next byte of structure is where damage hurts.
                let is_structure = |byte: &u8| b"\r\n:;, ".contains(byte);
                at = message[at..].iter().position(is_structure).map_or(at, |after| at + after);
            }
            do_damage(&mut message, at, damage);
        }
        message.into()
    })
}

fn do_damage(message: &mut Vec<u8>, at: usize, damage: Damage) {
    let start = message[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    let end =
        message[at..].iter().position(|byte| *byte == b'\n').map_or(message.len(), |after| at + after + 1);
    match damage {
        Damage::Replace(byte) => message[at] = byte,
        Damage::Insert(piece) => drop(message.splice(at..at, piece.bytes())),
        Damage::Remove => drop(message.remove(at)),
        Damage::RepeatLine => {
            let line = message[start..end].to_vec();
            message.splice(end..end, line);
        }
        Damage::RemoveLine => drop(message.drain(start..end)),
        Damage::CutOff => message.truncate(at),
    }
}

const METHODS: &[&str] = &["POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "get", "M-SEARCH", "G(T", ""];
const TARGETS: &[&str] = &[
    "/a/b?c=d",
    "*",
    "http://other/x",
    "http://u@other/x",
    "HTTP://other",
    "other:80",
    "//other/x",
    "/a b",
    "/%zz",
    "/\u{e9}",
    "/#x",
    "/\"<>^`{|}",
    "?x",
    "",
];
const VERSIONS: &[&str] =
    &["HTTP/1.0", "HTTP/1.1 ", "HTTP/1.2", "HTTP/0.9", "HTTP/2.0", "http/1.1", "HTTP/11", ""];
const HOSTS: &[&str] =
    &["", "Host: a\r\nHost: b\r\n", "Host: h/x\r\n", "Host:\r\n", "host : h\r\n", "hOsT:h:80\t\r\n"];

const STATUS_LINES: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n",
    "HTTP/1.1 199 Odd\r\n",
    "HTTP/1.1 299 Of our own\r\n",
    "HTTP/1.1 200 \u{e9}\r\n",
    "HTTP/1.1 200 \r\n",
    "HTTP/1.1 200\r\n",
    "HTTP/1.1 20 OK\r\n",
    "HTTP/1.1 2000 OK\r\n",
    "HTTP/1.1 099 OK\r\n",
    "HTTP/1.1 999 OK\r\n",
    "HTTP/1.1  200 OK\r\n",
    "HTTP/1.2 200 OK\r\n",
    "HTTP/2 200\r\n",
    "ICY 200 OK\r\n",
];

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const EARLY_HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";

const FIELDS: &[&str] = &[
    "Accept: */*\r\n",
    "X-A: 1\r\n",
    "x-a: 2\r\n",
    "X-Empty:\r\n",
    "X-Space: \t a b \t\r\n",
    "X-Bytes: \u{e9}\r\n",
    "X : y\r\n",
    "X: y\r\n z\r\n",
    ": y\r\n",
    "no colon\r\n",
    "X: y\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: Keep-Alive, close\r\n",
    "Connection: close\r\nConnection: keep-alive\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "Expect: the worst\r\n",
    "Trailer: X-T\r\n",
    "TE: trailers\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: x\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
];

/// `#` is the length of the body, more or less.
const LENGTHS: &[&str] = &[
    "Content-Length: #\r\n",
    "Content-Length: #\r\n",
    "Content-Length: #\r\n",
    "content-length:#\r\n",
    "Content-Length: #\r\nContent-Length: #\r\n",
    "Content-Length: #\r\nContent-Length: 0#\r\n",
    "Content-Length: #\r\nContent-Length: 1#\r\n",
    "Content-Length: #, #\r\n",
    "Content-Length: 00#\r\n",
    "Content-Length: +#\r\n",
    "Content-Length: -#\r\n",
    "Content-Length: 0x#\r\n",
    "Content-Length: # #\r\n",
    "Content-Length:\r\n",
    "Content-Length: 9223372036854775807\r\n",
    "Content-Length: 9223372036854775808\r\n",
    "Content-Length: 18446744073709551615\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: #\r\nTransfer-Encoding: identity\r\n",
];

const CODINGS: &[&str] = &[
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:CHUNKED\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
    "Transfer-Encoding: chunked, gzip\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: chunked,\r\n",
    "Transfer-Encoding: , chunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding: \u{e9}, chunked\r\n",
    "Transfer-Encoding:\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n",
    "Transfer-Encoding : chunked\r\n",
];

const EXTENSIONS: &[&str] = &[
    ";a=b",
    ";a=\"b;c\"",
    " ",
    " \t",
    " ;a",
    ";",
    ";\u{1}",
    "\r",
    " \r",
    "\u{c}",
    "x",
    " 1",
    ";a\rb",
    ";\u{e9}",
];

const TRAILERS: &[&str] = &[
    "0\r\n\r\n",
    "0\r\n\r\n",
    "0\r\n\r\n",
    "000;x\r\nX-T: y\r\n\r\n",
    "0\r\nX-T: y\r\nx-t: z\r\n\r\n",
    "0\r\nContent-Length: 5\r\nHost: x\r\n\r\n",
    "0\r\nX-T : y\r\n\r\n",
    "0\r\nX-T: y\r\n z\r\n\r\n",
    "0\r\nno colon\r\n\r\n",
    "0\r\nX-T: y\n\r\n",
    "0\r\nX-T: y\r\n\n",
    "0\r\n\n",
    "0\r\n\r",
    "0\n\r\n",
    "0\r\n",
    "",
];

const BYTES: &[u8] = b"\r\n\0 \t:;,\"0159afFx+-\x01\x0b\x0c\x7f\x80\xff";
const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "0",
    "1",
    "\u{b}",
    "\u{7f}",
    "\u{e9}",
    "\r\n\r\n",
    "\r\n ",
    "0\r\n\r\n",
    "\r\nContent-Length: 5",
    "\r\nTransfer-Encoding: chunked",
    "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
];
