//! Taking requests to upstreams over connections that are kept for the next one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderValue, Method, Version, header};
use http_body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::dial::Dialer;
use crate::tls::PodTls;
use crate::{Body, Error, Request, Response};

/// A pool of kept HTTP/1.1 connections. One per proxy process.
#[derive(Clone, Debug)]
pub struct Upstreams {
    pool: Arc<Pool>,
}

/// How [`Upstreams`] keeps connections.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamParams {
    /// Idle connections kept per upstream address; more are closed.
    pub max_idle_per_host: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How long an upstream may take to accept a connection.
    pub connect_timeout: Duration,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No byte of the request reached the network: it comes back whole and may be sent anywhere else.
    #[error("{source}")]
    NotSent {
        /// The request, its body unread.
        request: Box<Request>,
        /// What went wrong.
        source: Error,
    },
    /// The upstream may have seen the request.
    #[error("{source}")]
    Failed {
        /// What went wrong.
        source: Error,
    },
}

impl SendError {
    /// There is no connection to send the request over. A pod that is not who it should be is not passed over for
    /// another: somebody must look into that.
    fn not_dialed(request: Request, source: Error) -> Self {
        match source {
            Error::Handshake(_) => SendError::Failed { source },
            _ => SendError::NotSent { request: Box::new(request), source },
        }
    }

    /// What went wrong, without the request.
    pub fn into_error(self) -> Error {
        match self {
            SendError::NotSent { source, .. } | SendError::Failed { source } => source,
        }
    }

    /// What went wrong.
    pub fn error(&self) -> &Error {
        match self {
            SendError::NotSent { source, .. } | SendError::Failed { source } => source,
        }
    }
}

impl Upstreams {
    /// An empty pool.
    pub fn new(params: UpstreamParams) -> Self {
        Upstreams::over(Dialer::plain(params.connect_timeout), params)
    }

    /// An empty pool of TLS connections to the pods of one namespace.
    pub fn over_tls(params: UpstreamParams, tls: Arc<PodTls>, namespace: &str) -> Self {
        Upstreams::over(Dialer::to_pods_of(namespace, tls, params.connect_timeout), params)
    }

    fn over(dialer: Dialer, params: UpstreamParams) -> Self {
        Upstreams { pool: Arc::new(Pool { dialer, params, idle: Mutex::default() }) }
    }

    /// Sends the request as it is (see [`prepare_forward`](crate::prepare_forward)) and returns when the head of
    /// the response is there. The connection is kept once the response's body has been read to its end.
    ///
    /// A kept connection that turns out to be closed costs nothing but a new one: a request that was not
    /// written is sent again whatever it is, and one that was written only if it is bodyless and idempotent.
    pub async fn send(&self, to: SocketAddr, mut request: Request) -> Result<Response, SendError> {
        if request.method() == Method::CONNECT {
            return Err(SendError::Failed { source: Error::UnsupportedConnect });
        }
        complete_head(to, &mut request);
        while let Some(mut sender) = self.pool.take(to) {
            let spare = is_replayable(&request).then(|| copy_head(&request));
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.accept(to, sender, response)),
                Err(mut failure) => match (failure.take_message(), spare) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(spare)) if is_stale(failure.error()) => request = spare,
                    (None, _) => {
                        return Err(SendError::Failed { source: Error::from_client(failure.into_error()) });
                    }
                },
            }
        }
        let mut sender = match self.connect(to).await {
            Ok(sender) => sender,
            Err(source) => return Err(SendError::not_dialed(request, source)),
        };
        match sender.try_send_request(request).await {
            Ok(response) => Ok(self.accept(to, sender, response)),
            Err(mut failure) => Err(match failure.take_message() {
                Some(request) => SendError::NotSent {
                    request: Box::new(request),
                    source: Error::from_client(failure.into_error()),
                },
                None => SendError::Failed { source: Error::from_client(failure.into_error()) },
            }),
        }
    }

    /// Drops the idle connections to an upstream that has left.
    pub fn forget(&self, to: SocketAddr) {
        self.pool.idle.lock().hosts.remove(&to);
    }

    async fn connect(&self, to: SocketAddr) -> Result<Sender, Error> {
        let stream = self.pool.dialer.dial(to).await?;
        let (sender, connection) = http1::Builder::new()
            // Go's canonical casing, which apps behind Knative are used to. Carrying the client's own casing
            // through would cost a map per request.
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Error::Upstream)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%to, %error, "Upstream connection failed");
            }
        });
        Ok(sender)
    }

    fn accept(
        &self,
        to: SocketAddr,
        sender: Sender,
        response: http::Response<hyper::body::Incoming>,
    ) -> Response {
        let lease = Lease { pool: Arc::downgrade(&self.pool), to, sender };
        let mut response = response.map(|incoming| Body::from_upstream(incoming, lease));
        // The upstream's version is its own affair; an HTTP/1.0 here would end the client's connection.
        *response.version_mut() = Version::HTTP_11;
        response
    }
}

type Sender = http1::SendRequest<Body>;

#[derive(Debug)]
struct Pool {
    dialer: Dialer,
    params: UpstreamParams,
    idle: Mutex<IdleConnections>,
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
        let mut idle = self.idle.lock();
        let connections = idle.hosts.entry(to).or_default();
        if connections.len() >= self.params.max_idle_per_host {
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

fn is_replayable(request: &Request) -> bool {
    request.body().is_end_stream()
        && (matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
            || request.headers().contains_key("idempotency-key")
            || request.headers().contains_key("x-idempotency-key"))
}

fn copy_head(request: &Request) -> Request {
    let mut copy = Request::default();
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Whether a kept connection broke as one does that the peer closed while it was idle.
fn is_stale(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_canceled() || error.is_closed() || {
        let source = std::error::Error::source(error);
        source.and_then(|cause| cause.downcast_ref::<std::io::Error>()).is_some()
    }
}
