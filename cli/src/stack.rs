//! All of Pilotlight in one process: activator and autoscaler, speaking their protocols over loopback, and pods
//! that are child processes.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pilotlight_activator::{Activator, ActivatorParams, RevisionLedger};
use pilotlight_autoscaler::{Autoscaler, AutoscalerParams, Journal, admin};
use pilotlight_config::process::DEFAULT_MAX_CONNECTIONS;
use pilotlight_core::Time;
use pilotlight_local::guard::Guard;
use pilotlight_local::{AppLogs, LocalCluster, LocalParams, LocalWorkload, Sidecar};
use pilotlight_net::{Admin, Clock, Drain, Port, Target};
use pilotlight_process::{AdminPort, MetricsPage};
use pilotlight_telemetry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::exposition;

/// Parameters of a stack.
pub struct StackParams {
    /// The workloads.
    pub workloads: Vec<LocalWorkload>,
    /// Address to take requests at.
    pub listen: SocketAddr,
    /// Address of the admin port; `None`: the usual one, or any free port if that is taken.
    pub admin: Option<SocketAddr>,
    /// File to write decisions to.
    pub journal: Option<PathBuf>,
    /// Where the lines of apps go.
    pub app_logs: AppLogs,
}

/// A running stack.
pub struct Stack {
    /// Address that requests are taken at.
    pub address: SocketAddr,
    /// Address of the admin port.
    pub admin_address: SocketAddr,
    /// Time of the start.
    pub started: Time,
    /// The process's clock.
    pub clock: Clock,
    /// Activator: holds requests, forwards them, keeps the books.
    pub activator: Activator,
    /// Autoscaler: decides.
    pub autoscaler: Autoscaler,
    /// Cluster: runs the pods.
    pub cluster: LocalCluster,
    front: Drain,
    front_door: JoinHandle<()>,
    back: Drain,
    back_doors: Vec<JoinHandle<()>>,
    /// The books as they were when everything was ended at once.
    before_cut: Option<RevisionLedger>,
}

impl Stack {
    /// Starts everything. When this returns, requests are taken; no pod is running yet.
    pub async fn start(params: StackParams) -> anyhow::Result<Stack> {
        let clock = Clock::start();
        let listener = pilotlight_net::listen(params.listen)
            .with_context(|| format!("cannot listen on {} (choose another with --listen)", params.listen))?;
        let admin_port = open_admin_port(params.admin)?;
        let stats_listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen for stats")?;
        let (address, admin_address) = (listener.local_addr()?, admin_port.address()?);
        let autoscaler_target = Target::ws(&format!("ws://{}", stats_listener.local_addr()?))?;
        let journal = params.journal.as_deref().map(Journal::create).transpose()?;
        params.app_logs.prepare().context("cannot make the folder for the lines of apps")?;
        let registry = Registry::new();
        registry.install().context("cannot install the recorder of metrics")?;
        let page = MetricsPage::new(registry, &[("service.name", "pilotlight".to_owned())]);
        pilotlight_autoscaler::metrics::describe();
        pilotlight_local::describe_metrics();

        let this = std::env::current_exe().context("cannot find this executable")?;
        let cluster = LocalCluster::start(
            LocalParams {
                clock,
                guard: Guard::start().context("cannot start the guard process")?,
                sidecar: Sidecar::near(Some(&this)),
                drain_quiet: LocalParams::DRAIN_QUIET,
                app_logs: params.app_logs,
                termination_grace: LocalParams::TERMINATION_GRACE,
            },
            params.workloads,
        );
        let on_pod_stat = Some(cluster.on_pod_stat());
        let on_demand = Some(cluster.on_demand());
        let deciding = AutoscalerParams { journal, on_pod_stat, on_demand, ..AutoscalerParams::new(clock) };
        let autoscaler = Autoscaler::start(deciding, Arc::new(cluster.clone()));
        let (front, back) = (Drain::default(), Drain::default());
        let mut back_doors = Vec::new();
        {
            let (autoscaler, drain) = (autoscaler.clone(), back.clone());
            back_doors.push(tokio::spawn(async move {
                autoscaler.serve_stats(clock, stats_listener, drain).await;
            }));
        }
        let activator = Activator::start(
            ActivatorParams {
                single_default: true,
                behind_ingress: false,
                ..ActivatorParams::new("activator", clock, autoscaler_target)
            },
            cluster.endpoints().follow(),
        );
        {
            let routes = Admin::new().healthz();
            let connected = activator.clone();
            let routes = routes.readyz(move || {
                connected
                    .connected()
                    .then_some(())
                    .ok_or_else(|| "the activator has not reached the autoscaler".to_owned())
            });
            let routes = exposition::route(routes, page, cluster.clone());
            let routes = admin::endpoints(admin::decisions(routes, &autoscaler), cluster.endpoints().clone());
            back_doors.push(admin_port.limited(DEFAULT_MAX_CONNECTIONS).serve(routes, back.clone()));
        }
        let port = Port::limited(listener, DEFAULT_MAX_CONNECTIONS);
        let front_door = tokio::spawn(activator.serve(port, front.clone()));
        Ok(Stack {
            address,
            admin_address,
            started: clock.now(),
            clock,
            activator,
            autoscaler,
            cluster,
            front,
            front_door,
            back,
            back_doors,
            before_cut: None,
        })
    }

    /// Takes no new requests, finishes those it has, stops the pods. Returns when nothing is left.
    pub async fn drain(&mut self) {
        self.front.start();
        let _ = (&mut self.front_door).await;
        self.activator.close().await;
        // No request waits any more, and the autoscaler must not start pods that are about to stop.
        self.autoscaler.stop().await;
        self.cluster.stop().await;
        self.close_back_doors().await;
    }

    /// Ends everything at once, whatever is in flight.
    pub async fn cut(&mut self) {
        self.before_cut = Some(self.activator.ledger().total);
        self.front.force();
        self.cluster.kill();
        self.activator.close().await;
        self.cluster.stop().await;
        // The journal is complete even so.
        self.autoscaler.stop().await;
        self.close_back_doors().await;
    }

    /// The books as they were when everything was ended at once; `None`: it was not.
    pub fn before_cut(&self) -> Option<&RevisionLedger> {
        self.before_cut.as_ref()
    }

    async fn close_back_doors(&mut self) {
        self.back.start();
        // Streams of endpoints never end by themselves.
        self.back.force();
        for door in self.back_doors.drain(..) {
            let _ = tokio::time::timeout(BACK_DOOR_PATIENCE, door).await;
        }
    }
}

fn open_admin_port(asked: Option<SocketAddr>) -> anyhow::Result<AdminPort> {
    if let Some(address) = asked {
        return AdminPort::open(address, None)
            .with_context(|| format!("cannot listen on {address} (choose another with --admin)"));
    }
    AdminPort::open(USUAL_ADMIN_ADDRESS, None)
        .or_else(|_| AdminPort::open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None))
        .context("cannot listen for the admin port")
}

/// Address of the admin port unless it is taken.
pub const USUAL_ADMIN_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8081));

/// Time limit of goodbyes.
const BACK_DOOR_PATIENCE: Duration = Duration::from_secs(1);
