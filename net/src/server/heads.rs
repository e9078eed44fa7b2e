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

/// The timer of one connection, for hyper, which asks for a new sleep whenever it begins to wait for a head.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadTimer {
    has_begun: Arc<AtomicBool>,
}

impl HeadTimer {
    /// The client has said something.
    pub(super) fn heard(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, limit: Duration) -> Pin<Box<dyn Sleep>> {
        self.has_begun.store(false, Ordering::Relaxed);
        Box::pin(HeadSleep { has_begun: Arc::clone(&self.has_begun), limit, sleep: None })
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
    limit: Duration,
    // None: the client has not begun.
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Future for HeadSleep {
    type Output = ();

    // Polled after every read, so that nobody has to be woken when the client begins.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.sleep.is_none() && !self.has_begun.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let limit = self.limit;
        self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx)
    }
}

impl Sleep for HeadSleep {}
