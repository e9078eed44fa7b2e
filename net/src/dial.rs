//! Connections to upstreams: TCP, and TLS on top where a pool asks for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::net::{TcpSocket, TcpStream};
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
    to: Upstream,
}

/// The kind of the upstreams of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    Any,
    /// Apps beside this process.
    App,
    /// Pods, which come and go, and so do the routes to them.
    Pod,
}

#[derive(Clone, Debug)]
struct PodIdentity {
    tls: Arc<PodTls>,
    namespace: String,
}

impl Dialer {
    pub(crate) fn plain(limit: Duration) -> Self {
        Dialer { limit, tls: None, to: Upstream::Any }
    }

    pub(crate) fn to_apps(limit: Duration) -> Self {
        Dialer { to: Upstream::App, ..Dialer::plain(limit) }
    }

    pub(crate) fn to_pods(limit: Duration) -> Self {
        Dialer { to: Upstream::Pod, ..Dialer::plain(limit) }
    }

    pub(crate) fn to_pods_of(namespace: &str, tls: Arc<PodTls>, limit: Duration) -> Self {
        let tls = Some(PodIdentity { tls, namespace: namespace.to_owned() });
        Dialer { tls, ..Dialer::to_pods(limit) }
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
        let stream = match self.to {
            Upstream::Any => connect(to).await?,
            Upstream::App => match connect(to).await {
                Err(refused) => connect_by_ipv6(to, refused).await?,
                dialed => dialed?,
            },
            Upstream::Pod => connect_twice(to).await?,
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

/// Opens a TCP connection to a pod. If its first SYN is not answered soon, a second one is sent by a socket of its own, and the
/// connection that comes about first is used: the first SYN to a new pod is easily lost before all routes to it are there,
/// and TCP sends it again only after a second (RFC 6298, 2.1).
async fn connect_twice(to: SocketAddr) -> Result<TcpStream, Error> {
    let mut first = pin!(connect(to));
    if let Ok(done) = timeout(SECOND_SYN, &mut first).await {
        return done;
    }
    match select(first, pin!(connect(to))).await {
        Either::Left((Ok(stream), _)) | Either::Right((Ok(stream), _)) => Ok(stream),
        Either::Left((Err(_), second)) => second.await,
        Either::Right((Err(_), first)) => first.await,
    }
}

/// Opens a TCP connection.
///
/// A connection to itself counts as a refusal: a caller that knocks again and again at a local port where nobody listens
/// is, sooner or later, given that very port for its own end, and TCP connects the two (RFC 9293, 3.5).
pub async fn connect(to: SocketAddr) -> Result<TcpStream, Error> {
    settled(TcpStream::connect(to).await, to)
}

/// Opens a TCP connection that comes from this address of ours, for a peer that knows us by it. Where that is no address of
/// this host, or of the other family, the kernel chooses one.
pub async fn connect_from(from: IpAddr, to: SocketAddr) -> Result<TcpStream, Error> {
    match bound(from, to) {
        Some(socket) => settled(socket.connect(to).await, to),
        None => connect(to).await,
    }
}

fn bound(from: IpAddr, to: SocketAddr) -> Option<TcpSocket> {
    let socket = match (from, to) {
        (IpAddr::V4(_), SocketAddr::V4(_)) => TcpSocket::new_v4(),
        (IpAddr::V6(_), SocketAddr::V6(_)) => TcpSocket::new_v6(),
        _ => return None,
    };
    socket.ok().filter(|socket| socket.bind(SocketAddr::new(from, 0)).is_ok())
}

fn settled(connected: io::Result<TcpStream>, to: SocketAddr) -> Result<TcpStream, Error> {
    let failed = |cause| Error::Connect { to, cause };
    let stream = connected.map_err(failed)?;
    if stream.local_addr().is_ok_and(|local| local == to) {
        // Reset rather than closed: TIME-WAIT would keep the port from its owner for a minute.
        let _ = stream.set_zero_linger();
        return Err(failed(io::ErrorKind::ConnectionRefused.into()));
    }
    stream.set_nodelay(true).map_err(failed)?;
    keep_alive(&stream, UPSTREAMS).map_err(failed)?;
    Ok(stream)
}

/// Time that a pod has to answer a SYN before it is sent another.
const SECOND_SYN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A listener whose backlog is full, so that the kernel drops the SYNs of others; and who is in its backlog.
    async fn full() -> (TcpListener, SocketAddr, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        // One more than the backlog says (`sk_acceptq_is_full` in Linux).
        let mut inside = Vec::new();
        for _ in 0..2 {
            inside.push(connect(address).await.unwrap());
        }
        (listener, address, inside)
    }

    /// Dials a listener that drops the first SYN and has room a moment later.
    async fn dial_after_a_lost_syn(dialer: &Dialer) -> Result<(), Error> {
        let (listener, address, _inside) = full().await;
        let mut dialed = pin!(dialer.dial(address));
        assert!(dialed.as_mut().now_or_never().is_none(), "the first SYN is dropped");
        let _accepted = listener.accept().await.unwrap();
        dialed.await.map(drop)
    }

    #[tokio::test]
    async fn a_connection_comes_from_the_address_that_is_named_if_it_is_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        // 192.0.2.1 is nobody's (RFC 5737), and ::1 of the other family.
        for (from, expected) in
            [("127.0.0.77", "127.0.0.77"), ("192.0.2.1", "127.0.0.1"), ("::1", "127.0.0.1")]
        {
            let (_, accepted) = tokio::join!(connect_from(from.parse().unwrap(), to), listener.accept());
            assert_eq!(accepted.unwrap().1.ip().to_string(), expected, "{from}");
        }
    }

    #[tokio::test]
    async fn a_pod_that_has_not_heard_the_first_syn_hears_a_second() {
        // The system itself would send the first one again after a second.
        let limit = Duration::from_millis(900);
        assert!(dial_after_a_lost_syn(&Dialer::to_pods(limit)).await.is_ok());
        let once = dial_after_a_lost_syn(&Dialer::plain(limit)).await;
        assert!(matches!(once, Err(Error::ConnectTimeout { .. })), "{once:?}");
    }

    #[tokio::test]
    async fn a_pod_that_is_silent_throughout_is_a_timeout_and_one_that_refuses_is_told_at_once() {
        let (_listener, address, _inside) = full().await;
        let silent = Dialer::to_pods(Duration::from_millis(400)).dial(address).await;
        assert!(matches!(silent, Err(Error::ConnectTimeout { .. })), "{silent:?}");
        let (listener, address, inside) = full().await;
        drop((listener, inside));
        let refused = Dialer::to_pods(Duration::from_secs(60)).dial(address).await;
        assert!(refused.is_err_and(|error| error.is_refused()));
    }
}
