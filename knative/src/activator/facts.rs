//! What the activator needs of Kubernetes objects: read once, when they arrive, and all that is kept of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use pilotlight_core::{ConcurrencyLimit, RevisionId, Timeouts};
use pilotlight_kubernetes::knative::{Revision, RevisionContainer};
use pilotlight_kubernetes::labels;

/// A revision, as far as requests are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevisionFacts {
    pub(crate) container_concurrency: ConcurrencyLimit,
    pub(crate) timeouts: Timeouts,
    pub(crate) protocol: Protocol,
    /// Whether a pod that passes the activator's probe may be used before Kubernetes calls it ready.
    pub(crate) trusts_probes: bool,
}

/// The protocol between proxies and queue-proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    H2c,
}

/// The key of one list of addresses: an Endpoints object, or one of several slices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ListKey {
    pub(crate) revision: RevisionId,
    pub(crate) side: Side,
    pub(crate) object: String,
}

/// The Service that a list of addresses belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// Leads to pods only.
    Private,
    /// Leads to activators, or to pods.
    Public,
}

/// One address of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    /// The pod behind it; empty: unknown.
    pub(crate) pod: Box<str>,
    pub(crate) is_ready: bool,
    pub(crate) ports: Ports,
}

/// The ports that requests can take, as Knative names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) http: Option<u16>,
    pub(crate) http2: Option<u16>,
}

/// A private Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceFacts {
    pub(crate) name: Box<str>,
    /// `None`: it has none.
    pub(crate) cluster_ip: Option<IpAddr>,
    pub(crate) ports: Ports,
}

impl RevisionFacts {
    pub(crate) fn of(revision: &Revision) -> Option<(RevisionId, RevisionFacts)> {
        let id = RevisionId::new(revision.namespace()?, revision.name_any());
        let spec = &revision.spec;
        let some = |seconds: Option<i64>| seconds.filter(|seconds| *seconds > 0).map(duration);
        let total = spec.timeout_seconds.map_or(Timeouts::default().total, duration);
        let containers = &spec.containers;
        let serving = match containers.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|container| !container.ports.is_empty()),
        };
        let limit = spec.container_concurrency.unwrap_or(0).clamp(0, u32::MAX.into());
        let facts = RevisionFacts {
            // Within the range, as it was clamped.
            container_concurrency: u32::try_from(limit).unwrap_or(0).into(),
            timeouts: Timeouts {
                total,
                response_start: some(spec.response_start_timeout_seconds),
                idle: some(spec.idle_timeout_seconds),
            },
            protocol: serving.map_or(Protocol::Http1, protocol),
            trusts_probes: !serving.is_some_and(has_exec_readiness)
                && containers.iter().all(|container| container.startup_probe.is_none()),
        };
        Some((id, facts))
    }
}

impl Ports {
    /// The port of a protocol.
    pub(crate) fn of(self, protocol: Protocol) -> Option<u16> {
        match protocol {
            Protocol::Http1 => self.http,
            Protocol::H2c => self.http2,
        }
    }

    fn named<'a>(ports: impl IntoIterator<Item = (Option<&'a str>, i32)>) -> Ports {
        let mut found = Ports::default();
        for (name, port) in ports {
            let port = u16::try_from(port).ok();
            match name {
                Some("http") => found.http = port,
                Some("http2") => found.http2 = port,
                _ => {}
            }
        }
        found
    }

    fn is_empty(self) -> bool {
        self == Ports::default()
    }
}

impl ServiceFacts {
    pub(crate) fn of(service: &Service) -> Option<(RevisionId, ServiceFacts)> {
        let (revision, _) = owner(service.metadata.labels.as_ref()?, service.namespace())?;
        let spec = service.spec.as_ref()?;
        let ports = spec.ports.iter().flatten().map(|port| (port.name.as_deref(), port.port));
        // A headless Service has `None`, which is no address.
        let cluster_ip = spec.cluster_ip.as_ref().and_then(|ip| ip.parse().ok());
        let name = service.name_any().into();
        Some((revision, ServiceFacts { name, cluster_ip, ports: Ports::named(ports) }))
    }
}

/// Addresses of an Endpoints object.
pub(crate) fn of_endpoints(endpoints: &Endpoints) -> Option<(ListKey, Box<[Address]>)> {
    let (revision, side) = owner(endpoints.metadata.labels.as_ref()?, endpoints.namespace())?;
    let subsets = endpoints.subsets.iter().flatten();
    let addresses = subsets.flat_map(|subset| of_subset(subset, side)).collect();
    Some((ListKey { revision, side, object: endpoints.name_any() }, addresses))
}

