//! The queue-proxy: stands in front of one app in its pod, counts and limits the requests in flight, tells the
//! autoscaler every second how busy it is, says when the app is ready, and lets a pod leave without losing a
//! request.
//!
//! It takes the place of Knative's container of the same name: same environment, ports, paths and headers. The
//! way of a request is `handler`; the pod's end is `quiet`; the rest is in the files' names.

mod forwarded;
mod handler;
mod logging;
mod metrics;
mod quiet;
mod readiness;
mod report;
mod telling;

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use pilotlight_config::process::QueueProxyEnv;
use pilotlight_net::tls::{
    CertificateFiles, PolicyError, ServerTls, TlsError, TlsPolicy, TlsWords, keep_renewed,
};
use pilotlight_net::{Admin, Clock, Drain, Handler, error, listen, serve, serve_tls};
use pilotlight_process::{StopSignals, flush_logs, start_logs};
use pilotlight_telemetry::{OverTls, PrometheusError, Telemetry, TraceError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

pub use crate::forwarded::add_forwarded;
use crate::handler::Proxy;
use crate::metrics::Metrics;
use crate::quiet::Quiet;
use crate::report::Reporter;

/// The whole process: reads the environment, serves until a signal says to stop, drains. Exits 1 if the
/// environment is wrong or a port is taken.
pub fn main() -> ExitCode {
    let env = match QueueProxyEnv::from_env(|name| std::env::var(name).ok()) {
        Ok(env) => env,
        Err(errors) => {
            for error in errors {
                eprintln!("{error}");
            }
            return ExitCode::FAILURE;
        }
    };
    start_logs(false, logging::level_from_zap(&env.logging_level));
    let code = run_to_the_end(env);
    flush_logs();
    code
}

fn run_to_the_end(env: QueueProxyEnv) -> ExitCode {
    // One thread: a sidecar's work is small, and its memory is multiplied by the number of pods.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "Cannot start");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(async { run(env, termination()?).await }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "Cannot start");
            ExitCode::FAILURE
        }
    }
}

/// Serves until `shutdown` completes, then drains and returns.
pub async fn run(env: QueueProxyEnv, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    QueueProxy::bind(env).await?.serve(shutdown).await;
    Ok(())
}

