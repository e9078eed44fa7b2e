//! Sending requests to upstreams over connections that are kept for the next one.
//!
//! HTTP/2 requests go out as HTTP/2, by prior knowledge (RFC 9113, 3.3), all others as HTTP/1.1. So an app speaks with its
//! clients in their own protocol, and nothing that only one of the two can say is lost on the way.

mod breaks;
mod h1;
mod h2;
mod kept;
mod retry;
mod width;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Version;

pub use self::retry::{SendError, is_replayable};
use crate::dial::Dialer;
use crate::once::{Answer, Get, GetError};
use crate::tls::PodTls;
use crate::{Client, Error, Request, Response, Transport};

/// The pools of kept connections. One per proxy process.
#[derive(Clone, Debug)]
pub struct Upstreams {
    http1: Arc<h1::Http1Pool>,
    http2: Arc<h2::Http2Pool>,
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

/// PING frames to an upstream that has requests under way and says nothing: one that has vanished does not answer.
#[derive(Clone, Copy, Debug)]
pub struct Pings {
    /// Silence after which it is asked.
    pub interval: Duration,
    /// Time that it has to answer.
    pub timeout: Duration,
}

impl Default for Pings {
    fn default() -> Self {
        Pings { interval: Duration::from_secs(15), timeout: Duration::from_secs(15) }
    }
}

impl Upstreams {
    /// Pools without connections.
    pub fn new(params: UpstreamParams) -> Self {
        Upstreams::over(&Dialer::plain(params.connect_timeout), params)
    }

    /// Pools of connections to apps beside this process. An app that does not listen on 127.0.0.1 is looked for on `::1`.
    pub fn to_apps(params: UpstreamParams) -> Self {
        Upstreams::over(&Dialer::to_apps(params.connect_timeout), params)
    }

    /// Pools of connections to pods. One that does not answer the first SYN within a quarter of a second is sent a second.
    pub fn to_pods(params: UpstreamParams) -> Self {
        Upstreams::over(&Dialer::to_pods(params.connect_timeout), params)
    }

    /// Pools of TLS connections to the pods of one namespace.
    pub fn over_tls(params: UpstreamParams, tls: Arc<PodTls>, namespace: &str) -> Self {
        Upstreams::over(&Dialer::to_pods_of(namespace, tls, params.connect_timeout), params)
    }

    fn over(dialer: &Dialer, params: UpstreamParams) -> Self {
        let UpstreamParams { max_idle_per_host, idle_timeout, .. } = params;
        Upstreams {
            http1: h1::Http1Pool::new(dialer, max_idle_per_host, idle_timeout),
            http2: h2::Http2Pool::new(dialer, idle_timeout, Some(Pings::default())),
        }
    }

    /// Keeps no more than this many idle connections to all upstreams together, beside the limit for each.
    pub fn keep_no_more_than(self, max_idle: usize) -> Self {
        self.http1.keep_no_more_than(max_idle);
        self
    }

    /// Asks upstreams that say nothing at these times; `None`: never.
    pub fn pinging(self, pings: Option<Pings>) -> Self {
        Upstreams { http2: self.http2.pinging(pings), ..self }
    }

    /// Takes upstreams for proxies that may send requests back (see [`mark_unsent`](crate::mark_unsent)), over HTTP/1.1: up
    /// to 64 KiB of a request's body are kept for that until its response begins.
    pub fn to_proxies(self) -> Self {
        self.http1.to_proxies();
        self
    }

    /// Sends the request as it is (see [`prepare_forward`](crate::prepare_forward)) and returns when the head of the
    /// response is there. The request's version says which protocol is spoken. The connection is kept once the
    /// response's body has been read to its end.
    ///
    /// The request is taken out of its place, and put back if it [was not sent](SendError::NotSent) or
    /// [may be sent again](SendError::Replayable).
    ///
    /// A kept connection may turn out to be closed. A request of which no byte was written, or that the upstream says it
    /// has not processed (RFC 9113, 8.7), is then sent again whatever it is; one that was written, only if it is idempotent
    /// and has no body (RFC 9110, 9.2.2), as in Go (net/http, `Request.isReplayable`). A request [of that kind](is_replayable)
    /// is put back with its response, too: the response may be that of a proxy whose app has died.
    ///
    /// `client` is sent interim (1xx) responses, such as `103 Early Hints`. If the time of its request is over before there is
    /// a connection, the request is not sent (see [`with_timeouts`](crate::with_timeouts)).
    pub async fn send(
        &self,
        client: &Client,
        to: SocketAddr,
        request: &mut Request,
    ) -> Result<Response, SendError> {
        let sent = match request.version() {
            // Boxed: its future is the larger of the two.
            Version::HTTP_2 => self.send_http2(client, to, request).await,
            _ => self.http1.send(client, to, request).await,
        };
        if let Err(SendError::NotSent { .. } | SendError::Replayable { .. }) = &sent {
            client.set_waiting();
        }
        sent
    }

    /// Made here, so that other crates do not compile HTTP/2 again.
    fn send_http2<'a>(
        &'a self,
        client: &'a Client,
        to: SocketAddr,
        request: &'a mut Request,
    ) -> BoxFuture<'a, Result<Response, SendError>> {
        Box::pin(self.http2.send(client, to, request))
    }

    /// Sends a `GET` that no client asked for, as [`once::get`](crate::once::get) does, but over a kept connection.
    pub fn get<'a>(&'a self, to: SocketAddr, get: &'a Get<'_>) -> BoxFuture<'a, Result<Answer, GetError>> {
        Box::pin(async move {
            let client = Client::ourselves();
            let send = async |request: &mut Request| {
                self.send(&client, to, request).await.map_err(SendError::into_error)
            };
            get.run(to, send).await
        })
    }

    /// Opens a connection that belongs to no pool.
    pub fn connect(&self, to: SocketAddr) -> BoxFuture<'_, Result<Transport, Error>> {
        Box::pin(async move { Ok(Transport::new(self.http1.dialer().dial(to).await?)) })
    }

    /// Drops the idle connections to an upstream that has left.
    pub fn forget(&self, to: SocketAddr) {
        self.http1.forget(to);
        self.http2.forget(to);
    }
}
