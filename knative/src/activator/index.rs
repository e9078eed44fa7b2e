//! Facts about single objects in, what the activator knows of a revision out. Pure: no clock, no connection. A fact costs
//! what its revision has of pods, however many revisions there are.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pilotlight_core::{MeshMode, PodEndpoint, PodTimeline, RevisionEndpoints, RevisionId};

use super::facts::{Address, ListKey, Protocol, RevisionFacts, ServiceFacts, Side};

/// What is true of all revisions alike.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IndexParams {
    /// How pods are reached.
    pub(crate) mesh: MeshMode,
    /// Whether pods are addressed by a name through a mesh.
    pub(crate) pods_addressable_in_mesh: bool,
    /// Whether pods take requests over TLS.
    pub(crate) over_tls: bool,
    /// The address of this activator.
    pub(crate) own: Option<IpAddr>,
}

/// All that is known of all revisions.
#[derive(Debug)]
pub(crate) struct EndpointIndex {
    params: IndexParams,
    known: BTreeMap<RevisionId, KnownRevision>,
}

/// A revision as it is after a fact.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Set(RevisionId, Box<RevisionEndpoints>),
    Gone(RevisionId),
}

#[derive(Debug, Default)]
struct KnownRevision {
    /// `None`: others have spoken of it, but it is not there, not yet or not any more.
    revision: Option<Arc<RevisionFacts>>,
    /// Lists of pods, by object.
    pods: BTreeMap<String, Arc<Box<[Address]>>>,
    /// Lists of what the public Service leads to, by object.
    public: BTreeMap<String, Arc<Box<[Address]>>>,
    service: Option<Arc<ServiceFacts>>,
}

impl EndpointIndex {
    pub(crate) fn new(params: IndexParams) -> Self {
        EndpointIndex { params, known: BTreeMap::new() }
    }

    /// A revision is like this now; `None`: it is gone.
    pub(crate) fn revision(&mut self, id: &RevisionId, facts: Option<Arc<RevisionFacts>>) -> Option<Outcome> {
        self.change(id, |known| known.revision = facts)
    }

    /// A list of addresses is like this now; `None`: it is gone.
    pub(crate) fn list(&mut self, key: &ListKey, addresses: Option<Arc<Box<[Address]>>>) -> Option<Outcome> {
        self.change(&key.revision, |known| {
            let lists = match key.side {
                Side::Private => &mut known.pods,
                Side::Public => &mut known.public,
            };
            match addresses {
                Some(addresses) => drop(lists.insert(key.object.clone(), addresses)),
                None => drop(lists.remove(&key.object)),
            }
        })
    }

    /// A private Service is like this now; `None`: it is gone.
    pub(crate) fn service(&mut self, id: &RevisionId, facts: Option<Arc<ServiceFacts>>) -> Option<Outcome> {
        self.change(id, |known| known.service = facts)
    }

    fn change(&mut self, id: &RevisionId, change: impl FnOnce(&mut KnownRevision)) -> Option<Outcome> {
        let mut entry = match self.known.entry(id.clone()) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => entry.insert_entry(KnownRevision::default()),
        };
        let known = entry.get_mut();
        let was_there = known.revision.is_some();
        change(known);
        let outcome = match known.endpoints(&self.params, id) {
            Some(endpoints) => Some(Outcome::Set(id.clone(), Box::new(endpoints))),
            None => was_there.then(|| Outcome::Gone(id.clone())),
        };
        if known.is_empty() {
            entry.remove();
        }
        outcome
    }
}

impl KnownRevision {
    fn is_empty(&self) -> bool {
        let KnownRevision { revision, pods, public, service } = self;
        revision.is_none() && pods.is_empty() && public.is_empty() && service.is_none()
    }

