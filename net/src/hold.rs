//! Keeping an eye on a client while its request waits for its turn.

use std::future::{Future, poll_fn};
use std::pin::pin;

use http::header;

use crate::Request;

/// Waits, and reads the beginning of the request's body meanwhile.
///
/// A server only learns that a client has left by reading, and an unread body lies in the way. Without this, a
/// `POST` whose client gave up would keep its place in the queue. Reads ahead no more than
/// [`READ_AHEAD_BYTES`] (and at most one piece more), so that a long queue stays small; and nothing at all if the
/// client wants to hear `100 Continue` first.
pub async fn hold_while<T>(request: &mut Request, wait: impl Future<Output = T>) -> T {
    let reads_ahead = !request.headers().contains_key(header::EXPECT);
    let body = request.body_mut();
    let mut wait = pin!(wait);
    poll_fn(|cx| {
        let done = wait.as_mut().poll(cx);
        if done.is_pending() && reads_ahead {
            body.read_ahead(cx, READ_AHEAD_BYTES);
        }
        done
    })
    .await
}

/// How much of a waiting request's body is kept in memory.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;
