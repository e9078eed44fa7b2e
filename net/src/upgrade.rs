//! Connections that stop being HTTP: WebSocket, or whatever else client and app agree upon with `Upgrade`.
//!
//! After a `101` the bytes are carried both ways as they are, by a [`Tunnel`]. It travels as the body of the `101`,
//! so that all that holds for a body holds for it: what was acquired is returned when it ends, the timers bound
//! it, and it is over when either side fails. The server, which cannot write such a body, sees it through.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use http_body::Frame;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Error, Request, headers};

/// A client's wish to speak something else.
#[derive(Clone)]
pub(crate) struct Wish {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Wish {
    /// What the request asks for, if it asks and its connection can.
    pub(crate) fn of(request: &Request) -> Option<Wish> {
        let client = request.extensions().get::<OnUpgrade>()?.clone();
        let protocol = headers::upgrade(request.headers())?;
        Some(Wish { protocol, client })
    }
}

/// What follows an upstream's `101`.
pub(crate) fn switch<B>(wish: Option<Wish>, mut response: http::Response<B>) -> Result<Tunnel, Error> {
    let switched = headers::upgrade(response.headers());
    let text = |protocol: Option<&HeaderValue>| {
        protocol.map_or_else(String::new, |name| String::from_utf8_lossy(name.as_bytes()).into_owned())
    };
    match (wish, switched) {
        (Some(wish), Some(protocol))
            if protocol.as_bytes().eq_ignore_ascii_case(wish.protocol.as_bytes()) =>
        {
            Ok(Tunnel {
                client: End::Opening(wish.client),
                upstream: End::Opening(hyper::upgrade::on(&mut response)),
                to_upstream: Pump::new(),
                to_client: Pump::new(),
            })
        }
        (wish, switched) => Err(Error::SwitchedProtocol {
            switched: text(switched.as_ref()),
            requested: text(wish.as_ref().map(|wish| &wish.protocol)),
        }),
    }
}

/// Two connections, each of which hears what the other says.
pub(crate) struct Tunnel {
    client: End,
    upstream: End,
    to_upstream: Pump,
    to_client: Pump,
}

/// One connection's end.
enum End {
    /// Goes to Open once HTTP is left behind.
    Opening(OnUpgrade),
    Open(TokioIo<Upgraded>),
}

impl End {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut TokioIo<Upgraded>, Error>> {
        if let End::Opening(upgrade) = self {
            let upgraded = ready!(Pin::new(upgrade).poll(cx)).map_err(Error::Upstream)?;
            *self = End::Open(TokioIo::new(upgraded));
        }
        match self {
            End::Open(stream) => Poll::Ready(Ok(stream)),
            End::Opening(_) => Poll::Pending,
        }
    }
}

impl Tunnel {
    /// Carries what there is. An empty frame says that something was carried, in either direction; the end, that
    /// both have closed, or that the client has left without a word.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Tunnel { client, upstream, to_upstream, to_client } = self;
        let client = ready!(client.poll_open(cx))?;
        let upstream = ready!(upstream.poll_open(cx))?;
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

/// One direction.
struct Pump {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
    needs_flush: bool,
    state: Flow,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Goes to Ending when the reader has nothing more to say.
    Open,
    /// Goes to Closed when the writer has been told.
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
                // The other direction goes on for as long as it likes.
                Flow::Ending => {
                    // An error: it has closed already, which is just as well.
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

/// What an open direction keeps in memory.
const BUFFER_BYTES: usize = 8 * 1024;
