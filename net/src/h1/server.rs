//! The half that serves clients: one connection, one request after the other. Pipelined requests wait for their turn, so
//! responses go out in FIFO order (RFC 9112, 9.3.2).

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use http::{HeaderValue, StatusCode, Version, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tracing::debug;

use super::h2c;
use super::head::{self, HeadError, Partial};
use super::length::{self, Length};
use super::link::{Asked, HEAD_TIMEOUT, Link};
use super::sender::{BodySender, SendFailure};
use super::write_buffer::WriteBuffer;
use crate::body::ClientBody;
use crate::handler::AnyHandler;
use crate::headers::{lists_token, upgrade};
use crate::message::mark_no_room;
use crate::refusal::refusal;
use crate::transport::Transport;
use crate::{Body, Client, Drain, Request, Response, plain};

/// Serves the requests of one connection. Returns when the connection has been closed or switched to another protocol;
/// `Some` if it goes on with HTTP/2.
pub(crate) async fn serve(
    transport: Transport,
    client: impl FnOnce(Arc<Link>) -> Client,
    handler: &dyn AnyHandler,
    drain: &Drain,
) -> Option<Transport> {
    let link = Arc::new(Link::new(transport));
    let client = client(Arc::clone(&link));
    let (mut partial, mut out) = (Partial::default(), WriteBuffer::default());
    // The first request must come in time, later ones may take as long as the client likes.
    let mut deadline = Some(Instant::now() + HEAD_TIMEOUT);
    loop {
        let next = poll_fn(|cx| link.poll_request(cx, &mut partial, &mut deadline, client.alarm(), drain));
        let (mut request, asked): (Request, Asked) = match next.await {
            Some(Ok(next)) => next,
            Some(Err(error)) => {
                refuse(&link, &client, &mut out, error).await;
                return None;
            }
            None => {
                link.close(client.alarm()).await;
                return None;
            }
        };
        // Counted until the handler has answered, and so let go of the request.
        let held = partial.take_held();
        if asked.has_body {
            *request.body_mut() = Body::from_client(ClientBody::Http1(link.body()));
        }
        let asks_to_upgrade = upgrade(request.headers()).is_some();
        if asks_to_upgrade
            && let Some(first) = h2c::wish(&request)
            && link.is_plain()
        {
            // Boxed: rare.
            return Box::pin(switch_to_http2(link, client, out, &first)).await;
        }
        let response = match refusal(&request) {
            Some(response) => {
                // The body of a refused request is abandoned.
                drop(request);
                response
            }
            None => {
                let mut call = handler.answer(&client, request);
                let answered = poll_fn(|cx| match call.as_mut().poll(cx) {
                    Poll::Ready(response) => Poll::Ready(Some(response)),
                    Poll::Pending => link.poll_left(cx).map(|()| None),
                });
                answered.await?
            }
        };
        drop(held);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // Boxed: rare.
            Box::pin(switch(link, client, out, response)).await;
            return None;
        }
        let is_kept = poll_fn(|cx| {
            let is_kept = link.begin_response(cx);
            // Bytes behind an upgrade that was refused may be meant for the other protocol.
            Poll::Ready(is_kept && !(asks_to_upgrade && link.has_more(cx)))
        });
        let is_kept = is_kept.await;
        let is_kept = is_kept && asked.is_kept && !drain.is_started();
        if !respond(&link, &client, &mut out, response, &asked, is_kept).await {
            return None;
        }
    }
}

/// Writes the response. Whether another request may follow.
async fn respond(
    link: &Link,
    client: &Client,
    out: &mut WriteBuffer,
    mut response: Response,
    asked: &Asked,
    is_kept: bool,
) -> bool {
    // The time limit of the body, kept for the bytes that are still to be written when the body has ended.
    let total_at = response.body().total_at();
    let (length, is_kept) = write_head(&mut response, asked, is_kept, out);
    let mut sending = BodySender::new(response.into_body(), length);
    let sent = poll_fn(|cx| {
        if let Poll::Ready(sent) = sending.poll(out, cx, |out, cx| link.poll_write(out, cx)) {
            return Poll::Ready(sent);
        }
        // A body is not polled while the client takes nothing, and so cannot look at its own time limit.
        let is_overdue = total_at.is_some_and(|total_at| client.alarm().poll(total_at, cx).is_ready());
        if is_overdue || link.poll_left(cx).is_ready() {
            return Poll::Ready(Err(SendFailure::Peer(io::ErrorKind::BrokenPipe.into())));
        }
        Poll::Pending
    });
    if let Err(failure) = sent.await {
        match failure {
            SendFailure::Body(error) => {
                debug!(client = %client.address(), %error, "Response failed, closing its connection");
            }
            SendFailure::Peer(error) => {
                debug!(client = %client.address(), %error, "Client left before the end of its response");
            }
        }
        if length == Length::UntilClose {
            // A reset is the only sign that the body is not complete.
            link.break_off();
        }
        return false;
    }
    drop(sending);
    let may_go_on = is_kept && link.end_request(client.alarm()).await;
    if !may_go_on {
        link.close(client.alarm()).await;
    }
    may_go_on
}

