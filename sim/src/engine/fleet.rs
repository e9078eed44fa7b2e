//! All pods of a run: their starts, their lists, their ends. How many there are to be, which of them goes and when a
//! failed start is tried again is decided by [`Pods`], as in production.

use std::time::Duration;

use pilotlight_core::pods::{self, BackOff, Command, Pods};
use pilotlight_core::{PodCounts, Rng, Time, TroubleReason};

use super::pod::{Phase, Pod, PodId};
use super::{Engine, Event};
use crate::cluster::{Capacity, Change, Cluster, Phases, PodPhase, Room};
use crate::scenario::Scenario;

/// The pods, and the cluster they are in.
pub(super) struct Fleet {
    pub(super) pods: Vec<Pod>,
    cluster: Cluster,
    /// When the cluster's next news are expected, if that is planned already.
    cluster_due: Option<Time>,
    has_nodes: bool,
    /// The pods that requests are sent to.
    listed: Vec<u32>,
    keeper: Pods<PodId>,
    /// When the keeper's next start is due, if that is planned already.
    start_due: Option<Time>,
    /// Why the keeper had given up when everybody was told last.
    given_up: Option<BackOff>,
    /// Work done by all pods, in seconds.
    pub(super) work_done: f64,
}

impl Fleet {
    /// `minimum`: the pods that are wanted without any request.
    pub(super) fn new(now: Time, scenario: &Scenario, minimum: u32) -> Self {
        Fleet {
            pods: Vec::new(),
            cluster: Cluster::new(now, &scenario.cluster).expect("a scenario's cluster was checked"),
            cluster_due: None,
            has_nodes: has_nodes(&scenario.cluster.capacity),
            listed: Vec::new(),
            keeper: Pods::with_minimum(minimum),
            start_due: None,
            given_up: None,
            work_done: 0.0,
        }
    }

    pub(super) fn find(&self, id: PodId) -> Option<&Pod> {
        self.pods.get(id.index as usize).filter(|pod| pod.generation == id.generation)
    }

    fn find_mut(&mut self, id: PodId) -> Option<&mut Pod> {
        self.pods.get_mut(id.index as usize).filter(|pod| pod.generation == id.generation)
    }

    /// One of the pods that requests are sent to.
    pub(super) fn any_listed(&self, rng: &mut Rng) -> Option<u32> {
        let at = if self.listed.len() > 1 { rng.below(self.listed.len()) } else { 0 };
        self.listed.get(at).copied()
    }

    /// Reads off which pods requests are sent to.
    pub(super) fn list(&mut self) -> Vec<u32> {
        let listed = (0..).zip(&self.pods).filter(|(_, pod)| pod.listed).map(|(index, _)| index);
        self.listed = listed.collect();
        self.listed.clone()
    }

    /// The pods that are known to be ready and not on their way out.
    pub(super) fn ready(&self) -> impl Iterator<Item = (PodId, &Pod)> {
        let pods = (0..).zip(&self.pods).filter(|(_, pod)| pod.phase == Phase::Ready && pod.listed);
        pods.map(|(index, pod)| (PodId { index, generation: pod.generation }, pod))
    }

    /// The number of pods to have.
    pub(super) fn wanted(&self) -> u32 {
        self.keeper.wanted()
    }

    /// Why requests without a pod are answered, if pods do not come up.
    pub(super) fn given_up(&self, now: Time) -> Option<BackOff> {
        self.keeper.back_off(now).filter(|back_off| back_off.gives_up)
    }

    /// Pods whose containers run.
    pub(super) fn running_mut(&mut self) -> impl Iterator<Item = &mut Pod> {
        self.pods.iter_mut().filter(|pod| pod.runs())
    }

    /// As the autoscaler sees them.
    pub(super) fn counts(&self) -> PodCounts {
        let mut counts = PodCounts::default();
        for pod in &self.pods {
            match pod.phase {
                Phase::Pending | Phase::Starting => counts.starting += 1,
                Phase::Ready if pod.listed => counts.ready += 1,
                Phase::Ready => counts.starting += 1,
                Phase::Leaving => counts.terminating += 1,
                Phase::Gone => {}
            }
        }
        counts
    }
}

/// Whether there are nodes to speak of: room for a number of pods is one without an end of its own.
fn has_nodes(capacity: &Capacity) -> bool {
    !matches!(capacity, Capacity::Unlimited | Capacity::Fixed { nodes: 1, room: Room::Pods(_) })
}

