//! One request over a connection of its own, for callers that ask seldom and keep nothing: probes, exporters, commands.
//!
//! [`get`] is the usual way to ask; [`open`] leaves the body to be read as a stream; [`ask`] sends any request in any
//! protocol. [`Upstreams::get`](crate::Upstreams::get) sends the same [`Get`] over a connection that is kept.
//!
//! Futures are boxed here: of an `async fn`, every crate that awaits it would compile the whole client again.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Collected, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, timeout, timeout_at};

use crate::dial::connect;
use crate::h1::client::{Connection, Unanswered};
use crate::tls::{ClientTls, handshake_refusal};
use crate::transport::Transport;
use crate::{Body, Error, Request, Response, Target};

/// A `GET` for something small: its path and headers, its time limit, and the most bytes of a body that it takes.
///
/// ```no_run
/// # async fn page(pod: std::net::SocketAddr) -> Result<bytes::Bytes, pilotlight_net::once::GetError> {
/// use std::time::Duration;
/// use pilotlight_net::once::{self, Get};
///
/// let page = Get::new("/metrics").within(Duration::from_millis(500)).at_most(1 << 20);
/// once::get(pod, &page).await?.success()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Get<'a> {
    path: &'a str,
    headers: HeaderMap,
    limit: Duration,
    max_body_bytes: usize,
}

impl<'a> Get<'a> {
    /// Asks for `path` (and query) with no headers but `Host`, waits for 5 seconds, and takes up to 1 MiB.
    pub fn new(path: &'a str) -> Self {
        Get { path, headers: HeaderMap::new(), limit: DEFAULT_LIMIT, max_body_bytes: DEFAULT_MAX_BODY_BYTES }
    }

    /// Adds a header. `Host` replaces the address that is asked.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Waits no longer than this, from the attempt to connect to the end of the body.
    pub fn within(self, limit: Duration) -> Self {
        Get { limit, ..self }
    }

    /// Takes no body of more than so many bytes.
    pub fn at_most(self, max_body_bytes: usize) -> Self {
        Get { max_body_bytes, ..self }
    }

    fn request(&self, host: impl FnOnce() -> String) -> Result<Request, GetError> {
        let path = Some(self.path).filter(|path| path.starts_with('/')).map(PathAndQuery::try_from);
        let Some(Ok(path)) = path else { return Err(GetError::Path(self.path.to_owned())) };
        let mut request = request(Version::HTTP_11, self.headers.clone());
        *request.uri_mut() = Uri::from(path);
        insert_host(&mut request, host);
        Ok(request)
    }

    /// Has `send` send the request, and reads all of the response.
    pub(crate) async fn run<B>(
        &self,
        to: SocketAddr,
        send: impl AsyncFnOnce(&mut Request) -> Result<http::Response<B>, Error>,
    ) -> Result<Answer, GetError>
    where
        B: http_body::Body<Data = Bytes, Error = Error>,
    {
        let deadline = Instant::now() + self.limit;
        let mut request = self.request(|| to.to_string())?;
        let head = timeout_at(deadline, send(&mut request)).await;
        let (head, body) = head.map_err(|_| GetError::TimedOut(self.limit))??.into_parts();
        let body = timeout_at(deadline, collect(body, self.max_body_bytes)).await;
        Ok(Answer::new(head, body.unwrap_or(Err(BodyError::TimedOut(self.limit)))))
    }
}

/// A response that was read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body, or why there is none.
    pub body: Result<Bytes, BodyError>,
    /// The trailers behind the body.
    pub trailers: HeaderMap,
}

impl Answer {
    fn new(head: http::response::Parts, body: Result<Collected<Bytes>, BodyError>) -> Self {
        let trailers = body.as_ref().ok().and_then(Collected::trailers).cloned().unwrap_or_default();
        Answer { status: head.status, headers: head.headers, body: body.map(Collected::to_bytes), trailers }
    }

    /// The whole body of a response that was a success (2xx).
    pub fn success(self) -> Result<Bytes, GetError> {
        if !self.status.is_success() {
            return Err(GetError::Status(self.status));
        }
        Ok(self.body?)
    }
}

/// Why a `GET` brought nothing back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The path is malformed.
    #[error("`{0}` is not a path: one begins with `/` and has no spaces")]
    Path(String),
    /// No head of a response came in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The connection failed.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The response is no success.
    #[error("answered {0}")]
    Status(StatusCode),
    /// The body of the response could not be read.
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body is longer than its reader takes.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// The end of the body did not come in time.
    #[error("no end of the body within {0:?}")]
    TimedOut(Duration),
    /// The body broke off.
    #[error(transparent)]
    Failed(Error),
}

/// Sends a `GET` over HTTP/1.1 and reads all of the response. The connection is closed in the end.
pub fn get<'a>(to: SocketAddr, get: &'a Get<'_>) -> BoxFuture<'a, Result<Answer, GetError>> {
    Box::pin(get.run(to, async move |request| http1(Transport::new(connect(to).await?), request).await))
}

