//! All that is known of the workloads: facts go in one by one, each touches few workloads, and what is known of one comes
//! out. Pure, and what it costs does not depend on how many workloads there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_config::AutoscalerConfig;
use pilotlight_core::{Evaluation, History, RevisionId, RevisionSpec, Time};
use pilotlight_kubernetes::known::Known;
use pilotlight_kubernetes::scale::ScaleFact;

use super::bindings::Bindings;
use super::conditions::{ACCEPTED, condition};
use super::entry::{Due, WorkloadEntry};
use super::hpa::NamedHpa;
use super::load_signal::LoadSignal;
use super::restore::RESTORE;
use super::roll::Peer;
use super::seen::Seen;
use super::strangers::Strangers;
use super::target::{ScaledFact, ScaledName};
use crate::crd::LastDecision;
use crate::facts::{AutoscalerFact, Name, PodFact, PodPhase, ServiceFact};
use crate::index::{Fact as SharedFact, Index};
use crate::path::EndpointsSeen;
use crate::peers::WorkloadActivity;
use crate::ports::{PortOwner, PortTable};
use crate::refusal::{AtZeroSignal, ClusterFacts, NamespaceFacts, ScaledObjectFact, Way};
use crate::sets::remove;
use crate::slices::{SliceFact, SliceKind};

/// All workloads, and what has a say about them.
#[derive(Debug, Default)]
pub(crate) struct Workloads {
    pub(super) shared: Index,
    pub(super) targets: BTreeMap<ScaledName, Known<ScaledFact>>,
    /// Slices by Service and name.
    pub(super) slices: HashMap<Name, BTreeMap<String, Known<SliceFact>>>,
    service_of_slice: HashMap<Name, Name>,
    hpas: HashMap<Name, Arc<NamedHpa>>,
    /// Namespaces around whose workloads was looked lately.
    surveyed: BTreeSet<String>,
    pub(super) namespaces: HashMap<String, Arc<NamespaceFacts>>,
    pub(super) cluster: Arc<ClusterFacts>,
    pub(super) strangers: Strangers,
    pub(super) zones: HashMap<String, String>,
    pub(super) bindings: Bindings,
    pub(super) peers: Arc<BTreeMap<String, Peer>>,
    pub(super) defaults: Arc<AutoscalerConfig>,
    pub(super) system_namespace: String,
    pub(super) propagation: Duration,
    /// Whether we may say which pods go first.
    pub(super) sets_deletion_cost: bool,
    /// RequestAutoscalers by their scale targets, and by the Services that they want.
    pub(super) wanting: BTreeMap<ScaledName, BTreeSet<RevisionId>>,
    pub(super) sharing: HashMap<Name, BTreeSet<RevisionId>>,
    pub(super) entries: HashMap<RevisionId, WorkloadEntry>,
    /// Workloads whose rivals have come or gone.
    stirred: BTreeSet<RevisionId>,
    /// Whether every watch has told what there is. Before that nothing is shown or written: a workload whose pods are not
    /// known yet would look like one without pods.
    pub(super) is_complete: bool,
    /// Since when everything is being uninstalled.
    pub(super) uninstalling: Option<Time>,
}

/// A change of one object; `None`: it is gone.
#[derive(Clone, Debug)]
pub(crate) enum WorkloadFact {
    Autoscaler(Arc<RevisionId>, Option<Arc<AutoscalerFact>>),
    Service(Arc<Name>, Option<Arc<ServiceFact>>),
    Pod(Arc<Name>, Option<Arc<PodFact>>),
    Target(Arc<ScaledName>, Option<Arc<ScaledFact>>),
    Slice(Arc<Name>, Option<Arc<SliceFact>>),
    Hpa(Arc<Name>, Option<Arc<NamedHpa>>),
}

/// An object as a write returned it.
#[derive(Debug)]
pub(crate) enum WrittenObject {
    Autoscaler(Box<AutoscalerFact>),
    Scale(ScaleFact),
    Slice(Name, Box<SliceFact>),
}

impl Workloads {
    pub(crate) fn new(system_namespace: String, propagation: Duration, sets_deletion_cost: bool) -> Self {
        Workloads { system_namespace, propagation, sets_deletion_cost, ..Workloads::default() }
    }

