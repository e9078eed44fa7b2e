//! A cluster for tests: it has the pods it is told to have, and remembers what it was asked to do.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use pilotlight_core::{ActivatorPath, Evaluation, RevisionId, RevisionSpec, Time};
use pilotlight_feed::{Feed, Follower};

use crate::cluster::{Cluster, Parents, Pod, PodPhase, RevisionView, Scraping};

#[derive(Default)]
pub(crate) struct PretendCluster {
    pub(crate) revisions: Feed<RevisionId, RevisionView>,
    pub(crate) applied: Mutex<Vec<(RevisionId, Evaluation)>>,
}

impl Cluster for PretendCluster {
    fn follow(&self) -> Follower<RevisionId, RevisionView> {
        self.revisions.follow()
    }

    fn apply(&self, revision: &RevisionId, evaluation: &Evaluation) {
        self.applied.lock().push((revision.clone(), evaluation.clone()));
    }
}

impl PretendCluster {
    /// The last number of pods that was asked for.
    pub(crate) fn scale(&self, name: &str) -> Option<u32> {
        let applied = self.applied.lock();
        applied
            .iter()
            .rev()
            .filter(|(it, _)| it.name == name)
            .find_map(|(_, evaluation)| evaluation.plan.scale)
    }

    pub(crate) fn last(&self, name: &str) -> Option<Evaluation> {
        let applied = self.applied.lock();
        applied.iter().rev().find(|(it, _)| it.name == name).map(|(_, evaluation)| evaluation.clone())
    }

    /// How many evaluations there were.
    pub(crate) fn evaluations(&self, name: &str) -> usize {
        self.applied.lock().iter().filter(|(it, _)| it.name == name).count()
    }
}

pub(crate) fn id(name: &str) -> RevisionId {
    RevisionId::new("default", name)
}

/// 7 of 10 requests in flight per pod; may begin with nothing; pods are not asked what they measured.
pub(crate) fn spec() -> RevisionSpec {
    RevisionSpec { target: 7.0, total: 10.0, initial_scale: 0, scraped: false, ..RevisionSpec::default() }
}

/// The activator is in the path; no pods.
pub(crate) fn at_rest(spec: RevisionSpec) -> RevisionView {
    let path = ActivatorPath { populated_since: Some(Time::from_secs(1)), probed: true };
    RevisionView {
        spec: Arc::new(spec),
        path,
        pods: Vec::new(),
        trouble: None,
        history: None,
        scraping: Scraping::default(),
        parents: Parents::default(),
    }
}

/// Ready pods that report at these addresses.
pub(crate) fn with_pods(view: RevisionView, stats: impl IntoIterator<Item = SocketAddr>) -> RevisionView {
    let pod = |(number, stats_address): (usize, SocketAddr)| Pod {
        name: format!("pod-{number}"),
        phase: PodPhase::Ready,
        stats_address,
        metrics_address: stats_address,
        started: Time::EPOCH,
        waits_for: None,
    };
    RevisionView { pods: stats.into_iter().enumerate().map(pod).collect(), ..view }
}
