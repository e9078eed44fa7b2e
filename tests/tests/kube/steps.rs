//! Four workloads, each at another step of its life, for whatever happens to all of them at once.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use pilotlight_tests::cluster::plain::{AppPort, PlainCluster, PlainLoad, Tally, Way, WorkloadSpec};
use pilotlight_tests::eventually;
use tokio::task::JoinHandle;

use crate::support::{LATER, created, goes_on, is_answered, load, nothing_is_left, nothing_is_lost};

/// Four workloads at four steps: `asleep`, `waking`, `busy` with two pods, and `calm` on its way to zero.
pub(crate) struct Steps {
    busy: PlainLoad,
    waking: JoinHandle<Tally>,
}

impl Steps {
    /// Brings each to its step.
    pub(crate) async fn reach(cluster: &PlainCluster) -> Steps {
        for name in NAMES {
            created(cluster, &WorkloadSpec::exact(name)).await;
        }
        let busy = load(cluster, "busy", 3);
        cluster.has_scale("busy", 2, LATER).await;
        is_answered(cluster, "calm").await;
        cluster.small.kubelet.set_pace(|pace| pace.start = Duration::from_secs(3));
        let waking = cluster.begin("waking", &AppPort::HTTP, Way::Once, "/");
        let is_told = |each: &Deployment| each.spec.as_ref().and_then(|spec| spec.replicas) == Some(1);
        cluster.until("a pod is on its way", "waking", LATER, is_told).await;
        cluster.small.kubelet.set_pace(|pace| pace.start = Duration::ZERO);
        Steps { busy, waking }
    }

    /// The one that sleeps wakes, the one that wakes has its answer, the busy one goes on with its pods, and then all go to
    /// zero, and nothing was lost.
    pub(crate) async fn go_on(self, cluster: &PlainCluster) {
        let asleep = load(cluster, "asleep", 1);
        goes_on(&asleep, 5).await;
        nothing_is_lost(&asleep.finish().await);
        nothing_is_lost(&self.waking.await.expect("no panic"));
        // More than a stable window.
        goes_on(&self.busy, 3 * 5 * 8).await;
        assert_eq!(cluster.replicas_of("busy").last(), Some(&2), "{:?}", cluster.replicas_of("busy"));
        nothing_is_lost(&self.busy.finish().await);
        for name in NAMES {
            cluster.has_scale(name, 0, LATER).await;
        }
        let counts = |name: &str| cluster.replicas_of(name);
        assert_eq!(
            (counts("calm"), counts("waking"), counts("asleep")),
            (vec![0, 1, 0], vec![0, 1, 0], vec![0, 1, 0])
        );
        nothing_is_left(cluster).await;
    }
}

/// Waits until another controller leads than this one.
pub(crate) async fn another_leads(cluster: &PlainCluster, than: &str) -> String {
    let is_other = async || cluster.leader().await.filter(|leader| leader != than);
    eventually("another leads", LATER, is_other).await
}

const NAMES: [&str; 4] = ["asleep", "waking", "busy", "calm"];
