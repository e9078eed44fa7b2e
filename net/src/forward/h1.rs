//! The pool of HTTP/1.1 connections: one request at a time on each, kept for the next one (keep-alive).

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::breaks::Breaks;
use super::retry::{SendError, is_replayable};
use crate::body::{Ending, UpstreamBody};
use crate::dial::Dialer;
use crate::expect::Permission;
use crate::h1::client::{Connection, SendFailure, Unanswered};
use crate::replay::prefixed;
use crate::transport::Transport;
use crate::upgrade::{Tunnel, wish};
use crate::{Body, Client, Error, Request, Response, prepare_response};

#[derive(Debug)]
pub(super) struct Http1Pool {
    dialer: Dialer,
    max_idle_per_host: usize,
    idle_timeout: Duration,
    // The most idle connections of all hosts together.
    max_idle: AtomicUsize,
    // Upstreams are proxies, which may send requests back.
    to_proxies: AtomicBool,
    idle: Mutex<IdleConnections>,
    breaks: Breaks,
}

#[derive(Debug, Default)]
struct IdleConnections {
    hosts: HashMap<SocketAddr, Vec<Idle>>,
    swept: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Pooled>,
    since: Instant,
    // Before the upstream closes it.
    until: Option<Instant>,
}

/// A connection, and the pool it returns to.
#[derive(Debug)]
struct Pooled {
    connection: Connection,
    pool: Weak<Http1Pool>,
    to: SocketAddr,
}

impl Http1Pool {
    pub(super) fn new(dialer: &Dialer, max_idle_per_host: usize, idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Http1Pool {
            dialer: dialer.clone(),
            max_idle_per_host,
            idle_timeout,
            max_idle: AtomicUsize::new(usize::MAX),
            to_proxies: AtomicBool::new(false),
            idle: Mutex::default(),
            breaks: Breaks::default(),
        })
    }

    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub(super) fn keep_no_more_than(&self, max_idle: usize) {
        self.max_idle.store(max_idle, Ordering::Relaxed);
    }

    pub(super) fn to_proxies(&self) {
        self.to_proxies.store(true, Ordering::Relaxed);
    }

    pub(super) async fn send(
        self: &Arc<Self>,
        client: &Client,
        to: SocketAddr,
        request: &mut Request,
    ) -> Result<Response, SendError> {
        complete_head(to, request);
        let permission = Permission::asked_for(request);
        let inform = |mut response: Response| match (&permission, response.status()) {
            (Some(permission), StatusCode::CONTINUE) => permission.granted(),
            (None, StatusCode::CONTINUE) => {}
            _ => {
                prepare_response(&mut response);
                client.inform(&response);
            }
        };
        let mut was_written = false;
        while let Some(mut pooled) = self.take(to) {
            let may_replay = is_replayable(request);
            client.set_sent();
            match pooled.connection.send(request, inform).await {
                Ok(response) => return accept(pooled, request, response, permission),
                Err(Unanswered::Unsent(_)) => {}
                Err(Unanswered::SentBack(source)) => {
                    pooled.give_back();
                    return Err(SendError::whole(source, was_written));
                }
                Err(Unanswered::Stale(source)) if may_replay => {
                    was_written = true;
                    self.breaks.failed(to, &source);
                }
                Err(Unanswered::Stale(source) | Unanswered::Failed(source)) => {
                    self.breaks.failed(to, &source);
                    return Err(SendError::Failed { source });
                }
            }
        }
        client.set_waiting();
        // Boxed: connecting is rare, and its future large enough to weigh on every request that finds a kept connection.
        let dialed = self.connect(to).await;
        let mut pooled = dialed.map_err(|source| SendError::not_dialed(source, was_written))?;
        if let Some(until) = self.breaks.watch_until(to) {
            let broken = pooled.connection.watch(until).await;
            broken.map_err(|source| SendError::whole(source, was_written))?;
        }
        let may_replay = is_replayable(request);
        client.set_sent();
        match pooled.connection.send(request, inform).await {
            Ok(response) => accept(pooled, request, response, permission),
            Err(Unanswered::Unsent(source)) => Err(SendError::whole(source, was_written)),
            Err(Unanswered::SentBack(source)) => {
                pooled.give_back();
                Err(SendError::whole(source, was_written))
            }
            Err(Unanswered::Stale(source)) if may_replay => {
                self.breaks.failed(to, &source);
                Err(SendError::Replayable { source })
            }
            Err(Unanswered::Stale(source) | Unanswered::Failed(source)) => {
                self.breaks.failed(to, &source);
                Err(SendError::Failed { source })
            }
        }
    }

    pub(super) fn forget(&self, to: SocketAddr) {
        self.idle.lock().hosts.remove(&to);
    }

    fn connect(self: &Arc<Self>, to: SocketAddr) -> BoxFuture<'_, Result<Box<Pooled>, Error>> {
        Box::pin(async move {
            let transport = Transport::new(self.dialer.dial(to).await?);
            let connection = Connection::new(transport, self.to_proxies.load(Ordering::Relaxed));
            Ok(Box::new(Pooled { connection, pool: Arc::downgrade(self), to }))
        })
    }

    // The most recently used connection goes first: it is the least likely to be closed, and the others can age.
    fn take(&self, to: SocketAddr) -> Option<Box<Pooled>> {
        loop {
            // The pool is not locked while the connection is looked at.
            let mut idle = self.idle.lock().hosts.get_mut(&to)?.pop()?;
            if !idle.is_over() && idle.connection.connection.is_usable() {
                return Some(idle.connection);
            }
        }
    }

    fn put(self: &Arc<Self>, connection: Box<Pooled>) {
        let max_idle = self.max_idle.load(Ordering::Relaxed);
        let mut idle = self.idle.lock();
        let is_full = max_idle < usize::MAX && idle.hosts.values().map(Vec::len).sum::<usize>() >= max_idle;
        if is_full || idle.hosts.get(&connection.to).map_or(0, Vec::len) >= self.max_idle_per_host {
            return;
        }
        idle.hosts.entry(connection.to).or_default().push(Idle::new(connection, Instant::now()));
        // Without a runtime, the process is ending.
        if !idle.swept
            && let Ok(runtime) = Handle::try_current()
        {
            idle.swept = true;
            runtime.spawn(sweep(Arc::downgrade(self), self.idle_timeout));
        }
    }
}

