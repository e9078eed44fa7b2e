//! The keys of the ConfigMap `config-autoscaler`: the defaults of every revision.

use std::time::Duration;

use super::{Entry, Float, Fraction, HOUR, Key, NANOSECOND, Range, SIX_SECONDS, Text, Time, Truth, Whole};

/// All keys, in the order in which they are documented.
pub const ALL: &[&dyn Entry] = &[
    &CONTAINER_CONCURRENCY_TARGET_DEFAULT,
    &CONTAINER_CONCURRENCY_TARGET_PERCENTAGE,
    &REQUESTS_PER_SECOND_TARGET_DEFAULT,
    &TARGET_BURST_CAPACITY,
    &ACTIVATOR_CAPACITY,
    &STABLE_WINDOW,
    &PANIC_WINDOW_PERCENTAGE,
    &PANIC_THRESHOLD_PERCENTAGE,
    &MAX_SCALE_UP_RATE,
    &MAX_SCALE_DOWN_RATE,
    &SCALE_DOWN_DELAY,
    &MIN_SCALE,
    &MAX_SCALE,
    &MAX_SCALE_LIMIT,
    &INITIAL_SCALE,
    &ALLOW_ZERO_INITIAL_SCALE,
    &ENABLE_SCALE_TO_ZERO,
    &SCALE_TO_ZERO_GRACE_PERIOD,
    &SCALE_TO_ZERO_POD_RETENTION_PERIOD,
    &POD_AUTOSCALER_CLASS,
];

/// The key of this name.
pub(crate) fn named(name: &str) -> Option<&'static dyn Entry> {
    ALL.iter().copied().find(|entry| entry.name() == name)
}

/// Keys that Knative once knew or keeps for itself; they mean nothing and are passed over in silence.
pub const IGNORED: &[&str] = &[
    "_example",
    "tick-interval",
    "panic-window",
    "concurrency-quantum-of-time",
    "enable-vertical-scale",
    "enable-graceful-scaledown",
    "single-concurrency-target",
    "multi-concurrency-target",
    "vpa-multi-concurrency-target",
    "scale-to-zero-threshold",
];

/// How many requests in flight a pod without a limit of its own is meant to take.
pub static CONTAINER_CONCURRENCY_TARGET_DEFAULT: Key<Float> = Key {
    name: "container-concurrency-target-default",
    alias: None,
    rule: Float(Range::Any),
    default: "100",
    counterpart: Some("autoscaling.knative.dev/target"),
    doc: "How many requests in flight one pod can take where neither the revision's containerConcurrency nor \
          its target annotation says so. Multiplied by container-concurrency-target-percentage it must come to \
          at least 0.01.",
    example: "20",
};

/// The share of a pod's concurrency that the autoscaler aims for.
pub static CONTAINER_CONCURRENCY_TARGET_PERCENTAGE: Key<Fraction> = Key {
    name: "container-concurrency-target-percentage",
    alias: None,
    rule: Fraction,
    default: "70",
    counterpart: Some("autoscaling.knative.dev/target-utilization-percentage"),
    doc: "The share of what a pod can take that the autoscaler aims for; the rest is room for the requests that \
          arrive while the next pod starts. A value above 1 is a percentage, a value up to 1 is a fraction: 70 and \
          0.7 are the same, 1 and 1.0 mean 100 %, and 1.5 means 1.5 %. It applies to targets set by annotation, \
          too, and not to requests per second, whose share is always 70 %.",
    example: "80",
};

/// How many requests per second a pod is meant to take.
pub static REQUESTS_PER_SECOND_TARGET_DEFAULT: Key<Float> = Key {
    name: "requests-per-second-target-default",
    alias: None,
    rule: Float(Range::AtLeast(0.01)),
    default: "200",
    counterpart: Some("autoscaling.knative.dev/target"),
    doc: "How many requests per second one pod can take, for revisions that scale on the metric rps. The \
          autoscaler aims for 70 % of it.",
    example: "150",
};

