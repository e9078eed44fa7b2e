//! Writing bodies: counted bytes, chunks, or all bytes until the connection is closed.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;

use super::length::Length;
use super::trailers;
use super::write_buffer::WriteBuffer;
use crate::replay::Recording;
use crate::{Body, Error};

/// Encoder of one body.
#[derive(Debug)]
pub(super) struct BodySender {
    body: Body,
    // The length that the head said, less what was sent of it.
    length: Length,
    // The end of the body has been encoded.
    is_complete: bool,
    // The failure of the body, told once the bytes in front of it are written.
    failure: Option<Error>,
    // The frames that were read, for as long as the body may be taken back.
    recording: Recording,
    // Bytes of a body that can be taken back once it has begun to be written; None: it has begun.
    kept_on: Option<usize>,
}

/// Why a body was not sent to its end.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// The body failed.
    Body(Error),
    /// The peer takes no more.
    Peer(io::Error),
}

impl BodySender {
    /// Sends a body of the length that the head says.
    pub(super) fn new(body: Body, length: Length) -> Self {
        let recording = Recording::Stopped;
        BodySender { body, length, is_complete: false, failure: None, recording, kept_on: None }
    }

    /// Sends a body that can be [taken back](Self::take_back) as long as no byte of its message has been written, and
    /// after that if it is no longer than `kept_on`.
    pub(super) fn new_kept(body: Body, length: Length, kept_on: usize) -> Self {
        // Unlimited: until the first byte is written, no more is read than the buffer takes at once.
        let recording = Recording::of_at_most(usize::MAX);
        BodySender { recording, kept_on: Some(kept_on), ..BodySender::new(body, length) }
    }

    /// The body as it was; `None` if it was not kept, or if it has failed: sent again, it would seem to end there.
    pub(super) fn take_back(self) -> Option<Body> {
        if self.is_kept() { self.recording.rewind(self.body) } else { None }
    }

    /// Whether the body can be taken back.
    pub(super) fn is_kept(&self) -> bool {
        self.failure.is_none() && !self.recording.is_stopped()
    }

    /// The body will not be taken back.
    pub(super) fn let_go(&mut self) {
        self.recording.stop();
    }

    /// Sends no more of the body.
    pub(super) fn stop(&mut self) {
        self.is_complete = true;
    }

