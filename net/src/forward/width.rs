//! The flow-control windows of streams to upstreams: wide, as long as there are not too many streams in the process.
//!
//! A response that its client does not read fills its stream's window. The window of the connection has room for all of
//! its streams, so that the clients that do read are not kept waiting (RFC 9113, 5.2.1); what bounds the bytes of all
//! connections together is that beyond a number of streams new ones get connections whose streams have narrow windows.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::h2::{MAX_STREAMS, STREAM_WINDOW_BYTES};

/// Width of the windows of one connection's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Wide,
    Narrow,
}

impl Width {
    /// The width for a stream that is a wide one, or is not.
    pub(super) fn of(wide: Option<&WideStream>) -> Self {
        if wide.is_some() { Width::Wide } else { Width::Narrow }
    }

    pub(super) fn stream_window_bytes(self) -> u32 {
        match self {
            Width::Wide => STREAM_WINDOW_BYTES,
            Width::Narrow => NARROW_WINDOW_BYTES,
        }
    }

    pub(super) fn connection_window_bytes(self) -> u32 {
        MAX_STREAMS * self.stream_window_bytes()
    }
}

/// The right to a wide window, of which the process has a number.
#[derive(Debug)]
pub(super) struct WideStream(());

impl WideStream {
    pub(super) fn take() -> Option<Self> {
        let one_more = |count| (count < MAX_WIDE_STREAMS).then_some(count + 1);
        WIDE_STREAMS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(WideStream(()))
    }
}

impl Drop for WideStream {
    fn drop(&mut self) {
        WIDE_STREAMS.fetch_sub(1, Ordering::Relaxed);
    }
}

static WIDE_STREAMS: AtomicUsize = AtomicUsize::new(0);

/// Streams with wide windows: 16 MiB of them.
const MAX_WIDE_STREAMS: usize = 256;

/// Bytes of a narrow window: 10,000 of them are 19 MiB. A pod is near, so that even this is some MiB a second. Four frames
/// of a full window, with their heads of nine bytes, fill a buffer of 8 KiB, into which h2 reads; with a byte more, fewer
/// would share one.
const NARROW_WINDOW_BYTES: u32 = 2 * 1024 - 9;
