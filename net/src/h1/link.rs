//! A client's connection, shared by its task and the body of the request it serves.
//!
//! tokio wakes one task for each direction of a socket, so each direction has one owner at a time. [`RequestState`] says
//! who owns the read half, [`AnswerState`] who owns the write half; "the task" is the connection's, in
//! [`server`](super::server), and [`RequestBody`] belongs to whoever reads the body, in whatever task that is.
//!
//! ```text
//!    ┌────────────────────── response written, connection kept ───────────────────┐
//!    ▼                                                                            │
//!   Head ─── head without a body ────────────────────────────────────────────► Drained
//!    │                                                                          ▲   ▲
//!    └────── head with a body ───► Body ──── last byte read ────────────────────┘   │
//!                                   │ └───── malformed, cut off ───► Stuck          │
//!            dropped before its end │                                  ▲            │
//!                                   ▼                                  │            │
//!                               Abandoned ── last byte drained ────────┼────────────┘
//!                                   │ └───── malformed, too long ──────┘
//!                                   └─────── cut off ──────────────► Gone
//!
//!   request     read half belongs to   and there
//!   Head        the task               the next head is read
//!   Body        RequestBody            the body is read; the task waits for its end
//!   Abandoned   the task               the rest of the body is drained, so that the connection can be kept
//!   Drained     the task               pipelined requests are read ahead, and a later EOF shows that the client has left
//!   Stuck       nobody                 nothing more is read; the connection is closed after the response
//!   Gone        nobody                 the client has left
//!
//!   answer      write half belongs to  and there
//!   Awaited     whoever is polled      queued interim (1xx) responses are written as far as that goes without waiting
//!   Final       the task               the rest of those is written, then the final response
//! ```
//!
//! `Stuck` and `Gone` end with the close, and so does every other state whose connection is not kept.
//!
//! In `Awaited`, neither side counts on being woken when the socket takes more: of two tasks that wait to write, tokio
//! would wake only the last. What was not written is tried again at the next poll, and at the latest in `Final`.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version, header};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep};

use super::decoder::{Decoder, ReadError};
use super::head::{self, HeadError, Partial};
use super::length::{self, Length};
use super::write_buffer::WriteBuffer;
use crate::alarm::Alarm;
use crate::error::RequestBodyError;
use crate::transport::Transport;
use crate::{Drain, Error};

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Link {
    halves: Mutex<Halves>,
}

#[derive(Debug)]
struct Halves {
    transport: Transport,
    request: RequestState,
    answer: AnswerState,
    /// Interim (1xx) responses that are still to be written.
    interim: WriteBuffer,
    /// Waker of the connection's task, for the end of `RequestState::Body`.
    task: Option<Waker>,
    /// No request has ended yet.
    is_fresh: bool,
    /// When the request was read.
    begun: Option<Instant>,
    /// A read behind the request was tried, to tell a half-close from a close.
    has_looked_behind: bool,
    /// The client sends nothing more, and waits for answers.
    is_half_closed: bool,
    /// How long a client is taken for one that waits although it sends nothing more. Boxed: rare.
    benefit_of_doubt: Option<Pin<Box<Sleep>>>,
}

/// State of the request, and so the owner of the read half; see the picture above.
#[derive(Debug)]
enum RequestState {
    Head,
    Body {
        decoder: Decoder,
        /// The client sends its body after a `100 Continue` (RFC 9110, 10.1.1), which it has not been sent yet.
        expects_continue: bool,
    },
    Abandoned {
        decoder: Decoder,
        /// The client has not been told to send its body, and never will be.
        expects_continue: bool,
        /// Bytes of the body that are still drained; at 0 the connection is closed instead.
        drainable: usize,
    },
    Drained,
    Stuck,
    Gone,
}

/// State of the response, and so the owner of the write half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerState {
    /// Interim responses may be sent.
    Awaited,
    /// The final response has begun, or the client speaks HTTP/1.0, which has no interim ones (RFC 9110, 15.2).
    Final,
}

