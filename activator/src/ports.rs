//! Ports with an identity: each belongs to one named port of one revision, and so does whatever comes in there.
//!
//! Plain Kubernetes routes by address and port alone: nothing in a request says whose it is, and nothing in it is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_core::RevisionId;
use pilotlight_net::Request;

use crate::activator::ActivatorState;
use crate::connections::RevisionConnections;
use crate::ignore::IgnoreRules;
use crate::pods::PortName;
use crate::revision::Demand;

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

/// What silence means on a connection that is passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpTimes {
    /// Silence after which a connection is no load any more. It still keeps its revision from going to zero.
    pub idle: Duration,
    /// Silence after which a connection is closed; `None`: never.
    pub idle_timeout: Option<Duration>,
}

impl Default for TcpTimes {
    /// No load after a minute, and never closed.
    fn default() -> Self {
        TcpTimes { idle: Duration::from_secs(60), idle_timeout: None }
    }
}

/// A connection at a port with an identity: the handler of its requests.
#[derive(Debug)]
pub(crate) struct PortConnection {
    pub(crate) shared: Arc<ActivatorState>,
    /// The other end of the connection, whatever a PROXY header says of the client.
    pub(crate) peer: SocketAddr,
    pub(crate) owner: Arc<PortOwner>,
    pub(crate) settings: Arc<PortSettings>,
}

/// The owner of a port, and its connections there.
#[derive(Debug)]
pub(crate) struct PortOwner {
    pub(crate) revision: RevisionId,
    /// Always `Some`.
    pub(crate) port: PortName,
    pub(crate) connections: Arc<RevisionConnections>,
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
