//! The ways to pods: in the clear, or over TLS to those who can show that they belong to their namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_core::{EndpointTable, RevisionEndpoints};
use pilotlight_net::tls::PodTls;
use pilotlight_net::{Request, Response, SendError, UpstreamParams, Upstreams};

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

/// Connections to pods.
#[derive(Debug)]
pub(crate) struct PodUpstreams {
    plain: Upstreams,
    over_tls: Option<PodsOverTls>,
    // A pool for each namespace: a connection proved to belong to one must never serve another.
    of_namespace: Mutex<BTreeMap<String, Upstreams>>,
}

impl PodUpstreams {
    pub(crate) fn new(over_tls: Option<PodsOverTls>) -> Self {
        PodUpstreams { plain: Upstreams::new(PARAMS), over_tls, of_namespace: Mutex::default() }
    }

    pub(crate) async fn send(
        &self,
        namespace: &str,
        pod: &Pod,
        request: &mut Request,
    ) -> Result<Response, SendError> {
        let Some(over_tls) = &self.over_tls else { return self.plain.send(pod.address, request).await };
        match over_tls.address_of(pod.address, pod.tls_address) {
            Some(address) => self.of_namespace(namespace, &over_tls.tls).send(address, request).await,
            None => self.plain.send(pod.address, request).await,
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
        let pool = Upstreams::over_tls(PARAMS, Arc::clone(tls), namespace);
        pools.insert(namespace.to_owned(), pool.clone());
        pool
    }
}

impl PodsOverTls {
    fn address_of(&self, plain: SocketAddr, over_tls: Option<SocketAddr>) -> Option<SocketAddr> {
        over_tls.or_else(|| self.always.then(|| PodTls::address_of(plain)))
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
const PARAMS: UpstreamParams = UpstreamParams {
    // As many as one busy pod may have clients: a pool that is too small opens a connection for every other request.
    max_idle_per_host: 1000,
    idle_timeout: Duration::from_secs(90),
    connect_timeout: Duration::from_secs(1),
};