/// How much unexpected load must find room.
pub static TARGET_BURST_CAPACITY: Key<Float> = Key {
    name: "target-burst-capacity",
    alias: None,
    rule: Float(Range::AtLeastOrExactly(0.0, -1.0)),
    default: "211",
    counterpart: Some("autoscaling.knative.dev/target-burst-capacity"),
    doc: "How many requests more than now must find room in the ready pods before the activator leaves the \
          request path. 0: the activator is in the path only while there are no pods. -1: it always is, which \
          gives the best spread of requests at the cost of one more hop.",
    example: "0",
};

/// How much one activator carries.
pub static ACTIVATOR_CAPACITY: Key<Float> = Key {
    name: "activator-capacity",
    alias: None,
    rule: Float(Range::AtLeast(1.0)),
    default: "100",
    counterpart: None,
    doc: "How many requests in flight one activator is meant to carry; decides how many activators stand in \
          front of a revision.",
    example: "200",
};

/// The window that decides in calm times.
pub static STABLE_WINDOW: Key<Time> = Key {
    name: "stable-window",
    alias: None,
    rule: Time { min: SIX_SECONDS, max: Some(HOUR), whole_seconds: true },
    default: "60s",
    counterpart: Some("autoscaling.knative.dev/window"),
    doc: "The time over which load is averaged to decide on the number of pods. The last pod goes no sooner than \
          one window after the last request.",
    example: "2m",
};

/// The panic window as a share of the stable window.
pub static PANIC_WINDOW_PERCENTAGE: Key<Float> = Key {
    name: "panic-window-percentage",
    alias: None,
    rule: Float(Range::Between(1.0, 100.0)),
    default: "10",
    counterpart: Some("autoscaling.knative.dev/panic-window-percentage"),
    doc: "The length of the short window that notices bursts, in percent of the stable window; rounded to whole \
          seconds, at least 1s.",
    example: "20",
};

/// How much demand over ready pods is a panic.
pub static PANIC_THRESHOLD_PERCENTAGE: Key<Float> = Key {
    name: "panic-threshold-percentage",
    alias: None,
    rule: Float(Range::Any),
    default: "200",
    counterpart: Some("autoscaling.knative.dev/panic-threshold-percentage"),
    doc: "Panic begins when the short window asks for this many percent of the ready pods. While it lasts the \
          number of pods only grows; it ends one stable window after the load last was that high. Knative does \
          not check this key; values between 110 and 1000 make sense.",
    example: "150",
};

/// How fast the number of pods may grow.
pub static MAX_SCALE_UP_RATE: Key<Float> = Key {
    name: "max-scale-up-rate",
    alias: None,
    rule: Float(Range::Above(1.0)),
    default: "1000",
    counterpart: None,
    doc: "The most by which the ready pods may be multiplied in one decision (every 2s). With 10, one pod can \
          become ten, then a hundred.",
    example: "10",
};

/// How fast the number of pods may shrink.
pub static MAX_SCALE_DOWN_RATE: Key<Float> = Key {
    name: "max-scale-down-rate",
    alias: None,
    rule: Float(Range::Above(1.0)),
    default: "2",
    counterpart: None,
    doc: "The most by which the ready pods may be divided in one decision (every 2s). With 2, eight pods become \
          four, then two.",
    example: "1.5",
};

/// How long a lower number must hold before it is followed.
pub static SCALE_DOWN_DELAY: Key<Time> = Key {
    name: "scale-down-delay",
    alias: None,
    rule: Time { min: Duration::ZERO, max: None, whole_seconds: true },
    default: "0s",
    counterpart: Some("autoscaling.knative.dev/scale-down-delay"),
    doc: "Pods go only after fewer were enough for this long. Unlike a longer stable window it does not slow \
          scaling up.",
    example: "15m",
};

