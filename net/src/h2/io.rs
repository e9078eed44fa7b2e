//! A connection below HTTP/2: bytes both ways, and what is known of a connection by the frames that pass.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::MAX_STREAMS;
use super::allowance::Allowance;
use super::inbound::Inbound;
use super::outbound::{Outbound, Resets, WrittenReset};
use crate::preface::PREFACE;

/// A connection that is spoken to in HTTP/2.
///
/// The library's limits on resets are off, because they count for the life of a connection; their place is taken by a
/// rate, and by a limit on what a client has us write without reading it.
#[derive(Debug)]
pub(crate) struct Http2Io<S> {
    io: S,
    inbound: Inbound,
    outbound: Outbound,
    resets: Resets,
    guard: Option<Guard>,
    has_heard: bool,
    wear: Arc<Wear>,
}

/// What a connection has been through.
#[derive(Debug, Default)]
pub(crate) struct Wear {
    resets: AtomicUsize,
    speaks_http_1: AtomicBool,
}

/// Protection of a server from its client.
#[derive(Debug)]
struct Guard {
    /// Streams that may be reset because of what the client sent.
    faults: Allowance,
    is_exceeded: bool,
    /// HEADERS frames at the time when the client stopped reading; `None`: it reads.
    heads_when_stalled: Option<u64>,
}

impl<S> Http2Io<S> {
    /// A connection of a client, before its preface is read.
    pub(crate) fn of_client(io: S) -> Self {
        let now = Instant::now();
        let faults = Allowance::new(now, MAX_FAULTS, FAULTS_PER_SECOND);
        Http2Io {
            io,
            inbound: Inbound::after(PREFACE.len(), now),
            outbound: Outbound::after(0),
            resets: Resets::default(),
            guard: Some(Guard { faults, is_exceeded: false, heads_when_stalled: None }),
            has_heard: false,
            wear: Arc::default(),
        }
    }

    /// A connection to an upstream, before our preface is written.
    pub(crate) fn to_upstream(io: S) -> Self {
        Http2Io {
            io,
            inbound: Inbound::after(0, Instant::now()),
            outbound: Outbound::after(PREFACE.len()),
            resets: Resets::default(),
            guard: None,
            has_heard: false,
            wear: Arc::default(),
        }
    }

    /// What the connection goes through from now on.
    pub(crate) fn wear(&self) -> Arc<Wear> {
        Arc::clone(&self.wear)
    }

    /// Reads what has come into the buffer, and leaves there what passes as it is.
    fn read(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let read = &buf.filled()[before..];
        if !std::mem::replace(&mut self.has_heard, true) && read.starts_with(b"HTTP/") {
            self.wear.speaks_http_1.store(true, Ordering::Relaxed);
        }
        let passed = before + self.inbound.pass(read.len());
        self.inbound.read(&buf.filled()[passed..], &self.resets, Instant::now());
        buf.set_filled(passed);
    }

    /// Follows what has become of bytes that were to be written.
    fn wrote(&mut self, polled: &Poll<io::Result<usize>>, data: &[IoSlice<'_>]) {
        let Http2Io { inbound, outbound, resets, guard, wear, .. } = self;
        if let Some(guard) = guard {
            guard.stalled(polled.is_pending(), inbound.heads());
        }
        let Poll::Ready(Ok(mut left)) = *polled else { return };
        for piece in data {
            let written = left.min(piece.len());
            left -= written;
            outbound.wrote(&piece[..written], |reset| {
                resets.add(reset.stream);
                wear.resets.fetch_add(1, Ordering::Relaxed);
                if let Some(guard) = guard {
                    guard.reset(reset, Instant::now());
                }
            });
        }
    }
}

impl Wear {
    /// Streams that were reset by us.
    pub(crate) fn resets(&self) -> usize {
        self.resets.load(Ordering::Relaxed)
    }

    /// Whether the other side has answered in HTTP/1.
    pub(crate) fn speaks_http_1(&self) -> bool {
        self.speaks_http_1.load(Ordering::Relaxed)
    }
}

impl Guard {
    fn reset(&mut self, reset: WrittenReset, now: Instant) {
        let is_fault = !FAULTLESS.contains(&reset.code);
        self.is_exceeded |= is_fault && !self.faults.take(now);
    }

    /// Notes whether the client takes what is written. `heads`: its HEADERS frames so far.
    fn stalled(&mut self, is_stalled: bool, heads: u64) {
        match &mut self.heads_when_stalled {
            Some(_) if !is_stalled => self.heads_when_stalled = None,
            since @ None if is_stalled => *since = Some(heads),
            _ => {}
        }
    }

    fn check(&self, heads: u64) -> io::Result<()> {
        let unread = self.heads_when_stalled.map_or(0, |since| heads - since);
        match () {
            () if self.is_exceeded => Err(io::Error::other("the client has too many streams reset")),
            () if unread > MAX_HEADS_WHILE_STALLED => {
                Err(io::Error::other("the client opens streams and reads nothing"))
            }
            () => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Http2Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            let ready = self.inbound.ready();
            if !ready.is_empty() {
                let length = ready.len().min(buf.remaining());
                buf.put_slice(&ready.split_to(length));
                if ready.is_empty() {
                    // An idle connection holds no buffer.
                    *ready = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(guard) = &self.guard {
                guard.check(self.inbound.heads())?;
            }
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            self.read(buf, before);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Http2Io<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, data);
        self.wrote(&polled, &[IoSlice::new(data)]);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, data);
        self.wrote(&polled, data);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Codes of resets that are nobody's fault, or the upstream's: NO_ERROR, INTERNAL_ERROR, STREAM_CLOSED (frames that crossed
/// a reset), REFUSED_STREAM (no app has seen the request) and CANCEL.
const FAULTLESS: [u32; 5] = [0, 2, 5, 7, 8];

/// Faults of a client that may come at once, and those that may come for ever. Many share a client's connection.
const MAX_FAULTS: u32 = 5_000;
const FAULTS_PER_SECOND: u32 = 200;

/// Streams that a client may open while it takes nothing of what is written: each may cost a reset that waits.
const MAX_HEADS_WHILE_STALLED: u64 = 4 * MAX_STREAMS as u64;
