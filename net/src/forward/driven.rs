//! A connection that is driven by whoever uses it, and wakes them only for what comes from outside.
//!
//! hyper's two halves wake each other whenever one has left something for the other. Here both are polled by the same
//! task, one after the other, so that each such wake-up would only have the task polled once more for nothing: twice
//! a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::{Future, FutureExt};
use futures_util::task::AtomicWaker;

/// A driver, until it has ended or is taken by a task of its own.
#[derive(Debug)]
pub(super) struct Driven<D> {
    driver: Option<D>,
    bell: Arc<Bell>,
    // The bell again, as drivers want to see it.
    waker: Waker,
}

impl<D: Future + Unpin> Driven<D> {
    pub(super) fn new(driver: D) -> Self {
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(Arc::clone(&bell));
        Driven { driver: Some(driver), bell, waker }
    }

    /// Brings the connection forward. What it says when it has ended is said once.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<D::Output> {
        let driver = self.driver.as_mut()?;
        self.bell.task.register(cx.waker());
        let Poll::Ready(ended) = driver.poll_unpin(&mut Context::from_waker(&self.waker)) else {
            return None;
        };
        // What still waits for it learns of its end by this.
        self.driver = None;
        Some(ended)
    }

    /// Whether there is anything to be polled.
    pub(super) fn is_here(&self) -> bool {
        self.driver.is_some()
    }

    /// Looks for what the connection has brought. It brings it while it is polled and at no other time, so that
    /// nobody needs to be woken; unless a task drives it.
    ///
    /// Whoever is given something must look again or [poll](Self::poll) before they wait for more.
    pub(super) fn look<T>(
        &self,
        cx: &mut Context<'_>,
        brought: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if !self.is_here() {
            return brought(cx);
        }
        let (found, has_rung) = self.bell.muffled(|| brought(&mut Context::from_waker(Waker::noop())));
        if has_rung && found.is_pending() {
            // Maybe it was the network.
            cx.waker().wake_by_ref();
        }
        found
    }

    /// Leaves something for the connection, which must be polled next.
    pub(super) fn leave<T>(&self, leave: impl FnOnce() -> T) -> T {
        self.bell.muffled(leave).0
    }

    /// For a task that drives it from now on.
    pub(super) fn take(&mut self) -> Option<D> {
        self.driver.take()
    }
}

/// What wakes the task that drives a connection.
#[derive(Debug, Default)]
struct Bell {
    task: AtomicWaker,
    state: AtomicU8,
}

impl Bell {
    /// Wakes nobody meanwhile, but tells whether it would have.
    fn muffled<T>(&self, work: impl FnOnce() -> T) -> (T, bool) {
        self.state.store(MUFFLED, Ordering::SeqCst);
        let done = work();
        (done, self.state.swap(LOUD, Ordering::SeqCst) == RUNG)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let muffled = self.state.compare_exchange(MUFFLED, RUNG, Ordering::SeqCst, Ordering::SeqCst);
        if muffled == Err(LOUD) {
            self.task.wake();
        }
    }
}

const LOUD: u8 = 0;
const MUFFLED: u8 = 1;
/// Muffled, and rung since.
const RUNG: u8 = 2;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn only_a_ring_that_may_be_news_wakes_the_task() {
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        let times = || woken.0.load(Ordering::SeqCst);
        let mut driven = Driven::new(poll_fn(|_| Poll::<()>::Pending));
        driven.poll(cx);
        let ring = driven.waker.clone();

        driven.leave(|| ring.wake_by_ref());
        let rings = |found| {
            ring.wake_by_ref();
            found
        };
        assert!(driven.look(cx, |_| rings(Poll::Ready(()))).is_ready());
        assert!(driven.look(cx, |_| Poll::<()>::Pending).is_pending());
        assert_eq!(times(), 0);
        assert!(driven.look(cx, |_| rings(Poll::Pending)).is_pending());
        assert_eq!(times(), 1, "it may have been the network, and nobody else would look");
        ring.wake_by_ref();
        assert_eq!(times(), 2);
    }
}
