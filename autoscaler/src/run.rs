//! The loop: one task owns every revision, takes in facts, and hands out plans.

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;
use pilotlight_core::cadence::TICK;
use pilotlight_core::{
    ActivatorPath, Input, PodCounts, Record, Revision, RevisionId, RevisionSpec, Start, Time,
};
use pilotlight_feed::{Change, Follower};
use pilotlight_net::Clock;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tracing::info;

use crate::cluster::{Cluster, RevisionView};
use crate::journal::Journal;
use crate::metrics::{RevisionMetrics, tick_delay};
use crate::report::{AcceptsHost, AcceptsPeer, Forwarded, Intake, Owners, Report, Source};
use crate::scrape::{self, OnPodStat, OnScrape, Resolve, ScraperParams, system_resolver};
use crate::status::Board;

/// The parts of an autoscaler.
pub struct AutoscalerParams {
    /// The process's clock.
    pub clock: Clock,
    /// The journal of decisions; `None`: there is none.
    pub journal: Option<Journal>,
    /// Owners of revisions; `None`: this autoscaler, about all.
    pub owners: Option<Owners>,
    /// Host names to which stats may be sent; `None`: any.
    pub accepts: Option<AcceptsHost>,
    /// Addresses from which stats may come; `None`: any.
    pub accepts_peer: Option<AcceptsPeer>,
    /// Hears what each pod that was asked has measured; `None`: nobody does.
    pub on_pod_stat: Option<OnPodStat>,
    /// Hears when scrapes of a revision begin to fail, fail in another way, or work again; `None`: nobody does.
    pub on_scrape: Option<OnScrape>,
    /// Finds the addresses of Services that are scraped; `None`: the system's resolver does.
    pub resolve: Option<Resolve>,
    /// Hears that requests are at an activator while their revision has no ready pod; `None`: nobody does.
    pub on_demand: Option<OnDemand>,
}

impl AutoscalerParams {
    /// An autoscaler that decides alone, and writes nothing down.
    pub fn new(clock: Clock) -> Self {
        AutoscalerParams {
            clock,
            journal: None,
            owners: None,
            accepts: None,
            accepts_peer: None,
            on_pod_stat: None,
            on_scrape: None,
            resolve: None,
            on_demand: None,
        }
    }
}

/// Hears of a revision whose requests have no pod.
pub type OnDemand = Arc<dyn Fn(&RevisionId) + Send + Sync>;

/// A running autoscaler. Clones are the same one.
#[derive(Clone)]
pub struct Autoscaler {
    intake: Intake,
    accepts: Option<AcceptsHost>,
    accepts_peer: Option<AcceptsPeer>,
    board: Arc<Board>,
    finished: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
}

impl Autoscaler {
    /// Starts deciding about the cluster's revisions, on the current runtime.
    pub fn start(params: AutoscalerParams, cluster: Arc<impl Cluster>) -> Autoscaler {
        let (reports, inbox) = mpsc::channel(STATS_IN_FLIGHT);
        let (stop, stopped) = watch::channel(false);
        let (done, finished) = watch::channel(false);
        let board = Arc::new(Board::default());
        let AutoscalerParams { clock, journal, owners, accepts, accepts_peer, on_demand, .. } = params;
        let scraper = ScraperParams {
            clock,
            on_pod_stat: params.on_pod_stat,
            on_scrape: params.on_scrape,
            resolve: params.resolve.unwrap_or_else(system_resolver),
        };
        let (changes, pods) = (cluster.follow(), cluster.follow());
        let effects =
            Effects { cluster, journal, on_demand, board: Arc::clone(&board), wakes: BTreeSet::new() };
        let deciding = Loop { clock, entries: IndexMap::new(), effects };
        tokio::spawn(async move {
            deciding.run(changes, inbox, stopped).await;
            let _ = done.send(true);
        });
        scrape::start(scraper, pods, reports.clone());
        let intake = Intake { reports, owners, is_behind: Arc::default() };
        Autoscaler { intake, accepts, accepts_peer, board, finished, stop }
    }

    /// The board: every decision and its reason, to be shown.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Stops deciding. Returns once the journal is on disk.
    pub async fn stop(&self) {
        let _ = self.stop.send(true);
        let _ = self.finished.clone().wait_for(|finished| *finished).await;
    }

    /// Takes in a stat that another autoscaler was given.
    pub async fn take_in(&self, (revision, stat): Forwarded) {
        let _ = self.intake.reports.send(Report { revision, stat, source: Source::Activator }).await;
    }

