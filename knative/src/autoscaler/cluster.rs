//! The Kubernetes side of the autoscaler: watches, the index they feed, and the writes that evaluations call for.
//!
//! ```text
//!                    ┌───────────── what a write returned ─────────────┐
//!                    ▼                                                 │
//! watches ──► Feed ──► Index ──► RevisionView ──► autoscaler's loop    │
//!                       │ ▲                            │ apply         │
//!                       │ └──────── Evaluation ◄───────┤               │
//!                       │                              ├──► scales ────┤   urgent: each wake in a task of its own
//!                       └──────────► Seen ──► reconcile┴──► writes ────┘   in order, 32 revisions at a time
//! ```

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use pilotlight_autoscaler::Cluster;
use pilotlight_autoscaler::cluster::RevisionView;
use pilotlight_core::{Evaluation, RevisionId};
use pilotlight_feed::{Change, Feed, Follower};
use pilotlight_kubernetes::event::Recorder;
use pilotlight_kubernetes::knative::{Metric, PodAutoscaler, ServerlessService};
use pilotlight_kubernetes::scale::ScaleFact;
use pilotlight_kubernetes::{WatchParams, labels, watch as watch_objects};
use pilotlight_net::Clock;
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;
use tracing::info;

use super::buckets::Buckets;
use super::facts::{self, AutoscalerFact, MetricFact, PodFact, ServiceFact};
use super::index::{Fact, Index};
use super::metrics::Metrics;
use super::probe::Resolve;
use super::scraping::ScrapeOutcome;
use super::settings::Settings;
use super::targets::{NamedWatches, READ_INTERVAL, TargetId, deployment};
use super::work::{Worker, WorkerParams};

/// The parts of a [`KnativeCluster`].
pub struct KnativeClusterParams {
    /// The API server.
    pub client: Client,
    /// The process's clock.
    pub clock: Clock,
    /// The settings in force.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// The buckets that are held. Revisions of others are neither shown nor written about.
    pub buckets: watch::Receiver<Arc<Buckets>>,
    /// The domain of the cluster's Services, as a rule `cluster.local`.
    pub cluster_domain: String,
    /// Finds the address of a revision's Service: [`dns`](super::probe::dns) outside of tests.
    pub resolve: Resolve,
    /// The handles of its metrics.
    pub metrics: Metrics,
}

/// A cluster with Knative Serving, of whose revisions this is the autoscaler.
///
/// Revisions are shown once everything has been listed. One whose bucket is gained comes with the history that its
/// PodAutoscaler's status holds then; one whose bucket is lost is gone, and nothing is written about it any more.
///
/// Everything that is wanted is worked out anew from the newest evaluation and the newest objects whenever one of them
/// changes, and what fails is tried again: so after an outage of the API server all converges by itself.
pub struct KnativeCluster {
    worker: Arc<Worker>,
    /// Ends with this.
    _tasks: JoinSet<()>,
}

impl KnativeCluster {
    /// Starts watching, on the current runtime.
    pub fn start(params: KnativeClusterParams) -> Arc<KnativeCluster> {
        let KnativeClusterParams {
            client,
            clock,
            mut settings,
            mut buckets,
            cluster_domain,
            resolve,
            metrics,
        } = params;
        let index =
            Index::new(Arc::clone(&settings.borrow_and_update()), Arc::clone(&buckets.borrow_and_update()));
        let recorder = Recorder::start(client.clone(), COMPONENT, clock);
        let worker = Worker::new(
            WorkerParams { client: client.clone(), clock, cluster_domain, resolve, recorder, metrics },
            index,
        );
        let mut tasks = JoinSet::new();
        let sources = Sources::start(&client, &mut tasks);
        tasks.spawn(run(Arc::clone(&worker), client, sources, settings, buckets));
        tasks.spawn(read_targets(Arc::clone(&worker)));
        Arc::new(KnativeCluster { worker, _tasks: tasks })
    }

    /// Has a Metric's status say how the last scrape of its revision's pods went.
    pub fn scraped(&self, revision: &RevisionId, outcome: &ScrapeOutcome) {
        self.worker.scraped(revision, outcome);
    }
}

impl Cluster for KnativeCluster {
    fn follow(&self) -> Follower<RevisionId, RevisionView> {
        self.worker.follow()
    }

    fn apply(&self, revision: &RevisionId, evaluation: &Evaluation) {
        self.worker.apply(revision, evaluation);
    }
}

/// The watches.
struct Sources {
    autoscalers: Follower<RevisionId, AutoscalerFact>,
    services: Follower<RevisionId, ServiceFact>,
    metrics: Follower<RevisionId, MetricFact>,
    pods: Follower<(RevisionId, String), PodFact>,
    deployments: Follower<TargetId, ScaleFact>,
    named: NamedWatches,
}

