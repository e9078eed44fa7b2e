//! The autoscaler as a process of its own: runs the workloads of manifests on this machine, takes stats in from
//! activators in other processes, and tells them where the pods are.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser};
use pilotlight_autoscaler::{Autoscaler, AutoscalerParams, Journal, admin, metrics};
use pilotlight_config::process::{TelemetryEnv, variables};
use pilotlight_config::{Warning, duration};
use pilotlight_net::tls::{ServerTls, keep_renewed};
use pilotlight_net::{Clock, Drain, listen};
use pilotlight_process::flags::{AdminArgs, CheckArgs, LogArgs, address, parse};
use pilotlight_process::{
    AdminPort, FAILURE, MetricsPage, StopSignals, WrongSettings, admin_address, admin_routes, end,
    print_valid, start_logs,
};
use pilotlight_telemetry::{Registry, program_resource, prometheus_tls};
use tracing::{Level, info, warn};

use crate::guard::{Guard, intercept};
use crate::sidecar::Sidecar;
use crate::{AppLogs, LocalCluster, LocalParams, LocalWorkload, manifests};

/// The autoscaler as a program of its own.
#[derive(Debug, Parser)]
#[command(name = "pilotlight-autoscaler", version)]
struct Program {
    #[command(flatten)]
    args: AutoscalerArgs,
}

/// Decide how many pods each workload needs, and run them on this machine
#[derive(Debug, Args)]
#[command(
    after_long_help = variables::help(&[variables::LOGS, variables::TELEMETRY]),
    mut_arg("admin", |flag| flag.help(ADMIN)),
)]
pub struct AutoscalerArgs {
    /// Workloads to run: YAML files (Knative Service, InferenceService, Deployment); - is standard input
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Defaults: a config-autoscaler ConfigMap in YAML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address that activators push their stats to
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,
    #[command(flatten)]
    admin: AdminArgs,
    /// Executable whose subcommand queue-proxy stands in front of each pod [default: pilotlight-queue-proxy or
    /// pilotlight beside this one, or the pilotlight in PATH]
    #[arg(long, value_name = "PATH")]
    pilotlight: Option<PathBuf>,
    /// File to write every decision to, one JSON line each
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// How long a pod may take to become ready
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    startup_timeout: Duration,
    /// Where the lines of apps go: screen (the log), off, or a folder, for a file of each pod
    #[arg(long, value_name = "WHERE", default_value = "screen")]
    app_logs: AppLogs,
    /// Name of this autoscaler in metrics
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env_values = true, default_value = "autoscaler")]
    pod_name: String,
    /// Namespace of this autoscaler in metrics
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "SYSTEM_NAMESPACE",
        hide_env_values = true,
        default_value = ""
    )]
    system_namespace: String,
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    logs: LogArgs,
}

/// The settings in force, all of them legal.
struct Settings {
    workloads: Vec<LocalWorkload>,
    warnings: Vec<Warning>,
    listen: SocketAddr,
    admin: SocketAddr,
    admin_tls: Option<Arc<ServerTls>>,
    sidecar: Sidecar,
    journal: Option<PathBuf>,
    app_logs: AppLogs,
    /// Attributes that all series have in common, by OpenTelemetry's names.
    resource: Vec<(&'static str, String)>,
}

/// The whole process, with the arguments it was started with.
pub fn main() -> ExitCode {
    if let Some(code) = intercept() {
        return code;
    }
    match parse::<Program>(std::env::args_os()) {
        Ok(program) => run(&program.args),
        Err(code) => code,
    }
}

/// Runs the program: checks the settings, runs the workloads until a signal says to stop. [`intercept`] must have been
/// called before.
pub fn run(args: &AutoscalerArgs) -> ExitCode {
    let logs = args.logs.settings();
    start_logs(&logs, Level::INFO);
    end(on_a_runtime(args), logs.format)
}

fn on_a_runtime(args: &AutoscalerArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(async {
        let mut signals = StopSignals::new().context("cannot listen for signals")?;
        let settings = args.settings(|name| std::env::var(name).ok())?;
        for warning in &settings.warnings {
            // No constant message: a warning names file, key and advice, and comes once.
            warn!("{warning}");
        }
        if args.check.check_config {
            return Ok(print_valid(&settings.in_force()));
        }
        serve(settings, &mut signals).await
    })
}

impl AutoscalerArgs {
    /// Reads files and variables, and checks everything; all that is wrong at once.
    fn settings(&self, env: impl Fn(&str) -> Option<String>) -> Result<Settings, WrongSettings> {
        let mut wrong = WrongSettings::default();
        let read = wrong.check(manifests::read(&self.files, self.config.as_deref()));
        let workloads =
            read.as_ref().and_then(|it| wrong.check(LocalWorkload::all(&it.workloads, self.startup_timeout)));
        let sidecar = match &self.pilotlight {
            Some(named) => Sidecar::of(named.clone()),
            None => Sidecar::near(std::env::current_exe().ok().as_deref()),
        };
        let sidecar = wrong.check_named("--pilotlight", sidecar.check());
        let told = wrong.check_all(TelemetryEnv::from_env(&env)).unwrap_or_default();
        let admin =
            wrong.check(admin_address(self.admin.admin, &told.prometheus, Some(DEFAULT_ADMIN))).flatten();
        let admin_tls = told.prometheus.tls.as_ref().and_then(|tls| wrong.check(prometheus_tls(tls)));
        wrong.finish(|| {
            Some(Settings {
                workloads: workloads?,
                warnings: read?.warnings,
                listen: self.listen,
                admin: admin?,
                admin_tls,
                sidecar: sidecar?,
                journal: self.journal.clone(),
                app_logs: self.app_logs.clone(),
                resource: self.resource(&told),
            })
        })
    }

