//! The objects that belong to each RequestAutoscaler, kept up to date one fact at a time. Pure.
//!
//! A change costs the same however many others there are: pods, Services and RequestAutoscalers find each other by labels.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use pilotlight_core::RevisionId;
use pilotlight_kubernetes::known::Known;

use crate::Workload;
use crate::facts::{AutoscalerFact, Name, PodFact, ServiceFact};
use crate::selector::{Selector, SelectorIndex};
use crate::sets::{insert, remove};

/// All RequestAutoscalers with what belongs to them.
#[derive(Debug, Default)]
pub struct Index {
    autoscalers: HashMap<RevisionId, Entry>,
    services: HashMap<Name, Arc<ServiceFact>>,
    pods: HashMap<Name, Arc<PodFact>>,
    /// Selectors of the targets: which RequestAutoscaler a pod belongs to.
    targets: SelectorIndex<RevisionId>,
    /// Names of pods by RequestAutoscaler. No set is empty.
    pods_of: HashMap<RevisionId, BTreeSet<String>>,
    /// RequestAutoscalers that name a Service.
    naming: HashMap<Name, BTreeSet<RevisionId>>,
    /// Selectors of Services: which Services a pod belongs to.
    leading: SelectorIndex<Name>,
    /// RequestAutoscalers by the labels of their targets' selectors and of their pods, each with how often it has the label.
    /// No map is empty.
    labelled: HashMap<Label, BTreeMap<RevisionId, u32>>,
}

/// Namespace, key and value of a label.
type Label = (String, String, String);

#[derive(Debug, Default)]
struct Entry {
    known: Known<AutoscalerFact>,
    selector: Selector,
    named: BTreeSet<String>,
}

/// One thing that was watched. `None`: it is gone.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A RequestAutoscaler.
    Autoscaler(Arc<RevisionId>, Option<Arc<AutoscalerFact>>),
    /// A Service.
    Service(Arc<Name>, Option<Arc<ServiceFact>>),
    /// A pod.
    Pod(Arc<Name>, Option<Arc<PodFact>>),
}

impl Index {
    /// Takes in a fact. Returns the RequestAutoscalers that it is about.
    pub fn learn(&mut self, fact: Fact) -> BTreeSet<RevisionId> {
        match fact {
            Fact::Autoscaler(id, fact) => {
                self.autoscalers.entry((*id).clone()).or_default().known.watched(fact);
                self.settle(&id);
                [(*id).clone()].into()
            }
            Fact::Service(name, fact) => self.learn_service(&name, fact),
            Fact::Pod(name, fact) => self.learn_pod(&name, fact),
        }
    }

    /// Takes in what a write to a RequestAutoscaler returned.
    pub fn wrote(&mut self, id: &RevisionId, fact: AutoscalerFact) {
        if let Some(entry) = self.autoscalers.get_mut(id) {
            entry.known.written(fact);
            self.settle(id);
        }
    }

    /// The API server says that there is no such RequestAutoscaler.
    pub fn missing(&mut self, id: &RevisionId) {
        if let Some(entry) = self.autoscalers.get_mut(id) {
            entry.known.missing();
            self.settle(id);
        }
    }

    /// Every RequestAutoscaler, in no order.
    pub fn ids(&self) -> impl Iterator<Item = &RevisionId> {
        self.autoscalers.keys()
    }

    /// A Service, whoever it belongs to.
    pub fn service(&self, name: &Name) -> Option<&Arc<ServiceFact>> {
        self.services.get(name)
    }

    /// The pods of a namespace that a selector selects, whoever they belong to. Walks all pods.
    pub fn selected(&self, namespace: &str, selector: &Selector) -> Vec<(&Name, &Arc<PodFact>)> {
        let selects = |(name, pod): &(&Name, &Arc<PodFact>)| {
            name.namespace == namespace && selector.selects(&pod.labels)
        };
        self.pods.iter().filter(selects).collect()
    }

    /// A RequestAutoscaler with everything that belongs to it; `None`: there is no such one.
    pub fn workload(&self, id: &RevisionId) -> Option<Workload> {
        let (id, entry) = self.autoscalers.get_key_value(id)?;
        let pods = self.pods_of.get(id).into_iter().flatten();
        let pod = |name: &String| {
            let fact = self.pods.get(&Name::new(&id.namespace, name))?;
            Some((name.clone(), Arc::clone(fact)))
        };
        let pods: BTreeMap<_, _> = pods.filter_map(pod).collect();
        Some(Workload {
            id: Arc::new(id.clone()),
            autoscaler: Arc::clone(entry.known.current()?),
            services: self.services_of(id, entry, &pods),
            pods,
            former: Vec::new(),
        })
    }

    /// Services that are named; if none is, those with an address that select the target's labels, or one of its pods.
    fn services_of(
        &self,
        id: &RevisionId,
        entry: &Entry,
        pods: &BTreeMap<String, Arc<PodFact>>,
    ) -> BTreeMap<String, Arc<ServiceFact>> {
        let fact = |name: String| {
            let service = self.service(&Name::new(&id.namespace, &name))?;
            Some((name, Arc::clone(service)))
        };
        if !entry.named.is_empty() {
            return entry.named.iter().cloned().filter_map(fact).collect();
        }
        let target = entry.selector.labels();
        // Pods of one template have the same labels.
        let different: BTreeSet<_> = pods.values().map(|pod| &*pod.labels).chain([&target]).collect();
        let leading = different.into_iter().flat_map(|labels| self.leading.selecting(&id.namespace, labels));
        let has_address =
            |(_, service): &(_, Arc<ServiceFact>)| !service.is_headless() && !service.is_external_name;
        leading.filter_map(|name| fact(name.name)).filter(has_address).collect()
    }

