//! The activator as a whole: which revisions there are, and the tasks that keep them and the autoscaler informed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_core::cadence::REPORT;
use pilotlight_core::{EndpointTable, RevisionEndpoints, RevisionId};
use pilotlight_net::tls::ServerTls;
use pilotlight_net::{ByteBudget, Clock, Drain, Timeouts};
use pilotlight_telemetry::{OverTls, Telemetry};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};
use tracing::info;

use crate::ledger::{Ledger, RevisionLedger};
use crate::prober::{ProbeParams, Prober};
use crate::probes::Health;
use crate::revision::{Revision, RevisionActivity};
use crate::routes::{Route, Routes};
use crate::sink::{self, Outbox};
use crate::throttler::Backlog;
use crate::upstreams::{IdleConnections, PodUpstreams, PodsOverTls};

/// What an activator needs to know before it starts.
#[derive(Clone, Debug)]
pub struct ActivatorParams {
    /// What it calls itself in its reports.
    pub pod_name: String,
    /// The process's clock.
    pub clock: Clock,
    /// Where the autoscaler listens: `ws://host:port`.
    pub autoscaler_url: String,
    /// What cluster-local host names end in.
    pub cluster_domain: String,
    /// Its own address, by which it finds its place among the activators that share a revision's pods; `None`: it
    /// uses every pod.
    pub pod_ip: Option<IpAddr>,
    /// How to ask pods whether they take requests, where the table leaves that open.
    pub probing: ProbeParams,
    /// How much may wait.
    pub limits: BufferLimits,
    /// If there is exactly one revision, it also answers for hosts that nobody listed; and an unknown host is told
    /// which ones there are. For local use.
    pub single_default: bool,
    /// Whether an ingress in front says which revision a request is for, and which host it was, whatever the client
    /// said. Without one, headers that say so are the client's own invention, and do not count.
    pub behind_ingress: bool,
    /// How long to go on serving after being asked to stop, until everybody has stopped sending.
    pub drain_wait: Duration,
    /// How to reach pods over TLS; `None`: in the clear, whatever the table offers.
    pub pods_over_tls: Option<PodsOverTls>,
    /// What is told of requests, besides what is always counted.
    pub telemetry: Telemetry,
    /// How many connections are kept for later.
    pub idle: IdleConnections,
}

impl ActivatorParams {
    /// The defaults of a cluster: `cluster.local`, 45 s of drain.
    pub fn new(pod_name: impl Into<String>, clock: Clock, autoscaler_url: impl Into<String>) -> Self {
        ActivatorParams {
            pod_name: pod_name.into(),
            clock,
            autoscaler_url: autoscaler_url.into(),
            cluster_domain: "cluster.local".to_owned(),
            pod_ip: None,
            probing: ProbeParams::default(),
            limits: BufferLimits::default(),
            single_default: false,
            behind_ingress: true,
            drain_wait: Duration::from_secs(45),
            pods_over_tls: None,
            telemetry: Telemetry::default(),
            idle: IdleConnections::default(),
        }
    }
}

/// How much may wait for pods. Beyond it, requests are answered with 503 at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimits {
    /// Requests of one revision.
    pub requests_per_revision: usize,
    /// Requests of all revisions together.
    pub requests: usize,
    /// Bytes of request bodies read while waiting. Beyond it requests still wait, with their bodies unread.
    pub body_bytes: usize,
}

impl Default for BufferLimits {
    fn default() -> Self {
        BufferLimits { requests_per_revision: 10_000, requests: 100_000, body_bytes: 64 << 20 }
    }
}

/// A running activator. Clones are the same one; when the last goes, its tasks end.
#[derive(Clone, Debug)]
pub struct Activator {
    pub(crate) shared: Arc<Shared>,
    sink: Arc<Mutex<Option<JoinHandle<()>>>>,
    stop: Arc<StopOnDrop>,
}

