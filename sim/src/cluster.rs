//! Places for pods until they are ready, and the time that takes: a place on a node, perhaps a new node, the image, the
//! initialisation, the readiness.
//!
//! A state machine under virtual time. The engine starts and removes pods, asks [`Cluster::next_event`] when to
//! come back, and takes what happened from [`Cluster::advance`]. How long each step takes is drawn by the engine
//! and given with the pod, as [`Phases`]; nothing here is random.
//!
//! Simpler than Kubernetes on purpose: all pods are of one size, places are given strictly in order of arrival and
//! as soon as there is room (the scheduler's back-off is part of [`Phases::schedule`]), and a node with pods never
//! goes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use pilotlight_config::Faults;
use pilotlight_core::Time;

mod nodes;
mod spec;

pub use spec::{Capacity, ClusterSpec, DEFAULT_IDLE, DEFAULT_SCAN, NodeGroup, Placement, Room};

use nodes::Nodes;

/// A simulated cluster.
///
/// ```
/// use pilotlight_core::Time;
/// use pilotlight_sim::cluster::{Change, Cluster, ClusterSpec, Phases, PodPhase};
/// use std::time::Duration;
///
/// let mut cluster = Cluster::new(Time::EPOCH, &ClusterSpec::default()).unwrap();
/// cluster.start(Time::EPOCH, 7, Phases { ready: Duration::from_secs(3), ..Phases::default() });
/// assert_eq!(cluster.next_event(), Some(Time::EPOCH));
/// let mut ready_at = None;
/// while let Some(event) = cluster.advance(Time::from_secs(5)) {
///     if event.change == (Change::Pod { pod: 7, phase: PodPhase::Ready }) {
///         ready_at = Some(event.at);
///     }
/// }
/// assert_eq!(ready_at, Some(Time::from_secs(3)));
/// ```
#[derive(Clone, Debug)]
pub struct Cluster {
    nodes: Nodes,
    pods: BTreeMap<u32, PlacedPod>,
    /// Pods without a place, in order of arrival.
    pending: VecDeque<u32>,
    /// Pods that have a place and wait until fewer are starting, in order.
    waiting: VecDeque<u32>,
    starting: u32,
    max_starting: u32,
    due: BinaryHeap<Reverse<(Time, u64, Due)>>,
    /// Numbers everything that was ever due, so that what falls due at the same time does so in order.
    last_due: u64,
    /// The number of the scan that counts; an earlier one that is still due does nothing.
    scan: Option<(Time, u64)>,
    happened: VecDeque<ClusterEvent>,
    counters: Counters,
}

/// How long each step of one pod's start takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// From the time there is room until the pod is bound to its node.
    pub schedule: Duration,
    /// If it is for this pod's sake that nodes are asked for: until they are there.
    pub provision: Duration,
    /// The pull of an image that the node does not have.
    pub pull: Duration,
    /// Pulling the image on a node that has it.
    pub cached_pull: Duration,
    /// Until the containers run: sandbox, volumes, init containers.
    pub init: Duration,
    /// Until the application is ready: loading, warming up, the probe.
    pub ready: Duration,
}

/// A change in the cluster, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterEvent {
    /// The time of the change.
    pub at: Time,
    /// The change.
    pub change: Change,
}

/// A pod or a node in a new phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A pod came a step further.
    Pod {
        /// The pod's number.
        pod: u32,
        /// The phase it is in now.
        phase: PodPhase,
    },
    /// A node came or went.
    Node {
        /// The node's number, never used twice.
        node: u32,
        /// The phase it is in now.
        phase: NodePhase,
    },
}

/// How far a pod has come. Kubernetes calls it pending until it is [`PodPhase::Initialised`], and running then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// No room: the pod waits for another to leave or for a node to come.
    Unschedulable,
    /// Bound to a node.
    Scheduled {
        /// The node's number.
        node: u32,
    },
    /// The image is there.
    Pulled {
        /// Whether this pod fetched it; otherwise it was there, or another pod was fetching it.
        fetched: bool,
    },
    /// Containers run.
    Initialised,
    /// Ready for requests.
    Ready,
}

/// A node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePhase {
    /// Asked for.
    Requested,
    /// Up: the node takes pods.
    Up,
    /// Gone, after being empty for long enough.
    Removed,
}

/// Counts of what has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pods that were started.
    pub started: u64,
    /// Pods that became ready.
    pub ready: u64,
    /// Pods that were removed.
    pub removed: u64,
    /// Pods that found no room when they were started.
    pub unschedulable: u64,
    /// Images that were fetched, and not found on the node.
    pub fetched: u64,
    /// Nodes that came.
    pub nodes_added: u64,
    /// Nodes that went.
    pub nodes_removed: u64,
}

