//! Connections to upstreams: TCP, and TLS on top where a pool asks for it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Error;
use crate::keep_alive::{UPSTREAMS, keep_alive};
use crate::tls::{MaybeTls, PodTls, handshake_refusal};

/// Opens the connections of one pool. They are all alike, so that a connection to a pod that has proved its namespace is
/// never used for another namespace.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    /// Time for TCP and TLS together.
    limit: Duration,
    tls: Option<PodIdentity>,
    /// Upstreams are apps beside this process.
    to_apps: bool,
}

#[derive(Clone, Debug)]
struct PodIdentity {
    tls: Arc<PodTls>,
    namespace: String,
}

impl Dialer {
    pub(crate) fn plain(limit: Duration) -> Self {
        Dialer { limit, tls: None, to_apps: false }
    }

    pub(crate) fn to_apps(limit: Duration) -> Self {
        Dialer { to_apps: true, ..Dialer::plain(limit) }
    }

    pub(crate) fn to_pods_of(namespace: &str, tls: Arc<PodTls>, limit: Duration) -> Self {
        let tls = Some(PodIdentity { tls, namespace: namespace.to_owned() });
        Dialer { tls, ..Dialer::plain(limit) }
    }

    /// Time that a connection may take to come about.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    pub(crate) async fn dial(&self, to: SocketAddr) -> Result<MaybeTls, Error> {
        timeout(self.limit, self.dial_unbounded(to))
            .await
            .map_err(|_| Error::ConnectTimeout { to, after: self.limit })?
    }

    async fn dial_unbounded(&self, to: SocketAddr) -> Result<MaybeTls, Error> {
        let stream = match connect(to).await {
            Err(refused) if self.to_apps => connect_by_ipv6(to, refused).await?,
            dialed => dialed?,
        };
        let Some(PodIdentity { tls, namespace }) = &self.tls else { return Ok(stream.into()) };
        // Boxed: connections in the clear need not carry the room for a handshake.
        match Box::pin(tls.connect(stream, namespace)).await {
            Ok(stream) => Ok(tokio_rustls::TlsStream::from(stream).into()),
            Err(cause) => {
                Err(handshake_refusal(&cause).map_or(Error::Connect { to, cause }, Error::Handshake))
            }
        }
    }
}

/// The other address of this host, if an app that is asked for at 127.0.0.1 may listen there instead: `localhost` is `::1`
/// for many development servers.
pub fn other_localhost(to: SocketAddr) -> Option<SocketAddr> {
    (to.ip() == Ipv4Addr::LOCALHOST).then(|| (Ipv6Addr::LOCALHOST, to.port()).into())
}

async fn connect_by_ipv6(to: SocketAddr, failure: Error) -> Result<TcpStream, Error> {
    match other_localhost(to).filter(|_| failure.is_refused()) {
        Some(other) => connect(other).await.map_err(|_| failure),
        None => Err(failure),
    }
}

/// Opens a TCP connection.
///
/// A connection to itself counts as a refusal: a caller that knocks again and again at a local port where nobody listens
/// is, sooner or later, given that very port for its own end, and TCP connects the two (RFC 9293, 3.5).
pub async fn connect(to: SocketAddr) -> Result<TcpStream, Error> {
    let failed = |cause| Error::Connect { to, cause };
    let stream = TcpStream::connect(to).await.map_err(failed)?;
    if stream.local_addr().is_ok_and(|local| local == to) {
        // Reset rather than closed: TIME-WAIT would keep the port from its owner for a minute.
        let _ = stream.set_zero_linger();
        return Err(failed(io::ErrorKind::ConnectionRefused.into()));
    }
    stream.set_nodelay(true).map_err(failed)?;
    keep_alive(&stream, UPSTREAMS).map_err(failed)?;
    Ok(stream)
}
