//! Facts of objects as tests write them down, and addresses of their own.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};

use pilotlight_core::RevisionId;
use serde_json::{Value, json};

use crate::Workload;
use crate::facts::{AutoscalerFact, PodFact, PodPhase, ServiceFact};
use crate::index::{Fact, Index};

/// A RequestAutoscaler of the namespace `shop`.
pub(crate) fn autoscaler(name: &str, spec: &Value, status: &Value) -> Fact {
    let object = json!({"apiVersion": "pilotlight.dev/v1alpha1", "kind": "RequestAutoscaler",
        "metadata": {"namespace": "shop", "name": name, "resourceVersion": "1"}, "spec": spec, "status": status});
    let (id, fact) = AutoscalerFact::read(&serde_json::from_value(object).unwrap()).unwrap();
    Fact::Autoscaler(id.into(), Some(fact.into()))
}

/// A Service of the namespace `shop`.
pub(crate) fn service(name: &str, selector: &Value, ports: &Value) -> Fact {
    let object = json!({"metadata": {"namespace": "shop", "name": name},
        "spec": {"clusterIP": "10.96.0.1", "selector": selector, "ports": ports}});
    let (name, fact) = ServiceFact::read(&serde_json::from_value(object).unwrap()).unwrap();
    Fact::Service(name.into(), Some(fact.into()))
}

/// A pod of the namespace `shop`.
pub(crate) fn pod(name: &str, labels: &Value, spec: &Value, status: &Value) -> Fact {
    let mut object = json!({"metadata": {"namespace": "shop", "name": name, "labels": labels},
        "spec": {"containers": []}, "status": status});
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let (name, fact) = PodFact::read(&serde_json::from_value(object).unwrap()).unwrap();
    Fact::Pod(name.into(), Some(fact.into()))
}

/// The same pod, being deleted.
pub(crate) fn terminating(pod: Fact) -> Fact {
    let Fact::Pod(name, Some(fact)) = pod else { panic!("it is no pod") };
    let fact = PodFact { phase: PodPhase::Terminating, ..PodFact::clone(&fact) };
    Fact::Pod(name, Some(fact.into()))
}

/// The workload that these facts make.
pub(crate) fn workload(facts: Vec<Fact>, name: &str) -> Workload {
    let mut index = Index::default();
    for fact in facts {
        index.learn(fact);
    }
    index.workload(&RevisionId::new("shop", name)).expect("it is there")
}

/// A loopback address that no other test has, and so no other process takes its ports.
pub(crate) fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    [127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed)].into()
}
