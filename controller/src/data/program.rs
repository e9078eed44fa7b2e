//! The activator of plain Kubernetes as a program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use pilotlight_activator::{ActivatorParams, BufferLimits, start_telemetry};
use pilotlight_config::process::{DEFAULT_MAX_CONNECTIONS, TelemetryEnv, variables};
use pilotlight_net::{Clock, Target};
use pilotlight_process::flags::{CheckArgs, LogArgs};
use pilotlight_process::{FAILURE, MetricsPage, StopSignals, WrongSettings, end, print_valid, start_logs};
use pilotlight_telemetry::{Registry, program_resource};
use tracing::{Level, info};

use super::leaving::LeaveTimes;
use super::start::{DataParams, start};
use super::watches::Scope;
use pilotlight_kubernetes::ClusterArgs;

/// Hold requests of a cluster's workloads while their pods come up, count them, and forward them
#[derive(Clone, Debug, Args)]
#[command(after_long_help = variables::help(&[variables::LOGS, variables::TELEMETRY]))]
pub struct DataArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Namespaces whose workloads are looked after [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    namespace: Vec<String>,
    /// Namespace of the controller, of the activators and of their ConfigMaps
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "SYSTEM_NAMESPACE",
        hide_env_values = true,
        default_value = "pilotlight-system"
    )]
    system_namespace: String,
    /// Name of this pod
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env_values = true)]
    pod_name: String,
    /// Address of this pod, by which endpoint slices name it
    #[arg(long, value_name = "IP", env = "POD_IP", hide_env_values = true)]
    pod_ip: IpAddr,
    /// Node of this pod, for telemetry
    #[arg(long, value_name = "NAME", env = "NODE_NAME", hide_env_values = true, default_value = "")]
    node_name: String,
    /// Address that all ports are bound at [default: every address of the pod's family]
    #[arg(long, value_name = "IP", env = "PILOTLIGHT_BIND_ADDRESS", hide_env_values = true)]
    bind_address: Option<IpAddr>,
    /// Port of /v1/activator, /readyz, /healthz and /metrics
    #[arg(long, value_name = "PORT", default_value_t = ADMIN_PORT)]
    admin_port: u16,
    /// Most connections at each port; more wait to be accepted
    #[arg(
        long, value_name = "COUNT", env = "PILOTLIGHT_MAX_CONNECTIONS", hide_env_values = true,
        default_value_t = DEFAULT_MAX_CONNECTIONS
    )]
    max_connections: usize,
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    logs: LogArgs,
}

/// Runs the program until a signal says to stop.
pub fn run(args: &DataArgs) -> ExitCode {
    let logs = args.logs.settings();
    start_logs(&logs, Level::INFO);
    end(on_a_runtime(args), logs.format)
}

fn on_a_runtime(args: &DataArgs) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let code = runtime.block_on(serve(args));
    // A task that is left waits for a peer that does not answer.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

async fn serve(args: &DataArgs) -> anyhow::Result<ExitCode> {
    let mut signals = StopSignals::new().context("cannot listen for signals")?;
    let registry = Registry::new();
    let params = args.params(&registry, |name| std::env::var(name).ok()).await?;
    if args.check.check_config {
        return Ok(print_valid(&args.in_force()));
    }
    registry.install().context("cannot install the recorder of metrics")?;
    pilotlight_kubernetes::metrics::describe();
    super::metrics::describe();
    let activator = start(params)?;
    let signal = signals.next().await;
    info!(signal, "Stopping");
    tokio::select! {
        () = activator.stop() => Ok(ExitCode::SUCCESS),
        _ = signals.next() => Ok(ExitCode::from(FAILURE)),
    }
}

