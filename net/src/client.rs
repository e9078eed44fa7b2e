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
        Client { address, forwarded_for, alarm: Alarm::default(), link: None }
    }

    /// Ourselves: for what no client has asked for.
    pub fn ourselves() -> Self {
        Client::new((Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// The same client, as one of many who ask at the same time.
    pub(crate) fn of_stream(&self) -> Self {
        let Client { address, forwarded_for, .. } = self;
        let (address, forwarded_for) = (*address, forwarded_for.clone());
        Client { address, forwarded_for, alarm: Alarm::default(), link: None }
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
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}