/// Facts about a request that its response depends on.
pub(super) struct Asked {
    pub(super) is_head: bool,
    pub(super) version: Version,
    pub(super) is_kept: bool,
    /// The request has a body, which [`Link::body`] reads.
    pub(super) has_body: bool,
}

/// A request without its body, unless its head is malformed.
type NextRequest<B> = Result<(Request<B>, Asked), HeadError>;

impl Link {
    pub(super) fn new(transport: Transport) -> Self {
        Link {
            halves: Mutex::new(Halves {
                transport,
                request: RequestState::Head,
                answer: AnswerState::Final,
                interim: WriteBuffer::default(),
                task: None,
                is_fresh: true,
                begun: None,
                has_looked_behind: false,
                is_half_closed: false,
                benefit_of_doubt: None,
            }),
        }
    }

    /// The next request; `None`: the connection is to be closed. `deadline` is when the head must be complete; it is set
    /// here, if it is not, once the head has begun.
    pub(super) fn poll_request<B: Default>(
        &self,
        cx: &mut Context<'_>,
        partial: &mut Partial,
        deadline: &mut Option<Instant>,
        alarm: &Alarm,
        drain: &Drain,
    ) -> Poll<Option<NextRequest<B>>> {
        let halves = &mut *self.halves.lock();
        loop {
            match partial.request(&mut halves.transport.unread) {
                Ok(None) => {}
                Ok(Some(mut request)) => {
                    *deadline = None;
                    return Poll::Ready(Some(halves.begin(&mut request).map(|asked| (request, asked))));
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let has_begun = !halves.transport.unread.is_empty();
            if !has_begun && drain.is_started() {
                return Poll::Ready(None);
            }
            match halves.transport.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Pending => {
                    if has_begun && deadline.is_none() {
                        *deadline = Some(Instant::now() + HEAD_TIMEOUT);
                    }
                    let is_late = deadline.is_some_and(|at| alarm.poll(at, cx).is_ready());
                    return if is_late { Poll::Ready(None) } else { Poll::Pending };
                }
            }
        }
    }

    /// The body of the request that was just read. To be called once if the request has one, and not otherwise.
    pub(super) fn body(self: &Arc<Self>) -> RequestBody {
        RequestBody { link: Some(Arc::clone(self)) }
    }

    /// Whether the connection is in the clear.
    pub(super) fn is_plain(&self) -> bool {
        self.halves.lock().transport.io().is_plain()
    }

    /// Ready once the client has left. To be polled by the task while a response is made or written, after whatever makes
    /// or writes it: that may have to read the body first.
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let halves = &mut *self.halves.lock();
        halves.write_interim(cx);
        ready!(halves.poll_drain(cx));
        match halves.request {
            RequestState::Head | RequestState::Drained => halves.poll_eof(cx),
            RequestState::Body { .. } => {
                // An EOF lies behind the body, whose reader notices it.
                halves.wait_for_body(cx);
                Poll::Pending
            }
            RequestState::Abandoned { .. } | RequestState::Stuck => Poll::Pending,
            RequestState::Gone => Poll::Ready(()),
        }
    }

    /// Whether bytes have come that are, or may be, behind the request.
    pub(super) fn has_more(&self, cx: &mut Context<'_>) -> bool {
        let halves = &mut *self.halves.lock();
        if let RequestState::Drained = halves.request {
            let _ = halves.poll_eof(cx);
            return !halves.transport.unread.is_empty();
        }
        true
    }