#[derive(Clone, Copy, Debug)]
struct PlacedPod {
    phases: Phases,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    // Pending => Binding
    Pending,
    // Binding => Waiting | Pulling
    Binding { node: u32, due: u64 },
    // Waiting => Pulling
    Waiting { node: u32 },
    // Pulling => Initialising
    Pulling { node: u32, due: u64, fetched: bool },
    // Initialising => Warming
    Initialising { node: u32, due: u64 },
    // Warming => Ready
    Warming { node: u32, due: u64 },
    // Ready => .
    Ready { node: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Pod(u32),
    NodeUp(u32),
    Scan,
}

impl Cluster {
    /// A cluster without pods, whose first nodes are up. All faults of its description come in one answer.
    pub fn new(now: Time, spec: &ClusterSpec) -> Result<Self, Faults> {
        spec.check()?;
        let mut cluster = Cluster {
            nodes: Nodes::new(now, spec),
            pods: BTreeMap::new(),
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            starting: 0,
            max_starting: spec.max_starting.unwrap_or(u32::MAX),
            due: BinaryHeap::new(),
            last_due: 0,
            scan: None,
            happened: VecDeque::new(),
            counters: Counters::default(),
        };
        // More nodes than the minimum go if nobody needs them.
        cluster.plan_scan(now);
        Ok(cluster)
    }

    /// Starts a pod. Its number must not be that of a pod that has not been removed.
    pub fn start(&mut self, now: Time, pod: u32, phases: Phases) {
        self.catch_up(now);
        self.counters.started += 1;
        let before = self.pods.insert(pod, PlacedPod { phases, state: State::Pending });
        debug_assert!(before.is_none(), "pod {pod} is there already");
        self.pending.push_back(pod);
        self.place_pending(now);
        if self.state(pod) == Some(State::Pending) {
            self.counters.unschedulable += 1;
            self.tell(now, Change::Pod { pod, phase: PodPhase::Unschedulable });
        }
        self.plan_scan(now);
        self.drop_stale();
    }

    /// Removes a pod, however far it has come; its place is free at once. One that is not there is no fault.
    pub fn remove(&mut self, now: Time, pod: u32) {
        self.catch_up(now);
        let Some(PlacedPod { state, .. }) = self.pods.remove(&pod) else { return };
        self.counters.removed += 1;
        match state {
            State::Pending => self.pending.retain(|&other| other != pod),
            State::Waiting { .. } => self.waiting.retain(|&other| other != pod),
            State::Pulling { node, .. } | State::Initialising { node, .. } | State::Warming { node, .. } => {
                self.end_start(node);
            }
            State::Binding { .. } | State::Ready { .. } => {}
        }
        if let Some(node) = state.node() {
            self.nodes.leave(now, node);
        }
        self.place_pending(now);
        self.start_waiting(now);
        self.plan_scan(now);
        self.drop_stale();
    }

    /// The time of the next change; `None`: none will come until a pod is started or removed.
    pub fn next_event(&self) -> Option<Time> {
        let due = self.due.peek().map(|&Reverse((at, ..))| at);
        self.happened.front().map(|event| event.at).or(due)
    }

    /// The next thing that has happened by now, in order of time. To be called until it is `None`.
    pub fn advance(&mut self, now: Time) -> Option<ClusterEvent> {
        while self.happened.is_empty() && self.step(now) {}
        self.happened.pop_front()
    }

    /// Pods that have no place.
    pub fn pending(&self) -> u32 {
        self.pending.len() as u32
    }

    /// Nodes that are up. A cluster without an end is one node.
    pub fn nodes(&self) -> u32 {
        self.nodes.up_and_coming().0
    }

    /// Counts of what has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Does all that is due before a change from outside.
    fn catch_up(&mut self, now: Time) {
        while self.step(now) {}
    }

    /// Does the next thing that is due by now; `false`: there is none.
    fn step(&mut self, now: Time) -> bool {
        let Some(&Reverse((at, number, due))) = self.due.peek() else { return false };
        if at > now {
            return false;
        }
        self.due.pop();
        match due {
            Due::Pod(pod) if self.state(pod).and_then(State::due) == Some(number) => self.pod_step(at, pod),
            Due::NodeUp(node) => self.node_up(at, node),
            Due::Scan if self.scan == Some((at, number)) => self.scan(at),
            Due::Pod(_) | Due::Scan => {}
        }
        self.drop_stale();
        true
    }

    fn pod_step(&mut self, now: Time, pod: u32) {
        let Some(PlacedPod { phases, state }) = self.pods.get(&pod).copied() else { return };
        let phase = match state {
            State::Binding { node, .. } => {
                self.set(pod, State::Waiting { node });
                self.waiting.push_back(pod);
                PodPhase::Scheduled { node }
            }
            State::Pulling { node, fetched, .. } => {
                let due = self.push(now + phases.init, Due::Pod(pod));
                self.set(pod, State::Initialising { node, due });
                PodPhase::Pulled { fetched }
            }
            State::Initialising { node, .. } => {
                let due = self.push(now + phases.ready, Due::Pod(pod));
                self.set(pod, State::Warming { node, due });
                PodPhase::Initialised
            }
            State::Warming { node, .. } => {
                self.set(pod, State::Ready { node });
                self.end_start(node);
                self.counters.ready += 1;
                PodPhase::Ready
            }
            State::Pending | State::Waiting { .. } | State::Ready { .. } => return,
        };
        self.tell(now, Change::Pod { pod, phase });
        self.start_waiting(now);
    }

