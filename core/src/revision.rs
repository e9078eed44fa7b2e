//! All of the autoscaler's thinking about one revision: facts go in, a plan comes out.
//!
//! ```text
//! facts ──► Revision::step(now, Input) ──► Option<Plan> ──► effects
//! ```
//!
//! A [`Plan`] says what should be true; the driver compares and converges. Applying it twice is harmless, and
//! a missed one is repaired by the next tick.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lifecycle::{ActivatorPath, Activity, Bound, Lifecycle, Outcome};
use crate::spec::{ServingMode, num_activators};
use crate::{Collector, Decider, Decision, RevisionId, RevisionSpec, ScalingMode, Stat, Time};

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
}

/// A fact about a revision, or an occasion to think again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// An activator reported this. At zero, demand is acted on at once.
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
    /// On their way out.
    pub terminating: u32,
}

/// What should be true of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The number of pods to have; `None`: leave them as they are.
    pub scale: Option<u32>,
    /// Who should answer the revision's traffic.
    pub mode: ServingMode,
    /// How many activators should stand by for it.
    pub activators: u32,
    /// When to step with [`Input::Wake`], if nothing else happens before.
    pub wake_at: Option<Time>,
}

/// One evaluation, from what was known to what was planned: everything needed to explain it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// When.
    pub at: Time,
    /// On what occasion.
    pub trigger: Trigger,
    /// The pods there were.
    pub pods: PodCounts,
    /// The decision made now; `None` if there was no data, or nothing to decide anew.
    pub decision: Option<Decision>,
    /// What minimum, maximum and the way to zero made of it.
    pub outcome: Outcome,
    /// Whether the revision has its pods, after this.
    pub activity: Activity,
    /// What should be true now.
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
    /// Whose decision it is.
    pub revision: RevisionId,
    /// Present in a revision's first line: how it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// Everything the revision was told since its line before, in order; the last one caused the evaluation.
    pub inputs: Vec<(Time, Input)>,
    /// What came of it.
    pub evaluation: Evaluation,
    /// The same in a sentence.
    pub why: String,
}

/// How a revision's life under this autoscaler began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// When.
    pub at: Time,
    /// With which settings.
    pub spec: RevisionSpec,
    /// With which pods.
    pub pods: PodCounts,
}

