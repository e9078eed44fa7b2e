//! The pool of HTTP/2 connections: many streams at once on each, and as few connections as that allows.

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
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::kept::KeptRequest;
use super::retry::{SendError, is_replayable};
use crate::body::{Ending, UpstreamBody};
use crate::dial::Dialer;
use crate::h2::{CONNECTION_WINDOW_BYTES, MAX_FRAME_BYTES, MAX_HEADER_BYTES, STREAM_WINDOW_BYTES};
use crate::{Body, Error, Request, Response};

#[derive(Debug)]
pub(super) struct Http2Pool {
    dialer: Dialer,
    idle_timeout: Duration,
    hosts: Mutex<Hosts>,
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
    sender: http2::SendRequest<Body>,
    streams: AtomicUsize,
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
}

impl Http2Pool {
    pub(super) fn new(dialer: &Dialer, idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Http2Pool { dialer: dialer.clone(), idle_timeout, hosts: Mutex::default() })
    }

    pub(super) async fn send(
        self: &Arc<Self>,
        to: SocketAddr,
        request: &mut Request,
    ) -> Result<Response, SendError> {
        let mut was_written = false;
        for attempt in 1.. {
            let leased = self.lease(to).await;
            let (lease, is_fresh) = leased.map_err(|source| SendError::not_dialed(source, was_written))?;
            let replayable = !is_fresh && is_replayable(request);
            let (mut sent, kept) = KeptRequest::new(std::mem::take(request));
            complete_head(to, &mut sent);
            let mut failure = match lease.connection.sender.clone().try_send_request(sent).await {
                Ok(response) => {
                    kept.let_go();
                    return Ok(response.map(|incoming| {
                        Body::from_upstream(Box::new(Http2Body { incoming, _lease: lease }))
                    }));
                }
                Err(failure) => failure,
            };
            let untouched = failure.take_message().is_some() || is_untouched(failure.error());
            let error = failure.into_error();
            let broke = replayable && is_broken(&error);
            was_written |= !untouched;
            let source = kept.failure().unwrap_or_else(|| Error::from_client(error));
            match kept.restore() {
                Some(whole) if untouched || broke => *request = whole,
                _ => return Err(SendError::Failed { source }),
            }
            if attempt == MAX_ATTEMPTS {
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
        if let Some(lease) = host.lease() {
            return Ok((lease, false));
        }
        let after = self.dialer.limit();
        let turn = timeout(after, host.connecting.lock()).await;
        let _turn = turn.map_err(|_| Error::ConnectTimeout { to, after })?;
        if let Some(lease) = host.lease() {
            return Ok((lease, false));
        }
        let connection = Arc::new(self.connect(to).await?);
        let lease = Lease::new(&connection);
        host.connections.lock().push(connection);
        let mut hosts = self.hosts.lock();
        if !std::mem::replace(&mut hosts.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        Ok((lease, true))
    }

    async fn connect(&self, to: SocketAddr) -> Result<Http2Connection, Error> {
        let stream = self.dialer.dial(to).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_header_list_size(MAX_HEADER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Error::Upstream)?;
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
                debug!(%to, %error, "Upstream connection failed");
            }
        });
        let idle_since = Mutex::new(Instant::now());
        Ok(Http2Connection { sender, streams: AtomicUsize::new(0), max_streams, idle_since })
    }
}

impl Host {
    /// A place on the first connection that has room, so that the last ones can age.
    fn lease(&self) -> Option<Lease> {
        let mut connections = self.connections.lock();
        connections.retain(|connection| connection.sender.is_ready());
        connections.iter().find(|connection| connection.has_room()).map(Lease::new)
    }
}

impl Http2Connection {
    fn has_room(&self) -> bool {
        self.streams.load(Ordering::Relaxed) < self.max_streams.load(Ordering::Relaxed)
    }
}

impl Lease {
    fn new(connection: &Arc<Http2Connection>) -> Self {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Lease { connection: Arc::clone(connection) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.connection.idle_since.lock() = Instant::now();
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
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

/// Whether a connection broke the way it does if the peer closes it while it is idle.
fn is_broken(error: &hyper::Error) -> bool {
    error.is_canceled() || error.is_closed() || cause(error).is_some_and(h2::Error::is_io) || {
        let source = std::error::Error::source(error);
        source.and_then(|cause| cause.downcast_ref::<std::io::Error>()).is_some()
    }
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Attempts to send a request that the upstream refuses to process.
const MAX_ATTEMPTS: u32 = 3;
