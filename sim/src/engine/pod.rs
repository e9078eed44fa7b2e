//! The pods of a run: each with its queue-proxy's counters and breaker, and the app behind it.

use pilotlight_core::{Breaker, ConcurrencyLimit, RequestStats, Stat, Ticket, Time, TroubleReason};

use super::processor::Processor;
use super::requests::RequestId;
use super::timeline::Level;
use crate::scenario::Slowdown;

/// Names a pod: its place in the fleet, which a later pod may take, and which of those it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    // Pending => Starting | Gone
    Pending,
    // Starting => Ready | Gone
    Starting,
    // Ready => Leaving | Gone
    Ready,
    // Leaving => Gone
    Leaving,
    /// Gone; requests may still be sent to the pod until everybody knows.
    Gone,
}

#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// Requests are sent to it: that it is ready is known, and not yet that it leaves.
    pub(super) listed: bool,
    pub(super) started: Time,
    pub(super) ready_since: Option<Time>,
    /// Set if its start fails.
    pub(super) fails: Option<TroubleReason>,
    /// The queue-proxy's counters, and its latest report.
    pub(super) stats: RequestStats,
    pub(super) report: Stat,
    breaker: Option<Breaker>,
    /// The request that holds each ticket of the breaker, by the ticket's index.
    waiting: Vec<Option<RequestId>>,
    /// `None` where requests do nothing to each other: each ends when its work is done.
    pub(super) processor: Option<Processor>,
    /// Counts the changes of who is done next.
    pub(super) version: u32,
    pub(super) in_flight: u32,
    pub(super) at_work: u32,
    pub(super) last_arrival: Time,
    pub(super) leaving_since: Time,
    pub(super) busy_cores: Level,
}

/// The queue-proxy's answer to a request.
pub(super) enum PodEntry {
    Work,
    Queue(Ticket),
    Full,
}

impl Pod {
    pub(super) fn new(now: Time, generation: u32, limit: ConcurrencyLimit, slowdown: Slowdown) -> Self {
        Pod {
            generation,
            phase: Phase::Pending,
            listed: false,
            started: now,
            ready_since: None,
            fails: None,
            stats: RequestStats::new(now),
            report: Stat::default(),
            breaker: limit.get().zip(limit.queue_depth()).map(|(limit, queue)| Breaker::new(limit, queue)),
            waiting: Vec::new(),
            processor: (!slowdown.is_none()).then(|| Processor::new(now, slowdown)),
            version: 0,
            in_flight: 0,
            at_work: 0,
            last_arrival: now,
            leaving_since: now,
            busy_cores: Level::default(),
        }
    }

    /// Whether the pod's containers run.
    pub(super) fn runs(&self) -> bool {
        !matches!(self.phase, Phase::Pending | Phase::Gone)
    }

    /// A request asks to be worked on.
    pub(super) fn enter(&mut self, request: RequestId) -> PodEntry {
        let Some(breaker) = &mut self.breaker else { return PodEntry::Work };
        match breaker.acquire() {
            Ok(pilotlight_core::Admission::Granted) => PodEntry::Work,
            Ok(pilotlight_core::Admission::Queued(ticket)) => {
                if self.waiting.len() <= ticket.index() {
                    self.waiting.resize(ticket.index() + 1, None);
                }
                self.waiting[ticket.index()] = Some(request);
                PodEntry::Queue(ticket)
            }
            Err(_) => PodEntry::Full,
        }
    }

    /// A request is not worked on any more; returns the one that is now.
    pub(super) fn release(&mut self) -> Option<RequestId> {
        let ticket = self.breaker.as_mut()?.release()?;
        self.waiting[ticket.index()].take()
    }

    /// A request gives up its place in the queue.
    pub(super) fn cancel(&mut self, ticket: Ticket) {
        if let Some(breaker) = &mut self.breaker {
            breaker.cancel(ticket);
            self.waiting[ticket.index()] = None;
        }
    }
}
