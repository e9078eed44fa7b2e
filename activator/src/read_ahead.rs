//! Reading a little of a request's body while the request waits.
//!
//! hyper notices that a client has left only by reading from its connection, and it does not read past a body
//! that nobody takes. So the first kilobytes of the body are taken while waiting: a client with a small body
//! is seen leaving at once, and its place in the line comes free.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use pilotlight_net::{Body, Error};

/// Waits for `event` and reads ahead in `body` meanwhile. Fails if the body does, which means that the client
/// has left or makes no sense.
pub(crate) async fn read_while<T>(
    body: &mut Body,
    budget: &Arc<ByteBudget>,
    event: impl Future<Output = T>,
) -> Result<T, Error> {
    let mut ahead = ReadAhead::new(std::mem::take(body), Arc::clone(budget));
    let result = {
        let mut event = std::pin::pin!(event);
        tokio::select! {
            biased;
            outcome = &mut event => Ok(outcome),
            error = ahead.fill() => Err(error),
        }
    };
    *body = ahead.into_body();
    result
}

/// Bytes of bodies held by all waiting requests together.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    used: AtomicUsize,
    limit: usize,
}

impl ByteBudget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(ByteBudget { used: AtomicUsize::new(0), limit })
    }

    fn is_spent(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.limit
    }
}

/// A body of which the beginning has been read already.
struct ReadAhead {
    read: VecDeque<Frame<Bytes>>,
    /// Of `read`, in bytes; also what this body has taken from the budget.
    held: usize,
    rest: Body,
    budget: Arc<ByteBudget>,
}

impl ReadAhead {
    fn new(rest: Body, budget: Arc<ByteBudget>) -> Self {
        ReadAhead { read: VecDeque::new(), held: 0, rest, budget }
    }

    /// Reads until enough is held, then rests. Returns only on failure.
    async fn fill(&mut self) -> Error {
        while self.held < MAX_HELD && !self.budget.is_spent() {
            match self.rest.frame().await {
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    self.held += bytes;
                    self.budget.used.fetch_add(bytes, Ordering::Relaxed);
                    self.read.push_back(frame);
                }
                Some(Err(error)) => return error,
                None => break,
            }
        }
        std::future::pending().await
    }

    fn into_body(mut self) -> Body {
        if self.read.is_empty() { std::mem::take(&mut self.rest) } else { Body::stream(self) }
    }

    fn release(&mut self, bytes: usize) {
        self.held -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl HttpBody for ReadAhead {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(frame) = self.read.pop_front() {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.release(bytes);
            return Poll::Ready(Some(Ok(frame)));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (held, rest) = (self.held as u64, self.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        let held = self.held;
        self.release(held);
    }
}

/// The most read ahead in one body, give or take one piece.
const MAX_HELD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_body_comes_out_whole_and_the_budget_is_returned() {
        let budget = ByteBudget::new(1000);
        let mut body = Body::full("hello");
        let waited = read_while(&mut body, &budget, tokio::task::yield_now()).await;
        assert!(waited.is_ok());
        assert_eq!(budget.used.load(Ordering::Relaxed), 5);
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_spent_budget_stops_the_reading_but_not_the_waiting() {
        let budget = ByteBudget::new(0);
        let mut body = Body::full("hello");
        assert!(read_while(&mut body, &budget, std::future::pending::<()>()).now_or_never().is_none());
        let mut body = Body::full("hello");
        assert!(read_while(&mut body, &budget, std::future::ready(())).await.is_ok());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    }
}
