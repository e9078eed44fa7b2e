//! The async handle over [`pilotlight_core::Breaker`]: tasks behind its tickets.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use pilotlight_core::{Admission, QueueFull, Ticket};

/// A limit on how many run at once, with a FIFO queue. All clones are the same breaker.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Mutex<BreakerState>>,
}

struct BreakerState {
    core: pilotlight_core::Breaker,
    // Wakers by the index of their ticket. A waiter that was granted or has left leaves its waker behind, until the next
    // one with that index replaces it.
    wakers: Vec<Option<Waker>>,
}

impl Breaker {
    /// Admits up to `capacity` at once and lets up to `queue_depth` more wait.
    pub fn new(capacity: u32, queue_depth: usize) -> Self {
        let core = pilotlight_core::Breaker::new(capacity, queue_depth);
        Breaker { shared: Arc::new(Mutex::new(BreakerState { core, wakers: Vec::new() })) }
    }

    /// A breaker that admits everyone, and counts them.
    pub fn unlimited() -> Self {
        Breaker::new(u32::MAX, 0)
    }

    /// Waits for a slot. Dropping the future cancels the place in the queue at once.
    pub async fn acquire(&self) -> Result<Permit, QueueFull> {
        let admission = self.shared.lock().core.acquire()?;
        if let Admission::Queued(ticket) = admission {
            Waiting { breaker: self, ticket: Some(ticket) }.await;
        }
        Ok(self.permit())
    }

    /// Takes a slot if one is free at once.
    pub fn try_acquire(&self) -> Option<Permit> {
        let granted = self.shared.lock().core.try_acquire();
        granted.then(|| self.permit())
    }

