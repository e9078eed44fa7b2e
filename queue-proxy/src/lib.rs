//! The queue-proxy: stands in front of one app in its pod, counts and limits the requests in flight, tells the
//! autoscaler every second how busy it is, says when the app is ready, and lets a pod leave without losing a
//! request.
//!
//! It takes the place of Knative's container of the same name: same environment, ports, paths and headers. The
//! way of a request is `handler`; the pod's end is `quiet`; the rest is in the files' names.

mod args;
mod forwarded;
mod handler;
mod logging;
mod metrics;
mod quiet;
mod readiness;
mod report;
mod settings;

use std::ffi::OsString;
use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use pilotlight_config::process::QueueProxyEnv;
use pilotlight_net::tls::{ServerTls, keep_renewed};
use pilotlight_net::{Admin, Clock, Drain, Handler, Port, listen, message, serve, serve_tls};
use pilotlight_process::{
    FAILURE, LogFormat, LogSettings, MetricsPage, StopSignals, WrongSettings, admin_routes, fail, flush_logs,
    print_valid, start_logs, stop_within,
};
use pilotlight_telemetry::{OverTls, Registry, Telemetry};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::args::{Asked, QueueProxyArgs};
pub use crate::forwarded::add_forwarded;
use crate::handler::Proxy;
use crate::metrics::Metrics;
use crate::quiet::Quiet;
use crate::report::Reporter;
use crate::settings::Settings;

/// The whole process, with the arguments it was started with.
pub fn main() -> ExitCode {
    main_with_args("pilotlight-queue-proxy", std::env::args_os().skip(1))
}

/// The whole process, with the arguments behind its name: checks flags and environment, serves until a signal says to
/// stop, drains.
pub fn main_with_args(program: &str, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    match args::parse(program, args) {
        Ok(Asked::Serve(args)) => serve_with(args),
        Ok(Asked::Text(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(wrong) => fail(&wrong, LogFormat::Text),
    }
}

fn serve_with(args: QueueProxyArgs) -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let mut wrong = WrongSettings::default();
    let named = variable("PILOTLIGHT_LOG_FORMAT").filter(|text| !text.is_empty());
    let named = named.and_then(|text| wrong.check_named("PILOTLIGHT_LOG_FORMAT", text.parse()));
    let env = wrong.check_all(QueueProxyEnv::from_env(variable));
    let logs = LogSettings { format: args.log_format.or(named).unwrap_or_default(), ..args.logs };
    let level = env.as_ref().map_or("", |env| &env.logging_level);
    start_logs(&logs, logging::level_from_zap(level));
    let ended = wrong.finish(|| env).map_err(StartError::from).and_then(|env| {
        // One thread: a sidecar's work is small, and its memory is multiplied by the number of pods.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(StartError::Runtime)?.block_on(async {
            let shutdown = termination()?;
            let settings = Settings::check(env, args.admin)?;
            if args.only_checks {
                return Ok(print_valid(&settings.in_force()));
            }
            QueueProxy::open(settings)?.serve(shutdown).await;
            Ok(ExitCode::SUCCESS)
        })
    });
    let code = ended.unwrap_or_else(|error| match error {
        StartError::Wrong(wrong) => fail(&wrong, logs.format),
        other => fail(&other, logs.format),
    });
    flush_logs();
    code
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
    /// Settings are wrong.
    #[error(transparent)]
    Wrong(#[from] WrongSettings),
    /// A port cannot be listened on.
    #[error("cannot listen on {address} for {purpose}")]
    Bind {
        /// Address and port.
        address: SocketAddr,
        /// The purpose of the port.
        purpose: &'static str,
        /// The reason that the operating system gives.
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// The runtime cannot be started.
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
}

/// A queue-proxy whose ports are open and which serves nothing yet.
#[derive(Debug)]
pub struct QueueProxy {
    env: QueueProxyEnv,
    requests: TcpListener,
    requests_over_tls: Option<(TcpListener, Arc<ServerTls>)>,
    stats: TcpListener,
    admin: TcpListener,
    // None: no metrics are asked for.
    user_metrics: Option<UserMetrics>,
    telemetry: Telemetry,
}

/// The port for Prometheus, and what is told there.
#[derive(Debug)]
struct UserMetrics {
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    metrics: Metrics,
}

/// The addresses a [`QueueProxy`] listens at.
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
    /// Checks the settings and opens all ports, or none.
    pub async fn bind(env: QueueProxyEnv) -> Result<Self, StartError> {
        QueueProxy::open(Settings::check(env, None)?)
    }

    fn open(settings: Settings) -> Result<Self, StartError> {
        let Settings { env, admin, tls, metrics, telemetry } = settings;
        let listen = |address, purpose| {
            listen(address).map_err(|source| StartError::Bind { address, purpose, source })
        };
        let at = |port| SocketAddr::new(env.bind_address, port);
        Ok(QueueProxy {
            requests: listen(at(env.serving_port), "requests")?,
            requests_over_tls: match tls {
                Some(tls) => Some((listen(at(env.serving_tls_port), "requests over TLS")?, tls)),
                None => None,
            },
            stats: listen(at(env.metrics_port), "stats")?,
            admin: listen(admin, "the admin port")?,
            user_metrics: match metrics {
                Some((metrics, place)) => {
                    let listener = listen(place.address, "metrics")?;
                    Some(UserMetrics { listener, tls: place.tls, metrics })
                }
                None => None,
            },
            telemetry,
            env,
        })
    }

    /// The addresses it listens at; of use where a port was given as 0.
    pub fn addresses(&self) -> std::io::Result<Addresses> {
        let over_tls = self.requests_over_tls.as_ref();
        Ok(Addresses {
            requests: self.requests.local_addr()?,
            requests_over_tls: over_tls.map(|(listener, _)| listener.local_addr()).transpose()?,
            stats: self.stats.local_addr()?,
            admin: self.admin.local_addr()?,
            user_metrics: self.user_metrics.as_ref().map(|told| told.listener.local_addr()).transpose()?,
        })
    }

    /// Serves until `shutdown` completes. Then probes fail, so that traffic goes elsewhere; requests are served
    /// until none has come for the quiet period; those in flight, and connections that were upgraded, run to
    /// their end, which is never later than the revision's timeout.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let QueueProxy { env, requests, requests_over_tls, stats, admin, user_metrics, telemetry } = self;
        info!(revision = %format_args!("{}/{}", env.namespace, env.revision), pod = env.pod,
            port = env.serving_port, app_port = env.user_port, concurrency = %env.container_concurrency, "Serving");
        let clock = Clock::start();
        let quiet = Arc::new(Quiet::new(env.drain_quiet_period));
        let reporter = Reporter::start(clock, env.pod.clone());
        let metrics = user_metrics.as_ref().map(|told| &told.metrics);
        let proxy = Arc::new(Proxy::new(&env, &quiet, &reporter, metrics, &telemetry));

        let drain = Drain::default();
        let limited = |listener| Port::limited(listener, env.max_connections);
        let mut servers = vec![
            spawn(limited(requests), None, Arc::clone(&proxy), &drain),
            spawn(limited(stats), None, Arc::new(report::server(&reporter)), &drain),
        ];
        let resource = settings::resource(&env);
        let admin_server = match user_metrics {
            Some(UserMetrics { listener, tls, metrics }) => {
                let page = metrics.page(proxy.breaker(), &resource);
                if let Some(tls) = &tls {
                    tokio::spawn(keep_renewed(tls, env.cert_poll_interval));
                }
                servers.push(spawn(
                    limited(listener),
                    tls,
                    Arc::new(Admin::new().metrics(page.clone())),
                    &drain,
                ));
                admin_server(&quiet, page)
            }
            None => {
                let page = MetricsPage::new(Registry::new(), &resource);
                admin_server(&quiet, move || page.render())
            }
        };
        servers.push(spawn(limited(admin), None, Arc::new(admin_server), &drain));
        if let Some((listener, tls)) = requests_over_tls {
            info!(port = env.serving_tls_port, "Serving over TLS");
            tokio::spawn(keep_renewed(&tls, env.cert_poll_interval));
            servers.push(spawn(limited(listener), Some(tls), Arc::new(OverTls(proxy)), &drain));
        }

        shutdown.await;
        info!(quiet_period = ?env.drain_quiet_period, "Draining until no request comes");
        quiet.terminate().await;
        // Servers can only fail by a panic, which has been reported where it happened.
        if !stop_within(env.timeouts.total, &drain, join_all(servers)).await {
            warn!(timeout = ?env.timeouts.total, "Requests were cut that should have ended by now");
        }
        telemetry.finish(TELEMETRY_FLUSH_LIMIT).await;
        info!("Stopped");
    }
}

