//! One Service in a pretended cluster: slices with versions, the controllers of Kubernetes that write slices, and the
//! endpoints that a node would use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pilotlight_core::{ActivatorPath, ServingMode, Time};

use super::super::*;
use crate::facts::{ServiceFact, ServicePort, TargetPort};
use crate::selector::Selector;
use crate::slices::{
    MANAGED_BY, MIRROR, Member, NATIVE, SERVICE_NAME, SliceFact, SliceKind, SliceWrite, Stage,
};

pub(super) struct World {
    pub(super) now: Time,
    pub(super) way: PathWay,
    pub(super) replicas: Option<u32>,
    pub(super) mode: ServingMode,
    pub(super) restoring: Restoring,
    pub(super) before: Option<ActivatorPath>,
    pub(super) service: ServiceFact,
    pub(super) activators: Vec<Member>,
    /// Ports that each activator has bound.
    pub(super) bound: BTreeMap<String, BTreeSet<u16>>,
    pub(super) unheard: BTreeSet<String>,
    /// The port that the table allots.
    pub(super) port: u16,
    pub(super) pods: Vec<ReadyPod>,
    pub(super) slices: BTreeMap<String, EndpointSlice>,
    /// Version of the Endpoints object, and whether its addresses are of the target's pods.
    pub(super) endpoints: Option<(u64, bool)>,
    pub(super) asked: EndpointsSeen,
    /// Slices of others and the selector, as they were seen last; `None`: as they are.
    pub(super) lagging: Option<(Vec<SliceFact>, Selector)>,
    version: u64,
}

impl World {
    /// A Service with a selector, one ready pod, two activators.
    pub(super) fn new(way: PathWay) -> Self {
        let mut world = World {
            now: at(0),
            way,
            replicas: Some(1),
            mode: ServingMode::Serve,
            restoring: Restoring::No,
            before: None,
            service: ServiceFact {
                uid: "service".to_owned(),
                selector: Selector::parse("app=web").unwrap(),
                cluster_ips: vec!["10.96.0.7".parse().unwrap()],
                ports: vec![ServicePort {
                    name: "http".to_owned(),
                    port: 80,
                    target: TargetPort::Number(8080),
                    transport: "TCP".to_owned(),
                    app_protocol: String::new(),
                }],
                ..ServiceFact::default()
            },
            activators: vec![member("a", 1), member("a", 2)],
            bound: BTreeMap::new(),
            unheard: BTreeSet::new(),
            port: 10_007,
            pods: Vec::new(),
            slices: BTreeMap::new(),
            endpoints: Some((1, true)),
            asked: EndpointsSeen::Unknown,
            lagging: None,
            version: 1,
        };
        world.bind(&["a-1", "a-2"]);
        world.pod_is_ready(1);
        world.kubernetes();
        world
    }

    /// The same, and the selector was just removed.
    pub(super) fn without_selector() -> Self {
        let mut world = World::new(PathWay::Always);
        world.mode = ServingMode::Proxy;
        world.service.selector = Selector::default();
        world.kubernetes();
        world
    }

    pub(super) fn bind(&mut self, activators: &[&str]) {
        for name in activators {
            self.bound.entry((*name).to_owned()).or_default().insert(self.port);
        }
    }

    pub(super) fn pod_is_ready(&mut self, number: u8) {
        let ports = BTreeMap::from([("web/http".to_owned(), 8080)]);
        self.pods.push(ReadyPod { member: member("p", number), ready_since: self.now, ports });
    }

    pub(super) fn leaves(&mut self, activator: usize) {
        self.activators[activator].stage = Stage::Leaving { since: self.now };
    }

    /// The controllers of Kubernetes: slices of a Service without selector stay as they were, and its Endpoints are
    /// mirrored.
    pub(super) fn kubernetes(&mut self) {
        let ready = |pods: &[ReadyPod]| -> Vec<IpAddr> {
            pods.iter().filter(|pod| pod.member.is_serving()).map(|pod| pod.member.ips[0]).collect()
        };
        let ips = ready(&self.pods);
        match (self.service.selector.is_empty(), self.endpoints.is_some()) {
            (false, _) => {
                self.put(slice("web-native", NATIVE, &ips));
                self.slices.remove("web-mirror");
            }
            (true, true) => self.put(slice("web-mirror", MIRROR, &ips)),
            (true, false) => {
                self.slices.remove("web-mirror");
            }
        }
    }

