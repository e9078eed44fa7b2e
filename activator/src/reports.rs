//! The list of revisions that have something to report. All others cost nothing, however many there are.

use std::sync::Arc;

use parking_lot::Mutex;
use pilotlight_core::{RevisionId, Stat, Time};

use crate::revision::RevisionTraffic;

/// The revisions that report each second: from their first request to the first second without any.
#[derive(Debug, Default)]
pub(crate) struct Reporting {
    // Invariant: a revision's `is_reporting` says whether it is in this list. Both change under this lock.
    revisions: Mutex<Vec<Arc<RevisionTraffic>>>,
}

impl Reporting {
    /// Adds a revision that has something to report from now on.
    pub(crate) fn join(&self, revision: &Arc<RevisionTraffic>) {
        let mut revisions = self.revisions.lock();
        if !revision.set_reporting(true) {
            revisions.push(Arc::clone(revision));
        }
    }

    /// Removes a revision that is retired.
    pub(crate) fn leave(&self, revision: &Arc<RevisionTraffic>) {
        let mut revisions = self.revisions.lock();
        if revision.set_reporting(false) {
            revisions.retain(|other| !Arc::ptr_eq(other, revision));
        }
    }

    /// Stats of the last period, at most one a revision and second: the autoscaler adds up what falls into one second. A
    /// revision that has none is removed; should its next request arrive at this very moment, it joins again when this
    /// returns.
    pub(crate) fn report(&self, now: Time) -> Vec<(RevisionId, Stat)> {
        let mut stats = Vec::new();
        self.revisions.lock().retain(|revision| {
            if revision.was_told_in(now) {
                return true;
            }
            let stat = revision.report(now);
            let is_alive = stat.is_some();
            stats.extend(stat.map(|stat| (revision.id().clone(), stat)));
            revision.set_reporting(is_alive);
            is_alive
        });
        stats
    }

    /// Stats that a new connection to the autoscaler must carry first: those of requests that no pod is there for. The
    /// others are told in the next report. Where pods are at work nothing has to be woken, and the average of a few
    /// moments, in a second that may have been reported over the connection before, would count as that of a whole one.
    pub(crate) fn resync(&self, now: Time) -> Vec<(RevisionId, Stat)> {
        let revisions = self.revisions.lock();
        revisions.iter().filter_map(|revision| Some((revision.id().clone(), revision.resync(now)?))).collect()
    }

    /// The revisions that report.
    pub(crate) fn revisions(&self) -> Vec<Arc<RevisionTraffic>> {
        self.revisions.lock().clone()
    }

    /// The number of revisions that report.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.revisions.lock().len()
    }
}
