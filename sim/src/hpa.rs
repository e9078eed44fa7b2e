//! The HorizontalPodAutoscaler of Kubernetes, decision for decision: what it would do with the pods of a simulation.
//!
//! The algorithm is that of the controller (`pkg/controller/podautoscaler`, as of Kubernetes 1.33 and later): the
//! ratio of what is measured to what is aimed for, with its tolerance; care with pods that are not ready or not
//! measured; the most that any metric calls for; stabilization; limits on the speed; minimum and maximum. Like the
//! controller it counts in whole thousandths. It is pure: time and pods come in, a decision goes out.
//!
//! | step | where |
//! |---|---|
//! | the manifest | [`HpaSpec::read`] |
//! | what metrics-server knows of a pod's CPU | [`CpuMeter`] |
//! | one metric: pods to a number of pods | `replicas.rs` |
//! | stabilization and limits | `pace.rs` |

use std::fmt;
use std::time::Duration;

use pilotlight_core::Time;

mod cpu;
mod pace;
mod quantity;
mod read;
mod replicas;
mod spec;

pub use cpu::{CPU_RESOLUTION, CpuMeter, CpuReading, CpuUsage};
pub use pace::Limit;
pub use replicas::{NoProposal, PodSample, PodState, Proposal};
pub use spec::{Behavior, HpaMetric, HpaSpec, Measure, Policy, PolicyStep, Rules, Select};

use pace::Pace;
use replicas::{Tolerance, propose};

/// How often the controller decides (`--horizontal-pod-autoscaler-sync-period`).
pub const SYNC_PERIOD: Duration = Duration::from_secs(15);

/// How far off the target counts as on it (`--horizontal-pod-autoscaler-tolerance`).
const DEFAULT_TOLERANCE_FRACTION: f64 = 0.1;

/// A HorizontalPodAutoscaler at work.
///
/// ```
/// use pilotlight_core::Time;
/// use pilotlight_sim::hpa::{CpuUsage, Hpa, HpaSpec, PodSample, PodState, SYNC_PERIOD};
/// let text = "
/// apiVersion: autoscaling/v1
/// kind: HorizontalPodAutoscaler
/// spec: { maxReplicas: 10, targetCPUUtilizationPercentage: 80 }
/// ";
/// let mut hpa = Hpa::new(HpaSpec::read("hpa.yaml", text).value.unwrap(), 500);
///
/// // Four pods, each of which requests half a core and uses four fifths of one.
/// let now = Time::from_secs(3_600);
/// let state = PodState::Running { started_at: Time::EPOCH, is_ready: true, since: Time::EPOCH };
/// let cpu = CpuUsage { millicores: 800, at: now, window: SYNC_PERIOD };
/// let pod = PodSample { state, cpu: Some(cpu), requests_per_second: None, in_flight: None };
/// let decision = hpa.sync(now, 4, &[pod; 4]);
/// assert_eq!(decision.desired, 8);
/// assert_eq!(hpa.explain(&decision), "cpu is at 160% (target 80%): 4 to 8 pods");
/// ```
#[derive(Clone, Debug)]
pub struct Hpa {
    spec: HpaSpec,
    pod_millicores: u32,
    tolerance: Tolerance,
    pace: Pace,
}

/// The result of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpaDecision {
    /// The pods that had been asked for.
    pub current: u32,
    /// The pods that are asked for now.
    pub desired: u32,
    /// Why.
    pub reason: Reason,
    /// The proposal of each metric, in the order of [`HpaSpec::metrics`]; empty where they were not looked at.
    pub proposals: Vec<Result<Proposal, NoProposal>>,
}

/// The reason for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No pods are wanted: autoscaling is off until someone asks for one.
    Disabled,
    /// More pods than the maximum; the metrics were not looked at.
    AboveMaximum,
    /// Fewer pods than the minimum; the metrics were not looked at.
    BelowMinimum,
    /// No metric is known, or not all are and the others call for fewer pods: nothing is done.
    Unknown {
        /// The first metric that is not known.
        metric: usize,
        /// Why it is not.
        why: NoProposal,
    },
    /// A metric.
    Metric {
        /// The one that calls for the most pods.
        metric: usize,
        /// The pods it calls for.
        recommended: u32,
        /// The pods after stabilization.
        stabilized: u32,
        /// The limit that kept it from that.
        limit: Limit,
    },
}

impl Hpa {
    /// One that has not seen anything yet. `pod_millicores` is the CPU each pod requests, in thousandths of a core.
    pub fn new(spec: HpaSpec, pod_millicores: u32) -> Self {
        let written = |rules: fn(&Behavior) -> &Rules| {
            let rules = spec.behavior.as_ref().map(rules);
            rules.and_then(|rules| rules.tolerance_fraction).unwrap_or(DEFAULT_TOLERANCE_FRACTION)
        };
        let tolerance = Tolerance {
            down_fraction: written(|behavior| &behavior.scale_down),
            up_fraction: written(|behavior| &behavior.scale_up),
        };
        let pace = Pace::new(spec.min_replicas, spec.max_replicas, spec.behavior.clone());
        Hpa { spec, pod_millicores, tolerance, pace }
    }