    fn learn_service(&mut self, name: &Name, fact: Option<Arc<ServiceFact>>) -> BTreeSet<RevisionId> {
        let mut touched: BTreeSet<_> = self.naming.get(name).into_iter().flatten().cloned().collect();
        touched.extend(self.taking(name));
        let selector = fact.as_ref().and_then(|fact| fact.pod_selector().cloned()).unwrap_or_default();
        self.leading.set(name.clone(), &name.namespace, selector);
        match fact {
            Some(fact) => self.services.insert(name.clone(), fact),
            None => self.services.remove(name),
        };
        touched.extend(self.taking(name));
        touched
    }

    /// RequestAutoscalers that name no Service and have a label which this one asks for: more than those that it leads to, and
    /// few.
    fn taking(&self, service: &Name) -> Vec<RevisionId> {
        let labels = self.leading.get(service).map(Selector::labels).unwrap_or_default();
        let label = |(key, value)| (service.namespace.clone(), key, value);
        let having = labels.into_iter().map(|pair| self.labelled.get(&label(pair)));
        let fewest = having.min_by_key(|having| having.map_or(0, BTreeMap::len)).flatten();
        let names_none =
            |id: &&RevisionId| self.autoscalers.get(*id).is_some_and(|entry| entry.named.is_empty());
        fewest.into_iter().flat_map(BTreeMap::keys).filter(names_none).cloned().collect()
    }

    fn learn_pod(&mut self, name: &Name, fact: Option<Arc<PodFact>>) -> BTreeSet<RevisionId> {
        let owners = |fact: Option<&Arc<PodFact>>| {
            fact.map(|fact| self.targets.selecting(&name.namespace, &fact.labels)).unwrap_or_default()
        };
        let (before, now) = (owners(self.pods.get(name)), owners(fact.as_ref()));
        let labels = |fact: Option<&Arc<PodFact>>| fact.map(|fact| Arc::clone(&fact.labels));
        let (labels_before, labels_now) = (labels(self.pods.get(name)), labels(fact.as_ref()));
        match fact {
            Some(fact) => self.pods.insert(name.clone(), fact),
            None => self.pods.remove(name),
        };
        for owner in before.difference(&now) {
            remove(&mut self.pods_of, owner, &name.name);
        }
        for owner in &now {
            insert(&mut self.pods_of, owner, name.name.clone());
        }
        for (owners, labels, is_more) in [(&before, labels_before, false), (&now, labels_now, true)] {
            let Some(labels) = labels else { continue };
            owners.iter().for_each(|owner| count(&mut self.labelled, owner, &labels, is_more));
        }
        before.union(&now).cloned().collect()
    }

    /// Brings what is derived from a RequestAutoscaler up to date.
    fn settle(&mut self, id: &RevisionId) {
        let Some(entry) = self.autoscalers.get_mut(id) else { return };
        let current = entry.known.current().map(Arc::clone);
        let selector = current.as_ref().and_then(|fact| Selector::parse(&fact.status.selector).ok());
        let selector = selector.unwrap_or_default();
        let services = current.iter().flat_map(|fact| &fact.spec.services);
        let named: BTreeSet<String> = services.map(|service| service.name.clone()).collect();
        let before = std::mem::replace(&mut entry.named, named.clone());
        let selector_before = std::mem::replace(&mut entry.selector, selector.clone());
        let has_moved = selector_before != selector;

        for service in before.difference(&named) {
            remove(&mut self.naming, &Name::new(&id.namespace, service), id);
        }
        for service in &named {
            insert(&mut self.naming, &Name::new(&id.namespace, service), id.clone());
        }
        if has_moved {
            self.move_to(id, &selector_before, selector);
        }
        if current.is_none() {
            self.autoscalers.remove(id);
        }
    }

    /// Gives a RequestAutoscaler the pods of another selector. A walk over all pods, as seldom as a target gets another one.
    fn move_to(&mut self, id: &RevisionId, before: &Selector, selector: Selector) {
        let namespace = &id.namespace;
        count(&mut self.labelled, id, &before.labels(), false);
        for pod in self.pods_of.remove(id).into_iter().flatten() {
            if let Some(pod) = self.pods.get(&Name::new(namespace, pod)) {
                count(&mut self.labelled, id, &pod.labels, false);
            }
        }
        let selected = self.selected(namespace, &selector);
        let selected: Vec<_> =
            selected.into_iter().map(|(name, pod)| (name.name.clone(), Arc::clone(&pod.labels))).collect();
        count(&mut self.labelled, id, &selector.labels(), true);
        for (name, labels) in selected {
            count(&mut self.labelled, id, &labels, true);
            insert(&mut self.pods_of, id, name);
        }
        self.targets.set(id.clone(), namespace, selector);
    }
}

/// Counts labels of a RequestAutoscaler once more, or once less.
fn count(
    labelled: &mut HashMap<Label, BTreeMap<RevisionId, u32>>,
    id: &RevisionId,
    labels: &BTreeMap<String, String>,
    is_more: bool,
) {
    for (key, value) in labels {
        let label = (id.namespace.clone(), key.clone(), value.clone());
        if is_more {
            *labelled.entry(label).or_default().entry(id.clone()).or_default() += 1;
            continue;
        }
        let Some(having) = labelled.get_mut(&label) else { continue };
        let left = having.get_mut(id).map(|times| {
            *times -= 1;
            *times
        });
        if left == Some(0) {
            having.remove(id);
        }
        if having.is_empty() {
            labelled.remove(&label);
        }
    }
}

#[cfg(test)]
mod tests;
