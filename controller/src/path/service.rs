//! The step of one Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use pilotlight_core::{ServingMode, Time};

use super::{
    EndpointsDeletion, EndpointsSeen, PathSeen, PathWay, PathWrite, ReadyPod, Restored, Restoring,
    ServiceSeen,
};
use crate::slices::{
    Families, Member, PodMember, SliceFact, SliceKind, SlicePort, SliceSubject, SliceWrite, Stage, changes,
    retained, wanted_of_activators, wanted_of_pods,
};

/// What is to be done for one Service, and what may be said of it.
pub(super) struct ServiceStep {
    pub(super) name: String,
    pub(super) writes: Vec<PathWrite>,
    pub(super) asks_endpoints: bool,
    /// Whether a slice of ours leads new connections to an activator that is alive.
    pub(super) leads_to_activators: bool,
    /// Since when our slices have stood, if all traffic that should come here does.
    pub(super) populated_since: Option<Time>,
    pub(super) obstacle: Option<Obstacle>,
    pub(super) restored: Restored,
    pub(super) wake_at: Option<Time>,
}

/// Why traffic does not come here as it should. The first of all that apply counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    /// Endpoints or slices of somebody else.
    Foreign,
    /// A selector, where there should be none.
    SelectorPresent,
    /// No activator is alive.
    NoActivators,
    /// Endpoints or slices that a selector left behind.
    Stale,
    /// No activator has reported all ports as bound.
    PortsPending,
    /// Our slices are not written yet.
    Pending,
    /// Pods are still named, though activators are back.
    FailedOpen,
}

pub(super) fn step(seen: &PathSeen, name: &str, service: &ServiceSeen) -> ServiceStep {
    Service::of(seen, name, service).step()
}

/// A Service with its slices sorted by their purpose.
struct Service<'a> {
    seen: &'a PathSeen,
    name: &'a str,
    service: &'a ServiceSeen,
    subject: SliceSubject,
    has_selector: bool,
    /// Ours that lead to activators.
    activators: Vec<SliceFact>,
    /// Ours that lead to pods.
    pods: Vec<SliceFact>,
    native: Vec<&'a SliceFact>,
    mirrors: Vec<&'a SliceFact>,
    has_foreign: bool,
    /// The ports of our slices of activators; `None`: the table lacks one.
    ports: Option<Vec<SlicePort>>,
    /// When to look again.
    wake_at: Option<Time>,
}

impl<'a> Service<'a> {
    fn of(seen: &'a PathSeen, name: &'a str, service: &'a ServiceSeen) -> Self {
        let fact = &service.service;
        let of_kind = |kind: SliceKind| service.slices.iter().filter(move |slice| slice.kind() == kind);
        let tcp = || fact.ports.iter().filter(|port| port.transport == "TCP");
        let ports: Option<Vec<SlicePort>> =
            tcp().map(|port| Some(SlicePort::of(port, *service.ports.get(&port.name)?))).collect();
        Service {
            seen,
            name,
            service,
            subject: SliceSubject {
                namespace: seen.namespace.clone(),
                service: name.to_owned(),
                service_uid: fact.uid.clone(),
                autoscaler: seen.autoscaler.clone(),
                autoscaler_uid: seen.autoscaler_uid.clone(),
                families: Families::of(&fact.cluster_ips),
                prefers_near: fact.prefers_near,
                names_pods: !seen.is_ambient,
            },
            has_selector: !fact.selector.is_empty(),
            activators: of_kind(SliceKind::Activators).cloned().collect(),
            pods: of_kind(SliceKind::Pods).cloned().collect(),
            native: of_kind(SliceKind::Native).collect(),
            mirrors: of_kind(SliceKind::Mirror).collect(),
            has_foreign: of_kind(SliceKind::Foreign).any(|slice| !slice.endpoints.is_empty()),
            ports: ports.filter(|ports| !ports.is_empty()),
            wake_at: None,
        }
    }

    fn step(mut self) -> ServiceStep {
        self.await_pods();
        let standing = self.activators_stand();
        let asks_endpoints = self.asks_endpoints(standing);
        let mut wanted = self.wanted_activators();
        wanted.extend(self.wanted_pods(standing));
        let ours = changes(&self.service.slices, &wanted).into_iter().map(PathWrite::Slice);
        let mut writes: Vec<_> = ours.collect();
        if !asks_endpoints && (standing.is_some() || self.pods_stand().is_some()) {
            writes.extend(self.stale());
        }
        let obstacle = self.obstacle(standing);
        ServiceStep {
            name: self.name.to_owned(),
            asks_endpoints,
            leads_to_activators: self.activators_serve(),
            populated_since: standing.filter(|_| obstacle.is_none() && self.aims_in()),
            restored: self.restored(),
            obstacle,
            writes,
            wake_at: self.wake_at,
        }
    }