    /// Whether nothing more of the body is to be encoded.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Encodes the body into `out` and has `write` write that. Ready once all is written.
    pub(super) fn poll(
        &mut self,
        out: &mut WriteBuffer,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut WriteBuffer, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<Result<(), SendFailure>> {
        loop {
            if self.failure.is_none() {
                self.failure = self.gather(out, cx).err();
            }
            if !out.is_empty() {
                ready!(write(out, cx)).map_err(SendFailure::Peer)?;
            } else if let Some(failure) = self.failure.take() {
                return Poll::Ready(Err(SendFailure::Body(failure)));
            } else if self.is_complete {
                return Poll::Ready(Ok(()));
            } else {
                return Poll::Pending;
            }
        }
    }

    /// Encodes what the body has, until it has to be waited for or the buffer is full.
    fn gather(&mut self, out: &mut WriteBuffer, cx: &mut Context<'_>) -> Result<(), Error> {
        if out.has_begun()
            && let Some(bytes) = self.kept_on.take()
        {
            self.recording.limit(bytes);
        }
        while !self.is_complete && out.has_room() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                // A body that has sent all of its Content-Length need not be waited for.
                Poll::Pending if self.length == Length::Known(0) => self.end(out, None)?,
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => self.end(out, None)?,
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(Some(Ok(frame))) => {
                    self.recording.keep(&frame);
                    match frame.into_data() {
                        Ok(data) => self.data(out, data)?,
                        Err(frame) => self.end(out, frame.into_trailers().ok())?,
                    }
                }
            }
        }
        Ok(())
    }

    fn data(&mut self, out: &mut WriteBuffer, data: Bytes) -> Result<(), Error> {
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

    fn end(&mut self, out: &mut WriteBuffer, trailers: Option<HeaderMap>) -> Result<(), Error> {
        match self.length {
            Length::Known(0) | Length::UntilClose => {}
            Length::Known(_) => return Err(Error::Length("shorter")),
            Length::Chunked => {
                let bytes = out.bytes();
                bytes.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    trailers::write_trailers(&trailers, bytes);
                }
                bytes.extend_from_slice(b"\r\n");
            }
        }
        self.is_complete = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::stream;
    use http::{HeaderName, HeaderValue};
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::decoder::Decoder;
    use super::super::wires::Wires;
    use super::super::write_buffer::COPIED;
    use super::*;
    use crate::tls::MaybeTls;
    use crate::transport::Transport;

    #[test]
    fn what_is_written_is_read() {
        let wires = Wires::default();
        let trailers =
            prop_oneof![1 => Just(None), 1 => vec(("x[a-z]{1,8}", "[!-~]{0,9}"), 0..4).prop_map(Some)];
        proptest!(ProptestConfig::with_cases(100), |(pieces in pieces(), waits in any::<u8>(), trailers in trailers)| {
            let trailers = trailers.map(|fields| fields.iter().map(|(name, value)| {
                (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap())
            }).collect::<HeaderMap>());
            let data = pieces.concat();
            for length in [Length::Known(data.len() as u64), Length::Chunked, Length::UntilClose] {
                let (sent, read) = carry(&wires, body(&pieces, trailers.clone(), waits), length);
                prop_assert!(sent.is_ok());
                let read = read.unwrap();
                prop_assert!(read.0 == data, "{length:?}: {} bytes of {}", read.0.len(), data.len());
                let expected = trailers.clone().filter(|t| length == Length::Chunked && !t.is_empty());
                prop_assert_eq!(read.1, expected);
            }
        });
    }

    #[test]
    fn a_body_of_another_length_than_was_said_is_an_error() {
        let wires = Wires::default();
        let said = (any::<Index>(), -2_isize..3);
        proptest!(ProptestConfig::with_cases(100), |(pieces in pieces(), (until, off) in said)| {
            let data = pieces.concat();
            let until = until.index(pieces.len() + 1);
            let said = pieces[..until].iter().map(Bytes::len).sum::<usize>().saturating_add_signed(off);
            prop_assume!(data.len() != said);
            let (sent, read) = carry(&wires, body(&pieces, None, 0), Length::Known(said as u64));
            let is_longer = data.len() > said;
            match sent {
                Err(SendFailure::Body(Error::Length(how))) => {
                    prop_assert_eq!(how, if is_longer { "longer" } else { "shorter" });
                }
                other => prop_assert!(false, "{other:?}"),
            }
            // The peer never gets more than the head said.
            prop_assert!(read.is_err() || (is_longer && read.unwrap().0 == data[..said]));
        });
    }

    #[test]
    fn a_body_of_which_nothing_was_written_is_taken_back_whole() {
        let wires = Wires::default();
        proptest!(|(pieces in pieces(), waits in any::<u8>())| {
            let mut sending = BodySender::new_kept(body(&pieces, None, waits), Length::Chunked, 0);
            let whole = wires.run(async |_, _| {
                let mut out = WriteBuffer::default();
                for _ in 0..3 {
                    let sent = poll_fn(|cx| Poll::Ready(sending.poll(&mut out, cx, |_, _| Poll::Pending)));
                    prop_assert!(sent.await.is_pending());
                }
                Ok(sending.take_back().unwrap().collect().await.unwrap().to_bytes())
            })?;
            prop_assert!(whole == pieces.concat());
        });
    }

    #[test]
    fn trailers_do_not_change_what_the_head_has_said() {
        let wires = Wires::default();
        let mut trailers: HeaderMap = BELONGS
            .iter()
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("5")))
            .collect();
        let kept: HeaderMap =
            [(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))].into_iter().collect();
        trailers.extend(kept.clone());
        let (_, read) = carry(&wires, body(&[], Some(trailers), 0), Length::Chunked);
        assert_eq!(read.unwrap().1, Some(kept));
    }

    const BELONGS: [&str; 5] = ["content-length", "transfer-encoding", "host", "connection", "authorization"];

    type ReadBody = Result<(Vec<u8>, Option<HeaderMap>), String>;

    /// Sends a body through a socket and closes it; the outcome of sending it, and of reading it.
    fn carry(wires: &Wires, body: Body, length: Length) -> (Result<(), SendFailure>, ReadBody) {
        wires.run(async |from, to| tokio::join!(send(MaybeTls::from(from), body, length), read(to, length)))
    }

    async fn send(mut to: MaybeTls, body: Body, length: Length) -> Result<(), SendFailure> {
        let (mut sending, mut out) = (BodySender::new(body, length), WriteBuffer::default());
        let sent = poll_fn(|cx| sending.poll(&mut out, cx, |out, cx| out.poll_write(&mut to, cx))).await;
        assert!(out.is_empty());
        sent
    }

    async fn read(mut from: Transport, length: Length) -> ReadBody {
        let (mut decoder, mut data, mut trailers) = (Decoder::new(length), Vec::new(), None);
        while let Some(frame) = poll_fn(|cx| decoder.poll_frame(&mut from, cx)).await {
            match frame.map_err(|error| Error::from(error).to_string())?.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        assert!(decoder.has_ended() && from.unread.is_empty(), "nothing else was written");
        Ok((data, trailers))
    }

    /// A body that comes in these pieces, some of which have to be waited for.
    fn body(pieces: &[Bytes], trailers: Option<HeaderMap>, waits: u8) -> Body {
        let pieces = pieces.iter().cloned().map(Frame::data).chain(trailers.map(Frame::trailers));
        let frames: Vec<_> = pieces.enumerate().collect();
        Body::stream(StreamBody::new(Box::pin(stream::unfold(
            frames.into_iter(),
            move |mut frames| async move {
                let (at, frame) = frames.next()?;
                if waits >> (at % 8) & 1 == 1 {
                    tokio::task::yield_now().await;
                }
                Some((Ok::<_, Error>(frame), frames))
            },
        ))))
    }

    /// Pieces from empty ones up to those that are never copied.
    fn pieces() -> impl Strategy<Value = Vec<Bytes>> {
        let length = prop_oneof![1 => Just(0_usize), 3 => 1_usize..100, 2 => COPIED - 2..COPIED + 3, 2 => 0_usize..100 << 10];
        let piece = (length, any::<u8>())
            .prop_map(|(length, first)| (0..length).map(|at| first.wrapping_add(at as u8)).collect());
        vec(piece, 0..8)
    }

    // The body that is taken back after nothing of it could be written.
    async fn taken_back(pieces: Vec<Result<Frame<Bytes>, Error>>) -> Option<Body> {
        let body = Body::stream(StreamBody::new(stream::iter(pieces)));
        let (mut out, mut sending) = (WriteBuffer::default(), BodySender::new_kept(body, Length::Chunked, 0));
        let mut looks = 0;
        let sent = poll_fn(|cx| {
            looks += 1;
            // The failure of a body shows at the second look.
            let written = |_: &mut WriteBuffer, _: &mut Context<'_>| match looks {
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
