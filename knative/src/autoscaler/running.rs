//! A running autoscaler: everything that it is made of, started in order, and stopped in order.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use pilotlight_autoscaler::{Autoscaler, AutoscalerParams, Journal, OnScrape, ScrapeFault, admin};
use pilotlight_config::process::{MetricsProtocol, MinimumKubernetes, PrometheusEnv, StatefulEnv};
use pilotlight_kubernetes::event::{Note, Recorder};
use pilotlight_kubernetes::{LeaseTimes, Leases, LeasesParams};
use pilotlight_net::{Admin, Clock, Drain, listen};
use pilotlight_process::{AdminPort, MetricsPage, WrongSettings, admin_address, admin_routes};
use pilotlight_telemetry::prometheus_tls;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{Level, debug, info, warn};

use super::bucket_endpoints::BucketEndpoints;
use super::buckets::Buckets;
use super::cluster::{KnativeCluster, KnativeClusterParams};
use super::config_maps::{ConfigMapNames, ConfigMaps, OnRefused, in_one_line};
use super::forward::Forwarder;
use super::metrics::Metrics;
use super::ownership::{HolderAddresses, Ownership, StatefulSet};
use super::probe::Resolve;
use super::scraping::ScrapeOutcome;
use super::settings::Settings;
use crate::api_server_version::check_version as refuse_old;

/// The parts of an autoscaler in Knative's place.
pub struct RunningParams {
    /// The API server.
    pub client: Client,
    /// The oldest version of it.
    pub minimum: MinimumKubernetes,
    /// The process's clock.
    pub clock: Clock,
    /// The name of this pod.
    pub pod_name: String,
    /// The address of this pod.
    pub pod_ip: IpAddr,
    /// The namespace of Knative's own parts.
    pub system_namespace: String,
    /// The domain of the cluster's Services, as a rule `cluster.local`.
    pub cluster_domain: String,
    /// The ConfigMaps.
    pub config_maps: ConfigMapNames,
    /// The pod's place in a StatefulSet; `None`: leases decide.
    pub stateful: Option<StatefulEnv>,
    /// The address that all servers bind to.
    pub bind_address: IpAddr,
    /// The port of the stat server: [`STATS_PORT`] outside of tests.
    pub stats_port: u16,
    /// The address of the admin port.
    pub admin: SocketAddr,
    /// The server for Prometheus, if `config-observability` asks for one.
    pub prometheus: PrometheusEnv,
    /// The page of metrics.
    pub page: MetricsPage,
    /// A file to write every decision to; `None`: none.
    pub journal: Option<PathBuf>,
    /// Finds the address of a revision's Service: [`dns`](super::probe::dns) outside of tests.
    pub resolve: Resolve,
    /// Hears what level the log is to have.
    pub on_level: Arc<dyn Fn(Level) + Send + Sync>,
}

/// The port of the stat server: activators and kubelets know it.
pub const STATS_PORT: u16 = 8080;

/// An autoscaler at work. Dropping it ends it without a word, as a crash would.
pub struct RunningAutoscaler {
    /// The address of the stat server.
    pub stats: SocketAddr,
    /// The address of the admin port.
    pub admin: SocketAddr,
    /// The address of the page for Prometheus; `None`: there is none but that of the admin port.
    pub metrics: Option<SocketAddr>,
    /// The settings in force.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// The buckets that are held.
    pub buckets: watch::Receiver<Arc<Buckets>>,
    autoscaler: Autoscaler,
    leases: Option<Leases>,
    serving: JoinSet<()>,
    drains: Drains,
    _tasks: JoinSet<()>,
}

/// Ends the connections that tasks of their own serve.
struct Drains {
    stats: Drain,
    admin: Drain,
}

impl Drop for Drains {
    fn drop(&mut self) {
        self.stats.force();
        self.admin.force();
    }
}