fn spawn<H: Handler>(
    port: Port,
    tls: Option<Arc<ServerTls>>,
    handler: Arc<H>,
    drain: &Drain,
) -> JoinHandle<()> {
    match tls {
        None => tokio::spawn(serve(port, handler, drain.clone())),
        Some(tls) => tokio::spawn(serve_tls(port, tls, handler, drain.clone())),
    }
}

/// The admin port. The kubelet asks for `/wait-for-drain` before it stops the app's containers, and is answered once no
/// request comes any more.
fn admin_server(quiet: &Arc<Quiet>, page: impl Fn() -> String + Send + Sync + 'static) -> Admin {
    let (quiet, serving) = (Arc::clone(quiet), Arc::clone(quiet));
    let ready = move || if serving.is_draining() { Err("draining".to_owned()) } else { Ok(()) };
    admin_routes(page, ready).route("/wait-for-drain", move |_| {
        let quiet = Arc::clone(&quiet);
        async move {
            quiet.wait_for_drain().await;
            message::empty(StatusCode::OK)
        }
    })
}

/// Completes at the first signal to stop. The second ends the process at once: its sender has lost patience.
fn termination() -> Result<impl Future<Output = ()>, StartError> {
    let mut signals = StopSignals::new().map_err(StartError::Signals)?;
    Ok(async move {
        let signal = signals.next().await;
        info!(signal, "Stopping");
        tokio::spawn(async move {
            let signal = signals.next().await;
            error!(signal, "Received a second signal, stopping at once");
            flush_logs();
            std::process::exit(FAILURE.into());
        });
    })
}

/// How long the last spans may take to go out, as in Knative.
const TELEMETRY_FLUSH_LIMIT: Duration = Duration::from_secs(10);