    /// The spec in force.
    pub fn spec(&self) -> &HpaSpec {
        &self.spec
    }

    /// Decides how many pods there should be, when `current` had been asked for and `pods` are there. To be called
    /// every [`SYNC_PERIOD`].
    pub fn sync(&mut self, now: Time, current: u32, pods: &[PodSample]) -> HpaDecision {
        self.pace.begin(now, current);
        let HpaSpec { min_replicas, max_replicas, .. } = self.spec;
        let mut proposals = Vec::new();
        let (desired, reason) = if current == 0 && min_replicas != 0 {
            (0, Reason::Disabled)
        } else if current > max_replicas {
            (max_replicas, Reason::AboveMaximum)
        } else if current < min_replicas {
            (min_replicas, Reason::BelowMinimum)
        } else {
            let propose = |metric| propose(now, metric, self.pod_millicores, self.tolerance, current, pods);
            proposals = self.spec.metrics.iter().map(propose).collect();
            self.follow(now, current, &proposals)
        };
        if desired != current {
            self.pace.record(now, current, desired);
        }
        HpaDecision { current, desired, reason, proposals }
    }

    fn follow(
        &mut self,
        now: Time,
        current: u32,
        proposals: &[Result<Proposal, NoProposal>],
    ) -> (u32, Reason) {
        let mut most: Option<(usize, u32)> = None;
        let mut unknown = None;
        for (metric, proposal) in proposals.iter().enumerate() {
            match proposal {
                Ok(Proposal { replicas, .. }) if most.is_none_or(|(_, most)| *replicas > most) => {
                    most = Some((metric, *replicas));
                }
                Ok(_) => {}
                Err(why) => unknown = unknown.or(Some(Reason::Unknown { metric, why: *why })),
            }
        }
        match (most, unknown) {
            (None, None) => (current, Reason::Unknown { metric: 0, why: NoProposal::NotMeasured }),
            (None, Some(unknown)) => (current, unknown),
            // The one that is not known might call for more.
            (Some((_, replicas)), Some(unknown)) if replicas < current => (current, unknown),
            (Some((metric, recommended)), _) => {
                let (stabilized, desired, limit) = self.pace.pace(now, current, recommended);
                (desired, Reason::Metric { metric, recommended, stabilized, limit })
            }
        }
    }

    /// Says in a line what a decision of this autoscaler follows from.
    pub fn explain(&self, decision: &HpaDecision) -> String {
        let &HpaDecision { current, desired, reason, ref proposals } = decision;
        let change = match current == desired {
            true => format!("stays at {}", PodCount(current)),
            false => format!("{current} to {}", PodCount(desired)),
        };
        let of = |metric: usize| self.spec.metrics.get(metric).map_or("a metric", HpaMetric::name);
        match reason {
            Reason::Disabled => "no pods are asked for: autoscaling is off".to_owned(),
            Reason::AboveMaximum => format!("above the maximum: {change}"),
            Reason::BelowMinimum => format!("below the minimum: {change}"),
            Reason::Unknown { metric, why } => format!("{} is not known, {why}: {change}", of(metric)),
            Reason::Metric { metric, recommended, stabilized, limit } => {
                let measured = match (self.spec.metrics.get(metric), proposals.get(metric)) {
                    (Some(metric), Some(Ok(proposal))) => metric.measured(proposal),
                    _ => String::new(),
                };
                let mut line = format!("{}{measured}: {change}", of(metric));
                if stabilized != recommended {
                    line += &format!("; {recommended} now, {stabilized} within the stabilization window");
                }
                match limit {
                    Limit::None => {}
                    Limit::ScaleUpSpeed | Limit::ScaleDownSpeed => {
                        line += &format!("; no faster towards {stabilized}");
                    }
                    Limit::Maximum => line += &format!("; {stabilized} is above the maximum"),
                    Limit::Minimum => line += &format!("; {stabilized} is below the minimum"),
                }
                line
            }
        }
    }
}

impl HpaMetric {
    fn name(&self) -> &str {
        match self {
            HpaMetric::CpuUtilization { .. } | HpaMetric::Cpu { .. } => "cpu",
            HpaMetric::Pods { name, .. } => name,
        }
    }

    fn measured(&self, &Proposal { average, target, .. }: &Proposal) -> String {
        match self {
            HpaMetric::CpuUtilization { .. } => format!(" is at {average}% (target {target}%)"),
            HpaMetric::Cpu { .. } => format!(" is at {average}m (target {target}m)"),
            HpaMetric::Pods { .. } => {
                format!(" is at {} (target {})", average as f64 / 1e3, target as f64 / 1e3)
            }
        }
    }
}

struct PodCount(u32);

impl fmt::Display for PodCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pod{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}
