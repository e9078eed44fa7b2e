//! The activator as a program: flags, servers, signals.

use std::ffi::OsString;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use http::{HeaderValue, StatusCode, header};
use pilotlight_config::duration;
use pilotlight_config::process::{MetricsProtocol, PrometheusEnv, TelemetryEnv, TlsEnv};
use pilotlight_net::tls::{CertificateFiles, PodTls, ServerTls, TlsPolicy, TlsWords, keep_renewed};
use pilotlight_net::{Admin, Body, Clock, Drain, Request, Response, install_metrics, listen, plain};
use pilotlight_process::{StopSignals, exposition, flush_logs, start_logs};
use pilotlight_telemetry::{RevisionNames, Telemetry, TelemetryParams, prometheus_tls};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{Level, field, info};

use crate::{Activator, ActivatorParams, BufferLimits, IdleConnections, PodsOverTls, ProbeParams, endpoints};

/// Holds requests while pods come up, so that none is lost.
#[derive(Debug, Parser)]
#[command(name = "pilotlight-activator", version)]
struct Flags {
    /// Where to take requests
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8012")]
    listen: SocketAddr,
    /// Where to take requests over TLS, given --tls-cert-dir
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8112")]
    listen_tls: SocketAddr,
    /// The folder of tls.crt and tls.key; without it, no requests are taken over TLS
    #[arg(long, value_name = "DIR")]
    tls_cert_dir: Option<PathBuf>,
    /// Certificates of the authorities that pods' certificates come from, in PEM: TLS to the pods that take it
    #[arg(long, value_name = "FILE", num_args = 1..)]
    tls_ca: Vec<PathBuf>,
    /// Use TLS to all pods, on port 8112 where the table of endpoints names none
    #[arg(long, requires = "tls_ca")]
    tls_to_pods: bool,
    /// How often to look whether certificates were replaced
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = some_time)]
    tls_poll_interval: Duration,
    /// Where the table of endpoints is served
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090/v1/endpoints")]
    endpoints: String,
    /// Where the autoscaler takes stats; if not given, the service `autoscaler` in the system namespace, or, where there
    /// is none, ws://127.0.0.1:8080
    #[arg(long, value_name = "WS_URL")]
    autoscaler: Option<String>,
    /// Where to serve /metrics, /healthz, /readyz and /v1/activity; nowhere if not given
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// How long to go on serving after SIGTERM while probes fail already
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = duration::parse)]
    drain_wait: Duration,
    /// The name to report under
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "activator")]
    pod_name: String,
    /// Its own address, by which it finds its share of a revision's pods; without it, it uses all of them
    #[arg(long, value_name = "IP", env = "POD_IP")]
    pod_ip: Option<IpAddr>,
    /// The namespace it runs in
    #[arg(long, value_name = "NAMESPACE", env = "SYSTEM_NAMESPACE", default_value = "")]
    system_namespace: String,
    /// What cluster-local host names end in; if not given, what /etc/resolv.conf says, or cluster.local
    #[arg(long, value_name = "DOMAIN", env = "CLUSTER_DOMAIN")]
    cluster_domain: Option<String>,
    /// How long a pod may take to answer a probe
    #[arg(long, value_name = "DURATION", env = "PROBE_TIMEOUT", default_value = "300ms", value_parser = some_time)]
    probe_timeout: Duration,
    /// How long after a round of probes the next begins
    #[arg(long, value_name = "DURATION", env = "PROBE_FREQUENCY", default_value = "200ms", value_parser = some_time)]
    probe_frequency: Duration,
    /// The most idle connections to all pods together that are kept; no limit if not given
    #[arg(long, value_name = "COUNT", env = "MAX_IDLE_PROXY_CONNS")]
    max_idle_connections: Option<usize>,
    /// The most idle connections to one pod that are kept
    #[arg(
        long, value_name = "COUNT", env = "MAX_IDLE_PROXY_CONNS_PER_HOST",
        default_value_t = IdleConnections::default().per_pod
    )]
    max_idle_connections_per_pod: usize,
    /// The most requests of one revision that may wait
    #[arg(long, value_name = "COUNT", default_value_t = BufferLimits::default().requests_per_revision)]
    max_queued_per_revision: usize,
    /// The most requests of all revisions that may wait
    #[arg(long, value_name = "COUNT", default_value_t = BufferLimits::default().requests)]
    max_queued: usize,
    /// Let the only revision there is answer for every host
    #[arg(long)]
    single_default: bool,
    /// Write logs as JSON
    #[arg(long)]
    log_json: bool,
}

