//! A running controller: it stands for the Lease, leads while it has it, and stands by otherwise.

use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{HeaderValue, StatusCode, header};
use kube::{Client, Config};
use parking_lot::Mutex;
use pilotlight_autoscaler::Board;
use pilotlight_kubernetes::{LeaseTimes, Leases, LeasesParams};
use pilotlight_net::{Admin, Body, Clock, Drain, Response, listen, plain};
use pilotlight_process::{AdminPort, MetricsPage, admin_routes};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info};

use super::metrics::Metrics;
use super::plain::PlainClusterParams;
use super::term::Term;
use crate::path::PROPAGATION;

/// The parts of a controller.
#[derive(Clone)]
pub struct Params {
    /// The API server. The Lease and each term of leadership have connections of their own.
    pub config: Config,
    /// The process's clock.
    pub clock: Clock,
    /// The name of this pod.
    pub pod_name: String,
    /// The address of this pod.
    pub pod_ip: IpAddr,
    /// The namespace of our own parts.
    pub system_namespace: String,
    /// The namespaces that are watched; empty: all.
    pub namespaces: Vec<String>,
    /// The address that the stat server binds to.
    pub bind_address: IpAddr,
    /// The port of the stat server: [`STATS_PORT`] wherever activators find it by the Lease.
    pub stats_port: u16,
    /// The address of the admin port.
    pub admin: SocketAddr,
    /// The admin port of the activators.
    pub activator_admin_port: u16,
    /// The times of the Lease.
    pub lease_times: LeaseTimes,
    /// How long a change of slices takes to reach every node.
    pub propagation: Duration,
    /// Whether pods are told by an annotation which of them go first: needs the right to patch pods.
    pub sets_deletion_cost: bool,
    /// The page of metrics.
    pub page: MetricsPage,
}

impl Params {
    /// A controller in this pod with everything else as it usually is, and every port at every address.
    pub fn new(config: Config, pod_name: impl Into<String>, pod_ip: IpAddr, page: MetricsPage) -> Self {
        let anywhere = IpAddr::from([0, 0, 0, 0]);
        Params {
            config,
            clock: Clock::start(),
            pod_name: pod_name.into(),
            pod_ip,
            system_namespace: SYSTEM_NAMESPACE.to_owned(),
            namespaces: Vec::new(),
            bind_address: anywhere,
            stats_port: STATS_PORT,
            admin: SocketAddr::new(anywhere, ADMIN_PORT),
            activator_admin_port: ACTIVATOR_ADMIN_PORT,
            lease_times: LEASE_TIMES,
            propagation: PROPAGATION,
            sets_deletion_cost: false,
            page,
        }
    }
}

/// A controller at work. Dropping it ends it without a word, as a crash would.
pub struct Running {
    /// The address of the stat server, which listens while this process leads.
    pub stats: SocketAddr,
    /// The address of the admin port.
    pub admin: SocketAddr,
    /// Whether this process leads.
    pub leading: watch::Receiver<bool>,
    leases: Option<Leases>,
    stop: Option<oneshot::Sender<()>>,
    terms: JoinHandle<()>,
    drain: Drain,
}

/// Starts a controller, on the current runtime. Fails if a port is taken.
pub async fn start(params: Params) -> anyhow::Result<Running> {
    // Ports first: a pod that cannot serve must not lead.
    let port = |address: SocketAddr| move || format!("cannot listen on {address}");
    let stats_address = SocketAddr::new(params.bind_address, params.stats_port);
    let listener = listen(stats_address).with_context(port(stats_address))?;
    let stats = listener.local_addr().context("the stat server has no address")?;
    let admin_port = AdminPort::open(params.admin, None).with_context(port(params.admin))?;
    let admin = admin_port.address().context("the admin port has no address")?;

    let client = Client::try_from(params.config.clone()).context("cannot make a client of the API server")?;
    let leases = Leases::start(LeasesParams {
        client,
        clock: params.clock,
        namespace: params.system_namespace.clone(),
        identity: format!("{}_{}", params.pod_name, params.pod_ip),
        names: vec![LEASE.to_owned()],
        times: params.lease_times,
    });
    let board: Arc<Mutex<Option<Arc<Board>>>> = Arc::default();
    let page = params.page.clone();
    let drain = Drain::default();
    // A standby is Ready as well: it could lead at once.
    let routes = admin_routes(move || page.render(), || Ok(()));
    admin_port.serve(decisions(routes, Arc::clone(&board)), drain.clone());
    let (told, leading) = watch::channel(false);
    let (stop, stopped) = oneshot::channel();
    let terms = Terms { params, listener: Some(listener), stats, board, told, metrics: Metrics::new() };
    let held = leases.state();
    info!(%stats, %admin, "Controller stands for the Lease");
    Ok(Running {
        stats,
        admin,
        leading,
        leases: Some(leases),
        stop: Some(stop),
        terms: tokio::spawn(terms.run(held, stopped)),
        drain,
    })
}

