//! The pool of HTTP/2 connections: some streams at once on each, and as few connections as that allows.
//!
//! A connection can fail, and takes its streams along. So there are [few](MAX_STREAMS) on each, a connection makes room for a
//! new one before its [resets](MAX_RESETS) or its [streams](MAX_STREAMS_IN_ALL) add up to any limit, ours or the
//! upstream's, and whatever may be sent again is.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, Version, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::breaks::Breaks;
use super::kept::KeptRequest;
use super::retry::{SendError, is_replayable};
use super::width::{WideStream, Width};
use crate::body::{Ending, UpstreamBody};
use crate::dial::Dialer;
use crate::error::chain;
use crate::h2::{
    Http2Io, MAX_FRAME_BYTES, MAX_READ_HEADER_BYTES, MAX_RESET_REMEMBERED, SEND_BUFFER_BYTES, Wear,
    header_list_bytes,
};
use crate::unwritten::{CountedBody, Unwritten};
use crate::{Body, Client, Error, Pings, Request, Response};

#[derive(Debug)]
pub(super) struct Http2Pool {
    dialer: Dialer,
    idle_timeout: Duration,
    pings: Option<Pings>,
    hosts: Mutex<Hosts>,
    breaks: Breaks,
}

#[derive(Debug, Default)]
struct Hosts {
    by_address: HashMap<SocketAddr, Arc<Host>>,
    swept: bool,
}

#[derive(Debug, Default)]
struct Host {
    connections: Mutex<Vec<Arc<Http2Connection>>>,
    // Locked while connecting: requests that come meanwhile wait for that connection.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Http2Connection {
    sender: http2::SendRequest<CountedBody>,
    unwritten: Unwritten,
    width: Width,
    host: Weak<Host>,
    streams: AtomicUsize,
    streams_in_all: AtomicUsize,
    wear: Arc<Wear>,
    // SETTINGS_MAX_CONCURRENT_STREAMS of the upstream, as far as it has said so.
    max_streams: Arc<AtomicUsize>,
    idle_since: Mutex<Instant>,
}

/// The body of a response, and its stream's place on the connection.
struct Http2Body {
    incoming: Incoming,
    _lease: Lease,
}

impl UpstreamBody for Http2Body {
    fn end(self: Box<Self>, _: Ending) {}
}

impl http_body::Body for Http2Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.incoming).poll_frame(cx).map_err(Error::from_client)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// One stream's place on its connection.
#[derive(Debug)]
struct Lease {
    connection: Arc<Http2Connection>,
    _wide: Option<WideStream>,
}

impl Http2Pool {
    pub(super) fn new(dialer: &Dialer, idle_timeout: Duration, pings: Option<Pings>) -> Arc<Self> {
        Arc::new(Http2Pool {
            dialer: dialer.clone(),
            idle_timeout,
            pings,
            hosts: Mutex::default(),
            breaks: Breaks::default(),
        })
    }

    /// A pool without connections, and otherwise the same.
    pub(super) fn pinging(&self, pings: Option<Pings>) -> Arc<Self> {
        Http2Pool::new(&self.dialer, self.idle_timeout, pings)
    }

    pub(super) async fn send(
        self: &Arc<Self>,
        client: &Client,
        to: SocketAddr,
        request: &mut Request,
    ) -> Result<Response, SendError> {
        let (mut is_alone, mut was_written) = (false, false);
        for attempt in 1.. {
            client.set_waiting();
            let leased = if is_alone { self.lease_alone(to).await } else { self.lease(to).await };
            let (lease, is_fresh) = leased.map_err(|source| SendError::not_dialed(source, was_written))?;
            let is_replayable = is_replayable(request);
            let (mut sent, kept) = KeptRequest::new(std::mem::take(request));
            complete_head(to, &mut sent);
            let sent = sent.map(|body| lease.connection.unwritten.count(body));
            client.set_sent();
            let mut failure = match lease.connection.sender.clone().try_send_request(sent).await {
                Ok(response) if header_list_bytes(None, response.headers()).is_none() => {
                    return Err(SendError::Failed { source: Error::Malformed("the head is too large") });
                }
                Ok(response) => {
                    if is_replayable {
                        *request = kept.restore().unwrap_or_default();
                    } else {
                        kept.let_go();
                    }
                    return Ok(response.map(|incoming| {
                        Body::from_upstream(Box::new(Http2Body { incoming, _lease: lease }))
                    }));
                }
                Err(failure) => failure,
            };
            let has_message = failure.take_message().is_some();
            let error = failure.into_error();
            let untouched = has_message || is_untouched(&error);
            let is_broken = is_broken(&error);
            if is_broken {
                self.breaks.note(to);
            }
            let broke = is_replayable && is_broken;
            // Another stream's response may have cost the connection, or the response to this very request: which of the
            // two comes out on a connection of its own, where nobody else can be hurt.
            let was_ended = is_replayable && !is_alone && is_ended_by_us(&error);
            is_alone |= was_ended;
            was_written |= !untouched;
            if lease.connection.wear.speaks_http_1() {
                return Err(SendError::Failed { source: Error::SpeaksHttp1 });
            }
            let source = kept.failure().unwrap_or_else(|| Error::from_client(error));
            match kept.restore() {
                Some(whole) if untouched || broke || was_ended => *request = whole,
                _ => return Err(SendError::Failed { source }),
            }
            if attempt == MAX_ATTEMPTS || (broke && is_fresh && !untouched) {
                return Err(SendError::whole(source, was_written));
            }
            debug!(%to, error = %source, "Upstream has not processed a request, sending it again");
        }
        unreachable!("the last attempt returns")
    }

