//! The heads of messages, read and written.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use hyper::ext::ReasonPhrase;

use crate::{Request, Response};

/// Why a head cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the head is too large")]
    TooLarge,
}

/// A head that arrives in pieces. It is looked at when it begins, and not again before it may be complete: whoever
/// sends it byte by byte makes nobody else wait.
#[derive(Debug, Default)]
pub(super) struct Partial {
    seen: usize,
}

impl Partial {
    /// Takes a request off what was read, once all of its head is there.
    pub(super) fn request(&mut self, unread: &mut Bytes) -> Result<Option<Request>, HeadError> {
        self.head(unread, parse_request)
    }

    /// The same for a response.
    pub(super) fn response(&mut self, unread: &mut Bytes) -> Result<Option<Response>, HeadError> {
        self.head(unread, parse_response)
    }

    fn head<T>(
        &mut self,
        unread: &mut Bytes,
        parse: impl Fn(&Bytes) -> Result<Option<(usize, T)>, HeadError>,
    ) -> Result<Option<T>, HeadError> {
        if unread.is_empty() || (self.seen > 0 && !has_empty_line(&unread[self.seen.saturating_sub(2)..])) {
            return self.wait(unread);
        }
        let Some((length, head)) = parse(unread)? else { return self.wait(unread) };
        unread.advance(length);
        if unread.is_empty() {
            *unread = Bytes::new();
        }
        self.seen = 0;
        Ok(Some(head))
    }

    fn wait<T>(&mut self, unread: &Bytes) -> Result<Option<T>, HeadError> {
        self.seen = unread.len();
        if self.seen > MAX_BYTES { Err(HeadError::TooLarge) } else { Ok(None) }
    }
}

/// Whether there is a line feed with nothing but a carriage return between it and the next.
fn has_empty_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

fn parse_request(bytes: &Bytes) -> Result<Option<(usize, Request)>, HeadError> {
    let mut fields = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut fields) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut fields = vec![MaybeUninit::uninit(); MAX_FIELDS];
            let mut parsed = httparse::Request::new(&mut []);
            let status = parsed.parse_with_uninit_headers(bytes, &mut fields);
            request(bytes, status, &parsed)
        }
        status => request(bytes, status, &parsed),
    }
}

fn request(
    bytes: &Bytes,
    status: httparse::Result<usize>,
    parsed: &httparse::Request<'_, '_>,
) -> Result<Option<(usize, Request)>, HeadError> {
    let Some(length) = length(status)? else { return Ok(None) };
    let mut request = Request::default();
    let target = bytes.slice_ref(parsed.path.unwrap_or_default().as_bytes());
    if target.len() > MAX_TARGET_BYTES {
        return Err(HeadError::TargetTooLong);
    }
    *request.uri_mut() =
        Uri::from_maybe_shared(target).map_err(|_| HeadError::Malformed("malformed request target"))?;
    if let Some(method) = parsed.method.filter(|method| *method != "GET") {
        *request.method_mut() = Method::from_bytes(method.as_bytes())
            .map_err(|_| HeadError::Malformed("malformed request method"))?;
    }
    *request.version_mut() = version(parsed.version);
    let (headers, spellings) = fields(bytes, parsed.headers)?;
    *request.headers_mut() = headers;
    if let Some(spellings) = spellings {
        request.extensions_mut().insert(spellings);
    }
    Ok(Some((length, request)))
}

fn parse_response(bytes: &Bytes) -> Result<Option<(usize, Response)>, HeadError> {
    let mut fields = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut fields = vec![MaybeUninit::uninit(); MAX_FIELDS];
            let mut parsed = httparse::Response::new(&mut []);
            let status = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields);
            response(bytes, status, &parsed)
        }
        status => response(bytes, status, &parsed),
    }
}

