//! The half that speaks to upstreams: one connection, one request at a time. Requests are not pipelined.
//!
//! A connection has no task of its own, the task that sends a request drives it. So a request goes through a proxy without
//! one task waking another.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout_at};

use super::decoder::Decoder;
use super::head::{self, HeadError, Partial};
use super::length::{self, Length};
use super::sender::BodySender;
pub(crate) use super::sender::SendFailure;
use super::write_buffer::WriteBuffer;
use crate::replay::MAX_KEPT_BYTES;
use crate::transport::Transport;
use crate::unsent::is_unsent;
use crate::{Error, Request, Response};

/// A connection to an upstream, idle or with one exchange on it.
#[derive(Debug)]
pub(crate) struct Connection {
    transport: Transport,
    // The upstream is a proxy, which may send requests back.
    to_proxy: bool,
    out: WriteBuffer,
    // Sender of the request's body, until all of it is written, and until the request cannot be sent back any more.
    sending: Option<BodySender>,
    // The upstream may still send the request back.
    may_come_back: bool,
    partial: Partial,
    // Decoder of the response's body.
    decoder: Decoder,
    // Whether both sides keep the connection behind this exchange (keep-alive).
    is_kept: bool,
    // How long the upstream keeps it while nothing comes, as far as it has said so.
    kept_for: Option<Duration>,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// No byte of the request was written, and it is as it was.
    Unsent(Error),
    /// The upstream is a proxy and did not send the request on. It is as it was.
    SentBack(Error),
    /// The request was written, at least in part, and not one byte came back: the upstream closed an idle connection
    /// while the request crossed it (RFC 9112, 9.3.1), or failed over the request.
    Stale(Error),
    /// Any other failure: the upstream may have seen the request.
    Failed(Error),
}

impl Unanswered {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Unanswered::Unsent(error)
            | Unanswered::SentBack(error)
            | Unanswered::Stale(error)
            | Unanswered::Failed(error) => error,
        }
    }
}

impl Connection {
    /// `to_proxy`: the upstream is a proxy, which may send requests back.
    pub(crate) fn new(transport: Transport, to_proxy: bool) -> Self {
        Connection {
            transport,
            to_proxy,
            out: WriteBuffer::default(),
            sending: None,
            may_come_back: false,
            partial: Partial::default(),
            decoder: Decoder::new(Length::Known(0)),
            is_kept: true,
            kept_for: None,
        }
    }

    /// Whether an idle connection can be used: the upstream has neither closed it, as far as that has arrived, nor said
    /// anything, which would be taken for the next response.
    pub(crate) fn is_usable(&mut self) -> bool {
        // Unconstrained: a task that has spent tokio's budget would see `Pending` on any socket.
        let read = unconstrained(poll_fn(|cx| self.transport.poll_fill(cx)));
        pin!(read).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Waits until then, or until an upstream to which nothing was sent yet closes the connection.
    pub(crate) async fn watch(&mut self, until: Instant) -> Result<(), Error> {
        match timeout_at(until, poll_fn(|cx| self.transport.poll_fill(cx))).await {
            Ok(Ok(0)) => Err(Error::UpstreamClosed),
            Ok(Err(error)) => Err(Error::Broken(error)),
            // What it says unasked is not its end.
            Ok(Ok(1..)) | Err(_) => Ok(()),
        }
    }

    /// Sends the request and returns the head of its response. The body of the request is taken, and put back if the
    /// request is [unsent](Unanswered::Unsent) or [sent back](Unanswered::SentBack).
    ///
    /// `inform` gets the interim (1xx) responses.
    pub(crate) async fn send(
        &mut self,
        request: &mut Request,
        mut inform: impl FnMut(Response),
    ) -> Result<Response, Unanswered> {
        self.begin(request);
        let mut is_silent = true;
        let answered = poll_fn(|cx| {
            if let Poll::Ready(Err(failure)) = self.poll_send(cx) {
                match failure {
                    SendFailure::Body(error) => return Poll::Ready(Err(Unanswered::Failed(error))),
                    SendFailure::Peer(error) if !self.out.has_begun() => {
                        let error = Error::Broken(error);
                        return Poll::Ready(Err(if self.take_back(request) {
                            Unanswered::Unsent(error)
                        } else {
                            Unanswered::Failed(error)
                        }));
                    }
                    // An upstream may answer before it has read the request, and close (RFC 9112, 9.6).
                    SendFailure::Peer(_) => self.stop_sending(),
                }
            }
            // Bytes that come before the request is sent are no response to it.
            if !self.out.has_begun() {
                return Poll::Pending;
            }
            self.poll_head(cx, request.method(), &mut is_silent, &mut inform)
        });
        let response = answered.await?;
        let was_sent = self.is_sent();
        let is_whole = self.sending.as_ref().is_none_or(BodySender::is_kept);
        self.may_come_back = false;
        if self.to_proxy && is_unsent(&response) && is_whole && self.take_back(request) {
            self.is_kept &= was_sent;
            let reason = self.take_body().unwrap_or_default();
            return Err(Unanswered::SentBack(Error::SentBack(
                String::from_utf8_lossy(&reason).trim_end().to_owned(),
            )));
        }
        match &mut self.sending {
            Some(sending) if was_sent => self.sending = None,
            Some(sending) => sending.let_go(),
            None => {}
        }
        Ok(response)
    }

    /// Puts the body of the request back where it was. Whether it is whole.
    fn take_back(&mut self, request: &mut Request) -> bool {
        let Some(sending) = self.sending.take() else { return true };
        let body = sending.take_back();
        body.map(|body| *request.body_mut() = body).is_some()
    }

    fn begin(&mut self, request: &mut Request) {
        self.is_kept = true;
        self.may_come_back = self.to_proxy;
        self.out.begin();
        let bytes = self.out.bytes();
        head::write_request(request, bytes);
        let body = request.body();
        let said = request.headers().get(header::CONTENT_LENGTH);
        let length = match said.and_then(length::number) {
            _ if body.is_end_stream() => {
                // The length is told where a body is expected, even if there is none (RFC 9110, 8.6).
                if said.is_none() && matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
                    bytes.extend_from_slice(b"Content-Length: 0\r\n");
                }
                Length::Known(0)
            }
            Some(length) => Length::Known(length),
            None => match body.size_hint().exact() {
                Some(length) => {
                    bytes.extend_from_slice(b"Content-Length: ");
                    bytes.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
                    bytes.extend_from_slice(b"\r\n");
                    Length::Known(length)
                }
                None => {
                    bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                    Length::Chunked
                }
            },
        };
        bytes.extend_from_slice(b"\r\n");
        if !body.is_end_stream() {
            let kept_on = if self.to_proxy { MAX_KEPT_BYTES } else { 0 };
            self.sending = Some(BodySender::new_kept(std::mem::take(request.body_mut()), length, kept_on));
        }
    }

