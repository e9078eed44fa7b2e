//! A connection that is not HTTP, in the books of its revision.

use std::sync::Arc;

use pilotlight_core::Time;
use pilotlight_net::{ByteBudget, Clock};

use super::RevisionTraffic;
use crate::pods::Pod;

/// One connection whose bytes are passed through, from its first byte to its end: it counts as a request in flight, and as
/// hardly more than nothing while it [is silent](Passage::idle). Dropping it enters the result in the books.
#[derive(Debug)]
pub(crate) struct Passage {
    revision: Arc<RevisionTraffic>,
    clock: Clock,
    arrived: Time,
    /// Whether the revision counts it, and not another activator.
    is_counted: bool,
    is_idle: bool,
    has_reached_pod: bool,
    is_broken: bool,
}

impl Passage {
    pub(super) fn new(revision: Arc<RevisionTraffic>, clock: Clock, arrived: Time, is_counted: bool) -> Self {
        let (is_idle, has_reached_pod, is_broken) = (false, false, false);
        Passage { revision, clock, arrived, is_counted, is_idle, has_reached_pod, is_broken }
    }

    /// The budget of what waits in memory for the revision's pods.
    pub(crate) fn passing_bytes(&self) -> &ByteBudget {
        &self.revision.passing_bytes
    }

    /// Notes that a pod has taken the connection. `woke`: it had waited longest when pods came up.
    pub(crate) fn reached(&mut self, pod: &Pod, woke: bool) {
        self.has_reached_pod = true;
        if woke && self.is_counted {
            self.revision.woke(self.arrived, pod, self.clock.now());
        }
    }

    /// Notes why a pod could not be reached; another is tried.
    pub(crate) fn refused(&self, error: &str) {
        self.revision.refused(error);
    }

    /// Notes that the pod has broken the connection off.
    pub(crate) fn broken(&mut self) {
        self.is_broken = true;
    }

    /// Whether this activator counts the connection, and not the one that handed it on.
    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// Notes that the connection has been silent for long.
    pub(crate) fn idle(&mut self) {
        if !std::mem::replace(&mut self.is_idle, true) && self.is_counted {
            self.revision.books.lock().reporter.connection_idled(self.clock.now());
        }
    }

    /// Notes that a silent connection carries bytes again.
    pub(crate) fn resume(&mut self) {
        if std::mem::replace(&mut self.is_idle, false) && self.is_counted {
            self.revision.books.lock().reporter.connection_resumed(self.clock.now());
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if !self.is_counted {
            return;
        }
        let mut books = self.revision.books.lock();
        match self.is_idle {
            true => books.reporter.idle_connection_ended(),
            false => books.reporter.request_finished(self.clock.now()),
        }
        books.ledger.abandoned += u64::from(!self.has_reached_pod);
        books.ledger.broken += u64::from(self.is_broken);
    }
}
