//! From the number of pods demand calls for to the number that is applied: minimum, maximum, initial scale,
//! and the careful way down to zero.
//!
//! The last pod goes only when the revision has been without demand for a stable window, the activator is
//! known to stand in the request path, and the grace or retention period has passed. Knative's names: the KPA
//! reconciler's `scaler` and the PodAutoscaler's `Active` and `ScaleTargetInitialized` conditions.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{RevisionSpec, TargetBurstCapacity, Time};

/// Whether a revision has its pods, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Activity {
    /// Pods are wanted and not there yet; requests wait.
    Activating {
        /// When this began.
        since: Time,
    },
    /// Enough pods are ready.
    Active {
        /// When this began.
        since: Time,
    },
    /// Nothing is wanted.
    Inactive {
        /// When this began.
        since: Time,
        /// Whether it is so because pods never came up.
        timed_out: bool,
    },
}

/// Knowledge of the activator's place in the request path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivatorPath {
    /// Since when traffic has been routed to the activator, as far as the routing layer says.
    pub populated_since: Option<Time>,
    /// Whether a probe through the revision's public address was answered by the activator.
    pub probed: bool,
}

/// The state that outlives one step.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    activity: Activity,
    /// Whether the initial scale was reached once.
    initialized: bool,
}

/// The outcome of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The number of pods that are wanted; `None`: not known.
    pub want: Option<u32>,
    /// The number to apply; `None`: leave the pods as they are.
    pub apply: Option<u32>,
    /// The rule that changed demand's number, if any did.
    pub bound: Option<Bound>,
    /// When to look again, if nothing else happens before.
    pub wake_at: Option<Time>,
}

/// The rule that changed the number of pods after demand had its say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Raised to `min-scale`.
    MinScale,
    /// Raised to `initial-scale`, which was not reached yet.
    InitialScale,
    /// Lowered to `max-scale`.
    MaxScale,
    /// One pod stays: `enable-scale-to-zero` is off.
    ScaleToZeroOff,
    /// One pod stays until the revision has been active for a stable window.
    RecentlyActive,
    /// No demand any more: the activator takes over, pods stay for the moment.
    Deactivating,
    /// Pods stay until a probe shows the activator in the request path.
    AwaitingActivator,
    /// Pods stay until `scale-to-zero-pod-retention-period` has passed.
    PodRetention,
    /// Pods stay until `scale-to-zero-grace-period` has passed.
    GracePeriod,
    /// No demand, the activator stands in, and all periods are over: no pods.
    Idle,
    /// The revision did not come up in time and is given up.
    ActivationTimeout,
    /// The revision is still coming up.
    Activating,
}

impl Lifecycle {
    /// A revision just seen: it counts as activating.
    pub fn new(now: Time) -> Self {
        Lifecycle::resume(now, None, false)
    }

    /// A revision of which this is remembered; without an activity it counts as activating.
    pub fn resume(now: Time, activity: Option<Activity>, initialized: bool) -> Self {
        Lifecycle { activity: activity.unwrap_or(Activity::Activating { since: now }), initialized }
    }

    /// Whether the initial scale was reached once.
    pub fn is_initialized(&self) -> bool {
        self.initialized
    }

    /// Whether the revision has its pods, and since when.
    pub fn activity(&self) -> Activity {
        self.activity
    }

    /// Turns demand into what is wanted and applied, and follows what that means for the revision's activity.
    /// `demand` is `None` until there was a first decision.
    pub fn step(
        &mut self,
        now: Time,
        spec: &RevisionSpec,
        demand: Option<u32>,
        ready_pods: u32,
        path: ActivatorPath,
    ) -> Outcome {
        let outcome = self.scale(now, spec, demand, path);
        self.follow(now, spec, outcome.want, ready_pods);
        outcome
    }

    fn scale(&self, now: Time, spec: &RevisionSpec, demand: Option<u32>, path: ActivatorPath) -> Outcome {
        let activating = matches!(self.activity, Activity::Activating { .. });
        if demand.is_none() && !activating {
            return Outcome { want: None, apply: None, bound: None, wake_at: None };
        }
        match self.clamp(spec, demand) {
            (0, _) => self.to_zero(now, spec, demand, path),
            (pods, bound) => Outcome { want: Some(pods), apply: Some(pods), bound, wake_at: None },
        }
    }

    /// The minimum is tested first: it lifts, and what it lifted the maximum does not lower again.
    fn clamp(&self, spec: &RevisionSpec, demand: Option<u32>) -> (u32, Option<Bound>) {
        let (mut min, mut min_bound) = (spec.min_scale, Bound::MinScale);
        if spec.initial_scale > 1 && spec.initial_scale > min && !self.initialized && spec.is_reachable() {
            (min, min_bound) = (spec.initial_scale, Bound::InitialScale);
        }
        match (demand, spec.max_scale) {
            (None, _) => (min, (min > 0).then_some(min_bound)),
            (Some(pods), _) if pods < min => (min, Some(min_bound)),
            (Some(pods), Some(max)) if pods > max => (max, Some(Bound::MaxScale)),
            (Some(pods), _) => (pods, None),
        }
    }

