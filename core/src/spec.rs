//! Settings of one revision, fully resolved: annotations, ConfigMap and defaults are already
//! merged (`pilotlight-config` does that), every field is legal, and nothing is a sentinel.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cadence::TICK;

/// The resolved settings of one revision.
///
/// Source: Knative's Decider, Metric and PodAutoscaler specs in one. Rates and thresholds are plain ratios
/// (2.0 = twice); percentages exist only in configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevisionSpec {
    /// The metric that is held at the target.
    pub scaling_metric: ScalingMetric,
    /// The value of the metric per pod that the autoscaler aims for: `total` x utilization, at least 0.01.
    pub target: f64,
    /// The value of the metric one pod can take at most; burst capacity is reckoned with it.
    pub total: f64,
    /// How much unexpected load must find room without waiting for a new pod.
    pub target_burst_capacity: TargetBurstCapacity,
    /// How much of the metric one activator can carry.
    pub activator_capacity: f64,
    /// Demand over ready pods at which panic begins.
    pub panic_threshold: f64,
    /// The most by which the number of pods may be multiplied in one decision; above 1.
    pub max_scale_up_rate: f64,
    /// The most by which the number of pods may be divided in one decision; above 1.
    pub max_scale_down_rate: f64,
    /// The window that decides in calm times: 6 s to 1 h, whole seconds.
    pub stable_window: Duration,
    /// The short window that notices bursts: whole seconds, at least 1 s.
    pub panic_window: Duration,
    /// How long a lower number must hold before it is followed; zero: at once.
    pub scale_down_delay: Duration,
    /// The number of pods to start with when waking; `None` or 1: as demand says.
    pub activation_scale: Option<u32>,
    /// How samples in a window are weighed. Fixed when the revision is first seen.
    pub aggregation: Aggregation,
    /// Whether traffic can reach this revision.
    pub reachability: Reachability,
    /// Whether pods are scraped. If not, silence means zero load rather than no knowledge.
    pub scraped: bool,
    /// Never fewer pods than this (already 0 for an unreachable revision).
    pub min_scale: u32,
    /// Never more pods than this; `None`: unlimited.
    pub max_scale: Option<u32>,
    /// How many pods a new revision must reach once before it counts as initialized.
    pub initial_scale: u32,
    /// Whether the last pod may go.
    pub enable_scale_to_zero: bool,
    /// The longest time the last pod stays while the activator takes over its traffic.
    pub scale_to_zero_grace_period: Duration,
    /// The shortest time the last pod stays after traffic ended.
    pub pod_retention: Duration,
    /// How long a revision may take to come up before it is given up.
    pub activation_timeout: Duration,
}

impl Default for RevisionSpec {
    /// Knative's defaults: 100 requests in flight per pod at 70 %, a 60 s window, 6 s of panic window.
    fn default() -> Self {
        RevisionSpec {
            scaling_metric: ScalingMetric::Concurrency,
            target: 70.0,
            total: 100.0,
            target_burst_capacity: TargetBurstCapacity::Of(211.0),
            activator_capacity: 100.0,
            panic_threshold: 2.0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            stable_window: Duration::from_secs(60),
            panic_window: Duration::from_secs(6),
            scale_down_delay: Duration::ZERO,
            activation_scale: None,
            aggregation: Aggregation::Linear,
            reachability: Reachability::Reachable,
            scraped: true,
            min_scale: 0,
            max_scale: None,
            initial_scale: 1,
            enable_scale_to_zero: true,
            scale_to_zero_grace_period: Duration::from_secs(30),
            pod_retention: Duration::ZERO,
            activation_timeout: Duration::from_secs(630),
        }
    }
}

impl RevisionSpec {
    /// Whether traffic may reach the revision: only a definite no is a no.
    pub fn is_reachable(&self) -> bool {
        self.reachability != Reachability::Unreachable
    }

    /// Pods that are wanted while no request comes.
    pub fn standing_pods(&self) -> u32 {
        self.min_scale.max(u32::from(!self.enable_scale_to_zero))
    }