fn of_subset(subset: &EndpointSubset, side: Side) -> Vec<Address> {
    let listed = subset.ports.iter().flatten();
    let ports = Ports::named(listed.map(|port| (port.name.as_deref(), port.port)));
    if ports.is_empty() {
        return Vec::new();
    }
    let read = |address: &EndpointAddress, is_ready| {
        let pod = address.target_ref.as_ref().and_then(|pod| pod.name.as_deref());
        Some(Address { ip: address.ip.parse().ok()?, pod: kept_name(pod, side), is_ready, ports })
    };
    let ready = subset.addresses.iter().flatten().filter_map(|address| read(address, true));
    let not_ready = subset.not_ready_addresses.iter().flatten().filter_map(|address| read(address, false));
    ready.chain(not_ready).collect()
}

/// Addresses of one slice.
pub(crate) fn of_slice(slice: &EndpointSlice) -> Option<(ListKey, Box<[Address]>)> {
    let (revision, side) = owner(slice.metadata.labels.as_ref()?, slice.namespace())?;
    let listed = slice.ports.iter().flatten();
    let ports = Ports::named(listed.filter_map(|port| Some((port.name.as_deref(), port.port?))));
    let mut addresses = Vec::new();
    for endpoint in &slice.endpoints {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        // Endpoints leave out pods that are leaving; slices list them.
        if ports.is_empty() || conditions.terminating == Some(true) {
            continue;
        }
        let Some(ip) = endpoint.addresses.first().and_then(|ip| ip.parse().ok()) else { continue };
        let pod = endpoint.target_ref.as_ref().and_then(|pod| pod.name.as_deref());
        let is_ready = conditions.ready.unwrap_or(true);
        addresses.push(Address { ip, pod: kept_name(pod, side), is_ready, ports });
    }
    Some((ListKey { revision, side, object: slice.name_any() }, addresses.into()))
}

/// The revision and the side that labels name.
fn owner(labels: &BTreeMap<String, String>, namespace: Option<String>) -> Option<(RevisionId, Side)> {
    let side = match labels.get(labels::SERVICE_TYPE)?.as_str() {
        labels::PRIVATE => Side::Private,
        labels::PUBLIC => Side::Public,
        _ => return None,
    };
    Some((RevisionId::new(namespace?, labels.get(labels::REVISION)?), side))
}

/// Names of pods are of use where pods are.
fn kept_name(pod: Option<&str>, side: Side) -> Box<str> {
    match side {
        Side::Private => pod.unwrap_or_default().into(),
        Side::Public => "".into(),
    }
}

fn protocol(container: &RevisionContainer) -> Protocol {
    match container.ports.first() {
        Some(port) if port.name == "h2c" => Protocol::H2c,
        _ => Protocol::Http1,
    }
}

fn has_exec_readiness(container: &RevisionContainer) -> bool {
    container
        .readiness_probe
        .as_ref()
        .is_some_and(|probe| probe.get("exec").is_some_and(|exec| !exec.is_null()))
}

