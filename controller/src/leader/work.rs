//! Work on workloads: each is shown to the autoscaler, scaled, reconciled, and told about in events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

use super::alarms::Alarms;
use super::conditions::object_time;
use super::metrics::LeaderMetrics;
use super::pace::{BETWEEN_WRITES, Pace};
use super::reconcile::{Write, reconcile};
use super::roll::Roll;
use super::scaling::{ScaleStep, scale_step};
use super::seen::Seen;
use super::stale::endpoints_seen;
use super::tell::Teller;
use super::view::view;
use super::workloads::{WorkloadFact, Workloads, WrittenObject};
use super::write::Writer;
use crate::crd::LastDecision;
use crate::path::{EndpointsSeen, PathWrite};
use crate::ports::PortTable;

/// The parts of a [`Worker`].
pub(crate) struct WorkerParams {
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    pub(crate) system_namespace: String,
    pub(crate) propagation: Duration,
    pub(crate) sets_deletion_cost: bool,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: LeaderMetrics,
    pub(crate) roll: Arc<Mutex<Roll>>,
}

/// Everything that is known, and everything that acts on it.
pub(crate) struct Worker {
    pub(crate) workloads: Mutex<Workloads>,
    pub(crate) roll: Arc<Mutex<Roll>>,
    pub(crate) clock: Clock,
    pub(crate) metrics: LeaderMetrics,
    /// Some workload wants other ports, or some activator could not bind one.
    pub(crate) ports_wanted: Notify,
    /// Some namespace has its first workload.
    pub(crate) namespace_wanted: Notify,
    /// Whether every watch has told what there is.
    completed: watch::Sender<bool>,
    views: Feed<RevisionId, RevisionView>,
    writer: Writer,
    targets: Scales,
    pace: Pace,
    scales: Arc<Lane>,
    writes: Arc<Lane>,
    alarms: Alarms,
    teller: Teller,
    told: Mutex<HashMap<RevisionId, LastTold>>,
    /// When a failure of each operation was last logged.
    logged: Mutex<BTreeMap<&'static str, Time>>,
}

/// The things about a workload that were told.
#[derive(Debug, Default)]
struct LastTold {
    trouble: Option<String>,
    template: u64,
}

impl Worker {
    pub(crate) fn new(params: WorkerParams) -> Arc<Self> {
        let WorkerParams { client, clock, recorder, metrics, roll, .. } = params;
        let workloads =
            Workloads::new(params.system_namespace, params.propagation, params.sets_deletion_cost);
        Arc::new(Worker {
            workloads: Mutex::new(workloads),
            roll,
            clock,
            metrics,
            ports_wanted: Notify::new(),
            namespace_wanted: Notify::new(),
            completed: watch::Sender::new(false),
            views: Feed::default(),
            writer: Writer::new(client.clone()),
            targets: Scales::new(client),
            pace: Pace::start(BETWEEN_WRITES),
            scales: Lane::new(AT_WORK),
            writes: Lane::new(AT_WORK),
            alarms: Alarms::default(),
            teller: Teller::new(recorder, clock),
            told: Mutex::default(),
            logged: Mutex::default(),
        })
    }

    pub(crate) fn follow(&self) -> Follower<RevisionId, RevisionView> {
        self.views.follow()
    }

    /// Every watch has told what there is: from now on workloads are shown.
    pub(crate) fn complete(&self) {
        let peers = self.roll.lock().peers(self.clock.now());
        let mut workloads = self.workloads.lock();
        workloads.set_peers(Arc::new(peers));
        workloads.complete();
        drop(workloads);
        self.completed.send_replace(true);
    }

    /// Whether every watch has told what there is, as it changes.
    pub(crate) fn completed(&self) -> watch::Receiver<bool> {
        self.completed.subscribe()
    }

    /// Whether every watch has told what there is.
    pub(crate) fn is_complete(&self) -> bool {
        self.workloads.lock().is_complete()
    }

    /// Whether something is to be restored before we go.
    pub(crate) fn has_something_to_restore(&self) -> bool {
        self.workloads.lock().has_something_to_restore()
    }

    /// From now on everything is put back as it was found.
    pub(crate) fn uninstall(self: &Arc<Self>) {
        let mut workloads = self.workloads.lock();
        if !workloads.uninstall(self.clock.now()) {
            return;
        }
        let ids = workloads.ids();
        drop(workloads);
        warn!(workloads = ids.len(), "We are being uninstalled: everything is put back as it was found");
        ids.into_iter().for_each(|id| self.look(&Arc::new(id), true));
    }

    /// Everything there is has been shown.
    pub(crate) fn shown(&self) {
        self.views.complete();
    }

