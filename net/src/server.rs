//! Bringing requests in: accept, read, hand to a [`Handler`], write its response.
//!
//! One task per connection. HTTP/1.1 and HTTP/2 by prior knowledge, told apart by the client's first bytes,
//! with or without TLS: nobody has to negotiate what it is about to say anyway.

mod overdue;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsStream;
use tracing::{debug, warn};

use self::overdue::Stragglers;
use crate::alarm::Alarm;
use crate::body::ClientBody;
use crate::handler::Handler;
use crate::preface::{FIRST_WORDS_TIMEOUT, Protocol, sniff};
use crate::refusal::refusal;
use crate::tls::ServerTls;
use crate::transport::Transport;
use crate::{Body, Client, Drain, Request, Response, h1, h2, hop};

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
    // Every connection holds one; when the last has gone, all have.
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
                    serve_connection(stream, tls, peer, handler, drain).await;
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

async fn serve_connection<H: Handler>(
    stream: TcpStream,
    tls: Option<Arc<ServerTls>>,
    peer: SocketAddr,
    handler: Arc<H>,
    drain: Drain,
) {
    let local = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
        Ok(local) => local,
        Err(error) => {
            debug!(%peer, %error, "Client left before its first request");
            return;
        }
    };
    let ends = Ends { peer, local };
    let sniffed = tokio::select! {
        biased;
        sniffed = timeout(FIRST_WORDS_TIMEOUT, begin(stream, tls)) => sniffed,
        // Nothing was asked yet.
        () = drain.started() => return,
    };
    match sniffed {
        Ok(Ok((Protocol::Http1, stream))) => serve_http1(stream, ends, handler, drain).await,
        // Boxed: twice as large as the other, which need not carry the room for it.
        Ok(Ok((Protocol::Http2, stream))) => {
            Box::pin(serve_http2(stream, ends, Version::HTTP_2, handler, drain)).await;
        }
        Ok(Err(error)) => debug!(%peer, %error, "Client connection failed"),
        Err(_) => debug!(%peer, "Client said nothing"),
    }
}

/// The two addresses of one connection.
#[derive(Clone, Copy)]
struct Ends {
    peer: SocketAddr,
    local: SocketAddr,
}

impl Ends {
    fn client(self) -> Client {
        Client::new(self.peer).at(self.local)
    }
}

/// What the client speaks, and over what.
async fn begin(stream: TcpStream, tls: Option<Arc<ServerTls>>) -> io::Result<(Protocol, Transport)> {
    let mut transport = match tls {
        None => Transport::new(stream),
        // Boxed: connections in the clear need not carry the room for a handshake.
        Some(tls) => Transport::new(TlsStream::from(Box::pin(tls.accept(stream)).await?)),
    };
    Ok((sniff(&mut transport).await?, transport))
}

async fn serve_http1<H: Handler>(stream: Transport, ends: Ends, handler: Arc<H>, drain: Drain) {
    let client = |link| ends.client().over(link);
    let switched = {
        // Pinned here: handed over by value it would be kept twice, once as an argument and once to be polled.
        let connection = pin!(h1::server::serve(stream, client, &*handler, &drain));
        until_forced(&drain, connection).await
    };
    if let Some(Some(stream)) = switched {
        // Who offers to switch speaks both, and the app may not: it is spoken to as it would have been.
        Box::pin(serve_http2(stream, ends, Version::HTTP_11, handler, drain)).await;
    }
}

/// Drives the connection to its end; `None`: it was cut. It is polled when the drain starts.
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

/// `version` is what the requests are taken for.
async fn serve_http2<H: Handler>(
    stream: Transport,
    ends: Ends,
    version: Version,
    handler: Arc<H>,
    drain: Drain,
) {
    let stragglers = Stragglers::default();
    let (watching, client) = (stragglers.clone(), ends.client());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        // Each stream has a task of its own.
        let (handler, watching, client) = (Arc::clone(&handler), watching.clone(), client.of_stream());
        async move {
            let mut request = request.map(|incoming| Body::from_client(ClientBody::Http2(incoming)));
            let is_head = request.method() == Method::HEAD;
            name_host(&mut request);
            *request.version_mut() = version;
            let mut response = match refusal(&request) {
                Some(response) => response,
                None => handler.handle(&client, request).await,
            };
            if is_head && !response.body().is_end_stream() {
                without_body(&mut response);
            }
            Ok::<_, Infallible>(response.map(|body| watching.watch(body)))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(h2::MAX_STREAMS)
        .initial_stream_window_size(h2::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(h2::CONNECTION_WINDOW_BYTES)
        .max_frame_size(h2::MAX_FRAME_BYTES)
        .max_header_list_size(h2::MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let alarm = Alarm::default();
    let graceful_shutdown = http2::Connection::graceful_shutdown;
    drive(connection, graceful_shutdown, |cx| stragglers.poll(cx, &alarm), ends.peer, drain).await;
}

/// Sees a connection through: until it has ended, or is cut because the drain is forced or `must_cut` is ready.
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
        // The drain is asked first, so that a response made in this very moment already says `Connection: close`.
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

/// HTTP/2 names the host in a pseudo-header. Handlers find it where HTTP/1.1 has it, and need not ask which it was.
fn name_host(request: &mut Request) {
    if request.method() == Method::CONNECT {
        return;
    }
    hop::to_origin_form(request);
}

/// hyper leaves this to us over HTTP/2.
fn without_body(response: &mut Response) {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    response.body_mut().discard();
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