    // What should be.

    /// Whether our slices should lead to activators.
    fn aims_in(&self) -> bool {
        let seen = self.seen;
        if self.is_put_back() || (self.is_blocked() && self.activators.is_empty()) {
            return false;
        }
        let leads_to_zero = seen.mode == ServingMode::Proxy && seen.way != PathWay::WakeOnly;
        match seen.replicas {
            _ if !self.has_selector => true,
            None => self.activators_serve(),
            Some(0) => true,
            Some(_) => leads_to_zero || (!self.activators.is_empty() && !self.native_serves()),
        }
    }

    /// Whether nothing of ours should be left.
    fn is_put_back(&self) -> bool {
        self.seen.restoring != Restoring::No || matches!(self.seen.way, PathWay::Refused { .. })
    }

    /// Whether nothing may be written for the first time: somebody else's endpoints are there, or may be.
    fn is_blocked(&self) -> bool {
        self.is_foreign() || (!self.has_selector && self.service.endpoints == EndpointsSeen::Unknown)
    }

    fn is_foreign(&self) -> bool {
        let of_others = matches!(self.service.endpoints, EndpointsSeen::Present { is_of_target: false, .. });
        self.has_foreign || (!self.has_selector && of_others)
    }

    /// Whether the Endpoints object must be read: before our first slice, and whenever a mirror of one is there. Mirrors
    /// tell, so that a leader which starts need not ask for every Service.
    fn asks_endpoints(&self, standing: Option<Time>) -> bool {
        let is_needed = match self.service.endpoints {
            EndpointsSeen::Unknown => standing.is_none() || !self.mirrors.is_empty(),
            EndpointsSeen::Absent => !self.mirrors.is_empty(),
            EndpointsSeen::Present { .. } => false,
        };
        !self.has_selector && !self.is_put_back() && is_needed
    }

    fn wanted_activators(&mut self) -> Vec<EndpointSlice> {
        if self.seen.restoring == Restoring::AtOnce {
            return Vec::new();
        }
        let slices = self.activators.clone();
        let members = self.stay(&slices, self.seen.activators.iter());
        match (self.aims_in(), &self.ports.clone()) {
            (true, Some(ports)) if self.usable().next().is_some() => {
                let bound: Vec<Member> = members.into_iter().filter(|member| self.is_bound(member)).collect();
                wanted_of_activators(self.seen.now, &self.subject, ports, &bound, &slices)
            }
            (false, _) if self.others_serve() => self.leave(&slices, &self.seen.activators),
            // No activator has bound the ports, or nothing else serves: those that are named stay, at the ports that they have.
            _ => self.retained(&slices, &members),
        }
    }

    fn wanted_pods(&mut self, standing: Option<Time>) -> Vec<EndpointSlice> {
        if self.has_selector && self.seen.restoring == Restoring::AtOnce {
            return Vec::new();
        }
        if self.pods.is_empty() && !self.aims_pods() {
            return Vec::new();
        }
        let slices = self.pods.clone();
        let may_leave = match self.has_selector {
            true => self.native_serves(),
            false => !self.aims_pods() && self.has_passed(standing),
        };
        if may_leave {
            let members: Vec<Member> = self.seen.pods.iter().map(|pod| pod.member.clone()).collect();
            return self.leave(&slices, &members);
        }
        let members = self.stay(&slices, self.seen.pods.iter().map(|pod| &pod.member));
        let pods: Vec<PodMember> = members.into_iter().filter_map(|member| self.with_ports(member)).collect();
        let ports = &self.service.service.ports;
        wanted_of_pods(self.seen.now, &self.subject, ports, &pods, &slices)
    }

    /// Whether our slices should lead to pods: no activator is left, or we are to go and the Service has no selector.
    fn aims_pods(&self) -> bool {
        let has_ours = !self.activators.is_empty() || !self.pods.is_empty();
        if self.has_selector || (self.is_blocked() && !has_ours) {
            return false;
        }
        match self.is_put_back() {
            // Once we are gone nobody else names pods: those that are being woken are waited for.
            true => has_ours || !matches!(self.seen.way, PathWay::Refused { .. }),
            false => !self.seen.activators.iter().any(Member::is_serving),
        }
    }

    // How members and slices leave.

