//! One connection's bytes: those that were read and not parsed yet, then those of the socket.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::tls::MaybeTls;

/// A connection as bytes both ways, below HTTP or after it.
///
/// A transport holds no read buffer. Bytes are read into one that all connections of a thread share, and copied out in
/// their exact size: a connection that waits costs the bytes that it has sent, and an idle one nothing.
#[derive(Debug)]
pub struct Transport {
    io: MaybeTls,
    pub(crate) unread: Bytes,
    // The error that came behind the last bytes, for the next read: an operating system reports it only once.
    failure: Option<io::Error>,
}

impl Transport {
    pub(crate) fn new(io: impl Into<MaybeTls>) -> Self {
        Transport { io: io.into(), unread: Bytes::new(), failure: None }
    }

    /// Reads bytes that have arrived and appends them to the unread ones. Returns their number, 0 at EOF.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill_after(cx, |_, _| 0)
    }

    /// The same for those of them that are left by `take`, which returns how many it took. It is not called at EOF.
    pub(crate) fn poll_fill_after(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Context<'_>, &[u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        SPACE.with_borrow_mut(|space| {
            let mut into = ReadBuf::new(space);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
            let read = into.filled();
            if !read.is_empty() {
                let taken = take(cx, read);
                if taken < read.len() {
                    self.append(&read[taken..]);
                }
            }
            Poll::Ready(Ok(read.len()))
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

    /// The next piece, of up to `max` bytes; empty at EOF.
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

    // A large piece is read into a buffer of its own: a large body is not copied, but for the bytes that came with its head.
    fn poll_large(&mut self, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<Bytes>> {
        // Limited: the allocator may give more capacity than it was asked for.
        let mut into = BytesMut::with_capacity(size).limit(size);
        into.put_slice(&self.unread);
        // The piece takes all bytes that have arrived: each piece costs one write.
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

    /// Has the connection end with a reset in place of EOF. (A TLS connection ends without close_notify, which says the same.)
    pub fn break_off(&self) {
        if let MaybeTls::Plain(stream) = &self.io {
            // An error says that the socket has ended already.
            let _ = stream.set_zero_linger();
        }
    }

    /// Whether the peer has closed its side and no byte lies in front of that, whatever tokio has heard. (Unknown over TLS.)
    pub(crate) fn is_at_eof(&self) -> bool {
        match &self.io {
            MaybeTls::Plain(stream) => {
                let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
                rustix::net::recv(stream, &mut [0; 1], flags).is_ok_and(|(_, received)| received == 0)
            }
            MaybeTls::Tls(_) => false,
        }
    }

    /// The connection below, past the unread bytes.
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

/// Bytes that are read at once, of anything but a large body.
const SPACE_BYTES: usize = 16 * 1024;

/// Bytes left of a body from which on it is read into buffers of its own.
const LARGE: usize = 8 * 1024;

/// Bytes of such a buffer. From 128 KiB on, glibc's malloc has the kernel map a new one each time (M_MMAP_THRESHOLD).
const PIECE: usize = 120 * 1024;
