//! From all that is known to everything about one workload: its settings, what may be done for it, and its path.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotlight_core::{ServingMode, Time};
use pilotlight_kubernetes::known::Known;

use super::entry::{Shown, Terms};
use super::history::history;
use super::restore::PATIENCE;
use super::roll::{Peer, PeerState};
use super::seen::Seen;
use super::workloads::Workloads;
use crate::Workload;
use crate::crd::{Interception, TrafficPath};
use crate::facts::{Name, PodFact, PodPhase};
use crate::path::{self, PathSeen, PathWay, ReadyPod, Restoring, ServiceSeen};
use crate::peers::WorkloadActivity;
use crate::ports::PortOwner;
use crate::refusal::{self, AtZeroSignal, HpaFact, NamespaceFacts, Refusal, Rival, Surroundings, Way};
use crate::settings::accept;
use crate::slices::{Member, SliceFact, Stage};

impl Workloads {
    /// Everything about a workload.
    pub(super) fn look(&mut self, now: Time, workload: Workload, activity: WorkloadActivity) -> Seen {
        let id = (*workload.id).clone();
        let target = self.target_of(&id).and_then(|name| self.targets.get(&name)?.current().cloned());
        let scale = self.scale_of(&id);
        let selector = target.as_ref().map(|target| target.selector.clone());
        let selector = selector.or_else(|| self.entries.get(&id)?.other_selector());
        let is_settled =
            selector.as_ref().is_some_and(|selector| *selector == workload.autoscaler.status.selector);

        let empty = BTreeMap::new();
        let annotations = target.as_ref().map_or(&empty, |target| &target.around.annotations);
        let accepted = accept(&workload, annotations, &self.defaults);
        let surroundings = self.surroundings(&workload, target.as_ref(), is_settled);
        let way = refusal::way(&workload, &surroundings);
        let warnings = match &way {
            Ok(_) => refusal::warnings(&workload, &surroundings),
            Err(_) => Vec::new(),
        };
        let hpa = hpa_of(&surroundings.namespace, &workload);
        let is_second =
            way.as_ref().is_err_and(|refusal| ["TargetTaken", "ServiceTaken"].contains(&refusal.reason));

        let uninstalling = self.uninstalling;
        let entry = self.entries.entry(id.clone()).or_default();
        entry.settle(now, &workload);
        let memory = &mut entry.memory;
        memory.note_phases(now, &workload);
        match accepted {
            Ok(accepted) if memory.accepted.as_deref() == Some(&accepted) => memory.faults = Arc::default(),
            Ok(accepted) => (memory.accepted, memory.faults) = (Some(Arc::new(accepted)), Arc::default()),
            // What was accepted last stays in force.
            Err(faults) if *memory.faults != *faults => memory.faults = faults.into(),
            Err(_) => {}
        }
        let is_restored = workload.autoscaler.is_deleted || uninstalling.is_some();
        memory.restoring = is_restored.then(|| memory.restoring.unwrap_or(now));

        let path_seen = self.path_seen(now, &workload, &way, scale.as_ref().map(|scale| scale.replicas));
        let path = path::step(&path_seen);
        let owner = |port: &crate::WorkloadPort| {
            PortOwner::new(&id.namespace, port.service.clone(), port.port.name.clone())
        };
        let table = self.table();
        let ports = workload.ports();
        let ports = ports.filter_map(|port| Some((port.key(), table.port(&owner(&port))?))).collect();

        let sets_deletion_cost = self.sets_deletion_cost;
        let memory = &mut self.entries.entry(id).or_default().memory;
        memory.path = Some(path.path);
        let generation = workload.autoscaler.generation;
        let load = hpa.as_ref().and_then(|hpa| hpa.load_fraction);
        memory.is_hpa_quiet = load.is_some_and(|load| load < QUIET_FRACTION);
        let is_quiet = match way {
            Ok(Way::AtZero(AtZeroSignal::Autoscaler)) => memory.is_hpa_quiet,
            _ => memory.is_cpu_quiet,
        };
        let mut seen = Seen {
            target,
            scale,
            selector,
            accepted: memory.accepted.clone(),
            faults: Arc::clone(&memory.faults),
            way,
            warnings,
            path,
            ports,
            hpa,
            evaluation: None,
            last: None,
            why: None,
            since: now,
            raise: None,
            contest: memory.foreign.contest(now, generation).cloned(),
            is_put_to_sleep: memory.is_put_to_sleep,
            is_quiet,
            is_second,
            activity,
            leaving_since: memory.leaving_since(now, &workload),
            sets_deletion_cost,
            costed: memory.costed.clone(),
            restoring: memory.restoring,
            status_written: memory.status_written,
            workload,
        };
        seen.raise = memory.foreign.raise(now, seen.stable_window());
        let shown = memory.shown.take();
        memory.shown = shown_anew(now, &seen, shown);
        if let Some(shown) = &memory.shown {
            seen.evaluation.clone_from(&shown.evaluation);
            seen.last.clone_from(&shown.last);
            seen.why.clone_from(&shown.why);
            seen.since = shown.since;
        }
        seen
    }

