//! Keeping an eye on a client while its request waits for its turn.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use http::header;

use crate::{Error, Request};

/// Waits, and reads the beginning of the request's body meanwhile. An error says that the client has left, or
/// sends nonsense; there is nothing to wait for then.
///
/// A server only learns that a client has left by reading, and an unread body lies in the way. Without this, a
/// `POST` whose client gave up would keep its place in the queue. Reads ahead no more than
/// [`READ_AHEAD_BYTES`] (and at most one piece more), so that a long queue stays small; and nothing at all if the
/// client wants to hear `100 Continue` first.
pub async fn hold_while<T>(request: &mut Request, wait: impl Future<Output = T>) -> Result<T, Error> {
    let reads_ahead = !request.headers().contains_key(header::EXPECT);
    let body = request.body_mut();
    let mut wait = pin!(wait);
    poll_fn(|cx| {
        if let Poll::Ready(done) = wait.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if reads_ahead && let Err(error) = body.read_ahead(cx, READ_AHEAD_BYTES) {
            return Poll::Ready(Err(error));
        }
        Poll::Pending
    })
    .await
}

/// How much of a waiting request's body is kept in memory.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;
