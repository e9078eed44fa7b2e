//! Objects for the tests of the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotlight_core::Time;
use serde_json::json;

use crate::Workload;
use crate::facts::{AutoscalerFact, PodFact, PodPhase, ServiceFact};
use crate::ports::{PortOwner, PortTable};

/// A pod without labels.
pub(crate) fn pod(name: &str, ip: &str, phase: PodPhase) -> Arc<PodFact> {
    fact(name, &[], &[ip], phase)
}

/// A pod with labels and without an address.
pub(crate) fn labelled(name: &str, labels: &[(&str, &str)], phase: PodPhase) -> Arc<PodFact> {
    fact(name, labels, &[], phase)
}

fn fact(name: &str, labels: &[(&str, &str)], ips: &[&str], phase: PodPhase) -> Arc<PodFact> {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Arc::new(PodFact {
        uid: format!("uid-of-{name}"),
        labels: Arc::new(labels.collect()),
        phase,
        ips: ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        node: "node-1".to_owned(),
        started: Time::EPOCH,
        named_ports: Arc::default(),
        is_probed: false,
        has_queue_proxy: false,
        on_host_network: false,
        waits_for: None,
        trouble: None,
    })
}

/// A Service in the namespace `shop` that selects `app=NAME`.
pub(crate) fn service(name: &str) -> ServiceFact {
    let object = json!({
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-of-{name}"), "resourceVersion": "3"},
        "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    ServiceFact::read(&serde_json::from_value(object).unwrap()).unwrap().1
}

/// The workload `web` in the namespace `shop`, with ready pods at these addresses.
pub(crate) fn workload(pods: &[(&str, &str)]) -> Workload {
    let autoscaler = json!({
        "apiVersion": "pilotlight.dev/v1alpha1", "kind": "RequestAutoscaler",
        "metadata": {"namespace": "shop", "name": "web", "uid": "u", "resourceVersion": "5", "generation": 1},
        "spec": {"scaleTargetRef": {"name": "web"}, "minReplicas": 0},
        "status": {"selector": "app=web"}});
    let (id, autoscaler) = AutoscalerFact::read(&serde_json::from_value(autoscaler).unwrap()).unwrap();
    let ready = |(name, ip): &(&str, &str)| ((*name).to_owned(), pod(name, ip, PodPhase::Ready));
    Workload {
        id: Arc::new(id),
        autoscaler: Arc::new(autoscaler),
        services: BTreeMap::from([("web".to_owned(), Arc::new(service("web")))]),
        pods: pods.iter().map(ready).collect(),
    }
}

/// A table of ports in this version: the port `http` of each Service of the namespace `shop` has one.
pub(crate) fn table(version: &str, services: &[&str]) -> Arc<PortTable> {
    let wanted: BTreeSet<_> = services.iter().map(|name| PortOwner::new("shop", *name, "http")).collect();
    let mut table = PortTable::default();
    // Names that come first in the alphabet come last here: their ports are allotted when the others have theirs.
    for owner in wanted.iter().rev() {
        table.adopt(owner, if owner.service == "web" { 10_000 } else { 10_001 });
    }
    let mut object = table.encode("pilotlight-system");
    object.metadata.resource_version = Some(version.to_owned());
    Arc::new(PortTable::decode(&object).0)
}
