//! Two connections whose bytes are carried both ways as they are: a tunnel behind a `101`, or TCP that is passed through.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::transport::Transport;

/// A client's connection and an upstream's. What was read of one and not yet written to the other waits in
/// [`Transport`]: a relay that waits holds no buffer.
///
/// An EOF is passed on as one, and the other direction goes on (half-close); a reset, as a reset.
#[derive(Debug)]
pub struct Relay {
    client: Transport,
    upstream: Transport,
    to_upstream: Pump,
    to_client: Pump,
}

/// What a relay has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Bytes were carried, one way or both.
    Bytes,
    /// Nothing more will be carried: both sides have closed.
    All,
}

/// The side whose connection broke. The other one is closed with a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The client's.
    Client,
    /// The upstream's.
    Upstream,
}

impl Relay {
    /// A relay between these two. Bytes that were read already are carried first.
    pub fn new(client: Transport, upstream: Transport) -> Self {
        Relay { client, upstream, to_upstream: Pump::default(), to_client: Pump::default() }
    }

    /// Carries what has arrived. Dropping the future loses nothing.
    pub async fn carry(&mut self) -> Result<Carried, Broken> {
        poll_fn(|cx| self.poll_carry(cx)).await
    }

    pub(crate) fn poll_carry(&mut self, cx: &mut Context<'_>) -> Poll<Result<Carried, Broken>> {
        let Relay { client, upstream, to_upstream, to_client } = self;
        let up = to_upstream.poll(cx, client, upstream);
        let down = to_client.poll(cx, upstream, client);
        let broken = match (&up, &down) {
            (Poll::Ready(Err(Failed::Reader)), _) | (_, Poll::Ready(Err(Failed::Writer))) => Broken::Client,
            (Poll::Ready(Err(Failed::Writer)), _) | (_, Poll::Ready(Err(Failed::Reader))) => Broken::Upstream,
            (Poll::Ready(Ok(Carried::All)), Poll::Ready(Ok(Carried::All))) => {
                return Poll::Ready(Ok(Carried::All));
            }
            (Poll::Ready(Ok(Carried::Bytes)), _) | (_, Poll::Ready(Ok(Carried::Bytes))) => {
                return Poll::Ready(Ok(Carried::Bytes));
            }
            _ => return Poll::Pending,
        };
        match broken {
            Broken::Client => upstream.break_off(),
            Broken::Upstream => client.break_off(),
        }
        Poll::Ready(Err(broken))
    }

    /// Has both connections end with a reset.
    pub fn break_off(self) {
        self.client.break_off();
        self.upstream.break_off();
    }
}

/// One direction of a relay.
#[derive(Debug, Default)]
struct Pump {
    needs_flush: bool,
    state: Flow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flow {
    /// Bytes are carried. Goes to Ending at EOF.
    #[default]
    Open,
    /// The writer is being half-closed. Goes to Closed.
    Ending,
    Closed,
}

enum Failed {
    Reader,
    Writer,
}

impl Pump {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Transport,
        writer: &mut Transport,
    ) -> Poll<Result<Carried, Failed>> {
        loop {
            if !reader.unread.is_empty() {
                let written = ready!(Pin::new(&mut *writer).poll_write(cx, &reader.unread));
                match written {
                    Ok(0) | Err(_) => return Poll::Ready(Err(Failed::Writer)),
                    Ok(written) => reader.unread.advance(written),
                }
                if reader.unread.is_empty() {
                    // Lets go of the buffer.
                    reader.unread = Bytes::new();
                }
                self.needs_flush = true;
                return Poll::Ready(Ok(Carried::Bytes));
            }
            match self.state {
                Flow::Closed => return Poll::Ready(Ok(Carried::All)),
                // Half-close: the other direction goes on.
                Flow::Ending => {
                    // An error says that the writer has closed already.
                    let _ = ready!(Pin::new(&mut *writer).poll_shutdown(cx));
                    self.state = Flow::Closed;
                }
                Flow::Open => match self.poll_read(cx, reader, writer) {
                    Poll::Ready(Ok(0)) => self.state = Flow::Ending,
                    Poll::Ready(Ok(_)) => {
                        self.needs_flush = true;
                        return Poll::Ready(Ok(Carried::Bytes));
                    }
                    Poll::Ready(Err(failed)) => return Poll::Ready(Err(failed)),
                    Poll::Pending => {
                        if self.needs_flush {
                            let flushed = ready!(Pin::new(&mut *writer).poll_flush(cx));
                            flushed.map_err(|_| Failed::Writer)?;
                            self.needs_flush = false;
                        }
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// Reads bytes and writes them at once, from where they are. What the writer does not take stays unread.
    fn poll_read(
        &self,
        cx: &mut Context<'_>,
        reader: &mut Transport,
        writer: &mut Transport,
    ) -> Poll<Result<usize, Failed>> {
        let mut is_broken = false;
        let read = reader.poll_fill_after(cx, |cx, read| match Pin::new(writer).poll_write(cx, read) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) => {
                is_broken = true;
                0
            }
            Poll::Pending => 0,
        });
        match ready!(read) {
            _ if is_broken => Poll::Ready(Err(Failed::Writer)),
            Ok(read) => Poll::Ready(Ok(read)),
            Err(_) => Poll::Ready(Err(Failed::Reader)),
        }
    }
}
