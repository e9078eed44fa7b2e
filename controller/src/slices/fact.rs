//! An EndpointSlice, whoever keeps it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use pilotlight_core::Time;
use pilotlight_kubernetes::known::Versioned;

use super::{CHANGED, MANAGED_BY, MIRROR, NATIVE, OURS, SERVICE_NAME, STANDING_SINCE};
use crate::facts::Name;

/// An EndpointSlice, whoever keeps it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SliceFact {
    /// The name.
    pub name: String,
    /// The Service; empty: none.
    pub service: String,
    /// The UID.
    pub uid: String,
    /// The version.
    pub resource_version: String,
    /// The keeper; empty: not written.
    pub managed_by: String,
    /// The first owner.
    pub owner: Option<SliceOwner>,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// The ports.
    pub ports: Vec<SlicePort>,
    /// The endpoints that have an IP address.
    pub endpoints: Vec<SliceEndpoint>,
    /// Since when new connections may come here at these ports; of our slices.
    pub standing_since: Option<Time>,
    /// When it was changed last; of our slices.
    pub changed: Option<Time>,
}

/// The owner of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceOwner {
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlicePort {
    /// The name of the Service's port; empty if it has none.
    pub name: String,
    /// The number at the endpoints.
    pub number: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub transport: String,
    /// `appProtocol`; empty: not written.
    pub app_protocol: String,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// The address.
    pub ip: IpAddr,
    /// Whether it takes new connections.
    pub is_ready: bool,
    /// Whether it serves at all.
    pub is_serving: bool,
    /// Whether it is about to go.
    pub is_terminating: bool,
    /// The node; empty: not written.
    pub node: String,
    /// The zone; empty: not written.
    pub zone: String,
    /// Zones whose clients should come here.
    pub zone_hints: Vec<String>,
    /// Namespace, name and UID of the pod, if they are written.
    pub pod: Option<(String, String, String)>,
}

/// The purpose of a slice, by its keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceKind {
    /// Ours, and leads to activators.
    Activators,
    /// Ours, and leads to pods.
    Pods,
    /// Kubernetes' own, for the Service's selector.
    Native,
    /// Kubernetes' own, for the Endpoints object.
    Mirror,
    /// Somebody else's.
    Foreign,
}

impl SliceFact {
    /// Reads one.
    pub fn read(slice: &EndpointSlice) -> Option<(Name, SliceFact)> {
        let meta = &slice.metadata;
        let name = Name::of(meta)?;
        let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
        let owner = meta.owner_references.iter().flatten().next();
        let fact = SliceFact {
            name: name.name.clone(),
            service: label(SERVICE_NAME).unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            managed_by: label(MANAGED_BY).unwrap_or_default(),
            owner: owner.map(|owner| SliceOwner {
                kind: owner.kind.clone(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
            }),
            address_type: slice.address_type.clone(),
            ports: ports(slice),
            endpoints: slice.endpoints.iter().filter_map(endpoint).collect(),
            standing_since: time(meta, STANDING_SINCE),
            changed: time(meta, CHANGED),
        };
        Some((name, fact))
    }

    /// The purpose.
    pub fn kind(&self) -> SliceKind {
        match (self.managed_by.as_str(), self.owner.as_ref().map(|owner| owner.kind.as_str())) {
            (OURS, Some("Service")) => SliceKind::Pods,
            // One that has lost its label is ours all the same, and gets it back.
            (OURS, _) | (_, Some("RequestAutoscaler")) => SliceKind::Activators,
            (NATIVE, _) => SliceKind::Native,
            (MIRROR, _) => SliceKind::Mirror,
            _ => SliceKind::Foreign,
        }
    }

    /// Whether it leads new connections to one of these addresses.
    pub fn leads_to(&self, live: &BTreeSet<IpAddr>) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.is_ready && live.contains(&endpoint.ip))
    }

    /// The endpoints that have one of these addresses.
    pub fn names<'a>(&'a self, ips: &'a [IpAddr]) -> impl Iterator<Item = &'a SliceEndpoint> {
        self.endpoints.iter().filter(|endpoint| ips.contains(&endpoint.ip))
    }

    /// Whether it says the same to every reader: all but identity, versions and our own notes of time.
    pub(super) fn says_the_same(&self, other: &SliceFact) -> bool {
        let content = |fact: &SliceFact| SliceFact {
            uid: String::new(),
            resource_version: String::new(),
            standing_since: None,
            changed: None,
            ..fact.clone()
        };
        content(self) == content(other)
    }
}

impl Versioned for SliceFact {
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

fn ports(slice: &EndpointSlice) -> Vec<SlicePort> {
    let port = |port: &k8s_openapi::api::discovery::v1::EndpointPort| {
        Some(SlicePort {
            name: port.name.clone().unwrap_or_default(),
            number: u16::try_from(port.port?).ok()?,
            transport: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: port.app_protocol.clone().unwrap_or_default(),
        })
    };
    slice.ports.iter().flatten().filter_map(port).collect()
}

/// What is not written about readiness is read as Kubernetes says: ready, and serving if it is ready.
fn endpoint(endpoint: &Endpoint) -> Option<SliceEndpoint> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let is_ready = conditions.ready.unwrap_or(true);
    let hints = endpoint.hints.iter().flat_map(|hints| hints.for_zones.iter().flatten());
    let pod = endpoint.target_ref.as_ref().map(|pod| {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        (text(&pod.namespace), text(&pod.name), text(&pod.uid))
    });
    Some(SliceEndpoint {
        ip: endpoint.addresses.first()?.parse().ok()?,
        is_ready,
        is_serving: conditions.serving.unwrap_or(is_ready),
        is_terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.clone().unwrap_or_default(),
        zone: endpoint.zone.clone().unwrap_or_default(),
        zone_hints: hints.map(|hint| hint.name.clone()).collect(),
        pod,
    })
}

fn time(meta: &ObjectMeta, annotation: &str) -> Option<Time> {
    let written: Timestamp = meta.annotations.as_ref()?.get(annotation)?.parse().ok()?;
    u64::try_from(written.as_nanosecond()).ok().map(Time::from_nanos)
}

/// A time as an annotation has it.
pub(super) fn written(time: Time) -> String {
    let nanos = i128::from(time.as_nanos());
    Timestamp::from_nanosecond(nanos).map(|time| time.to_string()).unwrap_or_default()
}