impl DataArgs {
    /// Reads the variables and finds the API server; all that is wrong with the variables at once.
    async fn params(
        &self,
        registry: &Registry,
        env: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<DataParams> {
        let mut wrong = WrongSettings::default();
        let told = wrong.check_all(TelemetryEnv::from_env(&env)).unwrap_or_default();
        let mut resource = program_resource(&told, "activator", &self.pod_name, &self.system_namespace);
        if !self.node_name.is_empty() {
            resource.push(("k8s.node.name", self.node_name.clone()));
        }
        let telemetry = wrong.check(start_telemetry(&told, &resource, registry, false));
        if self.max_connections == 0 {
            wrong.check(Err::<(), _>("--max-connections: must not be zero"));
        }
        let telemetry = wrong.finish(|| telemetry)?;
        let limits = BufferLimits::default();
        let nobody = Target::ws(NO_AUTOSCALER).context("the address of no autoscaler")?;
        Ok(DataParams {
            client: self.cluster.connect("pilotlight-activator").await?,
            scope: Scope::of(self.namespace.iter().cloned()),
            system_namespace: self.system_namespace.clone(),
            pod_ip: self.pod_ip,
            listen: self.listen(),
            admin: SocketAddr::new(self.listen(), self.admin_port),
            stats_port: STATS_PORT,
            max_connections: self.max_connections,
            leaving: LeaveTimes::default(),
            page: MetricsPage::new(registry.clone(), &resource).with_requests_of(telemetry.clone()),
            activator: ActivatorParams {
                telemetry,
                // No workload may take more than a quarter of what may wait in memory.
                limits: BufferLimits { body_bytes_per_revision: limits.body_bytes / 4, ..limits },
                ..ActivatorParams::new(self.pod_name.clone(), Clock::start(), nobody)
            },
        })
    }

    fn in_force(&self) -> Vec<String> {
        let namespaces = match self.namespace.as_slice() {
            [] => "all".to_owned(),
            some => some.join(", "),
        };
        vec![
            format!("namespaces: {namespaces}; system namespace: {}", self.system_namespace),
            format!(
                "pod: {} at {}; ports at {}, admin port: {}",
                self.pod_name,
                self.pod_ip,
                self.listen(),
                self.admin_port
            ),
        ]
    }

    fn listen(&self) -> IpAddr {
        let all = match self.pod_ip {
            // `::` takes both families where the pod has both.
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        self.bind_address.unwrap_or(all)
    }
}

/// The port at which the controller asks each activator.
pub const ADMIN_PORT: u16 = 9090;
/// The port of the leader that takes stats.
pub const STATS_PORT: u16 = 8080;
/// The autoscaler is found by its Lease.
const NO_AUTOSCALER: &str = "ws://127.0.0.1:1";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: DataArgs,
    }

    fn args(flags: &[&str]) -> Result<DataArgs, String> {
        let pod = ["activator", "--pod-name", "a-1"];
        let parsed = Program::try_parse_from([&pod[..], flags].concat());
        parsed.map(|program| program.args).map_err(|error| error.to_string())
    }

    #[test]
    fn ports_are_bound_at_every_address_of_the_pods_family() {
        let listen = |flags: &[&str]| args(flags).unwrap().listen().to_string();
        assert_eq!(listen(&["--pod-ip", "10.0.0.1"]), "0.0.0.0");
        assert_eq!(listen(&["--pod-ip", "fd00::1"]), "::");
        assert_eq!(listen(&["--pod-ip", "fd00::1", "--bind-address", "127.0.0.9"]), "127.0.0.9");
    }

    #[test]
    fn namespaces_are_a_list_and_none_means_all() {
        let scope = |flags: &[&str]| {
            let args = args(&[&["--pod-ip", "10.0.0.1"], flags].concat()).unwrap();
            Scope::of(args.namespace)
        };
        assert_eq!(scope(&[]), Scope::default());
        assert_eq!(scope(&["--namespace", ""]), Scope::default());
        assert_eq!(scope(&["--namespace", "a,b"]), Scope::of(["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn without_the_address_of_the_pod_nothing_is_started() {
        assert!(args(&[]).unwrap_err().contains("--pod-ip"));
        assert!(args(&["--pod-ip", "here"]).is_err());
    }
}
