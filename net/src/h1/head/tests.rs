//! Heads: the same in whatever pieces they come, and when they are written and read again.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::trailers::parse_trailers;
use super::*;
use crate::Body;
use crate::hop::to_origin_form;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_request_means_the_same_in_whatever_pieces_it_comes(text in requests(), cuts in cuts()) {
        let bytes = |request: &Request| written(request, write_request);
        let whole = read(&[&text], Partial::request, bytes);
        let pieces = read(&pieces(&text, &cuts), Partial::request, bytes);
        agree(whole, pieces)?;
    }

    #[test]
    fn a_response_means_the_same_in_whatever_pieces_it_comes(text in responses(), cuts in cuts()) {
        let bytes = |response: &Response| written(response, write_response);
        let whole = read(&[&text], Partial::response, bytes);
        let pieces = read(&pieces(&text, &cuts), Partial::response, bytes);
        agree(whole, pieces)?;
    }

    #[test]
    fn a_request_is_written_as_one_that_means_the_same(text in requests()) {
        if let Ok(Some((_, mut request))) = parse_request::<Body>(&text.into()) {
            to_origin_form(&mut request);
            let text = Bytes::from(written(&request, write_request));
            let (length, again) = parse_request::<Body>(&text).unwrap().unwrap();
            prop_assert_eq!(length, text.len());
            prop_assert_eq!(again.method(), request.method());
            let path = request.uri().path_and_query().map_or("/".to_owned(), ToString::to_string);
            let path = if path.starts_with('?') { format!("/{path}") } else { path };
            prop_assert_eq!(again.uri().to_string(), path);
            prop_assert_eq!(again.headers(), &without_coding(request.headers()));
            prop_assert_eq!(written(&again, write_request), text);
        }
    }

    #[test]
    fn a_response_is_written_as_one_that_means_the_same(text in responses()) {
        if let Ok(Some((_, response))) = parse_response::<Body>(&text.into()) {
            let text = Bytes::from(written(&response, write_response));
            let (length, again) = parse_response::<Body>(&text).unwrap().unwrap();
            prop_assert_eq!(length, text.len());
            prop_assert_eq!(again.status(), response.status());
            let reasons = [&again, &response].map(|response| response.extensions().get::<ReasonPhrase>());
            prop_assert_eq!(reasons[0], reasons[1]);
            prop_assert_eq!(again.headers(), &without_coding(response.headers()));
            prop_assert_eq!(written(&again, write_response), text);
        }
    }

    #[test]
    fn any_bytes_are_a_head_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        for length in [parse_request::<Body>(&bytes).map(len), parse_response::<Body>(&bytes).map(len), parse_trailers(&bytes).map(len)] {
            prop_assert!(length.is_err() || length.is_ok_and(|length| length <= Some(bytes.len())));
        }
    }
}

#[test]
fn a_head_is_as_large_as_it_may_be_in_whatever_pieces_it_comes() {
    let head = |length| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(length - 23));
    for (length, is_taken) in [(MAX_BYTES, true), (MAX_BYTES + 1, false)] {
        let text = head(length);
        for piece in [length, 100_000] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(piece).collect();
            let read = read(&pieces, Partial::request::<Body>, |_| Vec::new());
            assert_eq!(
                read.err(),
                (!is_taken).then_some(HeadError::TooLarge),
                "{length} in pieces of {piece}"
            );
        }
    }
}

#[test]
fn a_head_has_as_many_fields_as_it_may_have() {
    for (number, is_taken) in
        [(USUAL_FIELDS, true), (USUAL_FIELDS + 1, true), (MAX_FIELDS, true), (MAX_FIELDS + 1, false)]
    {
        for line in ["GET / HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n"] {
            let text = Bytes::from([line, &"a: b\r\n".repeat(number), "\r\n"].concat());
            let headers = match line.starts_with("GET") {
                true => parse_request::<Body>(&text).map(|head| head.unwrap().1.headers().len()),
                false => parse_response::<Body>(&text).map(|head| head.unwrap().1.headers().len()),
            };
            assert_eq!(headers, if is_taken { Ok(number) } else { Err(HeadError::TooLarge) });
        }
    }
}

#[test]
fn names_keep_their_spelling_and_others_get_gos() {
    let (_, mut request) = parse_request::<Body>(
        &"GET / HTTP/1.1\r\nhOST: h\r\nX-Request-ID: 1\r\nAccept: a\r\nx: y\r\n\r\n".into(),
    )
    .unwrap()
    .unwrap();
    request.headers_mut().insert("x-added-here", HeaderValue::from_static("z"));
    let text = String::from_utf8(written(&request, write_request)).unwrap();
    assert_eq!(
        text,
        "GET / HTTP/1.1\r\nhOST: h\r\nX-Request-ID: 1\r\nAccept: a\r\nx: y\r\nX-Added-Here: z\r\n\r\n"
    );
}

