//! What an activator knows of the cluster, kept up to date one fact at a time, and what it does with it: endpoints, uses of
//! ports, workloads that sleep. Pure but for the feeds that it fills. A fact costs what its workload has, however many
//! workloads there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use pilotlight_activator::PortIdentity;
use pilotlight_config::AutoscalerConfig;
use pilotlight_core::{RevisionEndpoints, RevisionId};
use pilotlight_feed::Feed;
use pilotlight_kubernetes::knative::TargetRef;
use tokio::sync::watch;
use tracing::debug;

use super::book::PortUse;
use super::endpoints::{endpoints, is_awake};
use super::rules::Rules;
use crate::crd::Mode;
use crate::facts::{AutoscalerFact, Name, ServiceFact};
use crate::index::{Fact, Index};
use crate::ports::PortTable;
use crate::sets::remove;
use crate::settings::accept;
use crate::{Workload, WorkloadPort};

/// The things that follow from what is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Outputs {
    /// Pods of each workload.
    pub(super) endpoints: Feed<RevisionId, RevisionEndpoints>,
    /// Uses of the ports of the table.
    pub(super) ports: Feed<u16, PortUse>,
    /// Workloads without pods.
    pub(super) sleepers: Feed<RevisionId, Sleeper>,
    /// The version of the table whose ports are in `ports`.
    pub(super) table: watch::Sender<String>,
}

/// A workload without pods, which a request may wake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sleeper {
    /// The object that is scaled.
    pub(super) target: TargetRef,
    /// The pods that it is to ask for.
    pub(super) pods: u32,
}

/// All that is known.
#[derive(Debug)]
pub(super) struct View {
    own: IpAddr,
    out: Outputs,
    config: AutoscalerConfig,
    activators: BTreeMap<Name, IpAddr>,
    index: Index,
    known: HashMap<RevisionId, KnownWorkload>,
    /// Workloads that count a Service's traffic: of several, the oldest does. No set is empty.
    claims: HashMap<Name, BTreeSet<Claim>>,
    table: Arc<PortTable>,
    /// Ports of the table by Service, with the names of the Service's ports. No map is empty.
    ports: HashMap<Name, BTreeMap<u16, String>>,
}

/// A workload that counts a Service's traffic, with the time when it was created.
type Claim = (i64, RevisionId);

/// A workload as it was settled last.
#[derive(Debug)]
struct KnownWorkload {
    autoscaler: Arc<AutoscalerFact>,
    services: BTreeMap<String, Arc<ServiceFact>>,
    rules: Rules,
    /// Ports that its Services had before, the latest last.
    former: Vec<WorkloadPort>,
}

impl View {
    /// Knows nothing yet. `own` is the address of this activator.
    pub(super) fn new(own: IpAddr, out: Outputs) -> Self {
        View {
            own,
            out,
            config: AutoscalerConfig::default(),
            activators: BTreeMap::new(),
            index: Index::default(),
            known: HashMap::new(),
            claims: HashMap::new(),
            table: Arc::default(),
            ports: HashMap::new(),
        }
    }

    /// Takes in a fact. Returns the workloads to [settle](View::settle).
    pub(super) fn learn(&mut self, fact: Fact) -> BTreeSet<RevisionId> {
        self.index.learn(fact)
    }

    /// An activator is ready at this address; `None`: it is not, or is gone. Returns the workloads to settle.
    pub(super) fn activator(&mut self, name: &Name, ip: Option<IpAddr>) -> BTreeSet<RevisionId> {
        let before = match ip {
            Some(ip) => self.activators.insert(name.clone(), ip),
            None => self.activators.remove(name),
        };
        if before == ip {
            return BTreeSet::new();
        }
        let sharing = self.known.iter().filter(|(_, known)| known.rules.limit.get().is_some());
        sharing.map(|(id, _)| id.clone()).collect()
    }