impl Sources {
    fn start(client: &Client, tasks: &mut JoinSet<()>) -> Self {
        let all = WatchParams::default;
        let of_revisions = || WatchParams { labels: labels::REVISION_UID.to_owned(), ..all() };
        let (autoscalers, services, metrics) = (Feed::default(), Feed::default(), Feed::default());
        let (pods, deployments) = (Feed::default(), Feed::default());
        let sources = Sources {
            autoscalers: autoscalers.follow(),
            services: services.follow(),
            metrics: metrics.follow(),
            pods: pods.follow(),
            deployments: deployments.follow(),
            named: NamedWatches::new(),
        };
        let client = || client.clone();
        let watched = Api::<PodAutoscaler>::all(client());
        tasks.spawn(watch_objects(watched, all(), autoscalers, facts::autoscaler));
        let watched = Api::<ServerlessService>::all(client());
        tasks.spawn(watch_objects(watched, all(), services, facts::service));
        tasks.spawn(watch_objects(Api::<Metric>::all(client()), all(), metrics, facts::metric));
        tasks.spawn(watch_objects(Api::<Pod>::all(client()), of_revisions(), pods, facts::pod));
        let watched = Api::<Deployment>::all(client());
        tasks.spawn(watch_objects(watched, of_revisions(), deployments, deployment));
        sources
    }

    /// The next fact; `None`: one of the watches that revisions wait for has told everything there was.
    async fn next(&mut self) -> Option<Fact> {
        tokio::select! {
            (id, fact) = self.named.next() => Some(Fact::Target(id, fact)),
            Some(change) = self.autoscalers.next() => fact(change, Fact::Autoscaler),
            Some(change) = self.services.next() => fact(change, Fact::Service),
            Some(change) = self.metrics.next() => fact(change, Fact::Metric),
            Some(change) = self.pods.next() => fact(change, Fact::Pod),
            Some(change) = self.deployments.next() => fact(change, Fact::Target),
            // The watches never end before their followers.
            else => std::future::pending().await,
        }
    }
}

fn fact<K, V>(change: Change<K, V>, make: impl Fn(Arc<K>, Option<Arc<V>>) -> Fact) -> Option<Fact> {
    match change {
        Change::Set(key, value) => Some(make(key, Some(value))),
        Change::Gone(key) => Some(make(key, None)),
        Change::Complete => None,
    }
}

/// Brings everything that changes into the index.
async fn run(
    worker: Arc<Worker>,
    client: Client,
    mut sources: Sources,
    mut settings: watch::Receiver<Arc<Settings>>,
    mut buckets: watch::Receiver<Arc<Buckets>>,
) {
    let mut incomplete = WATCHES;
    let mut facts = 0_u32;
    loop {
        tokio::select! {
            fact = sources.next() => match fact {
                Some(fact) => {
                    let may_name_a_kind = matches!(fact, Fact::Autoscaler(..));
                    worker.learn(fact);
                    if may_name_a_kind {
                        sources.named.begin(&client, |kind| worker.index.lock().names(kind));
                    }
                    facts = facts.wrapping_add(1);
                    if facts.is_multiple_of(AT_A_TIME) {
                        yield_now().await;
                    }
                }
                None => {
                    incomplete -= 1;
                    if incomplete == 0 {
                        worker.complete();
                        look_at_all(&worker).await;
                        worker.shown();
                    }
                }
            },
            Ok(()) = settings.changed() => {
                let settings = Arc::clone(&settings.borrow_and_update());
                worker.index.lock().settings(settings);
                look_at_all(&worker).await;
            }
            Ok(()) = buckets.changed() => {
                let buckets = Arc::clone(&buckets.borrow_and_update());
                info!(held = ?buckets.held, "Buckets are held");
                worker.index.lock().buckets(buckets);
                look_at_all(&worker).await;
            }
        }
    }
}

/// Reads what no watch shows, again and again.
async fn read_targets(worker: Arc<Worker>) {
    loop {
        sleep(READ_INTERVAL).await;
        worker.read_targets().await;
    }
}

async fn look_at_all(worker: &Arc<Worker>) {
    let all = worker.index.lock().revisions();
    for (number, id) in all.into_iter().enumerate() {
        worker.look_again(&id);
        if number % AT_A_TIME as usize == 0 {
            yield_now().await;
        }
    }
}

/// PodAutoscalers, ServerlessServices, Metrics, pods, Deployments.
const WATCHES: u32 = 5;
/// Revisions that are looked at before other tasks have their turn.
const AT_A_TIME: u32 = 64;
/// The name under which events are written.
const COMPONENT: &str = "autoscaler";
