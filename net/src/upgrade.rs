//! Connections that cease to be HTTP by `Upgrade` (RFC 9110, 7.8): WebSocket, or whatever else client and app agree upon.
//!
//! After a `101 Switching Protocols`, a [`Tunnel`] carries the bytes both ways as they are. It travels as the body of the
//! `101`, so that whatever holds for a body holds for it: permits are returned when it ends, timers bound it, and it is over
//! when either side fails. The server gives it the client's connection and polls it to its end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Version};
use http_body::Frame;

use crate::relay::{Broken, Carried, Relay};
use crate::transport::Transport;
use crate::{Error, headers};

/// The protocol that a request asks to switch to, if it asks. `Upgrade` does not exist in HTTP/2 (RFC 9113, 8.6), nor in
/// HTTP/1.0 (RFC 9110, 7.8).
pub(crate) fn wish<B>(request: &Request<B>) -> Option<HeaderValue> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    headers::upgrade(request.headers())
}

/// The two-way stream behind a `101`, once it has been [given](Tunnel::open) the client's connection.
pub(crate) enum Tunnel {
    /// The upstream's connection, until the head of the `101` has been written. Goes to Relaying.
    Upstream(Box<Transport>),
    /// A relay between the client's and the upstream's connection.
    Relaying(Box<Relay>),
    /// A conversation of our own with the client, before it begins. Goes to Running.
    Waiting(Box<dyn FnOnce(Transport) -> Conversation + Send>),
    /// A conversation of our own with the client.
    Running(Conversation),
}

pub(crate) type Conversation = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Tunnel {
    /// A relay to an upstream that has answered `wish` with a `101` and these headers, if they are about the same protocol.
    pub(crate) fn relay(
        wish: Option<&HeaderValue>,
        headers: &HeaderMap,
        upstream: Transport,
    ) -> Result<Tunnel, Error> {
        let switched = headers::upgrade(headers);
        let text = |protocol: Option<&HeaderValue>| {
            protocol.map_or_else(String::new, |name| String::from_utf8_lossy(name.as_bytes()).into_owned())
        };
        match (wish, &switched) {
            (Some(wish), Some(protocol)) if protocol.as_bytes().eq_ignore_ascii_case(wish.as_bytes()) => {
                Ok(Tunnel::Upstream(Box::new(upstream)))
            }
            _ => Err(Error::SwitchedProtocol { switched: text(switched.as_ref()), requested: text(wish) }),
        }
    }

    /// Takes over the client's connection.
    pub(crate) fn open(&mut self, connection: Transport) {
        // A conversation that is over, in the place of what is taken out.
        let over = Tunnel::Running(Box::pin(async {}));
        *self = match std::mem::replace(self, over) {
            Tunnel::Upstream(upstream) => Tunnel::Relaying(Box::new(Relay::new(connection, *upstream))),
            Tunnel::Waiting(begin) => Tunnel::Running(begin(connection)),
            opened => opened,
        };
    }

    /// Carries bytes. An empty frame says that some were carried, for the idle timer; the end, that both sides are done.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Tunnel::Relaying(relay) => relay.poll_carry(cx).map(|carried| match carried {
                Ok(Carried::Bytes) => Some(Ok(Frame::data(Bytes::new()))),
                Ok(Carried::All) | Err(Broken::Client) => None,
                Err(Broken::Upstream) => Some(Err(Error::UpstreamClosed)),
            }),
            Tunnel::Running(conversation) => conversation.as_mut().poll(cx).map(|()| None),
            // The response was sent to a client that cannot switch, as over HTTP/2.
            Tunnel::Upstream(_) | Tunnel::Waiting(_) => Poll::Ready(None),
        }
    }
}