/// Closes connections that were idle for too long, or that the upstream has closed. Ends when there are none left, or the
/// pool is gone.
async fn sweep(pool: Weak<Http1Pool>, idle_timeout: Duration) {
    loop {
        sleep(SWEEP_PERIOD.min(idle_timeout / 4)).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock();
        idle.hosts.retain(|_, connections| {
            connections.retain_mut(|idle| {
                let is_young = idle.since.elapsed() < idle_timeout && !idle.is_over();
                is_young && idle.connection.connection.is_usable()
            });
            !connections.is_empty()
        });
        if idle.hosts.is_empty() {
            idle.swept = false;
            return;
        }
    }
}

impl Idle {
    fn new(connection: Box<Pooled>, since: Instant) -> Self {
        let until = connection.connection.kept_for().and_then(|time| since.checked_add(used_for(time)));
        Idle { connection, since, until }
    }

    /// Whether the upstream is about to close the connection: a request would cross that, and be lost.
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }
}

/// How long a connection is used that the upstream closes after this time: a second less, or half of a short time.
fn used_for(kept_for: Duration) -> Duration {
    kept_for - CLOSED_EARLIER.min(kept_for / 2)
}

impl Pooled {
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = self.connection.poll_frame(cx);
        if let Poll::Ready(Some(Err(error))) = &frame
            && let Some(pool) = self.pool.upgrade()
        {
            pool.breaks.failed(self.to, error);
        }
        frame
    }

    /// Keeps the connection for the next request, if there can be one.
    fn give_back(self: Box<Self>) {
        if self.connection.is_free()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.put(self);
        }
    }
}

/// The body of a response whose request has been sent.
impl UpstreamBody for Pooled {
    fn end(self: Box<Self>, ending: Ending) {
        if ending == Ending::Complete {
            self.give_back();
        }
    }
}

impl http_body::Body for Pooled {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_response(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.connection.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.connection.size_hint()
    }
}

/// An exchange whose response has begun before the request was sent. Two tasks use its connection: one sends the rest of
/// the request, while another reads the response. In one task, a client that sends its whole request before it reads
/// would deadlock with a response that nobody reads.
struct SharedExchange {
    // None once neither task needs the connection.
    pooled: Option<Box<Pooled>>,
    sender: Option<Waker>,
    reader: Option<Waker>,
    // The failure of the request's body, for the reader of the response.
    failure: Option<Error>,
}

/// The body of a response whose request is still being sent.
struct DuplexBody {
    exchange: Arc<Mutex<SharedExchange>>,
}

impl DuplexBody {
    fn new(pooled: Box<Pooled>) -> Self {
        let exchange = SharedExchange { pooled: Some(pooled), sender: None, reader: None, failure: None };
        let exchange = Arc::new(Mutex::new(exchange));
        let sending = Arc::clone(&exchange);
        let mut limit = None;
        tokio::spawn(poll_fn(move |cx| {
            let mut exchange = sending.lock();
            if exchange.poll_send(cx).is_ready() {
                return Poll::Ready(());
            }
            if !exchange.is_answered() {
                return Poll::Pending;
            }
            // The response is done but the request is not: nothing else times this out.
            let limit = limit.get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)));
            if limit.as_mut().poll(cx).is_ready() {
                let stalled = exchange.pooled.take();
                drop(exchange);
                drop(stalled);
                return Poll::Ready(());
            }
            // Progress was made: the limit begins anew.
            limit.as_mut().reset(Instant::now() + STALL_TIMEOUT);
            Poll::Pending
        }));
        DuplexBody { exchange }
    }
}