    /// Room that `ready_pods` have beyond `load` and the burst capacity that is asked for. Negative: the activator
    /// stays in the request path. 0 and -1 where burst capacity is off and unlimited.
    ///
    /// Pods are counted as they are here: with none, there is no room at all.
    pub fn excess_burst_capacity(&self, ready_pods: u32, load: f64) -> i32 {
        match self.target_burst_capacity {
            TargetBurstCapacity::Off => 0,
            TargetBurstCapacity::Unlimited => -1,
            TargetBurstCapacity::Of(burst) => {
                (f64::from(ready_pods) * self.total - burst - load).floor() as i32
            }
        }
    }

    /// How many ready, idle pods it takes for the activator to leave the request path; `None` if it never does.
    pub fn pods_without_activator(&self) -> Option<u32> {
        let pods = match self.target_burst_capacity {
            TargetBurstCapacity::Off => return Some(1),
            TargetBurstCapacity::Unlimited => return None,
            TargetBurstCapacity::Of(burst) => {
                (burst / self.total).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
            }
        };
        self.max_scale.is_none_or(|max| pods <= max).then_some(pods)
    }

    /// About how long after the last request the last pod goes; `None` if it never does.
    pub fn time_to_zero(&self) -> Option<Duration> {
        if self.min_scale > 0 || !self.enable_scale_to_zero {
            return None;
        }
        // The load must leave the window, the next decision notice it, and the delay pass.
        let idle = self.stable_window + TICK.period + self.scale_down_delay;
        // One idle pod with too little room for a burst has had the activator in front of it all along. Otherwise the
        // activator must first take over, which is given the grace period.
        let is_activator_in_path = self.excess_burst_capacity(1, 0.0) < 0;
        let hand_over = if is_activator_in_path { Duration::ZERO } else { self.scale_to_zero_grace_period };
        Some(idle + hand_over.max(self.pod_retention))
    }
}

/// The metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScalingMetric {
    /// Requests in flight.
    Concurrency,
    /// Requests per second.
    Rps,
}

/// How samples in a window are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// The plain mean.
    Linear,
    /// Recent seconds weigh more.
    WeightedExponential,
}

/// Whether traffic can reach a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reachability {
    /// Nobody has said yet.
    Unknown,
    /// A route leads here.
    Reachable,
    /// No route leads here: bounds, delays and rates no longer hold its pods.
    Unreachable,
}

/// How much unexpected load must find room: decides when the activator leaves the request path.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetBurstCapacity {
    /// The activator is in the path only at zero (written `0`).
    Off,
    /// The activator is always in the path (written `-1`).
    Unlimited,
    /// The activator is in the path unless ready pods have this much room to spare.
    Of(f64),
}

/// The side that answers the revision's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServingMode {
    /// Traffic goes through the activator.
    Proxy,
    /// Traffic goes straight to the pods.
    Serve,
}

