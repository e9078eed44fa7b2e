//! Keeps a workload at the number of pods that is wanted: starts, stops, and starts again what failed, later
//! each time.

use std::sync::Arc;
use std::time::Duration;

use pilotlight_autoscaler::cluster::{Pod, PodPhase, RevisionView};
use pilotlight_core::{ActivatorPath, PodEndpoint, PodTimeline, RevisionEndpoints, Time, Trouble};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tracing::{info, warn};

use crate::address::Lease;
use crate::pod::{Ending, Event, Failure, PodTask, Stop};
use crate::workload::LocalWorkload;
use crate::{Meter, Shared, Usage};

/// What a keeper is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Have this many pods.
    Scale { pods: u32, decided: Time },
    /// Have none, and end when the last one has gone.
    Stop,
    /// The same, without waiting for anything.
    Kill,
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    workload: Arc<LocalWorkload>,
    since: Time,
    wanted: u32,
    decided: Time,
    pods: Vec<Kept>,
    pods_so_far: u32,
    stopping: bool,
    trouble: Option<Failing>,
    events: mpsc::UnboundedSender<(String, Event)>,
    happened: mpsc::UnboundedReceiver<(String, Event)>,
}

/// A pod, as its keeper sees it.
struct Kept {
    pod: Pod,
    endpoint: PodEndpoint,
    stop: watch::Sender<Stop>,
}