    /// The final response begins. Whether the connection can be kept, as far as the request is concerned.
    pub(super) fn begin_response(&self, cx: &mut Context<'_>) -> bool {
        let halves = &mut *self.halves.lock();
        // Awaited => Final
        halves.answer = AnswerState::Final;
        // Whether the client takes the answer shows when it is written.
        halves.is_half_closed |= halves.benefit_of_doubt.take().is_some();
        if let RequestState::Abandoned { expects_continue: false, .. } = halves.request {
            // The rest of the body is often here already.
            let _ = halves.poll_drain(cx);
        }
        match halves.request {
            RequestState::Head | RequestState::Drained => true,
            // After a final response, a client that has not been told to send its body may send it or not: what comes next
            // can be a body or a request (RFC 9110, 10.1.1).
            RequestState::Body { expects_continue, .. } => !expects_continue,
            RequestState::Abandoned { .. } | RequestState::Stuck | RequestState::Gone => false,
        }
    }

    /// Waits for the end of the request, which may come after that of its response. Whether another may follow. The
    /// response said so: a body that was abandoned since then is drained, too.
    pub(super) async fn end_request(&self, alarm: &Alarm) -> bool {
        let mut deadline = None;
        poll_fn(|cx| {
            let halves = &mut *self.halves.lock();
            ready!(halves.poll_let_go(cx));
            match halves.poll_drain(cx) {
                Poll::Ready(()) => Poll::Ready(halves.end()),
                Poll::Pending => {
                    let until = *deadline.get_or_insert_with(|| Instant::now() + HEAD_TIMEOUT);
                    alarm.poll(until, cx).map(|()| false)
                }
            }
        })
        .await
    }

    /// Writes queued interim responses, then `out`. To be polled by the task.
    pub(super) fn poll_write(&self, out: &mut WriteBuffer, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let halves = &mut *self.halves.lock();
        if !halves.interim.is_empty() {
            ready!(halves.interim.poll_write(halves.transport.io(), cx))?;
        }
        out.poll_write(halves.transport.io(), cx)
    }

