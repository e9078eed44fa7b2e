//! The activator's flags and variables, and the settings they stand for: all checked before anything is started.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser};
use pilotlight_config::duration;
use pilotlight_config::process::{DEFAULT_MAX_CONNECTIONS, MetricsProtocol, TelemetryEnv, TlsEnv, variables};
use pilotlight_net::tls::{CertificateFiles, PodTls, ServerTls, TlsError, TlsPolicy, TlsWords};
use pilotlight_net::{Clock, Request, Target};
use pilotlight_process::flags::{AdminArgs, CheckArgs, LogArgs, address};
use pilotlight_process::{LogSettings, WrongSettings, admin_address, chain};
use pilotlight_telemetry::{
    Registry, RevisionNames, Telemetry, TelemetryParams, TraceError, program_resource, prometheus_tls,
};

use crate::{ActivatorParams, BufferLimits, IdleConnections, PodsOverTls, ProbeParams};

/// The activator as a program of its own.
#[derive(Debug, Parser)]
#[command(name = "pilotlight-activator", version)]
pub(crate) struct Program {
    #[command(flatten)]
    pub(crate) args: ActivatorArgs,
}

/// Hold requests while pods come up, so that none is lost
#[derive(Debug, Args)]
#[command(
    after_long_help = variables::help(&[variables::LOGS, variables::ACTIVATOR_TLS, variables::TELEMETRY]),
    mut_arg("admin", |flag| flag.help(ADMIN)),
)]
pub struct ActivatorArgs {
    /// Address to take requests at
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8012", value_parser = address)]
    listen: SocketAddr,
    /// Address to take requests over TLS at, given --tls-cert-dir
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8112", value_parser = address)]
    listen_tls: SocketAddr,
    /// Folder of tls.crt and tls.key; without it, no requests are taken over TLS
    #[arg(long, value_name = "DIR")]
    tls_cert_dir: Option<PathBuf>,
    /// Authorities (PEM files) of the pods' certificates: TLS to the pods that take it
    #[arg(long, value_name = "FILE", num_args = 1..)]
    tls_ca: Vec<PathBuf>,
    /// Use TLS to all pods, on port 8112 where their endpoints name none
    #[arg(long, requires = "tls_ca")]
    tls_to_pods: bool,
    /// How often to look whether certificates were replaced
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = some_time)]
    tls_poll_interval: Duration,
    /// URL of the endpoints
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090/v1/endpoints")]
    endpoints: String,
    /// URL of the autoscaler's port for stats [default: the service autoscaler in the system namespace, or, where there
    /// is none, ws://127.0.0.1:8080]
    #[arg(long, value_name = "WS_URL")]
    autoscaler: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// How long to go on serving after SIGTERM while probes fail already
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = duration::parse)]
    drain_wait: Duration,
    /// Name to report under
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env_values = true, default_value = "activator")]
    pod_name: String,
    /// Address of this activator, by which it finds its share of a revision's pods; without it, it uses all of them
    #[arg(long, value_name = "IP", env = "POD_IP", hide_env_values = true)]
    pod_ip: Option<IpAddr>,
    /// Namespace of the autoscaler's service
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "SYSTEM_NAMESPACE",
        hide_env_values = true,
        default_value = ""
    )]
    system_namespace: String,
    /// End of cluster-local host names [default: what /etc/resolv.conf says, or cluster.local]
    #[arg(long, value_name = "DOMAIN", env = "CLUSTER_DOMAIN", hide_env_values = true)]
    cluster_domain: Option<String>,
    /// How long a pod may take to answer a probe
    #[arg(
        long, value_name = "DURATION", env = "PROBE_TIMEOUT", hide_env_values = true, default_value = "300ms",
        value_parser = some_time
    )]
    probe_timeout: Duration,
    /// How long after a round of probes the next begins
    #[arg(
        long, value_name = "DURATION", env = "PROBE_FREQUENCY", hide_env_values = true, default_value = "200ms",
        value_parser = some_time
    )]
    probe_frequency: Duration,
    /// Most idle connections kept to all pods together [default: no limit]
    #[arg(long, value_name = "COUNT", env = "MAX_IDLE_PROXY_CONNS", hide_env_values = true)]
    max_idle_connections: Option<usize>,
    /// Most idle connections kept to one pod
    #[arg(
        long, value_name = "COUNT", env = "MAX_IDLE_PROXY_CONNS_PER_HOST", hide_env_values = true,
        default_value_t = IdleConnections::default().per_pod
    )]
    max_idle_connections_per_pod: usize,
    /// Most requests of one revision that may wait
    #[arg(long, value_name = "COUNT", default_value_t = BufferLimits::default().requests_per_revision)]
    max_queued_per_revision: usize,
    /// Most requests of all revisions that may wait
    #[arg(long, value_name = "COUNT", default_value_t = BufferLimits::default().requests)]
    max_queued: usize,
    /// Most bytes of one revision's waiting requests in memory: beginnings of bodies, and large heads
    #[arg(long, value_name = "BYTES", default_value_t = BufferLimits::default().body_bytes_per_revision)]
    max_queued_bytes_per_revision: usize,
    /// The same of all revisions
    #[arg(long, value_name = "BYTES", default_value_t = BufferLimits::default().body_bytes)]
    max_queued_bytes: usize,
    /// Most connections at each port; more wait to be accepted
    #[arg(
        long, value_name = "COUNT", env = "PILOTLIGHT_MAX_CONNECTIONS", hide_env_values = true,
        default_value_t = DEFAULT_MAX_CONNECTIONS, value_parser = some_number
    )]
    max_connections: usize,
    /// Let the only revision there is answer for every host
    #[arg(long)]
    single_default: bool,
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    logs: LogArgs,
}

