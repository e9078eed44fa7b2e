//! A Service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort as PortObject};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pilotlight_kubernetes::known::Versioned;

use super::Name;
use crate::selector::Selector;

/// A Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceFact {
    /// The UID.
    pub uid: String,
    /// The version.
    pub resource_version: String,
    /// Whether it is being deleted.
    pub is_deleted: bool,
    /// The selector; empty: there is none.
    pub selector: Selector,
    /// The selector that it had, as the annotation [`SELECTOR`] keeps it; `None`: there is no annotation, or it is no
    /// selector.
    pub kept_selector: Option<Selector>,
    /// The managers of the field `spec.selector`.
    pub selector_managers: Vec<String>,
    /// The ports, in their order.
    pub ports: Vec<ServicePort>,
    /// The cluster's addresses of it; none: it is headless.
    pub cluster_ips: Vec<IpAddr>,
    /// Whether it is only another name (`ExternalName`).
    pub is_external_name: bool,
    /// Whether it asks for endpoints near its clients: by its annotation or `spec.trafficDistribution`.
    pub prefers_near: bool,
    /// `spec.externalTrafficPolicy`.
    pub external_traffic: Locality,
    /// `spec.internalTrafficPolicy`.
    pub internal_traffic: Locality,
    /// Whether pods that are not ready get traffic as well.
    pub publishes_not_ready: bool,
    /// Whether a client is to stay with one endpoint.
    pub has_session_affinity: bool,
    /// The controller that owns it.
    pub owner: Option<OwnerFact>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The name; empty if it has none.
    pub name: String,
    /// The port of the Service.
    pub port: u16,
    /// The port of the pods.
    pub target: TargetPort,
    /// `TCP`, `UDP` or `SCTP`.
    pub transport: String,
    /// `appProtocol`; empty: not written.
    pub app_protocol: String,
}

/// The port of the pods that a Service's port leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// The same number in every pod.
    Number(u16),
    /// The number that each pod gives this name.
    Name(String),
}

/// The endpoints that a Service's traffic may go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locality {
    /// Every endpoint of the cluster.
    #[default]
    Cluster,
    /// Endpoints of the node where the traffic is.
    Local,
}

/// The controller that owns an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerFact {
    /// Group and version.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
}

impl ServiceFact {
    /// Reads one.
    pub fn read(service: &Service) -> Option<(Name, ServiceFact)> {
        let (meta, spec) = (&service.metadata, service.spec.clone().unwrap_or_default());
        let annotations = meta.annotations.clone().unwrap_or_default();
        let is = |value: &Option<String>, wanted: &str| value.as_deref() == Some(wanted);
        let locality = |value| if is(value, "Local") { Locality::Local } else { Locality::Cluster };
        let asks = |name: &str| annotations.get(name).is_some_and(|mode| mode.eq_ignore_ascii_case("auto"));
        let listed = spec.cluster_ips.clone().or_else(|| Some(vec![spec.cluster_ip.clone()?]));
        let fact = ServiceFact {
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            is_deleted: meta.deletion_timestamp.is_some(),
            selector: Selector::pairs(spec.selector.iter().flatten()),
            kept_selector: annotations
                .get(SELECTOR)
                .and_then(|text| Selector::parse(text).ok())
                .filter(|selector| !selector.is_empty()),
            selector_managers: selector_managers(service),
            ports: spec.ports.iter().flatten().filter_map(port).collect(),
            cluster_ips: listed.into_iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
            is_external_name: is(&spec.type_, "ExternalName"),
            prefers_near: spec.traffic_distribution.is_some() || NEARNESS.iter().any(|name| asks(name)),
            external_traffic: locality(&spec.external_traffic_policy),
            internal_traffic: locality(&spec.internal_traffic_policy),
            publishes_not_ready: spec.publish_not_ready_addresses == Some(true),
            has_session_affinity: is(&spec.session_affinity, "ClientIP"),
            owner: owner(service),
        };
        Some((Name::of(meta)?, fact))
    }