    pub(super) fn put(&mut self, mut slice: EndpointSlice) {
        let name = slice.metadata.name.clone().unwrap();
        let content = |slice: &EndpointSlice| (slice.endpoints.clone(), slice.ports.clone());
        if self.slices.get(&name).is_some_and(|before| content(before) == content(&slice)) {
            return;
        }
        self.version += 1;
        slice.metadata.uid = Some(format!("uid-{name}"));
        slice.metadata.resource_version = Some(self.version.to_string());
        self.slices.insert(name, slice);
    }

    fn facts(&self) -> Vec<SliceFact> {
        self.slices.values().map(|slice| SliceFact::read(slice).unwrap().1).collect()
    }

    pub(super) fn of_kind(&self, kind: SliceKind) -> Vec<SliceFact> {
        self.facts().into_iter().filter(|fact| fact.kind() == kind).collect()
    }

    /// From now on, slices of others and the selector are seen as they are at this moment.
    pub(super) fn lag(&mut self) {
        let others = self.facts().into_iter().filter(|fact| !is_ours(fact)).collect();
        self.lagging = Some((others, self.service.selector.clone()));
    }

    pub(super) fn seen(&self) -> PathSeen {
        let (mut slices, mut service) = (self.facts(), self.service.clone());
        if let Some((others, selector)) = self.lagging.clone() {
            slices.retain(is_ours);
            slices.extend(others);
            service.selector = selector;
        }
        let has_bound = |(name, ports): (&String, &BTreeSet<u16>)| {
            (ports.contains(&self.port) && !self.unheard.contains(name)).then(|| name.clone())
        };
        let service = ServiceSeen {
            service: Arc::new(service),
            slices,
            endpoints: self.asked.clone(),
            ports: BTreeMap::from([("http".to_owned(), self.port)]),
            bound: self.bound.iter().filter_map(has_bound).collect(),
        };
        PathSeen {
            now: self.now,
            namespace: "shop".to_owned(),
            autoscaler: "web".to_owned(),
            autoscaler_uid: "ra".to_owned(),
            way: self.way.clone(),
            services: BTreeMap::from([("web".to_owned(), service)]),
            activators: self.activators.clone(),
            unheard: self.unheard.clone(),
            pods: self.pods.clone(),
            replicas: self.replicas,
            mode: self.mode,
            before: self.before,
            propagation: PROPAGATION,
            restoring: self.restoring,
            is_ambient: false,
        }
    }

    /// One step: its writes are carried out, and the Endpoints object read if it asks for it.
    pub(super) fn step(&mut self) -> PathPlan {
        let plan = step(&self.seen());
        self.before = Some(plan.path);
        for write in &plan.writes {
            self.write(write);
        }
        if !plan.ask_endpoints.is_empty() {
            self.asked = self.endpoints.map_or(EndpointsSeen::Absent, |(version, is_of_target)| {
                let uid = "endpoints".to_owned();
                EndpointsSeen::Present { uid, resource_version: version.to_string(), is_of_target }
            });
        }
        plan
    }

    /// One write, after which some endpoint serves if one did before, and none is named that cannot.
    fn write(&mut self, write: &PathWrite) {
        let served = self.serves();
        match write {
            PathWrite::Slice(SliceWrite::Create(slice)) => {
                let name = slice.metadata.name.as_deref().unwrap();
                assert!(!self.slices.contains_key(name), "{name} is there already");
                self.check(slice);
                self.put((**slice).clone());
            }
            PathWrite::Slice(SliceWrite::Replace(slice)) => {
                let before = &self.slices[slice.metadata.name.as_deref().unwrap()];
                assert_eq!(slice.metadata.resource_version, before.metadata.resource_version);
                self.check(slice);
                self.put((**slice).clone());
            }
            PathWrite::Slice(SliceWrite::Delete { name, resource_version, .. }) => {
                // Others' may have changed meanwhile: then the precondition fails, and the next step sees it.
                let version =
                    self.slices.get(name).and_then(|slice| slice.metadata.resource_version.as_ref());
                if version == Some(resource_version) {
                    self.slices.remove(name);
                }
            }
            PathWrite::DeleteEndpoints(deletion) => {
                assert_eq!(deletion.name, "web");
                if self.endpoints.is_some_and(|(version, _)| version.to_string() == deletion.resource_version)
                {
                    self.endpoints = None;
                }
                self.asked = EndpointsSeen::Absent;
            }
        }
        let is_forced = self.restoring == Restoring::AtOnce;
        assert!(self.serves() || !served || is_forced, "nothing serves after {write:?}");
    }