fn response(
    bytes: &Bytes,
    status: httparse::Result<usize>,
    parsed: &httparse::Response<'_, '_>,
) -> Result<Option<(usize, Response)>, HeadError> {
    let Some(length) = length(status)? else { return Ok(None) };
    let mut response = Response::default();
    *response.status_mut() = StatusCode::from_u16(parsed.code.unwrap_or_default())
        .map_err(|_| HeadError::Malformed("malformed HTTP status code"))?;
    *response.version_mut() = version(parsed.version);
    let (headers, spellings) = fields(bytes, parsed.headers)?;
    *response.headers_mut() = headers;
    if let Some(spellings) = spellings {
        response.extensions_mut().insert(spellings);
    }
    let reason = parsed.reason.unwrap_or_default();
    if response.status().canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    Ok(Some((length, response)))
}

fn length(status: httparse::Result<usize>) -> Result<Option<usize>, HeadError> {
    match status.map_err(what_is_wrong)? {
        httparse::Status::Complete(length) if length > MAX_BYTES => Err(HeadError::TooLarge),
        httparse::Status::Complete(length) => Ok(Some(length)),
        httparse::Status::Partial => Ok(None),
    }
}

fn what_is_wrong(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::HeaderName => HeadError::Malformed("malformed header name"),
        httparse::Error::HeaderValue => HeadError::Malformed("malformed header value"),
        httparse::Error::NewLine => HeadError::Malformed("malformed line"),
        httparse::Error::Status => HeadError::Malformed("malformed HTTP status code"),
        httparse::Error::Token => HeadError::Malformed("malformed first line"),
        httparse::Error::Version => HeadError::Malformed("malformed HTTP version"),
    }
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

fn fields(
    bytes: &Bytes,
    fields: &[httparse::Header<'_>],
) -> Result<(HeaderMap, Option<Spellings>), HeadError> {
    let mut headers = HeaderMap::with_capacity(fields.len() + ADDED_FIELDS);
    let mut spellings = Vec::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| HeadError::Malformed("malformed header name"))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
            .map_err(|_| HeadError::Malformed("malformed header value"))?;
        headers.append(name, value);
        if !is_title_case(field.name) {
            spellings.push(bytes.slice_ref(field.name.as_bytes()));
        }
    }
    let spellings = (!spellings.is_empty()).then(|| Spellings(spellings));
    Ok((headers, spellings))
}

/// The names that their sender did not write in `Title-Case`, as it wrote them. Others may rely on that.
#[derive(Clone, Debug)]
struct Spellings(Vec<Bytes>);

impl Spellings {
    fn of(&self, name: &HeaderName) -> Option<&[u8]> {
        let name = name.as_str().as_bytes();
        self.0.iter().find(|written| written.eq_ignore_ascii_case(name)).map(|written| &written[..])
    }
}

fn is_title_case(name: &str) -> bool {
    let mut is_first = true;
    name.bytes().all(|byte| {
        let is_right = if is_first { !byte.is_ascii_lowercase() } else { !byte.is_ascii_uppercase() };
        is_first = byte == b'-';
        is_right
    })
}

/// Writes the head of a request, without the empty line at its end.
pub(super) fn write_request(request: &Request, into: &mut Vec<u8>) {
    into.extend_from_slice(request.method().as_str().as_bytes());
    into.push(b' ');
    let target = target(request.uri());
    if target.starts_with('?') {
        // So a URL may go on after its host. A path must not be empty.
        into.push(b'/');
    }
    into.extend_from_slice(target.as_bytes());
    into.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(request.headers(), request.extensions().get(), into);
}

fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

/// Writes the head of a response, without the empty line at its end.
pub(super) fn write_response(response: &Response, into: &mut Vec<u8>) {
    let status = response.status();
    into.extend_from_slice(b"HTTP/1.1 ");
    into.extend_from_slice(status.as_str().as_bytes());
    into.push(b' ');
    match response.extensions().get::<ReasonPhrase>() {
        Some(reason) => into.extend_from_slice(reason.as_bytes()),
        None => into.extend_from_slice(status.canonical_reason().unwrap_or("<none>").as_bytes()),
    }
    into.extend_from_slice(b"\r\n");
    write_fields(response.headers(), response.extensions().get(), into);
}