    /// Takes in a fact.
    pub(crate) fn learn(self: &Arc<Self>, fact: WorkloadFact) {
        let is_autoscaler = matches!(fact, WorkloadFact::Autoscaler(..));
        let mut workloads = self.workloads.lock();
        let about = workloads.learn(self.clock.now(), fact);
        let is_new = is_autoscaler && workloads.is_complete() && !workloads.unsurveyed().is_empty();
        drop(workloads);
        if is_new {
            self.namespace_wanted.notify_one();
        }
        self.look_at(&about);
    }

    /// Takes in the table of ports. An older one than is known changes nothing.
    pub(crate) fn learn_table(self: &Arc<Self>, table: PortTable) {
        let version = |table: &PortTable| table.version().parse::<u64>().unwrap_or(0);
        let mut workloads = self.workloads.lock();
        // An empty version: the ConfigMap is gone, and all of it is to be made anew.
        if version(&table) < version(workloads.table()) && !table.version().is_empty() {
            return;
        }
        let about = workloads.set_table(Arc::new(table));
        drop(workloads);
        self.look_at(&about);
        self.ports_wanted.notify_one();
    }

    /// Looks at workloads after something that concerns them has changed.
    pub(crate) fn look_at(self: &Arc<Self>, ids: &BTreeSet<RevisionId>) {
        for id in ids {
            self.look(&Arc::new(id.clone()), false);
        }
        let stirred = self.workloads.lock().take_stirred();
        for id in stirred.difference(ids) {
            self.look(&Arc::new(id.clone()), false);
        }
    }

    /// Looks at a workload; `is_urgent`: its slices go before those of others.
    pub(crate) fn look(self: &Arc<Self>, id: &Arc<RevisionId>, is_urgent: bool) {
        let Some(seen) = self.show(id) else { return };
        self.tell(&seen);
        if let ScaleStep::Raise(_) = scale_step(self.clock.now(), &seen) {
            self.scale_soon(id, true);
        }
        if seen.scale.is_none() || !reconcile(self.clock.now(), &seen).writes.is_empty() {
            self.reconcile_soon(id, is_urgent);
        } else {
            self.alarms.set(id, reconcile(self.clock.now(), &seen).again);
        }
    }

    /// Looks again at each workload whose time has come, for ever.
    pub(crate) async fn wake_by_time(self: Arc<Self>) {
        loop {
            let id = self.alarms.next(self.clock).await;
            self.look(&id, false);
        }
    }

    /// Takes in an evaluation.
    pub(crate) fn apply(self: &Arc<Self>, id: &RevisionId, evaluation: &Evaluation) {
        let due = self.workloads.lock().decided(id, evaluation);
        let id = || Arc::new(id.clone());
        if due.is_urgent {
            self.scale_first(&id());
        } else if due.is_dirty {
            self.look(&id(), false);
        }
    }

    /// Shows the autoscaler a workload as it is now. Returns everything about it.
    fn show(&self, id: &RevisionId) -> Option<Seen> {
        let activity = self.roll.lock().activity(id);
        let mut workloads = self.workloads.lock();
        let ports_before = workloads.ports_of(id);
        let seen = workloads.seen(self.clock.now(), id, activity);
        let shown = seen.as_ref().and_then(|seen| {
            let (spec, history) = workloads.shown(id)?;
            Some(view(seen, spec, history))
        });
        // While everything is locked: of two who show the same workload the later one must be the last.
        match shown {
            Some(view) => self.views.set(id.clone(), view),
            None => self.views.remove(id),
        };
        let wants_other_ports = workloads.ports_of(id) != ports_before;
        drop(workloads);
        // A workload that is gone was forgotten before this: its ports are not told from none.
        if wants_other_ports || seen.is_none() {
            self.ports_wanted.notify_one();
        }
        if seen.is_none() {
            self.told.lock().remove(id);
            self.alarms.set(&Arc::new(id.clone()), None);
        }
        seen
    }

    /// Tells of a pod that does not come up once for as long as it lasts, and of a template that nobody has tried.
    fn tell(&self, seen: &Seen) {
        let mut pods = seen.workload.pods.iter();
        let trouble = pods.find_map(|(name, pod)| Some((name, pod.trouble.as_deref()?)));
        let word = trouble.map(|(_, trouble)| trouble.word.clone());
        let template = seen.target.as_ref().map_or(0, |target| target.template);
        let mut told = self.told.lock();
        let before = told.entry((**seen.id()).clone()).or_default();
        let is_new = word.is_some() && word != before.trouble;
        before.trouble = word;
        let was = std::mem::replace(&mut before.template, template);
        drop(told);
        if let Some((pod, trouble)) = trouble.filter(|_| is_new) {
            self.teller.trouble(seen, pod, &trouble.word, &trouble.message);
        }
        if was != 0 && was != template && seen.replicas() == Some(0) {
            self.teller.untried(seen);
        }
    }

