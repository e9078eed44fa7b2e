//! Clusters to begin with, and what is asked of them.

use std::time::Duration;

use pilotlight_tests::cluster::plain::{
    AppPort, Leftovers, PlainCluster, PlainLoad, PlainParams, Tally, Way, WorkloadSpec,
};
use pilotlight_tests::eventually;

/// Time for what takes a stable window or two, on a machine that is busy with other tests.
pub(crate) const LATER: Duration = Duration::from_secs(60);

pub(crate) async fn cluster() -> PlainCluster {
    cluster_of(1, 1).await
}

pub(crate) async fn cluster_of(controllers: u32, activators: u32) -> PlainCluster {
    let quick = PlainParams::quick(env!("CARGO_BIN_EXE_clustered"), env!("CARGO_BIN_EXE_plain_app"));
    PlainCluster::start(PlainParams { controllers, activators, ..quick }).await.expect("a cluster")
}

/// Creates a workload whose requests all pass the activators, and waits until they do.
pub(crate) async fn created(cluster: &PlainCluster, spec: &WorkloadSpec) {
    cluster.create(spec).await.expect("created");
    cluster.passes(spec, LATER).await;
}

/// Sends one request, which is answered by a pod of the workload.
pub(crate) async fn is_answered(cluster: &PlainCluster, name: &str) {
    nothing_is_lost(&cluster.ask(name, &AppPort::HTTP, Way::Once, "/").await);
}

/// So many clients, each with a connection for each request, which takes 200 ms.
pub(crate) fn load(cluster: &PlainCluster, name: &str, clients: usize) -> PlainLoad {
    cluster.load(name, &AppPort::HTTP, Way::Once, clients, "/?sleep=200")
}

/// Waits until the load has so many more answers than now.
pub(crate) async fn goes_on(load: &PlainLoad, more: u64) {
    let goal = load.so_far().answered + more;
    eventually("the load goes on", LATER, async || (load.so_far().answered >= goal).then_some(())).await;
}

pub(crate) fn nothing_is_lost(tally: &Tally) {
    assert!(tally.answered > 0, "no request was answered: {tally:?}");
    assert!(
        tally.lost.is_empty() && tally.wrong.is_empty(),
        "{tally}: {:#?}, {:#?}",
        tally.lost,
        tally.wrong
    );
}

/// Waits until nothing is left that leads nowhere.
pub(crate) async fn nothing_is_left(cluster: &PlainCluster) {
    let mut last = None;
    let is_clean = async || {
        last = cluster.leftovers().await.ok();
        last.as_ref().is_some_and(Leftovers::is_empty).then_some(())
    };
    let within = tokio::time::timeout(LATER, eventually("nothing is left", LATER * 2, is_clean)).await;
    assert!(within.is_ok(), "{last:#?}");
}
