//! A workload: a RequestAutoscaler with the Services and pods that are its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotlight_core::RevisionId;

use crate::facts::{AutoscalerFact, PodFact, ServiceFact, ServicePort, TargetPort};

/// A RequestAutoscaler with the Services and pods that are its own, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The RequestAutoscaler's name.
    pub id: Arc<RevisionId>,
    /// The RequestAutoscaler.
    pub autoscaler: Arc<AutoscalerFact>,
    /// Services whose traffic counts, by name. One that the RequestAutoscaler names and that is not there is missing.
    pub services: BTreeMap<String, Arc<ServiceFact>>,
    /// Pods of the target, by name, whether or not a Service leads to them.
    pub pods: BTreeMap<String, Arc<PodFact>>,
    /// Ports that its Services had before. Connections that were led to them still find the pods.
    pub former: Vec<WorkloadPort>,
}

/// One port of one Service of a workload: what an activator's port stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadPort {
    /// The Service.
    pub service: String,
    /// The port.
    pub port: ServicePort,
}

impl WorkloadPort {
    /// The name within the workload: `web/http`, and `web/` for a port without a name.
    pub fn key(&self) -> String {
        format!("{}/{}", self.service, self.port.name)
    }
}

impl Workload {
    /// Every TCP port of every Service, in the order of the Services' names.
    pub fn ports(&self) -> impl Iterator<Item = WorkloadPort> {
        self.services.iter().flat_map(|(service, fact)| {
            let of_tcp = fact.ports.iter().filter(|port| port.transport == "TCP");
            of_tcp.map(move |port| WorkloadPort { service: service.clone(), port: port.clone() })
        })
    }

    /// The ports of a pod by their [keys](WorkloadPort::key), former ones among them. A Service that does not lead to the pod is
    /// left out, and so is a port whose name the pod does not know.
    pub fn pod_ports(&self, pod: &PodFact) -> BTreeMap<String, u16> {
        let leads_here = |port: &WorkloadPort| {
            let selector = self.services.get(&port.service).and_then(|service| service.pod_selector());
            selector.is_none_or(|selector| selector.selects(&pod.labels))
        };
        let number = |port: &WorkloadPort| match &port.port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => pod.named_ports.get(name).copied(),
        };
        // Ports of today come last, and so replace former ones of the same name.
        let ports = self.former.iter().cloned().chain(self.ports());
        ports.filter(leads_here).filter_map(|port| Some((port.key(), number(&port)?))).collect()
    }
}