/// Why the queue-proxy cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A port cannot be listened on.
    #[error("cannot listen on {address} for {purpose}: {source}")]
    Bind {
        /// Address and port.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// There is a certificate, and something is wrong with it.
    #[error("cannot serve TLS: {0}")]
    Certificate(#[from] TlsError),
    /// There is a certificate, and what was written about TLS is no sense.
    #[error("QUEUE_PROXY_{0}")]
    TlsPolicy(#[from] PolicyError),
    /// Metrics were to be served over TLS, and cannot.
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
    /// Metrics were to be served at something that is no address.
    #[error("cannot serve metrics at `{0}`: it is no IP address")]
    PrometheusHost(String),
    /// Traces were asked for and cannot be sent.
    #[error(transparent)]
    Traces(#[from] TraceError),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(std::io::Error),
}

/// A queue-proxy whose ports are open and which serves nothing yet.
#[derive(Debug)]
pub struct QueueProxy {
    env: QueueProxyEnv,
    requests: TcpListener,
    requests_over_tls: Option<(TcpListener, Arc<ServerTls>)>,
    stats: TcpListener,
    admin: TcpListener,
    // None: nobody asked for metrics.
    user_metrics: Option<(TcpListener, Option<Arc<ServerTls>>)>,
    metrics: Option<Metrics>,
    telemetry: Telemetry,
}

/// Where a [`QueueProxy`] listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For requests and probes.
    pub requests: SocketAddr,
    /// For requests and probes over TLS, if there is a certificate.
    pub requests_over_tls: Option<SocketAddr>,
    /// For the autoscaler: `/metrics`.
    pub stats: SocketAddr,
    /// For the kubelet: `/wait-for-drain`.
    pub admin: SocketAddr,
    /// For Prometheus: `/metrics`, if there are to be metrics.
    pub user_metrics: Option<SocketAddr>,
}

impl QueueProxy {
    /// Opens all ports, or none.
    pub async fn bind(env: QueueProxyEnv) -> Result<Self, StartError> {
        let listen = |port, purpose| {
            let address = SocketAddr::new(env.bind_address, port);
            listen(address).map_err(|source| StartError::Bind { address, purpose, source })
        };
        let requests_over_tls = match tls(&env)? {
            Some(tls) => Some((listen(env.serving_tls_port, "requests over TLS")?, tls)),
            None => None,
        };
        let metrics = Metrics::start(&env);
        let user_metrics = match &metrics {
            Some(_) => Some(telling::listen(&env).await?),
            None => None,
        };
        Ok(QueueProxy {
            requests: listen(env.serving_port, "requests")?,
            requests_over_tls,
            stats: listen(env.metrics_port, "stats")?,
            admin: listen(env.admin_port, "the drain")?,
            user_metrics,
            telemetry: telling::start(&env, metrics.as_ref())?,
            metrics,
            env,
        })
    }

    /// Where it listens; of use where a port was given as 0.
    pub fn addresses(&self) -> std::io::Result<Addresses> {
        Ok(Addresses {
            requests: self.requests.local_addr()?,
            requests_over_tls: match &self.requests_over_tls {
                Some((listener, _)) => Some(listener.local_addr()?),
                None => None,
            },
            stats: self.stats.local_addr()?,
            admin: self.admin.local_addr()?,
            user_metrics: match &self.user_metrics {
                Some((listener, _)) => Some(listener.local_addr()?),
                None => None,
            },
        })
    }

    /// Serves until `shutdown` completes. Then probes fail, so that traffic goes elsewhere; requests are served
    /// until none has come for the quiet period; those in flight, and connections that were upgraded, run to
    /// their end, which is never later than the revision's timeout.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let QueueProxy { env, requests, requests_over_tls, stats, admin, user_metrics, metrics, telemetry } =
            self;
        info!(revision = %format_args!("{}/{}", env.namespace, env.revision), pod = env.pod,
            port = env.serving_port, app_port = env.user_port, concurrency = env.container_concurrency, "Serving");
        let clock = Clock::start();
        let quiet = Arc::new(Quiet::new(env.drain_quiet_period));
        let reporter = Reporter::start(clock, env.pod.clone());
        let proxy = Arc::new(Proxy::new(&env, &quiet, &reporter, metrics.as_ref(), &telemetry));

        let drain = Drain::default();
        let mut servers = vec![
            spawn(requests, Arc::clone(&proxy), &drain),
            spawn(stats, Arc::new(report::server(&reporter)), &drain),
            spawn(admin, Arc::new(drain_server(&quiet)), &drain),
        ];
        if let (Some((listener, tls)), Some(metrics)) = (user_metrics, metrics) {
            let server = Arc::new(metrics.server(proxy.breaker(), &telling::resource(&env)));
            servers.push(match tls {
                None => spawn(listener, server, &drain),
                Some(tls) => tokio::spawn(serve_tls(listener, tls, server, drain.clone())),
            });
        }
        if let Some((listener, tls)) = requests_over_tls {
            info!(port = env.serving_tls_port, "Serving over TLS");
            tokio::spawn(keep_renewed(&tls, env.cert_poll_interval));
            servers.push(tokio::spawn(serve_tls(listener, tls, Arc::new(OverTls(proxy)), drain.clone())));
        }

        shutdown.await;
        info!(quiet_period = ?env.drain_quiet_period, "Draining until no request comes");
        quiet.terminate().await;
        drain.start();
        // They can only fail by a panic, which has been reported where it happened.
        let mut all = join_all(servers);
        if timeout(env.timeout, &mut all).await.is_err() {
            warn!(timeout = ?env.timeout, "Cutting what should have ended by now");
            drain.force();
            all.await;
        }
        telemetry.finish(TELEMETRY_FLUSH_LIMIT).await;
        info!("Stopped");
    }
}

fn spawn<H: Handler>(listener: TcpListener, handler: Arc<H>, drain: &Drain) -> JoinHandle<()> {
    tokio::spawn(serve(listener, handler, drain.clone()))
}

/// The certificate; `None`: there is none, and no TLS then.
fn tls(env: &QueueProxyEnv) -> Result<Option<Arc<ServerTls>>, StartError> {
    let files = CertificateFiles::in_folder(&env.cert_dir);
    if !files.exist()? {
        return Ok(None);
    }
    let policy = TlsPolicy::parse(TlsWords {
        min_version: &env.tls.min_version,
        max_version: &env.tls.max_version,
        cipher_suites: &env.tls.cipher_suites,
        curve_preferences: &env.tls.curve_preferences,
    })?;
    Ok(Some(Arc::new(ServerTls::load(files, policy)?)))
}

/// The kubelet asks here before it stops the app's containers, and gets its answer once nothing comes any more.
fn drain_server(quiet: &Arc<Quiet>) -> Admin {
    let quiet = Arc::clone(quiet);
    Admin::new().route("/wait-for-drain", move |_| {
        let quiet = Arc::clone(&quiet);
        async move {
            quiet.wait_for_drain().await;
            error::empty(StatusCode::OK)
        }
    })
}

/// Completes at the first SIGTERM or SIGINT. The second ends the process at once: whoever sends it has lost
/// patience.
fn termination() -> Result<impl Future<Output = ()>, StartError> {
    let mut signals = StopSignals::new().map_err(StartError::Signals)?;
    Ok(async move {
        let signal = signals.next().await;
        info!(signal, "Received a signal");
        tokio::spawn(async move {
            let signal = signals.next().await;
            error!(signal, "Received a second signal, stopping at once");
            flush_logs();
            std::process::exit(1);
        });
    })
}

/// How long the last spans may take to go out, as in Knative.
const TELEMETRY_FLUSH_LIMIT: Duration = Duration::from_secs(10);
