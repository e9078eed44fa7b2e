//! A limit on what runs at once, with a bounded queue in front. First come, first served, without exception.
//!
//! Pure bookkeeping: nothing here blocks or wakes. The async handle in `pilotlight-net` puts tasks behind the
//! tickets; the simulator puts events behind them. Knative's name for this is `queue.Breaker`, which lets
//! newcomers overtake waiters; here they cannot.

/// Admits up to `capacity` at once and queues up to `max_queue` more, in strict order of arrival.
///
/// ```
/// use pilotlight_core::{Admission, Breaker, QueueFull};
/// let mut breaker = Breaker::new(1, 1);
/// assert_eq!(breaker.acquire(), Ok(Admission::Granted));
/// let Ok(Admission::Queued(ticket)) = breaker.acquire() else { panic!("there is room for one waiter") };
/// assert_eq!(breaker.acquire(), Err(QueueFull { waiting: 1 }));
/// assert_eq!(breaker.release(), Some(ticket)); // the waiter now holds the place
/// assert_eq!(breaker.release(), None);
/// ```
#[derive(Clone, Debug)]
pub struct Breaker {
    capacity: u32,
    in_use: u32,
    max_queue: usize,
    waiting: usize,
    // The queue: a doubly linked list threaded through a slab, so that a waiter in the middle leaves in O(1)
    // and memory never exceeds what the longest queue so far needed.
    places: Vec<Place>,
    first: Option<u32>,
    last: Option<u32>,
    first_free: Option<u32>,
}

/// What came of asking for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Run now; give the slot back with [`Breaker::release`].
    Granted,
    /// Wait until [`Breaker::release`] or [`Breaker::set_capacity`] names this ticket, or [`Breaker::cancel`] it.
    Queued(Ticket),
}

/// One waiter's place in the queue. Never names two waiters, not even one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    place: u32,
    generation: u64,
}

impl Ticket {
    /// A small number, unique among the waiters of this moment, for tables kept beside the breaker.
    pub fn index(self) -> usize {
        self.place as usize
    }
}

/// The queue is full: neither run nor wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull {
    /// How many are waiting already.
    pub waiting: usize,
}

impl std::fmt::Display for QueueFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "queue is full ({} waiting)", self.waiting)
    }
}

impl std::error::Error for QueueFull {}

#[derive(Clone, Debug)]
struct Place {
    // Counts the waiters that have held this place; a ticket of an earlier one no longer matches.
    generation: u64,
    // In the queue, both neighbours; in the free list, only `next`.
    previous: Option<u32>,
    next: Option<u32>,
}

impl Breaker {
    /// A breaker with nothing running. A capacity of 0 is legal: everything waits.
    pub fn new(capacity: u32, max_queue: usize) -> Self {
        Breaker {
            capacity,
            in_use: 0,
            // Places are numbered with 32 bits; no machine holds that many requests.
            max_queue: max_queue.min(u32::MAX as usize),
            waiting: 0,
            places: Vec::new(),
            first: None,
            last: None,
            first_free: None,
        }
    }

    /// Asks for a slot. A newcomer never overtakes a waiter.
    pub fn acquire(&mut self) -> Result<Admission, QueueFull> {
        if self.try_acquire() {
            return Ok(Admission::Granted);
        }
        if self.waiting >= self.max_queue {
            return Err(QueueFull { waiting: self.waiting });
        }
        Ok(Admission::Queued(self.enqueue()))
    }

    /// Takes a slot if one is free and nobody waits for it.
    pub fn try_acquire(&mut self) -> bool {
        // While anyone waits no slot is free: every change that frees one hands it on at once.
        let granted = self.in_use < self.capacity;
        self.in_use += u32::from(granted);
        granted
    }

    /// Gives a slot back. The returned waiter, if any, holds it from now on.
    pub fn release(&mut self) -> Option<Ticket> {
        debug_assert!(self.in_use > 0, "released more often than acquired");
        self.in_use = self.in_use.saturating_sub(1);
        self.grant_next()
    }

    /// Takes a waiter out of the queue. False if it is not waiting: it was granted, or cancelled before.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let waits = self.is_waiting(ticket);
        if waits {
            self.remove(ticket.place);
        }
        waits
    }

    /// Whether this ticket is still in the queue.
    pub fn is_waiting(&self, ticket: Ticket) -> bool {
        self.places.get(ticket.index()).is_some_and(|place| place.generation == ticket.generation)
    }

    /// Changes the limit. Each waiter returned holds a slot from now on. Nothing that runs is stopped:
    /// below what is in use, the breaker just admits nothing until enough has been released.
    pub fn set_capacity(&mut self, capacity: u32) -> Vec<Ticket> {
        self.capacity = capacity;
        std::iter::from_fn(|| self.grant_next()).collect()
    }

    /// How many may run at once.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many slots are taken.
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn grant_next(&mut self) -> Option<Ticket> {
        if self.in_use >= self.capacity {
            return None;
        }
        let place = self.first?;
        let ticket = Ticket { place, generation: self.places[place as usize].generation };
        self.remove(place);
        self.in_use += 1;
        Some(ticket)
    }

    fn enqueue(&mut self) -> Ticket {
        let place = match self.first_free {
            Some(place) => {
                self.first_free = self.places[place as usize].next;
                place
            }
            None => {
                self.places.push(Place { generation: 0, previous: None, next: None });
                (self.places.len() - 1) as u32
            }
        };
        self.places[place as usize].previous = self.last;
        self.places[place as usize].next = None;
        match self.last {
            Some(last) => self.places[last as usize].next = Some(place),
            None => self.first = Some(place),
        }
        self.last = Some(place);
        self.waiting += 1;
        Ticket { place, generation: self.places[place as usize].generation }
    }

    fn remove(&mut self, place: u32) {
        let Place { previous, next, .. } = self.places[place as usize];
        match previous {
            Some(previous) => self.places[previous as usize].next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => self.places[next as usize].previous = previous,
            None => self.last = previous,
        }
        let freed = &mut self.places[place as usize];
        freed.generation += 1;
        freed.previous = None;
        freed.next = self.first_free;
        self.first_free = Some(place);
        self.waiting -= 1;
    }
}
