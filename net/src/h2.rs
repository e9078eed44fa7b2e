//! What both ends of our HTTP/2 connections agree on.

/// Requests at once on one connection. Knative's number.
pub(crate) const MAX_STREAMS: u32 = 250;

/// What may be under way in one stream before its reader has taken it. Knative: 1 MiB.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// What may be under way in one connection: enough for all of its streams. With less (Knative: the window of one
/// stream), the bodies of requests that wait for their turn would use it up, and those whose turn it is could not
/// be read to their end: neither would ever go on.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * STREAM_WINDOW_BYTES;

/// The largest piece.
pub(crate) const MAX_FRAME_BYTES: u32 = 1 << 20;

/// The largest head, as Go counts it.
pub(crate) const MAX_HEADER_BYTES: u32 = 1 << 20;
