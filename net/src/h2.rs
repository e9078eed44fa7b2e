//! Limits of HTTP/2 connections, to clients and to upstreams, and what stands between a connection and the library.
//!
//! Many share one connection. So a limit is for one stream, or it fills again with time, or a new connection takes over
//! before it is reached: what one stream does wrong, and what adds up in normal life, must not end the others' requests.

mod allowance;
mod ended;
mod fields;
mod frame;
mod huffman;
mod inbound;
mod io;
mod outbound;

use http::{HeaderMap, Method, Uri};

pub(crate) use self::io::{Http2Io, Wear};

/// Streams at once on a client's connection. Knative has Go's default.
pub(crate) const MAX_STREAMS: u32 = 250;

/// Flow-control window of one stream: bytes that may be under way before its reader has taken them. HTTP/2's default, and
/// Envoy's advice for edge proxies; Knative: 1 MiB.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Largest flow-control window of a client's connection. Not enough for all of its streams: see
/// [`window`](crate::window) for why requests that wait for their turn do not use it up.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Smallest flow-control window of a client's connection: the one that it begins with (RFC 9113, 6.9.2), or one byte more.
pub(crate) const MIN_CONNECTION_WINDOW_BYTES: u32 = 64 * 1024;

/// Bytes of one stream that h2 takes before they are written, and a piece more. See [`unwritten`](crate::unwritten) for
/// those of all streams together.
pub(crate) const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of the largest frame (SETTINGS_MAX_FRAME_SIZE). A large body costs a third less than in frames of 16 KiB, the
/// default; still larger ones gain nothing.
pub(crate) const MAX_FRAME_BYTES: u32 = 64 * 1024;

/// Bytes of the largest header list that is served. Go: `DefaultMaxHeaderBytes`.
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// Bytes of the largest header list that is read (SETTINGS_MAX_HEADER_LIST_SIZE). A list between the two limits is refused
/// on its stream; a longer one costs the connection, as in Go (net/http, `readMetaFrame`).
pub(crate) const MAX_READ_HEADER_BYTES: u32 = 2 * MAX_HEADER_BYTES;

/// CONTINUATION frames that the library takes for one header list: a formula of its own (h2, `codec/framed_read.rs`).
const MAX_CONTINUATIONS: u32 = {
    let full = MAX_READ_HEADER_BYTES / MAX_FRAME_BYTES;
    full + full / 4
};

// The two limits decide a third: a header list that may be read must fit in the frames that may come.
const _: () = assert!(MAX_CONTINUATIONS * MAX_FRAME_BYTES >= MAX_READ_HEADER_BYTES);

/// Streams that the client cancels while they wait to be looked at: a whole connection's may come and go in one read.
pub(crate) const MAX_CANCELLED_AT_ONCE: usize = MAX_STREAMS as usize;

/// Streams that were reset by us, and whose last frames may still be under way.
pub(crate) const MAX_RESET_REMEMBERED: usize = 256;

/// Bytes of a header list, counted as SETTINGS_MAX_HEADER_LIST_SIZE is (RFC 9113, 6.5.2); `None`: it is longer than what is
/// served.
pub(crate) fn header_list_bytes(target: Option<(&Method, &Uri)>, headers: &HeaderMap) -> Option<usize> {
    const EACH: usize = 32;
    let pseudo = target.map_or(0, |(method, uri)| {
        let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
        let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
        method.as_str().len() + authority + path + 4 * EACH
    });
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + EACH).sum();
    Some(pseudo + fields).filter(|bytes| *bytes <= MAX_HEADER_BYTES as usize)
}
