//! Telling protocols apart on one port, by the first bytes that a client sends.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use crate::transport::Transport;

/// The first bytes of a client that speaks HTTP/2 by prior knowledge (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Reads until the protocol is known. The bytes stay in the transport, for its parser.
pub(crate) async fn sniff(transport: &mut Transport) -> io::Result<Protocol> {
    let mut is_all = false;
    loop {
        if let Some(protocol) = protocol(&transport.unread, is_all) {
            return Ok(protocol);
        }
        is_all = poll_fn(|cx| transport.poll_fill(cx)).await? == 0;
    }
}

/// The protocol that begins with these bytes; `None`: more are needed. `is_all`: no more will come.
fn protocol(said: &[u8], is_all: bool) -> Option<Protocol> {
    if said.starts_with(PREFACE) {
        return Some(Protocol::Http2);
    }
    // A client that leaves before the end of the preface is left to HTTP/1.1.
    (is_all || !PREFACE.starts_with(said)).then_some(Protocol::Http1)
}

/// The protocol of a client of whom nothing is known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// HTTP/1: a method, and a target in a form that there is (RFC 9112, 3.2).
    Http1,
    /// HTTP/2 by prior knowledge: its preface.
    Http2,
    /// TLS: the header of a handshake record (RFC 8446, 5.1).
    Tls,
    /// Anything else.
    Other,
}

impl FirstBytes {
    /// The protocol that begins with these bytes; `None`: more are needed. `is_all`: no more will come.
    ///
    /// ```
    /// use pilotlight_net::FirstBytes;
    /// assert_eq!(FirstBytes::tell(b"GET / HTTP/1.1", false), Some(FirstBytes::Http1));
    /// assert_eq!(FirstBytes::tell(b"GET key", false), Some(FirstBytes::Other));
    /// assert_eq!(FirstBytes::tell(b"GE", false), None);
    /// ```
    pub fn tell(said: &[u8], is_all: bool) -> Option<FirstBytes> {
        if said.starts_with(PREFACE) {
            return Some(FirstBytes::Http2);
        }
        if said.starts_with(TLS_HANDSHAKE) {
            return Some(FirstBytes::Tls);
        }
        let told = match PREFACE.starts_with(said) || TLS_HANDSHAKE.starts_with(said) {
            true => None,
            false => begins_as_http1(said).map(|begins| match begins {
                true => FirstBytes::Http1,
                false => FirstBytes::Other,
            }),
        };
        told.or_else(|| is_all.then_some(FirstBytes::Other))
    }
}

/// Whether a request of HTTP/1 begins with these bytes; `None`: more are needed.
fn begins_as_http1(said: &[u8]) -> Option<bool> {
    // Empty lines in front are to be ignored (RFC 9112, 2.2).
    let line = said.trim_ascii_start();
    let empty = &said[..said.len() - line.len()];
    if empty.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) || empty.len() > MAX_EMPTY {
        return Some(false);
    }
    let is_of_method = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-';
    let length = line.iter().position(|byte| !is_of_method(byte)).unwrap_or(line.len());
    if length > MAX_METHOD {
        return Some(false);
    }
    let (method, rest) = line.split_at(length);
    let (space, target) = rest.split_first()?;
    if *space != b' ' || method.is_empty() {
        return Some(false);
    }
    // CONNECT names a host and a port, which look like any word.
    if method == b"CONNECT" {
        return target.first().map(u8::is_ascii_alphanumeric);
    }
    match target.first()? {
        b'/' | b'*' => Some(true),
        _ => {
            let scheme = &target[..target.len().min(ABSOLUTE.len())];
            let is_so_far = scheme.eq_ignore_ascii_case(&ABSOLUTE[..scheme.len()]);
            if is_so_far && scheme.len() < ABSOLUTE.len() { None } else { Some(is_so_far) }
        }
    }
}

/// The beginning of a TLS record of a handshake: its type, and the first half of a version.
const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];

/// The beginning of a target in absolute form.
const ABSOLUTE: &[u8] = b"http";