/// The settings in force, all of them legal.
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    /// `None`: no requests over TLS.
    pub(crate) over_tls: Option<(SocketAddr, Arc<ServerTls>)>,
    pub(crate) tls_poll_interval: Duration,
    pub(crate) endpoints: Target,
    pub(crate) autoscaler: Target,
    /// `None`: there is no admin port.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) admin_tls: Option<Arc<ServerTls>>,
    /// The most connections of clients at each port.
    pub(crate) max_connections: usize,
    /// Attributes that all spans and series have in common, by OpenTelemetry's names.
    pub(crate) resource: Vec<(&'static str, String)>,
    pub(crate) params: ActivatorParams,
}

impl ActivatorArgs {
    pub(crate) fn logs(&self) -> LogSettings {
        self.logs.settings()
    }

    /// Whether to stop after the check.
    pub(crate) fn only_checks(&self) -> bool {
        self.check.check_config
    }

    /// Reads files and variables, and checks everything; all that is wrong at once. On a runtime: traces begin to be
    /// sent as soon as there are any.
    pub(crate) fn settings(
        &self,
        env: impl Fn(&str) -> Option<String>,
        registry: &Registry,
    ) -> Result<Settings, WrongSettings> {
        let mut wrong = WrongSettings::default();
        let endpoints = wrong.check_named("--endpoints", Target::http(&self.endpoints));
        let autoscaler = wrong.check_named("--autoscaler", Target::ws(&self.autoscaler_url()));
        let told = wrong.check_all(TelemetryEnv::from_env(&env)).unwrap_or_default();
        let admin = wrong.check(admin_address(self.admin.admin, &told.prometheus, None)).flatten();
        let admin_tls = told.prometheus.tls.as_ref().and_then(|tls| wrong.check(prometheus_tls(tls)));
        let over_tls = self.tls_cert_dir.as_ref().and_then(|folder| {
            let tls = wrong.check(server_tls(folder, &TlsEnv::from_env(ENV_PREFIX, &env)))?;
            Some((self.listen_tls, tls))
        });
        let pods_over_tls = wrong.check_named("--tls-ca", self.pods_over_tls()).flatten();
        let resource = self.resource(&told);
        let telemetry = wrong.check(telemetry(&told, &resource, registry));
        wrong.finish(|| {
            let autoscaler = autoscaler?;
            Some(Settings {
                listen: self.listen,
                over_tls,
                tls_poll_interval: self.tls_poll_interval,
                endpoints: endpoints?,
                admin,
                admin_tls,
                max_connections: self.max_connections,
                params: ActivatorParams { pods_over_tls, telemetry: telemetry?, ..self.params(&autoscaler) },
                autoscaler,
                resource,
            })
        })
    }