fn duration(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn revision(spec: &Value) -> RevisionFacts {
        let object = json!({"apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": {"name": "hello-00001", "namespace": "shop"}, "spec": spec});
        let (id, facts) = RevisionFacts::of(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!(id, RevisionId::new("shop", "hello-00001"));
        facts
    }

    fn labelled(kind: &str, side: &str) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "hello-00001-private", "namespace": "shop",
            "labels": {labels::REVISION: "hello-00001", labels::SERVICE_TYPE: side}}})
    }

    fn with(mut object: Value, key: &str, value: Value) -> Value {
        object[key] = value;
        object
    }

    fn shown(addresses: &[Address]) -> Vec<(String, &str, bool)> {
        addresses.iter().map(|it| (it.ip.to_string(), &*it.pod, it.is_ready)).collect()
    }

    #[test]
    fn limits_and_protocol_are_the_revisions() {
        let facts = revision(&json!({"containerConcurrency": 7, "timeoutSeconds": 60,
            "responseStartTimeoutSeconds": 30, "idleTimeoutSeconds": 0,
            "containers": [{"ports": [{"name": "h2c", "containerPort": 9000}]}]}));
        let expected = RevisionFacts {
            container_concurrency: 7.into(),
            timeouts: Timeouts {
                response_start: Some(Duration::from_secs(30)),
                ..Timeouts::total(Duration::from_secs(60))
            },
            protocol: Protocol::H2c,
            trusts_probes: true,
        };
        assert_eq!(facts, expected);
        let bare = revision(&json!({"containers": [{}]}));
        assert_eq!((bare.container_concurrency, bare.timeouts), (0.into(), Timeouts::default()));
        assert_eq!(bare.protocol, Protocol::Http1);
        assert_eq!(revision(&json!({"timeoutSeconds": 0})).timeouts.total, Duration::ZERO);
    }

    #[test]
    fn the_container_with_ports_serves_where_there_are_several() {
        let facts = revision(&json!({"containers": [
            {"readinessProbe": {"exec": {"command": ["true"]}}},
            {"ports": [{"name": "h2c", "containerPort": 1}]}]}));
        assert_eq!(
            (facts.protocol, facts.trusts_probes),
            (Protocol::H2c, true),
            "a sidecar's readiness is its own"
        );
    }

    #[test]
    fn a_probe_is_not_trusted_where_readiness_means_more_than_it_can_see() {
        let trusts = |container: Value| revision(&json!({"containers": [container]})).trusts_probes;
        assert!(trusts(json!({"readinessProbe": {"tcpSocket": {"port": 0}}})));
        assert!(!trusts(json!({"readinessProbe": {"exec": {"command": ["true"]}}})));
        assert!(!trusts(json!({"startupProbe": {"tcpSocket": {"port": 0}}})));
        let sidecar = json!({"containers": [
            {"ports": [{"containerPort": 1}]}, {"startupProbe": {"tcpSocket": {"port": 0}}}]});
        assert!(!revision(&sidecar).trusts_probes);
    }

    #[test]
    fn endpoints_are_read_by_the_names_of_their_ports() {
        let subsets = json!([
            {"addresses": [{"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "name": "pod-1"}}],
             "notReadyAddresses": [{"ip": "10.0.0.2", "targetRef": {"kind": "Pod", "name": "pod-2"}}, {"ip": "?"}],
             "ports": [{"name": "http2", "port": 8013}, {"name": "http2-istio", "port": 9}, {"name": "https", "port": 8112}]},
            {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "http-autometric", "port": 9090}]}]);
        let object = with(labelled("Endpoints", "Private"), "subsets", subsets);
        let (key, addresses) = of_endpoints(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!((key.side, key.object.as_str()), (Side::Private, "hello-00001-private"));
        assert_eq!(key.revision, RevisionId::new("shop", "hello-00001"));
        assert_eq!(
            shown(&addresses),
            [("10.0.0.1".to_owned(), "pod-1", true), ("10.0.0.2".to_owned(), "pod-2", false)]
        );
        let ports = addresses[0].ports;
        assert_eq!((ports.of(Protocol::H2c), ports.of(Protocol::Http1)), (Some(8013), None));
    }

    #[test]
    fn slices_say_the_same_and_pods_that_leave_are_left_out() {
        let pod = |name: &str| json!({"kind": "Pod", "name": name});
        let mut object = with(
            labelled("EndpointSlice", "Private"),
            "endpoints",
            json!([
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": pod("pod-1")},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "targetRef": pod("pod-2")},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.4"]}]),
        );
        object["apiVersion"] = json!("discovery.k8s.io/v1");
        object["addressType"] = json!("IPv4");
        object["ports"] = json!([{"name": "http", "port": 8012}]);
        let (_, addresses) = of_slice(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!(
            shown(&addresses),
            [
                ("10.0.0.1".to_owned(), "pod-1", true),
                ("10.0.0.2".to_owned(), "pod-2", false),
                ("10.0.0.4".to_owned(), "", true)
            ]
        );
    }

    #[test]
    fn a_service_is_its_cluster_ip_and_the_ports_in_front_of_it() {
        let service = |ip: &str| {
            let spec = json!({"clusterIP": ip, "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]});
            let object = with(labelled("Service", "Private"), "spec", spec);
            ServiceFacts::of(&serde_json::from_value(object).unwrap()).unwrap().1
        };
        let facts = |cluster_ip| ServiceFacts {
            name: "hello-00001-private".into(),
            cluster_ip,
            ports: Ports { http: Some(80), http2: None },
        };
        assert_eq!(service("10.96.0.7"), facts("10.96.0.7".parse().ok()));
        assert_eq!(service("None"), facts(None));
    }

    #[test]
    fn what_has_no_label_of_a_revision_is_nobodys() {
        let mut object = labelled("Endpoints", "Elsewhere");
        assert_eq!(of_endpoints(&serde_json::from_value(object.clone()).unwrap()), None);
        object["metadata"]["labels"] = json!({});
        assert_eq!(of_endpoints(&serde_json::from_value(object).unwrap()), None);
    }
}
