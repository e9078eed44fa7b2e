//! The annotations of one revision: what it sets for itself.

use std::time::Duration;

use super::{Entry, Float, HOUR, Key, OneOf, Range, Rule, SIX_SECONDS, Time, Whole};
use crate::number;

/// The prefix of every autoscaling annotation.
pub const PREFIX: &str = "autoscaling.knative.dev/";

/// The class of autoscaler that this is.
pub const KPA: &str = "kpa.autoscaling.knative.dev";

/// Kubernetes' own autoscaler, driven by Knative.
pub const HPA: &str = "hpa.autoscaling.knative.dev";

/// All annotations, in the order in which they are documented.
pub const ALL: &[&dyn Entry] = &[
    &CLASS,
    &METRIC,
    &TARGET,
    &TARGET_UTILIZATION_PERCENTAGE,
    &TARGET_BURST_CAPACITY,
    &MIN_SCALE,
    &MAX_SCALE,
    &INITIAL_SCALE,
    &ACTIVATION_SCALE,
    &SCALE_DOWN_DELAY,
    &SCALE_TO_ZERO_POD_RETENTION_PERIOD,
    &WINDOW,
    &PANIC_WINDOW_PERCENTAGE,
    &PANIC_THRESHOLD_PERCENTAGE,
    &METRIC_AGGREGATION_ALGORITHM,
    &PROGRESS_DEADLINE,
];

/// The class of the autoscaler that scales the revision.
pub static CLASS: Key<Class> = Key {
    name: "autoscaling.knative.dev/class",
    alias: None,
    rule: Class,
    default: "pod-autoscaler-class",
    counterpart: Some("pod-autoscaler-class"),
    doc: "The class of autoscaler. Pilotlight is kpa.autoscaling.knative.dev and leaves revisions of other classes \
          alone.",
    example: "kpa.autoscaling.knative.dev",
};

/// The metric.
pub static METRIC: Key<Metric> = Key {
    name: "autoscaling.knative.dev/metric",
    alias: None,
    rule: Metric,
    default: "concurrency",
    counterpart: None,
    doc: "What is measured and held at the target: concurrency (requests in flight) or rps (requests per second).",
    example: "rps",
};

/// How much of the metric a pod can take.
pub static TARGET: Key<Float> = Key {
    name: "autoscaling.knative.dev/target",
    alias: None,
    rule: Float(Range::AtLeast(0.01)),
    default: "containerConcurrency, else container-concurrency-target-default; with rps \
              requests-per-second-target-default",
    counterpart: Some("container-concurrency-target-default"),
    doc: "How much of the metric one pod can take. The autoscaler aims for the share of it that \
          target-utilization-percentage names. With the metric concurrency it counts for no more than the \
          revision's containerConcurrency.",
    example: "10",
};

/// The share of the target that is aimed for.
pub static TARGET_UTILIZATION_PERCENTAGE: Key<Float> = Key {
    name: "autoscaling.knative.dev/target-utilization-percentage",
    alias: Some("autoscaling.knative.dev/targetUtilizationPercentage"),
    rule: Float(Range::Between(1.0, 100.0)),
    default: "container-concurrency-target-percentage; with rps 70",
    counterpart: Some("container-concurrency-target-percentage"),
    doc: "The share of what a pod can take that the autoscaler aims for. Always a percentage: 1 means 1 %.",
    example: "80",
};

/// How much unexpected load must find room.
pub static TARGET_BURST_CAPACITY: Key<Float> = Key {
    name: "autoscaling.knative.dev/target-burst-capacity",
    alias: Some("autoscaling.knative.dev/targetBurstCapacity"),
    rule: Float(Range::AtLeastOrExactly(0.0, -1.0)),
    default: "target-burst-capacity",
    counterpart: Some("target-burst-capacity"),
    doc: "How many requests more than now must find room in the ready pods before the activator leaves the \
          request path. 0: the activator is in the path only while there are no pods. -1: it always is.",
    example: "-1",
};

/// Never fewer pods.
pub static MIN_SCALE: Key<Whole> = Key {
    name: "autoscaling.knative.dev/min-scale",
    alias: Some("autoscaling.knative.dev/minScale"),
    rule: Whole { min: 0 },
    default: "min-scale",
    counterpart: Some("min-scale"),
    doc: "The least number of pods while traffic can reach the revision. Must not be above max-scale.",
    example: "1",
};