    fn autoscaler_url(&self) -> String {
        match (&self.autoscaler, self.system_namespace.as_str()) {
            (Some(url), _) => url.clone(),
            (None, "") => "ws://127.0.0.1:8080".to_owned(),
            (None, namespace) => format!("ws://autoscaler.{namespace}.svc.{}:8080", self.cluster_domain()),
        }
    }

    fn cluster_domain(&self) -> String {
        if let Some(domain) = self.cluster_domain.as_ref().filter(|domain| !domain.is_empty()) {
            return domain.clone();
        }
        let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        cluster_domain(&resolver).unwrap_or("cluster.local").to_owned()
    }

    /// The authorities of the pods' certificates; `None`: no TLS to pods.
    fn pods_over_tls(&self) -> Result<Option<PodsOverTls>, TlsError> {
        if self.tls_ca.is_empty() {
            return Ok(None);
        }
        let tls = Arc::new(PodTls::load(self.tls_ca.clone())?);
        Ok(Some(PodsOverTls { tls, always: self.tls_to_pods }))
    }

    /// Attributes that all spans and series have in common, by OpenTelemetry's names.
    fn resource(&self, env: &TelemetryEnv) -> Vec<(&'static str, String)> {
        program_resource(env, "activator", &self.pod_name, &self.system_namespace)
    }

    fn params(&self, autoscaler: &Target) -> ActivatorParams {
        ActivatorParams {
            cluster_domain: self.cluster_domain(),
            pod_ip: self.pod_ip,
            probing: ProbeParams { timeout: self.probe_timeout, interval: self.probe_frequency },
            idle: IdleConnections {
                per_pod: self.max_idle_connections_per_pod,
                total: self.max_idle_connections.unwrap_or(usize::MAX),
            },
            limits: BufferLimits {
                requests_per_revision: self.max_queued_per_revision,
                requests: self.max_queued,
                body_bytes_per_revision: self.max_queued_bytes_per_revision,
                body_bytes: self.max_queued_bytes,
            },
            single_default: self.single_default,
            drain_wait: self.drain_wait,
            ..ActivatorParams::new(self.pod_name.clone(), Clock::start(), autoscaler.clone())
        }
    }
}

impl Settings {
    /// The settings in force, for `--check-config`.
    pub(crate) fn in_force(&self) -> Vec<String> {
        let over_tls =
            self.over_tls.as_ref().map_or("no TLS".to_owned(), |(address, _)| format!("TLS {address}"));
        let to_pods = match &self.params.pods_over_tls {
            None => "in the clear",
            Some(PodsOverTls { always: false, .. }) => "over TLS where they take it",
            Some(PodsOverTls { always: true, .. }) => "over TLS",
        };
        let admin = self.admin.map_or("none".to_owned(), |address| address.to_string());
        vec![
            format!("requests: {} ({over_tls}), to pods {to_pods}; admin port: {admin}", self.listen),
            format!("autoscaler: {}, endpoints: {}", self.autoscaler, self.endpoints),
        ]
    }
}

fn server_tls(folder: &Path, env: &TlsEnv) -> Result<Arc<ServerTls>, String> {
    let policy = TlsPolicy::parse(TlsWords {
        min_version: &env.min_version,
        max_version: &env.max_version,
        cipher_suites: &env.cipher_suites,
        curve_preferences: &env.curve_preferences,
    })
    .map_err(|error| format!("{ENV_PREFIX}{error}"))?;
    let tls = ServerTls::load(CertificateFiles::in_folder(folder), policy);
    tls.map(Arc::new).map_err(|error| format!("--tls-cert-dir: {}", chain(&error)))
}

