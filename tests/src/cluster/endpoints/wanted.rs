//! The Endpoints and the EndpointSlices that a Service is to have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as CorePort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
    ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};

use super::{MANAGED_BY, OF_MIRRORS, OF_SELECTORS, SERVICE_NAME};
use crate::cluster::objects::{controlled_by, has_ended, is_ending, is_ready};

/// The most endpoints of one slice.
const SLICE_SIZE: usize = 100;

/// A port of an endpoint: name, number, protocol, application protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    number: i32,
    protocol: String,
    app_protocol: Option<String>,
}

/// The Endpoints of a Service that selects these pods. Pods that are ending are not in it.
pub(super) fn endpoints_of(service: &Service, pods: &[&Pod]) -> Endpoints {
    let publishes_all = publishes_not_ready(service);
    let mut groups: BTreeMap<Vec<Port>, EndpointSubset> = BTreeMap::new();
    for pod in addressed(pods).filter(|pod| !is_ending(pod)) {
        let ports = ports_of(service, pod);
        let subset = groups.entry(ports).or_default();
        let address = EndpointAddress {
            ip: address_of(pod).to_owned(),
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(reference(pod)),
            ..EndpointAddress::default()
        };
        let is_listed = is_ready(pod) || publishes_all;
        let addresses = if is_listed { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        addresses.get_or_insert_default().push(address);
    }
    let subsets: Vec<EndpointSubset> = groups
        .into_iter()
        .map(|(ports, subset)| {
            let ports = ports.into_iter().map(|port| CorePort {
                name: Some(port.name).filter(|name| !name.is_empty()),
                port: port.number,
                protocol: Some(port.protocol),
                app_protocol: port.app_protocol,
            });
            EndpointSubset { ports: Some(ports.collect()), ..subset }
        })
        .collect();
    let mut labels = service.labels().clone();
    labels.insert("endpoints.kubernetes.io/managed-by".to_owned(), "endpoint-controller".to_owned());
    Endpoints {
        metadata: ObjectMeta {
            name: Some(service.name_any()),
            namespace: service.namespace(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets).filter(|subsets| !subsets.is_empty()),
    }
}

/// The slices of a Service that selects these pods.
pub(super) fn slices_of(service: &Service, pods: &[&Pod]) -> Vec<EndpointSlice> {
    let publishes_all = publishes_not_ready(service);
    let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for pod in addressed(pods) {
        let (serving, ending) = (is_ready(pod), is_ending(pod));
        groups.entry(ports_of(service, pod)).or_default().push(Endpoint {
            addresses: vec![address_of(pod).to_owned()],
            conditions: Some(EndpointConditions {
                ready: Some((serving && !ending) || publishes_all),
                serving: Some(serving),
                terminating: Some(ending),
            }),
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(reference(pod)),
            ..Endpoint::default()
        });
    }
    if groups.is_empty() {
        // A Service without pods has an empty slice.
        groups.insert(Vec::new(), Vec::new());
    }
    sliced(groups, service, OF_SELECTORS)
}

/// The slices that mirror Endpoints which somebody else wrote.
pub(super) fn mirror_of(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = subset.ports.iter().flatten().map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            number: port.port,
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: port.app_protocol.clone(),
        });
        let group = groups.entry(ports.collect()).or_default();
        let sides = [(&subset.addresses, true), (&subset.not_ready_addresses, false)];
        for (address, is_ready) in
            sides.into_iter().flat_map(|(side, ready)| side.iter().flatten().map(move |each| (each, ready)))
        {
            group.push(Endpoint {
                addresses: vec![address.ip.clone()],
                conditions: Some(EndpointConditions {
                    ready: Some(is_ready),
                    ..EndpointConditions::default()
                }),
                node_name: address.node_name.clone(),
                target_ref: address.target_ref.clone(),
                hostname: address.hostname.clone(),
                ..Endpoint::default()
            });
        }
    }
    sliced(groups, endpoints, OF_MIRRORS)
}

fn sliced<K>(groups: BTreeMap<Vec<Port>, Vec<Endpoint>>, of: &K, manager: &str) -> Vec<EndpointSlice>
where
    K: Resource<DynamicType = ()>,
{
    let mirrors = manager == OF_MIRRORS;
    let mut slices = Vec::new();
    for (ports, mut endpoints) in groups {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        let ports: Vec<EndpointPort> = ports
            .into_iter()
            .map(|port| EndpointPort {
                name: Some(port.name),
                port: Some(port.number),
                protocol: Some(port.protocol),
                app_protocol: port.app_protocol,
            })
            .collect();
        let mut parts: Vec<Vec<Endpoint>> = endpoints.chunks(SLICE_SIZE).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        for part in parts {
            let mut labels = of.meta().labels.clone().unwrap_or_default();
            labels.insert(SERVICE_NAME.to_owned(), of.name_any());
            labels.insert(MANAGED_BY.to_owned(), manager.to_owned());
            let suffix = if mirrors { "m" } else { "s" };
            slices.push(EndpointSlice {
                metadata: ObjectMeta {
                    name: Some(format!("{}-{suffix}{}", of.name_any(), slices.len())),
                    namespace: of.namespace(),
                    labels: Some(labels),
                    owner_references: Some(controlled_by(of)),
                    ..ObjectMeta::default()
                },
                address_type: "IPv4".to_owned(),
                endpoints: part,
                ports: Some(ports.clone()).filter(|ports| !ports.is_empty()),
            });
        }
    }
    slices
}