    /// Half-closes the connection, and reads on for a moment (RFC 9112, 9.6): a socket that is closed with something
    /// unread is reset, and the client may lose a response that it has not read yet.
    pub(super) async fn close(&self, alarm: &Alarm) {
        let until = Instant::now() + LINGER;
        let shut = poll_fn(|cx| match Pin::new(self.halves.lock().transport.io()).poll_shutdown(cx) {
            Poll::Ready(shut) => Poll::Ready(shut.is_ok()),
            Poll::Pending => alarm.poll(until, cx).map(|()| false),
        });
        if !shut.await {
            // The client is gone, or takes nothing.
            return;
        }
        // The request may go on after its response, and its bytes are for the reader of its body.
        poll_fn(|cx| self.halves.lock().poll_let_go(cx)).await;
        let until = Instant::now() + LINGER;
        let mut left = MAX_DRAINED;
        let mut has_more = false;
        poll_fn(|cx| {
            let halves = &mut *self.halves.lock();
            has_more |= !matches!(halves.request, RequestState::Head | RequestState::Drained);
            loop {
                has_more |= !halves.transport.unread.is_empty();
                halves.transport.unread = Bytes::new();
                match halves.transport.poll_fill(cx) {
                    Poll::Ready(Ok(read @ 1..)) if left > read => left -= read,
                    Poll::Pending if has_more => return alarm.poll(until, cx),
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }

    /// Has the connection end with a reset: the end of a body that lasts until the close must not look like the right
    /// one (RFC 9112, 8).
    pub(super) fn break_off(&self) {
        self.halves.lock().transport.break_off();
    }

    /// The connection below, when it ceases to be HTTP/1.1.
    pub(super) fn into_transport(self) -> Transport {
        self.halves.into_inner().transport
    }

    /// Queues an interim (1xx) response, unless it is too late for one, or the client does not take those that it has been
    /// sent.
    pub(crate) fn inform<B>(&self, response: &Response<B>) {
        let mut halves = self.halves.lock();
        if halves.answer == AnswerState::Awaited && halves.interim.has_room() {
            let bytes = halves.interim.bytes();
            head::write_response(response, bytes);
            bytes.extend_from_slice(b"\r\n");
        }
    }
}

/// The transitions.
impl Halves {
    /// A head has been read.
    fn begin<B>(&mut self, request: &mut Request<B>) -> Result<Asked, HeadError> {
        let version = request.version();
        let headers = request.headers_mut();
        // Transfer-Encoding beside Content-Length may be request smuggling: the connection is closed after the response
        // (RFC 9112, 6.1).
        let is_ambiguous =
            headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH);
        let is_kept = length::is_kept(version, headers) && !is_ambiguous;
        // CONNECT is refused, and what follows may be meant for the tunnel.
        let is_kept = is_kept && *request.method() != Method::CONNECT;
        let headers = request.headers_mut();
        let length = length::of_request(version, headers)?;
        let expect = headers.get(header::EXPECT);
        let expects_continue = version == Version::HTTP_11
            && expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        debug_assert!(matches!(self.request, RequestState::Head), "the last request has ended");
        (self.begun, self.has_looked_behind, self.benefit_of_doubt) = (Some(Instant::now()), false, None);
        self.request = match length {
            // Head => Drained
            Length::Known(0) => RequestState::Drained,
            // Head => Body
            length => RequestState::Body { decoder: Decoder::new(length), expects_continue },
        };
        self.answer = match version {
            Version::HTTP_10 => AnswerState::Final,
            // Final => Awaited
            _ => AnswerState::Awaited,
        };
        let (is_head, has_body) = (*request.method() == Method::HEAD, length != Length::Known(0));
        Ok(Asked { is_head, version, is_kept, has_body })
    }

    /// Reads the next frame for [`RequestBody`].
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Halves { transport, request, answer, interim, task, .. } = self;
        let RequestState::Body { decoder, expects_continue } = request else {
            // Stuck: the body has failed before.
            return Poll::Ready(Some(Err(Error::Downstream(RequestBodyError::Failed))));
        };
        if *answer == AnswerState::Awaited {
            // A client that has begun to send does not wait for a word.
            if *expects_continue && transport.unread.is_empty() {
                interim.bytes().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            if !interim.is_empty() {
                // An error shows again when the final response is written.
                let _ = interim.poll_write(transport.io(), cx);
            }
        }
        *expects_continue = false;
        let frame = ready!(decoder.poll_frame(transport, cx));
        let next = match &frame {
            // Body => Stuck
            Some(Err(_)) => Some(RequestState::Stuck),
            // Body => Drained
            _ if decoder.has_ended() => Some(RequestState::Drained),
            // Body => Body
            _ => None,
        };
        if let Some(next) = next {
            *request = next;
            // The task itself, if it is what polls here, goes on to poll whatever waits for the end of the body.
            if let Some(task) = task.take_if(|task| !task.will_wake(cx.waker())) {
                task.wake();
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| Error::Downstream(error.into()))))
    }

    /// [`RequestBody`] has been dropped.
    fn abandon(&mut self) {
        self.request = match std::mem::replace(&mut self.request, RequestState::Stuck) {
            // Body => Abandoned
            RequestState::Body { decoder, expects_continue } => {
                RequestState::Abandoned { decoder, expects_continue, drainable: MAX_DRAINED }
            }
            other => other,
        };
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Drains an abandoned body. Ready once there is nothing to drain, for better or worse.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let RequestState::Abandoned { decoder, drainable, .. } = &mut self.request {
            match ready!(decoder.poll_frame(&mut self.transport, cx)) {
                Some(Ok(frame)) => {
                    *drainable = drainable.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                    if decoder.has_ended() {
                        // Abandoned => Drained
                        self.request = RequestState::Drained;
                    } else if *drainable == 0 {
                        // Abandoned => Stuck
                        self.request = RequestState::Stuck;
                    }
                }
                // Abandoned => Drained
                None => self.request = RequestState::Drained,
                // Abandoned => Stuck
                Some(Err(ReadError::Malformed(_))) => self.request = RequestState::Stuck,
                // Abandoned => Gone
                Some(Err(ReadError::Closed | ReadError::Broken(_))) => self.request = RequestState::Gone,
            }
        }
        Poll::Ready(())
    }

    /// The response has been written. Whether another request may follow.
    fn end(&mut self) -> bool {
        self.is_fresh = false;
        match self.request {
            // Drained => Head
            RequestState::Drained => {
                self.request = RequestState::Head;
                true
            }
            _ => false,
        }
    }
}

/// Reading and writing within a state.
impl Halves {
    /// Ready once no [`RequestBody`] reads any more.
    fn poll_let_go(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let RequestState::Body { .. } = self.request {
            self.wait_for_body(cx);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Has the task woken at the end of the body.
    fn wait_for_body(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
    }

    /// Reads pipelined requests ahead. Ready at EOF: the client has left, as in Go's net/http
    /// (`connReader.backgroundRead`). An EOF that is there with the request is half a close, as by `nc -N`, and its client
    /// waits for the answer. One that comes right behind the request may be either: an answer that is soon there is written.
    /// A client that pipelines more than is read ahead is subject to back-pressure, and its leaving is noticed later.
    fn poll_eof(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(benefit) = &mut self.benefit_of_doubt {
            return benefit.as_mut().poll(cx);
        }
        let is_first_look = !std::mem::replace(&mut self.has_looked_behind, true);
        while self.transport.unread.len() < MAX_AHEAD && !self.is_half_closed {
            match self.transport.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if is_first_look => self.is_half_closed = true,
                Poll::Ready(Ok(0)) if self.begun.is_some_and(|begun| begun.elapsed() < RIGHT_BEHIND) => {
                    let benefit = self.benefit_of_doubt.insert(Box::pin(sleep(SOON)));
                    return benefit.as_mut().poll(cx);
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => {
                    // tokio has not heard of the EOF on a fresh connection, whose first bytes it reads unasked.
                    self.is_half_closed = is_first_look && self.is_fresh && self.transport.is_at_eof();
                    return Poll::Pending;
                }
            }
        }
        Poll::Pending
    }

    /// Writes interim responses as far as the socket takes them.
    fn write_interim(&mut self, cx: &mut Context<'_>) {
        if !self.interim.is_empty() {
            // An error shows again when the final response is written.
            let _ = self.interim.poll_write(self.transport.io(), cx);
        }
    }
}

/// The body of a request: the owner of the connection's read half until it has ended or is dropped.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// `None` once the body has ended: what comes next on the connection belongs to another request.
    link: Option<Arc<Link>>,
}

impl RequestBody {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(link) = &self.link else { return Poll::Ready(None) };
        let mut halves = link.halves.lock();
        let frame = ready!(halves.poll_body(cx));
        if let RequestState::Drained = halves.request {
            drop(halves);
            self.link = None;
        }
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.link.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let Some(link) = &self.link else { return SizeHint::with_exact(0) };
        match &link.halves.lock().request {
            RequestState::Body { decoder, .. } => decoder.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            link.halves.lock().abandon();
        }
    }
}

/// How long a client may take over the head of a request, once it has begun with it. In between two requests it may be
/// silent for as long as it likes: a request that crosses the closing of its connection is lost.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between a request and an EOF behind it that may have been sent at once.
const RIGHT_BEHIND: Duration = Duration::from_millis(10);

/// How long such a client is believed to wait for its answer.
const SOON: Duration = Duration::from_secs(1);

/// Bytes of pipelined requests that are read while one is served: enough to notice that the client leaves.
const MAX_AHEAD: usize = 16 * 1024;

/// Bytes of an unwanted body that are drained rather than to close the connection. Go: `maxPostHandlerReadBytes`.
const MAX_DRAINED: usize = 256 * 1024;

/// How long a half-closed connection is read on. Go: `rstAvoidanceDelay`.
const LINGER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
