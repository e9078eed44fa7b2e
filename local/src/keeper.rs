//! Keeps a workload at the number of pods that is wanted: the shell around [`Pods`], which decides.
//!
//! Facts come from the pods' tasks and from orders; commands become tasks, messages to them, log lines, and what is
//! published of the workload.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use pilotlight_autoscaler::cluster::{Parents, Pod, PodPhase, RevisionView, Scraping};
use pilotlight_core::pods::{self, BackOff, Command, Pods};
use pilotlight_core::{
    ActivatorPath, PodEndpoint, PodTimeline, RevisionEndpoints, Time, Trouble, TroubleReason,
};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tracing::{info, warn};

use crate::address::PodAddress;
use crate::known::Known;
use crate::metrics::PodMetrics;
use crate::pod::{Ending, Event, Failure, Launch, PodName, Stop};
use crate::usage::Meter;
use crate::workload::LocalWorkload;

/// An order to a keeper.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Have this many pods.
    Scale { pods: u32, decided: Time },
    /// A pod reported this many requests in flight.
    Load { pod: PodName, requests: f64 },
    /// Requests have no pod.
    Demand,
    /// Have none, and end when the last one has gone.
    Stop,
    /// Have none, kill what there is, and end.
    Kill,
}

/// Keeps one workload. `L` starts the task of a pod and says where the pod is, unless there is no address for it.
pub(crate) struct Keeper<L> {
    known: Arc<Known>,
    workload: Arc<LocalWorkload>,
    launch: L,
    since: Time,
    /// When the plan was made that asked for the wanted number.
    decided: Time,
    pods: Pods<PodName>,
    metrics: PodMetrics,
    kept: Vec<Kept>,
    pods_so_far: u32,
    /// The pod that failed last, and why.
    failed: Option<(PodName, Failure)>,
    events: mpsc::UnboundedSender<(PodName, Event)>,
    happened: mpsc::UnboundedReceiver<(PodName, Event)>,
}

/// A pod, as its keeper sees it.
struct Kept {
    name: PodName,
    pod: Pod,
    endpoint: PodEndpoint,
    stop: watch::Sender<Stop>,
}

impl<L: Fn(Launch) -> io::Result<PodAddress>> Keeper<L> {
    pub(crate) fn new(known: Arc<Known>, workload: Arc<LocalWorkload>, launch: L) -> Self {
        let since = known.clock.now();
        let (events, happened) = mpsc::unbounded_channel();
        known.meters.lock().insert(workload.id.clone(), Meter::new(since));
        let keeper = Keeper {
            known,
            launch,
            since,
            decided: since,
            pods: Pods::with_minimum(workload.spec.standing_pods()),
            metrics: PodMetrics::new(&workload.id),
            workload,
            kept: Vec::new(),
            pods_so_far: 0,
            failed: None,
            events,
            happened,
        };
        keeper.publish();
        keeper
    }

