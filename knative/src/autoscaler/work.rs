//! Work on revisions: each is shown to the autoscaler, reconciled, scaled, probed, and told about in events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kube::Client;
use parking_lot::Mutex;
use pilotlight_autoscaler::cluster::RevisionView;
use pilotlight_core::{Evaluation, RevisionId, Time};
use pilotlight_feed::{Feed, Follower};
use pilotlight_kubernetes::event::Recorder;
use pilotlight_kubernetes::lane::{Lane, Round};
use pilotlight_kubernetes::scale::Scales;
use pilotlight_kubernetes::write::WriteError;
use pilotlight_net::Clock;
use tokio::runtime::Handle;
use tracing::{debug, warn};

use super::index::{Fact, Index, ProbeTarget, Written};
use super::metrics::Metrics;
use super::probe::{Probes, Resolve, Turn};
use super::reconcile::{Write, reconcile};
use super::scraping::ScrapeOutcome;
use super::seen::Seen;
use super::tell::Teller;
use super::write::Writer;

/// The parts of a [`Worker`].
pub(crate) struct WorkerParams {
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    pub(crate) cluster_domain: String,
    pub(crate) resolve: Resolve,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
}

/// The index, and everything that acts on it.
pub(crate) struct Worker {
    pub(crate) index: Mutex<Index>,
    views: Feed<RevisionId, RevisionView>,
    clock: Clock,
    runtime: Handle,
    writer: Writer,
    targets: Scales,
    scales: Arc<Lane>,
    writes: Arc<Lane>,
    probes: Arc<Probes>,
    resolve: Resolve,
    cluster_domain: String,
    teller: Teller,
    metrics: Metrics,
    /// When a failure of each operation was last logged.
    logged: Mutex<BTreeMap<&'static str, Time>>,
}

impl Worker {
    pub(crate) fn new(params: WorkerParams, index: Index) -> Arc<Self> {
        let WorkerParams { client, clock, cluster_domain, resolve, recorder, metrics } = params;
        Arc::new(Worker {
            index: Mutex::new(index),
            views: Feed::default(),
            clock,
            runtime: Handle::current(),
            writer: Writer::new(client.clone()),
            targets: Scales::new(client),
            scales: Lane::new(AT_WORK),
            writes: Lane::new(AT_WORK),
            probes: Arc::default(),
            resolve,
            cluster_domain,
            teller: Teller::new(recorder),
            metrics,
            logged: Mutex::default(),
        })
    }

    pub(crate) fn follow(&self) -> Follower<RevisionId, RevisionView> {
        self.views.follow()
    }

    /// Every watch has told what there is: from now on revisions are shown.
    pub(crate) fn complete(&self) {
        self.index.lock().complete();
    }

    /// Everything there is has been shown.
    pub(crate) fn shown(&self) {
        self.views.complete();
    }

    /// Takes in a fact.
    pub(crate) fn learn(self: &Arc<Self>, fact: Fact) {
        // How many pods are ready is written only once it has been decided on.
        let is_written = !matches!(fact, Fact::Pod(..));
        let Some(id) = self.index.lock().learn(fact) else { return };
        self.show(&id);
        if is_written {
            self.reconcile_soon(&id);
        }
    }

    /// Looks at a revision after a change of settings or buckets.
    pub(crate) fn look_again(self: &Arc<Self>, id: &Arc<RevisionId>) {
        self.index.lock().resolve_again(id);
        self.show(id);
        self.reconcile_soon(id);
    }

    /// Takes in an evaluation.
    pub(crate) fn apply(self: &Arc<Self>, id: &RevisionId, evaluation: &Evaluation) {
        let due = self.index.lock().decided(id, evaluation);
        if due.is_nothing() {
            return;
        }
        let id = Arc::new(id.clone());
        if due.is_urgent {
            self.scale_first(&id);
        } else if due.is_dirty {
            self.reconcile_soon(&id);
        }
        if due.is_seen_otherwise {
            self.show(&id);
        }
        if let Some(target) = due.probe
            && let Some(turn) = self.probes.turn(&id)
        {
            let worker = Arc::clone(self);
            self.runtime.spawn(async move { worker.probe(turn, &id, target).await });
        }
    }

    pub(crate) fn scraped(self: &Arc<Self>, id: &RevisionId, outcome: &ScrapeOutcome) {
        if self.index.lock().scraped(id, outcome) {
            self.reconcile_soon(&Arc::new(id.clone()));
        }
    }

