//! The activator as a whole: its revisions, the task that follows their endpoints, and the one that reports to the
//! autoscaler.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_core::cadence::REPORT;
use pilotlight_core::{PodSharing, RevisionEndpoints, RevisionId, Stat};
use pilotlight_feed::{Change, Follower};
use pilotlight_net::tls::ServerTls;
use pilotlight_net::{ByteBudget, Clock, Drain, Port, Serving, Target, descriptor_limit};
use pilotlight_telemetry::{OverTls, Telemetry};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::task::coop::consume_budget;
use tokio::time::{sleep, sleep_until, timeout};
use tracing::info;

use crate::connections::ConnectionLimits;
use crate::known::KnownRevisions;
use crate::ledger::Ledger;
use crate::link::Dial;
use crate::prober::{ProbeContext, ProbeParams, Prober};
use crate::probes::Health;
use crate::reports::Reporting;
use crate::revision::{RevisionActivity, RevisionTraffic};
use crate::routes::{Route, Routes};
use crate::sink::{self, Outbox};
use crate::throttler::Backlog;
use crate::upstreams::{IdleConnections, PodUpstreams, PodsOverTls};

/// Parameters of an activator.
#[derive(Clone, Debug)]
pub struct ActivatorParams {
    /// The name it reports under.
    pub pod_name: String,
    /// The process's clock.
    pub clock: Clock,
    /// The autoscaler's address: a [`Target::ws`].
    pub autoscaler: Target,
    /// The domain that cluster-local host names end in.
    pub cluster_domain: String,
    /// The activator's own address, by which it finds its place among the activators that share a revision's pods;
    /// `None`: it uses every pod.
    pub pod_ip: Option<IpAddr>,
    /// Times of the probes that pods get whose readiness the endpoints leave open.
    pub probing: ProbeParams,
    /// Bounds of what may wait.
    pub limits: BufferLimits,
    /// If there is exactly one revision, it also answers for hosts that no revision lists; and the 404 for an unknown
    /// host lists those that are known. For local use.
    pub single_default: bool,
    /// Whether an ingress in front sets the headers that name a revision and the original host. Without one they come
    /// from the client, and are removed.
    pub behind_ingress: bool,
    /// The time between failing probes and the drain of the servers, in which ingresses stop sending.
    pub drain_wait: Duration,
    /// TLS to pods; `None`: all connections are in the clear, whatever the endpoints offer.
    pub pods_over_tls: Option<PodsOverTls>,
    /// Spans, request logs and OpenTelemetry's metrics of requests.
    pub telemetry: Telemetry,
    /// Bounds of the pools of keep-alive connections to pods.
    pub idle: IdleConnections,
}

impl ActivatorParams {
    /// The defaults of a cluster: `cluster.local`, a drain of 45 s.
    pub fn new(pod_name: impl Into<String>, clock: Clock, autoscaler: Target) -> Self {
        ActivatorParams {
            pod_name: pod_name.into(),
            clock,
            autoscaler,
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

/// Bounds of what may wait for pods. Beyond them, requests are answered with 503 at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimits {
    /// Requests of one revision.
    pub requests_per_revision: usize,
    /// Requests of all revisions together.
    pub requests: usize,
    /// Bytes of one revision's requests that are kept in memory while they wait: beginnings of bodies, and large heads.
    pub body_bytes_per_revision: usize,
    /// The same of all revisions together. Beyond both, requests still wait as long as their bodies can: over HTTP/1.1
    /// in the client's socket, over HTTP/2 in a part of the connection's flow-control window. See
    /// [`hold_while`](pilotlight_net::hold_while).
    pub body_bytes: usize,
    /// Connections of one revision at [its own ports](Activator::serve_port); `None`: a quarter of the file descriptors that
    /// the process may have open when the activator starts. More are closed.
    pub connections_per_revision: Option<usize>,
}

impl Default for BufferLimits {
    fn default() -> Self {
        BufferLimits {
            requests_per_revision: 10_000,
            requests: 100_000,
            body_bytes_per_revision: 32 << 20,
            body_bytes: 64 << 20,
            connections_per_revision: None,
        }
    }
}

/// A running activator. Clones are the same one; its tasks end when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Activator {
    pub(crate) shared: Arc<ActivatorState>,
    sink: Arc<Mutex<Option<JoinHandle<()>>>>,
    /// Callers of `caught_up`, who are answered by the task that follows the endpoints.
    catching_up: mpsc::Sender<oneshot::Sender<()>>,
    stop: Arc<StopOnDrop>,
}

/// The state that the tasks and the request path share.
#[derive(Debug)]
pub(crate) struct ActivatorState {
    pub(crate) params: ActivatorParams,
    pub(crate) upstreams: PodUpstreams,
    pub(crate) body_bytes: ByteBudget,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) routes: Routes,
    pub(crate) reporting: Reporting,
    pub(crate) connections: ConnectionLimits,
    revisions: Mutex<KnownRevisions>,
    is_stopping: AtomicBool,
}

