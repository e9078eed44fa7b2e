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
    places: Vec<QueuePlace>,
    first: Option<u32>,
    last: Option<u32>,
    first_free: Option<u32>,
}

/// The answer to a request for a slot.
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
struct QueuePlace {
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
                self.places.push(QueuePlace { generation: 0, previous: None, next: None });
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
        let QueuePlace { previous, next, .. } = self.places[place as usize];
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn queued(admission: Result<Admission, QueueFull>) -> Ticket {
        match admission {
            Ok(Admission::Queued(ticket)) => ticket,
            other => panic!("expected a ticket, got {other:?}"),
        }
    }

    #[test]
    fn a_full_queue_turns_the_next_away() {
        let mut breaker = Breaker::new(5, 50);
        for _ in 0..5 {
            assert_eq!(breaker.acquire(), Ok(Admission::Granted));
        }
        for _ in 0..50 {
            queued(breaker.acquire());
        }
        assert_eq!(breaker.acquire(), Err(QueueFull { waiting: 50 }));
    }

    #[test]
    fn without_capacity_all_wait_until_there_is_some() {
        let mut breaker = Breaker::new(0, 2);
        let (first, second) = (queued(breaker.acquire()), queued(breaker.acquire()));
        assert_eq!(breaker.set_capacity(1), [first]);
        assert_eq!(breaker.release(), Some(second));
        assert_eq!(breaker.release(), None);
    }

    #[test]
    fn lowering_the_capacity_stops_nothing_and_admits_nothing_until_below() {
        let mut breaker = Breaker::new(3, 9);
        for _ in 0..3 {
            assert_eq!(breaker.acquire(), Ok(Admission::Granted));
        }
        let waiter = queued(breaker.acquire());
        assert_eq!(breaker.set_capacity(1), []);
        assert_eq!(breaker.in_use(), 3);
        assert_eq!((breaker.release(), breaker.release()), (None, None));
        assert!(!breaker.try_acquire());
        assert_eq!(breaker.release(), Some(waiter));
    }

    #[test]
    fn waiters_that_leave_make_room_in_the_queue() {
        let mut breaker = Breaker::new(1, 1);
        assert_eq!(breaker.acquire(), Ok(Admission::Granted));
        for _ in 0..2 {
            let ticket = queued(breaker.acquire());
            assert!(breaker.cancel(ticket));
            assert!(!breaker.cancel(ticket), "it has left already");
        }
        queued(breaker.acquire());
        assert!(breaker.acquire().is_err());
    }

    #[test]
    fn an_old_ticket_never_cancels_the_next_owner_of_its_place() {
        let mut breaker = Breaker::new(0, 9);
        let old = queued(breaker.acquire());
        assert!(breaker.cancel(old));
        let new = queued(breaker.acquire());
        assert_eq!(old.index(), new.index());
        assert!(!breaker.cancel(old));
        assert!(breaker.is_waiting(new));
    }

    #[test]
    fn taking_without_waiting_fails_at_the_limit_and_works_after_a_release() {
        let mut breaker = Breaker::new(1, 1);
        assert!(breaker.try_acquire());
        assert!(!breaker.try_acquire());
        assert_eq!(breaker.release(), None);
        assert!(breaker.try_acquire());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Acquire,
        TryAcquire,
        Release,
        Cancel(prop::sample::Index),
        SetCapacity(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Acquire),
            1 => Just(Step::TryAcquire),
            3 => Just(Step::Release),
            1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            1 => (0..6u32).prop_map(Step::SetCapacity),
        ]
    }

    proptest! {
        // The model is a plain queue: it says who must be served next, whatever happens.
        #[test]
        fn nobody_is_lost_or_overtaken_and_the_capacity_holds(
            capacity in 0..6u32,
            max_queue in 0..8usize,
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let mut breaker = Breaker::new(capacity, max_queue);
            let mut line: VecDeque<Ticket> = VecDeque::new();
            let mut running = 0u32;
            for step in steps {
                let before = running;
                match step {
                    Step::Acquire => match breaker.acquire() {
                        Ok(Admission::Granted) => {
                            prop_assert!(line.is_empty(), "a newcomer overtook {} waiters", line.len());
                            running += 1;
                        }
                        Ok(Admission::Queued(ticket)) => {
                            prop_assert!(running >= breaker.capacity() && line.len() < max_queue);
                            line.push_back(ticket);
                        }
                        Err(full) => prop_assert_eq!((full.waiting, line.len()), (max_queue, max_queue)),
                    },
                    Step::TryAcquire => {
                        let free = line.is_empty() && running < breaker.capacity();
                        prop_assert_eq!(breaker.try_acquire(), free);
                        running += u32::from(free);
                    }
                    Step::Release if running == 0 => {}
                    Step::Release => {
                        running -= 1;
                        if let Some(next) = breaker.release() {
                            prop_assert_eq!(Some(next), line.pop_front());
                            running += 1;
                        }
                    }
                    Step::Cancel(which) => {
                        if !line.is_empty() {
                            let ticket = line.remove(which.index(line.len())).unwrap();
                            prop_assert!(breaker.cancel(ticket));
                        }
                    }
                    Step::SetCapacity(capacity) => {
                        for granted in breaker.set_capacity(capacity) {
                            prop_assert_eq!(Some(granted), line.pop_front());
                            running += 1;
                        }
                    }
                }
                prop_assert_eq!((breaker.in_use(), breaker.waiting()), (running, line.len()));
                prop_assert!(line.iter().all(|ticket| breaker.is_waiting(*ticket)));
                prop_assert!(running <= breaker.capacity() || running <= before, "more run than may");
                prop_assert!(line.is_empty() || running >= breaker.capacity(), "a slot is free and someone waits");
            }
            // All that are left are served, in order.
            while let Some(next) = line.pop_front() {
                breaker.set_capacity(0);
                while running > 0 {
                    prop_assert_eq!(breaker.release(), None);
                    running -= 1;
                }
                prop_assert_eq!(breaker.set_capacity(1), vec![next]);
                running = 1;
            }
        }

        #[test]
        fn memory_follows_the_longest_queue_not_the_number_of_waiters(rounds in 1..2000usize) {
            let mut breaker = Breaker::new(0, 4);
            for _ in 0..rounds {
                let tickets = [queued(breaker.acquire()), queued(breaker.acquire()), queued(breaker.acquire())];
                for ticket in [tickets[1], tickets[0], tickets[2]] {
                    breaker.cancel(ticket);
                }
            }
            prop_assert_eq!(breaker.places.len(), 3);
        }
    }
}