    /// Shows the autoscaler a revision as it is now.
    fn show(&self, id: &RevisionId) {
        let mut index = self.index.lock();
        let (view, news) = index.look(self.clock.now(), id);
        // While the index is locked: of two who show the same revision the later one must be the last.
        match view {
            Some(view) => self.views.set(id.clone(), view),
            None => self.views.remove(id),
        };
        let uid = if news.is_empty() { None } else { index.seen(id) };
        drop(index);
        if let Some(seen) = uid {
            self.teller.news(&seen, news);
        }
    }

    fn reconcile_soon(self: &Arc<Self>, id: &Arc<RevisionId>) {
        if !self.index.lock().is_shown(id) {
            return;
        }
        let (worker, of) = (Arc::clone(self), Arc::clone(id));
        self.writes.add(id, false, move |failures| {
            let (worker, id) = (Arc::clone(&worker), Arc::clone(&of));
            async move { worker.reconcile(&id, failures).await }
        });
    }

    fn scale_soon(self: &Arc<Self>, id: &Arc<RevisionId>) {
        let (worker, of) = (Arc::clone(self), Arc::clone(id));
        self.scales.add(id, false, move |failures| {
            let (worker, id) = (Arc::clone(&worker), Arc::clone(&of));
            async move { worker.scale(&id, failures).await }
        });
    }

    /// Scales now, and has everything else written once that was tried: of many wakes at once none waits for the status
    /// of another.
    fn scale_first(self: &Arc<Self>, id: &Arc<RevisionId>) {
        let (worker, of, first) = (Arc::clone(self), Arc::clone(id), Arc::new(AtomicBool::new(true)));
        let has_begun = self.scales.add(id, true, move |failures| {
            let (worker, id, first) = (Arc::clone(&worker), Arc::clone(&of), Arc::clone(&first));
            async move {
                let round = Arc::clone(&worker).scale(&id, failures).await;
                if first.swap(false, Ordering::Relaxed) {
                    worker.reconcile_soon(&id);
                }
                round
            }
        });
        if !has_begun {
            self.reconcile_soon(id);
        }
    }

    /// Does what is missing, in order.
    async fn reconcile(self: Arc<Self>, id: &Arc<RevisionId>, failures: u32) -> Round {
        let Some(seen) = self.seen(id) else { return Round::Done };
        for write in reconcile(self.clock.now(), &seen) {
            if !self.index.lock().is_shown(id) {
                return Round::Done;
            }
            let Err(error) = self.perform(&seen, &write).await else { continue };
            self.failed(&seen, operation(&write), &error, failures);
            if let (Some(kind), WriteError::Refused(_) | WriteError::Forbidden(_)) = (write.creates(), &error)
            {
                self.index.lock().failed_create(id, Some(kind));
                self.write_status(id).await;
            }
            return Round::Failed;
        }
        Round::Done
    }

    async fn perform(self: &Arc<Self>, seen: &Seen, write: &Write) -> Result<(), WriteError> {
        let (writer, id) = (&self.writer, &seen.id);
        let written = match write {
            Write::Scale => {
                self.scale_soon(id);
                return Ok(());
            }
            Write::CreateService(service) => writer.create_service(service).await,
            Write::ChangeService(spec) => writer.change_service(id, spec).await,
            Write::CreateMetric(metric) => writer.create_metric(metric).await,
            Write::ChangeMetric(spec) => writer.change_metric(id, spec).await,
            Write::Status(status) => writer.status(id, &seen.autoscaler, status).await,
            Write::MetricStatus(status) => {
                let version = seen.metric.as_ref().map(|metric| metric.resource_version.as_str());
                writer.metric_status(id, version.unwrap_or_default(), status).await
            }
        }?;
        self.metrics.writes.count(operation(write));
        let mut index = self.index.lock();
        index.wrote(id, written);
        if write.creates().is_some() {
            index.failed_create(id, None);
        }
        drop(index);
        self.show(id);
        Ok(())
    }

    /// Writes the status alone, after something else has failed.
    async fn write_status(self: &Arc<Self>, id: &RevisionId) {
        let Some(seen) = self.seen(id) else { return };
        let writes = reconcile(self.clock.now(), &seen);
        let status = writes.iter().find(|write| matches!(write, Write::Status(_)));
        if let Some(status) = status
            && let Err(error) = self.perform(&seen, status).await
        {
            debug!(revision = %id, %error, "Status was not written");
        }
    }

    /// Has the scale target ask for as many pods as it should.
    async fn scale(self: Arc<Self>, id: &Arc<RevisionId>, failures: u32) -> Round {
        let Some(seen) = self.seen(id) else { return Round::Done };
        let Some(to) = seen.scale() else { return Round::Done };
        match self.set_scale(&seen, to).await {
            Ok(()) => Round::Done,
            Err(error) => {
                self.failed(&seen, SCALE, &error, failures);
                Round::Failed
            }
        }
    }

