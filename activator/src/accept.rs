//! Serving ports with an identity: connections are told apart by their first bytes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_net::{ClientConnection, Drain, FirstBytes, Port, Serving};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;

use crate::activator::Activator;
use crate::ports::{PortConnection, PortIdentity, PortOwner, PortProtocol, PortSettings};
use crate::tcp;

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
        let owner = Arc::new(PortOwner { revision, port: Some(name.into()), connections });
        // The activator as a whole: its tasks go on as long as it is served at any port.
        let (activator, draining) = (self.clone(), drain.clone());
        let serve = move |connection: ClientConnection| {
            let at = PortConnection {
                peer: connection.client(),
                shared: Arc::clone(&activator.shared),
                owner: Arc::clone(&owner),
                settings: Arc::clone(&settings.borrow()),
            };
            serve(at, connection, draining.clone())
        };
        pilotlight_net::serve_each(port, drain, serve)
    }
}

/// Serves one connection, as what it turns out to be.
async fn serve(at: PortConnection, mut connection: ClientConnection, drain: Drain) {
    let Some(_open) = at.owner.connections.open() else { return };
    let speaks = tokio::select! {
        biased;
        speaks = first_words(&at.settings, &mut connection) => speaks,
        // A client that has said nothing may be cut at once.
        () = drain.started() => return,
    };
    match speaks {
        Ok(Speaks::Http) => connection.serve_http(Arc::new(at), drain).await,
        // Boxed: HTTP connections need not carry the room for it.
        Ok(Speaks::Bytes) => Box::pin(tcp::pass(&at, connection, &drain)).await,
        Ok(Speaks::Nothing) => {}
        Err(error) => debug!(client = %connection.client(), %error, "Client connection failed"),
    }
}

/// Waits until it is known what the client speaks.
async fn first_words(settings: &PortSettings, connection: &mut ClientConnection) -> io::Result<Speaks> {
    let is_server_first = settings.protocol == PortProtocol::TcpServerFirst;
    if settings.proxy_protocol {
        let header = connection.read_proxy_header();
        if is_server_first {
            // The client says nothing itself. Err: nor does anybody for it.
            timeout(UNDECIDED_TIMEOUT, header).await.unwrap_or(Ok(()))?;
        } else {
            header.await?;
        }
    }
    match settings.protocol {
        PortProtocol::Http | PortProtocol::Http2 => return Ok(Speaks::Http),
        PortProtocol::TcpServerFirst => return Ok(Speaks::Bytes),
        PortProtocol::Tcp | PortProtocol::Detect => {}
    }
    let has_begun = |said: &[u8], is_all| (is_all || !said.is_empty()).then_some(!said.is_empty());
    if !connection.peek(has_begun).await? {
        return Ok(Speaks::Nothing);
    }
    if settings.protocol == PortProtocol::Tcp {
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

/// The protocol of one connection, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http,
    Bytes,
    /// Nothing: it was closed without a byte.
    Nothing,
}

/// Time in which the first bytes of a client must tell what it speaks.
const UNDECIDED_TIMEOUT: Duration = Duration::from_secs(1);