    fn surroundings(
        &self,
        workload: &Workload,
        target: Option<&Arc<super::target::ScaledFact>>,
        is_settled: bool,
    ) -> Surroundings {
        let id = &*workload.id;
        let stranger = |pod: &&String| !workload.pods.contains_key(*pod);
        let strangers = workload.services.keys().filter(|_| is_settled).filter_map(|service| {
            let name = Name::new(&id.namespace, service);
            let pods = self.strangers.ready_pods(&name);
            let strangers: BTreeSet<String> = pods.filter(stranger).cloned().collect();
            (!strangers.is_empty()).then(|| (service.clone(), strangers))
        });
        let own = self.entries.get(id);
        let rival = |other: &pilotlight_core::RevisionId| {
            let fact = self.shared.workload(other)?.autoscaler;
            let (own, entry) = (own?, self.entries.get(other)?);
            let services = own.services.intersection(&entry.services).map(|name| name.name.clone());
            Some(Rival {
                name: other.name.clone(),
                created: fact.created,
                wants_target: own.target == entry.target,
                services: services.collect(),
            })
        };
        Surroundings {
            cluster: Arc::clone(&self.cluster),
            namespace: self.namespaces.get(&id.namespace).cloned().unwrap_or_default(),
            target: target.map(|target| Arc::clone(&target.around)),
            strangers: strangers.collect(),
            rivals: self.rivals_of(id).iter().filter_map(rival).collect(),
        }
    }

    fn path_seen(
        &self,
        now: Time,
        workload: &Workload,
        way: &Result<Way, Refusal>,
        replicas: Option<u32>,
    ) -> PathSeen {
        let id = &*workload.id;
        let memory = self.entries.get(id).map(|entry| &entry.memory);
        let shown = memory.and_then(|memory| memory.shown.as_ref());
        let planned = shown.and_then(|shown| Some(shown.evaluation.as_ref()?.plan.mode));
        // Before the first decision the path stays as it is.
        let as_it_is = || match workload.autoscaler.status.path {
            Some(TrafficPath::Pods) => ServingMode::Serve,
            _ => ServingMode::Proxy,
        };
        PathSeen {
            now,
            namespace: id.namespace.clone(),
            autoscaler: id.name.clone(),
            autoscaler_uid: workload.autoscaler.uid.clone(),
            way: match way {
                Ok(Way::Always) => PathWay::Always,
                // A selector that is back: the path says so, and what AtZero allows holds until it is gone.
                Ok(Way::WakeOnly) if wants_all(workload) => PathWay::Always,
                Ok(Way::AtZero(_)) => PathWay::AtZero,
                Ok(Way::WakeOnly) => PathWay::WakeOnly,
                Err(refusal) => {
                    PathWay::Refused { reason: refusal.reason.to_owned(), message: refusal.message.clone() }
                }
            },
            services: self.services_seen(workload),
            activators: self.peers.iter().filter_map(|(name, peer)| self.activator(name, peer)).collect(),
            unheard: self
                .peers
                .iter()
                .filter(|(_, peer)| peer.state == PeerState::Unknown)
                .map(|(name, _)| name.clone())
                .collect(),
            pods: self.ready_pods(now, workload),
            replicas,
            mode: planned.unwrap_or_else(as_it_is),
            before: memory.and_then(|memory| memory.path),
            propagation: self.propagation,
            restoring: match memory.and_then(|memory| memory.restoring) {
                None => Restoring::No,
                Some(since) if now < since + PATIENCE => Restoring::Gently,
                Some(_) => Restoring::AtOnce,
            },
            is_ambient: self
                .namespaces
                .get(&id.namespace)
                .is_some_and(|facts| facts.labels.get(AMBIENT.0).is_some_and(|mode| mode == AMBIENT.1)),
        }
    }