    fn reconcile_soon(self: &Arc<Self>, id: &Arc<RevisionId>, is_urgent: bool) {
        let (worker, of) = (Arc::clone(self), Arc::clone(id));
        self.writes.add(id, is_urgent, move |failures| {
            let (worker, id) = (Arc::clone(&worker), Arc::clone(&of));
            async move { worker.reconcile(&id, failures).await }
        });
    }

    fn scale_soon(self: &Arc<Self>, id: &Arc<RevisionId>, is_urgent: bool) {
        let (worker, of) = (Arc::clone(self), Arc::clone(id));
        self.scales.add(id, is_urgent, move |failures| {
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
                    worker.look(&id, false);
                }
                round
            }
        });
        if !has_begun {
            self.reconcile_soon(id, false);
        }
    }

    /// Does what is missing, in order.
    async fn reconcile(self: Arc<Self>, id: &Arc<RevisionId>, failures: u32) -> Round {
        if let Err(error) = self.read_scale(id).await {
            debug!(workload = %id, %error, "Scale was not read");
        }
        let Some(seen) = self.seen(id) else { return Round::Done };
        let work = reconcile(self.clock.now(), &seen);
        self.alarms.set(id, work.again);
        for write in work.writes {
            let Err(error) = self.perform(&seen, &write).await else { continue };
            if seen.restoring.is_some() && is_over(&error) {
                continue;
            }
            self.failed(&seen, operation(&write), &error, failures);
            return Round::Failed;
        }
        Round::Done
    }

    async fn perform(self: &Arc<Self>, seen: &Seen, write: &Write) -> Result<(), WriteError> {
        let (writer, id) = (&self.writer, seen.id());
        let fact = &seen.workload.autoscaler;
        let written = match write {
            Write::Scale => {
                self.scale_soon(id, false);
                return Ok(());
            }
            Write::ReadEndpoints(service) => return self.read_endpoints(seen, service).await,
            Write::Path(PathWrite::Slice(slice)) => {
                self.pace.turn(!seen.activity.pods.is_empty() || seen.activity.waiting > 0).await;
                let (name, slice) = writer.slice(&id.namespace, slice).await?;
                slice.map_or_else(
                    || WriteOutcome::Deleted(name.clone()),
                    |fact| WriteOutcome::Made(WrittenObject::Slice(name.clone(), Box::new(fact))),
                )
            }
            Write::Path(PathWrite::DeleteEndpoints(deletion)) => {
                writer.delete_endpoints(&id.namespace, deletion).await?;
                let mut workloads = self.workloads.lock();
                workloads.read_endpoints(id, &deletion.name, EndpointsSeen::Absent);
                drop(workloads);
                WriteOutcome::Nothing
            }
            Write::DeletionCost(pod, is_first) => {
                writer.deletion_cost(&id.namespace, pod, *is_first).await?;
                self.workloads.lock().costed(id, pod, *is_first);
                WriteOutcome::Nothing
            }
            Write::AddFinalizer => WriteOutcome::Made(writer.add_finalizer(id, fact).await?),
            Write::RemoveFinalizer => WriteOutcome::Made(writer.remove_finalizer(id, fact).await?),
            Write::Status(status) => {
                // An earlier write of this round has made a new version of it.
                let current = self.seen(id).map(|seen| seen.workload.autoscaler);
                let written = writer.status(id, current.as_ref().unwrap_or(fact), status).await?;
                self.workloads.lock().wrote_status(self.clock.now(), id);
                self.teller.news(seen, status);
                WriteOutcome::Made(written)
            }
        };
        self.metrics.writes.count(operation(write));
        let mut workloads = self.workloads.lock();
        let mut about = BTreeSet::from([(**id).clone()]);
        match written {
            WriteOutcome::Made(written) => about.extend(workloads.wrote(id, written)),
            WriteOutcome::Deleted(name) => workloads.deleted_slice(&name),
            WriteOutcome::Nothing => {}
        }
        drop(workloads);
        self.look_at(&about);
        Ok(())
    }

    /// Reads the scale of a target that is not watched.
    async fn read_scale(self: &Arc<Self>, id: &RevisionId) -> Result<(), WriteError> {
        let Some(seen) = self.seen(id).filter(|seen| seen.target.is_none()) else { return Ok(()) };
        if is_watched(&seen) {
            return Ok(());
        }
        let (scale, selector) = self.targets.read(&id.namespace, &seen.target_ref()).await?;
        self.workloads.lock().read_scale(self.clock.now(), id, scale, selector);
        self.show(id);
        Ok(())
    }

    async fn read_endpoints(self: &Arc<Self>, seen: &Seen, service: &str) -> Result<(), WriteError> {
        let id = seen.id();
        let found = self.writer.endpoints(&id.namespace, service).await?;
        let mut workloads = self.workloads.lock();
        let native = workloads.native_addresses(&id.namespace, service);
        let endpoints = endpoints_seen(found.as_ref(), &seen.workload, &native);
        workloads.read_endpoints(id, service, endpoints);
        drop(workloads);
        self.look(id, false);
        Ok(())
    }

    /// Has the scale target ask for as many pods as it should.
    async fn scale(self: Arc<Self>, id: &Arc<RevisionId>, failures: u32) -> Round {
        let Some(seen) = self.seen(id) else { return Round::Done };
        let step = scale_step(self.clock.now(), &seen);
        let Some(scale) = &seen.scale else { return Round::Done };
        let (to, from) = match step {
            ScaleStep::Keep { .. } => return Round::Done,
            ScaleStep::Raise(to) | ScaleStep::Lower(to) => (to, scale.replicas),
        };
        self.workloads.lock().setting(id, Some(to));
        let (namespace, target) = (&id.namespace, &seen.target_ref());
        let set = match step {
            ScaleStep::Lower(_) => self.targets.set_from(namespace, target, scale, to).await,
            _ => self.targets.set(namespace, target, to).await,
        };
        match set {
            Ok(scaled) => {
                self.metrics.writes.count(SCALE);
                self.teller.scaled(&seen, from, to);
                let last = self.last_decision(&seen, from, to);
                let mut workloads = self.workloads.lock();
                workloads.wrote(id, WrittenObject::Scale(scaled));
                workloads.setting(id, None);
                workloads.scaled(id, last);
                drop(workloads);
                self.look(id, false);
                Round::Done
            }
            Err(error) => {
                self.workloads.lock().setting(id, None);
                self.failed(&seen, SCALE, &error, failures);
                Round::Failed
            }
        }
    }

    fn last_decision(&self, seen: &Seen, from: u32, to: u32) -> LastDecision {
        let (rule, why) = match seen.why.as_deref() {
            _ if seen.restoring.is_some() => ("restore".to_owned(), "everything is put back".to_owned()),
            _ if seen.path.must_wake => ("fail-open".to_owned(), "no activator is left".to_owned()),
            Some(why) => (why.rule.clone(), why.why.clone()),
            None => (String::new(), String::new()),
        };
        LastDecision { time: object_time(self.clock.now()), from, to, rule, why }
    }

    /// Returns when nothing is being written, or waits to be tried again.
    #[cfg(test)]
    pub(crate) async fn idle(&self) {
        self.scales.idle().await;
        self.writes.idle().await;
    }

    fn seen(&self, id: &RevisionId) -> Option<Seen> {
        let activity = self.roll.lock().activity(id);
        self.workloads.lock().seen(self.clock.now(), id, activity)
    }

    /// Tells of a write that failed and will be tried again: in an event the first time in a row, in the log not more
    /// often than twice a minute for each operation.
    fn failed(&self, seen: &Seen, operation: &'static str, error: &WriteError, failures: u32) {
        self.metrics.write_errors.count(operation);
        if matches!(error, WriteError::Missing(_)) {
            self.workloads.lock().missing(seen.id());
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
            warn!(workload = %seen.id(), operation, %error, "Write failed, and is tried again until it works");
        }
    }
}

