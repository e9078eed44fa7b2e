//! Annotations, ConfigMap and defaults merged into the one [`RevisionSpec`] the autoscaler works with, together
//! with where each setting came from.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::{
    Aggregation, ConcurrencyLimit, Reachability, RevisionSpec, ScalingMetric, TargetBurstCapacity,
};
use serde::Serialize;

use crate::annotations::Annotations;
use crate::autoscaler::AutoscalerConfig;
use crate::duration;
use crate::fault::{Findings, Parsed};
use crate::keys::{Key, annotation, config_map};
use crate::wording::plain as number;

/// The verdict about a revision whose settings are legal.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Ours to scale.
    Resolved(Box<Resolved>),
    /// Another autoscaler's class, named here: it is not touched.
    OtherClass(String),
}

/// The settings of a revision in force, and where each came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The settings that the autoscaler works with.
    pub spec: RevisionSpec,
    /// The same for people, in the order in which it is best read.
    pub settings: Vec<Setting>,
}

/// One setting in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The name, as in the annotation or ConfigMap key where there is one.
    pub name: &'static str,
    /// The value, with its unit.
    pub value: String,
    /// The place it was set at.
    #[serde(flatten)]
    pub from: Origin,
}

/// The place a setting was set at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", content = "key", rename_all = "lowercase")]
pub enum Origin {
    /// Nowhere: the default is in force.
    Default,
    /// In the ConfigMap, under this key.
    Config(&'static str),
    /// In an annotation of the revision, under this key.
    Annotation(&'static str),
    /// In a field of the manifest, such as `containerConcurrency`.
    Field(String),
}

impl Origin {
    /// `default`, `config`, `annotation` or `field`.
    pub fn name(&self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::Config(_) => "config",
            Origin::Annotation(_) => "annotation",
            Origin::Field(_) => "field",
        }
    }
}

/// Resolves the settings of a revision.
///
/// ```
/// use pilotlight_config::{AutoscalerConfig, Verdict, resolve};
/// use pilotlight_core::{ConcurrencyLimit, Reachability};
/// let annotations = [("autoscaling.knative.dev/target".to_owned(), "10".to_owned())].into();
/// let unlimited = ConcurrencyLimit::UNLIMITED;
/// let parsed = resolve(&AutoscalerConfig::default(), &annotations, unlimited, Reachability::Reachable);
/// let Verdict::Resolved(resolved) = parsed.value? else { unreachable!("the class is ours") };
/// assert_eq!(resolved.spec.target, 7.0);
/// # Ok::<(), pilotlight_config::Faults>(())
/// ```
pub fn resolve(
    config: &AutoscalerConfig,
    annotations: &BTreeMap<String, String>,
    container_concurrency: ConcurrencyLimit,
    reachability: Reachability,
) -> Parsed<Verdict> {
    resolve_within(DEFAULT_PROGRESS_DEADLINE, config, annotations, container_concurrency, reachability)
}

/// The same as [`resolve()`] where the ConfigMap `config-deployment` sets another progress deadline than Knative's default:
/// the time that a revision without one of its own may take to come up.
pub fn resolve_within(
    progress_deadline: Duration,
    config: &AutoscalerConfig,
    annotations: &BTreeMap<String, String>,
    container_concurrency: ConcurrencyLimit,
    reachability: Reachability,
) -> Parsed<Verdict> {
    let Parsed { value, warnings } = Annotations::parse(annotations, config);
    let annotations = match value {
        Ok(annotations) => annotations,
        Err(faults) => return Parsed { value: Err(faults), warnings },
    };
    if let Some(class) = other_class(config, &annotations) {
        return Parsed { value: Ok(Verdict::OtherClass(class)), warnings };
    }
    let annotations = &annotations;
    let revision = Revision { config, annotations, container_concurrency, reachability, progress_deadline };
    let spec = revision.spec();
    let settings = revision.settings(&spec);
    let mut findings = Findings { warnings, ..Findings::default() };
    revision.advise(&spec, &mut findings);
    Parsed::new(Verdict::Resolved(Box::new(Resolved { spec, settings })), findings)
}

/// Knative's default progress deadline, from its ConfigMap `config-deployment`.
const DEFAULT_PROGRESS_DEADLINE: Duration = Duration::from_secs(600);

/// How much longer than the progress deadline an attempt to wake a revision may take.
const ACTIVATION_BUFFER: Duration = Duration::from_secs(30);

/// The progress deadline that led to a revision's activation timeout.
pub(crate) fn progress_deadline(spec: &RevisionSpec) -> Duration {
    spec.activation_timeout.saturating_sub(ACTIVATION_BUFFER)
}

/// The share of the target that is aimed for when scaling on requests per second. No key changes it.
const RPS_TARGET_FRACTION: f64 = 0.7;

const LEAST_TARGET: f64 = 0.01;

/// The class, if it is not ours. A revision that names no class is ours even where the ConfigMap says otherwise:
/// whoever asks has chosen this autoscaler. Only a metric that we cannot measure settles it the other way.
fn other_class(config: &AutoscalerConfig, annotations: &Annotations) -> Option<String> {
    match (&annotations.class, &annotations.metric) {
        (Some(class), _) if class != annotation::KPA => Some(class.clone()),
        (None, Some(metric)) if !matches!(metric.as_str(), "concurrency" | "rps") => {
            Some(config.pod_autoscaler_class.clone())
        }
        _ => None,
    }
}

struct Revision<'a> {
    config: &'a AutoscalerConfig,
    annotations: &'a Annotations,
    container_concurrency: ConcurrencyLimit,
    reachability: Reachability,
    progress_deadline: Duration,
}

