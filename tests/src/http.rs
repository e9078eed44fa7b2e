//! One request at a time, over a connection of its own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A whole response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A header's value; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends `GET path` with a `Host` header and reads the whole response, within a minute.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    let exchange = async {
        let stream = TcpStream::connect(address).await.context("connect")?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.context("handshake")?;
        let driver = tokio::spawn(driver);
        let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new())?;
        let (head, body) = sender.send_request(request).await.context("send")?.into_parts();
        let body = body.collect().await.context("body")?.to_bytes();
        driver.abort();
        let body = String::from_utf8(body.to_vec()).context("a body that is no text")?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    timeout(PATIENCE, exchange).await.with_context(|| format!("GET {path} took more than {PATIENCE:?}"))?
}

/// Sends these bytes as they are and returns what comes back until the other side closes the connection, or
/// has been silent for a second.
pub async fn send_raw(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await.context("connect")?;
    // The other side may well hang up in the middle of what it cannot understand.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    while let Ok(Ok(1..)) = timeout(Duration::from_secs(1), stream.read_buf(&mut answer)).await {}
    Ok(answer)
}

const PATIENCE: Duration = Duration::from_secs(60);
