//! From one metric of the pods to a number of pods: the controller's formula, and its care with pods it knows too
//! little of.

use std::time::Duration;

use pilotlight_core::Time;

use super::cpu::CpuUsage;
use super::spec::{HpaMetric, Measure};

/// A pod as the controller sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PodSample {
    /// How far it is.
    pub state: PodState,
    /// The CPU it uses, if that is known ([`CpuMeter`](super::CpuMeter)).
    pub cpu: Option<CpuUsage>,
    /// The requests it gets a second, if that is known.
    pub requests_per_second: Option<f64>,
    /// The requests it has in flight, if that is known.
    pub in_flight: Option<f64>,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodState {
    /// No container runs yet.
    Pending,
    /// Containers run.
    Running {
        /// The time it was bound to its node.
        started_at: Time,
        /// Whether it is ready.
        is_ready: bool,
        /// Since when it is so; if it has never been ready, since it was started.
        since: Time,
    },
    /// Terminating: the pod was told to stop, and no longer counts.
    Terminating,
}

/// The proposal of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The pods it calls for.
    pub replicas: u32,
    /// The average of the pods that count: percent of the request, or thousandths.
    pub average: u64,
    /// The target, in the same unit.
    pub target: u64,
}

/// Why a metric calls for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProposal {
    /// No pods to look at.
    #[error("there are no pods")]
    NoPods,
    /// No measurement of any pod that counts.
    #[error("no pod that counts has been measured")]
    NotMeasured,
    /// A share of nothing.
    #[error("pods request no cpu to take a percentage of")]
    NoRequest,
}

/// How far off the target counts as on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    pub(super) down_fraction: f64,
    pub(super) up_fraction: f64,
}

impl Tolerance {
    fn contains(self, ratio: f64) -> bool {
        (1.0 - self.down_fraction..=1.0 + self.up_fraction).contains(&ratio)
    }
}

/// The number of pods `metric` calls for, when `current` were asked for last.
pub(super) fn propose(
    now: Time,
    metric: &HpaMetric,
    pod_millicores: u32,
    tolerance: Tolerance,
    current: u32,
    pods: &[PodSample],
) -> Result<Proposal, NoProposal> {
    if pods.is_empty() {
        return Err(NoProposal::NoPods);
    }
    let scale = MetricScale::new(metric, pod_millicores);
    let Groups { measured, unready, missing } = Groups::new(now, metric, pods);
    if measured.pods == 0 {
        return Err(NoProposal::NotMeasured);
    }
    let ratio = scale.ratio(measured)?;
    let propose =
        |replicas| Ok(Proposal { replicas, average: scale.average(measured)?, target: scale.target });

    let is_up_with_unready = unready > 0 && ratio > 1.0;
    if missing == 0 && !is_up_with_unready {
        if tolerance.contains(ratio) {
            return propose(current);
        }
        return propose(ceil(ratio * measured.pods as f64));
    }

    // A pod that was not measured is assumed to speak against the change: on the target where it is downwards, idle
    // where it is upwards.
    let mut assumed = measured;
    if ratio < 1.0 {
        assumed.add(missing, scale.missing);
    } else if ratio > 1.0 {
        assumed.add(missing, 0);
    }
    if is_up_with_unready {
        assumed.add(unready, 0);
    }
    let careful = scale.ratio(assumed)?;
    let turned = ratio < 1.0 && careful > 1.0 || ratio > 1.0 && careful < 1.0;
    if tolerance.contains(careful) || turned {
        return propose(current);
    }
    let replicas = ceil(careful * assumed.pods as f64);
    let turned = careful < 1.0 && replicas > current || careful > 1.0 && replicas < current;
    propose(if turned { current } else { replicas })
}

/// The scale of a metric.
struct MetricScale {
    /// The request of each pod, if the metric is a percentage of that.
    request: Option<u64>,
    target: u64,
    /// The value of a pod that was not measured, where there would be fewer pods.
    missing: u64,
}

