//! The pool of HTTP/1.1 connections: one request at a time each, kept for the next one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderValue, StatusCode, Version, header};
use http_body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{SendError, UpstreamParams, copy_head, is_replayable};
use crate::dial::Dialer;
use crate::expect::Permission;
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

type Sender = http1::SendRequest<Body>;

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
    sender: Sender,
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
        mut request: Request,
    ) -> Result<Response, SendError> {
        complete_head(to, &mut request);
        let wish = Wish::of(&request);
        let asked = Asked { permission: Permission::asked_for(&mut request), wish };
        while let Some(mut sender) = self.take(to) {
            let spare = is_replayable(&request).then(|| copy_head(&request));
            match sender.try_send_request(request).await {
                Ok(response) => return self.accept(to, sender, response, asked),
                Err(mut failure) => match (failure.take_message(), spare) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(spare)) if is_stale(failure.error()) => request = spare,
                    (None, _) => {
                        return Err(SendError::Failed { source: Error::from_client(failure.into_error()) });
                    }
                },
            }
        }
        // Boxed: rare, and large enough to weigh on every request that finds a kept connection.
        let mut sender = match Box::pin(self.connect(to)).await {
            Ok(sender) => sender,
            Err(source) => return Err(SendError::not_dialed(request, source)),
        };
        match sender.try_send_request(request).await {
            Ok(response) => self.accept(to, sender, response, asked),
            Err(mut failure) => Err(match failure.take_message() {
                Some(request) => SendError::NotSent {
                    request: Box::new(request),
                    source: Error::from_client(failure.into_error()),
                },
                None => SendError::Failed { source: Error::from_client(failure.into_error()) },
            }),
        }
    }

    pub(super) fn forget(&self, to: SocketAddr) {
        self.idle.lock().hosts.remove(&to);
    }

    async fn connect(&self, to: SocketAddr) -> Result<Sender, Error> {
        let stream = self.dialer.dial(to).await?;
        let (sender, connection) = http1::Builder::new()
            // Go's canonical casing, which apps behind Knative are used to. Carrying the client's own casing
            // through would cost a map per request.
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Error::Upstream)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%to, %error, "Upstream connection failed");
            }
        });
        Ok(sender)
    }

    fn accept(
        self: &Arc<Self>,
        to: SocketAddr,
        sender: Sender,
        response: http::Response<hyper::body::Incoming>,
        asked: Asked,
    ) -> Result<Response, SendError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let mut answer = Response::default();
            (*answer.status_mut(), *answer.headers_mut()) = (response.status(), response.headers().clone());
            let tunnel = switch(asked.wish, response).map_err(|source| SendError::Failed { source })?;
            *answer.body_mut() = Body::tunnel(tunnel);
            return Ok(answer);
        }
        let lease = super::Lease::Http1(Lease { pool: Arc::downgrade(self), to, sender });
        let mut response = response.map(|incoming| Body::from_upstream(incoming, lease));
        if let Some(permission) = asked.permission {
            permission.answered();
            response = response.map(|body| body.guarded(permission));
        }
        // The upstream's version is its own affair; an HTTP/1.0 here would end the client's connection.
        *response.version_mut() = Version::HTTP_11;
        Ok(response)
    }

    // The most recently used first: it is the least likely to be closed, and the others can age.
    fn take(&self, to: SocketAddr) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let connections = idle.hosts.get_mut(&to)?;
        while let Some(connection) = connections.pop() {
            if connection.sender.is_ready() {
                return Some(connection.sender);
            }
        }
        None
    }

    fn put(self: &Arc<Self>, to: SocketAddr, sender: Sender) {
        let max_idle = self.max_idle.load(Ordering::Relaxed);
        let mut idle = self.idle.lock();
        let is_full = max_idle < usize::MAX && idle.hosts.values().map(Vec::len).sum::<usize>() >= max_idle;
        let connections = idle.hosts.entry(to).or_default();
        if is_full || connections.len() >= self.params.max_idle_per_host {
            return;
        }
        connections.push(Idle { sender, since: Instant::now() });
        if !idle.swept {
            idle.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self), self.params.idle_timeout));
        }
    }
}

/// Closes connections that were idle for too long; ends when there are none left or the pool is gone.
async fn sweep(pool: Weak<Pool>, idle_timeout: Duration) {
    loop {
        sleep(idle_timeout / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock();
        idle.hosts.retain(|_, connections| {
            connections.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < idle_timeout);
            !connections.is_empty()
        });
        if idle.hosts.is_empty() {
            idle.swept = false;
            return;
        }
    }
}

/// A connection whose response is still being read.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Weak<Pool>,
    to: SocketAddr,
    sender: Sender,
}

impl Lease {
    /// The response has been read to its end: keep the connection for the next request.
    pub(crate) fn give_back(mut self) {
        // No pool or no runtime: the process is on its way out, and the connection closes with the sender.
        let (Some(pool), Ok(runtime)) = (self.pool.upgrade(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        if self.sender.is_ready() {
            pool.put(self.to, self.sender);
        } else if !self.sender.is_closed() {
            // The connection's task has not got round to it, or the request's body is still on its way.
            runtime.spawn(async move {
                if self.sender.ready().await.is_ok() {
                    pool.put(self.to, self.sender);
                }
            });
        }
    }
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
    let has_length = request.headers().contains_key(header::CONTENT_LENGTH);
    if !has_length && request.body().size_hint().exact().is_none() {
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
