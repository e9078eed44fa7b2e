//! Our slices as they should be. Names are made of the Service and a stable hash, so that a restart writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use pilotlight_core::Time;

use super::fact::written;
use super::{
    CHANGED, MANAGED_BY, MOST_ENDPOINTS, Member, OURS, PodMember, SERVICE_NAME, STANDING_SINCE, SliceFact,
    SliceKind, SlicePort, SliceSubject,
};
use crate::facts::ServicePort;

/// Slices that lead to activators: for each family of addresses one with all ports, or more past 100 members. A member that
/// is named already stays in its slice.
pub fn wanted_of_activators(
    now: Time,
    subject: &SliceSubject,
    ports: &[SlicePort],
    members: &[Member],
    observed: &[SliceFact],
) -> Vec<EndpointSlice> {
    let draft =
        Draft { now, subject, kind: SliceKind::Activators, observed, has_hints: has_hints(subject, members) };
    let members: Vec<&Member> = members.iter().collect();
    draft.slices(ports, &members)
}

/// Slices that lead to pods of the target: split by the numbers of their ports, as Kubernetes does. A port whose name a pod
/// does not know is left out for it, and a pod without any port as well.
pub fn wanted_of_pods(
    now: Time,
    subject: &SliceSubject,
    ports: &[ServicePort],
    pods: &[PodMember],
    observed: &[SliceFact],
) -> Vec<EndpointSlice> {
    let has_hints = has_hints(subject, pods.iter().map(|pod| &pod.member));
    let draft = Draft { now, subject, kind: SliceKind::Pods, observed, has_hints };
    let mut groups: BTreeMap<Vec<SlicePort>, Vec<&Member>> = BTreeMap::new();
    for pod in pods {
        groups.entry(ports_of(pod, ports)).or_default().push(&pod.member);
    }
    groups.remove(&Vec::new());
    groups.iter().flat_map(|(ports, members)| draft.slices(ports, members)).collect()
}

/// One of our slices with its name and ports as they are, and of its endpoints those that are still members.
/// `None`: none is left.
pub fn retained(
    now: Time,
    subject: &SliceSubject,
    fact: &SliceFact,
    members: &[Member],
) -> Option<EndpointSlice> {
    let observed = std::slice::from_ref(fact);
    let draft = Draft { now, subject, kind: fact.kind(), observed, has_hints: has_hints(subject, members) };
    let named: BTreeSet<IpAddr> = fact.endpoints.iter().map(|endpoint| endpoint.ip).collect();
    let by_ip = by_ip(&fact.address_type, members.iter());
    let left: BTreeMap<_, _> = by_ip.into_iter().filter(|(ip, _)| named.contains(ip)).collect();
    (!left.is_empty()).then(|| draft.slice(&fact.name, &fact.address_type, &fact.ports, &left))
}

/// What all slices of one kind have in common.
struct Draft<'a> {
    now: Time,
    subject: &'a SliceSubject,
    kind: SliceKind,
    observed: &'a [SliceFact],
    has_hints: bool,
}

