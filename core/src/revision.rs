//! All of the autoscaler's thinking about one revision: facts go in, a plan comes out.
//!
//! ```text
//! facts ──► Revision::step(now, Input) ──► Option<Plan> ──► effects
//! ```
//!
//! A [`Plan`] says what should be true; the driver compares and converges. Applying it twice is harmless, and
//! a missed one is repaired by the next tick.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::lifecycle::{ActivatorPath, Activity, Bound, Lifecycle, Outcome};
use crate::spec::{ServingMode, num_activators};
use crate::{
    Collector, Decider, Decision, History, LoadHistory, RevisionId, RevisionSpec, ScalingMode, Stat, Time,
};

/// One revision: what is known about it, and what was decided.
///
/// ```
/// use pilotlight_core::{Input, PodCounts, Revision, RevisionSpec, Stat, Time};
/// let spec = RevisionSpec { target: 7.0, total: 10.0, initial_scale: 0, ..RevisionSpec::default() };
/// let mut revision = Revision::new(Time::from_secs(100), spec, PodCounts::default());
/// // 25 requests are in flight at the activator, and no pod is there: decided at once.
/// let load = Stat { average_concurrent_requests: 25.0, ..Stat::default() };
/// let plan = revision.step(Time::from_secs(100), Input::Pushed(load)).unwrap();
/// assert_eq!(plan.scale, Some(4)); // ceil(25 / 7)
/// ```
#[derive(Clone, Debug)]
pub struct Revision {
    spec: RevisionSpec,
    pods: PodCounts,
    path: ActivatorPath,
    collector: Collector,
    decider: Decider,
    lifecycle: Lifecycle,
    /// The last valid decision: it stands while there is no data for a new one.
    decision: Option<Decision>,
    evaluation: Option<Evaluation>,
    /// Activators heard of since the load was lost; `None`: it was not, or the time for which pods are held is over.
    heard: Option<BTreeSet<String>>,
}

/// A fact about a revision, or an occasion to think again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// An activator reported this, in the second of its timestamp or, if it has none, now. At zero, demand is acted on at
    /// once.
    Pushed(Stat),
    /// Pods were scraped, and this is the sum over all of them.
    Scraped(Stat),
    /// The pods are now these.
    Pods(PodCounts),
    /// The activator's place in the request path is now this.
    Path(ActivatorPath),
    /// The settings are now these. Windows are resized; the state is kept.
    Spec(Box<RevisionSpec>),
    /// The regular two-second evaluation.
    Tick,
    /// The time a plan asked to be woken at has come.
    Wake,
}

/// How many pods there are, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodCounts {
    /// Ready for requests.
    pub ready: u32,
    /// On their way up.
    pub starting: u32,
    /// Those of `starting` whose containers do not run yet (Kubernetes' phase `Pending`). No decision depends on it; 0
    /// where a driver starts its pods at once.
    #[serde(default)]
    pub pending: u32,
    /// On their way out.
    pub terminating: u32,
}

/// A plan: the state that should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The number of pods to have; `None`: leave them as they are.
    pub scale: Option<u32>,
    /// The side that should answer the revision's traffic.
    pub mode: ServingMode,
    /// How many activators should stand by for it.
    pub activators: u32,
    /// Whether the revision's public address must be probed now: the last pods wait for the activator to answer there.
    /// The answer comes back as [`Input::Path`].
    #[serde(default)]
    pub probe_path: bool,
    /// When to step with [`Input::Wake`], if nothing else happens before.
    pub wake_at: Option<Time>,
}

/// One evaluation, from what was known to what was planned: everything needed to explain it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// When.
    pub at: Time,
    /// The occasion.
    pub trigger: Trigger,
    /// The pods there were.
    pub pods: PodCounts,
    /// The activator's place in the request path.
    pub path: ActivatorPath,
    /// Whether the decision was made now. If not, there was no data, or nothing to decide anew.
    pub decided: bool,
    /// The last valid decision; `None` until there is one. It stands while there is no data for a new one.
    pub decision: Option<Decision>,
    /// The number after minimum, maximum and the way to zero.
    pub outcome: Outcome,
    /// Whether the revision has its pods, after this.
    pub activity: Activity,
    /// Whether the initial scale was reached once, after this.
    pub initialized: bool,
    /// The plan made of it.
    pub plan: Plan,
}