impl Flags {
    fn cluster_domain(&self) -> String {
        if let Some(domain) = self.cluster_domain.as_ref().filter(|domain| !domain.is_empty()) {
            return domain.clone();
        }
        let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        cluster_domain(&resolver).unwrap_or("cluster.local").to_owned()
    }

    fn autoscaler_url(&self) -> String {
        match (&self.autoscaler, self.system_namespace.as_str()) {
            (Some(url), _) => url.clone(),
            (None, "") => "ws://127.0.0.1:8080".to_owned(),
            (None, namespace) => format!("ws://autoscaler.{namespace}.svc.{}:8080", self.cluster_domain()),
        }
    }
}

/// Runs the program with the process's own arguments.
pub fn main() -> ExitCode {
    main_with_args(std::env::args_os())
}

/// Runs the program; the first argument is its name.
pub fn main_with_args(args: impl Iterator<Item = OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            // Help and version are errors to clap, too; 2 is for real ones. A closed terminal needs no text.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let ended = run(flags);
    flush_logs();
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pilotlight-activator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    start_logs(flags.log_json, Level::INFO);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let code = runtime.block_on(serve(flags));
    // Whatever is left hangs on a peer that does not answer.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

async fn serve(flags: Flags) -> anyhow::Result<ExitCode> {
    let mut signals = StopSignals::new().context("listening for signals")?;
    let metrics = install_metrics(&[]).context("installing metrics")?;
    exposition::started();
    let env = telemetry_env()?;
    let tables = endpoints::follow(&flags.endpoints).context("--endpoints")?;
    let listen = |addr: SocketAddr| listen(addr).with_context(|| format!("listening on {addr}"));
    let listener = listen(flags.listen)?;
    let admin = match admin_address(&flags, &env.prometheus)? {
        Some(addr) => Some(listen(addr)?),
        None => None,
    };
    let admin_tls = match &env.prometheus.tls {
        Some(tls) => Some(prometheus_tls(tls, flags.tls_poll_interval)?),
        None => None,
    };
    // Where they really listen, should a port have been given as 0.
    let address = listener.local_addr()?;
    let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let over_tls = match server_tls(&flags)? {
        Some(tls) => Some((listen(flags.listen_tls)?, tls)),
        None => None,
    };
    let pods_over_tls = pods_over_tls(&flags)?;
    let telemetry = telemetry(&flags, &env)?;
    let activator = Activator::start(ActivatorParams { pods_over_tls, telemetry, ..params(&flags) }, tables);
    if let Some(listener) = admin {
        let target = exposition::target_info(&resource(&flags, &env));
        let admin = Arc::new(admin_routes(activator.clone(), metrics.clone(), target));
        // It answers to the end: it ends with the runtime.
        match admin_tls {
            None => tokio::spawn(pilotlight_net::serve(listener, admin, Drain::default())),
            Some(tls) => tokio::spawn(pilotlight_net::serve_tls(listener, tls, admin, Drain::default())),
        };
    }
    tokio::spawn(async move {
        loop {
            sleep(METRICS_UPKEEP).await;
            metrics.run_upkeep();
        }
    });
    info!(%address, admin = admin_address.map(field::display), autoscaler = flags.autoscaler_url(), "Activator is listening");

    let drain = Drain::default();
    let mut serving = JoinSet::new();
    serving.spawn({
        let (activator, drain) = (activator.clone(), drain.clone());
        async move { activator.serve(listener, drain).await }
    });
    if let Some((listener, tls)) = over_tls {
        info!(listen = %flags.listen_tls, "Serving over TLS");
        let (activator, drain) = (activator.clone(), drain.clone());
        serving.spawn(async move { activator.serve_tls(listener, tls, drain).await });
    }
    signals.next().await;
    let stop = async {
        activator.drain().await;
        drain.start();
        // Err: a panic, which has been printed. Nothing is being served in either case.
        while serving.join_next().await.is_some() {}
        activator.close().await;
    };
    tokio::select! {
        () = stop => Ok(ExitCode::SUCCESS),
        _ = signals.next() => Ok(ExitCode::FAILURE),
    }
}

/// The certificate to show; `None`: no requests over TLS.
fn server_tls(flags: &Flags) -> anyhow::Result<Option<Arc<ServerTls>>> {
    let Some(folder) = &flags.tls_cert_dir else { return Ok(None) };
    let env = TlsEnv::from_env(ENV_PREFIX, |name| std::env::var(name).ok());
    let policy = TlsPolicy::parse(TlsWords {
        min_version: &env.min_version,
        max_version: &env.max_version,
        cipher_suites: &env.cipher_suites,
        curve_preferences: &env.curve_preferences,
    })
    .map_err(|error| anyhow::anyhow!("{ENV_PREFIX}{error}"))?;
    let tls = ServerTls::load(CertificateFiles::in_folder(folder), policy).context("--tls-cert-dir")?;
    let tls = Arc::new(tls);
    tokio::spawn(keep_renewed(&tls, flags.tls_poll_interval));
    Ok(Some(tls))
}

/// Whom to trust among pods; `None`: no TLS to them.
fn pods_over_tls(flags: &Flags) -> anyhow::Result<Option<PodsOverTls>> {
    if flags.tls_ca.is_empty() {
        return Ok(None);
    }
    let tls = Arc::new(PodTls::load(flags.tls_ca.clone()).context("--tls-ca")?);
    tokio::spawn(keep_renewed(&tls, flags.tls_poll_interval));
    Ok(Some(PodsOverTls { tls, always: flags.tls_to_pods }))
}

fn some_time(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err("must not be zero".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

fn params(flags: &Flags) -> ActivatorParams {
    ActivatorParams {
        cluster_domain: flags.cluster_domain(),
        pod_ip: flags.pod_ip,
        probing: ProbeParams { timeout: flags.probe_timeout, interval: flags.probe_frequency },
        idle: IdleConnections {
            per_pod: flags.max_idle_connections_per_pod,
            total: flags.max_idle_connections.unwrap_or(usize::MAX),
        },
        limits: BufferLimits {
            requests_per_revision: flags.max_queued_per_revision,
            requests: flags.max_queued,
            ..BufferLimits::default()
        },
        single_default: flags.single_default,
        drain_wait: flags.drain_wait,
        ..ActivatorParams::new(flags.pod_name.clone(), Clock::start(), flags.autoscaler_url())
    }
}

/// The domain of the cluster's services, if the resolver searches it.
fn cluster_domain(resolver: &str) -> Option<&str> {
    let searches = resolver.lines().filter_map(|line| line.trim().strip_prefix("search "));
    let domains = searches.flat_map(str::split_whitespace);
    domains.filter_map(|domain| domain.strip_prefix("svc.")).map(|domain| domain.trim_end_matches('.')).next()
}

fn telemetry_env() -> anyhow::Result<TelemetryEnv> {
    TelemetryEnv::from_env(|name| std::env::var(name).ok()).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", errors.join("; "))
    })
}

/// Where the admin port is: where the flag says, or where Knative's variables say that Prometheus asks.
fn admin_address(flags: &Flags, prometheus: &PrometheusEnv) -> anyhow::Result<Option<SocketAddr>> {
    if flags.admin.is_some() || (prometheus.host.is_none() && prometheus.port.is_none()) {
        return Ok(flags.admin);
    }
    let host = prometheus.host.as_deref().unwrap_or("0.0.0.0");
    let ip: IpAddr = host.parse().with_context(|| format!("METRICS_PROMETHEUS_HOST: {host:?}"))?;
    Ok(Some(SocketAddr::new(ip, prometheus.port.unwrap_or(PROMETHEUS_PORT))))
}

fn telemetry(flags: &Flags, env: &TelemetryEnv) -> anyhow::Result<Telemetry> {
    let counts = env.observability.request_metrics.protocol == MetricsProtocol::Prometheus;
    Ok(Telemetry::start(TelemetryParams {
        env,
        scope: "knative.dev/serving/pkg/activator",
        resource: &resource(flags, env),
        revision: RevisionNames::default(),
        sending_span: |request: &Request| format!("{} {}", request.method(), request.uri().path()),
        histograms: counts.then(crate::metrics::histograms),
        // Pods come and go, and series stay.
        names_upstreams: false,
    })?)
}

/// What all spans and series have in common, under OpenTelemetry's names.
fn resource(flags: &Flags, env: &TelemetryEnv) -> Vec<(&'static str, String)> {
    let resource = [
        ("service.name", env.service_name.clone().unwrap_or_else(|| "activator".to_owned())),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", flags.pod_name.clone()),
        ("k8s.namespace.name", flags.system_namespace.clone()),
        ("k8s.pod.name", flags.pod_name.clone()),
    ];
    resource.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn admin_routes(
    activator: Activator,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    target: String,
) -> Admin {
    let ready_of = activator.clone();
    Admin::new()
        .metrics(move || metrics.render() + &exposition::exposition() + &target)
        .healthz()
        .readyz(move || ready_of.check().map_err(str::to_owned))
        .route("/v1/activity", move |_| ready(activity(&activator)))
}

fn activity(activator: &Activator) -> Response {
    match serde_json::to_vec_pretty(&activator.activity()) {
        Ok(json) => {
            let mut response = Response::new(Body::full(json));
            let json_type = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json_type);
            response
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

const ENV_PREFIX: &str = "ACTIVATOR_";
/// Where Knative's components show their metrics.
const PROMETHEUS_PORT: u16 = 9090;
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_domain_is_what_the_resolver_searches() {
        let resolver = "nameserver 10.0.0.10\nsearch ns.svc.corp.example svc.corp.example corp.example\n";
        assert_eq!(cluster_domain(resolver), Some("corp.example"));
        assert_eq!(cluster_domain("search example.com\n"), None);
    }

    #[test]
    fn the_autoscaler_is_a_service_of_the_system_namespace_if_there_is_one() {
        let url = |args: &[&str]| {
            let flags = [&["activator", "--cluster-domain", "c.d"], args].concat();
            Flags::try_parse_from(flags).unwrap().autoscaler_url()
        };
        assert_eq!(url(&[]), "ws://127.0.0.1:8080");
        let system = ["--system-namespace", "knative-serving"];
        assert_eq!(url(&system), "ws://autoscaler.knative-serving.svc.c.d:8080");
        assert_eq!(url(&[&system[..], &["--autoscaler", "ws://a:1"]].concat()), "ws://a:1");
    }

    #[test]
    fn flags_have_knatives_defaults() {
        let flags = Flags::try_parse_from(["activator"]).unwrap();
        let params = params(&flags);
        assert_eq!((params.probing, params.idle), (ProbeParams::default(), IdleConnections::default()));
        assert!(Flags::try_parse_from(["activator", "--probe-timeout", "0s"]).is_err());
        assert!(Flags::try_parse_from(["activator", "--pod-ip", "here"]).is_err());
    }

    #[test]
    fn prometheus_variables_open_the_admin_port_unless_a_flag_does() {
        let at = |args: &[&str], host: Option<&str>, port| {
            let flags = Flags::try_parse_from([&["activator"], args].concat()).unwrap();
            let prometheus = PrometheusEnv { host: host.map(str::to_owned), port, tls: None };
            admin_address(&flags, &prometheus).map(|address| address.map(|address| address.to_string()))
        };
        assert_eq!(at(&[], None, None).unwrap(), None);
        assert_eq!(at(&[], None, Some(9000)).unwrap().as_deref(), Some("0.0.0.0:9000"));
        assert_eq!(at(&[], Some("::1"), None).unwrap().as_deref(), Some("[::1]:9090"));
        let flag = ["--admin", "127.0.0.1:1"];
        assert_eq!(at(&flag, Some("::1"), Some(2)).unwrap().as_deref(), Some("127.0.0.1:1"));
        assert!(at(&[], Some("somewhere"), None).is_err());
    }
}
