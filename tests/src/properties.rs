//! Properties that hold whatever bytes come: each function takes any, makes of them what it is about, and panics if something
//! does not hold. Driven with random bytes by `tests/properties.rs`, and by the targets in `fuzz/` with bytes that a
//! fuzzer has looked for.

mod http1;

use std::collections::HashSet;
use std::net::SocketAddr;

use http::header::{CONNECTION, HOST, TE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pilotlight_net::headers::{FORWARDED, Marks, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use pilotlight_net::{Body, Client, Request, Response, prepare_forward, prepare_response, wire};
use pilotlight_queue_proxy::add_forwarded;

pub use self::http1::{http1_request, http1_response};

/// A proxy takes out what concerns one hop and what names the revision, adds the client's address, and leaves
/// everything else as it is, value by value.
pub fn request_headers(bytes: &[u8]) {
    let before = headers_of(bytes);
    let mut request = Request::new(Body::empty());
    *request.headers_mut() = before.clone();
    let marks = Marks::of(request.headers());
    prepare_forward(&mut request, &Client::new(SocketAddr::from(([10, 0, 0, 9], 1))), marks);
    let after = request.headers();

    let mut gone = one_hop(&before);
    gone.extend(["knative-serving-revision", "knative-serving-namespace"].map(HeaderName::from_static));
    let lists = |name: &HeaderName, wanted: &str| tokens(&before, name).any(|token| token == wanted);
    let wish = before.get(UPGRADE).filter(|wish| {
        lists(&CONNECTION, "upgrade") && !wish.is_empty() && !wish.as_bytes().eq_ignore_ascii_case(b"h2c")
    });
    let trailers = lists(&TE, "trailers").then(|| HeaderValue::from_static("trailers"));
    assert_eq!(values(after, &UPGRADE), Vec::from_iter(wish));
    assert_eq!(values(after, &CONNECTION), Vec::from_iter(wish.map(|_| "Upgrade")));
    assert_eq!(values(after, &TE), Vec::from_iter(&trailers));

    let mut addresses = values(&before, &X_FORWARDED_FOR);
    addresses.retain(|_| !gone.contains(&X_FORWARDED_FOR));
    let addresses: Vec<&[u8]> =
        addresses.iter().map(|line| line.as_bytes()).chain([&b"10.0.0.9"[..]]).collect();
    let [line] = values(after, &X_FORWARDED_FOR)[..] else { panic!("one line of addresses: {after:?}") };
    assert_eq!(line.as_bytes(), addresses.join(&b", "[..]));

    let apart = [CONNECTION, UPGRADE, TE, X_FORWARDED_FOR];
    assert_same_but_for(&before, after, &gone, &apart);
}

/// The same for a response, to which nothing is added.
pub fn response_headers(bytes: &[u8]) {
    let before = headers_of(bytes);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    *response.headers_mut() = before.clone();
    prepare_response(&mut response);
    assert_same_but_for(&before, response.headers(), &one_hop(&before), &[]);
}

/// Bytes are a report or are not; if they are, it is written and read again without a change.
pub fn stats(bytes: &[u8]) {
    if let Ok(stat) = wire::decode_stat(bytes) {
        let written = wire::encode_stat(&stat);
        let again = wire::decode_stat(&written).expect("what we write we can read");
        // By the bytes: NaN does not equal itself.
        assert_eq!(wire::encode_stat(&again), written);
    }
    if let Ok(batch) = wire::decode_stats(bytes) {
        let written = wire::encode_stats(&batch);
        let again = wire::decode_stats(&written).expect("what we write we can read");
        assert_eq!(wire::encode_stats(&again), written);
    }
}

/// `Forwarded` says what `X-Forwarded-*` say, and can be read back; it is never changed if it is there, and nothing
/// else is.
pub fn forwarded(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n').map(|line| {
        let plain = line.iter().map(|&byte| ALPHABET[usize::from(byte) % ALPHABET.len()]);
        String::from_utf8(plain.collect()).expect("ASCII")
    });
    let mut before = HeaderMap::new();
    let mut said = Vec::new();
    for name in [&X_FORWARDED_FOR, &X_FORWARDED_HOST, &X_FORWARDED_PROTO] {
        let value = lines.next().unwrap_or_default();
        // The other two are no lists.
        let value = if *name == X_FORWARDED_FOR { value } else { value.replace([',', ' '], "") };
        before.insert(name, HeaderValue::try_from(&value).expect("ASCII"));
        said.push(before[name].to_str().expect("ASCII").to_owned());
    }
    if let Some(present) = lines.next().filter(|present| !present.is_empty()) {
        before.insert(FORWARDED, HeaderValue::try_from(present).expect("ASCII"));
    }
    let mut after = before.clone();
    add_forwarded(&mut after);
    let made = after.remove(FORWARDED);
    let present = before.remove(FORWARDED);
    assert_eq!(after, before, "nothing else changes");
    if present.as_ref().is_some_and(|present| !present.is_empty()) || said.iter().all(String::is_empty) {
        return assert_eq!(made, present);
    }

    let [nodes, host, proto] = said.as_slice() else { unreachable!("three") };
    let made = made.expect("something is known");
    let mut hops = made.to_str().expect("ASCII").split(", ");
    let mut first: Vec<&str> = hops.next().expect("a hop").split(';').collect();
    for (name, value) in [("proto=", proto), ("host=", host)] {
        if !value.is_empty() {
            assert_eq!(
                first.pop().and_then(|pair| pair.strip_prefix(name)),
                Some(value.as_str()),
                "{made:?}"
            );
        }
    }
    let read_back: Vec<&str> = first.into_iter().chain(hops).map(node).collect();
    let mut expected: Vec<&str> = nodes.split(',').map(str::trim).collect();
    // Nothing after the last comma is no node.
    if nodes.is_empty() || nodes.ends_with(',') {
        expected.pop();
    }
    assert_eq!(read_back, expected, "{made:?}");
}