/// The occasion of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// Two seconds had passed.
    Tick,
    /// A request arrived while there were no pods.
    Demand,
    /// Pods, settings or the request path changed, or a waiting time was over: demand was not decided anew.
    Change,
}

/// One line of the decision journal: the inputs since the line before, and the evaluation they led to. The
/// autoscaler writes these, the simulator replays them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The revision that was decided about.
    pub revision: RevisionId,
    /// Present in a revision's first line: how it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// Everything the revision was told since its line before, in order; the last one caused the evaluation.
    pub inputs: Vec<(Time, Input)>,
    /// The evaluation they led to.
    pub evaluation: Evaluation,
    /// The same in a sentence.
    pub why: String,
}

/// A line of the journal that stands for lines which are missing: whoever writes it could not keep up. A journal with a
/// gap cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// How many.
    pub dropped: u64,
}

/// How a revision's life under this autoscaler began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// When.
    pub at: Time,
    /// The settings.
    pub spec: RevisionSpec,
    /// The pods there were.
    pub pods: PodCounts,
    /// The memory it went on with.
    #[serde(default)]
    pub history: History,
}

impl Revision {
    /// A revision that is first seen now: [`Revision::resume`] with an empty history.
    pub fn new(now: Time, spec: RevisionSpec, pods: PodCounts) -> Self {
        Self::resume(now, spec, pods, History::default())
    }

    /// A revision that goes on with what is remembered of it. With a whole history it decides as if nothing had
    /// happened; where the load is lost, no pod goes before a whole stable window has been seen of every activator:
    /// until one has found the way here its share of the load reads as nothing.
    pub fn resume(now: Time, spec: RevisionSpec, pods: PodCounts, history: History) -> Self {
        let History { activity, initialized, decision, path, load } = history;
        let heard = (load.is_none() && activity.is_some()).then(BTreeSet::new);
        let (collector, decider) = match (&load, activity) {
            (Some(load), _) => (
                Collector::resume(now, &spec, &load.concurrency, &load.requests),
                Decider::resume(&spec, load),
            ),
            (None, None) => (Collector::new(&spec), Decider::new(now, &spec, pods.ready)),
            (None, Some(activity)) => {
                let decided = match (&decision, activity) {
                    (Some(decision), _) => decision.desired,
                    (None, Activity::Inactive { .. }) => 0,
                    (None, _) => pods.ready,
                };
                (Collector::new(&spec), Decider::hold(now, &spec, decided))
            }
        };
        Revision {
            collector,
            decider,
            lifecycle: Lifecycle::resume(now, activity, initialized),
            path,
            decision,
            evaluation: None,
            heard,
            pods,
            spec,
        }
    }

    /// Everything [`Revision::resume`] needs in order to go on from here.
    pub fn history(&self) -> History {
        let [concurrency, requests] = self.collector.history();
        History {
            activity: Some(self.lifecycle.activity()),
            initialized: self.lifecycle.is_initialized(),
            decision: self.decision.clone(),
            path: self.path,
            load: Some(LoadHistory {
                concurrency,
                requests,
                mode: self.decider.mode(),
                max_panic_pods: self.decider.max_panic_pods(),
                delayed: self.decider.delayed(),
            }),
        }
    }