impl Engine<'_> {
    /// Has this many pods, ready from the beginning.
    pub(super) fn begin_fleet(&mut self, warm: u32) {
        let starts = self.fleet.keeper.step(self.now, pods::Event::Scale(warm));
        starts.iter().for_each(|_| self.start_pod(true));
        self.list_warm_pods();
    }

    /// Tells the keeper what happened, and does what it says.
    pub(super) fn keep(&mut self, event: pods::Event<PodId>) {
        for command in self.fleet.keeper.step(self.now, event) {
            match command {
                Command::Start => self.start_pod(false),
                Command::Use(pod) => self.use_pod(pod),
                Command::Stop(pod) | Command::Kill(pod) => self.stop_pod(pod),
                // Told by `given_up`.
                Command::BackOff(_) => {}
            }
        }
        if let Some(due) = self.fleet.keeper.wake_at(self.now)
            && self.fleet.start_due != Some(due)
        {
            self.fleet.start_due = Some(due);
            self.events.push(due, Event::StartDue);
        }
        let given_up = self.fleet.given_up(self.now);
        if std::mem::replace(&mut self.fleet.given_up, given_up) != given_up {
            self.soon(Event::Trouble);
        }
    }

    /// Starts a pod; a warm one is ready at once.
    fn start_pod(&mut self, warm: bool) {
        let now = self.now;
        let gone = self.fleet.pods.iter().position(|pod| pod.phase == Phase::Gone && !pod.listed);
        let index = gone.unwrap_or(self.fleet.pods.len());
        let generation = gone.map_or(0, |index| self.fleet.pods[index].generation.wrapping_add(1));
        let pod = Pod::new(now, generation, self.settings.container_concurrency, self.scenario.app.slowdown);
        match gone {
            Some(index) => self.fleet.pods[index] = pod,
            None => self.fleet.pods.push(pod),
        }
        let pods = &self.scenario.pods;
        let rng = &mut self.random.start;
        let mut phases = Phases {
            schedule: pods.schedule.sample(rng),
            provision: pods.provision.sample(rng),
            pull: pods.pull.sample(rng),
            cached_pull: pods.cached_pull.sample(rng),
            init: pods.init.sample(rng),
            ready: pods.ready.sample(rng),
        };
        if let Some(failing) = &pods.failing_starts
            && !warm
            && failing.until.is_none_or(|until| now < until)
            && self.random.fail.unit() < failing.fraction
        {
            // The container runs for a while and ends: what comes after that does not come.
            phases.init = failing.after.sample(&mut self.random.fail);
            phases.ready = Duration::ZERO;
            self.fleet.pods[index].fails = Some(failing.reason);
        }
        self.meter.levels.starting.add(now, 1.0);
        self.fleet.pods[index].phase = Phase::Starting;
        let id = PodId { index: index as u32, generation };
        self.keep(pods::Event::Started(id));
        self.fleet.cluster.start(now, id.index, if warm { Phases::default() } else { phases });
        self.follow_cluster();
        // One that waits for room starts when it has some.
        if self.fleet.find(id).is_some_and(|pod| pod.phase != Phase::Pending) {
            self.count_start();
        }
    }

    fn count_start(&mut self) {
        let there = self.fleet.pods.iter().filter(|pod| !matches!(pod.phase, Phase::Gone | Phase::Pending));
        let there = there.count() as u32;
        let pods = &mut self.meter.outcome.pods;
        pods.starts += 1;
        pods.peak = pods.peak.max(there);
    }

    /// Takes in what has happened in the cluster, and plans to come back.
    pub(super) fn follow_cluster(&mut self) {
        let now = self.now;
        if self.fleet.cluster_due.is_some_and(|due| due <= now) {
            self.fleet.cluster_due = None;
        }
        while let Some(event) = self.fleet.cluster.advance(now) {
            match event.change {
                Change::Pod { pod, phase } => self.pod_came_further(pod, phase),
                Change::Node { .. } => {}
            }
        }
        if self.fleet.has_nodes {
            self.meter.levels.nodes.set(now, f64::from(self.fleet.cluster.nodes()));
        }
        if let Some(due) = self.fleet.cluster.next_event()
            && self.fleet.cluster_due.is_none_or(|planned| due < planned)
        {
            self.fleet.cluster_due = Some(due);
            self.events.push(due, Event::Cluster);
        }
    }

    fn pod_came_further(&mut self, index: u32, phase: PodPhase) {
        let now = self.now;
        let pod = &mut self.fleet.pods[index as usize];
        let id = PodId { index, generation: pod.generation };
        match phase {
            PodPhase::Unschedulable if pod.phase == Phase::Starting => {
                pod.phase = Phase::Pending;
                self.meter.levels.starting.add(now, -1.0);
                self.meter.levels.pending.add(now, 1.0);
            }
            PodPhase::Scheduled { .. } if pod.phase == Phase::Pending => {
                pod.phase = Phase::Starting;
                self.meter.levels.pending.add(now, -1.0);
                self.meter.levels.starting.add(now, 1.0);
                self.count_start();
            }
            PodPhase::Ready if pod.phase == Phase::Starting => match pod.fails {
                Some(_) => self.events.push(now, Event::Crash(id)),
                None => self.keep(pods::Event::Ready(id)),
            },
            _ => {}
        }
    }

    fn use_pod(&mut self, id: PodId) {
        let now = self.now;
        let Some(pod) = self.fleet.find_mut(id) else { return };
        pod.phase = Phase::Ready;
        pod.ready_since = Some(now);
        self.meter.levels.starting.add(now, -1.0);
        self.meter.levels.ready.add(now, 1.0);
        if let Some(life) = &self.scenario.pods.crash_after {
            self.events.push(now + life.sample(&mut self.random.crash), Event::Crash(id));
        }
        self.soon(Event::Listed(id));
    }

    /// A pod is known to be ready: it gets requests.
    pub(super) fn list(&mut self, id: PodId) {
        let Some(pod) = self.fleet.find_mut(id).filter(|pod| pod.phase == Phase::Ready) else { return };
        pod.listed = true;
        self.publish_pods();
        self.tell_pods();
    }

    /// Pods that are there from the beginning are known to everybody.
    pub(super) fn list_warm_pods(&mut self) {
        for pod in self.fleet.pods.iter_mut().filter(|pod| pod.phase == Phase::Ready) {
            pod.listed = true;
        }
        self.publish_pods();
    }

    pub(super) fn unlist(&mut self, id: PodId) {
        let Some(pod) = self.fleet.find_mut(id) else { return };
        if std::mem::take(&mut pod.listed) {
            self.publish_pods();
            self.tell_pods();
        }
    }

    fn stop_pod(&mut self, id: PodId) {
        let now = self.now;
        let Some(pod) = self.fleet.find_mut(id) else { return };
        match pod.phase {
            Phase::Ready => {
                pod.phase = Phase::Leaving;
                pod.leaving_since = now;
                self.meter.levels.ready.add(now, -1.0);
                self.meter.levels.terminating.add(now, 1.0);
                self.soon(Event::Unlisted(id));
                self.plan_quiet(id);
                self.events.push(now + self.scenario.pods.termination_grace, Event::Killed(id));
            }
            Phase::Pending | Phase::Starting => self.end_pod(id, pods::Event::Stopped(id)),
            Phase::Leaving | Phase::Gone => {}
        }
    }

    /// Plans to see whether a leaving pod has nothing left to do.
    pub(super) fn plan_quiet(&mut self, id: PodId) {
        let quiet = self.scenario.pods.drain_quiet;
        if let Some(pod) = self.fleet.find(id) {
            let at = (pod.last_arrival.max(pod.leaving_since) + quiet).max(self.now);
            self.events.push(at, Event::Quiet(id));
        }
    }

    pub(super) fn check_quiet(&mut self, id: PodId) {
        let quiet = self.scenario.pods.drain_quiet;
        let now = self.now;
        let Some(pod) = self.fleet.find(id).filter(|pod| pod.phase == Phase::Leaving) else { return };
        // With a request in flight, its end plans the next look.
        if pod.in_flight == 0 && pod.last_arrival.max(pod.leaving_since) + quiet <= now {
            self.end_pod(id, pods::Event::Stopped(id));
        }
    }

    /// A pod ends with whatever it has: it crashed, or its time to leave is over.
    pub(super) fn break_down(&mut self, id: PodId, crashed: bool) {
        let Some(pod) = self.fleet.find(id) else { return };
        let reason = pod.fails.unwrap_or(TroubleReason::Exited);
        let (ends, event) = match pod.phase {
            Phase::Starting | Phase::Ready => (crashed, pods::Event::Failed(id, reason)),
            Phase::Leaving => (true, pods::Event::Stopped(id)),
            Phase::Pending | Phase::Gone => return,
        };
        if !ends {
            return;
        }
        self.meter.outcome.pods.crashes += u64::from(crashed);
        self.remove_pod(id);
        self.lose_requests_of(id.index);
        self.soon(Event::Unlisted(id));
        self.keep(event);
        self.tell_pods();
    }

    /// The pause after a failed start is over.
    pub(super) fn start_due(&mut self) {
        self.fleet.start_due = None;
        self.keep(pods::Event::Tick);
    }

    fn end_pod(&mut self, id: PodId, event: pods::Event<PodId>) {
        self.remove_pod(id);
        self.keep(event);
    }

    fn remove_pod(&mut self, id: PodId) {
        let now = self.now;
        let levels = &mut self.meter.levels;
        let pod = &mut self.fleet.pods[id.index as usize];
        match std::mem::replace(&mut pod.phase, Phase::Gone) {
            Phase::Pending => levels.pending.add(now, -1.0),
            Phase::Starting => levels.starting.add(now, -1.0),
            Phase::Ready => levels.ready.add(now, -1.0),
            Phase::Leaving => levels.terminating.add(now, -1.0),
            Phase::Gone => return,
        }
        self.fleet.cluster.remove(now, id.index);
        self.follow_cluster();
        self.tell_pods();
    }

    /// At once, or as long after as news take.
    fn soon(&mut self, event: Event) {
        self.events.push(self.now + self.scenario.platform.endpoint_delay, event);
    }
}
