//! The pool of HTTP/1.1 connections: one request at a time each, kept for the next one.
//!
//! A connection has no task of its own. Whoever uses it drives it: first the request, then its response's body, both
//! polled by the task of the client's connection. So a request goes through a proxy without any task waking another.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::driven::Driven;
use super::{SendError, UpstreamParams, copy_head, is_replayable};
use crate::dial::Dialer;
use crate::expect::Permission;
use crate::tls::MaybeTls;
use crate::upgrade::{Wish, switch};
use crate::{Body, Error, Request, Response};

#[derive(Debug)]
pub(super) struct Pool {
    dialer: Dialer,
    params: UpstreamParams,
    // Of all hosts together.
    max_idle: AtomicUsize,
    idle: Mutex<IdleConnections>,
}

/// What the client wants besides a response.
struct Asked {
    wish: Option<Wish>,
    permission: Option<Permission>,
}

#[derive(Debug, Default)]
struct IdleConnections {
    hosts: HashMap<SocketAddr, Vec<Idle>>,
    swept: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    pub(super) fn new(dialer: &Dialer, params: UpstreamParams) -> Arc<Self> {
        let max_idle = AtomicUsize::new(usize::MAX);
        Arc::new(Pool { dialer: dialer.clone(), params, max_idle, idle: Mutex::default() })
    }

    pub(super) fn keep_no_more_than(&self, max_idle: usize) {
        self.max_idle.store(max_idle, Ordering::Relaxed);
    }

    pub(super) async fn send(
        self: &Arc<Self>,
        to: SocketAddr,
        request: &mut Request,
    ) -> Result<Response, SendError> {
        complete_head(to, request);
        let wish = Wish::of(request);
        let asked = Asked { permission: Permission::asked_for(request), wish };
        while let Some(mut connection) = self.take(to) {
            let spare = is_replayable(request).then(|| copy_head(request));
            match connection.send(std::mem::take(request), &asked).await {
                Ok(response) => return accept(connection, response, asked),
                Err(mut failure) => match (failure.take_message(), spare) {
                    (Some(unsent), _) => *request = unsent,
                    (None, Some(spare)) if is_stale(failure.error()) => *request = spare,
                    (None, _) => {
                        return Err(SendError::Failed { source: Error::from_client(failure.into_error()) });
                    }
                },
            }
        }
        // Boxed: rare, and large enough to weigh on every request that finds a kept connection.
        let mut connection = Box::pin(self.connect(to)).await.map_err(SendError::not_dialed)?;
        match connection.send(std::mem::take(request), &asked).await {
            Ok(response) => accept(connection, response, asked),
            Err(mut failure) => match failure.take_message() {
                Some(unsent) => {
                    *request = unsent;
                    Err(SendError::NotSent { source: Error::from_client(failure.into_error()) })
                }
                None => Err(SendError::Failed { source: Error::from_client(failure.into_error()) }),
            },
        }
    }

    pub(super) fn forget(&self, to: SocketAddr) {
        self.idle.lock().hosts.remove(&to);
    }

    async fn connect(self: &Arc<Self>, to: SocketAddr) -> Result<Box<Connection>, Error> {
        let stream = self.dialer.dial(to).await?;
        let (sender, connection) = http1::Builder::new()
            // Go's canonical casing, which apps behind Knative are used to. Carrying the client's own casing
            // through would cost a map per request.
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Error::Upstream)?;
        Ok(Box::new(Connection {
            pool: Arc::downgrade(self),
            to,
            sender,
            driver: Driven::new(connection),
            response: None,
            is_sent: Arc::default(),
        }))
    }

    // The most recently used first: it is the least likely to be closed, and the others can age.
    fn take(&self, to: SocketAddr) -> Option<Box<Connection>> {
        let mut idle = self.idle.lock();
        let connections = idle.hosts.get_mut(&to)?;
        while let Some(Idle { connection, .. }) = connections.pop() {
            if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn put(self: &Arc<Self>, connection: Box<Connection>) {
        let max_idle = self.max_idle.load(Ordering::Relaxed);
        let mut idle = self.idle.lock();
        let is_full = max_idle < usize::MAX && idle.hosts.values().map(Vec::len).sum::<usize>() >= max_idle;
        let connections = idle.hosts.entry(connection.to).or_default();
        if is_full || connections.len() >= self.params.max_idle_per_host {
            return;
        }
        connections.push(Idle { connection, since: Instant::now() });
        if !idle.swept {
            idle.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self), self.params.idle_timeout));
        }
    }
}

/// Closes connections that were idle for too long, or that the upstream has closed; ends when there are none left or
/// the pool is gone.
async fn sweep(pool: Weak<Pool>, idle_timeout: Duration) {
    loop {
        sleep(SWEEP_PERIOD.min(idle_timeout / 4)).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock();
        idle.hosts.retain(|_, connections| {
            connections.retain_mut(|idle| idle.since.elapsed() < idle_timeout && idle.connection.is_open());
            !connections.is_empty()
        });
        if idle.hosts.is_empty() {
            idle.swept = false;
            return;
        }
    }
}

/// A connection to an upstream, idle or with one request or response on it.
pub(crate) struct Connection {
    pool: Weak<Pool>,
    to: SocketAddr,
    sender: SendRequest<Body>,
    driver: Driven<Driver>,
    // The response that is being read.
    response: Option<Incoming>,
    // Whether there is nothing more to be read of the request's body.
    is_sent: Arc<AtomicBool>,
}

