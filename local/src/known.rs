//! State that keepers publish: the pods of each workload, as the autoscaler and as the activator see them, and their
//! usage.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use pilotlight_autoscaler::cluster::RevisionView;
use pilotlight_core::{RevisionEndpoints, RevisionId};
use pilotlight_feed::Feed;
use pilotlight_net::Clock;

use crate::usage::Meter;

/// State published by all keepers of a cluster.
pub(crate) struct Known {
    pub(crate) clock: Clock,
    pub(crate) revisions: Feed<RevisionId, RevisionView>,
    pub(crate) endpoints: Feed<RevisionId, RevisionEndpoints>,
    pub(crate) meters: Mutex<BTreeMap<RevisionId, Meter>>,
}

impl Known {
    pub(crate) fn new(clock: Clock) -> Self {
        Known { clock, revisions: Feed::default(), endpoints: Feed::default(), meters: Mutex::default() }
    }
}
