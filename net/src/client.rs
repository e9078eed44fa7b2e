//! Who asks: what all requests of one connection have in common.

use std::fmt;
use std::net::SocketAddr;

use http::HeaderValue;

use crate::alarm::Alarm;

/// The client at the other end of a connection.
// Not to be cloned: its alarm wakes one task, and a handler that takes a copy to another would wait for ever.
pub struct Client {
    address: SocketAddr,
    forwarded_for: HeaderValue,
    alarm: Alarm,
}

impl Client {
    /// A client that has just come.
    pub fn new(address: SocketAddr) -> Self {
        // An address is always a legal header value.
        let forwarded_for = HeaderValue::try_from(address.ip().to_canonical().to_string())
            .unwrap_or(HeaderValue::from_static("unknown"));
        Client { address, forwarded_for, alarm: Alarm::default() }
    }

    /// The same client, as one of many who ask at the same time.
    pub(crate) fn of_stream(&self) -> Self {
        let Client { address, forwarded_for, .. } = self;
        Client { address: *address, forwarded_for: forwarded_for.clone(), alarm: Alarm::default() }
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
