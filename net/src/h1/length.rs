//! The length of a message's body (RFC 9112, 6). Two readers that disagree on it take one message for two, which is
//! request smuggling (RFC 9112, 11.2): a message that can be read in two ways is refused.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};

use super::head::HeadError;
use crate::headers::{KEEP_ALIVE, lists_token, tokens};

/// The length of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// `Content-Length` bytes; no body at all if zero.
    Known(u64),
    /// Chunks until the last one, which is empty (RFC 9112, 7.1).
    Chunked,
    /// All bytes until the connection is closed (responses only).
    UntilClose,
}

/// Body length of a received request (RFC 9112, 6.3). Removes a `Content-Length` that is overridden by `chunked`.
pub(super) fn of_request(version: Version, headers: &mut HeaderMap) -> Result<Length, HeadError> {
    match coding(headers) {
        Coding::None => Ok(Length::Known(content_length(headers)?.unwrap_or(0))),
        Coding::Chunked if version == Version::HTTP_11 => {
            // An overridden Content-Length does not count, and still must be well-formed, as in Go (net/http,
            // `fixLength`): a malformed one is a sign of smuggling.
            content_length(headers)?;
            headers.remove(header::CONTENT_LENGTH);
            Ok(Length::Chunked)
        }
        Coding::Chunked => Err(HeadError::Malformed("Transfer-Encoding in an old version of HTTP")),
        Coding::Other => Err(HeadError::Malformed("malformed Transfer-Encoding")),
    }
}

/// Body length of a received response (RFC 9112, 6.3). Removes a `Content-Length` that is overridden by `chunked`.
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
        // Any other coding is refused: `Transfer-Encoding` is taken off with the chunks, and the next hop would not
        // learn that the body is still encoded.
        Coding::Chunked if version == Version::HTTP_11 && is_only_chunked(headers) => {
            headers.remove(header::CONTENT_LENGTH);
            Ok(Length::Chunked)
        }
        _ => Err(HeadError::Malformed("unsupported transfer encoding")),
    }
}

/// Whether a response of this status may have a body (RFC 9110, 6.4.1).
pub(super) fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// Whether `Transfer-Encoding` is absent or one `chunked`.
pub(crate) fn is_only_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(is_chunked) && codings.next().is_none()
}

/// Whether a response's framing fields say one thing. If they do not, its writer may mean another end of the body, and
/// the bytes behind it may be no response: the connection is not used again.
pub(super) fn is_consistent(status: StatusCode, headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return may_have_body(status) && length.is_none();
    }
    status != StatusCode::NO_CONTENT || length.is_none_or(|length| length == "0")
}

/// Whether the sender of a message keeps the connection open behind it (keep-alive; RFC 9112, 9.3).
pub(super) fn is_kept(version: Version, headers: &HeaderMap) -> bool {
    let is_persistent = version != Version::HTTP_10;
    (is_persistent || lists_token(headers, &header::CONNECTION, "keep-alive"))
        && !lists_token(headers, &header::CONNECTION, "close")
}

/// How long the sender of a response keeps the connection open while nothing comes, if it says so (`Keep-Alive: timeout=5`;
/// RFC 2068, 19.7.1.1).
pub(super) fn kept_for(headers: &HeaderMap) -> Option<Duration> {
    headers.get(KEEP_ALIVE)?;
    tokens(headers, &KEEP_ALIVE).find_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        seconds.trim().parse().ok().filter(|_| is_timeout).map(Duration::from_secs)
    })
}

/// The last of a message's transfer codings.
enum Coding {
    None,
    Chunked,
    Other,
}

fn coding(headers: &HeaderMap) -> Coding {
    let Some(last) = headers.get_all(header::TRANSFER_ENCODING).iter().next_back() else {
        return Coding::None;
    };
    // A field that is not text at all counts as another coding: other readers may end its list elsewhere.
    let last = last.to_str().unwrap_or_default().rsplit(',').next().unwrap_or_default();
    if last.trim().eq_ignore_ascii_case("chunked") { Coding::Chunked } else { Coding::Other }
}

/// The value of `Content-Length`. Equal values are made one; different ones are an error (RFC 9112, 6.3).
fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(None) };
    let mut is_repeated = false;
    for again in lengths {
        if again != first {
            return Err(HeadError::Malformed("conflicting Content-Length values"));
        }
        is_repeated = true;
    }
    let length = number(first).ok_or(HeadError::Malformed("malformed Content-Length"))?;
    if is_repeated {
        let first = first.clone();
        headers.insert(header::CONTENT_LENGTH, first);
    }
    Ok(Some(length))
}

