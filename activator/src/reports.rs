//! The revisions that have something to tell the autoscaler. All others cost nothing, however many there are.

use std::sync::Arc;

use parking_lot::Mutex;
use pilotlight_core::{RevisionId, Stat, Time};

use crate::revision::Revision;

/// The revisions that report each second: from the first request to the first second without any.
#[derive(Debug, Default)]
pub(crate) struct Reporting {
    // Also guards every revision's `is_reporting`: it says whether the revision is in here.
    revisions: Mutex<Vec<Arc<Revision>>>,
}

impl Reporting {
    /// A revision has something to report from now on.
    pub(crate) fn join(&self, revision: &Arc<Revision>) {
        let mut revisions = self.revisions.lock();
        if !revision.set_reporting(true) {
            revisions.push(Arc::clone(revision));
        }
    }

    /// A revision is over, and says no more.
    pub(crate) fn leave(&self, revision: &Arc<Revision>) {
        let mut revisions = self.revisions.lock();
        if revision.set_reporting(false) {
            revisions.retain(|other| !Arc::ptr_eq(other, revision));
        }
    }

    /// Everybody's sample of the last period. A revision that has none leaves; should a request arrive at this very
    /// moment, it joins again.
    pub(crate) fn report(&self, now: Time) -> Vec<(RevisionId, Stat)> {
        let mut stats = Vec::new();
        self.revisions.lock().retain(|revision| {
            let stat = revision.report(now);
            let is_alive = stat.is_some();
            stats.extend(stat.map(|stat| (revision.id().clone(), stat)));
            revision.set_reporting(is_alive);
            is_alive
        });
        stats
    }

    /// What a new connection to the autoscaler must hear first.
    pub(crate) fn resync(&self, now: Time) -> Vec<(RevisionId, Stat)> {
        let revisions = self.revisions.lock();
        revisions.iter().filter_map(|revision| Some((revision.id().clone(), revision.resync(now)?))).collect()
    }

    /// How many report.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.revisions.lock().len()
    }
}
