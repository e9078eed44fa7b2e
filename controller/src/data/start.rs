//! The start of an activator, within any process, and its end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use pilotlight_activator::{Activator, ActivatorParams};
use pilotlight_kubernetes::scale::Scales;
use pilotlight_net::Drain;
use pilotlight_process::{AdminPort, MetricsPage, stop_within};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::leader::LeaderDial;
use super::leaving::{LeaveTimes, Leaving};
use super::listeners::{Listeners, PortState};
use super::metrics::Metrics;
use super::status::StatusBoard;
use super::view::{Outputs, View};
use super::wake::Waker;
use super::watches::{Scope, WatchedCluster};
use crate::peers::ActivatorStatus;

/// Parameters of an activator of plain Kubernetes.
pub struct DataParams {
    /// The cluster.
    pub client: Client,
    /// The namespaces whose workloads are looked after.
    pub scope: Scope,
    /// The namespace of the table of ports, of the Lease and of the activators.
    pub system_namespace: String,
    /// The address of this activator's pod, by which slices name it.
    pub pod_ip: IpAddr,
    /// The address that ports are bound at.
    pub listen: IpAddr,
    /// The address of the admin port: `/v1/activator`, `/readyz`, `/healthz`, `/metrics`.
    pub admin: SocketAddr,
    /// The port of the leader that takes stats.
    pub stats_port: u16,
    /// The most connections at each port.
    pub max_connections: usize,
    /// Times of the end.
    pub leaving: LeaveTimes,
    /// The page of metrics.
    pub page: MetricsPage,
    /// The activator's own parameters. The way to the autoscaler in it is not used.
    pub activator: ActivatorParams,
}

/// An activator that runs. Dropping it ends its watches and connections at once; [`stop`](RunningActivator::stop) does so
/// politely.
#[derive(Debug)]
pub struct RunningActivator {
    activator: Activator,
    admin: SocketAddr,
    clock: pilotlight_net::Clock,
    leaving: LeaveTimes,
    board: StatusBoard,
    ports: watch::Receiver<PortState>,
    drain: Drain,
    listeners: JoinSet<()>,
    /// Watches, wakes and the admin port, which go on to the end.
    beside: JoinSet<()>,
}

/// Starts an activator, on the current runtime. It is ready once it has listed what there is; while the API server is away
/// it waits for it.
pub fn start(params: DataParams) -> anyhow::Result<RunningActivator> {
    let DataParams {
        client,
        scope,
        system_namespace,
        pod_ip: own,
        listen,
        admin,
        stats_port,
        max_connections,
        leaving,
        page,
        activator,
    } = params;
    raise_descriptor_limit();
    let admin_port = AdminPort::open(admin, None).with_context(|| format!("cannot listen on {admin}"))?;
    let admin = admin_port.address()?;
    let (clock, pod_name) = (activator.clock, activator.pod_name.clone());
    let (out, metrics) = (Outputs::default(), Metrics::new());
    let (is_complete, mut beside, mut tasks) =
        (Arc::new(AtomicBool::new(false)), JoinSet::new(), JoinSet::new());

    let scales = Scales::new(client.clone());
    let cluster = WatchedCluster { client, scope, system_namespace, own, stats_port };
    let leader = cluster.leader(&mut beside);
    let slices = cluster.slices(&mut beside);
    let activator = ActivatorParams { pod_ip: Some(own), ..activator };
    let activator = Activator::start_over(LeaderDial::new(own, leader), activator, out.endpoints.follow());

    let (state, ports) = watch::channel(PortState::default());
    let (drain, metrics_of_ports) = (Drain::default(), metrics.clone());
    let listeners = Listeners {
        activator: activator.clone(),
        clock,
        listen,
        max_connections,
        close_limit: CLOSE_LIMIT,
        ports: out.ports.follow(),
        table: out.table.subscribe(),
        slices,
        state,
        metrics: metrics_of_ports,
    };
    tasks.spawn(listeners.run(drain.clone()));
    let sleepers = out.sleepers.clone();
    let waker = Waker { activator: activator.clone(), sleepers, scales, clock, metrics };
    beside.spawn(waker.run());
    let (all, complete) = (out.endpoints.clone(), Arc::clone(&is_complete));
    cluster.follow(&mut beside, View::new(own, out), move || {
        all.complete();
        complete.store(true, Ordering::Release);
    });

    let board = StatusBoard::new(&pod_name, activator.clone(), ports.clone(), is_complete);
    let served = admin_port.serve(board.routes(page), Drain::default());
    // Err: a panic, which has been printed.
    beside.spawn(async { drop(served.await) });
    info!(%admin, address = %own, "Activator is following the cluster");
    Ok(RunningActivator { activator, admin, clock, leaving, board, ports, drain, listeners: tasks, beside })
}

impl RunningActivator {
    /// The activator.
    pub fn activator(&self) -> &Activator {
        &self.activator
    }

    /// The address of the admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The state, as the admin port tells it.
    pub fn status(&self) -> ActivatorStatus {
        self.board.status()
    }

    /// Whether slices may name this activator, and if not, why.
    pub fn check(&self) -> Result<(), String> {
        self.board.check()
    }

    /// Stops as a Service's endpoint should: says so, serves on until traffic goes elsewhere, has connections end, and cuts
    /// those that do not before the time is over.
    pub async fn stop(mut self) {
        let begun = self.clock.now();
        self.board.leave();
        info!("Stopping: serving on until no slice names this activator");
        let mut leaving = Leaving::new(begun, self.leaving);
        loop {
            let standing = self.ports.borrow_and_update().standing;
            let (now, due) = (self.clock.now(), leaving.step(self.clock.now(), standing));
            if due <= now {
                break;
            }
            tokio::select! {
                () = sleep_until(self.clock.instant_at(due)) => {}
                Ok(()) = self.ports.changed() => {}
            }
        }
        let limit = self.leaving.drain_after(self.clock.now() - begun);
        info!(?limit, "Closing connections");
        let listeners = &mut self.listeners;
        // Err: a panic, which has been printed.
        let over = async { while listeners.join_next().await.is_some() {} };
        if !stop_within(limit, &self.drain, over).await {
            warn!("Connections that were left have been cut");
        }
        self.activator.close().await;
        self.beside.abort_all();
    }
}

/// Each port and each connection takes a file descriptor. The soft limit is as low as it often is for programs that use
/// `select`, which nothing here does.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => debug!(from = ?limit.current, to = ?limit.maximum, "Raised the limit of file descriptors"),
        Err(error) => warn!(%error, limit = ?limit.current, "Cannot raise the limit of file descriptors"),
    }
}

/// How long connections may take over their end when their port gets another owner, or nobody needs it any more.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