impl UpstreamBody for DuplexBody {
    fn end(self: Box<Self>, ending: Ending) {
        let mut exchange = self.exchange.lock();
        if ending == Ending::Complete {
            // An unfinished sender gives the connection back later.
            if let Some(pooled) = exchange.pooled.take_if(|pooled| pooled.connection.is_sent()) {
                pooled.give_back();
            }
            return;
        }
        let (pooled, sender) = (exchange.pooled.take(), exchange.sender.take());
        drop(exchange);
        drop(pooled);
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}

impl http_body::Body for DuplexBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.exchange.lock().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.lock().pooled.as_ref().is_none_or(|pooled| pooled.connection.has_ended())
    }

    fn size_hint(&self) -> SizeHint {
        self.exchange
            .lock()
            .pooled
            .as_ref()
            .map_or_else(SizeHint::default, |pooled| pooled.connection.size_hint())
    }
}

impl SharedExchange {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pooled) = &mut self.pooled else { return Poll::Ready(()) };
        match pooled.connection.poll_send(cx) {
            Poll::Pending => {
                self.sender = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(SendFailure::Peer(error))) => {
                debug!(to = %pooled.to, %error, "Upstream stopped reading a request");
                pooled.connection.stop_sending();
            }
            Poll::Ready(Err(SendFailure::Body(error))) => {
                pooled.connection.stop_sending();
                self.failure = Some(error);
            }
        }
        if let Some(pooled) = self.pooled.take_if(|pooled| pooled.connection.has_ended()) {
            pooled.give_back();
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        let Some(pooled) = &mut self.pooled else { return Poll::Ready(None) };
        let frame = pooled.poll_response(cx);
        if frame.is_pending() {
            self.reader = Some(cx.waker().clone());
        } else if pooled.connection.has_ended()
            && let Some(sender) = self.sender.take()
        {
            // The time limit of the sender begins.
            sender.wake();
        }
        frame
    }

    /// Whether the response has been read to its end.
    fn is_answered(&self) -> bool {
        self.pooled.as_ref().is_some_and(|pooled| pooled.connection.has_ended())
    }
}

fn accept(
    mut pooled: Box<Pooled>,
    request: &Request,
    mut response: Response,
    permission: Option<Permission>,
) -> Result<Response, SendError> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if !pooled.connection.is_sent() {
            let source = Error::Malformed("101 Switching Protocols before the end of the request");
            return Err(SendError::Failed { source });
        }
        let tunnel =
            Tunnel::relay(wish(request).as_ref(), response.headers(), pooled.connection.into_transport());
        *response.body_mut() = Body::tunnel(tunnel.map_err(|source| SendError::Failed { source })?);
        return Ok(response);
    }
    *response.body_mut() = match pooled.connection.take_body() {
        // The whole response is here: the connection is free.
        Some(body) if pooled.connection.is_sent() => {
            pooled.give_back();
            Body::full(body)
        }
        Some(body) => prefixed(body, Body::from_upstream(Box::new(DuplexBody::new(pooled)))),
        None if pooled.connection.is_sent() => Body::from_upstream(pooled),
        None => Body::from_upstream(Box::new(DuplexBody::new(pooled))),
    };
    if let Some(permission) = permission {
        permission.answered();
        response = response.map(|body| body.guarded(permission));
    }
    // The version is that of one hop (RFC 9110, 2.5): HTTP/1.0 from the upstream must not end the client's connection.
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// Adds what HTTP/1.1 demands of a request that may have come in over another version.
fn complete_head(to: SocketAddr, request: &mut Request) {
    *request.version_mut() = Version::HTTP_11;
    if !request.headers().contains_key(header::HOST) {
        // HTTP/1.0 clients may leave Host out (RFC 9112, 3.2). An address is a legal field value.
        if let Ok(host) = HeaderValue::try_from(to.to_string()) {
            request.headers_mut().insert(header::HOST, host);
        }
    }
}

/// How long the rest of a request may make no progress once its response has been read.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Time by which a connection is given up before its upstream closes it.
const CLOSED_EARLIER: Duration = Duration::from_secs(1);

/// Period in which idle connections are looked at. (A request that takes one looks at it, too.)
const SWEEP_PERIOD: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_given_up_a_second_before_its_upstream_closes_it() {
        let used_for = |millis| used_for(Duration::from_millis(millis)).as_millis();
        assert_eq!([0, 500, 1_000, 2_000, 5_000].map(used_for), [0, 250, 500, 1_000, 4_000]);
    }
}
