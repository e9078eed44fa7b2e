//! Knative's formula: from the load in two windows and the pods that are ready to the pods there should be.
//! Minimum, maximum and the way down to zero are applied afterwards, by [`crate::Lifecycle`].
//!
//! Knative's names: `UniScaler`, `autoscaler.Scale` (pkg/autoscaler/scaling).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::collector::WindowPairHistory;
use crate::window::DelayWindow;
use crate::{Averages, RevisionSpec, Time};

/// The state that outlives one decision: whether there is panic, and what was decided lately.
#[derive(Clone, Debug)]
pub struct Decider {
    mode: ScalingMode,
    /// The most pods decided on since panic began: the floor while it lasts.
    max_panic_pods: u32,
    /// Made once, if the spec asked for a delay at creation; never resized.
    delay: Option<DelayWindow>,
}

/// The window that leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScalingMode {
    /// The stable window decides.
    Stable,
    /// A burst: the higher of both windows decides, and the number never falls.
    Panic {
        /// When demand last exceeded the threshold; panic ends one stable window after it.
        since: Time,
    },
}

/// Memory of [`Collector`](crate::Collector) and [`Decider`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadHistory {
    /// Requests in flight.
    pub concurrency: WindowPairHistory,
    /// Requests a second.
    pub requests: WindowPairHistory,
    /// The window that leads.
    pub mode: ScalingMode,
    /// The floor while there is panic: the most pods decided on since it began.
    pub max_panic_pods: u32,
    /// The numbers that `scale-down-delay` still holds: two-second slot and pods, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delayed: Vec<(u64, u32)>,
}

/// One decision, with every number that led to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The number of pods there should be, before minimum and maximum.
    pub desired: u32,
    /// The rule that bound the number.
    pub rule: Rule,
    /// Pods that were ready.
    pub ready_pods: u32,
    /// The metric over the stable window.
    pub stable: f64,
    /// The metric over the panic window.
    pub panic: f64,
    /// The metric per pod that was aimed for.
    pub target: f64,
    /// Pods the stable window calls for, before any limit.
    pub stable_demand: u32,
    /// Pods the panic window calls for, before any limit.
    pub panic_demand: u32,
    /// The most pods one decision may go up to.
    pub up_limit: u32,
    /// The fewest pods one decision may go down to.
    pub down_limit: u32,
    /// The window that led.
    pub mode: ScalingMode,
    /// Room the ready pods have beyond the present load and the burst capacity that is asked for. Negative:
    /// the activator must stay in the request path. 0 and -1 where burst capacity is off and unlimited.
    pub excess_burst_capacity: i32,
}

/// The rule that bound the number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The load in the stable window, divided by the target.
    StableDemand,
    /// The load in the panic window, divided by the target.
    PanicDemand,
    /// Panic: the number does not fall until it is over.
    PanicHold,
    /// No faster up than `max-scale-up-rate`.
    ScaleUpRate,
    /// No faster down than `max-scale-down-rate`.
    ScaleDownRate,
    /// Waking up starts with `activation-scale` pods.
    ActivationScale,
    /// A lower number has not yet held for `scale-down-delay`.
    ScaleDownDelay,
}

impl Decider {
    /// A decider for a revision that has `ready_pods` now. More than one means that the autoscaler was
    /// restarted under load: it begins in panic, which keeps those pods until the windows have filled.
    pub fn new(now: Time, spec: &RevisionSpec, ready_pods: u32) -> Self {
        Decider {
            mode: if ready_pods > 1 { ScalingMode::Panic { since: now } } else { ScalingMode::Stable },
            max_panic_pods: ready_pods,
            delay: DelayWindow::new(spec.scale_down_delay),
        }
    }

    /// A decider that goes on from what another one remembered.
    pub(crate) fn resume(spec: &RevisionSpec, history: &LoadHistory) -> Self {
        Decider {
            mode: history.mode,
            max_panic_pods: history.max_panic_pods,
            delay: DelayWindow::resume(spec.scale_down_delay, &history.delayed),
        }
    }

    /// A decider that knows the last decision but not the load that led to it. Panic holds those pods until the windows
    /// have filled, be it only one: an average over a second or two must not take away what a minute called for.
    pub(crate) fn hold(now: Time, spec: &RevisionSpec, pods: u32) -> Self {
        Decider {
            mode: if pods > 0 { ScalingMode::Panic { since: now } } else { ScalingMode::Stable },
            max_panic_pods: pods,
            delay: DelayWindow::new(spec.scale_down_delay),
        }
    }

    /// Lets a panic last for a whole stable window from now.
    pub(crate) fn hold_on(&mut self, now: Time) {
        if let ScalingMode::Panic { since } = &mut self.mode {
            *since = now;
        }
    }

    /// The floor while there is panic.
    pub(crate) fn max_panic_pods(&self) -> u32 {
        self.max_panic_pods
    }

    /// The numbers that `scale-down-delay` still holds.
    pub(crate) fn delayed(&self) -> Vec<(u64, u32)> {
        self.delay.as_ref().map_or_else(Vec::new, DelayWindow::maxima)
    }

    /// The window that leads now.
    pub fn mode(&self) -> ScalingMode {
        self.mode
    }