    fn to_zero(&self, now: Time, spec: &RevisionSpec, demand: Option<u32>, path: ActivatorPath) -> Outcome {
        let apply =
            |pods, bound| Outcome { want: Some(pods), apply: Some(pods), bound: Some(bound), wake_at: None };
        let wait = |bound, wake_at| Outcome { want: Some(0), apply: None, bound: Some(bound), wake_at };
        if !spec.enable_scale_to_zero {
            return apply(1, Bound::ScaleToZeroOff);
        }
        match self.activity {
            // Activating => Inactive (timed out) | Activating
            Activity::Activating { since } => {
                let deadline = since + spec.activation_timeout;
                // At the deadline, not past it as in Knative: who is woken then must not be told to wait for then.
                if now >= deadline {
                    return apply(0, Bound::ActivationTimeout);
                }
                let bound = demand.map(|_| Bound::Activating);
                Outcome { want: None, apply: None, bound, wake_at: Some(deadline) }
            }
            // Active => Inactive | Active
            Activity::Active { since } => {
                let earliest = since + spec.stable_window;
                if now >= earliest {
                    // The activator is asked to take over first; the pods go in a later step.
                    // If it stands in the path already, nobody will tell us so: the next step is due.
                    let due = path.populated_since.map(|_| now + NEXT_STEP);
                    return wait(Bound::Deactivating, due);
                }
                Outcome { wake_at: Some(earliest), ..apply(1, Bound::RecentlyActive) }
            }
            // Inactive => Inactive
            Activity::Inactive { since, .. } => {
                let always_in_path = spec.target_burst_capacity == TargetBurstCapacity::Unlimited;
                if !always_in_path && !path.probed {
                    return wait(Bound::AwaitingActivator, None);
                }
                let retention = if spec.is_reachable() { spec.pod_retention } else { Default::default() };
                let grace = spec.scale_to_zero_grace_period;
                let inactive = now - since;
                if inactive >= grace.max(retention) {
                    return apply(0, Bound::Idle);
                }
                if inactive < retention {
                    return wait(Bound::PodRetention, Some(since + retention));
                }
                // The activator may have been in the path for longer than the revision has been inactive.
                let released_at = path.populated_since.unwrap_or(now) + grace;
                if now >= released_at {
                    return apply(0, Bound::Idle);
                }
                wait(Bound::GracePeriod, Some(released_at.min(since + grace.max(retention))))
            }
        }
    }

    fn follow(&mut self, now: Time, spec: &RevisionSpec, want: Option<u32>, ready_pods: u32) {
        let needed = spec.min_scale.max(if self.initialized { 1 } else { spec.initial_scale });
        let enough = ready_pods >= needed;
        self.initialized |= enough;

        let was_activating = matches!(self.activity, Activity::Activating { .. });
        let was_inactive = matches!(self.activity, Activity::Inactive { .. });
        let wanted = want.is_some_and(|pods| pods > 0);
        self.activity = if want == Some(0) || needed == 0 {
            self.inactive(now, was_activating && needed > 0)
        } else if !wanted && was_inactive {
            match enough {
                true => self.activity,
                // Needed for an initial scale of 0.
                false => self.inactive(now, false),
            }
        } else if enough {
            match self.activity {
                Activity::Active { since } => Activity::Active { since },
                _ => Activity::Active { since: now },
            }
        } else {
            match self.activity {
                Activity::Activating { since } => Activity::Activating { since },
                _ => Activity::Activating { since: now },
            }
        };
    }

    /// Inactive since now, unless it was so already for the same reason.
    fn inactive(&self, now: Time, timed_out: bool) -> Activity {
        match self.activity {
            Activity::Inactive { since, timed_out: before } if before == timed_out => {
                Activity::Inactive { since, timed_out }
            }
            _ => Activity::Inactive { since: now, timed_out },
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::MinScale => "min-scale",
            Bound::InitialScale => "initial-scale",
            Bound::MaxScale => "max-scale",
            Bound::ScaleToZeroOff => "scale-to-zero-off",
            Bound::RecentlyActive => "recently-active",
            Bound::Deactivating => "deactivating",
            Bound::AwaitingActivator => "awaiting-activator",
            Bound::PodRetention => "pod-retention",
            Bound::GracePeriod => "grace-period",
            Bound::Idle => "idle",
            Bound::ActivationTimeout => "activation-timeout",
            Bound::Activating => "activating",
        })
    }
}

/// The next step, as soon as there can be one. Not now: time must pass, or a driver in virtual time would never
/// get past it.
const NEXT_STEP: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_scale_is_reached_once_and_for_all() {
        let spec = RevisionSpec { initial_scale: 3, ..RevisionSpec::default() };
        let path = ActivatorPath::default();
        let mut lifecycle = Lifecycle::new(Time::EPOCH);
        lifecycle.step(Time::from_secs(2), &spec, Some(1), 2, path);
        assert!(!lifecycle.initialized);
        lifecycle.step(Time::from_secs(4), &spec, Some(1), 3, path);
        assert!(lifecycle.initialized);
        lifecycle.step(Time::from_secs(6), &spec, Some(1), 0, path);
        assert!(lifecycle.initialized, "lost pods do not make a revision new again");
    }

    #[test]
    fn a_bound_is_called_the_same_in_words_and_in_json() {
        let bounds = [
            Bound::MinScale,
            Bound::InitialScale,
            Bound::MaxScale,
            Bound::ScaleToZeroOff,
            Bound::RecentlyActive,
            Bound::Deactivating,
            Bound::AwaitingActivator,
            Bound::PodRetention,
            Bound::GracePeriod,
            Bound::Idle,
            Bound::ActivationTimeout,
            Bound::Activating,
        ];
        for bound in bounds {
            assert_eq!(serde_json::to_value(bound).unwrap(), bound.to_string());
        }
    }
}