    fn check(&self, slice: &EndpointSlice) {
        let (_, fact) = SliceFact::read(slice).unwrap();
        for endpoint in &fact.endpoints {
            let port = fact.ports[0].number;
            assert!(self.is_served(endpoint.ip, port), "{endpoint:?} does not serve at {port}");
        }
    }

    fn is_served(&self, ip: IpAddr, port: u16) -> bool {
        let is_bound = |name: &String| self.bound.get(name).is_some_and(|ports| ports.contains(&port));
        let of_activator =
            self.activators.iter().any(|member| member.ips.contains(&ip) && is_bound(&member.name));
        of_activator || (port == 8080 && self.pods.iter().any(|pod| pod.member.ips[0] == ip))
    }

    /// Whether some endpoint serves of those that a node uses: the ready ones or, without any, those that end.
    pub(super) fn serves(&self) -> bool {
        let facts = self.facts();
        let endpoints = || {
            facts.iter().flat_map(|fact| {
                let port = fact.ports.first().map_or(0, |port| port.number);
                fact.endpoints.iter().map(move |endpoint| (endpoint, port))
            })
        };
        let has_ready = endpoints().any(|(endpoint, _)| endpoint.is_ready);
        let used = |(endpoint, _): &(&crate::slices::SliceEndpoint, u16)| {
            endpoint.is_ready || (!has_ready && endpoint.is_serving && endpoint.is_terminating)
        };
        endpoints().filter(used).any(|(endpoint, port)| self.is_served(endpoint.ip, port))
    }

    /// Addresses of our slices of a kind that are ready, and those that end.
    pub(super) fn named(&self, kind: SliceKind) -> (Vec<String>, Vec<String>) {
        let facts = self.of_kind(kind);
        let (ready, ending): (Vec<_>, Vec<_>) =
            facts.iter().flat_map(|fact| &fact.endpoints).partition(|endpoint| endpoint.is_ready);
        let ips = |endpoints: Vec<&crate::slices::SliceEndpoint>| {
            endpoints.into_iter().map(|endpoint| endpoint.ip.to_string()).collect()
        };
        (ips(ready), ips(ending))
    }
}

fn is_ours(fact: &SliceFact) -> bool {
    matches!(fact.kind(), SliceKind::Activators | SliceKind::Pods)
}

pub(super) fn at(seconds: u64) -> Time {
    Time::from_secs(1_800_000_000 + seconds)
}

/// An activator (`a-1`, 10.0.0.1) or a pod (`p-1`, 10.1.0.1).
pub(super) fn member(kind: &str, number: u8) -> Member {
    let net = if kind == "a" { 0 } else { 1 };
    Member {
        namespace: "shop".to_owned(),
        name: format!("{kind}-{number}"),
        uid: format!("uid-{kind}-{number}"),
        ips: vec![IpAddr::from([10, net, 0, number])],
        node: "node".to_owned(),
        zone: "zone".to_owned(),
        stage: Stage::Serving,
    }
}

/// A slice of somebody else, with ready endpoints at port 8080.
pub(super) fn slice(name: &str, manager: &str, ips: &[IpAddr]) -> EndpointSlice {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let conditions = EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) };
    let endpoint = |ip: &IpAddr| Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(conditions.clone()),
        ..Endpoint::default()
    };
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: Some("shop".to_owned()),
            name: Some(name.to_owned()),
            labels: Some([label(SERVICE_NAME, "web"), label(MANAGED_BY, manager)].into()),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        ports: Some(vec![EndpointPort {
            name: Some("http".to_owned()),
            port: Some(8080),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        }]),
        endpoints: ips.iter().map(endpoint).collect(),
    }
}