/// Sends a `GET` over HTTP/1.1 and returns when the head of the response is there, whose body is then read as it
/// comes: the time limit of `get` is for the head, the size limit for nothing. The path is that of `get`. The
/// connection is closed when the body is dropped.
pub fn open<'a>(to: &'a Target, get: &'a Get<'_>) -> BoxFuture<'a, Result<Response, GetError>> {
    Box::pin(async move {
        let mut request = get.request(|| to.authority())?;
        let head = timeout(get.limit, async {
            let stream = to.connect().await?;
            http1(Transport::new(stream), &mut request).await
        });
        let response = head.await.map_err(|_| GetError::TimedOut(get.limit))??;
        Ok(response.map(Body::stream))
    })
}

/// Sends the request in the protocol of its version, HTTP/2 by prior knowledge, and reads all of the response.
/// `Host` is `to` unless the request names one. The connection is closed in the end, and nothing is left behind
/// when the future is dropped. Sets no time limit.
pub fn ask<'a>(
    to: SocketAddr,
    tls: Option<&'a ClientTls>,
    request: Request,
    max_body_bytes: usize,
) -> BoxFuture<'a, Result<Answer, Error>> {
    Box::pin(ask_in_place(to, tls, request, max_body_bytes))
}

async fn ask_in_place(
    to: SocketAddr,
    tls: Option<&ClientTls>,
    mut request: Request,
    max_body_bytes: usize,
) -> Result<Answer, Error> {
    let stream = connect(to).await?;
    let transport = match tls {
        None => Transport::new(stream),
        Some(tls) => match Box::pin(tls.connect(stream, request.version())).await {
            Ok(stream) => Transport::new(tokio_rustls::TlsStream::from(stream)),
            Err(cause) => {
                return Err(handshake_refusal(&cause).map_or(Error::Connect { to, cause }, Error::Handshake));
            }
        },
    };
    if request.version() == Version::HTTP_2 {
        let request = with_authority(to, tls.is_some(), request);
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(transport)).await.map_err(Error::Upstream)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(Error::from_client)?;
            let (head, body) = response.into_parts();
            Ok(Answer::new(head, collect(body.map_err(Error::from_client), max_body_bytes).await))
        };
        alongside(exchange, connection).await
    } else {
        insert_host(&mut request, || to.to_string());
        let (head, body) = http1(transport, &mut request).await?.into_parts();
        Ok(Answer::new(head, collect(body, max_body_bytes).await))
    }
}

/// Sends a request over HTTP/1.1. The body of the response is the connection itself.
async fn http1(transport: Transport, request: &mut Request) -> Result<http::Response<Connection>, Error> {
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    let mut connection = Connection::new(transport, false);
    let response = connection.send(request, drop).await.map_err(Unanswered::into_error)?;
    Ok(response.map(|_| connection))
}

/// Polls `exchange` and the connection that it needs in one task, so that the connection ends when the caller does.
async fn alongside<T>(exchange: impl Future<Output = T>, connection: impl Future) -> T {
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

async fn collect<B>(body: B, max_bytes: usize) -> Result<Collected<Bytes>, BodyError>
where
    B: http_body::Body<Data = Bytes, Error = Error>,
{
    // Limited has an error of its own for the limit, and passes on the body's `Error`.
    Limited::new(body, max_bytes).collect().await.map_err(|error| match error.downcast() {
        Ok(error) => BodyError::Failed(*error),
        Err(_) => BodyError::TooLong(max_bytes),
    })
}

fn insert_host(request: &mut Request, host: impl FnOnce() -> String) {
    if !request.headers().contains_key(header::HOST)
        // An address and an authority are legal header values.
        && let Ok(host) = HeaderValue::try_from(host())
    {
        request.headers_mut().insert(header::HOST, host);
    }
}

fn with_authority(to: SocketAddr, is_secure: bool, mut request: Request) -> Request {
    let named = request.headers_mut().remove(header::HOST);
    let named = named.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let scheme = if is_secure { Scheme::HTTPS } else { Scheme::HTTP };
    let uri = Uri::builder().scheme(scheme).path_and_query(path);
    let uri = match named {
        Some(authority) => uri.authority(authority),
        None => uri.authority(to.to_string()),
    };
    // All parts are legal by themselves, and none is missing.
    if let Ok(uri) = uri.build() {
        *request.uri_mut() = uri;
    }
    request
}

/// A request to be filled in.
pub(crate) fn request(version: Version, headers: HeaderMap) -> Request {
    let mut request = Request::new(Body::empty());
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    request
}

const DEFAULT_LIMIT: Duration = Duration::from_secs(5);
const DEFAULT_MAX_BODY_BYTES: usize = 1 << 20;
