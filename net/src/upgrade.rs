//! Connections that cease to be HTTP by `Upgrade` (RFC 9110, 7.8): WebSocket, or whatever else client and app agree upon.
//!
//! After a `101 Switching Protocols`, a [`Tunnel`] carries the bytes both ways as they are. It travels as the body of the
//! `101`, so that whatever holds for a body holds for it: permits are returned when it ends, timers bound it, and it is over
//! when either side fails. The server gives it the client's connection and polls it to its end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Version};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
    /// A relay between the client's and the upstream's connection.
    Relay(Box<Relay>),
    /// A conversation of our own with the client, before it begins. Goes to Running.
    Waiting(Box<dyn FnOnce(Transport) -> Conversation + Send>),
    /// A conversation of our own with the client.
    Running(Conversation),
}

pub(crate) struct Relay {
    // None until the head of the `101` has been written.
    client: Option<Transport>,
    upstream: Transport,
    to_upstream: Pump,
    to_client: Pump,
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
                let (to_upstream, to_client) = (Pump::new(), Pump::new());
                Ok(Tunnel::Relay(Box::new(Relay { client: None, upstream, to_upstream, to_client })))
            }
            _ => Err(Error::SwitchedProtocol { switched: text(switched.as_ref()), requested: text(wish) }),
        }
    }

    /// Takes over the client's connection.
    pub(crate) fn open(&mut self, connection: Transport) {
        match self {
            Tunnel::Relay(relay) => relay.client = Some(connection),
            Tunnel::Waiting(begin) => {
                let begin = std::mem::replace(begin, Box::new(|_| Box::pin(async {})));
                *self = Tunnel::Running(begin(connection));
            }
            Tunnel::Running(_) => {}
        }
    }

    /// Carries bytes. An empty frame says that some were carried, for the idle timer; the end, that both sides are done.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Tunnel::Relay(relay) => relay.poll_frame(cx),
            Tunnel::Running(conversation) => conversation.as_mut().poll(cx).map(|()| None),
            // The response was sent to a client that cannot switch, as over HTTP/2.
            Tunnel::Waiting(_) => Poll::Ready(None),
        }
    }
}

impl Relay {
    // Ends when both sides have half-closed, or when the client's connection breaks.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Relay { client: Some(client), upstream, to_upstream, to_client } = self else {
            return Poll::Ready(None);
        };
        let up = to_upstream.poll(cx, client, upstream);
        let down = to_client.poll(cx, upstream, client);
        match (up, down) {
            (Poll::Ready(Err(Broken::Reader)), _) | (_, Poll::Ready(Err(Broken::Writer))) => {
                Poll::Ready(None)
            }
            (Poll::Ready(Err(Broken::Writer)), _) | (_, Poll::Ready(Err(Broken::Reader))) => {
                Poll::Ready(Some(Err(Error::UpstreamClosed)))
            }
            (Poll::Ready(Ok(Done::Closed)), Poll::Ready(Ok(Done::Closed))) => Poll::Ready(None),
            (Poll::Ready(Ok(Done::Carried)), _) | (_, Poll::Ready(Ok(Done::Carried))) => {
                Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
            }
            _ => Poll::Pending,
        }
    }
}

/// One direction of a relay.
struct Pump {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
    needs_flush: bool,
    state: Flow,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Bytes are carried. Goes to Ending at EOF.
    Open,
    /// The writer is being half-closed. Goes to Closed.
    Ending,
    Closed,
}

enum Done {
    Carried,
    Closed,
}

enum Broken {
    Reader,
    Writer,
}

impl Pump {
    fn new() -> Self {
        Pump { buffer: vec![0; BUFFER_BYTES].into(), from: 0, to: 0, needs_flush: false, state: Flow::Open }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<Done, Broken>> {
        let (mut reader, mut writer) = (Pin::new(reader), Pin::new(writer));
        let broken = |_: io::Error| Broken::Writer;
        loop {
            if self.from < self.to {
                let piece = &self.buffer[self.from..self.to];
                let written = ready!(writer.as_mut().poll_write(cx, piece)).map_err(broken)?;
                if written == 0 {
                    return Poll::Ready(Err(Broken::Writer));
                }
                self.from += written;
                self.needs_flush = true;
                return Poll::Ready(Ok(Done::Carried));
            }
            match self.state {
                Flow::Closed => return Poll::Ready(Ok(Done::Closed)),
                // Half-close: the other direction goes on.
                Flow::Ending => {
                    // An error says that the writer has closed already.
                    let _ = ready!(writer.as_mut().poll_shutdown(cx));
                    self.state = Flow::Closed;
                }
                Flow::Open => {
                    let mut into = ReadBuf::new(&mut self.buffer);
                    match reader.as_mut().poll_read(cx, &mut into) {
                        Poll::Ready(Ok(())) => (self.from, self.to) = (0, into.filled().len()),
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Reader)),
                        Poll::Pending => {
                            if self.needs_flush {
                                ready!(writer.as_mut().poll_flush(cx)).map_err(broken)?;
                                self.needs_flush = false;
                            }
                            return Poll::Pending;
                        }
                    }
                    if self.to == 0 {
                        self.state = Flow::Ending;
                    }
                }
            }
        }
    }
}

/// Bytes of the buffer of one direction.
const BUFFER_BYTES: usize = 8 * 1024;