/// How many activators a revision needs: at least 2, and enough for what its pods and the burst capacity can
/// take (Knative's rule).
pub fn num_activators(ready_pods: u32, spec: &RevisionSpec) -> u32 {
    const MIN_ACTIVATORS: u32 = 2;
    let burst = match spec.target_burst_capacity {
        TargetBurstCapacity::Off => return MIN_ACTIVATORS,
        TargetBurstCapacity::Unlimited => 0.0,
        TargetBurstCapacity::Of(burst) => burst,
    };
    let capacity_needed = f64::from(ready_pods) * spec.total + burst;
    ((capacity_needed / spec.activator_capacity).ceil() as u32).max(MIN_ACTIVATORS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use TargetBurstCapacity::{Of, Off, Unlimited};

    fn activators(ready_pods: u32, total: f64, burst: TargetBurstCapacity, activator_capacity: f64) -> u32 {
        let spec = RevisionSpec {
            total,
            target_burst_capacity: burst,
            activator_capacity,
            ..RevisionSpec::default()
        };
        num_activators(ready_pods, &spec)
    }

    #[test]
    fn activators_are_enough_for_the_pods_and_the_burst() {
        let table = [
            (0, 100.0, Of(200.0), 2),
            (1, 100.0, Of(200.0), 3),
            (15, 100.0, Of(200.0), 17),
            (5, 100.0, Unlimited, 5),
            (100, 100.0, Off, 2),
            (0, 100.0, Of(211.0), 3),
            (10, 10.0, Of(200.0), 3),
            (11, 10.0, Of(200.0), 4),
        ];
        for (ready_pods, total, burst, expected) in table {
            assert_eq!(
                activators(ready_pods, total, burst, 100.0),
                expected,
                "{ready_pods} x {total} + {burst:?}"
            );
        }
    }

    #[test]
    fn there_are_never_fewer_than_two_activators() {
        assert_eq!(activators(0, 100.0, Unlimited, 100.0), 2);
        assert_eq!(activators(1, 1.0, Of(1.0), 1e9), 2);
    }

    #[test]
    fn the_last_pod_goes_when_window_delay_hand_over_and_retention_have_passed() {
        let at = |change: &dyn Fn(&mut RevisionSpec)| {
            let mut spec = RevisionSpec::default();
            change(&mut spec);
            spec.time_to_zero().map(|after| after.as_secs())
        };
        assert_eq!(at(&|_| ()), Some(62));
        // Without the activator in front it must first take over: the grace period.
        assert_eq!(at(&|spec| spec.target_burst_capacity = Off), Some(92));
        assert_eq!(at(&|spec| spec.target_burst_capacity = Of(100.0)), Some(92));
        assert_eq!(at(&|spec| spec.target_burst_capacity = Of(101.0)), Some(62));
        assert_eq!(at(&|spec| spec.target_burst_capacity = Unlimited), Some(62));
        assert_eq!(at(&|spec| spec.pod_retention = Duration::from_secs(65)), Some(127));
        assert_eq!(at(&|spec| spec.scale_down_delay = Duration::from_secs(900)), Some(962));
        assert_eq!(at(&|spec| spec.min_scale = 1), None);
        assert_eq!(at(&|spec| spec.enable_scale_to_zero = false), None);
    }

    #[test]
    fn the_activator_leaves_when_idle_pods_have_room_for_the_burst() {
        let pods = |burst, max_scale| {
            let spec = RevisionSpec { target_burst_capacity: burst, max_scale, ..RevisionSpec::default() };
            spec.pods_without_activator()
        };
        assert_eq!(pods(Of(211.0), None), Some(3));
        assert_eq!(pods(Of(200.0), None), Some(2));
        assert_eq!(pods(Of(211.0), Some(2)), None);
        assert_eq!(pods(Off, None), Some(1));
        assert_eq!(pods(Unlimited, None), None);
    }

    #[test]
    fn the_activator_leaves_at_the_pods_that_have_excess_burst_capacity() {
        for (total, burst) in [(100.0, 211.0), (100.0, 200.0), (10.0, 0.5), (3.0, 10.0)] {
            let spec = RevisionSpec { total, target_burst_capacity: Of(burst), ..RevisionSpec::default() };
            let pods = spec.pods_without_activator().unwrap();
            assert!(spec.excess_burst_capacity(pods, 0.0) >= 0, "{pods} x {total} - {burst}");
            assert!(pods == 1 || spec.excess_burst_capacity(pods - 1, 0.0) < 0, "{pods} x {total} - {burst}");
        }
    }

    #[test]
    fn only_a_definite_no_makes_a_revision_unreachable() {
        let reachable =
            |reachability| RevisionSpec { reachability, ..RevisionSpec::default() }.is_reachable();
        assert!(reachable(Reachability::Unknown) && reachable(Reachability::Reachable));
        assert!(!reachable(Reachability::Unreachable));
    }

    #[test]
    fn a_spec_survives_json() {
        for burst in [Off, Unlimited, Of(0.1 + 0.2)] {
            let spec =
                RevisionSpec { target_burst_capacity: burst, max_scale: Some(3), ..RevisionSpec::default() };
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<RevisionSpec>(&json).unwrap(), spec);
        }
    }
}
