//! The start of a cluster's activator, within any process: settings, watches, servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use pilotlight_activator::{
    Activator, ActivatorParams, PodsOverTls, admin_routes, start_telemetry, tls_policy,
};
use pilotlight_config::process::{MetricsProtocol, MinimumKubernetes};
use pilotlight_feed::Feed;
use pilotlight_net::tls::keep_renewed;
use pilotlight_net::{Drain, Port, listen};
use pilotlight_process::{AdminPort, MetricsPage, WrongSettings, admin_address};
use pilotlight_telemetry::{Registry, program_resource, prometheus_tls};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::config::{self, ConfigNames};
use super::index::IndexParams;
use super::network::NetworkSettings;
use super::observability;
use super::tls::InternalTls;
use super::watches::{AddressSource, publish};
use crate::api_server_version::check_version;

/// Parameters of a cluster's activator.
pub struct KnativeActivatorParams {
    /// The cluster.
    pub client: Client,
    /// The oldest version of its API server.
    pub minimum: MinimumKubernetes,
    /// The namespace of Knative's ConfigMaps and Secrets.
    pub system_namespace: String,
    /// Names of the ConfigMaps.
    pub config: ConfigNames,
    /// The addresses to listen at.
    pub listen: ListenAddresses,
    /// Variables about telemetry and TLS: `OTEL_*`, `METRICS_PROMETHEUS_*`, `ACTIVATOR_TLS_*`.
    pub env: BTreeMap<String, String>,
    /// The activator's own parameters. Its telemetry and its TLS are replaced by what the cluster says.
    pub activator: ActivatorParams,
    /// The most connections at each port.
    pub max_connections: usize,
    /// The series that its pages of metrics show.
    pub registry: Registry,
    /// Where addresses of pods are read; `None`: [found out](AddressSource::find).
    pub addresses: Option<AddressSource>,
}

/// The addresses that an activator listens at. A port may be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddresses {
    /// For requests, HTTP/1.1 as a rule; probes of the kubelet come here.
    pub http1: SocketAddr,
    /// For requests, HTTP/2 as a rule. Both take both.
    pub http2: SocketAddr,
    /// For requests over TLS, with `system-internal-tls`.
    pub https: SocketAddr,
    /// For `/readyz`, `/healthz`, `/metrics` and `/v1/activity`.
    pub admin: SocketAddr,
    /// For Prometheus, if `config-observability` or a variable asks for it.
    pub metrics: SocketAddr,
}

impl ListenAddresses {
    /// Knative's ports, on one address.
    pub fn on(ip: std::net::IpAddr) -> Self {
        let at = |port| SocketAddr::new(ip, port);
        ListenAddresses {
            http1: at(8012),
            http2: at(8013),
            https: at(8112),
            admin: at(8008),
            metrics: at(9090),
        }
    }
}

/// An activator that runs. Dropping it ends its watches and servers at once; [`stop`](RunningActivator::stop) does so
/// politely.
#[derive(Debug)]
pub struct RunningActivator {
    activator: Activator,
    addresses: ListenAddresses,
    is_over_tls: bool,
    serving: JoinSet<()>,
    /// Watches, and the servers of health and metrics, which answer to the end.
    beside: JoinSet<()>,
    drain: Drain,
}

