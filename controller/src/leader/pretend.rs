//! Objects for the tests of the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotlight_config::AutoscalerConfig;
use pilotlight_core::{
    ActivatorPath, Activity, Evaluation, Outcome, Plan, PodCounts, ServingMode, Time, Trigger,
};
use pilotlight_kubernetes::scale::ScaleFact;
use serde_json::json;

use super::seen::Seen;
use crate::Workload;
use crate::crd::TrafficPath;
use crate::facts::{AutoscalerFact, PodFact, PodPhase, ServiceFact};
use crate::path::{Intercepting, PathPlan, Restored};
use crate::peers::WorkloadActivity;
use crate::ports::{PortOwner, PortTable};
use crate::refusal::Way;
use crate::settings::accept;

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
        former: Vec::new(),
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

/// The workload `web`, all of whose requests pass the activators, an hour after this leader first saw it: so many pods are
/// asked for, and so many are wanted.
pub(crate) fn seen(replicas: u32, wanted: u32) -> Seen {
    let pods: Vec<(String, String)> =
        (0..replicas).map(|number| (format!("web-{number}"), format!("10.0.0.{}", number + 1))).collect();
    let pods: Vec<(&str, &str)> = pods.iter().map(|(name, ip)| (name.as_str(), ip.as_str())).collect();
    let workload = workload(&pods);
    let accepted = accept(&workload, &BTreeMap::new(), &AutoscalerConfig::default()).unwrap();
    Seen {
        workload,
        target: None,
        scale: Some(ScaleFact { resource_version: "7".to_owned(), replicas }),
        selector: Some("app=web".to_owned()),
        accepted: Some(Arc::new(accepted)),
        faults: Arc::default(),
        way: Ok(Way::Always),
        warnings: Vec::new(),
        path: PathPlan {
            writes: Vec::new(),
            ask_endpoints: BTreeSet::new(),
            path: ActivatorPath { populated_since: Some(AN_HOUR_AGO), probed: true },
            sees_all: true,
            may_sleep: true,
            must_wake: false,
            traffic: TrafficPath::Activator,
            intercepting: Intercepting {
                status: true,
                reason: "Always".to_owned(),
                message: "All requests pass the activators.".to_owned(),
            },
            restored: Restored::No,
            wake_at: None,
        },
        ports: BTreeMap::from([("web/http".to_owned(), 10_000)]),
        hpa: None,
        evaluation: Some(Box::new(evaluation(replicas, wanted))),
        last: None,
        why: None,
        since: AN_HOUR_AGO,
        raise: None,
        contest: None,
        is_put_to_sleep: false,
        is_quiet: false,
        is_second: false,
        activity: WorkloadActivity::default(),
        leaving_since: None,
        sets_deletion_cost: false,
        costed: BTreeSet::new(),
        restoring: None,
        status_written: None,
    }
}

/// An evaluation of so many ready pods that wants so many.
pub(crate) fn evaluation(ready: u32, wanted: u32) -> Evaluation {
    let activity = match (ready, wanted) {
        (_, 0) => Activity::Inactive { since: AN_HOUR_AGO, timed_out: false },
        (0, _) => Activity::Activating { since: AN_HOUR_AGO },
        _ => Activity::Active { since: AN_HOUR_AGO },
    };
    Evaluation {
        at: NOW,
        trigger: Trigger::Tick,
        pods: PodCounts { ready, ..PodCounts::default() },
        path: ActivatorPath::default(),
        decided: false,
        decision: None,
        outcome: Outcome { want: Some(wanted), apply: Some(wanted), bound: None, wake_at: None },
        activity,
        initialized: true,
        plan: Plan {
            scale: Some(wanted),
            mode: ServingMode::Proxy,
            activators: 2,
            probe_path: false,
            wake_at: None,
        },
    }
}

/// The time at which [`seen`] was seen.
pub(crate) const NOW: Time = Time::from_secs(100_000);
const AN_HOUR_AGO: Time = Time::from_secs(96_400);
