//! The autoscaler as a process of its own: runs the workloads of manifests on this machine, takes stats in from
//! activators in other processes, and tells them where the pods are.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use pilotlight_autoscaler::{Autoscaler, AutoscalerParams, Journal, JournalError, admin, metrics};
use pilotlight_config::duration;
use pilotlight_net::{Admin, Clock, Drain, install_metrics, serve};
use pilotlight_process::{StopSignals, flush_logs, start_logs};
use tokio::net::TcpListener;
use tracing::{Level, info, warn};

use crate::guard::{Guard, intercept};
use crate::{LocalCluster, LocalParams, LocalWorkload, find_program, manifests};

/// Decides how many pods each workload needs, and runs them on this machine
#[derive(Debug, Parser)]
#[command(name = "pilotlight-autoscaler", version)]
struct Args {
    /// Workloads to run: YAML files (Knative Service, InferenceService, Deployment)
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Defaults: a config-autoscaler ConfigMap in YAML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where activators push their stats
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where metrics, health, decisions and endpoints are served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// The executable whose `queue-proxy` subcommand stands in front of each pod; if not given, `pilotlight` beside
    /// this one, or in PATH
    #[arg(long, value_name = "PATH")]
    pilotlight: Option<PathBuf>,
    /// Write every decision to this file, one JSON line each
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// How long a pod may take to become ready
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    startup_timeout: Duration,
    /// Write logs as JSON
    #[arg(long)]
    log_json: bool,
}

/// The whole process, with the arguments it was started with.
pub fn main() -> ExitCode {
    main_with_args(std::env::args_os())
}

/// The whole process, with these arguments; the first is the program's name.
pub fn main_with_args(args: impl Iterator<Item = OsString>) -> ExitCode {
    if let Some(code) = intercept() {
        return code;
    }
    let args = Args::parse_from(args);
    start_logs(args.log_json, Level::INFO);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("cannot start the runtime").and_then(|runtime| runtime.block_on(run(args)));
    flush_logs();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let mut signals = StopSignals::new().context("cannot listen for signals")?;
    let clock = Clock::start();
    let manifests = manifests::read(&args.files, args.config.as_deref())?;
    for warning in &manifests.warnings {
        warn!(%warning, "Suspicious setting");
    }
    let workloads: Vec<LocalWorkload> = manifests
        .workloads
        .iter()
        .map(|it| LocalWorkload::new(it, args.startup_timeout))
        .collect::<Result<_, _>>()?;
    let queue_proxy = args.pilotlight.unwrap_or_else(|| near(std::env::current_exe().ok().as_deref()));
    if let Err(why) = find_program(&queue_proxy.to_string_lossy(), None) {
        anyhow::bail!("cannot run {}: {why} (say where it is with --pilotlight)", queue_proxy.display());
    }
    let stats = bind(args.listen).await?;
    let admin_listener = bind(args.admin).await?;
    // Where they really listen, should a port have been given as 0.
    let (stats_address, admin_address) = (stats.local_addr()?, admin_listener.local_addr()?);
    let metrics = install_metrics(&[]).context("cannot install the metrics recorder")?;
    metrics::describe();

    let guard = Guard::start().context("cannot start the guard process")?;
    let params = LocalParams {
        clock,
        guard,
        queue_proxy,
        drain_quiet: LocalParams::DRAIN_QUIET,
        termination_grace: LocalParams::TERMINATION_GRACE,
    };
    let cluster = LocalCluster::start(params, workloads);
    let journal = args.journal.as_deref().map(open_journal).transpose()?;
    let autoscaler = Autoscaler::start(AutoscalerParams { clock, journal }, Arc::new(cluster.clone()));

    let drain = Drain::default();
    let routes = Admin::new().healthz().readyz(|| Ok(())).metrics(move || {
        metrics.run_upkeep();
        metrics.render()
    });
    let routes = admin::endpoints(admin::decisions(routes, &autoscaler), cluster.endpoints());
    let admin_server = tokio::spawn(serve(admin_listener, Arc::new(routes), drain.clone()));
    info!(address = %stats_address, admin = %admin_address, "Autoscaler is listening");

    let stats_drain = drain.clone();
    let serving = autoscaler.serve_stats(clock, stats, stats_drain);
    let stopping = async {
        let signal = signals.next().await;
        info!(signal, "Stopping");
        // Activators go on with the last endpoints they know; pods finish what they have.
        autoscaler.stop().await;
        tokio::select! {
            () = cluster.stop() => {}
            _ = signals.next() => {}
        }
        cluster.kill();
        drain.start();
        // Streams of endpoints never end by themselves.
        drain.force();
    };
    tokio::join!(serving, stopping);
    admin_server.await?;
    Ok(())
}

/// Opens a journal; the error names the file.
pub fn open_journal(path: &Path) -> Result<Journal, JournalError> {
    Journal::create(path).map_err(|source| JournalError { path: path.to_owned(), source })
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// `pilotlight` in the folder of this executable, which may be itself; otherwise the one in `PATH`.
fn near(this_executable: Option<&Path>) -> PathBuf {
    let beside = this_executable.map(|this| this.with_file_name(PILOTLIGHT));
    beside.filter(|it| it.is_file()).unwrap_or_else(|| PILOTLIGHT.into())
}

const PILOTLIGHT: &str = "pilotlight";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pilotlight_is_this_executable_or_beside_it_or_in_path() {
        let folder = std::env::temp_dir().join(format!("pilotlight-near-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (this, that) = (folder.join("pilotlight-autoscaler"), folder.join("pilotlight"));
        let alone = near(Some(&this));
        std::fs::write(&that, "").unwrap();
        let together = [near(Some(&this)), near(Some(&that))];
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(alone, Path::new("pilotlight"));
        assert_eq!(together, [that.clone(), that]);
        assert_eq!(near(None), Path::new("pilotlight"));
    }
}
