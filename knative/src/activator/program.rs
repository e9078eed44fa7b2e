//! The activator of a cluster as a program.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser};
use pilotlight_activator::TrafficArgs;
use pilotlight_config::process::{MinimumKubernetes, variables};
use pilotlight_process::flags::{LogArgs, parse};
use pilotlight_process::{FAILURE, StopSignals, WrongSettings, end, start_logs};
use pilotlight_telemetry::Registry;
use tracing::{Level, info};

use super::config::ConfigNames;
use super::start::{KnativeActivatorParams, ListenAddresses, start};
use crate::ClusterArgs;

/// The program of its own.
#[derive(Debug, Parser)]
#[command(name = "pilotlight-knative-activator", version)]
struct ActivatorProgram {
    #[command(flatten)]
    args: KnativeActivatorArgs,
}

/// In the place of Knative's activator: hold requests of the cluster's revisions while their pods come up
///
/// Settings are the variables of Knative's Deployment, and the ConfigMaps of its namespace.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = variables::help(&[variables::CLUSTER, variables::LOGS, variables::ACTIVATOR_TLS]))]
pub struct KnativeActivatorArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Address that all ports are opened on [default: every address of the pod]
    #[arg(long, value_name = "IP", env = "PILOTLIGHT_BIND_ADDRESS", hide_env_values = true)]
    bind_address: Option<IpAddr>,
    /// Port of /readyz, /healthz, /metrics and /v1/activity
    #[arg(long, value_name = "PORT", env = "PROFILING_PORT", hide_env_values = true, default_value = "8008")]
    admin_port: u16,
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    logs: LogArgs,
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    match parse::<ActivatorProgram>(std::env::args_os()) {
        Ok(program) => run(&program.args),
        Err(code) => code,
    }
}

/// Runs the program until a signal says to stop.
pub fn run(args: &KnativeActivatorArgs) -> ExitCode {
    let logs = args.logs.settings();
    start_logs(&logs, Level::INFO);
    end(on_a_runtime(args), logs.format)
}

fn on_a_runtime(args: &KnativeActivatorArgs) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let code = runtime.block_on(serve(args));
    // A task that is left waits for a peer that does not answer.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

async fn serve(args: &KnativeActivatorArgs) -> anyhow::Result<ExitCode> {
    let mut signals = StopSignals::new().context("cannot listen for signals")?;
    let registry = Registry::new();
    let params = args.params(registry.clone()).await?;
    registry.install().context("cannot install the recorder of metrics")?;
    pilotlight_kubernetes::metrics::describe();
    let starting = start(params);
    let activator = tokio::select! {
        started = starting => started?,
        signal = signals.next() => {
            info!(signal, "Stopping before the start was over");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let signal = signals.next().await;
    info!(signal, "Stopping");
    tokio::select! {
        () = activator.stop() => Ok(ExitCode::SUCCESS),
        _ = signals.next() => Ok(ExitCode::from(FAILURE)),
    }
}

impl KnativeActivatorArgs {
    async fn params(&self, registry: Registry) -> anyhow::Result<KnativeActivatorParams> {
        let system_namespace = self.traffic.system_namespace();
        if system_namespace.is_empty() {
            return Err(WrongSettings::new(
                "SYSTEM_NAMESPACE is not set: it names the namespace of Knative's ConfigMaps",
            )
            .into());
        }
        let autoscaler = self
            .traffic
            .autoscaler()
            .map_err(|error| WrongSettings::new(format!("--autoscaler: {error}")))?;
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let mut wrong = WrongSettings::default();
        let minimum = wrong.check_all(MinimumKubernetes::from_env(|name| env.get(name).cloned()));
        let minimum = wrong.finish(|| minimum)?;
        Ok(KnativeActivatorParams {
            minimum,
            client: self.cluster.connect("pilotlight-activator").await?,
            system_namespace: system_namespace.to_owned(),
            config: ConfigNames::from_env(|name| env.get(name).cloned()),
            listen: self.listen(),
            env,
            activator: self.traffic.params(&autoscaler),
            max_connections: self.traffic.max_connections(),
            registry,
            addresses: None,
        })
    }

    fn listen(&self) -> ListenAddresses {
        let all = match self.traffic.pod_ip() {
            // `::` takes both families where the pod has both.
            Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let ip = self.bind_address.unwrap_or(all);
        ListenAddresses { admin: SocketAddr::new(ip, self.admin_port), ..ListenAddresses::on(ip) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(flags: &[&str]) -> KnativeActivatorArgs {
        ActivatorProgram::try_parse_from([&["activator"], flags].concat())
            .unwrap_or_else(|error| panic!("{error}"))
            .args
    }

    #[test]
    fn all_ports_are_knatives_on_every_address_of_the_pods_family() {
        let listen = |flags: &[&str]| {
            let at = args(flags).listen();
            [at.http1, at.http2, at.https, at.admin, at.metrics].map(|address| address.to_string())
        };
        let expected = ["0.0.0.0:8012", "0.0.0.0:8013", "0.0.0.0:8112", "0.0.0.0:8008", "0.0.0.0:9090"];
        assert_eq!(listen(&["--pod-ip", "10.0.0.1"]), expected);
        assert_eq!(listen(&["--pod-ip", "fd00::1"])[0], "[::]:8012");
        let bound = ["--pod-ip", "fd00::1", "--bind-address", "127.0.0.9", "--admin-port", "1"];
        assert_eq!(listen(&bound)[0], "127.0.0.9:8012");
        assert_eq!(listen(&bound)[3], "127.0.0.9:1");
    }
}
