//! The activator as a program: flags, servers, signals.

use std::ffi::OsString;
use std::future::ready;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use http::{HeaderValue, StatusCode, header};
use pilotlight_config::duration;
use pilotlight_config::process::TlsEnv;
use pilotlight_net::tls::{CertificateFiles, PodTls, ServerTls, TlsPolicy, TlsWords, keep_renewed};
use pilotlight_net::{
    Admin, Body, Clock, Drain, Response, StopSignals, install_metrics, listen, plain, start_logs,
};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{Level, field, info};

use crate::{Activator, ActivatorParams, BufferLimits, PodsOverTls, endpoints};

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
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = poll_interval)]
    tls_poll_interval: Duration,
    /// Where the table of endpoints is served
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090/v1/endpoints")]
    endpoints: String,
    /// Where the autoscaler takes stats
    #[arg(long, value_name = "WS_URL", default_value = "ws://127.0.0.1:8080")]
    autoscaler: String,
    /// Where to serve /metrics, /healthz, /readyz and /v1/activity; nowhere if not given
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// How long to go on serving after SIGTERM while probes fail already
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = duration::parse)]
    drain_wait: Duration,
    /// The name to report under
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "activator")]
    pod_name: String,
    /// What cluster-local host names end in
    #[arg(long, value_name = "DOMAIN", env = "CLUSTER_DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
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
    match run(flags) {
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
    let tables = endpoints::follow(&flags.endpoints).context("--endpoints")?;
    let listen = |addr: SocketAddr| listen(addr).with_context(|| format!("listening on {addr}"));
    let listener = listen(flags.listen)?;
    let admin = match flags.admin {
        Some(addr) => Some(listen(addr)?),
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
    let activator = Activator::start(ActivatorParams { pods_over_tls, ..params(&flags) }, tables);
    if let Some(listener) = admin {
        let admin = Arc::new(admin_routes(activator.clone(), metrics.clone()));
        // It answers to the end: it ends with the runtime.
        tokio::spawn(pilotlight_net::serve(listener, admin, Drain::default()));
    }
    tokio::spawn(async move {
        loop {
            sleep(METRICS_UPKEEP).await;
            metrics.run_upkeep();
        }
    });
    info!(%address, admin = admin_address.map(field::display), autoscaler = flags.autoscaler, "Activator is listening");

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

fn poll_interval(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err("must not be zero".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

fn params(flags: &Flags) -> ActivatorParams {
    ActivatorParams {
        cluster_domain: flags.cluster_domain.clone(),
        limits: BufferLimits {
            requests_per_revision: flags.max_queued_per_revision,
            requests: flags.max_queued,
            ..BufferLimits::default()
        },
        single_default: flags.single_default,
        drain_wait: flags.drain_wait,
        ..ActivatorParams::new(flags.pod_name.clone(), Clock::start(), flags.autoscaler.clone())
    }
}

fn admin_routes(activator: Activator, metrics: metrics_exporter_prometheus::PrometheusHandle) -> Admin {
    let ready_of = activator.clone();
    Admin::new()
        .metrics(move || metrics.render())
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
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