/// Starts an autoscaler, on the current runtime: ConfigMaps, then leases, then watches, then decisions, then servers.
///
/// Fails if the ConfigMaps are not all there and legal, with all that is wrong ([`WrongSettings`]); if the API server
/// cannot be asked for a minute, or is older than demanded; or if a port is taken.
pub async fn start(params: RunningParams) -> anyhow::Result<RunningAutoscaler> {
    let RunningParams { client, clock, system_namespace: namespace, .. } = params;
    let maps = read_config_maps(&client, &namespace, &params.config_maps).await?;
    check_version(&client, &params.minimum).await?;
    let election = maps.leader_election().clone();
    let stateful = params.stateful.as_ref();
    let stateful = stateful
        .map(|env| StatefulSet::new(env, &namespace, &params.cluster_domain, election.buckets))
        .transpose()?;
    let prometheus = prometheus_place(&maps, &params.prometheus, params.bind_address)?;

    // Ports first: a pod that cannot serve must not hold leases.
    let port = |address: SocketAddr| move || format!("cannot listen on {address}");
    let stats_address = SocketAddr::new(params.bind_address, params.stats_port);
    let stats_listener = listen(stats_address).with_context(port(stats_address))?;
    let admin_port = AdminPort::open(params.admin, None).with_context(port(params.admin))?;
    let tls = params.prometheus.tls.as_ref().map(prometheus_tls).transpose()?;
    let metrics_port =
        prometheus.map(|address| AdminPort::open(address, tls).with_context(port(address))).transpose()?;
    let journal = params.journal.as_deref().map(Journal::create).transpose()?;
    let addresses: io::Result<_> = (|| {
        let metrics = metrics_port.as_ref().map(AdminPort::address).transpose()?;
        Ok((stats_listener.local_addr()?, admin_port.address()?, metrics))
    })();
    let (stats, admin_address, metrics_address) = addresses?;

    if let Some(level) = maps.log_level() {
        (params.on_level)(level);
    }
    let metrics = Metrics::new();
    let mut tasks = JoinSet::new();
    let recorder = Recorder::start(client.clone(), COMPONENT, clock);
    let on_level = Arc::clone(&params.on_level);
    let refused = on_refused(recorder, namespace.clone());
    let settings =
        maps.follow(client.clone(), &namespace, metrics.clone(), refused, move |level| on_level(level));

    let (ownership, leases) = match &stateful {
        Some(set) => (Ownership::by_ordinal(set), None),
        None => {
            let identity = format!("{}_{}", params.pod_name, params.pod_ip);
            let names = election.bucket_names();
            let leases = Leases::start(LeasesParams {
                client: client.clone(),
                clock,
                namespace: namespace.clone(),
                identity: identity.clone(),
                names: names.clone(),
                times: LeaseTimes {
                    duration: election.lease_duration,
                    renew_deadline: election.renew_deadline,
                    retry_period: election.retry_period,
                },
            });
            let addresses = HolderAddresses {
                identity,
                namespace: namespace.clone(),
                cluster_domain: params.cluster_domain.clone(),
                port: stats.port(),
            };
            let ownership = Ownership::by_leases(names, addresses, leases.state());
            let endpoints =
                BucketEndpoints { client: client.clone(), namespace, ip: params.pod_ip, port: stats.port() };
            tasks.spawn(endpoints.run(ownership.buckets.clone()));
            (ownership, Some(leases))
        }
    };

    let cluster = KnativeCluster::start(KnativeClusterParams {
        client,
        clock,
        settings: settings.clone(),
        buckets: ownership.buckets.clone(),
        cluster_domain: params.cluster_domain,
        resolve: Arc::clone(&params.resolve),
        metrics: metrics.clone(),
    });
    let buckets = ownership.buckets.clone();
    let forwarder = Forwarder::new(ownership, metrics);
    let autoscaler_params = AutoscalerParams {
        journal,
        owners: Some(forwarder.owners()),
        accepts: Some(forwarder.accepts()),
        on_scrape: Some(on_scrape(&cluster)),
        resolve: Some(params.resolve),
        ..AutoscalerParams::new(clock)
    };
    let autoscaler = Autoscaler::start(autoscaler_params, cluster);
    let (ours, mut inbox) = mpsc::channel(STATS_IN_FLIGHT);
    tasks.spawn(forwarder.run(ours));
    tasks.spawn({
        let autoscaler = autoscaler.clone();
        async move {
            while let Some(stat) = inbox.recv().await {
                autoscaler.take_in(stat).await;
            }
        }
    });

    let drains = Drains { stats: Drain::default(), admin: Drain::default() };
    let mut serving = JoinSet::new();
    serving.spawn({
        let (autoscaler, drain) = (autoscaler.clone(), drains.stats.clone());
        async move { autoscaler.serve_stats(clock, stats_listener, drain).await }
    });
    let page = params.page;
    if let Some(port) = metrics_port {
        let page = page.clone();
        port.serve(Admin::new().metrics(move || page.render()), drains.admin.clone());
    }
    let routes = admin::decisions(admin_routes(move || page.render(), || Ok(())), &autoscaler);
    admin_port.serve(routes, drains.admin.clone());
    info!(address = %stats, admin = %admin_address, "Autoscaler is listening");
    Ok(RunningAutoscaler {
        stats,
        admin: admin_address,
        metrics: metrics_address,
        settings,
        buckets,
        autoscaler,
        leases,
        serving,
        drains,
        _tasks: tasks,
    })
}