impl Revision {
    /// A revision that is first seen now.
    pub fn new(now: Time, spec: RevisionSpec, pods: PodCounts) -> Self {
        Revision {
            collector: Collector::new(&spec),
            decider: Decider::new(now, &spec, pods.ready),
            lifecycle: Lifecycle::new(now),
            path: ActivatorPath::default(),
            decision: None,
            evaluation: None,
            pods,
            spec,
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
                self.collector.record(now, &stat);
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

    fn evaluate(&mut self, now: Time, trigger: Trigger) -> Plan {
        let decision = match trigger {
            Trigger::Change => None,
            Trigger::Tick | Trigger::Demand => self.decide(now),
        };
        if decision.is_some() {
            self.decision.clone_from(&decision);
        }
        let demand = self.decision.as_ref().map(|decision| decision.desired);
        let outcome = self.lifecycle.step(now, &self.spec, demand, self.pods.ready, self.path);
        let plan = Plan {
            scale: outcome.apply,
            mode: self.mode(outcome),
            activators: num_activators(self.pods.ready, &self.spec),
            wake_at: outcome.wake_at,
        };
        let activity = self.lifecycle.activity();
        self.evaluation =
            Some(Evaluation { at: now, trigger, pods: self.pods, decision, outcome, activity, plan });
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
    /// The evaluation in a sentence, for people: which number, from what, and which rule bound it.
    pub fn why(&self, spec: &RevisionSpec) -> String {
        Why { evaluation: self, spec }.to_string()
    }

    /// A machine-readable word for what bound the number of pods.
    pub fn reason(&self) -> String {
        match (self.outcome.bound, &self.decision) {
            (Some(bound), _) => bound.to_string(),
            (None, Some(decision)) => decision.rule.to_string(),
            (None, None) => "no-change".to_owned(),
        }
    }
}

struct Why<'a> {
    evaluation: &'a Evaluation,
    spec: &'a RevisionSpec,
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.evaluation.decision {
            Some(decision) => self.demand(f, decision)?,
            None if self.evaluation.trigger == Trigger::Change => f.write_str("Demand unchanged")?,
            None => f.write_str("No data")?,
        }
        if let Some(bound) = self.evaluation.outcome.bound {
            f.write_str("; ")?;
            self.bound(f, bound)?;
        }
        Ok(())
    }
}

impl Why<'_> {
    fn demand(&self, f: &mut fmt::Formatter<'_>, decision: &Decision) -> fmt::Result {
        use crate::Rule;
        let unit = match self.spec.scaling_metric {
            crate::ScalingMetric::Concurrency => "in flight",
            crate::ScalingMetric::Rps => "requests/s",
        };
        let stable_s = self.spec.stable_window.as_secs();
        let panic_s = self.spec.panic_window.as_secs();
        let Decision { target, stable_demand, panic_demand, desired, .. } = *decision;
        let (stable, panic) = (shown(decision.stable), shown(decision.panic));
        // 0.7 x 3 is 2.0999999999999996, which nobody wants to read.
        let target = (target * 1e3).round() / 1e3;
        match decision.rule {
            Rule::StableDemand => {
                write!(f, "{stable} {unit} over {stable_s} s / {target} per pod = {desired}")
            }
            Rule::PanicDemand => {
                write!(f, "{panic} {unit} over {panic_s} s / {target} per pod = {desired}")
            }
            Rule::PanicHold => {
                write!(f, "{desired} held in panic; demand {}", stable_demand.max(panic_demand))
            }
            Rule::ScaleUpRate => write!(
                f,
                "demand {}, limited to {desired} by max-scale-up-rate {}",
                stable_demand.max(panic_demand),
                self.spec.max_scale_up_rate
            ),
            Rule::ScaleDownRate => write!(
                f,
                "demand {stable_demand}, not below {desired} by max-scale-down-rate {}",
                self.spec.max_scale_down_rate
            ),
            Rule::ActivationScale => {
                write!(f, "demand {}, raised to activation-scale {desired}", stable_demand.max(panic_demand))
            }
            Rule::ScaleDownDelay => write!(
                f,
                "demand {stable_demand}, {desired} held for scale-down-delay {} s",
                self.spec.scale_down_delay.as_secs()
            ),
        }?;
        match decision.mode {
            ScalingMode::Panic { .. } if decision.rule != Rule::PanicHold => f.write_str(" (panic)"),
            _ => Ok(()),
        }
    }

    fn bound(&self, f: &mut fmt::Formatter<'_>, bound: Bound) -> fmt::Result {
        let spec = self.spec;
        match bound {
            Bound::MinScale => write!(f, "raised to min-scale {}", spec.min_scale),
            Bound::InitialScale => write!(f, "raised to initial-scale {}", spec.initial_scale),
            Bound::MaxScale => write!(f, "lowered to max-scale {}", spec.max_scale.unwrap_or_default()),
            Bound::ScaleToZeroOff => f.write_str("one pod stays: enable-scale-to-zero is off"),
            Bound::RecentlyActive => {
                write!(f, "one pod stays until {} s after it became active", spec.stable_window.as_secs())
            }
            Bound::Deactivating => f.write_str("no demand: the activator takes over"),
            Bound::AwaitingActivator => f.write_str("pods stay until the activator answers in their place"),
            Bound::PodRetention => {
                write!(f, "pods stay for the retention period of {} s", spec.pod_retention.as_secs_f64())
            }
            Bound::GracePeriod => write!(
                f,
                "pods stay for the grace period of {} s",
                spec.scale_to_zero_grace_period.as_secs_f64()
            ),
            Bound::ActivationTimeout => {
                write!(f, "given up: not up within {} s", spec.activation_timeout.as_secs())
            }
            Bound::Activating => f.write_str("coming up"),
        }
    }
}

