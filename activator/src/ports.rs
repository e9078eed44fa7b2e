//! Ports with an identity: each belongs to one named port of one revision, and so does whatever comes in there.
//!
//! Plain Kubernetes routes by address and port alone: nothing in a request says whose it is, and nothing in it is asked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::RevisionId;
use pilotlight_net::{Connection, Drain, FirstBytes, Port, Request, Serving};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;

use crate::activator::{Activator, ActivatorState};
use crate::connections::RevisionConnections;
use crate::ignore::IgnoreRules;
use crate::pods::PortName;
use crate::revision::Demand;
use crate::tcp::{self, TcpTimes};

/// The owner of a port: fixed for the life of its listener, and so for every connection that came in there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortIdentity {
    /// The revision that requests are for.
    pub revision: RevisionId,
    /// The name under which each pod tells its own [port](pilotlight_core::PodEndpoint::ports): `SERVICE/PORTNAME`.
    pub port: String,
}

/// Settings of a port, read anew for each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSettings {
    /// What clients speak.
    pub protocol: PortProtocol,
    /// Whether a load balancer may tell the client's address in front of all other bytes, by the header of the PROXY
    /// protocol, version 2. Whoever reaches the port can then claim any address.
    pub proxy_protocol: bool,
    /// Requests that are no demand.
    pub ignore: Arc<IgnoreRules>,
    /// Times of connections that are not HTTP.
    pub tcp: TcpTimes,
}

/// What clients of a port speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortProtocol {
    /// HTTP if their first bytes say so; everything else, TLS among it, is passed through as bytes.
    #[default]
    Detect,
    /// HTTP/1.1, or HTTP/2 by prior knowledge or upgrade.
    Http,
    /// The same: a client may still choose HTTP/1.1.
    Http2,
    /// Bytes, which are passed through. A connection is demand from its first byte on.
    Tcp,
    /// Bytes as well, but the server speaks first: a connection is demand as soon as it is accepted, and so is one that
    /// only checks whether somebody listens.
    TcpServerFirst,
}

impl Activator {
    /// Serves connections at a port of a revision's own, until `drain` has started and all of them are done. Whose they are
    /// is said by `identity` alone: no header, host or path is asked, and none of Knative's headers is added or taken out.
    /// Each request goes to the port that a pod lists under the identity's name; a pod without it gets none.
    ///
    /// Connections that are not HTTP are passed through. A silent one is kept, and is no demand until its first byte.
    pub fn serve_port(
        &self,
        port: impl Into<Port>,
        identity: PortIdentity,
        settings: watch::Receiver<Arc<PortSettings>>,
        drain: Drain,
    ) -> Serving {
        let PortIdentity { revision, port: name } = identity;
        let connections = self.shared.connections.of(&revision);
        let owner = Arc::new(Owner { revision, port: Some(name.into()), connections });
        let (shared, draining) = (Arc::clone(&self.shared), drain.clone());
        let serve = move |connection: Connection| {
            let at = PortConnection {
                peer: connection.client(),
                shared: Arc::clone(&shared),
                owner: Arc::clone(&owner),
                settings: Arc::clone(&settings.borrow()),
            };
            at.serve(connection, draining.clone())
        };
        pilotlight_net::serve_each(port, drain, serve)
    }
}

/// The protocol of one connection, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http,
    Bytes,
    /// Nothing: it was closed without a byte.
    Nothing,
}

/// A connection at a port with an identity: the handler of its requests.
#[derive(Debug)]
pub(crate) struct PortConnection {
    pub(crate) shared: Arc<ActivatorState>,
    /// The other end of the connection, whatever a PROXY header says of the client.
    peer: SocketAddr,
    owner: Arc<Owner>,
    settings: Arc<PortSettings>,
}

#[derive(Debug)]
struct Owner {
    revision: RevisionId,
    /// Always `Some`.
    port: PortName,
    connections: Arc<RevisionConnections>,
}

impl PortConnection {
    pub(crate) fn revision(&self) -> &RevisionId {
        &self.owner.revision
    }

    pub(crate) fn port(&self) -> &PortName {
        &self.owner.port
    }

    pub(crate) fn tcp_times(&self) -> TcpTimes {
        self.settings.tcp
    }

    async fn serve(self, mut connection: Connection, drain: Drain) {
        let Some(_open) = self.owner.connections.open() else { return };
        let speaks = tokio::select! {
            biased;
            speaks = self.first_words(&mut connection) => speaks,
            // A client that has said nothing may be cut at once.
            () = drain.started() => return,
        };
        match speaks {
            Ok(Speaks::Http) => connection.serve_http(Arc::new(self), drain).await,
            // Boxed: HTTP connections need not carry the room for it.
            Ok(Speaks::Bytes) => Box::pin(tcp::pass(&self, connection, &drain)).await,
            Ok(Speaks::Nothing) => {}
            Err(error) => debug!(client = %connection.client(), %error, "Client connection failed"),
        }
    }

    /// Waits until it is known what the client speaks.
    async fn first_words(&self, connection: &mut Connection) -> io::Result<Speaks> {
        let is_server_first = self.settings.protocol == PortProtocol::TcpServerFirst;
        if self.settings.proxy_protocol {
            let header = connection.read_proxy_header();
            if is_server_first {
                // The client says nothing itself. Err: nor does anybody for it.
                timeout(UNDECIDED_TIMEOUT, header).await.unwrap_or(Ok(()))?;
            } else {
                header.await?;
            }
        }
        match self.settings.protocol {
            PortProtocol::Http | PortProtocol::Http2 => return Ok(Speaks::Http),
            PortProtocol::TcpServerFirst => return Ok(Speaks::Bytes),
            PortProtocol::Tcp | PortProtocol::Detect => {}
        }
        let has_begun = |said: &[u8], is_all| (is_all || !said.is_empty()).then_some(!said.is_empty());
        if !connection.peek(has_begun).await? {
            return Ok(Speaks::Nothing);
        }
        if self.settings.protocol == PortProtocol::Tcp {
            return Ok(Speaks::Bytes);
        }
        match timeout(UNDECIDED_TIMEOUT, connection.peek(FirstBytes::tell)).await {
            Ok(told) => Ok(match told? {
                FirstBytes::Http1 | FirstBytes::Http2 => Speaks::Http,
                FirstBytes::Tls | FirstBytes::Other => Speaks::Bytes,
            }),
            // A client that waits for an answer by now does not speak HTTP.
            Err(_) => Ok(Speaks::Bytes),
        }
    }

    /// What the request is to the autoscaler. `is_handed_on`: it says that another activator sent it.
    pub(crate) fn demand(&self, request: &Request, is_handed_on: bool) -> Demand {
        if self.settings.ignore.match_request(request) {
            Demand::None
        } else if is_handed_on && self.is_from_peer() {
            Demand::HandedOn
        } else {
            Demand::Counted
        }
    }

    /// Whether the connection comes from an activator that may hand on what it has counted.
    pub(crate) fn is_from_peer(&self) -> bool {
        self.shared.routes.is_peer(self.revision(), self.peer.ip())
    }
}

/// Time in which the first bytes of a client must tell what it speaks.
const UNDECIDED_TIMEOUT: Duration = Duration::from_secs(1);