/// Starts an activator: waits up to a minute for the API server, reads the cluster's settings, opens the ports. It is ready
/// once it has listed the revisions and reached the autoscaler.
pub async fn start(params: KnativeActivatorParams) -> anyhow::Result<RunningActivator> {
    let KnativeActivatorParams {
        client,
        minimum,
        system_namespace,
        config: names,
        listen: at,
        env,
        activator,
        max_connections: most,
        registry,
        addresses,
    } = params;
    check_version(&minimum, &reach(&client).await?)?;
    let source = match addresses {
        Some(source) => source,
        None => AddressSource::find(&client).await,
    };
    let network = config::read(&client, &system_namespace, &names.network).await?;
    let network = NetworkSettings::from_map(&network).map_err(|faults| wrong(&faults))?;
    let told = config::read(&client, &system_namespace, &names.observability).await?;
    let told = observability::telemetry(&told, &env).map_err(|faults| wrong(&faults))?;
    let tls = if network.over_tls {
        let policy = tls_policy(|name| env.get(name).cloned()).map_err(WrongSettings::new)?;
        Some(InternalTls::read(&client, &system_namespace, policy).await?)
    } else {
        None
    };
    let resource = program_resource(&told, "activator", &activator.pod_name, &system_namespace);
    let telemetry = start_telemetry(&told, &resource, &registry, true)?;
    let page = MetricsPage::new(registry, &resource).with_requests_of(telemetry.clone());

    let counts = told.observability.request_metrics.protocol == MetricsProtocol::Prometheus;
    let metrics_at = admin_address(None, &told.prometheus, counts.then_some(at.metrics))?;
    let metrics_tls = told.prometheus.tls.as_ref().map(prometheus_tls).transpose()?;
    let open =
        |address, tls| AdminPort::open(address, tls).with_context(|| format!("cannot listen on {address}"));
    let admin = open(at.admin, None)?;
    let metrics = metrics_at.map(|address| open(address, metrics_tls.clone())).transpose()?;
    let (http1, http2) = (listen_at(at.http1)?, listen_at(at.http2)?);
    let https = tls.as_ref().map(|_| listen_at(at.https)).transpose()?;
    let addresses = ListenAddresses {
        http1: http1.local_addr()?,
        http2: http2.local_addr()?,
        https: https.as_ref().map_or(Ok(at.https), TcpListener::local_addr)?,
        admin: admin.address()?,
        metrics: metrics.as_ref().map_or(Ok(at.metrics), AdminPort::address)?,
    };

    let index = IndexParams {
        mesh: network.mesh,
        pods_addressable_in_mesh: network.pods_addressable_in_mesh,
        over_tls: tls.is_some(),
        own: activator.pod_ip,
    };
    let params = ActivatorParams {
        pods_over_tls: tls.as_ref().map(|tls| PodsOverTls { tls: Arc::clone(&tls.pods), always: true }),
        telemetry: telemetry.clone(),
        ..activator
    };
    let feed = Feed::default();
    let follower = feed.follow();
    let mut beside = JoinSet::new();
    beside.spawn(publish(client.clone(), source, index, feed));
    beside.spawn(config::follow(client.clone(), system_namespace.clone(), names, telemetry));
    let activator = Activator::start(params, follower);

    let (mut serving, drain) = (JoinSet::new(), Drain::default());
    serving.spawn(activator.serve(Port::limited(http1, most), drain.clone()));
    serving.spawn(activator.serve(Port::limited(http2, most), drain.clone()));
    if let (Some(listener), Some(tls)) = (https, &tls) {
        serving.spawn(activator.serve_tls(
            Port::limited(listener, most),
            Arc::clone(&tls.server),
            drain.clone(),
        ));
    }
    let is_over_tls = tls.is_some();
    if let Some(tls) = tls {
        beside.spawn(tls.follow(client, system_namespace));
    }
    if let Some(tls) = &metrics_tls {
        beside.spawn(keep_renewed(tls, TLS_POLL_INTERVAL));
    }
    for port in std::iter::once(admin).chain(metrics) {
        let served = port.limited(most).serve(admin_routes(&activator, page.clone()), Drain::default());
        // Err: a panic, which has been printed.
        beside.spawn(async { drop(served.await) });
    }
    info!(http1 = %addresses.http1, http2 = %addresses.http2, admin = %addresses.admin, over_tls = is_over_tls,
        mesh = ?network.mesh, "Activator is listening");
    Ok(RunningActivator { activator, addresses, is_over_tls, serving, beside, drain })
}

impl RunningActivator {
    /// The activator.
    pub fn activator(&self) -> &Activator {
        &self.activator
    }

    /// The addresses it listens at, those of ports that are not open included.
    pub fn addresses(&self) -> ListenAddresses {
        self.addresses
    }

    /// Whether it takes requests over TLS.
    pub fn is_over_tls(&self) -> bool {
        self.is_over_tls
    }

    /// Stops as Knative's activator does: probes fail, requests are served until ingresses have stopped sending, those under
    /// way end.
    pub async fn stop(mut self) {
        self.activator.drain().await;
        self.drain.start();
        // Err: a panic, which has been printed. Nothing is being served in either case.
        while self.serving.join_next().await.is_some() {}
        self.activator.close().await;
        self.beside.abort_all();
    }
}

/// Waits for the API server, and returns its version. A process of a cluster that is starting may be there first.
async fn reach(client: &Client) -> anyhow::Result<String> {
    let deadline = Instant::now() + REACH_TIMEOUT;
    let mut is_told = false;
    loop {
        match client.apiserver_version().await {
            Ok(version) => {
                info!(version = version.git_version, "API server is there");
                return Ok(version.git_version);
            }
            Err(error) if Instant::now() >= deadline => {
                return Err(error).context("the API server has not answered for a minute");
            }
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    warn!(%error, "API server does not answer; asking again for a minute");
                }
            }
        }
        sleep(REACH_INTERVAL).await;
    }
}

fn listen_at(address: SocketAddr) -> anyhow::Result<TcpListener> {
    listen(address).with_context(|| format!("cannot listen on {address}"))
}

fn wrong(faults: &[String]) -> WrongSettings {
    WrongSettings::new(faults.join("\n"))
}

const REACH_TIMEOUT: Duration = Duration::from_secs(60);
const REACH_INTERVAL: Duration = Duration::from_secs(1);
const TLS_POLL_INTERVAL: Duration = Duration::from_secs(60);
