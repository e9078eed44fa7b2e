//! A client's connection, as its task shares it with the body of the request and with the upstream.
//!
//! All that waits for the client waits here, and tokio wakes only one task for each direction of a socket. So reading is
//! up to whoever has the body of the request, and to the connection's task when nobody has; writing is up to that task
//! from the first byte of the response on.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version, header};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::head::{self, HeadError, Partial};
use super::length::{self, Length};
use super::reading::{ReadError, Reader};
use super::server::HEAD_TIMEOUT;
use super::writing::Out;
use crate::transport::Transport;
use crate::{Body, Client, Drain, Error, Request, Response, body};

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Link {
    half: Mutex<Half>,
}

#[derive(Debug)]
struct Half {
    transport: Transport,
    // Of the request's body.
    reader: Reader,
    // Nobody will read the rest of it.
    is_abandoned: bool,
    // How much of that may be read in order to be rid of it.
    discardable: usize,
    // Which showed that the client has left.
    is_gone: bool,
    // The client sends its body once it is told to.
    asks_first: bool,
    // Answers in between.
    interim: Out,
    // Goes out, so that no more answers in between may.
    is_answered: bool,
    // To be woken when the body has been read by somebody else.
    task: Option<Waker>,
}

/// What is remembered of a request until its response is written.
pub(super) struct Asked {
    pub(super) is_head: bool,
    pub(super) version: Version,
    pub(super) is_kept: bool,
}

impl Link {
    pub(super) fn new(transport: Transport) -> Self {
        Link {
            half: Mutex::new(Half {
                transport,
                reader: Reader::new(Length::Known(0)),
                is_abandoned: false,
                discardable: 0,
                is_gone: false,
                asks_first: false,
                interim: Out::default(),
                is_answered: true,
                task: None,
            }),
        }
    }

    /// The next request; `None`: there will be none.
    pub(super) fn poll_request(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        partial: &mut Partial,
        deadline: &mut Option<Instant>,
        client: &Client,
        drain: &Drain,
    ) -> Poll<Option<Result<(Request, Asked), HeadError>>> {
        let mut half = self.half.lock();
        loop {
            match partial.request(&mut half.transport.unread) {
                Ok(None) => {}
                Ok(Some(request)) => {
                    *deadline = None;
                    return Poll::Ready(Some(self.begin(&mut half, request)));
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let has_begun = !half.transport.unread.is_empty();
            if !has_begun && drain.is_started() {
                return Poll::Ready(None);
            }
            match half.transport.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Pending => {
                    if has_begun && deadline.is_none() {
                        *deadline = Some(Instant::now() + HEAD_TIMEOUT);
                    }
                    let is_late = deadline.is_some_and(|at| client.alarm().poll(at, cx).is_ready());
                    return if is_late { Poll::Ready(None) } else { Poll::Pending };
                }
            }
        }
    }

    fn begin(self: &Arc<Self>, half: &mut Half, mut request: Request) -> Result<(Request, Asked), HeadError> {
        let version = request.version();
        let headers = request.headers_mut();
        // Whoever says both may not have meant what we take it for.
        let is_ambiguous =
            headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH);
        let is_kept = length::is_kept(version, headers) && !is_ambiguous;
        let length = length::of_request(version, headers)?;
        let expect = headers.get(header::EXPECT);
        half.reader = Reader::new(length);
        half.is_abandoned = false;
        half.discardable = MAX_DISCARDED;
        // HTTP/1.0 knows of no answers in between.
        half.is_answered = version == Version::HTTP_10;
        half.asks_first = version == Version::HTTP_11
            && expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let asked = Asked { is_head: *request.method() == Method::HEAD, version, is_kept };
        if length != Length::Known(0) {
            *request.body_mut() = Body::incoming(body::Incoming::Http1(Incoming { link: Arc::clone(self) }));
        }
        Ok((request, asked))
    }

    /// Whether anybody on the way can read what is said.
    pub(super) fn is_plain(&self) -> bool {
        self.half.lock().transport.io().is_plain()
    }