fn telemetry(
    env: &TelemetryEnv,
    resource: &[(&'static str, String)],
    registry: &Registry,
) -> Result<Telemetry, TraceError> {
    let counts = env.observability.request_metrics.protocol == MetricsProtocol::Prometheus;
    Telemetry::start(TelemetryParams {
        env,
        scope: "knative.dev/serving/pkg/activator",
        resource,
        revision: RevisionNames::default(),
        sending_span: |request: &Request| format!("{} {}", request.method(), request.uri().path()),
        registry: counts.then(|| registry.clone()),
        // Pods come and go, and series stay.
        names_upstreams: false,
    })
}

fn some_time(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err("must not be zero".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

fn some_number(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must not be zero".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

/// The domain of the cluster's services, if the resolver searches it.
fn cluster_domain(resolver: &str) -> Option<&str> {
    let searches = resolver.lines().filter_map(|line| line.trim().strip_prefix("search "));
    let domains = searches.flat_map(str::split_whitespace);
    domains.filter_map(|domain| domain.strip_prefix("svc.")).map(|domain| domain.trim_end_matches('.')).next()
}

const ENV_PREFIX: &str = "ACTIVATOR_";
const ADMIN: &str = "Address of the admin port: /metrics, /healthz, /readyz, /v1/activity [default: none, or what \
                     METRICS_PROMETHEUS_HOST and _PORT say]";

#[cfg(test)]
mod tests {
    use super::*;

    fn args(flags: &[&str]) -> ActivatorArgs {
        Program::try_parse_from([&["activator"], flags].concat()).unwrap().args
    }

    fn settings(flags: &[&str], env: &[(&str, &str)]) -> Result<Settings, WrongSettings> {
        let lookup =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        args(flags).settings(lookup, &Registry::new())
    }

    #[test]
    fn the_clusters_domain_is_what_the_resolver_searches() {
        let resolver = "nameserver 10.0.0.10\nsearch ns.svc.corp.example svc.corp.example corp.example\n";
        assert_eq!(cluster_domain(resolver), Some("corp.example"));
        assert_eq!(cluster_domain("search example.com\n"), None);
    }

    #[test]
    fn the_autoscaler_is_a_service_of_the_system_namespace_if_there_is_one() {
        let url = |flags: &[&str]| args(&[&["--cluster-domain", "c.d"], flags].concat()).autoscaler_url();
        assert_eq!(url(&[]), "ws://127.0.0.1:8080");
        let system = ["--system-namespace", "knative-serving"];
        assert_eq!(url(&system), "ws://autoscaler.knative-serving.svc.c.d:8080");
        assert_eq!(url(&[&system[..], &["--autoscaler", "ws://a:1"]].concat()), "ws://a:1");
    }

    #[tokio::test]
    async fn flags_have_knatives_defaults() {
        let params = settings(&[], &[]).unwrap().params;
        assert_eq!((params.probing, params.idle), (ProbeParams::default(), IdleConnections::default()));
        for wrong in [["--probe-timeout", "0s"], ["--pod-ip", "here"], ["--listen", "here"]] {
            assert!(Program::try_parse_from([&["activator"], &wrong[..]].concat()).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn everything_that_is_wrong_is_told_at_once() {
        let flags = [
            "--autoscaler",
            "http://x",
            "--endpoints",
            "x:1",
            "--tls-ca",
            "/none",
            "--tls-cert-dir",
            "/none",
        ];
        let env = [("OBSERVABILITY_CONFIG", "{"), ("METRICS_PROMETHEUS_HOST", "here")];
        let Err(wrong) = settings(&flags, &env) else { panic!("nothing is right") };
        let wrong = wrong.to_string();
        for part in [
            "--autoscaler: `http://x` is not of the form ws://host:port",
            "--endpoints: `x:1` is not of the form http://host:port/path",
            "OBSERVABILITY_CONFIG: ",
            "--tls-ca: ",
            "--tls-cert-dir: ",
        ] {
            assert!(wrong.lines().any(|line| line.starts_with(part)), "{part} in\n{wrong}");
        }
    }
}
