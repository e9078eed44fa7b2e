//! Settings of one revision: its `autoscaling.knative.dev/*` annotations.
//!
//! A key has a canonical spelling (`min-scale`) and often an older one (`minScale`), which counts only where the
//! canonical one is absent. What is accepted is what Knative's webhook accepts, except for `NaN`.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_core::{Aggregation, TargetBurstCapacity};

use crate::autoscaler::{AutoscalerConfig, burst_capacity};
use crate::fault::{Findings, Parsed};
use crate::keys::annotation::{self as keys, Metric, PREFIX};
use crate::keys::{Key, Rule, config_map};
use crate::spelling::nearest;

/// The settings of one revision; `None` where it leaves one to the ConfigMap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    /// The class of autoscaler.
    pub class: Option<String>,
    /// The metric.
    pub metric: Option<String>,
    /// How much of the metric a pod can take.
    pub target: Option<f64>,
    /// The share of it that is aimed for, in percent.
    pub target_utilization_percentage: Option<f64>,
    /// How much unexpected load must find room.
    pub target_burst_capacity: Option<TargetBurstCapacity>,
    /// Never fewer pods.
    pub min_scale: Option<u32>,
    /// Never more pods; 0: unlimited.
    pub max_scale: Option<u32>,
    /// How many pods a new revision must reach once.
    pub initial_scale: Option<u32>,
    /// How many pods there are at least while there is demand; 2 or more.
    pub activation_scale: Option<u32>,
    /// How long a lower number must hold.
    pub scale_down_delay: Option<Duration>,
    /// The shortest time the last pod stays.
    pub scale_to_zero_pod_retention_period: Option<Duration>,
    /// The window that decides in calm times.
    pub window: Option<Duration>,
    /// The panic window in percent of it.
    pub panic_window_percentage: Option<f64>,
    /// Demand in percent of the ready pods at which panic begins.
    pub panic_threshold_percentage: Option<f64>,
    /// How samples are weighed.
    pub aggregation: Option<Aggregation>,
    /// How long the revision may take to come up.
    pub progress_deadline: Option<Duration>,
    /// The spelling found, by canonical key.
    spellings: BTreeMap<&'static str, &'static str>,
}

impl Annotations {
    /// Reads all annotations of a revision; those that are not about scaling are passed over.
    pub fn parse(map: &BTreeMap<String, String>, config: &AutoscalerConfig) -> Parsed<Self> {
        let mut reader = Reader { map, findings: Findings::default(), spellings: BTreeMap::new() };
        let annotations = Annotations {
            class: reader.read(&keys::CLASS),
            metric: reader.metric(config),
            target: reader.read(&keys::TARGET),
            target_utilization_percentage: reader.read(&keys::TARGET_UTILIZATION_PERCENTAGE),
            target_burst_capacity: reader.read(&keys::TARGET_BURST_CAPACITY).map(burst_capacity),
            min_scale: reader.read(&keys::MIN_SCALE),
            max_scale: reader.read(&keys::MAX_SCALE),
            initial_scale: reader.initial_scale(config),
            activation_scale: reader.read(&keys::ACTIVATION_SCALE),
            scale_down_delay: reader.read(&keys::SCALE_DOWN_DELAY),
            scale_to_zero_pod_retention_period: reader.read(&keys::SCALE_TO_ZERO_POD_RETENTION_PERIOD),
            window: reader.read(&keys::WINDOW),
            panic_window_percentage: reader.read(&keys::PANIC_WINDOW_PERCENTAGE),
            panic_threshold_percentage: reader.read(&keys::PANIC_THRESHOLD_PERCENTAGE),
            aggregation: reader.aggregation(),
            progress_deadline: reader.read(&keys::PROGRESS_DEADLINE).flatten(),
            spellings: BTreeMap::new(),
        };
        let Reader { mut findings, spellings, .. } = reader;
        let annotations = Annotations { spellings, ..annotations };
        annotations.check_across_keys(map, config, &mut findings);
        advise(map, &mut findings);
        Parsed::new(annotations, findings)
    }

    /// The key as it was written, if it was: its canonical spelling or its alias.
    pub fn spelling(&self, canonical: &str) -> Option<&'static str> {
        self.spellings.get(canonical).copied()
    }

    /// The rules that tie one annotation to another, or to the ConfigMap's limit. A key that is a fault by itself
    /// takes no part.
    fn check_across_keys(
        &self,
        map: &BTreeMap<String, String>,
        config: &AutoscalerConfig,
        findings: &mut Findings,
    ) {
        let written = |canonical| self.spelling(canonical).map(|key| (key, map[key].as_str()));
        let max_scale = self.max_scale.filter(|&max| max > 0);
        if let (Some(min), Some(max), Some((key, text))) =
            (self.min_scale, max_scale, written(keys::MAX_SCALE.name))
            && max < min
        {
            findings.fault(key, text, format!("is less than the min-scale of {min}"));
        }
        if let (Some(max), Some(limit), Some((key, text))) =
            (self.max_scale, config.max_scale_limit, written(keys::MAX_SCALE.name))
        {
            if max == 0 {
                findings.fault(key, text, format!("means unlimited; the max-scale-limit is {limit}"));
            } else if max > limit {
                findings.fault(key, text, format!("is above the max-scale-limit of {limit}"));
            }
        }
        if let (Some(activation), Some((key, text))) =
            (self.activation_scale, written(keys::ACTIVATION_SCALE.name))
        {
            if let Some(min) = self.min_scale.filter(|&min| min > activation) {
                findings.fault(key, text, format!("is less than the min-scale of {min}"));
            } else if let Some(max) = max_scale.filter(|&max| max < activation) {
                findings.fault(key, text, format!("is above the max-scale of {max}"));
            }
        }
    }
}

