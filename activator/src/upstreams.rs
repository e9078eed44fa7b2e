//! The ways to pods: in the clear, or over TLS to those who can show that they belong to their namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_core::{EndpointTable, RevisionEndpoints};
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
    // A pool for each namespace: a connection proved to belong to one must never serve another.
    of_namespace: Mutex<BTreeMap<String, Upstreams>>,
}

impl PodUpstreams {
    pub(crate) fn new(over_tls: Option<PodsOverTls>, idle: IdleConnections) -> Self {
        let plain = Upstreams::new(params(idle)).keep_no_more_than(idle.total);
        PodUpstreams { idle, plain, over_tls, of_namespace: Mutex::default() }
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

    /// Closes what leads to pods and namespaces that have left.
    pub(crate) fn follow(&self, old: &EndpointTable, new: &EndpointTable) {
        for gone in addresses(old).difference(&addresses(new)) {
            self.plain.forget(*gone);
        }
        let Some(over_tls) = &self.over_tls else { return };
        let namespaces: BTreeSet<&str> = new.revisions.keys().map(|id| id.namespace.as_str()).collect();
        let mut pools = self.of_namespace.lock();
        pools.retain(|namespace, _| namespaces.contains(namespace.as_str()));
        for (namespace, pool) in pools.iter() {
            let (old, new) = (over_tls.addresses(old, namespace), over_tls.addresses(new, namespace));
            for gone in old.difference(&new) {
                pool.forget(*gone);
            }
        }
    }

    fn of_namespace(&self, namespace: &str, tls: &Arc<PodTls>) -> Upstreams {
        let mut pools = self.of_namespace.lock();
        if let Some(pool) = pools.get(namespace) {
            return pool.clone();
        }
        let pool = Upstreams::over_tls(params(self.idle), Arc::clone(tls), namespace);
        let pool = pool.keep_no_more_than(self.idle.total);
        pools.insert(namespace.to_owned(), pool.clone());
        pool
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

    fn addresses(&self, table: &EndpointTable, namespace: &str) -> BTreeSet<SocketAddr> {
        let revisions = table.revisions.iter().filter(|(id, _)| id.namespace == namespace);
        let pods = revisions.flat_map(|(_, revision)| revision.pods());
        pods.filter_map(|pod| self.address_of(pod.address, pod.tls_address)).collect()
    }
}

fn addresses(table: &EndpointTable) -> BTreeSet<SocketAddr> {
    let of = |revision: &RevisionEndpoints| {
        let pods = revision.pods().map(|pod| pod.address);
        pods.chain(revision.cluster_ip).collect::<Vec<_>>()
    };
    table.revisions.values().flat_map(of).collect()
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