    async fn set_scale(&self, seen: &Seen, to: u32) -> Result<(), WriteError> {
        let target = &seen.autoscaler.spec.scale_target_ref;
        let namespace = &seen.id.namespace;
        let from = match seen.replicas {
            Some(replicas) => Some(replicas),
            None => match self.targets.read(namespace, target).await {
                Ok((found, _)) => {
                    let replicas = found.replicas;
                    self.index.lock().wrote(&seen.id, Written::Target(found));
                    Some(replicas)
                }
                // Knative's role lets us patch the scale of anything, and read that of nothing.
                Err(WriteError::Forbidden(_)) => None,
                Err(error) => return Err(error),
            },
        };
        if from == Some(to) {
            return Ok(());
        }
        let scaled = self.targets.set(namespace, target, to).await?;
        self.metrics.writes.count(SCALE);
        self.index.lock().wrote(&seen.id, Written::Target(scaled));
        self.teller.scaled(seen, from, to);
        Ok(())
    }

    /// Reads the scale targets that no watch shows, for somebody else may have changed one.
    pub(crate) async fn read_targets(self: &Arc<Self>) {
        let unwatched = self.index.lock().unwatched();
        stream::iter(unwatched).for_each_concurrent(READ_AT_A_TIME, |id| self.read_target(id)).await;
    }

    async fn read_target(self: &Arc<Self>, id: Arc<RevisionId>) {
        let Some(seen) = self.seen(&id) else { return };
        match self.targets.read(&seen.id.namespace, &seen.autoscaler.spec.scale_target_ref).await {
            Ok((found, _)) => {
                let is_news = seen.replicas != Some(found.replicas);
                self.index.lock().wrote(&id, Written::Target(found));
                if is_news {
                    self.reconcile_soon(&id);
                }
            }
            // What has to be written there will say so.
            Err(error) => debug!(revision = %id, %error, "Scale target was not read"),
        }
    }

    /// Asks whether an activator stands in front of the revision.
    async fn probe(self: Arc<Self>, turn: Turn, id: &RevisionId, target: ProbeTarget) {
        if !target.service.is_empty() {
            let host = format!("{}.{}.svc.{}", target.service, id.namespace, self.cluster_domain);
            match turn.ask(&self.resolve, &host, target.port).await {
                Ok(()) => {
                    if self.index.lock().probed(id) {
                        self.show(id);
                    }
                }
                Err(error) => {
                    self.metrics.probes_unanswered.increment(1);
                    if let Some(seen) = self.seen(id) {
                        self.teller.zero_waits(&seen, &host, &error);
                    }
                }
            }
        }
        turn.pause().await;
    }

    fn seen(&self, id: &RevisionId) -> Option<Seen> {
        self.index.lock().seen(id)
    }

    /// Tells of a write that failed and will be tried again: in an event the first time in a row, in the log not more
    /// often than twice a minute for each operation.
    fn failed(&self, seen: &Seen, operation: &'static str, error: &WriteError, failures: u32) {
        self.metrics.write_errors.count(operation);
        if matches!(error, WriteError::Missing(_)) {
            self.index.lock().missing(&seen.id);
        }
        let is_stale = matches!(error, WriteError::Missing(_) | WriteError::Changed(_));
        // The watch is about to tell, as a rule.
        if failures != if is_stale { STALE_SEVERAL_TIMES } else { 0 } {
            return;
        }
        self.teller.failed(seen, operation, error);
        let now = self.clock.now();
        let mut logged = self.logged.lock();
        if logged.get(operation).is_none_or(|&last| now - last >= LOGGED_EVERY) {
            logged.insert(operation, now);
            warn!(revision = %seen.id, operation, %error, "Write failed, and is tried again until it works");
        }
    }
}

fn operation(write: &Write) -> &'static str {
    match write {
        Write::CreateService(_) => "create ServerlessService",
        Write::ChangeService(_) => "change ServerlessService",
        Write::CreateMetric(_) => "create Metric",
        Write::ChangeMetric(_) => "change Metric",
        Write::Scale => SCALE,
        Write::Status(_) => "write PodAutoscaler status",
        Write::MetricStatus(_) => "write Metric status",
    }
}

const SCALE: &str = "scale";
/// Revisions that are reconciled at a time, and scaled at a time where it is not urgent.
const AT_WORK: usize = 32;
/// Scale targets that are read at a time.
const READ_AT_A_TIME: usize = 8;
/// After so many failures of this kind it is no accident.
const STALE_SEVERAL_TIMES: u32 = 6;
const LOGGED_EVERY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