#[derive(Debug)]
struct StopOnDrop(Drain);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.start();
    }
}

impl Activator {
    /// Starts following the endpoints and reporting to the autoscaler, on the current runtime. What has been published so
    /// far is in force when this returns; until all of it has been, requests for unknown hosts wait.
    pub fn start(params: ActivatorParams, endpoints: Follower<RevisionId, RevisionEndpoints>) -> Activator {
        let autoscaler = params.autoscaler.clone();
        Activator::start_over(autoscaler, params, endpoints)
    }

    /// [`start`](Activator::start) with any way to the autoscaler, in the place of the one that `params` name.
    pub fn start_over(
        autoscaler: impl Dial,
        params: ActivatorParams,
        mut endpoints: Follower<RevisionId, RevisionEndpoints>,
    ) -> Activator {
        crate::metrics::describe();
        let shared = Arc::new(ActivatorState::new(params));
        shared.catch_up(&mut endpoints);

        let stop = Drain::default();
        let (catching_up, asking) = mpsc::channel(1);
        tokio::spawn(until(stop.clone(), follow(Arc::clone(&shared), endpoints, asking)));
        tokio::spawn(until(stop.clone(), report(Arc::clone(&shared))));
        let on_connect = {
            let shared = Arc::clone(&shared);
            move || shared.resync()
        };
        let sink = tokio::spawn(sink::run(autoscaler, Arc::clone(&shared.outbox), stop.clone(), on_connect));
        let (sink, stop) = (Arc::new(Mutex::new(Some(sink))), Arc::new(StopOnDrop(stop)));
        Activator { shared, sink, catching_up, stop }
    }