    /// Ready once the client has hung up. To be polled last, by the connection's task.
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let half = &mut *self.half.lock();
        if !half.interim.is_empty() {
            // If it fails, so does all that comes after it.
            let _ = half.interim.poll_write(half.transport.io(), cx);
        }
        if half.is_abandoned {
            ready!(half.poll_discard(cx));
            if half.is_gone {
                return Poll::Ready(());
            }
        }
        if !half.reader.has_ended() {
            // The body lies in the way. Its reader notices.
            half.wake_when_over(cx);
            return Poll::Pending;
        }
        while half.transport.unread.len() < MAX_AHEAD {
            if let Ok(1..) = ready!(half.transport.poll_fill(cx)) {
                continue;
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// From now on there are no more answers in between. Whether another request may follow, so far.
    pub(super) fn begin_response(&self, cx: &mut Context<'_>) -> bool {
        let half = &mut *self.half.lock();
        half.is_answered = true;
        if half.is_abandoned && !half.asks_first {
            // Often the rest is here already.
            let _ = half.poll_discard(cx);
        }
        // Who has not been told to send the body never will be.
        half.reader.has_ended() || !(half.is_abandoned || half.asks_first || half.reader.is_over())
    }

    /// Ready once nobody reads the body of the request any more.
    fn poll_let_go(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut half = self.half.lock();
        if half.reader.is_over() || half.is_abandoned {
            return Poll::Ready(());
        }
        half.wake_when_over(cx);
        Poll::Pending
    }

    /// Waits for the end of the request, which may come after that of its response; whether another may follow. The
    /// client was told so: what was left unread since then is not held against it.
    pub(super) async fn end_request(&self, client: &Client) -> bool {
        poll_fn(|cx| self.poll_let_go(cx)).await;
        let mut deadline = None;
        poll_fn(|cx| {
            let half = &mut *self.half.lock();
            match half.poll_discard(cx) {
                Poll::Ready(()) => Poll::Ready(half.reader.has_ended()),
                Poll::Pending => {
                    let until = *deadline.get_or_insert_with(|| Instant::now() + HEAD_TIMEOUT);
                    client.alarm().poll(until, cx).map(|()| false)
                }
            }
        })
        .await
    }

    pub(super) fn poll_write(&self, out: &mut Out, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half = &mut *self.half.lock();
        if !half.interim.is_empty() {
            ready!(half.interim.poll_write(half.transport.io(), cx))?;
        }
        out.poll_write(half.transport.io(), cx)
    }

    /// Closes so that the client gets to see the response, even if it has more to say: a socket that is closed with
    /// something unread takes back what was not read from it.
    pub(super) async fn close(&self, client: &Client) {
        let until = Instant::now() + LINGER;
        let shut = poll_fn(|cx| match Pin::new(self.half.lock().transport.io()).poll_shutdown(cx) {
            Poll::Ready(shut) => Poll::Ready(shut.is_ok()),
            Poll::Pending => client.alarm().poll(until, cx).map(|()| false),
        });
        if !shut.await {
            // There is nobody left to wait for.
            return;
        }
        // The request may go on after its response, and what comes is for whoever reads it.
        poll_fn(|cx| self.poll_let_go(cx)).await;
        let until = Instant::now() + LINGER;
        let mut left = MAX_DISCARDED;
        let mut has_more = false;
        poll_fn(|cx| {
            let half = &mut *self.half.lock();
            has_more |= !half.reader.has_ended();
            loop {
                has_more |= !half.transport.unread.is_empty();
                half.transport.unread = Bytes::new();
                match half.transport.poll_fill(cx) {
                    Poll::Ready(Ok(read @ 1..)) if left > read => left -= read,
                    Poll::Pending if has_more => return client.alarm().poll(until, cx),
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }

    /// Makes the end of the connection one that the client can tell from the right one.
    pub(super) fn break_off(&self) {
        self.half.lock().transport.break_off();
    }

    /// What is left when it ceases to be HTTP/1.1.
    pub(super) fn into_transport(self) -> Transport {
        self.half.into_inner().transport
    }

    /// Has the client know of an answer before the last, unless it does not even take those that it has been sent.
    pub(crate) fn inform(&self, response: &Response) {
        let mut half = self.half.lock();
        if !half.is_answered && half.interim.has_room() {
            let bytes = half.interim.bytes();
            head::write_response(response, bytes);
            bytes.extend_from_slice(b"\r\n");
        }
    }
}

impl Half {
    /// Reads what nobody wants of a body. Ready once that was all, or no more is read.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.discardable > 0 && !self.reader.is_over() {
            match ready!(self.reader.poll_frame(&mut self.transport, cx)) {
                Some(Ok(frame)) => {
                    let len = frame.data_ref().map_or(0, Bytes::len);
                    self.discardable = self.discardable.saturating_sub(len);
                }
                Some(Err(error)) => self.is_gone = !matches!(error, ReadError::Malformed(_)),
                None => {}
            }
        }
        Poll::Ready(())
    }

    fn wake_when_over(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
    }

    fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Incoming {
    link: Arc<Link>,
}

impl Incoming {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let half = &mut *self.link.half.lock();
        if half.asks_first && half.transport.unread.is_empty() && !half.is_answered {
            half.interim.bytes().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        half.asks_first = false;
        if !half.is_answered && !half.interim.is_empty() {
            // Not waited for, and not touched once there is a response to be written: of two tasks that wait to write,
            // only one would be woken. If it fails, so does the reading.
            let _ = half.interim.poll_write(half.transport.io(), cx);
        }
        let frame = ready!(half.reader.poll_frame(&mut half.transport, cx));
        if half.reader.is_over() && half.task.as_ref().is_some_and(|task| !task.will_wake(cx.waker())) {
            half.wake();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| Error::Downstream(error.to_string()))))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.link.half.lock().reader.has_ended()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.link.half.lock().reader.size_hint()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut half = self.link.half.lock();
        if !half.reader.has_ended() {
            half.is_abandoned = true;
            half.wake();
        }
    }
}

/// What is read of the next requests while one is served: enough to notice that the client leaves.
const MAX_AHEAD: usize = 16 * 1024;

/// What is read of a body that nobody wants, rather than to close the connection. Go's number.
const MAX_DISCARDED: usize = 256 * 1024;

/// How long a client is listened to that has been told that nobody does. Go's number.
const LINGER: Duration = Duration::from_millis(500);
