//! The operator's defaults for every revision: the ConfigMap `config-autoscaler`.
//!
//! What is accepted is what Knative accepts, with one exception made on purpose: `NaN`, which slips through
//! Knative's range checks, is refused. Unlike Knative, all faults are found at once, and unknown keys are
//! pointed out instead of being passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pilotlight_core::TargetBurstCapacity;

use crate::fault::{Fault, Findings, Parsed};
use crate::keys::{Key, Rule, config_map};
use crate::spelling;

/// The defaults of every revision, all legal.
///
/// ```
/// use pilotlight_config::AutoscalerConfig;
/// let data = [("stable-window".to_owned(), "2m".to_owned())].into();
/// let config = AutoscalerConfig::from_map(&data).value?;
/// assert_eq!(config.stable_window.as_secs(), 120);
/// # Ok::<(), pilotlight_config::Faults>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AutoscalerConfig {
    /// Requests in flight a pod can take where nothing else says so.
    pub container_concurrency_target_default: f64,
    /// The share of a pod's concurrency that is aimed for: above 0, at most 1.
    pub container_concurrency_target_fraction: f64,
    /// Requests per second a pod can take where nothing else says so.
    pub requests_per_second_target_default: f64,
    /// How much unexpected load must find room.
    pub target_burst_capacity: TargetBurstCapacity,
    /// How much one activator carries.
    pub activator_capacity: f64,
    /// The window that decides in calm times: 6 s to 1 h, whole seconds.
    pub stable_window: Duration,
    /// The panic window in percent of the stable window: 1 to 100.
    pub panic_window_percentage: f64,
    /// Demand in percent of the ready pods at which panic begins.
    pub panic_threshold_percentage: f64,
    /// The most by which the pods may be multiplied in one decision; above 1.
    pub max_scale_up_rate: f64,
    /// The most by which the pods may be divided in one decision; above 1.
    pub max_scale_down_rate: f64,
    /// How long a lower number must hold before it is followed; whole seconds.
    pub scale_down_delay: Duration,
    /// The least number of pods.
    pub min_scale: u32,
    /// The greatest number of pods; `None`: unlimited.
    pub max_scale: Option<u32>,
    /// The greatest maximum a revision may set for itself; `None`: any.
    pub max_scale_limit: Option<u32>,
    /// How many pods a new revision must reach once.
    pub initial_scale: u32,
    /// Whether a new revision may start with no pod.
    pub allow_zero_initial_scale: bool,
    /// Whether the last pod may go.
    pub enable_scale_to_zero: bool,
    /// The longest time the last pod waits for the activator to take over.
    pub scale_to_zero_grace_period: Duration,
    /// The shortest time the last pod stays.
    pub scale_to_zero_pod_retention_period: Duration,
    /// The class of revisions that do not name one.
    pub pod_autoscaler_class: String,
    /// The keys that were written; all others hold their defaults.
    written: BTreeSet<&'static str>,
}

impl Default for AutoscalerConfig {
    fn default() -> Self {
        read(&BTreeMap::new(), &mut Findings::default())
    }
}

impl AutoscalerConfig {
    /// Reads the data of the ConfigMap.
    pub fn from_map(data: &BTreeMap<String, String>) -> Parsed<Self> {
        let mut findings = Findings::default();
        let config = read(data, &mut findings);
        check_across_keys(data, &mut findings);
        for (key, value) in data {
            advise(key, value, &mut findings);
        }
        Parsed::new(config, findings)
    }

    /// Whether `key` was written, rather than left at its default.
    pub fn is_written(&self, key: &str) -> bool {
        self.written.contains(key)
    }
}

/// `-1` and `0` have names of their own.
pub(crate) fn burst_capacity(number: f64) -> TargetBurstCapacity {
    match number {
        0.0 => TargetBurstCapacity::Off,
        -1.0 => TargetBurstCapacity::Unlimited,
        number => TargetBurstCapacity::Of(number),
    }
}

fn read(data: &BTreeMap<String, String>, findings: &mut Findings) -> AutoscalerConfig {
    let mut reader = MapReader { data, findings, written: BTreeSet::new() };
    let unless_zero = |number: u32| (number > 0).then_some(number);
    AutoscalerConfig {
        container_concurrency_target_default: reader.read(&config_map::CONTAINER_CONCURRENCY_TARGET_DEFAULT),
        container_concurrency_target_fraction: reader
            .read(&config_map::CONTAINER_CONCURRENCY_TARGET_PERCENTAGE),
        requests_per_second_target_default: reader.read(&config_map::REQUESTS_PER_SECOND_TARGET_DEFAULT),
        target_burst_capacity: burst_capacity(reader.read(&config_map::TARGET_BURST_CAPACITY)),
        activator_capacity: reader.read(&config_map::ACTIVATOR_CAPACITY),
        stable_window: reader.read(&config_map::STABLE_WINDOW),
        panic_window_percentage: reader.read(&config_map::PANIC_WINDOW_PERCENTAGE),
        panic_threshold_percentage: reader.read(&config_map::PANIC_THRESHOLD_PERCENTAGE),
        max_scale_up_rate: reader.read(&config_map::MAX_SCALE_UP_RATE),
        max_scale_down_rate: reader.read(&config_map::MAX_SCALE_DOWN_RATE),
        scale_down_delay: reader.read(&config_map::SCALE_DOWN_DELAY),
        min_scale: reader.read(&config_map::MIN_SCALE),
        max_scale: unless_zero(reader.read(&config_map::MAX_SCALE)),
        max_scale_limit: unless_zero(reader.read(&config_map::MAX_SCALE_LIMIT)),
        initial_scale: reader.read(&config_map::INITIAL_SCALE),
        allow_zero_initial_scale: reader.read(&config_map::ALLOW_ZERO_INITIAL_SCALE),
        enable_scale_to_zero: reader.read(&config_map::ENABLE_SCALE_TO_ZERO),
        scale_to_zero_grace_period: reader.read(&config_map::SCALE_TO_ZERO_GRACE_PERIOD),
        scale_to_zero_pod_retention_period: reader.read(&config_map::SCALE_TO_ZERO_POD_RETENTION_PERIOD),
        pod_autoscaler_class: reader.read(&config_map::POD_AUTOSCALER_CLASS),
        written: reader.written,
    }
}

