//! The one body type, for requests and responses. Permits, pooled connections, timers and whatever else must live exactly
//! as long as a body travel inside it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use crate::budget::ByteBudget;
use crate::error::{Error, RequestBodyError};
use crate::fields;
use crate::h1::link::RequestBody;
use crate::read_ahead::ReadAhead;
use crate::timer::Timer;
use crate::transport::Transport;
use crate::upgrade::Tunnel;
use crate::window::{ClientWindow, Unread};

/// The body of a request or of a response: nothing, bytes, or a stream with back-pressure.
///
/// Reading ends cleanly or with an [`Error`]; an error in a response makes the server cut the connection, so that a
/// client never takes a part for the whole (RFC 9112, 8).
pub struct Body {
    content: Content,
    // Boxed: bodies are moved about a lot, and most of them are requests with nothing attached.
    attached: Option<Box<Attachments>>,
    failed: bool,
}

/// Things that live as long as a body.
#[derive(Default)]
struct Attachments {
    timer: Option<Timer>,
    watcher: Option<Watcher>,
    // Bytes read so far.
    counter: Option<Arc<AtomicU64>>,
    // The error with which the body ends, when its content is gone already.
    late: Option<Error>,
}

type Watcher = Box<dyn FnOnce(Ending) + Send>;
type Boxed = Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error> + Send>>;

enum Content {
    Empty,
    Full(Bytes),
    FromClient(ClientBody),
    // A client's body of which the beginning was read ahead.
    Held(Box<Held>),
    FromUpstream(Box<dyn UpstreamBody>),
    Stream(Boxed),
    // The two-way stream behind a `101`.
    Tunnel(Tunnel),
}

/// The body of a response, on the connection that it is read from.
pub(crate) trait UpstreamBody: http_body::Body<Data = Bytes, Error = Error> + Send + Unpin {
    /// Returns the connection to its pool if the body is complete, closes it otherwise.
    fn end(self: Box<Self>, ending: Ending);
}

/// The body of a client's request, over HTTP/1.1 or HTTP/2.
#[derive(Debug)]
pub(crate) enum ClientBody {
    Http1(RequestBody),
    /// A stream, and the window of its connection.
    Http2(hyper::body::Incoming, Arc<ClientWindow>),
}

impl ClientBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            ClientBody::Http1(incoming) => incoming.poll_frame(cx),
            ClientBody::Http2(incoming, _) => {
                let failed = |error| Error::Downstream(RequestBodyError::Http2(Arc::new(error)));
                Pin::new(incoming).poll_frame(cx).map_err(failed)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ClientBody::Http1(incoming) => incoming.is_end_stream(),
            ClientBody::Http2(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Http1(incoming) => incoming.size_hint(),
            ClientBody::Http2(incoming, _) => incoming.size_hint(),
        }
    }
}

struct Held {
    ahead: ReadAhead,
    rest: ClientBody,
    // Trailers that were read ahead: all data is in front of them.
    trailers: Option<HeaderMap>,
    // The place of an HTTP/2 body that waits in its stream's window.
    unread: Option<Unread>,
}

/// The end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The body was read to its end.
    Complete,
    /// The body failed before its end.
    Failed,
    /// The reader dropped the body before its end.
    Dropped,
}

impl Body {
    /// An empty body.
    pub fn empty() -> Self {
        Content::Empty.into()
    }