    fn services_seen(&self, workload: &Workload) -> BTreeMap<String, ServiceSeen> {
        let id = &*workload.id;
        let endpoints = self.entries.get(id).map(|entry| &entry.endpoints);
        let seen = |(name, service): (&String, &Arc<crate::facts::ServiceFact>)| {
            let slices = self.slices.get(&Name::new(&id.namespace, name));
            let slices = slices.into_iter().flat_map(BTreeMap::values).filter_map(Known::current);
            let of_tcp = service.ports.iter().filter(|port| port.transport == "TCP");
            let owners: Vec<PortOwner> =
                of_tcp.map(|port| PortOwner::new(&id.namespace, name, &port.name)).collect();
            let ports =
                owners.iter().filter_map(|owner| Some((owner.port.clone(), self.table().port(owner)?)));
            let has_bound_all = |peer: &Peer| owners.iter().all(|owner| self.bindings.has_bound(peer, owner));
            let bound = self.peers.iter().filter(|(_, peer)| has_bound_all(peer));
            let seen = ServiceSeen {
                service: Arc::clone(service),
                slices: slices.map(|slice| SliceFact::clone(slice)).collect(),
                endpoints: endpoints.and_then(|it| it.get(name)).cloned().unwrap_or_default(),
                ports: ports.collect(),
                bound: bound.map(|(name, _)| name.clone()).collect(),
            };
            (name.clone(), seen)
        };
        workload.services.iter().map(seen).collect()
    }

    /// An activator that is alive.
    fn activator(&self, name: &str, peer: &Peer) -> Option<Member> {
        let stage = match peer.state {
            PeerState::Gone => return None,
            PeerState::Leaving { since } => Stage::Leaving { since },
            PeerState::Unknown | PeerState::Serving { .. } => Stage::Serving,
        };
        Some(self.member(&self.system_namespace, name, &peer.pod, stage))
    }

    fn ready_pods(&self, now: Time, workload: &Workload) -> Vec<ReadyPod> {
        let memory = self.entries.get(&*workload.id).map(|entry| &entry.memory);
        let ready_pod = |(name, pod): (&String, &Arc<PodFact>)| {
            let since = memory.and_then(|memory| memory.phase_since(name)).unwrap_or(now);
            let stage = match pod.phase {
                PodPhase::Ready => Stage::Serving,
                PodPhase::Terminating => Stage::Leaving { since },
                PodPhase::Pending | PodPhase::Starting => return None,
            };
            Some(ReadyPod {
                member: self.member(&workload.id.namespace, name, pod, stage),
                ready_since: since,
                ports: workload.pod_ports(pod),
            })
        };
        workload.pods.iter().filter_map(ready_pod).collect()
    }

    fn member(&self, namespace: &str, name: &str, pod: &PodFact, stage: Stage) -> Member {
        Member {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: pod.uid.clone(),
            ips: pod.ips.clone(),
            node: pod.node.clone(),
            zone: self.zones.get(&pod.node).cloned().unwrap_or_default(),
            stage,
        }
    }
}

/// What decisions are made on from now on; `None`: none are made.
fn shown_anew(now: Time, seen: &Seen, shown: Option<Shown>) -> Option<Shown> {
    if !seen.is_decided_about() {
        return None;
    }
    let spec = seen.spec()?;
    let accepted = seen.accepted.as_ref()?;
    let (mode, interception) = (accepted.mode, accepted.interception);
    let terms = Terms { mode, interception, way: *seen.way.as_ref().ok()? };
    let mut shown = shown.unwrap_or_else(|| Shown {
        history: Arc::new(history(now, seen, &spec)),
        since: now,
        terms,
        spec: Arc::new(spec.clone()),
        evaluation: None,
        last: seen.workload.autoscaler.status.last_decision.clone().map(Arc::new),
        why: None,
    });
    if shown.terms != terms {
        (shown.terms, shown.since) = (terms, now);
    }
    // The same settings keep their place in memory: followers compare by value.
    if *shown.spec != spec {
        shown.spec = Arc::new(spec);
    }
    Some(shown)
}

/// The HorizontalPodAutoscaler of a workload's target.
fn hpa_of(namespace: &NamespaceFacts, workload: &Workload) -> Option<HpaFact> {
    let target = &workload.autoscaler.spec.scale_target_ref;
    namespace.autoscalers.values().find(|hpa| hpa.target == *target).cloned()
}

/// Whether all requests are meant to pass the activators, selector or not.
fn wants_all(workload: &Workload) -> bool {
    workload.autoscaler.spec.interception == Interception::Always
        || workload.services.values().any(|service| service.kept_selector.is_some())
}

/// Below this share of its targets an HPA's metrics show no load.
const QUIET_FRACTION: f64 = 0.1;
/// The label of a namespace in Istio's ambient mode.
const AMBIENT: (&str, &str) = ("istio.io/dataplane-mode", "ambient");