/// Never more pods.
pub static MAX_SCALE: Key<Whole> = Key {
    name: "autoscaling.knative.dev/max-scale",
    alias: Some("autoscaling.knative.dev/maxScale"),
    rule: Whole { min: 0 },
    default: "max-scale",
    counterpart: Some("max-scale"),
    doc: "The greatest number of pods; 0 means unlimited. Where max-scale-limit is set, it must be between 1 and \
          that limit.",
    example: "10",
};

/// How many pods a new revision starts with.
pub static INITIAL_SCALE: Key<WholeOrTooLarge> = Key {
    name: "autoscaling.knative.dev/initial-scale",
    alias: Some("autoscaling.knative.dev/initialScale"),
    rule: WholeOrTooLarge,
    default: "initial-scale",
    counterpart: Some("initial-scale"),
    doc: "The number of pods the revision must reach once before it counts as ready. 0 is allowed only with \
          allow-zero-initial-scale.",
    example: "3",
};

/// How many pods a waking revision starts with.
pub static ACTIVATION_SCALE: Key<Whole> = Key {
    name: "autoscaling.knative.dev/activation-scale",
    alias: None,
    rule: Whole { min: 2 },
    default: "as many as demand asks for",
    counterpart: None,
    doc: "The least number of pods while there is any demand: a revision that wakes starts with that many, and \
          still sleeps without demand. Must lie between min-scale and max-scale.",
    example: "3",
};

/// How long a lower number must hold before it is followed.
pub static SCALE_DOWN_DELAY: Key<Time> = Key {
    name: "autoscaling.knative.dev/scale-down-delay",
    alias: Some("autoscaling.knative.dev/scaleDownDelay"),
    rule: Time { min: Duration::ZERO, max: Some(HOUR), whole_seconds: true },
    default: "scale-down-delay",
    counterpart: Some("scale-down-delay"),
    doc: "Pods go only after fewer were enough for this long.",
    example: "15m",
};

/// The shortest time the last pod stays.
pub static SCALE_TO_ZERO_POD_RETENTION_PERIOD: Key<Time> = Key {
    name: "autoscaling.knative.dev/scale-to-zero-pod-retention-period",
    alias: Some("autoscaling.knative.dev/scaleToZeroPodRetentionPeriod"),
    rule: Time { min: Duration::ZERO, max: Some(HOUR), whole_seconds: false },
    default: "scale-to-zero-pod-retention-period",
    counterpart: Some("scale-to-zero-pod-retention-period"),
    doc: "The shortest time the last pod stays after the revision went idle.",
    example: "1m5s",
};

/// The window that decides in calm times.
pub static WINDOW: Key<Time> = Key {
    name: "autoscaling.knative.dev/window",
    alias: None,
    rule: Time { min: SIX_SECONDS, max: Some(HOUR), whole_seconds: true },
    default: "stable-window",
    counterpart: Some("stable-window"),
    doc: "The time over which load is averaged to decide on the number of pods.",
    example: "40s",
};

/// The panic window as a share of the stable window.
pub static PANIC_WINDOW_PERCENTAGE: Key<Float> = Key {
    name: "autoscaling.knative.dev/panic-window-percentage",
    alias: Some("autoscaling.knative.dev/panicWindowPercentage"),
    rule: Float(Range::Between(1.0, 100.0)),
    default: "panic-window-percentage",
    counterpart: Some("panic-window-percentage"),
    doc: "The length of the short window that notices bursts, in percent of the stable window; rounded to whole \
          seconds, at least 1s.",
    example: "20",
};

/// How much demand over ready pods is a panic.
pub static PANIC_THRESHOLD_PERCENTAGE: Key<Float> = Key {
    name: "autoscaling.knative.dev/panic-threshold-percentage",
    alias: Some("autoscaling.knative.dev/panicThresholdPercentage"),
    rule: Float(Range::Between(110.0, 1000.0)),
    default: "panic-threshold-percentage",
    counterpart: Some("panic-threshold-percentage"),
    doc: "Panic begins when the short window asks for this many percent of the ready pods.",
    example: "150",
};