    pub(super) fn forget(&self, to: SocketAddr) {
        self.hosts.lock().by_address.remove(&to);
    }

    /// A place on a connection, and whether the connection was made for it.
    async fn lease(self: &Arc<Self>, to: SocketAddr) -> Result<(Lease, bool), Error> {
        let host = Arc::clone(self.hosts.lock().by_address.entry(to).or_default());
        let mut wide = WideStream::take();
        if let Some(lease) = host.lease(&mut wide) {
            return Ok((lease, false));
        }
        let after = self.dialer.limit();
        let turn = timeout(after, host.connecting.lock()).await;
        let _turn = turn.map_err(|_| Error::ConnectTimeout { to, after })?;
        if let Some(lease) = host.lease(&mut wide) {
            return Ok((lease, false));
        }
        let connection = Arc::new(self.connect(to, &Arc::downgrade(&host), Width::of(wide.as_ref())).await?);
        let lease = Lease::new(&connection, wide);
        host.connections.lock().push(connection);
        let mut hosts = self.hosts.lock();
        if !std::mem::replace(&mut hosts.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        Ok((lease, true))
    }

    /// A place on a connection of its own, that no other request will use.
    async fn lease_alone(&self, to: SocketAddr) -> Result<(Lease, bool), Error> {
        let wide = WideStream::take();
        let connection = Arc::new(self.connect(to, &Weak::new(), Width::of(wide.as_ref())).await?);
        Ok((Lease::new(&connection, wide), true))
    }

    async fn connect(
        &self,
        to: SocketAddr,
        host: &Weak<Host>,
        width: Width,
    ) -> Result<Http2Connection, Error> {
        let unwritten = Unwritten::new();
        let stream = Http2Io::to_upstream(unwritten.over(self.dialer.dial(to).await?));
        let wear = stream.wear();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(width.stream_window_bytes())
            .initial_connection_window_size(width.connection_window_bytes())
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_header_list_size(MAX_READ_HEADER_BYTES)
            .max_concurrent_reset_streams(MAX_RESET_REMEMBERED)
            // No limit: it would count for the life of the connection.
            .max_local_error_reset_streams(None);
        if let Some(Pings { interval, timeout }) = self.pings {
            builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Error::Upstream)?;
        let max_streams = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        let told = Arc::clone(&max_streams);
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let ended = poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                if polled.is_pending() {
                    told.store(connection.current_max_send_streams(), Ordering::Relaxed);
                }
                polled
            });
            if let Err(error) = ended.await {
                debug!(%to, error = %chain(&error), "Upstream connection failed");
            }
        });
        if let Some(until) = self.breaks.watch_until(to) {
            sleep_until(until).await;
            if sender.is_closed() {
                return Err(Error::UpstreamClosed);
            }
        }
        Ok(Http2Connection {
            sender,
            unwritten,
            width,
            host: Weak::clone(host),
            streams: AtomicUsize::new(0),
            streams_in_all: AtomicUsize::new(0),
            wear,
            max_streams,
            idle_since: Mutex::new(Instant::now()),
        })
    }
}

impl Host {
    /// A place on the first connection that has room, so that the last ones can age. A wide stream is taken with it.
    fn lease(&self, wide: &mut Option<WideStream>) -> Option<Lease> {
        let width = Width::of(wide.as_ref());
        let mut connections = self.connections.lock();
        connections.retain(|connection| connection.sender.is_ready() && !connection.is_worn());
        let mut fitting = connections.iter().filter(|connection| connection.width == width);
        let connection = fitting.find(|connection| connection.has_room())?;
        Some(Lease::new(connection, wide.take()))
    }

