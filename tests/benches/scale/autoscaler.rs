//! The autoscaler's loop: revisions that sleep, one of which gets or loses a pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pilotlight_autoscaler::cluster::{Parents, Pod, PodPhase, RevisionView, Scraping};
use pilotlight_autoscaler::{Autoscaler, AutoscalerParams, Cluster};
use pilotlight_core::{ActivatorPath, Evaluation, RevisionId, RevisionSpec, Time};
use pilotlight_feed::{Feed, Follower};
use pilotlight_net::Clock;

use crate::cost::{self, Changing, Cost};

pub(crate) async fn measure(revisions: usize) -> Cost {
    pilotlight_telemetry::Registry::new().install().expect("the only recorder");
    let empty = cost::resident_mib();
    let has_pod = (0..revisions).map(|_| AtomicBool::new(false)).collect();
    let cluster = Arc::new(CountingCluster { has_pod, ..CountingCluster::default() });
    let spec = Arc::new(RevisionSpec { scraped: false, initial_scale: 0, ..RevisionSpec::default() });
    let mut changing =
        Revisions { cluster: Arc::clone(&cluster), spec, has_pod: vec![false; revisions], changes: 0 };
    for revision in 0..revisions {
        changing.publish(revision);
    }
    cluster.revisions.complete();
    let _autoscaler = Autoscaler::start(AutoscalerParams::new(Clock::start()), cluster);
    cost::measure(revisions, empty, &mut changing).await
}

/// The prefix of all names.
const NAME: &str = "revision-";

#[derive(Default)]
struct CountingCluster {
    revisions: Feed<RevisionId, RevisionView>,
    /// Whether the pod of each revision was there in the last evaluation.
    has_pod: Vec<AtomicBool>,
    /// How often that changed.
    noticed: AtomicU64,
}

impl Cluster for CountingCluster {
    fn follow(&self) -> Follower<RevisionId, RevisionView> {
        self.revisions.follow()
    }

    fn apply(&self, revision: &RevisionId, evaluation: &Evaluation) {
        let number = revision.name.strip_prefix(NAME).and_then(|number| number.parse::<usize>().ok());
        let has_pod = &self.has_pod[number.expect("its name is of our making")];
        let now = evaluation.pods.ready > 0;
        if has_pod.swap(now, Ordering::Relaxed) != now {
            self.noticed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Revisions {
    cluster: Arc<CountingCluster>,
    spec: Arc<RevisionSpec>,
    has_pod: Vec<bool>,
    changes: u64,
}

impl Revisions {
    fn publish(&self, revision: usize) {
        let address = SocketAddr::from(([10, 0, 0, 1], 9090));
        let pod = || Pod {
            name: format!("{NAME}{revision}-pod"),
            phase: PodPhase::Ready,
            stats_address: address,
            metrics_address: address,
            started: Time::EPOCH,
            waits_for: None,
        };
        let pods = self.has_pod[revision].then(pod).into_iter().collect();
        let path = ActivatorPath { populated_since: Some(Time::EPOCH), probed: true };
        let view = RevisionView {
            spec: Arc::clone(&self.spec),
            path,
            pods,
            trouble: None,
            history: None,
            scraping: Scraping::default(),
            parents: Parents::default(),
        };
        self.cluster.revisions.set(RevisionId::new("default", format!("{NAME}{revision}")), view);
    }
}

impl Changing for Revisions {
    fn change(&mut self, revision: usize) {
        self.changes += 1;
        self.has_pod[revision] = !self.has_pod[revision];
        self.publish(revision);
    }

    async fn caught_up(&mut self) {
        while self.cluster.noticed.load(Ordering::Relaxed) < self.changes {
            tokio::task::yield_now().await;
        }
    }
}