/// Never fewer pods.
pub static MIN_SCALE: Key<Whole> = Key {
    name: "min-scale",
    alias: None,
    rule: Whole { min: 0 },
    default: "0",
    counterpart: Some("autoscaling.knative.dev/min-scale"),
    doc: "The least number of pods a revision keeps while traffic can reach it; 0 allows it to sleep. Must not be \
          above max-scale.",
    example: "1",
};

/// Never more pods.
pub static MAX_SCALE: Key<Whole> = Key {
    name: "max-scale",
    alias: None,
    rule: Whole { min: 0 },
    default: "0",
    counterpart: Some("autoscaling.knative.dev/max-scale"),
    doc: "The greatest number of pods a revision gets; 0 means unlimited. Where max-scale-limit is set, it must be \
          between 1 and that limit.",
    example: "10",
};

/// The most that revisions may set as their maximum.
pub static MAX_SCALE_LIMIT: Key<Whole> = Key {
    name: "max-scale-limit",
    alias: None,
    rule: Whole { min: 0 },
    default: "0",
    counterpart: None,
    doc: "The greatest value a revision may write in its max-scale annotation; unlimited is then no longer \
          allowed. 0 switches the limit off. Needs max-scale to be set as well.",
    example: "100",
};

/// How many pods a new revision starts with.
pub static INITIAL_SCALE: Key<Whole> = Key {
    name: "initial-scale",
    alias: None,
    rule: Whole { min: 0 },
    default: "1",
    counterpart: Some("autoscaling.knative.dev/initial-scale"),
    doc: "The number of pods a new revision must reach once before it counts as ready. 0 is allowed only with \
          allow-zero-initial-scale.",
    example: "3",
};

/// Whether a new revision may start with no pod.
pub static ALLOW_ZERO_INITIAL_SCALE: Key<Truth> = Key {
    name: "allow-zero-initial-scale",
    alias: None,
    rule: Truth,
    default: "false",
    counterpart: None,
    doc: "Whether an initial-scale of 0 is allowed, here and in annotations: such a revision starts asleep, and a \
          broken image is found only when the first request comes.",
    example: "true",
};

/// Whether the last pod may go.
pub static ENABLE_SCALE_TO_ZERO: Key<Truth> = Key {
    name: "enable-scale-to-zero",
    alias: None,
    rule: Truth,
    default: "true",
    counterpart: None,
    doc: "Whether the last pod of a revision may go when there is no traffic.",
    example: "false",
};

/// The longest time the last pod waits for the activator to take over.
pub static SCALE_TO_ZERO_GRACE_PERIOD: Key<Time> = Key {
    name: "scale-to-zero-grace-period",
    alias: None,
    rule: Time { min: NANOSECOND, max: None, whole_seconds: false },
    default: "30s",
    counterpart: None,
    doc: "The longest time the last pod stays while the activator is put into the request path, so that no \
          request finds nobody. Only an upper bound: where the activator has been in the path all along, nothing \
          is waited for. To keep the last pod longer use scale-to-zero-pod-retention-period.",
    example: "40s",
};

/// The shortest time the last pod stays.
pub static SCALE_TO_ZERO_POD_RETENTION_PERIOD: Key<Time> = Key {
    name: "scale-to-zero-pod-retention-period",
    alias: None,
    rule: Time { min: Duration::ZERO, max: None, whole_seconds: false },
    default: "0s",
    counterpart: Some("autoscaling.knative.dev/scale-to-zero-pod-retention-period"),
    doc: "The shortest time the last pod stays after the revision went idle. For applications that are costly to \
          start.",
    example: "1m5s",
};

/// The class of a revision that names none.
pub static POD_AUTOSCALER_CLASS: Key<Text> = Key {
    name: "pod-autoscaler-class",
    alias: None,
    rule: Text { expected: "the name of a class of autoscaler" },
    default: super::annotation::KPA,
    counterpart: Some("autoscaling.knative.dev/class"),
    doc: "The class of autoscaler for revisions without the class annotation.",
    example: "hpa.autoscaling.knative.dev",
};
