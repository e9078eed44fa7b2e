//! The Kubernetes side of the controller: watches, what is known by them, and the writes that evaluations call for.
//!
//! ```text
//!                    ┌───────────── what a write returned ─────────────┐
//!                    ▼                                                 │
//! watches ──► Feed ──► Workloads ──► RevisionView ──► autoscaler's loop│
//! activators ─► Roll ─┘ │ ▲                            │ apply         │
//!                       │ └──────── Evaluation ◄───────┤               │
//!                       │                              ├──► scales ────┤   urgent: each wake in a task of its own
//!                       └──────────► Seen ──► reconcile┴──► writes ────┘   in order, 32 workloads at a time
//! ```

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use parking_lot::Mutex;
use pilotlight_autoscaler::Cluster;
use pilotlight_autoscaler::cluster::RevisionView;
use pilotlight_core::{Evaluation, RevisionId};
use pilotlight_feed::Follower;
use pilotlight_kubernetes::event::Recorder;
use pilotlight_net::Clock;
use tokio::task::{JoinSet, yield_now};

use super::config::Defaults;
use super::metrics::Metrics;
use super::own::OwnRights;
use super::port_keeper::keep_ports;
use super::roll::{PeerState, Roll};
use super::rounds::go_round;
use super::signals::watch_cpu;
use super::sources::{Sources, Told};
use super::surveyor::survey_all;
use super::work::{Worker, WorkerParams};
use super::workloads::Fact as WorkloadFact;
use super::{config, hpa, target};
use crate::crd::RequestAutoscaler;
use crate::facts::{AutoscalerFact, Name, PodFact, ServiceFact};
use crate::ports::PortTable;
use crate::slices::SliceFact;

/// The parts of a [`PlainCluster`].
pub(crate) struct PlainClusterParams {
    /// The API server.
    pub(crate) client: Client,
    /// The process's clock.
    pub(crate) clock: Clock,
    /// The namespace of our own parts.
    pub(crate) system_namespace: String,
    /// The namespaces that are watched; empty: all.
    pub(crate) namespaces: Vec<String>,
    /// The activators' admin port.
    pub(crate) activator_admin_port: u16,
    /// How long a change of slices takes to reach every node.
    pub(crate) propagation: Duration,
    /// Whether we may say which pods go first.
    pub(crate) sets_deletion_cost: bool,
    /// The handles of its metrics.
    pub(crate) metrics: Metrics,
}

/// A cluster whose Deployments and Services are scaled by their requests.
///
/// Workloads are shown once everything has been listed. Everything that is wanted is worked out anew from the newest
/// evaluation and the newest objects whenever one of them changes, and what fails is tried again: so after an outage of the
/// API server all converges by itself.
pub(crate) struct PlainCluster {
    pub(crate) worker: Arc<Worker>,
    pub(crate) own: OwnRights,
    /// Ends with this.
    _tasks: JoinSet<()>,
}

impl PlainCluster {
    /// Starts watching, on the current runtime.
    pub(crate) fn start(params: PlainClusterParams) -> Arc<PlainCluster> {
        let PlainClusterParams { client, clock, system_namespace, metrics, .. } = params;
        let recorder = Recorder::start(client.clone(), COMPONENT, clock);
        let roll = Arc::new(Mutex::new(Roll::default()));
        let worker = Worker::new(WorkerParams {
            client: client.clone(),
            clock,
            system_namespace: system_namespace.clone(),
            propagation: params.propagation,
            sets_deletion_cost: params.sets_deletion_cost,
            recorder: recorder.clone(),
            metrics: metrics.clone(),
            roll: Arc::clone(&roll),
        });
        let mut tasks = JoinSet::new();
        let defaults = Defaults::new(system_namespace.clone(), recorder, metrics);
        let own = OwnRights::new(client.clone(), Arc::clone(&worker), &system_namespace, &params.namespaces);
        tasks.spawn(own.clone().keep());
        let sources = watch_all(&client, params.namespaces, &system_namespace);
        tasks.spawn(run(Arc::clone(&worker), sources, defaults));
        tasks.spawn(Arc::clone(&worker).wake_by_time());
        tasks.spawn(keep_ports(client.clone(), system_namespace.clone(), Arc::clone(&worker)));
        tasks.spawn(survey_all(client.clone(), system_namespace, Arc::clone(&worker)));
        tasks.spawn(watch_cpu(client, Arc::clone(&worker)));
        let changed = {
            let worker = Arc::clone(&worker);
            move || peers_changed(&worker)
        };
        tasks.spawn(go_round(roll, clock, params.activator_admin_port, changed));
        Arc::new(PlainCluster { worker, own, _tasks: tasks })
    }
}

impl Cluster for PlainCluster {
    fn follow(&self) -> Follower<RevisionId, RevisionView> {
        self.worker.follow()
    }

    fn apply(&self, revision: &RevisionId, evaluation: &Evaluation) {
        self.worker.apply(revision, evaluation);
    }
}

