//! A HorizontalPodAutoscaler as people write it: `autoscaling/v2` (and `v2beta2`, which is the same), or `v1` with
//! its one percentage.

use std::time::Duration;

/// The settings of a HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct HpaSpec {
    /// The name; `None` where none is written.
    pub name: Option<String>,
    /// The fewest pods.
    pub min_replicas: u32,
    /// The most pods.
    pub max_replicas: u32,
    /// The metrics; the one that calls for the most pods decides.
    pub metrics: Vec<HpaMetric>,
    /// How fast it may go; `None`: the controller's older rules, which differ from the defaults of this.
    pub behavior: Option<Behavior>,
}

/// One thing to look at, and what it should be on average over the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HpaMetric {
    /// Used CPU, in hundredths of what the pods request.
    CpuUtilization {
        /// The percentage aimed for.
        target_percent: u32,
    },
    /// Used CPU.
    Cpu {
        /// The thousandths of a core aimed for in each pod.
        target_millicores: u64,
    },
    /// A metric that pods measure themselves.
    Pods {
        /// The metric's name as it was written.
        name: String,
        /// The measurement behind the name.
        measure: Measure,
        /// The thousandths aimed for in each pod.
        target_milli: u64,
    },
}

/// Measurements of simulated pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Requests a second.
    RequestsPerSecond,
    /// Requests in flight.
    InFlight,
}

/// How fast it may go, in each direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// Towards more pods.
    pub scale_up: Rules,
    /// Towards fewer.
    pub scale_down: Rules,
}

/// How fast it may go in one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The stabilization window: the most careful recommendation within it is the limit.
    pub stabilization_window: Duration,
    /// The policy that counts.
    pub select: Select,
    /// The limits on the speed.
    pub policies: Vec<Policy>,
    /// How far off the target counts as on it, as a fraction; `None`: the controller's own.
    pub tolerance_fraction: Option<f64>,
}

/// The choice among several policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// The one that lets it go the furthest.
    #[default]
    Max,
    /// The one that lets it go the least far.
    Min,
    /// Disabled: the number does not go this way at all.
    Disabled,
}

/// A limit on the speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How far.
    pub step: PolicyStep,
    /// In which time.
    pub period: Duration,
}

/// How far a policy lets it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyStep {
    /// A number of pods.
    Pods(u32),
    /// Hundredths of the pods there were.
    Percent(u32),
}

impl Default for Behavior {
    fn default() -> Self {
        Behavior { scale_up: Rules::scale_up(), scale_down: Rules::scale_down() }
    }
}

impl Rules {
    /// Kubernetes' defaults towards more pods: at once, and every 15 seconds four pods or as many again, whichever
    /// is more.
    pub fn scale_up() -> Self {
        let policies = vec![
            Policy { step: PolicyStep::Pods(4), period: DEFAULT_PERIOD },
            Policy { step: PolicyStep::Percent(100), period: DEFAULT_PERIOD },
        ];
        Rules {
            stabilization_window: Duration::ZERO,
            select: Select::Max,
            policies,
            tolerance_fraction: None,
        }
    }

    /// Kubernetes' defaults towards fewer pods: as many as five minutes have called for, at any speed.
    pub fn scale_down() -> Self {
        let policies = vec![Policy { step: PolicyStep::Percent(100), period: DEFAULT_PERIOD }];
        Rules {
            stabilization_window: DEFAULT_SCALE_DOWN_STABILIZATION,
            select: Select::Max,
            policies,
            tolerance_fraction: None,
        }
    }
}

/// The controller's `--horizontal-pod-autoscaler-downscale-stabilization`.
pub(super) const DEFAULT_SCALE_DOWN_STABILIZATION: Duration = Duration::from_secs(300);

const DEFAULT_PERIOD: Duration = Duration::from_secs(15);
