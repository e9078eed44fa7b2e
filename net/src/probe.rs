//! Probes: asking a server whether it is well, and the answer both proxies give to a network probe.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Collected, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{Body, Error, Request, Response, error, headers, plain};

/// What a probed server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// Its status.
    pub status: StatusCode,
    /// The beginning of its body, up to [`MAX_ANSWER_BYTES`]; empty if it was longer or broke off.
    pub body: Bytes,
}

impl ProbeAnswer {
    /// Whether the status is 200 to 399, as Kubernetes counts success.
    pub fn is_success(&self) -> bool {
        self.status.is_success() || self.status.is_redirection()
    }
}

/// Why a probe got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The path is not one.
    #[error("`{0}` is not a path")]
    Path(String),
    /// The connection failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Longer bodies are no answer to a probe.
pub const MAX_ANSWER_BYTES: usize = 4096;

/// Asks once, over a connection of its own that is closed afterwards. Redirects are not followed. `Host` is
/// `to` unless `headers` has one.
pub async fn probe(
    to: SocketAddr,
    path: &str,
    headers: HeaderMap,
    limit: Duration,
) -> Result<ProbeAnswer, ProbeError> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().map_err(|_| ProbeError::Path(path.to_owned()))?;
    *request.headers_mut() = headers;
    timeout(limit, ask(to, request))
        .await
        .map_err(|_| ProbeError::TimedOut(limit))?
        .map_err(ProbeError::Failed)
}

/// Opens a connection. Somebody who knocks again and again at a local port that nobody listens on is, sooner or
/// later, given that very port as the near end, and then TCP connects it to itself: that is a refusal, too.
pub async fn connect(to: SocketAddr) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect(to).await.map_err(|source| Error::Connect { to, source })?;
    if stream.local_addr().is_ok_and(|near| near == to) {
        // Gone without a trace, or the port would be taken for a minute when its owner comes.
        let _ = stream.set_zero_linger();
        return Err(Error::Connect { to, source: io::ErrorKind::ConnectionRefused.into() });
    }
    Ok(stream)
}

async fn ask(to: SocketAddr, mut request: Request) -> Result<ProbeAnswer, Error> {
    if let Ok(host) = HeaderValue::try_from(to.to_string()) {
        request.headers_mut().entry(header::HOST).or_insert(host);
    }
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    let stream = connect(to).await?;
    let mut builder = http1::Builder::new();
    let (mut sender, connection) =
        builder.title_case_headers(true).handshake(TokioIo::new(stream)).await.map_err(Error::Upstream)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(Error::from_client)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        Ok(ProbeAnswer { status, body: body.map(Collected::to_bytes).unwrap_or_default() })
    };
    // The connection runs in this task, so that nothing is left behind when the probe is dropped.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

/// The answer to `K-Network-Probe: probe`, which an ingress sends to learn that a path leads here: the hash comes
/// back. `None` if this is not one.
pub fn answer_network_probe(request: &HeaderMap) -> Option<Response> {
    if request.get(headers::NETWORK_PROBE).is_none_or(|value| value != headers::PROBE) {
        return None;
    }
    let Some(hash) = request.get(headers::NETWORK_HASH).filter(|hash| !hash.is_empty()) else {
        let text = "a probe request must contain a non-empty \"K-Network-Hash\" header";
        return Some(plain(StatusCode::BAD_REQUEST, text));
    };
    let mut response = error::empty(StatusCode::OK);
    response.headers_mut().insert(headers::NETWORK_HASH, hash.clone());
    Some(response)
}
