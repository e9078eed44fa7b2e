//! Pools of connections to pods: in the clear, or over TLS to pods whose certificates prove their namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_core::{PodEndpoint, RevisionEndpoints};
use pilotlight_net::tls::PodTls;
use pilotlight_net::{Client, Error, Request, Response, SendError, Transport, UpstreamParams, Upstreams};

use crate::pods::Pod;

/// TLS to pods.
#[derive(Clone, Debug)]
pub struct PodsOverTls {
    /// The trusted authorities.
    pub tls: Arc<PodTls>,
    /// Whether every pod takes TLS: those whose endpoints name no address for it, on
    /// [the usual port](PodTls::address_of).
    pub always: bool,
}

/// Bounds of idle keep-alive connections. Knative's names are `MAX_IDLE_PROXY_CONNS_PER_HOST` and
/// `MAX_IDLE_PROXY_CONNS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleConnections {
    /// To each pod.
    pub per_pod: usize,
    /// To all pods together, in the clear; and as many to the pods of each namespace over TLS.
    pub total: usize,
}

impl Default for IdleConnections {
    /// Up to 1000 to one pod, as many as a busy pod has clients: a pool that is too small opens a connection for every
    /// other request.
    fn default() -> Self {
        IdleConnections { per_pod: 1000, total: usize::MAX }
    }
}

/// Pools of connections to pods, and which addresses they may keep.
#[derive(Debug)]
pub(crate) struct PodUpstreams {
    idle: IdleConnections,
    plain: Upstreams,
    over_tls: Option<PodsOverTls>,
    /// References to addresses in the clear.
    references: Mutex<References>,
    /// Pools of namespaces that have revisions; empty without TLS.
    namespaces: Mutex<BTreeMap<String, NamespacePool>>,
}

/// The number of revisions that list each address.
#[derive(Debug, Default)]
struct References(HashMap<SocketAddr, usize>);

/// A namespace's own pool: a connection whose certificate proved one namespace must never serve another.
#[derive(Debug, Default)]
struct NamespacePool {
    revisions: usize,
    references: References,
    /// The pool, made for the first request.
    pool: Option<Upstreams>,
}

impl PodUpstreams {
    pub(crate) fn new(over_tls: Option<PodsOverTls>, idle: IdleConnections) -> Self {
        let plain = Upstreams::to_pods(params(idle)).keep_no_more_than(idle.total).to_proxies();
        PodUpstreams { idle, plain, over_tls, references: Mutex::default(), namespaces: Mutex::default() }
    }

    pub(crate) async fn send(
        &self,
        client: &Client,
        namespace: &str,
        pod: &Pod,
        request: &mut Request,
    ) -> Result<Response, SendError> {
        let Some(over_tls) = &self.over_tls else {
            return self.plain.send(client, pod.address, request).await;
        };
        let address = if pod.is_cluster_ip {
            over_tls.address_of_service(pod.address)
        } else {
            over_tls.address_of(pod.address, pod.tls_address)
        };
        match address {
            Some(address) => self.of_namespace(namespace, &over_tls.tls).send(client, address, request).await,
            None => self.plain.send(client, pod.address, request).await,
        }
    }

    /// Sends a request to an app's own port. Apps take no TLS of ours.
    pub(crate) async fn send_to(
        &self,
        client: &Client,
        to: SocketAddr,
        request: &mut Request,
    ) -> Result<Response, SendError> {
        self.plain.send(client, to, request).await
    }

    /// Opens a connection to an app's own port.
    pub(crate) async fn connect(&self, to: SocketAddr) -> Result<Transport, Error> {
        self.plain.connect(to).await
    }

    /// The pool in the clear, which probes use.
    pub(crate) fn in_the_clear(&self) -> Upstreams {
        self.plain.clone()
    }

    /// Follows one revision's change; `None`: the revision does not exist. Closes idle connections to addresses that no
    /// revision lists any more, and the pool of a namespace without revisions.
    pub(crate) fn follow(
        &self,
        namespace: &str,
        before: Option<&RevisionEndpoints>,
        after: Option<&RevisionEndpoints>,
    ) {
        let (old, new) = (plain_addresses(before), plain_addresses(after));
        for gone in self.references.lock().replace(&old, &new) {
            self.plain.forget(gone);
        }
        let Some(over_tls) = &self.over_tls else { return };
        let (old, new) = (over_tls.addresses(before), over_tls.addresses(after));
        let mut namespaces = self.namespaces.lock();
        let entry = namespaces.entry(namespace.to_owned()).or_default();
        for gone in entry.references.replace(&old, &new) {
            if let Some(pool) = &entry.pool {
                pool.forget(gone);
            }
        }
        entry.revisions += usize::from(after.is_some());
        entry.revisions = entry.revisions.saturating_sub(usize::from(before.is_some()));
        if entry.revisions == 0 {
            namespaces.remove(namespace);
        }
    }

    fn of_namespace(&self, namespace: &str, tls: &Arc<PodTls>) -> Upstreams {
        let make = || {
            let pool = Upstreams::over_tls(params(self.idle), Arc::clone(tls), namespace);
            pool.keep_no_more_than(self.idle.total).to_proxies()
        };
        match self.namespaces.lock().get_mut(namespace) {
            Some(entry) => entry.pool.get_or_insert_with(make).clone(),
            // A last request of a namespace without revisions gets a pool that is not kept.
            None => make(),
        }
    }
}

