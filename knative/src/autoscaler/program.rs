//! The autoscaler in the place of Knative's, as a program: no argument is needed where Knative's Deployment starts it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser};
use pilotlight_config::process::{AutoscalerEnv, MinimumKubernetes, TelemetryEnv, cluster_domain, variables};
use pilotlight_net::Clock;
use pilotlight_process::flags::{CheckArgs, LogArgs, address, parse};
use pilotlight_process::{
    FAILURE, MetricsPage, StopSignals, WrongSettings, end, print_valid, set_log_level, start_logs,
};
use pilotlight_telemetry::{Registry, program_resource};
use tracing::{Level, info};

use super::config_maps::{ConfigMapNames, ConfigMaps};
use super::probe::dns;
use super::running::{RunningParams, STATS_PORT, start};
use crate::ClusterArgs;

/// The autoscaler in Knative's place as a program of its own.
#[derive(Debug, Parser)]
#[command(name = "pilotlight-knative-autoscaler", version)]
struct Program {
    #[command(flatten)]
    args: KnativeAutoscalerArgs,
}

/// Decide how many pods each revision of a cluster with Knative Serving needs, in the place of Knative's autoscaler
#[derive(Debug, Args)]
#[command(after_long_help = variables::help(&[
    variables::KNATIVE_AUTOSCALER,
    variables::CLUSTER,
    variables::LOGS,
    variables::TELEMETRY,
]))]
pub struct KnativeAutoscalerArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Address of the admin port: /metrics, /healthz, /readyz, /v1/decisions [default: port 8008 at every address]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    admin: Option<SocketAddr>,
    /// File to write every decision to, one JSON line each
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    logs: LogArgs,
}

/// The whole process, with the arguments it was started with.
pub fn main() -> ExitCode {
    match parse::<Program>(std::env::args_os()) {
        Ok(program) => run(&program.args),
        Err(code) => code,
    }
}

/// Runs the program: checks the settings, decides until a signal says to stop.
pub fn run(args: &KnativeAutoscalerArgs) -> ExitCode {
    let logs = args.logs.settings();
    start_logs(&logs, Level::INFO);
    end(on_a_runtime(args), logs.format)
}

fn on_a_runtime(args: &KnativeAutoscalerArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(async {
        let mut signals = StopSignals::new().context("cannot listen for signals")?;
        // A signal during the start ends it: nothing is held yet that others wait for.
        let params = tokio::select! {
            params = args.params() => params?,
            signal = signals.next() => return Ok(stopped_early(signal)),
        };
        if args.check.check_config {
            let (client, names) = (&params.client, &params.config_maps);
            let maps = ConfigMaps::read(client, &params.system_namespace, "autoscaler", names).await?;
            return Ok(print_valid(&in_force(&params, &maps)));
        }
        let running = tokio::select! {
            running = start(params) => running?,
            signal = signals.next() => return Ok(stopped_early(signal)),
        };
        let signal = signals.next().await;
        info!(signal, "Stopping");
        Ok(tokio::select! {
            () = running.stop() => ExitCode::SUCCESS,
            _ = signals.next() => ExitCode::from(FAILURE),
        })
    })
}

fn stopped_early(signal: &str) -> ExitCode {
    info!(signal, "Stopping before the start was over");
    ExitCode::SUCCESS
}

fn in_force(params: &RunningParams, maps: &ConfigMaps) -> Vec<String> {
    let election = maps.leader_election();
    vec![
        format!("namespace: {}, cluster domain: {}", params.system_namespace, params.cluster_domain),
        match &params.stateful {
            Some(set) => format!("buckets: {}, by the ordinal of {}", election.buckets, set.pod),
            None => {
                format!("buckets: {}, by leases as {}_{}", election.buckets, params.pod_name, params.pod_ip)
            }
        },
        format!(
            "stats: {}, admin port: {}",
            SocketAddr::new(params.bind_address, params.stats_port),
            params.admin
        ),
    ]
}

impl KnativeAutoscalerArgs {
    /// Reads the variables and finds the API server; all that is wrong with the variables at once.
    async fn params(&self) -> anyhow::Result<RunningParams> {
        let lookup = |name: &str| std::env::var(name).ok();
        let mut wrong = WrongSettings::default();
        let told = wrong.check_all(TelemetryEnv::from_env(lookup));
        let env = wrong.check_all(AutoscalerEnv::from_env(lookup));
        let minimum = wrong.check_all(MinimumKubernetes::from_env(lookup));
        let ((told, env), minimum) = wrong.finish(|| told.zip(env).zip(minimum))?;
        let client = self.cluster.connect("pilotlight-autoscaler").await?;
        let registry = Registry::new();
        registry.install().context("cannot install the recorder of metrics")?;
        pilotlight_autoscaler::metrics::describe();
        pilotlight_kubernetes::metrics::describe();
        super::metrics::describe();
        let resource = program_resource(&told, "autoscaler", &env.pod_name, &env.system_namespace);
        let usual = ConfigMapNames::default();
        Ok(RunningParams {
            client,
            minimum,
            clock: Clock::start(),
            pod_name: env.pod_name,
            pod_ip: env.pod_ip,
            system_namespace: env.system_namespace,
            cluster_domain: env.cluster_domain.unwrap_or_else(domain_around),
            config_maps: ConfigMapNames {
                logging: env.logging.unwrap_or(usual.logging),
                observability: env.observability.unwrap_or(usual.observability),
                leader_election: env.leader_election.unwrap_or(usual.leader_election),
            },
            stateful: env.stateful,
            bind_address: env.bind_address,
            stats_port: STATS_PORT,
            admin: self.admin.unwrap_or(SocketAddr::new(env.bind_address, ADMIN_PORT)),
            prometheus: told.prometheus,
            page: MetricsPage::new(registry, &resource),
            journal: self.journal.clone(),
            resolve: dns(),
            on_level: Arc::new(set_log_level),
        })
    }
}

/// The domain of the cluster around this pod.
fn domain_around() -> String {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    cluster_domain(&text).unwrap_or("cluster.local").to_owned()
}

/// Knative's Deployment names this port for profiles, which there are none of here.
const ADMIN_PORT: u16 = 8008;
