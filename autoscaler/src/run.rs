//! The loop: one task owns every revision, takes in facts, and hands out plans.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotlight_core::cadence::TICK;
use pilotlight_core::{
    ActivatorPath, Input, PodCounts, Record, Revision, RevisionId, RevisionSpec, Start, Stat, Time,
};
use pilotlight_net::Clock;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tracing::info;

use crate::cluster::{Cluster, ClusterView};
use crate::journal::Journal;
use crate::metrics::RevisionMetrics;
use crate::status::Board;

/// What an autoscaler is made of.
pub struct AutoscalerParams {
    /// The process's clock.
    pub clock: Clock,
    /// Where decisions are written down; `None`: nowhere.
    pub journal: Option<Journal>,
}

/// A running autoscaler. Clones are the same one.
#[derive(Clone)]
pub struct Autoscaler {
    stats: mpsc::Sender<Report>,
    board: Arc<Board>,
    finished: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
}

/// A stat, whose, and where it came from.
pub(crate) struct Report {
    pub(crate) revision: RevisionId,
    pub(crate) stat: Stat,
    pub(crate) source: Source,
}

pub(crate) enum Source {
    /// Pushed by an activator.
    Activator,
    /// The sum over a revision's pods.
    Scrape,
}

impl Autoscaler {
    /// Starts deciding about the cluster's revisions, on the current runtime.
    pub fn start(params: AutoscalerParams, cluster: Arc<impl Cluster>) -> Autoscaler {
        let (stats, inbox) = mpsc::channel(STATS_IN_FLIGHT);
        let (stop, stopped) = watch::channel(false);
        let (done, finished) = watch::channel(false);
        let board = Arc::new(Board::default());
        let state = Loop {
            clock: params.clock,
            view: cluster.view(),
            cluster: Arc::clone(&cluster),
            entries: BTreeMap::new(),
            journal: params.journal,
            board: Arc::clone(&board),
        };
        tokio::spawn(async move {
            state.run(inbox, stopped).await;
            let _ = done.send(true);
        });
        tokio::spawn(crate::scrape::run(params.clock, cluster, stats.clone()));
        Autoscaler { stats, board, finished, stop }
    }

    /// What was decided and why, for whoever wants to see it.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Stops deciding. Returns once the journal is on disk.
    pub async fn stop(&self) {
        let _ = self.stop.send(true);
        let _ = self.finished.clone().wait_for(|finished| *finished).await;
    }

    pub(crate) fn inbox(&self) -> mpsc::Sender<Report> {
        self.stats.clone()
    }
}

struct Loop<C> {
    clock: Clock,
    cluster: Arc<C>,
    view: watch::Receiver<Arc<ClusterView>>,
    entries: BTreeMap<RevisionId, Entry>,
    journal: Option<Journal>,
    board: Arc<Board>,
}

/// One revision, and what of the world it was last told.
struct Entry {
    revision: Revision,
    spec: Arc<RevisionSpec>,
    pods: PodCounts,
    path: ActivatorPath,
    wake_at: Option<Time>,
    metrics: RevisionMetrics,
    /// What the journal's next line will begin with; empty without a journal.
    start: Option<Start>,
    inputs: Vec<(Time, Input)>,
}

impl<C: Cluster> Loop<C> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Report>, mut stopped: watch::Receiver<bool>) {
        self.follow_cluster();
        let mut next_tick = TICK.next(self.clock.now());
        loop {
            let wake_at = self.entries.values().filter_map(|entry| entry.wake_at).min();
            let next = wake_at.map_or(next_tick, |wake_at| wake_at.min(next_tick));
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => break,
                () = sleep_until(self.clock.instant_at(next)) => {
                    let now = self.clock.now();
                    if now >= next_tick {
                        next_tick = TICK.next(now);
                        self.step_all(now, |_| Some(Input::Tick));
                    } else {
                        self.step_all(now, |entry| entry.wake_at.filter(|at| now >= *at).map(|_| Input::Wake));
                    }
                }
                Ok(()) = self.view.changed() => self.follow_cluster(),
                // Last: reports without a pause must not put off what decides on them.
                Some(report) = inbox.recv() => self.take_in(report),
            }
        }
        if let Some(journal) = self.journal {
            journal.close().await;
        }
    }

    fn take_in(&mut self, report: Report) {
        let now = self.clock.now();
        let Report { revision, stat, source } = report;
        // An activator may still speak of a revision that is gone.
        let Some(entry) = self.entries.get_mut(&revision) else { return };
        let input = match source {
            Source::Activator => Input::Pushed(stat),
            Source::Scrape => Input::Scraped(stat),
        };
        entry.step(now, &revision, input, &*self.cluster, self.journal.as_mut(), &self.board);
    }

    /// Tells each revision what changed in the cluster since it was told last.
    fn follow_cluster(&mut self) {
        let view = Arc::clone(&self.view.borrow_and_update());
        let now = self.clock.now();
        for (id, seen) in &view.revisions {
            let (pods, journaled) = (seen.counts(), self.journal.is_some());
            let entry = self.entries.entry(id.clone()).or_insert_with(|| {
                info!(revision = %id, "Revision appeared");
                Entry::new(now, id, &seen.spec, pods, journaled)
            });
            let mut changes = Vec::new();
            if entry.spec != seen.spec {
                entry.spec = Arc::clone(&seen.spec);
                changes.push(Input::Spec(Box::new((*seen.spec).clone())));
            }
            if entry.path != seen.path {
                entry.path = seen.path;
                changes.push(Input::Path(seen.path));
            }
            if entry.pods != pods {
                entry.pods = pods;
                changes.push(Input::Pods(pods));
            }
            for change in changes {
                entry.step(now, id, change, &*self.cluster, self.journal.as_mut(), &self.board);
            }
        }
        let board = &self.board;
        self.entries.retain(|id, _| {
            let stays = view.revisions.contains_key(id);
            if !stays {
                info!(revision = %id, "Revision is gone");
                board.remove(id);
            }
            stays
        });
    }

    fn step_all(&mut self, now: Time, input: impl Fn(&Entry) -> Option<Input>) {
        for (id, entry) in &mut self.entries {
            if let Some(input) = input(entry) {
                entry.step(now, id, input, &*self.cluster, self.journal.as_mut(), &self.board);
            }
        }
    }
}

