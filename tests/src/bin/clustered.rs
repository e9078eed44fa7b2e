//! Pilotlight's parts of a cluster, as the pods of a small cluster run them. `PART` says which one: `activator` and
//! `autoscaler` of a cluster with Knative, `plain-activator` and `plain-controller` of one without.
//!
//! They are the programs as they are shipped, but for the autoscaler, which differs from its program in one thing: no DNS knows the
//! small cluster's Services, so it asks the API server for their addresses.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Parser;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::Api;
use pilotlight_config::process::{AutoscalerEnv, MinimumKubernetes, TelemetryEnv};
use pilotlight_controller::data::program::DataArgs;
use pilotlight_controller::leader::program::LeaderArgs;
use pilotlight_knative::autoscaler::{ConfigMapNames, Resolve, RunningParams, STATS_PORT, start};
use pilotlight_net::Clock;
use pilotlight_process::flags::parse;
use pilotlight_process::{LogSettings, MetricsPage, StopSignals, set_log_level, start_logs};
use pilotlight_telemetry::Registry;
use pilotlight_tests::cluster::local_port;
use tracing::Level;

fn main() -> ExitCode {
    match std::env::var("PART").as_deref() {
        Ok("activator") => pilotlight_knative::activator::main(),
        Ok("autoscaler") => match run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("clustered: {error:#}");
                ExitCode::FAILURE
            }
        },
        Ok("plain-activator") => match parse::<Program<DataArgs>>(std::env::args_os()) {
            Ok(program) => pilotlight_controller::data::program::run(&program.args),
            Err(code) => code,
        },
        Ok("plain-controller") => match parse::<Program<LeaderArgs>>(std::env::args_os()) {
            Ok(program) => pilotlight_controller::leader::program::run(&program.args),
            Err(code) => code,
        },
        _ => {
            eprintln!("clustered: PART is no part of a cluster");
            ExitCode::FAILURE
        }
    }
}

/// A program without arguments of its own: variables say everything.
#[derive(Debug, Parser)]
#[command(name = "clustered")]
struct Program<Args: clap::Args> {
    #[command(flatten)]
    args: Args,
}

fn run() -> anyhow::Result<()> {
    start_logs(&LogSettings::default(), Level::INFO);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = StopSignals::new().context("cannot listen for signals")?;
        let running = start(params().await?).await?;
        signals.next().await;
        running.stop().await;
        Ok(())
    })
}

async fn params() -> anyhow::Result<RunningParams> {
    let lookup = |name: &str| std::env::var(name).ok();
    let Ok(env) = AutoscalerEnv::from_env(lookup) else {
        bail!("the variables are not those of an autoscaler")
    };
    let Ok(told) = TelemetryEnv::from_env(lookup) else { bail!("the variables about telemetry are wrong") };
    let client = Client::try_default().await.context("no kubeconfig")?;
    Ok(RunningParams {
        resolve: ask(client.clone()),
        client,
        minimum: MinimumKubernetes::default(),
        clock: Clock::start(),
        pod_name: env.pod_name,
        pod_ip: env.pod_ip,
        system_namespace: env.system_namespace,
        cluster_domain: "cluster.local".to_owned(),
        config_maps: ConfigMapNames::default(),
        stateful: None,
        bind_address: env.bind_address,
        stats_port: STATS_PORT,
        admin: (env.bind_address, 8008).into(),
        prometheus: told.prometheus,
        page: MetricsPage::new(Registry::new(), &[]),
        journal: None,
        on_level: Arc::new(set_log_level),
    })
}

/// Addresses of Services by their names, as DNS would have them.
fn ask(client: Client) -> Resolve {
    Arc::new(move |host, port| {
        let client = client.clone();
        Box::pin(async move {
            let unknown = || io::Error::other(format!("{host} is no name of a Service"));
            let mut parts = host.split('.');
            let (name, namespace) = parts.next().zip(parts.next()).ok_or_else(unknown)?;
            let api: Api<Service> = Api::namespaced(client, namespace);
            let service = api.get_opt(name).await.map_err(io::Error::other)?.ok_or_else(unknown)?;
            let ip = service.spec.and_then(|spec| spec.cluster_ip).and_then(|ip| ip.parse().ok());
            Ok(SocketAddr::new(ip.ok_or_else(unknown)?, local_port(port)))
        })
    })
}
