//! Our halves of HTTP/1.1 against hyper's: bytes that one takes for a message, the other must take for the same message, or
//! refuse. Mostly valid messages are damaged at random and given to both. They differ in nothing but this:
//!
//! - We refuse requests without exactly one legal `Host`, and targets that are neither a path nor a URL: `refusal.rs` says
//!   why. hyper leaves that to its user.
//! - Every `Content-Length` of a request must be the same text, even beside `chunked`. hyper takes "5" and "05" for the
//!   same, and does not look at one behind `Transfer-Encoding`.
//! - Every `Content-Length` of a response must be the same text, and no list: not "5, 5".
//! - We take requests whose path and query are no URI.
//! - A repeated `Content-Length` is passed on once, and not at all beside `chunked`.
//! - We refuse responses with other codings than `chunked`, since `Transfer-Encoding` is taken off with the chunks; and
//!   requests with them, by a 501.
//! - We take later minor versions of a response for HTTP/1.1. (hyper is told to mend line folds and blanks in front of colons,
//!   as we do.)
//! - We refuse `CONNECT`, and read nothing behind it, nor behind an upgrade that is not taken up.
//! - We refuse a `101` that was not asked for.
//! - We refuse control bytes in chunk extensions, and a bare line feed at the end of a line of trailers. hyper reads on
//!   there, and takes the next message for trailers.
//! - We refuse lengths that Go cannot count; hyper takes twice as much.
//!
//! Limits differ, too: of fields, of trailers, of a head, of a chunk's line. Within them, nothing else is
//! accepted that hyper refuses.
//!
//! `PROPTEST_CASES=100000 cargo test -p pilotlight-net --test http differential` looks longer.

mod grammar;
mod requests;
mod responses;

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use proptest::test_runner::Config;
use tokio::runtime::Runtime;

/// The content of a message behind its head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    data: Bytes,
    trailers: Vec<(String, Bytes)>,
    is_broken_off: bool,
}

/// Reads a body to its end, or as far as it comes.
async fn read(body: impl Body<Data = Bytes>) -> Content {
    let mut body = std::pin::pin!(body);
    let (mut content, mut data) = (Content::default(), Vec::new());
    loop {
        match body.frame().await.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(piece))) => data.extend_from_slice(&piece),
            Some(Ok(Err(trailers))) => {
                content.trailers = fields(&trailers.into_trailers().unwrap_or_default());
            }
            end => return Content { data: data.into(), is_broken_off: end.is_some(), ..content },
        }
    }
}

/// Fields sorted by name; those of one name stay in their order.
fn fields(headers: &HeaderMap) -> Vec<(String, Bytes)> {
    let mut fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), Bytes::copy_from_slice(value.as_bytes())))
        .collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn values<'a>(fields: &'a [(String, Bytes)], name: &str) -> Vec<&'a [u8]> {
    fields.iter().filter(|(other, _)| other == name).map(|(_, value)| &value[..]).collect()
}

/// Whether a length does not fit into a signed integer, which we refuse.
fn is_too_long(length: &str) -> bool {
    length.parse().is_ok_and(|length: u64| i64::try_from(length).is_err())
}

/// Whether we refuse a chunked body that hyper takes: for control bytes in an extension, or a bare line feed in trailers.
fn is_stricter_about_chunks(hyper: &Content, ours: &Content, input: &[u8]) -> bool {
    ours.is_broken_off && hyper.data.starts_with(&ours.data) && has_odd_bytes(input)
}

fn has_odd_bytes(input: &[u8]) -> bool {
    let has_control_bytes = input.iter().any(|byte| byte.is_ascii_control() && !b"\r\n\t".contains(byte));
    has_control_bytes || input.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r')
}

/// The number of cases, unless the environment sets another.
fn config() -> Config {
    Config { failure_persistence: None, ..Config::with_cases(2000) }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Time for anything here: all waits are for bytes that are there already.
const AT_ONCE: Duration = Duration::from_secs(10);
