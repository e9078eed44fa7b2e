//! From what the metrics call for to what is done: the stabilization windows, the limits on the speed, the minimum
//! and the maximum.
//!
//! There are two sets of rules. The one with `behavior` looks at both windows and at how far it has gone lately;
//! the older one, which is still in force where `behavior` is not written, only at the window towards fewer pods,
//! and never more than doubles.

use std::collections::VecDeque;
use std::time::Duration;

use pilotlight_core::Time;

use super::spec::{Behavior, DEFAULT_SCALE_DOWN_STABILIZATION, PolicyStep, Rules, Select};

/// The limit that kept it from what the metrics call for, after stabilization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    None,
    /// The speed towards more pods (`ScaleUpLimit`).
    ScaleUpSpeed,
    /// `maxReplicas` (`TooManyReplicas`).
    Maximum,
    /// The speed towards fewer pods (`ScaleDownLimit`).
    ScaleDownSpeed,
    /// `minReplicas` (`TooFewReplicas`).
    Minimum,
}

/// Remembers what was recommended and done for as long as it counts.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    min: u32,
    max: u32,
    behavior: Option<Behavior>,
    recommended: VecDeque<(Time, u32)>,
    added: VecDeque<(Time, u32)>,
    removed: VecDeque<(Time, u32)>,
}

impl Pace {
    pub(super) fn new(min: u32, max: u32, behavior: Option<Behavior>) -> Self {
        let (recommended, added, removed) = Default::default();
        Pace { min, max, behavior, recommended, added, removed }
    }

    /// The number of pods at first counts as recommended.
    pub(super) fn begin(&mut self, now: Time, current: u32) {
        if self.recommended.is_empty() {
            self.recommended.push_back((now, current));
        }
    }

    /// The stabilized recommendation, and how much of it may be done at once.
    pub(super) fn pace(&mut self, now: Time, current: u32, recommended: u32) -> (u32, u32, Limit) {
        let stabilized = self.stabilize(now, current, recommended);
        let (desired, limit) = match &self.behavior {
            None => self.limit_to_double(current, stabilized),
            Some(behavior) => self.limit(now, behavior, current, stabilized),
        };
        (stabilized, desired, limit)
    }

    /// Remembers what was done.
    pub(super) fn record(&mut self, now: Time, from: u32, to: u32) {
        let Some(behavior) = &self.behavior else { return };
        let longest =
            |rules: &Rules| rules.policies.iter().map(|policy| policy.period).max().unwrap_or_default();
        // Either direction's policies count the changes of both.
        let longest = longest(&behavior.scale_up).max(longest(&behavior.scale_down));
        for changes in [&mut self.added, &mut self.removed] {
            changes.retain(|&(at, _)| now.since(at) <= longest);
        }
        if to > from {
            self.added.push_back((now, to - from));
        } else {
            self.removed.push_back((now, from - to));
        }
    }

    fn stabilize(&mut self, now: Time, current: u32, recommended: u32) -> u32 {
        let past = self.recommended.iter();
        let (stabilized, longest) = match &self.behavior {
            // One exactly as old as the window still counts here, and no longer does below.
            None => {
                let window = DEFAULT_SCALE_DOWN_STABILIZATION;
                let within = past.filter(|(at, _)| now.since(*at) <= window);
                (within.map(|&(_, replicas)| replicas).fold(recommended, u32::max), window)
            }
            Some(Behavior { scale_up, scale_down }) => {
                let (up_window, down_window) =
                    (scale_up.stabilization_window, scale_down.stabilization_window);
                let (mut lowest, mut highest) = (recommended, recommended);
                for &(at, replicas) in past {
                    if now.since(at) < up_window {
                        lowest = lowest.min(replicas);
                    }
                    if now.since(at) < down_window {
                        highest = highest.max(replicas);
                    }
                }
                // As near to what is as both allow.
                (current.max(lowest).min(highest), up_window.max(down_window))
            }
        };
        self.recommended.retain(|&(at, _)| now.since(at) <= longest);
        self.recommended.push_back((now, recommended));
        stabilized
    }

    /// The older rules.
    fn limit_to_double(&self, current: u32, stabilized: u32) -> (u32, Limit) {
        let fastest = current.saturating_mul(2).max(4);
        let (most, limit) =
            if self.max > fastest { (fastest, Limit::ScaleUpSpeed) } else { (self.max, Limit::Maximum) };
        if stabilized < self.min {
            (self.min, Limit::Minimum)
        } else if stabilized > most {
            (most, limit)
        } else {
            (stabilized, Limit::None)
        }
    }

    fn limit(&self, now: Time, behavior: &Behavior, current: u32, stabilized: u32) -> (u32, Limit) {
        if stabilized > current {
            let fastest = self.furthest(now, current, &behavior.scale_up, true).max(current);
            let (most, limit) =
                if self.max > fastest { (fastest, Limit::ScaleUpSpeed) } else { (self.max, Limit::Maximum) };
            if stabilized > most {
                return (most, limit);
            }
        } else if stabilized < current {
            let fastest = self.furthest(now, current, &behavior.scale_down, false).min(current);
            let (least, limit) = if self.min < fastest {
                (fastest, Limit::ScaleDownSpeed)
            } else {
                (self.min, Limit::Minimum)
            };
            if stabilized < least {
                return (least, limit);
            }
        }
        (stabilized, Limit::None)
    }

    /// How far the policies of one direction let it go by now.
    fn furthest(&self, now: Time, current: u32, rules: &Rules, is_up: bool) -> u32 {
        let reach = rules.policies.iter().map(|policy| {
            let at_start = self.at_start_of(now, policy.period, current);
            match policy.step {
                PolicyStep::Pods(pods) if is_up => at_start + i64::from(pods),
                PolicyStep::Pods(pods) => at_start - i64::from(pods),
                // Up, the rest counts as a pod, or one pod could never become two; down, the rest stays.
                PolicyStep::Percent(percent) if is_up => {
                    (at_start as f64 * (1.0 + f64::from(percent) / 100.0)).ceil() as i64
                }
                PolicyStep::Percent(percent) => (at_start as f64 * (1.0 - f64::from(percent) / 100.0)) as i64,
            }
        });
        let furthest = match (rules.select, is_up) {
            (Select::Disabled, _) => None,
            (Select::Max, true) | (Select::Min, false) => reach.max(),
            (Select::Max, false) | (Select::Min, true) => reach.min(),
        };
        furthest.map_or(current, |pods| pods.clamp(0, i64::from(u32::MAX)) as u32)
    }

    /// How many pods there were when the period up to now began, as far as it was this autoscaler's doing.
    fn at_start_of(&self, now: Time, period: Duration, current: u32) -> i64 {
        let sum = |changes: &VecDeque<(Time, u32)>| -> i64 {
            let within = changes.iter().filter(|(at, _)| now.since(*at) < period);
            within.map(|&(_, pods)| i64::from(pods)).sum()
        };
        i64::from(current) - sum(&self.added) + sum(&self.removed)
    }
}
