//! `Upgrade: h2c`: a client that begins with HTTP/1.1 and asks to go on with HTTP/2 (RFC 7540, 3.2).
//!
//! The request becomes the first stream of the HTTP/2 connection, and its response is sent there. hyper cannot begin a
//! connection with a request that came in over HTTP/1.1, so it gets one: after the `101`, the client sends its preface and
//! a SETTINGS frame, and behind these the request is slipped in as the HEADERS frame that it would have been.

use std::future::poll_fn;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderName, Method};
use http_body::Body as _;
use tokio::time::timeout;

use super::raw_target::RawTarget;
use crate::Request;
use crate::headers::{HOP_BY_HOP, lists_token};
use crate::preface::{FIRST_WORDS_TIMEOUT, PREFACE};
use crate::transport::Transport;

/// The HEADERS frame of the request, if the client asks for h2c and gets it. A request with a body does not: the body
/// would have to be read and kept first. Nor does one whose head does not fit into one frame.
pub(super) fn wish(request: &Request) -> Option<Bytes> {
    let headers = request.headers();
    if !headers.contains_key(UPGRADE) || !lists_token(headers, &UPGRADE, "h2c") {
        return None;
    }
    let is_agreed = lists_token(headers, &CONNECTION, "upgrade")
        && lists_token(headers, &CONNECTION, "http2-settings")
        && settings_are_well_formed(request)
        && request.body().is_end_stream()
        && *request.method() != Method::CONNECT;
    // A target that is no URI cannot be said over HTTP/2.
    let is_uri = request.extensions().get::<RawTarget>().is_none();
    if is_agreed && is_uri { head_frame(request) } else { None }
}

/// Whether there is one `HTTP2-Settings` in base64url (RFC 7540, 3.2.1). Its values are not used: the client repeats them in
/// the SETTINGS frame behind its preface, before anything is sent that they would bind.
fn settings_are_well_formed(request: &Request) -> bool {
    let mut settings = request.headers().get_all(HTTP2_SETTINGS).iter();
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_=".contains(byte);
    settings.next().is_some_and(|settings| settings.as_bytes().iter().all(is_base64))
        && settings.next().is_none()
}

fn head_frame(request: &Request) -> Option<Bytes> {
    let headers = request.headers();
    let uri = request.uri();
    let authority = match uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => headers.get(HOST)?.as_bytes(),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut block = BytesMut::new();
    put_field(&mut block, b":method", request.method().as_str().as_bytes());
    put_field(&mut block, b":scheme", b"http");
    put_field(&mut block, b":authority", authority);
    put_field(&mut block, b":path", path.as_bytes());
    for (name, value) in headers {
        let is_listed = || lists_token(headers, &CONNECTION, name.as_str());
        if *name != HOST && !HOP_BY_HOP.contains(name) && !is_listed() {
            put_field(&mut block, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if block.len() > LARGEST_FRAME {
        return None;
    }
    let mut frame = BytesMut::with_capacity(FRAME_HEAD + block.len());
    // The length has three bytes, and fits into two.
    frame.put_uint(block.len() as u64, 3);
    frame.put_u8(HEADERS);
    frame.put_u8(END_STREAM | END_HEADERS);
    frame.put_u32(FIRST_STREAM);
    frame.put(block);
    Some(frame.freeze())
}

/// Writes a literal field without indexing (RFC 7541, 6.2.2).
fn put_field(block: &mut BytesMut, name: &[u8], value: &[u8]) {
    block.put_u8(0);
    for text in [name, value] {
        put_length(block, text.len());
        block.put_slice(text);
    }
}

/// Writes an integer with a prefix of seven bits (RFC 7541, 5.1).
fn put_length(block: &mut BytesMut, length: usize) {
    let Some(mut rest) = length.checked_sub(0x7f) else {
        block.put_u8(length as u8);
        return;
    };
    block.put_u8(0x7f);
    while rest >= 0x80 {
        block.put_u8(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    block.put_u8(rest as u8);
}

/// Waits for the client's preface and SETTINGS frame, and puts the request behind them.
pub(super) async fn begin(mut transport: Transport, request: &[u8]) -> io::Result<Transport> {
    let length = timeout(FIRST_WORDS_TIMEOUT, read_greeting(&mut transport)).await??;
    let mut unread = BytesMut::with_capacity(transport.unread.len() + request.len());
    unread.extend_from_slice(&transport.unread[..length]);
    unread.extend_from_slice(request);
    unread.extend_from_slice(&transport.unread[length..]);
    transport.unread = unread.freeze();
    Ok(transport)
}

/// Bytes of preface and SETTINGS frame, once both have arrived.
async fn read_greeting(transport: &mut Transport) -> io::Result<usize> {
    loop {
        let unread = &transport.unread;
        if !unread.iter().zip(PREFACE).all(|(said, expected)| said == expected) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the client sent no HTTP/2 preface after its upgrade to h2c",
            ));
        }
        if let Some(frame) = unread.get(PREFACE.len()..).filter(|frame| frame.len() >= FRAME_HEAD) {
            let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
            if frame[3] != SETTINGS || length > LARGEST_FRAME {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the client sent no SETTINGS frame behind its HTTP/2 preface",
                ));
            }
            if frame.len() >= FRAME_HEAD + length {
                return Ok(PREFACE.len() + FRAME_HEAD + length);
            }
        }
        if poll_fn(|cx| transport.poll_fill(cx)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// SETTINGS_MAX_FRAME_SIZE unless a peer has set another (RFC 9113, 6.5.2).
const LARGEST_FRAME: usize = 16 * 1024;
/// Bytes of a frame header (RFC 9113, 4.1): length, type, flags, stream.
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const FIRST_STREAM: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_integers_with_a_prefix_of_seven_bits() {
        let encoded = |length| {
            let mut block = BytesMut::new();
            put_length(&mut block, length);
            block.to_vec()
        };
        assert_eq!(encoded(10), [10]);
        assert_eq!(encoded(126), [126]);
        assert_eq!(encoded(127), [127, 0]);
        assert_eq!(encoded(1337), [127, 0b1011_1010, 0b0000_1001]);
    }
}
