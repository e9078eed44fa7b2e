//! The admin port: where it is, and what every program serves there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use pilotlight_config::process::PrometheusEnv;
use pilotlight_net::tls::ServerTls;
use pilotlight_net::{Admin, Drain, Port, listen, serve, serve_tls};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::wrong::WrongSettings;

/// An admin port that is open and serves nothing yet.
#[derive(Debug)]
pub struct AdminPort {
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    max_connections: usize,
}

impl AdminPort {
    /// Opens the port; with `tls`, everything on it is served over TLS.
    pub fn open(address: SocketAddr, tls: Option<Arc<ServerTls>>) -> io::Result<Self> {
        Ok(AdminPort { listener: listen(address)?, tls, max_connections: usize::MAX })
    }

    /// Takes no more than so many connections at once.
    pub fn limited(self, max_connections: usize) -> Self {
        AdminPort { max_connections, ..self }
    }

    /// The address it has; of use where a port was given as 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `routes` until `drain` ends it.
    pub fn serve(self, routes: Admin, drain: Drain) -> JoinHandle<()> {
        let (port, routes) = (Port::limited(self.listener, self.max_connections), Arc::new(routes));
        match self.tls {
            None => tokio::spawn(serve(port, routes, drain)),
            Some(tls) => tokio::spawn(serve_tls(port, tls, routes, drain)),
        }
    }
}

/// The routes of every program: `/healthz`, `/readyz` with the reason why it is not ready, and `/metrics`, whose page is
/// usually a [`MetricsPage`](crate::MetricsPage).
pub fn admin_routes(
    page: impl Fn() -> String + Send + Sync + 'static,
    ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
) -> Admin {
    Admin::new().healthz().readyz(ready).metrics(page)
}

/// The address of the admin port: that of the flag, or where Knative's variables say that Prometheus asks, or
/// `default`.
pub fn admin_address(
    flag: Option<SocketAddr>,
    prometheus: &PrometheusEnv,
    default: Option<SocketAddr>,
) -> Result<Option<SocketAddr>, WrongSettings> {
    if flag.is_some() || (prometheus.host.is_none() && prometheus.port.is_none()) {
        return Ok(flag.or(default));
    }
    let ip = match &prometheus.host {
        Some(host) => host.parse().map_err(|_| {
            WrongSettings::new(format!("METRICS_PROMETHEUS_HOST: {host:?} is not an IP address"))
        })?,
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    Ok(Some(SocketAddr::new(ip, prometheus.port.unwrap_or(PROMETHEUS_PORT))))
}

/// Port at which Knative's components show their metrics.
const PROMETHEUS_PORT: u16 = 9090;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_variables_open_the_admin_port_unless_a_flag_does() {
        let flag: SocketAddr = ([127, 0, 0, 1], 1).into();
        let default: SocketAddr = ([127, 0, 0, 1], 2).into();
        let at = |flag, host: Option<&str>, port, default| {
            let prometheus = PrometheusEnv { host: host.map(str::to_owned), port, tls: None };
            admin_address(flag, &prometheus, default)
                .map(|address| address.map(|address| address.to_string()))
        };
        assert_eq!(at(None, None, None, None).unwrap(), None);
        assert_eq!(at(None, None, None, Some(default)).unwrap().as_deref(), Some("127.0.0.1:2"));
        assert_eq!(at(None, None, Some(9000), Some(default)).unwrap().as_deref(), Some("0.0.0.0:9000"));
        assert_eq!(at(None, Some("::1"), None, None).unwrap().as_deref(), Some("[::1]:9090"));
        assert_eq!(at(Some(flag), Some("::1"), Some(3), None).unwrap().as_deref(), Some("127.0.0.1:1"));
        assert!(at(None, Some("somewhere"), None, None).is_err());
    }
}
