//! Pods as child processes on this machine: the app, and a queue-proxy in front of it. And the autoscaler that runs
//! them, as a process of its own ([`process`]).
//!
//! One `keeper` task a workload starts and stops its pods; each `pod` task sees one pod through its life.
//! Everything they know is published twice: as the autoscaler's [`ClusterView`], and as the activator's
//! [`EndpointTable`].

mod address;
mod diagnose;
pub mod guard;
mod keeper;
pub mod manifests;
mod pod;
pub mod process;
mod sidecar;
mod workload;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_autoscaler::{Cluster, ClusterView};
use pilotlight_core::{EndpointTable, Plan, RevisionId, Stat, Time};
use pilotlight_net::Clock;
use tokio::sync::{mpsc, watch};

use address::Addresses;
use guard::Guard;
use keeper::{Keeper, Order};
pub use sidecar::Sidecar;
pub(crate) use workload::find_program;
pub use workload::{LocalWorkload, NoneRunnable, NotRunnable};

/// What a local cluster is made of.
pub struct LocalParams {
    /// The process's clock.
    pub clock: Clock,
    /// Starts the processes, and answers for their end.
    pub guard: Guard,
    /// The queue-proxy that stands in front of each pod.
    pub sidecar: Sidecar,
    /// For how long nothing must have arrived at a leaving pod before it stops.
    pub drain_quiet: Duration,
    /// How long an app may take to stop after SIGTERM before it is killed.
    pub termination_grace: Duration,
}

impl LocalParams {
    /// Long enough for a request that an activator had already given to a pod when it learned that the pod leaves.
    pub const DRAIN_QUIET: Duration = Duration::from_millis(500);
    /// What people are used to from `docker stop`.
    pub const TERMINATION_GRACE: Duration = Duration::from_secs(10);
}

/// A cluster of child processes. Clones are the same one.
#[derive(Clone)]
pub struct LocalCluster {
    shared: Arc<Shared>,
    keepers: Arc<BTreeMap<RevisionId, mpsc::UnboundedSender<Order>>>,
    /// Every keeper holds a receiver for as long as it has something to do.
    running: watch::Sender<()>,
}

/// What every keeper and every pod shares.
struct Shared {
    params: LocalParams,
    addresses: Arc<Addresses>,
    view: watch::Sender<Arc<ClusterView>>,
    endpoints: watch::Sender<Arc<EndpointTable>>,
    /// Requests in flight per pod, as last reported: the least busy one goes first.
    busy: Mutex<HashMap<String, f64>>,
    meters: Mutex<BTreeMap<RevisionId, Meter>>,
}

/// What a workload's pods have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Usage {
    /// Time all pods together have existed, from start to end.
    pub pod_time: Duration,
    /// Pods that were started.
    pub started: u32,
    /// Pods that ended by themselves, or never came up.
    pub failed: u32,
    /// The most pods there were at once.
    pub peak: u32,
}

/// Adds up usage between changes of the number of pods.
#[derive(Clone, Copy, Debug)]
struct Meter {
    usage: Usage,
    pods: u32,
    since: Time,
}

impl Meter {
    fn read(&self, now: Time) -> Usage {
        Usage { pod_time: self.usage.pod_time + (now - self.since) * self.pods, ..self.usage }
    }

    fn set_pods(&mut self, now: Time, pods: u32) {
        self.usage = self.read(now);
        self.usage.peak = self.usage.peak.max(pods);
        (self.pods, self.since) = (pods, now);
    }
}

impl LocalCluster {
    /// Starts with no pod running, on the current runtime.
    pub fn start(params: LocalParams, workloads: Vec<LocalWorkload>) -> LocalCluster {
        let shared = Arc::new(Shared {
            params,
            addresses: Arc::new(Addresses::new()),
            view: watch::Sender::default(),
            endpoints: watch::Sender::default(),
            busy: Mutex::default(),
            meters: Mutex::default(),
        });
        let mut keepers = BTreeMap::new();
        let running = watch::Sender::new(());
        for workload in workloads {
            let (orders, inbox) = mpsc::unbounded_channel();
            let id = workload.id.clone();
            let keeper = Keeper::new(Arc::clone(&shared), workload);
            let until_done = running.subscribe();
            tokio::spawn(async move {
                keeper.run(inbox).await;
                drop(until_done);
            });
            keepers.insert(id, orders);
        }
        LocalCluster { shared, keepers: Arc::new(keepers), running }
    }

    /// Where each workload's pods are, always current.
    pub fn endpoints(&self) -> watch::Receiver<Arc<EndpointTable>> {
        self.shared.endpoints.subscribe()
    }

    /// What each workload's pods have used so far.
    pub fn usage(&self) -> BTreeMap<RevisionId, Usage> {
        let now = self.shared.params.clock.now();
        self.shared.meters.lock().iter().map(|(id, meter)| (id.clone(), meter.read(now))).collect()
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
    fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.shared.view.subscribe()
    }

    fn apply(&self, revision: &RevisionId, plan: &Plan, decided: Time) {
        if let (Some(pods), Some(keeper)) = (plan.scale, self.keepers.get(revision)) {
            let _ = keeper.send(Order::Scale { pods, decided });
        }
    }

    fn observe(&self, pod: &str, stat: &Stat) {
        if let Some(busy) = self.shared.busy.lock().get_mut(pod) {
            *busy = stat.average_concurrent_requests;
        }
    }
}