impl Revision<'_> {
    fn spec(&self) -> RevisionSpec {
        let Revision { config, annotations, reachability, .. } = *self;
        let stable_window = annotations.window.unwrap_or(config.stable_window);
        let panic_percentage = annotations.panic_window_percentage.unwrap_or(config.panic_window_percentage);
        let threshold = annotations.panic_threshold_percentage.unwrap_or(config.panic_threshold_percentage);
        let burst = annotations.target_burst_capacity.unwrap_or(config.target_burst_capacity);
        let (target, total) = self.target();
        RevisionSpec {
            scaling_metric: self.metric(),
            target,
            total,
            target_burst_capacity: burst,
            activator_capacity: config.activator_capacity,
            panic_threshold: threshold / 100.0,
            max_scale_up_rate: config.max_scale_up_rate,
            max_scale_down_rate: config.max_scale_down_rate,
            stable_window,
            panic_window: panic_window(stable_window, panic_percentage),
            scale_down_delay: annotations.scale_down_delay.unwrap_or(config.scale_down_delay),
            activation_scale: annotations.activation_scale,
            aggregation: annotations.aggregation.unwrap_or(Aggregation::Linear),
            reachability,
            // With the activator always in the path it sees every request, and nobody needs to ask the pods.
            scraped: burst != TargetBurstCapacity::Unlimited,
            min_scale: match reachability {
                Reachability::Unreachable => 0,
                Reachability::Reachable | Reachability::Unknown => self.min_scale(),
            },
            max_scale: match annotations.max_scale {
                Some(0) => None,
                Some(max) => Some(max),
                None => config.max_scale,
            },
            initial_scale: annotations.initial_scale.unwrap_or(config.initial_scale),
            enable_scale_to_zero: config.enable_scale_to_zero,
            scale_to_zero_grace_period: config.scale_to_zero_grace_period,
            pod_retention: annotations
                .scale_to_zero_pod_retention_period
                .unwrap_or(config.scale_to_zero_pod_retention_period),
            activation_timeout: annotations
                .progress_deadline
                .unwrap_or(self.progress_deadline)
                .saturating_add(ACTIVATION_BUFFER),
        }
    }

    fn metric(&self) -> ScalingMetric {
        match self.annotations.metric.as_deref() {
            Some("rps") => ScalingMetric::Rps,
            _ => ScalingMetric::Concurrency,
        }
    }

    fn min_scale(&self) -> u32 {
        self.annotations.min_scale.unwrap_or(self.config.min_scale)
    }

    /// The target per pod, and the most a pod can take.
    fn target(&self) -> (f64, f64) {
        let limit = self.container_concurrency.get().map(f64::from);
        let (default_total, default_fraction) = match self.metric() {
            ScalingMetric::Rps => (self.config.requests_per_second_target_default, RPS_TARGET_FRACTION),
            ScalingMetric::Concurrency => (
                limit.unwrap_or(self.config.container_concurrency_target_default),
                self.config.container_concurrency_target_fraction,
            ),
        };
        let total = match (self.annotations.target, self.metric(), limit) {
            (Some(target), ScalingMetric::Concurrency, Some(limit)) => target.min(limit),
            (Some(target), ..) => target,
            (None, ..) => default_total,
        };
        let fraction = self.annotations.target_utilization_percentage.map_or(default_fraction, |p| p / 100.0);
        ((total * fraction).max(LEAST_TARGET), total)
    }

    fn settings(&self, spec: &RevisionSpec) -> Vec<Setting> {
        let mut settings = Vec::new();
        let mut add = |name, value: String, from| settings.push(Setting { name, value, from });
        let per_pod = match spec.scaling_metric {
            ScalingMetric::Concurrency => "in flight",
            ScalingMetric::Rps => "per second",
        };
        let metric = match spec.scaling_metric {
            ScalingMetric::Concurrency => "concurrency",
            ScalingMetric::Rps => "rps",
        };
        let count = |n: u32| n.to_string();
        let time = duration::format;
        let percent = |share: f64| format!("{} %", number(share * 100.0));

        add("metric", metric.to_owned(), self.origin(annotation::METRIC.name, None));
        add("total", format!("{} {per_pod}", number(spec.total)), self.total_origin(spec));
        add("utilization", percent(spec.target / spec.total), self.utilization_origin(spec));
        add("target", format!("{} {per_pod}", number(spec.target)), self.total_origin(spec));
        let burst = match spec.target_burst_capacity {
            TargetBurstCapacity::Off => "off".to_owned(),
            TargetBurstCapacity::Unlimited => "unlimited".to_owned(),
            TargetBurstCapacity::Of(burst) => number(burst),
        };
        add("target-burst-capacity", burst, self.both(&annotation::TARGET_BURST_CAPACITY));
        add(
            "activator-capacity",
            number(spec.activator_capacity),
            self.config(&config_map::ACTIVATOR_CAPACITY),
        );
        add("min-scale", count(spec.min_scale), self.both(&annotation::MIN_SCALE));
        let max = spec.max_scale.map_or("unlimited".to_owned(), count);
        add("max-scale", max, self.both(&annotation::MAX_SCALE));
        add("initial-scale", count(spec.initial_scale), self.both(&annotation::INITIAL_SCALE));
        let activation = spec.activation_scale.map_or("as demand says".to_owned(), count);
        add("activation-scale", activation, self.both(&annotation::ACTIVATION_SCALE));
        add("stable-window", time(spec.stable_window), self.both(&annotation::WINDOW));
        add("panic-window", time(spec.panic_window), self.both(&annotation::PANIC_WINDOW_PERCENTAGE));
        add(
            "panic-threshold",
            percent(spec.panic_threshold),
            self.both(&annotation::PANIC_THRESHOLD_PERCENTAGE),
        );
        add("max-scale-up-rate", number(spec.max_scale_up_rate), self.config(&config_map::MAX_SCALE_UP_RATE));
        add(
            "max-scale-down-rate",
            number(spec.max_scale_down_rate),
            self.config(&config_map::MAX_SCALE_DOWN_RATE),
        );
        add("scale-down-delay", time(spec.scale_down_delay), self.both(&annotation::SCALE_DOWN_DELAY));
        let aggregation = match spec.aggregation {
            Aggregation::Linear => "linear",
            Aggregation::WeightedExponential => "weighted-exponential",
        };
        add("aggregation", aggregation.to_owned(), self.both(&annotation::METRIC_AGGREGATION_ALGORITHM));
        let to_zero = spec.enable_scale_to_zero.to_string();
        add("enable-scale-to-zero", to_zero, self.config(&config_map::ENABLE_SCALE_TO_ZERO));
        let grace = time(spec.scale_to_zero_grace_period);
        add("scale-to-zero-grace-period", grace, self.config(&config_map::SCALE_TO_ZERO_GRACE_PERIOD));
        let retention = time(spec.pod_retention);
        add(
            "scale-to-zero-pod-retention-period",
            retention,
            self.both(&annotation::SCALE_TO_ZERO_POD_RETENTION_PERIOD),
        );
        add("activation-timeout", time(spec.activation_timeout), self.both(&annotation::PROGRESS_DEADLINE));
        settings
    }

    fn both<R>(&self, key: &Key<R>) -> Origin {
        self.origin(key.name, key.counterpart)
    }

    fn config<R>(&self, key: &Key<R>) -> Origin {
        if self.config.is_written(key.name) { Origin::Config(key.name) } else { Origin::Default }
    }

    fn origin(&self, annotation: &str, config: Option<&'static str>) -> Origin {
        match (self.annotations.spelling(annotation), config) {
            (Some(spelling), _) => Origin::Annotation(spelling),
            (None, Some(key)) if self.config.is_written(key) => Origin::Config(key),
            _ => Origin::Default,
        }
    }

    fn total_origin(&self, spec: &RevisionSpec) -> Origin {
        let limit =
            self.container_concurrency.get().filter(|_| spec.scaling_metric == ScalingMetric::Concurrency);
        match self.annotations.target {
            Some(target) if limit.is_none_or(|limit| target <= f64::from(limit)) => {
                self.origin(annotation::TARGET.name, None)
            }
            _ if limit.is_some() => Origin::Field("containerConcurrency".to_owned()),
            _ if spec.scaling_metric == ScalingMetric::Rps => {
                self.config(&config_map::REQUESTS_PER_SECOND_TARGET_DEFAULT)
            }
            _ => self.config(&config_map::CONTAINER_CONCURRENCY_TARGET_DEFAULT),
        }
    }

    fn utilization_origin(&self, spec: &RevisionSpec) -> Origin {
        let config = match spec.scaling_metric {
            ScalingMetric::Concurrency => annotation::TARGET_UTILIZATION_PERCENTAGE.counterpart,
            ScalingMetric::Rps => None,
        };
        self.origin(annotation::TARGET_UTILIZATION_PERCENTAGE.name, config)
    }

    /// Advice about settings that are legal and probably not meant.
    fn advise(&self, spec: &RevisionSpec, findings: &mut Findings) {
        let annotations = self.annotations;
        let written = |canonical| annotations.spelling(canonical);
        let class = &self.config.pod_autoscaler_class;
        if annotations.class.is_none() && class != annotation::KPA {
            let advice =
                format!("not written, and the default class is {class}; it is scaled here all the same");
            findings.warn(annotation::CLASS.name, advice);
        }
        if let (Some(key), Some(target)) = (written(annotation::TARGET.name), annotations.target)
            && spec.total < target
        {
            let limit = self.container_concurrency;
            findings.warn(
                key,
                format!("a pod takes no more than its containerConcurrency of {limit}; that counts"),
            );
        }
        if let Some(key) = written(annotation::SCALE_TO_ZERO_POD_RETENTION_PERIOD.name)
            && spec.pod_retention > Duration::ZERO
        {
            if self.min_scale() > 0 {
                findings.warn(
                    key,
                    format!("no effect: with min-scale {} the last pod never goes", self.min_scale()),
                );
            } else if !spec.enable_scale_to_zero {
                findings.warn(key, "no effect: config-autoscaler switches scaling to zero off");
            }
        }
        if let (Some(key), Some(max)) = (written(annotation::INITIAL_SCALE.name), spec.max_scale)
            && spec.initial_scale > max
        {
            findings.warn(
                key,
                format!("above the max-scale of {max}, and still the number of pods started first"),
            );
        }
        if let (Some(key), Some(activation)) =
            (written(annotation::ACTIVATION_SCALE.name), spec.activation_scale)
            && activation <= self.min_scale()
        {
            findings.warn(key, format!("no effect: min-scale keeps {} pods at all times", self.min_scale()));
        }
        if let (Some(max), None) = (spec.max_scale, annotations.max_scale)
            && let (Some(key), Some(min)) = (written(annotation::MIN_SCALE.name), annotations.min_scale)
            && min > max
        {
            findings.warn(key, format!("above the max-scale of {max} that config-autoscaler sets"));
        }
        if spec.panic_window == spec.stable_window {
            let key = written(annotation::PANIC_WINDOW_PERCENTAGE.name).unwrap_or(annotation::WINDOW.name);
            findings
                .warn(key, "the panic window is as long as the stable window: bursts are noticed no sooner");
        }
    }
}

/// Whole seconds, half a second up, at least one.
fn panic_window(stable_window: Duration, percentage: f64) -> Duration {
    // In floating-point nanoseconds and in this order, as Knative computes it: the halves must fall alike.
    let nanos = (stable_window.as_nanos() as f64 * percentage / 100.0) as u64;
    let seconds = (nanos + 500_000_000) / 1_000_000_000;
    Duration::from_secs(seconds.max(1))
}
