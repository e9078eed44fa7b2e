//! Bodies on their way into an HTTP/2 connection, and the bytes of them that are not written yet.
//!
//! h2 takes whatever bodies give it and keeps what cannot be written: a piece for each stream, however little the peer
//! reads. So the pieces of a connection are counted, from the body until h2 has written them, and a body is not polled
//! while too many wait: it waits in turn where it comes from, by flow control.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::budget::ByteBudget;
use crate::{Body, Error};

/// The unwritten pieces of one HTTP/2 connection. Clones are of the same connection.
#[derive(Clone, Debug)]
pub(crate) struct Unwritten {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: usize,
    /// Whether the socket took less than it was given: what waits is the peer's fault as a whole, not of some streams.
    is_blocked: bool,
    /// Wakers of bodies that wait for room, in FIFO order, each with the number of its body.
    waiting: VecDeque<(u64, Waker)>,
    last_body: u64,
    /// Whether it is in the list of those that wait for the budget of all.
    is_starved: bool,
}

impl Unwritten {
    pub(crate) fn new() -> Self {
        Unwritten { queue: Arc::default() }
    }

    /// Counts the pieces of a body.
    pub(crate) fn count(&self, body: Body) -> CountedBody {
        let mut queue = self.queue.lock();
        queue.last_body += 1;
        CountedBody { body, number: queue.last_body, has_waited: false, unwritten: self.clone() }
    }

    /// The connection, as h2 is to see it.
    pub(crate) fn over<T>(&self, io: T) -> CountedIo<T> {
        CountedIo { io, is_blocked: false, unwritten: self.clone() }
    }

    fn add(&self, bytes: usize) {
        self.queue.lock().bytes += bytes;
        ALL.bytes.add(bytes);
    }

    fn sub(&self, bytes: usize) {
        let before = ALL.bytes.sub(bytes);
        self.queue.lock().bytes -= bytes;
        self.wake_next();
        if before >= ALL.bytes.limit() && !ALL.bytes.is_spent() {
            let starved = std::mem::take(&mut *ALL.starved.lock());
            for queue in starved.iter().filter_map(Weak::upgrade) {
                queue.lock().is_starved = false;
                Unwritten { queue }.wake_next();
            }
        }
    }

    /// Wakes the body that has waited longest, if there is room for a piece of it. It wakes the next.
    fn wake_next(&self) {
        let mut queue = self.queue.lock();
        let next = if queue.has_room() { queue.waiting.pop_front() } else { None };
        drop(queue);
        if let Some((_, waker)) = next {
            waker.wake();
        }
    }

    fn set_blocked(&self, is_blocked: bool) {
        self.queue.lock().is_blocked = is_blocked;
        if !is_blocked {
            self.wake_next();
        }
    }
}

impl Queue {
    fn has_room(&self) -> bool {
        let most = if self.is_blocked { MAX_BLOCKED_BYTES } else { MAX_BYTES };
        self.bytes < MIN_BYTES || (self.bytes < most && !ALL.bytes.is_spent())
    }
}

/// A body that is polled only while its connection has room for a piece.
pub(crate) struct CountedBody {
    body: Body,
    number: u64,
    // Whether it was queued, and is to wake the next when it goes on.
    has_waited: bool,
    unwritten: Unwritten,
}

impl CountedBody {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.unwritten.queue.lock();
        if queue.has_room() {
            if self.has_waited {
                queue.waiting.retain(|(number, _)| *number != self.number);
            }
            return Poll::Ready(());
        }
        self.has_waited = true;
        match queue.waiting.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => queue.waiting.push_back((self.number, cx.waker().clone())),
        }
        let starves = ALL.bytes.is_spent() && !std::mem::replace(&mut queue.is_starved, true);
        drop(queue);
        if starves {
            ALL.starved.lock().push(Arc::downgrade(&self.unwritten.queue));
            // Bytes may have been written since then.
            if !ALL.bytes.is_spent() {
                self.unwritten.wake_next();
            }
        }
        Poll::Pending
    }
}

impl http_body::Body for CountedBody {
    type Data = Piece;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Error>>> {
        ready!(self.poll_room(cx));
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let polled = polled.map_ok(|frame| frame.map_data(|bytes| Piece::new(bytes, &self.unwritten)));
        if std::mem::take(&mut self.has_waited) {
            self.unwritten.wake_next();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        if self.has_waited {
            self.unwritten.queue.lock().waiting.retain(|(number, _)| *number != self.number);
            // A connection that was woken and is dropped passes its wake-up on.
            self.unwritten.wake_next();
        }
    }
}

/// A piece of a body, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    counted: usize,
    unwritten: Unwritten,
}

impl Piece {
    fn new(bytes: Bytes, unwritten: &Unwritten) -> Self {
        unwritten.add(bytes.len());
        Piece { counted: bytes.len(), bytes, unwritten: unwritten.clone() }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.unwritten.sub(self.counted);
    }
}

