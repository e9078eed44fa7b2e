//! Who asks: what all requests of one connection have in common.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;

use crate::Response;
use crate::alarm::Alarm;
use crate::h1::link::Link;

/// The client at the other end of a connection.
// Not to be cloned: its alarm wakes one task, and a handler that takes a copy to another would wait for ever.
pub struct Client {
    address: SocketAddr,
    // The server's end of the connection; none for requests of our own.
    local: Option<SocketAddr>,
    forwarded_for: HeaderValue,
    alarm: Alarm,
    // None: answers before the last cannot be told.
    link: Option<Arc<Link>>,
}

impl Client {
    /// A client that has just come.
    pub fn new(address: SocketAddr) -> Self {
        // An address is always a legal header value.
        let forwarded_for = HeaderValue::try_from(address.ip().to_canonical().to_string())
            .unwrap_or(HeaderValue::from_static("unknown"));
        Client { address, local: None, forwarded_for, alarm: Alarm::default(), link: None }
    }

    /// The same client, whose connection came in at this address of ours.
    pub fn at(self, local: SocketAddr) -> Self {
        Client { local: Some(local), ..self }
    }

    /// Ourselves: for what no client has asked for.
    pub fn ourselves() -> Self {
        Client::new((Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// The same client, as one of many who ask at the same time.
    pub(crate) fn of_stream(&self) -> Self {
        let Client { address, local, forwarded_for, .. } = self;
        let (address, local, forwarded_for) = (*address, *local, forwarded_for.clone());
        Client { address, local, forwarded_for, alarm: Alarm::default(), link: None }
    }

    /// The same client, whose connection this is.
    pub(crate) fn over(self, link: Arc<Link>) -> Self {
        Client { link: Some(link), ..self }
    }

    /// Tells of an answer before the last, if the client can be told.
    pub(crate) fn inform(&self, response: &Response) {
        if let Some(link) = &self.link {
            link.inform(response);
        }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address its connection came in at: which of the ports we listen on was asked. `None` for [our own
    /// requests](Client::ourselves).
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Its address as `X-Forwarded-For` has it.
    pub(crate) fn forwarded_for(&self) -> &HeaderValue {
        &self.forwarded_for
    }

    /// What its task is woken by in time.
    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