/// The change that a write has made.
enum WriteOutcome {
    Made(WrittenObject),
    Deleted(crate::facts::Name),
    Nothing,
}

/// Whether there is nothing left that could be put back: the object, or all of its namespace, is gone or goes.
fn is_over(error: &WriteError) -> bool {
    match error {
        WriteError::Missing(_) => true,
        WriteError::Refused(why) => why.contains("being terminated"),
        _ => false,
    }
}

/// Whether objects of the target's kind are watched.
fn is_watched(seen: &Seen) -> bool {
    let target = seen.target_ref();
    target.api_version == "apps/v1"
        && ["Deployment", "StatefulSet", "ReplicaSet"].contains(&target.kind.as_str())
}

fn operation(write: &Write) -> &'static str {
    match write {
        Write::AddFinalizer => "add finalizer",
        Write::RemoveFinalizer => "remove finalizer",
        Write::Path(PathWrite::Slice(_)) => "write EndpointSlice",
        Write::Path(PathWrite::DeleteEndpoints(_)) => "delete Endpoints",
        Write::ReadEndpoints(_) => "read Endpoints",
        Write::DeletionCost(..) => "set deletion cost",
        Write::Scale => SCALE,
        Write::Status(_) => "write status",
    }
}

const SCALE: &str = "scale";
/// Workloads that are reconciled at a time, and scaled at a time where it is not urgent.
const AT_WORK: usize = 32;
/// After so many failures of this kind it is no accident.
const STALE_SEVERAL_TIMES: u32 = 6;
const LOGGED_EVERY: Duration = Duration::from_secs(30);

#[cfg(test)]
pub(super) mod tests;