/// Starts that failed in a row.
struct Failing {
    last: Failure,
    failures: u32,
    /// When the last of them was counted.
    counted: Time,
    retry_at: Time,
    /// A pod has come up since.
    is_over: bool,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, workload: LocalWorkload) -> Self {
        let since = shared.params.clock.now();
        let (events, happened) = mpsc::unbounded_channel();
        shared.meters.lock().insert(workload.id.clone(), Meter { usage: Usage::default(), pods: 0, since });
        let keeper = Keeper {
            shared,
            workload: Arc::new(workload),
            since,
            wanted: 0,
            decided: since,
            pods: Vec::new(),
            pods_so_far: 0,
            stopping: false,
            trouble: None,
            events,
            happened,
        };
        keeper.publish();
        keeper
    }

    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        while !(self.stopping && self.pods.is_empty()) {
            let retry_at = self.trouble.as_ref().map(|trouble| trouble.retry_at);
            let waiting = retry_at.filter(|at| self.live() < self.wanted && *at > self.now());
            tokio::select! {
                biased;
                Some((pod, event)) = self.happened.recv() => self.note(&pod, event),
                order = orders.recv() => self.follow(order.unwrap_or(Order::Kill)),
                () = sleep_until(self.shared.params.clock.instant_at(waiting.unwrap_or(Time::EPOCH))), if waiting.is_some() => {}
            }
            self.converge();
            self.publish();
            self.release();
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Scale { pods, decided } if !self.stopping => {
                if pods == self.wanted {
                    return;
                }
                (self.wanted, self.decided) = (pods, decided);
                if pods == 0 {
                    // Nobody is waiting any more; the next request shall find a fresh start.
                    self.trouble = None;
                }
            }
            Order::Scale { .. } => {}
            Order::Stop | Order::Kill => {
                self.stopping = true;
                self.wanted = 0;
                if matches!(order, Order::Kill) {
                    self.pods.iter().for_each(|kept| kept.stop.send_modify(|stop| *stop = Stop::Now));
                }
            }
        }
    }

    fn note(&mut self, name: &str, event: Event) {
        let now = self.now();
        let Some(at) = self.pods.iter().position(|kept| kept.pod.name == name) else { return };
        match event {
            Event::Spawned => self.pods[at].endpoint.timeline.spawned = Some(now),
            Event::Ready => {
                let kept = &mut self.pods[at];
                // One that was told to go in the meantime stays told.
                if kept.pod.phase == PodPhase::Starting {
                    kept.pod.phase = PodPhase::Ready;
                    kept.endpoint.timeline.ready = Some(now);
                    let start_up = now - kept.pod.started;
                    info!(revision = %self.workload.id, pod = name, ?start_up, "Pod is ready");
                    // Not forgotten: it may fail at its first request, and so may the next.
                    if let Some(trouble) = &mut self.trouble {
                        trouble.is_over = true;
                    }
                }
            }
            Event::Ended(ending) => {
                let kept = self.pods.remove(at);
                self.shared.busy.lock().remove(name);
                match ending {
                    Ending::Stopped => info!(revision = %self.workload.id, pod = name, "Pod has stopped"),
                    Ending::Failed(failure) => {
                        let ready = kept.endpoint.timeline.ready;
                        self.note_failure(now, name, kept.pod.started, ready, failure);
                    }
                }
            }
        }
    }

    fn note_failure(&mut self, now: Time, pod: &str, started: Time, ready: Option<Time>, failure: Failure) {
        // A pod that was fine for a while and then ended is no sign that the next one will not come up.
        let was_fine = ready.is_some_and(|ready| now - ready >= FINE_FOR);
        let (failures, counted) = match self.trouble.as_ref().filter(|_| !was_fine) {
            // Started before that failure was known: it failed beside it, not after it.
            Some(trouble) if started <= trouble.counted => (trouble.failures, trouble.counted),
            Some(trouble) => (trouble.failures + 1, now),
            None => (1, now),
        };
        let backoff = BACKOFF_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(BACKOFF_LONGEST);
        warn!(revision = %self.workload.id, pod, reason = failure.reason, why = failure.message, failures, ?backoff, "Pod failed");
        if let Some(meter) = self.shared.meters.lock().get_mut(&self.workload.id) {
            meter.usage.failed += 1;
        }
        let retry_at = now + backoff;
        self.trouble = Some(Failing { last: failure, failures, counted, retry_at, is_over: false });
    }

    /// Starts and stops pods until there are as many as wanted.
    fn converge(&mut self) {
        let live = self.live();
        if live > self.wanted {
            for _ in self.wanted..live {
                self.stop_least_busy();
            }
        } else if live < self.wanted {
            match &self.trouble {
                Some(trouble) if self.now() < trouble.retry_at => {}
                // One at a time, until one comes up.
                Some(trouble) if !trouble.is_over && self.starting() > 0 => {}
                Some(trouble) if !trouble.is_over => self.start_pod(),
                _ => (live..self.wanted).for_each(|_| self.start_pod()),
            }
        }
    }

    fn start_pod(&mut self) {
        let now = self.now();
        self.pods_so_far += 1;
        let name = format!("{}-{}", self.workload.id.name, self.pods_so_far);
        let lease = match self.shared.addresses.lease() {
            Ok(lease) => lease,
            Err(error) => {
                let failure = Failure::cannot_start(format!("no address for a pod: {error}"));
                return self.note_failure(now, &name, now, None, failure);
            }
        };
        let (stop, stopped) = watch::channel(Stop::No);
        self.pods.push(Kept::new(now, name.clone(), &lease, self.decided, stop));
        self.shared.busy.lock().insert(name.clone(), 0.0);
        if let Some(meter) = self.shared.meters.lock().get_mut(&self.workload.id) {
            meter.usage.started += 1;
        }
        info!(revision = %self.workload.id, pod = name, "Starting pod");
        let task = PodTask {
            shared: Arc::clone(&self.shared),
            workload: Arc::clone(&self.workload),
            name,
            lease,
            events: self.events.clone(),
        };
        tokio::spawn(task.run(stopped));
    }

    /// One that is still starting before one that works, and of those that work the one with least to do.
    fn stop_least_busy(&mut self) {
        let busy = self.shared.busy.lock();
        let load = |kept: &Kept| match kept.pod.phase {
            PodPhase::Starting => -1.0,
            _ => busy.get(&kept.pod.name).copied().unwrap_or(0.0),
        };
        let candidates = self.pods.iter_mut().rev().filter(|kept| kept.pod.phase != PodPhase::Terminating);
        if let Some(victim) = candidates.min_by(|a, b| load(a).total_cmp(&load(b))) {
            info!(revision = %self.workload.id, pod = victim.pod.name, "Stopping pod");
            victim.pod.phase = PodPhase::Terminating;
        }
    }

    /// Tells pods to stop, only now that the activator has been told to leave them out. What is on its way to
    /// them nevertheless, they still serve: that is what their quiet period is for.
    fn release(&self) {
        for kept in self.pods.iter().filter(|kept| kept.pod.phase == PodPhase::Terminating) {
            kept.stop.send_if_modified(|stop| {
                let first = *stop == Stop::No;
                *stop = Stop::Gently.max(*stop);
                first
            });
        }
    }

    fn publish(&self) {
        let id = &self.workload.id;
        let now = self.now();
        if let Some(meter) = self.shared.meters.lock().get_mut(id) {
            meter.set_pods(now, self.pods.len() as u32);
        }
        let ready = self.pods.iter().filter(|kept| kept.pod.phase == PodPhase::Ready);
        let endpoints = RevisionEndpoints {
            ready: ready.map(|kept| kept.endpoint.clone()).collect(),
            starting: self.starting(),
            trouble: self.trouble.as_ref().filter(|trouble| !trouble.is_over).map(Failing::trouble),
            ..self.workload.endpoints()
        };
        self.shared.endpoints.send_if_modified(|table| {
            if table.revisions.get(id) == Some(&endpoints) {
                return false;
            }
            Arc::make_mut(table).revisions.insert(id.clone(), endpoints);
            true
        });
        let view = RevisionView {
            spec: Arc::clone(&self.workload.spec),
            // There is no way around the activator here.
            path: ActivatorPath { populated_since: Some(self.since), probed: true },
            pods: self.pods.iter().map(|kept| kept.pod.clone()).collect(),
        };
        self.shared.view.send_if_modified(|cluster| {
            if cluster.revisions.get(id).is_some_and(|before| before.pods == view.pods) {
                return false;
            }
            Arc::make_mut(cluster).revisions.insert(id.clone(), view);
            true
        });
    }

    fn live(&self) -> u32 {
        self.pods.iter().filter(|kept| kept.pod.phase != PodPhase::Terminating).count() as u32
    }

    fn starting(&self) -> u32 {
        self.pods.iter().filter(|kept| kept.pod.phase == PodPhase::Starting).count() as u32
    }

    fn now(&self) -> Time {
        self.shared.params.clock.now()
    }
}