impl References {
    /// Replaces the addresses that one revision listed before by those it lists now. Returns those that no revision lists
    /// any more.
    fn replace(&mut self, old: &BTreeSet<SocketAddr>, new: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
        for address in new.difference(old) {
            *self.0.entry(*address).or_default() += 1;
        }
        let mut unlisted = Vec::new();
        for address in old.difference(new) {
            let Some(references) = self.0.get_mut(address) else { continue };
            *references -= 1;
            if *references == 0 {
                self.0.remove(address);
                unlisted.push(*address);
            }
        }
        unlisted
    }
}

impl PodsOverTls {
    fn address_of(&self, plain: SocketAddr, over_tls: Option<SocketAddr>) -> Option<SocketAddr> {
        over_tls.or_else(|| self.always.then(|| PodTls::address_of(plain)))
    }

    /// The ClusterIP's address over TLS. A pod behind it shows its certificate.
    fn address_of_service(&self, plain: SocketAddr) -> Option<SocketAddr> {
        self.always.then(|| SocketAddr::new(plain.ip(), SERVICE_TLS_PORT))
    }

    fn addresses(&self, revision: Option<&RevisionEndpoints>) -> BTreeSet<SocketAddr> {
        let Some(revision) = revision else { return BTreeSet::new() };
        let pods = revision.pods().filter_map(|pod| self.address_of(pod.address, pod.tls_address));
        pods.chain(revision.cluster_ip.and_then(|ip| self.address_of_service(ip))).collect()
    }
}

fn plain_addresses(revision: Option<&RevisionEndpoints>) -> BTreeSet<SocketAddr> {
    let Some(revision) = revision else { return BTreeSet::new() };
    let at_port = |pod: &PodEndpoint, port| SocketAddr::new(pod.address.ip(), port);
    let ports = revision.pods().flat_map(|pod| pod.ports.values().map(move |port| at_port(pod, *port)));
    revision.pods().map(|pod| pod.address).chain(revision.cluster_ip).chain(ports).collect()
}

/// Parameters of each pool. A pod that does not accept a connection within a second is passed over for another.
fn params(idle: IdleConnections) -> UpstreamParams {
    UpstreamParams {
        max_idle_per_host: idle.per_pod,
        idle_timeout: Duration::from_secs(90),
        connect_timeout: Duration::from_secs(1),
    }
}

/// Knative's fixed port of a Service over TLS.
const SERVICE_TLS_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use pilotlight_core::PodTimeline;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 8012))
    }

    fn pods<const N: usize>(last: [u8; N]) -> RevisionEndpoints {
        let pod = |last| PodEndpoint {
            name: format!("pod-{last}"),
            address: address(last),
            tls_address: None,
            ports: Arc::default(),
            timeline: PodTimeline::default(),
        };
        RevisionEndpoints { ready: last.map(pod).into(), ..RevisionEndpoints::default() }
    }

    #[test]
    fn an_address_that_two_revisions_list_is_let_go_with_the_last_of_them() {
        let mut references = References::default();
        let set = |last: &[u8]| last.iter().map(|last| address(*last)).collect::<BTreeSet<_>>();
        assert_eq!(references.replace(&set(&[]), &set(&[1, 2])), []);
        assert_eq!(references.replace(&set(&[]), &set(&[2, 3])), []);
        assert_eq!(references.replace(&set(&[1, 2]), &set(&[3])), [address(1)], "2 is another's, too");
        assert_eq!(references.replace(&set(&[2, 3]), &set(&[])), [address(2)]);
        assert_eq!(references.replace(&set(&[3]), &set(&[])), [address(3)]);
        assert!(references.0.is_empty());
    }

    #[test]
    fn a_namespace_keeps_its_pool_as_long_as_it_has_revisions() {
        let (_folder, tls) = pod_tls();
        let over_tls = PodsOverTls { tls: Arc::clone(&tls), always: true };
        let upstreams = PodUpstreams::new(Some(over_tls), IdleConnections::default());
        let (before, after) = (pods([1, 2]), pods([2, 3]));
        upstreams.follow("a", None, Some(&before));
        upstreams.follow("a", None, Some(&before));
        upstreams.follow("b", None, Some(&after));
        upstreams.of_namespace("a", &tls);
        upstreams.follow("a", Some(&before), Some(&after));
        let pools = || {
            let namespaces = upstreams.namespaces.lock();
            namespaces
                .iter()
                .map(|(name, pool)| (name.clone(), pool.revisions, pool.pool.is_some()))
                .collect::<Vec<_>>()
        };
        assert_eq!(pools(), [("a".to_owned(), 2, true), ("b".to_owned(), 1, false)]);
        upstreams.follow("a", Some(&before), None);
        upstreams.follow("a", Some(&after), None);
        assert_eq!(pools(), [("b".to_owned(), 1, false)]);
        // Late requests of a namespace that is gone leave no pool behind.
        upstreams.of_namespace("a", &tls);
        upstreams.follow("b", Some(&after), None);
        assert_eq!(pools(), []);
        assert!(upstreams.references.lock().0.is_empty());
    }

    fn pod_tls() -> (tempfile::TempDir, Arc<PodTls>) {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ca.pem");
        std::fs::write(&bundle, rcgen::generate_simple_self_signed([]).unwrap().cert.pem()).unwrap();
        let tls = Arc::new(PodTls::load(vec![bundle]).unwrap());
        (folder, tls)
    }

    #[test]
    fn a_service_takes_tls_on_443_where_all_pods_take_it() {
        let (_folder, tls) = pod_tls();
        let service = "10.0.0.1:80".parse().unwrap();
        let over_tls = |always| PodsOverTls { tls: Arc::clone(&tls), always }.address_of_service(service);
        assert_eq!(over_tls(true), Some("10.0.0.1:443".parse().unwrap()));
        assert_eq!(over_tls(false), None);
    }
}