    /// Every watch has told what there is.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Whether every watch has told what there is.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The workloads there are.
    pub(crate) fn ids(&self) -> Vec<RevisionId> {
        self.shared.ids().cloned().collect()
    }

    /// The cluster's defaults from now on.
    pub(crate) fn set_defaults(&mut self, defaults: Arc<AutoscalerConfig>) {
        self.defaults = defaults;
    }

    /// What is true of the whole cluster, from now on.
    pub(crate) fn set_cluster(&mut self, cluster: Arc<ClusterFacts>) {
        self.cluster = cluster;
    }

    /// What is around the workloads of a namespace is to be read anew, of all of them.
    pub(crate) fn survey_again(&mut self) {
        self.surveyed.clear();
    }

    /// Namespaces with workloads whose surroundings are to be read.
    pub(crate) fn unsurveyed(&self) -> BTreeSet<String> {
        let namespaces = self.shared.ids().map(|id| &id.namespace);
        namespaces.filter(|namespace| !self.surveyed.contains(*namespace)).cloned().collect()
    }

    /// Whether what is around the workloads of a namespace was read.
    pub(super) fn is_surveyed(&self, namespace: &str) -> bool {
        self.surveyed.contains(namespace)
    }

    /// What is around the workloads of a namespace, as it was read. HorizontalPodAutoscalers are watched. Returns the
    /// workloads of the namespace.
    pub(crate) fn set_namespace(&mut self, namespace: &str, facts: NamespaceFacts) -> BTreeSet<RevisionId> {
        let known = self.namespaces.remove(namespace).unwrap_or_default();
        let autoscalers = known.autoscalers.clone();
        // A ScaledObject that is paused keeps its HorizontalPodAutoscaler.
        let mut scaled_objects = known.scaled_objects.clone();
        scaled_objects.extend(facts.scaled_objects.clone());
        let facts = NamespaceFacts { autoscalers, scaled_objects, ..facts };
        self.namespaces.insert(namespace.to_owned(), Arc::new(facts));
        self.surveyed.insert(namespace.to_owned());
        self.shared.ids().filter(|id| id.namespace == namespace).cloned().collect()
    }

    /// The signals of workloads whose load is seen by other means than the activators.
    pub(crate) fn load_signals(&self) -> Vec<(RevisionId, LoadSignal)> {
        let signal = |(id, entry): (&RevisionId, &WorkloadEntry)| {
            let shown = entry.memory.shown.as_ref()?;
            let is_quiet = match shown.terms.way {
                Way::AtZero(AtZeroSignal::Autoscaler) => entry.memory.is_hpa_quiet,
                Way::AtZero(AtZeroSignal::Cpu) => entry.memory.is_cpu_quiet,
                _ => return None,
            };
            let replicas = self.scale_of(id)?.replicas;
            Some((id.clone(), LoadSignal { spec: Arc::clone(&shown.spec), replicas, is_quiet }))
        };
        self.entries.iter().filter_map(signal).collect()
    }

    /// The pods of workloads whose load is seen by their CPU.
    pub(crate) fn pods_by_cpu(&self) -> BTreeMap<RevisionId, Vec<String>> {
        let by_cpu = |entry: &WorkloadEntry| {
            let shown = entry.memory.shown.as_ref();
            shown.is_some_and(|shown| shown.terms.way == Way::AtZero(AtZeroSignal::Cpu))
        };
        let ids = self.entries.iter().filter(|(_, entry)| by_cpu(entry)).map(|(id, _)| id);
        let pods = ids.filter_map(|id| {
            let workload = self.shared.workload(id)?;
            let ready = workload.pods.iter().filter(|(_, pod)| pod.phase == PodPhase::Ready);
            Some((id.clone(), ready.map(|(name, _)| name.clone()).collect()))
        });
        pods.collect()
    }

