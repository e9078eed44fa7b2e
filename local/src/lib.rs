//! Pods as child processes on this machine: the app, and a queue-proxy in front of it. And the autoscaler that runs
//! them, as a process of its own ([`process`]).
//!
//! One `keeper` task a workload starts and stops its pods; each `pod` task sees one pod through its life.
//! The pods of a workload are published twice: for the autoscaler as [`RevisionView`], for the activator as
//! [`RevisionEndpoints`].

mod address;
mod app_logs;
mod diagnose;
pub mod guard;
mod keeper;
mod known;
pub mod manifests;
mod metrics;
mod pod;
pub mod process;
mod sidecar;
mod usage;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotlight_autoscaler::cluster::RevisionView;
use pilotlight_autoscaler::{Cluster, OnDemand, OnPodStat};
use pilotlight_core::{Evaluation, RevisionEndpoints, RevisionId};
use pilotlight_feed::{Feed, Follower};
use tokio::sync::{mpsc, watch};

use address::Addresses;
pub use app_logs::AppLogs;
use keeper::{Keeper, Order};
use known::Known;
pub use metrics::describe as describe_metrics;
pub use pod::LocalParams;
use pod::PodTask;
pub use sidecar::Sidecar;
pub use usage::Usage;
pub use workload::{LocalWorkload, NoneRunnable, NotRunnable};

/// A cluster of child processes. Clones are the same one.
#[derive(Clone)]
pub struct LocalCluster {
    known: Arc<Known>,
    keepers: Arc<BTreeMap<RevisionId, mpsc::UnboundedSender<Order>>>,
    /// Every keeper holds a receiver for as long as it has something to do.
    running: watch::Sender<()>,
}

impl LocalCluster {
    /// Starts with no pod running, on the current runtime.
    pub fn start(params: LocalParams, workloads: Vec<LocalWorkload>) -> LocalCluster {
        let known = Arc::new(Known::new(params.clock));
        let (params, addresses) = (Arc::new(params), Arc::new(Addresses::new()));
        let mut keepers = BTreeMap::new();
        let running = watch::Sender::new(());
        for workload in workloads.into_iter().map(Arc::new) {
            let (orders, inbox) = mpsc::unbounded_channel();
            keepers.insert(workload.id.clone(), orders);
            let (params, addresses, of_pod) =
                (Arc::clone(&params), Arc::clone(&addresses), Arc::clone(&workload));
            let launch = move |launch| {
                let lease = addresses.lease()?;
                let address = lease.address;
                PodTask::start(Arc::clone(&params), Arc::clone(&of_pod), lease, launch);
                Ok(address)
            };
            let keeper = Keeper::new(Arc::clone(&known), workload, launch);
            let until_done = running.subscribe();
            tokio::spawn(async move {
                keeper.run(inbox).await;
                drop(until_done);
            });
        }
        // Every keeper has published its workload: there are no others.
        known.revisions.complete();
        known.endpoints.complete();
        LocalCluster { known, keepers: Arc::new(keepers), running }
    }

    /// The endpoints of every workload, always current.
    pub fn endpoints(&self) -> &Feed<RevisionId, RevisionEndpoints> {
        &self.known.endpoints
    }

    /// Every workload and its pods, as they are now.
    pub fn revisions(&self) -> BTreeMap<Arc<RevisionId>, Arc<RevisionView>> {
        self.known.revisions.snapshot()
    }

    /// Usage of each workload's pods so far.
    pub fn usage(&self) -> BTreeMap<RevisionId, Usage> {
        let now = self.known.clock.now();
        self.known.meters.lock().iter().map(|(id, meter)| (id.clone(), meter.read(now))).collect()
    }

    /// Takes what pods report: of pods that work, the one with least to do goes first.
    pub fn on_pod_stat(&self) -> OnPodStat {
        let keepers = Arc::clone(&self.keepers);
        Arc::new(move |revision, pod, stat| {
            if let Some(keeper) = keepers.get(revision) {
                let requests = stat.average_concurrent_requests;
                let _ = keeper.send(Order::Load { pod: pod.into(), requests });
            }
        })
    }

    /// Takes word that requests have no pod: a start that waits after failures is tried at once.
    pub fn on_demand(&self) -> OnDemand {
        let keepers = Arc::clone(&self.keepers);
        Arc::new(move |revision| {
            if let Some(keeper) = keepers.get(revision) {
                let _ = keeper.send(Order::Demand);
            }
        })
    }

    /// Stops every pod, politely: each finishes what it has. Returns when all are gone. May be dropped and called
    /// again.
    pub async fn stop(&self) {
        for orders in self.keepers.values() {
            let _ = orders.send(Order::Stop);
        }
        self.running.closed().await;
    }

    /// Kills everything that is left.
    pub fn kill(&self) {
        for orders in self.keepers.values() {
            let _ = orders.send(Order::Kill);
        }
    }
}

impl Cluster for LocalCluster {
    fn follow(&self) -> Follower<RevisionId, RevisionView> {
        self.known.revisions.follow()
    }

    fn apply(&self, revision: &RevisionId, evaluation: &Evaluation) {
        if let (Some(pods), Some(keeper)) = (evaluation.plan.scale, self.keepers.get(revision)) {
            let _ = keeper.send(Order::Scale { pods, decided: evaluation.at });
        }
    }
}
