//! The one body type, in and out. What must live exactly as long as a body (a permit, a pooled connection,
//! the timers) travels inside it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use crate::error::{Error, RequestBodyError};
use crate::h1::link::RequestBody;
use crate::read_ahead::{ByteBudget, ReadAhead};
use crate::timer::Timer;
use crate::transport::Transport;
use crate::upgrade::Tunnel;

/// The body of a request or of a response: nothing, bytes, or a stream with back-pressure.
///
/// Reading ends cleanly or with an [`Error`]; an error in a response makes the server cut the connection, so
/// that a client can never take a part for the whole.
pub struct Body {
    content: Content,
    // Boxed: bodies are moved about a lot, and most of them are requests that have nothing with them.
    company: Option<Box<Company>>,
    failed: bool,
}

/// What travels with a body.
#[derive(Default)]
struct Company {
    timer: Option<Timer>,
    watcher: Option<Watcher>,
    // Bytes read so far, for whoever asked to have them counted.
    counter: Option<Arc<AtomicU64>>,
    // What is left to be said after the content was taken away.
    late: Option<Error>,
}

type Watcher = Box<dyn FnOnce(Ending) + Send>;
type Boxed = Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error> + Send>>;

enum Content {
    Empty,
    Full(Bytes),
    FromClient(ClientBody),
    // What was read ahead of a client's body, and the rest of it.
    Held(Box<Held>),
    FromUpstream(Box<dyn UpstreamBody>),
    Stream(Boxed),
    // See `upgrade`.
    Tunnel(Tunnel),
}

/// The body of a response, on the connection it comes by.
pub(crate) trait UpstreamBody: http_body::Body<Data = Bytes, Error = Error> + Send + Unpin {
    /// Leaves the connection, to its pool if the body is complete.
    fn end(self: Box<Self>, ending: Ending);
}

/// The body of a request, by either protocol.
#[derive(Debug)]
pub(crate) enum ClientBody {
    Http1(RequestBody),
    Http2(hyper::body::Incoming),
}

impl ClientBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            ClientBody::Http1(incoming) => incoming.poll_frame(cx),
            ClientBody::Http2(incoming) => {
                let failed = |error| Error::Downstream(RequestBodyError::Http2(Arc::new(error)));
                Pin::new(incoming).poll_frame(cx).map_err(failed)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ClientBody::Http1(incoming) => incoming.is_end_stream(),
            ClientBody::Http2(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Http1(incoming) => incoming.size_hint(),
            ClientBody::Http2(incoming) => incoming.size_hint(),
        }
    }
}

struct Held {
    early: ReadAhead,
    rest: ClientBody,
    // They come last, and are there before they are read only if all else is.
    trailers: Option<HeaderMap>,
}

/// How a body came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of it was read.
    Complete,
    /// It failed part way.
    Failed,
    /// Its reader left before the end.
    Dropped,
}