fn write_fields(headers: &HeaderMap, spellings: Option<&Spellings>, into: &mut Vec<u8>) {
    for (name, value) in headers {
        // Says how long the body is, which is up to who writes the body.
        if *name == header::TRANSFER_ENCODING {
            continue;
        }
        match spellings.and_then(|spellings| spellings.of(name)) {
            Some(written) => into.extend_from_slice(written),
            None => write_title_case(name, into),
        }
        into.extend_from_slice(b": ");
        into.extend_from_slice(value.as_bytes());
        into.extend_from_slice(b"\r\n");
    }
}

/// Go's canonical casing, which apps behind Knative are used to.
fn write_title_case(name: &HeaderName, into: &mut Vec<u8>) {
    let name = name.as_str().as_bytes();
    let start = into.len();
    into.extend_from_slice(name);
    let mut is_first = true;
    for byte in &mut into[start..] {
        if is_first {
            byte.make_ascii_uppercase();
        }
        is_first = *byte == b'-';
    }
}

/// Writes what may follow a body. What would change the meaning of the head has no place there (RFC 9110, 6.5.1).
pub(super) fn write_trailers(trailers: &HeaderMap, into: &mut Vec<u8>) {
    for (name, value) in trailers {
        if !BELONGS_IN_THE_HEAD.contains(name) {
            write_title_case(name, into);
            into.extend_from_slice(b": ");
            into.extend_from_slice(value.as_bytes());
            into.extend_from_slice(b"\r\n");
        }
    }
}

/// Reads what follows a body, up to the empty line, once it is all there.
pub(super) fn parse_trailers(bytes: &Bytes) -> Result<Option<(usize, HeaderMap)>, HeadError> {
    let mut parsed = [httparse::EMPTY_HEADER; USUAL_FIELDS];
    match httparse::parse_headers(bytes, &mut parsed).map_err(what_is_wrong)? {
        httparse::Status::Partial => Ok(None),
        // Whoever takes nothing but both bytes for the end of a line reads on here, into the next message.
        httparse::Status::Complete((length, _)) if has_bare_line_feed(&bytes[..length]) => {
            Err(HeadError::Malformed("malformed line"))
        }
        httparse::Status::Complete((length, parsed)) => Ok(Some((length, fields(bytes, parsed)?.0))),
    }
}

fn has_bare_line_feed(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(at, byte)| *byte == b'\n' && !bytes[..at].ends_with(b"\r"))
}

/// Writes the time, as every response tells it.
pub(super) fn write_date(into: &mut Vec<u8>) {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (written, mut text) = DATE.get();
    if written != second {
        // Its length is given by the standard.
        text.copy_from_slice(httpdate::fmt_http_date(now).as_bytes());
        DATE.set((second, text));
    }
    into.extend_from_slice(b"Date: ");
    into.extend_from_slice(&text);
    into.extend_from_slice(b"\r\n");
}

thread_local! {
    static DATE: Cell<(u64, [u8; 29])> = const { Cell::new((u64::MAX, [0; 29])) };
}

/// The largest head. Go's limit.
const MAX_BYTES: usize = 1 << 20;
/// The longest target that `http` takes.
const MAX_TARGET_BYTES: usize = u16::MAX as usize - 1;
/// More than most messages have.
const USUAL_FIELDS: usize = 64;
const MAX_FIELDS: usize = 1000;
/// How many a proxy adds.
const ADDED_FIELDS: usize = 4;

