//! What every activator of a cluster is told, wherever its endpoints come from: its name, its autoscaler, its limits.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use pilotlight_config::duration;
use pilotlight_config::process::{DEFAULT_MAX_CONNECTIONS, MetricsProtocol, TelemetryEnv, TlsEnv};
use pilotlight_net::tls::{TlsPolicy, TlsWords};
use pilotlight_net::{Clock, Request, Target, TargetError};
use pilotlight_telemetry::{
    Registry, RevisionNames, Telemetry, TelemetryParams, TraceError, program_resource,
};

use crate::{ActivatorParams, BufferLimits, IdleConnections, ProbeParams};

/// Flags of every activator. Their variables are those of Knative's Deployment.
#[derive(Clone, Debug, Args)]
pub struct TrafficArgs {
    /// URL of the autoscaler's port for stats [default: the service autoscaler in the system namespace, or, where there
    /// is none, ws://127.0.0.1:8080]
    #[arg(long, value_name = "WS_URL")]
    autoscaler: Option<String>,
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
    pub(crate) max_connections: usize,
}

impl TrafficArgs {
    /// The autoscaler's port for stats.
    pub fn autoscaler(&self) -> Result<Target, TargetError> {
        Target::ws(&self.autoscaler_url())
    }

    /// The namespace of the autoscaler, of the activators and of their settings; empty: none was given.
    pub fn system_namespace(&self) -> &str {
        &self.system_namespace
    }

    /// The address of this activator, if it was given.
    pub fn pod_ip(&self) -> Option<IpAddr> {
        self.pod_ip
    }

    /// The most connections of clients at each port.
    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// Attributes that all spans and series have in common, by OpenTelemetry's names.
    pub fn resource(&self, env: &TelemetryEnv) -> Vec<(&'static str, String)> {
        program_resource(env, "activator", &self.pod_name, &self.system_namespace)
    }

    /// Parameters of an activator; the clock starts now.
    pub fn params(&self, autoscaler: &Target) -> ActivatorParams {
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
                ..BufferLimits::default()
            },
            drain_wait: self.drain_wait,
            ..ActivatorParams::new(self.pod_name.clone(), Clock::start(), autoscaler.clone())
        }
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
}

/// Versions, cipher suites and curves of an activator's TLS, by the variables `ACTIVATOR_TLS_*`.
pub fn tls_policy(env: impl Fn(&str) -> Option<String>) -> Result<TlsPolicy, String> {
    let env = TlsEnv::from_env(ENV_PREFIX, env);
    let policy = TlsPolicy::parse(TlsWords {
        min_version: &env.min_version,
        max_version: &env.max_version,
        cipher_suites: &env.cipher_suites,
        curve_preferences: &env.curve_preferences,
    });
    policy.map_err(|error| format!("{ENV_PREFIX}{error}"))
}

/// Starts an activator's telemetry, on the current runtime. `changes_log`: the request log may be changed later.
pub fn start_telemetry(
    env: &TelemetryEnv,
    resource: &[(&'static str, String)],
    registry: &Registry,
    changes_log: bool,
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
        changes_log,
    })
}

pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: TrafficArgs,
    }

    fn args(flags: &[&str]) -> TrafficArgs {
        Program::try_parse_from([&["activator"], flags].concat())
            .unwrap_or_else(|error| panic!("{error}"))
            .args
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
}
