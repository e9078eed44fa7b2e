//! Connections to upstreams: TCP, and TLS on top where it is asked for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::Error;
use crate::probe::connect;
use crate::tls::{MaybeTls, PodTls, handshake_refusal};

/// Opens connections for one pool. All of a pool's are alike, so that one proved to be a pod of one namespace is never
/// used for another's.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    /// For TCP and TLS together.
    limit: Duration,
    tls: Option<PodIdentity>,
}

#[derive(Clone, Debug)]
struct PodIdentity {
    tls: Arc<PodTls>,
    namespace: String,
}

impl Dialer {
    pub(crate) fn plain(limit: Duration) -> Self {
        Dialer { limit, tls: None }
    }

    pub(crate) fn to_pods_of(namespace: &str, tls: Arc<PodTls>, limit: Duration) -> Self {
        Dialer { limit, tls: Some(PodIdentity { tls, namespace: namespace.to_owned() }) }
    }

    pub(crate) async fn dial(&self, to: SocketAddr) -> Result<MaybeTls, Error> {
        timeout(self.limit, self.dial_unbounded(to))
            .await
            .map_err(|_| Error::ConnectTimeout { to, after: self.limit })?
    }

    async fn dial_unbounded(&self, to: SocketAddr) -> Result<MaybeTls, Error> {
        let broken = |source: io::Error| Error::Connect { to, source };
        let stream = connect(to).await?;
        stream.set_nodelay(true).map_err(broken)?;
        let Some(PodIdentity { tls, namespace }) = &self.tls else { return Ok(stream.into()) };
        // Boxed: those who need no handshake need not carry the room for one.
        match Box::pin(tls.connect(stream, namespace)).await {
            Ok(stream) => Ok(tokio_rustls::TlsStream::from(stream).into()),
            Err(source) => Err(handshake_refusal(&source).map_or_else(|| broken(source), Error::Handshake)),
        }
    }
}