/// What the tasks and the request path share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) params: ActivatorParams,
    pub(crate) upstreams: PodUpstreams,
    pub(crate) body_bytes: ByteBudget,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) backlog: Arc<Backlog>,
    /// `None` until there has been a table.
    routes: watch::Sender<Option<Arc<Routes>>>,
    /// Those in the table, and deleted ones whose last requests are not over.
    revisions: Mutex<BTreeMap<RevisionId, Known>>,
    retired: Mutex<Retired>,
    is_stopping: AtomicBool,
    /// The second of the clock in which waiting requests were told to a new connection.
    resynced_in: AtomicU64,
}

/// A revision, and who finds out where its requests can go.
#[derive(Clone, Debug)]
struct Known {
    revision: Arc<Revision>,
    prober: Arc<Prober>,
}

/// The books of deleted revisions.
#[derive(Debug, Default)]
struct Retired {
    revisions: BTreeMap<RevisionId, RevisionLedger>,
    total: RevisionLedger,
}

#[derive(Debug)]
struct StopOnDrop(Drain);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.start();
    }
}

impl Activator {
    /// Starts following the table and reporting to the autoscaler, on the current runtime. The table there is now
    /// is in force when this returns; if it is empty, requests wait for one that says where they belong.
    pub fn start(params: ActivatorParams, mut endpoints: watch::Receiver<Arc<EndpointTable>>) -> Activator {
        crate::metrics::describe();
        let url = params.autoscaler_url.clone();
        let shared = Arc::new(Shared::new(params));
        // A table that says that there is nothing is one, too; the one the channel was made with is not.
        let has_come = endpoints.has_changed().is_ok_and(|has_come| has_come);
        let table = Arc::clone(&endpoints.borrow_and_update());
        if has_come || *table != EndpointTable::default() {
            shared.apply(&EndpointTable::default(), &table);
        }

        let stop = Drain::default();
        tokio::spawn(until(stop.clone(), follow(Arc::clone(&shared), endpoints, table)));
        tokio::spawn(until(stop.clone(), report(Arc::clone(&shared))));
        let on_connect = {
            let shared = Arc::clone(&shared);
            move || shared.resync()
        };
        let sink = tokio::spawn(sink::run(url, Arc::clone(&shared.outbox), stop.clone(), on_connect));
        Activator { shared, sink: Arc::new(Mutex::new(Some(sink))), stop: Arc::new(StopOnDrop(stop)) }
    }

    /// The front door: serves requests until `drain` has been asked for and all of them are done.
    pub async fn serve(&self, listener: TcpListener, drain: Drain) {
        pilotlight_net::serve(listener, Arc::new(self.clone()), drain).await;
    }

    /// The same front door over TLS.
    pub async fn serve_tls(&self, listener: TcpListener, tls: Arc<ServerTls>, drain: Drain) {
        let handler = Arc::new(OverTls(Arc::new(self.clone())));
        pilotlight_net::serve_tls(listener, tls, handler, drain).await;
    }

    /// What every revision in the table is doing now.
    pub fn activity(&self) -> BTreeMap<RevisionId, RevisionActivity> {
        let revisions = self.shared.all_revisions();
        revisions.into_iter().map(|revision| (revision.id().clone(), revision.activity())).collect()
    }

    /// The books, for a summary.
    pub fn ledger(&self) -> Ledger {
        // Both at once: a revision that is being retired must be seen in exactly one place.
        let (revisions, mut ledger) = {
            let revisions = self.shared.revisions.lock();
            let retired = self.shared.retired.lock();
            let ledger = Ledger {
                revisions: retired.revisions.clone(),
                total: retired.total.clone(),
                stats_dropped: self.shared.outbox.dropped(),
            };
            let revisions = revisions.values().map(|known| Arc::clone(&known.revision));
            (revisions.collect::<Vec<_>>(), ledger)
        };
        for revision in revisions {
            let book = revision.ledger();
            ledger.total.add(&book);
            ledger.revisions.entry(revision.id().clone()).or_default().add(&book);
        }
        ledger
    }