struct Reader<'a> {
    map: &'a BTreeMap<String, String>,
    findings: Findings,
    spellings: BTreeMap<&'static str, &'static str>,
}

impl<'a> Reader<'a> {
    /// The spelling that counts and what is written there. A present key counts even if its value is no good.
    fn written<R: Rule>(&mut self, key: &Key<R>) -> Option<(&'static str, &'a str)> {
        let spelling =
            [Some(key.name), key.alias].into_iter().flatten().find(|name| self.map.contains_key(*name))?;
        self.spellings.insert(key.name, spelling);
        Some((spelling, &self.map[spelling]))
    }

    fn read<R: Rule>(&mut self, key: &Key<R>) -> Option<R::Value> {
        let (spelling, text) = self.written(key)?;
        key.read(text).map_err(|rule| self.findings.fault(spelling, text, rule)).ok()
    }

    /// A metric must be one that the class knows; the class is the ConfigMap's where the revision names none.
    fn metric(&mut self, config: &AutoscalerConfig) -> Option<String> {
        let (spelling, text) = self.written(&keys::METRIC)?;
        let class = self.map.get(keys::CLASS.name).unwrap_or(&config.pod_autoscaler_class);
        if Metric::is_known_to(class, text) {
            return Some(text.to_owned());
        }
        let rule = match class.as_str() {
            keys::KPA => "is not one of concurrency, rps".to_owned(),
            class => format!("is not a metric of {class}"),
        };
        self.findings.fault(spelling, text, rule);
        None
    }

    fn initial_scale(&mut self, config: &AutoscalerConfig) -> Option<u32> {
        let number = self.read(&keys::INITIAL_SCALE)?;
        let spelling = self.spellings[keys::INITIAL_SCALE.name];
        if number.is_none() {
            // Knative's webhook reads 64 bits and its autoscaler 32. It then falls back in silence.
            self.spellings.remove(keys::INITIAL_SCALE.name);
            self.findings
                .warn(spelling, "too large a number; the initial-scale of the ConfigMap is used instead");
        }
        if number == Some(0) && !config.allow_zero_initial_scale {
            let rule = "is allowed only where config-autoscaler sets allow-zero-initial-scale";
            self.findings.fault(spelling, &self.map[spelling], rule);
        }
        number
    }

    /// Only a revision that names our class is held to our algorithms; elsewhere an unknown word means linear.
    fn aggregation(&mut self) -> Option<Aggregation> {
        let (spelling, text) = self.written(&keys::METRIC_AGGREGATION_ALGORITHM)?;
        let is_checked = self.map.get(keys::CLASS.name).is_some_and(|class| class == keys::KPA);
        match (keys::METRIC_AGGREGATION_ALGORITHM.read(text), is_checked) {
            (Err(rule), true) => self.findings.fault(spelling, text, rule),
            (Err(_), false) => {
                self.findings.warn(spelling, format!("{text:?} is no known algorithm; linear is used"));
            }
            (Ok(_), _) => {}
        }
        Some(match text {
            keys::WEIGHTED_EXPONENTIAL | keys::WEIGHTED_EXPONENTIAL_CAMEL => Aggregation::WeightedExponential,
            _ => Aggregation::Linear,
        })
    }
}

/// Settings that are legal and without effect: unknown keys, keys of the ConfigMap, and an alias beside its canonical key.
fn advise(map: &BTreeMap<String, String>, findings: &mut Findings) {
    let spellings = || keys::ALL.iter().flat_map(|entry| [Some(entry.name()), entry.alias()]).flatten();
    for key in map.keys() {
        let Some(short) = key.strip_prefix(PREFIX) else { continue };
        if let Some(entry) = keys::ALL.iter().find(|entry| entry.alias() == Some(key)) {
            if map.contains_key(entry.name()) {
                findings.warn(key, format!("no effect: {} is set as well and counts", entry.name()));
            }
            continue;
        }
        if spellings().any(|name| name == key) {
            continue;
        }
        let in_config_map = config_map::ALL.iter().find(|entry| entry.name() == short);
        let advice = match in_config_map.map(|entry| entry.counterpart()) {
            Some(Some(annotation)) => {
                format!("no effect: {short} is a key of the ConfigMap; the annotation is `{annotation}`")
            }
            Some(None) => {
                format!(
                    "no effect: {short} is set for all revisions at once, in the ConfigMap config-autoscaler"
                )
            }
            None => match nearest(short, spellings().filter_map(|name| name.strip_prefix(PREFIX))) {
                Some(name) => format!("unknown annotation; did you mean `{PREFIX}{name}`?"),
                None => "unknown annotation; it has no effect".to_owned(),
            },
        };
        findings.warn(key, advice);
    }
}