    /// A body of these bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Body::empty() } else { Content::Full(bytes).into() }
    }

    /// The body of a client's request.
    pub(crate) fn from_client(body: ClientBody) -> Self {
        Content::FromClient(body).into()
    }

    /// A body that is any stream.
    pub fn stream(body: impl http_body::Body<Data = Bytes, Error = Error> + Send + 'static) -> Self {
        Content::Stream(Box::pin(body)).into()
    }

    /// Keeps `guard` until the body has ended or is dropped, and no longer.
    pub fn guarded(self, guard: impl Send + 'static) -> Self {
        self.watched(move |_| drop(guard))
    }

    /// Calls `watcher` once, when the body has ended or is dropped.
    pub fn watched(mut self, watcher: impl FnOnce(Ending) + Send + 'static) -> Self {
        let attached = self.attached();
        attached.watcher = Some(match attached.watcher.take() {
            None => Box::new(watcher),
            Some(inner) => Box::new(move |ending| {
                inner(ending);
                watcher(ending);
            }),
        });
        self
    }

    /// Adds the bytes of the body to `counter` as they are read.
    pub fn counted(mut self, counter: Arc<AtomicU64>) -> Self {
        self.attached().counter = Some(counter);
        self
    }

    /// The body of an upstream's response.
    pub(crate) fn from_upstream(body: Box<dyn UpstreamBody>) -> Self {
        Content::FromUpstream(body).into()
    }

    /// The two-way stream behind a `101`.
    pub(crate) fn tunnel(tunnel: Tunnel) -> Self {
        Content::Tunnel(tunnel).into()
    }

    /// The body of a `101`: the client's connection, which `begin` takes over. The server waits for its end as for that of
    /// any other response.
    pub fn switched<F: Future<Output = ()> + Send + 'static>(
        begin: impl FnOnce(Transport) -> F + Send + 'static,
    ) -> Self {
        Body::tunnel(Tunnel::Waiting(Box::new(|connection| Box::pin(begin(connection)))))
    }

    /// Hands over the client's connection, after the head of the `101` has been written.
    pub(crate) fn open_tunnel(&mut self, connection: Transport) {
        if let Content::Tunnel(tunnel) = &mut self.content {
            tunnel.open(connection);
        }
    }

    pub(crate) fn timed(mut self, timer: Timer) -> Self {
        let attached = self.attached();
        debug_assert!(attached.timer.is_none(), "one layer of timeouts is enough");
        attached.timer = Some(timer);
        self
    }

    /// The end of the body's time, if it has a limit.
    pub(crate) fn total_at(&self) -> Option<Instant> {
        Some(self.attached.as_ref()?.timer.as_ref()?.total_at())
    }

    /// Ends a body whose time is up and that is not being read: everything inside it is dropped. The next read is an error.
    pub(crate) fn expire(&mut self) {
        if let Some(timer) = self.attached.as_mut().and_then(|attached| attached.timer.take()) {
            self.fail_late(timer.error());
        }
    }

    /// Drops the content of a response to `HEAD`, whose head stands alone (RFC 9110, 9.3.2).
    pub(crate) fn discard(&mut self) {
        self.content = Content::Empty;
        self.finish(Ending::Complete);
    }

    /// Whether it is read from a client's HTTP/2 stream.
    pub(crate) fn is_over_http2(&self) -> bool {
        match &self.content {
            Content::FromClient(body) => matches!(body, ClientBody::Http2(..)),
            Content::Held(held) => matches!(held.rest, ClientBody::Http2(..)),
            _ => false,
        }
    }

    /// Reads a client's body ahead, until it has to be waited for or enough of it is in memory. Fails also if the rest
    /// has no room where it is, nor in the budget.
    pub(crate) fn read_ahead(&mut self, cx: &mut Context<'_>, budget: &ByteBudget) -> Result<(), Error> {
        self.content = match std::mem::replace(&mut self.content, Content::Empty) {
            Content::FromClient(rest) if !rest.is_end_stream() => Content::Held(Box::new(Held {
                ahead: ReadAhead::new(budget),
                rest,
                trailers: None,
                unread: None,
            })),
            content => content,
        };
        let Content::Held(held) = &mut self.content else { return Ok(()) };
        while !(held.ahead.is_enough() && held.may_wait_unread()) {
            if held.ahead.is_full() {
                return Err(Error::NoRoom);
            }
            match held.rest.poll_frame(cx)? {
                Poll::Ready(Some(frame)) => match frame.into_data() {
                    Ok(piece) => held.ahead.push(&piece),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        held.ahead.count(fields::bytes_beyond_the_usual(&trailers));
                        held.trailers = Some(trailers);
                    }
                },
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn attached(&mut self) -> &mut Attachments {
        self.attached.get_or_insert_default()
    }

    fn finish(&mut self, ending: Ending) {
        if let Some(attached) = &mut self.attached {
            attached.timer = None;
        }
        if let Content::FromUpstream(body) = std::mem::replace(&mut self.content, Content::Empty) {
            body.end(ending);
        }
        if let Some(watcher) = self.attached.as_mut().and_then(|attached| attached.watcher.take()) {
            watcher(ending);
        }
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::FromClient(incoming) => incoming.poll_frame(cx),
            Content::Held(held) => {
                held.unread = None;
                let ahead = held.ahead.take().map(Frame::data);
                match ahead.or_else(|| held.trailers.take().map(Frame::trailers)) {
                    Some(frame) => Poll::Ready(Some(Ok(frame))),
                    None => held.rest.poll_frame(cx),
                }
            }
            Content::FromUpstream(body) => Pin::new(&mut **body).poll_frame(cx),
            Content::Stream(body) => body.as_mut().poll_frame(cx),
            Content::Tunnel(tunnel) => tunnel.poll_frame(cx),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.failed {
            return Poll::Ready(this.attached.as_mut().and_then(|attached| attached.late.take()).map(Err));
        }
        // The timer comes first: a stream that is always ready must not outrun its time limit.
        if let Some(Attachments { timer: Some(timer), .. }) = this.attached.as_deref()
            && let Poll::Ready(error) = timer.poll_expired(cx)
        {
            this.fail();
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(this.poll_content(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(attached) = &mut this.attached {
                    attached.read(&frame);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                // The error comes with the next poll: a writer that gets one cuts its connection, and what was read before
                // it must be written first.
                this.fail_late(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {
                this.finish(Ending::Complete);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => self.attached.as_ref().is_none_or(|attached| attached.late.is_none()),
            Content::Full(_) => false,
            Content::FromClient(incoming) => incoming.is_end_stream(),
            Content::FromUpstream(body) => body.is_end_stream(),
            Content::Held(held) => {
                held.ahead.len() == 0 && held.trailers.is_none() && held.rest.is_end_stream()
            }
            Content::Stream(body) => body.is_end_stream(),
            Content::Tunnel(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::FromClient(incoming) => incoming.size_hint(),
            Content::FromUpstream(body) => body.size_hint(),
            Content::Held(held) => held.size_hint(),
            Content::Stream(body) => body.size_hint(),
            Content::Tunnel(_) => SizeHint::default(),
        }
    }
}

impl Body {
    // Drops the content at once, and with it the upstream's connection.
    fn fail(&mut self) {
        self.failed = true;
        self.finish(Ending::Failed);
    }

    // The same, and the next read is this error.
    fn fail_late(&mut self, error: Error) {
        self.fail();
        self.attached().late = Some(error);
    }
}

impl Attachments {
    /// Notes that a frame was read.
    fn read(&mut self, frame: &Frame<Bytes>) {
        if let Some(timer) = &mut self.timer {
            timer.written();
        }
        if let (Some(counter), Some(data)) = (&self.counter, frame.data_ref()) {
            counter.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // A body of known length is complete with its last byte, and may be dropped without another read.
        let complete = !self.failed && self.is_end_stream();
        self.finish(if complete { Ending::Complete } else { Ending::Dropped });
    }
}

impl Held {
    /// Whether the rest of the body may stay where it is: in the client's socket, or in its stream's window.
    fn may_wait_unread(&mut self) -> bool {
        let ClientBody::Http2(incoming, window) = &self.rest else { return true };
        if self.unread.is_none() && !incoming.is_end_stream() {
            self.unread = window.leave_unread();
        }
        self.unread.is_some() || incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.len() as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(ahead + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(ahead + upper);
        }
        hint
    }
}

impl From<Content> for Body {
    fn from(content: Content) -> Self {
        Body { content, attached: None, failed: false }
    }
}

impl Default for Body {
    fn default() -> Self {
        Body::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.content {
            Content::Empty => "empty",
            Content::Full(_) => "full",
            Content::FromClient(_) | Content::FromUpstream(_) | Content::Held(_) => "incoming",
            Content::Stream(_) => "stream",
            Content::Tunnel(_) => "tunnel",
        };
        f.debug_struct("Body").field("kind", &kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_small() {
        // Every request and response has a body, and is moved some twenty times on its way.
        assert!(size_of::<Body>() <= 64, "{}", size_of::<Body>());
    }
}