    /// Whether the autoscaler is connected.
    pub fn connected(&self) -> bool {
        self.shared.outbox.is_connected()
    }

    /// Whether traffic should be sent here, and if not, why.
    pub fn check(&self) -> Result<(), &'static str> {
        self.shared.health().check()
    }

    /// Begins the end: probes fail from now on, everything else goes on for `drain_wait`, so that whoever sends
    /// here has time to stop. Then it is time to drain the servers, and after that to [`close`](Activator::close).
    pub async fn drain(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        info!(wait = ?self.shared.params.drain_wait, "Stopping: probes fail, requests are still served");
        sleep(self.shared.params.drain_wait).await;
    }

    /// The end: sends what is left to tell and closes the connection to the autoscaler, then tells the last of traces.
    pub async fn close(&self) {
        self.shared.report();
        self.stop.0.start();
        let sink = self.sink.lock().take();
        if let Some(sink) = sink {
            // Late is as good as never: the process is on its way out.
            let _ = timeout(CLOSE_TIMEOUT, sink).await;
        }
        self.shared.params.telemetry.finish(TELEMETRY_TIMEOUT).await;
    }
}

impl Shared {
    pub(crate) fn new(params: ActivatorParams) -> Self {
        let limits = params.limits;
        Shared {
            upstreams: PodUpstreams::new(params.pods_over_tls.clone(), params.idle),
            body_bytes: ByteBudget::new(limits.body_bytes),
            outbox: Arc::new(Outbox::new(params.pod_name.clone())),
            backlog: Backlog::new(limits.requests),
            routes: watch::Sender::default(),
            revisions: Mutex::default(),
            retired: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            resynced_in: AtomicU64::new(0),
            params,
        }
    }

    /// Where requests go at this moment; `None` if there has been no table, and none came for a while. Without one
    /// every host is unknown, and a 404 would be a lie.
    pub(crate) async fn routes(&self) -> Option<Arc<Routes>> {
        if let Some(routes) = &*self.routes.borrow() {
            return Some(Arc::clone(routes));
        }
        let mut routes = self.routes.subscribe();
        let known = timeout(FIRST_TABLE_TIMEOUT, routes.wait_for(Option::is_some)).await;
        known.ok()?.ok()?.clone()
    }

    pub(crate) fn health(&self) -> Health {
        Health {
            is_connected: self.outbox.is_connected(),
            has_endpoints: self.routes.borrow().is_some(),
            is_stopping: self.is_stopping.load(Ordering::Acquire),
        }
    }

    pub(crate) fn all_revisions(&self) -> Vec<Arc<Revision>> {
        self.revisions.lock().values().map(|known| Arc::clone(&known.revision)).collect()
    }

    /// Makes the table's state ours. What has not changed is left alone.
    pub(crate) fn apply(&self, old: &EndpointTable, new: &EndpointTable) {
        let mut revisions = self.revisions.lock();
        let mut routes = Vec::with_capacity(new.revisions.len());
        for (id, endpoints) in &new.revisions {
            let known = revisions.entry(id.clone()).or_insert_with(|| self.meet(id));
            let route = Route { revision: Arc::clone(&known.revision), timeouts: timeouts(endpoints) };
            routes.push((route, endpoints.hosts.clone()));
        }
        let new_routes = Routes::new(&self.params.cluster_domain, self.params.single_default, routes);
        self.routes.send_replace(Some(Arc::new(new_routes)));
        for (id, known) in revisions.iter() {
            let (before, now) = (old.revisions.get(id), new.revisions.get(id));
            if before != now {
                known.prober.update(now);
            }
        }
        drop(revisions);
        self.upstreams.follow(old, new);
    }

    fn meet(&self, id: &RevisionId) -> Known {
        let depth = self.params.limits.requests_per_revision;
        let revision = Arc::new(Revision::new(
            id.clone(),
            depth,
            Arc::clone(&self.backlog),
            !self.params.telemetry.counts_requests(),
        ));
        let prober = Prober::new(&self.params, self.upstreams.in_the_clear(), &revision);
        Known { revision, prober }
    }

