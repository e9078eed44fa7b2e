//! Responses over HTTP/2 that are past their time and that nobody reads.
//!
//! A body's own timer speaks up when the body is read; but while a client takes nothing, nobody reads the body,
//! and all that it holds (a slot, an upstream connection) would be held for as long as the client likes. So a connection
//! keeps an eye on what it is writing. Over HTTP/1.1 an overdue response takes its connection with it (see
//! [`h1`](crate::h1)); here it only loses what it holds, for the other streams are not at fault.

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

/// An HTTP/2 connection's view of all the responses it is writing.
#[derive(Clone, Default)]
pub(super) struct Stragglers {
    shared: Arc<Mutex<Watched>>,
}

#[derive(Default)]
struct Watched {
    // By the time they must have ended; the number tells those of the same instant apart.
    bodies: BTreeMap<(Instant, u64), Weak<Mutex<Body>>>,
    next: u64,
    // The connection's task: the responses begin in tasks of their own.
    connection: Option<Waker>,
}

impl Stragglers {
    /// Watches a body that must end in time; any other stays as it is.
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

    /// Takes from the responses that are past their time what they hold. Never ready.
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

/// A body that its connection can take away from.
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