    fn endpoints(&self, params: &IndexParams, id: &RevisionId) -> Option<RevisionEndpoints> {
        let revision = self.revision.as_deref()?;
        let service = self.service.as_deref();
        let cluster_ip = service.and_then(|service| {
            Some(SocketAddr::new(service.cluster_ip?, service.ports.of(revision.protocol)?))
        });
        let mesh_host = service.filter(|_| params.pods_addressable_in_mesh);
        let mesh_host = mesh_host.map(|service| format!("{}.{}", service.name, id.namespace));
        let (mut ready, mut not_ready) = (Vec::new(), Vec::new());
        for address in of_one_family(&self.pods, cluster_ip.map(|address| address.ip())) {
            let Some(port) = address.ports.of(revision.protocol) else { continue };
            let pod = pod(address, port, params.over_tls);
            if address.is_ready { ready.push(pod) } else { not_ready.push(pod) }
        }
        // A pod that moves from one list to another is in both for a moment: what says that it is ready counts.
        sort(&mut ready);
        sort(&mut not_ready);
        not_ready.retain(|pod| ready.binary_search_by_key(&pod.address, |ready| ready.address).is_err());
        let starting = u32::try_from(not_ready.len()).unwrap_or(u32::MAX);
        Some(RevisionEndpoints {
            hosts: Vec::new(),
            container_concurrency: revision.container_concurrency,
            timeouts: revision.timeouts,
            ready,
            not_ready,
            starting,
            trouble: None,
            // Pods that are addressed through a mesh are never given up for the ClusterIP.
            cluster_ip: cluster_ip.filter(|_| !params.pods_addressable_in_mesh),
            mesh: match params.mesh {
                MeshMode::Enabled if params.pods_addressable_in_mesh => MeshMode::Auto,
                mesh => mesh,
            },
            mesh_host,
            trust_probes: revision.trusts_probes,
            activators: self.activators(params.own, revision.protocol),
            ..RevisionEndpoints::default()
        })
    }

    /// The activators in front of the revision. Empty while the public Service leads elsewhere, as to pods: which they are
    /// is of no use then, and would be a change with each pod.
    fn activators(&self, own: Option<IpAddr>, protocol: Protocol) -> BTreeSet<IpAddr> {
        let addresses = of_one_family(&self.public, own);
        let usable = addresses.filter(|address| address.is_ready && address.ports.of(protocol).is_some());
        let activators: BTreeSet<IpAddr> = usable.map(|address| address.ip).collect();
        if own.is_some_and(|own| activators.contains(&own)) { activators } else { BTreeSet::new() }
    }
}

/// Addresses of IPv4 or of IPv6, whichever `like` is: where a cluster has both, each pod is listed once for each.
fn of_one_family(
    lists: &BTreeMap<String, Arc<Box<[Address]>>>,
    like: Option<IpAddr>,
) -> impl Iterator<Item = &Address> {
    let all = || lists.values().flat_map(|list| list.iter());
    let wants_ipv6 = match like {
        Some(ip) if all().any(|address| address.ip.is_ipv6() == ip.is_ipv6()) => ip.is_ipv6(),
        _ => all().all(|address| address.ip.is_ipv6()),
    };
    all().filter(move |address| address.ip.is_ipv6() == wants_ipv6)
}

fn pod(address: &Address, port: u16, over_tls: bool) -> PodEndpoint {
    let name = match &*address.pod {
        "" => address.ip.to_string(),
        pod => pod.to_owned(),
    };
    PodEndpoint {
        name,
        address: SocketAddr::new(address.ip, port),
        tls_address: over_tls.then(|| SocketAddr::new(address.ip, TLS_PORT)),
        ports: Arc::default(),
        timeline: PodTimeline::default(),
    }
}

fn sort(pods: &mut Vec<PodEndpoint>) {
    pods.sort_by_key(|pod| pod.address);
    pods.dedup_by_key(|pod| pod.address);
}

/// The port of every queue-proxy over TLS.
const TLS_PORT: u16 = 8112;

#[cfg(test)]
mod tests;