    /// Closes connections that are idle beyond the first few: after many streams at once, each keeps the room that it had
    /// for them.
    fn close_surplus(&self) {
        let mut idle = 0;
        self.connections.lock().retain(|connection| {
            let is_idle = connection.streams.load(Ordering::Relaxed) == 0;
            idle += usize::from(is_idle);
            !is_idle || idle <= MAX_IDLE_CONNECTIONS
        });
    }
}

impl Http2Connection {
    fn has_room(&self) -> bool {
        let max_streams = self.max_streams.load(Ordering::Relaxed).min(MAX_STREAMS);
        self.streams.load(Ordering::Relaxed) < max_streams
    }

    /// Whether new streams go to another connection; those under way stay, and it ends with the last of them.
    fn is_worn(&self) -> bool {
        self.wear.resets() >= MAX_RESETS || self.streams_in_all.load(Ordering::Relaxed) >= MAX_STREAMS_IN_ALL
    }
}

impl Lease {
    fn new(connection: &Arc<Http2Connection>, wide: Option<WideStream>) -> Self {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        connection.streams_in_all.fetch_add(1, Ordering::Relaxed);
        Lease { connection: Arc::clone(connection), _wide: wide }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.connection.idle_since.lock() = Instant::now();
        if self.connection.streams.fetch_sub(1, Ordering::Relaxed) == 1
            && let Some(host) = self.connection.host.upgrade()
        {
            host.close_surplus();
        }
    }
}

/// Closes connections that were idle for too long. Ends when there are none left, or the pool is gone.
async fn sweep(pool: Weak<Http2Pool>) {
    loop {
        let Some(idle_timeout) = pool.upgrade().map(|pool| pool.idle_timeout) else { return };
        sleep(idle_timeout / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut hosts = pool.hosts.lock();
        hosts.by_address.retain(|_, host| {
            let mut connections = host.connections.lock();
            connections.retain(|connection| {
                let is_idle = connection.streams.load(Ordering::Relaxed) == 0
                    && connection.idle_since.lock().elapsed() >= idle_timeout;
                connection.sender.is_ready() && !is_idle
            });
            // A host in use may be connecting.
            !connections.is_empty() || Arc::strong_count(host) > 1
        });
        if hosts.by_address.is_empty() {
            hosts.swept = false;
            return;
        }
    }
}

/// Moves the host into `:authority`. A host that is no legal authority stays in `Host`, as RFC 9113 (8.3.1) has it for
/// requests that were HTTP/1.1.
fn complete_head(to: SocketAddr, request: &mut Request) {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let authority = match request.headers().get(header::HOST) {
        Some(host) => Authority::try_from(host.as_bytes()).ok(),
        None => Authority::try_from(to.to_string()).ok(),
    };
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = Uri::from(path.clone());
    let Some(authority) = authority else { return };
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path).build();
    if let Ok(uri) = uri {
        request.headers_mut().remove(header::HOST);
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri;
    }
}

/// Whether the upstream has said that it did not process the request (RFC 9113, 8.7): by REFUSED_STREAM, or by a GOAWAY
/// with an earlier stream.
fn is_untouched(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|cause| {
        let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (refused || cause.is_go_away())
    })
}

/// Whether we have ended the connection, because of a stream that may be another's: the library takes a malformed head for
/// a fault of the connection.
fn is_ended_by_us(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|cause| cause.is_library() && cause.is_go_away())
}

/// Whether a connection broke the way it does if the peer closes it while it is idle, or has vanished.
fn is_broken(error: &hyper::Error) -> bool {
    error.is_canceled()
        || error.is_closed()
        || error.is_timeout()
        || cause(error).is_some_and(h2::Error::is_io)
        || {
            let source = std::error::Error::source(error);
            source.and_then(|cause| cause.downcast_ref::<std::io::Error>()).is_some()
        }
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Streams at once on one connection: those that are lost with it.
const MAX_STREAMS: usize = 32;

/// Streams that we reset on one connection. Servers limit that: Netty to 200 in half a minute, nghttp2 (Node.js) to 1,000
/// and then 33 a second; and they end the connection.
const MAX_RESETS: usize = 100;

/// Streams on one connection, one after the other. A connection has no more than 2^30 (RFC 9113, 5.1.1).
const MAX_STREAMS_IN_ALL: usize = 100_000;

/// Idle connections that are kept to one upstream.
const MAX_IDLE_CONNECTIONS: usize = 16;

/// Attempts to send a request that the upstream refuses to process.
const MAX_ATTEMPTS: u32 = 3;
