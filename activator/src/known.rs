//! All revisions of an activator: those that exist, those that were deleted and still have requests, and the books of
//! those that are retired.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pilotlight_core::{RevisionEndpoints, RevisionId};

use crate::ledger::{Ledger, RevisionLedger};
use crate::prober::Prober;
use crate::revision::RevisionTraffic;

/// One revision, and the parts that serve it.
#[derive(Clone, Debug)]
pub(crate) struct KnownRevision {
    pub(crate) revision: Arc<RevisionTraffic>,
    pub(crate) prober: Arc<Prober>,
    /// The endpoints in force.
    pub(crate) endpoints: Arc<RevisionEndpoints>,
}

/// All revisions, each in exactly one place.
#[derive(Debug, Default)]
pub(crate) struct KnownRevisions {
    members: HashMap<RevisionId, KnownRevision>,
    /// Deleted revisions that are not retired yet: few, however many members there are.
    leaving: BTreeMap<RevisionId, KnownRevision>,
    retired: BTreeMap<RevisionId, RevisionLedger>,
    /// The books of everything ever retired.
    retired_total: RevisionLedger,
}

impl KnownRevisions {
    /// Takes over a revision's endpoints. Returns the member, and the endpoints it had before; `None`: there was no such
    /// revision.
    pub(crate) fn set(
        &mut self,
        id: &RevisionId,
        endpoints: Arc<RevisionEndpoints>,
        meet: impl FnOnce() -> (Arc<RevisionTraffic>, Arc<Prober>),
    ) -> (KnownRevision, Option<Arc<RevisionEndpoints>>) {
        if let Some(member) = self.members.get_mut(id) {
            let before = std::mem::replace(&mut member.endpoints, endpoints);
            return (member.clone(), Some(before));
        }
        let member = match self.leaving.remove(id) {
            // A revision that is created again before it was retired keeps its queue and its books.
            Some(back) => KnownRevision { endpoints, ..back },
            None => {
                let (revision, prober) = meet();
                KnownRevision { revision, prober, endpoints }
            }
        };
        self.members.insert(id.clone(), member.clone());
        (member, None)
    }

    /// Notes that a revision was deleted; `None`: there was no such revision.
    pub(crate) fn remove(&mut self, id: &RevisionId) -> Option<KnownRevision> {
        let (id, member) = self.members.remove_entry(id)?;
        self.leaving.insert(id, member.clone());
        Some(member)
    }

    /// Retires deleted revisions that have no requests: only their books are kept. Returns them.
    pub(crate) fn retire(&mut self) -> Vec<Arc<RevisionTraffic>> {
        let leaving = std::mem::take(&mut self.leaving).into_iter();
        let (done, left) =
            leaving.partition::<BTreeMap<_, _>, _>(|(_, member)| member.revision.in_flight() == 0);
        self.leaving = left;
        let mut over = Vec::with_capacity(done.len());
        for (id, KnownRevision { revision, .. }) in done {
            let book = revision.ledger();
            self.retired_total.add(&book);
            self.retired.entry(id).or_default().add(&book);
            if self.retired.len() > MAX_RETIRED {
                self.retired.pop_first();
            }
            over.push(revision);
        }
        over
    }

    /// Every revision that is not retired, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<RevisionTraffic>> {
        self.members.values().chain(self.leaving.values()).map(|member| &member.revision)
    }

    /// The books of retired revisions.
    pub(crate) fn retired(&self, stats_dropped: u64) -> Ledger {
        Ledger { revisions: self.retired.clone(), total: self.retired_total.clone(), stats_dropped }
    }
}

/// The most retired revisions whose books are kept apart.
const MAX_RETIRED: usize = 1000;