/// How samples in a window are weighed.
pub static METRIC_AGGREGATION_ALGORITHM: Key<OneOf> = Key {
    name: "autoscaling.knative.dev/metric-aggregation-algorithm",
    alias: Some("autoscaling.knative.dev/metricAggregationAlgorithm"),
    rule: OneOf(&["", "linear", WEIGHTED_EXPONENTIAL, WEIGHTED_EXPONENTIAL_CAMEL]),
    default: "linear",
    counterpart: None,
    doc: "How the seconds of a window are weighed: linear takes the plain mean, weighted-exponential gives recent \
          seconds more weight. Fixed when the revision is first seen. Checked only where the class annotation is \
          written out; elsewhere an unknown word means linear.",
    example: "weighted-exponential",
};

/// How long a revision may take to come up. Not an autoscaling annotation by its prefix, but part of its life.
pub static PROGRESS_DEADLINE: Key<TimeOrEmpty> = Key {
    name: "serving.knative.dev/progress-deadline",
    alias: None,
    rule: TimeOrEmpty(Time { min: Duration::ZERO, max: None, whole_seconds: true }),
    default: "600s",
    counterpart: None,
    doc: "How long a revision may take to get its pods ready before it counts as failed. 30s after that the \
          attempt to wake it is given up.",
    example: "20m",
};

pub(crate) const WEIGHTED_EXPONENTIAL: &str = "weighted-exponential";
pub(crate) const WEIGHTED_EXPONENTIAL_CAMEL: &str = "weightedExponential";

/// The name of a class: Knative's own are known, others are nobody's business but their owner's.
#[derive(Debug)]
pub struct Class;

impl Rule for Class {
    type Value = String;
    fn read(&self, text: &str) -> Result<String, Option<String>> {
        if text.ends_with(".knative.dev") && text != KPA && text != HPA {
            Err(None)
        } else {
            Ok(text.to_owned())
        }
    }
    fn text(&self) -> String {
        format!("{KPA}, {HPA} or a class outside knative.dev")
    }
    fn type_name(&self) -> &'static str {
        "string"
    }
}

/// The name of a metric. Which names are legal depends on the class; see [`Metric::is_known_to`].
#[derive(Debug)]
pub struct Metric;

impl Metric {
    /// Whether `class` can scale on `metric`.
    pub fn is_known_to(class: &str, metric: &str) -> bool {
        match class {
            KPA => matches!(metric, "concurrency" | "rps"),
            HPA => !metric.is_empty(),
            _ => true,
        }
    }
}

impl Rule for Metric {
    type Value = String;
    fn read(&self, text: &str) -> Result<String, Option<String>> {
        Ok(text.to_owned())
    }
    fn text(&self) -> String {
        "one of concurrency, rps (another class may have others)".to_owned()
    }
    fn type_name(&self) -> &'static str {
        "string"
    }
}

/// A whole number of at least 0 and of any size up to 64 bits; `None` where it does not fit into 32. Knative
/// admits such a number and then acts as if it had not been written.
#[derive(Debug)]
pub struct WholeOrTooLarge;

impl Rule for WholeOrTooLarge {
    type Value = Option<u32>;
    fn read(&self, text: &str) -> Result<Option<u32>, Option<String>> {
        match number::parse_int32(text) {
            Ok(value) => u32::try_from(value).map(Some).map_err(|_| None),
            Err(number::NotAnInt32::Range) if text.parse::<i64>().is_ok_and(|v| v >= 0) => Ok(None),
            Err(_) => Err(None),
        }
    }
    fn text(&self) -> String {
        format!("a whole number between 0 and {}", i32::MAX)
    }
    fn type_name(&self) -> &'static str {
        "int"
    }
}

/// A duration, or nothing at all, which means the default.
#[derive(Debug)]
pub struct TimeOrEmpty(Time);

impl Rule for TimeOrEmpty {
    type Value = Option<Duration>;
    fn read(&self, text: &str) -> Result<Option<Duration>, Option<String>> {
        if text.is_empty() { Ok(None) } else { self.0.read(text).map(Some) }
    }
    fn text(&self) -> String {
        self.0.text()
    }
    fn type_name(&self) -> &'static str {
        "duration"
    }
}
