//! Ports with an identity: each belongs to one named port of one revision, and so does whatever comes in there.
//!
//! Plain Kubernetes routes by address and port alone: nothing in a request says whose it is, and nothing in it is asked.

use std::sync::Arc;

use pilotlight_core::RevisionId;
use pilotlight_net::{Connection, Drain, Port, Request, Serving};
use tokio::sync::watch;

use crate::activator::{Activator, ActivatorState};
use crate::ignore::IgnoreRules;
use crate::throttler::PortName;

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
    /// Requests that are no demand.
    pub ignore: Arc<IgnoreRules>,
}

/// What clients of a port speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortProtocol {
    /// Whatever their first bytes say.
    #[default]
    Detect,
    /// HTTP/1.1, or HTTP/2 by prior knowledge or upgrade.
    Http,
    /// The same: a client may still choose HTTP/1.1.
    Http2,
}

impl Activator {
    /// Serves connections at a port of a revision's own, until `drain` has started and all of them are done. Whose they are
    /// is said by `identity` alone: no header, host or path is asked, and none of Knative's headers is added or taken out.
    /// Each request goes to the port that a pod lists under the identity's name; a pod without it gets none.
    pub fn serve_port(
        &self,
        port: impl Into<Port>,
        identity: PortIdentity,
        settings: watch::Receiver<Arc<PortSettings>>,
        drain: Drain,
    ) -> Serving {
        let PortIdentity { revision, port: name } = identity;
        let owner = Arc::new(Owner { revision, port: Some(name.into()) });
        let (shared, draining) = (Arc::clone(&self.shared), drain.clone());
        let serve = move |connection: Connection| {
            let at = PortConnection {
                shared: Arc::clone(&shared),
                owner: Arc::clone(&owner),
                settings: Arc::clone(&settings.borrow()),
            };
            connection.serve_http(Arc::new(at), draining.clone())
        };
        pilotlight_net::serve_each(port, drain, serve)
    }
}

/// A connection at a port with an identity: the handler of its requests.
#[derive(Debug)]
pub(crate) struct PortConnection {
    pub(crate) shared: Arc<ActivatorState>,
    owner: Arc<Owner>,
    settings: Arc<PortSettings>,
}

#[derive(Debug)]
struct Owner {
    revision: RevisionId,
    /// Always `Some`.
    port: PortName,
}

impl PortConnection {
    pub(crate) fn revision(&self) -> &RevisionId {
        &self.owner.revision
    }

    pub(crate) fn port(&self) -> &PortName {
        &self.owner.port
    }

    /// Whether the request is no demand.
    pub(crate) fn ignores(&self, request: &Request) -> bool {
        self.settings.ignore.match_request(request)
    }
}
