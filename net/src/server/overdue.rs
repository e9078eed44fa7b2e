//! HTTP/2 responses that are past their time and are not being read.
//!
//! A body looks at its own timer when it is polled; but while its client takes nothing (flow control, RFC 9113, 5.2), it is
//! not polled, and a permit or an upstream connection inside it would be held for as long as the client likes. So the
//! connection watches the bodies that it writes. Over HTTP/1.1 an overdue response takes its connection with it (see
//! [`h1`](crate::h1)); here it only loses its content, for the other streams are not at fault.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::alarm::Alarm;
use crate::{Body, Error};

/// The bodies that one HTTP/2 connection is writing.
#[derive(Clone, Default)]
pub(super) struct Stragglers {
    shared: Arc<Mutex<Watched>>,
}

#[derive(Default)]
struct Watched {
    // Bodies by the end of their time; a number tells those of the same instant apart.
    bodies: BTreeMap<(Instant, u64), Weak<Mutex<Body>>>,
    next: u64,
    // Waker of the connection's task, for bodies that are added in the tasks of their streams.
    connection: Option<Waker>,
}

impl Stragglers {
    /// Watches a body, if it has a time limit.
    pub(super) fn watch(&self, body: Body) -> Body {
        let Some(total_at) = body.total_at() else { return body };
        let body = Arc::new(Mutex::new(body));
        let mut watched = self.shared.lock();
        let key = (total_at, watched.next);
        watched.next += 1;
        watched.bodies.insert(key, Arc::downgrade(&body));
        if watched.bodies.first_key_value().is_some_and(|(first, _)| *first == key)
            && let Some(connection) = watched.connection.take()
        {
            connection.wake();
        }
        drop(watched);
        Body::stream(WatchedBody { body, key, stragglers: self.clone() })
    }

    /// Expires the bodies that are past their time. Never ready.
    pub(super) fn poll(&self, cx: &mut Context<'_>, alarm: &Alarm) -> Poll<()> {
        loop {
            let mut watched = self.shared.lock();
            let Some(first) = watched.bodies.first_entry() else {
                watched.connection = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if alarm.poll(first.key().0, cx).is_pending() {
                watched.connection = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let overdue = first.remove();
            drop(watched);
            if let Some(body) = overdue.upgrade() {
                body.lock().expire();
            }
        }
    }
}

/// A body that its connection can expire.
struct WatchedBody {
    body: Arc<Mutex<Body>>,
    key: (Instant, u64),
    stragglers: Stragglers,
}

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut *self.body.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.lock().size_hint()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.stragglers.shared.lock().bodies.remove(&self.key);
    }
}