/// A number in digits (RFC 9110, 8.6: `1*DIGIT`). Rust's parser would take a plus, too.
pub(super) fn number(value: &HeaderValue) -> Option<u64> {
    let digits = value.to_str().ok()?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|length| is_number && *length <= MAX_LENGTH)
}

/// The longest body: other readers count in signed integers, as Go does.
const MAX_LENGTH: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Option<Length> = None;

    type Fields = &'static [(&'static str, &'static str)];

    /// Fields, and the length that they give to the body of a request and of a response.
    const TABLE: &[(Fields, Option<Length>, Option<Length>)] = &[
        (&[], known(0), Some(Length::UntilClose)),
        (&[(L, "0")], known(0), known(0)),
        (&[(L, "5")], known(5), known(5)),
        (&[(L, "005")], known(5), known(5)),
        (&[(L, "9223372036854775807")], known(MAX_LENGTH), known(MAX_LENGTH)),
        (&[(L, "9223372036854775808")], REFUSED, REFUSED),
        (&[(L, "5"), (L, "5")], known(5), known(5)),
        (&[(L, "5"), (L, "6")], REFUSED, REFUSED),
        (&[(L, "5"), (L, "05")], REFUSED, REFUSED),
        (&[(L, "5"), (L, "5"), (L, "6")], REFUSED, REFUSED),
        (&[(L, "5, 5")], REFUSED, REFUSED),
        (&[(L, "5,")], REFUSED, REFUSED),
        (&[(L, "")], REFUSED, REFUSED),
        (&[(L, "+5")], REFUSED, REFUSED),
        (&[(L, "-5")], REFUSED, REFUSED),
        (&[(L, "5 5")], REFUSED, REFUSED),
        (&[(L, "0x5")], REFUSED, REFUSED),
        (&[(L, "5.0")], REFUSED, REFUSED),
        (&[(L, "\u{665}")], REFUSED, REFUSED),
        (&[(L, "18446744073709551616")], REFUSED, REFUSED),
        (&[(C, "chunked")], CHUNKED, CHUNKED),
        (&[(C, "ChUnKeD")], CHUNKED, CHUNKED),
        (&[(C, "chunked"), (C, "chunked")], CHUNKED, REFUSED),
        (&[(C, "chunked"), (L, "5")], CHUNKED, CHUNKED),
        (&[(L, "5"), (C, "chunked")], CHUNKED, CHUNKED),
        (&[(L, "5"), (L, "5"), (C, "chunked")], CHUNKED, CHUNKED),
        (&[(L, "5"), (L, "6"), (C, "chunked")], REFUSED, CHUNKED),
        (&[(L, "x"), (C, "chunked")], REFUSED, CHUNKED),
        (&[(C, "chunked"), (L, "x")], REFUSED, CHUNKED),
        // Requests with a coding in front of `chunked` can be read; `refusal` answers them with 501.
        (&[(C, "gzip, chunked")], CHUNKED, REFUSED),
        (&[(C, "gzip"), (C, "chunked")], CHUNKED, REFUSED),
        (&[(C, "chunked, chunked")], CHUNKED, REFUSED),
        (&[(C, ",chunked")], CHUNKED, REFUSED),
        (&[(C, "\u{e9}, chunked")], REFUSED, REFUSED),
        (&[(C, "chunked, gzip")], REFUSED, REFUSED),
        (&[(C, "chunked"), (C, "gzip")], REFUSED, REFUSED),
        (&[(C, "chunked,")], REFUSED, REFUSED),
        (&[(C, "chunked;q=1")], REFUSED, REFUSED),
        (&[(C, "\"chunked\"")], REFUSED, REFUSED),
        (&[(C, "xchunked")], REFUSED, REFUSED),
        (&[(C, "chunkedx")], REFUSED, REFUSED),
        (&[(C, "")], REFUSED, REFUSED),
        (&[(C, "identity")], REFUSED, REFUSED),
        (&[(C, "identity"), (L, "5")], REFUSED, REFUSED),
        (&[(C, "gzip"), (L, "5")], REFUSED, REFUSED),
    ];

    #[test]
    fn a_length_is_clear_or_the_message_is_refused() {
        for (fields, of_a_request, of_a_response) in TABLE {
            let mut headers = headers(fields);
            assert_eq!(of_request(Version::HTTP_11, &mut headers.clone()).ok(), *of_a_request, "{fields:?}");
            let length = of_response(&Method::GET, StatusCode::OK, Version::HTTP_11, &mut headers);
            assert_eq!(length.ok(), *of_a_response, "{fields:?}");
        }
    }

    #[test]
    fn nothing_comes_in_chunks_from_before_there_were_any() {
        for (fields, of_a_request, of_a_response) in TABLE {
            let (mut headers, has_coding) = (headers(fields), fields.iter().any(|(name, _)| *name == C));
            let length = of_request(Version::HTTP_10, &mut headers.clone());
            assert_eq!(length.ok(), of_a_request.filter(|_| !has_coding), "{fields:?}");
            let length = of_response(&Method::GET, StatusCode::OK, Version::HTTP_10, &mut headers);
            assert_eq!(length.ok(), of_a_response.filter(|_| !has_coding), "{fields:?}");
        }
    }

    #[test]
    fn a_response_that_cannot_have_a_body_has_none_whatever_it_says() {
        for (fields, ..) in TABLE {
            for (asked, status) in
                [(Method::HEAD, 200), (Method::GET, 204), (Method::POST, 304), (Method::GET, 199)]
            {
                let (status, before) = (StatusCode::from_u16(status).unwrap(), headers(fields));
                let mut after = before.clone();
                let length = of_response(&asked, status, Version::HTTP_11, &mut after);
                assert_eq!(length, Ok(Length::Known(0)), "{asked} {status} {fields:?}");
                assert_eq!(after, before);
            }
        }
    }

    #[test]
    fn a_length_is_passed_on_once_if_it_counts_and_not_at_all_otherwise() {
        for (fields, of_a_request, of_a_response) in TABLE {
            for (is_request, length) in [(true, of_a_request), (false, of_a_response)] {
                let mut headers = headers(fields);
                let _ = if is_request {
                    of_request(Version::HTTP_11, &mut headers)
                } else {
                    of_response(&Method::GET, StatusCode::OK, Version::HTTP_11, &mut headers)
                };
                let said: Vec<_> = headers.get_all(L).iter().map(|said| number(said).unwrap_or(0)).collect();
                match length {
                    Some(Length::Known(length)) if !said.is_empty() => {
                        assert_eq!(said, [*length], "{fields:?}");
                    }
                    Some(_) => assert!(said.is_empty(), "{fields:?}"),
                    None => {}
                }
            }
        }
    }

    #[test]
    fn a_connection_is_kept_unless_anything_says_that_it_is_closed() {
        for (lines, if_new, if_old) in [
            (&[][..], true, false),
            (&["keep-alive"], true, true),
            (&["close"], false, false),
            (&["CLOSE"], false, false),
            (&["x, Close"], false, false),
            (&["closed"], true, false),
            (&["Keep-Alive, x"], true, true),
            (&["close, keep-alive"], false, false),
            (&["keep-alive", "close"], false, false),
            (&["close", "keep-alive"], false, false),
        ] {
            let headers = headers(&lines.iter().map(|line| ("connection", *line)).collect::<Vec<_>>());
            assert_eq!(is_kept(Version::HTTP_11, &headers), if_new, "{lines:?}");
            assert_eq!(is_kept(Version::HTTP_10, &headers), if_old, "{lines:?}");
        }
    }

    #[test]
    fn a_connection_is_kept_for_as_long_as_its_keep_alive_says() {
        for (lines, seconds) in [
            (&[][..], None),
            (&["timeout=5"], Some(5)),
            (&["timeout=5, max=100"], Some(5)),
            (&["max=100,Timeout = 72"], Some(72)),
            (&["max=100", "timeout=0"], Some(0)),
            (&["max=100"], None),
            (&["timeout"], None),
            (&["timeout=soon"], None),
            (&["timeout=-1"], None),
            (&["xtimeout=1"], None),
        ] {
            let headers = headers(&lines.iter().map(|line| ("keep-alive", *line)).collect::<Vec<_>>());
            assert_eq!(kept_for(&headers), seconds.map(Duration::from_secs), "{lines:?}");
        }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    const fn known(length: u64) -> Option<Length> {
        Some(Length::Known(length))
    }

    const CHUNKED: Option<Length> = Some(Length::Chunked);
    const L: &str = "content-length";
    const C: &str = "transfer-encoding";
}