    /// Whether the CPU of a workload's pods shows no load.
    pub(crate) fn set_cpu_quiet(&mut self, id: &RevisionId, is_quiet: bool) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.memory.is_cpu_quiet = is_quiet;
        }
    }

    /// The activators from now on.
    pub(crate) fn set_peers(&mut self, peers: Arc<BTreeMap<String, Peer>>) {
        self.peers = peers;
    }

    /// The table of ports from now on. Returns the workloads whose ports have changed.
    pub(crate) fn set_table(&mut self, table: Arc<PortTable>) -> BTreeSet<RevisionId> {
        let changed = self.bindings.set_table(table);
        let services = changed.iter().map(|owner| Name::new(&owner.namespace, &owner.service));
        services.flat_map(|service| self.sharing.get(&service).into_iter().flatten()).cloned().collect()
    }

    /// The table of ports.
    pub(crate) fn table(&self) -> &Arc<PortTable> {
        self.bindings.table()
    }

    /// From now on everything is put back as it was found. Returns whether that is news.
    pub(crate) fn uninstall(&mut self, now: Time) -> bool {
        let is_news = self.uninstalling.is_none();
        self.uninstalling.get_or_insert(now);
        is_news
    }

    /// Whether a RequestAutoscaler has our finalizer: there is something to restore.
    pub(crate) fn has_something_to_restore(&self) -> bool {
        let has_it = |fact: &Arc<AutoscalerFact>| fact.finalizers.iter().any(|name| name == RESTORE);
        self.shared
            .ids()
            .filter_map(|id| self.shared.workload(id))
            .any(|workload| has_it(&workload.autoscaler))
    }

    /// Every port of every Service that belongs to a workload.
    pub(crate) fn wanted_ports(&self) -> BTreeSet<PortOwner> {
        self.entries.values().flat_map(|entry| entry.ports.iter().cloned()).collect()
    }

    /// Ports that some activator could not bind.
    pub(crate) fn unbindable_ports(&self) -> BTreeSet<u16> {
        self.peers.values().flat_map(|peer| peer.unbindable.iter().copied()).collect()
    }

    /// Ports that slices of ours name, with their owners: of use where the table was lost.
    pub(crate) fn standing_ports(&self) -> Vec<(PortOwner, u16)> {
        let slices = self.slices.iter().flat_map(|(service, slices)| {
            slices.values().filter_map(Known::current).map(move |slice| (service, slice))
        });
        let ours = slices.filter(|(_, slice)| slice.kind() == SliceKind::Activators);
        ours.flat_map(|(service, slice)| {
            slice
                .ports
                .iter()
                .map(|port| (PortOwner::new(&service.namespace, &service.name, &port.name), port.number))
        })
        .collect()
    }

    /// Takes in a fact. Returns the workloads that it is about.
    pub(crate) fn learn(&mut self, now: Time, fact: WorkloadFact) -> BTreeSet<RevisionId> {
        match fact {
            WorkloadFact::Autoscaler(id, fact) => self.learn_autoscaler(&id, fact),
            WorkloadFact::Service(name, fact) => {
                self.strangers.service(&self.shared, &name, fact.as_deref());
                self.shared.learn(SharedFact::Service(name, fact))
            }
            WorkloadFact::Pod(name, fact) => {
                let services = self.strangers.pod(&name, fact.as_deref());
                let mut about = self.shared.learn(SharedFact::Pod(name, fact));
                let sharing = services.iter().filter_map(|service| self.sharing.get(service));
                about.extend(sharing.flatten().cloned());
                about
            }
            WorkloadFact::Target(name, fact) => self.learn_target(now, &name, fact),
            WorkloadFact::Slice(name, fact) => self.learn_slice(&name, fact),
            WorkloadFact::Hpa(name, fact) => self.learn_hpa(&name, fact.as_ref()),
        }
    }

    /// Takes in what a write returned. Returns the workloads that it is about.
    pub(crate) fn wrote(&mut self, id: &RevisionId, written: WrittenObject) -> BTreeSet<RevisionId> {
        match written {
            WrittenObject::Autoscaler(fact) => self.shared.wrote(id, *fact),
            WrittenObject::Scale(scale) => {
                let Some(name) = self.target_of(id) else { return BTreeSet::new() };
                match self.targets.get_mut(&name).and_then(|known| Some((known.current()?.clone(), known))) {
                    Some((current, known)) => known.written(ScaledFact { scale, ..(*current).clone() }),
                    None => {
                        if let Some(entry) = self.entries.get_mut(id) {
                            entry.set_scale(scale);
                        }
                    }
                }
            }
            WrittenObject::Slice(name, fact) => {
                let service = Name::new(&name.namespace, &fact.service);
                self.service_of_slice.insert(name.clone(), service.clone());
                let slices = self.slices.entry(service.clone()).or_default();
                slices.entry(name.name).or_default().written(*fact);
                return self.sharing.get(&service).cloned().unwrap_or_default();
            }
        }
        [id.clone()].into()
    }

    /// One of the slices that a workload's Services have is not there any more.
    pub(crate) fn deleted_slice(&mut self, name: &Name) {
        let Some(service) = self.service_of_slice.get(name) else { return };
        if let Some(known) = self.slices.get_mut(service).and_then(|slices| slices.get_mut(&name.name)) {
            known.watched(None);
        }
    }

    /// The API server says that one of the workload's objects is not there: what our own writes returned is no use.
    pub(crate) fn missing(&mut self, id: &RevisionId) {
        self.shared.missing(id);
        if let Some(known) = self.target_of(id).and_then(|name| self.targets.get_mut(&name)) {
            known.missing();
        }
    }

    /// A number of pods is about to be written; `None`: it was, or could not be.
    pub(crate) fn setting(&mut self, id: &RevisionId, pods: Option<u32>) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.setting = pods;
        }
    }

    /// The scale of a target that is not watched, and the selector of its pods.
    pub(crate) fn read_scale(&mut self, now: Time, id: &RevisionId, scale: ScaleFact, selector: String) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.read_scale(now, scale, selector);
        }
    }

    /// The Endpoints object of a Service.
    pub(crate) fn read_endpoints(&mut self, id: &RevisionId, service: &str, endpoints: EndpointsSeen) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.endpoints.insert(service.to_owned(), endpoints);
        }
    }

    /// Takes in an evaluation, and says what it calls for.
    pub(crate) fn decided(&mut self, id: &RevisionId, evaluation: &Evaluation) -> Due {
        let replicas = self.scale_of(id).map(|scale| scale.replicas);
        self.entries.get_mut(id).map(|entry| entry.decided(evaluation, replicas)).unwrap_or_default()
    }

    /// The settings by which decisions are made about a workload, and its history; `None`: none are made.
    pub(crate) fn shown(&self, id: &RevisionId) -> Option<(Arc<RevisionSpec>, Arc<History>)> {
        let shown = self.entries.get(id)?.memory.shown.as_ref()?;
        Some((Arc::clone(&shown.spec), Arc::clone(&shown.history)))
    }

    /// Workloads that decisions are made about.
    pub(crate) fn shown_count(&self) -> usize {
        self.entries.values().filter(|entry| entry.is_shown()).count()
    }

    /// The ports that a workload wants.
    pub(crate) fn ports_of(&self, id: &RevisionId) -> Option<BTreeSet<PortOwner>> {
        Some(self.entries.get(id)?.ports.clone())
    }

    /// The status of a workload was written now.
    pub(crate) fn wrote_status(&mut self, now: Time, id: &RevisionId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.memory.status_written = Some(now);
        }
    }

    /// The number of pods was changed, for this reason.
    pub(crate) fn scaled(&mut self, id: &RevisionId, last: LastDecision) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.memory.is_put_to_sleep = false;
            if let Some(shown) = &mut entry.memory.shown {
                shown.last = Some(Arc::new(last));
            }
        }
    }

    /// A pod was told to go first, or (`false`) no longer.
    pub(crate) fn costed(&mut self, id: &RevisionId, pod: &str, is_costed: bool) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        match is_costed {
            true => drop(entry.memory.costed.insert(pod.to_owned())),
            false => drop(entry.memory.costed.remove(pod)),
        }
    }

    /// Addresses in slices that Kubernetes itself has written for a Service.
    pub(crate) fn native_addresses(&self, namespace: &str, service: &str) -> BTreeSet<IpAddr> {
        let slices = self.slices.get(&Name::new(namespace, service));
        let slices = slices.into_iter().flat_map(BTreeMap::values).filter_map(Known::current);
        let native = slices.filter(|slice| slice.kind() == SliceKind::Native);
        native.flat_map(|slice| slice.endpoints.iter().map(|endpoint| endpoint.ip)).collect()
    }

    /// Everything about a workload, with its requests at the activators; `None`: it is gone, or not everything has been
    /// listed yet.
    pub(crate) fn seen(&mut self, now: Time, id: &RevisionId, activity: WorkloadActivity) -> Option<Seen> {
        if !self.is_complete {
            return None;
        }
        let Some(workload) = self.shared.workload(id) else {
            self.forget(id);
            return None;
        };
        self.claim(&workload);
        // What was accepted once goes on at once; what is new waits until it is known what is around it.
        let is_known = condition(&workload.autoscaler.status.conditions, ACCEPTED).is_some();
        if !is_known && !self.is_surveyed(&id.namespace) {
            return None;
        }
        Some(self.look(now, workload, activity))
    }

    /// Workloads whose rivals have come or gone since this was asked last.
    pub(crate) fn take_stirred(&mut self) -> BTreeSet<RevisionId> {
        std::mem::take(&mut self.stirred)
    }

    /// The name of a workload's scale target.
    pub(super) fn target_of(&self, id: &RevisionId) -> Option<ScaledName> {
        self.entries.get(id)?.target.clone()
    }

    /// The scale of a workload's target.
    pub(super) fn scale_of(&self, id: &RevisionId) -> Option<ScaleFact> {
        let entry = self.entries.get(id)?;
        let watched = self.targets.get(entry.target.as_ref()?).and_then(Known::current);
        watched.map(|fact| fact.scale.clone()).or_else(|| entry.other_scale())
    }

    fn learn_autoscaler(
        &mut self,
        id: &Arc<RevisionId>,
        fact: Option<Arc<AutoscalerFact>>,
    ) -> BTreeSet<RevisionId> {
        let mut about = self.rivals_of(id);
        match &fact {
            Some(fact) => {
                let target = fact.spec.scale_target_ref.clone();
                let name = ScaledName { namespace: id.namespace.clone(), target };
                let entry = self.entries.entry((**id).clone()).or_default();
                if entry.target.as_ref() != Some(&name) {
                    let before = entry.target.replace(name.clone());
                    self.release_target(before.as_ref(), id);
                    self.wanting.entry(name).or_default().insert((**id).clone());
                }
            }
            None => self.forget(id),
        }
        about.extend(self.shared.learn(SharedFact::Autoscaler(Arc::clone(id), fact)));
        about.extend(self.rivals_of(id));
        about
    }

    fn learn_target(
        &mut self,
        now: Time,
        name: &Arc<ScaledName>,
        fact: Option<Arc<ScaledFact>>,
    ) -> BTreeSet<RevisionId> {
        let known = self.targets.entry((**name).clone()).or_default();
        let before = known.current().map(|fact| fact.scale.replicas);
        known.watched(fact);
        let after = known.current().map(Arc::clone);
        if after.is_none() {
            self.targets.remove(&**name);
        }
        let about = self.wanting.get(&**name).cloned().unwrap_or_default();
        if let (Some(from), Some(after)) = (before, after)
            && from != after.scale.replicas
        {
            for id in &about {
                if let Some(entry) = self.entries.get_mut(id) {
                    entry.replicas_changed(now, from, &after);
                }
            }
        }
        about
    }

    fn learn_slice(&mut self, name: &Arc<Name>, fact: Option<Arc<SliceFact>>) -> BTreeSet<RevisionId> {
        let of = |fact: &Arc<SliceFact>| Name::new(&name.namespace, &fact.service);
        let (before, now) = (self.service_of_slice.get(&**name).cloned(), fact.as_ref().map(of));
        if let Some(before) = before.as_ref().filter(|before| now.as_ref() != Some(before)) {
            self.service_of_slice.remove(&**name);
            if let Some(slices) = self.slices.get_mut(before) {
                slices.remove(&name.name);
                if slices.is_empty() {
                    self.slices.remove(before);
                }
            }
        }
        if let (Some(service), Some(fact)) = (&now, fact) {
            let zoned = fact.endpoints.iter().filter(|it| !it.node.is_empty() && !it.zone.is_empty());
            for endpoint in zoned {
                if self.zones.get(&endpoint.node) != Some(&endpoint.zone) {
                    self.zones.insert(endpoint.node.clone(), endpoint.zone.clone());
                }
            }
            self.service_of_slice.insert((**name).clone(), service.clone());
            let slices = self.slices.entry(service.clone()).or_default();
            slices.entry(name.name.clone()).or_default().watched(Some(fact));
        }
        let services = before.into_iter().chain(now);
        services.flat_map(|service| self.sharing.get(&service).cloned().unwrap_or_default()).collect()
    }

    fn learn_hpa(&mut self, name: &Arc<Name>, fact: Option<&Arc<NamedHpa>>) -> BTreeSet<RevisionId> {
        let before = match fact {
            Some(fact) => self.hpas.insert((**name).clone(), Arc::clone(fact)),
            None => self.hpas.remove(&**name),
        };
        let facts = Arc::make_mut(self.namespaces.entry(name.namespace.clone()).or_default());
        if let Some(object) = before.as_ref().and_then(|before| before.scaled_object.as_ref()) {
            facts.scaled_objects.remove(object);
        }
        match fact {
            Some(fact) => {
                facts.autoscalers.insert(name.name.clone(), fact.hpa.clone());
                if let Some(object) = &fact.scaled_object {
                    let scaled = ScaledObjectFact { target: fact.hpa.target.clone(), is_paused: false };
                    facts.scaled_objects.insert(object.clone(), scaled);
                }
            }
            None => drop(facts.autoscalers.remove(&name.name)),
        }
        let targets = before.iter().chain(fact).map(|fact| fact.hpa.target.clone());
        let names = targets.map(|target| ScaledName { namespace: name.namespace.clone(), target });
        names.flat_map(|name| self.wanting.get(&name).cloned().unwrap_or_default()).collect()
    }

    /// Workloads that want the same target, or one of the same Services.
    pub(super) fn rivals_of(&self, id: &RevisionId) -> BTreeSet<RevisionId> {
        let Some(entry) = self.entries.get(id) else { return BTreeSet::new() };
        let target = entry.target.as_ref().and_then(|target| self.wanting.get(target));
        let services = entry.services.iter().filter_map(|name| self.sharing.get(name));
        let all = target.into_iter().chain(services).flatten();
        all.filter(|other| *other != id).cloned().collect()
    }

    /// Notes which Services and ports a workload wants.
    fn claim(&mut self, workload: &crate::Workload) {
        let id = &*workload.id;
        let services: BTreeSet<Name> =
            workload.services.keys().map(|name| Name::new(&id.namespace, name)).collect();
        let entry = self.entries.entry(id.clone()).or_default();
        let owner = |port: crate::WorkloadPort| PortOwner::new(&id.namespace, port.service, port.port.name);
        entry.ports = workload.ports().map(owner).collect();
        if entry.services == services {
            return;
        }
        let before = std::mem::replace(&mut entry.services, services.clone());
        let touched: Vec<Name> = before.symmetric_difference(&services).cloned().collect();
        for service in before.difference(&services) {
            remove(&mut self.sharing, service, id);
        }
        for service in services {
            self.sharing.entry(service).or_default().insert(id.clone());
        }
        let sharing = touched.iter().filter_map(|service| self.sharing.get(service)).flatten();
        self.stirred.extend(sharing.filter(|other| *other != id).cloned());
    }

    fn forget(&mut self, id: &RevisionId) {
        let Some(entry) = self.entries.remove(id) else { return };
        self.release_target(entry.target.as_ref(), id);
        for service in &entry.services {
            remove(&mut self.sharing, service, id);
        }
    }

    fn release_target(&mut self, target: Option<&ScaledName>, id: &RevisionId) {
        let Some(target) = target else { return };
        if let Some(ids) = self.wanting.get_mut(target) {
            ids.remove(id);
            if ids.is_empty() {
                self.wanting.remove(target);
            }
        }
    }
}

#[cfg(test)]
mod tests;
