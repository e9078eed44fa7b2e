//! Writing messages: what is on its way to the other side, and the body it comes from.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Body as _;
use tokio::io::AsyncWrite;

use super::head;
use super::length::Length;
use crate::tls::MaybeTls;
use crate::{Body, Error};

/// What is to be written next.
#[derive(Debug, Default)]
pub(super) struct Out {
    // Heads, chunk sizes, small pieces.
    bytes: Vec<u8>,
    from: usize,
    // A large one, which is not worth copying, and what follows it.
    piece: Bytes,
    after: &'static [u8],
    must_flush: bool,
    has_begun: bool,
}

impl Out {
    /// Another message begins.
    pub(super) fn begin(&mut self) {
        self.has_begun = false;
    }

    /// Whether anything of the message has been written.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// To add to.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.piece.is_empty(), "what is added would come before it");
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.take();
        }
        &mut self.bytes
    }

    fn piece(&mut self, piece: Bytes, after: &'static [u8]) {
        if piece.len() <= COPIED {
            let bytes = self.bytes();
            bytes.extend_from_slice(&piece);
            bytes.extend_from_slice(after);
        } else {
            (self.piece, self.after) = (piece, after);
        }
    }

    /// Whether there is a point in adding more before it is written.
    fn has_room(&self) -> bool {
        self.piece.is_empty() && self.after.is_empty() && self.bytes.len() < FULL
    }

    pub(super) fn is_empty(&self) -> bool {
        self.from == self.bytes.len() && self.piece.is_empty() && self.after.is_empty() && !self.must_flush
    }

    /// Forgets it all.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        (self.from, self.piece, self.after) = (0, Bytes::new(), b"");
        if self.bytes.capacity() <= MAX_SPARE {
            SPARE.set(std::mem::take(&mut self.bytes));
        } else {
            self.bytes = Vec::new();
        }
    }

    /// Writes all of it. `Ok` once all is with the operating system.
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

/// A body on its way out.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) body: Body,
    length: Length,
    is_complete: bool,
    failure: Option<Error>,
    early: Early,
}

/// What was read of a body, for as long as it may have to be put back.
#[derive(Debug)]
enum Early {
    NotKept,
    Kept(VecDeque<Bytes>),
}

/// Why a body is not sent to its end.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// It has no end.
    Body(Error),
    /// Nobody takes it.
    Peer(io::Error),
}

impl Sending {
    pub(super) fn new(body: Body, length: Length) -> Self {
        Sending { body, length, is_complete: false, failure: None, early: Early::NotKept }
    }

    /// The same, so that it can be [taken back](Self::take_back).
    pub(super) fn new_kept(body: Body, length: Length) -> Self {
        Sending { early: Early::Kept(VecDeque::new()), ..Sending::new(body, length) }
    }

    /// The body as it was, of which nothing was written. Not one that has failed: it would seem to end where it does.
    pub(super) fn take_back(self) -> Option<Body> {
        match self.early {
            _ if self.failure.is_some() => None,
            Early::NotKept => None,
            Early::Kept(early) if early.is_empty() => Some(self.body),
            Early::Kept(early) => Some(Body::replayed(early, self.body)),
        }
    }

    /// Sends it, `write` being told to write. `Ok` once all is written.
    pub(super) fn poll(
        &mut self,
        out: &mut Out,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Out, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<Result<(), SendFailure>> {
        loop {
            if self.failure.is_none() {
                self.failure = self.gather(out, cx).err();
            }
            if !out.is_empty() {
                ready!(write(out, cx)).map_err(SendFailure::Peer)?;
            } else if let Some(failure) = self.failure.take() {
                // What came before it was sent all the same.
                return Poll::Ready(Err(SendFailure::Body(failure)));
            } else if self.is_complete {
                return Poll::Ready(Ok(()));
            } else {
                return Poll::Pending;
            }
        }
    }

    /// Adds to `out` what the body has to give, until it has to wait, or there is enough to be written.
    fn gather(&mut self, out: &mut Out, cx: &mut Context<'_>) -> Result<(), Error> {
        while !self.is_complete && out.has_room() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                // Nothing can come that would be sent.
                Poll::Pending if self.length == Length::Known(0) => self.end(out, None)?,
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => self.end(out, None)?,
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.data(out, data)?,
                    Err(frame) => self.end(out, frame.into_trailers().ok())?,
                },
            }
        }
        Ok(())
    }

    fn data(&mut self, out: &mut Out, data: Bytes) -> Result<(), Error> {
        if let Early::Kept(early) = &mut self.early {
            if out.has_begun() {
                self.early = Early::NotKept;
            } else {
                early.push_back(data.clone());
            }
        }
        match &mut self.length {
            _ if data.is_empty() => {}
            Length::Known(left) => {
                let Some(rest) = left.checked_sub(data.len() as u64) else {
                    return Err(Error::Length("longer"));
                };
                *left = rest;
                out.piece(data, b"");
            }
            Length::Chunked => {
                let bytes = out.bytes();
                // Writing to memory does not fail.
                let _ = write!(bytes, "{:x}\r\n", data.len());
                out.piece(data, b"\r\n");
            }
            Length::UntilClose => out.piece(data, b""),
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Out, trailers: Option<HeaderMap>) -> Result<(), Error> {
        match self.length {
            Length::Known(0) | Length::UntilClose => {}
            Length::Known(_) => return Err(Error::Length("shorter")),
            Length::Chunked => {
                let bytes = out.bytes();
                bytes.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    self.early = Early::NotKept;
                    head::write_trailers(&trailers, bytes);
                }
                bytes.extend_from_slice(b"\r\n");
            }
        }
        self.is_complete = true;
        Ok(())
    }
}

thread_local! {
    // The buffer of whoever was done writing last.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Up to this size, a piece is copied rather than written from where it is.
const COPIED: usize = 8 * 1024;
/// With so much to be written, it is written.
const FULL: usize = 16 * 1024;
const MAX_SPARE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    // What comes back of a body of which nothing could be written.
    async fn taken_back(pieces: Vec<Result<Frame<Bytes>, Error>>) -> Option<Body> {
        let body = Body::stream(StreamBody::new(stream::iter(pieces)));
        let (mut out, mut sending) = (Out::default(), Sending::new_kept(body, Length::Chunked));
        let mut looks = 0;
        let sent = poll_fn(|cx| {
            looks += 1;
            // A body's failure shows at the second look.
            let written = |_: &mut Out, _: &mut Context<'_>| match looks {
                1 => Poll::Pending,
                _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
            cx.waker().wake_by_ref();
            sending.poll(&mut out, cx, written)
        });
        assert!(matches!(sent.await, Err(SendFailure::Peer(_))));
        sending.take_back()
    }

    #[tokio::test]
    async fn a_body_comes_back_whole_or_not_at_all() {
        let piece = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
        let back = taken_back(vec![piece("a"), piece("b")]).await.unwrap();
        assert_eq!(back.collect().await.unwrap().to_bytes(), "ab");
        assert!(taken_back(vec![piece("a"), Err(Error::UpstreamClosed)]).await.is_none());
    }
}