/// Answers a head that cannot be read, after which the connection is closed.
async fn refuse(link: &Link, client: &Client, out: &mut WriteBuffer, error: HeadError) {
    debug!(client = %client.address(), %error, "Refusing a malformed request");
    let status = match error {
        HeadError::Malformed(_) => StatusCode::BAD_REQUEST,
        HeadError::TargetTooLong => StatusCode::URI_TOO_LONG,
        HeadError::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        HeadError::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = plain(status, format!("{status}: {error}"));
    if error == HeadError::NoRoom {
        mark_no_room(&mut response);
    }
    let asked = Asked { is_head: false, version: Version::HTTP_11, is_kept: false, has_body: false };
    respond(link, client, out, response, &asked, false).await;
}

/// Writes a `101 Switching Protocols`, and hands the connection to its body.
async fn switch(link: Arc<Link>, client: Client, mut out: WriteBuffer, response: Response) {
    head::write_response(&response, out.bytes());
    out.bytes().extend_from_slice(b"\r\n");
    let mut body = response.into_body();
    if poll_fn(|cx| link.poll_write(&mut out, cx)).await.is_err() {
        return;
    }
    drop(client);
    // None: the body of the request is still being read, and owns the read half.
    let Some(link) = Arc::into_inner(link) else { return };
    body.open_tunnel(link.into_transport());
    while let Some(Ok(_)) = body.frame().await {}
}

/// Switches to HTTP/2 (h2c). `first` is the request as its first frame.
async fn switch_to_http2(
    link: Arc<Link>,
    client: Client,
    mut out: WriteBuffer,
    first: &[u8],
) -> Option<Transport> {
    out.bytes().extend_from_slice(SWITCHED_TO_HTTP2);
    poll_fn(|cx| link.poll_write(&mut out, cx)).await.ok()?;
    drop(client);
    let transport = Arc::into_inner(link)?.into_transport();
    h2c::begin(transport, first).await.ok()
}

/// Writes the head of a response. Returns the length of the body that follows, and whether another request may follow.
fn write_head(
    response: &mut Response,
    asked: &Asked,
    is_kept: bool,
    out: &mut WriteBuffer,
) -> (Length, bool) {
    let status = response.status();
    let may_have_body = length::may_have_body(status);
    // A 304 may tell the length of the 200 that it stands for; 1xx and 204 have none (RFC 9110, 8.6).
    if !may_have_body && status != StatusCode::NOT_MODIFIED {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let said = response.headers().get(header::CONTENT_LENGTH).and_then(length::number);
    let exact = response.body().size_hint().exact();
    let (length, is_said) = match (said, exact) {
        _ if !may_have_body => (Length::Known(0), true),
        // A response to HEAD may have lost its body, and with it the length that a GET would have got (RFC 9110, 9.3.2).
        (None, Some(0) | None) if asked.is_head => (Length::Known(0), true),
        (Some(length), _) => (Length::Known(length), true),
        (None, Some(length)) => (Length::Known(length), false),
        (None, None) if asked.version == Version::HTTP_11 => (Length::Chunked, false),
        (None, None) => (Length::UntilClose, false),
    };
    let headers = response.headers();
    let is_kept = is_kept && length != Length::UntilClose && length::is_kept(Version::HTTP_11, headers);
    // Keep-alive is the default of HTTP/1.1 and has to be granted in HTTP/1.0 (RFC 9112, 9.3 and C.2.2).
    let connection = match (is_kept, asked.version) {
        (false, Version::HTTP_11) if lists_token(headers, &header::CONNECTION, "close") => None,
        (false, Version::HTTP_11) => Some(HeaderValue::from_static("close")),
        (true, Version::HTTP_10) => Some(HeaderValue::from_static("keep-alive")),
        _ => None,
    };
    if let Some(connection) = connection {
        // Appended: the field may hold an option of the handler's.
        response.headers_mut().append(header::CONNECTION, connection);
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

const SWITCHED_TO_HTTP2: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
