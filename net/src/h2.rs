//! Limits of HTTP/2 connections, to clients and to upstreams.

/// Streams at once on one connection. Knative has Go's default.
pub(crate) const MAX_STREAMS: u32 = 250;

/// Flow-control window of one stream: bytes that may be under way before its reader has taken them. Knative: 1 MiB.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// Flow-control window of one connection: enough for all of its streams. With less (Knative: the window of one stream), the
/// bodies of requests that wait for their turn would use it up, and the body of a request whose turn it is could not be
/// read to its end: a deadlock.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * STREAM_WINDOW_BYTES;

/// Bytes of the largest frame (SETTINGS_MAX_FRAME_SIZE).
pub(crate) const MAX_FRAME_BYTES: u32 = 1 << 20;

/// Bytes of the largest header list (SETTINGS_MAX_HEADER_LIST_SIZE). Go: `DefaultMaxHeaderBytes`.
pub(crate) const MAX_HEADER_BYTES: u32 = 1 << 20;
