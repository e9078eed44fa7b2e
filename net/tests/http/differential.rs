//! Our halves of HTTP/1.1 against hyper's: what one takes for a message, the other must take for the same message, or
//! refuse. Mostly valid messages are damaged at random and given to both. They differ in nothing but this:
//!
//! - We refuse requests that name no host, two, or none that could be one, and targets that are neither a path nor a
//!   URL: `server/refusal.rs` says why. hyper leaves that to its user.
//! - The length of a request is said in the same words wherever it is said, even beside chunks. hyper takes "5" and
//!   "05" for the same, and looks at nothing that comes after `Transfer-Encoding`.
//! - The length of a response is said in the same words, and once in a line: not "5, 5".
//! - A length that is said twice is passed on once, and not at all beside chunks.
//! - We refuse responses with other codings than chunks, since what takes off the chunks takes off the header; and
//!   requests with them, by a 501.
//! - We refuse a `101` that nobody has asked for.
//! - We refuse control bytes in what follows the size of a chunk, and a line feed alone at the end of a line of
//!   trailers. hyper reads on there: it takes the next message for trailers.
//! - We refuse lengths that Go cannot count; hyper takes twice as much.
//!
//! And where the limits are: of fields, of trailers, of a head, of a chunk's line. Within them, nothing is accepted that
//! hyper refuses.
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

/// What follows a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    data: Bytes,
    trailers: Vec<(String, Bytes)>,
    is_broken_off: bool,
}

/// Reads a body to its end, wherever that is.
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

/// By name; those of one name in the order they came.
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

/// We take no length that does not fit with a sign.
fn is_too_long(length: &str) -> bool {
    length.parse().is_ok_and(|length: u64| i64::try_from(length).is_err())
}

/// We take no control bytes in the extension of a chunk, and no bare line feed after the last.
fn is_stricter_about_chunks(hyper: &Content, ours: &Content, input: &[u8]) -> bool {
    ours.is_broken_off && hyper.data.starts_with(&ours.data) && has_odd_bytes(input)
}

fn has_odd_bytes(input: &[u8]) -> bool {
    let has_control_bytes = input.iter().any(|byte| byte.is_ascii_control() && !b"\r\n\t".contains(byte));
    has_control_bytes || input.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r')
}

/// So many cases, unless the environment says how many.
fn config() -> Config {
    Config { failure_persistence: None, ..Config::with_cases(2000) }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Nothing here waits for anything but bytes that are there already.
const AT_ONCE: Duration = Duration::from_secs(10);
