//! The objects that belong to each RequestAutoscaler, kept up to date one fact at a time. Pure.
//!
//! A change costs the same however many others there are: pods and Services find their RequestAutoscalers by a label that
//! selects them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use pilotlight_core::RevisionId;
use pilotlight_kubernetes::known::Known;

use crate::Workload;
use crate::facts::{AutoscalerFact, Name, PodFact, ServiceFact};
use crate::selector::{Selector, SelectorIndex};

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
    /// RequestAutoscalers of each namespace that name no Service, and take those that select their pods.
    taking: HashMap<String, BTreeSet<RevisionId>>,
    /// Names of Services by namespace.
    services_in: HashMap<String, BTreeSet<String>>,
}

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
        })
    }

    /// Services that are named; if none is, those with an address whose selector is part of the target's, or selects one of
    /// its pods.
    fn services_of(
        &self,
        id: &RevisionId,
        entry: &Entry,
        pods: &BTreeMap<String, Arc<PodFact>>,
    ) -> BTreeMap<String, Arc<ServiceFact>> {
        let fact = |name: &String| {
            let service = self.service(&Name::new(&id.namespace, name))?;
            Some((name.clone(), Arc::clone(service)))
        };
        if !entry.named.is_empty() {
            return entry.named.iter().filter_map(fact).collect();
        }
        let leads_here = |(_, service): &(String, Arc<ServiceFact>)| {
            let selects = |selector: &Selector| {
                selector.is_within(&entry.selector) || pods.values().any(|pod| selector.selects(&pod.labels))
            };
            !service.is_headless() && !service.is_external_name && service.pod_selector().is_some_and(selects)
        };
        let all = self.services_in.get(&id.namespace).into_iter().flatten();
        all.filter_map(fact).filter(leads_here).collect()
    }

    fn learn_service(&mut self, name: &Name, fact: Option<Arc<ServiceFact>>) -> BTreeSet<RevisionId> {
        match fact {
            Some(fact) => {
                insert(&mut self.services_in, &name.namespace, name.name.clone());
                self.services.insert(name.clone(), fact);
            }
            None => {
                remove(&mut self.services_in, &name.namespace, &name.name);
                self.services.remove(name);
            }
        }
        let naming = self.naming.get(name).into_iter().flatten();
        let taking = self.taking.get(&name.namespace).into_iter().flatten();
        naming.chain(taking).cloned().collect()
    }

    fn learn_pod(&mut self, name: &Name, fact: Option<Arc<PodFact>>) -> BTreeSet<RevisionId> {
        let owners = |fact: Option<&Arc<PodFact>>| {
            fact.map(|fact| self.targets.selecting(&name.namespace, &fact.labels)).unwrap_or_default()
        };
        let (before, now) = (owners(self.pods.get(name)), owners(fact.as_ref()));
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
        let has_moved = entry.selector != selector;
        let before = std::mem::replace(&mut entry.named, named.clone());
        entry.selector.clone_from(&selector);

        for service in before.difference(&named) {
            remove(&mut self.naming, &Name::new(&id.namespace, service), id);
        }
        for service in &named {
            insert(&mut self.naming, &Name::new(&id.namespace, service), id.clone());
        }
        match current.is_some() && named.is_empty() {
            true => insert(&mut self.taking, &id.namespace, id.clone()),
            false => remove(&mut self.taking, &id.namespace, id),
        }
        if has_moved {
            // A walk over all pods, as seldom as a target gets another selector.
            let pods = self.selected(&id.namespace, &selector);
            let pods: BTreeSet<String> = pods.into_iter().map(|(name, _)| name.name.clone()).collect();
            match pods.is_empty() {
                true => self.pods_of.remove(id),
                false => self.pods_of.insert(id.clone(), pods),
            };
            self.targets.set(id.clone(), &id.namespace, selector);
        }
        if current.is_none() {
            self.autoscalers.remove(id);
        }
    }
}

fn insert<A: Clone + Eq + Hash, K: Ord>(sets: &mut HashMap<A, BTreeSet<K>>, at: &A, key: K) {
    match sets.get_mut(at) {
        Some(set) => set.insert(key),
        None => sets.entry(at.clone()).or_default().insert(key),
    };
}

/// Removes a member; no set stays empty.
pub(crate) fn remove<A: Eq + Hash, K: Ord + std::borrow::Borrow<Q>, Q: Ord + ?Sized>(
    sets: &mut HashMap<A, BTreeSet<K>>,
    at: &A,
    key: &Q,
) {
    let Some(set) = sets.get_mut(at) else { return };
    set.remove(key);
    if set.is_empty() {
        sets.remove(at);
    }
}

#[cfg(test)]
mod tests;