    /// The cluster's defaults are these. Returns the workloads to settle.
    pub(super) fn config(&mut self, config: AutoscalerConfig) -> BTreeSet<RevisionId> {
        if config == self.config {
            return BTreeSet::new();
        }
        self.config = config;
        for (id, known) in &mut self.known {
            if let Some(workload) = self.index.workload(id) {
                known.rules = rules(&workload, &self.config, Some(&known.rules));
            }
        }
        self.known.keys().cloned().collect()
    }

    /// The table of ports is this one.
    pub(super) fn table(&mut self, table: Arc<PortTable>) {
        let before = std::mem::replace(&mut self.table, table);
        let table = Arc::clone(&self.table);
        for (owner, port) in before.entries().filter(|(owner, port)| table.owner(*port) != Some(owner)) {
            let service = Name::new(&owner.namespace, &owner.service);
            if let Some(ports) = self.ports.get_mut(&service) {
                ports.remove(&port);
                if ports.is_empty() {
                    self.ports.remove(&service);
                }
            }
            if table.owner(port).is_none() {
                self.out.ports.remove(&port);
            }
        }
        for (owner, port) in table.entries().filter(|(owner, port)| before.owner(*port) != Some(owner)) {
            let service = Name::new(&owner.namespace, &owner.service);
            if !self.use_port(&service, port, &owner.port) {
                self.out.ports.set(port, PortUse::default());
            }
            self.ports.entry(service).or_default().insert(port, owner.port.clone());
        }
        self.out.table.send_replace(table.version().to_owned());
    }

    /// Tells what follows from the facts about a workload.
    pub(super) fn settle(&mut self, id: &RevisionId) {
        let before = self.known.remove(id);
        let Some(mut workload) = self.index.workload(id) else {
            if let Some(before) = before {
                let released = before.claims();
                self.claim(id, &released, &Claims::default());
                self.out.endpoints.remove(id);
                self.out.sleepers.remove(id);
                self.use_ports_of(&id.namespace, released.services);
            }
            return;
        };
        let is_same = before.as_ref().is_some_and(|before| before.is_of(&workload));
        let claimed = before.as_ref().map(KnownWorkload::claims).unwrap_or_default();
        let known = match before {
            Some(before) if is_same => before,
            before => KnownWorkload::of(&workload, &self.config, before.as_ref()),
        };
        workload.former.clone_from(&known.former);
        let activators: BTreeSet<IpAddr> = self.activators.values().copied().collect();
        self.out.endpoints.set(id.clone(), endpoints(&workload, &known.rules, &activators, self.own));
        match known.sleeper(&workload) {
            Some(sleeper) => drop(self.out.sleepers.set(id.clone(), sleeper)),
            None => drop(self.out.sleepers.remove(id)),
        }
        let claims = known.claims();
        self.known.insert(id.clone(), known);
        if !is_same {
            self.claim(id, &claimed, &claims);
            self.use_ports_of(&id.namespace, claimed.services.union(&claims.services).cloned().collect());
        }
    }

    /// A workload counts the traffic of other Services than before.
    fn claim(&mut self, id: &RevisionId, before: &Claims, now: &Claims) {
        for service in &before.services {
            remove(&mut self.claims, &Name::new(&id.namespace, service), &(before.created, id.clone()));
        }
        for service in &now.services {
            let claims = self.claims.entry(Name::new(&id.namespace, service)).or_default();
            claims.insert((now.created, id.clone()));
        }
    }

    /// Tells the uses of all ports of some Services.
    fn use_ports_of(&self, namespace: &str, services: BTreeSet<String>) {
        for service in services {
            let service = Name::new(namespace, service);
            for (port, name) in self.ports.get(&service).into_iter().flatten() {
                self.use_port(&service, *port, name);
            }
        }
    }