const BELONGS_IN_THE_HEAD: [HeaderName; 20] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::MAX_FORWARDS,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("keep-alive"),
];

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;
    use crate::headers::to_origin_form;

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
            if let Ok(Some((_, mut request))) = parse_request(&text.into()) {
                to_origin_form(&mut request);
                let text = Bytes::from(written(&request, write_request));
                let (length, again) = parse_request(&text).unwrap().unwrap();
                prop_assert_eq!(length, text.len());
                prop_assert_eq!(again.method(), request.method());
                let path = request.uri().path_and_query().map_or("/".to_owned(), ToString::to_string);
                prop_assert_eq!(target(again.uri()), path);
                prop_assert_eq!(again.headers(), &without_coding(request.headers()));
                prop_assert_eq!(written(&again, write_request), text);
            }
        }

        #[test]
        fn a_response_is_written_as_one_that_means_the_same(text in responses()) {
            if let Ok(Some((_, response))) = parse_response(&text.into()) {
                let text = Bytes::from(written(&response, write_response));
                let (length, again) = parse_response(&text).unwrap().unwrap();
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
            for length in [parse_request(&bytes).map(len), parse_response(&bytes).map(len), parse_trailers(&bytes).map(len)] {
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
                let read = read(&pieces, Partial::request, |_| Vec::new());
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
                    true => parse_request(&text).map(|head| head.unwrap().1.headers().len()),
                    false => parse_response(&text).map(|head| head.unwrap().1.headers().len()),
                };
                assert_eq!(headers, if is_taken { Ok(number) } else { Err(HeadError::TooLarge) });
            }
        }
    }

    #[test]
    fn names_keep_their_spelling_and_others_get_gos() {
        let (_, mut request) = parse_request(
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
    fn trailers_end_with_an_empty_line_and_nothing_like_it() {
        for (text, fields) in
            [("\r\n", 0), ("A: b\r\n\r\n", 1), ("A: b\r\nC:\r\n\r\n", 2), ("A: b\r\n\r\nC: d\r\n", 1)]
        {
            let (_, trailers) = parse_trailers(&Bytes::from(text)).unwrap().unwrap();
            assert_eq!(trailers.len(), fields, "{text:?}");
        }
        for text in
            ["\n", "A: b\n\r\n", "A: b\r\n\n", "A: b\n\n", "A: b\r\r\n\r\n", "A b\r\n\r\n", " A: b\r\n\r\n"]
        {
            assert!(parse_trailers(&Bytes::from(text)).is_err(), "{text:?}");
        }
        assert!(parse_trailers(&Bytes::from("A: b\r\n\r")).unwrap().is_none());
    }

    /// What became of a head that came in these pieces, and what was left after it.
    fn read<T>(
        pieces: &[&[u8]],
        take: fn(&mut Partial, &mut Bytes) -> Result<Option<T>, HeadError>,
        bytes: impl Fn(&T) -> Vec<u8>,
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>, HeadError> {
        let (mut partial, mut unread) = (Partial::default(), Bytes::new());
        for (at, piece) in pieces.iter().enumerate() {
            unread = [&unread, *piece].concat().into();
            if let Some(head) = take(&mut partial, &mut unread)? {
                return Ok(Some((bytes(&head), [&unread, &pieces[at + 1..].concat()[..]].concat())));
            }
        }
        Ok(None)
    }

    /// The same head, or none. (A fault is noticed when there is a line that ends the head, if not before.)
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
        let method =
            prop_oneof![4 => Just("GET"), 1 => select(&["OPTIONS", "get", "\r\n\nPUT", "G(", ""][..])];
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
        let version = prop_oneof![4 => Just("HTTP/1.1"), 1 => select(&["HTTP/1.0", "\r\n\nHTTP/1.1", "HTTP/2", "ICY"][..])];
        let reason =
            prop_oneof![1 => Just(" OK".to_owned()), 1 => Just(String::new()), 1 => "[ -~\t\u{e9}]{0,10}"];
        let line = (version, 0_u16..1200, reason)
            .prop_map(|(version, status, reason)| format!("{version} {status}{reason}"));
        head(line)
    }

    /// Lines below the first, most of them well-formed, and what may come after a head.
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
}
