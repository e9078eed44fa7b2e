//! Where the body of a message ends. Two readers that disagree on this take one message for two.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};

use super::head::HeadError;
use crate::headers::lists_token;

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// This many bytes; none at all if zero.
    Known(u64),
    /// As many as come in chunks.
    Chunked,
    /// All until the connection is closed.
    UntilClose,
}

/// Of a request that was received. A length that counts for nothing is removed.
pub(super) fn of_request(version: Version, headers: &mut HeaderMap) -> Result<Length, HeadError> {
    match coding(headers) {
        Coding::None => Ok(Length::Known(content_length(headers)?.unwrap_or(0))),
        Coding::Chunked if version == Version::HTTP_11 => {
            headers.remove(header::CONTENT_LENGTH);
            Ok(Length::Chunked)
        }
        Coding::Chunked => Err(HeadError::Malformed("transfer encoding in an old version")),
        Coding::Other => Err(HeadError::Malformed("malformed transfer encoding")),
    }
}

/// Of a response that was received.
pub(super) fn of_response(
    asked: &Method,
    status: StatusCode,
    version: Version,
    headers: &mut HeaderMap,
) -> Result<Length, HeadError> {
    if *asked == Method::HEAD || !may_have_body(status) {
        return Ok(Length::Known(0));
    }
    match coding(headers) {
        Coding::None => Ok(content_length(headers)?.map_or(Length::UntilClose, Length::Known)),
        // What takes off the chunks takes off the header too, and the next reader would not hear of another coding.
        Coding::Chunked if version == Version::HTTP_11 && is_only_chunked(headers) => {
            headers.remove(header::CONTENT_LENGTH);
            Ok(Length::Chunked)
        }
        _ => Err(HeadError::Malformed("unsupported transfer encoding")),
    }
}

/// Whether a response of this status may have a body at all.
pub(super) fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// Whether chunks are all that is said to make up the transfer, if anything is, and said once.
pub(crate) fn is_only_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(is_chunked) && codings.next().is_none()
}

/// Whether a response says nothing else of where its body ends. If it does, its writer may mean another end, and what
/// follows may be no response at all.
pub(super) fn is_consistent(status: StatusCode, headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return may_have_body(status) && length.is_none();
    }
    status != StatusCode::NO_CONTENT || length.is_none_or(|length| length == "0")
}

/// Whether the connection may be used for another message after this one.
pub(super) fn is_kept(version: Version, headers: &HeaderMap) -> bool {
    if version == Version::HTTP_10 {
        lists_token(headers, &header::CONNECTION, "keep-alive")
    } else {
        !lists_token(headers, &header::CONNECTION, "close")
    }
}

enum Coding {
    None,
    /// Last, at least.
    Chunked,
    Other,
}

fn coding(headers: &HeaderMap) -> Coding {
    let Some(last) = headers.get_all(header::TRANSFER_ENCODING).iter().next_back() else {
        return Coding::None;
    };
    let last = last.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
    if last.trim_ascii().eq_ignore_ascii_case(b"chunked") { Coding::Chunked } else { Coding::Other }
}

/// What the message says, if it says one thing. Said twice, it is made one.
fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(None) };
    let mut is_repeated = false;
    for again in lengths {
        if again != first {
            return Err(HeadError::Malformed("more than one content length"));
        }
        is_repeated = true;
    }
    let length = number(first).ok_or(HeadError::Malformed("malformed content length"))?;
    if is_repeated {
        let first = first.clone();
        headers.insert(header::CONTENT_LENGTH, first);
    }
    Ok(Some(length))
}

/// Digits and nothing else. Rust would take a plus, too.
pub(super) fn number(value: &HeaderValue) -> Option<u64> {
    let digits = value.to_str().ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}
