//! Clusters to begin with, and what is asked of them.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use pilotlight_kubernetes::knative::{Condition, PodAutoscaler};
use pilotlight_tests::cluster::{Cluster, ClusterParams, Outcomes, Revision, SYSTEM_NAMESPACE};
use pilotlight_tests::eventually;
use serde_json::{Value, json};

/// Time for what takes a stable window or two, on a machine that is busy with other tests.
pub(crate) const LATER: Duration = Duration::from_secs(60);

/// The program that is Pilotlight's parts.
pub(crate) const PARTS: &str = env!("CARGO_BIN_EXE_clustered");

pub(crate) async fn cluster() -> Cluster {
    Cluster::start(ClusterParams::quick(PARTS)).await.expect("a cluster")
}

pub(crate) async fn cluster_of(autoscalers: u32, activators: u32) -> Cluster {
    let params = ClusterParams { autoscalers, activators, ..ClusterParams::quick(PARTS) };
    Cluster::start(params).await.expect("a cluster")
}

/// Creates a revision and waits until it is ready.
pub(crate) async fn ready_revision(cluster: &Cluster, name: &str, annotations: &[(&str, &str)]) {
    cluster.create_revision(name, annotations, json!({})).await.expect("created");
    is_ready(cluster, name).await;
}

/// Creates a revision whose pods take one request at a time, as far as scaling goes, and waits until it is ready.
pub(crate) async fn one_request_a_pod(cluster: &Cluster, name: &str, more: &[(&str, &str)]) {
    let annotations = [&[("target", "1"), ("target-utilization-percentage", "100")], more].concat();
    ready_revision(cluster, name, &annotations).await;
}

pub(crate) async fn is_ready(cluster: &Cluster, name: &str) -> Revision {
    let ready = |revision: &Revision| revision.condition("Ready").is_some_and(|each| each.status == "True");
    cluster.until("the revision is ready", name, LATER, ready).await
}

/// Waits until requests to the revision are answered with 200.
pub(crate) async fn is_answered(cluster: &Cluster, name: &str) {
    let ingress = cluster.ingress(name);
    eventually("a request is answered", LATER, async || {
        ingress.get("/").await.ok().filter(|answer| answer.status == 200).map(drop)
    })
    .await;
}

pub(crate) fn condition(autoscaler: &PodAutoscaler, type_: &str) -> Option<Condition> {
    autoscaler.status.as_ref()?.conditions.iter().find(|each| each.type_ == type_).cloned()
}

/// The holder of the only lease: the name of an autoscaler's pod.
pub(crate) async fn holder(cluster: &Cluster) -> Option<String> {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), SYSTEM_NAMESPACE);
    let leases = api.list(&ListParams::default()).await.ok()?.items;
    let holder = leases.into_iter().find_map(|lease| lease.spec?.holder_identity)?;
    Some(holder.split('_').next().unwrap_or_default().to_owned()).filter(|name| !name.is_empty())
}

pub(crate) fn nothing_is_lost(outcomes: &Outcomes) {
    assert!(outcomes.answered > 0, "no request was answered: {outcomes:?}");
    assert!(outcomes.lost.is_empty(), "of {} requests: {:#?}", outcomes.answered, outcomes.lost);
}

/// Waits until the load has so many more answers than now.
pub(crate) async fn goes_on(load: &pilotlight_tests::cluster::IngressLoad, more: u64) {
    let goal = load.so_far().answered + more;
    eventually("the load goes on", LATER, async || (load.so_far().answered >= goal).then_some(())).await;
}

pub(crate) fn image(name: &str) -> Value {
    json!({ "containers": [{ "image": name }] })
}