    /// Members that take new connections, and those that leave and are still to be named. As long as nothing else serves they
    /// stay ready: some data planes pass endpoints that end by, and none uses them beside a dead one that is ready.
    fn stay<'m>(&mut self, slices: &[SliceFact], members: impl Iterator<Item = &'m Member>) -> Vec<Member> {
        let others = self.activators_serve() || self.pods_stand().is_some() || self.native_serves();
        let mut kept = Vec::new();
        for member in members {
            let Stage::Leaving { since } = member.stage else {
                kept.push(member.clone());
                continue;
            };
            let naming = || slices.iter().filter(|slice| slice.names(&member.ips).next().is_some());
            if naming().next().is_none() {
                continue;
            }
            if !others {
                kept.push(Member { stage: Stage::Serving, ..member.clone() });
                continue;
            }
            let is_told = naming().all(|slice| slice.names(&member.ips).all(|each| !each.is_ready));
            let told = naming().filter_map(|slice| slice.changed).max().unwrap_or(since).max(since);
            if !is_told || self.waits_until(told + self.seen.propagation) {
                kept.push(member.clone());
            }
        }
        kept
    }

    /// The slices with only those that are members.
    fn retained(&self, slices: &[SliceFact], members: &[Member]) -> Vec<EndpointSlice> {
        slices.iter().filter_map(|slice| self.retained_one(slice, members)).collect()
    }

    /// At ports that are no longer the table's, activators listen for as long as a slice names them.
    fn retained_one(&self, slice: &SliceFact, members: &[Member]) -> Option<EndpointSlice> {
        let at_ports = self.ports.as_ref() == Some(&slice.ports) && slice.kind() == SliceKind::Activators;
        let members: Vec<Member> =
            members.iter().filter(|member| !at_ports || self.is_bound(member)).cloned().collect();
        retained(self.seen.now, &self.subject, slice, &members)
    }

    /// The slices on their way out: all of their members end first, and `propagation` later they go.
    fn leave(&mut self, slices: &[SliceFact], members: &[Member]) -> Vec<EndpointSlice> {
        let now = self.seen.now;
        let ending = |member: &Member| Member { stage: Stage::Leaving { since: now }, ..member.clone() };
        let ending: Vec<Member> = members.iter().map(ending).collect();
        let mut left = Vec::new();
        for slice in slices {
            let is_told = slice.endpoints.iter().all(|endpoint| !endpoint.is_ready);
            let told = slice.changed.unwrap_or(Time::EPOCH);
            if !is_told || self.waits_until(told + self.seen.propagation) {
                left.extend(self.retained_one(slice, &ending));
            }
        }
        left
    }

    /// What a selector left behind. Endpoints go first: slices that mirror them would come back.
    fn stale(&self) -> Vec<PathWrite> {
        if self.has_selector || self.is_put_back() || self.is_foreign() {
            return Vec::new();
        }
        let mut writes = Vec::new();
        if let EndpointsSeen::Present { uid, resource_version, .. } = &self.service.endpoints {
            writes.push(PathWrite::DeleteEndpoints(EndpointsDeletion {
                name: self.name.to_owned(),
                uid: uid.clone(),
                resource_version: resource_version.clone(),
            }));
        }
        let slices = self.native.iter().chain(&self.mirrors);
        writes.extend(slices.map(|slice| PathWrite::Slice(SliceWrite::delete(slice))));
        writes
    }

    // What is seen.

    /// Since when our slices have led to activators at the ports of the table, for every family of the Service.
    fn activators_stand(&self) -> Option<Time> {
        let ports = self.ports.as_ref()?;
        let live = serving(self.seen.activators.iter());
        let at_ports = self.activators.iter().filter(|slice| slice.ports == *ports);
        self.stand(&at_ports.collect::<Vec<_>>(), self.subject.families, &live)
    }

    /// Since when our slices have led to pods, for every family that Service and pods have.
    fn pods_stand(&self) -> Option<Time> {
        let live = serving(self.seen.pods.iter().map(|pod| &pod.member));
        let (own, theirs) = (self.subject.families, Families::of(&live));
        let both = Families { v4: own.v4 && theirs.v4, v6: own.v6 && theirs.v6 };
        self.stand(&self.pods.iter().collect::<Vec<_>>(), both, &live)
    }

    fn stand(&self, slices: &[&SliceFact], families: Families, live: &BTreeSet<IpAddr>) -> Option<Time> {
        let since = |family: &str| {
            let of_family = slices.iter().filter(|slice| slice.address_type == family);
            let leading = of_family.filter(|slice| slice.leads_to(live));
            leading.map(|slice| slice.standing_since.unwrap_or(Time::EPOCH)).min()
        };
        let times: Option<Vec<Time>> = families.names().map(since).collect();
        times?.into_iter().max().map(|since| since.min(self.seen.now))
    }

    /// Whether a slice of ours leads new connections to an activator that is alive, at whatever port.
    fn activators_serve(&self) -> bool {
        let live = serving(self.seen.activators.iter());
        self.activators.iter().any(|slice| slice.leads_to(&live))
    }

    /// Whether Kubernetes' own slices lead to a pod, of which every node has heard.
    fn native_serves(&self) -> bool {
        let known = |pod: &&ReadyPod| self.seen.now >= pod.ready_since + self.seen.propagation;
        let live = serving(self.seen.pods.iter().filter(known).map(|pod| &pod.member));
        self.has_selector && self.native.iter().any(|slice| slice.leads_to(&live))
    }

    /// Pods that every node hears of soon end our slices' time.
    fn await_pods(&mut self) {
        let has_ours = !self.activators.is_empty() || !self.pods.is_empty();
        if self.has_selector && has_ours {
            for pod in &self.seen.pods {
                self.waits_until(pod.ready_since + self.seen.propagation);
            }
        }
    }

    /// Whether anything but activators serves, and every node has heard of it.
    fn others_serve(&mut self) -> bool {
        self.native_serves() || {
            let since = self.pods_stand();
            self.has_passed(since)
        }
    }

    /// Whether `propagation` has passed since then; if not, the next step is due when it has.
    fn has_passed(&mut self, since: Option<Time>) -> bool {
        since.is_some_and(|since| !self.waits_until(since + self.seen.propagation))
    }

    fn waits_until(&mut self, due: Time) -> bool {
        let waits = self.seen.now < due;
        if waits {
            self.wake_at = Some(self.wake_at.map_or(due, |earlier| earlier.min(due)));
        }
        waits
    }

    fn usable(&self) -> impl Iterator<Item = &Member> {
        self.seen.activators.iter().filter(|member| member.is_serving() && self.is_bound(member))
    }

    fn is_bound(&self, member: &Member) -> bool {
        let is_named = |slice: &SliceFact| slice.names(&member.ips).next().is_some();
        let stands = |slice: &SliceFact| self.ports.as_ref() == Some(&slice.ports) && is_named(slice);
        // An activator of which a new leader has not heard yet is what slices say.
        let is_presumed = self.seen.unheard.contains(&member.name) && self.activators.iter().any(stands);
        self.service.bound.contains(&member.name) || is_presumed
    }

    fn with_ports(&self, member: Member) -> Option<PodMember> {
        let pod = self.seen.pods.iter().find(|pod| pod.member.uid == member.uid)?;
        let ports = self.service.service.ports.iter();
        let number = |name: &String| pod.ports.get(&format!("{}/{name}", self.name)).copied();
        let ports = ports.filter_map(|port| Some((port.name.clone(), number(&port.name)?))).collect();
        Some(PodMember { member, ports })
    }

    // What may be said.

    fn obstacle(&self, standing: Option<Time>) -> Option<Obstacle> {
        let is_stale = !self.has_selector
            && (!self.native.is_empty()
                || !self.mirrors.is_empty()
                || matches!(self.service.endpoints, EndpointsSeen::Present { .. }));
        let table = [
            (Obstacle::Foreign, self.is_foreign()),
            (Obstacle::SelectorPresent, self.has_selector && self.seen.way == PathWay::Always),
            (Obstacle::NoActivators, !self.seen.activators.iter().any(Member::is_serving)),
            (Obstacle::Stale, is_stale),
            (Obstacle::PortsPending, self.aims_in() && standing.is_none() && self.usable().next().is_none()),
            (Obstacle::Pending, self.aims_in() && standing.is_none()),
            (Obstacle::FailedOpen, !self.pods.is_empty()),
        ];
        table.into_iter().find_map(|(obstacle, applies)| applies.then_some(obstacle))
    }

    fn restored(&self) -> Restored {
        let waits_for_pods = self.seen.restoring == Restoring::Gently && self.aims_pods();
        match self.pods.is_empty() {
            _ if self.seen.restoring == Restoring::No || !self.activators.is_empty() => Restored::No,
            true if waits_for_pods => Restored::No,
            true => Restored::Yes,
            false if self.has_selector => Restored::No,
            false => Restored::ByOurSlices,
        }
    }
}

fn serving<'a>(members: impl Iterator<Item = &'a Member>) -> BTreeSet<IpAddr> {
    members.filter(|member| member.is_serving()).flat_map(|member| member.ips.iter().copied()).collect()
}