    pub(crate) fn intake(&self) -> &Intake {
        &self.intake
    }

    pub(crate) fn accepts(&self) -> Option<&AcceptsHost> {
        self.accepts.as_ref()
    }

    pub(crate) fn accepts_peer(&self) -> Option<&AcceptsPeer> {
        self.accepts_peer.as_ref()
    }
}

struct Loop<C> {
    clock: Clock,
    /// Hashed, so that a change finds its revision without a walk; a tick goes through them in the order of their
    /// appearance.
    entries: IndexMap<Arc<RevisionId>, Entry>,
    effects: Effects<C>,
}

/// Receivers of a step's outcome.
struct Effects<C> {
    cluster: Arc<C>,
    journal: Option<Journal>,
    on_demand: Option<OnDemand>,
    board: Arc<Board>,
    /// When which revision wants to be woken, the first in front: the `wake_at` of every entry that has one.
    wakes: BTreeSet<(Time, Arc<RevisionId>)>,
}

/// One revision, and what of the world it was last told.
struct Entry {
    revision: Revision,
    spec: Arc<RevisionSpec>,
    pods: PodCounts,
    path: ActivatorPath,
    wake_at: Option<Time>,
    metrics: RevisionMetrics,
    /// The beginning of the journal's next line; empty without a journal.
    start: Option<Start>,
    inputs: Vec<(Time, Input)>,
}

impl<C: Cluster> Loop<C> {
    async fn run(
        mut self,
        mut changes: Follower<RevisionId, RevisionView>,
        mut inbox: mpsc::Receiver<Report>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mut next_tick = TICK.next(self.clock.now());
        let tick_delay = tick_delay();
        loop {
            let wake_at = self.effects.wakes.first().map(|(wake_at, _)| *wake_at);
            let next = wake_at.map_or(next_tick, |wake_at| wake_at.min(next_tick));
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => break,
                () = sleep_until(self.clock.instant_at(next)) => {
                    let now = self.clock.now();
                    if now >= next_tick {
                        let due = std::mem::replace(&mut next_tick, TICK.next(now));
                        self.tick(now);
                        tick_delay.record((self.clock.now() - due).as_secs_f64());
                    } else {
                        self.wake(now);
                    }
                }
                Some(change) = changes.next() => self.follow(change),
                // Last: reports without a pause must not put off what decides on them.
                Some(report) = inbox.recv() => self.take_in(report),
            }
        }
        if let Some(mut journal) = self.effects.journal {
            // What came after the last decisions is of use to who asks for the load.
            for (id, entry) in &mut self.entries {
                entry.write_rest(id, &mut journal);
            }
            journal.close().await;
        }
    }

    fn take_in(&mut self, report: Report) {
        let Report { revision, stat, source } = report;
        let input = match source {
            Source::Activator => Input::Pushed(stat),
            Source::Scrape => Input::Scraped(stat),
        };
        // An activator may still speak of a revision that is gone.
        let Some((id, _)) = self.entries.get_key_value(&revision) else { return };
        let id = Arc::clone(id);
        let calls_for_a_pod = matches!(&input, Input::Pushed(stat) if stat.average_concurrent_requests > 0.0);
        self.step(self.clock.now(), &id, input);
        // After the step: the pods that it asks for need no second call.
        if let Some(on_demand) = &self.effects.on_demand
            && calls_for_a_pod
            && self.entries.get(&id).is_some_and(|entry| entry.pods.ready == 0)
        {
            on_demand(&id);
        }
    }

    /// Tells a revision what changed in the cluster since it was told last.
    fn follow(&mut self, change: Change<RevisionId, RevisionView>) {
        let now = self.clock.now();
        match change {
            Change::Set(id, seen) => {
                let journaled = self.effects.journal.is_some();
                let entry = self.entries.entry(Arc::clone(&id)).or_insert_with(|| {
                    info!(revision = %id, resumed = seen.history.is_some(), "Revision appeared");
                    Entry::new(now, &id, &seen, journaled)
                });
                for input in entry.learn(&seen) {
                    entry.step(now, &id, input, &mut self.effects);
                }
                self.effects.board.note(&id, &seen);
            }
            Change::Gone(id) => {
                let Some(mut entry) = self.entries.swap_remove(&id) else { return };
                info!(revision = %id, "Revision is gone");
                if let Some(journal) = &mut self.effects.journal {
                    entry.write_rest(&id, journal);
                }
                self.effects.wake_at(&id, &mut entry.wake_at, None);
                self.effects.board.remove(&id);
            }
            Change::Complete => {}
        }
    }

    fn step(&mut self, now: Time, id: &Arc<RevisionId>, input: Input) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.step(now, id, input, &mut self.effects);
        }
    }

    fn tick(&mut self, now: Time) {
        for (id, entry) in &mut self.entries {
            entry.step(now, id, Input::Tick, &mut self.effects);
        }
    }

    /// Steps whoever wanted to be woken by now. Each then waits for a later time, or not at all.
    fn wake(&mut self, now: Time) {
        while let Some((_, id)) = self.effects.wakes.first().filter(|(wake_at, _)| *wake_at <= now) {
            let id = Arc::clone(id);
            self.step(now, &id, Input::Wake);
        }
    }
}