impl Running {
    /// Says goodbye to activators, decides no more, and gives the Lease up, so that a successor can begin at once. Returns
    /// within the seconds that activators have for their goodbye.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // Before the Lease: two must not decide about the same workload.
        let _ = (&mut self.terms).await;
        if let Some(leases) = self.leases.take() {
            leases.stop().await;
        }
        self.drain.start();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.terms.abort();
        self.drain.force();
    }
}

/// The terms of leadership, one after the other.
struct Terms {
    params: Params,
    /// The port of the stat server, open since the start; later terms open it anew.
    listener: Option<TcpListener>,
    stats: SocketAddr,
    board: Arc<Mutex<Option<Arc<Board>>>>,
    told: watch::Sender<bool>,
    metrics: Metrics,
}

impl Terms {
    async fn run(
        mut self,
        mut held: watch::Receiver<pilotlight_kubernetes::LeaseState>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut term: Option<Term> = None;
        loop {
            let leads = held.borrow_and_update().held.contains(LEASE);
            match (leads, term.is_some()) {
                (true, false) => match self.begin().await {
                    Ok(begun) => {
                        *self.board.lock() = Some(Arc::clone(begun.autoscaler.board()));
                        term = Some(begun);
                        self.tell(true);
                    }
                    Err(error) => {
                        error!(error = %pilotlight_process::chain(error.as_ref()), "Cannot lead; trying again");
                    }
                },
                (false, true) => {
                    // At once, in the middle of whatever it does: somebody else may lead by now.
                    drop(term.take());
                    *self.board.lock() = None;
                    self.tell(false);
                }
                _ => {}
            }
            let retry = async {
                match leads && term.is_none() {
                    true => tokio::time::sleep(BETWEEN_TRIES).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut stopped => break,
                changed = held.changed() => if changed.is_err() { break },
                () = retry => {}
            }
        }
        if let Some(term) = term {
            term.end().await;
            self.tell(false);
        }
    }

    fn tell(&self, leads: bool) {
        info!(leads, "Leadership has changed");
        self.metrics.leading.set(if leads { 1.0 } else { 0.0 });
        self.told.send_replace(leads);
    }

    async fn begin(&mut self) -> anyhow::Result<Term> {
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => listen(self.stats).with_context(|| format!("cannot listen on {}", self.stats))?,
        };
        let params = self.params.clone();
        let metrics = self.metrics.clone();
        let cluster = move |client| PlainClusterParams {
            client,
            clock: params.clock,
            system_namespace: params.system_namespace,
            namespaces: params.namespaces,
            activator_admin_port: params.activator_admin_port,
            propagation: params.propagation,
            sets_deletion_cost: params.sets_deletion_cost,
            metrics,
        };
        Term::begin(self.params.config.clone(), listener, cluster).await
    }
}

/// `/v1/decisions`: the latest evaluation of every workload and the latest changes of scale, of the process that leads.
fn decisions(admin: Admin, board: Arc<Mutex<Option<Arc<Board>>>>) -> Admin {
    admin.route("/v1/decisions", move |_| {
        let board = board.lock().clone();
        ready(match board {
            None => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "this process stands by: the holder of the Lease decides",
            ),
            Some(board) => {
                let body = serde_json::to_vec_pretty(&board.snapshot()).unwrap_or_default();
                let mut response = Response::new(Body::full(body));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                response
            }
        })
    })
}

/// The port of the stat server: activators know it.
pub const STATS_PORT: u16 = 8080;
/// The admin port of the controller.
pub const ADMIN_PORT: u16 = 9091;
/// The admin port of the activators.
const ACTIVATOR_ADMIN_PORT: u16 = 9090;
/// The namespace of our own parts, unless another one is named.
pub(crate) const SYSTEM_NAMESPACE: &str = "pilotlight-system";
/// The Lease of the controller that leads, in the namespace of our own parts.
pub(super) const LEASE: &str = "pilotlight";
/// Kubernetes' own controllers have these times.
const LEASE_TIMES: LeaseTimes = LeaseTimes {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry_period: Duration::from_secs(2),
};
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
