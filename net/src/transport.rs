//! The bytes of one connection: what was read of them already and is still to be understood, then the rest.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::tls::MaybeTls;

/// A connection that has ceased to be HTTP, or not begun yet: bytes both ways.
///
/// It holds no buffer. What arrives is read into one that all connections of a thread share, and copied out in its
/// exact size: a connection that waits costs what it has said, and an idle one nothing.
#[derive(Debug)]
pub struct Transport {
    io: MaybeTls,
    pub(crate) unread: Bytes,
    // How reading has failed, behind what was read. An operating system says it only once.
    failure: Option<io::Error>,
}

impl Transport {
    pub(crate) fn new(io: impl Into<MaybeTls>) -> Self {
        Transport { io: io.into(), unread: Bytes::new(), failure: None }
    }

    /// Reads what there is and adds it to what is unread; how many bytes, zero at the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        SPACE.with_borrow_mut(|space| {
            let mut into = ReadBuf::new(space);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
            self.append(into.filled());
            Poll::Ready(Ok(into.filled().len()))
        })
    }

    fn append(&mut self, read: &[u8]) {
        if self.unread.is_empty() {
            self.unread = Bytes::copy_from_slice(read);
            return;
        }
        let unread = std::mem::take(&mut self.unread);
        let mut unread = unread.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        unread.extend_from_slice(read);
        self.unread = unread.freeze();
    }

    /// The next piece, of no more than `max` bytes; empty at the end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>, max: u64) -> Poll<io::Result<Bytes>> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        if max >= LARGE && self.unread.len() < max.min(PIECE) {
            return self.poll_large(cx, max.min(PIECE));
        }
        if self.unread.is_empty() {
            ready!(self.poll_fill(cx))?;
        }
        Poll::Ready(Ok(self.take(max)))
    }

    // Into a buffer of its own, which it then is: a large body is not copied, but for what came with its head.
    fn poll_large(&mut self, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<Bytes>> {
        // Limited, for it may be larger than it was asked to be.
        let mut into = BytesMut::with_capacity(size).limit(size);
        into.put_slice(&self.unread);
        // As much as there is: each piece is written by itself.
        while into.has_remaining_mut() && self.failure.is_none() {
            match poll_read_buf(Pin::new(&mut self.io), cx, &mut into) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(_)) => break,
                Poll::Ready(Err(failure)) => self.failure = Some(failure),
                Poll::Pending if into.get_ref().is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if into.get_ref().is_empty()
            && let Some(failure) = self.failure.take()
        {
            return Poll::Ready(Err(failure));
        }
        self.unread = Bytes::new();
        let piece = into.into_inner();
        let is_mostly_empty = piece.len() < piece.capacity() / 4;
        Poll::Ready(Ok(if is_mostly_empty { Bytes::copy_from_slice(&piece) } else { piece.freeze() }))
    }

    /// Up to `max` of the unread bytes.
    pub(crate) fn take(&mut self, max: usize) -> Bytes {
        if max >= self.unread.len() {
            return std::mem::take(&mut self.unread);
        }
        self.unread.split_to(max)
    }

    /// Will not end like one that has said all it had to say, but break. (TLS ends in words of its own.)
    pub(crate) fn break_off(&self) {
        if let MaybeTls::Plain(stream) = &self.io {
            // An error: it has ended already.
            let _ = stream.set_zero_linger();
        }
    }

    /// What is below, past anything unread.
    pub(crate) fn io(&mut self) -> &mut MaybeTls {
        &mut self.io
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return match self.failure.take() {
                Some(failure) => Poll::Ready(Err(failure)),
                None => Pin::new(&mut self.io).poll_read(cx, into),
            };
        }
        let len = into.remaining().min(self.unread.len());
        into.put_slice(&self.unread[..len]);
        self.unread.advance(len);
        if self.unread.is_empty() {
            self.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
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

thread_local! {
    static SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; SPACE_BYTES].into());
}

/// What is read at once, of anything but a large body.
const SPACE_BYTES: usize = 16 * 1024;

/// From this on, a body gets buffers of its own.
const LARGE: usize = 8 * 1024;

/// The largest of these. Beyond 128 KiB, allocators have the kernel make a new one each time.
const PIECE: usize = 120 * 1024;