    fn resource(&self, env: &TelemetryEnv) -> Vec<(&'static str, String)> {
        program_resource(env, "autoscaler", &self.pod_name, &self.system_namespace)
    }
}

impl Settings {
    /// Settings in force, for `--check-config`.
    fn in_force(&self) -> Vec<String> {
        let workloads: Vec<String> = self.workloads.iter().map(|it| it.id.to_string()).collect();
        vec![
            format!("workloads: {}; queue-proxy: {}", workloads.join(", "), self.sidecar.program().display()),
            format!("stats: {}, admin port: {}", self.listen, self.admin),
        ]
    }
}

async fn serve(settings: Settings, signals: &mut StopSignals) -> anyhow::Result<ExitCode> {
    let clock = Clock::start();
    let registry = Registry::new();
    registry.install().context("cannot install the recorder of metrics")?;
    metrics::describe();
    crate::describe_metrics();
    let page = MetricsPage::new(registry, &settings.resource);
    let cannot_listen = |address: SocketAddr| move || format!("cannot listen on {address}");
    let stats = listen(settings.listen).with_context(cannot_listen(settings.listen))?;
    let admin_port = AdminPort::open(settings.admin, settings.admin_tls.clone());
    let admin_port = admin_port.with_context(cannot_listen(settings.admin))?;
    if let Some(tls) = &settings.admin_tls {
        tokio::spawn(keep_renewed(tls, CERTIFICATE_POLL_INTERVAL));
    }
    // The real addresses: a port may have been given as 0.
    let (stats_address, admin_address) = (stats.local_addr()?, admin_port.address()?);
    let journal = settings.journal.as_deref().map(Journal::create).transpose()?;
    settings.app_logs.prepare().context("cannot make the folder for the lines of apps")?;

    let params = LocalParams {
        clock,
        guard: Guard::start().context("cannot start the guard process")?,
        sidecar: settings.sidecar,
        drain_quiet: LocalParams::DRAIN_QUIET,
        app_logs: settings.app_logs,
        termination_grace: LocalParams::TERMINATION_GRACE,
    };
    let cluster = LocalCluster::start(params, settings.workloads);
    let on_pod_stat = Some(cluster.on_pod_stat());
    let on_demand = Some(cluster.on_demand());
    let params = AutoscalerParams { journal, on_pod_stat, on_demand, ..AutoscalerParams::new(clock) };
    let autoscaler = Autoscaler::start(params, Arc::new(cluster.clone()));

    let drain = Drain::default();
    let routes = admin_routes(move || page.render(), || Ok(()));
    let routes = admin::endpoints(admin::decisions(routes, &autoscaler), cluster.endpoints().clone());
    let admin_server = admin_port.serve(routes, drain.clone());
    info!(address = %stats_address, admin = %admin_address, "Autoscaler is listening");

    let serving = autoscaler.serve_stats(clock, stats, drain.clone());
    let stopping = async {
        let signal = signals.next().await;
        info!(signal, "Stopping");
        // Activators go on with the last endpoints they know; pods finish what they have.
        autoscaler.stop().await;
        let in_time = tokio::select! {
            () = cluster.stop() => true,
            _ = signals.next() => false,
        };
        cluster.kill();
        drain.start();
        // Streams of endpoints never end by themselves.
        drain.force();
        in_time
    };
    let ((), in_time) = tokio::join!(serving, stopping);
    admin_server.await?;
    Ok(if in_time { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) })
}

const DEFAULT_ADMIN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9090));
const ADMIN: &str = "Address of the admin port: /metrics, /healthz, /readyz, /v1/decisions, /v1/endpoints [default: \
                     127.0.0.1:9090, or what METRICS_PROMETHEUS_HOST and _PORT say]";
/// How often to look whether the certificate of the admin port was replaced.
const CERTIFICATE_POLL_INTERVAL: Duration = Duration::from_secs(60);