/// A change of one watched object; `None`: it is gone.
enum Fact {
    Workload(WorkloadFact),
    /// A pod of the activators.
    Activator(Arc<Name>, Option<Arc<PodFact>>),
    /// One of our ConfigMaps.
    Config(Arc<String>, Option<Arc<config::ConfigFact>>),
}

fn watch_all(client: &Client, namespaces: Vec<String>, system_namespace: &str) -> Sources<Fact> {
    let mut sources = Sources::new(client.clone(), namespaces);
    let fact = Fact::Workload;
    sources.watch::<RequestAutoscaler, _, _>(AutoscalerFact::read, move |id, it| {
        fact(WorkloadFact::Autoscaler(id, it))
    });
    sources.watch::<Service, _, _>(ServiceFact::read, move |name, it| fact(WorkloadFact::Service(name, it)));
    sources.watch::<Pod, _, _>(PodFact::read, move |name, it| fact(WorkloadFact::Pod(name, it)));
    sources
        .watch::<EndpointSlice, _, _>(SliceFact::read, move |name, it| fact(WorkloadFact::Slice(name, it)));
    sources
        .watch::<Deployment, _, _>(target::deployment, move |name, it| fact(WorkloadFact::Target(name, it)));
    sources.watch::<StatefulSet, _, _>(target::stateful_set, move |name, it| {
        fact(WorkloadFact::Target(name, it))
    });
    sources
        .watch::<ReplicaSet, _, _>(target::replica_set, move |name, it| fact(WorkloadFact::Target(name, it)));
    sources
        .watch::<HorizontalPodAutoscaler, _, _>(hpa::read, move |name, it| fact(WorkloadFact::Hpa(name, it)));
    let pods = Api::<Pod>::namespaced(client.clone(), system_namespace);
    sources.watch_in(pods, ACTIVATORS, PodFact::read, Fact::Activator);
    let maps = Api::<ConfigMap>::namespaced(client.clone(), system_namespace);
    sources.watch_in(maps, "", config::read, Fact::Config);
    sources
}

/// Brings everything that changes to the worker.
async fn run(worker: Arc<Worker>, mut sources: Sources<Fact>, mut defaults: Defaults) {
    let mut facts = 0_u32;
    loop {
        match sources.next().await {
            Told::Fact(Fact::Workload(fact)) => worker.learn(fact),
            Told::Fact(Fact::Activator(name, pod)) => {
                worker.roll.lock().pod(worker.clock.now(), &name.name, pod);
                peers_changed(&worker);
            }
            Told::Fact(Fact::Config(name, map)) => {
                if name.as_str() == crate::ports::CONFIG_MAP {
                    worker.learn_table(map.map_or_else(PortTable::default, |map| map.table()));
                } else if let Some(settings) = map.and_then(|map| defaults.learn(&map)) {
                    worker.workloads.lock().set_defaults(settings);
                    look_at_all(&worker).await;
                }
            }
            Told::Complete => {
                worker.complete();
                look_at_all(&worker).await;
                worker.shown();
                worker.ports_wanted.notify_one();
                worker.namespace_wanted.notify_one();
            }
        }
        facts = facts.wrapping_add(1);
        if facts.is_multiple_of(AT_A_TIME) {
            yield_now().await;
        }
    }
}

/// Brings the activators as they are now to every workload: their slices name them.
pub(super) fn peers_changed(worker: &Arc<Worker>) {
    let peers = worker.roll.lock().peers(worker.clock.now());
    let serving = peers.values().filter(|peer| matches!(peer.state, PeerState::Serving { .. })).count();
    worker.metrics.activators.set(u32::try_from(serving).unwrap_or(u32::MAX));
    let mut workloads = worker.workloads.lock();
    if !workloads.is_complete() {
        return;
    }
    workloads.set_peers(Arc::new(peers));
    let ids = workloads.ids();
    drop(workloads);
    worker.ports_wanted.notify_one();
    let busy = worker.roll.lock().busy();
    let (first, rest): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| busy.contains(id));
    first.into_iter().for_each(|id| worker.look(&Arc::new(id), true));
    rest.into_iter().for_each(|id| worker.look(&Arc::new(id), false));
}

async fn look_at_all(worker: &Arc<Worker>) {
    let all = worker.workloads.lock().ids();
    for (number, id) in all.into_iter().enumerate() {
        worker.look(&Arc::new(id), false);
        if number % AT_A_TIME as usize == 0 {
            yield_now().await;
        }
    }
    let shown = worker.workloads.lock().shown_count();
    worker.metrics.workloads.set(u32::try_from(shown).unwrap_or(u32::MAX));
}

/// The label selector of the activators' pods.
const ACTIVATORS: &str = "app.kubernetes.io/name=pilotlight,app.kubernetes.io/component=activator";
/// Facts that are taken in before other tasks have their turn.
const AT_A_TIME: u32 = 64;
/// The name under which events are written.
const COMPONENT: &str = "pilotlight";
