//! The number of pods of one workload, kept at what is wanted: which to start, which to stop, and how long to wait
//! after starts that failed.
//!
//! The shell starts and stops pods, tells what became of them, and tells people: nothing here logs or reads a clock.
//! The local driver keeps child processes this way, the simulator its model of pods. In a cluster a ReplicaSet and
//! the kubelet's CrashLoopBackOff do the same.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Time, TroubleReason};

/// An input of [`Pods`]. `P` is the name of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<P> {
    /// This many pods are wanted. With 0 the failures so far are forgotten: the next request finds a fresh start.
    Scale(u32),
    /// [`Command::Start`] was carried out: this pod is on its way up.
    Started(P),
    /// [`Command::Start`] could not be carried out.
    NotStarted(TroubleReason),
    /// A pod takes requests.
    Ready(P),
    /// Requests in flight at a pod, as last measured. A pod of which nothing was measured counts as idle.
    Load(P, f64),
    /// A pod has ended as it was told.
    Stopped(P),
    /// A pod ended by itself, or never became ready. Nothing is left of it.
    Failed(P, TroubleReason),
    /// No pod is wanted any more, for good.
    Close,
    /// No pod is wanted any more, for good, and none may finish what it has.
    Kill,
    /// Time has passed: what [`Pods::wake_at`] asked for.
    Tick,
}

/// An output of [`Pods`]: the shell is to do this.
#[derive(Clone, Debug, PartialEq)]
pub enum Command<P> {
    /// Start a pod. Each must be answered with [`Event::Started`] or [`Event::NotStarted`].
    Start,
    /// Send requests to a pod: it is ready, and wanted.
    Use(P),
    /// Send no more requests to a pod, let it finish what it has, and end it.
    Stop(P),
    /// End a pod at once, whatever it has.
    Kill(P),
    /// Nothing but to tell people: a start failed, and the next one waits.
    BackOff(BackOff),
}

/// Starts failed, and the next one waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// Why the last of them failed.
    pub reason: TroubleReason,
    /// Starts that failed in a row. Those that failed beside one another count once.
    pub failures: u32,
    /// How long the next start waits.
    pub pause: Duration,
    /// When the next start will be tried.
    pub until: Time,
    /// Whether waiting requests should be answered now rather than held for the next start.
    pub gives_up: bool,
}

/// Keeps the number of pods at what is wanted.
///
/// ```
/// use pilotlight_core::pods::{Command, Event, Pods};
/// use pilotlight_core::{Time, TroubleReason};
/// let (start, later) = (Time::from_millis(0), Time::from_millis(100));
///
/// let mut pods: Pods<&str> = Pods::default();
/// assert_eq!(pods.step(start, Event::Scale(1)), [Command::Start]);
/// assert_eq!(pods.step(start, Event::Started("one")), []);
/// let commands = pods.step(start, Event::Failed("one", TroubleReason::Exited));
/// assert!(matches!(commands[..], [Command::BackOff(back_off)] if back_off.until == later));
/// assert_eq!(pods.wake_at(), Some(later));
/// assert_eq!(pods.step(later, Event::Tick), [Command::Start]);
/// ```
#[derive(Clone, Debug)]
pub struct Pods<P> {
    wanted: u32,
    is_closed: bool,
    pods: BTreeMap<P, Pod>,
    /// Starts that have not been answered for.
    asked: u32,
    started_so_far: u64,
    failing: Option<Failing>,
}

#[derive(Clone, Copy, Debug)]
struct Pod {
    /// Place in the order of starts.
    number: u64,
    started: Time,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    // Starting => Working | Leaving | .
    Starting,
    // Working => Leaving | .
    Working { since: Time, load: f64 },
    // Leaving => .
    Leaving,
}

/// Starts that failed in a row.
#[derive(Clone, Copy, Debug)]
struct Failing {
    back_off: BackOff,
    /// When the last of them was counted.
    counted: Time,
    /// A pod has come up since. The count is kept: the pod may fail at its first request, and so may the next.
    is_over: bool,
}

impl<P> Default for Pods<P> {
    /// No pods, and none wanted.
    fn default() -> Self {
        Pods {
            wanted: 0,
            is_closed: false,
            pods: BTreeMap::new(),
            asked: 0,
            started_so_far: 0,
            failing: None,
        }
    }
}

impl<P: Clone + Ord> Pods<P> {
    /// Takes note of what happened and says what is to be done.
    pub fn step(&mut self, now: Time, event: Event<P>) -> Vec<Command<P>> {
        let mut commands = Vec::new();
        match event {
            Event::Scale(pods) if !self.is_closed => self.want(pods),
            Event::Scale(_) | Event::Tick => {}
            Event::Started(pod) => self.add(now, pod),
            Event::NotStarted(reason) => {
                self.asked = self.asked.saturating_sub(1);
                commands.extend(self.count_failure(now, now, reason));
            }
            Event::Ready(pod) => commands.extend(self.note_ready(now, pod)),
            Event::Load(pod, load) => self.note_load(&pod, load),
            Event::Stopped(pod) => {
                self.pods.remove(&pod);
            }
            Event::Failed(pod, reason) => commands.extend(self.note_failure(now, &pod, reason)),
            Event::Close => self.close(),
            Event::Kill => {
                self.close();
                self.pods.values_mut().for_each(|pod| pod.state = State::Leaving);
                commands.extend(self.pods.keys().cloned().map(Command::Kill));
            }
        }
        self.converge(now, &mut commands);
        commands
    }

    /// How many pods are wanted.
    pub fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Pods on their way up that are wanted.
    pub fn starting(&self) -> u32 {
        self.count(|state| state == State::Starting)
    }