    /// Gives places to those that wait for one, first come, first served.
    fn place_pending(&mut self, now: Time) {
        while let Some(&pod) = self.pending.front() {
            let Some(node) = self.nodes.place() else { return };
            self.pending.pop_front();
            let schedule = self.pods.get(&pod).map_or(Duration::ZERO, |pod| pod.phases.schedule);
            let due = self.push(now + schedule, Due::Pod(pod));
            self.set(pod, State::Binding { node, due });
        }
    }

    /// Starts as many as may start at once. One whose node is busy lets others pass.
    fn start_waiting(&mut self, now: Time) {
        let mut at = 0;
        while self.starting < self.max_starting
            && let Some(&pod) = self.waiting.get(at)
        {
            let Some(&PlacedPod { phases, state: State::Waiting { node } }) = self.pods.get(&pod) else {
                unreachable!("who waits is there, and waiting");
            };
            if !self.nodes.may_start(node) {
                at += 1;
                continue;
            }
            self.waiting.remove(at);
            self.starting += 1;
            self.nodes.begin_start(node);
            let (pulled_at, fetched) = self.nodes.pull(now, node, phases.pull, phases.cached_pull);
            self.counters.fetched += u64::from(fetched);
            let due = self.push(pulled_at, Due::Pod(pod));
            self.set(pod, State::Pulling { node, due, fetched });
        }
    }

    fn end_start(&mut self, node: u32) {
        self.starting -= 1;
        self.nodes.end_start(node);
    }

    fn node_up(&mut self, now: Time, node: u32) {
        self.nodes.come_up(now, node);
        self.counters.nodes_added += 1;
        self.tell(now, Change::Node { node, phase: NodePhase::Up });
        self.place_pending(now);
        self.plan_scan(now);
    }

    fn scan(&mut self, now: Time) {
        self.scan = None;
        let first = self.pending.front().and_then(|pod| self.pods.get(pod));
        let provision = first.map_or(Duration::ZERO, |pod| pod.phases.provision);
        let nodes::Scan { asked, removed } = self.nodes.scan(now, self.pending.len(), provision);
        for node in asked {
            self.tell(now, Change::Node { node, phase: NodePhase::Requested });
            self.push(now + provision, Due::NodeUp(node));
        }
        for node in removed {
            self.counters.nodes_removed += 1;
            self.tell(now, Change::Node { node, phase: NodePhase::Removed });
        }
        self.plan_scan(now);
    }

    /// Sees to it that the next scan that can change something takes place. The others need not.
    fn plan_scan(&mut self, now: Time) {
        let next = self.nodes.next_scan(now, self.pending.len());
        if next != self.scan.map(|(at, _)| at) {
            self.scan = next.map(|at| (at, self.push(at, Due::Scan)));
        }
    }

    fn push(&mut self, at: Time, due: Due) -> u64 {
        self.last_due += 1;
        self.due.push(Reverse((at, self.last_due, due)));
        self.last_due
    }

    /// Forgets what is due first and no longer counts, so that `next_event` never names a time at which nothing
    /// happens.
    fn drop_stale(&mut self) {
        while let Some(&Reverse((at, number, due))) = self.due.peek() {
            let counts = match due {
                Due::Pod(pod) => self.state(pod).and_then(State::due) == Some(number),
                Due::NodeUp(_) => true,
                Due::Scan => self.scan == Some((at, number)),
            };
            if counts {
                return;
            }
            self.due.pop();
        }
    }

    fn state(&self, pod: u32) -> Option<State> {
        self.pods.get(&pod).map(|pod| pod.state)
    }

    fn set(&mut self, pod: u32, state: State) {
        if let Some(pod) = self.pods.get_mut(&pod) {
            pod.state = state;
        }
    }

    fn tell(&mut self, at: Time, change: Change) {
        self.happened.push_back(ClusterEvent { at, change });
    }
}

impl State {
    /// The node on which it has its place.
    fn node(self) -> Option<u32> {
        match self {
            State::Pending => None,
            State::Binding { node, .. }
            | State::Waiting { node }
            | State::Pulling { node, .. }
            | State::Initialising { node, .. }
            | State::Warming { node, .. }
            | State::Ready { node } => Some(node),
        }
    }

    /// The number under which its next step is due.
    fn due(self) -> Option<u64> {
        match self {
            State::Binding { due, .. }
            | State::Pulling { due, .. }
            | State::Initialising { due, .. }
            | State::Warming { due, .. } => Some(due),
            State::Pending | State::Waiting { .. } | State::Ready { .. } => None,
        }
    }
}
