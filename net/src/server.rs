//! Serving clients: accept a connection, read its requests, hand them to a [`Handler`], write the responses.
//!
//! Each connection has one task. HTTP/1.1 and HTTP/2 by prior knowledge (RFC 9113, 3.3) are told apart by the client's
//! first bytes, with or without TLS; what ALPN says is not asked for, since the first bytes say it anyway.

mod overdue;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, StatusCode, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsStream;
use tracing::{debug, warn};

use self::overdue::Stragglers;
use crate::alarm::Alarm;
use crate::body::ClientBody;
use crate::connections::{Open, Places, Port};
use crate::handler::{AnyHandler, Handler};
use crate::heads::HeldHead;
use crate::preface::{FIRST_WORDS_TIMEOUT, Protocol, sniff};
use crate::proxy_protocol::read_header;
use crate::refusal::refusal;
use crate::tls::ServerTls;
use crate::transport::Transport;
use crate::turn::Turn;
use crate::unsent::is_unsent;
use crate::unwritten::Unwritten;
use crate::window::ClientWindow;
use crate::{Body, Client, Drain, Request, Response, fields, h1, h2, hop, message, plain};

/// A server to be awaited or spawned.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves until `drain` has started and every connection has finished its request in flight; once it is forced, what is
/// left is cut.
pub fn serve<H: Handler>(port: impl Into<Port>, handler: Arc<H>, drain: Drain) -> Serving {
    boxed(port.into(), None, handler, drain)
}

/// Serves over TLS, and otherwise as [`serve`].
pub fn serve_tls<H: Handler>(
    port: impl Into<Port>,
    tls: Arc<ServerTls>,
    handler: Arc<H>,
    drain: Drain,
) -> Serving {
    boxed(port.into(), Some(tls), handler, drain)
}

/// Serves each connection as `serve` says, until `drain` has started and every connection has ended. What is done with a
/// connection once the drain has started or is forced is up to `serve`.
pub fn serve_each<F>(
    port: impl Into<Port>,
    drain: Drain,
    serve: impl Fn(ClientConnection) -> F + Send + Sync + 'static,
) -> Serving
where
    F: Future<Output = ()> + Send + 'static,
{
    let begin = move |stream, ends| serve(ClientConnection { transport: Transport::new(stream), ends });
    Box::pin(accept(port.into(), drain, begin))
}

/// The future of [`accept`] is made here and not in generic code, which every other crate would compile again.
fn boxed(port: Port, tls: Option<Arc<ServerTls>>, handler: Arc<dyn AnyHandler>, drain: Drain) -> Serving {
    let draining = drain.clone();
    let serve = move |stream, ends| {
        let (tls, handler, drain) = (tls.clone(), Arc::clone(&handler), draining.clone());
        serve_connection(move || begin(stream, tls), ends, handler, drain)
    };
    Box::pin(accept(port, drain, serve))
}