struct MapReader<'a> {
    data: &'a BTreeMap<String, String>,
    findings: &'a mut Findings,
    written: BTreeSet<&'static str>,
}

impl MapReader<'_> {
    /// The value that is written, or else the default; the default, too, where the written one is a fault.
    fn read<R: Rule>(&mut self, key: &Key<R>) -> R::Value {
        let Some(text) = self.data.get(key.name) else { return key.default_value() };
        self.written.insert(key.name);
        key.read(text).unwrap_or_else(|rule| {
            self.findings.fault(key.name, text, rule);
            key.default_value()
        })
    }
}

/// The rules that tie one key to another. A key that is a fault by itself takes no part: one mistake, one line.
fn check_across_keys(data: &BTreeMap<String, String>, findings: &mut Findings) {
    let target = legal(data, &config_map::CONTAINER_CONCURRENCY_TARGET_DEFAULT);
    let fraction = legal(data, &config_map::CONTAINER_CONCURRENCY_TARGET_PERCENTAGE);
    if let (Some(target), Some(fraction)) = (target, fraction)
        && fraction * target < 0.01
    {
        let key = config_map::CONTAINER_CONCURRENCY_TARGET_DEFAULT.name;
        let percentage = config_map::CONTAINER_CONCURRENCY_TARGET_PERCENTAGE.name;
        let rule = format!("comes to less than 0.01 when multiplied by {percentage}");
        findings.faults.push(written_or_default(data, key, target, rule));
    }

    let min_scale = legal(data, &config_map::MIN_SCALE);
    let max_scale = legal(data, &config_map::MAX_SCALE);
    let limit = legal(data, &config_map::MAX_SCALE_LIMIT);
    let mut is_within_limit = true;
    if let (Some(max), Some(limit)) = (max_scale, limit)
        && limit > 0
        && !(1..=limit).contains(&max)
    {
        is_within_limit = false;
        let rule = format!("is not between 1 and the max-scale-limit of {limit}");
        findings.faults.push(written_or_default(data, config_map::MAX_SCALE.name, max, rule));
    }
    if let (Some(min), Some(max)) = (min_scale, max_scale)
        && is_within_limit
        && max > 0
        && min > max
    {
        let rule = format!("is above the max-scale of {max}");
        findings.faults.push(written_or_default(data, config_map::MIN_SCALE.name, min, rule));
    }

    let initial = legal(data, &config_map::INITIAL_SCALE);
    let allow_zero = legal(data, &config_map::ALLOW_ZERO_INITIAL_SCALE);
    if (initial, allow_zero) == (Some(0), Some(false)) {
        let rule = "is allowed only with allow-zero-initial-scale: \"true\"";
        findings.fault(config_map::INITIAL_SCALE.name, &data[config_map::INITIAL_SCALE.name], rule);
    }
}

/// The value of a key, written or default, unless it is a fault by itself.
fn legal<R: Rule>(data: &BTreeMap<String, String>, key: &Key<R>) -> Option<R::Value> {
    match data.get(key.name) {
        Some(text) => key.read(text).ok(),
        None => Some(key.default_value()),
    }
}

/// A fault of a key that may not have been written at all: then its default is what breaks the rule.
fn written_or_default(
    data: &BTreeMap<String, String>,
    key: &str,
    value: impl std::fmt::Display,
    rule: String,
) -> Fault {
    match data.get(key) {
        Some(text) => Fault::new(key, text, rule),
        None => Fault::without_value(key, format!("the default, {value}, {rule}")),
    }
}

fn advise(key: &str, value: &str, findings: &mut Findings) {
    let known = || config_map::ALL.iter().map(|entry| entry.name());
    if !known().any(|name| name == key) {
        if !config_map::IGNORED.contains(&key) {
            let advice = match spelling::nearest(key, known()) {
                Some(name) => format!("unknown key; did you mean `{name}`?"),
                None => "unknown key; it has no effect".to_owned(),
            };
            findings.warn(key, advice);
        }
        return;
    }
    if key == config_map::CONTAINER_CONCURRENCY_TARGET_PERCENTAGE.name
        && let Some(raw) = crate::number::parse_float(value)
        && (1.0..2.0).contains(&raw)
    {
        let meaning = if raw > 1.0 { raw } else { 100.0 };
        findings
            .warn(key, format!("{value} means {meaning} % (up to 1 it is a fraction, above 1 a percentage)"));
    }
}
