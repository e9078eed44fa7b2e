//! Header fields as they are in memory: how much they take, and how to keep that in proportion to what was sent.
//!
//! A field costs some hundred bytes beside its text, and over HTTP/2 a client sends it again with a single byte (RFC 7541):
//! a frame of 16 KiB becomes megabytes.

use bytes::BytesMut;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// Most fields of one request. Over HTTP/1.1 the parser has the same limit.
pub(crate) use crate::h1::MAX_FIELDS;

/// Bytes that the fields of a waiting request take in memory, about; 0 for the few that every request has, which the limits
/// of waiting requests bound.
pub(crate) fn bytes_beyond_the_usual(fields: &HeaderMap) -> usize {
    let texts: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let bytes = texts + fields.len() * FIELD_BYTES;
    if bytes > USUAL_BYTES { bytes } else { 0 }
}

/// Makes one field of a cookie that came in crumbs, as HTTP/2 clients send it (RFC 9113, 8.2.3), and none at all of more
/// fields than a request may have. Whether they are as many as it may.
pub(crate) fn compact(fields: &mut HeaderMap) -> bool {
    let crumbs = fields.get_all(COOKIE).iter().count();
    let is_large = fields.len() > MAX_FIELDS;
    if crumbs > 1 {
        let mut whole = BytesMut::new();
        for crumb in fields.get_all(COOKIE) {
            if !whole.is_empty() {
                whole.extend_from_slice(b"; ");
            }
            whole.extend_from_slice(crumb.as_bytes());
        }
        // Legal values, joined by a semicolon, are a legal value.
        if let Ok(whole) = HeaderValue::from_maybe_shared(whole.freeze()) {
            fields.insert(COOKIE, whole);
        }
    }
    let is_few = fields.len() <= MAX_FIELDS;
    if is_large {
        // A map does not shrink when fields are taken out.
        let all = std::mem::take(fields);
        if is_few {
            fields.extend(all);
        }
    }
    is_few
}

/// Bytes of fields that are not counted.
const USUAL_BYTES: usize = 4 * 1024;

/// Bytes of one field in a `HeaderMap`, beside its texts.
pub(crate) const FIELD_BYTES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn crumbs(count: usize) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert("x-first", HeaderValue::from_static("1"));
        for _ in 0..count {
            fields.append(COOKIE, HeaderValue::from_static("a=b"));
        }
        fields.append("x-two", HeaderValue::from_static("2"));
        fields.append("x-two", HeaderValue::from_static("3"));
        fields
    }

    #[test]
    fn a_cookie_in_crumbs_becomes_one_field_and_the_others_stay() {
        for count in [2, 16_000] {
            let mut fields = crumbs(count);
            assert!(compact(&mut fields));
            assert_eq!(fields[COOKIE], vec!["a=b"; count].join("; "));
            let rest = ["x-first", "x-two"].map(|name| fields.get_all(name).iter().collect::<Vec<_>>());
            assert!(fields.len() == 4 && rest[0] == ["1"] && rest[1] == ["2", "3"]);
            assert!(fields.capacity() < 100, "{}", fields.capacity());
        }
    }

    #[test]
    fn more_fields_than_a_request_may_have_are_not_kept() {
        let mut fields = HeaderMap::new();
        for _ in 0..MAX_FIELDS {
            fields.append("x-a", HeaderValue::from_static(""));
        }
        assert!(compact(&mut fields) && fields.len() == MAX_FIELDS);
        fields.append("x-a", HeaderValue::from_static(""));
        assert!(!compact(&mut fields) && fields.is_empty());
    }
}