    /// Returns when every change of endpoints that was published before this call is in force.
    pub async fn caught_up(&self) {
        let (answer, answered) = oneshot::channel();
        // Err in either place: the feed has ended and everything it published is in force, or the activator is closed.
        if self.catching_up.send(answer).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// Serves requests until `drain` has started and all of them are done.
    pub fn serve(&self, port: impl Into<Port>, drain: Drain) -> Serving {
        pilotlight_net::serve(port, Arc::new(self.clone()), drain)
    }

    /// [`serve`](Activator::serve) over TLS.
    pub fn serve_tls(&self, port: impl Into<Port>, tls: Arc<ServerTls>, drain: Drain) -> Serving {
        let handler = Arc::new(OverTls(Arc::new(self.clone())));
        pilotlight_net::serve_tls(port, tls, handler, drain)
    }

    /// Activity of every revision; deleted ones are listed until their last request is over.
    pub fn activity(&self) -> BTreeMap<RevisionId, RevisionActivity> {
        let revisions = self.shared.all_revisions();
        revisions.into_iter().map(|revision| (revision.id().clone(), revision.activity())).collect()
    }

    /// Activity of the revisions that have requests, or had some in the last second. The cost does not grow with the others.
    pub fn busy(&self) -> BTreeMap<RevisionId, RevisionActivity> {
        let revisions = self.shared.reporting.revisions();
        revisions.into_iter().map(|revision| (revision.id().clone(), revision.activity())).collect()
    }

    /// The books, for a summary.
    pub fn ledger(&self) -> Ledger {
        // One lock for both: a revision that is being retired must be counted exactly once.
        let (revisions, mut ledger) = {
            let revisions = self.shared.revisions.lock();
            let all: Vec<_> = revisions.all().map(Arc::clone).collect();
            (all, revisions.retired(self.shared.outbox.dropped()))
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

    /// Whether traffic should be sent to this activator, and if not, why.
    pub fn check(&self) -> Result<(), &'static str> {
        self.shared.health().check()
    }

    /// Begins a graceful shutdown: probes fail from now on, and requests are served for `drain_wait`, in which ingresses
    /// stop sending. The caller then drains the servers, and [`close`](Activator::close)s the activator.
    pub async fn drain(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        info!(wait = ?self.shared.params.drain_wait, "Stopping: probes fail, requests are still served");
        sleep(self.shared.params.drain_wait).await;
    }

    /// Ends a graceful shutdown: sends the last report, if this second has none, closes the connection to the autoscaler,
    /// then exports the last spans.
    pub async fn close(&self) {
        self.shared.report();
        self.stop.0.start();
        let sink = self.sink.lock().take();
        if let Some(sink) = sink {
            // Err: the autoscaler does not take the close frame in time, and the process ends either way.
            let _ = timeout(CLOSE_TIMEOUT, sink).await;
        }
        self.shared.params.telemetry.finish(TELEMETRY_TIMEOUT).await;
    }
}

impl ActivatorState {
    pub(crate) fn new(params: ActivatorParams) -> Self {
        let limits = params.limits;
        ActivatorState {
            upstreams: PodUpstreams::new(params.pods_over_tls.clone(), params.idle),
            body_bytes: ByteBudget::new(limits.body_bytes),
            outbox: Arc::new(Outbox::new(params.pod_name.clone())),
            backlog: Backlog::new(limits.requests),
            routes: Routes::new(&params.cluster_domain, params.single_default),
            reporting: Reporting::default(),
            connections: ConnectionLimits::new(
                limits.connections_per_revision.unwrap_or_else(|| descriptor_limit() / 4),
            ),
            revisions: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            params,
        }
    }

    pub(crate) fn health(&self) -> Health {
        Health {
            is_connected: self.outbox.is_connected(),
            has_endpoints: self.routes.is_complete(),
            is_stopping: self.is_stopping.load(Ordering::Acquire),
        }
    }

    pub(crate) fn all_revisions(&self) -> Vec<Arc<RevisionTraffic>> {
        self.revisions.lock().all().map(Arc::clone).collect()
    }

    fn catch_up(&self, endpoints: &mut Follower<RevisionId, RevisionEndpoints>) {
        while let Some(change) = endpoints.try_next() {
            self.apply(change);
        }
    }

    /// Puts one change in force. The cost does not grow with the number of revisions.
    pub(crate) fn apply(&self, change: Change<RevisionId, RevisionEndpoints>) {
        match change {
            Change::Set(id, endpoints) => self.set(&id, &endpoints),
            Change::Gone(id) => self.remove(&id),
            Change::Complete => self.routes.complete(),
        }
    }

    fn set(&self, id: &RevisionId, endpoints: &Arc<RevisionEndpoints>) {
        let meet = || self.meet(id);
        let (member, before) = self.revisions.lock().set(id, Arc::clone(endpoints), meet);
        // Pods before the route: the first request over a new route finds them.
        member.prober.update(Some(endpoints));
        let is_same_route = |before: &RevisionEndpoints| {
            before.hosts == endpoints.hosts
                && before.timeouts == endpoints.timeouts
                && peers(before) == peers(endpoints)
        };
        if !before.as_deref().is_some_and(is_same_route) {
            let (revision, hosts) = (member.revision, endpoints.hosts.clone());
            let others = peers(endpoints).into_iter().flatten().copied();
            let peers = others.filter(|peer| Some(*peer) != self.params.pod_ip).collect();
            self.routes.set(Route { revision, hosts, peers, timeouts: endpoints.timeouts });
        }
        self.upstreams.follow(&id.namespace, before.as_deref(), Some(endpoints));
    }

    fn remove(&self, id: &RevisionId) {
        // Route before the revision: no request finds one that is already retired.
        self.routes.remove(id);
        let Some(member) = self.revisions.lock().remove(id) else { return };
        member.prober.update(None);
        self.upstreams.follow(&id.namespace, Some(&member.endpoints), None);
    }

    fn meet(&self, id: &RevisionId) -> (Arc<RevisionTraffic>, Arc<Prober>) {
        let limits = self.params.limits;
        let revision = Arc::new(RevisionTraffic::new(
            id.clone(),
            self.params.clock,
            limits.requests_per_revision,
            self.body_bytes.share(limits.body_bytes_per_revision),
            Arc::clone(&self.backlog),
            !self.params.telemetry.counts_requests(),
        ));
        let ActivatorParams { clock, pod_ip, probing, .. } = self.params;
        let context = ProbeContext { clock, pod_ip, probing, upstreams: self.upstreams.in_the_clear() };
        let prober = Prober::new(context, &revision);
        (revision, prober)
    }

    /// Sends the stat of a revision's first request at once; the revision reports each second from now on.
    pub(crate) fn announce(&self, revision: &Arc<RevisionTraffic>, stat: Stat) {
        self.reporting.join(revision);
        self.outbox.push([(revision.id().clone(), stat)]);
    }

    /// Sends the stats of the last second, and retires deleted revisions that have no requests.
    pub(crate) fn report(&self) {
        self.outbox.push(self.reporting.report(self.params.clock.now()));
        self.retire();
    }

    /// Sends the requests that wait for a first pod at once over a new connection.
    fn resync(&self) {
        self.outbox.push(self.reporting.resync(self.params.clock.now()));
    }

    pub(crate) fn retire(&self) {
        let over = self.revisions.lock().retire();
        for revision in over {
            self.reporting.leave(&revision);
        }
    }
}

/// The activators that hand requests of a revision on to each other, if they do.
fn peers(endpoints: &RevisionEndpoints) -> Option<&BTreeSet<IpAddr>> {
    (endpoints.sharing == PodSharing::Owned).then_some(&endpoints.activators)
}

async fn follow(
    shared: Arc<ActivatorState>,
    mut endpoints: Follower<RevisionId, RevisionEndpoints>,
    mut asking: mpsc::Receiver<oneshot::Sender<()>>,
) {
    loop {
        tokio::select! {
            change = endpoints.next() => match change {
                Some(change) => shared.apply(change),
                // The publisher has gone; the endpoints it published last stay in force.
                None => return,
            },
            Some(answer) = asking.recv() => {
                shared.catch_up(&mut endpoints);
                // Err: the caller of `caught_up` was dropped.
                let _ = answer.send(());
            }
        }
        // Yields now and then: a snapshot of thousands of revisions must not block the runtime's thread.
        consume_budget().await;
    }
}

async fn report(shared: Arc<ActivatorState>) {
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

const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The limit of the last export of spans, as in Knative's activator.
const TELEMETRY_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use pilotlight_feed::Feed;

    use super::*;

    #[tokio::test]
    async fn no_revision_at_all_is_known_as_such_only_if_somebody_said_so() {
        for is_complete in [true, false] {
            let feed = Feed::default();
            if is_complete {
                feed.complete();
            }
            let params = ActivatorParams::new("act", Clock::start(), Target::ws("ws://127.0.0.1:1").unwrap());
            let activator = Activator::start(params, feed.follow());
            assert_eq!(activator.shared.health().has_endpoints, is_complete);
        }
    }

    #[tokio::test]
    async fn caught_up_means_that_all_that_was_published_before_is_in_force() {
        let feed = Feed::default();
        let params = ActivatorParams::new("act", Clock::start(), Target::ws("ws://127.0.0.1:1").unwrap());
        let activator = Activator::start(params, feed.follow());
        let revisions = |activator: &Activator| activator.activity().len();
        for count in 1..100 {
            feed.set(RevisionId::new("default", format!("rev-{count}")), RevisionEndpoints::default());
            activator.caught_up().await;
            assert_eq!(revisions(&activator), count);
        }
        feed.remove(&RevisionId::new("default", "rev-1"));
        drop(feed);
        activator.caught_up().await;
        activator.shared.retire();
        assert_eq!(revisions(&activator), 98, "its last word counts");
    }
}
