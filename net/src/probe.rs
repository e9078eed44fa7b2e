//! Probes of servers' health, and the answer of both proxies to a network probe.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};
use tokio::time::timeout;

use crate::tls::ClientTls;
use crate::{Error, Response, headers, message, once, plain};

/// The answer of a probed server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// The status.
    pub status: StatusCode,
    /// The body, of up to [`MAX_ANSWER_BYTES`]; empty if it was longer or broke off.
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
    /// The answer took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The path is malformed.
    #[error("`{0}` is not a path: one begins with `/` and has no spaces")]
    Path(String),
    /// The connection failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Bytes of the longest body that is read of an answer.
pub const MAX_ANSWER_BYTES: usize = 4096;

/// The protocol of a probe.
#[derive(Clone, Debug)]
pub enum Speech {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in the clear, by prior knowledge.
    Http2,
    /// HTTP/1.1 over TLS.
    Https(ClientTls),
}

/// Asks once over HTTP/1.1; see [`probe_in`].
pub async fn probe(
    to: SocketAddr,
    path: &str,
    headers: HeaderMap,
    limit: Duration,
) -> Result<ProbeAnswer, ProbeError> {
    probe_in(&Speech::Http1, to, path, headers, limit).await
}

/// Asks once, over a connection of its own that is closed afterwards. Redirects are not followed. `Host` is
/// `to` unless `headers` has one.
pub async fn probe_in(
    speech: &Speech,
    to: SocketAddr,
    path: &str,
    headers: HeaderMap,
    limit: Duration,
) -> Result<ProbeAnswer, ProbeError> {
    let (version, tls) = match speech {
        Speech::Http1 => (Version::HTTP_11, None),
        Speech::Http2 => (Version::HTTP_2, None),
        Speech::Https(tls) => (Version::HTTP_11, Some(tls)),
    };
    let mut request = once::request(version, headers);
    *request.uri_mut() = path.parse().map_err(|_| ProbeError::Path(path.to_owned()))?;
    let asked = timeout(limit, once::ask(to, tls, request, MAX_ANSWER_BYTES)).await;
    let answer = asked.map_err(|_| ProbeError::TimedOut(limit))??;
    Ok(ProbeAnswer { status: answer.status, body: answer.body.unwrap_or_default() })
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
    let mut response = message::empty(StatusCode::OK);
    response.headers_mut().insert(headers::NETWORK_HASH, hash.clone());
    Some(response)
}