fn node(pair: &str) -> &str {
    let node = pair.strip_prefix("for=").unwrap_or_else(|| panic!("{pair:?} names no node"));
    match node.strip_prefix("\"[").and_then(|node| node.strip_suffix("]\"")) {
        Some(quoted) => {
            assert!(quoted.contains(':'), "{pair:?}");
            quoted
        }
        None => {
            assert!(!node.contains(':'), "{pair:?}");
            node
        }
    }
}

/// Lines of a name and a value. The first byte of each chooses the name, often one that means something to a proxy.
fn headers_of(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|&byte| byte == b'\n').take(50) {
        let Some((&first, value)) = line.split_first() else { continue };
        let name = HeaderName::from_static(NAMES[usize::from(first) % NAMES.len()]);
        // Often a list of such names, too.
        let value = match value.split_first() {
            Some((b'*', rest)) => {
                let names = rest.iter().map(|&byte| NAMES[usize::from(byte) % NAMES.len()]);
                names.collect::<Vec<_>>().join(" ,").into_bytes()
            }
            _ => value.to_vec(),
        };
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.append(name, value);
        }
    }
    headers
}

/// The names that concern one hop: always, or because `Connection` lists them.
fn one_hop(headers: &HeaderMap) -> HashSet<HeaderName> {
    let always = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    let listed = tokens(headers, &CONNECTION).filter_map(|token| HeaderName::try_from(token).ok());
    always.into_iter().map(HeaderName::from_static).chain(listed.filter(|name| name != HOST)).collect()
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + use<'a> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|token| token.trim().to_ascii_lowercase())
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a HeaderValue> {
    headers.get_all(name).iter().collect()
}

fn assert_same_but_for(
    before: &HeaderMap,
    after: &HeaderMap,
    gone: &HashSet<HeaderName>,
    apart: &[HeaderName],
) {
    for name in before.keys().chain(after.keys()).filter(|name| !apart.contains(name)) {
        let expected = if gone.contains(name) { Vec::new() } else { values(before, name) };
        assert_eq!(values(after, name), expected, "{name} of {before:?}");
    }
}

const NAMES: [&str; 24] = [
    "connection",
    "upgrade",
    "te",
    "host",
    "x-forwarded-for",
    "x-a",
    "x-b",
    "cookie",
    "trailers",
    "trailer",
    "websocket",
    "h2c",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "transfer-encoding",
    "content-length",
    "knative-serving-revision",
    "knative-serving-namespace",
    "k-proxy-request",
    "k-original-host",
    "k-network-hash",
    "user-agent",
];

const ALPHABET: &[u8] = b"af01.:,, -_";
