//! The ways to pods: in the clear, or over TLS to those who can show that they belong to their namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_core::RevisionEndpoints;
use pilotlight_net::tls::PodTls;
use pilotlight_net::{Client, Request, Response, SendError, UpstreamParams, Upstreams};

use crate::throttler::Pod;

/// TLS to pods, if there is to be any.
#[derive(Clone, Debug)]
pub struct PodsOverTls {
    /// Whom to trust.
    pub tls: Arc<PodTls>,
    /// Whether every pod takes TLS: those whose entry in the table says nothing about it, on
    /// [the usual port](PodTls::address_of).
    pub always: bool,
}

/// How many connections are kept for later. Knative's names are `MAX_IDLE_PROXY_CONNS_PER_HOST` and
/// `MAX_IDLE_PROXY_CONNS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleConnections {
    /// To each pod.
    pub per_pod: usize,
    /// To all pods together, in the clear; and as many to the pods of each namespace over TLS.
    pub total: usize,
}

impl Default for IdleConnections {
    /// As many to one pod as it may have clients when it is busy: a pool that is too small opens a connection for every
    /// other request.
    fn default() -> Self {
        IdleConnections { per_pod: 1000, total: usize::MAX }
    }
}

/// Connections to pods.
#[derive(Debug)]
pub(crate) struct PodUpstreams {
    idle: IdleConnections,
    plain: Upstreams,
    over_tls: Option<PodsOverTls>,
    /// Of addresses in the clear.
    references: Mutex<References>,
    /// Those that have revisions. Only with TLS.
    namespaces: Mutex<BTreeMap<String, Namespace>>,
}

/// How many revisions list an address.
#[derive(Debug, Default)]
struct References(HashMap<SocketAddr, usize>);

/// A namespace's own pool: a connection proved to belong to one namespace must never serve another.
#[derive(Debug, Default)]
struct Namespace {
    revisions: usize,
    references: References,
    /// Made for the first request.
    pool: Option<Upstreams>,
}

impl PodUpstreams {
    pub(crate) fn new(over_tls: Option<PodsOverTls>, idle: IdleConnections) -> Self {
        let plain = Upstreams::new(params(idle)).keep_no_more_than(idle.total);
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

    /// The way in the clear: probes take no other.
    pub(crate) fn in_the_clear(&self) -> Upstreams {
        self.plain.clone()
    }

    /// Follows one revision's change; `None`: it is not there. Closes what leads to pods that no revision lists any
    /// more, and to a namespace without revisions.
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
            pool.keep_no_more_than(self.idle.total)
        };
        match self.namespaces.lock().get_mut(namespace) {
            Some(entry) => entry.pool.get_or_insert_with(make).clone(),
            // The last requests of a namespace without revisions: nothing is kept for others.
            None => make(),
        }
    }
}

impl References {
    /// Takes over the addresses one revision lists now in place of those it listed before. Returns those that nobody
    /// lists any more.
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

    /// The ClusterIP in place of a pod. Behind it are pods, and one of them shows its certificate.
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
    revision.pods().map(|pod| pod.address).chain(revision.cluster_ip).collect()
}

/// A pod that does not take a connection within a second is passed over for another.
fn params(idle: IdleConnections) -> UpstreamParams {
    UpstreamParams {
        max_idle_per_host: idle.per_pod,
        idle_timeout: Duration::from_secs(90),
        connect_timeout: Duration::from_secs(1),
    }
}

/// Where a Service takes requests over TLS: Knative's fixed port.
const SERVICE_TLS_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_takes_tls_on_443_where_all_pods_take_it() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ca.pem");
        std::fs::write(&bundle, rcgen::generate_simple_self_signed([]).unwrap().cert.pem()).unwrap();
        let tls = Arc::new(PodTls::load(vec![bundle]).unwrap());
        let service = "10.0.0.1:80".parse().unwrap();
        let over_tls = |always| PodsOverTls { tls: Arc::clone(&tls), always }.address_of_service(service);
        assert_eq!(over_tls(true), Some("10.0.0.1:443".parse().unwrap()));
        assert_eq!(over_tls(false), None);
    }
}
