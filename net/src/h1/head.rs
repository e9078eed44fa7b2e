//! The heads of messages, read and written: request line or status line, and header fields (RFC 9112, 2 to 5).

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::ext::ReasonPhrase;

use super::raw_target::RawTarget;
use crate::heads::HeldHead;

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the head is too large")]
    TooLarge,
    #[error("too many large heads are on their way")]
    NoRoom,
}

/// A head that arrives in pieces. It is parsed when it begins, and not again before an empty line has come: a peer that
/// sends it byte by byte must not cost time that grows with the square of its length.
#[derive(Debug, Default)]
pub(super) struct Partial {
    // Bytes that were parsed in vain; 0 at the beginning of a head.
    seen: usize,
    held: HeldHead,
}

impl Partial {
    /// Takes a request off the bytes that were read, once its head is complete. Its body stays unread. The head is counted
    /// until its [guard](Partial::take_held) is dropped.
    pub(super) fn request<B: Default>(
        &mut self,
        unread: &mut Bytes,
    ) -> Result<Option<Request<B>>, HeadError> {
        let Some((length, request)) = self.head(unread, parse_request)? else { return Ok(None) };
        let counted = self.held.is_complete(length, request.headers().len());
        counted.map_err(|_| HeadError::NoRoom)?;
        Ok(Some(request))
    }

    /// The guard of the request's head that was just taken.
    pub(super) fn take_held(&mut self) -> HeldHead {
        std::mem::take(&mut self.held)
    }

    /// Takes a response off the bytes that were read, once its head is complete. Its body stays unread.
    pub(super) fn response<B: Default>(
        &mut self,
        unread: &mut Bytes,
    ) -> Result<Option<Response<B>>, HeadError> {
        let response = self.head(unread, parse_response)?;
        if response.is_some() {
            self.held = HeldHead::default();
        }
        Ok(response.map(|(_, response)| response))
    }

    fn head<T>(
        &mut self,
        unread: &mut Bytes,
        parse: impl Fn(&Bytes) -> Result<Option<(usize, T)>, HeadError>,
    ) -> Result<Option<(usize, T)>, HeadError> {
        // Empty lines in front of a message are skipped (RFC 9112, 2.2).
        while let Some(rest) = unread.strip_prefix(b"\r\n").or_else(|| unread.strip_prefix(b"\n")) {
            unread.advance(unread.len() - rest.len());
            self.seen = 0;
        }
        if unread.is_empty() {
            *unread = Bytes::new();
            return Ok(None);
        }
        if self.seen > 0 && !has_empty_line(&unread[self.seen.saturating_sub(2)..]) {
            return self.wait(unread);
        }
        let Some((length, head)) = parse(unread)? else { return self.wait(unread) };
        unread.advance(length);
        if unread.is_empty() {
            *unread = Bytes::new();
        }
        self.seen = 0;
        Ok(Some((length, head)))
    }

    fn wait<T>(&mut self, unread: &Bytes) -> Result<Option<T>, HeadError> {
        self.seen = unread.len();
        if self.seen > MAX_BYTES {
            return Err(HeadError::TooLarge);
        }
        self.held.arrives(self.seen).map_err(|_| HeadError::NoRoom)?;
        Ok(None)
    }
}

/// Whether a head may end here: at two line feeds with nothing but a carriage return between them.
fn has_empty_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

fn parse_request<B: Default>(bytes: &Bytes) -> Result<Option<(usize, Request<B>)>, HeadError> {
    match parse_usual_request(bytes) {
        Err(HeadError::Malformed(FIRST_LINE | TARGET)) if let Some(escaped) = RawTarget::escape(bytes) => {
            let (escaped, longer, target) = escaped;
            let parsed = parse_usual_request(&escaped)?;
            Ok(parsed.map(|(length, mut request)| {
                request.extensions_mut().insert(target);
                (length - longer, request)
            }))
        }
        parsed => parsed,
    }
}

