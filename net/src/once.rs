//! One request over a connection of its own, for those who ask seldom and keep nothing: probes, exporters.

use std::net::SocketAddr;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Collected, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::h1::client::{Connection, Unanswered};
use crate::probe::connect;
use crate::tls::{ClientTls, handshake_refusal};
use crate::transport::Transport;
use crate::{Body, Error, Request};

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; empty if it was longer than allowed or broke off.
    pub body: Bytes,
    /// What followed the body.
    pub trailers: HeaderMap,
}

/// Sends the request in the protocol of its version, HTTP/2 by prior knowledge, and reads all of the response.
/// `Host` is `to` unless the request names one. The connection is closed in the end, and nothing is left behind
/// when the future is dropped.
pub async fn ask(
    to: SocketAddr,
    tls: Option<&ClientTls>,
    request: Request,
    max_body_bytes: usize,
) -> Result<Answer, Error> {
    let stream = connect(to).await?;
    let broken = |source| Error::Connect { to, source };
    stream.set_nodelay(true).map_err(broken)?;
    let transport = match tls {
        None => Transport::new(stream),
        Some(tls) => match Box::pin(tls.connect(stream, request.version())).await {
            Ok(stream) => Transport::new(tokio_rustls::TlsStream::from(stream)),
            Err(source) => {
                return Err(handshake_refusal(&source).map_or_else(|| broken(source), Error::Handshake));
            }
        },
    };
    if request.version() == Version::HTTP_2 {
        let request = with_authority(to, tls.is_some(), request);
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(transport)).await.map_err(Error::Upstream)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(Error::from_client)?;
            Ok(read(response, max_body_bytes).await)
        };
        alongside(exchange, connection).await
    } else {
        let mut request = with_host(to, request);
        let mut connection = Connection::new(transport);
        let response = connection.send(&mut request, drop).await.map_err(Unanswered::into_error)?;
        Ok(read(response.map(|_| connection), max_body_bytes).await)
    }
}

// The connection runs in the caller's task, so that it goes when the caller does.
async fn alongside<T>(exchange: impl Future<Output = T>, connection: impl Future) -> T {
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

async fn read(
    response: http::Response<
        impl http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
    >,
    max_body_bytes: usize,
) -> Answer {
    let (head, body) = response.into_parts();
    // What ends it early is no concern of who asks: there is no body then.
    let collected = Limited::new(body, max_body_bytes).collect().await.ok();
    let trailers = collected.as_ref().and_then(Collected::trailers).cloned().unwrap_or_default();
    let body = collected.map(Collected::to_bytes).unwrap_or_default();
    Answer { status: head.status, headers: head.headers, body, trailers }
}

fn with_host(to: SocketAddr, mut request: Request) -> Request {
    let headers = request.headers_mut();
    // An address is always a legal header value.
    if let Ok(host) = HeaderValue::try_from(to.to_string()) {
        headers.entry(header::HOST).or_insert(host);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
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
    // All parts are legal by themselves, and nothing is missing.
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
