//! All pods of a run: their starts, their lists, their ends.

use pilotlight_core::{PodCounts, Rng, Time};

use super::pod::{Phase, Pod, PodId};
use super::{Engine, Event};
use crate::cluster::{Capacity, Change, Cluster, Phases, PodPhase};
use crate::scenario::{Scenario, Victim};

/// The pods, and the cluster they are in.
pub(super) struct Fleet {
    pub(super) pods: Vec<Pod>,
    cluster: Cluster,
    /// When the cluster's next news are expected, if that is planned already.
    cluster_due: Option<Time>,
    has_nodes: bool,
    /// The pods that requests are sent to.
    listed: Vec<u32>,
    /// The number of pods to have.
    pub(super) wanted: u32,
    /// Work done by all pods, in seconds.
    pub(super) work_done: f64,
}

impl Fleet {
    pub(super) fn new(now: Time, scenario: &Scenario) -> Self {
        Fleet {
            pods: Vec::new(),
            cluster: Cluster::new(now, &scenario.cluster).expect("a scenario's cluster was checked"),
            cluster_due: None,
            has_nodes: scenario.cluster.capacity != Capacity::Unlimited,
            listed: Vec::new(),
            wanted: 0,
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
    pub(super) fn ready(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| pod.phase == Phase::Ready && pod.listed)
    }

    /// Those whose containers run.
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

    fn live(&self) -> u32 {
        let stays = |pod: &&Pod| matches!(pod.phase, Phase::Pending | Phase::Starting | Phase::Ready);
        self.pods.iter().filter(stays).count() as u32
    }

    fn victim(&self, rule: Victim) -> Option<u32> {
        let pods = (0u32..).zip(&self.pods);
        let ranked = pods.filter_map(|(index, pod)| {
            let readiness = match pod.phase {
                Phase::Pending => 0,
                Phase::Starting => 1,
                Phase::Ready => 2,
                Phase::Leaving | Phase::Gone => return None,
            };
            let load = match rule {
                Victim::LeastBusy => pod.in_flight,
                Victim::Youngest => 0,
            };
            Some(((readiness, load, std::cmp::Reverse((pod.started, index))), index))
        });
        ranked.min().map(|(_, index)| index)
    }
}

impl Engine<'_> {
    /// Starts and stops pods until there are as many as wanted.
    pub(super) fn converge(&mut self) {
        let wanted = self.fleet.wanted;
        let live = self.fleet.live();
        for _ in live..wanted {
            self.start_pod(false);
        }
        for _ in wanted..live {
            let Some(victim) = self.fleet.victim(self.scenario.platform.victim) else { break };
            self.stop_pod(victim);
        }
    }

    /// Starts a pod; a warm one is ready at once.
    pub(super) fn start_pod(&mut self, warm: bool) {
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
        let phases = Phases {
            schedule: pods.schedule.sample(rng),
            provision: pods.provision.sample(rng),
            pull: pods.pull.sample(rng),
            cached_pull: pods.cached_pull.sample(rng),
            init: pods.init.sample(rng),
            ready: pods.ready.sample(rng),
        };
        self.meter.outcome.pods.starts += 1;
        self.meter.levels.starting.add(now, 1.0);
        self.fleet.pods[index].phase = Phase::Starting;
        let exist = self.fleet.pods.iter().filter(|pod| pod.phase != Phase::Gone).count() as u32;
        self.meter.outcome.pods.peak = self.meter.outcome.pods.peak.max(exist);
        self.fleet.cluster.start(now, index as u32, if warm { Phases::default() } else { phases });
        self.follow_cluster();
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
            }
            PodPhase::Ready if pod.phase == Phase::Starting => {
                pod.phase = Phase::Ready;
                pod.ready_since = Some(now);
                self.meter.levels.starting.add(now, -1.0);
                self.meter.levels.ready.add(now, 1.0);
                if let Some(life) = &self.scenario.pods.crash_after {
                    self.events.push(now + life.sample(&mut self.random.crash), Event::Crash(id));
                }
                self.soon(Event::Listed(id));
            }
            _ => {}
        }
    }

    /// Everybody learns that a pod is ready.
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

    fn stop_pod(&mut self, index: u32) {
        let now = self.now;
        let pod = &mut self.fleet.pods[index as usize];
        let id = PodId { index, generation: pod.generation };
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
            Phase::Pending | Phase::Starting => self.remove_pod(id),
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
            self.remove_pod(id);
        }
    }

    /// A pod ends with whatever it has: it crashed, or its time to leave is over.
    pub(super) fn break_down(&mut self, id: PodId, crashed: bool) {
        let Some(pod) = self.fleet.find(id) else { return };
        let ends = match pod.phase {
            Phase::Ready => crashed,
            Phase::Leaving => true,
            Phase::Pending | Phase::Starting | Phase::Gone => false,
        };
        if !ends {
            return;
        }
        self.meter.outcome.pods.crashes += u64::from(crashed);
        self.remove_pod(id);
        self.lose_requests_of(id.index);
        self.soon(Event::Unlisted(id));
        self.converge();
        self.tell_pods();
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
