//! Ready pods that Services lead to, whoever they belong to: a Service that leads to pods of another target is not a
//! workload's own. Pure.

use std::collections::{BTreeSet, HashMap};

use crate::facts::{Name, PodFact, PodPhase, ServiceFact};
use crate::index::Index;
use crate::selector::{Selector, SelectorIndex};
use crate::sets::remove;

/// The ready pods of each Service that has a selector.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    selectors: SelectorIndex<Name>,
    selector_of: HashMap<Name, Selector>,
    /// Names of ready pods by Service. No set is empty.
    ready: HashMap<Name, BTreeSet<String>>,
    services_of: HashMap<Name, BTreeSet<Name>>,
}

impl Strangers {
    /// A Service has come, changed or gone (`None`). Walks all pods if its selector is another one.
    pub(crate) fn service(&mut self, all: &Index, name: &Name, fact: Option<&ServiceFact>) {
        let selector = fact.map(|fact| fact.selector.clone()).unwrap_or_default();
        if self.selector_of.get(name).is_some_and(|before| *before == selector) {
            return;
        }
        for pod in self.ready.remove(name).unwrap_or_default() {
            remove(&mut self.services_of, &Name::new(&name.namespace, pod), name);
        }
        for (pod, fact) in all.selected(&name.namespace, &selector) {
            if fact.phase == PodPhase::Ready {
                self.ready.entry(name.clone()).or_default().insert(pod.name.clone());
                self.services_of.entry(pod.clone()).or_default().insert(name.clone());
            }
        }
        self.selectors.set(name.clone(), &name.namespace, selector.clone());
        match selector.is_empty() {
            true => self.selector_of.remove(name),
            false => self.selector_of.insert(name.clone(), selector),
        };
    }

    /// A pod has come, changed or gone (`None`). Returns the Services that lead to it now and did not before, or the other
    /// way round.
    pub(crate) fn pod(&mut self, name: &Name, fact: Option<&PodFact>) -> BTreeSet<Name> {
        let ready = fact.filter(|fact| fact.phase == PodPhase::Ready);
        let services = ready.map(|fact| self.selectors.selecting(&name.namespace, &fact.labels));
        let now = services.unwrap_or_default();
        let before = self.services_of.get(name).cloned().unwrap_or_default();
        for service in before.difference(&now) {
            remove(&mut self.ready, service, &name.name);
            remove(&mut self.services_of, name, service);
        }
        for service in now.difference(&before) {
            self.ready.entry(service.clone()).or_default().insert(name.name.clone());
            self.services_of.entry(name.clone()).or_default().insert(service.clone());
        }
        now.symmetric_difference(&before).cloned().collect()
    }

    /// The ready pods that a Service leads to.
    pub(crate) fn ready_pods(&self, service: &Name) -> impl Iterator<Item = &String> {
        self.ready.get(service).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::index::Fact;
    use crate::leader::pretend::{labelled, service};

    #[test]
    fn a_service_has_the_ready_pods_that_it_selects_whoever_comes_first() {
        let (web, pod) = (Name::new("shop", "web"), Name::new("shop", "web-1"));
        let ready = labelled("web-1", &[("app", "web")], PodPhase::Ready);
        for service_is_first in [true, false] {
            let (mut strangers, mut all) = (Strangers::default(), Index::default());
            let add_pod = |strangers: &mut Strangers, all: &mut Index| {
                all.learn(Fact::Pod(Arc::new(pod.clone()), Some(Arc::clone(&ready))));
                strangers.pod(&pod, Some(&ready));
            };
            if !service_is_first {
                add_pod(&mut strangers, &mut all);
            }
            strangers.service(&all, &web, Some(&service("web")));
            if service_is_first {
                add_pod(&mut strangers, &mut all);
            }
            assert_eq!(strangers.ready_pods(&web).collect::<Vec<_>>(), ["web-1"]);
            let starting = labelled("web-1", &[("app", "web")], PodPhase::Starting);
            assert_eq!(strangers.pod(&pod, Some(&starting)), [web.clone()].into());
            assert_eq!(strangers.ready_pods(&web).count(), 0);
        }
    }
}