    /// Changes the limit. Nothing that runs is stopped; waiters are let in as far as there is room now.
    pub fn set_capacity(&self, capacity: u32) {
        let woken = {
            let mut shared = self.shared.lock();
            let granted = shared.core.set_capacity(capacity);
            granted.into_iter().filter_map(|ticket| shared.take_waker(ticket)).collect::<Vec<_>>()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// How many may run at once.
    pub fn capacity(&self) -> u32 {
        self.shared.lock().core.capacity()
    }

    /// How many run.
    pub fn in_use(&self) -> u32 {
        self.shared.lock().core.in_use()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.shared.lock().core.waiting()
    }

    fn permit(&self) -> Permit {
        Permit { breaker: self.clone() }
    }

    fn release(&self) {
        let waker = {
            let mut shared = self.shared.lock();
            let next = shared.core.release();
            next.and_then(|ticket| shared.take_waker(ticket))
        };
        // Outside the lock: waking may run arbitrary code.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl BreakerState {
    fn take_waker(&mut self, ticket: Ticket) -> Option<Waker> {
        self.wakers.get_mut(ticket.index())?.take()
    }

    fn set_waker(&mut self, ticket: Ticket, waker: &Waker) {
        let index = ticket.index();
        if self.wakers.len() <= index {
            self.wakers.resize(index + 1, None);
        }
        match &mut self.wakers[index] {
            Some(old) => old.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared.lock();
        f.debug_struct("Breaker")
            .field("capacity", &shared.core.capacity())
            .field("in_use", &shared.core.in_use())
            .field("waiting", &shared.core.waiting())
            .finish()
    }
}

/// The right to run. Dropping it gives the slot to the next in line.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    breaker: Breaker,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breaker.release();
    }
}

/// A place in the queue. Completes when the slot is this waiter's.
struct Waiting<'a> {
    breaker: &'a Breaker,
    ticket: Option<Ticket>,
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(ticket) = self.ticket else { return Poll::Ready(()) };
        let mut shared = self.breaker.shared.lock();
        if shared.core.is_waiting(ticket) {
            shared.set_waker(ticket, cx.waker());
            return Poll::Pending;
        }
        drop(shared);
        // A ticket that no longer waits was granted: only its owner, here, could have cancelled it.
        self.ticket = None;
        Poll::Ready(())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let left_the_queue = self.breaker.shared.lock().core.cancel(ticket);
            if !left_the_queue {
                // The slot was granted between the wake-up and now: it goes to the next.
                self.breaker.release();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    // Polls once, without a runtime: everything here happens in a known order.
    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_permit_goes_to_the_next_in_line_and_a_newcomer_has_to_wait() {
        let breaker = Breaker::new(1, 9);
        let permit = breaker.try_acquire().unwrap();
        let mut first = pin!(breaker.acquire());
        let mut second = pin!(breaker.acquire());
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        drop(permit);
        assert!(breaker.try_acquire().is_none(), "the slot is the first waiter's already");
        assert!(poll(second.as_mut()).is_pending());
        let Poll::Ready(Ok(permit)) = poll(first.as_mut()) else { panic!("it is the first one's turn") };
        assert_eq!((breaker.in_use(), breaker.waiting()), (1, 1));
        drop(permit);
        assert!(poll(second.as_mut()).is_ready());
    }

    #[test]
    fn a_waiter_that_gives_up_frees_its_place_at_once() {
        let breaker = Breaker::new(1, 1);
        let permit = breaker.try_acquire().unwrap();
        for _ in 0..2 {
            let mut waiter = Box::pin(breaker.acquire());
            assert!(poll(waiter.as_mut()).is_pending());
            assert_eq!(breaker.waiting(), 1);
            drop(waiter);
            assert_eq!(breaker.waiting(), 0);
        }
        let mut waiter = pin!(breaker.acquire());
        assert!(poll(waiter.as_mut()).is_pending());
        drop(permit);
        assert!(poll(waiter).is_ready());
    }

    #[test]
    fn a_waiter_that_gives_up_after_its_turn_has_come_passes_it_on() {
        let breaker = Breaker::new(1, 9);
        let permit = breaker.try_acquire().unwrap();
        let mut first = Box::pin(breaker.acquire());
        let mut second = pin!(breaker.acquire());
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        drop(permit);
        drop(first);
        assert!(poll(second).is_ready());
    }

    #[test]
    fn a_full_queue_answers_at_once() {
        let breaker = Breaker::new(1, 1);
        let _permit = breaker.try_acquire().unwrap();
        let mut waiter = pin!(breaker.acquire());
        assert!(poll(waiter.as_mut()).is_pending());
        let Poll::Ready(Err(full)) = poll(pin!(breaker.acquire())) else { panic!("the queue is full") };
        assert_eq!(full.waiting, 1);
    }

    #[test]
    fn raising_the_capacity_lets_waiters_in() {
        let breaker = Breaker::new(0, 2);
        let (mut first, mut second) = (pin!(breaker.acquire()), pin!(breaker.acquire()));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        breaker.set_capacity(1);
        let Poll::Ready(Ok(permit)) = poll(first) else { panic!("there is room for one") };
        assert!(poll(second.as_mut()).is_pending());
        drop(permit);
        assert!(poll(second).is_ready());
    }

    #[test]
    fn an_unlimited_breaker_counts_all_the_same() {
        let breaker = Breaker::unlimited();
        let permits: Vec<Permit> = std::iter::from_fn(|| breaker.try_acquire()).take(1000).collect();
        assert_eq!((permits.len(), breaker.in_use()), (1000, 1000));
        drop(permits);
        assert_eq!(breaker.in_use(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_more_than_the_capacity_run_and_all_get_their_turn() {
        let breaker = Breaker::new(3, 10_000);
        let running = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let tasks = (0..500).map(|_| {
            let (breaker, running) = (breaker.clone(), Arc::clone(&running));
            tokio::spawn(async move {
                let _permit = breaker.acquire().await.unwrap();
                use std::sync::atomic::Ordering::SeqCst;
                assert!(running.fetch_add(1, SeqCst) < 3);
                tokio::task::yield_now().await;
                running.fetch_sub(1, SeqCst);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!((breaker.in_use(), breaker.waiting()), (0, 0));
    }
}