    /// Decides. Call it only with data: no data is no decision.
    pub fn decide(&mut self, now: Time, spec: &RevisionSpec, ready_pods: u32, load: Averages) -> Decision {
        let reachable = spec.is_reachable();
        // With no pod ready the rates are those of one pod, or a revision could never leave zero.
        let pods = f64::from(ready_pods.max(1));
        // Ceil: with rate 1.1 and 2 ready pods, 2.2 must allow a third, or a revision could never grow.
        let up_limit = (spec.max_scale_up_rate * pods).ceil();
        let down_limit = if reachable { (pods / spec.max_scale_down_rate).floor() } else { 0.0 };

        let stable_demand = (load.stable / spec.target).ceil();
        let panic_demand = (load.panic / spec.target).ceil();
        let stable = Want::from_demand(stable_demand, Rule::StableDemand, up_limit, down_limit, spec);
        let panic = Want::from_demand(panic_demand, Rule::PanicDemand, up_limit, down_limit, spec);

        // The unlimited demand: how fast we may grow says nothing about whether this is a burst.
        self.follow_panic(now, spec, panic_demand / pods >= spec.panic_threshold);
        let want = self.hold_in_panic(stable, panic);
        let want = self.delay_scale_down(now, reachable, want);

        Decision {
            desired: want.pods,
            rule: want.rule,
            ready_pods,
            stable: load.stable,
            panic: load.panic,
            target: spec.target,
            stable_demand: stable_demand as u32,
            panic_demand: panic_demand as u32,
            up_limit: up_limit as u32,
            down_limit: down_limit as u32,
            mode: self.mode,
            excess_burst_capacity: spec.excess_burst_capacity(ready_pods, load.panic),
        }
    }

    // Stable => Stable | Panic;  Panic => Panic (extended) | Panic | Stable
    fn follow_panic(&mut self, now: Time, spec: &RevisionSpec, over_threshold: bool) {
        match self.mode {
            _ if over_threshold => self.mode = ScalingMode::Panic { since: now },
            ScalingMode::Panic { since } if since + spec.stable_window < now => {
                self.mode = ScalingMode::Stable;
                self.max_panic_pods = 0;
            }
            ScalingMode::Panic { .. } | ScalingMode::Stable => {}
        }
    }

    fn hold_in_panic(&mut self, stable: Want, panic: Want) -> Want {
        if self.mode == ScalingMode::Stable {
            return stable;
        }
        let highest = if panic.pods > stable.pods { panic } else { stable };
        if highest.pods < self.max_panic_pods {
            return Want { pods: self.max_panic_pods, rule: Rule::PanicHold };
        }
        self.max_panic_pods = highest.pods;
        highest
    }

    fn delay_scale_down(&mut self, now: Time, reachable: bool, want: Want) -> Want {
        // An unreachable revision has no traffic to come back to: the window is neither read nor written.
        let Some(delay) = self.delay.as_mut().filter(|_| reachable) else { return want };
        let highest = delay.record(now, want.pods);
        if highest > want.pods { Want { pods: highest, rule: Rule::ScaleDownDelay } } else { want }
    }
}

impl Decision {
    /// Whether panic led.
    pub fn is_panicking(&self) -> bool {
        matches!(self.mode, ScalingMode::Panic { .. })
    }
}

/// A number of pods and the rule that bound it.
#[derive(Clone, Copy)]
struct Want {
    pods: u32,
    rule: Rule,
}

impl Want {
    fn from_demand(demand: f64, rule: Rule, up_limit: f64, down_limit: f64, spec: &RevisionSpec) -> Want {
        let limited = demand.max(down_limit).min(up_limit);
        let rule = if demand > up_limit {
            Rule::ScaleUpRate
        } else if demand < down_limit {
            Rule::ScaleDownRate
        } else {
            rule
        };
        // Any demand at all calls for the activation scale, even beyond the rate limit; none does not.
        match spec.activation_scale {
            Some(scale) if scale > 1 && demand > 0.0 && f64::from(scale) > limited => {
                Want { pods: scale, rule: Rule::ActivationScale }
            }
            _ => Want { pods: limited as u32, rule },
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::StableDemand => "stable-demand",
            Rule::PanicDemand => "panic-demand",
            Rule::PanicHold => "panic-hold",
            Rule::ScaleUpRate => "scale-up-rate",
            Rule::ScaleDownRate => "scale-down-rate",
            Rule::ActivationScale => "activation-scale",
            Rule::ScaleDownDelay => "scale-down-delay",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_decider_holds_the_pods_it_finds() {
        let fresh = |ready| Decider::new(Time::from_secs(9), &RevisionSpec::default(), ready);
        for pods in [0, 1] {
            assert_eq!((fresh(pods).mode, fresh(pods).max_panic_pods), (ScalingMode::Stable, pods));
        }
        let panicking = ScalingMode::Panic { since: Time::from_secs(9) };
        assert_eq!((fresh(2).mode, fresh(2).max_panic_pods), (panicking, 2));
    }

    #[test]
    fn panic_that_is_over_leaves_no_floor_for_the_next() {
        let spec = RevisionSpec::default();
        let mut decider = Decider::new(Time::EPOCH, &spec, 50);
        decider.decide(Time::from_secs(61), &spec, 50, Averages { stable: 0.0, panic: 0.0 });
        assert_eq!((decider.mode, decider.max_panic_pods), (ScalingMode::Stable, 0));
    }

    #[test]
    fn a_rule_is_called_the_same_in_words_and_in_json() {
        let rules = [
            Rule::StableDemand,
            Rule::PanicDemand,
            Rule::PanicHold,
            Rule::ScaleUpRate,
            Rule::ScaleDownRate,
            Rule::ActivationScale,
            Rule::ScaleDownDelay,
        ];
        for rule in rules {
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.to_string());
        }
    }
}