/// Bytes of the longest method: those that are registered have up to 17 (`UPDATEREDIRECTREF`).
const MAX_METHOD: usize = 24;

/// Bytes of empty lines in front of a request.
const MAX_EMPTY: usize = 16;

/// Time that a client may take over its first bytes, and over the first frame of an upgraded connection.
pub(crate) const FIRST_WORDS_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whatever_is_not_the_preface_is_http_1() {
        for text in ["", "GET / HTTP/1.1\r\n", "P", "PRI", "POST /", "PRI * HTTP/1.1\r\n\r\n"] {
            assert_eq!(protocol(text.as_bytes(), true), Some(Protocol::Http1), "{text:?}");
        }
        assert_eq!(protocol(b"PRI", false), None);
    }

    #[test]
    fn a_request_is_known_by_its_method_and_the_form_of_its_target() {
        use FirstBytes::{Http1, Http2, Other, Tls};
        let cases: [(&[u8], _); 24] = [
            (b"GET / HTTP/1.1\r\n", Some(Http1)),
            (b"GET /", Some(Http1)),
            (b"GET ", None),
            (b"\r\n\nGET /", Some(Http1)),
            (b" GET /", Some(Other)),
            (b"OPTIONS * HTTP/1.1", Some(Http1)),
            (b"M-SEARCH * HTTP/1.1", Some(Http1)),
            (b"GET HTTPS://host/", Some(Http1)),
            (b"GET ht", None),
            (b"CONNECT host:443 HTTP/1.1", Some(Http1)),
            (b"CONNECT {\"verbose\"", Some(Other)),
            (b"SET key value\r\n", Some(Other)),
            (b"PING\r\n", Some(Other)),
            (b"PING", None),
            (b"get key\r\n", Some(Other)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Http2)),
            (b"PRI * HTTP/2.0\r\n", None),
            (b"PRI * HTTP/1.1\r\n", Some(Http1)),
            (b"\x16\x03\x01\x02\x00", Some(Tls)),
            (b"\x16", None),
            (b"\x16\x02", Some(Other)),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Some(Other)),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAA", Some(Other)),
            (b"", None),
        ];
        for (said, told) in cases {
            assert_eq!(FirstBytes::tell(said, false), told, "{:?}", said.escape_ascii().to_string());
            assert!(FirstBytes::tell(said, true).is_some());
        }
    }

    proptest! {
        #[test]
        fn what_is_told_of_some_bytes_holds_whatever_follows(
            said in prop_oneof![
                "(\r\n){0,2}(GET|PUT|PRI|CONNECT|[A-Z]{0,30}) (/|\\*|http:|[a-z])?[ -~]{0,10}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..40),
                prop::collection::vec(any::<u8>(), 0..3).prop_map(|rest| [&[0x16, 0x03], &rest[..]].concat()),
            ],
        ) {
            let told: Vec<_> = (0..=said.len()).map(|len| FirstBytes::tell(&said[..len], false)).collect();
            if let Some(at) = told.iter().position(Option::is_some) {
                prop_assert!(told[at..].iter().all(|later| *later == told[at]));
                prop_assert!(at <= PREFACE.len() + MAX_EMPTY + MAX_METHOD + ABSOLUTE.len());
            } else {
                prop_assert!(said.len() <= PREFACE.len() + MAX_EMPTY + MAX_METHOD + ABSOLUTE.len());
            }
        }

        #[test]
        fn what_a_client_says_is_told_as_soon_as_it_can_be_and_no_sooner(
            of_preface in 0..=PREFACE.len(),
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let said = [&PREFACE[..of_preface], &rest].concat();
            let told: Vec<_> = (0..=said.len()).map(|len| protocol(&said[..len], false)).collect();
            let at = told.iter().position(Option::is_some);
            let is_http2 = said.starts_with(PREFACE);
            prop_assert_eq!(at.is_some(), is_http2 || !PREFACE.starts_with(&said));
            if let Some(at) = at {
                let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
                prop_assert!(told[at..].iter().all(|told| *told == Some(protocol)));
                prop_assert!(PREFACE.starts_with(&said[..at - 1]));
            }
        }
    }
}
