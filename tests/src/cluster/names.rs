//! Names of Services to addresses, as a cluster's DNS has them.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::core::v1::Service;

use super::store::Store;

/// The cluster's names. Clones are the same.
#[derive(Clone)]
pub struct Names(Arc<Store<Service>>);

impl Names {
    pub(crate) fn new(services: &Arc<Store<Service>>) -> Names {
        Names(Arc::clone(services))
    }

    /// The address behind a Service's name (`web.default`, `web.default.svc`, `web.default.svc.cluster.local`) and port.
    pub fn resolve(&self, host: &str, port: u16) -> Option<SocketAddr> {
        if let Ok(ip) = host.parse() {
            return Some(SocketAddr::new(ip, local_port(port)));
        }
        let mut parts = host.split('.');
        let (name, namespace) = (parts.next()?, parts.next()?);
        if !["", "svc", "svc.cluster.local"].contains(&parts.collect::<Vec<_>>().join(".").as_str()) {
            return None;
        }
        let service = self.0.get(&(namespace.to_owned(), name.to_owned()))?;
        Some(SocketAddr::new(cluster_ip(&service)?, local_port(port)))
    }
}

/// The Service's own address, once it has one.
pub(crate) fn cluster_ip(service: &Service) -> Option<IpAddr> {
    service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()
}

/// The port at which a Service's port is found on this machine: itself, or 20,000 above if this user may not have it.
pub fn local_port(port: u16) -> u16 {
    static MAY_HAVE_ANY: LazyLock<bool> = LazyLock::new(|| TcpListener::bind("127.127.127.1:80").is_ok());
    if port >= 1024 || *MAY_HAVE_ANY { port } else { port + 20_000 }
}