impl MetricScale {
    fn new(metric: &HpaMetric, pod_millicores: u32) -> Self {
        match *metric {
            HpaMetric::CpuUtilization { target_percent } => {
                let (request, target) = (u64::from(pod_millicores), u64::from(target_percent));
                MetricScale { request: Some(request), target, missing: request * target.max(100) / 100 }
            }
            HpaMetric::Cpu { target_millicores: target } | HpaMetric::Pods { target_milli: target, .. } => {
                MetricScale { request: None, target, missing: target }
            }
        }
    }

    /// Rounded down, as the controller does: 81.9 % is 81 %.
    fn average(&self, sum: Sum) -> Result<u64, NoProposal> {
        let Some(request) = self.request else { return Ok(sum.total / sum.pods) };
        sum.total.saturating_mul(100).checked_div(request * sum.pods).ok_or(NoProposal::NoRequest)
    }

    fn ratio(&self, sum: Sum) -> Result<f64, NoProposal> {
        Ok(self.average(sum)? as f64 / self.target as f64)
    }
}

/// Measurements, added up. Only a target that nothing can reach comes near the end of the numbers; they stop there.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    pods: u64,
    total: u64,
}

impl Sum {
    fn add(&mut self, pods: u64, each: u64) {
        self.pods += pods;
        self.total = self.total.saturating_add(pods.saturating_mul(each));
    }
}

/// The pods by what is known of them.
#[derive(Debug, Default)]
struct Groups {
    measured: Sum,
    /// Pods that are not ready, or whose CPU is that of their start.
    unready: u64,
    missing: u64,
}

impl Groups {
    fn new(now: Time, metric: &HpaMetric, pods: &[PodSample]) -> Self {
        let mut groups = Groups::default();
        for pod in pods {
            match (pod.state, pod.milli(metric)) {
                (PodState::Terminating, _) => {}
                (PodState::Pending, _) => groups.unready += 1,
                (PodState::Running { .. }, None) => groups.missing += 1,
                (PodState::Running { .. }, Some(_)) if pod.is_cpu_unusable(now, metric) => {
                    groups.unready += 1;
                }
                (PodState::Running { .. }, Some(milli)) => groups.measured.add(1, milli),
            }
        }
        groups
    }
}

impl PodSample {
    /// The pod's measurement, in thousandths.
    fn milli(&self, metric: &HpaMetric) -> Option<u64> {
        // The adapters cut the rest of a thousandth off.
        let cut = |value: f64| (value * 1_000.0) as u64;
        match metric {
            HpaMetric::CpuUtilization { .. } | HpaMetric::Cpu { .. } => {
                self.cpu.map(|usage| usage.millicores)
            }
            HpaMetric::Pods { measure: Measure::RequestsPerSecond, .. } => self.requests_per_second.map(cut),
            HpaMetric::Pods { measure: Measure::InFlight, .. } => self.in_flight.map(cut),
        }
    }

    /// Whether its CPU must not be taken for that of its work.
    fn is_cpu_unusable(&self, now: Time, metric: &HpaMetric) -> bool {
        let (PodState::Running { started_at, is_ready, since }, Some(cpu)) = (self.state, self.cpu) else {
            return false;
        };
        if matches!(metric, HpaMetric::Pods { .. }) {
            return false;
        }
        if now < started_at + CPU_INITIALIZATION {
            // While it may be initialising: not unless all of it was measured since it became ready.
            !is_ready || cpu.at < since + cpu.window
        } else {
            // Later on, one that is not ready has a bad moment, unless it has never been ready at all.
            !is_ready && since < started_at + INITIAL_READINESS_DELAY
        }
    }
}

/// The next whole number, as far as there are that many pods.
fn ceil(pods: f64) -> u32 {
    (pods.ceil() as u32).min(i32::MAX as u32)
}

/// The controller's `--horizontal-pod-autoscaler-cpu-initialization-period`.
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);

/// The controller's `--horizontal-pod-autoscaler-initial-readiness-delay`.
const INITIAL_READINESS_DELAY: Duration = Duration::from_secs(30);
