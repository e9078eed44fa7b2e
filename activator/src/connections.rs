//! A limit on the connections of each revision at its own ports, so that one cannot take all file descriptors.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::Counter;
use parking_lot::Mutex;
use pilotlight_core::RevisionId;
use tokio::time::Instant;
use tracing::warn;

use crate::metrics::refused_connections;

/// The open connections of all revisions that have ports of their own.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    /// The most that one revision may have.
    most: usize,
    revisions: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    revisions: HashMap<RevisionId, Weak<RevisionConnections>>,
    /// The number of entries from which on those are dropped that nobody holds.
    swept_at: usize,
}

/// The open connections of one revision, at all of its ports.
#[derive(Debug)]
pub(crate) struct RevisionConnections {
    revision: RevisionId,
    most: usize,
    open: AtomicUsize,
    refused: Counter,
    told: Mutex<Option<Instant>>,
}

/// A guard of one open connection.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<RevisionConnections>);

impl ConnectionLimits {
    pub(crate) fn new(most: usize) -> Self {
        ConnectionLimits { most, revisions: Mutex::default() }
    }

    /// The connections of a revision, shared by all of its ports.
    pub(crate) fn of(&self, revision: &RevisionId) -> Arc<RevisionConnections> {
        let mut known = self.revisions.lock();
        if let Some(connections) = known.revisions.get(revision).and_then(Weak::upgrade) {
            return connections;
        }
        if known.revisions.len() >= known.swept_at {
            known.revisions.retain(|_, connections| connections.strong_count() > 0);
            known.swept_at = MIN_SWEPT.max(known.revisions.len() * 2);
        }
        let connections = Arc::new(RevisionConnections {
            revision: revision.clone(),
            most: self.most,
            open: AtomicUsize::new(0),
            refused: refused_connections(revision),
            told: Mutex::default(),
        });
        known.revisions.insert(revision.clone(), Arc::downgrade(&connections));
        connections
    }
}

impl RevisionConnections {
    /// Counts one more; `None`: the revision has its most, and the connection is to be closed.
    pub(crate) fn open(self: &Arc<Self>) -> Option<OpenConnection> {
        let below_limit = |open| (open < self.most).then_some(open + 1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_limit).is_ok() {
            return Some(OpenConnection(Arc::clone(self)));
        }
        self.refused.increment(1);
        let now = Instant::now();
        let mut told = self.told.lock();
        if told.is_none_or(|told| now - told >= TELLING_INTERVAL) {
            *told = Some(now);
            warn!(revision = %self.revision, most = self.most, "Revision has its most connections, new ones are closed");
        }
        None
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Time from one line of the log to the next about the same revision.
const TELLING_INTERVAL: Duration = Duration::from_secs(60);

/// The fewest entries that are looked through.
const MIN_SWEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> RevisionId {
        RevisionId::new("shop", name)
    }

    #[test]
    fn the_ports_of_a_revision_share_its_limit_and_other_revisions_have_their_own() {
        let limits = ConnectionLimits::new(2);
        let (http, grpc) = (limits.of(&id("web")), limits.of(&id("web")));
        let [one, two] = [http.open(), grpc.open()];
        assert!(one.is_some() && two.is_some());
        assert!(http.open().is_none() && grpc.open().is_none());
        assert!(limits.of(&id("api")).open().is_some());
        drop(one);
        assert!(http.open().is_some());
    }

    #[test]
    fn revisions_whose_ports_are_closed_are_forgotten() {
        let limits = ConnectionLimits::new(2);
        let kept: Vec<_> = (0..10).map(|number| limits.of(&id(&format!("kept-{number}")))).collect();
        for number in 0..10_000 {
            limits.of(&id(&format!("gone-{number}")));
        }
        assert!(limits.revisions.lock().revisions.len() <= 2 * MIN_SWEPT);
        assert!(Arc::ptr_eq(&kept[3], &limits.of(&id("kept-3"))));
    }
}