impl Entry {
    fn new(now: Time, id: &RevisionId, seen: &RevisionView, journaled: bool) -> Self {
        let (spec, pods) = ((*seen.spec).clone(), seen.counts());
        let history = seen.history.as_deref().cloned().unwrap_or_default();
        Entry {
            metrics: RevisionMetrics::new(id, &seen.parents, spec.scaling_metric),
            spec: Arc::clone(&seen.spec),
            pods,
            path: history.path,
            wake_at: None,
            start: journaled.then(|| Start { at: now, spec: spec.clone(), pods, history: history.clone() }),
            inputs: Vec::new(),
            revision: Revision::resume(now, spec, pods, history),
        }
    }

    /// The inputs that the revision has not been told yet.
    fn learn(&mut self, seen: &RevisionView) -> impl Iterator<Item = Input> + use<> {
        let spec = (self.spec != seen.spec).then(|| {
            self.spec = Arc::clone(&seen.spec);
            Input::Spec(Box::new((*seen.spec).clone()))
        });
        let path = (self.path != seen.path).then(|| {
            self.path = seen.path;
            Input::Path(seen.path)
        });
        let counts = seen.counts();
        let pods = (self.pods != counts).then(|| {
            self.pods = counts;
            Input::Pods(counts)
        });
        [spec, path, pods].into_iter().flatten()
    }

    /// Lets the revision think, and does what it says.
    fn step(&mut self, now: Time, id: &Arc<RevisionId>, input: Input, effects: &mut Effects<impl Cluster>) {
        if effects.journal.is_some() {
            self.inputs.push((now, input.clone()));
        }
        let Some(plan) = self.revision.step(now, input) else { return };
        effects.wake_at(id, &mut self.wake_at, plan.wake_at);
        let evaluation = self.revision.evaluation().expect("a plan comes from an evaluation");
        effects.cluster.apply(id, evaluation);
        self.metrics.set(evaluation);
        let changed = effects.board.show(id, &self.spec, evaluation);
        if let Some(change) = &changed {
            info!(revision = %id, from = change.from.unwrap_or(0), to = change.to, reason = %change.reason, why = %change.why, "Scaling revision");
        }
        if let Some(journal) = &mut effects.journal
            && (evaluation.decided || changed.is_some() || self.inputs.len() >= MAX_INPUTS_HELD)
        {
            self.write_rest(id, journal);
        }
    }

    /// Writes down what was heard since the last record, with the evaluation that is in force.
    fn write_rest(&mut self, id: &RevisionId, journal: &mut Journal) {
        let Some(evaluation) = self.revision.evaluation().filter(|_| !self.inputs.is_empty()) else { return };
        journal.write(&Record {
            revision: id.clone(),
            start: self.start.take(),
            inputs: std::mem::take(&mut self.inputs),
            evaluation: evaluation.clone(),
            why: evaluation.why(&self.spec),
        });
    }
}

impl<C> Effects<C> {
    fn wake_at(&mut self, id: &Arc<RevisionId>, current: &mut Option<Time>, next: Option<Time>) {
        if *current == next {
            return;
        }
        if let Some(wake_at) = std::mem::replace(current, next) {
            self.wakes.remove(&(wake_at, Arc::clone(id)));
        }
        if let Some(wake_at) = next {
            self.wakes.insert((wake_at, Arc::clone(id)));
        }
    }
}

/// Inputs that are kept back until a decision is made of them: a service may sleep for weeks, and ticks go on.
const MAX_INPUTS_HELD: usize = 256;
/// Stats that may wait for the loop before their senders have to.
const STATS_IN_FLIGHT: usize = 1024;

#[cfg(test)]
mod tests;