/// An HTTP/2 connection's socket, which notes whether it takes what it is given.
pub(crate) struct CountedIo<T> {
    io: T,
    is_blocked: bool,
    unwritten: Unwritten,
}

impl<T> CountedIo<T> {
    fn note(&mut self, written: &Poll<io::Result<usize>>) {
        if self.is_blocked != written.is_pending() {
            self.is_blocked = written.is_pending();
            self.unwritten.set_blocked(self.is_blocked);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for CountedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CountedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, data);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, data);
        self.note(&written);
        written
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

/// The unwritten pieces of all connections.
struct All {
    bytes: ByteBudget,
    /// Connections with bodies that wait until this budget has room again.
    starved: Mutex<Vec<Weak<Mutex<Queue>>>>,
}

static ALL: LazyLock<All> =
    LazyLock::new(|| All { bytes: ByteBudget::new(MAX_ALL_BYTES), starved: Mutex::default() });

/// Unwritten bytes of all connections together, but for the few that each may have in any case.
const MAX_ALL_BYTES: usize = 32 << 20;

/// Unwritten bytes that a connection may have in any case: the pieces of a stream or two.
const MIN_BYTES: usize = 64 * 1024;

/// Unwritten bytes of a connection whose socket takes no more.
const MAX_BLOCKED_BYTES: usize = 256 * 1024;

/// Unwritten bytes of a connection whose socket takes them: those of streams whose own windows are closed. Two pieces for
/// each stream, so that readers that have stopped do not keep the others from theirs.
const MAX_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use futures_util::stream;
    use http_body::Body as _;
    use http_body_util::StreamBody;

    use super::*;

    /// A stream's task: whether it was woken since it was last polled.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.store(1, Ordering::SeqCst);
        }
    }

    struct Stream {
        body: CountedBody,
        task: Arc<Task>,
    }

    impl Stream {
        fn of(unwritten: &Unwritten) -> Stream {
            let endless = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[0; PIECE]))));
            let body = unwritten.count(Body::stream(StreamBody::new(endless)));
            Stream { body, task: Arc::default() }
        }

        /// The next piece; `None`: there is no room.
        fn piece(&mut self) -> Option<Piece> {
            self.task.0.store(0, Ordering::SeqCst);
            let waker = Waker::from(Arc::clone(&self.task));
            match Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker)) {
                Poll::Ready(frame) => Some(frame.unwrap().unwrap().into_data().unwrap()),
                Poll::Pending => None,
            }
        }

        fn is_woken(&self) -> bool {
            self.task.0.load(Ordering::SeqCst) == 1
        }
    }

    const PIECE: usize = 16 * 1024;

    #[test]
    fn a_connection_that_takes_nothing_holds_little_and_those_that_wait_go_on_in_turn() {
        let unwritten = Unwritten::new();
        unwritten.set_blocked(true);
        let mut streams: Vec<_> = (0..250).map(|_| Stream::of(&unwritten)).collect();
        let mut held: Vec<_> = streams.iter_mut().filter_map(Stream::piece).collect();
        assert_eq!(held.len() * PIECE, MAX_BLOCKED_BYTES);
        assert_eq!(unwritten.queue.lock().bytes, MAX_BLOCKED_BYTES);
        let (first, second) = (held.len(), held.len() + 1);
        held.pop();
        assert!(streams[first].is_woken() && !streams[second].is_woken());
        held.push(streams[first].piece().unwrap());
        assert!(!streams[second].is_woken(), "there is no room for another");

        // One that leaves after its turn has come passes it on.
        held.pop();
        assert!(streams[second].is_woken());
        drop(streams.remove(second));
        assert!(streams[second].is_woken());
        drop((held, streams));
        assert_eq!(unwritten.queue.lock().bytes, 0);
    }

    #[test]
    fn streams_whose_own_windows_are_closed_do_not_keep_the_others_waiting() {
        let unwritten = Unwritten::new();
        let mut stuck: Vec<_> = (0..249).map(|_| Stream::of(&unwritten)).collect();
        let mut held: Vec<_> = stuck.iter_mut().filter_map(Stream::piece).collect();
        held.extend(stuck.iter_mut().filter_map(Stream::piece));
        assert_eq!(held.len(), 2 * 249);
        let mut other = Stream::of(&unwritten);
        assert!(other.piece().is_some());
    }

    #[test]
    fn an_open_socket_takes_up_what_a_blocked_one_left() {
        let unwritten = Unwritten::new();
        unwritten.set_blocked(true);
        let mut stream = Stream::of(&unwritten);
        let held: Vec<_> = std::iter::from_fn(|| stream.piece()).collect();
        assert!(!stream.is_woken());
        unwritten.set_blocked(false);
        assert!(stream.is_woken());
        assert!(stream.piece().is_some());
        drop(held);
    }
}