    /// Follows orders until one said to stop and the last pod has gone.
    pub(crate) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let clock = self.known.clock;
        let mut has_orders = true;
        // The machine forgets a pod that failed before it has ended.
        while !(self.pods.is_done() && self.kept.is_empty()) {
            let wake_at = self.pods.wake_at(clock.now());
            tokio::select! {
                biased;
                Some((pod, event)) = self.happened.recv() => self.note(pod, event),
                order = orders.recv(), if has_orders => {
                    has_orders = order.is_some();
                    self.follow(order.unwrap_or(Order::Kill));
                }
                () = sleep_until(clock.instant_at(wake_at.unwrap_or(Time::EPOCH))), if wake_at.is_some() => {
                    self.step(pods::Event::Tick);
                }
            }
            self.publish();
            self.release();
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Scale { pods, .. } if pods == self.pods.wanted() => {}
            Order::Scale { pods, decided } => {
                self.decided = decided;
                self.step(pods::Event::Scale(pods));
            }
            Order::Load { pod, requests } => self.step(pods::Event::Load(pod, requests)),
            Order::Demand => self.step(pods::Event::Demand),
            Order::Stop => self.step(pods::Event::Close),
            Order::Kill => {
                for kept in &self.kept {
                    kept.stop.send_replace(Stop::Now);
                }
                self.step(pods::Event::Kill);
            }
        }
    }

    fn note(&mut self, pod: PodName, event: Event) {
        match event {
            Event::Spawned => {
                let now = self.known.clock.now();
                if let Some(kept) = self.kept(&pod) {
                    kept.endpoint.timeline.spawned = Some(now);
                }
            }
            Event::Waits(why) => {
                if let Some(kept) = self.kept(&pod) {
                    kept.pod.waits_for = Some(why);
                }
            }
            Event::Ready => self.step(pods::Event::Ready(pod)),
            Event::Failed(failure) => {
                if let Some(kept) = self.kept(&pod) {
                    kept.pod.phase = PodPhase::Terminating;
                }
                self.fail(pod, failure);
            }
            Event::Ended(ending) => {
                self.kept.retain(|kept| kept.name != pod);
                match ending {
                    Ending::Stopped => {
                        info!(revision = %self.workload.id, pod = &*pod, "Pod has stopped");
                        self.step(pods::Event::Stopped(pod));
                    }
                    Ending::Failed(failure) => self.fail(pod, failure),
                }
            }
        }
    }

    fn fail(&mut self, pod: PodName, failure: Failure) {
        let reason = failure.reason;
        self.note_failure(&pod, failure);
        self.step(pods::Event::Failed(pod, reason));
    }

    fn note_failure(&mut self, pod: &PodName, failure: Failure) {
        self.meter(Meter::add_failed);
        self.metrics.count_failed(failure.reason);
        self.failed = Some((Arc::clone(pod), failure));
    }

    /// Tells the machine what happened, and does what it says.
    fn step(&mut self, event: pods::Event<PodName>) {
        let mut commands = VecDeque::from(self.pods.step(self.known.clock.now(), event));
        while let Some(command) = commands.pop_front() {
            match command {
                Command::Start => {
                    let answer = self.start_pod();
                    commands.extend(self.pods.step(self.known.clock.now(), answer));
                }
                Command::Use(pod) => self.use_pod(&pod),
                Command::Stop(pod) => self.leave_out(&pod),
                Command::Kill(pod) => {
                    if let Some(kept) = self.kept(&pod) {
                        kept.pod.phase = PodPhase::Terminating;
                        kept.stop.send_replace(Stop::Now);
                    }
                }
                Command::BackOff(back_off) => self.tell(back_off),
            }
        }
    }

    fn start_pod(&mut self) -> pods::Event<PodName> {
        self.pods_so_far += 1;
        let name: PodName = format!("{}-{}", self.workload.id.name, self.pods_so_far).into();
        let (stop, stopped) = watch::channel(Stop::No);
        let launch = Launch { name: Arc::clone(&name), stop: stopped, events: self.events.clone() };
        match (self.launch)(launch) {
            Ok(address) => {
                self.kept.push(Kept::new(
                    self.known.clock.now(),
                    Arc::clone(&name),
                    address,
                    self.decided,
                    stop,
                ));
                self.meter(Meter::add_started);
                info!(revision = %self.workload.id, pod = &*name, "Starting pod");
                pods::Event::Started(name)
            }
            Err(error) => {
                self.note_failure(&name, Failure::cannot_start(format!("no address for a pod: {error}")));
                pods::Event::NotStarted(TroubleReason::CannotStart)
            }
        }
    }

    fn use_pod(&mut self, pod: &PodName) {
        let now = self.known.clock.now();
        let Some(kept) = self.kept(pod) else { return };
        kept.pod.phase = PodPhase::Ready;
        kept.pod.waits_for = None;
        kept.endpoint.timeline.ready = Some(now);
        let start_up = now - kept.pod.started;
        info!(revision = %self.workload.id, pod = &**pod, ?start_up, "Pod is ready");
    }

    /// Has the pod left out of what is published; [`Keeper::release`] tells the pod.
    fn leave_out(&mut self, pod: &PodName) {
        info!(revision = %self.workload.id, pod = &**pod, "Stopping pod");
        if let Some(kept) = self.kept(pod) {
            kept.pod.phase = PodPhase::Terminating;
        }
    }

    fn tell(&self, back_off: BackOff) {
        let BackOff { failures, pause, gives_up, .. } = back_off;
        if let Some((pod, failure)) = &self.failed {
            warn!(
                revision = %self.workload.id, pod = &**pod, reason = %failure.reason, why = failure.message, failures,
                backoff = ?pause, gives_up, "Pod failed"
            );
        }
    }

    /// Tells pods to stop, only now that the activator has been told to leave them out. Requests on their way to
    /// such a pod are still served: that is what its quiet period is for.
    fn release(&self) {
        for kept in self.kept.iter().filter(|kept| kept.pod.phase == PodPhase::Terminating) {
            kept.stop.send_if_modified(|stop| {
                let first = *stop == Stop::No;
                *stop = Stop::Gently.max(*stop);
                first
            });
        }
    }

    fn publish(&self) {
        let id = &self.workload.id;
        let now = self.known.clock.now();
        self.meter(|meter| meter.set_pods(now, self.kept.len() as u32));
        let ready = self.kept.iter().filter(|kept| kept.pod.phase == PodPhase::Ready);
        let trouble = self.trouble(now).map(Arc::new);
        let endpoints = RevisionEndpoints {
            ready: ready.map(|kept| kept.endpoint.clone()).collect(),
            starting: self.pods.starting(),
            trouble: trouble.as_deref().cloned(),
            ..self.workload.endpoints()
        };
        self.known.endpoints.set(id.clone(), endpoints);
        let view = RevisionView {
            spec: Arc::clone(&self.workload.spec),
            // All requests pass through the activator here: no probe is needed to know that.
            path: ActivatorPath { populated_since: Some(self.since), probed: true },
            pods: self.kept.iter().map(|kept| kept.pod.clone()).collect(),
            trouble,
            history: None,
            scraping: Scraping::default(),
            parents: Parents::default(),
        };
        self.known.revisions.set(id.clone(), view);
    }

    fn trouble(&self, now: Time) -> Option<Trouble> {
        let (back_off, (_, failure)) = self.pods.back_off(now).zip(self.failed.as_ref())?;
        Some(Trouble {
            reason: failure.reason,
            message: failure.message.clone(),
            exit_code: failure.exit_code,
            log_tail: failure.log_tail.clone(),
            failures: back_off.failures,
            retry_at: back_off.retry_at,
            on_demand_at: back_off.on_demand_at,
            give_up: back_off.gives_up,
        })
    }

    fn kept(&mut self, pod: &PodName) -> Option<&mut Kept> {
        self.kept.iter_mut().find(|kept| kept.name == *pod)
    }

    fn meter(&self, change: impl FnOnce(&mut Meter)) {
        if let Some(meter) = self.known.meters.lock().get_mut(&self.workload.id) {
            change(meter);
        }
    }
}

impl Kept {
    fn new(now: Time, name: PodName, address: PodAddress, decided: Time, stop: watch::Sender<Stop>) -> Self {
        Kept {
            endpoint: PodEndpoint {
                name: name.to_string(),
                address: address.serving(),
                tls_address: None,
                ports: Arc::default(),
                timeline: PodTimeline { decided: Some(decided), ..PodTimeline::default() },
            },
            pod: Pod {
                name: name.to_string(),
                phase: PodPhase::Starting,
                stats_address: address.stats(),
                metrics_address: address.metrics(),
                started: now,
                waits_for: None,
            },
            name,
            stop,
        }
    }
}

#[cfg(test)]
mod tests;