    /// Set while starts fail, until a pod comes up.
    pub fn back_off(&self) -> Option<BackOff> {
        self.failing.filter(|failing| !failing.is_over).map(|failing| failing.back_off)
    }

    /// When to [`Tick`](Event::Tick); `None`: not before something else happens.
    pub fn wake_at(&self) -> Option<Time> {
        let failing = self.failing?;
        let may_start = failing.is_over || self.starting() + self.asked == 0;
        (may_start && self.live() + self.asked < self.wanted).then_some(failing.back_off.until)
    }

    /// Whether no pod will ever be wanted again, and none is left.
    pub fn is_done(&self) -> bool {
        self.is_closed && self.pods.is_empty() && self.asked == 0
    }

    fn want(&mut self, pods: u32) {
        self.wanted = pods;
        if pods == 0 {
            self.failing = None;
        }
    }

    fn close(&mut self) {
        self.want(0);
        self.is_closed = true;
    }

    fn add(&mut self, now: Time, pod: P) {
        self.asked = self.asked.saturating_sub(1);
        self.started_so_far += 1;
        self.pods.insert(pod, Pod { number: self.started_so_far, started: now, state: State::Starting });
    }

    fn note_ready(&mut self, now: Time, name: P) -> Option<Command<P>> {
        // A pod that was told to go in the meantime stays told.
        let pod = self.pods.get_mut(&name).filter(|pod| pod.state == State::Starting)?;
        pod.state = State::Working { since: now, load: 0.0 };
        if let Some(failing) = &mut self.failing {
            failing.is_over = true;
        }
        Some(Command::Use(name))
    }

    fn note_load(&mut self, pod: &P, requests: f64) {
        if let Some(State::Working { load, .. }) = self.pods.get_mut(pod).map(|pod| &mut pod.state) {
            *load = requests;
        }
    }

    fn note_failure(&mut self, now: Time, pod: &P, reason: TroubleReason) -> Option<Command<P>> {
        let Pod { started, state, .. } = self.pods.remove(pod)?;
        match state {
            State::Starting => self.count_failure(now, started, reason),
            State::Working { since, .. } => {
                // A pod that was fine for a while and then ended is no sign that the next one will not come up.
                if now - since >= FINE_FOR {
                    self.failing = None;
                }
                self.count_failure(now, started, reason)
            }
            // The end of a pod that was to go anyway says nothing about the next one.
            State::Leaving => None,
        }
    }

    /// Counts a failure of a pod that was started at this time, and has the next start wait.
    fn count_failure(&mut self, now: Time, started: Time, reason: TroubleReason) -> Option<Command<P>> {
        if self.wanted == 0 {
            return None;
        }
        let (failures, counted) = match &self.failing {
            // A pod that was started before that failure was known failed beside it, not after it.
            Some(failing) if started <= failing.counted => (failing.back_off.failures, failing.counted),
            Some(failing) => (failing.back_off.failures + 1, now),
            None => (1, now),
        };
        let pause = BACK_OFF_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(BACK_OFF_LONGEST);
        let gives_up = failures >= GIVE_UP_AFTER || reason.is_lasting();
        let back_off = BackOff { reason, failures, pause, until: now + pause, gives_up };
        self.failing = Some(Failing { back_off, counted, is_over: false });
        Some(Command::BackOff(back_off))
    }

    /// Starts and stops pods until there are as many as wanted.
    fn converge(&mut self, now: Time, commands: &mut Vec<Command<P>>) {
        let excess = self.live().saturating_sub(self.wanted);
        for pod in self.first_to_go(excess) {
            if let Some(pod) = self.pods.get_mut(&pod) {
                pod.state = State::Leaving;
            }
            commands.push(Command::Stop(pod));
        }
        let missing = self.wanted.saturating_sub(self.live() + self.asked);
        let starts = match &self.failing {
            Some(failing) if now < failing.back_off.until => 0,
            // Starts come one at a time until a pod comes up.
            Some(failing) if !failing.is_over => {
                missing.min(1_u32.saturating_sub(self.starting() + self.asked))
            }
            _ => missing,
        };
        self.asked += starts;
        commands.extend((0..starts).map(|_| Command::Start));
    }

    /// Pods that are starting before pods that work; of those that work, the one with the least to do; the newest
    /// of those that are equal.
    fn first_to_go(&self, number: u32) -> Vec<P> {
        if number == 0 {
            return Vec::new();
        }
        let mut pods: Vec<(&P, &Pod)> =
            self.pods.iter().filter(|(_, pod)| pod.state != State::Leaving).collect();
        pods.sort_by(|(_, one), (_, other)| one.by_departure(other));
        pods.into_iter().take(number as usize).map(|(name, _)| name.clone()).collect()
    }

    /// Pods that are not on their way out.
    fn live(&self) -> u32 {
        self.count(|state| state != State::Leaving)
    }

    fn count(&self, is_counted: impl Fn(State) -> bool) -> u32 {
        self.pods.values().filter(|pod| is_counted(pod.state)).count() as u32
    }
}

impl Pod {
    fn by_departure(&self, other: &Pod) -> Ordering {
        let load = |pod: &Pod| match pod.state {
            State::Working { load, .. } => Some(load),
            State::Starting | State::Leaving => None,
        };
        let by_load = match (load(self), load(other)) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            (one, other) => one.is_some().cmp(&other.is_some()),
        };
        by_load.then(other.number.cmp(&self.number))
    }
}

/// The pause before the second start; doubled with each failure.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// The longest pause between two starts.
const BACK_OFF_LONGEST: Duration = Duration::from_secs(30);
/// Failed starts in a row after which waiting requests are answered.
const GIVE_UP_AFTER: u32 = 3;
/// A pod that worked this long was fine.
const FINE_FOR: Duration = Duration::from_secs(10);