    /// Tells the use of a port. False, and it stays as it is: no workload that is known counts the Service's traffic.
    fn use_port(&self, service: &Name, port: u16, name: &str) -> bool {
        let claims = self.claims.get(service).and_then(BTreeSet::first);
        let claimant = claims.and_then(|(_, id)| Some((id, self.known.get(id)?)));
        let Some((id, known)) = claimant else { return false };
        let fact = known.services.get(&service.name);
        let fact = fact.and_then(|fact| fact.ports.iter().find(|port| port.name == name));
        let settings = match (fact, self.out.ports.get(&port)) {
            (Some(fact), _) => Arc::new(known.rules.port(fact)),
            // The Service is gone or lacks the port, not yet or not any more.
            (None, Some(before)) => Arc::clone(&before.settings),
            (None, None) => Arc::default(),
        };
        let identity = PortIdentity { revision: id.clone(), port: format!("{}/{name}", service.name) };
        self.out.ports.set(port, PortUse { identity: Some(identity), settings });
        true
    }
}

/// The Services whose traffic a workload counts, and when the workload was created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Claims {
    created: i64,
    services: BTreeSet<String>,
}

impl KnownWorkload {
    fn of(workload: &Workload, config: &AutoscalerConfig, before: Option<&KnownWorkload>) -> Self {
        KnownWorkload {
            autoscaler: Arc::clone(&workload.autoscaler),
            services: workload.services.clone(),
            rules: rules(workload, config, before.map(|before| &before.rules)),
            former: before.map(|before| before.former_in(workload)).unwrap_or_default(),
        }
    }

    /// Ports that this one had, and that a newer state of the workload lacks. A proxy may lead connections to them for a while.
    fn former_in(&self, workload: &Workload) -> Vec<WorkloadPort> {
        let now: BTreeSet<String> = workload.ports().map(|port| port.key()).collect();
        let own = Workload { services: self.services.clone(), ..workload.clone() };
        let mut former: Vec<WorkloadPort> = self.former.clone();
        for port in own.ports() {
            former.retain(|other| other.key() != port.key());
            former.push(port);
        }
        former.retain(|port| !now.contains(&port.key()));
        former.split_off(former.len().saturating_sub(MOST_FORMER))
    }

    /// Whether a workload differs from this one in its pods at most.
    fn is_of(&self, workload: &Workload) -> bool {
        let services = self.services.iter().zip(&workload.services);
        Arc::ptr_eq(&self.autoscaler, &workload.autoscaler)
            && self.services.len() == workload.services.len()
            && services.into_iter().all(|((one, fact), (other, now))| one == other && Arc::ptr_eq(fact, now))
    }

    /// Services that are named, and those that were found.
    fn claims(&self) -> Claims {
        let named = self.autoscaler.spec.services.iter().map(|service| &service.name);
        let services = named.chain(self.services.keys()).cloned().collect();
        Claims { created: self.autoscaler.created, services }
    }

    fn sleeper(&self, workload: &Workload) -> Option<Sleeper> {
        let spec = &self.autoscaler.spec;
        let sleeps = spec.mode == Mode::Act && !is_awake(workload);
        sleeps.then(|| Sleeper { target: TargetRef::from(&spec.scale_target_ref), pods: self.rules.wakes_to })
    }
}

/// The settings of a workload. Those that are not accepted leave the ones before in force; the controller says why.
fn rules(workload: &Workload, config: &AutoscalerConfig, before: Option<&Rules>) -> Rules {
    // Annotations of the target say nothing about requests, but for a wake, which the controller sees to as a rule.
    match accept(workload, &BTreeMap::new(), config) {
        Ok(accepted) => Rules::of(&accepted),
        Err(faults) => {
            debug!(workload = %workload.id, faults = faults.join("; "), "Settings are not accepted");
            before.cloned().unwrap_or_default()
        }
    }
}

/// Former ports of one workload that are remembered.
const MOST_FORMER: usize = 16;

#[cfg(test)]
mod tests;
