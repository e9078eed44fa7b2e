//! Destinations of a revision's requests: pods, as this activator sends to them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;
use parking_lot::Mutex;
use pilotlight_core::backends::Destinations;
use pilotlight_core::balance::{Capacity, Refusals, pod_owner, revision_capacity, share_of_pods};
use pilotlight_core::{Place, PodEndpoint, PodSharing, PodTimeline, RevisionEndpoints};

/// A destination of requests: one pod, or the ClusterIP in place of all pods.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) tls_address: Option<SocketAddr>,
    /// The port for requests of each named port of the revision.
    ports: Arc<BTreeMap<String, u16>>,
    /// Whether this is the ClusterIP.
    pub(crate) is_cluster_ip: bool,
    /// The value of the `Host` header: the address, or the name by which a mesh knows the pods.
    pub(crate) host: HeaderValue,
    /// Whether `host` is a name for a mesh.
    pub(crate) is_in_mesh: bool,
    pub(crate) timeline: PodTimeline,
    /// The activator that the pod belongs to, if that is another one: it is sent the pod's requests.
    pub(crate) owner: Option<IpAddr>,
    pub(crate) refusals: Mutex<Refusals>,
}

impl From<&PodEndpoint> for Pod {
    fn from(pod: &PodEndpoint) -> Self {
        let PodEndpoint { name, address, tls_address, ports, timeline } = pod.clone();
        // An address is always a legal header value.
        let host = HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("pod"));
        let (is_cluster_ip, is_in_mesh, owner, refusals) = (false, false, None, Mutex::default());
        Pod { name, address, tls_address, ports, is_cluster_ip, host, is_in_mesh, timeline, owner, refusals }
    }
}

/// The named port of a revision, `SERVICE/PORTNAME`, that a request came in at; `None`: a port that all revisions share.
pub(crate) type PortName = Option<Arc<str>>;

impl Pod {
    /// The address for requests that came in at this port of the revision, which has the same number, `listening`, in all
    /// activators.
    pub(crate) fn address_for(&self, port: &PortName, listening: u16) -> SocketAddr {
        if let Some(owner) = self.owner {
            return SocketAddr::new(owner, listening);
        }
        let own = port.as_deref().and_then(|port| self.ports.get(port));
        own.map_or(self.address, |own| SocketAddr::new(self.address.ip(), *own))
    }

    /// Whether the pod can be sent requests that came in at this port.
    pub(crate) fn serves(&self, port: &PortName) -> bool {
        match port {
            // A port that all revisions share does not tell the owner whose a request is.
            None => self.owner.is_none(),
            Some(port) => self.ports.contains_key(&**port),
        }
    }
}

/// Two descriptions of the same pod. Its ports or its owner may change, and its requests in flight are still its own.
impl PartialEq for Pod {
    fn eq(&self, other: &Pod) -> bool {
        let (one, two) = (self, other);
        (one.address, one.tls_address, &one.name, &one.host)
            == (two.address, two.tls_address, &two.name, &two.host)
    }
}

/// The pods of a revision, and this activator's place among those that share them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supply<'a> {
    pub(crate) endpoints: &'a RevisionEndpoints,
    pub(crate) destinations: &'a Destinations,
    pub(crate) place: Place,
    /// The activator's own address, if it is known.
    pub(crate) own: Option<IpAddr>,
}

impl Supply<'_> {
    fn pod(&self, listed: &PodEndpoint) -> Pod {
        let host = self.endpoints.mesh_host.as_deref().and_then(|host| HeaderValue::try_from(host).ok());
        match host {
            Some(host) => Pod { host, is_in_mesh: true, ..Pod::from(listed) },
            None => Pod::from(listed),
        }
    }

    /// The limit of each pod, and the pods.
    pub(crate) fn pods(&self) -> (Option<u32>, Vec<Arc<Pod>>) {
        let concurrency = self.endpoints.container_concurrency;
        let limit = concurrency.get();
        match self.destinations {
            Destinations::Pods(usable) => {
                let usable = self.endpoints.pods().filter(|pod| usable.contains(&pod.address));
                let mut pods: Vec<(String, &PodEndpoint)> =
                    usable.map(|pod| (pod.address.to_string(), pod)).collect();
                // Order of the addresses as text, as in Knative (assignSlice in pkg/activator/net/throttler.go): all
                // activators pack the same pods first.
                pods.sort_by(|(one, _), (other, _)| one.cmp(other));
                // A pod that is listed twice is one pod with one limit.
                pods.dedup_by(|(one, _), (other, _)| one == other);
                let pods = match (self.endpoints.sharing, self.own) {
                    (PodSharing::Owned, Some(own)) if limit.is_some() => {
                        self.owned(own, pods.into_iter().map(|(_, pod)| pod))
                    }
                    _ => {
                        let mine = share_of_pods(pods.len(), limit, self.place);
                        mine.into_iter().map(|i| self.pod(pods[i].1)).collect()
                    }
                };
                (limit, pods.into_iter().map(Arc::new).collect())
            }
            Destinations::ClusterIp { address, ready } => {
                let pod = PodEndpoint {
                    name: CLUSTER_IP.to_owned(),
                    address: *address,
                    tls_address: None,
                    ports: Arc::default(),
                    timeline: PodTimeline::default(),
                };
                let pod = Pod { is_cluster_ip: true, ..Pod::from(&pod) };
                match revision_capacity(concurrency, 0, *ready, self.place.activators) {
                    Capacity::Limited(0) => (None, Vec::new()),
                    Capacity::Limited(limit) => (Some(limit), vec![Arc::new(pod)]),
                    Capacity::Unlimited => (None, vec![Arc::new(pod)]),
                }
            }
        }
    }

    /// The pods that belong to this activator, or, if none does, those of others.
    fn owned<'p>(&self, own: IpAddr, pods: impl Iterator<Item = &'p PodEndpoint>) -> Vec<Pod> {
        let owner = |pod: &PodEndpoint| pod_owner(pod.address, &self.endpoints.activators);
        let pods = pods.filter_map(|pod| Some((owner(pod)?, pod)));
        let (mine, others): (Vec<_>, Vec<_>) = pods.partition(|(owner, _)| *owner == own);
        if !mine.is_empty() {
            return mine.into_iter().map(|(_, pod)| self.pod(pod)).collect();
        }
        others.into_iter().map(|(owner, pod)| Pod { owner: Some(owner), ..self.pod(pod) }).collect()
    }
}

/// The ClusterIP's name among the names of pods.
const CLUSTER_IP: &str = "cluster-ip";