async fn accept<S, F>(port: Port, drain: Drain, serve: S)
where
    S: Fn(TcpStream, Ends) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let serve = Arc::new(serve);
    // Each connection holds a sender: the channel ends with the last connection.
    let (alive, mut all_gone) = mpsc::channel::<Infallible>(1);
    let mut stop = pin!(drain.started());
    let (places, Port { listener, .. }) = (Places::at(&port), port);
    loop {
        let next = async { (places.take().await, listener.accept().await) };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut stop => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => match Ends::of(&stream, peer) {
                Ok(ends) => {
                    let (serve, alive, open) = (Arc::clone(&serve), alive.clone(), Open::new(place));
                    tokio::spawn(async move {
                        // Called here: a future that is moved into the task would take its room twice.
                        serve(stream, ends).await;
                        drop((open, alive));
                    });
                }
                Err(error) => debug!(%peer, %error, "Client left before its first request"),
            },
            Err(error) if is_about_one_connection(&error) => {
                debug!(%error, "Client left before it was accepted");
            }
            Err(error) => {
                // EMFILE, most likely: file descriptors come free when connections end, and retrying at once would spin.
                warn!(%error, "Cannot accept connections, retrying");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    drop(alive);
    all_gone.recv().await;
}

/// Serves a connection once `begin` has found out its protocol.
async fn serve_connection<F: Future<Output = io::Result<(Protocol, Transport)>>>(
    begin: impl FnOnce() -> F,
    ends: Ends,
    handler: Arc<dyn AnyHandler>,
    drain: Drain,
) {
    let begun = tokio::select! {
        biased;
        begun = timeout(FIRST_WORDS_TIMEOUT, begin()) => begun,
        // A client without a request may be cut at once.
        () = drain.started() => return,
    };
    match begun {
        Ok(Ok((Protocol::Http1, stream))) => serve_http1(stream, &ends, handler, drain).await,
        // Boxed: HTTP/1.1 connections need not carry the room for HTTP/2.
        Ok(Ok((Protocol::Http2, stream))) => {
            Box::pin(serve_http2(stream, &ends, Version::HTTP_2, handler, drain)).await;
        }
        Ok(Err(error)) => debug!(peer = %ends.peer, %error, "Client connection failed"),
        Err(_) => debug!(peer = %ends.peer, "Client sent nothing in time"),
    }
}

/// A client's connection that was accepted a moment ago, and of which nothing is known but its two addresses.
#[derive(Debug)]
pub struct ClientConnection {
    transport: Transport,
    ends: Ends,
}

impl ClientConnection {
    /// The client's address.
    pub fn client(&self) -> SocketAddr {
        self.ends.peer
    }

    /// The server's end of the connection, with the port that it came in at.
    pub fn local(&self) -> SocketAddr {
        self.ends.local
    }

    /// Reads until `tell` can tell something by the client's first bytes, which stay where they are. It is given all that
    /// have arrived, and whether no more will come; it must tell something then. Dropping the future loses nothing.
    pub async fn peek<T>(&mut self, mut tell: impl FnMut(&[u8], bool) -> Option<T>) -> io::Result<T> {
        let transport = &mut self.transport;
        let mut is_all = false;
        loop {
            if let Some(told) = tell(&transport.unread, is_all) {
                return Ok(told);
            }
            is_all = poll_fn(|cx| transport.poll_fill(cx)).await? == 0;
        }
    }

    /// Takes the header of the PROXY protocol, version 2, off the connection's beginning, if there is one: the address in
    /// it becomes the client's. An error says that the header is malformed, or that the connection broke.
    pub async fn read_proxy_header(&mut self) -> io::Result<()> {
        let header = self.peek(|said, is_all| read_header(said, is_all).transpose()).await?;
        let header = header.map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?;
        self.transport.take(header.length);
        self.ends.peer = header.source.unwrap_or(self.ends.peer);
        Ok(())
    }

    /// The connection as bytes, those first that were read already.
    pub fn into_transport(self) -> Transport {
        self.transport
    }

    /// Serves HTTP/1.1 or HTTP/2 by prior knowledge, whichever the client speaks, until the connection ends or the drain is
    /// over. A client has a minute for its first bytes.
    pub fn serve_http<H: Handler>(self, handler: Arc<H>, drain: Drain) -> Serving {
        let ClientConnection { transport, ends } = self;
        boxed_connection(transport, ends, handler, drain)
    }
}

/// The future of [`serve_connection`] is made here, as that of [`accept`] is in [`boxed`].
fn boxed_connection(transport: Transport, ends: Ends, handler: Arc<dyn AnyHandler>, drain: Drain) -> Serving {
    Box::pin(serve_connection(move || begun(transport), ends, handler, drain))
}

/// The two addresses of one connection.
#[derive(Debug)]
struct Ends {
    peer: SocketAddr,
    local: SocketAddr,
}

impl Ends {
    /// The addresses of a connection that was just accepted.
    fn of(stream: &TcpStream, peer: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Ends { peer, local: stream.local_addr()? })
    }

    fn client(&self) -> Client {
        Client::new(self.peer).at(self.local)
    }
}

/// Does the handshake, if there is TLS, and finds out the protocol.
async fn begin(stream: TcpStream, tls: Option<Arc<ServerTls>>) -> io::Result<(Protocol, Transport)> {
    let mut transport = match tls {
        None => Transport::new(stream),
        // Boxed: connections in the clear need not carry the room for a handshake.
        Some(tls) => Transport::new(TlsStream::from(Box::pin(tls.accept(stream)).await?)),
    };
    Ok((sniff(&mut transport).await?, transport))
}

/// Finds out the protocol of a connection in the clear.
async fn begun(mut transport: Transport) -> io::Result<(Protocol, Transport)> {
    Ok((sniff(&mut transport).await?, transport))
}

async fn serve_http1(stream: Transport, ends: &Ends, handler: Arc<dyn AnyHandler>, drain: Drain) {
    let client = |link| ends.client().over(link);
    let switched = {
        // Pinned here: a future that is passed by value takes its room twice, as an argument and where it is polled.
        let connection = pin!(h1::server::serve(stream, client, &*handler, &drain));
        until_forced(&drain, connection).await
    };
    if let Some(Some(stream)) = switched {
        // A client that upgrades to h2c speaks both versions, and the app may not: requests go on as HTTP/1.1.
        Box::pin(serve_http2(stream, ends, Version::HTTP_11, handler, drain)).await;
    }
}