/// Pods that have an address and have not ended for good, in the order of their addresses.
fn addressed<'a>(pods: &[&'a Pod]) -> impl Iterator<Item = &'a Pod> {
    let mut pods: Vec<&Pod> =
        pods.iter().copied().filter(|pod| !has_ended(pod) && !address_of(pod).is_empty()).collect();
    pods.sort_by_key(|pod| address_of(pod));
    pods.into_iter()
}

fn address_of(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default()
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        name: Some(pod.name_any()),
        namespace: pod.namespace(),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

/// The Service's ports at this pod. A port that the pod has no name for is left out.
fn ports_of(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Vec<Port> = ports
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                number: number_at(port, pod)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn number_at(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "n", "uid": "u" },
            "spec": { "ports": [
                { "name": "http", "port": 80, "targetPort": "user-port" },
                { "name": "stats", "port": 9090, "targetPort": 9090 },
            ] },
        }))
        .unwrap()
    }

    fn pod(ip: &str, ready: bool, ending: bool) -> Pod {
        let status = if ready { "True" } else { "False" };
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": ip, "namespace": "n", "uid": ip },
            "spec": { "containers": [{ "name": "app", "ports": [{ "name": "user-port", "containerPort": 8080 }] }] },
            "status": { "phase": "Running", "podIP": ip, "conditions": [{ "type": "Ready", "status": status }] },
        }))
        .unwrap();
        pod.metadata.deletion_timestamp = ending.then(crate::cluster::objects::now);
        pod
    }

    #[test]
    fn endpoints_have_ready_and_other_pods_and_none_that_is_ending() {
        let pods = [pod("10.0.0.2", true, false), pod("10.0.0.1", false, false), pod("10.0.0.3", true, true)];
        let endpoints = endpoints_of(&service(), &pods.iter().collect::<Vec<_>>());
        let subsets = serde_json::to_value(endpoints.subsets).unwrap();
        let ips = |side: &str| {
            let addresses = subsets[0][side].as_array().unwrap();
            addresses.iter().map(|address| address["ip"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            (ips("addresses"), ips("notReadyAddresses")),
            (vec!["10.0.0.2".into()], vec!["10.0.0.1".into()])
        );
        let ports: Vec<&Value> =
            subsets[0]["ports"].as_array().unwrap().iter().map(|port| &port["port"]).collect();
        assert_eq!(ports, [8080, 9090]);
    }

    #[test]
    fn slices_say_of_each_pod_whether_it_is_ready_serving_and_ending() {
        let pods = [pod("10.0.0.1", true, false), pod("10.0.0.2", true, true), pod("10.0.0.3", false, false)];
        let slices = slices_of(&service(), &pods.iter().collect::<Vec<_>>());
        let conditions = slices[0].endpoints.iter().map(|endpoint| {
            let conditions = endpoint.conditions.as_ref().unwrap();
            [conditions.ready, conditions.serving, conditions.terminating].map(Option::unwrap)
        });
        let expected = [[true, true, false], [false, true, true], [false, false, false]];
        assert_eq!((slices.len(), conditions.collect::<Vec<_>>()), (1, expected.to_vec()));
        assert_eq!(slices[0].labels()[SERVICE_NAME], "web");
    }

    #[test]
    fn more_endpoints_than_one_slice_takes_are_in_several() {
        let pods: Vec<Pod> = (0..150).map(|number| pod(&format!("10.0.1.{number}"), true, false)).collect();
        let slices = slices_of(&service(), &pods.iter().collect::<Vec<_>>());
        assert_eq!(slices.iter().map(|slice| slice.endpoints.len()).collect::<Vec<_>>(), [100, 50]);
    }

    #[test]
    fn endpoints_of_others_are_mirrored_port_by_port() {
        let endpoints: Endpoints = serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "n" },
            "subsets": [{
                "addresses": [{ "ip": "10.0.0.9" }], "notReadyAddresses": [{ "ip": "10.0.0.8" }],
                "ports": [{ "name": "http", "port": 8012 }],
            }],
        }))
        .unwrap();
        let slices = mirror_of(&endpoints);
        let ready: Vec<_> =
            slices[0].endpoints.iter().map(|each| each.conditions.as_ref().unwrap().ready).collect();
        assert_eq!((slices.len(), ready), (1, vec![Some(false), Some(true)]));
        assert_eq!(slices[0].labels()[MANAGED_BY], OF_MIRRORS);
        assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8012));
    }
}
