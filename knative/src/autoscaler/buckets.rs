//! Buckets: the revisions of a cluster, dealt out to the autoscalers that run.

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotlight_core::RevisionId;
use pilotlight_core::balance::owner;

/// All buckets, and those whose leases this autoscaler holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// The names of all buckets, in order.
    pub all: Arc<[String]>,
    /// The ones held here.
    pub held: BTreeSet<String>,
}

impl Buckets {
    /// The bucket of a revision; `None`: there are no buckets.
    pub fn of(&self, revision: &RevisionId) -> Option<&str> {
        let names: Vec<&str> = self.all.iter().map(String::as_str).collect();
        owner(&names, &revision.to_string())
    }

    /// Whether this autoscaler decides about a revision.
    pub fn hold(&self, revision: &RevisionId) -> bool {
        self.of(revision).is_some_and(|bucket| self.held.contains(bucket))
    }
}
