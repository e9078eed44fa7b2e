//! The controller as a program: no argument is needed where the manifest starts it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use pilotlight_config::process::TelemetryEnv;
use pilotlight_kubernetes::ClusterArgs;
use pilotlight_kubernetes::write::within;
use pilotlight_process::flags::{CheckArgs, LogArgs, address, parse};
use pilotlight_process::{FAILURE, MetricsPage, StopSignals, WrongSettings, end, print_valid, start_logs};
use pilotlight_telemetry::{Registry, program_resource};
use tracing::{Level, info};

use super::config::{self, AUTOSCALER};
use super::running::{ADMIN_PORT, LEASE, Params, SYSTEM_NAMESPACE, start};

/// The controller as a program of its own.
#[derive(Debug, Parser)]
#[command(name = "pilotlight-controller", version)]
struct Program {
    #[command(flatten)]
    args: LeaderArgs,
}

/// Decide how many pods each workload of a plain cluster needs, and lead its traffic to the activators
#[derive(Debug, Args)]
pub struct LeaderArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Namespaces to watch, with commas between them [default: all]
    #[arg(long = "namespace", short = 'n', value_name = "NAMESPACE", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Namespace of Pilotlight's own parts
    #[arg(long, value_name = "NAMESPACE", env = "SYSTEM_NAMESPACE", hide_env_values = true, default_value = SYSTEM_NAMESPACE)]
    system_namespace: String,
    /// Name of this pod
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env_values = true)]
    pod_name: String,
    /// Address of this pod: activators find it by the Lease
    #[arg(long, value_name = "ADDRESS", env = "POD_IP", hide_env_values = true)]
    pod_ip: IpAddr,
    /// Address that all servers bind to
    #[arg(long, value_name = "ADDRESS", env = "PILOTLIGHT_BIND_ADDRESS", hide_env_values = true, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    bind_address: IpAddr,
    /// Address of the admin port: /metrics, /healthz, /readyz, /v1/decisions [default: port 9091 at every address]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    admin: Option<SocketAddr>,
    /// Choose the pods that go when there are to be fewer: needs the right to patch pods
    #[arg(long)]
    with_deletion_cost: bool,
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

/// Runs the program: checks the settings, and leads or stands by until a signal says to stop.
pub fn run(args: &LeaderArgs) -> ExitCode {
    let logs = args.logs.settings();
    start_logs(&logs, Level::INFO);
    end(on_a_runtime(args), logs.format)
}

fn on_a_runtime(args: &LeaderArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(async {
        let mut signals = StopSignals::new().context("cannot listen for signals")?;
        let params = args.params().await?;
        if args.check.check_config {
            return check(&params).await;
        }
        let running = start(params).await?;
        let signal = signals.next().await;
        info!(signal, "Stopping");
        Ok(tokio::select! {
            () = running.stop() => ExitCode::SUCCESS,
            _ = signals.next() => ExitCode::from(FAILURE),
        })
    })
}

/// Checks the ConfigMap with the defaults of all workloads, and says what is in force.
async fn check(params: &Params) -> anyhow::Result<ExitCode> {
    let client = Client::try_from(params.config.clone()).context("cannot make a client of the API server")?;
    let namespace = &params.system_namespace;
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    let map = within(maps.get_opt(AUTOSCALER)).await;
    let map = map.with_context(|| format!("cannot read the ConfigMap {namespace}/{AUTOSCALER}"))?;
    if let Some(map) = &map {
        let legal = config::parse(map.data.as_ref());
        legal.map_err(|faults| WrongSettings::new(format!("{namespace}/{AUTOSCALER}: {faults}")))?;
    }
    let defaults =
        if map.is_some() { "as the ConfigMap says" } else { "Knative's own: there is no ConfigMap" };
    let watched = match params.namespaces.as_slice() {
        [] => "all".to_owned(),
        namespaces => namespaces.join(", "),
    };
    Ok(print_valid(&[
        format!("namespace: {namespace}, watched namespaces: {watched}"),
        format!("defaults: {defaults}"),
        format!("lease: {LEASE}, as {}_{}", params.pod_name, params.pod_ip),
        format!(
            "stats: {}, admin port: {}",
            SocketAddr::new(params.bind_address, params.stats_port),
            params.admin
        ),
    ]))
}

impl LeaderArgs {
    /// Reads the variables and finds the API server.
    async fn params(&self) -> anyhow::Result<Params> {
        let mut wrong = WrongSettings::default();
        let told = wrong.check_all(TelemetryEnv::from_env(|name| std::env::var(name).ok()));
        let told = wrong.finish(|| told)?;
        let config = self.cluster.configure("pilotlight-controller").await?;
        let registry = Registry::new();
        registry.install().context("cannot install the recorder of metrics")?;
        pilotlight_autoscaler::metrics::describe();
        pilotlight_kubernetes::metrics::describe();
        super::metrics::describe();
        let resource = program_resource(&told, "controller", &self.pod_name, &self.system_namespace);
        let page = MetricsPage::new(registry, &resource);
        Ok(Params {
            system_namespace: self.system_namespace.clone(),
            namespaces: self.namespaces.clone(),
            bind_address: self.bind_address,
            sets_deletion_cost: self.with_deletion_cost,
            admin: self.admin.unwrap_or(SocketAddr::new(self.bind_address, ADMIN_PORT)),
            ..Params::new(config, &self.pod_name, self.pod_ip, page)
        })
    }
}
