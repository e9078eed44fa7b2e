//! Where pods come from: what the autoscaler needs of whatever runs them.
//!
//! `pilotlight-local` runs pods as child processes of this one. A Kubernetes adapter implements the same trait:
//! watches feed the view, `apply` patches the scale subresource.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use pilotlight_core::{ActivatorPath, Plan, PodCounts, RevisionId, RevisionSpec, Stat, Time};
use serde::Serialize;
use tokio::sync::watch;

/// What runs pods.
pub trait Cluster: Send + Sync + 'static {
    /// Every revision there is, with its settings and pods, always current.
    fn view(&self) -> watch::Receiver<Arc<ClusterView>>;

    /// Makes a plan true, in its own time. Called again and again with the same plan; only differences cost.
    fn apply(&self, revision: &RevisionId, plan: &Plan, decided: Time);

    /// A pod's own report, for choosing the least busy one when one must go.
    fn observe(&self, pod: &str, stat: &Stat);
}

/// Every revision of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// One entry a revision.
    pub revisions: BTreeMap<RevisionId, RevisionView>,
}

/// One revision, as the autoscaler sees it.
#[derive(Clone, Debug)]
pub struct RevisionView {
    /// The resolved settings.
    pub spec: Arc<RevisionSpec>,
    /// The activator's place in the request path.
    pub path: ActivatorPath,
    /// Every pod that has not ended.
    pub pods: Vec<Pod>,
}

/// One pod, as the autoscaler sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub phase: PodPhase,
    /// Where its queue-proxy reports to the autoscaler.
    pub stats_address: SocketAddr,
    /// Where its queue-proxy shows its metrics to Prometheus.
    pub metrics_address: SocketAddr,
    /// When it was started.
    pub started: Time,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PodPhase {
    /// Not ready yet.
    Starting,
    /// Ready for requests.
    Ready,
    /// Takes no new requests and will end.
    Terminating,
}

impl RevisionView {
    /// How many pods there are, by phase.
    pub fn counts(&self) -> PodCounts {
        let mut counts = PodCounts::default();
        for pod in &self.pods {
            match pod.phase {
                PodPhase::Starting => counts.starting += 1,
                PodPhase::Ready => counts.ready += 1,
                PodPhase::Terminating => counts.terminating += 1,
            }
        }
        counts
    }
}
