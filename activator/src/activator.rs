//! The activator as a whole: which revisions there are, and the tasks that keep them and the autoscaler informed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_core::cadence::REPORT;
use pilotlight_core::{RevisionEndpoints, RevisionId, Stat};
use pilotlight_feed::{Change, Follower};
use pilotlight_net::tls::ServerTls;
use pilotlight_net::{ByteBudget, Clock, Drain, Target};
use pilotlight_telemetry::{OverTls, Telemetry};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::task::coop::consume_budget;
use tokio::time::{sleep, sleep_until, timeout};
use tracing::info;

use crate::known::KnownRevisions;
use crate::ledger::Ledger;
use crate::prober::{ProbeContext, ProbeParams, Prober};
use crate::probes::Health;
use crate::reports::Reporting;
use crate::revision::{RevisionActivity, RevisionTraffic};
use crate::routes::{Route, Routes};
use crate::sink::{self, Dial, Outbox};
use crate::throttler::Backlog;
use crate::upstreams::{IdleConnections, PodUpstreams, PodsOverTls};

/// What an activator needs to know before it starts.
#[derive(Clone, Debug)]
pub struct ActivatorParams {
    /// What it calls itself in its reports.
    pub pod_name: String,
    /// The process's clock.
    pub clock: Clock,
    /// Where the autoscaler listens: a [`Target::ws`].
    pub autoscaler: Target,
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
    pub(crate) shared: Arc<ActivatorState>,
    sink: Arc<Mutex<Option<JoinHandle<()>>>>,
    /// Whoever is in here is answered when everything published before is in force.
    catching_up: mpsc::Sender<oneshot::Sender<()>>,
    stop: Arc<StopOnDrop>,
}

/// What the tasks and the request path share.
#[derive(Debug)]
pub(crate) struct ActivatorState {
    pub(crate) params: ActivatorParams,
    pub(crate) upstreams: PodUpstreams,
    pub(crate) body_bytes: ByteBudget,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) routes: Routes,
    pub(crate) reporting: Reporting,
    revisions: Mutex<KnownRevisions>,
    is_stopping: AtomicBool,
    /// The second of the clock in which waiting requests were told to a new connection.
    resynced_in: AtomicU64,
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

    /// The same, over any way to the autoscaler.
    pub(crate) fn start_over(
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
        // Err, here and there: the feed has ended, so that its last word is in force; or the activator is closed.
        if self.catching_up.send(answer).await.is_ok() {
            let _ = answered.await;
        }
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

    /// What every revision is doing now; deleted ones are listed until their last request is over.
    pub fn activity(&self) -> BTreeMap<RevisionId, RevisionActivity> {
        let revisions = self.shared.all_revisions();
        revisions.into_iter().map(|revision| (revision.id().clone(), revision.activity())).collect()
    }

    /// The books, for a summary.
    pub fn ledger(&self) -> Ledger {
        // Both at once: a revision that is being retired must be seen in exactly one place.
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
            revisions: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            resynced_in: AtomicU64::new(0),
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

    /// Puts one change in force. Its cost does not depend on how many other revisions there are.
    pub(crate) fn apply(&self, change: Change<RevisionId, RevisionEndpoints>) {
        match change {
            Change::Set(id, endpoints) => self.set(&id, endpoints),
            Change::Gone(id) => self.remove(&id),
            Change::Complete => self.routes.complete(),
        }
    }

    fn set(&self, id: &RevisionId, endpoints: Arc<RevisionEndpoints>) {
        let meet = || self.meet(id);
        let (member, before) = self.revisions.lock().set(id, Arc::clone(&endpoints), meet);
        // The pods first: the first request over a new route finds them.
        member.prober.update(Some(&endpoints));
        let is_routed = |before: &RevisionEndpoints| {
            before.hosts == endpoints.hosts && before.timeouts == endpoints.timeouts
        };
        if !before.as_deref().is_some_and(is_routed) {
            let (revision, hosts) = (member.revision, endpoints.hosts.clone());
            self.routes.set(Route { revision, hosts, timeouts: endpoints.timeouts });
        }
        self.upstreams.follow(&id.namespace, before.as_deref(), Some(&endpoints));
    }

    fn remove(&self, id: &RevisionId) {
        // The route first, so that no request finds a revision that is already retired.
        self.routes.remove(id);
        let Some(member) = self.revisions.lock().remove(id) else { return };
        member.prober.update(None);
        self.upstreams.follow(&id.namespace, Some(&member.endpoints), None);
    }

    fn meet(&self, id: &RevisionId) -> (Arc<RevisionTraffic>, Arc<Prober>) {
        let depth = self.params.limits.requests_per_revision;
        let revision = Arc::new(RevisionTraffic::new(
            id.clone(),
            depth,
            Arc::clone(&self.backlog),
            !self.params.telemetry.counts_requests(),
        ));
        let ActivatorParams { clock, pod_ip, probing, .. } = self.params;
        let context = ProbeContext { clock, pod_ip, probing, upstreams: self.upstreams.in_the_clear() };
        let prober = Prober::new(context, &revision);
        (revision, prober)
    }

    /// Tells the autoscaler at once of a revision's first request; from now on the revision reports.
    pub(crate) fn announce(&self, revision: &Arc<RevisionTraffic>, stat: Stat) {
        self.reporting.join(revision);
        self.outbox.push([(revision.id().clone(), stat)]);
    }

    /// Tells the autoscaler about the last second, and forgets deleted revisions that are done.
    pub(crate) fn report(&self) {
        let now = self.params.clock.now();
        // One sample a second: a second one would be added to the first.
        if self.resynced_in.load(Ordering::Relaxed) != now.whole_seconds() {
            self.outbox.push(self.reporting.report(now));
        }
        self.retire();
    }

    /// Tells a new connection at once of every request that waits or runs.
    fn resync(&self) {
        let now = self.params.clock.now();
        let stats = self.reporting.resync(now);
        if !stats.is_empty() {
            self.resynced_in.store(now.whole_seconds(), Ordering::Relaxed);
            self.outbox.push(stats);
        }
    }

    pub(crate) fn retire(&self) {
        let over = self.revisions.lock().retire();
        for revision in over {
            self.reporting.leave(&revision);
            revision.rest();
        }
    }
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
                // When the publisher goes, what it said last stays in force.
                None => return,
            },
            Some(answer) = asking.recv() => {
                shared.catch_up(&mut endpoints);
                // Err: whoever asked has left.
                let _ = answer.send(());
            }
        }
        // A snapshot of thousands must not keep others from this thread.
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
/// How long the last spans may take to go out, as in Knative.
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