    /// Tells the autoscaler about the last second, and forgets deleted revisions that are done.
    pub(crate) fn report(&self) {
        let now = self.params.clock.now();
        // One sample a second: a second one would be added to the first.
        if self.resynced_in.load(Ordering::Relaxed) != now.whole_seconds() {
            let revisions = self.all_revisions();
            let stats =
                revisions.iter().filter_map(|revision| Some((revision.id().clone(), revision.report(now)?)));
            self.outbox.push(stats);
        }
        self.retire();
    }

    /// Tells a new connection at once of every request that waits or runs.
    fn resync(&self) {
        let now = self.params.clock.now();
        let revisions = self.all_revisions();
        let stats: Vec<_> = revisions
            .iter()
            .filter_map(|revision| Some((revision.id().clone(), revision.resync(now)?)))
            .collect();
        if !stats.is_empty() {
            self.resynced_in.store(now.whole_seconds(), Ordering::Relaxed);
            self.outbox.push(stats);
        }
    }

    pub(crate) fn retire(&self) {
        let Some(routes) = self.routes.borrow().clone() else { return };
        let mut revisions = self.revisions.lock();
        let done: Vec<RevisionId> = revisions
            .values()
            .map(|known| &known.revision)
            .filter(|revision| !routes.contains(revision.id()) && revision.in_flight() == 0)
            .map(|revision| revision.id().clone())
            .collect();
        let mut retired = self.retired.lock();
        for id in done {
            let Some(Known { revision, .. }) = revisions.remove(&id) else { continue };
            let book = revision.retire();
            retired.total.add(&book);
            retired.revisions.entry(id).or_default().add(&book);
            if retired.revisions.len() > MAX_RETIRED {
                retired.revisions.pop_first();
            }
        }
    }
}

async fn follow(
    shared: Arc<Shared>,
    mut endpoints: watch::Receiver<Arc<EndpointTable>>,
    mut current: Arc<EndpointTable>,
) {
    // When the sender goes, the last table stays in force.
    while endpoints.changed().await.is_ok() {
        let next = Arc::clone(&endpoints.borrow_and_update());
        shared.apply(&current, &next);
        current = next;
    }
}

async fn report(shared: Arc<Shared>) {
    let clock = shared.params.clock;
    loop {
        sleep_until(clock.instant_at(REPORT.next(clock.now()))).await;
        shared.report();
    }
}

async fn until(stop: Drain, task: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.started() => {}
        () = task => {}
    }
}

fn timeouts(endpoints: &RevisionEndpoints) -> Timeouts {
    Timeouts {
        total: endpoints.timeout,
        response_start: endpoints.response_start_timeout,
        idle: endpoints.idle_timeout,
    }
}

const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last spans may take to go out, as in Knative.
const TELEMETRY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests wait for the first table. Whoever serves it may be starting, too.
const FIRST_TABLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Deleted revisions whose books are kept apart.
const MAX_RETIRED: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_table_that_came_before_the_start_is_known_and_one_that_never_came_is_not() {
        for has_come in [true, false] {
            let (tables, table) = watch::channel(Arc::default());
            if has_come {
                tables.send_replace(Arc::default());
            }
            let params = ActivatorParams::new("act", Clock::start(), "ws://127.0.0.1:1");
            let activator = Activator::start(params, table);
            assert_eq!(activator.shared.health().has_endpoints, has_come);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_table_requests_give_up_after_a_while() {
        let shared = Shared::new(ActivatorParams::new("act", Clock::start(), "ws://127.0.0.1:1"));
        let started = tokio::time::Instant::now();
        assert!(shared.routes().await.is_none());
        assert_eq!(started.elapsed(), FIRST_TABLE_TIMEOUT);
        shared.apply(&EndpointTable::default(), &EndpointTable::default());
        assert!(shared.routes().await.is_some(), "an empty table is one, too");
    }
}