impl Entry {
    fn new(now: Time, id: &RevisionId, spec: &Arc<RevisionSpec>, pods: PodCounts, journaled: bool) -> Self {
        Entry {
            revision: Revision::new(now, (**spec).clone(), pods),
            metrics: RevisionMetrics::new(id, spec.scaling_metric),
            spec: Arc::clone(spec),
            pods,
            path: ActivatorPath::default(),
            wake_at: None,
            start: journaled.then(|| Start { at: now, spec: (**spec).clone(), pods }),
            inputs: Vec::new(),
        }
    }

    /// Lets the revision think, and does what it says.
    fn step(
        &mut self,
        now: Time,
        id: &RevisionId,
        input: Input,
        cluster: &impl Cluster,
        journal: Option<&mut Journal>,
        board: &Board,
    ) {
        if journal.is_some() {
            self.inputs.push((now, input.clone()));
        }
        let Some(plan) = self.revision.step(now, input) else { return };
        cluster.apply(id, &plan, now);
        self.wake_at = plan.wake_at;
        let evaluation = self.revision.evaluation().expect("a plan comes from an evaluation");
        self.metrics.set(evaluation, self.revision.decision());
        let changed = board.show(id, &self.spec, evaluation, self.revision.decision());
        if let Some(change) = &changed {
            info!(revision = %id, from = change.from, to = change.to, reason = %change.reason, why = %change.why, "Scaling revision");
        }
        if let Some(journal) = journal
            && (evaluation.decision.is_some() || changed.is_some() || self.inputs.len() >= MAX_INPUTS_HELD)
        {
            journal.write(&Record {
                revision: id.clone(),
                start: self.start.take(),
                inputs: std::mem::take(&mut self.inputs),
                evaluation: evaluation.clone(),
                why: evaluation.why(&self.spec),
            });
        }
    }
}

/// Inputs that are kept back until a decision is made of them: a service may sleep for weeks, and ticks go on.
const MAX_INPUTS_HELD: usize = 256;
/// Stats that may wait for the loop before their senders have to.
const STATS_IN_FLIGHT: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::RevisionView;

    /// One revision, asleep.
    struct Asleep(watch::Sender<Arc<ClusterView>>);

    impl Cluster for Asleep {
        fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
            self.0.subscribe()
        }

        fn apply(&self, _: &RevisionId, _: &pilotlight_core::Plan, _: Time) {}

        fn observe(&self, _: &str, _: &Stat) {}
    }

    #[tokio::test(start_paused = true)]
    async fn the_journal_of_a_service_that_sleeps_for_a_day_has_no_long_lines() {
        let spec = Arc::new(RevisionSpec { initial_scale: 0, ..RevisionSpec::default() });
        let revision = RevisionView { spec, path: ActivatorPath::default(), pods: Vec::new() };
        let revisions = BTreeMap::from([(RevisionId::new("default", "hello"), revision)]);
        let cluster = Asleep(watch::Sender::new(Arc::new(ClusterView { revisions })));
        let path = std::env::temp_dir().join(format!("pilotlight-asleep-{}.jsonl", std::process::id()));
        let journal = Some(Journal::create(&path).unwrap());
        let clock = Clock::start();
        let autoscaler = Autoscaler::start(AutoscalerParams { clock, journal }, Arc::new(cluster));
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        autoscaler.stop().await;
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(records.iter().all(|record| record.inputs.len() <= MAX_INPUTS_HELD));
        // A tick every two seconds.
        let inputs: usize = records.iter().map(|record| record.inputs.len()).sum();
        assert!(inputs > 43_200 - MAX_INPUTS_HELD, "{inputs}");
    }
}
