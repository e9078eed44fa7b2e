//! Turns of HTTP/2 connections: how much one may read before the tasks of its streams run.
//!
//! h2 reads as long as there is something to be read, and hyper accepts streams as long as h2 has them; only then their
//! tasks run. Without a limit a client's head blocks pile up in tasks that wait to run, a frame of 16 KiB as a megabyte of
//! fields each, and bodies in windows that nobody reads meanwhile.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The turn of one connection's task. Clones are the same turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    read: Arc<AtomicUsize>,
}

impl Turn {
    /// Ends the turn: the task has been polled, and others run.
    pub(crate) fn end(&self) {
        self.read.store(0, Ordering::Relaxed);
    }

    /// The connection, as it is to be read.
    pub(crate) fn limit<T>(&self, io: T) -> TurnIo<T> {
        TurnIo { io, turn: self.clone() }
    }
}

/// A connection of which a turn reads no more than a little: the next read is pending, and the task is woken.
pub(crate) struct TurnIo<T> {
    io: T,
    turn: Turn,
}

impl<T: AsyncRead + Unpin> AsyncRead for TurnIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let so_far = self.turn.read.load(Ordering::Relaxed);
        if so_far >= MAX_READ_BYTES {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, into);
        self.turn.read.store(so_far + into.filled().len() - before, Ordering::Relaxed);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TurnIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Bytes after which a turn reads no more.
const MAX_READ_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_turn_reads_a_little_and_the_next_reads_on() {
        let turn = Turn::default();
        let mut io = turn.limit(tokio::io::repeat(0));
        let mut cx = Context::from_waker(Waker::noop());
        let mut space = vec![0; 16 * 1024];
        let mut read_on = || {
            let mut read = 0;
            loop {
                let mut into = ReadBuf::new(&mut space);
                if Pin::new(&mut io).poll_read(&mut cx, &mut into).is_pending() {
                    return read;
                }
                read += into.filled().len();
            }
        };
        assert_eq!((read_on(), read_on()), (MAX_READ_BYTES, 0));
        turn.end();
        assert_eq!(read_on(), MAX_READ_BYTES);
    }
}