impl Body {
    /// No body at all.
    pub fn empty() -> Self {
        Content::Empty.into()
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Body::empty() } else { Content::Full(bytes).into() }
    }

    /// The body of a client's request.
    pub(crate) fn from_client(body: ClientBody) -> Self {
        Content::FromClient(body).into()
    }

    /// Any other stream.
    pub fn stream(body: impl http_body::Body<Data = Bytes, Error = Error> + Send + 'static) -> Self {
        Content::Stream(Box::pin(body)).into()
    }

    /// Keeps `guard` until the body has ended or is dropped, and no longer.
    pub fn guarded(self, guard: impl Send + 'static) -> Self {
        self.watched(move |_| drop(guard))
    }

    /// Calls `watcher` once, when the body has ended or is dropped.
    pub fn watched(mut self, watcher: impl FnOnce(Ending) + Send + 'static) -> Self {
        let company = self.company();
        company.watcher = Some(match company.watcher.take() {
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
        self.company().counter = Some(counter);
        self
    }

    /// The body of an upstream's response.
    pub(crate) fn from_upstream(body: Box<dyn UpstreamBody>) -> Self {
        Content::FromUpstream(body).into()
    }

    /// What follows a `101`.
    pub(crate) fn tunnel(tunnel: Tunnel) -> Self {
        Content::Tunnel(tunnel).into()
    }

    /// What a `101` is followed by: the client's connection, which `begin` takes over. The server waits for it as for
    /// any other response.
    pub fn switched<F: Future<Output = ()> + Send + 'static>(
        begin: impl FnOnce(Transport) -> F + Send + 'static,
    ) -> Self {
        Body::tunnel(Tunnel::Waiting(Box::new(|connection| Box::pin(begin(connection)))))
    }

    /// The head of this `101` is with the client, and its connection is no longer HTTP.
    pub(crate) fn open_tunnel(&mut self, connection: Transport) {
        if let Content::Tunnel(tunnel) = &mut self.content {
            tunnel.open(connection);
        }
    }

    pub(crate) fn timed(mut self, timer: Timer) -> Self {
        let company = self.company();
        debug_assert!(company.timer.is_none(), "one layer of timeouts is enough");
        company.timer = Some(timer);
        self
    }

    /// When it must have ended, if it has a time limit.
    pub(crate) fn total_at(&self) -> Option<Instant> {
        Some(self.company.as_ref()?.timer.as_ref()?.total_at())
    }

    /// It has not ended in time, and nobody reads it: lets go of all that it holds. A late reader finds an error.
    pub(crate) fn expire(&mut self) {
        if let Some(timer) = self.company.as_mut().and_then(|company| company.timer.take()) {
            self.fail_late(timer.error());
        }
    }

    /// Leaves the head of the response to stand alone, as `HEAD` wants it.
    pub(crate) fn discard(&mut self) {
        self.content = Content::Empty;
        self.finish(Ending::Complete);
    }

    /// Reads a client's body until it has to wait or holds enough; what was read is kept for the reader.
    pub(crate) fn read_ahead(&mut self, cx: &mut Context<'_>, budget: &ByteBudget) -> Result<(), Error> {
        self.content = match std::mem::replace(&mut self.content, Content::Empty) {
            Content::FromClient(rest) if !rest.is_end_stream() => {
                Content::Held(Box::new(Held { early: ReadAhead::new(budget), rest, trailers: None }))
            }
            content => content,
        };
        let Content::Held(held) = &mut self.content else { return Ok(()) };
        while held.early.has_room()
            && let Poll::Ready(Some(frame)) = held.rest.poll_frame(cx)?
        {
            match frame.into_data() {
                Ok(piece) => held.early.push(&piece),
                Err(frame) => held.trailers = frame.into_trailers().ok(),
            }
        }
        Ok(())
    }

    fn company(&mut self) -> &mut Company {
        self.company.get_or_insert_default()
    }

    fn finish(&mut self, ending: Ending) {
        if let Some(company) = &mut self.company {
            company.timer = None;
        }
        if let Content::FromUpstream(body) = std::mem::replace(&mut self.content, Content::Empty) {
            body.end(ending);
        }
        if let Some(watcher) = self.company.as_mut().and_then(|company| company.watcher.take()) {
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
                let early = held.early.take().map(Frame::data);
                match early.or_else(|| held.trailers.take().map(Frame::trailers)) {
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
            return Poll::Ready(this.company.as_mut().and_then(|company| company.late.take()).map(Err));
        }
        // The timer is asked first: a stream that is always ready must not outrun its total.
        if let Some(Company { timer: Some(timer), .. }) = this.company.as_deref()
            && let Poll::Ready(error) = timer.poll_expired(cx)
        {
            this.fail();
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(this.poll_content(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(company) = &mut this.company {
                    company.read(&frame);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                // Said at the next opportunity, or the writer would cut its connection before it has written what
                // came first.
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
            Content::Empty => self.company.as_ref().is_none_or(|company| company.late.is_none()),
            Content::Full(_) => false,
            Content::FromClient(incoming) => incoming.is_end_stream(),
            Content::FromUpstream(body) => body.is_end_stream(),
            Content::Held(held) => {
                held.early.len() == 0 && held.trailers.is_none() && held.rest.is_end_stream()
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
    // The content goes at once, and with it the upstream connection: nobody will read the rest.
    fn fail(&mut self) {
        self.failed = true;
        self.finish(Ending::Failed);
    }

    // Whoever reads next finds the error.
    fn fail_late(&mut self, error: Error) {
        self.fail();
        self.company().late = Some(error);
    }
}

impl Company {
    /// A piece was read.
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
        // Nobody reads past the last byte of a body of known length; it is just dropped.
        let complete = !self.failed && self.is_end_stream();
        self.finish(if complete { Ending::Complete } else { Ending::Dropped });
    }
}

impl Held {
    fn size_hint(&self) -> SizeHint {
        let early = self.early.len() as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(early + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(early + upper);
        }
        hint
    }
}

impl From<Content> for Body {
    fn from(content: Content) -> Self {
        Body { content, company: None, failed: false }
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
        // It is part of every request and response, which are moved some twenty times on their way.
        assert!(size_of::<Body>() <= 64, "{}", size_of::<Body>());
    }
}