impl RunningAutoscaler {
    /// Says goodbye to activators, decides no more, and gives its leases up, so that a successor can begin at once.
    /// Returns within the seconds that activators have for their goodbye.
    pub async fn stop(mut self) {
        self.drains.stats.start();
        // Before the leases: two must not decide about the same revision.
        self.autoscaler.stop().await;
        if let Some(leases) = self.leases.take() {
            leases.stop().await;
        }
        while self.serving.join_next().await.is_some() {}
    }
}

/// Looks at the API server's version. That it does not tell is an error only where a version is demanded.
async fn check_version(client: &Client, minimum: &MinimumKubernetes) -> anyhow::Result<()> {
    match client.apiserver_version().await {
        Ok(version) => refuse_old(minimum, &version.git_version),
        Err(error) if minimum.is_demanded => Err(error).context("cannot ask the API server for its version"),
        Err(error) => {
            debug!(%error, "Cannot ask the API server for its version");
            Ok(())
        }
    }
}

/// Asks for a minute, if it must: a node that comes up may have no network yet.
async fn read_config_maps(
    client: &Client,
    namespace: &str,
    names: &ConfigMapNames,
) -> anyhow::Result<ConfigMaps> {
    let deadline = Instant::now() + API_SERVER_PATIENCE;
    let mut is_told = false;
    loop {
        match ConfigMaps::read(client, namespace, COMPONENT, names).await {
            Err(error) if error.downcast_ref::<WrongSettings>().is_none() && Instant::now() < deadline => {
                if !std::mem::replace(&mut is_told, true) {
                    warn!(error = %pilotlight_process::chain(error.as_ref()), "Cannot read the ConfigMaps; trying again for a minute");
                }
                sleep(API_SERVER_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// Where Prometheus asks, if it does.
fn prometheus_place(
    maps: &ConfigMaps,
    env: &PrometheusEnv,
    bind_address: IpAddr,
) -> Result<Option<SocketAddr>, WrongSettings> {
    let observability = maps.observability();
    if observability.metrics_protocol != MetricsProtocol::Prometheus {
        return Ok(None);
    }
    let endpoint = observability.metrics_endpoint.as_str();
    let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, ""));
    let default = SocketAddr::new(
        host.trim_matches(['[', ']']).parse().unwrap_or(bind_address),
        port.parse().unwrap_or(PROMETHEUS_PORT),
    );
    admin_address(None, env, Some(default))
}

/// A Warning at the ConfigMap itself.
fn on_refused(recorder: Recorder, namespace: String) -> OnRefused {
    Arc::new(move |name, uid, faults| {
        recorder.record(Note {
            object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("ConfigMap".to_owned()),
                name: Some(name.to_owned()),
                namespace: Some(namespace.clone()),
                uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
                ..ObjectReference::default()
            },
            is_warning: true,
            reason: "ChangeRefused",
            message: format!("what was in force before stays in force: {}", in_one_line(faults)),
        });
    })
}

fn on_scrape(cluster: &Arc<KnativeCluster>) -> OnScrape {
    let cluster = Arc::downgrade(cluster);
    Arc::new(move |revision, fault| {
        let outcome = match fault {
            None => ScrapeOutcome::Done,
            Some(ScrapeFault::DidNotReceiveStat(_)) => ScrapeOutcome::DidNotReceiveStat,
            Some(ScrapeFault::CollectionFailed(message)) => ScrapeOutcome::Failed(message.clone()),
        };
        if let Some(cluster) = cluster.upgrade() {
            cluster.scraped(revision, &outcome);
        }
    })
}

const COMPONENT: &str = "autoscaler";
/// Knative's time for an API server that does not answer yet.
const API_SERVER_PATIENCE: Duration = Duration::from_secs(60);
const API_SERVER_PAUSE: Duration = Duration::from_secs(1);
const PROMETHEUS_PORT: u16 = 9090;
/// Stats that turned out to be ours and wait for the loop.
const STATS_IN_FLIGHT: usize = 1024;

#[cfg(test)]
mod tests;