fn parse_usual_request<B: Default>(bytes: &Bytes) -> Result<Option<(usize, Request<B>)>, HeadError> {
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

fn request<B: Default>(
    bytes: &Bytes,
    status: httparse::Result<usize>,
    parsed: &httparse::Request<'_, '_>,
) -> Result<Option<(usize, Request<B>)>, HeadError> {
    let Some(length) = length(status)? else { return Ok(None) };
    let mut request = Request::default();
    let target = bytes.slice_ref(parsed.path.unwrap_or_default().as_bytes());
    if target.len() > MAX_TARGET_BYTES {
        return Err(HeadError::TargetTooLong);
    }
    *request.uri_mut() = Uri::from_maybe_shared(target).map_err(|_| HeadError::Malformed(TARGET))?;
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

fn parse_response<B: Default>(bytes: &Bytes) -> Result<Option<(usize, Response<B>)>, HeadError> {
    match parse_usual_response(bytes) {
        Err(HeadError::Malformed(VERSION)) if let Some(bytes) = as_known_version(bytes) => {
            parse_usual_response(&bytes)
        }
        parsed => parsed,
    }
}

/// The bytes with HTTP/1.1 in place of a later minor version, which means the same to a recipient that does not know it
/// (RFC 9110, 2.5).
fn as_known_version(bytes: &Bytes) -> Option<Bytes> {
    let rest = bytes.strip_prefix(b"HTTP/1.")?;
    let is_later = matches!(rest, [b'2'..=b'9', b' ', ..]);
    is_later.then(|| [b"HTTP/1.1", &rest[1..]].concat().into())
}

pub(super) fn parse_usual_response<B: Default>(
    bytes: &Bytes,
) -> Result<Option<(usize, Response<B>)>, HeadError> {
    let mut fields = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // A gateway mends both in responses, and refuses both in requests (RFC 9112, 5.1 and 5.2).
    config.allow_spaces_after_header_name_in_responses(true);
    config.allow_obsolete_multiline_headers_in_responses(true);
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

fn response<B: Default>(
    bytes: &Bytes,
    status: httparse::Result<usize>,
    parsed: &httparse::Response<'_, '_>,
) -> Result<Option<(usize, Response<B>)>, HeadError> {
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

pub(super) fn what_is_wrong(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::HeaderName => HeadError::Malformed("malformed header name"),
        httparse::Error::HeaderValue => HeadError::Malformed("malformed header value"),
        httparse::Error::NewLine => HeadError::Malformed("malformed line end"),
        httparse::Error::Status => HeadError::Malformed("malformed HTTP status code"),
        httparse::Error::Token => HeadError::Malformed(FIRST_LINE),
        httparse::Error::Version => HeadError::Malformed(VERSION),
    }
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

pub(super) fn fields(
    bytes: &Bytes,
    fields: &[httparse::Header<'_>],
) -> Result<(HeaderMap, Option<Spellings>), HeadError> {
    let mut headers = HeaderMap::with_capacity(fields.len() + ADDED_FIELDS);
    let mut spellings = Vec::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| HeadError::Malformed("malformed header name"))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        let value = value.or_else(|_| HeaderValue::from_maybe_shared(unfolded(field.value)));
        let value = value.map_err(|_| HeadError::Malformed("malformed header value"))?;
        headers.append(name, value);
        if !is_title_case(field.name) {
            spellings.push(bytes.slice_ref(field.name.as_bytes()));
        }
    }
    // Each field of the message is looked up in the list when it is written: a list without limit would make that
    // quadratic.
    let spellings = (1..=USUAL_FIELDS).contains(&spellings.len()).then(|| Spellings(spellings));
    Ok((headers, spellings))
}

/// The value in one line: each line fold is replaced by a space (RFC 9112, 5.2).
fn unfolded(value: &[u8]) -> Bytes {
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(&b' ').into()
}

/// The line at which the head of a response is malformed, for people: the first field that is none, or else the status line.
pub(super) fn faulty_line(bytes: &[u8]) -> String {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status_line = lines.next().unwrap_or_default();
    let is_sound = |at: usize, line: &[u8]| {
        let mut at_colon = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (at_colon.next().unwrap_or_default(), at_colon.next().map(<[u8]>::trim_ascii));
        let is_fold = at > 0 && matches!(line, [b' ' | b'\t', ..]);
        is_fold
            || (HeaderName::from_bytes(name.trim_ascii_end()).is_ok()
                && value.is_some_and(|value| HeaderValue::from_bytes(value).is_ok()))
    };
    let mut fields = lines.take_while(|line| !line.is_empty()).enumerate();
    let line = fields.find(|(at, line)| !is_sound(*at, line)).map_or(status_line, |(_, line)| line);
    let shown = line[..line.len().min(MAX_SHOWN)].escape_ascii();
    let rest = if line.len() > MAX_SHOWN { "..." } else { "" };
    format!("\"{shown}{rest}\"")
}

/// Field names that their sender did not write in `Title-Case`, as it wrote them. Names are case-insensitive (RFC 9110,
/// 5.1), and still there are peers that rely on one spelling.
#[derive(Clone, Debug)]
pub(super) struct Spellings(Vec<Bytes>);

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
pub(super) fn write_request<B>(request: &Request<B>, into: &mut Vec<u8>) {
    into.extend_from_slice(request.method().as_str().as_bytes());
    into.push(b' ');
    let target = match request.extensions().get::<RawTarget>() {
        Some(target) => target.as_bytes(),
        None => request.uri().path_and_query().map_or("/", PathAndQuery::as_str).as_bytes(),
    };
    // The path of an absolute-form target may be empty in front of a query; origin-form needs it (RFC 9112, 3.2.1).
    if target.starts_with(b"?") {
        into.push(b'/');
    }
    into.extend_from_slice(target);
    into.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(request.headers(), request.extensions().get(), into);
}

/// Writes the head of a response, without the empty line at its end.
pub(super) fn write_response<B>(response: &Response<B>, into: &mut Vec<u8>) {
    let status = response.status();
    into.extend_from_slice(b"HTTP/1.1 ");
    into.extend_from_slice(status.as_str().as_bytes());
    into.push(b' ');
    match response.extensions().get::<ReasonPhrase>() {
        Some(reason) => into.extend_from_slice(reason.as_bytes()),
        None => into.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    into.extend_from_slice(b"\r\n");
    write_fields(response.headers(), response.extensions().get(), into);
}

fn write_fields(headers: &HeaderMap, spellings: Option<&Spellings>, into: &mut Vec<u8>) {
    for (name, value) in headers {
        // Framing is up to the writer of the body, which adds its own field.
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

/// Writes a name in Go's canonical casing (`textproto.CanonicalMIMEHeaderKey`), which apps behind Knative are used to.
pub(super) fn write_title_case(name: &HeaderName, into: &mut Vec<u8>) {
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

/// Writes the `Date` field (RFC 9110, 6.6.1), formatted once a second and thread.
pub(super) fn write_date(into: &mut Vec<u8>) {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (written, mut text) = DATE.get();
    if written != second {
        // IMF-fixdate has 29 characters (RFC 9110, 5.6.7).
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

const FIRST_LINE: &str = "malformed first line";
const TARGET: &str = "malformed request target";
const VERSION: &str = "malformed HTTP version";

/// Bytes of a faulty line that are shown.
const MAX_SHOWN: usize = 80;

/// Bytes of the largest head. Go: `DefaultMaxHeaderBytes`.
const MAX_BYTES: usize = 1 << 20;
/// Bytes of the longest target that `http` takes.
const MAX_TARGET_BYTES: usize = u16::MAX as usize - 1;
/// Fields that are parsed on the stack: more than most messages have.
pub(super) const USUAL_FIELDS: usize = 64;
/// The most fields of a head.
pub(crate) const MAX_FIELDS: usize = 1000;
/// Fields that a proxy adds, for which the map has room from the beginning.
const ADDED_FIELDS: usize = 4;

#[cfg(test)]
mod tests;
