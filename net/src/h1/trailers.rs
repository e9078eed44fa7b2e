//! Trailers of a chunked body, read and written.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use super::head::{self, HeadError, USUAL_FIELDS};

/// Writes trailers, without the empty line at their end. Fields that would change the framing, the routing or the
/// meaning of the message are left out (RFC 9110, 6.5.1).
pub(super) fn write_trailers(trailers: &HeaderMap, into: &mut Vec<u8>) {
    for (name, value) in trailers {
        if !BELONGS_IN_THE_HEAD.contains(name) {
            head::write_title_case(name, into);
            into.extend_from_slice(b": ");
            into.extend_from_slice(value.as_bytes());
            into.extend_from_slice(b"\r\n");
        }
    }
}

/// Parses trailers up to and including their empty line; `None`: they are not complete.
pub(super) fn parse_trailers(bytes: &Bytes) -> Result<Option<(usize, HeaderMap)>, HeadError> {
    let mut parsed = [httparse::EMPTY_HEADER; USUAL_FIELDS];
    match httparse::parse_headers(bytes, &mut parsed).map_err(head::what_is_wrong)? {
        httparse::Status::Partial => Ok(None),
        // A bare line feed ends a line for httparse. A peer that insists on CRLF would read on, into the next message:
        // request smuggling (RFC 9112, 2.2 and 11.2).
        httparse::Status::Complete((length, _)) if has_bare_line_feed(&bytes[..length]) => {
            Err(HeadError::Malformed("malformed line end"))
        }
        httparse::Status::Complete((length, parsed)) => Ok(Some((length, head::fields(bytes, parsed)?.0))),
    }
}

/// The same for the trailers of a response, which are [mended](head::parse_usual_response) as its head is.
pub(super) fn parse_response_trailers(bytes: &Bytes) -> Result<Option<(usize, HeaderMap)>, HeadError> {
    const STATUS_LINE: &[u8] = b"HTTP/1.1 200 OK\r\n";
    let parsed = head::parse_usual_response::<()>(&[STATUS_LINE, bytes].concat().into())?;
    let Some((length, response)) = parsed else { return Ok(None) };
    let length = length - STATUS_LINE.len();
    if has_bare_line_feed(&bytes[..length]) {
        return Err(HeadError::Malformed("malformed line end"));
    }
    Ok(Some((length, response.into_parts().0.headers)))
}

fn has_bare_line_feed(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(at, byte)| *byte == b'\n' && !bytes[..at].ends_with(b"\r"))
}

/// Fields that do not belong in trailers (RFC 9110, 6.5.1).
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
    use super::*;

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
}
