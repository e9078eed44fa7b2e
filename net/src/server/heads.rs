//! How long a client may take over the head of a request, once it has begun with it.
//!
//! hyper counts from the end of the response before, and so would close connections that are merely idle: a request
//! that crosses that on its way is lost. In between two requests a client may be silent for as long as it likes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

use crate::alarm::Alarm;

/// The timer of one connection, for hyper, which asks for a new sleep whenever it begins to wait for a head.
#[derive(Clone, Debug)]
pub(super) struct HeadTimer {
    has_begun: Arc<AtomicBool>,
    alarm: Alarm,
}

impl HeadTimer {
    pub(super) fn new(alarm: Alarm) -> Self {
        HeadTimer { has_begun: Arc::default(), alarm }
    }

    /// The client has said something.
    pub(super) fn heard(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, limit: Duration) -> Pin<Box<dyn Sleep>> {
        self.has_begun.store(false, Ordering::Relaxed);
        let (has_begun, alarm) = (Arc::clone(&self.has_begun), self.alarm.clone());
        Box::pin(HeadSleep { has_begun, alarm, limit, deadline: None })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(self.now()))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

struct HeadSleep {
    has_begun: Arc<AtomicBool>,
    alarm: Alarm,
    limit: Duration,
    // None: the client has not begun.
    deadline: Option<tokio::time::Instant>,
}

impl Future for HeadSleep {
    type Output = ();

    // Polled after every read, so that nobody has to be woken when the client begins.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline.is_none() && !self.has_begun.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let limit = self.limit;
        let deadline = *self.deadline.get_or_insert_with(|| tokio::time::Instant::now() + limit);
        self.alarm.poll(deadline, cx)
    }
}

impl Sleep for HeadSleep {}
