//! Telling HTTP/2 from HTTP/1.1 on one port, by the first bytes a client sends.

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

    proptest! {
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
