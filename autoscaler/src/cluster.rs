//! The cluster that runs pods, as the autoscaler needs it.
//!
//! `pilotlight-local` runs pods as child processes of this one. A Kubernetes adapter implements the same trait: watches
//! feed the revisions, `apply` patches the scale subresource and writes the status.

use std::net::SocketAddr;
use std::sync::Arc;

use pilotlight_core::{
    ActivatorPath, Evaluation, History, MeshMode, PodCounts, RevisionId, RevisionSpec, Time, Trouble,
};
use pilotlight_feed::Follower;
use serde::Serialize;

/// A cluster: runs pods.
pub trait Cluster: Send + Sync + 'static {
    /// Follows every revision there is, change by change.
    fn follow(&self) -> Follower<RevisionId, RevisionView>;

    /// Makes the plan of an evaluation true, in its own time, and shows the rest where people look for it. Called again
    /// and again with the same plan: only differences cost.
    fn apply(&self, revision: &RevisionId, evaluation: &Evaluation);
}

/// One revision, as the autoscaler sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionView {
    /// The resolved settings.
    pub spec: Arc<RevisionSpec>,
    /// The activator's place in the request path.
    pub path: ActivatorPath,
    /// Every pod that has not ended.
    pub pods: Vec<Pod>,
    /// Why pods do not come up; `None`: they do.
    pub trouble: Option<Arc<Trouble>>,
    /// The memory of whoever decided about it before. Read once, when the revision is first seen.
    pub history: Option<Arc<History>>,
    /// How its pods are asked what they measured.
    pub scraping: Scraping,
    /// The objects it was made from, for metrics. Read once, when the revision is first seen.
    pub parents: Parents,
}

/// How the pods of a revision are asked what they measured. The default: one by one, at their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scraping {
    /// The Service that leads to the pods, as `NAME.NAMESPACE:PORT`: it is asked where pods cannot be. `None`: there is none.
    pub service: Option<Arc<str>>,
    /// Whether pods or the Service are asked. Without a Service it is always the pods.
    pub mesh: MeshMode,
    /// Whether the mesh lets requests to single pods through if they name the Service. Knative's name is
    /// `enable-mesh-pod-addressability`.
    pub passthrough: bool,
}

/// The Knative objects that a revision was made from. The default: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parents {
    /// The Configuration.
    pub configuration: Option<Arc<str>>,
    /// The Service.
    pub service: Option<Arc<str>>,
}

/// One pod, as the autoscaler sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pod {
    /// The name.
    pub name: String,
    /// The phase of its life.
    pub phase: PodPhase,
    /// Address of its queue-proxy for the autoscaler's scrapes.
    pub stats_address: SocketAddr,
    /// Address of its queue-proxy for Prometheus.
    pub metrics_address: SocketAddr,
    /// When it was started.
    pub started: Time,
    /// Why it is not ready yet, once that has taken a while.
    pub waits_for: Option<String>,
}

/// The phase of a pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PodPhase {
    /// Its containers do not run yet: Kubernetes' phase `Pending`.
    Pending,
    /// Runs, and is not ready yet.
    Starting,
    /// Ready for requests.
    Ready,
    /// Takes no new requests and will end.
    Terminating,
}

impl PodPhase {
    /// Whether the pod is on its way up.
    pub fn is_starting(self) -> bool {
        matches!(self, PodPhase::Pending | PodPhase::Starting)
    }
}

impl RevisionView {
    /// How many pods there are, by phase.
    pub fn counts(&self) -> PodCounts {
        let mut counts = PodCounts::default();
        for pod in &self.pods {
            match pod.phase {
                PodPhase::Pending => {
                    counts.starting += 1;
                    counts.pending += 1;
                }
                PodPhase::Starting => counts.starting += 1,
                PodPhase::Ready => counts.ready += 1,
                PodPhase::Terminating => counts.terminating += 1,
            }
        }
        counts
    }
}