    /// Takes in a fact and, when it is an occasion to, says what should be true now.
    pub fn step(&mut self, now: Time, input: Input) -> Option<Plan> {
        let trigger = match input {
            Input::Scraped(stat) => {
                self.collector.record(now, &stat);
                return None;
            }
            Input::Pushed(stat) => {
                self.hear(now, &stat);
                // The second it was received in first: on its way to the autoscaler that decides it may have waited.
                self.collector.record(stat.timestamp.map_or(now, |at| at.min(now)), &stat);
                if stat.average_concurrent_requests == 0.0 || !self.is_at_zero() {
                    return None;
                }
                Trigger::Demand
            }
            Input::Tick => Trigger::Tick,
            Input::Wake => Trigger::Change,
            Input::Pods(pods) => {
                self.pods = pods;
                Trigger::Change
            }
            Input::Path(path) => {
                self.path = path;
                Trigger::Change
            }
            Input::Spec(spec) => {
                self.spec = *spec;
                self.collector.resize(now, &self.spec);
                Trigger::Change
            }
        };
        Some(self.evaluate(now, trigger))
    }

    /// The settings in force.
    pub fn spec(&self) -> &RevisionSpec {
        &self.spec
    }

    /// The last evaluation, with all its numbers.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluation.as_ref()
    }

    /// The last valid decision. It stands while there is no data for a new one.
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// Nothing was decided yet, or that there be nothing: a request that arrives now cannot wait for a tick.
    fn is_at_zero(&self) -> bool {
        self.decision.as_ref().is_none_or(|decision| decision.desired == 0)
    }

    /// Holds the pods for a stable window more when an activator reports for the first time since the load was lost.
    fn hear(&mut self, now: Time, stat: &Stat) {
        if self.decider.mode() == ScalingMode::Stable {
            self.heard = None;
        }
        if let Some(heard) = &mut self.heard
            && !heard.contains(&stat.pod_name)
        {
            heard.insert(stat.pod_name.clone());
            self.decider.hold_on(now);
        }
    }

    fn evaluate(&mut self, now: Time, trigger: Trigger) -> Plan {
        let decision = match trigger {
            Trigger::Change => None,
            Trigger::Tick | Trigger::Demand => self.decide(now),
        };
        let decided = decision.is_some();
        if decided {
            self.decision = decision;
        }
        let demand = self.decision.as_ref().map(|decision| decision.desired);
        let outcome = self.lifecycle.step(now, &self.spec, demand, self.pods.ready, self.path);
        let plan = Plan {
            scale: outcome.apply,
            mode: self.mode(outcome),
            activators: num_activators(self.pods.ready, &self.spec),
            probe_path: outcome.bound == Some(Bound::AwaitingActivator),
            wake_at: outcome.wake_at,
        };
        self.evaluation = Some(Evaluation {
            at: now,
            trigger,
            pods: self.pods,
            path: self.path,
            decided,
            decision: self.decision.clone(),
            outcome,
            activity: self.lifecycle.activity(),
            initialized: self.lifecycle.is_initialized(),
            plan,
        });
        plan
    }

    fn decide(&mut self, now: Time) -> Option<Decision> {
        let load = self.collector.averages(now, &self.spec)?;
        Some(self.decider.decide(now, &self.spec, self.pods.ready, load))
    }

    /// Straight to the pods only when some are wanted and have room to spare. Until the first decision nobody
    /// knows, and the activator stays in the path.
    fn mode(&self, outcome: Outcome) -> ServingMode {
        let room = self.decision.as_ref().is_some_and(|decision| decision.excess_burst_capacity >= 0);
        match outcome.want {
            Some(pods) if pods > 0 && room => ServingMode::Serve,
            _ => ServingMode::Proxy,
        }
    }
}

impl Evaluation {
    /// The decision, if it was made now.
    pub fn new_decision(&self) -> Option<&Decision> {
        self.decision.as_ref().filter(|_| self.decided)
    }

    /// The history as far as an evaluation tells it: everything but the load.
    pub fn history(&self) -> History {
        History {
            activity: Some(self.activity),
            initialized: self.initialized,
            decision: self.decision.clone(),
            path: self.path,
            load: None,
        }
    }

    /// A machine-readable word for what bound the number of pods.
    pub fn reason(&self) -> String {
        match (self.outcome.bound, self.new_decision()) {
            (Some(bound), _) => bound.to_string(),
            (None, Some(decision)) => decision.rule.to_string(),
            (None, None) => "no-change".to_owned(),
        }
    }
}