    /// The selector of the pods that it leads to: its own, or the one that it had.
    pub fn pod_selector(&self) -> Option<&Selector> {
        Some(&self.selector).filter(|own| !own.is_empty()).or(self.kept_selector.as_ref())
    }

    /// Whether it has no address of its own.
    pub fn is_headless(&self) -> bool {
        self.cluster_ips.is_empty() && !self.is_external_name
    }
}

impl Versioned for ServiceFact {
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

fn port(port: &PortObject) -> Option<ServicePort> {
    let number = u16::try_from(port.port).ok()?;
    let target = match &port.target_port {
        None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => TargetPort::Number(u16::try_from(*target).ok()?),
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(target) => TargetPort::Number(target),
            Err(_) => TargetPort::Name(name.clone()),
        },
    };
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        port: number,
        target,
        transport: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        app_protocol: port.app_protocol.clone().unwrap_or_default(),
    })
}

fn owner(service: &Service) -> Option<OwnerFact> {
    let mut owners = service.metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| OwnerFact {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
    })
}

fn selector_managers(service: &Service) -> Vec<String> {
    let entries = service.metadata.managed_fields.iter().flatten();
    let owns = |fields: &serde_json::Value| !fields["f:spec"]["f:selector"].is_null();
    entries
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)))
        .filter_map(|entry| entry.manager.clone())
        .collect()
}

/// The annotation of a Service that keeps the selector it had.
pub const SELECTOR: &str = "pilotlight.dev/selector";
/// Annotations that ask for endpoints near the client.
const NEARNESS: [&str; 2] =
    ["service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(meta: &Value, spec: &Value) -> ServiceFact {
        let mut object = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
        object["metadata"].as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
        ServiceFact::read(&serde_json::from_value(object).unwrap()).unwrap().1
    }

    #[test]
    fn a_port_leads_to_a_number_or_to_a_name() {
        let spec = json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [
            {"port": 80}, {"name": "grpc", "port": 81, "targetPort": 9000, "appProtocol": "grpc"},
            {"name": "web", "port": 82, "targetPort": "http"}, {"name": "text", "port": 83, "targetPort": "9001"},
            {"name": "dns", "port": 53, "protocol": "UDP"}]});
        let fact = read(&json!({}), &spec);
        let targets: Vec<_> = fact.ports.iter().map(|port| port.target.clone()).collect();
        let number = TargetPort::Number;
        let named = TargetPort::Name("http".to_owned());
        assert_eq!(targets, [number(80), number(9000), named, number(9001), number(53)]);
        assert_eq!((fact.ports[1].app_protocol.as_str(), fact.ports[4].transport.as_str()), ("grpc", "UDP"));
        assert_eq!(fact.cluster_ips.len(), 1);
        assert!(!fact.is_headless());
        assert!(read(&json!({}), &json!({"clusterIP": "None"})).is_headless());
        assert!(!read(&json!({}), &json!({"type": "ExternalName", "externalName": "x"})).is_headless());
    }

    #[test]
    fn the_selector_is_its_own_or_the_one_that_it_had() {
        let kept = json!({"annotations": {SELECTOR: "app=web"}});
        let without = read(&kept, &json!({}));
        assert_eq!(without.pod_selector().map(ToString::to_string).as_deref(), Some("app=web"));
        assert!(without.selector.is_empty());
        let with = read(&kept, &json!({"selector": {"app": "other"}}));
        assert_eq!(with.pod_selector().map(ToString::to_string).as_deref(), Some("app=other"));
        assert_eq!(read(&json!({}), &json!({})).pod_selector(), None);
    }

    #[test]
    fn whoever_writes_the_selector_is_named() {
        let managers = json!({"managedFields": [
            {"manager": "argocd", "operation": "Apply", "fieldsV1": {"f:spec": {"f:selector": {}}}},
            {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:ports": {}}}}]});
        assert_eq!(read(&managers, &json!({})).selector_managers, ["argocd"]);
    }
}