impl Draft<'_> {
    fn slices(&self, ports: &[SlicePort], members: &[&Member]) -> Vec<EndpointSlice> {
        let families = self.subject.families.names();
        families.flat_map(|family| self.slices_of_family(family, ports, members)).collect()
    }

    fn slices_of_family(&self, family: &str, ports: &[SlicePort], members: &[&Member]) -> Vec<EndpointSlice> {
        let mut left = by_ip(family, members.iter().copied());
        let most = left.len().div_ceil(MOST_ENDPOINTS).max(self.observed.len());
        let names: Vec<String> = (0..most).map(|number| self.name(family, ports, number)).collect();
        let mut parts: Vec<BTreeMap<IpAddr, &Member>> = vec![BTreeMap::new(); most];
        for (name, part) in names.iter().zip(&mut parts) {
            let before = self.observed.iter().find(|fact| fact.name == *name);
            for endpoint in before.iter().flat_map(|fact| &fact.endpoints).take(MOST_ENDPOINTS) {
                part.extend(left.remove_entry(&endpoint.ip));
            }
        }
        let mut left = left.into_iter();
        for part in &mut parts {
            let room = MOST_ENDPOINTS.saturating_sub(part.len());
            part.extend(left.by_ref().take(room));
        }
        let named = names.iter().zip(&parts).filter(|(_, part)| !part.is_empty());
        named.map(|(name, part)| self.slice(name, family, ports, part)).collect()
    }

    fn slice(
        &self,
        name: &str,
        family: &str,
        ports: &[SlicePort],
        members: &BTreeMap<IpAddr, &Member>,
    ) -> EndpointSlice {
        let subject = self.subject;
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let since = self.standing_since(name, ports, members);
        EndpointSlice {
            metadata: ObjectMeta {
                namespace: Some(subject.namespace.clone()),
                name: Some(name.to_owned()),
                labels: Some([label(SERVICE_NAME, &subject.service), label(MANAGED_BY, OURS)].into()),
                annotations: Some(
                    [label(STANDING_SINCE, &written(since)), label(CHANGED, &written(self.now))].into(),
                ),
                owner_references: Some(vec![self.owner()]),
                ..ObjectMeta::default()
            },
            address_type: family.to_owned(),
            ports: Some(ports.iter().map(port).collect()),
            endpoints: members.iter().map(|(ip, member)| self.endpoint(*ip, member)).collect(),
        }
    }

    /// A slice stands as long as it has had a member in common with itself that takes new connections, at the same ports.
    fn standing_since(&self, name: &str, ports: &[SlicePort], members: &BTreeMap<IpAddr, &Member>) -> Time {
        let stays = |ip: &IpAddr| members.get(ip).is_some_and(|member| member.is_serving());
        let before = self.observed.iter().find(|fact| fact.name == name && fact.ports == ports);
        let before = before.filter(|fact| fact.endpoints.iter().any(|each| each.is_ready && stays(&each.ip)));
        before.and_then(|fact| fact.standing_since).map_or(self.now, |since| since.min(self.now))
    }

    fn endpoint(&self, ip: IpAddr, member: &Member) -> Endpoint {
        let is_serving = member.is_serving();
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Endpoint {
            addresses: vec![ip.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(is_serving),
                serving: Some(true),
                terminating: Some(!is_serving),
            }),
            hints: self.has_hints.then(|| EndpointHints {
                for_zones: Some(vec![ForZone { name: member.zone.clone() }]),
                for_nodes: some(&member.node).map(|name| vec![ForNode { name }]),
            }),
            node_name: some(&member.node),
            zone: some(&member.zone),
            target_ref: self.subject.names_pods.then(|| ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: Some(member.namespace.clone()),
                name: Some(member.name.clone()),
                uid: Some(member.uid.clone()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }
    }

    /// The owner, with which the slice goes. `blockOwnerDeletion` is not set: it needs a right over the owner.
    fn owner(&self) -> OwnerReference {
        let subject = self.subject;
        let (api_version, kind, name, uid) = match self.kind {
            SliceKind::Pods => ("v1", "Service", &subject.service, &subject.service_uid),
            _ => (AUTOSCALER_VERSION, "RequestAutoscaler", &subject.autoscaler, &subject.autoscaler_uid),
        };
        OwnerReference {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.clone(),
            uid: uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }

    /// The name of the slice with this number. Numbers of ports are part of it for pods only: activators' may change, and
    /// the slice with them.
    fn name(&self, family: &str, ports: &[SlicePort], number: usize) -> String {
        let Self { subject, kind, .. } = self;
        let mut identity = format!("{} {kind:?} {family} {number}", subject.service);
        if *kind == SliceKind::Pods {
            ports.iter().for_each(|port| identity.push_str(&format!(" {}={}", port.name, port.number)));
        }
        let prefix = subject.service.get(..MOST_PREFIX).unwrap_or(&subject.service).trim_end_matches('-');
        format!("{prefix}-pilotlight-{:010x}", fnv1a_64(identity.as_bytes()) & 0xff_ffff_ffff)
    }
}

/// Hints are on every endpoint or on none: one without switches them off for all.
fn has_hints<'a>(subject: &SliceSubject, members: impl IntoIterator<Item = &'a Member>) -> bool {
    subject.prefers_near && members.into_iter().all(|member| !member.zone.is_empty())
}

/// Members by their address of a family. Of two with one address, the one that takes new connections counts.
fn by_ip<'a>(family: &str, members: impl Iterator<Item = &'a Member>) -> BTreeMap<IpAddr, &'a Member> {
    let mut found: BTreeMap<IpAddr, &Member> = BTreeMap::new();
    for (ip, member) in members.filter_map(|member| Some((member.ip(family)?, member))) {
        let kept = found.entry(ip).or_insert(member);
        if !kept.is_serving() {
            *kept = member;
        }
    }
    found
}

fn ports_of(pod: &PodMember, ports: &[ServicePort]) -> Vec<SlicePort> {
    let port = |port: &ServicePort| Some(SlicePort::of(port, *pod.ports.get(&port.name)?));
    ports.iter().filter_map(port).collect()
}

impl SlicePort {
    /// A port of a Service, at this number of the endpoints.
    pub fn of(port: &ServicePort, number: u16) -> SlicePort {
        SlicePort {
            name: port.name.clone(),
            number,
            transport: port.transport.clone(),
            app_protocol: port.app_protocol.clone(),
        }
    }
}

fn port(port: &SlicePort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        port: Some(i32::from(port.number)),
        protocol: Some(port.transport.clone()),
        app_protocol: Some(port.app_protocol.clone()).filter(|protocol| !protocol.is_empty()),
    }
}

/// FNV-1a, 64 bit.
fn fnv1a_64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

const AUTOSCALER_VERSION: &str = "pilotlight.dev/v1alpha1";
/// The most letters of the Service's name in the name of a slice.
const MOST_PREFIX: usize = 40;