/// One decimal, or as many as it takes to tell a little load from none.
fn shown(load: f64) -> String {
    let decimals = if load > 0.0 && load < 0.05 { 6 } else { 1 };
    format!("{load:.decimals$}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::TargetBurstCapacity;

    fn s(seconds: u64) -> Time {
        Time::from_secs(1_000_000 + seconds)
    }
    fn pods(ready: u32) -> PodCounts {
        PodCounts { ready, ..PodCounts::default() }
    }
    fn in_flight(concurrency: f64) -> Stat {
        Stat { average_concurrent_requests: concurrency, ..Stat::default() }
    }
    /// Target 7 of 10 per pod, and no initial scale: it may begin with nothing.
    fn spec() -> RevisionSpec {
        RevisionSpec { target: 7.0, total: 10.0, initial_scale: 0, ..RevisionSpec::default() }
    }
    fn revision(ready: u32) -> Revision {
        Revision::new(s(0), spec(), pods(ready))
    }
    fn trigger(revision: &Revision) -> Trigger {
        revision.evaluation().expect("evaluated").trigger
    }

    #[test]
    fn before_the_first_decision_a_request_is_acted_on_at_once() {
        // Knative waits for the first tick here.
        let mut revision = revision(0);
        let plan = revision.step(s(0), Input::Pushed(in_flight(25.0))).expect("a plan at once");
        assert_eq!((plan.scale, trigger(&revision)), (Some(4), Trigger::Demand));
    }

    #[test]
    fn at_zero_a_request_is_acted_on_at_once() {
        let mut revision = revision(0);
        revision.step(s(0), Input::Scraped(in_flight(0.0)));
        let plan = revision.step(s(1), Input::Tick).expect("a tick is always evaluated");
        assert_eq!((plan.mode, revision.decision().expect("decided").desired), (ServingMode::Proxy, 0));
        assert_eq!(revision.step(s(1), Input::Pushed(in_flight(0.0))), None, "nothing in flight is no demand");
        let plan = revision.step(s(1), Input::Pushed(in_flight(1.0))).expect("a plan at once");
        assert_eq!(plan.scale, Some(1));
    }

    #[test]
    fn above_zero_reports_wait_for_the_tick() {
        let mut revision = revision(1);
        revision.step(s(0), Input::Pushed(in_flight(5.0)));
        assert_eq!(revision.step(s(1), Input::Pushed(in_flight(500.0))), None);
        assert_eq!(revision.step(s(1), Input::Scraped(in_flight(500.0))), None);
        let plan = revision.step(s(1), Input::Tick).expect("a plan");
        assert_eq!(plan.scale, Some(72), "(5 + 1000) / 2 over 7");
    }

    #[test]
    fn scraped_load_never_decides_by_itself() {
        assert_eq!(revision(0).step(s(0), Input::Scraped(in_flight(25.0))), None);
    }

    #[test]
    fn changes_are_evaluated_without_deciding_anew() {
        let mut revision = revision(1);
        revision.step(s(0), Input::Pushed(in_flight(5.0)));
        revision.step(s(1), Input::Scraped(in_flight(500.0)));
        let path = ActivatorPath { populated_since: Some(s(0)), probed: true };
        for input in [Input::Pods(pods(2)), Input::Path(path), Input::Spec(Box::new(spec())), Input::Wake] {
            let plan = revision.step(s(1), input).expect("a plan");
            assert_eq!((plan.scale, trigger(&revision)), (Some(1), Trigger::Change));
            assert_eq!(revision.evaluation().expect("evaluated").decision, None);
        }
        assert_eq!(revision.decision().expect("it stands").stable, 5.0);
    }

    #[test]
    fn without_data_the_last_decision_stands() {
        let mut revision = revision(1);
        assert_eq!(revision.step(s(0), Input::Tick).expect("a plan").scale, None, "nothing is known yet");
        revision.step(s(0), Input::Pushed(in_flight(25.0)));
        // At exactly a window's length there is data still, and it says zero; a second later there is none.
        revision.step(s(59), Input::Tick);
        assert_eq!(revision.decision().expect("decided").desired, 4);
        let plan = revision.step(s(61), Input::Tick).expect("a plan");
        assert_eq!(plan.scale, Some(4));
        assert_eq!(revision.evaluation().expect("evaluated").decision, None);
        assert_eq!(revision.evaluation().expect("evaluated").why(&spec()), "No data");
    }

    #[test]
    fn a_revision_that_nobody_scrapes_reads_silence_as_zero() {
        let mut revision = Revision::new(s(0), RevisionSpec { scraped: false, ..spec() }, pods(0));
        revision.step(s(500), Input::Tick);
        assert_eq!(revision.decision().expect("decided").desired, 0);
    }

    /// Who serves when `ready` pods, each good for 10, have `load` in flight and `burst` is asked for.
    fn mode(ready: u32, load: f64, burst: TargetBurstCapacity) -> ServingMode {
        let spec = RevisionSpec { target_burst_capacity: burst, ..spec() };
        let mut revision = Revision::new(s(0), spec, pods(ready));
        let undecided = revision.step(s(0), Input::Tick).expect("a plan");
        assert_eq!(undecided.mode, ServingMode::Proxy, "nobody knows yet");
        revision.step(s(0), Input::Scraped(in_flight(load)));
        revision.step(s(0), Input::Tick).expect("a plan").mode
    }

    #[test]
    fn pods_serve_directly_when_they_have_room_for_the_burst() {
        let of = TargetBurstCapacity::Of;
        // Only the sign of what is left over counts, and zero is room.
        assert_eq!(mode(10, 50.0, of(49.0)), ServingMode::Serve);
        assert_eq!(mode(10, 50.0, of(50.0)), ServingMode::Serve);
        assert_eq!(mode(10, 50.0, of(50.5)), ServingMode::Proxy);
        assert_eq!(mode(10, 50.0, of(92.0)), ServingMode::Proxy);
        assert_eq!(mode(1, 50.0, TargetBurstCapacity::Off), ServingMode::Serve);
        assert_eq!(mode(100, 50.0, TargetBurstCapacity::Unlimited), ServingMode::Proxy);
    }

    #[test]
    fn with_the_default_settings_two_idle_pods_are_proxied_and_three_are_not() {
        for (ready, excess, expected) in [(2, -11, ServingMode::Proxy), (3, 89, ServingMode::Serve)] {
            let mut revision = Revision::new(s(0), RevisionSpec { min_scale: ready, ..RevisionSpec::default() }, pods(ready));
            revision.step(s(0), Input::Scraped(in_flight(0.0)));
            let plan = revision.step(s(0), Input::Tick).expect("a plan");
            assert_eq!(revision.decision().expect("decided").excess_burst_capacity, excess);
            assert_eq!((plan.mode, plan.activators), (expected, 3 + ready));
        }
    }

    #[test]
    fn at_zero_the_activator_serves_whatever_the_burst_capacity() {
        assert_eq!(mode(0, 0.0, TargetBurstCapacity::Off), ServingMode::Proxy);
        assert_eq!(mode(0, 0.0, TargetBurstCapacity::Of(0.5)), ServingMode::Proxy);
    }

    #[test]
    fn new_windows_take_effect_with_the_settings() {
        let mut revision = revision(1);
        for second in 0..60 {
            revision.step(s(second), Input::Scraped(in_flight(if second < 50 { 60.0 } else { 0.0 })));
        }
        revision.step(s(59), Input::Tick);
        assert_eq!(revision.decision().expect("decided").stable, 50.0);
        let short = RevisionSpec { stable_window: Duration::from_secs(20), ..spec() };
        revision.step(s(59), Input::Spec(Box::new(short)));
        revision.step(s(59), Input::Tick);
        assert_eq!(revision.decision().expect("decided").stable, 30.0);
    }

    #[test]
    fn a_sentence_shows_numbers_as_people_write_them() {
        let why = |load: f64| {
            let mut revision = Revision::new(s(0), RevisionSpec { target: 0.7 * 3.0, ..spec() }, pods(1));
            revision.step(s(0), Input::Pushed(in_flight(load)));
            revision.evaluation().expect("evaluated").why(revision.spec())
        };
        assert_eq!(why(2.0), "2.0 in flight over 60 s / 2.1 per pod = 1");
        assert_eq!(why(0.0025), "0.002500 in flight over 60 s / 2.1 per pod = 1");
    }

    #[test]
    fn the_reason_is_the_last_word_that_bound_the_number() {
        let mut revision = Revision::new(s(0), RevisionSpec { max_scale: Some(3), ..spec() }, pods(1));
        revision.step(s(0), Input::Wake);
        assert_eq!(revision.evaluation().expect("evaluated").reason(), "no-change");
        revision.step(s(0), Input::Pushed(in_flight(20.0)));
        assert_eq!(revision.evaluation().expect("evaluated").reason(), "stable-demand");
        revision.step(s(1), Input::Scraped(in_flight(30.0)));
        revision.step(s(1), Input::Tick);
        let evaluation = revision.evaluation().expect("evaluated");
        assert_eq!(evaluation.reason(), "max-scale");
        assert_eq!(evaluation.why(revision.spec()), "25.0 in flight over 60 s / 7 per pod = 4 (panic); lowered to max-scale 3");
    }
}