/// Drives a connection to its end; `None`: the drain was forced. The start of the drain has the connection polled, too.
async fn until_forced<T>(drain: &Drain, mut connection: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let (mut started, mut forced) = (pin!(drain.started()), pin!(drain.forced()));
    let mut is_draining = false;
    poll_fn(|cx| {
        is_draining = is_draining || started.as_mut().poll(cx).is_ready();
        if is_draining && forced.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        connection.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Serves an HTTP/2 connection. `version` is the one that its requests are given.
async fn serve_http2(
    stream: Transport,
    ends: &Ends,
    version: Version,
    handler: Arc<dyn AnyHandler>,
    drain: Drain,
) {
    let stragglers = Stragglers::default();
    let (watching, client) = (stragglers.clone(), ends.client());
    let (window, unwritten) = (ClientWindow::open(), Unwritten::new());
    let turn = Turn::default();
    let (window_bytes, stream) = (window.bytes(), turn.limit(unwritten.over(stream)));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        // Here and not in the stream's task: it runs only when all that has arrived is read.
        let is_small = fields::compact(request.headers_mut());
        // hyper runs each stream in a task of its own, which needs an alarm of its own.
        let (handler, watching, client) = (Arc::clone(&handler), watching.clone(), client.of_stream());
        let (window, unwritten) = (Arc::clone(&window), unwritten.clone());
        async move {
            let mut request = request.map(|incoming| Body::from_client(ClientBody::Http2(incoming, window)));
            let is_head = request.method() == Method::HEAD;
            name_host(&mut request);
            *request.version_mut() = version;
            let mut held = HeldHead::default();
            let refused = match refusal(&request) {
                _ if !is_small => Some(too_many_fields()),
                Some(response) => Some(response),
                None => hold_head(&mut held, &request),
            };
            let mut response = match refused {
                Some(response) => response,
                None => handler.answer(&client, request).await,
            };
            drop(held);
            if is_unsent(&response) {
                return Err(::h2::Error::from(::h2::Reason::REFUSED_STREAM));
            }
            if is_head && !response.body().is_end_stream() {
                without_body(&mut response);
            }
            Ok(response.map(|body| unwritten.count(watching.watch(body))))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(h2::MAX_STREAMS)
        .initial_stream_window_size(h2::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(window_bytes)
        .max_send_buf_size(h2::SEND_BUFFER_BYTES)
        .max_frame_size(h2::MAX_FRAME_BYTES)
        .max_header_list_size(h2::MAX_READ_HEADER_BYTES)
        .max_pending_accept_reset_streams(h2::MAX_CANCELLED_AT_ONCE)
        // No limit: it would count for the life of the connection.
        .max_local_error_reset_streams(None)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(h2::Http2Io::of_client(stream)), service);
    let alarm = Alarm::default();
    let graceful_shutdown = http2::Connection::graceful_shutdown;
    let polled = |cx: &mut Context<'_>| {
        turn.end();
        stragglers.poll(cx, &alarm)
    };
    drive(connection, graceful_shutdown, polled, ends.peer, drain).await;
}

/// Drives a connection to its end, or cuts it when the drain is forced or `must_cut` is ready, which is polled whenever the
/// connection has been.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    graceful_shutdown: impl Fn(Pin<&mut C>),
    mut must_cut: impl FnMut(&mut Context<'_>) -> Poll<()>,
    peer: SocketAddr,
    drain: Drain,
) {
    let mut connection = pin!(connection);
    let mut draining = false;
    let mut started = pin!(drain.started());
    let mut forced = pin!(drain.forced());
    let result = poll_fn(|cx| {
        // The drain comes first, so that a GOAWAY precedes responses that are made in this very moment.
        if !draining && started.as_mut().poll(cx).is_ready() {
            draining = true;
            graceful_shutdown(connection.as_mut());
        }
        if draining && forced.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => must_cut(cx).map(|()| None),
        }
    })
    .await;
    if let Some(Err(error)) = result {
        debug!(%peer, error = %crate::error::chain(&error), "Client connection failed");
    }
}

/// Copies the host from `:authority` to `Host` (RFC 9113, 8.3.1), where handlers find it whatever the protocol.
fn name_host(request: &mut Request) {
    if request.method() == Method::CONNECT {
        return;
    }
    hop::to_origin_form(request);
}

/// Counts the head of a request over HTTP/2, or gives the response to one whose head is larger than what is served, or than
/// what there is room for.
fn hold_head(held: &mut HeldHead, request: &Request) -> Option<Response> {
    let target = Some((request.method(), request.uri()));
    let Some(bytes) = h2::header_list_bytes(target, request.headers()) else {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Some(plain(status, format!("{status}: the head is too large")));
    };
    held.is_complete(bytes, request.headers().len()).err().map(|no_room| message::respond(&no_room))
}

/// Drops the body of a response to `HEAD`, and keeps its length (RFC 9110, 9.3.2). hyper does so over HTTP/1.1 only.
fn without_body(response: &mut Response) {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    response.body_mut().discard();
}

fn too_many_fields() -> Response {
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    plain(status, format!("{status}: more than {} header fields", fields::MAX_FIELDS))
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Silence after which an HTTP/2 client is asked for a sign of life, and the time that it has to answer: one that vanished
/// with data under way would not be noticed by TCP for a quarter of an hour.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
