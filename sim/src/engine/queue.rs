//! Future events in order of time; events of the same time, in the order they were planned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use pilotlight_core::Time;

/// A queue of future events.
///
/// ```
/// use pilotlight_core::Time;
/// use pilotlight_sim::EventQueue;
/// let mut queue = EventQueue::default();
/// queue.push(Time::from_secs(2), "later");
/// queue.push(Time::from_secs(1), "first");
/// queue.push(Time::from_secs(1), "second");
/// assert_eq!(queue.pop(), Some((Time::from_secs(1), "first")));
/// assert_eq!(queue.pop(), Some((Time::from_secs(1), "second")));
/// assert_eq!(queue.next_at(), Some(Time::from_secs(2)));
/// ```
#[derive(Clone, Debug)]
pub struct EventQueue<E> {
    heap: BinaryHeap<Planned<E>>,
    planned: u64,
}

/// An event and its place in time. Ordered the other way round: the heap gives out the greatest.
#[derive(Clone, Debug)]
struct Planned<E> {
    at: u64,
    number: u64,
    event: E,
}

impl<E> EventQueue<E> {
    /// Plans an event.
    pub fn push(&mut self, at: Time, event: E) {
        self.planned += 1;
        self.heap.push(Planned { at: at.as_nanos(), number: self.planned, event });
    }

    /// Takes out the next event.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        let Planned { at, event, .. } = self.heap.pop()?;
        Some((Time::from_nanos(at), event))
    }

    /// The time of the next event.
    pub fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|planned| Time::from_nanos(planned.at))
    }

    /// How many events are planned.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is planned.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        EventQueue { heap: BinaryHeap::new(), planned: 0 }
    }
}

impl<E> Planned<E> {
    fn key(&self) -> u128 {
        u128::from(self.at) << 64 | u128::from(self.number)
    }
}

impl<E> Ord for Planned<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Planned<E> {}
