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
    /// A request has come while no pod works: a start that waits after failures need not wait any longer.
    Demand,
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
    /// When the next start will be tried; `None`: it is on its way, or waits for a request.
    pub retry_at: Option<Time>,
    /// From when on a request has a start tried at once, and waits for it; `None`: a start is on its way.
    pub on_demand_at: Option<Time>,
    /// Whether waiting requests should be answered now rather than held for the next start.
    pub gives_up: bool,
}

impl BackOff {
    /// Whether a request without a pod should be answered, rather than wait for the next start.
    pub fn refuses(&self, now: Time) -> bool {
        self.gives_up && self.on_demand_at.is_none_or(|at| now < at)
    }
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
/// assert!(matches!(commands[..], [Command::BackOff(back_off)] if back_off.retry_at == Some(later)));
/// assert_eq!(pods.wake_at(start), Some(later));
/// assert_eq!(pods.step(later, Event::Tick), [Command::Start]);
/// ```
#[derive(Clone, Debug)]
pub struct Pods<P> {
    wanted: u32,
    /// Pods that are wanted without any request: for them, failed starts are tried again for ever.
    minimum: u32,
    /// When requests last called for a pod.
    demanded: Time,
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
    /// Why the last of them failed.
    reason: TroubleReason,
    failures: u32,
    pause: Duration,
    /// When the last of them failed.
    failed: Time,
    /// When the next start is due.
    until: Time,
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
            minimum: 0,
            demanded: Time::EPOCH,
            is_closed: false,
            pods: BTreeMap::new(),
            asked: 0,
            started_so_far: 0,
            failing: None,
        }
    }
}

impl<P: Clone + Ord> Pods<P> {
    /// No pods yet. With a `minimum` above 0, pods are wanted even while no request comes.
    pub fn with_minimum(minimum: u32) -> Self {
        Pods { minimum, ..Pods::default() }
    }

    /// Takes note of what happened and says what is to be done.
    pub fn step(&mut self, now: Time, event: Event<P>) -> Vec<Command<P>> {
        let mut commands = Vec::new();
        match event {
            Event::Scale(pods) if !self.is_closed => self.want(now, pods),
            Event::Scale(_) | Event::Tick => {}
            Event::Started(pod) => self.add(now, pod),
            Event::NotStarted(reason) => {
                self.asked = self.asked.saturating_sub(1);
                commands.extend(self.count_failure(now, now, reason));
            }
            Event::Ready(pod) => commands.extend(self.note_ready(now, pod)),
            Event::Demand => self.note_demand(now),
            Event::Load(pod, load) => self.note_load(&pod, load),
            Event::Stopped(pod) => {
                self.pods.remove(&pod);
            }
            Event::Failed(pod, reason) => commands.extend(self.note_failure(now, &pod, reason)),
            Event::Close => self.close(now),
            Event::Kill => {
                self.close(now);
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
    pub fn back_off(&self, now: Time) -> Option<BackOff> {
        let failing = self.failing.filter(|failing| !failing.is_over)?;
        let Failing { reason, failures, pause, .. } = failing;
        let is_waiting = self.starting() + self.asked == 0;
        let holds = self.holds_until(&failing).is_some_and(|until| now < until);
        Some(BackOff {
            reason,
            failures,
            pause,
            retry_at: self.retry_at(&failing).filter(|_| is_waiting),
            on_demand_at: is_waiting.then(|| failing.on_demand_at()),
            gives_up: failing.gives_up() && !holds,
        })
    }

    /// When to [`Tick`](Event::Tick); `None`: not before something else happens.
    pub fn wake_at(&self, now: Time) -> Option<Time> {
        let failing = self.failing?;
        let may_start = failing.is_over || self.starting() + self.asked == 0;
        let start = self.retry_at(&failing).filter(|_| may_start && self.live() + self.asked < self.wanted);
        let held = self.holds_until(&failing).filter(|&until| failing.gives_up() && now < until);
        start.into_iter().chain(held).min()
    }

    /// Whether no pod will ever be wanted again, and none is left.
    pub fn is_done(&self) -> bool {
        self.is_closed && self.pods.is_empty() && self.asked == 0
    }

    fn want(&mut self, now: Time, pods: u32) {
        if pods > self.wanted {
            self.demanded = now;
        }
        self.wanted = pods;
        if pods == 0 {
            self.failing = None;
        }
    }

    fn close(&mut self, now: Time) {
        self.want(now, 0);
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

    fn note_demand(&mut self, now: Time) {
        self.demanded = now;
        if let Some(failing) = &mut self.failing
            && now >= failing.on_demand_at()
        {
            failing.until = failing.until.min(now);
        }
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
            Some(failing) if started <= failing.counted => (failing.failures, failing.counted),
            Some(failing) => (failing.failures + 1, now),
            None => (1, now),
        };
        let pause = BACK_OFF_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(BACK_OFF_LONGEST);
        let until = now + pause;
        self.failing = Some(Failing { reason, failures, pause, failed: now, until, counted, is_over: false });
        self.back_off(now).map(Command::BackOff)
    }

    /// When the next start is due of its own accord; `None`: nobody has asked for a pod for a while, and it waits for a
    /// request.
    fn retry_at(&self, failing: &Failing) -> Option<Time> {
        let has_working = self.count(|state| matches!(state, State::Working { .. })) > 0;
        let is_lasting = self.minimum > 0 || has_working || failing.is_over;
        (is_lasting || failing.until <= self.demanded + DEMAND_LASTS).then_some(failing.until)
    }

    /// Until when requests are held for the start that is on its way after failures; `None`: there is none.
    fn holds_until(&self, failing: &Failing) -> Option<Time> {
        let starts =
            self.pods.values().filter(|pod| pod.state == State::Starting && pod.started > failing.counted);
        starts.map(|pod| pod.started + HELD_FOR).max()
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
            Some(failing) if self.retry_at(failing).is_none_or(|at| now < at) => 0,
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

impl Failing {
    /// Whether waiting requests are answered, unless a start is on its way.
    fn gives_up(&self) -> bool {
        self.failures >= GIVE_UP_AFTER || self.reason.is_lasting()
    }

    /// From when on a request need not wait for the end of the pause.
    fn on_demand_at(&self) -> Time {
        self.failed + self.pause.min(ON_DEMAND_PAUSE)
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
/// The longest pause after a failure when a request asks for a pod: requests have one start a second tried.
const ON_DEMAND_PAUSE: Duration = Duration::from_secs(1);
/// How long after the last request starts are tried again unasked.
const DEMAND_LASTS: Duration = Duration::from_secs(30);
/// How long requests are held for a start that comes after failures; then they are answered with the last failure.
const HELD_FOR: Duration = Duration::from_secs(5);
/// A pod that worked this long was fine.
const FINE_FOR: Duration = Duration::from_secs(10);
