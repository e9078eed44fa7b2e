//! The half that serves: one client's connection, one request after the other.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use tracing::debug;

use super::head::{self, HeadError, Partial};
use super::length::{self, Length};
use super::reading::{ReadError, Reader};
use super::writing::{Out, SendFailure, Sending};
use crate::body;
use crate::server::{h2c, refusal};
use crate::transport::Transport;
use crate::{Body, Client, Drain, Error, Handler, Request, Response, plain};

/// A client's connection, as far as its task shares it with the body of the request and with the upstream.
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

/// Serves the requests of one connection. Returns when it is to be closed, or what goes on as HTTP/2.
pub(crate) async fn serve<H: Handler>(
    transport: Transport,
    client: impl FnOnce(Arc<Link>) -> Client,
    handler: &H,
    drain: &Drain,
) -> Option<Transport> {
    let link = Arc::new(Link::new(transport));
    let client = client(Arc::clone(&link));
    let (mut partial, mut out) = (Partial::default(), Out::default());
    // A client that has just come is expected to say something.
    let mut deadline = Some(Instant::now() + HEAD_TIMEOUT);
    loop {
        let next = poll_fn(|cx| link.poll_request(cx, &mut partial, &mut deadline, &client, drain));
        let (request, asked) = match next.await {
            Some(Ok(next)) => next,
            Some(Err(error)) => {
                refuse(&link, &client, &mut out, error).await;
                return None;
            }
            None => {
                link.close(&client).await;
                return None;
            }
        };
        if let Some(first) = h2c::wish(&request)
            && link.is_plain()
        {
            // Boxed: rare.
            return Box::pin(switch_to_http2(link, client, out, &first)).await;
        }
        let response = match refusal(&request) {
            Some(response) => {
                // Nobody will read its body.
                drop(request);
                response
            }
            None => {
                let mut call = pin!(handler.handle(&client, request));
                let answered = poll_fn(|cx| match call.as_mut().poll(cx) {
                    Poll::Ready(response) => Poll::Ready(Some(response)),
                    Poll::Pending => link.poll_left(cx).map(|()| None),
                });
                answered.await?
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // Boxed: rare.
            Box::pin(switch(link, client, out, response)).await;
            return None;
        }
        let is_kept = poll_fn(|cx| Poll::Ready(link.begin_response(cx))).await;
        let is_kept = is_kept && asked.is_kept && !drain.is_started();
        if !respond(&link, &client, &mut out, response, &asked, is_kept).await {
            return None;
        }
    }
}

/// What is remembered of a request until its response is written.
struct Asked {
    is_head: bool,
    version: Version,
    is_kept: bool,
}

/// Writes the response; whether another request may follow.
async fn respond(
    link: &Link,
    client: &Client,
    out: &mut Out,
    mut response: Response,
    asked: &Asked,
    is_kept: bool,
) -> bool {
    let (length, is_kept) = write_head(&mut response, asked, is_kept, out);
    let mut sending = Sending::new(response.into_body(), length);
    let sent = poll_fn(|cx| {
        if let Poll::Ready(sent) = sending.poll(out, cx, |out, cx| link.poll_write(out, cx)) {
            return Poll::Ready(sent);
        }
        // Nobody reads a body while its client takes nothing: what it holds is not held past its time.
        let is_overdue =
            sending.body.total_at().is_some_and(|total_at| client.alarm().poll(total_at, cx).is_ready());
        if is_overdue || link.poll_left(cx).is_ready() {
            return Poll::Ready(Err(SendFailure::Peer(io::ErrorKind::BrokenPipe.into())));
        }
        Poll::Pending
    });
    if let Err(failure) = sent.await {
        match failure {
            SendFailure::Body(error) => {
                debug!(client = %client.address(), %error, "Cut a response off");
            }
            SendFailure::Peer(error) => {
                debug!(client = %client.address(), %error, "Client left before the end of its response");
            }
        }
        if length == Length::UntilClose {
            // Nothing else tells this end from the right one.
            link.half.lock().transport.break_off();
        }
        return false;
    }
    drop(sending);
    let may_go_on = is_kept && link.end_request(client).await;
    if !may_go_on {
        link.close(client).await;
    }
    may_go_on
}

/// Says what is wrong with a head, and that no more is read.
async fn refuse(link: &Link, client: &Client, out: &mut Out, error: HeadError) {
    debug!(client = %client.address(), %error, "Cannot read a request");
    let status = match error {
        HeadError::Malformed(_) => StatusCode::BAD_REQUEST,
        HeadError::TargetTooLong => StatusCode::URI_TOO_LONG,
        HeadError::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    };
    let response = plain(status, format!("{status}: {error}"));
    let asked = Asked { is_head: false, version: Version::HTTP_11, is_kept: false };
    respond(link, client, out, response, &asked, false).await;
}

/// Hands the connection over to what the response has to say next.
async fn switch(link: Arc<Link>, client: Client, mut out: Out, response: Response) {
    head::write_response(&response, out.bytes());
    out.bytes().extend_from_slice(b"\r\n");
    let mut body = response.into_body();
    if poll_fn(|cx| link.poll_write(&mut out, cx)).await.is_err() {
        return;
    }
    drop(client);
    // None: somebody still reads the body of a request that should not have had one.
    let Some(link) = Arc::into_inner(link) else { return };
    body.open_tunnel(link.half.into_inner().transport);
    while let Some(Ok(_)) = body.frame().await {}
}

/// Goes on with HTTP/2, and with this frame, which the client has sent as a request.
async fn switch_to_http2(link: Arc<Link>, client: Client, mut out: Out, first: &[u8]) -> Option<Transport> {
    out.bytes().extend_from_slice(SWITCHED_TO_HTTP2);
    poll_fn(|cx| link.poll_write(&mut out, cx)).await.ok()?;
    drop(client);
    let transport = Arc::into_inner(link)?.half.into_inner().transport;
    h2c::begin(transport, first).await.ok()
}

/// Writes the head of a response; the length of the body that follows, and whether another request may come then.
fn write_head(response: &mut Response, asked: &Asked, is_kept: bool, out: &mut Out) -> (Length, bool) {
    let status = response.status();
    let may_have_body = length::may_have_body(status);
    if !may_have_body && status != StatusCode::NOT_MODIFIED {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let said = response.headers().get(header::CONTENT_LENGTH).and_then(length::number);
    let exact = response.body().size_hint().exact();
    let (length, is_said) = match (said, exact) {
        _ if !may_have_body => (Length::Known(0), true),
        // The body may be gone already, but not what it says about its length.
        (None, Some(0) | None) if asked.is_head => (Length::Known(0), true),
        (Some(length), _) => (Length::Known(length), true),
        (None, Some(length)) => (Length::Known(length), false),
        (None, None) if asked.version == Version::HTTP_11 => (Length::Chunked, false),
        (None, None) => (Length::UntilClose, false),
    };
    let headers = response.headers();
    let is_kept = is_kept && length != Length::UntilClose && length::is_kept(Version::HTTP_11, headers);
    let connection = match (is_kept, asked.version) {
        (false, Version::HTTP_11) => Some(HeaderValue::from_static("close")),
        (true, Version::HTTP_10) => Some(HeaderValue::from_static("keep-alive")),
        _ => None,
    };
    if let Some(connection) = connection {
        response.headers_mut().insert(header::CONNECTION, connection);
    }
    let bytes = out.bytes();
    head::write_response(response, bytes);
    match length {
        _ if is_said => {}
        Length::Known(length) => {
            bytes.extend_from_slice(b"Content-Length: ");
            bytes.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        Length::Chunked => bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Length::UntilClose => {}
    }
    if !response.headers().contains_key(header::DATE) {
        head::write_date(bytes);
    }
    bytes.extend_from_slice(b"\r\n");
    if asked.is_head || !may_have_body {
        response.body_mut().discard();
        return (Length::Known(0), is_kept);
    }
    (length, is_kept)
}

impl Link {
    fn new(transport: Transport) -> Self {
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
    fn poll_request(
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
    fn is_plain(&self) -> bool {
        self.half.lock().transport.io().is_plain()
    }

    /// Ready once the client has hung up. To be polled last, by the connection's task.
    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
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
    fn begin_response(&self, cx: &mut Context<'_>) -> bool {
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
    async fn end_request(&self, client: &Client) -> bool {
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

    fn poll_write(&self, out: &mut Out, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half = &mut *self.half.lock();
        if !half.interim.is_empty() {
            ready!(half.interim.poll_write(half.transport.io(), cx))?;
        }
        out.poll_write(half.transport.io(), cx)
    }

    /// Closes so that the client gets to see the response, even if it has more to say: a socket that is closed with
    /// something unread takes back what was not read from it.
    async fn close(&self, client: &Client) {
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

    /// Has the client know of an answer before the last.
    pub(crate) fn inform(&self, response: &Response) {
        let mut half = self.half.lock();
        if !half.is_answered && half.interim.is_empty() {
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

/// How long a client may take over the head of a request, once it has begun with it. In between two requests it may be
/// silent for as long as it likes: a request that crosses the closing of its connection is lost.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

const SWITCHED_TO_HTTP2: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";

/// What is read of the next requests while one is served: enough to notice that the client leaves.
const MAX_AHEAD: usize = 16 * 1024;

/// What is read of a body that nobody wants, rather than to close the connection. Go's number.
const MAX_DISCARDED: usize = 256 * 1024;

/// How long a client is listened to that has been told that nobody does. Go's number.
const LINGER: Duration = Duration::from_millis(500);
