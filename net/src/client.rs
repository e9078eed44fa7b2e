//! The client of a request, as its handler sees it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderValue;

use crate::Response;
use crate::alarm::Alarm;
use crate::h1::link::Link;

/// The client at the other end of a connection.
// Not Clone: its alarm wakes one task, and a handler that took a copy to another task would wait there for ever.
pub struct Client {
    address: SocketAddr,
    // The server's end of the connection; None for requests of our own.
    local: Option<SocketAddr>,
    forwarded_for: HeaderValue,
    alarm: Alarm,
    // The HTTP/1.1 connection, for interim responses; hyper sends none over HTTP/2.
    link: Option<Arc<Link>>,
    // The request, or a part of it, is with an upstream. Used by one task only.
    is_sent: AtomicBool,
}

impl Client {
    /// A client at this address.
    pub fn new(address: SocketAddr) -> Self {
        // An address is a legal field value.
        let forwarded_for = HeaderValue::try_from(address.ip().to_canonical().to_string())
            .unwrap_or(HeaderValue::from_static("unknown"));
        let (alarm, is_sent) = (Alarm::default(), AtomicBool::new(false));
        Client { address, local: None, forwarded_for, alarm, link: None, is_sent }
    }

    /// The same client, whose connection came in at this address of ours.
    pub fn at(self, local: SocketAddr) -> Self {
        Client { local: Some(local), ..self }
    }

    /// The client of requests that the process itself makes.
    pub fn ourselves() -> Self {
        Client::new((Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// The same client, for one of many streams at the same time.
    pub(crate) fn of_stream(&self) -> Self {
        let Client { address, local, forwarded_for, .. } = self;
        let (address, local, forwarded_for) = (*address, *local, forwarded_for.clone());
        let (alarm, is_sent) = (Alarm::default(), AtomicBool::new(false));
        Client { address, local, forwarded_for, alarm, link: None, is_sent }
    }

    /// The same client, over this HTTP/1.1 connection.
    pub(crate) fn over(self, link: Arc<Link>) -> Self {
        Client { link: Some(link), ..self }
    }

    /// Sends the client an interim (1xx) response, if it can be sent one.
    pub(crate) fn inform(&self, response: &Response) {
        if let Some(link) = &self.link {
            link.inform(response);
        }
    }

    /// The client's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's end of the connection, with the port that the request came in at; `None` for [requests of our
    /// own](Client::ourselves).
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// The client's address as `X-Forwarded-For` has it.
    pub(crate) fn forwarded_for(&self) -> &HeaderValue {
        &self.forwarded_for
    }

    /// Notes that the client's request waits for its turn or for a connection, as it does until it is
    /// [sent](crate::Upstreams::send). To be called if it is to be sent once more although it was answered.
    pub fn set_waiting(&self) {
        self.is_sent.store(false, Ordering::Relaxed);
    }

    /// Notes that the client's request goes to an upstream now.
    pub(crate) fn set_sent(&self) {
        self.is_sent.store(true, Ordering::Relaxed);
    }

    /// Whether the client's request, or a part of it, is with an upstream.
    pub(crate) fn is_sent(&self) -> bool {
        self.is_sent.load(Ordering::Relaxed)
    }

    /// The alarm of the task that serves the client.
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
