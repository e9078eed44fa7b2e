//! Whatever should not be there: slices that point nowhere, ports of nobody.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Context;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use pilotlight_controller::crd::RequestAutoscaler;
use pilotlight_controller::ports::{PortOwner, PortTable};

use super::{PlainCluster, SYSTEM_NAMESPACE};
use crate::cluster::endpoints::{MANAGED_BY, OF_MIRRORS, OF_SELECTORS, SERVICE_NAME, selector};
use crate::cluster::objects::has_ended;

/// Objects that lead nowhere, a sentence each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Endpoints in slices whose pod or Service is not there, or whose port is somebody else's.
    pub nowhere: Vec<String>,
    /// Ports of activators that belong to nobody.
    pub ports: Vec<String>,
}

impl Leftovers {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nowhere.is_empty() && self.ports.is_empty()
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Leftovers { nowhere, ports } = self;
        write!(f, "{} endpoints point nowhere, {} ports belong to nobody", nowhere.len(), ports.len())
    }
}

impl PlainCluster {
    /// Looks for what should not be there, in the test's namespace.
    pub async fn leftovers(&self) -> anyhow::Result<Leftovers> {
        let all = ListParams::default();
        let pods = Api::<Pod>::all(self.client.clone()).list(&all).await?.items;
        let services = self.api::<Service>().list(&all).await?.items;
        let slices = self.api::<EndpointSlice>().list(&all).await?.items;
        let table = self.port_table().await?;
        let addresses: BTreeSet<&str> =
            pods.iter().filter(|pod| !has_ended(pod)).filter_map(address).collect();
        let activators: BTreeSet<&str> = pods
            .iter()
            .filter(|pod| pod.namespace().as_deref() == Some(SYSTEM_NAMESPACE))
            .filter_map(address)
            .collect();
        let mut nowhere = Vec::new();
        for slice in &slices {
            let label = |name: &str| slice.labels().get(name).cloned().unwrap_or_default();
            let (service, manager) = (label(SERVICE_NAME), label(MANAGED_BY));
            let mut tell = |what: String| nowhere.push(format!("{} of {service}: {what}", slice.name_any()));
            let Some(object) = services.iter().find(|each| each.name_any() == service) else {
                tell("there is no such Service".to_owned());
                continue;
            };
            if selector(object).is_none() && [OF_SELECTORS, OF_MIRRORS].contains(&manager.as_str()) {
                tell(format!("{manager} has left it to a Service without a selector"));
            }
            for ip in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
                if !addresses.contains(ip.as_str()) {
                    tell(format!("{ip} is nobody's address"));
                }
                if activators.contains(ip.as_str()) {
                    for port in slice.ports.iter().flatten() {
                        let name = port.name.clone().unwrap_or_default();
                        let owner = PortOwner::new(&self.namespace, &service, &name);
                        let number = port.port.and_then(|number| u16::try_from(number).ok());
                        if table.port(&owner) != number {
                            tell(format!("{number:?} at {ip} is not the port of {owner}"));
                        }
                    }
                }
            }
        }
        Ok(Leftovers { nowhere, ports: self.ports_of_nobody(&table, &services).await? })
    }

    /// The table of the activators' ports.
    pub async fn port_table(&self) -> anyhow::Result<PortTable> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let Some(map) = maps.get_opt("pilotlight-ports").await? else { return Ok(PortTable::default()) };
        let (table, faults) = PortTable::decode(&map);
        faults.is_empty().then_some(table).with_context(|| format!("{faults:?}"))
    }

    async fn ports_of_nobody(&self, table: &PortTable, services: &[Service]) -> anyhow::Result<Vec<String>> {
        let autoscalers = self.api::<RequestAutoscaler>().list(&ListParams::default()).await?.items;
        let named: BTreeSet<&str> = autoscalers
            .iter()
            .flat_map(|autoscaler| autoscaler.spec.services.iter().map(|service| service.name.as_str()))
            .collect();
        let has_port = |owner: &PortOwner| {
            let service = services.iter().find(|service| service.name_any() == owner.service);
            let ports = service.and_then(|service| service.spec.as_ref()?.ports.as_ref());
            ports.into_iter().flatten().any(|port| port.name.as_deref().unwrap_or_default() == owner.port)
        };
        let of_nobody = |owner: &PortOwner| !named.contains(owner.service.as_str()) || !has_port(owner);
        let own = table.entries().filter(|(owner, _)| owner.namespace == self.namespace);
        Ok(own
            .filter(|(owner, _)| of_nobody(owner))
            .map(|(owner, port)| format!("{port} of {owner}"))
            .collect())
    }
}

fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}
