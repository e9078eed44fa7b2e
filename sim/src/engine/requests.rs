//! The requests that are under way: a slab, so that memory follows their number and not how many there ever were,
//! with the line of their deadlines threaded through it.

use std::time::Duration;

use pilotlight_core::{Ticket, Time, balance};

/// Names a request. Never names two, not even one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestId {
    pub(super) index: u32,
    generation: u32,
}

/// A request, from when its client first sends it until the client has its answer, or gives up.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The time the client sent it first.
    pub(super) sent: Time,
    /// The time this attempt was sent.
    pub(super) attempt_sent: Time,
    /// The time a pod began to work on it, in this attempt.
    pub(super) started: Option<Time>,
    /// How long the service had been without a pod altogether when this attempt was sent.
    pub(super) cold_before: Duration,
    /// How long it waited while there was no pod.
    pub(super) waited_cold: Duration,
    /// How long it takes alone on a pod.
    pub(super) work: Duration,
    /// The user who waits for it, in a closed loop.
    pub(super) user: Option<u32>,
    /// Attempts before this one.
    pub(super) retries: u32,
    pub(super) place: Place,
    /// The activator it came through, if one stood in the path, and its place in the line there.
    pub(super) line: Option<LinePlace>,
}

/// An attempt's place in an activator's line: it stays the same however many pods refuse the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinePlace {
    pub(super) activator: u32,
    pub(super) ticket: balance::GateTicket,
}

/// The place of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Between two attempts, or not on its way yet.
    Client,
    /// In an activator's line.
    Line,
    /// Turned away by a queue-proxy whose line is full.
    Door { pod: u32 },
    /// In a queue-proxy's line.
    Queue { pod: u32, ticket: Ticket },
    /// At the app.
    App { pod: u32 },
}

impl Place {
    /// The pod it is at.
    pub(super) fn pod(self) -> Option<u32> {
        match self {
            Place::Door { pod } | Place::Queue { pod, .. } | Place::App { pod } => Some(pod),
            Place::Client | Place::Line => None,
        }
    }
}

#[derive(Debug)]
struct Slot {
    request: Request,
    generation: u32,
    in_use: bool,
    // Neighbours in the line of deadlines, or the next free slot.
    previous: u32,
    next: u32,
}

/// The requests under way, and the line of those with a deadline. All attempts may take equally long, so the line
/// is in order without sorting.
#[derive(Debug)]
pub(super) struct Requests {
    slots: Vec<Slot>,
    first_free: u32,
    len: usize,
    first: u32,
    last: u32,
}

const NONE: u32 = u32::MAX;

impl Default for Requests {
    fn default() -> Self {
        Requests { slots: Vec::new(), first_free: NONE, len: 0, first: NONE, last: NONE }
    }
}

impl Requests {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, request: Request) -> RequestId {
        self.len += 1;
        if self.first_free == NONE {
            let index = self.slots.len() as u32;
            self.slots.push(Slot { request, generation: 0, in_use: true, previous: NONE, next: NONE });
            return RequestId { index, generation: 0 };
        }
        let index = self.first_free;
        let slot = &mut self.slots[index as usize];
        self.first_free = slot.next;
        (slot.request, slot.in_use, slot.previous, slot.next) = (request, true, NONE, NONE);
        RequestId { index, generation: slot.generation }
    }

    /// Whether it is still under way, under this name.
    pub(super) fn contains(&self, id: RequestId) -> bool {
        let slot = &self.slots[id.index as usize];
        slot.in_use && slot.generation == id.generation
    }

    /// A request that is known to be under way.
    pub(super) fn at(&mut self, id: RequestId) -> &mut Request {
        debug_assert!(self.contains(id));
        &mut self.slots[id.index as usize].request
    }

    /// The requests that a pod has.
    pub(super) fn of_pod(&self, pod: u32) -> Vec<RequestId> {
        let slots =
            (0..).zip(&self.slots).filter(|(_, slot)| slot.in_use && slot.request.place.pod() == Some(pod));
        slots.map(|(index, slot)| RequestId { index, generation: slot.generation }).collect()
    }

    /// Ends the request's stay under this name: what was planned for it will not find it any more. It stays in its
    /// slot under the name returned.
    pub(super) fn rename(&mut self, id: RequestId) -> RequestId {
        self.forget_deadline(id);
        let slot = &mut self.slots[id.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        RequestId { index: id.index, generation: slot.generation }
    }

    pub(super) fn remove(&mut self, id: RequestId) {
        debug_assert!(self.contains(id));
        self.forget_deadline(id);
        self.len -= 1;
        let slot = &mut self.slots[id.index as usize];
        slot.in_use = false;
        slot.generation = slot.generation.wrapping_add(1);
        slot.next = self.first_free;
        self.first_free = id.index;
    }

    /// Puts a request at the end of the line of deadlines.
    pub(super) fn set_deadline(&mut self, id: RequestId) {
        let last = std::mem::replace(&mut self.last, id.index);
        match last {
            NONE => self.first = id.index,
            _ => self.slots[last as usize].next = id.index,
        }
        self.slots[id.index as usize].previous = last;
    }

    /// The request whose attempt began longest ago, of those with a deadline.
    pub(super) fn first_with_deadline(&self) -> Option<(RequestId, Time)> {
        let slot = self.slots.get(self.first as usize)?;
        Some((RequestId { index: self.first, generation: slot.generation }, slot.request.attempt_sent))
    }

    fn forget_deadline(&mut self, id: RequestId) {
        let slot = &mut self.slots[id.index as usize];
        let (previous, next) = (slot.previous, slot.next);
        let is_in_line = self.first == id.index || previous != NONE;
        if !is_in_line {
            return;
        }
        (slot.previous, slot.next) = (NONE, NONE);
        match previous {
            NONE => self.first = next,
            _ => self.slots[previous as usize].next = next,
        }
        match next {
            NONE => self.last = previous,
            _ => self.slots[next as usize].previous = previous,
        }
    }
}
