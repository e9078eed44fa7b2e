//! The async handle over [`pilotlight_core::Breaker`]: tasks behind its tickets.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use pilotlight_core::{Admission, QueueFull, Ticket};

/// Limits what runs at once; first come, first served. All clones are the same breaker.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    core: pilotlight_core::Breaker,
    // By the ticket's index. A waker is left behind by a waiter that was granted or has left, until the next
    // one takes its place.
    wakers: Vec<Option<Waker>>,
}

impl Breaker {
    /// Admits up to `capacity` at once and lets up to `queue_depth` more wait.
    pub fn new(capacity: u32, queue_depth: usize) -> Self {
        let core = pilotlight_core::Breaker::new(capacity, queue_depth);
        Breaker { shared: Arc::new(Mutex::new(Shared { core, wakers: Vec::new() })) }
    }

    /// Admits all, and counts them.
    pub fn unlimited() -> Self {
        Breaker::new(u32::MAX, 0)
    }

    /// Waits for a slot. Dropping the future gives the place in the queue back at once.
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

impl Shared {
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
        // Nobody else can cancel this ticket, so no longer waiting means granted.
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