type Driver = http1::Connection<TokioIo<MaybeTls>, Body>;

impl Connection {
    /// Sends a request and waits for the head of its response.
    // Not an async function: that would keep room for the request for as long as it waits.
    fn send(
        &mut self,
        mut request: Request,
        asked: &Asked,
    ) -> impl Future<Output = Result<http::Response<Incoming>, TrySendError<Request>>> + use<'_> {
        if asked.wish.is_some() {
            // Only a connection with a task of its own can stop being HTTP.
            self.detach();
        }
        let has_body = !request.body().is_end_stream();
        self.is_sent.store(!has_body, Ordering::Relaxed);
        if has_body {
            let is_sent = Arc::clone(&self.is_sent);
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = body.watched(move |_| is_sent.store(true, Ordering::Relaxed));
        }
        let Connection { sender, driver, .. } = self;
        let response = driver.leave(|| sender.try_send_request(request));
        async move {
            let mut response = pin!(response);
            poll_fn(|cx| {
                poll_driver(driver, cx);
                driver.look(cx, |cx| response.as_mut().poll(cx))
            })
            .await
        }
    }

    /// The next piece of the response's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Connection { driver, response: Some(incoming), .. } = self else { return Poll::Ready(None) };
        let mut frame = driver.look(cx, |cx| Pin::new(&mut *incoming).poll_frame(cx));
        if frame.is_pending() && driver.is_here() {
            poll_driver(driver, cx);
            frame = driver.look(cx, |cx| Pin::new(&mut *incoming).poll_frame(cx));
        }
        frame.map_err(Error::from_client)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.response.as_ref().is_none_or(Incoming::is_end_stream)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.response.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }

    /// The response has been read to its end: keep the connection for the next request.
    pub(crate) fn give_back(mut self: Box<Self>) {
        self.response = None;
        // No pool or no runtime: the process is on its way out, and the connection closes.
        let (Some(pool), Ok(runtime)) = (self.pool.upgrade(), Handle::try_current()) else { return };
        if self.sender.is_ready() {
            pool.put(self);
        } else if !self.sender.is_closed() {
            // The request's body is still on its way.
            self.detach();
            runtime.spawn(async move {
                if self.sender.ready().await.is_ok() {
                    pool.put(self);
                }
            });
        }
    }

    /// Gives the connection a task of its own, since nobody may be there to drive it.
    fn detach(&mut self) {
        let (Some(driver), to) = (self.driver.take(), self.to) else { return };
        tokio::spawn(async move {
            if let Err(error) = driver.with_upgrades().await {
                debug!(%to, %error, "Upstream connection failed");
            }
        });
    }

    /// Whether an idle connection can still be used. Whoever used it last is forgotten.
    fn is_open(&mut self) -> bool {
        poll_driver(&mut self.driver, &mut Context::from_waker(Waker::noop()));
        !self.sender.is_closed()
    }
}

fn poll_driver(driver: &mut Driven<Driver>, cx: &mut Context<'_>) {
    if let Some(Err(error)) = driver.poll(cx) {
        debug!(%error, "Upstream connection failed");
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("to", &self.to).finish_non_exhaustive()
    }
}

fn accept(
    mut connection: Box<Connection>,
    response: http::Response<Incoming>,
    asked: Asked,
) -> Result<Response, SendError> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let mut answer = Response::default();
        (*answer.status_mut(), *answer.headers_mut()) = (response.status(), response.headers().clone());
        let tunnel = switch(asked.wish, response).map_err(|source| SendError::Failed { source })?;
        *answer.body_mut() = Body::tunnel(tunnel);
        return Ok(answer);
    }
    if !connection.is_sent.load(Ordering::Relaxed) {
        // A client that sends all before it reads anything would otherwise wait for us, and we for it.
        connection.detach();
    }
    let mut response = response.map(|incoming| {
        connection.response = Some(incoming);
        Body::http1(connection)
    });
    if let Some(permission) = asked.permission {
        permission.answered();
        response = response.map(|body| body.guarded(permission));
    }
    // The upstream's version is its own affair; an HTTP/1.0 here would end the client's connection.
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// What HTTP/1.1 demands of any request, whoever wrote it.
fn complete_head(to: SocketAddr, request: &mut Request) {
    *request.version_mut() = Version::HTTP_11;
    if !request.headers().contains_key(header::HOST) {
        // Only HTTP/1.0 clients may leave it out. An address is always a legal header value.
        if let Ok(host) = HeaderValue::try_from(to.to_string()) {
            request.headers_mut().insert(header::HOST, host);
        }
    }
    let has_length = request.body().size_hint().exact().is_some();
    if !has_length && !request.headers().contains_key(header::CONTENT_LENGTH) {
        // hyper assumes that a GET of unknown length has no body, unless it is told.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Whether a kept connection broke as one does that the peer closed while it was idle.
fn is_stale(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_canceled() || error.is_closed() || {
        let source = std::error::Error::source(error);
        source.and_then(|cause| cause.downcast_ref::<std::io::Error>()).is_some()
    }
}

/// How soon the end of an idle connection is noticed. (Whoever takes it notices at once.)
const SWEEP_PERIOD: Duration = Duration::from_secs(5);