    /// Writes the request. Ready once all of it is with the operating system.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendFailure>> {
        let Connection { transport, out, sending, .. } = self;
        let sent = match sending {
            None if out.is_empty() => return Poll::Ready(Ok(())),
            None => out.poll_write(transport.io(), cx).map_err(SendFailure::Peer),
            Some(sending) => sending.poll(out, cx, |out, cx| out.poll_write(transport.io(), cx)),
        };
        if let Poll::Ready(Ok(())) = sent {
            self.sending.take_if(|_| !self.may_come_back);
        }
        sent
    }

    /// Whether all of the request is with the operating system.
    pub(crate) fn is_sent(&self) -> bool {
        self.sending.as_ref().is_none_or(BodySender::is_complete) && self.out.is_empty()
    }

    /// Sends no more of the request. The connection is not used again.
    pub(crate) fn stop_sending(&mut self) {
        match &mut self.sending {
            Some(sending) if self.may_come_back => sending.stop(),
            _ => self.sending = None,
        }
        self.out.clear();
        self.is_kept = false;
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        asked: &Method,
        is_silent: &mut bool,
        inform: &mut impl FnMut(Response),
    ) -> Poll<Result<Response, Unanswered>> {
        let malformed = |error| {
            Unanswered::Failed(Error::Malformed(match error {
                HeadError::Malformed(what) => what,
                HeadError::TargetTooLong | HeadError::TooLarge => "the head is too large",
                HeadError::NoRoom => "too many large heads are on their way",
            }))
        };
        loop {
            let head = self.partial.response(&mut self.transport.unread);
            match head.map_err(|error| self.malformed_head(error))? {
                Some(response) if is_interim(response.status()) => inform(response),
                Some(mut response) => {
                    let (status, version) = (response.status(), response.version());
                    let headers = response.headers_mut();
                    self.is_kept &=
                        length::is_kept(version, headers) && length::is_consistent(status, headers);
                    let length = length::of_response(asked, status, version, headers).map_err(malformed)?;
                    self.is_kept &= length != Length::UntilClose;
                    self.kept_for = length::kept_for(response.headers());
                    self.decoder = Decoder::of_response(length);
                    return Poll::Ready(Ok(response));
                }
                None => {
                    let closed = match ready!(self.transport.poll_fill(cx)) {
                        Ok(1..) => {
                            *is_silent = false;
                            continue;
                        }
                        Ok(0) => Error::UpstreamClosed,
                        Err(error) => Error::Broken(error),
                    };
                    return Poll::Ready(Err(if *is_silent {
                        Unanswered::Stale(closed)
                    } else {
                        Unanswered::Failed(closed)
                    }));
                }
            }
        }
    }

    fn malformed_head(&self, error: HeadError) -> Unanswered {
        Unanswered::Failed(match error {
            HeadError::Malformed(what) => {
                Error::MalformedHead { what, line: head::faulty_line(&self.transport.unread) }
            }
            HeadError::TargetTooLong | HeadError::TooLarge => Error::Malformed("the head is too large"),
            HeadError::NoRoom => Error::Malformed("too many large heads are on their way"),
        })
    }

    /// The whole body of the response, if its length is known and all of it has been read with the head.
    pub(crate) fn take_body(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.decoder.size_hint().exact()?).ok()?;
        if length > self.transport.unread.len() {
            return None;
        }
        self.decoder = Decoder::new(Length::Known(0));
        Some(self.transport.take(length))
    }

    /// The next piece of the response's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(self.decoder.poll_frame(&mut self.transport, cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
    }

    /// Whether the response has been read to its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.decoder.has_ended()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    /// Whether the exchange is complete and another may follow.
    pub(crate) fn is_free(&self) -> bool {
        self.is_kept && self.decoder.has_ended() && self.is_sent() && self.transport.unread.is_empty()
    }

    /// How long the upstream keeps the connection open while nothing comes, as far as it has said so.
    pub(crate) fn kept_for(&self) -> Option<Duration> {
        self.kept_for
    }

    /// The connection below, when it ceases to be HTTP.
    pub(crate) fn into_transport(self) -> Transport {
        self.transport
    }
}

/// The body of the response.
impl http_body::Body for Connection {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.get_mut().poll_frame(cx)
    }
}

/// Whether this is an interim response, behind which another follows (RFC 9110, 15.2).
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}