#[test]
fn a_target_that_is_no_uri_is_written_as_it_came_in_whatever_pieces_that_was() {
    for (target, path) in [
        ("/a?b={\"c\":1}", "/a?b={\"c\":1}"),
        ("/\"a#b\"", "/\"a"),
        ("http://h?<", "/?<"),
        ("/\u{e9}>", "/\u{e9}>"),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\nGET / \"");
        for piece in [text.len(), 1, 7] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(piece).collect();
            let read = read(&pieces, Partial::request::<Body>, |request| {
                let mut request = http::Request::from_parts(request_head(request), Body::empty());
                to_origin_form(&mut request);
                written(&request, write_request)
            });
            let (head, rest) = read.unwrap().unwrap();
            assert!(head.starts_with(format!("GET {path} HTTP/1.1\r\nHost: h").as_bytes()), "{target}");
            assert_eq!(rest, b"GET / \"", "{target} in pieces of {piece}");
        }
    }
}

/// A head, and the bytes behind it.
type Read = (Vec<u8>, Vec<u8>);

/// Parses a head that comes in these pieces. Returns it with the bytes behind it.
fn read<T>(
    pieces: &[&[u8]],
    take: fn(&mut Partial, &mut Bytes) -> Result<Option<T>, HeadError>,
    bytes: impl Fn(&T) -> Vec<u8>,
) -> Result<Option<Read>, HeadError> {
    let (mut partial, mut unread) = (Partial::default(), Bytes::new());
    for (at, piece) in pieces.iter().enumerate() {
        unread = [&unread, *piece].concat().into();
        if let Some(head) = take(&mut partial, &mut unread)? {
            return Ok(Some((bytes(&head), [&unread, &pieces[at + 1..].concat()[..]].concat())));
        }
    }
    Ok(None)
}

/// Whether both are the same head, or none. (A fault is noticed at the line that ends the head, if not before.)
fn agree<T: PartialEq + std::fmt::Debug>(
    whole: Result<Option<T>, HeadError>,
    pieces: Result<Option<T>, HeadError>,
) -> Result<(), TestCaseError> {
    match (whole, pieces) {
        (Err(_), Err(_) | Ok(None)) => {}
        (whole, pieces) => prop_assert_eq!(whole, pieces),
    }
    Ok(())
}

fn written<T>(head: &T, write: fn(&T, &mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(head, &mut bytes);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn request_head(request: &Request) -> http::request::Parts {
    let (mut head, ()) = http::Request::new(()).into_parts();
    (head.method, head.uri) = (request.method().clone(), request.uri().clone());
    (head.headers, head.extensions) = (request.headers().clone(), request.extensions().clone());
    head
}

fn without_coding(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(header::TRANSFER_ENCODING);
    headers
}

fn len<T>(parsed: Option<(usize, T)>) -> Option<usize> {
    parsed.map(|(length, _)| length)
}

fn pieces<'a>(text: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> =
        cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([0, text.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..6)
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![4 => Just("GET"), 1 => select(&["OPTIONS", "get", "\r\n\nPUT", "G(", ""][..])];
    let target = prop_oneof![
        2 => Just("/".to_owned()),
        1 => select(&["*", "http://h?x", "http://u@h/x#y", "//h", "/a b", "h:80", ""][..]).prop_map(str::to_owned),
        1 => "[ -~\u{e9}]{0,10}",
    ];
    let version =
        prop_oneof![4 => Just("HTTP/1.1"), 1 => select(&["HTTP/1.0", "HTTP/1.2", " HTTP/1.1", ""][..])];
    let line = (method, target, version)
        .prop_map(|(method, target, version)| format!("{method} {target} {version}"));
    head(line)
}

fn responses() -> impl Strategy<Value = Vec<u8>> {
    let version =
        prop_oneof![4 => Just("HTTP/1.1"), 1 => select(&["HTTP/1.0", "\r\n\nHTTP/1.1", "HTTP/2", "ICY"][..])];
    let reason =
        prop_oneof![1 => Just(" OK".to_owned()), 1 => Just(String::new()), 1 => "[ -~\t\u{e9}]{0,10}"];
    let line = (version, 0_u16..1200, reason)
        .prop_map(|(version, status, reason)| format!("{version} {status}{reason}"));
    head(line)
}

/// Lines below the first, most of them well-formed, and bytes behind the head.
fn head(first: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let name =
        prop_oneof![3 => "[A-Za-z-]{1,8}", 1 => Just("Transfer-Encoding".to_owned()), 1 => "[ -~]{0,3}"];
    let value = prop_oneof![3 => "[ -~\t\u{e9}]{0,12}", 1 => select(&["\0", "a\rb", "\r\n b"][..]).prop_map(str::to_owned)];
    let end = prop_oneof![6 => Just("\r\n"), 1 => select(&["\n", "\r", "\r\r\n", "\n\n"][..])];
    let field = (name, value, end.clone()).prop_map(|(name, value, end)| format!("{name}: {value}{end}"));
    let rest = prop_oneof![2 => Just(""), 1 => Just("GET / HTTP/1.1\r\n\r\n"), 1 => Just("\r\n\r\n")];
    (first, end.clone(), vec(field, 0..6), end, rest).prop_map(|(first, end, fields, last, rest)| {
        [first, end.into(), fields.concat(), last.into(), rest.into()].concat().into()
    })
}
