//! Bringing requests in: accept, read, hand to a [`Handler`], write its response.
//!
//! One task per connection. HTTP/1.1; sniffing for HTTP/2 belongs in `serve_connection`, between the accepted
//! stream, with or without TLS, and the protocol.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Method, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::timeout::Overdue;
use crate::tls::{MaybeTls, ServerTls};
use crate::{Body, Drain, Request, Response, plain};

/// Answers requests. Never fails: a failure is a response too (see [`error`](crate::error)), or a response body
/// that ends with an error, which cuts the connection.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of the client at `peer`. Dropped unfinished when the client leaves.
    fn handle(&self, peer: SocketAddr, request: Request) -> impl Future<Output = Response> + Send;
}

/// Serves until `drain` was asked for and every connection has finished its request in flight; or, once
/// forced, at once.
pub async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>, drain: Drain) {
    accept(listener, None, handler, drain).await;
}

/// The same over TLS.
pub async fn serve_tls<H: Handler>(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    handler: Arc<H>,
    drain: Drain,
) {
    accept(listener, Some(tls), handler, drain).await;
}

async fn accept<H: Handler>(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    handler: Arc<H>,
    drain: Drain,
) {
    // Every connection holds a sender; when the receiver sees the end, the last one has gone.
    let (alive, mut all_gone) = mpsc::channel::<Infallible>(1);
    let mut stop = pin!(drain.started());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (handler, drain, alive) = (Arc::clone(&handler), drain.clone(), alive.clone());
                let tls = tls.clone();
                tokio::spawn(async move {
                    if let Some(stream) = secure(stream, peer, tls, &drain).await {
                        serve_connection(stream, peer, handler, drain).await;
                    }
                    drop(alive);
                });
            }
            Err(error) if is_about_one_connection(&error) => {
                debug!(%error, "Client left before it was accepted");
            }
            Err(error) => {
                // Out of file descriptors, most likely. Those in use will come free; retrying at once would spin.
                warn!(%error, "Cannot accept connections, retrying");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    drop(alive);
    all_gone.recv().await;
}

/// What the protocol is spoken over; `None`: the client has left, or there will be no agreement with it.
async fn secure(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    drain: &Drain,
) -> Option<MaybeTls> {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "Client left before its first request");
        return None;
    }
    let Some(tls) = tls else { return Some(stream.into()) };
    let handshake = tokio::select! {
        biased;
        handshake = timeout(HEADER_READ_TIMEOUT, Box::pin(tls.accept(stream))) => handshake,
        // Nothing was asked yet.
        () = drain.started() => return None,
    };
    match handshake {
        Ok(Ok(stream)) => Some(tokio_rustls::TlsStream::from(stream).into()),
        Ok(Err(error)) => {
            debug!(%peer, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            debug!(%peer, "TLS handshake took too long");
            None
        }
    }
}

async fn serve_connection<H: Handler>(stream: MaybeTls, peer: SocketAddr, handler: Arc<H>, drain: Drain) {
    let overdue = Overdue::default();
    let announced = overdue.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (handler, announced) = (Arc::clone(&handler), announced.clone());
        async move {
            let request = request.map(Body::incoming);
            let mut response = match refusal(&request) {
                Some(response) => response,
                None => handler.handle(peer, request).await,
            };
            response.body_mut().announce(&announced);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut alarm = None;
    let mut draining = false;
    let mut started = pin!(drain.started());
    let mut forced = pin!(drain.forced());
    let result = poll_fn(|cx| {
        // The drain is asked first, so that a response made in this very moment already says `Connection: close`.
        if !draining && started.as_mut().poll(cx).is_ready() {
            draining = true;
            connection.as_mut().graceful_shutdown();
        }
        if draining && forced.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => overdue.poll(cx, &mut alarm).map(|()| None),
        }
    })
    .await;
    if let Some(Err(error)) = result {
        debug!(%peer, error = %crate::error::chain(&error), "Client connection failed");
    }
}

/// What hyper lets pass and HTTP/1.1 does not: a request must name exactly one host. Two are an attempt to have
/// two proxies see two different ones.
fn refusal(request: &Request) -> Option<Response> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    match hosts {
        1 => None,
        0 if request.version() < Version::HTTP_11 || request.method() == Method::CONNECT => None,
        0 => Some(plain(StatusCode::BAD_REQUEST, "400 Bad Request: missing required Host header")),
        _ => Some(plain(StatusCode::BAD_REQUEST, "400 Bad Request: too many Host headers")),
    }
}

fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
