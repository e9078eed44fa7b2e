//! Bytes of a message that are still to be written.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::tls::MaybeTls;

/// Bytes to be written, in this order: `bytes` from `from`, `piece`, `after`.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    // Heads, chunk sizes and small pieces of bodies, copied together.
    bytes: Vec<u8>,
    from: usize,
    // A large piece of a body, written from where it is, and the CRLF behind it if it is a chunk.
    piece: Bytes,
    after: &'static [u8],
    // Written, and still to be flushed (TLS).
    must_flush: bool,
    // A byte of the message has been written.
    has_begun: bool,
}

impl WriteBuffer {
    /// Begins another message.
    pub(super) fn begin(&mut self) {
        self.has_begun = false;
    }

    /// Whether a byte of the message has been written.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Bytes to append to.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.piece.is_empty(), "appended bytes would go out before the piece");
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.take();
        }
        &mut self.bytes
    }

    /// Appends a piece of a body, and what follows it.
    pub(super) fn piece(&mut self, piece: Bytes, after: &'static [u8]) {
        if piece.len() <= COPIED {
            let bytes = self.bytes();
            bytes.extend_from_slice(&piece);
            bytes.extend_from_slice(after);
        } else {
            (self.piece, self.after) = (piece, after);
        }
    }

    /// Whether more can be appended before the next write.
    pub(super) fn has_room(&self) -> bool {
        self.piece.is_empty() && self.after.is_empty() && self.bytes.len() < FULL
    }

    pub(super) fn is_empty(&self) -> bool {
        self.from == self.bytes.len() && self.piece.is_empty() && self.after.is_empty() && !self.must_flush
    }

    /// Drops what has not been written, and leaves the buffer to the next message of the thread.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        (self.from, self.piece, self.after) = (0, Bytes::new(), b"");
        if self.bytes.capacity() <= MAX_SPARE {
            SPARE.set(std::mem::take(&mut self.bytes));
        } else {
            self.bytes = Vec::new();
        }
    }

    /// Writes and flushes everything. Ready once all bytes are with the operating system.
    pub(super) fn poll_write(&mut self, to: &mut MaybeTls, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut to = Pin::new(to);
        loop {
            let bytes = &self.bytes[self.from..];
            let written = match (bytes.is_empty(), self.piece.is_empty(), self.after.is_empty()) {
                (true, true, true) => break,
                (false, true, true) => ready!(to.as_mut().poll_write(cx, bytes))?,
                _ => {
                    let slices = [IoSlice::new(bytes), IoSlice::new(&self.piece), IoSlice::new(self.after)];
                    ready!(to.as_mut().poll_write_vectored(cx, &slices))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            (self.must_flush, self.has_begun) = (true, true);
            self.advance(written);
        }
        if self.bytes.capacity() > 0 {
            self.clear();
        }
        if self.must_flush {
            ready!(to.poll_flush(cx))?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) {
        let of_bytes = written.min(self.bytes.len() - self.from);
        self.from += of_bytes;
        let of_piece = (written - of_bytes).min(self.piece.len());
        self.piece.advance(of_piece);
        if self.piece.is_empty() {
            self.piece = Bytes::new();
        }
        self.after = &self.after[written - of_bytes - of_piece..];
    }
}

thread_local! {
    // A buffer for the next message of the thread: an idle connection holds none.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes of the largest piece that is copied. Larger ones are written from where they are.
pub(super) const COPIED: usize = 8 * 1024;
/// Bytes with which the buffer is written before more is appended.
const FULL: usize = 16 * 1024;
/// Bytes of the largest buffer that is kept for the next message.
const MAX_SPARE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_in_part_goes_on_where_it_stopped(
            bytes in vec(any::<u8>(), 0..20),
            piece in vec(any::<u8>(), 0..20),
            parts in vec(any::<Index>(), 0..20),
        ) {
            let mut left = [&bytes[..], &piece, b"\r\n"].concat();
            let mut out = WriteBuffer { bytes, piece: piece.into(), after: b"\r\n", ..WriteBuffer::default() };
            for part in parts {
                let written = part.index(left.len() + 1);
                out.advance(written);
                left.drain(..written);
                prop_assert_eq!(&[&out.bytes[out.from..], &out.piece, out.after].concat(), &left);
                prop_assert_eq!(out.is_empty(), left.is_empty());
            }
        }
    }
}