impl Kept {
    fn new(now: Time, name: String, lease: &Lease, decided: Time, stop: watch::Sender<Stop>) -> Self {
        let address = lease.address;
        Kept {
            endpoint: PodEndpoint {
                name: name.clone(),
                address: address.serving(),
                tls_address: None,
                timeline: PodTimeline { decided: Some(decided), ..PodTimeline::default() },
            },
            pod: Pod {
                name,
                phase: PodPhase::Starting,
                stats_address: address.stats(),
                metrics_address: address.metrics(),
                started: now,
            },
            stop,
        }
    }
}

impl Failing {
    fn trouble(&self) -> Trouble {
        Trouble {
            reason: self.last.reason.to_owned(),
            message: self.last.message.clone(),
            exit_code: self.last.exit_code,
            log_tail: self.last.log_tail.clone(),
            failures: self.failures,
            retry_at: Some(self.retry_at),
            // A process that exits may do better next time; one that cannot be run, or took its whole time,
            // will not.
            give_up: self.failures >= GIVE_UP_AFTER || self.last.reason != "exited",
        }
    }
}

/// The wait before the second start; doubled with each failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two starts.
const BACKOFF_LONGEST: Duration = Duration::from_secs(30);
/// Failed starts in a row after which waiting requests are told.
const GIVE_UP_AFTER: u32 = 3;
/// A pod that worked this long was fine.
const FINE_FOR: Duration = Duration::from_secs(10);
